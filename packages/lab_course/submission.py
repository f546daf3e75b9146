"""What a student hands in: three checkpoint PDFs and a write-up, from their own notebooks.

``make handin NAME="Firstname Lastname"`` runs the notebooks that the student has worked on, and
typesets (with typst) the answers and figures that they hold, one section per problem. A notebook
that stops at a fault costs what would have come after the fault, and is named; nothing else.
"""

import argparse
import base64
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import nbformat
import typst

from apogee_archive.settings import checkout, setting
from lab_course.student import ANSWER
from lab_course.typesetting import quoted, to_typst, typeset_safely
from labtools import open_survey
from labtools.checkpoints import checkpoint_path, student_name

__all__ = ["Section", "find_work", "read_sections", "write_up"]

CHECKPOINTS = {1: "02_normalization", 2: "04_cross_validation", 3: "06_mcmc"}
"""Checkpoints, and the notebooks that write them."""
WITH_FIGURE = (1, 4, 7, 8, 9, 10, 11, 12, 13, 14, 15)
"""Problems whose answer rests on a figure."""

METHOD = """
Each star's spectrum was read from its apStar file (row 0), pixels with bits 0 to 7 or 12 of the
mask were given infinite errors, and each of the three chips was divided by a polynomial of second
degree through pixels near the continuum (Ness et al. 2015). Half of the giants taught _The
Cannon_: in every pixel the flux is a quadratic polynomial of $T_"eff"$, $log g$, [Fe/H], [Mg/Fe]
and [Si/Fe], 21 coefficients by weighted least squares, with an intrinsic scatter of largest
likelihood. The other half tested it: their labels minimize $chi^2$ over all usable pixels,
weighted by $1 slash (sigma^2 + s^2)$. The mystery star's posterior was sampled by NUTS with
uniform priors over the range of the training labels, a tenth wider at each end.
"""
REFERENCES = (
    "Abdurro'uf et al. 2022, ApJS 259, 35 (SDSS DR17)",
    "Dotter 2016, ApJS 222, 8, and Choi et al. 2016, ApJ 823, 102 (MIST)",
    "Fabbro et al. 2018, MNRAS 475, 2978 (StarNet)",
    "García Pérez et al. 2016, AJ 151, 144, and Holtzman et al. 2015, AJ 150, 148 (ASPCAP)",
    "Majewski et al. 2017, AJ 154, 94 (APOGEE)",
    "Ness et al. 2015, ApJ 808, 16 (The Cannon)",
    "Smith et al. 2013, ApJ 765, 16 (lines)",
)


@dataclass
class Section:
    """One problem of the assignments in a student's notebook.

    Attributes
    ----------
    kind : str
        "Problem" (of the first assignment) or "Question" (of the second).
    number : str
        Its number, such as "6" or "2.2.1".
    heading : str
        Its heading.
    parts : list of (str, object)
        What it holds, in order: ("heading", text), ("answer", Markdown), ("figure", Picture).
    open : int
        How many answers are not written yet.
    """

    kind: str
    number: str
    heading: str
    parts: list[tuple[str, Any]] = field(default_factory=list)
    open: int = 0

    @property
    def answers(self) -> list[str]:
        """The student's answers, Markdown."""
        return [part for kind, part in self.parts if kind == "answer"]

    @property
    def pictures(self) -> list["Picture"]:
        """The figures."""
        return [part for kind, part in self.parts if kind == "figure"]

    @property
    def place(self) -> tuple:
        """Where it stands in the write-up: problems before questions, each in their order."""
        return self.kind != "Problem", [int(part) for part in re.findall(r"\d+", self.number)]


@dataclass
class Picture:
    """A figure: PNG, and what it shows."""

    png: bytes
    caption: str


def find_work(root):
    """The folder with the student's notebooks, or None where nobody has worked yet.

    These are ``build/work`` (from ``make jupyter``), ``build/student`` (from ``make student``) or,
    in a student's bundle, ``notebooks``: the first that holds a notebook which differs from what
    was given out.
    """
    for folder in (root / "build" / "work", root / "build" / "student", root / "notebooks"):
        if any(_text(path) != _text(_given(path, root)) for path in _notebooks(folder)):
            return folder
    return None


def _given(path, root):
    """The notebook as it was given out: beside a student's copy, or the lab's own."""
    original = path.with_name(f".{path.name}.original")
    return original if original.exists() else root / "notebooks" / path.name


