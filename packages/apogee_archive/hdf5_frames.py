"""Tables that pandas wrote to HDF5 (format "fixed"), read by h5py: no pickle is opened, no size is believed.

PyTables unpickles attributes as soon as it opens a file, so whoever sends a file could have it run a program. Here
numbers are read as numbers, text by `apogee_archive.pickled_text`, and only what lies whole in the file itself.
"""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from apogee_archive.errors import wrap_read_errors
from apogee_archive.pickled_text import text_of

__all__ = ["read_frame"]


def read_frame(path, key, dtype=None):
    """The table `key` of an HDF5 file that pandas wrote with `to_hdf(path, key=key)`: a DataFrame.

    `dtype` is that of floating-point columns, if it shall be another than in the file (float32 halves the memory).
    Text comes as it was written, str or bytes, None where it is missing; an index of text as str. Raises
    FileNotFoundError, and CorruptFileError with what is wrong.
    """
    with (
        wrap_read_errors(f"{Path(path).name}, table {key!r}", "a table that can be read"),
        h5py.File(path) as file,
    ):
        return _frame(_own(file, key, h5py.Group), dtype)


def _own(group, name, kind):
    """A member of `group` that lies in the same file: links to other files are not followed."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(
        group[name], kind
    ):
        raise ValueError(
            f"there is no {kind.__name__.lower()} {name!r}, only {', '.join(group) or 'nothing'}"
        )
    return group[name]


def _frame(group, dtype):
    kind = _text(group.attrs.get("pandas_type", "unknown"))
    if kind != "frame":
        raise ValueError(f'it is of the kind {kind!r}; write it with to_hdf(..., format="fixed")')
    numbers = range(int(group.attrs["nblocks"]))
    names = [
        "axis0",
        "axis1",
        *(f"block{n}_{what}" for n in numbers for what in ("items", "values")),
    ]
    arrays = [_own(group, name, h5py.Dataset) for name in names]
    if sum(map(_bytes_of, arrays)) > Path(group.file.filename).stat().st_size:
        raise ValueError("its arrays do not lie whole in the file")
    columns, index = map(_axis, arrays[:2])
    blocks = zip(arrays[2::2], arrays[3::2], strict=True)
    parts = [_block(_values(values, dtype), index, _axis(items)) for items, values in blocks]
    table = parts[0] if len(parts) == 1 else pd.concat(parts, axis=1)
    if not columns.is_unique or len(columns) != table.shape[1]:
        raise ValueError(
            f"it has {table.shape[1]} columns and {columns.nunique()} names of columns"
        )
    return table if table.columns.equals(columns) else table[columns]


def _block(values, index, names):
    values = values if values.ndim == 2 else values[:, None]
    if values.shape != (len(index), len(names)):
        raise ValueError(f"a block has the shape {values.shape}, not {(len(index), len(names))}")
    return pd.DataFrame(values, index=index, columns=names, copy=False)


def _axis(dataset):
    values, kind = _values(dataset, None), _text(dataset.attrs.get("kind", "string"))
    if values.ndim != 1 or kind not in ("string", "integer", "float", "object"):
        raise ValueError(f"an axis is of the kind {kind!r} and has {values.ndim} dimensions")
    if values.dtype.kind in "SO":
        values = np.array([_text(value) for value in values], object)
    return pd.Index(values)


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_text(dataset):
    return h5py.check_vlen_dtype(dataset.dtype) == np.uint8


def _bytes_of(dataset):
    """Bytes that an array takes in the file, from what says where they lie and before any of them is read."""
    plan, stored = dataset.id.get_create_plist(), dataset.id.get_storage_size()
    if plan.get_external_count() or dataset.is_virtual or plan.get_nfilters():
        raise ValueError("it lies in other files or is compressed; write it without complevel")
    if dataset.size * dataset.dtype.itemsize > stored or (
        _is_text(dataset) and dataset.shape != (1,)
    ):
        raise ValueError(f"an array of the shape {dataset.shape} does not lie whole in the file")
    if _is_text(dataset):  # a reference: length, and where in the file
        return stored + int.from_bytes(dataset.id.read_direct_chunk((0,))[1][:4], "little")
    return stored


def _values(dataset, dtype):
    """An array (row, column), or (row,) of an axis; text as an array of objects."""
    kind = _text(dataset.attrs.get("value_type", "str"))
    if kind not in ("str", "string") or not (_is_text(dataset) or dataset.dtype.kind in "iufbS"):
        raise ValueError(f"it holds values of the kind {kind}, {dataset.dtype}, which are not read")
    if _is_text(dataset):
        array = text_of(dataset[0].tobytes())
    else:
        array = (
            dataset.astype(dtype)[()]
            if dtype is not None and dataset.dtype.kind == "f"
            else dataset[()]
        )
    return array if array.ndim < 2 or dataset.attrs.get("transposed", 0) else array.T
