"""What a worker does with one chunk of stars: read, normalize, keep, fit, write. It knows nothing of Dask."""

import contextlib
import io
import json
import shutil
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec

from apogee_archive.cache import atomic_write, cached_folder
from apogee_archive.survey import left_out
from labtools.cannon import Cannon
from labtools.continuum import normalize

__all__ = ["TOGETHER", "WHERE", "BatchConfig", "label_chunk", "open_normalized", "read_status"]

WHERE = ["apstar_id", "telescope", "field"]
ABSENT = ("no such file", "not on the server", "the catalog names no file")
PIXELS = 128  # that can be read alone, of all stars of a chunk
TOGETHER = {"join": "exact", "data_vars": "minimal", "coords": "minimal", "compat": "override"}


@dataclass(frozen=True)
class BatchConfig:
    """What all chunks have in common. `labels` and `spectra` are folders; without `spectra` none are kept."""

    survey: object
    cannon: Cannon
    pixels: xr.DataArray
    degree: int
    labels: Path
    spectra: Path | None


def label_chunk(job, place, rows):
    """Label the stars of the catalog's `rows` and write their partition at `place`, unless it is there already."""
    path, began = job.labels / f"{place}.parquet", time.process_time()
    if read_status(path) is None:
        table = _table(job.cannon, rows, _normalized(job, place, rows))
        table["seconds"] = (time.process_time() - began) / len(table)
        with atomic_write(path) as part:
            table.to_parquet(part, write_page_checksum=True)


def read_status(path):
    """Status and reason of every star of a partition, None if it is not there; warns, and None, if it is damaged."""
    try:
        return pd.read_parquet(path, page_checksum_verification=True)[
            [*WHERE, "status", "reason", "seconds"]
        ]
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as fault:  # pyarrow's errors are among these
        warnings.warn(f"{path} is damaged and is made again ({fault})", stacklevel=2)


def open_normalized(path, chunks=None):
    """Normalized spectra of one chunk from the store, read when they are used; FileNotFoundError without them."""
    found = xr.open_zarr(path, consolidated=False, chunks=chunks)
    names = {
        name: ("star", found[name].values.astype(object).astype(str))
        for name in ("star", "apstar_id")
    }
    return found.assign_coords(names)


def _normalized(job, place, rows):
    """Normalized spectra of a chunk, from the store if they are there and whole, else made and kept there."""
    if job.spectra is None:
        return _normalize(job, rows)
    path = job.spectra / f"{place}.zarr"
    try:
        return open_normalized(path).load()
    except (FileNotFoundError, ValueError):
        shutil.rmtree(path, ignore_errors=True)
    made = _normalize(job, rows)
    stars, pixels = max(made.sizes["star"], 1), made.sizes["wavelength"]
    shards = {"chunks": (stars, PIXELS), "shards": (stars, -(-pixels // PIXELS) * PIXELS)}
    encoding = dict.fromkeys(
        ["flux", "error"], shards | {"compressors": [ZstdCodec(), Crc32cCodec()]}
    )
    options = {"mode": "w", "zarr_format": 3, "consolidated": False, "encoding": encoding}
    names = made.assign_coords({name: made[name].astype(object) for name in ("star", "apstar_id")})
    cached_folder([path.parent], path.name, lambda folder: names.to_zarr(folder, **options))
    return made


def _normalize(job, rows):
    """Normalized flux and error (float32) of stars with a usable pixel; JSON in `attrs["lost"]` says why not others."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # one bar is enough
        warnings.simplefilter("ignore")  # stars left out, chips masked: the partition says both
        raw = job.survey.spectra(rows, share=0)
        seen = np.isfinite(raw.error.values).any(axis=1)
        step = partial(normalize, continuum_pixels=job.pixels, degree=job.degree)
        parts, faults = _star_by_star(step, raw.isel(star=seen))
    nothing = raw.isel(star=slice(0), wavelength=slice(job.pixels.size))
    made = xr.concat(parts, "star", **TOGETHER) if parts else nothing
    whole = np.isfinite(made.error.values).any(axis=1)
    lost = {
        star: ("missing" if why.startswith(ABSENT) else "failed", why)
        for star, why in left_out(raw).to_numpy()
    }
    lost |= dict.fromkeys(raw.star.values[~seen], ("masked out", "every pixel is masked"))
    lost |= dict.fromkeys(
        made.star.values[~whole], ("masked out", "too few good continuum pixels in every chip")
    )
    lost |= {star: ("failed", f"normalizing: {why}") for star, why in faults.items()}
    made = (
        made[["flux", "error"]]
        .isel(star=whole)
        .astype("float32")
        .assign_attrs(lost=json.dumps(lost))
    )
    return made.assign_coords(
        apstar_id=("star", rows.apstar_id.loc[made.star.values].to_numpy(str))
    )


def _star_by_star(step, spectra):
    """Results of `step` on parts of the stars, and what it raises for those that it cannot take.

    One star that breaks the step breaks it for its chunk: halving the chunk finds it.
    """
    number = spectra.sizes["star"]
    try:
        return [step(spectra)] if number else [], {}
    except ValueError as fault:  # numpy's LinAlgError is one
        if number == 1:
            return [], {spectra.star.item(): str(fault)}
    halves = [slice(number // 2), slice(number // 2, None)]
    (first, faults), (second, more) = (
        _star_by_star(step, spectra.isel(star=half)) for half in halves
    )
    return first + second, faults | more


def _table(cannon, rows, spectra):
    """The partition: one row for each row of the catalog, labelled or not."""
    lost, own = (
        json.loads(spectra.attrs["lost"]),
        [*WHERE, "snr", "starflag", "aspcapflag", "extratarg"],
    )
    few = (np.isfinite(spectra.error.values) & np.isfinite(cannon.s2)).sum(axis=1) <= len(
        cannon.labels
    )
    fits, faults = _star_by_star(partial(_fit, cannon), spectra.isel(star=~few))
    lost |= dict.fromkeys(spectra.star.values[few], ("masked out", "too few usable pixels"))
    lost |= {star: ("failed", f"fitting: {why}") for star, why in faults.items()}
    numbers, flags = (
        ["chi2", "n_pixels", "n_agreeing_starts", "distance"],
        ["converged", "extrapolated"],
    )
    columns = [*cannon.labels, *(f"{name}_err" for name in cannon.labels), *numbers, *flags]
    fitted = pd.concat([pd.DataFrame(columns=columns, dtype=float), *fits], join="inner")
    table = rows[[name for name in own if name in rows]].join(fitted)
    table = table.assign(
        **table[flags].eq(True), **table[["n_pixels", "n_agreeing_starts"]].fillna(0).astype(int)
    )
    status, reason = zip(*(lost.get(star, ("labelled", "")) for star in rows.index), strict=True)
    return table.assign(status=status, reason=reason)


def _fit(cannon, spectra):
    """The fit, and how far from the training set its labels lie."""
    fitted = cannon.fit(spectra)
    return fitted.assign(distance=cannon.distance(fitted))
