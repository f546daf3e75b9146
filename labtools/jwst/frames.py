"""Tables that pandas wrote to HDF5 (format "fixed"), read without unpickling anything but plain arrays of text.

Pandas keeps text of such a table as a pickle, and PyTables unpickles attributes when it opens a file: whoever sends
a file could have it run a program. Here h5py reads the numbers, attributes are ignored, and text is unpickled by a
reader that knows four names of numpy and no others.
"""

import codecs
import io
import pickle
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from labtools.errors import BadFile

__all__ = ["read_frame"]


DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
          ValueError, pickle.UnpicklingError)  # fmt: skip
"""What HDF5, numpy and pickle raise on damaged files."""


def _latin1(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoded as {encoding!r}")
    return codecs.encode(text, "latin1")


ALLOWED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("_codecs", "encode"): _latin1,
}


class _PlainArrays(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in ALLOWED:
            raise BadFile(f"it holds a pickled object of the kind {module}.{name}, which is not read")
        return ALLOWED[module, name]


def read_frame(path, key, dtype=None):
    """The table `key` of an HDF5 file that pandas wrote with `to_hdf(path, key=key)`: a DataFrame.

    `dtype` is that of floating-point columns, if it shall be another than in the file (float32 halves the memory).
    Text comes as it was written, for instance as bytes; an index of text as str. Raises FileNotFoundError, and
    BadFile with what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path.name} in {path.parent.name}")
    try:
        with h5py.File(path) as file:
            if key not in file:
                raise BadFile(f"it has no table {key!r}, only {', '.join(file) or 'nothing'}")
            return _frame(file[key], dtype)
    except BadFile as fault:
        raise BadFile(f"{path.name}, table {key!r}: {fault}") from None
    except DAMAGE as fault:
        raise BadFile(f"{path.name}, table {key!r} cannot be read, is the file whole? ({fault})") from None


def _frame(group, dtype):
    kind = group.attrs.get("pandas_type", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if kind != "frame":
        raise BadFile(f'it is of the kind {kind or "unknown"!r}; write it with to_hdf(..., format="fixed")')
    columns, index = _axis(group["axis0"]), _axis(group["axis1"])
    parts = []
    for number in range(int(group.attrs["nblocks"])):
        names = _axis(group[f"block{number}_items"])
        values = _values(group[f"block{number}_values"], dtype)
        if values.shape != (len(index), len(names)):
            raise BadFile(f"a block has the shape {values.shape}, not {(len(index), len(names))}")
        parts.append(pd.DataFrame(values, index=index, columns=names, copy=False))
    if len(parts) == 1 and parts[0].columns.equals(columns):
        return parts[0]
    return pd.concat(parts, axis=1)[columns]


def _axis(dataset):
    values = _values(dataset, None)
    if values.dtype.kind in "SO":
        values = np.array([v.decode() if isinstance(v, bytes) else v for v in values], dtype=object)
    return pd.Index(values)


def _values(dataset, dtype):
    """An array (row, column), or (row,) of an axis; text as an array of objects."""
    if h5py.check_vlen_dtype(dataset.dtype) is not None:
        array = _PlainArrays(io.BytesIO(dataset[0].tobytes())).load()
        if not isinstance(array, np.ndarray) or not all(isinstance(v, bytes | str) for v in array.ravel()):
            raise BadFile("its text is not an array of text")
    elif dtype is not None and dataset.dtype.kind == "f":
        array = dataset.astype(dtype)[()]
    else:
        array = dataset[()]
    return array if array.ndim < 2 or dataset.attrs.get("transposed", 0) else array.T
