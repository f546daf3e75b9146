"""Files of stars as the archive keeps them: where each lies, whether it is right, and a compact form of it."""

import hashlib
import io
import re
from contextlib import suppress

import numpy as np
import xarray as xr

from apogee_archive import npz
from apogee_archive.apstar import parse_apstar
from apogee_archive.bitmasks import LAB_BITS
from apogee_archive.cache import atomic_write
from apogee_archive.errors import CorruptFileError, wrap_read_errors
from apogee_archive.grid import GRID, WAVELENGTH

__all__ = [
    "check_star",
    "expected_bytes",
    "pack",
    "place_of",
    "read_checksums",
    "read_continuum_pixels",
    "read_star",
    "sums_in",
]

STARS = "dr17/apogee/spectro/redux/dr17/stars"
OWN = "received.sha1sum"  # what arrived where the archive has no list of its own
LIMIT = 64 * 2**20  # bytes of a file, unpacked
_RESERVED = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)(?:[./]|$))"
_NAME = rf"{_RESERVED}[A-Za-z0-9+_-](?:[A-Za-z0-9+_.-]{{0,62}}[A-Za-z0-9+_-])?"
_PLACE = re.compile(rf"(?:apo25m|apo1m|lco25m)/{_NAME}/a[ps]Star-dr17-{_NAME}\.fits")
_IMAGES = {"flux": "<f4", "error": "<f4", "mask": "<i4"}


def place_of(row):
    """Path of a star's file below the SAS by `telescope`, `field` and `file` of its row in the catalog.

    Raises ValueError if one of them is not a name of the kind that the archive uses, or one that a system reserves:
    what a table says is never trusted to be a path.
    """
    parts = [row[name] for name in ("telescope", "field", "file")]
    if not (isinstance(parts[-1], str) and parts[-1]):
        raise ValueError("the catalog names no file for this star")
    if not (all(isinstance(part, str) for part in parts) and _PLACE.fullmatch("/".join(parts))):
        raise ValueError(f"refused: {parts} is no telescope, field and apStar file of the archive")
    return "/".join([STARS, *parts])


def expected_bytes(nvisits):
    """About the size of an apStar file of DR17: 7 images of 4 bytes a pixel, and tables."""
    visits = np.fmax(np.asarray(nvisits, float), 1)
    return (np.where(visits > 1, visits + 2, 2) * 7 * 4 * WAVELENGTH.size + 60e3).sum()


def read_checksums(content):
    """File name -> sha1, from the bytes of a list of the archive. Raises ValueError if it is no such list."""
    found = re.findall(
        r"^([0-9a-f]{40})\s+\*?(?:\S*/)?([^/\s]+)\s*$", content.decode("ascii", "replace"), re.M
    )
    if not found:
        raise ValueError("not a list of sha1 checksums")
    return {name: sha1 for sha1, name in found}


def sums_in(folder):
    """File name -> sha1 by the lists in a folder; what the archive's own says counts."""
    sums = {}
    for path in sorted(folder.glob("*.sha1sum"), key=lambda path: path.name != OWN):
        with suppress(ValueError):
            sums |= read_checksums(path.read_bytes())
    return sums


def read_star(path, star, sha1=None):
    """Dataset with one star from its apStar file, or from the compact form of it (.npz).

    Raises CorruptFileError if the file is damaged, of another star, not on the survey's 8575 pixels, or not that of `sha1`.
    """
    if path.stat().st_size > LIMIT:
        raise CorruptFileError(f"{path}: too large for a star")
    return check_star(path.read_bytes(), path, star, sha1)


def check_star(content, source, star, sha1=None):
    """As `read_star`, from the bytes of a file; `source` names it in messages."""
    spectrum = (_unpack if str(source).endswith(".npz") else parse_apstar)(content, source)
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


def pack(content, path):
    """Keep flux, error and mask of the combined spectrum of an apStar file, exactly, in a small file.

    The bytes of each image are stored by their significance, which lets zlib compress them. Returns `path`.
    """
    spectrum = parse_apstar(content, path, bits=0)
    images = {name: spectrum[name].values[0].astype(kind) for name, kind in _IMAGES.items()}
    planes = {
        name: np.ascontiguousarray(image.view("u1").reshape(-1, 4).T)
        for name, image in images.items()
    }
    with atomic_write(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, star=spectrum.star.values, **planes)
    return path


def _unpack(content, source):
    """What `parse_apstar` would make of the file that was packed."""
    with wrap_read_errors(source, "a packed spectrum"):
        arrays = npz.arrays(io.BytesIO(content), LIMIT)
        images = {name: _image(arrays[name], kind) for name, kind in _IMAGES.items()}
        star = str(arrays["star"].item())
    masked = images["mask"] & int(LAB_BITS) != 0
    images["error"] = np.where(masked, np.float32(np.inf), images["error"])
    return xr.Dataset(
        {name: (("star", "wavelength"), image[None]) for name, image in images.items()},
        coords={"star": [star], "wavelength": WAVELENGTH},
    )


def _image(planes, kind):
    if planes.shape != (4, WAVELENGTH.size) or planes.dtype != np.uint8:
        raise ValueError(f"{planes.dtype} of shape {planes.shape}")
    return np.ascontiguousarray(planes.T).view(kind)[:, 0].astype(kind[1:])


def read_continuum_pixels(path):
    """A map of continuum pixels from an .npz file as the course hands it out: boolean DataArray over `wavelength`.

    The file holds a 1-D boolean array (`trusted`, in some copies `continuum`) and the wavelengths of the pixels in
    Angstrom, vacuum (`wavelengths` or `wavelength`); without them 7214 values are those of the course's grid.
    Wavelengths that belong to the survey's grid become exactly those of it. Raises FileNotFoundError, and CorruptFileError.
    """
    with wrap_read_errors(path, "a readable .npz file with a continuum map"):
        arrays = npz.arrays(path, LIMIT)
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


def _on_grid(wavelength, size):
    if wavelength is None or wavelength.shape != (size,) or wavelength.dtype.kind != "f":
        raise ValueError(f"no array of {size} wavelengths beside the continuum pixels")
    if not (np.all(np.diff(wavelength) > 0) and 3000 < wavelength[0] < wavelength[-1] < 30000):
        raise ValueError("its wavelengths are not increasing numbers in Angstrom")
    nearest = WAVELENGTH[np.searchsorted((WAVELENGTH[1:] + WAVELENGTH[:-1]) / 2, wavelength)]
    return np.where(abs(wavelength / nearest - 1) < 1e-9, nearest, wavelength)
