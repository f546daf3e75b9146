"""What a spectrum would be with some of its flaws only: for telling causes of errors apart."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

import numpy as np
import pandas as pd
import xarray as xr
from numpy.polynomial import chebyshev

from apogee_archive.bitmasks import LAB_BITS
from apogee_archive.columns import LABELS
from apogee_archive.grid import CHIPS, WAVELENGTH
from mock_survey.instrument import observe, throughput
from mock_survey.population import TRENDS
from mock_survey.synthesis import synthesize

__all__ = ["FLAWS", "flawed_spectra"]

FLAWS = ("elements", "line spread", "response", "ripple", "noise")
"""Abundances that are no label; the fiber's resolution and the star's broadening; the smooth
response of each chip; waves on it; noise and masks."""

SMALL_ERROR = 0.005  # quoted error of a spectrum without noise, in units of the continuum
NOTHING = 1e9  # errors above this one stand for no value


def flawed_spectra(
    truth: pd.DataFrame,
    flaws: Collection[str],
    seed: int = 128,
    models: dict | None = None,
) -> xr.Dataset:
    """Raw spectra of stars of the mock survey that have only some of their flaws.

    Parameters
    ----------
    truth : DataFrame
        Rows of `SimulatedSurvey.truth()`.
    flaws : collection of str
        Some of `FLAWS`. A star has the same response and the same noise in every set of flaws.
    seed : int
        Of the random numbers.
    models : dict, optional
        Where model spectra and responses are kept for the next call with the same stars and seed.

    Returns
    -------
    Dataset
        `flux` and `error` (star, wavelength), 8575 pixels; error = inf where a pixel is lost.

    Raises
    ------
    ValueError
        For a flaw that is not in the list.

    Examples
    --------
    >>> stars = draw_population(1, 60).iloc[:2]  # doctest: +SKIP
    >>> clean = flawed_spectra(stars, [])  # doctest: +SKIP
    """
    if unknown := set(flaws) - set(FLAWS):
        raise ValueError(f"no flaws of a spectrum: {', '.join(sorted(unknown))}")
    models = {} if models is None else models
    # Only these two change the model spectra, which are slow to make: each kind is kept
    kind = "elements" in flaws, "line spread" in flaws
    if kind not in models:
        models[kind] = _models(truth, *kind)
    model = models[kind]
    if "responses" not in models:
        models["responses"] = [_response(name, star, seed) for name, star in truth.iterrows()]
    flux, error = np.empty_like(model), np.empty_like(model)
    for row, (_, star) in enumerate(truth.iterrows()):
        smooth, ripple, rng = models["responses"][row]
        source = model[row] * 1000
        source = source * (smooth if "response" in flaws else 1)
        source = source * (ripple if "ripple" in flaws else 1)
        flux[row], error[row] = source, SMALL_ERROR * np.median(source)
        if "noise" in flaws:
            rows = observe(source, star, deepcopy(rng))  # the same noise in each set of flaws
            flux[row], sigma, mask = (images[0] for images in rows)
            lost = (mask & int(LAB_BITS) != 0) | (sigma > NOTHING) | (flux[row] == 0)
            error[row] = np.where(lost, np.inf, sigma)
    axes = ("star", "wavelength")
    coords = {"star": truth.index.to_numpy(str), "wavelength": WAVELENGTH}
    return xr.Dataset({"flux": (axes, flux), "error": (axes, error)}, coords)


def _models(truth, elements, line_spread):
    """Model spectra (star, 8575), with each star's own abundances and line spread or without."""
    columns = [*LABELS]
    resolution = np.full(len(truth), 22500.0)
    if elements:
        columns += list(TRENDS.index)
    if line_spread:
        columns += ["vmacro"]
        resolution = truth["resolution"].to_numpy(float)
    return synthesize(truth[columns], resolution=resolution).values.astype(float)


def _response(name, star, seed, degree=4):
    """The smooth part of a star's response (8575,), chip by chip, with mean 1; the waves on it; and
    the generator that drew them, from which the noise comes next."""
    rng = np.random.default_rng([seed, *str(name).encode()])
    level = throughput(star, rng)
    smooth, ripple = np.ones_like(level), np.ones_like(level)
    for first, last in CHIPS:
        part = slice(first, last + 1)
        x = np.linspace(-1, 1, last - first + 1)
        curve = chebyshev.chebval(x, chebyshev.chebfit(x, level[part], degree))
        smooth[part], ripple[part] = curve / curve.mean(), level[part] / curve
    return smooth, ripple, rng
