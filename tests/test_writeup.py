"""What is handed in: the student's own notebooks, their answers typeset, and nothing missing in
silence."""

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from pypdf import PdfReader

typst = pytest.importorskip("typst", reason="the write-up needs typst, of the extra course")

from lab_course import submission, typesetting  # noqa: E402
from lab_course.student import ANSWER  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
DOT = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
).decode()


def printed(source):
    """The text of a document of typst, in one line."""
    data = typst.compile(source.encode())
    pages = PdfReader(io.BytesIO(data)).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("star_1 of #3 at [SDSS](https://www.sdss.org)", "star_1 of #3 at SDSS"),
        ("a // b, /* c */ d, <e>, f@g, 5 $ and ~6", "a // b, /* c */ d, <e>, f@g, 5 $ and ~6"),
        ("**all** *good* `pixels`", "all good pixels"),
        ("### A heading\n\n- one\n- two", "A heading • one • two"),
        ("| a | b |\n|---|---|\n| 1 | 2 |", "a b 1 2"),
        ("> quoted\n\n1. first", "quoted 1. first"),
    ],
)
def test_markdown_is_printed_as_it_reads(markdown, expected):
    assert printed(typesetting.to_typst(markdown)) == expected


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"T_{\rm eff}", '$T_("eff")$'),
        (r"_{eff}", '$""_(e f f)$'),
        (r"\log g \pm 0.1", "$log g plus.minus 0.1$"),
        (r"\chi^{2} \leq 3", "$chi^(2) <= 3$"),
        (r"\frac{M}{R^2} \propto \ell", "$frac(M, R^(2)) prop ell$"),
        (r"\mathcal{N}(0, 1)", "$cal(N) \\( 0 \\, 1 \\)$"),
        (r"\hat x \simeq \sqrt[3]{y}", "$hat(x) tilde.eq root(3, y)$"),
        (r"{\rm [Fe/H]} < 10^{-3}", '$"[Fe/H]" < 10^(- 3)$'),
        (r"f'(x)", "$f' \\( x \\)$"),
        (r"\left. a \right|_{b}", "$a |_(b)$"),
    ],
)
def test_a_formula_is_translated(tex, expected):
    found = typesetting.to_typst(f"${tex}$")
    assert found == expected
    typst.compile(found.encode())


@pytest.mark.parametrize("tex", [r"\begin{array}x", r"\foo", "{a", r"\frac{a", "a}"])
def test_a_formula_that_is_not_understood_stays_as_it_was_written(tex):
    assert f"${tex}$" in printed(typesetting.typeset_safely(f"see ${tex}$ there"))


@pytest.mark.parametrize("command", sorted(typesetting.SYMBOLS.keys() | typesetting.SAME))
def test_each_command_is_known_to_typst(command):
    typst.compile(typesetting.to_typst(f"$a \\{command} b$").encode())


def test_a_display_does_not_swallow_what_follows():
    assert printed(typesetting.to_typst("before $$a$$ after")).endswith("after")


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
    assert (section.kind, section.number) == ("Problem", "1")
    assert section.answers == ["Giants have a lower **gravity** than dwarfs: $\\log g$ < 4."]
    (picture,) = section.pictures
    assert picture.caption == "Gravity against temperature of all stars"
    assert picture.png.startswith(b"\x89PNG")
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


def test_predictions_are_no_answers_and_what_is_open_is_counted(tmp_path):
    notebook = nbformat.read(executed(tmp_path), 4)
    about = {"solution": True, "grade_id": "01-prediction-01"}
    notebook.cells.insert(3, new_markdown_cell("It is bent.", metadata={"nbgrader": about}))
    about = {"solution": True, "grade_id": "01-answer-02"}
    notebook.cells.insert(4, new_markdown_cell(ANSWER, metadata={"nbgrader": about}))
    nbformat.write(notebook, tmp_path / "01_selection.ipynb")
    (section,), abstract = submission.read_sections(tmp_path / "01_selection.ipynb")
    assert "It is bent." not in section.answers
    assert section.open == 1
    assert "1 of the answers to Problem 1" in submission.missing_pieces([section], abstract)


