"""Isochrones: MIST files read and interpolated; the giant branch, and a stand-in for want of a file.

MIST: Dotter 2016, ApJS 222, 8; Choi et al. 2016, ApJ 823, 102; https://mist.science.
"""

import io
import re
from pathlib import Path

import numpy as np
import pandas as pd

from labtools.errors import BadFile
from labtools.settings import data_folders

__all__ = [
    "approximate_giant_branch",
    "approximate_isochrone",
    "best_isochrone",
    "giant_branch",
    "isochrone",
    "read_mist",
]

RGB = 2  # `phase` from the end of the main sequence to the tip of the giant branch
RGB_EEPS = (454, 604)  # the same in equivalent evolutionary points (Dotter 2016, table 2)
SAME = 0.005  # dex; ages and metallicities closer than this are one
_NAMES = {"[fe/h]_init": "feh_init", "[fe/h]": "feh"} | dict.fromkeys(
    ("isochrone_age_yr", "log10_isochrone_age_yr"), "age"
)


def read_mist(path):
    """Read a MIST `.iso` or `.iso.cmd` file with any number of ages and metallicities.

    Returns
    -------
    DataFrame, one row a point, in the order of the file: the file's columns with their names in lower case,
    and `age` (Gyr, whether the file has years or their logarithm), `feh_init` (dex; from the header where the
    file has no such column), `feh` (surface, where given), `teff` (K); `attrs["source"]` names the version.

    Raises
    ------
    BadFile for another kind of file (a web page, say), a truncated one, or numbers that are missing.
    """
    text = Path(path).read_text(encoding="ascii", errors="replace")
    if "MIST version number" not in text[:2000]:
        raise BadFile(f"{path} is not a MIST isochrone file; it begins with {text[:60]!r}")
    columns, sizes, fehs = _headers(path, text)
    rows = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    try:
        numbers = pd.read_csv(io.StringIO(rows), sep=r"\s+", header=None, dtype=float)
    except ValueError as fault:
        raise BadFile(f"{path}: there should be rows of {len(columns)} numbers ({fault})") from fault
    if numbers.shape != (sum(sizes), len(columns)):
        raise BadFile(f"{path} holds {numbers.shape}, not {sum(sizes)} rows of {len(columns)}: cut off?")
    table = numbers.set_axis(columns, axis=1)
    if "feh_init" not in table:
        table["feh_init"] = np.repeat(fehs, sizes)
    return _in_our_units(path, table, _describe(text))


def _headers(path, text):
    """Column names, and of every isochrone the number of rows and [Fe/H], from the headers of a MIST file."""
    columns, sizes, fehs, announced, feh, composition = [], [], [], 0, np.nan, False
    for line in re.findall(r"^#.*", text, re.MULTILINE):
        words = line[1:].split()
        if composition:
            feh, composition = pd.to_numeric(words[2], errors="coerce") if len(words) == 5 else np.nan, False
        elif "v/vcrit" in words:
            composition = True
        elif count := re.match(r"# number of isochrones\s*=\s*(\d+)", line):
            announced += int(count[1])
        elif count := re.match(r"# number of EEPs, cols\s*=\s*(\d+)", line):
            sizes.append(int(count[1]))
            fehs.append(feh)
        elif words[:1] == ["EEP"]:
            columns.append([_NAMES.get(word.lower(), word.lower()) for word in words])
    if not sizes or not len(sizes) == len(columns) == announced:
        raise BadFile(f"{path} has {len(sizes)} isochrones, its header announces {announced}: cut off?")
    if any(names != columns[0] for names in columns):
        raise BadFile(f"{path}: its isochrones have different columns; keep them in files of their own")
    return columns[0], sizes, fehs


