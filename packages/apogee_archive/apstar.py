"""One apStar file: flux, error and pixel mask of the combined spectrum of a star.

Format: the apStar data model of SDSS DR17 (Abdurro'uf et al. 2022, ApJS 259, 35) and its predecessors.
"""

from pathlib import Path

import numpy as np
import xarray as xr

from apogee_archive.bitmasks import LAB_BITS, usable
from apogee_archive.errors import CorruptFileError, wrap_read_errors
from apogee_archive.fits_headers import TYPES, fits_headers
from apogee_archive.grid import WAVELENGTH

__all__ = ["parse_apstar", "read_apstar"]

LIMIT = 64 * 2**20  # bytes of a file
PIXELS = 100_000  # of a spectrum
_ATTRIBUTES = {"snr": "SNR", "nvisits": "NVISITS"} | {
    f"{chip}_{end}": f"{chip[0].upper()}{end.upper()}"
    for chip in ("blue", "green", "red")
    for end in ("min", "max")
}


def read_apstar(path, bits=LAB_BITS):
    """The combined spectrum of one apStar (or asStar) file.

    It is row 0 of two-dimensional images, or the whole of one-dimensional ones (files of one visit before DR17).
    Row 1 is never used: in DR17 it has no mask, and no flux either when there was a single visit.

    Returns a Dataset over star (1) and wavelength (Angstrom, vacuum, rest frame): `flux` and `error` (float32,
    1e-17 erg/s/cm2/Angstrom) and `mask` (int32). A pixel that must not count - one of the `PixMask` `bits`, flux zero
    or not finite, error not positive or not finite - has error = inf and finite flux. The header's SNR, NVISITS and
    the pixel limits of the chips are attributes.
    Raises FileNotFoundError, or CorruptFileError if the file is damaged, cut off, too large or something else.
    """
    if Path(path).stat().st_size > LIMIT:
        raise CorruptFileError(f"{path}: too large for an apStar file")
    return parse_apstar(Path(path).read_bytes(), path, bits)


def parse_apstar(content, source, bits=LAB_BITS):
    """As `read_apstar`, from the bytes of a file; `source` names it in messages."""
    with wrap_read_errors(source, "an apStar file"):
        headers = fits_headers(content)
        if len(headers) < 4:
            raise ValueError(
                f"{len(headers)} HDUs where apStar has flux, error and mask in HDUs 1-3"
            )
        header = headers[1][0] | headers[0][0]
        flux, error, mask = (_first_row(content, *headers[number]) for number in (1, 2, 3))
        if not flux.size == error.size == mask.size == header.get("NWAVE", flux.size):
            raise ValueError(
                f"images of {flux.size}, {error.size}, {mask.size} pixels, NWAVE = {header.get('NWAVE')}"
            )
        if mask.dtype.kind not in "iu":
            raise ValueError(f"a mask of {mask.dtype} numbers, it must be integer")
        with np.errstate(over="ignore"):
            flux, error = flux.astype("f4"), error.astype("f4")
        mask = (
            mask.astype(mask.dtype.newbyteorder("=")).view(f"u{mask.dtype.itemsize}").astype("i8")
        )
        good = (mask & int(bits) == 0) & (flux != 0) & usable(flux, error)
        axes = ("star", "wavelength")
        return xr.Dataset(
            {
                "flux": (axes, np.where(np.isfinite(flux), flux, 0)[None]),
                "error": (axes, np.where(good, error, np.inf)[None]),
                "mask": (axes, mask[None].astype("i4")),
            },
            coords={
                "star": [str(header.get("OBJID", Path(source).stem)).strip()],
                "wavelength": (
                    "wavelength",
                    _wavelength(header, flux.size),
                    {"units": "Angstrom, vacuum"},
                ),
            },
            attrs={"units": "1e-17 erg/s/cm2/Angstrom", "source": Path(source).name}
            | {
                name: header[key]
                for name, key in _ATTRIBUTES.items()
                if isinstance(header.get(key), int | float)
            },
        )


def _first_row(content, header, start):
    """Row 0 of a 2-D image, or the whole of a 1-D one."""
    if header.get("XTENSION") != "IMAGE" or header["NAXIS"] not in (1, 2):
        raise ValueError(
            f"a {header.get('XTENSION')} of {header['NAXIS']} axes where apStar has rows of pixels"
        )
    if (header.get("BSCALE", 1), header.get("BZERO", 0)) != (1, 0):
        raise ValueError("an image that is scaled")
    if not 0 < header["NAXIS1"] <= PIXELS or header.get("NAXIS2") == 0:
        raise ValueError(
            f"an image of {header['NAXIS1']} pixels, and {header.get('NAXIS2', 1)} rows"
        )
    return np.frombuffer(content, TYPES[header["BITPIX"]], header["NAXIS1"], start)


def _wavelength(header, pixels):
    """Wavelengths (Angstrom) by the header's logarithmic scale."""
    start, step = header.get("CRVAL1"), header.get("CDELT1")
    if not all(isinstance(number, float) for number in (start, step)) or not (
        3 < start < 5 and 1e-8 < step < 1e-2
    ):
        raise ValueError(
            f"CRVAL1 = {start}, CDELT1 = {step} is no log10 wavelength scale in Angstrom"
        )
    return (
        WAVELENGTH
        if (start, step, pixels) == (4.179, 6e-6, 8575)
        else 10 ** (start + step * np.arange(pixels))
    )
