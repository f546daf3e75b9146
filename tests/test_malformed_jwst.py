"""Files made to harm the readers of the JWST pair: each is refused with CorruptFileError, in little memory, and none is run."""

import os
import pickle
import struct

import h5py
import numpy as np
import pandas as pd
import pytest

from apogee_archive.errors import CorruptFileError
from apogee_archive.hdf5_frames import read_frame
from apogee_archive.pickled_text import text_of
from subprocess_limits import run_limited

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.PerformanceWarning")

READ = """
import sys
from apogee_archive.errors import CorruptFileError
from apogee_archive.hdf5_frames import read_frame
"""
TRY = """
for path in sys.argv[1:]:
    try:
        read_frame(path, "allstar")
        print("read", flush=True)
    except CorruptFileError as fault:
        print("refused", fault, flush=True)
"""


class Built:
    """Pickles as the call of a function, and the state that its result is filled with."""

    def __init__(self, function, arguments, state):
        self.reduced = function, arguments, state

    def __reduce__(self):
        return self.reduced


OBJECTS = np.dtype("O")


def forged_array(dtype=OBJECTS, shape=(2,), items=("x", "y"), version=1):
    return Built(
        np._core.multiarray._reconstruct,
        (np.ndarray, (0,), b"b"),
        (version, shape, dtype, False, items),
    )


FORGED_DTYPE = Built(
    np.dtype, ("O8", False, True), (3, "|", None, ("a",), {"a": (np.dtype("f8"), 1 << 30)}, 8, 1, 0)
)  # a field that lies a gigabyte behind its array
EMPTY = np.array([], object)
PICKLES = {
    "a dtype with a field outside": forged_array(FORGED_DTYPE, items=[1.0, 2.0]),
    "a dtype of numbers": forged_array(np.dtype("f8"), items=b"\0" * 16),
    "more items than the shape": forged_array(shape=(1,), items=["x", "y"]),
    "a thousand million items": forged_array(shape=(10**9,), items=["x", "y"]),
    "a negative shape": forged_array(shape=(-1, -2), items=["x", "y"]),
    "three dimensions": forged_array(shape=(1, 1, 2), items=["x", "y"]),
    "a number among text": forged_array(items=["x", 1]),
    "an object among text": forged_array(items=["x", os.system]),
    "a list in the list": forged_array(items=["x", ["y"]]),
    "a command": Built(os.system, ("touch run",), None),
    "an array of numbers": np.zeros(3),
    "an array of fixed text": np.array(["x", "y"]),
    "a dictionary": {"x": "y"},
}


def table_of(path, pickled):
    """A file of pandas in the place of whose text lies something else."""
    pd.DataFrame({"APOGEE_ID": np.array([b"x", b"y"], object)}).to_hdf(
        path, key="allstar", mode="w"
    )
    with h5py.File(path, "a") as file:
        file["allstar/block0_values"][0] = np.frombuffer(pickled, np.uint8)
    return path


def raw_pickles():
    """Pickles that no pickler writes."""
    whole = pickle.dumps(np.array(["x", "y"], object), 5)
    huge = b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x."
    return {
        "cut short": whole[:-9],
        "a memo that is not there": whole.replace(b"h\x03", b"h\xf0"),
        "text of an exabyte": huge,
        "no pickle": b"text",
        "nothing": b"",
        "more after the array": whole[:-1] + b"0" + whole,
        "a set item": whole[:-1] + b"(K\x00K\x01u.",
        "protocol 0": pickle.dumps(np.array(["x", "y"], object), 0),
    }


def test_forged_pickles_are_refused_and_nothing_is_built(tmp_path):
    contents = {name: pickle.dumps(one, 5) for name, one in PICKLES.items()} | raw_pickles()
    paths = [table_of(tmp_path / f"{n}.h5", content) for n, content in enumerate(contents.values())]
    lines = run_limited(READ, TRY, *paths)
    results = dict(zip(contents, lines, strict=True))
    assert {name: line for name, line in results.items() if not line.startswith("refused")} == {}
    assert not (tmp_path / "run").exists()
    assert not os.path.exists("run")


def test_the_memory_for_text_does_not_grow_beyond_the_pickle():
    """A long text that is mentioned a million times takes one text and a million references."""
    long, mentions = "x" * 100_000, 200_000
    pickled = pickle.dumps(np.array([long] * mentions, object), 5)
    assert len(pickled) < 1_000_000
    values = text_of(pickled)
    assert len({id(value) for value in values}) == 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "values",
    [
        [b"x", b"yy", b"x", b"", b"\xff\x00"],
        ["x", "yyé€", "x", "", "APPENDS"],
        ["x" * 300, b"y" * 70_000, "z"],
        ["x", None, float("nan"), "x"],
        [f"star {n}" for n in range(2500)],
        ["same"] * 2500,
        ["one"],
        [],
    ],
)
def test_text_is_read_as_pickle_reads_it(values, protocol):
    array = np.empty(len(values), object)
    array[:] = values
    for one in (array, array[:, None], np.asfortranarray(np.stack([array, array[::-1]]).T)):
        expected = one.copy()
        expected[pd.isna(one)] = None
        np.testing.assert_array_equal(text_of(pickle.dumps(one, protocol)), expected)