def _in_our_units(path, table, source):
    """A table of MIST rows with ages in Gyr and Teff in K, if all that is needed is there."""
    needed = ["eep", "age", "feh_init", "log_teff", "log_g", *table.columns.intersection(["phase"])]
    missing = [name for name in needed if name not in table]
    if missing or not np.isfinite(table[needed].to_numpy()).all():
        raise BadFile(f"{path}: {', '.join(missing) or 'a number'} is missing or not finite")
    log_age = np.where(table["age"] < 100, table["age"], np.log10(table["age"].clip(lower=1)))
    if not (table["log_teff"].between(2, 7).all() and (abs(log_age - 8) < 4).all()):
        raise BadFile(f"{path} has temperatures or ages that no star has")
    table["age"] = 10 ** (log_age - 9)
    table["teff"] = 10 ** table["log_teff"]
    table["eep"] = table["eep"].astype(int)
    if table.duplicated(["age", "feh_init", "eep"]).any():
        raise BadFile(f"{path} holds some of its isochrones twice")
    table.attrs["source"] = source
    return table


def _describe(text):
    """Which MIST a file is, e.g. "MIST v1.2, v/vcrit = 0.40"."""
    version = re.search(r"MIST version number\s*=\s*(\S+)", text)
    rotation = re.search(r"v/vcrit\s*\n#(?:\s*\S+){4}\s+(\S+)", text)
    return f"MIST v{version[1] if version else '?'}, v/vcrit = {rotation[1] if rotation else '?'}"


def isochrone(mist, age, feh):
    """One isochrone out of a table of them, at any age (Gyr) and [Fe/H] (dex, initial) within its grid.

    Between grid points all columns are interpolated linearly in log age and [Fe/H] at fixed EEP, which keeps
    each phase of evolution whole (Dotter 2016, section 2). Points that a neighbour lacks are left out.
    Raises ValueError outside the grid.
    """
    fehs = _around(mist["feh_init"], feh, "[Fe/H]")
    table = _between([_of_age(mist[mist["feh_init"] == grid], age) for grid in fehs], fehs, feh)
    table.attrs = dict(mist.attrs)
    return table


def _of_age(mist, age):
    """The isochrone of one age (Gyr) from rows of one metallicity."""
    log_age = np.log10(mist["age"])
    wanted = np.log10(age) if age > 0 else np.nan
    ages = _around(log_age, wanted, "log10 of age in Gyr")
    return _between([mist[log_age == grid] for grid in ages], ages, wanted).assign(age=float(age))


def _around(values, wanted, name):
    """The one grid value that `wanted` lies on, or the two that it lies between."""
    grid = np.unique(values)
    if not grid[0] - SAME <= wanted <= grid[-1] + SAME:
        raise ValueError(f"no isochrone for {name} = {wanted:.2f}: there are {grid[0]:.2f} to {grid[-1]:.2f}")
    nearest = grid[np.argmin(np.abs(grid - wanted))]
    above = np.searchsorted(grid, wanted)
    return [nearest] if abs(nearest - wanted) < SAME else [grid[above - 1], grid[above]]


def _between(parts, grid, wanted):
    """One isochrone as it is, or two interpolated at fixed EEP; `phase` is that of the nearer one."""
    low, high = parts[0].set_index("eep"), parts[-1].set_index("eep")
    if len(parts) == 1:
        return low.reset_index()
    weight = (wanted - grid[0]) / (grid[1] - grid[0])
    common = low.index.intersection(high.index)
    table = low.loc[common] * (1 - weight) + high.loc[common] * weight
    table["teff"] = 10 ** table["log_teff"]
    if "phase" in table:
        table["phase"] = (high if weight > 0.5 else low).loc[common, "phase"]
    return table.reset_index()


def giant_branch(one, logg):
    """Teff (K, shape of `logg`) along the red giant branch of one isochrone; NaN beyond the branch's ends.

    The branch is `phase` 2, from the end of the main sequence to the tip (by EEP where a file has no phases),
    less the points where evolution turns back (the bump), so that Teff rises strictly with log g.
    Raises ValueError if the table holds several isochrones or no giant branch.
    """
    if one["age"].nunique() > 1 or one["feh_init"].nunique() > 1:
        raise ValueError("these are several isochrones: choose one with `isochrone(mist, age, feh)`")
    on_branch = one["phase"] == RGB if "phase" in one else one["eep"].between(*RGB_EEPS)
    g, t = one.loc[on_branch, ["log_g", "log_teff"]].to_numpy().T
    onward = (g < _least_before(g)) & (t < _least_before(t))
    if onward.sum() < 2:
        raise ValueError("this isochrone has no red giant branch: it is too young, or a part of one")
    g, t = g[onward][::-1], t[onward][::-1]
    return 10 ** np.interp(np.asarray(logg, float), g, t, left=np.nan, right=np.nan)


