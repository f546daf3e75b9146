"""The errors that a user of the lab can see to: each message says what is wrong, where, and what to do."""

import contextlib

__all__ = ["ArchiveError", "BadFile", "CacheError", "LabError", "TransferError", "reading"]


class LabError(Exception):
    """Any of the errors below."""


class BadFile(LabError, ValueError):
    """A file is damaged, or not of the kind that was expected; the message names it and the fault."""


class ArchiveError(LabError, RuntimeError):
    """An archive did not give what was asked for."""


class TransferError(ArchiveError, OSError):
    """A file could not be fetched: `reason` says why, `passing` whether another time may do better."""

    def __init__(self, url, reason, passing=False):
        super().__init__(f"{url}: {reason}")
        self.reason, self.passing = reason, passing


class CacheError(LabError, OSError):
    """A cache could not be written: full, read-only, or in the way of something else."""


@contextlib.contextmanager
def reading(path, what):
    """Whatever a library raises on damaged input becomes BadFile; a file that is not there or closed stays that."""
    try:
        yield
    except (BadFile, FileNotFoundError, PermissionError):
        raise
    except Exception as fault:
        raise BadFile(f"{path}: not {what}, or a damaged one ({fault or type(fault).__name__})") from fault
