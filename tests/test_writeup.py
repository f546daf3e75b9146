"""The final write-up: made of what the notebooks found, typeset, with nothing missing in silence."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from pypdf import PdfReader

typst = pytest.importorskip(
    "typst", reason="the write-up needs typst: pip install labtools[course]"
)
ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location(
    "make_handin", ROOT / "packages" / "lab_course" / "submission.py"
)
handin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(handin)


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        (r"16 K in $T_{\rm eff}$", '16 K in $T_"eff"$'),
        (r"$\log g$ = 2.4 $\pm$ 0.1", "$log g$ = 2.4 $plus.minus$ 0.1"),
        (r"$\chi^{2}$ of **all** *good* pixels", "$chi^(2)$ of #strong[all] #emph[good] pixels"),
        ("star_1 of #3 at [SDSS](https://www.sdss.org)", r"star\_1 of \#3 at SDSS"),
    ],
)
def test_markdown_becomes_typst(markdown, expected):
    assert handin.to_typst(markdown) == expected


def test_every_finding_of_the_notebooks_is_in_the_document(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_STUDENT", "Cecilia Payne")
    found = {
        path.stem[:2]: handin.findings(path)
        for path in sorted((ROOT / "notebooks").glob("0[1-7]*.ipynb"))
    }
    assert all(len(items) >= 3 for items in found.values()), found
    (tmp_path / "w.typ").write_text(
        handin.write_up(SimpleNamespace(title="simulated survey"), found, {})
    )
    typst.compile(tmp_path / "w.typ", output=tmp_path / "w.pdf")
    text = "".join(page.extract_text() for page in PdfReader(tmp_path / "w.pdf").pages)
    assert "Cecilia Payne" in text
    assert "simulated survey" in text
    for heading in (
        "Abstract",
        "Method",
        "References",
        *(heading for heading, _ in handin.SECTIONS.values()),
    ):
        assert heading.split()[0] in text
    assert "{" not in text
    assert "\\" not in text


def test_findings_are_those_of_the_last_list(tmp_path):
    output = nbformat.v4.new_output(
        "display_data", {"text/markdown": "\n1. one $x$\n   more\n2. two\n"}
    )
    cell = nbformat.v4.new_code_cell("Markdown(...)", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    assert handin.findings(tmp_path / "n.ipynb") == ["one $x$ more", "two"]


def test_what_an_executed_notebook_depends_on(tmp_path, monkeypatch):
    def write(source):
        nbformat.write(
            nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]),
            tmp_path / "n.ipynb",
        )
        return handin.made_by(tmp_path / "n.ipynb")

    first = write("1 + 1")
    assert write("1 + 1") == first
    assert write("1 + 2") != first
    monkeypatch.setenv("LAB_SURVEY", "dr17")
    assert write("1 + 1") != first


def test_a_name_is_asked_for():
    clean = {name: value for name, value in os.environ.items() if name != "LAB_STUDENT"}
    done = subprocess.run(
        [sys.executable, ROOT / "packages" / "lab_course" / "submission.py"],
        env=clean,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "NAME" in done.stderr
