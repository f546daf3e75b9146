"""The shared figures: gaps stay open, what matters is on top, colors mean what they say."""

import io
from base64 import b64decode
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labtools import plots
from labtools.spectra import GRID, WAVELENGTH, chips

WAVE = WAVELENGTH[GRID]


@pytest.fixture(autouse=True)
def closed():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def test_a_curve_is_broken_at_the_gaps_and_nowhere_else():
    _fig, axs = plots.chip_panels(WAVE)
    plots.plot_curve(WAVE, np.arange(WAVE.size), axs)
    x, y = axs[0, 1].lines[0].get_data()
    assert np.isnan(y).sum() == np.isnan(x).sum() == 2
    np.testing.assert_array_equal(y[np.isfinite(y)], np.arange(WAVE.size))
    assert [tuple(ax.get_xlim()) for ax in axs[0]] == [
        (WAVE[c][0], WAVE[c][-1]) for c in chips(WAVE)
    ]


def test_stars_of_large_colour_lie_on_top_and_stay_with_their_values():
    stars = pd.Index(list("abc"))
    fitted = pd.DataFrame({"teff": [1.0, 2.0, 3.0]}, index=stars)
    reference = pd.DataFrame({"teff": [30.0, 20.0, 10.0]}, index=stars[::-1])
    _, axs = plt.subplots(2)
    plots.plot_one_to_one(
        fitted, reference, "teff", axs, color=pd.Series([5.0, 9.0, 7.0], index=stars), note="σ 3 K"
    )
    dots = axs[0].collections[0]
    np.testing.assert_array_equal(dots.get_array(), [5, 7, 9])
    np.testing.assert_array_equal(dots.get_offsets(), [[10, 1], [30, 3], [20, 2]])
    np.testing.assert_array_equal(axs[1].collections[0].get_offsets()[:, 1], [-9, -27, -18])
    assert axs[0].texts[0].get_text() == "σ 3 K"
    assert "[K]" in axs[1].get_ylabel()


@pytest.mark.parametrize("top", [True, False])
def test_lines_are_marked_inside_the_panel_each_species_once_in_the_legend(top):
    lines = pd.DataFrame(
        {"species": ["Mg I", "Si I", "Mg I", "Si I"], "wavelength": [15745.0, 15750, 15753, 16000]}
    )
    ax = plt.gca()
    ax.set(xlim=(15740, 15760))
    plots.mark_lines(lines, ax, top=top)
    assert sorted(line.get_xdata()[0] for line in ax.lines) == [15745, 15750, 15753]
    assert ax.get_legend_handles_labels()[1] == ["Mg I", "Si I"]
    assert {line.get_ydata()[0] > 0.9 for line in ax.lines} == {top}


def test_isochrones_have_the_colour_of_their_metallicity():
    branch = pd.DataFrame(
        {"age": 6.0, "feh_init": -1.0, "phase": 2, "teff": [5000.0, 4000], "log_g": [3.0, 1]}
    )
    branch["eep"] = [500, 560]
    branch.attrs["source"] = "made up"
    stars = pd.DataFrame({"teff": [4800.0, 4700], "logg": [2.5, 2.4], "fe_h": [-1.0, 0.5]})
    ax = plots.plot_kiel(stars, SimpleNamespace(title="a survey"), [branch])
    ax.figure.draw_without_rendering()
    star, line = ax.collections[0].get_facecolors()[0], ax.lines[0].get_color()
    np.testing.assert_allclose(line, star)
    assert "a survey" in ax.get_title()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "6 Gyr, [Fe/H] = -1.0: made up",
        "helium burns in the core",
    ]


def test_a_figure_is_shown_with_its_text_and_closed(monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "get_ipython", lambda: "a kernel")
    monkeypatch.setattr(
        plots, "display", lambda data, raw, metadata: shown.append((data, metadata))
    )
    figure, ax = plt.subplots()
    ax.plot([1, 2])
    plots.show(figure, rf"{plots.title('teff')} of 2M0_1, [$\alpha$/M] and $\log g$, costs $5.")
    ((data, about),) = shown
    assert b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert about["image/png"]["alt"] == "Teff [K] of 2M0_1, [alpha/M] and log g, costs $5."
    assert plt.get_fignums() == []
    figure.savefig(io.BytesIO())


def test_outside_a_notebook_a_figure_is_shown_as_matplotlib_does(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(plt, "show", lambda: asked.append(plt.get_fignums()))
    plots.show(plt.figure(), "A text.")
    assert asked == [[1]]
    assert capsys.readouterr().out == ""
    assert plt.get_fignums() == []


def test_a_corner_plot_leaves_out_incomplete_rows_and_says_so():
    rng = np.random.default_rng(0)
    labels = pd.DataFrame(rng.normal(size=(300, 2)), columns=["fe_h", "mg_fe"])
    labels.loc[[3, 7], "fe_h"] = np.nan, np.inf
    figure = plots.plot_corner(labels, SimpleNamespace(title="a survey"))
    assert figure.get_suptitle() == "298 stars, a survey (2 incomplete left out)"
    with pytest.raises(ValueError, match="none of the 300 rows"):
        plots.plot_corner(labels * np.nan, SimpleNamespace(title="a survey"))
    with pytest.raises(ValueError, match="the same mg_fe"):
        plots.plot_corner(labels.assign(mg_fe=0.1), SimpleNamespace(title="a survey"))


def test_one_star_picked_out_is_drawn():
    spectra = xr.Dataset(
        {"flux": ("wavelength", np.ones(WAVE.size)), "error": ("wavelength", np.ones(WAVE.size))},
        coords={"star": "2M01", "wavelength": WAVE},
    )
    ax = plots.plot_spectrum(spectra, "2M01")
    assert np.nansum(ax.lines[0].get_ydata()) == WAVE.size
