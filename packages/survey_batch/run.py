"""The whole survey: its catalog cut into chunks of stars, these sent to Dask, and a report of what
came of it."""

import ast
import contextlib
import logging
import queue
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from distributed import Client, Future
from tqdm.auto import tqdm

from apogee_archive.cache import hash_key
from apogee_archive.errors import CacheError, CorruptFileError
from labtools.cannon import Cannon
from survey_batch import store
from survey_batch.chunk import WHERE, BatchConfig, label_chunk, table_without_labels

__all__ = ["Report", "label_survey", "local_client"]

VERSION = 2  # raise it whenever the same raw spectra and the same model give other partitions
AHEAD = 400  # chunks given to the scheduler at a time, so that its memory is bounded too
RETRIES = 2  # of a chunk that raised; a worker that is lost costs none of them
POLL = 0.5  # seconds between two looks at whether the client is still there
LONELY = 60.0  # seconds without any worker after which a warning says so
STATUS = ["labelled", "masked out", "missing", "failed"]
TOLD = [*WHERE, "status", "reason", "seconds"]  # columns of the report

Chunks = dict[str, pd.DataFrame]
"""Place of a chunk (telescope, field, name) -> its rows of the catalog."""


@dataclass(frozen=True, repr=False)
class Report:
    """What came of every star that was asked for.

    Parameters
    ----------
    stars : pandas.DataFrame
        One row per spectrum, index apogee_id: where it was observed, ``status`` ("labelled",
        "masked out", "missing" or "failed"), ``reason``, and the processor ``seconds`` that it
        took.
    partitions : list of pathlib.Path
        The Parquet files with the labels.
    stores : list of pathlib.Path
        The Zarr stores of normalized spectra, none if they were not kept.
    without_partition : pandas.DataFrame
        The stars of chunks that were not done, in the columns of a partition.

    Examples
    --------
    >>> rows = {"telescope": "apo25m", "field": "M15", "status": ["labelled", "failed"]}
    >>> Report(pd.DataFrame(rows, index=["a", "b"]), [], [])
    2 stars in 0 partitions: 1 labelled, 0 masked out, 0 missing, 1 failed
    """

    stars: pd.DataFrame
    partitions: list[Path]
    stores: list[Path]
    without_partition: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {status}" for status, number in self.counts.sum().items())
        return f"{len(self.stars)} stars in {len(self.partitions)} partitions: {counts}"

    @property
    def counts(self) -> pd.DataFrame:
        """How many stars have which status: one row per telescope and field."""
        counts = self.stars.groupby(["telescope", "field"]).status.value_counts().unstack()
        return counts.reindex(columns=STATUS).fillna(0).astype(int)

    @property
    def problems(self) -> pd.DataFrame:
        """The stars that are not labelled, one row each, with the reason."""
        unlabelled = self.stars[self.stars.status != "labelled"]
        return unlabelled.drop(columns="seconds", errors="ignore")

    def labels(self, columns: list[str] | None = None) -> pd.DataFrame:
        """Labels of all stars that were asked for, NaN where there are none, indexed by apogee_id.

        Parameters
        ----------
        columns : list of str, optional
            Some columns, where the whole table is too large for the memory.

        Raises
        ------
        FileNotFoundError, CorruptFileError
            If a partition was removed or damaged since the run; call `label_survey` again.
        """
        parts = [store.read_partition(path, columns) for path in self.partitions]
        if len(self.without_partition):
            parts.append(self.without_partition[columns or list(self.without_partition)])
        return pd.concat(parts)

    def spectra(self) -> xr.Dataset:
        """Normalized spectra: Dataset over star and wavelength, read when they are used.

        The checksum of every store is compared first, for which each is read once (50 kB per star).

        Raises
        ------
        FileNotFoundError, CorruptFileError
            If none were kept, or a store was removed or damaged since the run; call `label_survey`
            again.
        """
        if not self.stores:
            raise FileNotFoundError("no spectra were kept: call label_survey with keep=True")
        parts = [store.open_spectra(path, chunks={}) for path in self.stores]
        return store.stack([part for part in parts if part.sizes["star"]]).drop_attrs()


