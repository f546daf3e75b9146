"""The PDFs that are handed in: Firstname_Lastname_lab2_cp1.pdf and its sisters; the figures of the gallery."""

import os
import re
import textwrap
import unicodedata
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from apogee_archive.cache import atomic_write
from apogee_archive.settings import figures_folder, setting

__all__ = ["checkpoint_path", "save_figures", "student_name", "write_checkpoint"]

NUMBERS = (1, 2, 3)
PACKAGES = ("labtools", "numpy", "scipy", "astropy", "matplotlib", "pymc", "torch")
NOBODY = "Firstname Lastname"
MARGIN = 0.12  # inches around the figure and between it and the lines of text
STYLE = {"fontsize": 8, "color": "0.25", "parse_math": False}


def student_name():
    """The name in LAB_STUDENT on one line, at most 80 characters of it; `NOBODY` if that is not set.

    A name without a letter or digit is a ValueError, because a file could not be named after it.
    """
    raw = setting("STUDENT", NOBODY)
    printable = "".join(c if c.isprintable() else " " for c in raw)
    name = " ".join(unicodedata.normalize("NFC", printable).split())[:80].strip()
    if not _file_stem(name):
        raise ValueError(f"LAB_STUDENT is {raw!r}: no letter or digit in it. Set it to your name.")
    return name


def _file_stem(name):
    """A name as a safe part of a file name: letters, digits, marks and hyphens, at most 150 bytes."""
    kept = re.sub("['.\N{RIGHT SINGLE QUOTATION MARK}]", "", name)
    safe = "".join(c if c == "-" or unicodedata.category(c)[0] in "LMN" else " " for c in kept)
    stem = "_".join(word.strip("-") for word in safe.split() if word.strip("-"))
    return stem.encode()[:150].decode(errors="ignore").strip("_-")


def checkpoint_path(number, folder=None):
    """Where checkpoint `number` (1, 2 or 3) is written, below `folder`, else LAB_FIGURES or `figures`."""
    if number not in NUMBERS:
        raise ValueError(f"There is no checkpoint {number!r}; the assignment has {NUMBERS}.")
    return (
        Path(folder or figures_folder("figures"))
        / f"{_file_stem(student_name())}_lab2_cp{number}.pdf"
    )


def save_figures(figures, folder=None):
    """Export figures, a dict of name -> Figure, as PNG files into `folder`, else `figures_folder()`; returns names."""
    _check_figures(figures)
    for name, figure in figures.items():
        with atomic_write(Path(folder or figures_folder()) / f"{name}.png") as part:
            figure.savefig(part, format="png", metadata={"Software": None})
    return [f"{name}.png" for name in figures]


def write_checkpoint(number, figures, survey, folder=None):
    """Write one checkpoint (see `checkpoint_path`), a page a figure; says so if LAB_STUDENT is not set.

    figures : dict of caption -> matplotlib Figure, in the order of the pages. They are left as they were.
    survey : what `open_survey` gave (its `title` is printed), or that title as a str.

    Each page is vector graphics with selectable text: name, checkpoint, date, survey and versions above the figure,
    its caption below. With SOURCE_DATE_EPOCH set, the date is that and the same figures give the same bytes.
    """
    path, name = checkpoint_path(number, folder), student_name()
    _check_figures(figures)
    title = survey if isinstance(survey, str) else survey.title
    heading = f"{name}  ·  lab 2, checkpoint {number}  ·  {_today()}  ·  {title}"
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    info = {"Title": heading, "Author": name, "Subject": title, "Keywords": versions}
    with (
        atomic_write(path) as part,
        mpl.rc_context({"pdf.fonttype": 42}),
        PdfPages(part, metadata=info) as pdf,
    ):
        for caption, figure in figures.items():
            _add_page(pdf, figure, [heading, versions], caption)
    if name == NOBODY:
        print(f"This says {NOBODY!r}: set LAB_STUDENT to your name before you hand it in.")
    return path


def _check_figures(figures):
    """Complain about anything but a non-empty dict of caption -> Figure."""
    if not isinstance(figures, dict) or not figures:
        raise ValueError("A checkpoint needs a dict of caption -> Figure with at least one figure.")
    for caption, figure in figures.items():
        if not isinstance(figure, Figure):
            raise TypeError(
                f"{caption!r} is a {type(figure).__name__}, not a Figure; of an Axes, give `ax.figure`."
            )


def _add_page(pdf, figure, heading, caption):
    """Save `figure` with lines above and below it, wrapped to its width, that are taken away again."""
    figure.draw_without_rendering()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    letters = max(20, int(drawn.width * 72 / (0.6 * STYLE["fontsize"])))
    above, below = (
        "\n".join(textwrap.fill(line, letters) for line in heading),
        textwrap.fill(str(caption), letters),
    )
    lines = [
        figure.text(drawn.x0 / width, (drawn.y1 + MARGIN) / height, above, va="bottom", **STYLE),
        figure.text(drawn.x0 / width, (drawn.y0 - MARGIN) / height, below, va="top", **STYLE),
    ]
    # The lines make the page larger than the figure. A legend of the figure that hangs on the page
    # would move onto the caption, and the layout would then close the gap that it left.
    layout = figure.get_layout_engine()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
    try:
        pdf.savefig(figure, bbox_inches="tight", pad_inches=MARGIN, dpi=200)
    finally:
        for line in lines:
            line.remove()
        for legend in figure.legends:
            legend.set_bbox_to_anchor(None)
        figure.set_layout_engine(layout)


def _today():
    """The date as YYYY-MM-DD; that of SOURCE_DATE_EPOCH (UTC) where it is set."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    when = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now().astimezone()
    return when.date().isoformat()
