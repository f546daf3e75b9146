"""The tables that ship with the mock survey; their sources are in data/README.md."""

from pathlib import Path

__all__ = ["table"]


def table(name):
    """Path of a table that ships with this package."""
    return Path(__file__).parent / "data" / name
