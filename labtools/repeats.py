"""Precision without a truth: the same star measured again.

A star with several visits, or with entries in two fields, has one set of labels. How much its
measurements scatter, in units of their quoted errors, tests those errors on any survey.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits

from apogee_archive.bitmasks import LAB_BITS, usable
from apogee_archive.errors import wrap_read_errors
from apogee_archive.grid import WAVELENGTH
from apogee_archive.limits import check_size
from apogee_archive.survey import Survey

__all__ = ["pair_scatter", "pairs_of_entries", "read_visits", "two_visits"]

FIRST_VISIT = 2  # rows 0 and 1 of an apStar file are combinations of all visits


def read_visits(path: str | Path, bits: int = LAB_BITS) -> xr.Dataset:
    """The single visits of an apStar file, each a spectrum of its own.

    Parameters
    ----------
    path : path
        An apStar file of several visits.
    bits : int
        Pixels with one of these bits do not count, as in `labtools.read_apstar`.

    Returns
    -------
    Dataset
        `flux` and `error` (star, wavelength), float32, in the units of the file, on the survey's
        8575 wavelengths (Angstrom, vacuum, rest frame). `star` is the name of the star, a stroke
        and the number of the visit, from 1. No stars for a file of a single visit.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is not an apStar file.

    Examples
    --------
    >>> visits = read_visits("apStar-dr17-2M00000000+0000000.fits")  # doctest: +SKIP
    """
    path = Path(path)
    size = check_size(path, "spectrum")
    with wrap_read_errors(path, "an apStar file"), fits.open(path, memmap=False) as file:
        if size < 2880 or len(file) < 4:
            raise ValueError("fewer than four HDUs")
        name = str(file[0].header.get("OBJID", path.stem)).strip()
        images = [np.atleast_2d(file[number].data)[FIRST_VISIT:] for number in (1, 2, 3)]
        if not all(image.shape[1:] == WAVELENGTH.shape for image in images):
            raise ValueError(f"its images do not have {WAVELENGTH.size} pixels")
    flux, error = (image.astype("f4") for image in images[:2])
    mask = images[2].astype("i8")
    # Flux 0 is how a file says that nothing was recorded in a pixel
    good = (mask & int(bits) == 0) & (flux != 0) & usable(flux, error)
    axes = ("star", "wavelength")
    return xr.Dataset(
        {
            "flux": (axes, np.where(np.isfinite(flux), flux, 0)),
            "error": (axes, np.where(good, error, np.inf).astype("f4")),
        },
        coords={
            "star": [f"{name}/{number}" for number in range(1, len(flux) + 1)],
            "wavelength": ("wavelength", WAVELENGTH, {"units": "Angstrom, vacuum"}),
        },
    )


def two_visits(survey: Survey, rows: pd.DataFrame) -> xr.Dataset:
    """The first two visits of stars of a survey, one after the other.

    Parameters
    ----------
    survey : Survey
        As from `labtools.open_survey`.
    rows : DataFrame
        Rows of its catalog, of stars with at least two visits. Files that are not here are
        fetched first.

    Returns
    -------
    Dataset
        As `read_visits`, with twice as many spectra as there are stars.

    Raises
    ------
    ValueError
        If a star has one visit only, or no file.

    Examples
    --------
    >>> visits = two_visits(survey, giants[giants.nvisits > 1])  # doctest: +SKIP
    """
    survey.fetch(rows, storage="files")
    pairs = []
    for star, row in zip(rows.index, rows.to_dict("records"), strict=True):
        paths = [path for path in survey._local_paths(row) if path.suffix == ".fits"]
        if not paths:
            raise ValueError(f"there is no file of {star}")
        visits = read_visits(paths[0])
        if visits.sizes["star"] < 2:
            raise ValueError(f"{star} has one visit only: choose stars with nvisits above 1")
        pairs.append(visits.isel(star=slice(0, 2)))
    return xr.concat(pairs, "star")


def pairs_of_entries(catalog: pd.DataFrame, labels: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two entries of one star in a catalog: the differences of their labels, and their errors.

    Parameters
    ----------
    catalog : DataFrame
        Indexed by star, which may repeat, with columns `<label>` and `<label>_err`.
    labels : list of str
        Which labels.

    Returns
    -------
    differences, errors : DataFrame
        (star, label), of the first two entries of each star whose labels are all finite.

    Examples
    --------
    >>> catalog = pd.DataFrame({"teff": [4500.0, 4510.0, 4000.0], "teff_err": [3.0, 4.0, 9.0]},
    ...                        index=["a", "a", "b"])
    >>> difference, error = pairs_of_entries(catalog, ["teff"])
    >>> difference.loc["a", "teff"], error.loc["a", "teff"]
    (np.float64(-10.0), np.float64(5.0))
    """
    columns = [f"{label}_err" for label in labels]
    whole = catalog[np.isfinite(catalog[[*labels, *columns]].to_numpy(float)).all(axis=1)]
    # 0 for the first entry of a star, 1 for the second, and so on
    number = whole.groupby(level=0).cumcount()
    both = whole.index[number == 1]
    first, second = (whole[number == which].loc[both] for which in (0, 1))
    error = np.hypot(first[columns].to_numpy(), second[columns].to_numpy())
    return first[labels] - second[labels], pd.DataFrame(error, both, labels)


def pair_scatter(
    differences: pd.DataFrame,
    errors: pd.DataFrame,
    by: pd.Series | None = None,
    edges: Sequence[float] | None = None,
    seed: int = 128,
    replicas: int = 200,
) -> pd.DataFrame:
    """How much pairs of measurements scatter, in units of their quoted errors.

    Parameters
    ----------
    differences, errors : DataFrame
        Of pairs (pair, label).
    by : Series, optional
        By what pairs are grouped, such as a signal-to-noise ratio.
    edges : sequence of float, optional
        Edges of the groups.
    seed, replicas : int
        Of the bootstrap over pairs.

    Returns
    -------
    DataFrame
        One row a group: for each label the ratio (label, "ratio"), 1.4826 times the median of the
        absolute difference over its error, which is 1 for right errors; its standard error
        (label, "error"); and ("pairs", "").

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> errors = pd.DataFrame({"teff": np.full(500, 10.0)})
    >>> table = pair_scatter(errors * 2 * rng.normal(size=(500, 1)), errors)
    >>> bool(abs(table.loc["all", ("teff", "ratio")] - 2) < 0.25)
    True
    """
    rng = np.random.default_rng(seed)
    ratio = differences / errors
    groups = pd.Series("all", ratio.index) if by is None else pd.cut(by.loc[ratio.index], edges)
    rows = {}
    for group, part in ratio.groupby(groups, observed=True):
        values = part.to_numpy()
        # (replica, pair, label): whole pairs are drawn, so that labels of a pair stay together
        drawn = values[rng.integers(0, len(values), (replicas, len(values)))]
        spread = 1.4826 * np.median(np.abs(drawn), axis=1).std(axis=0)
        row = {}
        for k, label in enumerate(ratio):
            row[label, "ratio"] = 1.4826 * np.median(np.abs(values[:, k]))
            row[label, "error"] = spread[k]
        rows[str(group)] = row | {("pairs", ""): len(values)}
    return pd.DataFrame(rows).T
