"""The files of a run: each appears whole or not at all, and its name carries the checksum of its
content.

A chunk of stars has one Parquet file with its labels and, where spectra are kept, one Zarr store.
Both are called ``<chunk>.<checksum><suffix>``. Whoever reads one of them compares the checksum
first, so that a flipped bit anywhere in it, in the numbers, the names or the layout, is noticed.
"""

import hashlib
import io
import json
import shutil
import time
from pathlib import Path

import pandas as pd
import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from apogee_archive.cache import atomic_write
from apogee_archive.errors import CorruptFileError, wrap_read_errors

__all__ = [
    "find",
    "open_spectra",
    "read_partition",
    "remove",
    "remove_leftovers",
    "stack",
    "verify",
    "write_partition",
    "write_spectra",
]

PARTITION, STORE = ".parquet", ".zarr"
PIXELS_PER_BLOCK = 256  # that can be read alone, of all stars of a chunk
UNFINISHED = "unfinished-*"  # what `atomic_write` calls a folder in which it works
ABANDONED_AFTER = 600.0  # seconds; a chunk is written within a few
TEXTS = ("star", "apstar_id")  # coordinates of the spectra that are strings


def find(folder: Path, place: str, suffix: str) -> Path | None:
    """Path of the file or store of one chunk, None if there is none.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the labels of one model, or of the spectra of one survey.
    place : str
        Telescope, field and name of the chunk: ``"apo25m/M15/0123456789abcdef"``.
    suffix : str
        ``".parquet"`` or ``".zarr"``.

    Examples
    --------
    >>> find(Path("nowhere"), "apo25m/M15/0123456789abcdef", ".parquet") is None
    True
    """
    stem = folder / place
    return min(stem.parent.glob(f"{stem.name}.*{suffix}"), default=None)


