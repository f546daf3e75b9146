"""Real NIRSpec spectra, as PypeIt extracts them (`spec1d` files)."""

import io
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits

from apogee_archive.errors import wrap_read_errors
from apogee_archive.fits_headers import fits_headers

__all__ = ["read_spec1d"]

NEEDED = ("OPT_WAVE", "OPT_COUNTS", "OPT_COUNTS_IVAR", "OPT_MASK")


def read_spec1d(path):
    """One star of a PypeIt `spec1d` file: Dataset (star, wavelength), as observed, the better of several extractions.

    flux and error in counts, wavelength in vacuum Angstrom; masked pixels have error = inf. Raises CorruptFileError if the file
    is damaged or has no optimal extraction, FileNotFoundError if there is none.
    """
    path = Path(path)
    with wrap_read_errors(path.name, "a spec1d file of PypeIt"):
        content = path.read_bytes()
        fits_headers(content)
        with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
            target = str(hdus[0].header.get("TARGET", path.stem))
            tables = [
                h.data
                for h in hdus[1:]
                if set(NEEDED) <= set(getattr(getattr(h, "columns", None), "names", ()))
            ]
            found = [
                one for one in (_extraction(table, target) for table in tables) if one is not None
            ]
        if not found:
            raise ValueError("it holds no optimally extracted spectrum (OPT_WAVE, OPT_COUNTS, ...)")
        return max(found, key=lambda one: np.median(one.flux / one.error))


def _extraction(data, target):
    wavelength, flux, weight = (np.asarray(data[name], float) for name in NEEDED[:3])
    good = (
        np.asarray(data["OPT_MASK"], bool) & np.isfinite(flux) & np.isfinite(weight) & (weight > 0)
    )
    seen = np.isfinite(wavelength) & (wavelength > 1000)
    if (good & seen).sum() < 100:
        return None
    error = np.where(good, 1 / np.sqrt(np.where(good, weight, 1)), np.inf)
    order = np.flatnonzero(seen)[np.argsort(wavelength[seen], kind="stable")]
    order = order[np.r_[True, np.diff(wavelength[order]) > 0]]
    values = {"flux": np.where(good, flux, 0), "error": error}
    arrays = {name: (("star", "wavelength"), value[None, order]) for name, value in values.items()}
    return xr.Dataset(arrays, coords={"star": [target], "wavelength": wavelength[order]})
