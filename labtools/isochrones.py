"""Isochrones: tables of MIST, interpolated to any age and metallicity, and their giant branches.

An isochrone is where stars of one age and one composition but of different masses stand at one
moment. Its points are counted by EEP ("equivalent evolutionary point"): the same number is the
same stage of evolution on every isochrone.

MIST: Dotter 2016, ApJS 222, 8; Choi et al. 2016, ApJ 823, 102; https://mist.science.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from apogee_archive.mist import read_mist, shipped_isochrones
from apogee_archive.settings import data_folders

__all__ = ["best_isochrone", "giant_branch", "isochrone", "read_mist", "shipped_isochrones"]

GIANT_BRANCH_PHASE = 2  # from the end of the main sequence to the tip of the giant branch
TOLERANCE = 0.005  # dex; ages and metallicities closer than this are the same


def isochrone(mist: pd.DataFrame, age: float, feh: float) -> pd.DataFrame:
    """One isochrone out of a table of them, at any age and metallicity inside its grid.

    Between the grid points all columns are interpolated linearly in log age and [Fe/H] at fixed
    EEP, which keeps each phase of evolution whole. Points that a neighbor lacks are left out.

    Parameters
    ----------
    mist : DataFrame
        Many isochrones, as from `read_mist` or `shipped_isochrones`.
    age : float
        Age in Gyr.
    feh : float
        Initial [Fe/H] in dex.

    Returns
    -------
    DataFrame
        One row per point, with the columns of `mist`.

    Raises
    ------
    ValueError
        If age or [Fe/H] lies outside the grid.

    References
    ----------
    Dotter 2016, ApJS 222, 8, section 2.

    Examples
    --------
    >>> from labtools.isochrones import isochrone, shipped_isochrones
    >>> one = isochrone(shipped_isochrones(), age=5.0, feh=0.1)
    >>> one[["age", "feh_init"]].drop_duplicates().values.tolist()
    [[5.0, 0.1]]
    """
    points = mist.assign(log_age=np.log10(mist["age"]).round(6))
    points = _interpolate(points, "feh_init", feh, ["log_age", "eep"])
    log_age = np.log10(age) if age > 0 else np.nan
    points = _interpolate(points, "log_age", log_age, ["eep"])
    one = points.assign(age=float(age), feh_init=float(feh), teff=10 ** points["log_teff"])
    one = one.drop(columns="log_age")
    one.attrs = dict(mist.attrs)
    return one


def _interpolate(
    points: pd.DataFrame, column: str, wanted: float, keys: Sequence[str]
) -> pd.DataFrame:
    """Points at one value of `column`, between the two nearest, which are matched by `keys`.

    The `phase` is a whole number and is taken from the nearer of the two.
    """
    grid = np.unique(points[column])
    if not grid[0] - TOLERANCE <= wanted <= grid[-1] + TOLERANCE:
        raise ValueError(
            f"no isochrone for {column} = {wanted:.2f}: there are {grid[0]:.2f} to {grid[-1]:.2f}"
        )
    below, above = grid[grid <= wanted + TOLERANCE][-1], grid[grid >= wanted - TOLERANCE][0]
    weight = (wanted - below) / (above - below) if above > below else 0.0
    low, high = (points[points[column] == end].set_index(list(keys)) for end in (below, above))
    common = low.index.intersection(high.index)
    low, high = low.loc[common], high.loc[common]
    between = low * (1 - weight) + high * weight
    return between.assign(phase=(high if weight > 0.5 else low)["phase"]).reset_index()


def giant_branch(one: pd.DataFrame, logg: ArrayLike) -> np.ndarray:
    """Effective temperature along the red giant branch of one isochrone.

    Where evolution turns back for a while (the bump) those points are left out, so that
    temperature rises strictly with log g.

    Parameters
    ----------
    one : DataFrame
        One isochrone, as from `isochrone` or `best_isochrone`.
    logg : array_like
        Surface gravity in dex (cgs).

    Returns
    -------
    array, of the shape of `logg`
        Effective temperature in K, NaN beyond the ends of the branch.

    Raises
    ------
    ValueError
        If these are several isochrones, or one without a giant branch.

    Examples
    --------
    >>> from labtools.isochrones import best_isochrone, giant_branch
    >>> giant_branch(best_isochrone(age=6, feh=0.0), [3.0, 2.0, 9.0]).round(-1)
    array([4830., 4370.,   nan])
    """
    if one["age"].nunique() > 1 or one["feh_init"].nunique() > 1:
        raise ValueError(
            "these are several isochrones: choose one with `isochrone(mist, age, feh)`"
        )
    branch = one[one["phase"] == GIANT_BRANCH_PHASE]
    log_g, log_teff = branch["log_g"].to_numpy(), branch["log_teff"].to_numpy()
    # Points that are lower in gravity *and* temperature than all before them.
    onward = np.ones(len(branch), bool)
    for values in (log_g, log_teff):
        onward[1:] &= values[1:] < np.minimum.accumulate(values)[:-1]
    if onward.sum() < 2:
        raise ValueError(
            "this isochrone has no red giant branch: it is too young, or a part of one"
        )
    # `np.interp` wants rising abscissae, and evolution lowers gravity.
    rising_logg, rising_teff = log_g[onward][::-1], log_teff[onward][::-1]
    wanted = np.asarray(logg, float)
    return 10 ** np.interp(wanted, rising_logg, rising_teff, left=np.nan, right=np.nan)


def best_isochrone(
    age: float = 6.0,
    feh: float = 0.0,
    folder: str | Path | None = None,
    alpha_fe: float | None = None,
) -> pd.DataFrame:
    """An isochrone from a MIST file of one's own, or else from the table that ships with the lab.

    Parameters
    ----------
    age : float
        Age in Gyr.
    feh : float
        Initial [Fe/H] in dex.
    folder : path, optional
        Where one's own files (`*.iso`, `*.iso.cmd`) are, by default `cache/mist` in the data.
    alpha_fe : float, optional
        [α/Fe] in dex that the models must have. By default scaled-solar models ([α/Fe] = 0) are
        preferred; if only α-enhanced files of one's own cover this age and [Fe/H], the first of
        them is taken, with a warning.

    Returns
    -------
    DataFrame
        One row per point. `attrs["source"]` names the version of MIST, and [α/Fe] where it is not
        0: print it on the figure.

    Raises
    ------
    CorruptFileError
        If one of the files is damaged.
    ValueError
        If nothing covers this age, [Fe/H] and [α/Fe].

    Examples
    --------
    >>> from labtools.isochrones import best_isochrone
    >>> best_isochrone(age=6, feh=-0.5, alpha_fe=0.0).attrs["alpha_fe"]
    0.0
    """
    folder = Path(folder) if folder else data_folders()[0] / "cache" / "mist"
    own = [read_mist(path) for path in sorted(folder.glob("*.iso*"))]
    wanted = 0.0 if alpha_fe is None else alpha_fe
    matches: list[pd.DataFrame] = []
    others: list[pd.DataFrame] = []
    for points in own:
        is_match = abs(points.attrs["alpha_fe"] - wanted) < TOLERANCE
        (matches if is_match else others).append(points)
    for points in matches:
        if _covers(points, age, feh):
            return isochrone(points, age, feh)
    if alpha_fe is None:
        for points in others:
            if _covers(points, age, feh):
                warnings.warn(
                    f"the only file of your own for {age} Gyr and [Fe/H] = {feh} is "
                    f"{points.attrs['source']}; alpha_fe=0.0 gives scaled-solar models instead",
                    stacklevel=2,
                )
                return isochrone(points, age, feh)
    if abs(wanted) > TOLERANCE:
        raise ValueError(
            f"no isochrone with [α/Fe] = {wanted:+.1f} for {age} Gyr and [Fe/H] = {feh}: the table "
            f"that ships is scaled-solar; put a file from https://mist.science into {folder.name}"
        )
    return isochrone(shipped_isochrones(), age, feh)


def _covers(points: pd.DataFrame, age: float, feh: float) -> bool:
    """Whether age (Gyr) and [Fe/H] lie inside the grid of a table of isochrones."""
    try:
        isochrone(points, age, feh)
    except ValueError:
        return False
    return True
