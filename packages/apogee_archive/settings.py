"""The settings of the environment (LAB_*), read in this one place when they are needed, and the folders they name."""

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


def setting(name, default=""):
    """The environment variable LAB_<name> without blanks around it, `default` if it is empty or not set."""
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
    wanted = str(setting(name, default))
    if not wanted.isdecimal():
        raise ValueError(f"LAB_{name} is a whole number, not {wanted!r}")
    return int(wanted)


def checkout():
    """The source tree that this package runs from, or None where it was installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def table(name):
    """Path of a file that ships with this package."""
    return Path(__file__).parent / "data" / name


def writable(folder):
    """Whether files can be made in `folder`, or the folder itself where it does not exist yet."""
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    return nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)


def data_folders(root=None):
    """The folder for data, and a tuple of further ones that are only read.

    The first is `root`, else LAB_DATA, else `data` in the checkout, else the user's own data folder; the others are
    those of LAB_DATA_SHARED, separated like those of PATH. If the first cannot be written, it is only read too, and
    the user's own folder takes its place, with a warning.
    """
    own = platformdirs.user_data_path("stellar-lab")
    default = checkout() / "data" if checkout() else own
    first = Path(root).expanduser().absolute() if root else _folder(setting("DATA", default))
    shared = tuple(_folder(one) for one in setting("DATA_SHARED").split(os.pathsep) if one.strip())
    if writable(first) or first == own:
        return first, shared
    warnings.warn(
        f"{first} cannot be written: new data go to {own} (set LAB_DATA to choose a folder)",
        stacklevel=3,
    )
    return own, (first, *shared)


def figures_folder(kind="build/figures"):
    """Where figures go: LAB_FIGURES, else the folder `kind`, both below the checkout or the working directory."""
    return _folder(setting("FIGURES", kind))


def _folder(name):
    """A folder named in a setting: "~" is the home, and "data" means the same from a notebook as from a shell."""
    return (checkout() or Path.cwd()) / Path(str(name).strip()).expanduser()
