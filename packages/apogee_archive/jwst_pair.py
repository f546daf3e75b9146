"""APOGEE stars and their spectra as JWST would see them: the two HDF5 files, and the names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive.errors import wrap_read_errors
from apogee_archive.hdf5_frames import read_frame

__all__ = [
    "ELEMENTS",
    "FILES",
    "PIXELS",
    "RATIOS",
    "Pair",
    "catalog_in_x_h",
    "index_of",
    "name_of",
    "read_catalog",
    "read_jwst",
]

ELEMENTS = (
    "C", "N", "O", "Na", "Mg", "Al", "Si", "S", "K", "Ca", "Ti", "V", "Cr", "Mn", "Fe", "Co",
    "Ni", "Ce",
)  # fmt: skip
"""The elements of both files, in their order.

The catalog gives [X/Fe] (and [Fe/H]), the JWST file [X/H].
"""

STARS_PER_SET = 990
# Letters stand for the digits of a number.
TO_LETTERS, TO_DIGITS = (
    str.maketrans("0123456789", "abcdefghij"),
    str.maketrans("abcdefghij", "0123456789"),
)
PIXELS = 8192
FILES = ("apogee_dr17.h5", "JWST_APOGEE.h5")
FILLER = -999.0  # this and everything below it is no measurement
RATIOS = ["FE_H" if element == "Fe" else f"{element.upper()}_FE" for element in ELEMENTS]
CATALOG_COLUMNS = [
    "FILE", "APOGEE_ID", "TELESCOPE", "FIELD", "RA", "DEC", "SNR", "VHELIO_AVG", "VERR", "TEFF",
    "TEFF_ERR", "LOGG", "LOGG_ERR", "M_H", "M_H_ERR", "ALPHA_M", "ALPHA_M_ERR", "VMICRO", "VMACRO",
    *(column for ratio in RATIOS for column in (ratio, f"{ratio}_ERR")),
]  # fmt: skip
JWST_COLUMNS = ["Teff", "logg", *ELEMENTS]
DISPENSABLE = {"M_H_ERR", "ALPHA_M_ERR", "VMICRO", "VMACRO"}


@dataclass(frozen=True)
class Pair:
    """Both files, read: catalog and labels indexed by name, spectra, and a title for figures."""

    title: str
    catalog: pd.DataFrame
    labels: pd.DataFrame
    spectra: xr.Dataset


def name_of(index: int) -> str:
    """Name of the model of a row of the catalog.

    Sets of 990 stars have a number each. The name is the number of the star in its set, its five
    digits as letters, and the number of the set.

    Parameters
    ----------
    index : int
        Number of the row, 0 to 98,999.

    Raises
    ------
    ValueError
        For another number.

    Examples
    --------
    >>> name_of(3811)
    'aaieb_03'
    """
    if index < 0 or index >= 100 * STARS_PER_SET:
        raise ValueError(
            f"there is no name for row {index}: rows go from 0 to {100 * STARS_PER_SET - 1}"
        )
    group, number = divmod(int(index), STARS_PER_SET)
    return f"{number:05d}".translate(TO_LETTERS) + f"_{group:02d}"


def index_of(name: str) -> int:
    """Row of the catalog to which a name belongs.

    Raises
    ------
    ValueError
        If it is not a name: five letters a to j, an underscore and two digits.

    Examples
    --------
    >>> index_of("aaieb_03")  # 00841 + 3 * 990
    3811
    """
    if not re.fullmatch(r"[a-j]{5}_\d\d", str(name)):
        raise ValueError(
            f"{name!r} is no name: five letters a to j, an underscore and two digits, "
            "as in aaieb_03"
        )
    number = int(name[:5].translate(TO_DIGITS))
    if number >= STARS_PER_SET:
        raise ValueError(f"{name!r} is star {number} of its set, but a set has {STARS_PER_SET}")
    return number + STARS_PER_SET * int(name[6:])


def read_catalog(path: str | Path) -> pd.DataFrame:
    """The catalog of the pair (`apogee_dr17.h5`, table `allstar`).

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    pandas.DataFrame
        Indexed by the name of the model. Columns are those of the file in lower case (apogee_id,
        teff in K, logg, x_fe, fe_h, their errors, ...); text is str, fillers are NaN.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    CorruptFileError
        If it is damaged, columns are missing, or rows are not numbered.
    """
    table = read_frame(path, "allstar")
    with wrap_read_errors(Path(path).name, "the catalog of the pair"):
        _need(table, [name for name in CATALOG_COLUMNS if name not in DISPENSABLE])
        if table.index.dtype.kind not in "iu" or not table.index.is_unique or len(table) == 0:
            raise ValueError("the rows of 'allstar' must be numbered, each number once")
        table = table.rename(columns=str.lower)
        for column in table:
            if table[column].dtype.kind == "O":
                table[column] = [_text(value) for value in table[column]]
            elif table[column].dtype.kind == "f":
                table[column] = table[column].where(table[column] > FILLER)
        if (table.apogee_id == "").any():
            raise ValueError(f"{(table.apogee_id == '').sum()} rows have no APOGEE_ID")
        return table.set_index(pd.Index([name_of(row) for row in table.index], name="name"))


def _need(table: pd.DataFrame, columns: list[str]) -> None:
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"it lacks the columns {', '.join(missing)}")


def _text(value: str | bytes | None) -> str:
    """Text without padding, "" where it is missing."""
    if value is None:
        return ""
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def read_jwst(path: str | Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """Labels and spectra of the JWST file (`JWST_APOGEE.h5`: tables wavelength, labels, spectra).

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    labels : pandas.DataFrame
        Indexed by name: teff (K), logg and [X/H] in the columns c_h, n_h, ..., fe_h, ...
    spectra : xarray.Dataset
        `flux` (float32) over star and wavelength (8192 vacuum wavelengths of 9000 to 18000
        Angstrom); the stars go by the same names in the same order.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    CorruptFileError
        With what is wrong.
    """
    wavelength = read_frame(path, "wavelength").to_numpy(float).ravel()
    labels, flux = read_frame(path, "labels"), read_frame(path, "spectra", np.float32)
    with wrap_read_errors(Path(path).name, "the JWST file of the pair"):
        _check(wavelength, labels, flux)
    labels = labels[JWST_COLUMNS].astype(float).rename_axis("name")
    labels.columns = ["teff", "logg", *(f"{e.lower()}_h" for e in ELEMENTS)]
    wave = ("wavelength", wavelength, {"units": "Angstrom, vacuum"})
    coords = {"star": labels.index.to_numpy(str), "wavelength": wave}
    return labels, xr.Dataset({"flux": (("star", "wavelength"), flux.to_numpy())}, coords=coords)


def _check(wavelength: np.ndarray, labels: pd.DataFrame, flux: pd.DataFrame) -> None:
    """Raise ValueError, with what is wrong, unless the three tables fit each other."""
    _need(labels, JWST_COLUMNS)
    if wavelength.size != PIXELS or flux.shape[1] != PIXELS:
        raise ValueError(
            f"{wavelength.size} wavelengths and {flux.shape[1]} columns of spectra, not {PIXELS}"
        )
    if not (np.diff(wavelength) > 0).all() or not 8000 < wavelength[0] < wavelength[-1] < 20000:
        raise ValueError("wavelengths must increase and be in Angstrom, about 9000 to 18000")
    if len(labels) == 0 or not labels.index.equals(flux.index):
        raise ValueError(
            f"'labels' ({len(labels)}) and 'spectra' ({len(flux)}) name different stars"
        )
    if not labels.index.is_unique:
        raise ValueError(f"a name occurs twice: {labels.index[labels.index.duplicated()][0]}")
    for what, values in (
        ("labels", labels[JWST_COLUMNS].to_numpy(float)),
        ("spectra", flux.to_numpy()),
    ):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise ValueError(
                f"{what} of {bad.sum()} stars are not finite, first {labels.index[bad][0]}"
            )
    for name in labels.index:
        index_of(name)


def catalog_in_x_h(catalog: pd.DataFrame) -> pd.DataFrame:
    """The catalog's labels in the form of the JWST file: [X/H] = [X/Fe] + [Fe/H].

    Parameters
    ----------
    catalog : pandas.DataFrame
        From `read_catalog`.

    Returns
    -------
    pandas.DataFrame
        teff (K), logg, and c_h, n_h, ..., dex.

    Examples
    --------
    >>> ratios = {name.lower(): [0.1] for name in RATIOS}
    >>> labels = catalog_in_x_h(pd.DataFrame({"teff": [4500], "logg": [2], **ratios, "fe_h": [-1]}))
    >>> float(labels.mg_h.iloc[0]), float(labels.fe_h.iloc[0])
    (-0.9, -1.0)
    """
    iron = catalog.fe_h.astype(float)
    table = catalog[["teff", "logg"]].astype(float)
    for element, ratio in zip(map(str.lower, ELEMENTS), map(str.lower, RATIOS), strict=True):
        table[f"{element}_h"] = iron + (0 if element == "fe" else catalog[ratio].astype(float))
    return table
