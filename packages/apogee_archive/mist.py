"""Isochrones of MIST, as its web form and its archive give them.

References
----------
Dotter 2016, ApJS 222, 8; Choi et al. 2016, ApJ 823, 102; https://mist.science
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from apogee_archive.errors import CorruptFileError
from apogee_archive.limits import read_within
from apogee_archive.settings import table

__all__ = ["TABLE", "read_mist", "shipped_isochrones"]

TABLE = table("mist_v2.5.csv")
"""Path of the isochrones that ship with the lab."""

# Names in the files of several versions -> ours.
NAMES = {
    "[fe/h]_init": "feh_init",
    "[fe/h]": "feh",
    "isochrone_age_yr": "age",
    "log10_isochrone_age_yr": "age",
}
# The red giant branch in equivalent evolutionary points (Dotter 2016, table 2).
GIANT_BRANCH = (454, 604)
# The line below the one that ends in "v/vcrit": Yinit, Zinit, [Fe/H], [a/Fe], v/vcrit.
_COMPOSITION = re.compile(r"v/vcrit\s*\n#\s*\S+\s+\S+\s+(\S+)\s+(\S+)\s+(\S+)")


@lru_cache
def shipped_isochrones() -> pd.DataFrame:
    """The isochrones that ship with the lab: 2 to 12 Gyr, -2.5 <= [Fe/H] <= 0.5.

    Returns
    -------
    pandas.DataFrame
        As from `read_mist`.

    Examples
    --------
    >>> float(shipped_isochrones().age.max())
    12.0
    """
    points = pd.read_csv(TABLE).assign(teff=lambda table: 10 ** table["log_teff"])
    points.attrs |= {"source": "MIST v2.5, v/vcrit = 0.40", "alpha_fe": 0.0}
    return points


def read_mist(path: str | Path) -> pd.DataFrame:
    """Read a MIST ``.iso`` or ``.iso.cmd`` file with any number of ages.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    pandas.DataFrame
        One row per point: the file's columns with their names in lower case, and `age` (Gyr,
        whether the file has years or their logarithm), `feh_init` (dex; from the header where the
        file has no such column), `feh` (surface, where given), `teff` (K), `phase` (where not
        given: 2 on the giant branch, by EEP). ``attrs["source"]`` names the version, the rotation
        and, where it is not 0, [a/Fe]; ``attrs["alpha_fe"]`` is [a/Fe] in dex.

    Raises
    ------
    CorruptFileError
        For another kind of file (a web page, say), a truncated or too large one, numbers that are
        missing, or a file that mixes [a/Fe].
    FileNotFoundError
        If it is not there.

    References
    ----------
    Dotter 2016, ApJS 222, 8.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "old.iso"
    >>> lines = ["# MIST version number  = 2.5", "# number of isochrones = 1"]
    >>> lines += ["# number of EEPs, cols = 1 5"]
    >>> lines += ["# EEP isochrone_age_yr [Fe/H]_init log_Teff log_g"]
    >>> path.write_text("\\n".join([*lines, "500 1e10 -1.0 3.7 2.5"])) > 0
    True
    >>> point = read_mist(path).iloc[0]
    >>> float(point.age), round(float(point.teff)), int(point.phase)
    (10.0, 5012, 2)
    """
    text = read_within(path, "isochrones").decode("ascii", "replace")
    if "MIST version number" not in text[:2000]:
        raise CorruptFileError(f"{path} is not a MIST isochrone file; it begins with {text[:60]!r}")
    announced, sizes = _numbers(text, "isochrones"), _numbers(text, "EEPs, cols")
    headers = {header.lower() for header in re.findall(r"^#\s*(EEP\s.*\S)", text, re.MULTILINE)}
    if len(headers) != 1 or not len(sizes) == sum(announced):
        raise CorruptFileError(
            f"{path}: not {sum(announced)} isochrones of the same columns, as its header says: "
            "cut off?"
        )
    names = [NAMES.get(word, word) for word in headers.pop().split()]
    try:
        points = pd.read_csv(io.StringIO(text), sep=r"\s+", header=None, comment="#", dtype=float)
    except ValueError as fault:
        raise CorruptFileError(
            f"{path}: there should be rows of {len(names)} numbers ({fault})"
        ) from fault
    if points.shape != (sum(sizes), len(names)):
        raise CorruptFileError(
            f"{path} holds {points.shape}, not {sum(sizes)} rows of {len(names)}: cut off?"
        )
    return _in_our_units(path, points.set_axis(names, axis=1), text)


def _numbers(text: str, what: str) -> list[int]:
    """The numbers of something that the headers announce."""
    lines = re.findall(rf"^# number of {what}\s*=\s*(\d+)", text, re.MULTILINE)
    return [int(number) for number in lines]


def _in_our_units(path: str | Path, points: pd.DataFrame, text: str) -> pd.DataFrame:
    """Points with ages in Gyr, Teff in K and [Fe/H], if all that is needed is there."""
    composition = _COMPOSITION.findall(text)
    if "feh_init" not in points and len(composition) == 1:
        points["feh_init"] = pd.to_numeric(composition[0][0], errors="coerce")
    needed = ["eep", "age", "feh_init", "log_teff", "log_g"]
    needed += points.columns.intersection(["phase"]).to_list()
    missing = [name for name in needed if name not in points]
    if missing or not np.isfinite(points[needed].to_numpy()).all():
        raise CorruptFileError(
            f"{path}: {', '.join(missing) or 'a number'} is missing or not finite"
        )
    # Logarithms of an age in years are below 11, ages in years far above 100.
    log_age = np.where(points["age"] < 100, points["age"], np.log10(points["age"].clip(lower=1)))
    if not (points["log_teff"].between(2, 7).all() and (abs(log_age - 8) < 4).all()):
        raise CorruptFileError(f"{path} has temperatures or ages that no star has")
    points = points.assign(age=10 ** (log_age - 9), teff=10 ** points["log_teff"])
    points = points.astype({"eep": int})
    if points.duplicated(["age", "feh_init", "eep"]).any():
        raise CorruptFileError(f"{path} holds some of its isochrones twice")
    points.attrs |= _source(path, composition, text)
    if "phase" not in points:
        points["phase"] = 2 * points["eep"].between(*GIANT_BRANCH)
    return points


def _source(path: str | Path, composition: list[tuple], text: str) -> dict[str, str | float]:
    """What figures say about where the points are from, and [a/Fe]."""
    version = re.search(r"MIST version number\s*=\s*(\S+)", text)
    alphas = {alpha for _, alpha, _ in composition}
    rotations = {rotation for _, _, rotation in composition}
    if len(alphas) > 1 or len(rotations) > 1:
        raise CorruptFileError(
            f"{path} mixes isochrones of several compositions: [a/Fe] = {', '.join(sorted(alphas))}"
            f", v/vcrit = {', '.join(sorted(rotations))}; give one file for each"
        )
    try:
        alpha = float(alphas.pop()) if alphas else 0.0
    except ValueError:
        raise CorruptFileError(f"{path}: [a/Fe] in its header is no number") from None
    source = f"MIST v{version[1] if version else '?'}"
    if alpha:
        source += f", [a/Fe] = {alpha:+.2f}"
    source += f", v/vcrit = {rotations.pop() if rotations else '?'}"
    return {"source": source, "alpha_fe": alpha}
