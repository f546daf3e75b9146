"""Folders of what is simulated: made once, and verified before they are used."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from apogee_archive.cache import cached_folder
from apogee_archive.errors import CorruptFileError

__all__ = ["verified_folder"]


def verified_folder(
    folders: list[Path], name: str, write: Callable[[Path], None], verify: Callable[[Path], None]
) -> Path:
    """The folder `name` in any of some folders, or else made in the first of them.

    A folder that is damaged is not used. In the first folder it is removed and made again, with a
    warning; the others belong to someone else and are passed over, with a warning too.

    Parameters
    ----------
    folders : list of pathlib.Path
        The first is written, the others are only read.
    name : str
        What the folder is called: all that it depends on must be in it.
    write : callable
        Fills an empty folder.
    verify : callable
        Raises CorruptFileError or FileNotFoundError for a folder that is damaged.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    CacheError
        If the first folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp())
    >>> verified_folder([place], "stars", lambda new: None, lambda made: None).name
    'stars'
    """
    own, *shared = [Path(folder) for folder in folders]
    usable = [folder for folder in shared if _is_whole(folder / name, verify)]
    if (own / name).is_dir() and not _is_whole(own / name, verify):
        shutil.rmtree(own / name)
    return cached_folder([own, *usable], name, write)


def _is_whole(folder: Path, verify: Callable[[Path], None]) -> bool:
    """Whether a folder is there and verified; warns if it is there and damaged."""
    if not folder.is_dir():
        return False
    try:
        verify(folder)
    except (CorruptFileError, FileNotFoundError) as damage:
        warnings.warn(f"{folder} is damaged and is made again: {damage}", stacklevel=5)
        return False
    return True
