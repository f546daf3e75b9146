"""Arrays as the content of an .npz file, read without trusting a word of it."""

import io
import zipfile

import numpy as np

__all__ = ["arrays", "pack"]


def pack(**arrays):
    """Content of an uncompressed .npz file with these arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def arrays(file, limit):
    """The arrays of an .npz file (a path or an open file), by name and read-only; no pickle is opened.

    Raises ValueError for more than `limit` bytes, and what zipfile and numpy raise on damaged files; no header can ask
    for more memory than the file has.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sum(member.file_size for member in members) > limit:
            raise ValueError(f"more than {limit} bytes when it is unpacked")
        return {
            member.filename.removesuffix(".npy"): _array(archive.read(member)) for member in members
        }


def _array(content):
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, by_columns, dtype = read_header(file)
    if dtype.kind not in "biufU":
        raise ValueError(f"it holds {dtype}, neither numbers nor text")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(
        shape, order="F" if by_columns else "C"
    )
