"""What is done with spectra before anything is learned from them: chips, resampling, and a cap on the signal-to-noise."""

import numpy as np

from apogee_archive.bitmasks import LAB_BITS, PIXEL_FLAWS, AspcapFlag, PixMask, StarFlag, usable
from apogee_archive.grid import CHIPS, GRID, LIGHT, WAVELENGTH

__all__ = [
    "CHIPS", "GRID", "LAB_BITS", "LIGHT", "PIXEL_FLAWS", "WAVELENGTH", "AspcapFlag", "PixMask", "StarFlag",
    "by_star", "cap_snr", "chips", "resample", "usable",
]  # fmt: skip


def by_star(spectra):
    """Spectra with the dimensions (star, wavelength) in this order, also of one star that was picked out."""
    spectra = spectra if "star" in spectra.dims else spectra.expand_dims("star")
    return spectra.transpose("star", "wavelength", ...)


def chips(wavelength):
    """Slices of the detector chips: runs of a wavelength grid (Angstrom) without a gap."""
    step = np.diff(np.log(np.asarray(wavelength)))
    edges = np.flatnonzero(step > 1.5 * np.median(step)) + 1
    return [slice(a, b) for a, b in zip([0, *edges], [*edges, len(wavelength)], strict=True)]


def resample(spectra, wavelength):
    """Spectra on another wavelength grid (n,) in Angstrom; pixels outside the spectra's range get error = inf.

    Where the new pixels are pixels of the old grid they are picked out, and noise stays independent from pixel to
    pixel. Otherwise the flux is interpolated linearly between usable pixels, and error (and mask) are those of the
    nearest old pixel: interpolating an error would make up precision, and interpolating across a bad pixel would
    spread it over its neighbours.
    """
    old, new = spectra.wavelength.values, np.asarray(wavelength, float)
    nearest = np.searchsorted((old[1:] + old[:-1]) / 2, new)
    picked = spectra.isel(wavelength=nearest).assign_coords(wavelength=new)
    if np.all(np.abs(old[nearest] / new - 1) < 1e-9):
        return picked
    flux = np.zeros(picked.flux.shape)
    for row, (f, e) in enumerate(zip(spectra.flux.values, spectra.error.values, strict=True)):
        if (good := np.isfinite(e)).any():
            flux[row] = np.interp(new, old[good], f[good])
    inside = (new >= old[0]) & (new <= old[-1])
    return picked.assign(flux=picked.flux.copy(data=flux), error=picked.error.where(inside, np.inf))


def cap_snr(spectra, limit=200.0):
    """Spectra whose errors are at least the flux / limit, so that a few very bright stars do not rule a sum.

    The limit of 200 per pixel is that of the survey's own pipeline (García Pérez et al. 2016, AJ 151, 144).
    """
    floor = abs(spectra.flux) / limit
    return spectra.assign(error=spectra.error.where(spectra.error > floor, floor))
