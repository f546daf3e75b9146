"""Heavy work is done once: results are kept in files named after what made them.

Three rules hold for everything that is kept here:

* A file or folder appears whole or not at all (`atomic_write`).
* Its name holds a key of all that it depends on (`hash_key`) and, for files, the checksum of its
  content, so that another input gives another file and a damaged file is noticed (`cached`).
* Nothing is ever removed behind the user's back. `find_superseded` lists what newer versions of
  the lab have replaced; ``python -m lab_course clean-old`` shows the list and asks.

Two processes that want the same result do not make it twice: the second waits for the first
(`filelock`). Folders after the first are only read, never written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import xarray as xr

from apogee_archive import npz
from apogee_archive.errors import CacheError, CorruptFileError

__all__ = [
    "DATASET",
    "Codec",
    "atomic_write",
    "cached",
    "cached_folder",
    "find_superseded",
    "hash_key",
    "sha256_of",
    "verify_manifest",
    "write_manifest",
]

UNFINISHED = "unfinished-"
MANIFEST = "manifest.sha256"
DAY = 86400  # seconds
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR,
)  # fmt: skip


# ---------------------------------------------------------------- files that appear whole


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Context manager: what is made at the path it gives becomes `path` if the block ends well.

    If the block raises, nothing is left behind and what was at `path` before is kept.

    Parameters
    ----------
    path : str or Path
        Where the file or folder shall be. Folders above it are made.

    Yields
    ------
    Path
        A path in a temporary folder beside `path`: make the file or the folder there.

    Raises
    ------
    CacheError
        If the disk is full or the folder cannot be written; the message says what to do.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "notes.txt"
    >>> with atomic_write(place) as part:
    ...     _ = part.write_text("whole")
    >>> place.read_text()
    'whole'
    """
    path = Path(path)
    unfinished = path.parent / f"{UNFINISHED}{uuid.uuid4().hex[:12]}"
    try:
        unfinished.mkdir(parents=True)
        yield unfinished / path.name
        _move(unfinished / path.name, path)
    except Exception as fault:
        if advice := _advice(fault, path.parent):
            raise CacheError(getattr(fault, "errno", None), f"{advice} ({fault})") from fault
        raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(made: Path, path: Path) -> None:
    """Put what was made in its place, a file flushed to the disk first."""
    if made.is_file():
        with open(made, "rb+") as file:
            os.fsync(file.fileno())  # else a power cut can leave an empty file under that name
    try:
        made.replace(path)
    except OSError:
        # Another process was faster with the same folder: theirs is as good as ours.
        if not (made.is_dir() and path.is_dir()):
            raise


def _advice(fault: Exception, folder: Path) -> str:
    """What to do about a fault of the disk; "" for other faults."""
    number = getattr(fault, "errno", None)
    # HDF5 does not say why writing failed, so the free space is looked up.
    no_space = (
        not isinstance(fault, OSError) and folder.is_dir() and not shutil.disk_usage(folder).free
    )
    if number in DISK_FULL or no_space:
        return (
            f"The disk is full, {folder} takes no more: make room, "
            "or set LAB_DATA to a folder on a larger disk"
        )
    if number in NOT_WRITABLE:
        return f"{folder} cannot be written: set LAB_DATA to a folder of your own"
    return ""


@contextlib.contextmanager
def _one_maker(folder: Path, name: str) -> Iterator[None]:
    """While this is held, no other process makes the thing `name` in `folder`.

    Where no lock can be had (a folder that cannot be written, a network disk without locks) the
    work goes on without one: the worst that happens is that it is done twice.
    """
    lock: Any = filelock.FileLock(folder / f".{name}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, NotImplementedError):
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            # The file goes while it is still locked. Who waits for it looks for the result first,
            # so that it does not matter if a third process makes a new lock file meanwhile.
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()


# ---------------------------------------------------------------- results in files


class Codec(NamedTuple):
    """How a result becomes a file: its ending, and the way to bytes and back."""

    suffix: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]


