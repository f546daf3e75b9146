"""Arrays as the content of an .npz file, read without trusting a word of it."""

import io
import zipfile

import numpy as np

from labtools.errors import BadFile

__all__ = ["LARGEST", "pack", "unpack"]

LARGEST = 1 << 30
"""How many bytes are read at most."""


def pack(**arrays):
    """Content of an uncompressed .npz file with these arrays."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def unpack(content, names, source="this file"):
    """The arrays that `pack` wrote, by name, read-only; BadFile, naming the `source`, for anything else.

    Nothing is unpickled and nothing unpacked: parts lie in the file as they are, so that no header can ask for more
    memory than the file is long, and zip's checksums tell of damage.
    """
    try:
        if len(content) > LARGEST:
            raise ValueError(f"it is larger than {LARGEST} bytes")
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            parts = file.infolist()
            if sorted(part.filename for part in parts) != sorted(f"{name}.npy" for name in names):
                raise ValueError(f"it does not hold just {', '.join(names)}")
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("it is compressed")
            return {part.filename.removesuffix(".npy"): _array(file.read(part)) for part in parts}
    except Exception as fault:  # zipfile and numpy raise many kinds on damaged files
        raise BadFile(f"{source} is damaged, or holds something else: {fault}") from fault


def _array(content):
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    shape, by_columns, dtype = read_header(file)
    if dtype.kind not in "biufU":
        raise ValueError(f"it holds {dtype}, neither numbers nor text")
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if by_columns else "C")
