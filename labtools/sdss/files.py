"""Files of stars as the archive keeps them: where each lies, whether it is whole, a compact form of it."""

import math
import re
import threading
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits

from labtools.apstar import read_apstar
from labtools.cache import writing
from labtools.errors import BadFile
from labtools.spectra import GRID, LAB_BITS, WAVELENGTH

__all__ = [
    "check_whole",
    "copies_of",
    "expected_bytes",
    "pack",
    "place_of",
    "read_checksums",
    "read_continuum_pixels",
    "read_star",
]

STARS = "dr17/apogee/spectro/redux/dr17/stars"
TELESCOPES = ("apo25m", "apo1m", "lco25m")
_NAME = r"[A-Za-z0-9+_-][A-Za-z0-9+_.-]{0,63}"
_IMAGES = {"flux": np.float32, "error": np.float32, "mask": np.int32}
_ONE_READER = threading.Lock()  # astropy's warnings are caught, and their filters belong to all threads


def place_of(row):
    """Path of a star's file below the SAS by `telescope`, `field` and `file` of its row in the catalogue.

    Raises ValueError if one of them is not a name of the kind that the archive uses: what a table says is
    never trusted to be a path.
    """
    telescope, field, file = row["telescope"], row["field"], row["file"]
    if not file:
        raise ValueError("the catalogue names no file for this star")
    if telescope not in TELESCOPES:
        raise ValueError(f"refused: telescope {telescope!r} is none of {', '.join(TELESCOPES)}")
    if not re.fullmatch(_NAME, field):
        raise ValueError(f"refused: {field!r} is no field name")
    if not re.fullmatch(rf"a[ps]Star-dr17-{_NAME}\.fits", file):
        raise ValueError(f"refused: {file!r} is no name of an apStar file")
    return f"{STARS}/{telescope}/{field}/{file}"


def copies_of(place, folders):
    """Files that hold the star at `place`, as a whole or packed, in `folders` of caches."""
    paths = (path for folder in folders for path in (folder / "sas" / place, folder / "arrays" / f"{place}.npz"))
    return [path for path in paths if path.is_file()]


def expected_bytes(nvisits):
    """About the size of an apStar file of DR17: 7 images of 4 bytes a pixel, and tables."""
    visits = np.maximum(np.asarray(nvisits, float), 1)
    return (np.where(visits > 1, visits + 2, 2) * 7 * 4 * WAVELENGTH.size + 60e3).sum()


def check_whole(path, star):
    """Raise BadFile, saying what is wrong, unless `path` is a whole FITS file of `star`."""
    path = Path(path)
    with open(path, "rb") as file:
        start = file.read(512)
    if not start.startswith(b"SIMPLE  ="):
        html = b"<" in start.lstrip()[:1] or b"<html" in start.lower()
        raise BadFile("an HTML page, perhaps of the network's login" if html else "not a FITS file")
    try:
        headers, end = _headers(path)
        found = str(headers[0]["OBJID"]).strip()
    except Exception as fault:  # astropy raises many kinds on damaged headers
        raise BadFile(f"a damaged FITS file ({fault})") from fault
    size = path.stat().st_size
    if len(headers) < 4 or end != size:
        raise BadFile(f"not a whole file: {size} bytes, and {len(headers)} HDUs of {end} bytes")
    if found != star:
        raise BadFile(f"the spectrum of another star, {found}")


