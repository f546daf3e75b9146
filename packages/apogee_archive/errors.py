"""User-facing exceptions: each message says what is wrong, where, and what to do.

>>> issubclass(CorruptFileError, LabError), issubclass(CorruptFileError, ValueError)
(True, True)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "ArchiveError",
    "CacheError",
    "CorruptFileError",
    "LabError",
    "TransferError",
    "wrap_read_errors",
]


class LabError(Exception):
    """Any of the errors below."""


class CorruptFileError(LabError, ValueError):
    """A file is damaged or not of the expected kind; the message names the file and the fault."""


class ArchiveError(LabError, RuntimeError):
    """An archive did not give what was asked for."""


class TransferError(ArchiveError, OSError):
    """A file could not be fetched.

    Attributes
    ----------
    reason : str
        Why, without the address.
    retryable : bool
        Whether another time may do better.
    """

    def __init__(self, url: str, reason: str, retryable: bool = False):
        super().__init__(f"{url}: {reason}")
        self.url, self.reason, self.retryable = url, reason, retryable

    def __reduce__(self):
        """What pickle needs: errors of workers travel to the process that asked."""
        return type(self), (self.url, self.reason, self.retryable)


class CacheError(LabError, OSError):
    """A cache could not be written: full, read-only, or something else is in its place."""


# What says nothing about the file: it is missing or closed to us, the memory is full, or Python
# runs with warnings as errors (`python -W error`).
_NOT_DAMAGE = (CorruptFileError, FileNotFoundError, PermissionError, MemoryError, Warning)


@contextlib.contextmanager
def wrap_read_errors(path: str | Path, what: str) -> Iterator[None]:
    """Context manager: what a library raises on damaged input becomes a CorruptFileError.

    Missing-file and permission errors, a full memory and warnings pass through.

    Parameters
    ----------
    path : str or Path
        The file, as messages shall name it.
    what : str
        What it should be, with its article.

    Raises
    ------
    CorruptFileError
        In the place of any other exception of the block.

    Examples
    --------
    >>> with wrap_read_errors("stars.csv", "a table of stars"):
    ...     float("<html>")
    Traceback (most recent call last):
    ...
    apogee_archive.errors.CorruptFileError: stars.csv: not a table of stars, or a damaged one \
(could not convert string to float: '<html>')
    """
    try:
        yield
    except _NOT_DAMAGE:
        raise
    except Exception as fault:
        raise CorruptFileError(
            f"{path}: not {what}, or a damaged one ({fault or type(fault).__name__})"
        ) from fault
