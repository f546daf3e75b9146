"""The same work by a public Cannon, on the same stars and pixels, for `make bench`.

It is the-cannon 0.2.6 (Casey et al. 2016, https://github.com/andycasey/AnniesLasso), which is
measured if it is there: `pip install --no-deps the-cannon==0.2.6 six`.
"""

import collections
import collections.abc
import contextlib
import io
import logging
import warnings

import numpy as np

from bench import timed
from labtools import LABELS, Cannon

STEP = 60  # every so many pixels: 121 of 7214


def rows(teach, labels, test):
    """How long both take to train and to fit, and by how much their labels differ."""
    public = imported()
    if public is None:
        yield "a public Cannon", "not measured: pip install --no-deps the-cannon==0.2.6 six"
        return
    teach, test = (one.isel(wavelength=slice(None, None, STEP)) for one in (teach, test))
    test = test.isel(star=slice(0, None, 20))
    vectorizer = public.vectorizer.PolynomialVectorizer(LABELS, 2)
    arrays = [(one.flux.values.astype(float), inverse_variance(one)) for one in (teach, test)]
    known = labels[LABELS].to_records(index=False)
    theirs = public.CannonModel(known, *arrays[0], vectorizer, teach.wavelength.values)
    ours = Cannon.train(teach, labels)
    what = f"{len(labels)} stars x {teach.sizes['wavelength']} pixels"
    training = timed(lambda: train(public, theirs), 1) / timed(lambda: Cannon.train(teach, labels))
    yield f"the-cannon 0.2.6: training / ours, {what}", f"{training:.0f}"
    with contextlib.redirect_stdout(io.StringIO()):  # it draws a bar of its own
        fitting = timed(lambda: theirs.test(*arrays[1]), 1) / timed(lambda: ours.fit(test))
        found, _, _ = theirs.test(*arrays[1])
    yield f"the-cannon 0.2.6: fitting / ours, {test.sizes['star']} stars", f"{fitting:.0f}"
    fitted = ours.fit(test)
    errors = fitted[[f"{label}_err" for label in LABELS]].to_numpy()
    off = np.median(np.abs(found - fitted[LABELS].to_numpy()) / errors)
    yield "the-cannon 0.2.6: median difference of labels, in formal errors", f"{off:.3f}"


def train(public, model):
    """What its own `train` does, pixel by pixel.

    That one stores an array of one number as a number, which numpy no longer allows.
    """
    fluxes, weights = model.training_set_flux.T, model.training_set_ivar.T
    model._theta = np.empty((len(fluxes), model.design_matrix.shape[1]))
    model._s2 = np.empty(len(fluxes))
    first = np.eye(1, model.design_matrix.shape[1])[0]
    for pixel, (flux, ivar) in enumerate(zip(fluxes, weights, strict=True)):
        linear, _ = public.fitting.fit_theta_by_linalg(flux, ivar, 0.0, model.design_matrix)
        starts = [(linear, "linear_algebra"), (first, "fiducial")]
        found = public.fitting.fit_pixel_fixed_scatter(
            flux, ivar, starts, model.design_matrix, 0.0, None
        )
        model._theta[pixel], model._s2[pixel] = found[0], np.ravel(found[1])[0]


def inverse_variance(spectra):
    """1 / σ² (star, pixel), 0 where a pixel does not count."""
    error = spectra.error.values.astype(float)
    return np.where(np.isfinite(error), 1 / np.square(error), 0)


def imported():
    """The package, or None. It looks for two names where Python 3.9 and numpy 1.24 had them."""
    np.RankWarning = np.exceptions.RankWarning  # noqa: NPY201
    collections.Iterable = collections.abc.Iterable
    try:
        import thecannon
    except ImportError:
        return None
    logging.getLogger("thecannon").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="thecannon")
    return thecannon
