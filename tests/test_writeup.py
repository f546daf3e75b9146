"""What is handed in: the student's own notebooks, their answers typeset, and nothing missing in
silence."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader

typst = pytest.importorskip(
    "typst", reason="the write-up needs typst: pip install labtools[course]"
)

from lab_course import submission  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DOT = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
).decode()


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        (r"16 K in $T_{\rm eff}$", '16 K in $T_"eff"$'),
        (r"$\log g$ = 2.4 $\pm$ 0.1", "$log g$ = 2.4 $plus.minus$ 0.1"),
        (r"$\chi^{2}$ of **all** *good* pixels", "$chi^(2)$ of #strong[all] #emph[good] pixels"),
        ("star_1 of #3 at [SDSS](https://www.sdss.org)", r"star\_1 of \#3 at SDSS"),
        ("a // b", r"a \/\/ b"),
    ],
)
def test_markdown_becomes_typst(markdown, expected):
    assert submission.to_typst(markdown) == expected


def executed(folder, answer="Giants have a lower **gravity** than dwarfs: $\\log g$ < 4."):
    """An executed notebook with one problem, a figure and an abstract."""
    about = {"image/png": {"alt": "Gravity against temperature of all stars"}}
    picture = new_output("display_data", {"image/png": DOT}, metadata=about)
    cells = [
        new_markdown_cell("# A notebook"),
        new_markdown_cell("## Problem 1 · Which stars?"),
        new_code_cell("plot()", outputs=[picture]),
        new_markdown_cell(f"**Answer.** {answer}"),
        new_markdown_cell("## Further"),
        new_markdown_cell("**Answer.** This is no problem of the assignment."),
        new_markdown_cell("**Abstract.** We measure labels of giants."),
    ]
    path = folder / "01_selection.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_section_holds_the_answer_and_the_figure_of_its_problem(tmp_path):
    (section,), abstract = submission.read_sections(executed(tmp_path))
    assert section.problem == 1
    assert section.answers == ["Giants have a lower **gravity** than dwarfs: $\\log g$ < 4."]
    assert section.caption == "Gravity against temperature of all stars"
    assert section.picture.startswith(b"\x89PNG")
    assert abstract == "We measure labels of giants."


def test_an_answer_that_was_not_given_is_missing(tmp_path):
    notebook = nbformat.read(executed(tmp_path), 4)
    notebook.cells[3] = new_markdown_cell(
        "*Your answer: replace this line.*", metadata={"nbgrader": {"solution": True}}
    )
    nbformat.write(notebook, tmp_path / "01_selection.ipynb")
    sections, abstract = submission.read_sections(tmp_path / "01_selection.ipynb")
    missing = submission.missing_pieces(sections, abstract)
    assert "an answer to Problem 1" in missing
    assert "the figure of Problem 1" not in missing
    assert "the figure of Problem 12" in missing


def test_the_document_has_a_title_an_author_and_all_that_was_written(tmp_path):
    sections, abstract = submission.read_sections(executed(tmp_path))
    document = submission.write_up(
        "simulated survey", "Cecilia // Payne", abstract, sections, tmp_path
    )
    (tmp_path / "w.typ").write_text(document, encoding="utf-8")
    typst.compile(tmp_path / "w.typ", output=tmp_path / "w.pdf")
    reader = PdfReader(tmp_path / "w.pdf")
    text = " ".join("".join(page.extract_text() for page in reader.pages).split())
    assert reader.metadata.author == "Cecilia // Payne"
    assert reader.metadata.title == "Labels of red giants from their spectra"
    for words in ("Cecilia // Payne", "simulated survey", "Abstract", "Method", "References"):
        assert words in text
    assert "Giants have a lower gravity than dwarfs" in text
    assert "Gravity against temperature" in text
    assert "no problem of the assignment" not in text


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0[1-7]*.ipynb")), ids=str)
def test_the_labs_own_answers_can_be_typeset(path, tmp_path):
    sections, abstract = submission.read_sections(path)
    assert sections
    assert all(section.answers for section in sections), [
        s.heading for s in sections if not s.answers
    ]
    document = submission.write_up(
        "simulated survey", "Cecilia Payne", abstract, sections, tmp_path
    )
    (tmp_path / "w.typ").write_text(document, encoding="utf-8")
    typst.compile(tmp_path / "w.typ", output=tmp_path / "w.pdf")


def test_the_lab_as_a_whole_answers_every_problem():
    sections, abstracts = [], ""
    for path in sorted((ROOT / "notebooks").glob("0[1-7]*.ipynb")):
        found, words = submission.read_sections(path)
        sections, abstracts = sections + found, abstracts + words
    assert submission.missing_pieces(sections, abstracts) == []


def own_notebook(source, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)


def test_the_labs_own_notebooks_are_no_work(tmp_path):
    reference = "### BEGIN SOLUTION\nx = 1\n### END SOLUTION"
    own_notebook(reference, tmp_path / "notebooks" / "01_x.ipynb")
    assert submission.find_work(tmp_path) is None
    own_notebook(reference, tmp_path / "build" / "work" / "01_x.ipynb")
    assert submission.find_work(tmp_path) is None
    own_notebook("x = 2", tmp_path / "build" / "student" / "01_x.ipynb")
    assert submission.find_work(tmp_path) == tmp_path / "build" / "student"
    own_notebook("x = 3", tmp_path / "build" / "work" / "01_x.ipynb")
    assert submission.find_work(tmp_path) == tmp_path / "build" / "work"


def test_in_a_bundle_the_notebooks_are_the_work(tmp_path):
    own_notebook("x = ...  # your turn", tmp_path / "notebooks" / "01_x.ipynb")
    assert submission.find_work(tmp_path) == tmp_path / "notebooks"


def test_a_name_is_asked_for():
    clean = {name: value for name, value in os.environ.items() if name != "LAB_STUDENT"}
    command = [sys.executable, "-m", "lab_course", "handin"]
    done = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "NAME" in done.stderr
