"""Text that pandas kept in an HDF5 file as a pickle, taken out of it without unpickling anything.

The opcodes are read like the words of a sentence. One sentence is accepted, that of a numpy array
of objects as protocols 2 to 5 write it, with nothing but text in its list; all else is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import re

import numpy as np

__all__ = ["text_of"]

# Opcodes that put a value on the stack.
VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE",
    "SHORT_BINBYTES", "BINBYTES", "NONE", "NEWTRUE", "NEWFALSE",
}  # fmt: skip
CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}
IGNORED = {"PROTO", "FRAME", "STOP"}

# How numpy's array of objects begins, up to its list: _reconstruct(ndarray, (0,), b"b"), then its
# state (3, shape, dtype, by columns, [...]). Groups are the lengths of its one or two dimensions.
ARRAY = re.compile(
    r"<numpy\._?core\.multiarray\._reconstruct> <numpy\.ndarray> 0 TUPLE1 b'b' TUPLE3 REDUCE "
    r"MARK 1 (\d{1,18}) (?:(\d{1,18}) TUPLE2|TUPLE1) "
    r"<numpy\.dtype> 'O8' (?:False True|0 1) TUPLE3 REDUCE "
    r"MARK 3 '\|' None None None -1 -1 63 TUPLE BUILD (?:True|False) EMPTY_LIST"
)
JOINTS = [("op", "MARK"), ("op", "APPEND"), ("op", "APPENDS")]
MISSING = {"pandas.NA", "pandas._libs.missing.NA"}
HEAD = 60  # steps in which the list must have begun

# Protocol 2 knows no bytes: it writes a call of _codecs.encode("...", "latin1"), or of bytes().
ENCODE = [("value", "latin1"), ("op", "TUPLE2"), ("op", "REDUCE")]
NO_BYTES = [("global", "__builtin__.bytes"), ("op", "EMPTY_TUPLE"), ("op", "REDUCE")]


def text_of(pickled: bytes) -> np.ndarray:
    """The text of a pickled numpy array of text.

    Parameters
    ----------
    pickled : bytes
        A pickle of protocol 2 to 5.

    Returns
    -------
    ndarray of object
        One or two dimensions of str, bytes, and None for missing values.

    Raises
    ------
    ValueError, LookupError
        For any other pickle. Time and memory grow with its length, not with what it claims.

    Examples
    --------
    >>> import pickle
    >>> text_of(pickle.dumps(np.array(["2M1", None], object)))
    array(['2M1', None], dtype=object)
    """
    if pickled[:1] != b"\x80" or not 2 <= pickled[1] <= 5:
        raise ValueError("it is no pickle of protocol 2 to 5: write it again with pandas")
    steps = _steps(pickled)
    begin = next(
        (n for n, step in enumerate(steps[:HEAD], 1) if step == ("op", "EMPTY_LIST")), HEAD
    )
    sentence = " ".join(map(_word, steps[:begin]))
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


def _steps(pickled: bytes) -> list[tuple]:
    """The opcodes of a pickle in one form for all protocols.

    ("value", v) puts a value on the stack, ("global", "module.name") stands for a name that would
    be imported, all others are ("op", name).
    """
    steps: list[tuple] = []
    memo: dict[int, tuple] = {}
    for opcode, argument, _ in pickletools.genops(io.BytesIO(pickled)):
        name = opcode.name
        if name == "MEMOIZE":
            memo[len(memo)] = steps[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = steps[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            steps.append(memo[argument])
        elif name in VALUES:
            steps.append(("value", CONSTANTS.get(name, argument)))
        elif name == "GLOBAL":
            steps.append(_global(*argument.split(" ")))
        elif name == "STACK_GLOBAL":
            (_, module), (_, qualified) = steps[-2:]
            steps[-2:] = [_global(module, qualified)]
        elif name not in IGNORED:
            steps.append(("op", name))
            if name == "REDUCE":
                _spell_out_bytes(steps)
    return steps


def _global(module: object, name: object) -> tuple:
    full = f"{module}.{name}"
    return ("value", None) if full in MISSING else ("global", full)


def _spell_out_bytes(steps: list[tuple]) -> None:
    """Put bytes in the place of the call by which protocol 2 writes them, at the end of `steps`."""
    if steps[-3:] == ENCODE and steps[-5:-4] == [("global", "_codecs.encode")]:
        kind, text = steps[-4]
        if kind == "value" and isinstance(text, str):
            steps[-5:] = [("value", text.encode("latin1"))]
    elif steps[-3:] == NO_BYTES:
        steps[-3:] = [("value", b"")]


def _word(step: tuple) -> str:
    kind, value = step
    if kind == "value":
        return repr(value)[:60]
    return f"<{value}>" if kind == "global" else value


def _item(kind: str, value: object) -> str | bytes | None:
    if kind == "value" and isinstance(value, str | bytes):
        return value
    if kind == "value" and (value is None or value != value):  # NaN is not equal to itself
        return None
    raise ValueError(f"it holds {value!r:.60} in the place of text")
