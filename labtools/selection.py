"""Which stars teach the model: the lab's quality cuts, the split by star, and log g.

Read it from top to bottom: the surface gravity behind the cut on giants, the cuts themselves, what
each of them removes, the random split into groups, and how two tables of labels are compared.
"""

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd
from astropy import constants, units
from numpy.typing import ArrayLike

from apogee_archive.columns import LABELS
from apogee_archive.survey import star_names

__all__ = [
    "LABELS",
    "bias_and_scatter",
    "count_cuts",
    "log_g",
    "native_byte_order",
    "removed_by",
    "select_giants",
    "split_by_star",
]

DUPLICATE = 1 << 4
"""Bit 4 of EXTRATARG: another entry of this star, in another field, has a higher SNR."""


def log_g(mass: ArrayLike, radius: ArrayLike) -> np.ndarray:
    """
    Surface gravity of a star, log10(G M / R²).

    Parameters
    ----------
    mass, radius : array_like
        Mass and radius in units of the Sun's; they are broadcast against each other.

    Returns
    -------
    ndarray
        log10 of the gravity in cm s⁻² (dex).

    Examples
    --------
    The Sun, and a red giant of the same mass and 100 times its radius:

    >>> log_g(mass=1, radius=[1, 100]).round(2)
    array([4.44, 0.44])
    """
    masses = np.asarray(mass, float) * units.M_sun
    radii = np.asarray(radius, float) * units.R_sun
    gravity = constants.G * masses / radii**2
    return np.log10(gravity.cgs.value)


def select_giants(catalog: pd.DataFrame) -> pd.DataFrame:
    """
    The stars of the lab, each once: the rows of a catalog that pass all cuts.

    The cuts are those of the assignment: all five labels known, SNR ≥ 50, log g ≤ 4,
    Teff ≤ 5700 K, [Fe/H] ≥ -1. Two more make each star count once: entries that EXTRATARG marks
    as duplicates go, and of a star that still repeats only the entry of highest SNR stays.

    Parameters
    ----------
    catalog : DataFrame
        One row per entry of a star, as `survey.catalog()` gives it: index `apogee_id` (or a column
        of that name), columns `teff` (K), `logg`, `fe_h`, `mg_fe`, `si_fe` (dex), `snr` per pixel
        and `extratarg`. A label that is NaN, infinite or below -9000 counts as unknown.

    Returns
    -------
    DataFrame
        The rows that pass, in the order and with the index of the catalog.

    Raises
    ------
    ValueError
        If columns are missing, the catalog is empty or says nowhere which star a row belongs to,
        or if no row passes.

    Examples
    --------
    >>> catalog = pd.DataFrame(
    ...     {"teff": [4700.0, 4700.0, 5900.0], "logg": [2.5, 2.5, 4.4], "fe_h": -0.1,
    ...      "mg_fe": 0.1, "si_fe": 0.0, "snr": [80, 120, 200], "extratarg": 0},
    ...     index=pd.Index(["2M01", "2M01", "2M02"], name="apogee_id"),
    ... )
    >>> select_giants(catalog).snr.to_dict()
    {'2M01': 120}
    """
    catalog = native_byte_order(catalog)
    kept = np.logical_and.reduce(list(_cuts(catalog).values()))
    if not kept.any():
        raise ValueError(f"none of the {len(catalog)} rows passes the cuts:\n{count_cuts(catalog)}")
    return catalog[kept]


def _cuts(catalog: pd.DataFrame) -> dict[str, np.ndarray]:
    """The cuts in the order of the lab: name -> boolean array (row), True where a row passes."""
    if missing := [name for name in (*LABELS, "snr", "extratarg") if name not in catalog]:
        raise ValueError(f"the catalog lacks the columns {', '.join(missing)}")
    if catalog.empty:
        raise ValueError("the catalog is empty: there is nothing to select from")
    stars = _stars_of(catalog)
    labels = catalog[LABELS].to_numpy(float)  # (row, label)
    snr = catalog["snr"].to_numpy(float)
    cuts = {
        "all five labels": (np.isfinite(labels) & (labels > -9000)).all(axis=1),
        "SNR ≥ 50": snr >= 50,
        "log g ≤ 4": catalog["logg"].to_numpy(float) <= 4,
        "Teff ≤ 5700 K": catalog["teff"].to_numpy(float) <= 5700,
        "[Fe/H] ≥ -1": catalog["fe_h"].to_numpy(float) >= -1,
        "not marked a duplicate": _bits(catalog["extratarg"]) & DUPLICATE == 0,
    }
    # Of each star the entry that passes the cuts above and has the highest SNR: sorted from the
    # brightest down, it is the first of its star. Entries that fail are sorted to the end.
    passed = np.logical_and.reduce(list(cuts.values()))
    entries = pd.DataFrame({"star": stars, "rank": np.where(passed, snr, -np.inf)})
    entries = entries.sort_values("rank", ascending=False, kind="stable")
    best = ~entries.duplicated("star")
    cuts["best entry of its star"] = best.sort_index().to_numpy()
    return cuts


