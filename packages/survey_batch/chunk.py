"""What a worker does with one chunk of stars: read, normalize, keep, fit, write. It knows nothing
of Dask."""

import contextlib
import io
import json
import multiprocessing
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive.errors import ArchiveError, CacheError, CorruptFileError
from apogee_archive.survey import left_out
from labtools.cannon import Cannon
from labtools.continuum import normalize
from survey_batch import store

__all__ = ["WHERE", "BatchConfig", "label_chunk", "star_by_star", "table_without_labels"]

WHERE = ["apstar_id", "telescope", "field"]
FROM_CATALOG = [*WHERE, "snr", "starflag", "aspcapflag", "extratarg"]
NUMBERS = ["chi2", "n_pixels", "n_agreeing_starts", "distance"]  # of a fit, beside the labels
COUNTS = ["n_pixels", "n_agreeing_starts"]
FLAGS = ["converged", "extrapolated"]
ABSENT = ("no such file", "not on the server", "the catalog names no file")

Lost = dict[str, tuple[str, str]]
"""Star -> status and reason, of stars without labels."""


@dataclass(frozen=True)
class BatchConfig:
    """What all chunks of a run have in common.

    Parameters
    ----------
    survey : object
        What gives the spectra, see `survey_batch.label_survey`.
    cannon : Cannon
        The trained model.
    pixels : xarray.DataArray
        Which pixels show the continuum, boolean over wavelength (Angstrom).
    degree : int
        Of the continuum.
    labels : pathlib.Path
        Folder of the partitions.
    spectra : pathlib.Path, optional
        Folder of the stores of normalized spectra; None keeps none.
    """

    survey: Any
    cannon: Cannon
    pixels: xr.DataArray
    degree: int
    labels: Path
    spectra: Path | None


def label_chunk(config: BatchConfig, place: str, rows: pd.DataFrame) -> None:
    """Label the stars of one chunk and write its partition, and its store where spectra are kept.

    What is there already, and whole, is not made again.

    Parameters
    ----------
    config : BatchConfig
        What all chunks have in common.
    place : str
        Telescope, field and name of the chunk.
    rows : pandas.DataFrame
        Rows of the catalog, index apogee_id.

    Raises
    ------
    CacheError
        If the results cannot be written.
    OSError
        If not one of the spectra can be read.
    ArchiveError
        If the network fails.

    Examples
    --------
    `survey_batch.label_survey` sends it to the workers.
    """
    began = time.process_time()
    has_labels = _is_whole(config.labels, place, store.PARTITION)
    if has_labels and _has_spectra(config, place):
        return
    spectra = _normalized(config, place, rows)
    if not has_labels:
        table = _label(config.cannon, rows, spectra)
        table["seconds"] = (time.process_time() - began) / len(table)
        store.remove(config.labels, place, store.PARTITION)  # a damaged one
        store.write_partition(config.labels, place, table)


def star_by_star(
    step: Callable[[list[str]], Any], stars: list[str], errors: tuple[type[Exception], ...]
) -> tuple[list, dict[str, Exception]]:
    """Results of a step on some stars, and what it raises for those that it cannot take.

    One star that breaks the step breaks it for all that are taken together with it. Halving finds
    it: of 250 stars with a bad one, 16 calls are needed.

    Parameters
    ----------
    step : callable
        Takes a list of stars.
    stars : list of str
        The stars.
    errors : tuple of exception classes
        What counts as the fault of a star; anything else is raised.

    Returns
    -------
    results : list
        One result for each part of the stars that went well, in their order.
    faults : dict
        Star -> exception.

    Examples
    --------
    >>> def step(stars):
    ...     if "c" in stars:
    ...         raise ValueError("no flux")
    ...     return stars
    >>> star_by_star(step, ["a", "b", "c", "d"], (ValueError,))
    ([['a', 'b'], ['d']], {'c': ValueError('no flux')})
    """
    if not stars:
        return [], {}
    try:
        return [step(stars)], {}
    except errors as fault:
        if isinstance(fault, CacheError | ArchiveError):  # not the fault of a star
            raise
        if len(stars) == 1:
            return [], {stars[0]: fault}
    middle = len(stars) // 2
    first, faults = star_by_star(step, stars[:middle], errors)
    second, more_faults = star_by_star(step, stars[middle:], errors)
    return first + second, faults | more_faults


def table_without_labels(cannon: Cannon, rows: pd.DataFrame, status: str, why: str) -> pd.DataFrame:
    """The partition of stars none of which has labels: the columns of any other, labels NaN.

    Parameters
    ----------
    cannon : Cannon
        The model, for the names of the labels.
    rows : pandas.DataFrame
        Rows of the catalog.
    status, why : str
        The same for all.

    Returns
    -------
    pandas.DataFrame
        One row per star.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> where = {"apstar_id": "x.a", "telescope": "apo25m", "field": "M15"}
    >>> rows = pd.DataFrame(where, index=["a"])
    >>> cannon = SimpleNamespace(labels=("teff",))
    >>> table_without_labels(cannon, rows, "failed", "the disk is gone").reason["a"]
    'the disk is gone'
    """
    lost = dict.fromkeys(rows.index, (status, why))
    return _table(cannon, rows, [], lost).assign(seconds=np.nan)


def _is_whole(folder: Path, place: str, suffix: str) -> bool:
    """Whether a file or store of a chunk is there and its checksum right."""
    path = store.find(folder, place, suffix)
    try:
        if path:
            store.verify(path)
    except (CorruptFileError, FileNotFoundError):
        return False
    return path is not None


def _has_spectra(config: BatchConfig, place: str) -> bool:
    return config.spectra is None or _is_whole(config.spectra, place, store.STORE)


