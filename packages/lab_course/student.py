"""Notebooks for students: prose, questions and checks stay; solutions and written answers go.

The notebooks of the lab say themselves what is what:

- ``### BEGIN SOLUTION`` and ``### END SOLUTION`` stand around what a student is to write.
- The tag ``solution`` marks a cell that is a solution as a whole.
- The tag ``answer``, or a Markdown cell that begins with ``**Answer.**``, is an answer
  in the student's own words.
- The tag ``check`` marks a code cell that judges the numbers above it; ``lab.points`` in its
  metadata are its points.
- ``lab.question`` in the metadata of an answer is what its cell asks.
- ``lab.ask`` in the metadata of a code cell is a question about its output, to be answered before
  the cell is run. It gets a cell for the prediction, which has points of its own.
- ``lab.fallback`` in the metadata of a solution names what later sections need, and where the
  package has it: a cell at the end of the section takes it from there if the task is not solved.

`student_version` makes what a student gets; `course_version` makes the source of an nbgrader
assignment, from which nbgrader makes the same. In both, the names that later cells need stay as
``name = ...``.
"""

import argparse
import ast
import copy
import inspect
import re
from pathlib import Path

import nbformat

from apogee_archive.settings import checkout

__all__ = ["course_version", "is_unsolved", "names_needed", "student_version", "write_missing"]

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PLACEHOLDER = "...  # your turn"
ANSWER = "*Your answer: replace this line.*"
FALLBACK = "# Not solved yet? Then the next section starts from what the package has."
POINTS = {"check": 1, "prediction": 1, "answer": 2}
"""Points of a cell where its metadata (`lab.points`) do not say other ones."""


def student_version(notebook, stem):
    """The notebook as a student gets it, without outputs, solutions and answers.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        A notebook of the lab.
    stem : str
        Its file name without ending, such as ``"04_cross_validation"``.

    Returns
    -------
    nbformat.NotebookNode
        A new notebook; the one given is not changed.
    """
    return _prepared(notebook, stem, keep_solutions=False)


def course_version(notebook, stem):
    """The notebook as the source of an nbgrader assignment, with solutions between its marks.

    The arguments are those of `student_version`.
    """
    return _prepared(notebook, stem, keep_solutions=True)


def kind_of(cell):
    """What a cell is to a student: "solution", "answer", "check", or "" for anything else."""
    tags = cell.metadata.get("tags", [])
    if cell.cell_type == "code":
        if "check" in tags:
            return "check"
        return "solution" if "solution" in tags or BEGIN in cell.source else ""
    return (
        "answer"
        if "answer" in tags or cell.source.startswith(("**Answer.**", "**Abstract.**"))
        else ""
    )


def _prepared(notebook, stem, keep_solutions):
    cells, counts, fallback = [], {}, {}
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    code_seen = 0
    for cell in copy.deepcopy(notebook.cells):
        lab, kind = cell.metadata.pop("lab", {}), kind_of(cell)
        if cell.cell_type == "code":
            code_seen += 1
            cell.update(outputs=[], execution_count=None)
        elif fallback and cell.source.startswith("#"):  # a section ends here
            cells.append(_fallback_cell(fallback, stem[:2], len(cells)))
            fallback = {}
        fallback |= lab.get("fallback", {})
        # Ids count cells of a kind, so that they stay when prose is added elsewhere in the notebook
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{stem[:2]}-{kind}-{counts[kind]:02d}"
        points = lab.get("points", POINTS.get(kind))
        if "ask" in lab:
            counts["prediction"] = counts.get("prediction", 0) + 1
            cells += _prediction(lab["ask"], stem[:2], counts["prediction"])
        if kind == "solution":
            cell.source = _task(cell.source, sources[code_seen:], keep_solutions)
            cell.metadata["nbgrader"] = _graded(name, solution=True)
        elif kind == "check":
            if keep_solutions:
                cell.source = _with_hidden_test(cell.source)
            cell.metadata["nbgrader"] = _graded(name, points=points, locked=True)
        elif kind == "answer":
            if "question" in lab:
                question = f"**Question.** {lab['question']}"
                cells.append(nbformat.v4.new_markdown_cell(question, id=f"question-{name}"))
            if not keep_solutions:
                cell.source = ANSWER
            cell.metadata["nbgrader"] = _graded(name, points=points, solution=True)
        cells.append(cell)
    about = {key: notebook.metadata[key] for key in ("kernelspec", "language_info")}
    return nbformat.v4.new_notebook(cells=cells, metadata=about)


