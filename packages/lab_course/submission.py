"""What a student hands in: three checkpoint PDFs and a write-up, from their own notebooks.

``make handin NAME="Firstname Lastname"`` runs the notebooks that the student has worked on, and
typesets (with typst) the answers that they hold: one section per problem, with the figure that the
student's notebook shows there.
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

import nbformat
import typst

from apogee_archive.settings import checkout
from labtools import open_survey
from labtools.checkpoints import checkpoint_path, student_name

__all__ = ["Section", "find_work", "read_sections", "to_typst", "write_up"]

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
KNOWN = {
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "kappa", "lambda"),
    *("mu", "nu", "xi", "pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega"),
    *("Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi", "Omega"),
    *("log", "ln", "exp", "sin", "cos", "tan", "max", "min", "sqrt", "bold", "approx", "plus"),
    *("minus", "dot", "times", "sum", "product", "integral", "infinity", "partial", "nabla"),
}
"""Words that mean the same in TeX and in typst."""
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
    """One problem of the assignment in a student's notebook.

    Attributes
    ----------
    problem : int
        Number of the problem.
    heading : str
        Its heading.
    answers : list of str
        The student's answers, Markdown.
    picture : bytes or None
        The last figure of the section, PNG.
    caption : str
        What the figure shows.
    """

    problem: int
    heading: str
    answers: list[str] = field(default_factory=list)
    picture: bytes | None = None
    caption: str = ""


def find_work(root):
    """The folder with the student's notebooks, or None where nobody has worked yet.

    In a student's bundle that is ``notebooks``; in a full checkout ``build/work`` (from ``make
    jupyter``) or ``build/student`` (from ``make student``), the first that holds a notebook which
    differs from the lab's own.
    """
    reference = root / "notebooks"
    has_solutions = any(
        "### BEGIN SOLUTION" in path.read_text("utf-8") for path in _notebooks(reference)
    )
    if not has_solutions:
        return reference if _notebooks(reference) else None
    for folder in (root / "build" / "work", root / "build" / "student"):
        own = [path for path in _notebooks(folder) if _code(path) != _code(reference / path.name)]
        if own:
            return folder
    return None


def _notebooks(folder):
    return sorted(folder.glob("0[1-7]*.ipynb"))


def _code(path):
    """All code of a notebook; nothing for one that is not there."""
    if not path.is_file():
        return []
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def run_notebooks(work, into, root):
    """Run the notebooks whose executed copy is not up to date; returns the runner's exit code."""
    stale = []
    for path in _notebooks(work):
        mark = into / f".{path.stem}.made-by"
        if not (into / path.name).exists() or not mark.exists() or mark.read_text() != _key(path):
            stale.append(path)
    if not stale:
        return 0
    for path in stale:
        (into / f".{path.stem}.made-by").unlink(missing_ok=True)
    runner = [sys.executable, root / "tools" / "run_notebooks.py", *stale, "--into", into]
    if code := subprocess.run(runner).returncode:
        return code
    for path in stale:
        (into / f".{path.stem}.made-by").write_text(_key(path))
    return 0


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
        One per heading ``## Problem N``.
    abstract : str
        The cell that begins with ``**Abstract.**``, without these words; "" where there is none.
    """
    sections, abstract = [], ""
    for cell in nbformat.read(path, 4).cells:
        if cell.cell_type == "markdown":
            heading = re.search(r"^##+ (Problem (\d+).*)$", cell.source, flags=re.M)
            if heading and (not sections or sections[-1].problem != int(heading[2])):
                sections.append(Section(int(heading[2]), heading[1]))
            elif re.match(r"## (?!Problem)", cell.source):
                sections.append(
                    Section(0, cell.source.splitlines()[0])
                )  # no problem of the assignment
            if cell.source.startswith("**Abstract.**"):
                abstract = cell.source.removeprefix("**Abstract.**").strip()
            elif sections and _is_answer(cell):
                sections[-1].answers.append(cell.source.removeprefix("**Answer.**").strip())
        for output in cell.get("outputs", []) if sections else []:
            if "image/png" in output.get("data", {}):
                sections[-1].picture = base64.b64decode(output["data"]["image/png"])
                about = output.metadata.get("image/png", {})
                sections[-1].caption = about.get("alt", sections[-1].heading)
    return [section for section in sections if section.problem], abstract


def _is_answer(cell):
    """Whether a Markdown cell is a student's answer; an unchanged "Your answer" is not one."""
    marked = cell.source.startswith("**Answer.**") or cell.metadata.get("nbgrader", {}).get(
        "solution"
    )
    return bool(marked) and not cell.source.startswith("*Your answer")


def to_typst(markdown):
    """Markdown of a paragraph, with its TeX, as typst.

    Examples
    --------
    >>> to_typst("16 K in $T_{\\\\rm eff}$, *not* 3 K")
    '16 K in $T_"eff"$, #emph[not] 3 K'
    """
    parts = re.split(r"(\$[^$]+\$)", markdown)
    return "".join(_mathematics(part) if part.startswith("$") else _prose(part) for part in parts)