def _normalized(config: BatchConfig, place: str, rows: pd.DataFrame) -> xr.Dataset:
    """Normalized spectra of a chunk: from the store if they are there and whole, else made, and
    kept there."""
    if config.spectra is None:
        return _normalize(config, rows)
    if path := store.find(config.spectra, place, store.STORE):
        with contextlib.suppress(CorruptFileError, FileNotFoundError):
            return store.open_spectra(path).load()
    store.remove(config.spectra, place, store.STORE)
    made = _normalize(config, rows)
    store.write_spectra(config.spectra, place, made)
    return made


def _normalize(config: BatchConfig, rows: pd.DataFrame) -> xr.Dataset:
    """Normalized flux and error (float32) of the stars that have a usable pixel.

    JSON in ``attrs["lost"]`` tells status and reason of the others.
    """
    with _quiet():  # the run has one bar of its own, and the partition says what was left out
        raw, lost = _read(config.survey, rows)
        seen = np.isfinite(raw.error.values).any(axis=1)
        lost |= dict.fromkeys(raw.star.values[~seen], ("masked out", "every pixel is masked"))

        step = partial(normalize, continuum_pixels=config.pixels, degree=config.degree)
        parts, faults = star_by_star(
            lambda stars: step(raw.sel(star=stars)),
            raw.star.values[seen].tolist(),
            (ValueError, ArithmeticError),
        )
    lost |= {star: ("failed", f"normalizing: {fault}") for star, fault in faults.items()}

    if parts:
        made = store.stack(parts)
    else:
        made = raw.isel(star=slice(0), wavelength=slice(config.pixels.size))
    usable = np.isfinite(made.error.values).any(axis=1)
    why = ("masked out", "too few good continuum pixels in every chip")
    lost |= dict.fromkeys(made.star.values[~usable], why)
    made = made[["flux", "error"]].isel(star=usable).astype("float32")
    names = rows.apstar_id.loc[made.star.values].to_numpy(str)
    return made.assign_coords(apstar_id=("star", names)).assign_attrs(lost=json.dumps(lost))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither bars nor warnings from a worker process; both are switches of a whole process.

    So a worker that is a thread beside the user's own code leaves them as they are.
    """
    if multiprocessing.parent_process() is None:
        yield
        return
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _read(survey: Any, rows: pd.DataFrame) -> tuple[xr.Dataset, Lost]:
    """Raw spectra of the rows of a catalog, and why some are missing.

    A file that cannot be read costs its own star. If none of them can, it is the disk: the chunk as
    a whole fails, and the next run tries it again.
    """
    parts, faults = star_by_star(
        lambda stars: survey.spectra(rows.loc[stars], min_fraction=0),
        rows.index.tolist(),
        (OSError, ValueError),
    )
    if not parts:
        raise next(iter(faults.values()))
    lost: Lost = {}
    for part in parts:
        for star, why in left_out(part).to_numpy():
            lost[star] = ("missing" if why.startswith(ABSENT) else "failed", why)
    lost |= {star: ("failed", f"reading: {fault}") for star, fault in faults.items()}
    return store.stack(parts) if len(parts) > 1 else parts[0], lost


def _label(cannon: Cannon, rows: pd.DataFrame, spectra: xr.Dataset) -> pd.DataFrame:
    """The partition of a chunk from its normalized spectra: one row per row of the catalog,
    labelled or not."""
    lost: Lost = {star: tuple(why) for star, why in json.loads(spectra.attrs["lost"]).items()}
    used = np.isfinite(spectra.error.values) & np.isfinite(cannon.s2)  # (star, pixel)
    enough = used.sum(axis=1) > len(cannon.labels)
    why = ("masked out", "too few usable pixels")
    lost |= dict.fromkeys(spectra.star.values[~enough], why)
    fits, faults = star_by_star(
        lambda stars: _fit(cannon, spectra.sel(star=stars)),
        spectra.star.values[enough].tolist(),
        (ValueError, ArithmeticError),
    )
    lost |= {star: ("failed", f"fitting: {fault}") for star, fault in faults.items()}
    return _table(cannon, rows, fits, lost)


def _fit(cannon: Cannon, spectra: xr.Dataset) -> pd.DataFrame:
    """The fit, and how far from the training set its labels lie."""
    fitted = cannon.fit(spectra)
    return fitted.assign(distance=cannon.distance(fitted))


def _table(
    cannon: Cannon, rows: pd.DataFrame, fits: list[pd.DataFrame], lost: Lost
) -> pd.DataFrame:
    """Fits of some of the stars beside their rows of the catalog, and status and reason of every
    star."""
    names = [*cannon.labels, *(f"{label}_err" for label in cannon.labels)]
    columns = [*names, *NUMBERS, *FLAGS]
    if fits:
        fitted = pd.concat(fits)[columns]
    else:
        fitted = pd.DataFrame(columns=columns, index=rows.index[:0], dtype=float)
    # A star is labelled if each of its labels and errors is a number, and never otherwise.
    finite = np.isfinite(fitted[names].to_numpy(float)).all(axis=1)
    why = ("failed", "fitting: a label or its error is not a finite number")
    lost = dict.fromkeys(fitted.index[~finite], why) | lost
    for star in rows.index.difference(fitted.index):
        lost.setdefault(star, ("failed", "its spectrum was lost on the way to the fit"))

    table = rows[[name for name in FROM_CATALOG if name in rows]].join(fitted[finite])
    flags = {name: table[name].eq(True) for name in FLAGS}  # False where there is no fit
    counts = {name: table[name].fillna(0).astype(int) for name in COUNTS}
    status = [lost.get(star, ("labelled", ""))[0] for star in rows.index]
    reason = [lost.get(star, ("labelled", ""))[1] for star in rows.index]
    return table.assign(**flags, **counts, status=status, reason=reason)