def label_survey(
    survey: Any,
    cannon: Cannon,
    out: str | Path,
    client: Client | str | None = None,
    *,
    stars: pd.DataFrame | None = None,
    keep: bool = True,
    degree: int = 2,
    chunk: int = 250,
    retry: bool = False,
) -> Report:
    """Read, normalize and fit every spectrum of a survey, in memory that does not grow with their
    number.

    The name of a file tells all that it depends on and the checksum of its content, and files
    appear whole or not at all: after a kill the same call goes on where it was, and what is damaged
    is made again. The report has a row for every star that was asked for. Whatever happens to
    client, cluster or workers, the stars of chunks that have no whole partition at the end count as
    failed, a warning says so, and the next call tries them again.

    Parameters
    ----------
    survey : object
        Of `labtools.open_survey`, or another one with ``title``, ``version``, ``catalog()``,
        ``continuum_pixels()`` and ``spectra(rows, min_fraction=0)``.
    cannon : Cannon
        A model trained on the wavelengths of the survey's continuum pixels.
    out : path
        Folder of the results; workers on other machines must see it under the same path.
    client : distributed.Client or str, optional
        Or the address of a scheduler; None starts one worker process per core of this machine.
    stars : pandas.DataFrame, optional
        Rows of the catalog; None takes all. Of several rows of one star in one field the one of the
        highest signal-to-noise ratio counts.
    keep : bool
        Whether normalized spectra are kept (50 kB per star), so that another model need not read
        FITS files. A star observed in two fields is there twice; ``apstar_id`` tells the spectra
        apart.
    degree : int
        Of the continuum (see `labtools.normalize`).
    chunk : int
        Largest number of stars that a worker holds.
    retry : bool
        Try stars again that were missing or failed; otherwise what is done is not done again.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If the catalog has no star or lacks a column, or if the model has other wavelengths.
    CacheError
        If `out` cannot be written.
    RuntimeError
        If `client` is closed already, or a script calls this where its worker processes would call
        it again.

    Examples
    --------
    ``docs/whole-survey.md`` has one, and one for a cluster.
    """
    if not client:
        _require_main_guard()  # before any work is done
    config = _config(survey, cannon, Path(out).absolute(), keep, degree)
    chunks = dict(_chunks(survey.catalog() if stars is None else stars, chunk))
    for folder in {config.labels, config.spectra or config.labels}:
        store.remove_leftovers(folder)
    todo = {place: rows for place, rows in chunks.items() if not _is_done(config, place, retry)}
    faults: dict[str, str] = {}
    if todo:
        with _connected(client) as connected:
            faults = _run(connected, config, todo)
    return _report(config, chunks, faults)


def _config(survey: Any, cannon: Cannon, out: Path, keep: bool, degree: int) -> BatchConfig:
    """What all chunks share; the names of the folders are keys of all that their content depends
    on."""
    pixels = survey.continuum_pixels()
    if not np.array_equal(pixels.wavelength.values, cannon.wavelength):
        raise ValueError(
            "the model is not on the wavelengths of the survey's continuum pixels: "
            "train it on that grid"
        )
    source = hash_key(VERSION, survey.version, pixels.wavelength.values, pixels.values, degree)
    model = hash_key(source, *(getattr(cannon, one.name) for one in fields(cannon)))
    labels = out / "labels" / model
    cannon.save(labels / "_cannon.npz")
    spectra = out / "spectra" / source if keep else None
    return BatchConfig(survey, cannon, pixels, degree, labels, spectra)


def _chunks(rows: pd.DataFrame, size: int) -> Iterator[tuple[str, pd.DataFrame]]:
    """Place of each chunk (telescope, field, key of its rows) and these rows, each star of a field
    once."""
    missing = [name for name in (*WHERE, "snr") if name not in rows]
    if missing:
        raise ValueError(f"the catalog lacks {', '.join(missing)}")
    if rows.empty:
        raise ValueError("the catalog has no star")
    best = rows.rename_axis("apogee_id").sort_values("snr", ascending=False, kind="stable")
    best = best.reset_index().drop_duplicates(["telescope", "field", "apogee_id"])
    best = best.set_index("apogee_id").sort_index()
    for (telescope, where), group in best.groupby(["telescope", "field"]):
        for start in range(0, len(group), size):
            part = group.iloc[start : start + size]
            key = hash_key(pd.util.hash_pandas_object(part).to_numpy(), tuple(part))
            yield f"{_folder_name(telescope)}/{_folder_name(where)}/{key}", part