def _stars_of(catalog: pd.DataFrame) -> pd.Index:
    """Which star each row of a catalog belongs to: its column `apogee_id`, else its index."""
    if "apogee_id" in catalog:
        return _names(catalog["apogee_id"])
    if pd.api.types.is_numeric_dtype(catalog.index):
        raise ValueError(
            "the catalog does not say which star a row belongs to: index it by apogee_id, "
            "or give it a column of that name"
        )
    return _names(catalog.index)


def _bits(flags: pd.Series) -> np.ndarray:
    """A column of bit flags as int64; a row without a flag is an error, not a row of bit 63."""
    if unknown := int(flags.isna().sum()):
        raise ValueError(
            f"column {flags.name} is missing in {unknown} rows; fill them with 0 if no bit is set"
        )
    return flags.to_numpy(np.int64)


def count_cuts(catalog: pd.DataFrame) -> pd.DataFrame:
    """
    How many rows of a catalog each cut removes.

    Parameters
    ----------
    catalog : DataFrame
        As in `select_giants`.

    Returns
    -------
    DataFrame
        One row per cut, in the order in which they are applied: `removed` counts the rows that it
        takes from those still left, `left` those left after it, `alone` those that it would take
        from the whole catalog.

    Raises
    ------
    ValueError
        As `select_giants`, but not if no row passes.

    Examples
    --------
    >>> giant = {"teff": 4700.0, "logg": 2.5, "fe_h": 0, "mg_fe": 0, "si_fe": 0, "extratarg": 0}
    >>> catalog = pd.DataFrame({"2M01": giant | {"snr": 120}, "2M02": giant | {"snr": 20}}).T
    >>> count_cuts(catalog).loc["SNR ≥ 50"].to_dict()
    {'removed': 1, 'left': 1, 'alone': 1}
    """
    cuts = _cuts(catalog)
    left = np.logical_and.accumulate(list(cuts.values())).sum(axis=1)
    return pd.DataFrame(
        {
            "removed": -np.diff(left, prepend=len(catalog)),
            "left": left,
            "alone": [np.count_nonzero(~passed) for passed in cuts.values()],
        },
        index=pd.Index(cuts, name="cut"),
    )


def removed_by(catalog: pd.DataFrame) -> pd.Series:
    """
    The first cut that removes each row of a catalog.

    Parameters
    ----------
    catalog : DataFrame
        As in `select_giants`.

    Returns
    -------
    Series
        Name of the cut, on the index of the catalog; "" for rows that pass all cuts.

    Raises
    ------
    ValueError
        As `select_giants`, but not if no row passes.

    Examples
    --------
    >>> giant = {"teff": 4700.0, "logg": 2.5, "fe_h": 0, "mg_fe": 0, "si_fe": 0, "extratarg": 0}
    >>> catalog = pd.DataFrame({"2M01": giant | {"snr": 120}, "2M02": giant | {"snr": 20}}).T
    >>> removed_by(catalog).to_dict()
    {'2M01': '', '2M02': 'SNR ≥ 50'}
    """
    cuts = _cuts(catalog)
    removed = pd.Series("", catalog.index)
    for name, passed in reversed(cuts.items()):  # the first cut is written last, and stays
        removed[~passed] = name
    return removed


def split_by_star(
    stars: Collection[str],
    seed: int,
    fraction: float = 0.5,
    parts: Sequence[float] | None = None,
) -> list[pd.Index]:
    """
    Divide stars at random into groups; all entries of a star fall into the same one.

    Parameters
    ----------
    stars : Index, array, list or set of str
        Names of the stars; they may repeat. Bytes are decoded, blanks at the ends removed.
    seed : int
        The same seed gives the same groups, in whatever order the stars come.
    fraction : float
        Share of the distinct stars in the first of two groups, between 0 and 1.
    parts : sequence of float, optional
        Instead of `fraction`, the sizes of any number of groups in proportion, such as (5, 1, 2).

    Returns
    -------
    list of Index
        The names in each group, in the order of `stars`.

    Raises
    ------
    ValueError
        If `stars` is a table, or a group would have no share of the stars.

    Examples
    --------
    >>> groups = split_by_star(["2M01", "2M02", "2M03", "2M01"], seed=2)
    >>> [list(group) for group in groups]
    [['2M01', '2M03', '2M01'], ['2M02']]
    """
    if isinstance(stars, pd.DataFrame):
        raise ValueError("give the stars of the table, `table.index`, not the table itself")
    shares = np.asarray((fraction, 1 - fraction) if parts is None else parts, float)
    if shares.ndim != 1 or not (shares > 0).all() or not np.isfinite(shares).all():
        raise ValueError(
            f"groups must have a share above 0 and below 1 of the stars, not {shares.tolist()}"
        )
    names = _names(stars)
    # Sorted before they are shuffled, so that the groups do not depend on the order of the input.
    distinct = np.random.default_rng(seed).permutation(names.unique().sort_values())
    edges = np.round(np.cumsum(shares)[:-1] / shares.sum() * len(distinct)).astype(int)
    return [names[names.isin(group)] for group in np.split(distinct, edges)]


