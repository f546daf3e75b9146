"""The student version: questions stay, no solution does, names that are needed stay, nobody's work
is lost."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from lab_course.course import write_bundle, write_course
from lab_course.student import (
    ANSWER,
    BEGIN,
    PLACEHOLDER,
    POINTS,
    _Names,
    _without_magics,
    is_unsolved,
    kind_of,
    names_needed,
    student_version,
    write_missing,
)

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("0[1-8]*.ipynb"))
SOLUTION = """# The gravity `logg` (dex, cgs) of three stars, an array (3,).
### BEGIN SOLUTION
import numpy as np

radius = np.array([1.0, 15.0, 100.0])
logg = 4.438 - 2 * np.log10(radius)
hidden = logg.mean()
### END SOLUTION"""
CHECK = """from lab_course import checks

checks.gravity(logg, 1.0, [1.0, 15.0, 100.0])"""


def made_up():
    """A notebook of one task, one check and one answer."""
    cells = [
        nbformat.v4.new_markdown_cell("## Problem 1"),
        nbformat.v4.new_code_cell(SOLUTION),
        nbformat.v4.new_code_cell(CHECK, metadata={"tags": ["check"], "lab": {"points": 3}}),
        nbformat.v4.new_markdown_cell("**Answer.** Giants have a lower gravity."),
    ]
    about = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=about)


def test_a_task_keeps_its_question_and_the_names_that_later_cells_need():
    task = student_version(made_up(), "01_x").cells[1].source
    assert task.splitlines() == [
        "# The gravity `logg` (dex, cgs) of three stars, an array (3,).",
        "import numpy as np",
        "logg = ...  # your turn",
    ]


def test_signatures_stay_and_bodies_go():
    notebook = made_up()
    notebook.cells[1].source = """def slope(x):
    "Rise over run."
    ### BEGIN SOLUTION
    return x[1] - x[0]
    ### END SOLUTION
"""
    function = student_version(notebook, "01_x").cells[1].source
    assert "def slope(x):" in function
    assert "Rise over run." in function
    assert "return" not in function
    ast.parse(function)


def test_each_of_two_functions_keeps_a_body():
    notebook = made_up()
    notebook.cells[1].source = """### BEGIN SOLUTION
def one(x):
    return x + 1


def two(x):
    return x + 2
### END SOLUTION"""
    task = student_version(notebook, "01_x").cells[1].source
    ast.parse(task)
    assert task.count("your turn") == 2


def test_answers_go_and_ids_do_not_depend_on_prose():
    notebook = made_up()
    plain = [
        cell.metadata.nbgrader.grade_id for cell in student_version(notebook, "01_x").cells[1:]
    ]
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("More prose."))
    student = student_version(notebook, "01_x")
    assert [cell.metadata.nbgrader.grade_id for cell in student.cells[2:]] == plain
    assert student.cells[-1].source == ANSWER


def test_a_prediction_has_a_cell_before_the_output_and_points_of_its_own():
    notebook = made_up()
    notebook.cells[2].metadata["lab"]["ask"] = "Are they larger?"
    notebook.cells[3].metadata["lab"] = {"question": "Which are larger?", "points": 4}
    student = student_version(notebook, "01_x")
    task, asked, prediction, check, question, answer = student.cells[1:]
    assert "your turn" in task.source
    assert asked.source.endswith("Are they larger?")
    assert prediction.source == ANSWER
    assert prediction.metadata.nbgrader.points == POINTS["prediction"]
    assert check.source == CHECK
    assert question.source == "**Question.** Which are larger?"
    assert answer.source == ANSWER
    assert answer.metadata.nbgrader.points == 4


def test_an_unsolved_task_falls_back_on_the_package_at_the_end_of_its_section():
    notebook = made_up()
    notebook.cells[1].metadata["lab"] = {"fallback": {"logg": "[4.4, 2.1, 0.4]"}}
    notebook.cells.append(nbformat.v4.new_markdown_cell("## Problem 2"))
    fallback, heading = student_version(notebook, "01_x").cells[-2:]
    assert heading.source == "## Problem 2"
    found = {"logg": ...}
    exec(fallback.source, found)
    assert found["logg"] == [4.4, 2.1, 0.4]
    found = {"logg": [1]}
    exec(fallback.source, found)
    assert found["logg"] == [1]


