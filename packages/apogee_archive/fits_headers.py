"""The frame of a FITS file: its headers, with every size checked before anything is made of it.

Libraries that build what a header promises hang, or fill the memory, on headers that lie; see FITS standard 4.0, §3-4.
"""

import contextlib
import math
import re

__all__ = ["TYPES", "fits_headers"]

TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""Numpy's name of the numbers that BITPIX stands for."""

HDUS, HEADER = 64, 400 * 2880
_CARD = re.compile(r"([A-Z0-9_-]{1,8}) *= *(?:'((?:[^']|'')*)'|([^'/ ]+)) *(?:/.*)?", re.S)


def fits_headers(content):
    """The header of each HDU of a FITS file (bytes or a memory map), as a dict, and where its data begin.

    All sizes are checked against that of the file before anything is made of them (FITS standard 4.0, §3-4).
    Raises ValueError unless the file ends where its headers say.
    """
    found, end = [], 0
    while end < len(content) or not found:
        header, start = _header(content, end)
        found.append((header, start))
        end = start + -(-_length(header) // 2880) * 2880
        if end > len(content) or len(found) > HDUS:
            raise ValueError(
                f"not a whole file: {len(content)} bytes, but its headers promise {end}"
            )
    return found


def _header(content, at):
    """The cards of the header that begins there, as a dict, and where it ends."""
    cards = {}
    for end in range(at + 2880, at + HEADER, 2880):
        block = content[end - 2880 : end].decode("latin-1")
        if (not cards and not block.startswith(("SIMPLE  =", "XTENSION="))) or len(block) < 2880:
            raise ValueError(
                "a web page"
                if block.lstrip().startswith("<")
                else "no header where one should begin"
            )
        for card in re.findall(".{80}", block, re.S):
            if card.rstrip() == "END":
                return cards, end
            if found := _CARD.fullmatch(card):
                cards.setdefault(found[1], _value(found[2], found[3]))
    raise ValueError("a header without an end")


def _value(text, number):
    if text is not None:
        return text.replace("''", "'").rstrip()
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(number.replace("D", "E"))
    return number


def _length(header):
    """Bytes of the data below a header."""
    shape = [header[f"NAXIS{axis + 1}"] for axis in range(min(header["NAXIS"], 999))]
    sizes = [*shape, header.get("PCOUNT", 0), header.get("GCOUNT", 1), header.get("TFIELDS", 0)]
    if (
        header["BITPIX"] not in TYPES
        or sizes[-1] > 999
        or not all(isinstance(size, int) and size >= 0 for size in sizes)
    ):
        raise ValueError(f"sizes that cannot be: BITPIX = {header['BITPIX']}, NAXISn = {shape[:9]}")
    values = (math.prod(shape) + header.get("PCOUNT", 0)) * header.get("GCOUNT", 1) if shape else 0
    return abs(header["BITPIX"]) // 8 * values
