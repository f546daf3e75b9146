"""One apStar file: flux, error and pixel mask of the combined spectrum of a star.

Format: the apStar data model of SDSS DR17 (Abdurro'uf et al. 2022, ApJS 259, 35) and its
predecessors (www.sdss4.org/dr17/irspec/spectra).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from apogee_archive.bitmasks import LAB_BITS, usable
from apogee_archive.errors import wrap_read_errors
from apogee_archive.fits_headers import TYPES, fits_headers
from apogee_archive.grid import LOG_START, LOG_STEP, WAVELENGTH
from apogee_archive.limits import read_within

__all__ = ["log_wavelengths", "mask_pixels", "parse_apstar", "read_apstar"]

MAX_PIXELS = 100_000  # of one spectrum
FLUX, ERROR, MASK = 1, 2, 3  # numbers of the HDUs
# Name of an attribute of the Dataset -> keyword of the header.
_ATTRIBUTES = {"snr": "SNR", "nvisits": "NVISITS"} | {
    f"{chip}_{end}": f"{chip[0].upper()}{end.upper()}"
    for chip in ("blue", "green", "red")
    for end in ("min", "max")
}


def read_apstar(path: str | Path, bits: int = LAB_BITS) -> xr.Dataset:
    """The combined spectrum of one apStar (or asStar) file.

    It is row 0 of two-dimensional images, or the whole of one-dimensional ones (files of one visit
    before DR17). Row 1 is never used: in DR17 it has no mask, and no flux either when there was a
    single visit.

    Parameters
    ----------
    path : str or Path
        The FITS file.
    bits : int
        Sum of the bits of the pixel mask that make a pixel useless.

    Returns
    -------
    xarray.Dataset
        Dimensions star (1) and wavelength (Angstrom, vacuum, rest frame); `flux` and `error`
        (float32, 1e-17 erg/s/cm2/Angstrom), `mask` (int32). A pixel that must not count has
        error = inf and a finite flux: those with one of `bits`, with flux zero or not finite, with
        an error not positive or not finite. SNR, NVISITS and the pixel limits of the chips are
        attributes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is damaged, cut off, too large, something else, or if its wavelength scale is
        missing, linear or contradictory.

    References
    ----------
    Abdurro'uf et al. 2022, ApJS 259, 35.

    Examples
    --------
    >>> import tempfile
    >>> from astropy.io import fits
    >>> path = Path(tempfile.mkdtemp()) / "apStar-dr17-2M1.fits"
    >>> header = fits.Header({"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1})
    >>> images = [fits.ImageHDU(np.ones(9, kind), header) for kind in ("f4", "f4", "i4")]
    >>> fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    >>> read_apstar(path).wavelength.values[:2].round(2)
    array([15100.8 , 15101.01])
    """
    return parse_apstar(read_within(path, "spectrum"), path, bits)


def parse_apstar(content: bytes, source: str | Path, bits: int = LAB_BITS) -> xr.Dataset:
    """As `read_apstar`, from the bytes of a file; `source` names it in messages."""
    with wrap_read_errors(source, "an apStar file"):
        headers = fits_headers(content)
        if len(headers) < 4:
            raise ValueError(
                f"{len(headers)} HDUs where apStar has flux, error and mask in HDUs 1-3"
            )
        header = headers[FLUX][0] | headers[0][0]
        # Each of shape (pixel,).
        flux, error, mask = (_first_row(content, *headers[n]) for n in (FLUX, ERROR, MASK))
        if not flux.size == error.size == mask.size == header.get("NWAVE", flux.size):
            raise ValueError(
                f"images of {flux.size}, {error.size}, {mask.size} pixels, "
                f"NWAVE = {header.get('NWAVE')}"
            )
        if mask.dtype.kind not in "iu":
            raise ValueError(f"a mask of {mask.dtype} numbers, it must be integer")
        with np.errstate(over="ignore"):
            flux, error = flux.astype("f4"), error.astype("f4")
        mask = _unsigned(mask)
        good = (flux != 0) & usable(flux, error) & ~_has_bits(mask, bits)
        axes = ("star", "wavelength")
        wavelength = log_wavelengths([one for one, _ in headers[:4]], flux.size)
        return xr.Dataset(
            {
                "flux": (axes, np.where(np.isfinite(flux), flux, 0)[None]),
                "error": (axes, np.where(good, error, np.inf)[None]),
                "mask": (axes, mask[None]),
            },
            coords={
                "star": [str(header.get("OBJID", Path(source).stem)).strip()],
                "wavelength": ("wavelength", wavelength, {"units": "Angstrom, vacuum"}),
            },
            attrs={"units": "1e-17 erg/s/cm2/Angstrom", "source": Path(source).name}
            | {
                name: header[key]
                for name, key in _ATTRIBUTES.items()
                if isinstance(header.get(key), int | float)
            },
        )


def mask_pixels(spectra: xr.Dataset, bits: int = LAB_BITS) -> xr.Dataset:
    """Spectra with infinite errors where the mask has one of `bits`; other errors stay.

    Examples
    --------
    >>> raw = xr.Dataset({"error": ("pixel", np.float32([1, 2])), "mask": ("pixel", [0, 1])})
    >>> mask_pixels(raw).error.values
    array([ 1., inf], dtype=float32)
    """
    error, bad = spectra["error"], _has_bits(spectra["mask"].values, bits)
    return spectra.assign(error=error.copy(data=np.where(bad, np.float32(np.inf), error.values)))


def _has_bits(mask: np.ndarray, bits: int) -> np.ndarray:
    """Where a mask of 32 bits has one of `bits`; int64, so that bit 31 is a bit like others."""
    return mask.astype("i8") & 0xFFFFFFFF & int(bits) != 0


def _unsigned(mask: np.ndarray) -> np.ndarray:
    """A mask as int32. In old files of 16 bits the highest bit is the sign of the number."""
    native = mask.astype(mask.dtype.newbyteorder("="))
    return native.view(f"u{mask.dtype.itemsize}").astype("i8").astype("i4")


def _first_row(content: bytes, header: dict, start: int) -> np.ndarray:
    """Row 0 of a 2-D image, or the whole of a 1-D one: shape (pixel,)."""
    if header.get("XTENSION") != "IMAGE" or header["NAXIS"] not in (1, 2):
        raise ValueError(
            f"a {header.get('XTENSION')} of {header['NAXIS']} axes where apStar has rows of pixels"
        )
    if (header.get("BSCALE", 1), header.get("BZERO", 0)) != (1, 0):
        raise ValueError("an image that is scaled")
    if not 0 < header["NAXIS1"] <= MAX_PIXELS or header.get("NAXIS2") == 0:
        raise ValueError(
            f"an image of {header['NAXIS1']} pixels, and {header.get('NAXIS2', 1)} rows"
        )
    return np.frombuffer(content, TYPES[header["BITPIX"]], header["NAXIS1"], start)


def log_wavelengths(headers: list[dict], pixels: int) -> np.ndarray:
    """Wavelengths by the logarithmic scale of one or several headers of a file.

    The logarithm of pixel i = 0, 1, ... is CRVAL1 + CDELT1 (i + 1 - CRPIX1); CRPIX1 is 1 where it
    is not given. Pixels of the survey's own grid get exactly the wavelengths of that grid.

    Parameters
    ----------
    headers : list of dict
        Headers of the HDUs that may have the scale: all that do must have the same.
    pixels : int
        Number of pixels.

    Returns
    -------
    ndarray, shape (pixels,)
        Vacuum wavelengths, Angstrom.

    Raises
    ------
    ValueError
        If there is no such scale, or if two headers or two keywords contradict each other.

    References
    ----------
    Greisen et al. 2006, A&A 446, 747 (FITS paper III); the SDSS convention of DC-FLAG = 1.

    Examples
    --------
    >>> header = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": -99}
    >>> log_wavelengths([header], 3) == WAVELENGTH[100:103]
    array([ True,  True,  True])
    """
    scales = {_log_scale(header) for header in headers if _SCALE & header.keys()}
    if len(scales) != 1:
        raise ValueError(
            "it has no wavelength scale (CRVAL1, CDELT1)"
            if not scales
            else f"its HDUs have several scales (CRVAL1, CDELT1, CRPIX1): {sorted(scales)}"
        )
    [(start, step, reference)] = scales
    first = 1 - reference  # what CRVAL1 belongs to, counted from the first pixel
    on_grid = (start, step) == (LOG_START, LOG_STEP) and float(first).is_integer()
    if on_grid and 0 <= first <= WAVELENGTH.size - pixels:
        return WAVELENGTH[int(first) : int(first) + pixels]
    return 10 ** (start + step * (np.arange(pixels) + first))


_SCALE = {"CRVAL1", "CDELT1", "CD1_1", "CRPIX1"}


def _log_scale(header: dict) -> tuple[float, float, float]:
    """CRVAL1, CDELT1 and CRPIX1 of a header, once they are those of a log10 scale in Angstrom."""
    start: Any = header.get("CRVAL1")
    reference: Any = header.get("CRPIX1", 1)
    steps = {header[name] for name in ("CDELT1", "CD1_1") if name in header}
    if len(steps) > 1:
        raise ValueError(f"CDELT1 and CD1_1 differ: {sorted(map(str, steps))}")
    step: Any = steps.pop() if steps else None
    numbers = (start, step, reference)
    if not all(isinstance(one, float | int) for one in numbers) or not (
        3 < start < 5 and 1e-8 < step < 1e-2 and abs(reference) < MAX_PIXELS
    ):
        raise ValueError(
            f"CRVAL1 = {start}, CDELT1 = {step}, CRPIX1 = {reference} "
            "is no log10 wavelength scale in Angstrom"
        )
    kind, flag = str(header.get("CTYPE1", "LOG")), header.get("DC-FLAG", 1)
    if "LOG" not in kind.upper() or flag != 1:
        raise ValueError(
            f"CTYPE1 = {kind!r}, DC-FLAG = {flag}: its wavelength scale is not logarithmic"
        )
    return float(start), float(step), float(reference)
