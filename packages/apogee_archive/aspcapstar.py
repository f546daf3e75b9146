"""One aspcapStar file: the spectrum of a star as APOGEE's pipeline normalized it.

Format: the aspcapStar data model of SDSS DR17 (Abdurro'uf et al. 2022, ApJS 259, 35).
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from astropy.io import fits

from apogee_archive.apstar import log_wavelengths
from apogee_archive.errors import wrap_read_errors
from apogee_archive.fits_headers import fits_headers
from apogee_archive.grid import WAVELENGTH
from apogee_archive.limits import read_within

__all__ = ["read_aspcapstar"]


def read_aspcapstar(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Normalized flux and its error.

    Parameters
    ----------
    path : str or Path
        The FITS file; flux and error are its extensions 1 and 2.

    Returns
    -------
    flux, error : ndarray, shape (8575,)
        On `apogee_archive.grid.WAVELENGTH`, continuum 1, as the pipeline gives them.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    CorruptFileError
        If it is damaged, something else, or not on the wavelengths of the survey.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "aspcapStar-dr17-2M1.fits"
    >>> header = fits.Header({"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1})
    >>> images = [fits.ImageHDU(np.ones(8575, "f4"), header) for _ in range(2)]
    >>> fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    >>> [array.shape for array in read_aspcapstar(path)]
    [(8575,), (8575,)]
    """
    content = read_within(path, "spectrum")
    with wrap_read_errors(path, "an aspcapStar file"):
        headers = [header for header, _ in fits_headers(content)]
        with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
            flux, error = (np.asarray(hdus[number].data, float).ravel() for number in (1, 2))
        if not flux.size == error.size == WAVELENGTH.size:
            raise ValueError(f"it has {flux.size} pixels, not {WAVELENGTH.size}")
        # A file of this size without a scale can only be on the survey's grid.
        scaled = [header for header in headers[:3] if "CRVAL1" in header]
        if scaled and not np.array_equal(log_wavelengths(scaled, flux.size), WAVELENGTH):
            raise ValueError("it is not on the wavelengths of the survey")
    return flux, error