TABLES = {
    "bytes": {"a": np.array([b"x", b"yy"], object), "b": [1.0, 2.0]},
    "str as objects": {
        "a": np.array(["x", "yé"], object),
        "b": np.array([b"z", b""], object),
        "c": [1, 2],
    },
    "str": {"a": ["x", "yé"], "b": ["x", None], "c": np.float32([1, 2])},
    "nullable": {"a": pd.array(["x", None], dtype="string"), "b": [True, False]},
    "missing": {"a": np.array(["x", np.nan], object), "b": np.array([None, b"y"], object)},
}


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES.keys())
def test_tables_of_pandas_come_back(columns, tmp_path):
    for index in ([3, 4], ["aaaaa_00", "aaaab_00"]):
        table = pd.DataFrame(columns, index=index)
        table.to_hdf(tmp_path / "t.h5", key="t", mode="w")
        plain = [
            one.astype(object).where(one.notna(), None)
            for one in (read_frame(tmp_path / "t.h5", "t"), table)
        ]
        pd.testing.assert_frame_equal(*plain, check_index_type=False, check_column_type=False)


@pytest.mark.parametrize(
    "table",
    [
        pd.DataFrame({"a": pd.to_datetime(["2026-01-01"])}),
        pd.DataFrame({"a": [1j]}),
        pd.DataFrame({"a": []}),
    ],
)
def test_tables_of_other_things_are_refused(table, tmp_path):
    table.to_hdf(tmp_path / "t.h5", key="t")
    with pytest.raises(CorruptFileError, match=r"t\.h5, table 't'"):
        read_frame(tmp_path / "t.h5", "t")


ROWS = 10**9


def replaced(name, **how):
    """Make a dataset of the table another one."""

    def change(file):
        del file[f"allstar/{name}"]
        file["allstar"].create_dataset(name, **how)

    return change


def forge_length(file):
    dataset = file["allstar/block0_values"]
    reference = bytearray(dataset.id.read_direct_chunk((0,))[1])
    reference[:4] = struct.pack("<I", 2**32 - 1)
    dataset.id.write_direct_chunk((0,), bytes(reference))


def link_elsewhere(file):
    del file["allstar/block1_values"]
    file["allstar/block1_values"] = h5py.ExternalLink("other.h5", "/allstar/block1_values")


def virtual(file):
    layout = h5py.VirtualLayout(shape=(2, 1), dtype="f8")
    layout[...] = h5py.VirtualSource("other.h5", "allstar/block1_values", shape=(2, 1))
    del file["allstar/block1_values"]
    file["allstar"].create_virtual_dataset("block1_values", layout)


def many_blocks(file):
    for number in range(2, 20_000):
        for what in ("items", "values"):
            file[f"allstar/block{number}_{what}"] = file[f"allstar/block1_{what}"]
    file["allstar"].attrs["nblocks"] = 20_000


HARMS = {
    "10⁹ rows that are not there": replaced("block1_values", shape=(ROWS, 1), dtype="f8"),
    "10⁹ rows in chunks": replaced("block1_values", shape=(ROWS, 1), dtype="f8", chunks=(1000, 1)),
    "10⁹ rows, compressed": replaced("block1_values", shape=(ROWS, 1), dtype="f8", chunks=(1000, 1), compression=1),
    "an index of 10⁹": replaced("axis1", shape=(ROWS,), dtype="i8"),
    "10⁹ texts": replaced("block0_values", shape=(ROWS,), dtype=h5py.vlen_dtype(np.uint8), chunks=(1,)),
    "text of 4 GB": forge_length,
    "another file's data": replaced("block1_values", shape=(2, 1), dtype="f8", external=[("secret", 0, 16)]),
    "a link to another file": link_elsewhere,
    "a view of another file": virtual,
    "many blocks": many_blocks,
    "10¹⁸ blocks": lambda file: file["allstar"].attrs.__setitem__("nblocks", 10**18),
    "less than no blocks": lambda file: file["allstar"].attrs.__setitem__("nblocks", -3),
    "no number of blocks": lambda file: file["allstar"].attrs.__setitem__("nblocks", ROWS),
    "text as references": replaced("block0_values", data=["x", "y"], dtype=h5py.string_dtype()),
    "a table that is an array": lambda file: file.move("allstar/axis1", "kept") or file.move("allstar", "x")
    or file.move("kept", "allstar"),
}  # fmt: skip


def test_claims_of_hdf5_are_not_believed(tmp_path):
    paths = []
    (tmp_path / "secret").write_bytes(b"s" * 16)
    for number, harm in enumerate(HARMS.values()):
        paths.append(tmp_path / f"{number}.h5")
        table = pd.DataFrame(
            {"APOGEE_ID": np.array([b"x", b"y"], object), "TEFF": [4000.0, 5000.0]}
        )
        table.to_hdf(paths[-1], key="allstar", mode="w")
        with h5py.File(paths[-1], "a") as file:
            harm(file)
    lines = dict(zip(HARMS, run_limited(READ, TRY, *paths), strict=True))
    assert {name: line for name, line in lines.items() if not line.startswith("refused")} == {}