def _fallback_cell(fallback, chapter, number):
    """A code cell that replaces what is not solved by what the package has."""
    lines = [FALLBACK, "from lab_course.student import is_unsolved", ""]
    for name, value in fallback.items():
        lines += [f"if is_unsolved({name}):", f"    {name} = {value}"]
    return nbformat.v4.new_code_cell("\n".join(lines), id=f"fallback-{chapter}-{number}")


def is_unsolved(value):
    """Whether a student has not filled this in yet: ``...``, or a function or class with a stub.

    Examples
    --------
    >>> is_unsolved(...), is_unsolved(3.0)
    (True, False)
    """
    if value is ...:
        return True
    if isinstance(value, type):  # the source of a class of a notebook is not known, of a method is
        return any(is_unsolved(part) for part in vars(value).values() if callable(part))
    try:
        return PLACEHOLDER in inspect.getsource(value)
    except (OSError, TypeError):  # it is no function, or none that was written here
        return False


def _prediction(question, chapter, number):
    """A question, and the cell in which a student predicts what the next cell will show."""
    name = f"{chapter}-prediction-{number:02d}"
    asked = nbformat.v4.new_markdown_cell(f"**Predict, then look.** {question}", id=f"ask-{name}")
    cell = nbformat.v4.new_markdown_cell(ANSWER, id=name)
    cell.metadata["nbgrader"] = _graded(name, points=POINTS["prediction"], solution=True)
    return [asked, cell]


def _with_hidden_test(source):
    """A check that is made a second time, even if a notebook has replaced the lab's checks."""
    last = ast.unparse(ast.parse(source).body[-1])
    hidden = [
        "import importlib",
        "import lab_course.checks as checks",
        "importlib.reload(checks)",
        last,
    ]
    return "\n".join([source, "### BEGIN HIDDEN TESTS", *hidden, "### END HIDDEN TESTS"])


