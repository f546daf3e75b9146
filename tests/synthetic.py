"""A model and spectra made up for the tests of posteriors, where the truth is known."""

from math import comb

import numpy as np
import pandas as pd
import xarray as xr

from labtools.cannon import Cannon, design

NAMES = ("teff", "logg", "fe_h", "mg_fe", "si_fe")
OFFSET = np.array([4600.0, 2.3, -0.1, 0.1, 0.08])
SCALE = np.array([250.0, 0.6, 0.25, 0.1, 0.08])


def made_up_cannon(labels=5, pixels=400, seed=0, degree=2, reciprocal=()):
    """A model with random coefficients, smooth scatter and one pixel that could not be trained."""
    rng = np.random.default_rng(seed)
    terms = comb(labels + degree, degree)
    size = np.concatenate([[0], np.full(labels, 0.03), np.full(terms - 1 - labels, 0.006)])
    theta = rng.standard_normal((pixels, terms)) * size + np.eye(terms)[0]
    s2 = 1e-5 * (1 + np.sin(np.arange(pixels) / 30) ** 2)
    theta[7], s2[7] = np.eye(terms)[0], np.inf
    training_labels = rng.standard_normal((300, labels)).clip(-2.5, 2.5)
    wavelength = np.linspace(15168, 16937, pixels)
    offset, scale = OFFSET[:labels].copy(), SCALE[:labels].copy()
    if "teff" in reciprocal:
        offset[0], scale[0] = 5040 / 4600, 0.06
    return Cannon(
        NAMES[:labels], offset, scale, wavelength, theta, s2, training_labels, degree, reciprocal
    )


def made_up_stars(cannon, number, snr=80, seed=1, noise=None):
    """Spectra drawn from the model, a tenth of the pixels masked, and their true labels."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.8, 1.8, (number, len(cannon.labels)))
    names = [f"star{i:03d}" for i in range(number)]
    truth = pd.DataFrame(cannon.unscaled(x), index=names, columns=list(cannon.labels))
    error = np.where(rng.random((number, len(cannon.wavelength))) < 0.1, np.inf, 1 / snr)
    sigma = np.sqrt(
        np.where(np.isfinite(error), error, 0) ** 2 + np.where(np.isfinite(cannon.s2), cannon.s2, 0)
    )
    flux = (
        design(x, cannon.degree) @ cannon.theta.T
        + sigma * rng.standard_normal(error.shape)
        + (0 if noise is None else noise)
    )
    coords = {"star": names, "wavelength": cannon.wavelength}
    axes = ("star", "wavelength")
    return xr.Dataset({"flux": (axes, flux), "error": (axes, error)}, coords=coords), truth
