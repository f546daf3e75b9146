"""What the telescope makes of a model spectrum: the images of an apStar file.

What is measured on real files (by ``calibration/measure_instrument.py``), and what is a choice, is
in docs/simulation.md.
"""

import numpy as np
import pandas as pd
from numpy.polynomial import chebyshev

from apogee_archive.grid import CHIPS, LIGHT, WAVELENGTH
from mock_survey.tables import table

__all__ = ["KM_PER_PIXEL", "observe", "recorded", "throughput"]

SKY_LINES = np.loadtxt(table("sky_lines.csv"), skiprows=1)  # OH, Angstrom, vacuum, observed frame
TELLURIC = (
    (15680, 15790),
    (16000, 16090),
    (16430, 16470),
)  # CO2 and CH4 in the air, roughly; same units
BAD_PIXEL_ERROR = 1e10  # the error of a pixel of which nothing is known, in real files too
BAD = 0xFF  # pixels of a visit with one of these bits do not enter the combined spectrum
RIPPLE = 0.004  # size (rms) of waves on a chip that no polynomial of degree 2 takes away
NEIGHBOUR = (
    0.5  # noise is w_i + 0.5 w_(i+1) of independent w: neighbours correlate by 0.5 / 1.25 = 0.4
)
KM_PER_PIXEL = LIGHT * 6e-6 * np.log(10)


def recorded(shift: int = 0) -> np.ndarray:
    """Which pixels lie on a chip.

    Parameters
    ----------
    shift : int
        How many pixels the chips are from where they are for a star at rest.

    Returns
    -------
    numpy.ndarray of shape (8575,)
        Booleans.

    Examples
    --------
    >>> int(recorded().sum())
    7801
    """
    pixels = np.arange(WAVELENGTH.size) - shift
    return np.any([(pixels >= first) & (pixels <= last) for first, last in CHIPS], axis=0)