def _notebooks(folder):
    return sorted(folder.glob("0[1-8]*.ipynb"))


def _text(path):
    """All that is written in a notebook; nothing for one that is not there."""
    if not path.is_file():
        return []
    return [cell.source for cell in nbformat.read(path, 4).cells]


def run_notebooks(work, into, root):
    """Run the notebooks whose executed copy is not up to date, each to its end or to its first
    fault. Returns what stopped, one sentence for each such notebook."""
    stale = []
    for path in _notebooks(work):
        mark = into / f".{path.stem}.made-by"
        if not (into / path.name).exists() or not mark.exists() or mark.read_text() != _key(path):
            stale.append(path)
            mark.unlink(missing_ok=True)
            (into / path.name).unlink(missing_ok=True)
    for number, stem in CHECKPOINTS.items():  # it is written anew, or missing
        if stem in [path.stem for path in stale]:
            checkpoint_path(number).unlink(missing_ok=True)
    if stale:
        runner = [sys.executable, root / "tools" / "run_notebooks.py", "--keep-going"]
        subprocess.run([*runner, *stale, "--into", into])
    stopped = [fault for path in stale if (fault := _fault(into / path.name))]
    for path in stale:  # only what ran to its end need not be run again
        if not _fault(into / path.name):
            (into / f".{path.stem}.made-by").write_text(_key(path))
    return stopped


def _fault(path):
    """Where an executed notebook stopped, as a sentence; "" if it ran to its end."""
    if not path.exists():
        return f"{path.name} was not run"
    code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        for output in cell.outputs:
            if output.output_type == "error":
                why = f"{output.ename}: {output.evalue}".splitlines()[0][:100]
                return f"{path.name} stopped at code cell {number} of {len(code)} ({why})"
        if cell.source.strip() and cell.execution_count is None:
            return f"{path.name} stopped at code cell {number} of {len(code)}"
    return ""


def _key(path):
    """What the executed copy depends on, as far as a student changes it."""
    cells = [cell.source for cell in nbformat.read(path, 4).cells]
    settings = {
        name: value for name, value in sorted(os.environ.items()) if name.startswith("LAB_")
    }
    return sha256(repr((cells, settings)).encode()).hexdigest()


def read_sections(path):
    """The problems in an executed notebook, and the abstract if it holds one.

    Parameters
    ----------
    path : pathlib.Path
        An executed notebook.

    Returns
    -------
    sections : list of Section
        One per heading ``## Problem N`` or ``## Question N``.
    abstract : str
        The cell that begins with ``**Abstract.**``, without these words; "" where there is none.
    """
    sections, section, abstract = [], None, ""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            first = cell.source.partition("\n")[0]
            if heading := re.match(r"##+ ((Problem|Question) ([\d.]*\d)\b.*)", first):
                section = Section(heading[2], heading[3], heading[1])
                sections.append(section)
            elif first.startswith("## "):
                section = None  # no problem of the assignments
            elif first.startswith("### ") and section:
                section.parts.append(("heading", first.lstrip("# ")))
            if cell.source.startswith("**Abstract.**"):
                abstract = cell.source.removeprefix("**Abstract.**").strip()
            elif section and _is_answer(cell):
                if cell.source.strip() in ("", ANSWER):
                    section.open += 1
                else:
                    words = cell.source.removeprefix("**Answer.**").strip()
                    section.parts.append(("answer", words))
        for output in cell.get("outputs", []) if section else []:
            if "image/png" in output.get("data", {}):
                png = base64.b64decode(output["data"]["image/png"])
                caption = output.metadata.get("image/png", {}).get("alt", section.heading)
                section.parts.append(("figure", Picture(png, caption)))
    return sections, abstract


def _is_answer(cell):
    """Whether a Markdown cell is for a student's answer; a prediction is none."""
    about = cell.metadata.get("nbgrader", {})
    predicted = "-prediction-" in about.get("grade_id", "")
    return (cell.source.startswith("**Answer.**") or about.get("solution", False)) and not predicted


