"""Heavy work is done once: files and folders that appear whole or not at all, named after what made them."""

import contextlib
import errno
import io
import os
import shutil
import time
import uuid
import warnings
from hashlib import sha256
from pathlib import Path

import numpy as np
import xarray as xr

from labtools.errors import CacheError

__all__ = ["DATASET", "cached", "cached_folder", "digest", "sha256_of", "writing"]

UNUSED = 7  # days after which a version that a newer one has replaced is removed

DATASET = (
    ".nc",
    lambda dataset: bytes(dataset.to_netcdf(engine="h5netcdf")),
    lambda content: xr.load_dataset(io.BytesIO(content), engine="h5netcdf"),
)
"""How a Dataset is kept: the ending of its file, how it becomes bytes, and how they become a Dataset again."""


@contextlib.contextmanager
def writing(path):
    """Give a temporary path beside `path`; what was written there takes its place if the block ends well.

    Each writer has its own temporary file, so that two processes on one cache do not disturb each other, and the
    umask says who may read the result. Raises CacheError, with what to do, if the folder cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as fault:
        raise _explained(fault) from fault
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _explained(fault):
    """A fault of the disk as a CacheError that says what to do; any other fault as it is."""
    if fault.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "The disk is full: make room, or set LAB_DATA to a folder on a larger disk"
    elif fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        advice = "The folder cannot be written: set LAB_DATA to a folder of your own"
    else:
        return fault
    return CacheError(fault.errno, f"{advice} ({fault}). What is there already is kept.")


def cached(folders, name, build, *made_by, form=DATASET, keep=lambda result: True):
    """What `build()` returns, kept in the first of `folders` and read from any of them the next time.

    Parameters
    ----------
    folders : the first is written; all are read.
    name : what the file is called; a digest of `made_by` and the checksum of the content are added.
    build : function without arguments.
    made_by : everything that the result depends on: versions, arrays, or whatever has a repr.
    form : ending of the file, function to bytes, function from bytes.
    keep : says whether a new result is worth keeping.

    A file whose checksum is wrong is made again. A result that cannot be kept is returned all the same, with a warning.
    """
    suffix, to_bytes, from_bytes = form
    stem = f"{name}-{digest(*made_by)}"
    for folder in map(Path, folders):
        for path in sorted(folder.glob(f"{stem}.*{suffix}")):
            content = path.read_bytes()
            if path.name == _name(stem, content, suffix):
                _mark_used(path)
                return from_bytes(content)
            warnings.warn(f"{path} is damaged (its checksum is wrong) and is made again", stacklevel=2)
            with contextlib.suppress(OSError):
                path.unlink()
    result = build()
    if keep(result):
        content = to_bytes(result)
        path = Path(folders[0]) / _name(stem, content, suffix)
        try:
            with writing(path) as part:
                part.write_bytes(content)
            _remove_unused(path, f"{name}-*{suffix}")
        except OSError as fault:
            warnings.warn(f"{name} could not be kept and will be made again next time: {fault}", stacklevel=2)
    return result


def cached_folder(folders, name, write):
    """The folder `name` in any of `folders`, or else in the first, where `write(folder)` fills it.

    It is written under a temporary name and renamed when it is whole; where another process is faster, its folder is
    taken. What `write` raises leaves nothing behind.
    """
    for folder in map(Path, folders):
        if (folder / name).is_dir():
            _mark_used(folder / name)
            return folder / name
    target = Path(folders[0]) / name
    unfinished = target.with_name(f"unfinished-{uuid.uuid4().hex[:12]}")
    try:
        unfinished.mkdir(parents=True)
        write(unfinished)
        os.replace(unfinished, target)
    except OSError as fault:
        if not target.is_dir():
            raise _explained(fault) from fault
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    _remove_unused(target, f"{name.rpartition('-')[0]}-*")
    return target


def _name(stem, content, suffix):
    return f"{stem}.{sha256(content).hexdigest()[:16]}{suffix}"


def _mark_used(path):
    with contextlib.suppress(OSError):
        os.utime(path)


def _remove_unused(new, pattern):
    """Remove other versions of `new` that no one has read for a week: a second checkout may still use them."""
    for old in new.parent.glob(pattern):
        with contextlib.suppress(OSError):
            if old != new and time.time() - old.stat().st_mtime > UNUSED * 86400:
                shutil.rmtree(old) if old.is_dir() else old.unlink()


def digest(*parts):
    """Short hexadecimal digest of arrays (by dtype, shape and content) and of whatever has a repr."""
    content = sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype != object:
            content.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            content.update(repr(part).encode())
    return content.hexdigest()[:16]


def sha256_of(path, kind="sha256"):
    """Hexadecimal checksum of a file."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()