def _dataset_to_bytes(dataset: xr.Dataset) -> bytes:
    """A Dataset as the content of an .npz file: one array per variable, and a JSON of the rest."""
    about: dict[str, Any] = {"attrs": dataset.attrs, "coords": list(dataset.coords), "dims": {}}
    about["variable_attrs"] = {name: dataset[name].attrs for name in dataset.variables}
    arrays = {}
    for name in map(str, dataset.variables):
        about["dims"][name] = dataset[name].dims
        arrays[f"variable {name}"] = _as_array(name, dataset[name].values)
    return npz.pack(about=np.array(json.dumps(about, default=_as_plain)), **arrays)


def _as_array(name: str, values: np.ndarray) -> np.ndarray:
    """Numbers and text as they are; text that xarray holds as objects, as text."""
    if values.dtype != object:
        return values
    if all(isinstance(value, str) for value in values.flat):
        return values.astype(str)
    raise TypeError(f"the variable {name} holds objects, neither numbers nor text")


def _as_plain(value: Any) -> Any:
    """A number of numpy in an attribute, as JSON takes it."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an attribute of the type {type(value).__name__} cannot be kept")


def _dataset_from_bytes(content: bytes) -> xr.Dataset:
    """The Dataset that `_dataset_to_bytes` wrote."""
    arrays = npz.arrays(io.BytesIO(content), limit=len(content))
    about = json.loads(arrays["about"].item())
    variables = {
        # A copy, because arrays that only look into `content` cannot be changed.
        name: (tuple(dims), arrays[f"variable {name}"].copy(), about["variable_attrs"][name])
        for name, dims in about["dims"].items()
    }
    dataset = xr.Dataset(variables, attrs=about["attrs"])
    return dataset.set_coords(about["coords"])


DATASET = Codec(".npz", _dataset_to_bytes, _dataset_from_bytes)
"""How an `xarray.Dataset` of numbers and text is kept."""


def cached(
    folders: Iterable[Path],
    name: str,
    build: Callable[[], Any],
    *key: Any,
    codec: Codec = DATASET,
    should_cache: Callable[[Any], bool] = lambda result: True,
) -> Any:
    """What `build()` returns, made once and read from a file the next time.

    A file whose checksum is wrong is never used: the result is made again, with a warning. A result
    that cannot be kept is returned all the same, with a warning.

    Parameters
    ----------
    folders : sequence of Path
        Where the file may be. The first is written; the others are only read.
    name : str
        What the file is called, before the key and the checksum.
    build : callable
        Makes the result.
    *key
        Everything that the result depends on (see `hash_key`).
    codec : Codec
        How the result becomes a file.
    should_cache : callable
        Says whether a new result is worth keeping.

    Returns
    -------
    object
        The result, whether it was read or made.

    Examples
    --------
    >>> import tempfile
    >>> text = Codec(".txt", str.encode, bytes.decode)
    >>> folder = Path(tempfile.mkdtemp())
    >>> [cached([folder], "answer", lambda: w, 42, codec=text) for w in ("first", "second")]
    ['first', 'first']
    """
    first, *shared = map(Path, folders)
    stem = f"{name}-{hash_key(*key)}"
    found = _read_kept([first, *shared], stem, codec)
    if found is not None:
        return found[0]
    with _one_maker(first, stem):
        # Another process may have made it while this one waited.
        found = _read_kept([first], stem, codec)
        if found is not None:
            return found[0]
        result = build()
        if should_cache(result):
            _keep(first, stem, codec, result)
        return result


def _read_kept(folders: list[Path], stem: str, codec: Codec) -> tuple[Any] | None:
    """The kept result in a tuple, or None if there is no good file of it."""
    for folder in folders:
        for path in sorted(folder.glob(f"{stem}.*{codec.suffix}")):
            try:
                content = path.read_bytes()
            except OSError:  # not readable, or gone: look further
                continue
            try:
                if path.name == _file_name(stem, content, codec):
                    return (codec.decode(content),)
                why = "its checksum is wrong"
            except CorruptFileError as fault:
                why = str(fault)
            warnings.warn(f"{path} is damaged ({why}) and is made again", stacklevel=3)
            if folder == folders[0]:  # the others are not ours
                with contextlib.suppress(OSError):
                    path.unlink()
    return None


def _keep(folder: Path, stem: str, codec: Codec, result: Any) -> None:
    """Write a result, or warn that it could not be written."""
    content, name = codec.encode(result), stem.rpartition("-")[0]
    try:
        with atomic_write(folder / _file_name(stem, content, codec)) as part:
            part.write_bytes(content)
    except OSError as fault:
        warnings.warn(
            f"{name} could not be kept and will be made again next time. {fault}", stacklevel=3
        )


def _file_name(stem: str, content: bytes, codec: Codec) -> str:
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}{codec.suffix}"


# ---------------------------------------------------------------- results in folders


def cached_folder(folders: Iterable[Path], name: str, write: Callable[[Path], Any]) -> Path:
    """The folder `name`, in any of `folders`, or else made in the first of them.

    Parameters
    ----------
    folders : sequence of Path
        Where the folder may be. The first is written; the others are only read.
    name : str
        What the folder is called: all that it depends on must be in it.
    write : callable
        Called with an empty folder, which it fills. The folder appears under its name when that is
        done, or not at all.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CacheError
        If the first folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> made = cached_folder([place], "survey-v1", lambda f: (f / "stars").write_text("2"))
    >>> made.name, (made / "stars").read_text()
    ('survey-v1', '2')
    """
    places = [Path(folder) / name for folder in folders]
    for place in places:
        if place.is_dir():
            return place
    own = places[0]
    with _one_maker(own.parent, name):
        if not own.is_dir():
            with atomic_write(own) as unfinished:
                unfinished.mkdir()
                write(unfinished)
    return own


# ---------------------------------------------------------------- checksums


def hash_key(*parts: Any) -> str:
    """Short hexadecimal key of arrays, numbers, strings, None, and tuples of these.

    Each part is hashed with its type and its length before it, so that ``hash_key(1, 23)`` and
    ``hash_key(12, 3)`` differ. Of an array dtype, shape and content count.

    Parameters
    ----------
    *parts
        What the key shall depend on.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    TypeError
        For anything else, because the repr of tables and of other objects does not tell all.

    Examples
    --------
    >>> hash_key(1, 23) == hash_key(12, 3)
    False
    >>> hash_key(np.int64(5)) == hash_key(5)
    True
    """
    content = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            kind, data = f"array {part.dtype} {part.shape}", np.ascontiguousarray(part).tobytes()
        elif isinstance(part, tuple | list):
            kind, data = f"sequence {len(part)}", hash_key(*part).encode()
        elif part is None or isinstance(part, str | int | float | np.generic):
            value = part.item() if isinstance(part, np.generic) else part
            kind, data = type(value).__name__, repr(value).encode()
        else:
            raise TypeError(
                f"{type(part).__name__} has no key: "
                "give arrays, numbers, strings, or tuples of these"
            )
        content.update(f"{kind}:{len(data)}:".encode() + data)
    return content.hexdigest()[:16]


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "empty"
    >>> path.touch()
    >>> sha256_of(path)[:8]
    'e3b0c442'
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: str | Path, *patterns: str) -> Path:
    """Write `manifest.sha256`: the SHA-256 of the files in `folder` that match `patterns`.

    The format is that of the program ``sha256sum``, which can check it too.

    Parameters
    ----------
    folder : str or Path
        The folder.
    *patterns : str
        Which files count, as `pathlib.Path.glob` takes it; without any, all files.

    Returns
    -------
    Path
        The manifest.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "truth.csv").write_text("teff")
    >>> write_manifest(folder).name
    'manifest.sha256'
    >>> verify_manifest(folder, "truth.csv") == folder / "truth.csv"
    True
    """
    folder = Path(folder)
    found = {path for pattern in patterns or ("**/*",) for path in folder.glob(pattern)}
    paths = sorted(path for path in found if path.is_file())
    lines = [
        f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in paths
        if path.name != MANIFEST
    ]
    with atomic_write(folder / MANIFEST) as part:
        part.write_text("".join(lines), encoding="utf-8")
    return folder / MANIFEST


def verify_manifest(folder: str | Path, name: str) -> Path:
    """Path of the file `name` in `folder`, once its SHA-256 is that of the folder's manifest.

    Parameters
    ----------
    folder : str or Path
        A folder in which `write_manifest` was called.
    name : str
        The file, relative to the folder.

    Returns
    -------
    Path
        ``folder / name``.

    Raises
    ------
    CorruptFileError
        If the checksum is another one, or the manifest does not name the file.
    FileNotFoundError
        If the file is not there.

    Warns
    -----
    UserWarning
        If the folder has no manifest, as those of earlier versions of the lab.
    """
    folder = Path(folder)
    advice = f"delete the folder {folder}, it is made again"
    try:
        lines = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        warnings.warn(f"{folder} has no {MANIFEST}: its files are not verified", stacklevel=2)
        return folder / name
    listed = {}
    for line in lines:
        checksum, _, file = line.partition("  ")
        listed[file] = checksum
    if name not in listed:
        raise CorruptFileError(f"{folder / MANIFEST} does not name {name}: {advice}")
    if sha256_of(folder / name) != listed[name]:
        raise CorruptFileError(f"{folder / name} is damaged (its checksum is wrong): {advice}")
    return folder / name


# ---------------------------------------------------------------- what newer versions replaced

# Folders of the mock survey: what the user chose, then the version of the code and its tables.
_FOLDER = re.compile(r"(?P<thing>(?:simulated-jwst-)?\d+-seed\d+)-v\d+\.[0-9a-f]{8}")
# Files of `cached`: name, key and checksum. Those of earlier versions did not say what the user
# chose, or were netCDF; nothing reads them any more.
_FILE = re.compile(r"(?P<thing>(?:normalized|cannon)-.*)-[0-9a-f]{16}\.[0-9a-f]{16}\.npz")
_EARLIER = re.compile(
    r"normalized-.*\.[0-9a-f]{16}\.nc|(?:normalized|cannon)-[a-z0-9]+-[0-9a-f]{16}\.[0-9a-f]{16}\.npz"
)
_LEFTOVER = re.compile(rf"{UNFINISHED}[0-9a-f]{{12}}|\..*-[0-9a-f]{{8,16}}\.lock")


def find_superseded(root: str | Path) -> list[Path]:
    """What the lab made in `root` and no longer needs; nothing is removed.

    These are older versions of a simulated survey, of a simulated JWST pair, of normalized spectra
    and of a Cannon of which a newer one is there, and what killed processes left more than a day
    ago. Another number of stars, another seed or another degree is another thing, not a version.
    Downloads are never among them, nor is anything whose name the lab did not make.

    Parameters
    ----------
    root : str or Path
        The data folder. Shared folders are not ours to clean.

    Returns
    -------
    list of Path
        Files and folders, sorted.

    Examples
    --------
    >>> import os, tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for age, name in enumerate(["300-seed1-v2.00000000", "300-seed1-v1.00000000", "notes-v1"]):
    ...     (root / "simulated" / name).mkdir(parents=True)
    ...     os.utime(root / "simulated" / name, (0, 1000 - age))
    >>> [path.name for path in find_superseded(root)]
    ['300-seed1-v1.00000000']
    """
    root = Path(root)
    old: list[Path] = []
    versions: dict[tuple[Path, str], list[Path]] = defaultdict(list)
    for path in [*root.glob("simulated/*"), *root.glob("cache/*")]:
        if _EARLIER.fullmatch(path.name):
            old.append(path)
        elif found := (_FOLDER if path.is_dir() else _FILE).fullmatch(path.name):
            versions[path.parent, found["thing"]].append(path)
    for same in versions.values():
        old += sorted(same, key=_modified)[:-1]
    for path in [*root.glob(f"**/{UNFINISHED}*"), *root.glob("*/.*.lock")]:
        if _LEFTOVER.fullmatch(path.name) and time.time() - _modified(path) > DAY:
            old.append(path)
    return sorted(old)


def _modified(path: Path) -> float:
    """When a path was made, in seconds; now if it is gone meanwhile."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
