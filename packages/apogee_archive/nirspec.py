"""NIRSpec beside APOGEE: spectra brought to its resolution, and real ones that PypeIt extracted, brought to rest."""

import io
from pathlib import Path

import numpy as np
import xarray as xr
from astropy.io import fits
from scipy.ndimage import gaussian_filter1d, percentile_filter

from labtools.errors import reading
from labtools.formats.fitsfile import fits_headers
from labtools.spectra import LIGHT

__all__ = ["at_resolution", "flatten", "read_spec1d", "velocity_of"]

NEEDED = ("OPT_WAVE", "OPT_COUNTS", "OPT_COUNTS_IVAR", "OPT_MASK")


def at_resolution(spectra, resolution, wavelength, own=22500):
    """Spectra as an instrument of lower resolution sees them, on its pixels: DataArray (star, wavelength).

    spectra : Dataset of flux and error on a grid that is even in the logarithm of wavelength, of the resolution `own`.
    NaN where a twentieth or more of the light comes from pixels that must not count.
    """
    step = np.log(float(spectra.wavelength[1] / spectra.wavelength[0]))
    sigma = np.sqrt(float(resolution) ** -2 - own**-2) / np.sqrt(8 * np.log(2)) / step
    good = np.isfinite(spectra.error.values).astype(float)
    share = gaussian_filter1d(good, sigma, axis=1)
    flux = gaussian_filter1d(spectra.flux.values * good, sigma, axis=1) / np.maximum(share, 1e-9)
    return spectra.flux.copy(data=np.where(share > 0.95, flux, np.nan)).interp(wavelength=wavelength)


def read_spec1d(path):
    """One star of a PypeIt `spec1d` file: Dataset (star, wavelength), as observed, the better of several extractions.

    flux and error in counts, wavelength in vacuum Angstrom; masked pixels have error = inf. Raises BadFile if the file
    is damaged or has no optimal extraction, FileNotFoundError if there is none.
    """
    path = Path(path)
    with reading(path.name, "a spec1d file of PypeIt"):
        content = path.read_bytes()
        fits_headers(content)
        with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
            target = str(hdus[0].header.get("TARGET", path.stem))
            tables = [h.data for h in hdus[1:] if set(NEEDED) <= set(getattr(getattr(h, "columns", None), "names", ()))]
            found = [one for one in (_extraction(table, target) for table in tables) if one is not None]
        if not found:
            raise ValueError("it holds no optimally extracted spectrum (OPT_WAVE, OPT_COUNTS, ...)")
        return max(found, key=lambda one: np.median(one.flux / one.error))


def _extraction(data, target):
    wavelength, flux, weight = (np.asarray(data[name], float) for name in NEEDED[:3])
    good = np.asarray(data["OPT_MASK"], bool) & np.isfinite(flux) & np.isfinite(weight) & (weight > 0)
    seen = np.isfinite(wavelength) & (wavelength > 1000)
    if (good & seen).sum() < 100:
        return None
    error = np.where(good, 1 / np.sqrt(np.where(good, weight, 1)), np.inf)
    order = np.flatnonzero(seen)[np.argsort(wavelength[seen], kind="stable")]
    order = order[np.r_[True, np.diff(wavelength[order]) > 0]]
    values = {"flux": np.where(good, flux, 0), "error": error}
    arrays = {name: (("star", "wavelength"), value[None, order]) for name, value in values.items()}
    return xr.Dataset(arrays, coords={"star": [target], "wavelength": wavelength[order]})


def flatten(spectrum, width=120.0, percent=80):
    """A DataArray over wavelength divided by a running percentile in windows of `width` Angstrom, smoothed.

    A continuum good enough to compare. Gaps are bridged pixel by pixel: the window counts pixels, not Angstrom.
    """
    size = max(5, round(width / float(np.median(np.diff(spectrum.wavelength)))))
    upper = percentile_filter(np.asarray(spectrum.values, float), percent, size=size)
    return spectrum / gaussian_filter1d(upper, size / 4)


def velocity_of(spectrum, model, limit=200.0):
    """Radial velocity (km/s) at which a model correlates best with a spectrum, and the coefficient there.

    spectrum, model : flattened DataArrays over wavelength (Angstrom): observed with NaN where a pixel must not count,
    and at rest. Pixels off the model's grid do not count.
    """
    grid, edge, wave = np.arange(-limit, limit + 1, 2.0), 1 + limit / LIGHT, spectrum.wavelength.values
    inside = np.isfinite(spectrum.values) & (np.abs(spectrum.values - 1) < 0.3)
    inside &= (wave > float(model.wavelength[0]) * edge) & (wave < float(model.wavelength[-1]) / edge)
    observed = spectrum.values[inside]
    shifted = [np.interp(wave[inside] / (1 + v / LIGHT), model.wavelength, model) for v in grid]
    correlation = np.array([np.corrcoef(observed, one)[0, 1] for one in shifted])
    best = int(correlation.argmax())
    return float(grid[best]), float(correlation[best])
