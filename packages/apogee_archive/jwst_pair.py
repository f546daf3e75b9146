"""APOGEE stars and their model spectra as JWST would see them: the two HDF5 files, the names, the matching."""

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
    "C", "N", "O", "Na", "Mg", "Al", "Si", "S", "K", "Ca", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Ce",
)  # fmt: skip
"""The elements of both files, in their order; the catalog gives [X/Fe] (and [Fe/H]), the JWST file [X/H]."""

STARS_PER_SET = 990
TO_LETTERS, TO_DIGITS = (
    str.maketrans("0123456789", "abcdefghij"),
    str.maketrans("abcdefghij", "0123456789"),
)
PIXELS = 8192
FILES = ("apogee_dr17.h5", "JWST_APOGEE.h5")
FILLER = -999.0  # values below are no measurements
RATIOS = ["FE_H" if element == "Fe" else f"{element.upper()}_FE" for element in ELEMENTS]
CATALOG_COLUMNS = [
    "FILE", "APOGEE_ID", "TELESCOPE", "FIELD", "RA", "DEC", "SNR", "VHELIO_AVG", "VERR", "TEFF", "TEFF_ERR", "LOGG",
    "LOGG_ERR", "M_H", "M_H_ERR", "ALPHA_M", "ALPHA_M_ERR", "VMICRO", "VMACRO",
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


def name_of(index):
    """Name of the model of catalog row `index`: the digits of the number in its set as letters, and the set."""
    if index < 0 or index >= 100 * STARS_PER_SET:
        raise ValueError(
            f"there is no name for row {index}: rows go from 0 to {100 * STARS_PER_SET - 1}"
        )
    group, number = divmod(int(index), STARS_PER_SET)
    return f"{number:05d}".translate(TO_LETTERS) + f"_{group:02d}"


def index_of(name):
    """Row of the catalog to which a name belongs: "aaieb_03" -> 841 + 3 * 990 = 3811."""
    if not re.fullmatch(r"[a-j]{5}_\d\d", str(name)):
        raise ValueError(
            f"{name!r} is no name: five letters a to j, an underscore and two digits, as in aaieb_03"
        )
    number = int(name[:5].translate(TO_DIGITS))
    if number >= STARS_PER_SET:
        raise ValueError(f"{name!r} is star {number} of its set, but a set has {STARS_PER_SET}")
    return number + STARS_PER_SET * int(name[6:])


def read_catalog(path):
    """The catalog of the pair (`apogee_dr17.h5`, table `allstar`): DataFrame indexed by the name of the model.

    Columns are those of the file in lower case (apogee_id, teff in K, logg, x_fe, fe_h, their errors, ...); text is
    str, fillers are NaN. Raises FileNotFoundError, and CorruptFileError if columns are missing or rows not numbered.
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
            elif table[column].dtype.kind == "f" and column not in ("ra", "dec", "vhelio_avg"):
                table[column] = table[column].where(table[column] > FILLER)
        if (table.apogee_id == "").any():
            raise ValueError(f"{(table.apogee_id == '').sum()} rows have no APOGEE_ID")
        return table.set_index(pd.Index([name_of(row) for row in table.index], name="name"))


def _need(table, columns):
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"it lacks the columns {', '.join(missing)}")


def _text(value):
    return (
        ""
        if value is None
        else (value.decode() if isinstance(value, bytes) else str(value)).strip()
    )


def read_jwst(path):
    """Labels and spectra of the JWST file (`JWST_APOGEE.h5`, tables wavelength, labels, spectra).

    Returns
    -------
    labels : DataFrame indexed by name: teff (K), logg and [X/H] in the columns c_h, n_h, ..., fe_h, ...
    spectra : Dataset (star, wavelength) of flux, float32, 8192 vacuum wavelengths of 9000 to 18000 Angstrom; the stars
        go by the same names in the same order.

    Raises FileNotFoundError, and CorruptFileError with what is wrong.
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


def _check(wavelength, labels, flux):
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


def catalog_in_x_h(catalog):
    """The catalog's labels in the form of the JWST file: teff, logg, and [X/H] = [X/Fe] + [Fe/H]."""
    iron = catalog.fe_h.astype(float)
    table = catalog[["teff", "logg"]].astype(float)
    for element, ratio in zip(map(str.lower, ELEMENTS), map(str.lower, RATIOS), strict=True):
        table[f"{element}_h"] = iron + (0 if element == "fe" else catalog[ratio].astype(float))
    return table
