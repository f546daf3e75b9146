"""What all spectra of the lab share: the wavelength grid, the chips, the flags of pixels and stars, resampling."""

from decimal import Decimal
from enum import IntFlag

import numpy as np
import pandas as pd
from astropy import constants

from labtools.settings import table

__all__ = [
    "CHIPS", "GRID", "LAB_BITS", "LIGHT", "PIXEL_FLAWS", "WAVELENGTH", "AspcapFlag", "PixMask", "StarFlag",
    "by_star", "cap_snr", "chips", "resample", "usable",
]  # fmt: skip

LIGHT = constants.c.to_value("km/s")

WAVELENGTH = np.cumprod([Decimal(10) ** Decimal("4.179")] + 8574 * [Decimal(10) ** Decimal("6e-6")]).astype(float)
"""Wavelength of the 8575 pixels of every apStar spectrum, Angstrom, vacuum, rest frame; alike on all machines."""

GRID = np.r_[322:3242, 3648:6048, 6412:8306]
"""Which of these pixels make the 7214-pixel grid of the lab."""

CHIPS = ((243, 3364), (3578, 6169), (6335, 8421))
"""First and last pixel of the blue, green and red chip of a star at rest; between them nothing is recorded."""

BITS = pd.read_csv(table("bits.csv"), keep_default_na=False)
"""The named bits of APOGEE's flags (www.sdss4.org/dr17/irspec/apogee-bitmasks): flag, bit, name, meaning in words."""


def _flags(name):
    rows = BITS[BITS.flag == name.upper()]
    return IntFlag(name, {bit: 1 << number for bit, number in zip(rows.name, rows.bit, strict=True)}, module=__name__)


PixMask = _flags("PixMask")
"""APOGEE_PIXMASK: what is wrong with a pixel (`PIXEL_FLAWS` says it in words)."""

StarFlag = _flags("StarFlag")
"""STARFLAG: what may be wrong with a spectrum."""

AspcapFlag = _flags("AspcapFlag")
"""ASPCAPFLAG: what may be wrong with the pipeline's labels."""

PIXEL_FLAWS = dict(zip(PixMask, BITS.meaning[BITS.flag == "PIXMASK"], strict=True))
"""The bits of APOGEE_PIXMASK in words."""

LAB_BITS = PixMask(0xFF) | PixMask.SIG_SKYLINE
"""What makes a pixel useless here: bits 0 to 7, and 12."""


def usable(flux, error):
    """Which pixels count: flux finite, error finite and positive."""
    return np.isfinite(flux) & np.isfinite(error) & (error > 0)


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