def _graded(name, points=None, solution=False, locked=False):
    """The metadata of a cell for nbgrader (its schema 3)."""
    about = {
        "grade": points is not None,
        "grade_id": name,
        "locked": locked,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return about | ({"points": points} if points is not None else {})


def _task(source, later, keep_solution):
    """A solution cell as a task: a stub in the place of what stands between the marks."""
    if BEGIN not in source:
        source = f"{BEGIN}\n{source}\n{END}"
    parts = re.split(rf"^[ \t]*{BEGIN}\n(.*?)\n?[ \t]*{END}$", source, flags=re.S | re.M)
    # re.split alternates between what is outside (even places) and inside (odd places) the marks
    outside = "\n".join(parts[::2])
    for place in range(1, len(parts), 2):
        solution = parts[place]
        task = _stub(solution, [outside, *later])
        parts[place] = f"{task}\n{BEGIN}\n{solution}\n{END}" if keep_solution else task
    return "".join(parts).strip("\n")


def _stub(solution, later):
    """Imports, signatures, and the names that later cells read, to be filled in."""
    indent = re.match(r"[ \t]*", solution)[0]
    if indent:  # the body of a function whose signature stands outside the marks
        return f"{indent}{PLACEHOLDER}"
    wanted = names_needed(later)
    lines = []
    for node in ast.parse(_without_magics(solution)).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            lines.append(ast.unparse(node))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines += _signature(node)
        else:
            names = [name for name in _Names().of(node).bound if name in wanted]
            tasks = (f"{name} = {PLACEHOLDER}" for name in names + _items_set(node))
            lines += [task for task in tasks if task not in lines]
    return "\n".join(lines) or PLACEHOLDER


def _items_set(node):
    """What an assignment such as `table["column"] = ...` fills in, as it is written."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [ast.unparse(one) for one in targets if isinstance(one, ast.Subscript)]


def _signature(node):
    """The head of a function, or of a class and its methods, with its docstring."""
    doc = [f'    """{ast.get_docstring(node)}"""'] if ast.get_docstring(node) else []
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return [f"class {node.name}({bases}):", *doc, f"    {PLACEHOLDER}"]
    return [f"def {node.name}({ast.unparse(node.args)}):", *doc, f"    {PLACEHOLDER}"]


def names_needed(sources):
    """Names that cells read before any of them sets it: what must be there when the first begins.

    Parameters
    ----------
    sources : list of str
        Code of cells, in their order.

    Returns
    -------
    set of str

    Examples
    --------
    >>> sorted(names_needed(["for x in values: print(x + shift)", "total = sum(x for x in more)"]))
    ['more', 'print', 'shift', 'sum', 'values']
    """
    names = _Names()
    for source in sources:
        names.of(ast.parse(_without_magics(source)))
    return names.needed


class _Names(ast.NodeVisitor):
    """Names that code sets (`bound`, in order) and names that it reads before (`needed`)."""

    def __init__(self):
        self.bound, self.needed = {}, set()

    def of(self, node):
        self.visit(node)
        return self

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load):
            if node.id not in self.bound:
                self.needed.add(node.id)
        else:
            self.bound[node.id] = True

    def visit_alias(self, node):
        self.bound[(node.asname or node.name).split(".")[0]] = True

    def visit_Assign(self, node):
        """The value is read before the name is set, in `x = x + 1`."""
        self._visit_all([node.value, *node.targets])

    def visit_AugAssign(self, node):
        if isinstance(node.target, ast.Name) and node.target.id not in self.bound:
            self.needed.add(node.target.id)
        self._visit_all([node.value, node.target])

    def visit_For(self, node):
        self._visit_all([node.iter, node.target, *node.body, *node.orelse])

    def visit_FunctionDef(self, node):
        self._visit_all(node.decorator_list)
        self._visit_function(node.args, node.body, node.name)

    def visit_ClassDef(self, node):
        self._visit_all([*node.decorator_list, *node.bases])
        self.bound[node.name] = True
        self._visit_inside(node.body, [])

    def visit_Lambda(self, node):
        self._visit_function(node.args, [node.body])

    def _visit_function(self, arguments, body, name=None):
        """Defaults are read where a function is defined; its arguments are its own."""
        self._visit_all([one for one in arguments.defaults + arguments.kw_defaults if one])
        if name:
            self.bound[name] = True
        own = [one.arg for one in ast.walk(arguments) if isinstance(one, ast.arg)]
        self._visit_inside(body, own)

    def _visit_comprehension(self, node):
        """Its variables are its own; it reads before them what it runs over."""
        values = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        parts = []
        for loop in node.generators:
            parts += [loop.iter, loop.target, *loop.ifs]
        self._visit_inside([*parts, *values], [])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension

    def _visit_inside(self, nodes, arguments):
        """Code with names of its own, of which only those that it needs are known outside."""
        inside = _Names()
        inside.bound.update(dict.fromkeys(arguments, True))
        inside._visit_all(nodes)
        self.needed |= inside.needed - set(self.bound)

    def _visit_all(self, nodes):
        for node in nodes:
            self.visit(node)


def _without_magics(source):
    """Code without IPython's own lines, which Python's grammar does not know."""
    return re.sub(r"^([ \t]*)[%!].*$", r"\1pass", source, flags=re.M)


def write_missing(folder, texts):
    """Write files that are not there yet, or that nobody has changed; keep all others.

    Parameters
    ----------
    folder : pathlib.Path
        Where the files go. A hidden file beside them remembers what was written.
    texts : dict of str to str
        File name and content.

    Returns
    -------
    list of str
        Names of the files that were kept because they have been changed.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_missing(folder, {"a.txt": "first"})
    []
    >>> _ = (folder / "a.txt").write_text("my own work")
    >>> write_missing(folder, {"a.txt": "second"}), (folder / "a.txt").read_text()
    (['a.txt'], 'my own work')
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = []
    for name, text in texts.items():
        path, original = folder / name, folder / f".{name}.original"
        changed = path.exists() and not (
            original.exists() and original.read_bytes() == path.read_bytes()
        )
        if changed and path.read_text(encoding="utf-8") != text:
            kept.append(name)
            continue
        path.write_text(text, encoding="utf-8")
        original.write_text(text, encoding="utf-8")
    return kept


def main(arguments=None):
    """Write the student version of all notebooks of the assignments; work that is there is kept."""
    parser = argparse.ArgumentParser(prog="make student", description=main.__doc__)
    root = checkout() or Path.cwd()
    parser.add_argument("--into", type=Path, default=root / "build" / "student")
    folder = parser.parse_args(arguments).into
    texts = {}
    for path in sorted((root / "notebooks").glob("0[1-8]*.ipynb")):
        notebook = student_version(nbformat.read(path, 4), path.stem)
        texts[path.name] = nbformat.writes(notebook) + "\n"
    kept = write_missing(folder, texts)
    print(f"{len(texts) - len(kept)} notebooks written to {folder}")
    if kept:
        print("kept, because they have been changed: " + ", ".join(kept))
    return 0
