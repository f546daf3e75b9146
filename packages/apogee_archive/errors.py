"""The errors that a user of the lab can see to: each message says what is wrong, where, and what to do."""

import contextlib

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
    """A file is damaged, or not of the kind that was expected; the message names it and the fault."""


class ArchiveError(LabError, RuntimeError):
    """An archive did not give what was asked for."""


class TransferError(ArchiveError, OSError):
    """A file could not be fetched: `reason` says why, `retryable` whether another time may do better."""

    def __init__(self, url, reason, retryable=False):
        super().__init__(f"{url}: {reason}")
        self.reason, self.retryable = reason, retryable


class CacheError(LabError, OSError):
    """A cache could not be written: full, read-only, or in the way of something else."""


@contextlib.contextmanager
def wrap_read_errors(path, what):
    """Whatever a library raises on damaged input becomes CorruptFileError; a file that is not there or closed stays that."""
    try:
        yield
    except (CorruptFileError, FileNotFoundError, PermissionError):
        raise
    except Exception as fault:
        raise CorruptFileError(
            f"{path}: not {what}, or a damaged one ({fault or type(fault).__name__})"
        ) from fault