def write_up(title, name, abstract, sections, folder):
    """The write-up as typst source; the pictures are written to `folder`.

    Parameters
    ----------
    title : str
        The survey, as figures name it.
    name : str
        The student.
    abstract : str
        Markdown.
    sections : list of Section
        In the order of the problems.
    folder : pathlib.Path
        Where typst will look for pictures.
    """
    title_of_it = "Labels of red giants from their spectra"
    lines = [
        f"#set document(title: {quoted(title_of_it)}, author: {quoted(name)})",
        '#set page(paper: "a4", margin: 2.4cm, numbering: "1")',
        "#set text(size: 10.5pt)\n#set par(justify: true)",
        f'#align(center)[#text(16pt, weight: "bold")[{title_of_it}]',
        f"#v(4pt) #{quoted(name)}; #h(1em) #{quoted(title)};]",
    ]
    if abstract:
        lines.append(f"#block(inset: (x: 1.2cm))[*Abstract.* {typeset_safely(abstract)}]")
    lines.append(f"= Method\n{METHOD}")
    number = 0
    for section in sorted((one for one in sections if one.parts), key=lambda one: one.place):
        # A sub-heading waits until something of its own follows, so that none stands alone
        lines.append(f"= {to_typst(section.heading)}")
        heading = ""
        for kind, part in section.parts:
            if kind == "heading":  # printed when something follows
                heading = f"== {to_typst(part)}"
                continue
            lines += [heading] if heading else []
            heading = ""
            if kind == "answer":
                lines.append(typeset_safely(part))
            else:
                number += 1
                place = f"figure-{number}.png"
                (folder / place).write_bytes(part.png)
                caption = f"{to_typst(part.caption)} (#{quoted(title)};)"
                lines.append(f'#figure(image("{place}", width: 80%), caption: [{caption}])')
    lines += ["= References", *(f"- #{quoted(one)};" for one in REFERENCES)]
    return "\n\n".join(lines)


def missing_pieces(sections, abstract):
    """What a complete write-up would have and this one has not, one sentence each."""
    missing = [] if abstract else ["the abstract: a Markdown cell that begins with **Abstract.**"]
    for problem in range(1, 16):
        found = [one for one in sections if (one.kind, one.number) == ("Problem", str(problem))]
        if not any(one.answers for one in found):
            missing.append(f"an answer to Problem {problem}")
        elif still_open := sum(one.open for one in found):
            missing.append(f"{still_open} of the answers to Problem {problem}")
        if problem in WITH_FIGURE and not any(one.pictures for one in found):
            missing.append(f"the figure of Problem {problem}")
    return missing


def main(arguments=None):
    """Run the student's notebooks; leave the checkpoint PDFs and the write-up in figures/."""
    parser = argparse.ArgumentParser(prog="make handin", description=main.__doc__)
    parser.add_argument("--work", type=Path, help="folder of the student's notebooks")
    options = parser.parse_args(arguments)
    if not setting("STUDENT"):
        print('No name: make handin NAME="Firstname Lastname"', file=sys.stderr)
        return 2
    root = checkout() or Path.cwd()
    work = options.work or find_work(root)
    if work is None or not _notebooks(work):
        print(
            "There is no work of yours to hand in: no notebook differs from what was given out "
            "(build/work, build/student and notebooks/ were looked at). Work in `make jupyter`, "
            "or name a folder with --work.",
            file=sys.stderr,
        )
        return 2
    into = root / "build" / "handin"
    into.mkdir(parents=True, exist_ok=True)
    print(f"handing in the notebooks of {work}")
    stopped = run_notebooks(work, into, root)
    sections, abstract = [], ""
    for path in _notebooks(into):
        found, words = read_sections(path)
        sections, abstract = sections + found, abstract or words
    target = checkpoint_path(1).with_name(checkpoint_path(1).name.replace("_cp1", "_writeup"))
    with tempfile.TemporaryDirectory() as place:
        document = write_up(open_survey().title, student_name(), abstract, sections, Path(place))
        (Path(place) / "writeup.typ").write_text(document, encoding="utf-8")
        typst.compile(Path(place) / "writeup.typ", output=target)
    pieces = [*(checkpoint_path(number) for number in (1, 2, 3)), target]
    missing = [path.name for path in pieces if not path.exists()]
    missing += stopped + missing_pieces(sections, abstract)
    print("\n".join(f"ready: {path}" for path in pieces if path.exists()))
    print("\n".join(f"MISSING: {piece}" for piece in missing))
    return int(bool(missing))
