"""Isochrones: MIST files of one's own and the table that ships with the lab, interpolated; the giant branch.

MIST: Dotter 2016, ApJS 222, 8; Choi et al. 2016, ApJ 823, 102; https://mist.science.
"""

from contextlib import suppress
from pathlib import Path

import numpy as np

from apogee_archive.mist import read_mist, shipped_isochrones
from apogee_archive.settings import data_folders

__all__ = ["best_isochrone", "giant_branch", "isochrone", "read_mist", "shipped_isochrones"]

RGB = 2  # the `phase` from the end of the main sequence to the tip of the giant branch
SAME = 0.005  # dex; ages and metallicities closer than this are one


def isochrone(mist, age, feh):
    """One isochrone out of a table of them, at any age (Gyr) and [Fe/H] (dex, initial); ValueError outside its grid.

    Between grid points all columns are interpolated linearly in log age and [Fe/H] at fixed EEP, which keeps
    each phase of evolution whole (Dotter 2016, section 2). Points that a neighbour lacks are left out.
    """
    points = mist.assign(log_age=np.log10(mist["age"]).round(6))
    points = _at(points, "feh_init", feh, ["log_age", "eep"])
    points = _at(points, "log_age", np.log10(age) if age > 0 else np.nan, ["eep"])
    one = points.assign(age=float(age), teff=10 ** points["log_teff"]).drop(columns="log_age")
    one.attrs = dict(mist.attrs)
    return one


def _at(points, column, wanted, keys):
    """Points at one value of `column`, interpolated between those of equal `keys`; `phase` is that of the nearer."""
    grid = np.unique(points[column])
    if not grid[0] - SAME <= wanted <= grid[-1] + SAME:
        raise ValueError(
            f"no isochrone for {column} = {wanted:.2f}: there are {grid[0]:.2f} to {grid[-1]:.2f}"
        )
    ends = grid[grid <= wanted + SAME][-1], grid[grid >= wanted - SAME][0]
    weight = (wanted - ends[0]) / (ends[1] - ends[0]) if ends[1] > ends[0] else 0.0
    low, high = (points[points[column] == end].set_index(keys) for end in ends)
    common = low.index.intersection(high.index)
    low, high = low.loc[common], high.loc[common]
    between = low * (1 - weight) + high * weight
    return between.assign(phase=(high if weight > 0.5 else low)["phase"]).reset_index()


def giant_branch(one, logg):
    """Teff (K, shape of `logg`) along the red giant branch of one isochrone; NaN beyond the branch's ends.

    The branch is `phase` 2, from the end of the main sequence to the tip, less the points where evolution turns back
    (the bump), so that Teff rises strictly with log g.
    """
    if one["age"].nunique() > 1 or one["feh_init"].nunique() > 1:
        raise ValueError(
            "these are several isochrones: choose one with `isochrone(mist, age, feh)`"
        )
    g, t = one.loc[one["phase"] == RGB, ["log_g", "log_teff"]].to_numpy().T
    onward = np.all([x < np.minimum.accumulate(np.r_[np.inf, x])[:-1] for x in (g, t)], axis=0)
    if onward.sum() < 2:
        raise ValueError(
            "this isochrone has no red giant branch: it is too young, or a part of one"
        )
    return 10 ** np.interp(
        np.asarray(logg, float), g[onward][::-1], t[onward][::-1], left=np.nan, right=np.nan
    )


def best_isochrone(age=6.0, feh=0.0, folder=None):
    """The isochrone of this age (Gyr) and [Fe/H] from a MIST file of one's own, else from the table that ships.

    `folder` None means `cache/mist` in LAB_DATA, or in `data` of the repository. `attrs["source"]` says which
    of the two it is: print it on the figure. Raises CorruptFileError for a damaged file, ValueError outside the table.
    """
    for path in sorted(
        (Path(folder) if folder else data_folders()[0] / "cache" / "mist").glob("*.iso*")
    ):
        points = read_mist(path)
        with suppress(ValueError):
            return isochrone(points, age, feh)
    return isochrone(shipped_isochrones(), age, feh)
