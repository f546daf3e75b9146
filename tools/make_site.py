"""Build the site from notebooks as committed, pages and docstrings into build/site/html (make
site).

Every page, link and picture must be there: a warning of Sphinx is an error, and so is a link to a
file that is missing.
"""

import argparse
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "architecture",
    "real-data",
    "whole-survey",
    "simulation",
    "performance",
    "promises",
    "teaching",
    "glossary",
)
INDEX = """{readme}

```{{toctree}}
:caption: Notebooks
:hidden:

{notebooks}
```

```{{toctree}}
:caption: Pages
:hidden:

{pages}
api
```
"""


def gather(source):
    """Copy what the site shows into `source`, with links that fit there."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copytree(ROOT / "figures", source / "figures", ignore=shutil.ignore_patterns("*.pdf"))
    notebooks = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for name in notebooks:
        nbformat.write(
            with_alt(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4)),
            source / f"{name}.ipynb",
        )
    pages = [name for name in PAGES if (ROOT / "docs" / f"{name}.md").exists()]
    for path in [ROOT / "docs" / f"{name}.md" for name in pages] + [ROOT / "docs" / "conf.py"]:
        shutil.copy(path, source)
    shutil.copytree(ROOT / "docs" / "static", source / "static")
    readme = re.sub(
        r"(?<!!)\[([^]]+)\]\((?!\w+:)([^)#]+)\)", _link, (ROOT / "README.md").read_text()
    )
    index = INDEX.format(readme=readme, notebooks="\n".join(notebooks), pages="\n".join(pages))
    (source / "index.md").write_text(index)
    (source / "api.md").write_text(
        "# Functions and classes\n\n" + "\n\n".join(map(section, modules()))
    )


def with_alt(notebook):
    """The notebook with the text of each picture where myst-nb looks for it: in the metadata of the
    cell."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                cell.metadata["mystnb"] = {"image": {"alt": alt}}
    return notebook


def _link(match):
    """A link of the README as it is on the site: pages lie side by side, other files of the
    repository have no page."""
    text, path = match[1], Path(match[2])
    return f"[{text}]({path.stem})" if path.parts[0] in ("notebooks", "docs") else text


def modules():
    """Names of the modules that have public names: those of labtools first, then those of each
    package."""
    names = []
    for package in ("labtools", "apogee_archive", "mock_survey", "survey_batch", "lab_course"):
        folder = ROOT / package if package == "labtools" else ROOT / "packages" / package
        names += [f"{package}.{path.stem}" for path in sorted(folder.glob("[a-z]*.py"))]
    return [name for name in names if hasattr(importlib.import_module(name), "__all__")]


def section(module):
    """A section of the reference: Sphinx takes it from the docstrings."""
    members = ", ".join(importlib.import_module(module).__all__)
    return f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members: {members}\n```"


def broken(html):
    """Links and pictures of the built pages whose target is not there."""
    found = []
    for page in html.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="([^"#?:]+)(?:[#?][^"]*)?"', page.read_text()):
            if not (page.parent / target).exists():
                found.append(f"{page.name} -> {target}")
    return sorted(set(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "site")
    folder = parser.parse_args().into
    gather(folder / "source")
    shutil.rmtree(folder / "html", ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        folder / "source",
        folder / "html",
    ]
    result = subprocess.run(command, cwd=ROOT)
    lost = broken(folder / "html") if result.returncode == 0 else []
    print("\n".join(lost) or f"{folder / 'html' / 'index.html'}")
    return result.returncode or bool(lost)


if __name__ == "__main__":
    sys.exit(main())
