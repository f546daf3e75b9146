"""The living figures: a slider moves the curve, and where no widget can run a still figure
stands."""

import base64
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.backend_bases import MouseEvent

from lab_course.interactive import explore_mask, explore_scatter, explore_spectrum
from labtools.cannon import design
from synthetic import made_up_cannon, made_up_stars

SURVEY = SimpleNamespace(title="simulated survey")
LINES = pd.DataFrame(
    {"species": ["Mg I", "Fe I"], "wavelength": [15753.2, 16045.0], "ep": [5.9, 5.9]}
)


@pytest.fixture
def spectrum():
    cannon = made_up_cannon(pixels=2000)
    spectra, labels = made_up_stars(cannon, 40)
    return cannon, spectra, labels, explore_spectrum(cannon, spectra, labels, LINES, SURVEY)


def curves(explorer):
    return [artist.get_ydata() for artist in explorer.moving[:3]]


def test_a_slider_moves_the_prediction(spectrum):
    cannon, _, _labels, explorer = spectrum
    explorer.controls["teff"].value = 4500.0
    values = {name: explorer.controls[name].value for name in cannon.labels}
    inside = slice(*np.searchsorted(cannon.wavelength, [16000, 16080]))
    point = pd.DataFrame([values])
    np.testing.assert_allclose(curves(explorer)[1], cannon.predict(point).values[0, inside])
    np.testing.assert_allclose(
        curves(explorer)[2], cannon.gradient(point).sel(label="teff").values[0, inside]
    )
    explorer.controls["of"].value = "fe_h"
    np.testing.assert_allclose(
        curves(explorer)[2], cannon.gradient(point).sel(label="fe_h").values[0, inside]
    )


def test_the_star_beneath_is_the_most_similar_one(spectrum):
    cannon, spectra, labels, explorer = spectrum
    for name in cannon.labels:
        explorer.controls[name].value = labels[name].iloc[7]
    assert labels.index[7] in explorer.text.value
    explorer.controls["window"].value = 15700.0
    star = explorer.moving[0]
    one = spectra.isel(star=7).sel(wavelength=star.get_xdata())
    np.testing.assert_allclose(
        star.get_ydata(), np.where(np.isfinite(one.error), one.flux, np.nan), rtol=1e-6
    )


def test_extrapolation_is_grey_and_said(spectrum):
    cannon, _, _labels, explorer = spectrum
    assert "extrapolates" not in explorer.text.value
    for name, sign in zip(cannon.labels, (1, -1, 1, -1, 1), strict=True):
        control = explorer.controls[name]
        control.min, control.max = -1e5, 1e5
        control.value = (
            cannon.offset[list(cannon.labels).index(name)]
            + 9 * sign * cannon.scale[list(cannon.labels).index(name)]
        )
    assert "extrapolates" in explorer.text.value
    assert explorer.moving[1].get_color() != "C1"


def test_the_line_under_the_cursor_is_named(spectrum):
    *_, explorer = spectrum
    ax, note = explorer.figure.axes[0], explorer.moving[-1]
    for wavelength, text in ((16045.3, "Fe I 16045.0"), (16060.0, "")):
        MouseEvent(
            "motion_notify_event",
            explorer.figure.canvas,
            *ax.transData.transform((wavelength, 0.8)),
        )._process()
        assert note.get_text() == text


def test_moving_a_label_redraws_only_what_moves(spectrum):
    """A redraw within 50 ms needs this: axes, ticks and text are drawn once a window."""
    *_, explorer = spectrum
    drawn = []
    explorer.figure.canvas.mpl_connect("draw_event", lambda _: drawn.append(1))
    explorer.controls["logg"].value += explorer.controls["logg"].step
    assert drawn == []
    explorer.controls["window"].value = 15500.0
    assert drawn


def test_a_still_figure_stands_where_no_widget_can(spectrum):
    *_, explorer = spectrum
    data, about = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG")
    assert data["text/plain"] == "<Explorer>"
    assert "simulated survey). Most similar star: " in about["image/png"]["alt"]
    assert "<" not in about["image/png"]["alt"]


def test_figures_of_pyplot_stay_what_they_are():
    code = "import matplotlib as mpl; mpl.use('svg'); import lab_course.interactive; print(mpl.get_backend())"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "svg\n"
    )


def test_bits_and_degree_change_what_is_masked():
    wavelength = np.linspace(15200, 15700, 900)
    mask = np.zeros(900, "i4")
    mask[100:120], mask[300:330] = 1, 1 << 13
    flux = 100 + np.linspace(-1, 1, 900) ** 3
    raw = xr.Dataset(
        {"flux": (("star", "wavelength"), flux[None]), "error": (("star", "wavelength"), np.ones((1, 900))),
         "mask": (("star", "wavelength"), mask[None])}, coords={"star": ["x"], "wavelength": wavelength}
    )  # fmt: skip
    explorer = explore_mask(raw, xr.ones_like(raw.flux.isel(star=0, drop=True), bool), SURVEY)
    assert "20 of 900" in explorer.text.value
    explorer.controls["bits"].value = [1, 1 << 13]
    assert "50 of 900" in explorer.text.value
    before = explorer.moving[1].get_ydata().copy()
    explorer.controls["degree"].value = 3
    assert np.nanmax(np.abs(explorer.moving[1].get_ydata() - before)) > 0.1


def test_the_likelihood_is_highest_at_the_true_scatter():
    rng = np.random.default_rng(3)
    x = design(rng.standard_normal((500, 2)))
    error = rng.uniform(0.002, 0.01, 500)
    flux = x @ (1, 0.05, 0.02, 0, 0, 0) + np.hypot(error, 0.01) * rng.standard_normal(500)
    explorer = explore_scatter(x, flux, error, SURVEY.title)
    dot = explorer.moving[0]
    explorer.controls["power"].value = -4.0
    assert dot.get_ydata()[0] > -3
    explorer.controls["power"].value = -6.0
    assert dot.get_ydata()[0] < -100
