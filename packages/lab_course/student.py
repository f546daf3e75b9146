"""Write the student version of the notebooks: prose and questions stay, solutions and written answers go.

The notebooks say themselves what is what, in the metadata of their cells:

- tag `solution`: a code cell that becomes a stub. Imports, signatures and the names that later cells need stay.
- tag `answer`: a Markdown cell in the student's own words. Its `lab.ask` is a question to answer *before* the cell
  above it is run.
- tag `check`: a code cell that judges the numbers of the solution above it; it stays, and gives `lab.points`.

The cells carry the metadata of nbgrader, so that the folder is the source of an nbgrader assignment.
"""

import argparse
import ast
import copy
import shutil
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]
TURN = "...  # your turn"


def student_version(notebook, stem):
    """The notebook without outputs, solutions and answers."""
    cells = []
    for number, cell in enumerate(copy.deepcopy(notebook.cells)):
        tags = cell.metadata.get("tags", [])
        lab = cell.metadata.pop("lab", {})
        name = f"{stem[:2]}-{number:02d}"
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
        if "solution" in tags:
            cell.source = stub(
                cell.source, [later.source for later in notebook.cells[number + 1 :]]
            )
            cell.metadata["nbgrader"] = graded(name, solution=True)
        elif "check" in tags:
            cell.metadata["nbgrader"] = graded(name, points=lab.get("points", 1), locked=True)
        elif "answer" in tags:
            cell.source = "*Your answer.*"
            cell.metadata["nbgrader"] = graded(name, points=lab.get("points", 1), solution=True)
        if "ask" in lab:
            cells.insert(
                place_to_ask(cells),
                nbformat.v4.new_markdown_cell(
                    f"**Predict, then look.** {lab['ask']}", id=f"ask-{name}"
                ),
            )
        cells.append(cell)
    return nbformat.v4.new_notebook(
        cells=cells, metadata={k: notebook.metadata[k] for k in ("kernelspec", "language_info")}
    )


def place_to_ask(cells):
    """Before the last code cell, whose result the question is about."""
    return next(
        (n for n in range(len(cells) - 1, -1, -1) if cells[n].cell_type == "code"), len(cells)
    )


def graded(name, points=None, solution=False, locked=False):
    """Metadata of a cell for nbgrader (schema 3)."""
    about = {
        "grade": points is not None,
        "grade_id": name,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return about | ({"points": points} if points is not None else {})


def stub(source, later):
    """What is left of a solution: imports, signatures, and the names that later cells use, to be filled in."""
    wanted = set().union(*map(names_read, later))
    lines = ["# Your turn."]
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines.append(ast.get_source_segment(source, node))
        elif isinstance(node, ast.FunctionDef):
            lines += signature(node)
        else:
            names = [
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            ]
            lines += [
                f"{name} = {TURN}"
                for name in dict.fromkeys(names)
                if name in wanted and f"{name} = {TURN}" not in lines
            ]
    return "\n".join(lines)


def signature(node):
    """Head and docstring of a function."""
    doc = [f'    """{ast.get_docstring(node)}"""'] if ast.get_docstring(node) else []
    return ["", "", f"def {node.name}({ast.unparse(node.args)}):", *doc, f"    {TURN}", ""]


def names_read(source):
    """Names that a code cell reads; none for prose."""
    try:
        return {
            n.id
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
        }
    except SyntaxError:
        return set()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--into",
        type=Path,
        default=ROOT / "build" / "student",
        help="folder of the student version",
    )
    folder = parser.parse_args(arguments).into
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        nbformat.write(student_version(nbformat.read(path, 4), path.stem), folder / path.name)
        print(folder / path.name)


if __name__ == "__main__":
    main()
