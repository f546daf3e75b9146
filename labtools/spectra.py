"""What all spectra of the lab share: the wavelength grid, the chips, the flags of pixels and stars, resampling."""

from enum import IntFlag

import numpy as np
from astropy import constants

__all__ = [
    "CHIPS",
    "GRID",
    "LAB_BITS",
    "LIGHT",
    "PIXEL_FLAWS",
    "WAVELENGTH",
    "AspcapFlag",
    "PixMask",
    "StarFlag",
    "by_star",
    "cap_snr",
    "chips",
    "resample",
    "usable",
]

LIGHT = constants.c.to_value("km/s")

WAVELENGTH = 10 ** (4.179 + 6e-6 * np.arange(8575))
"""Wavelength of the 8575 pixels of every combined APOGEE spectrum, Angstrom, vacuum, rest frame."""

GRID = np.r_[322:3242, 3648:6048, 6412:8306]
"""Which of these pixels make the 7214-pixel grid of the lab."""

CHIPS = ((243, 3364), (3578, 6169), (6335, 8421))
"""First and last pixel of the blue, green and red chip of a star at rest; between them nothing is recorded."""


class PixMask(IntFlag):
    """APOGEE_PIXMASK: what is wrong with a pixel (`PIXEL_FLAWS` says it in words)."""

    BADPIX = 1 << 0
    CRPIX = 1 << 1
    SATPIX = 1 << 2
    UNFIXABLE = 1 << 3
    BADDARK = 1 << 4
    BADFLAT = 1 << 5
    BADERR = 1 << 6
    NOSKY = 1 << 7
    LITTROW_GHOST = 1 << 8
    PERSIST_HIGH = 1 << 9
    PERSIST_MED = 1 << 10
    PERSIST_LOW = 1 << 11
    SIG_SKYLINE = 1 << 12
    SIG_TELLURIC = 1 << 13
    NOT_ENOUGH_PSF = 1 << 14
    FERRE_MASK = 1 << 16


class StarFlag(IntFlag):
    """STARFLAG: what may be wrong with a spectrum."""

    BAD_PIXELS = 1 << 0
    COMMISSIONING = 1 << 1
    BRIGHT_NEIGHBOR = 1 << 2
    VERY_BRIGHT_NEIGHBOR = 1 << 3
    LOW_SNR = 1 << 4
    PERSIST_HIGH = 1 << 9
    PERSIST_MED = 1 << 10
    PERSIST_LOW = 1 << 11
    PERSIST_JUMP_POS = 1 << 12
    PERSIST_JUMP_NEG = 1 << 13
    SUSPECT_RV_COMBINATION = 1 << 16
    SUSPECT_BROAD_LINES = 1 << 17
    BAD_RV_COMBINATION = 1 << 18
    RV_REJECT = 1 << 19
    RV_SUSPECT = 1 << 20
    MULTIPLE_SUSPECT = 1 << 21
    RV_FAIL = 1 << 22
    SUSPECT_ROTATION = 1 << 23
    MTPFLUX_LT_75 = 1 << 24
    MTPFLUX_LT_50 = 1 << 25