def _least_before(values):
    return np.minimum.accumulate(np.concatenate([[np.inf], values]))[:-1]


def approximate_giant_branch(logg, feh=0.0, age=6.0):
    """Teff (K) along the red giant branch, for want of a MIST file; NaN outside its range. Arrays broadcast.

    With g = log g - 2, f = [Fe/H], a = log10(age / 6 Gyr),

        Teff = 4384.6 + 513.8 g - 49.4 g² - 14.2 g³ - f (394.3 - 28.7 g - 6.1 g² + 6.4 g³)
               - f² (0.4 - 2.2 g - 13.0 g²) - a (127.1 + 65.1 g + 10.6 f),

    a least-squares fit to the giant branches of the MIST v2.5 grid (v/vcrit = 0.4, no alpha enhancement).
    Range: -1 <= [Fe/H] <= 0.5, 4.5 to 12.6 Gyr, log g from the tip, at 0.24 - 0.25 f - 0.50 a, to 3.5. In it
    the fit is off by 10 K rms, by at most 24 K below log g = 3.3, and by up to 180 K at the foot of the most
    metal-poor branches. MIST v1.2 is itself up to 110 K cooler than v2.5 at [Fe/H] = -1.
    """
    logg, f, age = np.broadcast_arrays(*(np.asarray(value, float) for value in (logg, feh, age)))
    inside = (f >= -1 - SAME) & (f <= 0.5 + SAME) & (age >= 4.45) & (age <= 12.65)
    g, a = logg - 2, np.log10(np.where(inside, age, 6.0) / 6)
    inside = inside & (logg >= 0.24 - 0.25 * f - 0.50 * a) & (logg <= 3.5)
    teff = 4384.6 + 513.8 * g - 49.4 * g**2 - 14.2 * g**3 - f * (394.3 - 28.7 * g - 6.1 * g**2 + 6.4 * g**3)
    teff = teff - f**2 * (0.4 - 2.2 * g - 13.0 * g**2) - a * (127.1 + 65.1 * g + 10.6 * f)
    return np.where(inside, teff, np.nan)


def approximate_isochrone(age=6.0, feh=0.0):
    """`approximate_giant_branch` as a table like one isochrone, but of the giant branch alone, foot to tip.

    Columns `age`, `feh_init`, `log_g`, `teff`, `log_teff`, `phase` (all 2). ValueError outside the range.
    """
    logg = np.arange(3.5, -0.2, -0.02).round(2)
    table = pd.DataFrame({"age": float(age), "feh_init": float(feh), "log_g": logg})
    table["teff"] = approximate_giant_branch(logg, feh, age)
    table = table.dropna().reset_index(drop=True)
    if table.empty:
        raise ValueError(f"no MIST file for {age} Gyr, [Fe/H] = {feh}, and the approximation ends before it")
    table.attrs["source"] = "approximation to MIST v2.5"
    return table.assign(log_teff=np.log10(table["teff"]), phase=RGB)


def best_isochrone(age=6.0, feh=0.0, folder=None):
    """The isochrone of this age (Gyr) and [Fe/H] from a MIST file in `folder`, else the approximation to it.

    `folder` None means `cache/mist` in LAB_DATA, or in `data` of the repository. `attrs["source"]` says which
    of the two it is: print it on the figure. Raises BadFile for a damaged file.
    """
    for path in sorted(_mist_folder(folder).glob("*.iso*")):
        table = read_mist(path)
        try:
            return isochrone(table, age, feh)
        except ValueError:
            continue
    return approximate_isochrone(age, feh)


def _mist_folder(folder):
    return Path(folder) if folder else data_folders()[0] / "cache" / "mist"
