"""The errors that a user of the lab can see to: each message says what is wrong, where, and what to do."""

__all__ = ["ArchiveError", "BadFile", "CacheError", "LabError", "TransferError"]


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