def remove(folder: Path, place: str, suffix: str) -> None:
    """Remove all files or stores of one chunk (see `find`), damaged ones too.

    Examples
    --------
    >>> remove(Path("nowhere"), "apo25m/M15/0123456789abcdef", ".zarr")
    """
    stem = folder / place
    for path in list(stem.parent.glob(f"{stem.name}.*{suffix}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def verify(path: Path) -> None:
    """Compare the content of a file or store with the checksum in its name.

    Parameters
    ----------
    path : pathlib.Path
        Of a partition or a store.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    CorruptFileError
        If a bit of it has changed, or a part of a store is missing or was added.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = pd.DataFrame({"teff": [4500.0]}, index=["a"])
    ...     verify(write_partition(Path(folder), "chunk", table))
    """
    files = _files(path) if path.is_dir() else {"": path.read_bytes()}
    _require(path, _checksum(files))


def write_partition(folder: Path, place: str, table: pd.DataFrame) -> Path:
    """Write the labels of one chunk as a Parquet file, and return its path.

    Parameters
    ----------
    folder, place
        As in `find`.
    table : pandas.DataFrame
        One row per spectrum.

    Raises
    ------
    CacheError
        If the disk is full or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_partition(Path(folder), "m15", pd.DataFrame({"teff": [4500.0]}, ["a"]))
    ...     print(path.name[:4], path.suffix, read_partition(path).teff.item())
    m15. .parquet 4500.0
    """
    file = io.BytesIO()
    table.to_parquet(file)
    content = file.getvalue()
    path = folder / f"{place}.{_checksum({'': content})}{PARTITION}"
    with atomic_write(path) as part:
        part.write_bytes(content)
    return path


def read_partition(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The labels of one chunk, or some columns of them, from a file whose checksum is right.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    CorruptFileError
        If it is damaged.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_partition(Path(folder), "m15", pd.DataFrame({"teff": [4500.0]}, ["a"]))
    ...     read_partition(path, columns=["teff"]).shape
    (1, 1)
    """
    content = path.read_bytes()
    _require(path, _checksum({"": content}))
    with wrap_read_errors(path, "a Parquet file"):
        return pd.read_parquet(io.BytesIO(content), columns=columns)


def write_spectra(folder: Path, place: str, spectra: xr.Dataset) -> Path:
    """Write the normalized spectra of one chunk as a Zarr store, and return its path.

    Parameters
    ----------
    folder, place
        As in `find`.
    spectra : xarray.Dataset
        Over star and wavelength: ``flux`` and ``error``, float32; a coordinate ``apstar_id`` over
        star.

    Raises
    ------
    CacheError
        If the disk is full or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> axes, flux = ("star", "wavelength"), np.ones((1, 2), "f4")
    >>> spectra = xr.Dataset(
    ...     {"flux": (axes, flux), "error": (axes, flux)},
    ...     {"star": ["a"], "apstar_id": ("star", ["x.a"]), "wavelength": [16000.0, 16001.0]},
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     open_spectra(write_spectra(Path(folder), "m15", spectra)).flux.values
    array([[1., 1.]], dtype=float32)
    """
    stars, pixels = max(spectra.sizes["star"], 1), spectra.sizes["wavelength"]
    blocks = -(-pixels // PIXELS_PER_BLOCK)
    layout = {
        "chunks": (stars, PIXELS_PER_BLOCK),  # what can be read alone
        "shards": (stars, blocks * PIXELS_PER_BLOCK),  # what is one file
        "compressors": [ZstdCodec(), Crc32cCodec()],
    }
    # Strings of numpy's own kind have no place in the Zarr format yet.
    spectra = spectra.assign_coords({name: spectra[name].astype(object) for name in TEXTS})
    # The store is built in memory (12 MB) because its name needs the checksum of its content.
    memory: dict = {}
    spectra.to_zarr(
        MemoryStore(memory),
        mode="w",
        zarr_format=3,
        consolidated=False,
        encoding={"flux": layout, "error": layout},
    )
    files = {name: buffer.to_bytes() for name, buffer in memory.items()}
    path = folder / f"{place}.{_checksum(files)}{STORE}"
    with atomic_write(path) as part:
        for name, content in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content)
    return path


def open_spectra(path: Path, chunks: dict | None = None) -> xr.Dataset:
    """Normalized spectra of one chunk from a store whose checksum is right; flux is read when it is
    used.

    Parameters
    ----------
    path : pathlib.Path
        Of the store.
    chunks : dict, optional
        ``{}`` gives Dask arrays, None arrays that are read as a whole.

    Raises
    ------
    FileNotFoundError
        If the store is not there.
    CorruptFileError
        If it is damaged.

    Examples
    --------
    `write_spectra` shows one.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such store of spectra")
    verify(path)
    with wrap_read_errors(path, "a Zarr store of spectra"):
        found = xr.open_zarr(path, consolidated=False, chunks=chunks)
        names = {name: ("star", found[name].values.astype(object).astype(str)) for name in TEXTS}
        json.loads(found.attrs.get("lost", "{}"))
        return found.assign_coords(names)


def stack(parts: list[xr.Dataset]) -> xr.Dataset:
    """Spectra of several chunks, on the same wavelengths, as one Dataset.

    Examples
    --------
    >>> import numpy as np
    >>> one = xr.Dataset({"flux": (("star", "wavelength"), np.ones((2, 3)))})
    >>> stack([one, one]).sizes["star"]
    4
    """
    return xr.concat(
        parts, "star", join="exact", data_vars="minimal", coords="minimal", compat="override"
    )


def remove_leftovers(folder: Path, age: float = ABANDONED_AFTER) -> list[Path]:
    """Remove what writers that were killed have left below `folder`; returns what was removed.

    Parameters
    ----------
    folder : pathlib.Path
        Of all labels, or of all spectra.
    age : float
        Seconds; what was touched since may belong to a writer that lives.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "m15" / "unfinished-1").mkdir(parents=True)
    ...     [path.name for path in remove_leftovers(Path(folder), age=-1)]
    ['unfinished-1']
    """
    now, removed = time.time(), []
    for path in sorted(folder.rglob(UNFINISHED)):
        try:
            touched = max(one.stat().st_mtime for one in (path, *path.rglob("*")))
        except FileNotFoundError:  # its writer has just finished
            continue
        if now - touched > age:
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
    return removed


def _files(path: Path) -> dict[str, bytes]:
    """Content of all files of a store by their place in it; hidden ones, of file managers, do not
    count."""
    files = [one for one in path.rglob("*") if one.is_file() and not one.name.startswith(".")]
    return {one.relative_to(path).as_posix(): one.read_bytes() for one in files}


def _checksum(files: dict[str, bytes]) -> str:
    """One checksum over names and contents of files, the first 16 digits of a SHA-256."""
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(f"{len(name)} {name} {len(content)} ".encode())
        total.update(content)
    return total.hexdigest()[:16]


def _require(path: Path, checksum: str) -> None:
    """Raise CorruptFileError if the name of a file does not carry this checksum."""
    if path.name.split(".")[-2] != checksum:
        raise CorruptFileError(
            f"{path}: damaged, its checksum is not that in its name. "
            "Call label_survey again: it makes damaged files anew"
        )