def _mathematics(tex):
    tex = re.sub(r"\\rm\s+(\w+)", r'"\1"', re.sub(r"\\(?:mathrm|text)\{(\w+)\}", r'"\1"', tex))
    tex = re.sub(r"\\mathbf\s*\{([^{}]*)\}", r"bold(\1)", tex)
    tex = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)", tex)
    tex = re.sub(r"\\[td]?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", tex)
    tex = re.sub(r"\\(?:left|right|big|Big)\b", "", tex)
    tex = re.sub(r"\{([^{}]*)\}", r"(\1)", tex)
    symbols = {
        r"\,": " ",
        r"\;": " ",
        r"\pm": " plus.minus ",
        r"\approx": " approx ",
        r"\odot": " dot.o ",
    }
    symbols |= {r"\le": " <= ", r"\ge": " >= ", r"\ln": " ln "}
    for name, symbol in symbols.items():
        tex = tex.replace(name, symbol)
    tex = re.sub(r'\(("\w+")\)', r"\1", tex)
    # A command that both know has the same name in typst; any other one is printed as a word
    tex = re.sub(r"\\([A-Za-z]+)", lambda m: m[1] if m[1] in KNOWN else f'"{m[1]}"', tex)
    # Letters side by side are one name in typst, and a product in TeX
    tex = re.sub(r'(?<!["\w])([A-Za-z]{2,})(?!["\w(])', _letters, tex)
    return f"${tex.strip('$ ')}$"  # blanks inside would make it a display


def _letters(match):
    """A run of letters in a formula: a symbol that typst knows, or a product of letters."""
    return match[1] if match[1] in KNOWN else " ".join(match[1])


def _prose(text):
    text = re.sub(r"([\\#@<>$`~])", r"\\\1", text).replace("//", r"\/\/")
    text = re.sub(r"\[([^\]]+)\]\((https?:[^)]+)\)", r"\1", text)
    text = text.replace("\\`", "").replace("_", "\\_")
    text = re.sub(r"(?<!\*)\*(?!\*)([^*]+)\*(?!\*)", r"#emph[\1]", text)
    return re.sub(r"\*\*([^*]+)\*\*", r"#strong[\1]", text)


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
    lines = [
        f'#set document(title: "Labels of red giants from their spectra", author: {_quoted(name)})',
        '#set page(paper: "a4", margin: 2.4cm, numbering: "1")',
        '#set text(size: 10.5pt)\n#set par(justify: true)\n#set heading(numbering: "1")',
        '#align(center)[#text(16pt, weight: "bold")[Labels of red giants from their spectra]',
        f"#v(4pt) {_prose(name)} #h(1em) {_prose(title)}]",
    ]
    if abstract:
        lines.append(f"#block(inset: (x: 1.2cm))[*Abstract.* {to_typst(abstract)}]")
    lines.append(f"= Method\n{METHOD}")
    for section in sections:
        lines.append(f"= {to_typst(section.heading)}")
        lines += [to_typst(answer) for answer in section.answers]
        if section.picture:
            place = f"problem-{section.problem}.png"
            (folder / place).write_bytes(section.picture)
            caption = f"{to_typst(section.caption)} ({_prose(title)})"
            lines.append(f'#figure(image("{place}", width: 92%), caption: [{caption}])')
    lines += ["= References", *(f"- {_prose(one)}" for one in REFERENCES)]
    return "\n\n".join(lines)


def _quoted(text):
    """Text as a string of typst."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def missing_pieces(sections, abstract):
    """What a complete write-up would have and this one has not, one sentence each."""
    found = {section.problem: section for section in sections}
    missing = [] if abstract else ["the abstract: a Markdown cell that begins with **Abstract.**"]
    for problem in range(1, 16):
        if problem not in found or not found[problem].answers:
            missing.append(f"an answer to Problem {problem}")
        if problem in WITH_FIGURE and (problem not in found or not found[problem].picture):
            missing.append(f"the figure of Problem {problem}")
    return missing


def main(arguments=None):
    """Run the student's notebooks; leave the checkpoint PDFs and the write-up in figures/."""
    parser = argparse.ArgumentParser(prog="make handin", description=main.__doc__)
    parser.add_argument("--work", type=Path, help="folder of the student's notebooks")
    options = parser.parse_args(arguments)
    if not os.environ.get("LAB_STUDENT", "").strip():
        print('No name: make handin NAME="Firstname Lastname"', file=sys.stderr)
        return 2
    root = checkout() or Path.cwd()
    work = options.work or find_work(root)
    if work is None or not _notebooks(work):
        print(
            "There is no work of yours to hand in: build/work and build/student hold no notebook "
            "that differs from the lab's own. Work in `make jupyter` or `make student`, or name a "
            "folder with --work.",
            file=sys.stderr,
        )
        return 2
    into = root / "build" / "handin"
    into.mkdir(parents=True, exist_ok=True)
    print(f"handing in the notebooks of {work}")
    if code := run_notebooks(work, into, root):
        print("A notebook failed: nothing is handed in. See its last lines above.", file=sys.stderr)
        return code
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
    missing = [path.name for path in pieces if not path.exists()] + missing_pieces(
        sections, abstract
    )
    print("\n".join(f"ready: {path}" for path in pieces if path.exists()))
    print("\n".join(f"MISSING: {piece}" for piece in missing))
    return int(bool(missing))
