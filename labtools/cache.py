"""One cache for heavy work: a file or folder named after what made it."""

import os
import shutil
import tempfile
from hashlib import sha256
from inspect import getsource
from pathlib import Path
from types import ModuleType

import numpy as np
import xarray as xr

__all__ = ["cached", "cached_folder"]


def cached(folder, name, build, *made_by, keep=lambda result: True):
    """The Dataset that `build()` returns, kept in a file of `folder` and read from there the next time.

    Parameters
    ----------
    folder : where the file lies.
    name : what it is called; a digest of `made_by` is added.
    build : function without arguments that returns a Dataset.
    made_by : everything that the result depends on: modules (their source counts), arrays, or whatever has a repr.
    keep : says whether a new result is worth keeping.

    A file that cannot be read is made again. It is written under a temporary name and renamed, so that neither a
    crash nor a second process leaves half a file.
    """
    path = Path(folder) / f"{name}-{_digest(made_by)}.nc"
    if path.is_file():
        try:
            return xr.load_dataset(path, engine="h5netcdf")
        except (OSError, ValueError):
            path.unlink()
    result = build()
    if not keep(result):
        return result
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(suffix=".part", dir=path.parent)
    os.close(handle)
    try:
        result.to_netcdf(partial, engine="h5netcdf")
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return result


def cached_folder(folder, write, replaced):
    """A folder that `write(folder)` fills, made once: under a temporary name, renamed when it is whole.

    Folders beside it whose names match the pattern `replaced` are older versions and are removed then. Where another
    process is faster, its folder is taken. Returns the folder; what `write` raises leaves nothing behind.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    try:
        write(unfinished)
        os.replace(unfinished, folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    for old in folder.parent.glob(replaced):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _digest(parts):
    content = sha256()
    for part in parts:
        if isinstance(part, ModuleType):
            content.update(getsource(part).encode())
        elif isinstance(part, np.ndarray):
            content.update(f"{part.dtype} {part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        else:
            content.update(repr(part).encode())
    return content.hexdigest()[:16]
