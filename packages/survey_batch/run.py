"""The whole survey: its catalog cut into chunks of stars, these sent to Dask, and a report of what came of it."""

import contextlib
import shutil
import sys
import uuid
import warnings
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from distributed import Client, as_completed
from tqdm.auto import tqdm

from apogee_archive.cache import hash_key
from apogee_archive.errors import CacheError
from survey_batch.chunk import (
    TOGETHER,
    WHERE,
    BatchConfig,
    label_chunk,
    open_normalized,
    read_status,
)

__all__ = ["Report", "label_survey"]

VERSION = 1  # raise it whenever the same raw spectra and the same model give other partitions
AHEAD = 400  # chunks given to the scheduler at a time, so that its memory is bounded too
RETRIES = 2  # of a chunk that raised; a worker that is lost costs none of them
STATUS = ["labelled", "masked out", "missing", "failed"]
HERE = {
    "threads_per_worker": 1,
    "dashboard_address": "127.0.0.1:0",
    "env": {"OPENBLAS_NUM_THREADS": "1"},
}


@dataclass(frozen=True, repr=False)
class Report:
    """What came of every star.

    stars : DataFrame, one row a star, index apogee_id: where it was observed, status ("labelled", "masked out",
        "missing" or "failed"), reason, and processor seconds that it took.
    partitions, stores : the Parquet files; the Zarr groups of normalized spectra, none if they were not kept.
    """

    stars: pd.DataFrame
    partitions: list
    stores: list

    def __repr__(self):
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.sum().items())
        return f"{len(self.stars)} stars in {len(self.partitions)} partitions: {counts}"

    @property
    def counts(self):
        """How many stars have which status: one row for each telescope and field."""
        counts = self.stars.groupby(["telescope", "field"]).status.value_counts().unstack()
        return counts.reindex(columns=STATUS).fillna(0).astype(int)

    @property
    def problems(self):
        """The stars that are not labelled, one row each, with the reason."""
        return self.stars[self.stars.status != "labelled"].drop(columns="seconds")

    def labels(self, columns=None):
        """All partitions as one DataFrame indexed by apogee_id; where that is too large, `columns` names some."""
        return pd.concat([pd.read_parquet(path, columns=columns) for path in self.partitions])

    def spectra(self):
        """Normalized spectra, read when they are used: Dataset (star, wavelength); see `label_survey`."""
        parts = [open_normalized(path, chunks={}) for path in self.stores]
        return xr.concat(
            [part for part in parts if part.sizes["star"]], "star", **TOGETHER
        ).drop_attrs()


def label_survey(
    survey, cannon, out, client=None, *, stars=None, keep=True, degree=2, chunk=250, retry=False
):
    """Read, normalize and fit every spectrum of a survey, in memory that does not grow with their number.

    Names of files are digests of all that they depend on, and files appear whole or not at all: after a kill the same
    call goes on where it was. A chunk that breaks altogether counts as failed, with a warning, and is tried again.

    Parameters
    ----------
    survey : of `labtools.open_survey`, or another object with `title`, `version`, `catalog()`, `continuum_pixels()` and
        `spectra(rows, share=0)`.
    cannon : trained `Cannon` on the wavelengths of the survey's continuum pixels.
    out : folder of labels/<model>/<telescope>/<field>/<stars>.parquet and spectra/; workers elsewhere must see it too.
    client : `distributed.Client` or a scheduler's address; None starts one worker process a core on this machine.
    stars : rows of the catalog; None takes all. Rows of one spectrum count once, with the highest SNR.
    keep : whether normalized spectra are kept (50 kB a star), so that another model need not read FITS files. A star
        observed in two fields is there twice; `apstar_id` tells the spectra apart.
    degree : of the continuum (see `normalize`). chunk : largest number of stars that a worker holds.
    retry : try stars again that were missing or failed; otherwise what is done is never done again.

    Returns Report. Raises ValueError if stars or columns are missing or the wavelengths differ, CacheError if `out`
    cannot be written.
    """
    job = _job(survey, cannon, Path(out).absolute(), keep, degree)
    chunks = dict(_chunks(survey.catalog() if stars is None else stars, chunk))
    done = {place: read_status(job.labels / f"{place}.parquet") for place in chunks}
    for place, table in done.items():
        if retry and table is not None and table.status.isin(["missing", "failed"]).any():
            done[place] = (job.labels / f"{place}.parquet").unlink()
            shutil.rmtree((job.spectra or job.labels) / f"{place}.zarr", ignore_errors=True)
    todo, faults = {place: chunks[place] for place, table in done.items() if table is None}, {}
    if todo:
        with _connected(client) as connected:
            faults = _run(connected, job, todo)
    return _report(job, chunks, faults)


