"""Heavy work is done once: files and folders that appear whole or not at all, named after what made them."""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import time
import uuid
import warnings
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import numpy as np
import xarray as xr

from apogee_archive.errors import CacheError

try:
    import fcntl
except ImportError:  # Windows: without locks no folder is removed
    fcntl = None

__all__ = [
    "DATASET",
    "atomic_write",
    "cached",
    "cached_folder",
    "hash_key",
    "remove_old",
    "sha256_of",
]

UNFINISHED, LOCK = "unfinished-", ".lock"
VERSION = re.compile(r"-([0-9a-f]{16}\.[0-9a-f]{16}\.\w+|v\d+(-\w+)*)$")
MINUTE, UNUSED = 60, 7 * 86400  # seconds
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)
_in_use = {}

DATASET = (
    ".nc",
    lambda made: made.to_netcdf(engine="h5netcdf"),
    lambda content: xr.load_dataset(io.BytesIO(content)),
)
"""How a Dataset is kept: the ending of its file, how it becomes bytes, and how they become a Dataset again."""


@contextlib.contextmanager
def atomic_write(path):
    """Give a temporary path; the file or folder that was made there becomes `path` if the block ends well.

    Else nothing is left behind, and what was there before is kept; so is the folder of a process that was faster.
    CacheError says what to do if the disk is full or cannot be written.
    """
    path = Path(path)
    place = _unfinished(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent)
        place.mkdir()
        (place / LOCK).touch()
        with _lock(place) or contextlib.nullcontext():
            yield place / path.name
            _move(place / path.name, path)
    except Exception as fault:
        if advice := _advice(fault, path.parent):
            raise CacheError(getattr(fault, "errno", None), f"{advice} ({fault})") from fault
        raise
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(made, path):
    """Put what was made in its place, a file flushed to the disk first."""
    if made.is_file():
        with open(made, "rb+") as file:
            os.fsync(file.fileno())
    try:
        made.replace(path)
    except OSError:
        if not (made.is_dir() and path.is_dir()):
            raise


def _unfinished(parent):
    return parent / f"{UNFINISHED}{uuid.uuid4().hex[:12]}"


def _advice(fault, folder):
    """What to do about a fault of the disk, "" for other faults. HDF5 does not tell which one it met."""
    number = getattr(fault, "errno", None)
    if number in FULL or (
        not isinstance(fault, OSError) and folder.is_dir() and not shutil.disk_usage(folder).free
    ):
        return f"The disk is full, {folder} takes no more: make room, or set LAB_DATA to a folder on a larger disk"
    return (
        f"{folder} cannot be written: set LAB_DATA to a folder of your own"
        if number in CLOSED
        else ""
    )


def cached(folders, name, build, *made_by, form=DATASET, keep=lambda result: True):
    """What `build()` returns, kept in the first of `folders` and read from any of them the next time.

    name : what the file is called; a digest of `made_by` and the checksum of the content are added.
    made_by : everything that the result depends on, see `hash_key`.
    form : like `DATASET`.
    keep : says whether a new result is worth keeping.

    A file with a wrong checksum is made again; a result that cannot be kept is returned: both with a warning.
    """
    suffix, to_bytes, from_bytes = form
    stem = f"{name}-{hash_key(*made_by)}"
    for path in [
        path for folder in folders for path in sorted(Path(folder).glob(f"{stem}.*{suffix}"))
    ]:
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            if path.name == _name(stem, content, suffix):
                with contextlib.suppress(OSError):
                    os.utime(path)
                return from_bytes(content)
            warnings.warn(
                f"{path} is damaged (its checksum is wrong) and is made again", stacklevel=2
            )
            path.unlink()
    result = build()
    if keep(result):
        content = to_bytes(result)
        try:
            with atomic_write(Path(folders[0]) / _name(stem, content, suffix)) as part:
                part.write_bytes(content)
        except OSError as fault:
            warnings.warn(
                f"{name} could not be kept and will be made again next time. {fault}", stacklevel=2
            )
    return result


def _name(stem, content, suffix):
    return f"{stem}.{hashlib.sha256(content).hexdigest()[:16]}{suffix}"


def cached_folder(folders, name, write):
    """The folder `name` in any of `folders`, or else in the first, where `write(folder)` fills it (see `atomic_write`).

    In a name <thing>-v<number>, or that and more words, the number is the version of the thing.
    """
    places = [Path(folder) / name for folder in folders]
    if found := next(filter(_use, places), None):
        return found
    with atomic_write(places[0]) as whole:
        whole.mkdir()
        (whole / LOCK).touch()
        write(whole)
    _use(places[0])
    return places[0]


def _use(folder):
    """Whether a folder is there; if so, no one removes it as long as this process lives."""
    lock = _lock(folder)
    if folder.is_dir():
        _in_use[folder] = lock
        with contextlib.suppress(OSError):
            os.utime(folder)
    return folder.is_dir()


def _lock(folder, alone=False):
    """The lock file of a folder, held with others or alone until it is closed; None if that is not possible."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if fcntl:
            file = stack.enter_context(open(folder / LOCK, "rb+" if alone else "rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
            stack.pop_all()
            return file


@lru_cache
def _tidy(folder):
    """Remove what is old in a folder, once in a process."""
    remove_old(folder.iterdir(), UNUSED)


def remove_old(paths, unused=0):
    """Remove, among `paths`, what killed processes left, and all versions of a thing but the one used last.

    What a process has locked stays, and so does what was used in the last `unused` seconds. Returns what is gone.
    """
    old, things = [], defaultdict(list)
    for path in sorted(paths, key=_age, reverse=True):
        if path.name.startswith(UNFINISHED) and _age(path) > MINUTE:
            old.append(path)
        elif found := VERSION.search(path.name):
            things[path.parent, path.name[: found.start()]].append(path)
    old += [path for versions in things.values() for path in versions[:-1] if _age(path) > unused]
    return [path for path in old if _remove(path)]


def _age(path):
    """Seconds since a path was used last, 0 if it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0


def _remove(path):
    """Remove a file, or a folder whose lock is free, so that no half of it is ever seen; says whether it is gone."""
    with contextlib.suppress(OSError):
        if path.is_file():
            path.unlink()
        elif lock := _lock(path, alone=True):
            with lock:
                shutil.rmtree(path.rename(_unfinished(path.parent)))
    return not path.exists()


def hash_key(*parts):
    """Short hexadecimal key of arrays (dtype, shape, content), numbers, strings, None, and tuples of these.

    Each part is hashed with its type and its length before it, so that ``hash_key(1, 23)`` and ``hash_key(12, 3)``
    differ. Raises TypeError for anything else, because the repr of tables and of other objects does not tell all.
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
                f"{type(part).__name__} has no key: give arrays, numbers, strings, or tuples of these"
            )
        content.update(f"{kind}:{len(data)}:".encode() + data)
    return content.hexdigest()[:16]


def sha256_of(path):
    """Hexadecimal checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
