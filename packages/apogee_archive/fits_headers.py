"""The headers of a FITS file, with every declared size checked against the size of the file.

Libraries that build what a header promises hang, or fill the memory, on headers that lie.

References
----------
FITS standard 4.0 (Pence et al. 2010, A&A 524, A42), sections 3 and 4.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import re

__all__ = ["TYPES", "fits_headers"]

TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
"""Numpy's name of the numbers that BITPIX stands for."""

BLOCK, CARD = 2880, 80  # bytes of a block, and of one line of a header
MAX_HDUS, MAX_HEADER = 64, 400 * BLOCK
MAX_FIELDS = 999  # columns of a table, by the standard
_KEYWORD = re.compile(r"([A-Z0-9_-]{1,8}) *= *(?:'((?:[^']|'')*)'|([^'/ ]+)) *(?:/.*)?", re.S)


def fits_headers(content: bytes | mmap.mmap) -> list[tuple[dict, int]]:
    """The header of each HDU of a FITS file, and where its data begin.

    Parameters
    ----------
    content : bytes or mmap
        The whole file.

    Returns
    -------
    list of (dict, int)
        Keywords and values of each header, and the position of the byte after it.

    Raises
    ------
    ValueError
        Unless the file ends where its headers say, and no axis is longer than the file.

    Examples
    --------
    >>> import io
    >>> from astropy.io import fits
    >>> file = io.BytesIO()
    >>> fits.PrimaryHDU([1, 2, 3]).writeto(file)
    >>> [(header, start)] = fits_headers(file.getvalue())
    >>> header["NAXIS1"], start
    (3, 2880)
    """
    found: list[tuple[dict, int]] = []
    end = 0
    while end < len(content) or not found:
        header, start = _header(content, end)
        found.append((header, start))
        end = start + -(-_data_bytes(header, len(content)) // BLOCK) * BLOCK  # whole blocks
        if end > len(content) or len(found) > MAX_HDUS:
            raise ValueError(
                f"not a whole file: {len(content)} bytes, but its headers promise {end}"
            )
    return found


def _header(content: bytes | mmap.mmap, at: int) -> tuple[dict, int]:
    """The keywords of the header that begins at byte `at`, and where it ends."""
    cards: dict = {}
    for end in range(at + BLOCK, at + MAX_HEADER, BLOCK):
        block = content[end - BLOCK : end].decode("latin-1")
        if (not cards and not block.startswith(("SIMPLE  =", "XTENSION="))) or len(block) < BLOCK:
            raise ValueError(
                "a web page"
                if block.lstrip().startswith("<")
                else "no header where one should begin"
            )
        for start in range(0, BLOCK, CARD):
            card = block[start : start + CARD]
            if card.rstrip() == "END":
                return cards, end
            if found := _KEYWORD.fullmatch(card):
                cards.setdefault(found[1], _value(found[2], found[3]))
    raise ValueError("a header without an end")


def _value(text: str | None, number: str) -> str | int | float:
    if text is not None:
        return text.replace("''", "'").rstrip()
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(number.replace("D", "E"))
    return number


def _data_bytes(header: dict, file_size: int) -> int:
    """Bytes of the data below a header: |BITPIX|/8 GCOUNT (PCOUNT + NAXIS1 NAXIS2 ...)."""
    shape = [header[f"NAXIS{axis + 1}"] for axis in range(min(header["NAXIS"], 999))]
    heap, groups = header.get("PCOUNT", 0), header.get("GCOUNT", 1)
    fields = header.get("TFIELDS", 0)
    sizes = [*shape, heap, groups, fields]
    if (
        header["BITPIX"] not in TYPES
        or not all(isinstance(size, int) and size >= 0 for size in sizes)
        # A table of rows of no bytes takes no room in the file, however many rows it claims.
        or any(size > file_size for size in shape)
        or fields > MAX_FIELDS
    ):
        raise ValueError(f"sizes that cannot be: BITPIX = {header['BITPIX']}, NAXISn = {shape[:9]}")
    values = (math.prod(shape) + heap) * groups if shape else 0
    return abs(header["BITPIX"]) // 8 * values
