"""The student version: questions stay, no solution does, and nbgrader knows every cell."""

import ast
import importlib.util
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-8]*.ipynb"))

spec = importlib.util.spec_from_file_location(
    "make_student", ROOT / "packages" / "lab_course" / "student.py"
)
make_student = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_student)


def test_a_stub_keeps_what_later_cells_need():
    source = """import numpy as np


def mean(x):
    'The mean.'
    return sum(x) / len(x)


a, b = 1, 2
hidden = mean([a, b])"""
    stub = make_student.stub(source, ["print(a, mean)"])
    names = {node.id for node in ast.walk(ast.parse(stub)) if isinstance(node, ast.Name)}
    assert "import numpy as np" in stub
    assert "def mean(x):" in stub
    assert "The mean." in stub
    assert names >= {"a"}
    assert not names & {"b", "hidden", "sum", "len"}


def read(path):
    return nbformat.read(path, 4)


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def pair(request):
    """A notebook and its student version."""
    notebook = read(request.param)
    return notebook, make_student.student_version(notebook, request.param.stem)


def test_no_solution_is_left(pair):
    notebook, student = pair
    solutions = [cell for tag in ("solution", "answer") for cell in tagged(notebook, tag)]
    assert solutions
    kept = {
        cell.source
        for cell in notebook.cells
        if not {"solution", "answer"} & set(cell.metadata.get("tags", []))
    }
    open_text = "\n".join(kept)
    text = "\n".join(cell.source for cell in student.cells)
    for cell in solutions:
        for line in map(str.strip, cell.source.splitlines()):
            if (
                len(line) > 25
                and line not in open_text
                and not re.match(r"import |from |def |\"\"\"", line)
            ):
                assert line not in text, line
    assert not any(cell.get("outputs") for cell in student.cells)


def test_prose_questions_and_checks_stay(pair):
    notebook, student = pair
    headings = re.compile(r"^#+ .*", re.M)
    texts = [
        "\n".join(cell.source for cell in one.cells if cell.cell_type == "markdown") for one in pair
    ]
    assert headings.findall(texts[0]) == headings.findall(texts[1])
    assert [c.source for c in tagged(notebook, "check")] == [
        c.source for c in tagged(student, "check")
    ]
    asked = [cell for cell in notebook.cells if "ask" in cell.metadata.get("lab", {})]
    assert texts[1].count("**Predict, then look.**") == len(asked)
    seen = [cell for cell in notebook.cells if cell.source.startswith("**What to see.**")]
    assert all("ask" in cell.metadata.get("lab", {}) for cell in seen), (
        "a question before each picture"
    )


def test_stubs_are_python_and_cells_are_known_to_nbgrader(pair):
    _, student = pair
    nbformat.validate(student)
    for cell in tagged(student, "solution"):
        ast.parse(cell.source)
    graded = [cell.metadata.nbgrader for cell in student.cells if "nbgrader" in cell.metadata]
    assert len({about.grade_id for about in graded}) == len(graded)
    assert all(about.schema_version == 3 for about in graded)
    assert all("points" in about for about in graded if about.grade)


CHECKED = [path for path in NOTEBOOKS if path.stem[:2] not in ("05", "07")]


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.stem)
def test_the_solutions_pass_every_check(path):
    """Their outputs are those of the notebooks as committed, which nbval executes anew."""
    checks = tagged(read(path), "check")
    assert checks
    for cell in checks:
        (output,) = cell.outputs
        assert "Right: " in output["data"]["text/plain"], cell.source