def throughput(star: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """Counts at the continuum: the star's slope times the response of each chip, which no one knows
    exactly.

    Parameters
    ----------
    star : pandas.Series
        With ``anomaly``.
    rng : numpy.random.Generator
        Draws brightness and response.

    Returns
    -------
    numpy.ndarray of shape (8575,)
        1e-17 erg/s/cm2/Angstrom.

    Examples
    --------
    >>> throughput(pd.Series({"anomaly": ""}), np.random.default_rng(1)).shape
    (8575,)
    """
    level = 10 ** rng.uniform(2.0, 3.6) * (WAVELENGTH / 16000) ** -2.5
    for first, last in CHIPS:
        x = np.linspace(-1, 1, last - first + 1)
        shape = np.r_[
            rng.normal(1, 0.04), rng.normal(0, [0.05, 0.04]), rng.normal(0, [0.002, 0.001])
        ]
        waves = np.sin(np.pi * rng.uniform(3, 9, (2, 1)) * x + rng.uniform(0, 2 * np.pi, (2, 1)))
        level[first : last + 1] *= chebyshev.chebval(x, shape) * (
            1 + rng.normal(0, RIPPLE, 2) @ waves
        )
        if star.anomaly == "blue persistence" and first == CHIPS[0][0]:
            level[first : last + 1] *= 1 + rng.uniform(0.06, 0.2) * np.exp(
                -0.5 * ((x + 0.6) / 0.15) ** 2
            )
    return level


def observe(
    source: np.ndarray, star: pd.Series, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """One star as the telescope sees it, in the rows of a DR17 file.

    Row 0 is the combined spectrum with the bits that all visits share, row 1 another combination
    without a mask, or nothing if there was one visit, then come the visits. Of several visits only
    the good pixels are combined, and where there is none row 0 has flux 0 and error 1e10, whatever
    its bits: visits may have lost a pixel for different reasons. A single visit is kept as it is.

    Parameters
    ----------
    source : numpy.ndarray of shape (8575,)
        Counts without noise: the continuum-normalized model times `throughput`.
    star : pandas.Series
        With ``snr`` (of the combined spectrum, per pixel), ``nvisits``, ``vhelio`` (km/s) and
        ``anomaly``.
    rng : numpy.random.Generator
        Draws noise, bad pixels and the place of the chips.

    Returns
    -------
    flux, error, mask : numpy.ndarray of shape (row, 8575)
        1e-17 erg/s/cm2/Angstrom; the mask int32.

    Examples
    --------
    >>> star = pd.Series({"snr": 100.0, "nvisits": 2, "vhelio": 0.0, "anomaly": ""})
    >>> flux, error, mask = observe(np.full(8575, 500.0), star, np.random.default_rng(1))
    >>> flux.shape
    (4, 8575)
    """
    visits = [_visit(source, star, rng) for _ in range(int(star.nvisits))]
    flux, error, mask = map(np.array, zip(*visits, strict=True))
    shared = np.bitwise_and.reduce(mask, axis=0)
    if len(visits) == 1:
        return tuple(np.vstack([image, np.zeros_like(image)]) for image in (flux, error, mask))
    weight = np.where(mask & BAD == 0, 1 / error**2, 0)
    total = weight.sum(axis=0)
    safe = np.where(total > 0, total, 1)
    combined, sigma = (
        (weight * flux).sum(axis=0) / safe,
        np.where(total > 0, 1 / np.sqrt(safe), BAD_PIXEL_ERROR),
    )
    firsts = (combined, combined), (sigma, sigma), (shared, np.zeros_like(shared))
    return tuple(
        np.vstack([*first, *image])
        for first, image in zip(firsts, (flux, error, mask), strict=True)
    )


def _visit(
    source: np.ndarray, star: pd.Series, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux, error and mask (8575,) of one visit."""
    # The Earth moves: what lies fixed in the observed frame falls on other pixels at each visit.
    observed = WAVELENGTH * (1 + (star.vhelio + rng.uniform(-28, 28)) / LIGHT)
    snr = star.snr / np.sqrt(star.nvisits)
    error = np.sqrt(source * np.median(source)) / snr
    mask = np.zeros(WAVELENGTH.size, "i4")
    sky = np.abs(observed - SKY_LINES[:, None]).min(axis=0) < 0.9
    air = np.any([(observed > a) & (observed < b) for a, b in TELLURIC], axis=0) & (
        np.sin(observed / 1.9) > 0.55
    )
    error = error * np.where(sky, rng.uniform(3, 12), 1) * np.where(air, 1.5, 1)
    mask[sky] |= 1 << 12  # SIG_SKYLINE
    mask[air] |= 1 << 13  # SIG_TELLURIC
    white = rng.standard_normal(source.size + 1)
    flux = source + error * (white[:-1] + NEIGHBOUR * white[1:]) / np.hypot(1, NEIGHBOUR)
    # Cosmic rays. Small ones are overlooked now and then: bit 1 is CRPIX.
    hits = rng.choice(source.size, rng.poisson(12), replace=False)
    size = rng.uniform(0.1, 1.5, hits.size)
    flux[hits] += source[hits] * size
    mask[hits[(size > 0.4) | (rng.random(hits.size) < 0.95)]] |= 1 << 1
    # BADPIX, UNFIXABLE, BADDARK, BADFLAT and NOSKY: about so many pixels per visit.
    for bit, number in ((0, 25), (3, 2), (4, 12), (5, 20), (7, 2)):
        bad = rng.choice(source.size, rng.poisson(number), replace=False)
        flux[bad] *= rng.uniform(0.5, 1.3, bad.size)
        mask[bad] |= 1 << bit
    if star.anomaly == "blue persistence":
        mask[CHIPS[0][0] : CHIPS[0][0] + 1100] |= 1 << 9
    # Where a spectrum ends depends on the star's velocity at that visit.
    seen = recorded(int(rng.integers(-40, 6)))
    return (
        np.where(seen, flux, 0),
        np.where(seen, error, BAD_PIXEL_ERROR),
        np.where(seen, mask, 1).astype("i4"),
    )