def test_a_function_with_a_stub_is_unsolved(tmp_path, monkeypatch):
    (tmp_path / "work_of_a_student.py").write_text(
        f"def one():\n    {PLACEHOLDER}\n\n\ndef two():\n    return 2\n"
        f"\n\nclass Three:\n    def method(self):\n        {PLACEHOLDER}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    work = importlib.import_module("work_of_a_student")
    assert is_unsolved(work.one)
    assert is_unsolved(work.Three)
    assert not is_unsolved(work.two)
    assert not is_unsolved(3)


def test_each_question_is_asked_and_each_section_can_start(pair):
    """Answers have questions; what later sections need of a task has a fallback."""
    notebook, _ = pair
    cells = notebook.cells
    for place, cell in enumerate(cells):
        if kind_of(cell) == "answer":
            assert cell.metadata.get("lab", {}).get("question"), cell.source[:80]
        if "ask" in cell.metadata.get("lab", {}):
            assert cell.cell_type == "code", "a prediction stands before the output it is about"
        if kind_of(cell) == "solution" and BEGIN in cell.source:
            ends = (n for n in range(place + 1, len(cells)) if _is_heading(cells[n]))
            rest = cells[next(ends, len(cells)) :]
            needed = names_needed([one.source for one in rest if one.cell_type == "code"])
            # What stands before the first task of the cell is there in any case
            before = cell.source.split(BEGIN)[0]
            functions = re.findall(
                r"^(?:def|class) (\w+)(?:(?!^\S).)*?^[ \t]+### BEGIN", cell.source, re.M | re.S
            )
            stopped = (_bound(cell.source) - _bound(before) | set(functions)) & needed
            fallback = set(cell.metadata.get("lab", {}).get("fallback", {}))
            assert stopped <= fallback, (cell.source[:80], stopped - fallback)


def _is_heading(cell):
    return cell.cell_type == "markdown" and cell.source.startswith("#")


def _bound(source):
    """Names that code sets outside of functions; a signature that is cut off counts as nothing."""
    try:
        return set(_Names().of(ast.parse(_without_magics(source))).bound)
    except SyntaxError:
        return set()


def test_only_what_later_cells_need_is_asked_for():
    solution = "total = 0\nfor degree in (1, 2):\n    total += degree\ntable['sum'] = total"
    given = "print(total)\nfor degree in (3, 4):\n    print([total for total in (degree,)])"
    notebook = made_up()
    notebook.cells[1].source = f"table = {{}}\n### BEGIN SOLUTION\n{solution}\n### END SOLUTION"
    notebook.cells.insert(2, nbformat.v4.new_code_cell(given))
    task = student_version(notebook, "01_x").cells[1].source
    assert task.splitlines()[1:] == [
        "total = ...  # your turn",
        "table['sum'] = ...  # your turn",
    ]


@pytest.mark.parametrize(
    ("sources", "needed"),
    [
        (["x = x + 1"], {"x"}),
        (["x += 1"], {"x"}),
        (["x = 1", "y = x"], set()),
        (["def f(a, *b, c=d): return a + b + c + e"], {"d", "e"}),
        (["g = lambda a: a + b"], {"b"}),
        (["[i for i in y for j in i if j > k]", "{a: b for a, b in z}"], {"y", "k", "z"}),
        (["import numpy as np, os.path", "np.mean(os.path.sep)"], set()),
        (["for i in range(3): total = i", "print(i, total)"], {"range", "print"}),
        (["with open('x') as file: file.read()"], {"open"}),
        (["class A(B):\n    x = y"], {"B", "y"}),
        (["%matplotlib widget\nx"], {"x"}),
    ],
)
def test_names_needed(sources, needed):
    assert names_needed(sources) == needed


def test_the_table_of_points_is_that_of_the_cells():
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    for row, kind in (
        ("check cells", "check"),
        ("predictions", "prediction"),
        ("written answers", "answer"),
    ):
        assert f"| {row} | {POINTS[kind]} |" in page
    student = student_version(read(ROOT / "notebooks" / "07_starnet.ipynb"), "07_starnet")
    assert student.cells[-1].metadata.nbgrader.points == 20
    assert "final write-up, in the cell of the abstract (07) | 20 |" in page


def test_the_table_of_what_there_is_to_do_is_true():
    page = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
    found = {"tasks": [], "predictions": [], "written answers": [], "points": []}
    for path in NOTEBOOKS:
        cells = student_version(read(path), path.stem).cells
        about = [cell.metadata.nbgrader for cell in cells if "nbgrader" in cell.metadata]
        kinds = [one.grade_id.split("-")[1] for one in about]
        found["tasks"].append(kinds.count("solution"))
        found["predictions"].append(kinds.count("prediction"))
        found["written answers"].append(kinds.count("answer"))
        found["points"].append(sum(one.get("points", 0) for one in about))
    for name, numbers in found.items():
        assert f"| {name} | {' | '.join(map(str, numbers))} |" in page


def read(path):
    return nbformat.read(path, 4)


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def pair(request):
    """A notebook and its student version."""
    notebook = read(request.param)
    return notebook, student_version(notebook, request.param.stem)


def inside(source):
    """The lines of the solutions of a cell."""
    parts = re.findall(r"### BEGIN SOLUTION\n(.*?)### END SOLUTION", source, flags=re.S)
    return "\n".join(parts or [source]).splitlines()


def test_no_solution_is_left(pair):
    notebook, student = pair
    solutions = [cell for cell in notebook.cells if kind_of(cell) in ("solution", "answer")]
    assert solutions
    kept = "\n".join(cell.source for cell in notebook.cells if cell not in solutions)
    kept += "\n".join(
        re.sub(r"### BEGIN.*?### END", "", cell.source, flags=re.S) for cell in solutions
    )
    text = "\n".join(cell.source for cell in student.cells)
    for cell in solutions:
        for line in map(str.strip, inside(cell.source)):
            if (
                len(line) > 25
                and line not in kept
                and not re.match(r"import |from |def |class |\"", line)
            ):
                assert line not in text, line
    assert not any(cell.get("outputs") for cell in student.cells)


def test_prose_and_checks_stay(pair):
    headings = re.compile(r"^#+ .*", re.M)
    texts = [
        "\n".join(cell.source for cell in one.cells if cell.cell_type == "markdown") for one in pair
    ]
    assert headings.findall(texts[0]) == headings.findall(texts[1])
    checks = [[cell.source for cell in one.cells if kind_of(cell) == "check"] for one in pair]
    assert checks[0] == checks[1]
    assert checks[0], "each notebook of the assignments has a check"


def test_tasks_are_python_and_cells_are_known_to_nbgrader(pair):
    _, student = pair
    nbformat.validate(student)
    for cell in student.cells:
        if cell.metadata.get("nbgrader", {}).get("solution") and cell.cell_type == "code":
            ast.parse(cell.source)
    graded = [cell.metadata.nbgrader for cell in student.cells if "nbgrader" in cell.metadata]
    assert len({about.grade_id for about in graded}) == len(graded)
    assert all("points" in about for about in graded if about.grade)


def test_the_solutions_pass_every_check(pair):
    """Their outputs are those of the notebooks as committed, which nbval executes anew."""
    for cell in pair[0].cells:
        if kind_of(cell) == "check":
            text = "".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
            assert "Right: " in text, cell.source


def test_work_is_never_overwritten(tmp_path):
    assert write_missing(tmp_path, {"a": "1", "b": "1"}) == []
    (tmp_path / "a").write_text("mine")
    assert write_missing(tmp_path, {"a": "2", "b": "2"}) == ["a"]
    assert (tmp_path / "a").read_text() == "mine"
    assert (tmp_path / "b").read_text() == "2"


def test_the_bundle_holds_no_solution_and_no_output(tmp_path):
    write_bundle(tmp_path, NOTEBOOKS)
    assert not list(tmp_path.rglob("*.png"))
    for path in (tmp_path / "notebooks").glob("*.ipynb"):
        text = path.read_text()
        assert "BEGIN SOLUTION" not in text
        assert "image/png" not in text
    for path in NOTEBOOKS:
        assert (tmp_path / "notebooks" / path.name).exists()
    assert not (tmp_path / "figures").exists()


def test_each_target_of_the_bundle_has_what_it_needs(tmp_path):
    write_bundle(tmp_path, NOTEBOOKS)
    readme = (tmp_path / "README.md").read_text()
    for target in ("help", "jupyter", "handin", "doctor"):
        done = subprocess.run(
            ["make", "-n", target, "NAME=Ada"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        for name in re.findall(r"\btools/[\w.]+|\bnotebooks\b", done.stdout):
            assert (tmp_path / name).exists(), name
    assert {"jupyter", "handin"} <= set(re.findall(r"make (\w+)", readme))


def test_a_bundle_is_handed_in_only_when_somebody_has_worked_in_it(tmp_path):
    from lab_course.submission import find_work

    write_bundle(tmp_path, NOTEBOOKS)
    assert find_work(tmp_path) is None
    path = tmp_path / "notebooks" / "01_selection.ipynb"
    notebook = read(path)
    notebook.cells[-1].source = "Two bands."
    nbformat.write(notebook, path)
    assert find_work(tmp_path) == tmp_path / "notebooks"


RIGHT = "import numpy as np\nlogg = 4.438 - 2 * np.log10(np.array([1, 15, 100.0]))"
SUBMISSIONS = {
    "right": (RIGHT, 3.0),
    "half": ("logg = ...", 0.0),
    "wrong": ("logg = [2, 1, 0]", 0.0),
    "cheat": (
        "logg = 0\nimport lab_course.checks\nlab_course.checks.gravity = lambda *a: 'Right'",
        0.0,
    ),
}


def test_nbgrader_grades_a_right_a_half_and_a_wrong_submission(tmp_path):
    pytest.importorskip("nbgrader", reason="needs the extra course: nbgrader")
    original = tmp_path / "01_try.ipynb"
    nbformat.write(made_up(), original)
    write_course(tmp_path, [original])
    original.unlink()
    nbgrader(tmp_path, "generate_assignment", "lab", "--create")
    release = read(tmp_path / "release" / "lab" / "01_try.ipynb")
    assert "4.438" not in "".join(cell.source for cell in release.cells)
    assert "logg = ..." in release.cells[1].source
    for student, (solution, _) in SUBMISSIONS.items():
        release.cells[1].source = solution
        if student != "half":
            release.cells[3].source = "Giants are larger."
        target = tmp_path / "submitted" / student / "lab"
        target.mkdir(parents=True)
        nbformat.write(release, target / "01_try.ipynb")
    nbgrader(tmp_path, "autograde", "lab")
    nbgrader(tmp_path, "generate_feedback", "lab")
    nbgrader(tmp_path, "export")
    grades = (tmp_path / "grades.csv").read_text().splitlines()
    names = grades[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in grades[1:]]
    found = {row["student_id"]: float(row["score"]) for row in rows}
    assert found == {student: score for student, (_, score) in SUBMISSIONS.items()}
    assert {float(row["max_score"]) for row in rows} == {5.0}
    for student in SUBMISSIONS:
        (page,) = (tmp_path / "feedback" / student / "lab").glob("*.html")
        assert "Problem 1" in page.read_text(encoding="utf-8")


def test_nbgrader_releases_all_notebooks_of_the_assignments(tmp_path):
    pytest.importorskip("nbgrader", reason="needs the extra course: nbgrader")
    write_course(tmp_path, NOTEBOOKS)
    nbgrader(tmp_path, "generate_assignment", "lab", "--create")
    for path in NOTEBOOKS:
        release = read(tmp_path / "release" / "lab" / path.name)
        student = student_version(read(path), path.stem)
        # What nbgrader releases is what the bundle holds, but for blank lines
        ours, theirs = ([_lines(cell.source) for cell in one.cells] for one in (student, release))
        assert ours == theirs


def _lines(source):
    return [line for line in source.splitlines() if line.strip()]


def nbgrader(folder, *arguments):
    """Run one of nbgrader's commands in a course; alembic, which it calls, lies beside Python."""
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": scripts + os.pathsep + os.environ["PATH"]}
    command = [shutil.which("nbgrader", path=scripts), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
