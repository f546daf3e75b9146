"""APOGEE's bit masks: what is wrong with a pixel, a spectrum, or the pipeline's labels.

References
----------
www.sdss4.org/dr17/irspec/apogee-bitmasks
"""

from __future__ import annotations

from enum import IntFlag
from typing import Any

import numpy as np
import pandas as pd

from apogee_archive.settings import table

__all__ = ["BITS", "LAB_BITS", "PIXEL_FLAWS", "AspcapFlag", "PixMask", "StarFlag", "usable"]

BITS = pd.read_csv(table("bits.csv"), keep_default_na=False)
"""The named bits of APOGEE's flags: flag, bit, name, meaning in words."""


def _flags(name: str, meaning: str) -> Any:
    """The bits of one flag as an enumeration with a docstring."""
    rows = BITS[BITS.flag == name.upper()]
    bits = {bit: 1 << number for bit, number in zip(rows.name, rows.bit, strict=True)}
    flags: Any = IntFlag(name, bits, module=__name__)  # type: ignore[misc]
    flags.__doc__ = meaning
    return flags


PixMask = _flags(
    "PixMask", "APOGEE_PIXMASK: what is wrong with a pixel (`PIXEL_FLAWS` says it in words)."
)
StarFlag = _flags("StarFlag", "STARFLAG: what may be wrong with a spectrum.")
AspcapFlag = _flags("AspcapFlag", "ASPCAPFLAG: what may be wrong with the pipeline's labels.")

PIXEL_FLAWS = dict(zip(PixMask, BITS.meaning[BITS.flag == "PIXMASK"], strict=True))
"""The bits of APOGEE_PIXMASK in words."""

LAB_BITS = PixMask(0xFF) | PixMask.SIG_SKYLINE
"""What makes a pixel useless here: bits 0 to 7, and 12."""


def usable(flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Which pixels count: flux finite, error finite and positive.

    Parameters
    ----------
    flux, error : array_like
        Of one shape, in the same unit.

    Returns
    -------
    ndarray of bool

    Examples
    --------
    >>> usable(np.array([1.0, 1.0, np.nan]), np.array([0.1, np.inf, 0.1]))
    array([ True, False, False])
    """
    return np.isfinite(flux) & np.isfinite(error) & (error > 0)
