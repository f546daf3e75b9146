"""Isochrones of MIST, as its web form and its archive give them (Dotter 2016, ApJS 222, 8; https://mist.science)."""

import io
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from apogee_archive.errors import CorruptFileError
from apogee_archive.settings import table

__all__ = ["TABLE", "read_mist", "shipped_isochrones"]

TABLE = table("mist_v2.5.csv")
"""Path of the isochrones that ship with the lab."""

NAMES = {
    "[fe/h]_init": "feh_init",
    "[fe/h]": "feh",
    "isochrone_age_yr": "age",
    "log10_isochrone_age_yr": "age",
}
BRANCH = (454, 604)  # the red giant branch in equivalent evolutionary points (Dotter 2016, table 2)


@lru_cache
def shipped_isochrones():
    """The isochrones that ship with the lab, as from `read_mist`: 2 to 12 Gyr, -2.5 <= [Fe/H] <= 0.5."""
    points = pd.read_csv(TABLE).assign(teff=lambda table: 10 ** table["log_teff"])
    points.attrs |= {"source": "MIST v2.5, v/vcrit = 0.40", "alpha_fe": 0.0}
    return points


def read_mist(path):
    """Read a MIST `.iso` or `.iso.cmd` file with any number of ages: DataFrame, one row a point.

    It has the file's columns with their names in lower case, and `age` (Gyr, whether the file has years or their
    logarithm), `feh_init` (dex; from the header where the file has no such column), `feh` (surface, where given),
    `teff` (K), `phase` (where not given: 2 on the giant branch, by EEP); `attrs["source"]` names the version and
    [α/Fe] where that is not 0, `attrs["alpha_fe"]` is its number.
    Raises CorruptFileError for another kind of file (a web page, say), a truncated one, or numbers that are missing.
    """
    text = Path(path).read_text(encoding="ascii", errors="replace")
    if "MIST version number" not in text[:2000]:
        raise CorruptFileError(f"{path} is not a MIST isochrone file; it begins with {text[:60]!r}")
    announced, sizes = (
        [
            int(number)
            for number in re.findall(rf"^# number of {what}\s*=\s*(\d+)", text, re.MULTILINE)
        ]
        for what in ("isochrones", "EEPs, cols")
    )
    headers = {header.lower() for header in re.findall(r"^#\s*(EEP\s.*\S)", text, re.MULTILINE)}
    if len(headers) != 1 or not len(sizes) == sum(announced):
        raise CorruptFileError(
            f"{path}: not {sum(announced)} isochrones of the same columns, as its header says: cut off?"
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


def _in_our_units(path, points, text):
    """Points with ages in Gyr, Teff in K and [Fe/H], if all that is needed is there."""
    version = re.search(r"MIST version number\s*=\s*(\S+)", text)
    # One header per metallicity: Yinit, Zinit, [Fe/H], [a/Fe], v/vcrit.
    composition = re.findall(
        r"v/vcrit\s*\n#\s*\S+\s+\S+\s+(\S+)\s+(\S+)\s+(\S+)", text
    ) or [("", "0", "?")]
    alphas = {float(alpha) for _, alpha, _ in composition}
    if len(alphas) > 1:
        raise CorruptFileError(
            f"{path} mixes [a/Fe] = {', '.join(map(str, sorted(alphas)))}: one file for each, please"
        )
    alpha_fe = alphas.pop()
    if "feh_init" not in points and len(composition) == 1:
        points["feh_init"] = pd.to_numeric(composition[0][0], errors="coerce")
    needed = [
        "eep",
        "age",
        "feh_init",
        "log_teff",
        "log_g",
        *points.columns.intersection(["phase"]),
    ]
    missing = [name for name in needed if name not in points]
    if missing or not np.isfinite(points[needed].to_numpy()).all():
        raise CorruptFileError(
            f"{path}: {', '.join(missing) or 'a number'} is missing or not finite"
        )
    log_age = np.where(points["age"] < 100, points["age"], np.log10(points["age"].clip(lower=1)))
    if not (points["log_teff"].between(2, 7).all() and (abs(log_age - 8) < 4).all()):
        raise CorruptFileError(f"{path} has temperatures or ages that no star has")
    points = points.assign(age=10 ** (log_age - 9), teff=10 ** points["log_teff"]).astype(
        {"eep": int}
    )
    if points.duplicated(["age", "feh_init", "eep"]).any():
        raise CorruptFileError(f"{path} holds some of its isochrones twice")
    mixture = f", [α/Fe] = {alpha_fe:+.1f}" if alpha_fe else ""
    points.attrs["source"] = (
        f"MIST v{version[1] if version else '?'}{mixture}, v/vcrit = {composition[0][2]}"
    )
    points.attrs["alpha_fe"] = alpha_fe
    return points if "phase" in points else points.assign(phase=2 * points["eep"].between(*BRANCH))