def _folder_name(name: str) -> str:
    """A name of telescope or field without what a file system may not like."""
    return "".join(c if c.isalnum() or c in "+-" else "_" for c in name) or "_"


def _is_done(config: BatchConfig, place: str, retry: bool) -> bool:
    """Whether a chunk has all its files, and these are whole; removes those that are to be made
    again."""
    path = store.find(config.labels, place, store.PARTITION)
    table = _read_if_whole(path, ["status"])
    unhappy = table is not None and table.status.isin(["missing", "failed"]).any()
    if retry and unhappy:
        store.remove(config.labels, place, store.PARTITION)
        if config.spectra:
            store.remove(config.spectra, place, store.STORE)
        return False
    if config.spectra is None:
        return table is not None
    spectra = store.find(config.spectra, place, store.STORE)
    try:
        if spectra:
            store.verify(spectra)
    except CorruptFileError as damage:
        _warn_damaged(damage)
        return False
    return table is not None and spectra is not None


def _read_if_whole(path: Path | None, columns: list[str]) -> pd.DataFrame | None:
    """Columns of a partition, None if it is not there or, with a warning, if it is damaged."""
    try:
        return store.read_partition(path, columns) if path else None
    except FileNotFoundError:
        return None
    except CorruptFileError as damage:
        _warn_damaged(damage)
        return None


def _warn_damaged(damage: CorruptFileError) -> None:
    path, _, _ = str(damage).partition(":")
    warnings.warn(f"{path} is damaged (its checksum is wrong)", stacklevel=5)