class AspcapFlag(IntFlag):
    """ASPCAPFLAG: what may be wrong with the pipeline's labels."""

    TEFF_WARN = 1 << 0
    LOGG_WARN = 1 << 1
    VMICRO_WARN = 1 << 2
    M_H_WARN = 1 << 3
    ALPHA_M_WARN = 1 << 4
    C_M_WARN = 1 << 5
    N_M_WARN = 1 << 6
    STAR_WARN = 1 << 7
    CHI2_WARN = 1 << 8
    COLORTE_WARN = 1 << 9
    ROTATION_WARN = 1 << 10
    SN_WARN = 1 << 11
    SPEC_HOLE_WARN = 1 << 12
    ATMOS_HOLE_WARN = 1 << 13
    VSINI_WARN = 1 << 14
    TEFF_BAD = 1 << 16
    LOGG_BAD = 1 << 17
    VMICRO_BAD = 1 << 18
    M_H_BAD = 1 << 19
    ALPHA_M_BAD = 1 << 20
    C_M_BAD = 1 << 21
    N_M_BAD = 1 << 22
    STAR_BAD = 1 << 23
    CHI2_BAD = 1 << 24
    COLORTE_BAD = 1 << 25
    ROTATION_BAD = 1 << 26
    SN_BAD = 1 << 27
    SPEC_HOLE_BAD = 1 << 28
    ATMOS_HOLE_BAD = 1 << 29
    VSINI_BAD = 1 << 30
    NO_ASPCAP_RESULT = 1 << 31
    MISSING_APSTAR = 1 << 32
    NO_GRID = 1 << 33
    BAD_FRAC_LOWSNR = 1 << 34
    BAD_FRAC_BADPIX = 1 << 35
    FERRE_FAIL = 1 << 36
    PROBLEM_TARGET = 1 << 40
    MULTIPLE_SUSPECT = 1 << 41


PIXEL_FLAWS = {
    PixMask.BADPIX: "marked bad in the bad-pixel list or by an unphysical value",
    PixMask.CRPIX: "hit by a cosmic ray",
    PixMask.SATPIX: "saturated",
    PixMask.UNFIXABLE: "marked unfixable",
    PixMask.BADDARK: "bad in the dark frame",
    PixMask.BADFLAT: "bad in the flat field",
    PixMask.BADERR: "very large error (not used)",
    PixMask.NOSKY: "no sky fibre available for this pixel",
    PixMask.LITTROW_GHOST: "in the Littrow ghost: stray light off the grating",
    PixMask.PERSIST_HIGH: "high persistence: light left over from an earlier exposure",
    PixMask.PERSIST_MED: "medium persistence",
    PixMask.PERSIST_LOW: "low persistence",
    PixMask.SIG_SKYLINE: "near a sky emission line brighter than the star",
    PixMask.SIG_TELLURIC: "in a deep telluric absorption line",
    PixMask.NOT_ENOUGH_PSF: "less than half of the profile falls on good pixels",
    PixMask.FERRE_MASK: "left out of the pipeline's own fit",
}
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
    """Spectra on another wavelength grid.

    Where the new pixels are pixels of the old grid they are picked out, and noise stays independent from pixel to
    pixel. Otherwise the flux is interpolated linearly between usable pixels, and error (and mask) are those of the
    nearest old pixel: interpolating an error would make up precision, and interpolating across a bad pixel would
    spread it over its neighbours.

    Parameters
    ----------
    spectra : Dataset with `flux` and `error` (star, wavelength).
    wavelength : (n,) Angstrom. Pixels outside the spectra's range get error = inf.
    """
    old, new = spectra.wavelength.values, np.asarray(wavelength, float)
    nearest = np.searchsorted((old[1:] + old[:-1]) / 2, new)
    picked = spectra.isel(wavelength=nearest).assign_coords(wavelength=new)
    if np.all(np.abs(old[nearest] / new - 1) < 1e-9):
        return picked
    flux = np.zeros(picked.flux.shape)
    for row, (f, e) in enumerate(zip(spectra.flux.values, spectra.error.values, strict=True)):
        good = np.isfinite(e)
        if good.any():
            flux[row] = np.interp(new, old[good], f[good])
    inside = (new >= old[0]) & (new <= old[-1])
    return picked.assign(flux=picked.flux.copy(data=flux), error=picked.error.where(inside, np.inf))


def cap_snr(spectra, limit=200.0):
    """Spectra whose errors are at least |flux| / limit, so that a few very bright stars do not rule a sum.

    The limit of 200 per pixel is that of the survey's own pipeline (García Pérez et al. 2016, AJ 151, 144).
    """
    floor = abs(spectra.flux) / limit
    return spectra.assign(error=spectra.error.where(spectra.error > floor, floor))
