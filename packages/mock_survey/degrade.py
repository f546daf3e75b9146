"""A less perfect telescope: an unknown response, correlated noise and a fitted continuum."""

import numpy as np
import xarray as xr
from numpy.polynomial import chebyshev

from mock_survey.instrument import NEIGHBOUR, RIPPLE

__all__ = ["degrade"]

BLOCK = 64  # stars that are worked on at a time, so that arrays stay small


def degrade(spectra: xr.Dataset, snr: float | np.ndarray, seed: int = 0) -> xr.Dataset:
    """Spectra as a less perfect telescope gives them.

    Each detector multiplies the flux by a smooth response and by ripples of 0.4 %, neighbouring
    pixels share noise (their correlation is 0.4), and the continuum is a parabola through those
    pixels that are brightest on average. The errors that are written know nothing of all this.
    Noise that the spectra have already stays as it is and counts as part of the whole.

    Parameters
    ----------
    spectra : Dataset
        Normalized `flux` and `error` (star, wavelength), error = inf where nothing is recorded.
    snr : float or array (star,)
        Signal-to-noise ratio per pixel, no higher than that of the spectra.
    seed : int
        Of responses and noise.

    Returns
    -------
    Dataset
        `flux` and `error` of the same stars and wavelengths.

    Raises
    ------
    ValueError
        If a spectrum has more noise already.

    Examples
    --------
    >>> wavelength = np.linspace(9000, 9400, 400)
    >>> axes, coords = ("star", "wavelength"), {"star": ["a"], "wavelength": wavelength}
    >>> arrays = {"flux": (axes, np.ones((1, 400))), "error": (axes, np.full((1, 400), 1e-6))}
    >>> seen = degrade(xr.Dataset(arrays, coords), snr=100)
    >>> bool(0.008 < seen.flux.std() < 0.02), float(seen.error[0, 0])
    (True, 0.01)
    """
    rng = np.random.default_rng(seed)
    stars, wavelength = spectra.sizes["star"], spectra.wavelength.values
    error = np.broadcast_to(1 / np.asarray(snr, float), stars)[:, None]
    good = np.isfinite(spectra.error.values)
    before = np.where(good, spectra.error.values, 0)
    if (before > 1.001 * error).any():
        raise ValueError(f"some spectra have a lower SNR than {np.max(snr):g} already")
    white = rng.standard_normal((stars, wavelength.size + 1))
    clean, flux = spectra.flux.values, np.zeros(spectra.flux.shape)
    for first, last in _detectors(good.any(axis=0)):
        x = np.linspace(-1, 1, last - first)
        scatter = np.array([0.04, 0.05, 0.04, 0.002, 0.001])
        smooth = np.array([1, 0, 0, 0, 0]) + scatter * rng.standard_normal((stars, 5))
        size, waves = rng.normal(0, RIPPLE, (stars, 2)), rng.uniform(3, 9, (stars, 2))
        phase = 2 * np.pi * rng.random((stars, 2))
        # In each of twenty parts of the detector the brightest eighth of the mean spectrum.
        mean = clean[:, first:last].mean(axis=0, dtype=float)
        parts = np.array_split(np.arange(x.size), 20)
        bright = [part[np.argsort(mean[part])[-max(3, part.size // 8) :]] for part in parts]
        trusted = np.concatenate(bright)
        basis = chebyshev.chebvander(x, 2)
        parabola = (basis @ np.linalg.pinv(basis[trusted])).T  # (trusted pixel, pixel)
        for start in range(0, stars, BLOCK):
            some = slice(start, start + BLOCK)
            added = np.sqrt(np.maximum(error[some] ** 2 - before[some, first:last] ** 2, 0))
            neighbours = white[some, first:last] + NEIGHBOUR * white[some, first + 1 : last + 1]
            noise = added * neighbours / np.hypot(1, NEIGHBOUR)
            ripple = np.sin(np.pi * waves[some, :, None] * x + phase[some, :, None])
            response = smooth[some] @ chebyshev.chebvander(x, 4).T
            response *= 1 + np.einsum("sw,swp->sp", size[some], ripple)
            seen = clean[some, first:last] * response + noise
            flux[some, first:last] = seen / (seen[:, trusted] @ parabola)
    written = np.where(good, error, np.inf)
    axes = ("star", "wavelength")
    return spectra.assign(flux=(axes, np.where(good, flux, 0)), error=(axes, written))


def _detectors(recorded):
    """First pixel and the one after the last of each stretch of pixels that are recorded."""
    edges = np.flatnonzero(np.diff(np.r_[False, recorded, False]))
    return edges.reshape(-1, 2)