def _job(survey, cannon, out, keep, degree):
    pixels = survey.continuum_pixels()
    if not np.array_equal(pixels.wavelength.values, cannon.wavelength):
        raise ValueError(
            "the model is not on the wavelengths of the survey's continuum pixels: train it on that grid"
        )
    source = hash_key(VERSION, survey.version, pixels.wavelength.values, pixels.values, degree)
    labels = (
        out
        / "labels"
        / hash_key(source, *(getattr(cannon, field.name) for field in fields(cannon)))
    )
    cannon.save(labels / "_cannon.npz")
    return BatchConfig(
        survey, cannon, pixels, degree, labels, out / "spectra" / source if keep else None
    )


def _chunks(rows, size):
    """Place of each chunk - telescope, field, and a digest of its rows - and these rows, each star once."""
    missing = [name for name in (*WHERE, "snr") if name not in rows]
    if missing or rows.empty:
        raise ValueError(
            f"the catalog lacks {', '.join(missing)}" if missing else "the catalog has no star"
        )
    best = (
        rows.rename_axis("apogee_id")
        .sort_values("snr", ascending=False, kind="stable")
        .reset_index()
    )
    best = (
        best.drop_duplicates(["telescope", "field", "apogee_id"])
        .set_index("apogee_id")
        .sort_index()
    )
    for names, group in best.groupby(["telescope", "field"]):
        folder = "/".join(
            "".join(c if c.isalnum() or c in "+-" else "_" for c in name) or "_" for name in names
        )
        for start in range(0, len(group), size):
            part = group.iloc[start : start + size]
            yield (
                f"{folder}/{hash_key(pd.util.hash_pandas_object(part).to_numpy(), tuple(part))}",
                part,
            )


def _connected(client):
    """The Dask client given, or one of a scheduler's address, or of a cluster on this machine, until it is closed."""
    if isinstance(client, Client):
        return contextlib.nullcontext(client)
    return Client(client, set_as_default=False) if client else Client(set_as_default=False, **HERE)


def _run(client, job, chunks):
    """Send the chunks to the workers, not too many at a time; returns why chunks failed."""
    print(f"Dask dashboard: {client.dashboard_link}", file=sys.stderr)
    shared = client.submit(
        lambda: job, key=f"job-{uuid.uuid4().hex}"
    )  # a task outlives the worker that has done it
    waiting, places, faults, running = iter(chunks.items()), {}, {}, as_completed(loop=client.loop)

    def send(number):
        for place, rows in islice(waiting, number):
            future = client.submit(label_chunk, shared, place, rows, pure=False, retries=RETRIES)
            places[future.key] = place
            running.add(future)

    send(AHEAD)
    with tqdm(
        total=sum(map(len, chunks.values())), desc=f"{job.survey.title}: labels", unit="star"
    ) as bar:
        for future in running:
            place, fault = places.pop(future.key), future.exception()
            if isinstance(fault, CacheError):
                raise fault
            if fault:
                faults[place] = f"{type(fault).__name__}: {fault}"
            bar.update(len(chunks[place]))
            send(1)
    return faults


def _report(job, chunks, faults):
    """The report of all chunks; warns of those that could not be done."""
    if faults:
        first = next(iter(faults.values()))
        warnings.warn(
            f"{len(faults)} chunks broke and are tried again by the next call: {first}",
            stacklevel=3,
        )
    broken = {
        place: chunks[place][WHERE].assign(status="failed", reason=why)
        for place, why in faults.items()
    }
    done = [place for place in chunks if place not in faults]
    partitions = [job.labels / f"{place}.parquet" for place in done]
    stores = [job.spectra / f"{place}.zarr" for place in done] if job.spectra else []
    return Report(pd.concat([*map(read_status, partitions), *broken.values()]), partitions, stores)
