"""One apStar file: flux, error and pixel mask of the combined spectrum of a star.

Format: the apStar data model of SDSS DR17 (Abdurro'uf et al. 2022, ApJS 259, 35) and its predecessors.
"""

import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits

from labtools.errors import BadFile
from labtools.spectra import LAB_BITS, usable

__all__ = ["read_apstar"]


def read_apstar(path, bits=LAB_BITS):
    """The combined spectrum of one apStar (or asStar) file.

    It is row 0 of two-dimensional images, or the whole of one-dimensional ones (files of one visit before DR17).
    Row 1 is never used: in DR17 it has no mask, and no flux either when there was a single visit.

    Parameters
    ----------
    path : path of the FITS file.
    bits : the `PixMask` that makes a pixel unusable.

    Returns
    -------
    Dataset with dims star (1) and wavelength (Angstrom, vacuum, rest frame): `flux` and `error` (float32,
    1e-17 erg/s/cm2/Angstrom) and `mask` (int32). A pixel that must not count - one of `bits`, flux zero or not
    finite, error not positive or not finite - has error = inf and finite flux. The header's SNR, NVISITS and the
    pixel limits of the chips are attributes.

    Raises
    ------
    FileNotFoundError if there is no such file, BadFile if it is damaged or something else.
    """
    path = Path(path)
    header, (flux, error, mask) = _read_images(path)
    wavelength = _wavelength(path, header, flux.size)
    good = (mask & int(bits) == 0) & (flux != 0) & usable(flux, error)
    star = str(header.get("OBJID", path.stem)).strip()
    attrs = {name: header[key] for name, key in _ATTRIBUTES.items() if isinstance(header.get(key), int | float)}
    return xr.Dataset(
        {
            "flux": (("star", "wavelength"), np.where(np.isfinite(flux), flux, 0)[None]),
            "error": (("star", "wavelength"), np.where(good, error, np.inf)[None]),
            "mask": (("star", "wavelength"), mask[None].astype(np.int32)),
        },
        coords={"star": [star], "wavelength": ("wavelength", wavelength, {"units": "Angstrom, vacuum"})},
        attrs={"units": "1e-17 erg/s/cm2/Angstrom", "source": path.name, **attrs},
    )


_ATTRIBUTES = {"snr": "SNR", "nvisits": "NVISITS"} | {
    f"{chip}_{end}": f"{chip[0].upper()}{end.upper()}" for chip in ("blue", "green", "red") for end in ("min", "max")
}
_KEYS = ("OBJID", "NWAVE", "CRVAL1", "CDELT1", *_ATTRIBUTES.values())


def _read_images(path):
    """What the header says and the first rows of flux, error and mask, in native byte order."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated.*")
            with fits.open(path, memmap=False) as hdus:
                if len(hdus) < 4:
                    raise BadFile(f"{path}: {len(hdus)} HDUs where apStar has flux, error and mask in HDUs 1-3")
                headers = (hdus[0].header, hdus[1].header)
                header = {key: part[key] for part in headers for key in _KEYS if key in part}
                images = [_first_row(path, number, hdus[number].data) for number in (1, 2, 3)]
    except (BadFile, FileNotFoundError, PermissionError):
        raise
    except Exception as fault:  # astropy raises many kinds on damaged files
        raise BadFile(f"{path}: not a readable FITS file, or a damaged one ({fault})") from fault
    sizes = [image.size for image in images]
    if len(set(sizes)) != 1:
        raise BadFile(f"{path}: flux, error and mask have {sizes} pixels, they must be equal")
    flux, error, mask = images
    if mask.dtype.kind not in "iu":
        raise BadFile(f"{path}: HDU 3 holds {mask.dtype} numbers, a bitmask must be integer")
    unsigned = mask.view(f"u{mask.dtype.itemsize}").astype(np.int64)
    return header, (flux.astype(np.float32), error.astype(np.float32), unsigned)


def _first_row(path, number, image):
    """Row 0 of a 2-D image or the whole of a 1-D one."""
    if image is None or image.dtype.names or image.ndim not in (1, 2) or image.size == 0:
        what = "nothing" if image is None else "a table" if image.dtype.names else f"an array of shape {image.shape}"
        raise BadFile(f"{path}: HDU {number} holds {what} where apStar has rows of pixels")
    row = np.atleast_2d(image)[0]
    return np.ascontiguousarray(row.astype(row.dtype.newbyteorder("=")))


def _wavelength(path, header, n_pixels):
    """Wavelengths (Angstrom) by the header's logarithmic scale."""
    try:
        start, step = float(header["CRVAL1"]), float(header["CDELT1"])
    except (KeyError, TypeError, ValueError) as fault:
        raise BadFile(f"{path}: CRVAL1 and CDELT1, the wavelength scale, are missing or not numbers") from fault
    if not (3 < start < 5 and 1e-8 < step < 1e-2):
        raise BadFile(f"{path}: CRVAL1={start}, CDELT1={step} is no log10 wavelength scale in Angstrom")
    if header.get("NWAVE", n_pixels) != n_pixels:
        raise BadFile(f"{path}: {n_pixels} pixels, but the header promises NWAVE={header['NWAVE']}")
    return 10 ** (start + step * np.arange(n_pixels))