def _names(ids: Collection) -> pd.Index:
    """Names of stars as clean text, so that two forms of a name do not count as two stars.

    Whole numbers, such as row numbers, are left as they are. A set has no order and is sorted.
    """
    if isinstance(ids, (set, frozenset)):
        ids = sorted(ids)
    index = pd.Index(ids if hasattr(ids, "__array__") else list(ids))
    if pd.api.types.is_numeric_dtype(index):
        return index
    names = star_names(index, unique=False)
    return index if names == list(index) else pd.Index(names, name=index.name)


def native_byte_order(table: pd.DataFrame) -> pd.DataFrame:
    """
    A table with the numbers of this machine's byte order.

    FITS files store numbers big-endian; pandas refuses to select rows of such columns.

    Parameters
    ----------
    table : DataFrame
        Any table, for example one made from the columns of `fits.getdata(...)`.

    Returns
    -------
    DataFrame
        The same values; the table itself if nothing had to be swapped.

    Examples
    --------
    >>> swapped = pd.DataFrame({"teff": np.array([4700.0, 4800.0], ">f8")})
    >>> native_byte_order(swapped).teff.dtype
    dtype('float64')
    """
    swapped = {
        name: table[name].to_numpy().astype(table[name].dtype.newbyteorder("="))
        for name in table.columns[table.columns.notna()]
        if isinstance(table[name].dtype, np.dtype) and not table[name].dtype.isnative
    }
    return table.assign(**swapped) if swapped else table


def bias_and_scatter(
    fit: pd.DataFrame,
    reference: pd.DataFrame,
    labels: Sequence[str] = LABELS,
    resamples: int = 0,
    seed: int = 0,
) -> pd.DataFrame:
    """
    How far the labels of two tables are apart, fit - reference.

    Parameters
    ----------
    fit, reference : DataFrame
        Tables indexed by star; stars of the first are looked up in the second. A star without a
        value in either is left out of that label.
    labels : sequence of str
        Columns that both tables have.
    resamples : int
        Number of bootstrap samples of stars from which standard errors are estimated; with 0 there
        are none. Each sample holds the same stars for all labels.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        One row per label, in its unit: `mean` and `median` (two measures of the bias), `std`, and
        `1.4826 MAD`, the median absolute deviation from the median, scaled so that it is the
        standard deviation of a normal distribution. With `resamples` also the standard errors
        `mean_err`, `median_err`, `std_err` and `1.4826 MAD_err`.

    Raises
    ------
    KeyError
        If the reference lacks a star, or one of the tables a label.

    Examples
    --------
    >>> fit = pd.DataFrame({"teff": [4710.0, 4790.0, 5020.0]}, index=["2M01", "2M02", "2M03"])
    >>> reference = pd.DataFrame({"teff": [5000.0, 4700, 4800]}, index=["2M03", "2M01", "2M02"])
    >>> bias_and_scatter(fit, reference, ["teff"]).round(1)
          mean  median   std  1.4826 MAD
    teff   6.7    10.0  15.3        14.8
    """
    labels = list(labels)
    fit, reference = native_byte_order(fit), native_byte_order(reference)
    differences = fit[labels] - reference.loc[fit.index, labels]
    table = _statistics(differences)
    if not resamples:
        return table
    rng = np.random.default_rng(seed)
    samples = np.array(
        [
            _statistics(differences.iloc[rng.integers(0, len(differences), len(differences))])
            for _ in range(resamples)
        ]
    )  # (resample, label, statistic)
    errors = pd.DataFrame(samples.std(axis=0, ddof=1), table.index, table.columns + "_err")
    return table.join(errors)


def _statistics(differences: pd.DataFrame) -> pd.DataFrame:
    """Bias and scatter of each column: (label, statistic)."""
    deviations = (differences - differences.median()).abs()
    return pd.DataFrame(
        {
            "mean": differences.mean(),
            "median": differences.median(),
            "std": differences.std(),
            "1.4826 MAD": 1.4826 * deviations.median(),
        }
    )
