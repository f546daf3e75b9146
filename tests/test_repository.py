"""The house in order: notebooks whole and complete, README true, environment files in step."""

import ast
import re
import subprocess
import sys
import tomllib
from itertools import combinations
from pathlib import Path

import nbformat
import pytest
import yaml

import labtools

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [ROOT / "labtools", *sorted(path.parent for path in ROOT.glob("packages/*/__init__.py"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BERKELEY = {
    "01": ["Problem 1", "Problem 2"],
    "02": ["Problem 2", "Problem 3", "Problem 4"],
    "03": [
        "Problem 5",
        "Problem 6(a)",
        "Problem 6(b)",
        "Problem 6(c)",
        "Problem 6(d)",
        "Problem 7",
        "Problem 8",
    ],
    "04": ["Problem 9", "Problem 10"],
    "05": ["Problem 11", "Problem 13", "Problem 14"],
    "06": ["Problem 12"],
    "07": [
        "Question 5.1",
        "Question 5.2",
        "Question 5.3",
        "Question 5.4",
        "Question 5.5",
        "Problem 15",
    ],
    "08": [f"Question 2.{number}" for number in range(1, 7)],
}
BEYOND = ["09", "10", "11", "12"]


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def named(paths):
    return [pytest.param(path, id=path.stem) for path in paths]


def test_there_are_notebooks():
    assert [path.stem[:2] for path in NOTEBOOKS] == [*sorted(BERKELEY), *BEYOND]


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_outputs_are_those_of_one_run_without_errors(path):
    cells = code_of(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 2_500_000


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_every_question_has_its_heading(path):
    headings = "\n".join(
        re.findall(r"^#+ .*", "\n".join(c.source for c in read(path).cells), flags=re.M)
    )
    missing = [q for q in BERKELEY.get(path.stem[:2], []) if f"## {q}" not in headings]
    assert not missing


@pytest.mark.parametrize("path", named(NOTEBOOKS[:8]))
def test_every_question_has_its_answer_before_the_next_one(path):
    """A section of a question holds at least one cell that begins with **Answer.**"""
    prose = "\n\n".join(c.source for c in read(path).cells if c.cell_type == "markdown")
    sections = re.split(r"^(?=##+ (?:Problem|Question) )", prose, flags=re.M)[1:]
    assert sections
    assert [text.splitlines()[0] for text in sections if "**Answer.**" not in text] == []


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_no_sentence_is_composed_by_code(path):
    composed = re.compile(r"Markdown\(\s*f|print\(\s*f?[\"'][A-Z][^\"']{60,}\.[\"']")
    assert [cell.source for cell in code_of(path) if composed.search(cell.source)] == []


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_every_picture_says_in_words_what_it_shows(path):
    outputs = [output for cell in code_of(path) for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    texts = [output.metadata.get("image/png", {}).get("alt", "") for output in pictures]
    assert min(map(len, texts)) > 40
    assert len(set(texts)) == len(texts)
    raw = re.compile(
        r"<[\w.]+[ >]|\bnan\b|\$|\\|(Series|DataFrame|array|Index|float64)\(|dtype:|Ellipsis"
    )
    assert [text for text in texts if raw.search(text)] == []


def test_the_site_is_given_the_text_of_each_picture():
    from make_site import with_alt

    for cell in with_alt(read(NOTEBOOKS[0])).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                assert (
                    cell.metadata["mystnb"]["image"]["alt"] == output.metadata["image/png"]["alt"]
                )


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_headings_are_plain_text(path):
    """A table of contents, a tab of the browser and a file of the site show them without TeX."""
    prose = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    headings = re.findall(r"^#+ .*", "\n".join(prose), flags=re.M)
    assert [heading for heading in headings if re.search(r"[$\\]", heading)] == []


def test_notebooks_open_alike():
    assert len({code_of(path)[0].source for path in NOTEBOOKS}) == 1


def test_no_function_is_defined_in_two_notebooks():
    defined = {
        path.stem: set(re.findall(r"^def (\w+)", "\n".join(c.source for c in code_of(path)), re.M))
        for path in NOTEBOOKS
    }
    for (one, first), (other, second) in combinations(defined.items(), 2):
        assert not first & second, f"{one} and {other} both define {first & second}"


@pytest.mark.parametrize("path", named(NOTEBOOKS))
def test_no_path_of_a_machine_is_in_a_notebook(path):
    text = path.read_text()
    assert not re.search(r"(?<![\w./…>])/(home|Users|root|tmp|work|mnt|private)/", text)


def canonical(name):
    """The name of a distribution as indexes compare it."""
    return name.lower().replace("_", "-")


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = (line.lower().split("==") for line in lines if line and not line.startswith("#"))
    return {canonical(name): version for name, version in pairs}


def dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    named = {
        canonical(name)
        for kind in ("test", "sampling", "nets", "notebooks", "batch", "course", "handin")
        for name in extras[kind]
    }
    return {canonical(name) for name in project["dependencies"]} | {
        name for name in named if "[" not in name
    }


def test_environment_files_are_in_step():
    conda = {"pytorch": "torch", "pytables": "tables"}
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    versions = dict(entry.split("==") for entry in pip)
    versions |= dict(
        entry.split("=")
        for entry in listed
        if isinstance(entry, str) and re.fullmatch(r"[\w-]+=[^=]+", entry)
    )
    versions = {canonical(conda.get(name, name)): version for name, version in versions.items()}
    assert versions.keys() == dependencies()
    assert {name: pins()[name] for name in versions} == versions
    assert pins()["torch"] == "2.13.0"


def imported(path):
    """Top-level names of the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_imports_are_declared():
    folders = ("labtools", "packages", "tools", "tests")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    own = {path.stem for path in files} | {path.name for path in PACKAGES}
    own |= set(sys.stdlib_module_names)
    names = {
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
        "IPython": "ipython",
        "playwright": "pytest",
        "markdown_it": "markdown-it-py",
        "mdit_py_plugins": "mdit-py-plugins",
        "thecannon": "numpy",  # a public Cannon, which tools/bench_public.py measures if it is there
    }
    for path in files:
        outside = {canonical(names.get(name, name)) for name in set(imported(path)) - own}
        assert outside <= dependencies(), f"{path.name} imports {outside - dependencies()}"


def test_readme_names_what_exists():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"make (lab|notebooks|test|lint|bench|doctor|\w+)\b", text):
        assert f"\n{command}:" in makefile, command
    for path in NOTEBOOKS:
        assert path.name in text


def test_public_names_have_docstrings():
    """Names in `__all__` of a module, and public methods of its public classes, say what they
    are."""
    bare = []
    for path in [path for package in PACKAGES for path in package.rglob("*.py")]:
        tree = ast.parse(path.read_text())
        public = (
            next((ast.literal_eval(n.value) for n in tree.body if _assigns(n, "__all__")), [])
            if tree.body
            else []
        )
        for node in tree.body:
            if getattr(node, "name", None) in public and not ast.get_docstring(node):
                bare.append(f"{path.name}:{node.name}")
    assert bare == []


def _assigns(node, name):
    return (
        isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") == name
        and isinstance(node.value, ast.List)
    )


def test_importing_the_package_is_light():
    """`import labtools` loads neither torch, pymc nor astroquery, and Tab finds the modules all the
    same."""
    code = "import sys, labtools; print(sorted({'torch', 'pymc', 'astroquery', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
    assert {"plots", "mcmc", "isochrones", "starnet"} <= set(dir(labtools))


def test_files_are_of_a_size_to_clone():
    for path in [*ROOT.glob("data/*"), *ROOT.glob("figures/*"), *ROOT.glob("labtools/*")]:
        if path.is_file() and path.suffix not in (".npz", ".fits"):
            assert path.stat().st_size < 3_000_000, path.name
