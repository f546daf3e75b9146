"""The wavelength grid that all APOGEE spectra share, and where the three detector chips lie on it."""

from decimal import Decimal

import numpy as np
from astropy import constants

__all__ = ["CHIPS", "GRID", "LIGHT", "WAVELENGTH"]

LIGHT = constants.c.to_value("km/s")

WAVELENGTH = np.cumprod(
    [Decimal(10) ** Decimal("4.179")] + 8574 * [Decimal(10) ** Decimal("6e-6")]
).astype(float)
"""Wavelength of the 8575 pixels of every apStar spectrum, Angstrom, vacuum, rest frame; alike on all machines."""

GRID = np.r_[322:3242, 3648:6048, 6412:8306]
"""Which of these pixels make the 7214-pixel grid of the lab."""

CHIPS = ((243, 3364), (3578, 6169), (6335, 8421))
"""First and last pixel of the blue, green and red chip of a star at rest; between them nothing is recorded."""
