"""Files of stars as the archive keeps them: where each lies, whether it is whole, a compact form.

Also the map of continuum pixels that the course hands out.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from apogee_archive import npz
from apogee_archive.apstar import mask_pixels, parse_apstar
from apogee_archive.bitmasks import LAB_BITS
from apogee_archive.cache import atomic_write
from apogee_archive.errors import CorruptFileError, wrap_read_errors
from apogee_archive.grid import GRID, WAVELENGTH
from apogee_archive.limits import LIMITS, check_size, read_within

__all__ = [
    "RECEIVED",
    "check_star",
    "expected_bytes",
    "pack",
    "parse_sha1sums",
    "read_continuum_pixels",
    "read_sha1sums",
    "read_star",
    "sas_path",
]

STARS = "dr17/apogee/spectro/redux/dr17/stars"
RECEIVED = "received.sha1sum"
"""Name of our own list of checksums: of what arrived where the archive has no list."""

# A name of the archive that is safe on every system: no path, no device of Windows (CON, LPT1,
# ...), no leading or trailing dot.
_RESERVED = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:[./]|$))"
_NAME = rf"{_RESERVED}[A-Za-z0-9+_-](?:[A-Za-z0-9+_.-]{{0,62}}[A-Za-z0-9+_-])?"
_STAR_FILE = re.compile(rf"(?:apo25m|apo1m|lco25m)/{_NAME}/a[ps]Star-dr17-{_NAME}\.fits")
_SHA1_LINE = re.compile(r"^([0-9a-f]{40})\s+\*?(?:\S*/)?([^/\s]+)\s*$", re.M)
_IMAGES = {"flux": "<f4", "error": "<f4", "mask": "<i4"}


def sas_path(row: Mapping) -> str:
    """Path of a star's file in the Science Archive Server (SAS), by its row of the catalog.

    Parameters
    ----------
    row : mapping
        With the keys `telescope`, `field` and `file`.

    Returns
    -------
    str
        The path below the root of the archive, with "/" on every system.

    Raises
    ------
    ValueError
        If one of the three is not a name of the kind that the archive uses, or one that a system
        reserves: what a table says is never trusted to be a path.

    Examples
    --------
    >>> sas_path({"telescope": "apo25m", "field": "M15", "file": "apStar-dr17-2M1.fits"})
    'dr17/apogee/spectro/redux/dr17/stars/apo25m/M15/apStar-dr17-2M1.fits'
    """
    parts = [row[name] for name in ("telescope", "field", "file")]
    if not (isinstance(parts[-1], str) and parts[-1]):
        raise ValueError("the catalog names no file for this star")
    if not (all(isinstance(part, str) for part in parts) and _STAR_FILE.fullmatch("/".join(parts))):
        raise ValueError(f"refused: {parts} is no telescope, field and apStar file of the archive")
    return "/".join([STARS, *parts])


def expected_bytes(nvisits: np.ndarray) -> float:
    """About the size of apStar files of DR17: 7 images of 4 bytes per pixel, and tables.

    Parameters
    ----------
    nvisits : array_like
        Number of visits of each star.

    Returns
    -------
    float
        Bytes of all files together.

    Examples
    --------
    >>> f"{expected_bytes([1, 3]) / 1e6:.1f} MB"
    '1.8 MB'
    """
    visits = np.fmax(np.asarray(nvisits, float), 1)
    rows = np.where(visits > 1, visits + 2, 2)  # the combined spectrum twice, and each visit
    return float((rows * 7 * 4 * WAVELENGTH.size + 60e3).sum())


def parse_sha1sums(content: bytes) -> dict[str, str]:
    """File name -> SHA-1, from the bytes of a list of the archive.

    Raises
    ------
    ValueError
        If it is no such list.

    Examples
    --------
    >>> parse_sha1sums(b"da39a3ee5e6b4b0d3255bfef95601890afd80709  ./M15/empty.fits")
    {'empty.fits': 'da39a3ee5e6b4b0d3255bfef95601890afd80709'}
    """
    found = _SHA1_LINE.findall(content.decode("ascii", "replace"))
    if not found:
        raise ValueError("not a list of sha1 checksums")
    return {name: sha1 for sha1, name in found}


def read_sha1sums(folder: Path) -> dict[str, str]:
    """File name -> SHA-1 by the lists in a folder; what the archive's own list says counts.

    Parameters
    ----------
    folder : Path
        A folder of star files, which may hold files named ``*.sha1sum``.

    Returns
    -------
    dict
        Empty if there is no list.

    Warns
    -----
    UserWarning
        If a list cannot be read: the files that only it names are not verified.

    Examples
    --------
    >>> import tempfile
    >>> read_sha1sums(Path(tempfile.mkdtemp()))
    {}
    """
    sums: dict[str, str] = {}
    for path in sorted(folder.glob("*.sha1sum"), key=lambda path: path.name != RECEIVED):
        try:
            sums |= parse_sha1sums(read_within(path, "spectrum"))
        except (ValueError, OSError) as fault:
            warnings.warn(
                f"{path} cannot be read ({fault}): the files that it lists are not verified",
                stacklevel=2,
            )
    return sums


def read_star(path: Path, star: str, sha1: str | None = None) -> xr.Dataset:
    """Dataset with one star from its apStar file, or from the compact form of it (.npz).

    Parameters
    ----------
    path : Path
        The file.
    star : str
        Whose spectrum it must be.
    sha1 : str, optional
        Checksum that the file must have.

    Returns
    -------
    xarray.Dataset
        As from `apogee_archive.apstar.read_apstar`.

    Raises
    ------
    FileNotFoundError, PermissionError
        If the file is not there, or closed.
    CorruptFileError
        If it is damaged, of another star, not on the survey's 8575 pixels, or not that of `sha1`.
    """
    return check_star(read_within(path, "spectrum"), path, star, sha1)


def check_star(
    content: bytes,
    source: str | Path,
    star: str,
    sha1: str | None = None,
    bits: int = LAB_BITS,
) -> xr.Dataset:
    """As `read_star`, from the bytes of a file; `source` names it in messages."""
    parse = _unpack if str(source).endswith(".npz") else parse_apstar
    spectrum = parse(content, source, bits)
    if spectrum.star.item() != star:
        raise CorruptFileError(
            f"{source}: the spectrum of another star, {spectrum.star.item()}, not of {star}"
        )
    wavelength = spectrum.wavelength.values
    if wavelength.shape != WAVELENGTH.shape or not np.allclose(
        wavelength, WAVELENGTH, rtol=1e-9, atol=0
    ):
        raise CorruptFileError(
            f"{source}: {wavelength.size} pixels that are not the {WAVELENGTH.size} of the survey"
        )
    if sha1 and hashlib.sha1(content).hexdigest() != sha1:
        raise CorruptFileError(f"{source}: its sha1 is not that of the list of checksums")
    return spectrum


def pack(spectrum: xr.Dataset, path: Path) -> Path:
    """Keep flux, error and mask of one spectrum, exactly, in a file 30 times smaller.

    Parameters
    ----------
    spectrum : xarray.Dataset
        One star, parsed with ``bits=0``: what the mask says is applied when it is read.
    path : Path
        The .npz file.

    Returns
    -------
    Path
        `path`.
    """
    planes = {}
    for name, kind in _IMAGES.items():
        image = spectrum[name].values[0].astype(kind)  # (pixel,)
        # Bytes stored by significance, (4, pixel): zlib packs those of exponents.
        planes[name] = np.ascontiguousarray(image.view("u1").reshape(-1, 4).T)
    with atomic_write(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, star=spectrum.star.values, **planes)  # type: ignore[arg-type]
    return path


def _unpack(content: bytes, source: str | Path, bits: int) -> xr.Dataset:
    """What `parse_apstar` would make of the file that was packed."""
    with wrap_read_errors(source, "a packed spectrum"):
        arrays = npz.arrays(io.BytesIO(content), LIMITS["spectrum"])
        images = {name: _image(arrays[name], kind) for name, kind in _IMAGES.items()}
        spectrum = xr.Dataset(
            {name: (("star", "wavelength"), image[None]) for name, image in images.items()},
            coords={"star": [str(arrays["star"].item())], "wavelength": WAVELENGTH},
        )
        return mask_pixels(spectrum, bits)


def _image(planes: np.ndarray, kind: str) -> np.ndarray:
    """Numbers (pixel,) from their bytes by significance (4, pixel)."""
    if planes.shape != (4, WAVELENGTH.size) or planes.dtype != np.uint8:
        raise ValueError(f"{planes.dtype} of shape {planes.shape}")
    return np.ascontiguousarray(planes.T).view(kind)[:, 0].astype(kind[1:])


def read_continuum_pixels(path: str | Path) -> xr.DataArray:
    """A map of continuum pixels from an .npz file as the course hands it out.

    Parameters
    ----------
    path : str or Path
        The file holds a 1-D boolean array (`trusted`, in some copies `continuum`) and the
        wavelengths of the pixels in Angstrom, vacuum (`wavelengths` or `wavelength`); without them
        7214 values are those of the course's grid.

    Returns
    -------
    xarray.DataArray
        Booleans over wavelength. Wavelengths that belong to the survey's grid become exactly those.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is damaged, too large, or holds something else.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "map.npz"
    >>> np.savez(path, trusted=np.arange(GRID.size) % 10 == 0)
    >>> int(read_continuum_pixels(path).sum())
    722
    """
    check_size(path, "spectrum")
    with wrap_read_errors(path, "a readable .npz file with a continuum map"):
        arrays = npz.arrays(path, LIMITS["spectrum"])
        booleans = [name for name, array in arrays.items() if array.dtype == bool]
        trusted = next(
            (arrays[n] for n in ("trusted", "continuum", *booleans) if n in arrays), np.empty(0)
        )
        if trusted.ndim != 1 or trusted.dtype != bool or not trusted.any():
            raise ValueError(
                f"no 1-D boolean array with continuum pixels among {', '.join(arrays) or 'nothing'}"
            )
        default = WAVELENGTH[GRID] if trusted.size == GRID.size else None
        wavelength = arrays.get("wavelengths", arrays.get("wavelength", default))
        return xr.DataArray(
            trusted, {"wavelength": _on_grid(wavelength, trusted.size)}, name="continuum_pixels"
        )


def _on_grid(wavelength: np.ndarray | None, size: int) -> np.ndarray:
    """Wavelengths, those within 1e-9 of a pixel of the survey's grid exactly on it."""
    if wavelength is None or wavelength.shape != (size,) or wavelength.dtype.kind != "f":
        raise ValueError(f"no array of {size} wavelengths beside the continuum pixels")
    if not (np.all(np.diff(wavelength) > 0) and 3000 < wavelength[0] < wavelength[-1] < 30000):
        raise ValueError("its wavelengths are not increasing numbers in Angstrom")
    nearest = WAVELENGTH[np.searchsorted((WAVELENGTH[1:] + WAVELENGTH[:-1]) / 2, wavelength)]
    return np.where(abs(wavelength / nearest - 1) < 1e-9, nearest, wavelength)