def _headers(path):
    """Headers of all HDUs of a FITS file, and where the last one ends by them (FITS standard 4.0, §3-4)."""
    headers, end, size = [], 0, path.stat().st_size
    with open(path, "rb") as file:
        while end < size:
            file.seek(end)
            header = _header(file)
            shape = [header[f"NAXIS{axis + 1}"] for axis in range(header["NAXIS"])]
            pixels = header.get("PCOUNT", 0) + math.prod(shape) if shape else 0
            bytes_ = abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1) * pixels
            if bytes_ < 0:
                raise ValueError(f"HDU {len(headers)} has a size of {bytes_} bytes")
            headers.append(header)
            end = file.tell() + -(-bytes_ // 2880) * 2880
    return headers, end


def _header(file):
    """The header that begins where `file` stands; raises ValueError if none does."""
    text = ""
    while not any(text[at : at + 80].rstrip() == "END" for at in range(len(text) - 80, len(text) - 2881, -80)):
        block = file.read(2880).decode("latin-1")
        begun = (text or block).startswith(("SIMPLE  =", "XTENSION="))
        if len(block) < 2880 or "\0" in block or not begun:
            raise ValueError("no whole header where one should begin")
        text += block
    return fits.Header.fromstring(text)


def read_checksums(path):
    """File name -> sha1, from a list of the archive. Raises ValueError if it is no such list."""
    text = Path(path).read_text(encoding="ascii", errors="replace")
    sums = {name: sha1 for sha1, name in re.findall(r"^([0-9a-f]{40})\s+\*?(?:\S*/)?([^/\s]+)\s*$", text, re.M)}
    if not sums:
        raise ValueError("not a list of sha1 checksums")
    return sums


def read_star(path, star):
    """Dataset with one star from its apStar file, or from the compact form of it.

    Raises BadFile if the file is damaged, of another star, or not on the survey's 8575 pixels.
    """
    with _ONE_READER:
        spectrum = _unpack(path) if Path(path).suffix == ".npz" else read_apstar(path)
    if spectrum.star.item() != star:
        raise BadFile(f"{path}: the spectrum of {spectrum.star.item()}, not of {star}")
    wavelength = spectrum.wavelength.values
    if wavelength.shape != WAVELENGTH.shape or not np.allclose(wavelength, WAVELENGTH, rtol=1e-9, atol=0):
        raise BadFile(f"{path}: {wavelength.size} pixels that are not the {WAVELENGTH.size} of the survey")
    return spectrum


def pack(source, path):
    """Keep flux, error and mask of the combined spectrum of an apStar file, exactly, in a small file.

    The bytes of each image are stored by their significance, which lets zlib compress them. Returns `path`.
    """
    spectrum = read_apstar(source, bits=0)
    images = {name: _by_significance(spectrum[name].values[0], kind) for name, kind in _IMAGES.items()}
    with writing(path) as part, open(part, "wb") as file:
        np.savez_compressed(file, star=spectrum.star.values, **images)
    return path


def _by_significance(image, kind):
    return np.ascontiguousarray(image.astype(np.dtype(kind).newbyteorder("<")).view(np.uint8).reshape(-1, 4).T)


def _unpack(path):
    """What `read_apstar` would read from the file that was packed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            star = str(file["star"].item())
            images = {name: _from_bytes(file[name], kind) for name, kind in _IMAGES.items()}
    except FileNotFoundError:
        raise
    except Exception as fault:  # numpy and zipfile raise many kinds on damaged files
        raise BadFile(f"{path}: not a packed spectrum, or a damaged one ({fault})") from fault
    masked = images["mask"] & int(LAB_BITS) != 0
    images["error"] = np.where(masked, np.float32(np.inf), images["error"])
    dims = ("star", "wavelength")
    return xr.Dataset(
        {name: (dims, image[None]) for name, image in images.items()},
        coords={"star": [star], "wavelength": WAVELENGTH},
    )


def _from_bytes(planes, kind):
    if planes.shape != (4, WAVELENGTH.size) or planes.dtype != np.uint8:
        raise ValueError(f"{planes.dtype} of shape {planes.shape}")
    little = np.ascontiguousarray(planes.T).view(np.dtype(kind).newbyteorder("<"))[:, 0]
    return little.astype(kind)


def read_continuum_pixels(path):
    """A map of continuum pixels from an .npz file as the course hands it out.

    The file holds a 1-D boolean array (`trusted`, in some copies `continuum`) and the wavelengths of the
    pixels in Angstrom, vacuum (`wavelengths` or `wavelength`); without them 7214 values are those of the
    course's grid.

    Returns
    -------
    boolean DataArray over `wavelength`; wavelengths that belong to the survey's grid are exactly those of it.

    Raises
    ------
    FileNotFoundError, or ValueError saying what is wrong with the file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise
    except Exception as fault:  # numpy and zipfile raise many kinds on damaged files
        raise ValueError(f"{path}: not a readable .npz file ({fault})") from fault
    trusted = next((arrays[name] for name in ("trusted", "continuum") if name in arrays), None)
    if trusted is None:
        trusted = next((array for array in arrays.values() if array.dtype == bool), None)
    if trusted is None or trusted.ndim != 1 or trusted.dtype != bool or not trusted.any():
        raise ValueError(
            f"{path}: no 1-D boolean array with the continuum pixels among {', '.join(arrays) or 'nothing'}"
        )
    wavelength = arrays.get("wavelengths", arrays.get("wavelength"))
    if wavelength is None and trusted.size == GRID.size:
        wavelength = WAVELENGTH[GRID]
    return xr.DataArray(
        trusted, coords={"wavelength": _on_grid(path, wavelength, trusted.size)}, name="continuum_pixels"
    )


def _on_grid(path, wavelength, size):
    if wavelength is None or wavelength.shape != (size,) or wavelength.dtype.kind != "f":
        raise ValueError(f"{path}: no array of {size} wavelengths beside the continuum pixels")
    if not (np.all(np.diff(wavelength) > 0) and 3000 < wavelength[0] < wavelength[-1] < 30000):
        raise ValueError(f"{path}: its wavelengths are not increasing numbers in Angstrom")
    nearest = WAVELENGTH[np.searchsorted((WAVELENGTH[1:] + WAVELENGTH[:-1]) / 2, wavelength)]
    return np.where(abs(wavelength / nearest - 1) < 1e-9, nearest, wavelength)
