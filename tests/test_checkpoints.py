"""The checkpoint PDFs: opened again, and read."""

import os
import re
import warnings
from importlib import metadata
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from labtools.checkpoints import checkpoint_path, save_figures, student_name, write_checkpoint

pypdf = pytest.importorskip("pypdf")
SURVEY = SimpleNamespace(title="simulated survey")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def figures():
    fig, ax = plt.subplots(layout="constrained")
    ax.plot([0, 1], [0, 1])
    ax.set(xlabel="wavelength", title="flux of one star")
    dense, ax = plt.subplots(figsize=(4, 3))
    ax.plot(np.arange(50), np.arange(50), ".", rasterized=True)
    return {"The labels of $1900 giants": fig, "A star before and after": dense}


def text_of(path):
    return [" ".join(page.extract_text().split()) for page in pypdf.PdfReader(path).pages]


def test_pages_text_and_metadata(figures, tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_STUDENT", "Cecilia Payne")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1760000000")
    path = write_checkpoint(1, figures, SURVEY, tmp_path)
    assert path == tmp_path / "Cecilia_Payne_lab2_cp1.pdf"
    pages = text_of(path)
    assert len(pages) == 2
    for page, caption in zip(pages, figures, strict=True):
        for words in (
            "Cecilia Payne",
            "checkpoint 1",
            "2025-10-09",
            "simulated survey",
            "matplotlib 3.",
            caption,
        ):
            assert words in page
    assert "flux of one star" in pages[0]
    info = pypdf.PdfReader(path).metadata
    assert info.author == "Cecilia Payne"
    assert "checkpoint 1" in info.title


def test_what_is_not_installed_is_not_named(figures, tmp_path, monkeypatch):
    """A checkpoint can be made without PyTorch."""
    version = metadata.version

    def lean(package):
        if package == "torch":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(metadata, "version", lean)
    page = text_of(write_checkpoint(1, figures, SURVEY, tmp_path))[0]
    assert "matplotlib 3." in page
    assert "torch" not in page


def test_fonts_are_truetype_and_lines_are_vectors(figures, tmp_path):
    reader = pypdf.PdfReader(write_checkpoint(1, figures, SURVEY, tmp_path))
    fonts = [
        font.get_object() for page in reader.pages for font in page["/Resources"]["/Font"].values()
    ]
    assert {font["/Subtype"] for font in fonts} == {"/Type0"}
    images = [re.findall(rb"/I\d+\s+Do", page.get_contents().get_data()) for page in reader.pages]
    assert [len(found) for found in images] == [0, 1]


def test_figures_stay_as_they_were(figures, tmp_path):
    fig = figures["The labels of $1900 giants"]
    fig.canvas.draw()
    before = np.asarray(fig.canvas.buffer_rgba()).copy()
    state = (len(fig.texts), fig.dpi, tuple(fig.get_size_inches()))
    write_checkpoint(2, figures, "APOGEE DR17", tmp_path)
    fig.canvas.draw()
    assert (len(fig.texts), fig.dpi, tuple(fig.get_size_inches())) == state
    np.testing.assert_array_equal(np.asarray(fig.canvas.buffer_rgba()), before)


def test_everything_lies_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_STUDENT", "A Name " + "of many words " * 5)
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.text(1.5, 0.5, "outside", transform=ax.transAxes)
    path = write_checkpoint(3, {"caption " * 30: fig}, SURVEY, tmp_path)
    page = pypdf.PdfReader(path).pages[0]
    places = []
    page.extract_text(
        visitor_text=lambda text, cm, *_: places.append(cm[4:]) if text.strip() else None
    )
    x, y = np.transpose(places)
    assert (x >= 0).all()
    assert (x < page.mediabox.width).all()
    assert (y > 0).all()
    assert (y < page.mediabox.height).all()
    assert "outside" in text_of(path)[0]


def test_a_legend_below_the_figure_is_not_under_the_caption(tmp_path):
    fig, ax = plt.subplots(figsize=(8, 5), layout="constrained")
    ax.plot([0, 1], [0, 1], label="curve")
    ax.set(xlabel="wavelength")
    fig.legend(loc="outside lower center")
    fig.draw_without_rendering()
    path = write_checkpoint(1, {"caption of two lines " * 8: fig}, SURVEY, tmp_path)
    heights = {}
    pypdf.PdfReader(path).pages[0].extract_text(
        visitor_text=lambda text, cm, *_: heights.setdefault(text.strip().partition(" ")[0], cm[5])
    )
    assert heights["wavelength"] > heights["curve"] + 10
    assert heights["curve"] > heights["caption"] + 10


