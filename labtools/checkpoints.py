"""The PDFs that are handed in (Firstname_Lastname_lab2_cp1.pdf, ...) and the exported figures."""

import os
import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from apogee_archive.cache import atomic_write
from apogee_archive.settings import figures_folder, setting
from apogee_archive.survey import Survey

__all__ = ["checkpoint_path", "save_figures", "student_name", "write_checkpoint"]

NUMBERS = (1, 2, 3)
PACKAGES = ("labtools", "numpy", "scipy", "astropy", "matplotlib", "pymc", "torch")
NOBODY = "Firstname Lastname"
MARGIN = 0.12  # inches around the figure and between it and the lines of text
STYLE: dict[str, Any] = {"fontsize": 9, "color": "0.25", "parse_math": False}


def _versions() -> str:
    """Packages with their versions; those that are not installed made none of the figures."""
    found = []
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{package} {metadata.version(package)}")
    return ", ".join(found)


def student_name() -> str:
    """The student's name, from the environment variable LAB_STUDENT.

    Returns
    -------
    str
        The name on one line, at most 80 characters of it; `Firstname Lastname` if it is not set.

    Raises
    ------
    ValueError
        If the name has no letter and no digit, because a file could not be named after it.

    Examples
    --------
    >>> import os
    >>> from labtools.checkpoints import student_name
    >>> os.environ["LAB_STUDENT"] = " Cecilia   Payne "
    >>> student_name()
    'Cecilia Payne'
    >>> del os.environ["LAB_STUDENT"]
    """
    raw = setting("STUDENT", NOBODY)
    printable = "".join(c if c.isprintable() else " " for c in raw)
    name = " ".join(unicodedata.normalize("NFC", printable).split())[:80].strip()
    if not _file_stem(name):
        raise ValueError(f"LAB_STUDENT is {raw!r}: no letter or digit in it. Set it to your name.")
    return name


def _file_stem(name: str) -> str:
    """A name as a safe part of a file name, at most 150 bytes of letters, digits and hyphens."""
    kept = re.sub("['.\N{RIGHT SINGLE QUOTATION MARK}]", "", name)
    # Unicode categories: L letters, M marks such as accents, N digits.
    safe = "".join(c if c == "-" or unicodedata.category(c)[0] in "LMN" else " " for c in kept)
    stem = "_".join(word.strip("-") for word in safe.split() if word.strip("-"))
    return stem.encode()[:150].decode(errors="ignore").strip("_-")


def checkpoint_path(number: int, folder: str | Path | None = None) -> Path:
    """Where a checkpoint is written.

    Parameters
    ----------
    number : int
        1, 2 or 3.
    folder : path, optional
        By default LAB_FIGURES, or `figures`.

    Returns
    -------
    Path
        `Firstname_Lastname_lab2_cp1.pdf` in that folder, with the name from `student_name`.

    Raises
    ------
    ValueError
        If the assignment has no such checkpoint.

    Examples
    --------
    >>> import os
    >>> from labtools.checkpoints import checkpoint_path
    >>> os.environ["LAB_STUDENT"] = "Cecilia Payne"
    >>> checkpoint_path(2, "pages").name
    'Cecilia_Payne_lab2_cp2.pdf'
    >>> del os.environ["LAB_STUDENT"]
    """
    if number not in NUMBERS:
        raise ValueError(f"There is no checkpoint {number!r}; the assignment has {NUMBERS}.")
    folder = Path(folder or figures_folder("figures"))
    return folder / f"{_file_stem(student_name())}_lab2_cp{number}.pdf"