def test_all_figures_are_there_and_problems_are_in_their_order(tmp_path):
    sections = [
        submission.Section("Question", "5.1", "Question 5.1", [("answer", "scaled")]),
        submission.Section("Problem", "12", "Problem 12", [("answer", "mystery")]),
        submission.Section(
            "Problem",
            "2",
            "Problem 2",
            [("heading", "unused"), ("heading", "used"), ("answer", "read")],
        ),
    ]
    picture = submission.Picture(base64.b64decode(DOT), "a dot")
    sections[1].parts += [("figure", picture), ("heading", "Errors"), ("figure", picture)]
    document = submission.write_up("simulated survey", "Ada", "", sections, tmp_path)
    words = ("read", "mystery", "figure-1.png", "Errors", "figure-2.png", "scaled")
    assert [document.index(word) for word in words] == sorted(document.index(w) for w in words)
    assert "unused" not in document


def test_an_answer_that_typst_refuses_costs_only_its_formatting(tmp_path, monkeypatch):
    monkeypatch.setattr(typesetting, "to_typst", lambda markdown: "#broken(" + markdown)
    assert "T$_{eff}$" in printed(typesetting.typeset_safely("T$_{eff}$"))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0[1-8]*.ipynb")), ids=str)
def test_the_labs_own_answers_can_be_typeset(path, tmp_path):
    sections, abstract = submission.read_sections(path)
    assert sections
    assert any(section.answers for section in sections)
    for section in sections:
        for answer in section.answers:
            assert "#raw(" not in typesetting.to_typst(answer).replace(
                '#raw("', "", answer.count("`") // 2
            )
    document = submission.write_up(
        "simulated survey", "Cecilia Payne", abstract, sections, tmp_path
    )
    (tmp_path / "w.typ").write_text(document, encoding="utf-8")
    typst.compile(tmp_path / "w.typ", output=tmp_path / "w.pdf")


def test_the_lab_as_a_whole_answers_every_problem():
    sections, abstracts = [], ""
    for path in sorted((ROOT / "notebooks").glob("0[1-8]*.ipynb")):
        found, words = submission.read_sections(path)
        sections, abstracts = sections + found, abstracts + words
    assert submission.missing_pieces(sections, abstracts) == []
    questions = {section.number for section in sections if section.kind == "Question"}
    assert questions >= {
        "2.1",
        "2.2",
        "2.3",
        "2.4",
        "2.5",
        "2.6",
        "5.1",
        "5.2",
        "5.3",
        "5.4",
        "5.5",
    }


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


def test_in_a_bundle_the_notebooks_are_the_work_once_they_have_changed(tmp_path):
    open_task = "x = ...  # your turn"
    own_notebook(open_task, tmp_path / "notebooks" / "01_x.ipynb")
    own_notebook(open_task, tmp_path / "notebooks" / ".01_x.ipynb.original")
    assert submission.find_work(tmp_path) is None
    own_notebook("x = 5", tmp_path / "notebooks" / "01_x.ipynb")
    assert submission.find_work(tmp_path) == tmp_path / "notebooks"


def test_a_notebook_that_stops_costs_only_what_comes_after_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_FIGURES", str(tmp_path / "figures"))
    monkeypatch.setenv("LAB_STUDENT", "Ada Lovelace")
    work, into = tmp_path / "work", tmp_path / "into"
    into.mkdir()
    own_notebook("x = ... / 2", work / "02_normalization.ipynb")
    own_notebook("print('fine')", work / "03_fine.ipynb")
    old = submission.checkpoint_path(1)
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run")
    (stopped,) = submission.run_notebooks(work, into, ROOT)
    assert stopped.startswith("02_normalization.ipynb stopped at code cell 1 of 1 (TypeError")
    assert not old.exists(), "it is not taken for a new one"
    fine = nbformat.read(into / "03_fine.ipynb", 4).cells[0]
    assert fine.outputs[0].text == "fine\n"
    before = (into / "03_fine.ipynb").stat().st_mtime_ns
    assert submission.run_notebooks(work, into, ROOT) == [stopped]
    assert (into / "03_fine.ipynb").stat().st_mtime_ns == before, "it is not run again"


def test_a_name_is_asked_for():
    clean = {name: value for name, value in os.environ.items() if name != "LAB_STUDENT"}
    command = [sys.executable, "-m", "lab_course", "handin"]
    done = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "NAME" in done.stderr
