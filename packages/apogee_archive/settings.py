"""The settings of the environment (LAB_*), read here when they are needed, and their folders.

>>> setting("A_SETTING_THAT_IS_NOT_THERE", "default")
'default'
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import platformdirs

__all__ = [
    "checkout",
    "data_folders",
    "figures_folder",
    "int_setting",
    "setting",
    "table",
    "writable",
]


def setting(name: str, default: str = "") -> str:
    """The environment variable ``LAB_<name>`` without blanks around it.

    Parameters
    ----------
    name : str
        Without ``LAB_``.
    default : str
        What counts if the variable is empty or not set.

    Returns
    -------
    str
    """
    # A blank after the value, as in `set LAB_SURVEY=dr17 `, is not seen and not meant
    return os.environ.get(f"LAB_{name}", "").strip() or default


def int_setting(name: str, default: int) -> int:
    """The whole number that the environment variable LAB_<name> gives, `default` if it is not set.

    Raises
    ------
    ValueError
        If it is not a whole number.

    Examples
    --------
    >>> int_setting("NOT_SET", 128)
    128
    """
    wanted = setting(name, str(default))
    if not wanted.isdecimal():
        raise ValueError(f"LAB_{name} is a whole number, not {wanted!r}")
    return int(wanted)


def checkout() -> Path | None:
    """The source tree that this package runs from, or None where it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def table(name: str) -> Path:
    """Path of a file that ships with this package.

    Examples
    --------
    >>> table("bits.csv").is_file()
    True
    """
    return Path(__file__).parent / "data" / name


def writable(folder: Path) -> bool:
    """Whether files can be made in `folder`, or the folder itself where it does not exist yet."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def data_folders(root: str | Path | None = None) -> tuple[Path, tuple[Path, ...]]:
    """The folder for data, and further ones that are only read.

    Parameters
    ----------
    root : str or Path, optional
        The first folder; None takes LAB_DATA, else `data` in the checkout, else the user's own
        data folder.

    Returns
    -------
    first : Path
        Where data go. If it cannot be written it is only read, and the user's own data folder
        takes its place, with a warning.
    shared : tuple of Path
        The folders of LAB_DATA_SHARED, separated like those of PATH.

    Examples
    --------
    >>> data_folders(Path.cwd())[0] == Path.cwd()
    True
    """
    own = platformdirs.user_data_path("stellar-lab")
    default = checkout() / "data" if checkout() else own
    first = Path(root).expanduser().absolute() if root else _folder(setting("DATA", str(default)))
    shared = tuple(_folder(one) for one in setting("DATA_SHARED").split(os.pathsep) if one.strip())
    if writable(first) or first == own:
        return first, shared
    warnings.warn(
        f"{first} cannot be written: new data go to {own} (set LAB_DATA to choose a folder)",
        stacklevel=3,
    )
    return own, (first, *shared)


def figures_folder(kind: str = "build/figures") -> Path:
    """Where figures go: LAB_FIGURES, else the folder `kind`.

    Both are below the checkout or, without one, below the working directory.
    """
    return _folder(setting("FIGURES", kind))


def _folder(name: str) -> Path:
    """A folder named in a setting: "~" is the home, and "data" is the same from any folder."""
    return (checkout() or Path.cwd()) / Path(name.strip()).expanduser()
