"""Arrays as the content of an .npz file: no pickle is opened, no declared size is believed."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["arrays", "pack"]

MEMBERS = 1000  # arrays in a file, more than any file of the lab or the course has


def pack(**arrays: np.ndarray) -> bytes:
    """The content of an uncompressed .npz file with these arrays.

    Raises
    ------
    ValueError
        For arrays of objects, which numpy would pickle.

    Examples
    --------
    >>> arrays(io.BytesIO(pack(flux=[1.0, 2.0])), limit=1000)["flux"]
    array([1., 2.])
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype == object:
            raise ValueError(f"the array {name} holds objects, neither numbers nor text")
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def arrays(file: str | Path | BinaryIO, limit: int) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, read-only.

    Parameters
    ----------
    file : path or open file
        The file.
    limit : int
        Largest number of bytes that all arrays may have together, unpacked.

    Returns
    -------
    dict of str to ndarray
        Numbers, booleans and text; the arrays cannot be written to.

    Raises
    ------
    ValueError
        For more than `limit` bytes, for objects, and for arrays that are not whole. What `zipfile`
        and numpy raise on damaged files passes through.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS or sum(member.file_size for member in members) > limit:
            raise ValueError(f"more than {MEMBERS} arrays, or {limit} bytes when it is unpacked")
        return {
            member.filename.removesuffix(".npy"): _array(_content(archive, member))
            for member in members
        }


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes, and never more than the directory of the file says.

    `ZipFile.read` would unpack everything first and then cut it to the size in the directory, so
    that a directory that lies could fill the memory.
    """
    with archive.open(member) as packed:
        return packed.read(member.file_size)


def _array(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, by_columns, dtype = read_header(file)
    if dtype.kind not in "biufU":
        raise ValueError(f"it holds {dtype}, neither numbers nor text")
    # frombuffer takes what is there: a header cannot ask for more memory than the file has.
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(
        shape, order="F" if by_columns else "C"
    )