def save_figures(figures: dict[str, Figure], folder: str | Path | None = None) -> list[str]:
    """Export figures as PNG files.

    Parameters
    ----------
    figures : dict
        File name without its ending -> matplotlib Figure.
    folder : path, optional
        By default LAB_FIGURES, or the folder that `figures_folder` names.

    Returns
    -------
    list of str
        Names of the files.

    Examples
    --------
    >>> import tempfile
    >>> from matplotlib.figure import Figure
    >>> from labtools import save_figures
    >>> save_figures({"05_kiel": Figure()}, tempfile.mkdtemp())
    ['05_kiel.png']
    """
    _check_figures(figures)
    for name, figure in figures.items():
        with atomic_write(Path(folder or figures_folder()) / f"{name}.png") as part:
            figure.savefig(part, format="png", metadata={"Software": None})
    return [f"{name}.png" for name in figures]


def write_checkpoint(
    number: int,
    figures: dict[str, Figure],
    survey: Survey | str,
    folder: str | Path | None = None,
) -> Path:
    """Write the PDF of one checkpoint, one page per figure.

    Each page is vector graphics with selectable text: name, checkpoint, date, survey and versions
    above the figure, its caption below. With SOURCE_DATE_EPOCH set the date is that one, and the
    same figures give the same bytes. If LAB_STUDENT is not set a line says so. If no installed
    font has the letters of the name, a warning says what to do, and the page shows their
    Unicode numbers instead of empty boxes.

    Parameters
    ----------
    number : int
        1, 2 or 3.
    figures : dict
        Caption -> matplotlib Figure, in the order of the pages. The figures are left as they were.
    survey : Survey or str
        What `open_survey` gave, whose `title` is printed, or that title.
    folder : path, optional
        As for `checkpoint_path`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If the assignment has no such checkpoint, or there is no figure.
    TypeError
        If something else than a Figure is given.

    Examples
    --------
    >>> import os, tempfile
    >>> from matplotlib.figure import Figure
    >>> from labtools import write_checkpoint
    >>> os.environ["LAB_STUDENT"] = "Cecilia Payne"
    >>> pages = {"(a) A Kiel diagram.": Figure()}
    >>> write_checkpoint(3, pages, "simulated survey", tempfile.mkdtemp()).name
    'Cecilia_Payne_lab2_cp3.pdf'
    >>> del os.environ["LAB_STUDENT"]
    """
    path, name = checkpoint_path(number, folder), student_name()
    _check_figures(figures)
    title = survey if isinstance(survey, str) else survey.title
    heading = f"{name}  ·  lab 2, checkpoint {number}  ·  {_today()}  ·  {title}"
    versions = _versions()
    info = {"Title": heading, "Author": name, "Subject": title, "Keywords": versions}
    shown, families = _with_fonts([heading, *map(str, figures)])
    heading, captions = shown[0], shown[1:]
    with (
        atomic_write(path) as part,
        mpl.rc_context({"pdf.fonttype": 42}),  # TrueType, so that text can be selected
        PdfPages(part, metadata=info) as pdf,
    ):
        for caption, figure in zip(captions, figures.values(), strict=True):
            _add_page(pdf, figure, [heading, versions], caption, families)
    if name == NOBODY:
        print(f"This says {NOBODY!r}: set LAB_STUDENT to your name before you hand it in.")
    return path


def _with_fonts(texts: list[str]) -> tuple[list[str], list[str]]:
    """Texts that can be printed, and the font families to print them with.

    Letters that the usual font lacks (Chinese, Japanese, Korean ...) are looked for in all
    installed fonts. For those that none has, a warning, and their numbers in Unicode instead.
    """
    families = list(mpl.rcParams["font.family"])
    usual = [_font_file(family) for family in families]
    letters = {letter for text in texts for letter in text if letter.isprintable()}
    missing = _without_glyph(letters, usual)
    while missing and (found := _font_with_most(frozenset(missing))):
        path, family = found
        families.append(family)
        missing = _without_glyph(missing, [path])
    if missing:
        words = "".join(letter for letter in dict.fromkeys("".join(texts)) if letter in missing)
        warnings.warn(
            f"no installed font has the letters {words!r}, and the page shows their Unicode "
            "numbers: install a font that has them (such as Noto Sans CJK), or set LAB_STUDENT to "
            "your name in Latin letters",
            stacklevel=3,
        )
    spelled = {ord(letter): f"[U+{ord(letter):04X}]" for letter in missing}
    return [text.translate(spelled) for text in texts], families


