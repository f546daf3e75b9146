"""One limit of size for each kind of file, checked before anything is made of the file.

A reader that believes a size fills the memory or hangs. Here a file is refused by the number of
bytes it really has; what a file says about itself is checked by each reader against that number.
"""

from __future__ import annotations

import stat
from pathlib import Path

from apogee_archive.errors import CorruptFileError

__all__ = ["LIMITS", "check_size", "read_within"]

MB = 2**20

LIMITS = {
    "spectrum": 64 * MB,  # an apStar file of 100 visits has 25 MB
    "isochrones": 512 * MB,  # all ages of one metallicity, all columns
    "table": 1024 * MB,  # CSV of all of DR17
    "pair": 4096 * MB,  # 19,800 spectra of 8,192 pixels, 8 bytes each
    "allstar": 16384 * MB,  # read through a memory map, column by column
}
"""Largest size of each kind of file, in bytes."""


def check_size(path: str | Path, kind: str) -> int:
    """The size of a file in bytes, if it is within the limit of its kind.

    Parameters
    ----------
    path : str or Path
        The file.
    kind : str
        A key of `LIMITS`.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    CorruptFileError
        If the file is larger than the limit, or is not a file (a pipe or a device has no end).
    FileNotFoundError
        If it is not there.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "star.fits"
    >>> path.write_bytes(b"SIMPLE")
    6
    >>> check_size(path, "spectrum")
    6
    """
    about = Path(path).stat()
    # A pipe or a device says that it has 0 bytes, and may never come to an end
    if not stat.S_ISREG(about.st_mode):
        raise CorruptFileError(f"{path}: it is not a file")
    if about.st_size > LIMITS[kind]:
        raise CorruptFileError(
            f"{path}: {about.st_size} bytes are too large for this kind of file "
            f"(at most {LIMITS[kind]})"
        )
    return about.st_size


def read_within(path: str | Path, kind: str) -> bytes:
    """The bytes of a file that is within the limit of its kind; raises as `check_size`.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "star.fits"
    >>> path.write_bytes(b"SIMPLE")
    6
    >>> read_within(path, "spectrum")
    b'SIMPLE'
    """
    check_size(path, kind)
    return Path(path).read_bytes()
