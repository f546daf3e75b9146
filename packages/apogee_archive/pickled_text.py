"""Text that pandas kept in an HDF5 file as a pickle, taken out of it without unpickling anything.

The opcodes are read as a sentence. One sentence is accepted, that of a numpy array of objects as protocols 4 and 5
write it (PyTables has written no other since Python 3.4), with nothing but text in its list; all else is refused.
"""

import io
import math
import pickletools
import re

import numpy as np

__all__ = ["text_of"]

VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES",
    "NONE", "NEWTRUE", "NEWFALSE",
}  # fmt: skip
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}
ARRAY = re.compile(
    r"'numpy\._?core\.multiarray' '_reconstruct' STACK_GLOBAL "
    r"'numpy' 'ndarray' STACK_GLOBAL 0 TUPLE1 b'b' TUPLE3 REDUCE "
    r"MARK 1 (\d{1,18}) (?:(\d{1,18}) TUPLE2|TUPLE1) "
    r"'numpy' 'dtype' STACK_GLOBAL 'O8' (?:False True|0 1) TUPLE3 REDUCE "
    r"MARK 3 '\|' None None None -1 -1 63 TUPLE BUILD (?:True|False) EMPTY_LIST"
)
JOINTS = [("op", "MARK"), ("op", "APPEND"), ("op", "APPENDS")]
NA = [("value", "pandas"), ("value", "NA")]
HEAD = 40  # steps in which the list must have begun


def text_of(pickled):
    """The text of a pickled numpy array of text: array of str, bytes, and None for missing values, 1-D or 2-D.

    Raises ValueError or LookupError for any other pickle; time and memory grow with its length, not with its claims.
    """
    steps = _steps(pickled)
    begin = next(
        (n for n, step in enumerate(steps[:HEAD], 1) if step == ("op", "EMPTY_LIST")), HEAD
    )
    sentence = " ".join(
        repr(value)[:60] if kind == "value" else value for kind, value in steps[:begin]
    )
    found = ARRAY.fullmatch(sentence)
    if not found or steps[-2:] != [("op", "TUPLE"), ("op", "BUILD")]:
        raise ValueError(f"it holds a pickled object that is no array of text: {sentence[:80]} ...")
    items = [_item(*step) for step in steps[begin:-2] if step not in JOINTS]
    shape = [int(number) for number in found.groups() if number]
    if len(items) != math.prod(shape):
        raise ValueError(
            f"its array of text has {len(items)} items, not {' x '.join(map(str, shape))}"
        )
    values = np.empty(len(items), object)
    values[:] = items
    return values.reshape(shape)


def _steps(pickled):
    """The opcodes of a pickle: ("value", v) for one that puts a value on the stack, else ("op", name)."""
    steps, memo = [], []
    for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
        if opcode.name == "MEMOIZE":
            memo.append(steps[-1])
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            steps.append(memo[argument])
        elif opcode.name in VALUES:
            steps.append(("value", CONSTANTS.get(opcode.name, argument)))
        elif opcode.name == "STACK_GLOBAL" and steps[-2:] == NA:
            steps[-2:] = [("value", None)]
        elif opcode.name not in ("PROTO", "FRAME", "STOP"):
            steps.append(("op", opcode.name))
    return steps


def _item(kind, value):
    if kind == "value" and type(value) in (str, bytes):
        return value
    if kind == "value" and (value is None or value != value):
        return None
    raise ValueError(f"it holds {value!r:.60} in the place of text")
