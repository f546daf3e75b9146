"""What is handed in: re-run what is stale, then the three checkpoint PDFs and the final write-up (make handin).

The write-up is typeset by typst. Its text is made of what the notebooks found: the lists under "What we found" and the
figures in the folder of the run, so that it is true of the survey that was run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

import nbformat
import typst

from apogee_archive.settings import figures_folder, setting
from labtools import open_survey
from labtools.checkpoints import checkpoint_path, student_name

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
RUNNER = ROOT / "tools" / "run_notebooks.py"
SECTIONS = {
    "01": ("Which stars", "01_kiel"),
    "02": ("Bad pixels and the pseudo-continuum", "02_normalization"),
    "03": ("Learning what each pixel does", "03_gradients"),
    "04": ("Cross-validation", "04_cross_validation"),
    "05": ("The giant branch", "05_kiel"),
    "06": ("The mystery star, and whether its errors can be believed", "06_corner"),
    "07": ("A neural network in the place of the model", None),
}
METHOD = """
Each star's spectrum was read from its apStar file (row 0), pixels with bits 0 to 7 or 12 of the mask were given
infinite errors, and each of the three chips was divided by a polynomial of second degree through pixels near the
continuum (Ness et al. 2015). Half of the giants taught _The Cannon_: in every pixel the flux is a quadratic
polynomial of $T_"eff"$, $log g$, [Fe/H], [Mg/Fe] and [Si/Fe], 21 coefficients by weighted least squares, with an
intrinsic scatter of largest likelihood. The other half tested it: their labels minimize $chi^2$ over all usable
pixels, weighted by $1 slash (sigma^2 + s^2)$. The mystery star's posterior was sampled by NUTS with uniform priors
over the range of the training labels.
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


def made_by(path):
    """Digest of what an executed notebook depends on: its code, the package, and the settings."""
    digest = sha256()
    for source in [
        *sorted((ROOT / "labtools").rglob("*.py")),
        *sorted(
            path
            for path in (ROOT / "packages").rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        ),
    ]:
        digest.update(source.read_bytes())
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    settings = {
        name: value for name, value in sorted(os.environ.items()) if name.startswith("LAB_")
    }
    digest.update(repr((code, settings)).encode())
    return digest.hexdigest()


def run_stale():
    """Run each notebook whose copy in build/ is not what it would be now; the failing runner's code, or 0."""
    for path in sorted((ROOT / "notebooks").glob("0[1-7]*.ipynb")):
        kept = BUILD / f"{path.stem}.made-by"
        if (BUILD / path.name).exists() and kept.exists() and kept.read_text() == made_by(path):
            continue
        kept.unlink(missing_ok=True)
        if code := subprocess.run([sys.executable, RUNNER, path, "--into", BUILD]).returncode:
            return code
        kept.write_text(made_by(path))
    return 0


def findings(path):
    """The numbered findings at the end of an executed notebook, as a list of Markdown texts."""
    texts = [
        output.data["text/markdown"]
        for cell in nbformat.read(path, 4).cells
        for output in cell.get("outputs", [])
        if "text/markdown" in output.get("data", {})
    ]
    return (
        [" ".join(item.split()) for item in re.split(r"^\d\. ", texts[-1], flags=re.M)[1:]]
        if texts
        else []
    )


def to_typst(markdown):
    """Markdown of a sentence, with its TeX, as typst."""
    parts = re.split(r"(\$[^$]+\$)", markdown)
    return "".join(_mathematics(part) if part.startswith("$") else _prose(part) for part in parts)


def _mathematics(tex):
    tex = re.sub(r"\\rm\s+(\w+)", r'"\1"', re.sub(r"\\(?:mathrm|text)\{(\w+)\}", r'"\1"', tex))
    tex = re.sub(r"\{([^{}]*)\}", r"(\1)", tex)
    for name, symbol in {
        r"\,": " ",
        r"\;": " ",
        r"\pm": " plus.minus ",
        r"\approx": " approx ",
        r"\odot": " dot.o ",
    }.items():
        tex = tex.replace(name, symbol)
    tex = re.sub(r"\\([A-Za-z]+)", r"\1", re.sub(r'\(("\w+")\)', r"\1", tex))
    return f"${tex.strip('$ ')}$"  # blanks inside would make it a display


def _prose(text):
    text = re.sub(r"([\\#@<>$`~])", r"\\\1", text)
    text = re.sub(r"\[([^\]]+)\]\((https?:[^)]+)\)", r"\1", text)
    text = re.sub(
        r"(?<!\*)\*(?!\*)([^*]+)\*(?!\*)", r"#emph[\1]", text.replace("\\`", "").replace("_", "\\_")
    )
    return re.sub(r"\*\*([^*]+)\*\*", r"#strong[\1]", text)


def write_up(survey, found, pictures):
    """The document as typst: `found` maps the number of a notebook to its findings, `pictures` a name to a file."""
    lead = [
        items[0] for number, items in found.items() if number in ("01", "04", "06", "07") and items
    ]
    page = [
        '#set page(paper: "a4", margin: 2.4cm, numbering: "1")',
        '#set text(size: 10.5pt)\n#set par(justify: true)\n#set heading(numbering: "1")',
        '#align(center)[#text(16pt, weight: "bold")[Labels of red giants from their spectra]',
        f"#v(4pt) {_prose(student_name())} #h(1em) {_prose(survey.title)}]",
        f"#block(inset: (x: 1.2cm))[*Abstract.* {' '.join(map(to_typst, lead))}]",
        f"= Method\n{METHOD}",
    ]
    for number, (heading, picture) in SECTIONS.items():
        if found.get(number):
            page += [f"= {heading}", *(f"+ {to_typst(item)}" for item in found[number])]
        if picture in pictures:
            caption = f"{heading} ({survey.title}; notebook {number})."
            page.append(
                f'#figure(image("{pictures[picture]}", width: 92%), caption: [{_prose(caption)}])'
            )
    page += ["= References", *(f"- {_prose(one)}" for one in REFERENCES)]
    return "\n\n".join(page)


def main(arguments=None):
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(arguments)
    if not setting("STUDENT"):
        print('No name: make handin NAME="Firstname Lastname"', file=sys.stderr)
        return 2
    if code := run_stale():
        print("A notebook failed: nothing is handed in. See its last lines above.", file=sys.stderr)
        return code
    survey, folder = open_survey(), figures_folder()
    found = {path.stem[:2]: findings(path) for path in sorted(BUILD.glob("0[1-7]*.ipynb"))}
    target = checkpoint_path(1).with_name(checkpoint_path(1).name.replace("_cp1", "_writeup"))
    with tempfile.TemporaryDirectory() as work:
        pictures = {
            name: f"{name}.png"
            for _, name in SECTIONS.values()
            if name and (folder / f"{name}.png").exists()
        }
        for picture in pictures.values():
            shutil.copy(folder / picture, work)
        (Path(work) / "writeup.typ").write_text(write_up(survey, found, pictures))
        typst.compile(Path(work) / "writeup.typ", output=target)
    pieces = [*(checkpoint_path(number) for number in (1, 2, 3)), target]
    lost = [path.name for path in pieces if not path.exists()]
    lost += [f"figure {name}" for _, name in SECTIONS.values() if name and name not in pictures]
    lost += [f"findings of notebook {number}" for number in SECTIONS if not found.get(number)]
    print(
        "\n".join(
            [f"ready: {path}" for path in pieces if path.exists()]
            + [f"MISSING: {piece}" for piece in lost]
        )
    )
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