def test_same_figures_same_bytes(figures, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = write_checkpoint(1, figures, SURVEY, tmp_path / "a").read_bytes()
    assert write_checkpoint(1, figures, SURVEY, tmp_path / "b").read_bytes() == first


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("", "Firstname_Lastname"),
        ("../../etc/passwd", "etc_passwd"),
        ("Anne  O'Neill-Smith Jr.", "Anne_ONeill-Smith_Jr"),
        ("a\x01b\ud800c\n", "a_b_c"),
        ("Ångström Ünal", "Ångström_Ünal"),
        ("E\u0301mile", "\u00c9mile"),
        ("--rm -rf *", "rm_rf"),
        ("x" * 500, "x" * 80),
        ("星" * 500, "星" * 50),
    ],
)
def test_names_are_safe_in_paths(name, stem, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "LAB_STUDENT": name})
    path = checkpoint_path(2, tmp_path)
    assert path == tmp_path / f"{stem}_lab2_cp2.pdf"
    assert len(os.fsencode(path.name)) < 200


def test_a_name_of_nothing_is_refused(monkeypatch):
    monkeypatch.setenv("LAB_STUDENT", "/../ *")
    with pytest.raises(ValueError, match="LAB_STUDENT"):
        student_name()


def test_a_missing_name_is_said_and_stops_nothing(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("LAB_STUDENT", raising=False)
    assert write_checkpoint(1, figures, SURVEY, tmp_path).name == "Firstname_Lastname_lab2_cp1.pdf"
    assert "set LAB_STUDENT to your name" in capsys.readouterr().out
    monkeypatch.setenv("LAB_STUDENT", "Cecilia Payne")
    write_checkpoint(1, figures, SURVEY, tmp_path)
    assert capsys.readouterr().out == ""


def test_bad_arguments(figures, tmp_path):
    with pytest.raises(ValueError, match="no checkpoint 4"):
        write_checkpoint(4, figures, SURVEY, tmp_path)
    with pytest.raises(ValueError, match="at least one figure"):
        write_checkpoint(1, {}, SURVEY, tmp_path)
    with pytest.raises(TypeError, match=r"ax\.figure"):
        write_checkpoint(1, {"axes": plt.subplots()[1]}, SURVEY, tmp_path)


def test_a_failed_page_leaves_the_old_file(figures, tmp_path, monkeypatch):
    path = write_checkpoint(1, figures, SURVEY, tmp_path)
    before = path.read_bytes()
    dense = figures["A star before and after"]
    monkeypatch.setattr(dense, "savefig", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_checkpoint(1, figures, SURVEY, tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert not dense.texts


def test_letters_without_a_font_are_said_and_not_printed_as_boxes(figures, tmp_path, monkeypatch):
    """An undeciphered script, which fonts for Chinese or Korean do not have either."""
    monkeypatch.setenv("LAB_STUDENT", "\U00014400 Ada")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        path = write_checkpoint(1, figures, SURVEY, tmp_path)
    messages = [str(one.message) for one in said]
    assert len(messages) == 1
    assert "set LAB_STUDENT to your name in Latin letters" in messages[0]
    assert "[U+14400] Ada" in text_of(path)[0]
    assert pypdf.PdfReader(path).metadata.author == "\U00014400 Ada"


def test_letters_that_the_usual_font_lacks_come_from_another(figures, tmp_path, monkeypatch):
    """Computer Modern stands for a font without Chinese, DejaVu for one that is installed and has it."""
    monkeypatch.setenv("LAB_STUDENT", "Σοφία Ж")
    monkeypatch.setitem(mpl.rcParams, "font.family", ["cmr10"])
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Glyph|no installed font")
        path = write_checkpoint(
            1, {"A star before and after": figures["A star before and after"]}, SURVEY, tmp_path
        )
    assert "Σοφία Ж" in text_of(path)[0]


def test_the_caption_is_below_legends_that_stand_outside(tmp_path):
    fig, axs = plt.subplots(2, figsize=(6, 4), layout="constrained")
    axs[0].plot([0, 1], label="a legend")
    fig.legend(*axs[0].get_legend_handles_labels(), loc="outside lower center")
    tall, ax = plt.subplots(figsize=(6, 4))
    ax.plot([0, 1], label="a legend")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3))
    page_of = {"caption one": fig, "caption two": tall}
    for page in pypdf.PdfReader(write_checkpoint(1, page_of, SURVEY, tmp_path)).pages:
        heights = {}
        page.extract_text(
            visitor_text=lambda text, cm, tm, *_, at=heights: at.setdefault(
                text.strip()[:7], cm[5] + tm[5]
            )
        )
        assert heights["caption"] < heights["a legen"] - 9


def test_figures_are_exported_whole_and_repeatably(tmp_path):
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    assert save_figures({"one": figure}, tmp_path) == ["one.png"]
    first = (tmp_path / "one.png").read_bytes()
    save_figures({"one": figure}, tmp_path)
    assert (tmp_path / "one.png").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["one.png"]
    with pytest.raises(TypeError, match="two"):
        save_figures({"two": ax}, tmp_path)
