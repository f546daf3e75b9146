"""The tables that ship with the mock survey; their sources are in data/README.md."""

from pathlib import Path

__all__ = ["table"]


def table(name: str) -> Path:
    """Path of a table that ships with this package.

    Parameters
    ----------
    name : str
        Of a file in ``data/``.

    Examples
    --------
    >>> table("atoms.csv").is_file()
    True
    """
    return Path(__file__).parent / "data" / name