def _font_file(family: str) -> str:
    """Path of the font that Matplotlib takes for a family."""
    return font_manager.findfont(font_manager.FontProperties(family=[family]))


def _without_glyph(letters: Iterable[str], fonts: list[str]) -> set[str]:
    """Those letters that none of some font files can draw."""
    covered = {code for font in fonts for code in font_manager.get_font(font).get_charmap()}
    return {letter for letter in letters if ord(letter) not in covered}


@lru_cache
def _font_with_most(letters: frozenset[str]) -> tuple[str, str] | None:
    """Path and family of the installed font that has most of these letters, if one has any."""
    best, found = 0, None
    for font in font_manager.fontManager.ttflist:
        if "last" in font.name.lower() and "resort" in font.name.lower():
            continue  # this font draws a box for every letter there is
        try:
            covered = len(letters) - len(_without_glyph(letters, [font.fname]))
        except (OSError, RuntimeError):  # a font that is gone, or that cannot be read
            continue
        # Matplotlib looks fonts up by family: another file of it may be the one that it takes.
        if covered > best and _font_file(font.name) == font.fname:
            best, found = covered, (font.fname, font.name)
    return found


def _check_figures(figures: dict[str, Figure]) -> None:
    """Complain about anything but a non-empty dict of caption -> Figure."""
    if not isinstance(figures, dict) or not figures:
        raise ValueError("A checkpoint needs a dict of caption -> Figure with at least one figure.")
    for caption, figure in figures.items():
        if not isinstance(figure, Figure):
            kind = type(figure).__name__
            raise TypeError(f"{caption!r} is a {kind}, not a Figure; of an Axes, give `ax.figure`.")


def _add_page(
    pdf: PdfPages, figure: Figure, heading: list[str], caption: str, families: list[str]
) -> None:
    """Save a figure with lines above and below it, which are taken away again.

    The lines are wrapped to the width of what is drawn, and stand clear of it: of axes, titles
    and legends, also of those outside the axes. What is drawn is measured as the PDF draws it,
    because a layout can come out otherwise at another resolution.
    """
    dpi = figure.dpi
    try:
        figure.dpi = 72  # that of PDF
        figure.draw_without_rendering()
        drawn = figure.get_tightbbox()  # inches
    finally:
        figure.dpi = dpi
    width, height = figure.get_size_inches()
    letters = max(20, int(drawn.width * 72 / (0.6 * STYLE["fontsize"])))  # per line
    above = "\n".join(textwrap.fill(line, letters) for line in heading)
    below = textwrap.fill(caption, letters)
    style = STYLE | {"fontfamily": families}
    # A legend of the whole figure follows the edge of the page, which the lines of text move.
    # Anchored in the coordinates of the figure, and with the layout held as it was measured, it
    # stays in its place.
    legends = [one for one in figure.legends if one.get_bbox_to_anchor() is figure.bbox]
    for legend in legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")
    lines = [
        figure.text(drawn.x0 / width, (drawn.y1 + MARGIN) / height, above, va="bottom", **style),
        figure.text(drawn.x0 / width, (drawn.y0 - MARGIN) / height, below, va="top", **style),
    ]
    try:
        pdf.savefig(figure, bbox_inches="tight", pad_inches=MARGIN, dpi=200)
    finally:
        for line in lines:
            line.remove()
        for legend in legends:
            legend.set_bbox_to_anchor(None)
        figure.set_layout_engine(layout)


def _today() -> str:
    """The date as YYYY-MM-DD; that of SOURCE_DATE_EPOCH (UTC) where it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    when = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now().astimezone()
    return when.date().isoformat()