def _require_main_guard() -> None:
    """Raise RuntimeError where worker processes, which read the running script, would come by this
    call again."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back  # to the outermost call, a line of the script
    if script is None or frame.f_globals.get("__name__") not in ("__main__", "__mp_main__"):
        return
    try:
        body = ast.parse(Path(script).read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return
    for statement in body:
        if statement.lineno <= frame.f_lineno <= (statement.end_lineno or 0) and not (
            isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
        ):
            raise RuntimeError(
                f"{script}, line {frame.f_lineno}: label_survey starts worker processes, and these "
                'read the script again. Put the call under if __name__ == "__main__":'
            )


def local_client() -> Client:
    """A Dask client with one worker process per core of this machine, for several calls of
    `label_survey`.

    Returns
    -------
    distributed.Client
        Close it in the end, or use it as a context manager.

    Raises
    ------
    RuntimeError
        If a script calls this where its worker processes would call it again.

    Examples
    --------
    In a notebook: ``client = local_client()``, then ``label_survey(survey, cannon, out, client)``.
    """
    _require_main_guard()
    # That a worker is slow to end, or was started again, is no news: its chunk is done by another.
    logging.getLogger("distributed.nanny").setLevel(logging.ERROR)
    return Client(
        set_as_default=False,
        threads_per_worker=1,  # several workers are faster than several threads
        dashboard_address="127.0.0.1:0",
        env={"OPENBLAS_NUM_THREADS": "1"},
    )


def _connected(client: Client | str | None) -> AbstractContextManager[Client]:
    """The Dask client given, or one of a scheduler's address, or of a cluster on this machine,
    until it is closed."""
    if isinstance(client, Client):
        return contextlib.nullcontext(client)
    if client:
        return Client(client, set_as_default=False)
    return local_client()


def _run(client: Client, config: BatchConfig, chunks: Chunks) -> dict[str, str]:
    """Send the chunks to the workers, not too many at a time.

    Returns why chunks failed, as far as that is known here. Whether a chunk is done only its files
    can tell.
    """
    if client.status != "running":
        raise RuntimeError(f"the Dask client is {client.status}: give one that is connected")
    print(f"Dask dashboard: {client.dashboard_link}", file=sys.stderr)
    waiting = iter(chunks.items())
    arrived: queue.SimpleQueue[Future] = queue.SimpleQueue()
    running: dict[str, tuple[str, Future]] = {}  # key of a task -> place, and the task
    faults: dict[str, str] = {}

    def send(number: int) -> None:
        for place, rows in islice(waiting, number):
            task = client.submit(label_chunk, shared, place, rows, pure=False, retries=RETRIES)
            running[task.key] = (place, task)
            task.add_done_callback(arrived.put)

    total = sum(map(len, chunks.values()))
    with tqdm(total=total, desc=f"{config.survey.title}: labels", unit="star") as bar:
        try:
            # A task rather than scattered data: if the worker that holds it is lost, another makes
            # it again.
            shared = client.submit(lambda: config, key=f"config-{uuid.uuid4().hex}")
            send(AHEAD)
            for task in _finished(client, arrived, running):
                place, _ = running.pop(str(task.key))
                if why := _fault_of(task):
                    faults[place] = why
                bar.update(len(chunks[place]))
                if client.status != "running":
                    break  # it has lost its scheduler, and all of its tasks with it
                send(1)
        except CacheError:  # of a full disk, say: no other chunk would do better
            raise
        except Exception:
            # A client that is closed raises in many ways: RuntimeError, CancelledError,
            # CommClosedError.
            if client.status == "running":
                raise
    never_done = [place for place, _ in running.values()] + [place for place, _ in waiting]
    return faults | dict.fromkeys(never_done, "the Dask client or its cluster was closed")


def _fault_of(task: Future) -> str:
    """Why a task that has ended has no result, "" if it has one. Raises CacheError where the task
    did."""
    if task.status == "finished":
        return ""
    if task.status != "error":  # `exception()` has nothing to say of a task that was cancelled
        return f"its task was {task.status}: the Dask client or its cluster was closed"
    fault = task.exception(timeout=10)
    if isinstance(fault, CacheError):
        raise fault
    return f"{type(fault).__name__}: {fault}"


def _finished(
    client: Client, arrived: queue.SimpleQueue, running: dict[str, tuple[str, Future]]
) -> Iterator[Future]:
    """Tasks as they finish, until none is running or the client is closed."""
    seen = time.monotonic()  # a worker, for the last time
    while running:
        try:
            task = arrived.get(timeout=POLL)
        except queue.Empty:
            if client.status not in ("running", "connecting"):
                return
            if client.scheduler_info(n_workers=1).get("workers"):
                seen = time.monotonic()
            elif time.monotonic() - seen > LONELY:
                warnings.warn(
                    f"no Dask worker for {LONELY:.0f} s: still waiting for one", stacklevel=2
                )
                seen = time.monotonic()
            continue
        if task.key in running:
            yield task


def _report(config: BatchConfig, chunks: Chunks, faults: dict[str, str]) -> Report:
    """The report of all chunks, from the files that are there; warns of chunks that have none."""
    tables, lost = [], []
    partitions: list[Path] = []
    stores: list[Path] = []
    for place, rows in chunks.items():
        path = store.find(config.labels, place, store.PARTITION)
        table = _read_if_whole(path, TOLD)
        if path and table is not None and len(table) == len(rows):
            tables.append(table)
            partitions.append(path)
            if config.spectra and (spectra := store.find(config.spectra, place, store.STORE)):
                stores.append(spectra)
            continue
        why = faults.get(place) or (
            f"its partition is damaged: {path}"
            if path
            else f"its partition is not below {config.labels}: do the workers see this folder?"
        )
        lost.append((place, why))
    broken = [
        table_without_labels(config.cannon, chunks[place], "failed", why) for place, why in lost
    ]
    if lost:
        place, why = lost[0]
        warnings.warn(
            f"{len(lost)} of {len(chunks)} chunks, {sum(map(len, broken))} stars, were not done; "
            f"the next call tries them again. The first is {place}: {why}",
            stacklevel=3,
        )
    without = pd.concat(broken) if broken else pd.DataFrame()
    stars = pd.concat([*tables, *(table[TOLD] for table in broken)])
    return Report(stars, partitions, stores, without)
