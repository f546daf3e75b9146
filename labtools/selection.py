"""The lab's quality cuts, what each of them removed, and the surface gravity that they rest on."""

import numpy as np
import pandas as pd
from astropy import constants, units

from apogee_archive.columns import LABELS

__all__ = [
    "LABELS",
    "bias_and_scatter",
    "count_cuts",
    "log_g",
    "removed_by",
    "select_giants",
    "split_by_star",
]

DUPLICATE = 1 << 4
"""The bit of EXTRATARG that says: another entry of this star, in another field, has a higher signal-to-noise ratio."""


def log_g(mass, radius):
    """Surface gravity log10(G M / R²), dex in cgs units, of a star of `mass` and `radius` in solar units."""
    mass, radius = np.asarray(mass, float) * units.M_sun, np.asarray(radius, float) * units.R_sun
    gravity = constants.G * mass / radius**2
    return np.log10(gravity.cgs.value)


def _cuts(catalog):
    """The lab's cuts in order: name -> boolean array, True for rows that pass it."""
    if missing := [name for name in (*LABELS, "snr", "extratarg") if name not in catalog]:
        raise ValueError(f"the catalog lacks the columns {', '.join(missing)}")
    if catalog.empty:
        raise ValueError("the catalog is empty: there is nothing to select from")
    labels = catalog[LABELS].to_numpy(float)
    cuts = {
        "all five labels": (np.isfinite(labels) & (labels > -9000)).all(axis=1),
        "SNR ≥ 50": catalog.snr.to_numpy() >= 50,
        "log g ≤ 4": catalog.logg.to_numpy() <= 4,
        "Teff ≤ 5700 K": catalog.teff.to_numpy() <= 5700,
        "[Fe/H] ≥ -1": catalog.fe_h.to_numpy() >= -1,
        "not marked a duplicate": catalog.extratarg.to_numpy(np.int64) & DUPLICATE == 0,
    }
    passed = np.logical_and.reduce(list(cuts.values()))
    ranked = np.argsort(-catalog.snr.where(passed, -np.inf).to_numpy(), kind="stable")
    cuts["best entry of its star"] = np.zeros(len(catalog), bool)
    cuts["best entry of its star"][ranked[~catalog.index[ranked].duplicated()]] = True
    return cuts


def count_cuts(catalog):
    """How many rows each cut removes: DataFrame, one row a cut in the order of the lab.

    `removed` counts those of the rows still left, `left` what is left then, `alone` those of the whole catalog.
    """
    cuts = _cuts(catalog)
    left = np.logical_and.accumulate(list(cuts.values())).sum(axis=1)
    removed = -np.diff(left, prepend=len(catalog))
    alone = [np.count_nonzero(~kept) for kept in cuts.values()]
    return pd.DataFrame(
        {"removed": removed, "left": left, "alone": alone}, index=pd.Index(cuts, name="cut")
    )


def removed_by(catalog):
    """The first cut that removes each row of a catalog, "" where none does: Series on its index."""
    cuts = _cuts(catalog)
    failed = ~np.array([*cuts.values(), np.zeros(len(catalog), bool)])
    return pd.Series(np.array([*cuts, ""])[np.argmax(failed, axis=0)], catalog.index)


def select_giants(catalog):
    """The stars of the lab, each once: those rows of a catalog, in its order, that pass all cuts.

    A catalog is a DataFrame indexed by apogee_id, as `survey.catalog()` gives it; the cuts are those of `count_cuts`:
    finite labels (fillers such as -9999 are none), SNR ≥ 50, log g ≤ 4, Teff ≤ 5700 K, [Fe/H] ≥ -1, not marked a
    duplicate, and of a star that still occurs more than once the entry with the highest SNR.
    Raises ValueError if columns are missing, the catalog is empty or nothing is left.
    """
    kept = np.logical_and.reduce(list(_cuts(catalog).values()))
    if not kept.any():
        raise ValueError(f"none of the {len(catalog)} rows passes the cuts:\n{count_cuts(catalog)}")
    return catalog[kept]


def split_by_star(stars, seed, fraction=0.5, parts=None):
    """Random groups of stars, a list of Index objects in the order of `stars`; all entries of a star fall into one.

    stars : Index, or a list of names.
    fraction : share of the distinct stars in the first of two groups.
    parts : or else the sizes of any number of groups, in proportion, such as (5, 1, 2).

    Raises ValueError for a table, or parts that are not positive.
    """
    if isinstance(stars, pd.DataFrame):
        raise ValueError("give the stars of the table, `table.index`, not the table itself")
    parts = np.asarray((fraction, 1 - fraction) if parts is None else parts, float)
    if parts.ndim != 1 or not (parts > 0).all() or not np.isfinite(parts).all():
        raise ValueError(
            f"groups must have a share above 0 and below 1 of the stars, not {parts.tolist()}"
        )
    stars = pd.Index(stars)
    distinct = np.random.default_rng(seed).permutation(stars.unique().sort_values())
    edges = np.round(np.cumsum(parts)[:-1] / parts.sum() * len(distinct)).astype(int)
    return [stars[stars.isin(group)] for group in np.split(distinct, edges)]


def bias_and_scatter(fit, reference, labels=LABELS):
    """How far the labels of two tables are apart, fit - reference for the stars of the first: one row a label.

    `1.4826 MAD` is the median absolute deviation from the median, scaled to the standard deviation of a normal
    distribution. Stars without a value are left out; KeyError if the reference lacks a star.
    """
    off = fit[labels] - reference.loc[fit.index, labels]
    spread = 1.4826 * (off - off.median()).abs().median()
    return pd.DataFrame(
        {"mean": off.mean(), "median": off.median(), "std": off.std(), "1.4826 MAD": spread}
    )
