"""Tables that pandas wrote to HDF5 (format "fixed"), read by h5py without opening any pickle.

PyTables unpickles attributes as soon as it opens a file, so whoever sends a file could have it run
a program. Here numbers are read as numbers, text by `apogee_archive.pickled_text`, and only what
lies whole in the file itself: every declared size is compared with that of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from apogee_archive.errors import wrap_read_errors
from apogee_archive.limits import check_size
from apogee_archive.pickled_text import text_of

__all__ = ["read_frame"]

MAX_BLOCKS = 100  # pandas writes one per type of column


def read_frame(path: str | Path, key: str, dtype: Any = None) -> pd.DataFrame:
    """A table of an HDF5 file that pandas wrote with ``to_hdf(path, key=key)``.

    Parameters
    ----------
    path : str or Path
        The file.
    key : str
        Name of the table in it.
    dtype : numpy dtype, optional
        That of floating-point columns, if it shall be another than in the file (float32 halves the
        memory).

    Returns
    -------
    pandas.DataFrame
        Text comes as it was written, str or bytes, None where it is missing; an index of text as
        str.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    CorruptFileError
        With what is wrong.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "stars.h5"
    >>> pd.DataFrame({"teff": [4000.0, 5000.0]}).to_hdf(path, key="labels")
    >>> read_frame(path, "labels").teff.tolist()
    [4000.0, 5000.0]
    """
    check_size(path, "pair")
    with (
        wrap_read_errors(f"{Path(path).name}, table {key!r}", "a table that can be read"),
        h5py.File(path) as file,
    ):
        return _frame(_own(file, key, h5py.Group), dtype)


def _own(group: h5py.Group, name: str, kind: type) -> Any:
    """A member of `group` that lies in the same file: links to other files are not followed."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(
        group[name], kind
    ):
        raise ValueError(
            f"there is no {kind.__name__.lower()} {name!r}, only {', '.join(group) or 'nothing'}"
        )
    return group[name]


def _frame(group: h5py.Group, dtype: Any) -> pd.DataFrame:
    """A table: `axis0` names its columns, `axis1` its rows; a block holds columns of one type."""
    kind = _text(group.attrs.get("pandas_type", "unknown"))
    if kind != "frame":
        raise ValueError(f'it is of the kind {kind!r}; write it with to_hdf(..., format="fixed")')
    number = int(group.attrs["nblocks"])
    if not 0 <= number <= MAX_BLOCKS:
        raise ValueError(f"it claims to have {number} blocks of columns")
    names = [
        "axis0",
        "axis1",
        *(f"block{n}_{what}" for n in range(number) for what in ("items", "values")),
    ]
    arrays = [_own(group, name, h5py.Dataset) for name in names]
    # Each may lie in the file for itself, and yet all of them on top of one another
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


def _block(values: np.ndarray, index: pd.Index, names: pd.Index) -> pd.DataFrame:
    values = values if values.ndim == 2 else values[:, None]  # (row, column)
    if values.shape != (len(index), len(names)):
        raise ValueError(f"a block has the shape {values.shape}, not {(len(index), len(names))}")
    return pd.DataFrame(values, index=index, columns=names, copy=False)


def _axis(dataset: h5py.Dataset) -> pd.Index:
    values, kind = _values(dataset, None), _text(dataset.attrs.get("kind", "string"))
    if values.ndim != 1 or kind not in ("string", "integer", "float", "object"):
        raise ValueError(f"an axis is of the kind {kind!r} and has {values.ndim} dimensions")
    if values.dtype.kind in "SO":
        values = np.array([_text(value) for value in values], object)
    return pd.Index(values)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _is_text(dataset: h5py.Dataset) -> bool:
    """Whether pandas kept text there: one pickle, as bytes of variable length."""
    return h5py.check_vlen_dtype(dataset.dtype) == np.uint8


def _bytes_of(dataset: h5py.Dataset) -> int:
    """Bytes of an array in the file, from what says where they lie: none of them is read."""
    plan, stored = dataset.id.get_create_plist(), dataset.id.get_storage_size()
    if plan.get_external_count() or dataset.is_virtual or plan.get_nfilters():
        raise ValueError("it lies in other files or is compressed; write it without complevel")
    if dataset.size * dataset.dtype.itemsize > stored or (
        _is_text(dataset) and dataset.shape != (1,)
    ):
        raise ValueError(f"an array of the shape {dataset.shape} does not lie whole in the file")
    if _is_text(dataset):  # what is stored is a reference: a length, and where in the file
        return stored + int.from_bytes(dataset.id.read_direct_chunk((0,))[1][:4], "little")
    return stored


def _values(dataset: h5py.Dataset, dtype: Any) -> np.ndarray:
    """An array (row, column), or (row,) of an axis; text as an array of objects."""
    kind = _text(dataset.attrs.get("value_type", "str"))
    if kind not in ("str", "string") or not (_is_text(dataset) or dataset.dtype.kind in "iufbS"):
        raise ValueError(f"it holds values of the kind {kind}, {dataset.dtype}, which are not read")
    if _is_text(dataset):
        array = text_of(dataset[0].tobytes())
    elif dtype is not None and dataset.dtype.kind == "f":
        array = dataset.astype(dtype)[()]
    else:
        array = dataset[()]
    return array if array.ndim < 2 or dataset.attrs.get("transposed", 0) else array.T
