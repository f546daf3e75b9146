"""What an instructor needs: the source of an nbgrader assignment, and a bundle to give to students.

``make course`` writes

- ``build/course/source/lab/``: the notebooks, with solutions between nbgrader's marks;
- ``build/course/nbgrader_config.py``: the limits that these notebooks need;
- ``build/course/bundle/``: what students get: the package, the environment and the notebooks
  without solutions, outputs or figures. It needs nothing else of this repository.
"""

import argparse
import shutil
from pathlib import Path

import nbformat

from apogee_archive.settings import checkout
from lab_course.student import course_version, student_version, write_missing

__all__ = ["ASSIGNMENT", "write_bundle", "write_course"]

ASSIGNMENT = "lab"
SHIPPED = (
    "labtools",
    "packages",
    "tools/install.sh",
    "tools/run_notebooks.py",
    "tools/claims.py",
    "data/README.md",
    "pyproject.toml",
    "constraints.txt",
    "environment.yml",
    "LICENSE",
)
# The bundle's targets; its settings are those of the lab's own Makefile, up to its first target
TARGETS = """
.PHONY: help installed jupyter handin doctor

help:
\t@echo "make jupyter   set up, then open the notebooks in JupyterLab"
\t@echo "make handin NAME='Your Name'   run your notebooks; leave PDFs in figures/"
\t@echo "make doctor    what is installed, which data are here, and what to do about what is wrong"

installed:
\t@test -x $(PY) || $(PYTHON) -m venv $(ENV)
\t@$(INSTALL) lab,handin $(TORCH_INDEX)

jupyter: installed
\t$(ENV)/bin/jupyter lab --notebook-dir=notebooks

handin: installed
\tLAB_STUDENT="$(NAME)" $(PY) -m lab_course handin

doctor: installed
\t$(PY) -m lab_course doctor
"""
CONFIG = '''"""nbgrader's settings for the lab: some cells train networks or sample posteriors."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "stellar-lab"
c.ClearSolutions.code_stub = {"python": ""}  # the names that are asked for stand above the solution
c.ClearSolutions.text_stub = "*Your answer: replace this line.*"
c.ExecutePreprocessor.timeout = 900
c.ExecutePreprocessor.kernel_name = "python3"
c.ExecutePreprocessor.interrupt_on_timeout = True
'''
README = """# The stellar spectra lab

The notebooks are in `notebooks/`. Write your solutions where it says "your turn", and predictions
and answers into the cells that ask for them. A check cell says whether your numbers are right.

    make jupyter                           # installs the packages, then opens JupyterLab
    make handin NAME="Firstname Lastname"  # runs your notebooks; PDFs and write-up in figures/

If you cannot solve a task, go on: at the end of its section a cell takes what later sections need
from the package. `make handin` runs each notebook as far as it goes, writes what it can, and says
what is missing. The last cell of notebook 07 is for your abstract; begin it with `**Abstract.**`.

It needs Python 3.11 or newer, `make`, and 3.6 GB of disk (the packages 2.4, the data 1.2).
"""


def write_course(folder, notebooks):
    """Write the source of the nbgrader assignment; files that somebody has changed are kept.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the nbgrader course.
    notebooks : list of pathlib.Path
        Notebooks of the lab.

    Returns
    -------
    list of str
        Names of the files that were kept.
    """
    texts = {}
    for path in notebooks:
        notebook = course_version(nbformat.read(path, 4), path.stem)
        texts[path.name] = nbformat.writes(notebook) + "\n"
    kept = write_missing(folder, {"nbgrader_config.py": CONFIG})
    return kept + write_missing(folder / "source" / ASSIGNMENT, texts)


def write_bundle(folder, notebooks):
    """Write what students get; returns the names of notebooks that were kept as changed."""
    root = checkout()
    for name in SHIPPED:
        source, target = root / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "calibration")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
    (folder / "README.md").write_text(README, encoding="utf-8")
    settings, _, _ = (root / "Makefile").read_text(encoding="utf-8").partition("\n.PHONY")
    (folder / "Makefile").write_text(settings + TARGETS, encoding="utf-8")
    texts = {}
    for path in notebooks:
        notebook = student_version(nbformat.read(path, 4), path.stem)
        texts[path.name] = nbformat.writes(notebook) + "\n"
    return write_missing(folder / "notebooks", texts)


def main(arguments=None):
    """Write the nbgrader course and the bundle for students."""
    parser = argparse.ArgumentParser(prog="make course", description=main.__doc__)
    root = checkout() or Path.cwd()
    parser.add_argument("--into", type=Path, default=root / "build" / "course")
    folder = parser.parse_args(arguments).into
    notebooks = sorted((root / "notebooks").glob("0[1-8]*.ipynb"))
    kept = write_course(folder, notebooks) + write_bundle(folder / "bundle", notebooks)
    print(f"assignment: {folder / 'source' / ASSIGNMENT}\nbundle for students: {folder / 'bundle'}")
    if kept:
        print("kept, because they have been changed: " + ", ".join(kept))
    return 0
