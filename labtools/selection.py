"""The lab's quality cuts, what each of them removed, and the surface gravity that they rest on."""

import numpy as np
import pandas as pd
from astropy import constants, units

__all__ = [
    "ASPCAPFLAG",
    "EXTRATARG_DUPLICATE",
    "LABELS",
    "STARFLAG",
    "count_cuts",
    "log_g",
    "select_giants",
    "split_by_star",
]

LABELS = ("teff", "logg", "fe_h", "mg_fe", "si_fe")
"""The five labels of the lab: K, dex (cgs), dex, dex, dex."""

EXTRATARG_DUPLICATE = 4
"""Bit of EXTRATARG: another entry of this star, in another field, has a higher signal-to-noise ratio."""

STARFLAG = {
    0: "BAD_PIXELS", 1: "COMMISSIONING", 2: "BRIGHT_NEIGHBOR", 3: "VERY_BRIGHT_NEIGHBOR", 4: "LOW_SNR",
    9: "PERSIST_HIGH", 10: "PERSIST_MED", 11: "PERSIST_LOW", 12: "PERSIST_JUMP_POS", 13: "PERSIST_JUMP_NEG",
    16: "SUSPECT_RV_COMBINATION", 17: "SUSPECT_BROAD_LINES", 18: "BAD_RV_COMBINATION", 19: "RV_REJECT",
    20: "RV_SUSPECT", 21: "MULTIPLE_SUSPECT", 22: "RV_FAIL", 23: "SUSPECT_ROTATION", 24: "MTPFLUX_LT_75",
    25: "MTPFLUX_LT_50",
}  # fmt: skip
"""Bits of STARFLAG, which say what may be wrong with a spectrum."""

ASPCAPFLAG = {
    0: "TEFF_WARN", 1: "LOGG_WARN", 2: "VMICRO_WARN", 3: "M_H_WARN", 4: "ALPHA_M_WARN", 5: "C_M_WARN",
    6: "N_M_WARN", 7: "STAR_WARN", 8: "CHI2_WARN", 9: "COLORTE_WARN", 10: "ROTATION_WARN", 11: "SN_WARN",
    12: "SPEC_HOLE_WARN", 13: "ATMOS_HOLE_WARN", 14: "VSINI_WARN", 16: "TEFF_BAD", 17: "LOGG_BAD",
    18: "VMICRO_BAD", 19: "M_H_BAD", 20: "ALPHA_M_BAD", 21: "C_M_BAD", 22: "N_M_BAD", 23: "STAR_BAD",
    24: "CHI2_BAD", 25: "COLORTE_BAD", 26: "ROTATION_BAD", 27: "SN_BAD", 28: "SPEC_HOLE_BAD",
    29: "ATMOS_HOLE_BAD", 30: "VSINI_BAD", 31: "NO_ASPCAP_RESULT", 32: "MISSING_APSTAR", 33: "NO_GRID",
    34: "BAD_FRAC_LOWSNR", 35: "BAD_FRAC_BADPIX", 36: "FERRE_FAIL", 40: "PROBLEM_TARGET", 41: "MULTIPLE_SUSPECT",
}  # fmt: skip
"""Bits of ASPCAPFLAG, which say what may be wrong with the pipeline's labels."""


def log_g(mass, radius):
    """Surface gravity log10(G M / R²), dex in cgs units, of a star of `mass` and `radius` in solar units."""
    mass, radius = np.asarray(mass, float) * units.M_sun, np.asarray(radius, float) * units.R_sun
    gravity = constants.G * mass / radius**2
    return np.log10(gravity.cgs.value)


def _cuts(catalog):
    """The lab's cuts in order: name -> boolean array, True for rows that pass it."""
    labels = catalog[list(LABELS)].to_numpy(float)
    cuts = {
        "all five labels": (np.isfinite(labels) & (labels > -9000)).all(axis=1),
        "SNR ≥ 50": catalog.snr.to_numpy() >= 50,
        "log g ≤ 4": catalog.logg.to_numpy() <= 4,
        "Teff ≤ 5700 K": catalog.teff.to_numpy() <= 5700,
        "[Fe/H] ≥ -1": catalog.fe_h.to_numpy() >= -1,
        "not marked a duplicate": catalog.extratarg.to_numpy(np.int64) >> EXTRATARG_DUPLICATE & 1 == 0,
    }
    passed = np.logical_and.reduce(list(cuts.values()))
    ranked = catalog.snr.where(passed, -np.inf).argsort()[::-1]
    cuts["best entry of its star"] = np.zeros(len(catalog), bool)
    cuts["best entry of its star"][ranked[~catalog.index[ranked].duplicated()]] = True
    return cuts


def count_cuts(catalog):
    """How many rows each cut removes, one after the other, and on its own.

    Returns
    -------
    DataFrame, one row a cut in the order of the lab: `removed` of those still left, `left` after it, and
    `alone`, the number it would remove from the whole catalogue.
    """
    cuts = _cuts(_checked(catalog))
    left = np.logical_and.accumulate(list(cuts.values())).sum(axis=1)
    removed = -np.diff(left, prepend=len(catalog))
    alone = [np.count_nonzero(~kept) for kept in cuts.values()]
    return pd.DataFrame({"removed": removed, "left": left, "alone": alone}, index=pd.Index(cuts, name="cut"))


def select_giants(catalog):
    """The stars of the lab: labelled, well observed, giants, not metal-poor, each star once.

    Keeps rows with finite labels teff, logg, fe_h, mg_fe, si_fe (fillers such as -9999 are none), SNR ≥ 50,
    log g ≤ 4, Teff ≤ 5700 K, [Fe/H] ≥ -1, without the duplicate bit of EXTRATARG; of a star that still occurs more
    than once the entry with the highest SNR.

    Parameters
    ----------
    catalog : DataFrame indexed by apogee_id, as `survey.catalog()` gives it.

    Returns
    -------
    DataFrame with a unique index, the rows in the order of the catalogue.

    Raises
    ------
    ValueError if columns are missing, the catalogue is empty or nothing is left.
    """
    kept = np.logical_and.reduce(list(_cuts(_checked(catalog)).values()))
    if not kept.any():
        raise ValueError(f"none of the {len(catalog)} rows passes the cuts:\n{count_cuts(catalog)}")
    return catalog[kept]


def _checked(catalog):
    missing = [name for name in (*LABELS, "snr", "extratarg") if name not in catalog]
    if missing:
        raise ValueError(f"the catalogue lacks the columns {', '.join(missing)}")
    if catalog.empty:
        raise ValueError("the catalogue is empty: there is nothing to select from")
    return catalog


def split_by_star(stars, seed, fraction=0.5):
    """Two random groups of an index of stars; all entries of one star fall into the same group.

    Returns
    -------
    (first, second) Index objects in the order of `stars`; `fraction` of the distinct stars are in the first.
    """
    stars = pd.Index(stars)
    distinct = stars.unique().sort_values()
    chosen = np.random.default_rng(seed).permutation(distinct)[: round(fraction * len(distinct))]
    first = stars.isin(chosen)
    return stars[first], stars[~first]
