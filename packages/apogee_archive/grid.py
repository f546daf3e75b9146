"""The wavelength grid that all APOGEE spectra share, and where the three detector chips lie on it.

>>> WAVELENGTH.size, GRID.size
(8575, 7214)
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np
from astropy import constants

__all__ = ["CHIPS", "GRID", "LIGHT", "LOG_START", "LOG_STEP", "WAVELENGTH"]

LIGHT = constants.c.to_value("km/s")
"""The speed of light, km/s."""

LOG_START, LOG_STEP = 4.179, 6e-6
"""log10 of the first wavelength in Angstrom, and the step (Nidever et al. 2015, AJ 150, 173)."""

# Multiplied in decimals: floating-point powers differ in their last bit between processors, and
# keys of the cache depend on every bit.
_FACTORS = [Decimal(10) ** Decimal(str(LOG_START))] + 8574 * [Decimal(10) ** Decimal("6e-6")]
WAVELENGTH = np.cumprod(np.array(_FACTORS, object)).astype(float)
"""Wavelength of the 8575 pixels of every apStar spectrum, Angstrom, vacuum, rest frame."""

GRID = np.r_[322:3242, 3648:6048, 6412:8306]
"""Which of these pixels make the 7214-pixel grid of the lab."""

CHIPS = ((243, 3364), (3578, 6169), (6335, 8421))
"""First and last pixel of the blue, green and red chip of a star at rest.

Between them nothing is recorded.
"""
