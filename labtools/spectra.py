"""Operations on spectra that precede all learning: chips, another grid, a limit on the SNR.

Spectra are an `xarray.Dataset` with the variables `flux` and `error` over the dimensions `star`
and `wavelength` (Angstrom, vacuum). A pixel that must not count has `error = inf` and finite flux,
so that its weight 1/error² is exactly zero.
"""

from itertools import pairwise

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from apogee_archive.bitmasks import LAB_BITS, PIXEL_FLAWS, AspcapFlag, PixMask, StarFlag, usable
from apogee_archive.grid import CHIPS, GRID, LIGHT, WAVELENGTH

__all__ = [
    "CHIPS", "GRID", "LAB_BITS", "LIGHT", "PIXEL_FLAWS", "WAVELENGTH", "AspcapFlag", "PixMask",
    "StarFlag", "by_star", "cap_snr", "chips", "resample", "usable",
]  # fmt: skip

PIXEL_STEP = 6e-6
"""Width of an APOGEE pixel in log10 of the wavelength."""

BETWEEN_CHIPS = [
    (WAVELENGTH[end] + WAVELENGTH[start]) / 2 for (_, end), (start, _) in pairwise(CHIPS)
]
"""Wavelengths (Angstrom) in the middle of the two gaps between APOGEE's detectors."""


def by_star(spectra: xr.Dataset) -> xr.Dataset:
    """
    Spectra with the dimensions (star, wavelength) in this order.

    Parameters
    ----------
    spectra : Dataset
        Spectra of any number of stars, transposed or not, or of one star that was picked out with
        `spectra.sel(star=name)` and so has lost the dimension `star`.

    Returns
    -------
    Dataset
        The same spectra over (star, wavelength).

    Examples
    --------
    >>> flux = xr.DataArray(np.ones((3, 2)), dims=("wavelength", "star"))
    >>> dict(by_star(xr.Dataset({"flux": flux}).isel(star=0)).sizes)
    {'star': 1, 'wavelength': 3}
    """
    if "star" not in spectra.dims:
        spectra = spectra.expand_dims("star")
    return spectra.transpose("star", "wavelength", ...)


def chips(wavelength: ArrayLike) -> list[slice]:
    """
    Where the detector chips lie on a wavelength grid.

    A new chip begins after each gap in the grid, that is after a step more than half as large
    again as the median one. The survey's own grid of 8,575 pixels has no gaps: it runs through the
    pixels between the detectors, in which nothing is recorded. A grid of APOGEE's pixels is
    therefore also divided in the middle between two detectors.

    Parameters
    ----------
    wavelength : array_like of shape (n_pixel,)
        Increasing wavelengths in Angstrom.

    Returns
    -------
    list of slice
        One slice of pixels per chip; together they cover the grid.

    Examples
    --------
    >>> chips([15000.0, 15000.2, 15000.4, 15900.0, 15900.2])
    [slice(0, 3, None), slice(3, 5, None)]
    >>> [(chip.start, chip.stop) for chip in chips(WAVELENGTH)]
    [(0, 3472), (3472, 6253), (6253, 8575)]
    """
    wavelength = np.asarray(wavelength, float)
    step = np.diff(np.log(wavelength))
    typical = np.median(step) if step.size else 0.0
    # Steps are constant in the logarithm, so that a gap is a step longer than the others
    starts = set((np.flatnonzero(step > 1.5 * typical) + 1).tolist())
    if 0.5 < typical / (PIXEL_STEP * np.log(10)) < 2:  # pixels of the size of APOGEE's
        between = np.searchsorted(wavelength, BETWEEN_CHIPS).tolist()
        starts |= {start for start in between if 0 < start < wavelength.size}
    edges = [0, *sorted(starts), wavelength.size]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def resample(spectra: xr.Dataset, wavelength: ArrayLike) -> xr.Dataset:
    """
    Spectra on another wavelength grid.

    If the new pixels are pixels of the old grid they are picked out, and the noise stays
    independent from pixel to pixel. Otherwise the flux is interpolated linearly between usable
    pixels, and error (and mask) are those of the nearest old pixel: interpolating an error would
    invent precision, and interpolating across a bad pixel would spread it over its neighbors.

    Parameters
    ----------
    spectra : Dataset
        `flux` and `error` over (star, wavelength), of one star or many.
    wavelength : array_like of shape (n_pixel,)
        The new grid in Angstrom.

    Returns
    -------
    Dataset
        The spectra over (star, wavelength) of the new grid; pixels outside the range of the old
        one have error = inf.

    Examples
    --------
    The second pixel is bad; between the others the flux is interpolated.

    >>> spectra = xr.Dataset(
    ...     {"flux": (("star", "wavelength"), [[1.0, 99.0, 2.0]]),
    ...      "error": (("star", "wavelength"), [[0.1, np.inf, 0.1]])},
    ...     coords={"star": ["2M01"], "wavelength": [15000.0, 15001.0, 15002.0]},
    ... )
    >>> resample(spectra, [15000.4, 15001.6]).flux.values.round(2)
    array([[1.2, 1.8]])
    """
    spectra = by_star(spectra)
    old, new = spectra.wavelength.values, np.asarray(wavelength, float)
    # For each new pixel the old one on whose side of the middle between two it lies
    nearest = np.searchsorted((old[1:] + old[:-1]) / 2, new)
    picked = spectra.isel(wavelength=nearest).assign_coords(wavelength=new)
    if np.all(np.abs(old[nearest] / new - 1) < 1e-9):
        return picked
    flux = np.zeros(picked.flux.shape)  # (star, new pixel)
    for row, (f, e) in enumerate(zip(spectra.flux.values, spectra.error.values, strict=True)):
        good = np.isfinite(e)
        if good.any():
            flux[row] = np.interp(new, old[good], f[good])
    inside = (new >= old[0]) & (new <= old[-1])
    return picked.assign(flux=picked.flux.copy(data=flux), error=picked.error.where(inside, np.inf))


def cap_snr(spectra: xr.Dataset, limit: float = 200.0) -> xr.Dataset:
    """
    Limit the signal-to-noise ratio of each pixel by raising its error.

    Without a limit a few very bright stars would dominate a sum over stars, although their errors
    are not those of the photons alone.

    Parameters
    ----------
    spectra : Dataset
        `flux` and `error`, of one star or many.
    limit : float
        Largest ratio of flux to error in a pixel. The survey's own pipeline uses 200.

    Returns
    -------
    Dataset
        The spectra with errors of at least ``|flux| / limit``. Pixels that must not count, because
        their error is infinite, not a number or not positive, or their flux is not finite, have
        error = inf.

    Raises
    ------
    ValueError
        If the limit is not a positive number.

    References
    ----------
    García Pérez et al. 2016, AJ 151, 144.

    Examples
    --------
    >>> spectra = xr.Dataset(
    ...     {"flux": ("wavelength", [100.0, 100.0, 100.0]),
    ...      "error": ("wavelength", [0.1, 2.0, np.nan])}
    ... )
    >>> cap_snr(spectra).error.values
    array([0.5, 2. , inf])
    """
    if not 0 < limit < np.inf:
        raise ValueError(f"the limit of the signal-to-noise ratio must be positive, not {limit}")
    # Only where an error is too small: NaN and inf compare as False, and are dealt with below
    smallest = abs(spectra.flux) / limit
    error = spectra.error.where(spectra.error > smallest, smallest)
    return spectra.assign(error=error.where(usable(spectra.flux, spectra.error), np.inf))
