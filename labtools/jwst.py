"""One star seen by two instruments: matching by name, APOGEE brought to NIRSpec's resolution, spectra brought to rest."""

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d, percentile_filter

from apogee_archive.grid import LIGHT
from apogee_archive.jwst_pair import (
    ELEMENTS,
    Pair,
    catalog_in_x_h,
    index_of,
    name_of,
    read_catalog,
    read_jwst,
)
from apogee_archive.nirspec import read_spec1d

__all__ = [
    "ELEMENTS", "Pair", "catalog_in_x_h", "convolve_to_resolution", "divide_running_percentile", "index_of", "match",
    "name_of", "radial_velocity", "read_catalog", "read_jwst", "read_spec1d",
]  # fmt: skip


def match(catalog, labels):
    """Names of stars that both sides have, each star once, in the order of the catalog; and what became of all rows.

    Of rows with the same apogee_id the first that has a model is kept. The second result is a Series of numbers of
    rows.
    """
    rows = catalog[catalog.index.isin(labels.index)]
    repeated = rows.apogee_id.duplicated()
    names = rows.index[~repeated]
    counts = {
        "rows of the catalog": len(catalog),
        "rows of the JWST file": len(labels),
        "only in the catalog": len(catalog) - len(rows),
        "only in the JWST file": int((~labels.index.isin(catalog.index)).sum()),
        "further rows of a star": int(repeated.sum()),
        "matched stars": len(names),
    }
    return names, pd.Series(counts, name="count")


def convolve_to_resolution(spectra, resolution, wavelength, own=22500):
    """Spectra as an instrument of lower resolution sees them, on its pixels: DataArray (star, wavelength).

    spectra : Dataset of flux and error on a grid that is even in the logarithm of wavelength, of the resolution `own`.
    NaN where a twentieth or more of the light comes from pixels that must not count.
    """
    step = np.log(float(spectra.wavelength[1] / spectra.wavelength[0]))
    sigma = np.sqrt(float(resolution) ** -2 - own**-2) / np.sqrt(8 * np.log(2)) / step
    good = np.isfinite(spectra.error.values).astype(float)
    share = gaussian_filter1d(good, sigma, axis=1)
    flux = gaussian_filter1d(spectra.flux.values * good, sigma, axis=1) / np.maximum(share, 1e-9)
    return spectra.flux.copy(data=np.where(share > 0.95, flux, np.nan)).interp(
        wavelength=wavelength
    )


def divide_running_percentile(spectrum, width=120.0, percent=80):
    """A DataArray over wavelength divided by a running percentile in windows of `width` Angstrom, smoothed.

    A continuum good enough to compare. Gaps are bridged pixel by pixel: the window counts pixels, not Angstrom.
    """
    size = max(5, round(width / float(np.median(np.diff(spectrum.wavelength)))))
    upper = percentile_filter(np.asarray(spectrum.values, float), percent, size=size)
    return spectrum / gaussian_filter1d(upper, size / 4)


def radial_velocity(spectrum, model, limit=200.0):
    """Radial velocity (km/s) at which a model correlates best with a spectrum, and the coefficient there.

    spectrum, model : flattened DataArrays over wavelength (Angstrom): observed with NaN where a pixel must not count,
    and at rest. Pixels off the model's grid do not count.
    """
    grid, edge, wave = (
        np.arange(-limit, limit + 1, 2.0),
        1 + limit / LIGHT,
        spectrum.wavelength.values,
    )
    inside = np.isfinite(spectrum.values) & (np.abs(spectrum.values - 1) < 0.3)
    inside &= (wave > float(model.wavelength[0]) * edge) & (
        wave < float(model.wavelength[-1]) / edge
    )
    observed = spectrum.values[inside]
    shifted = [np.interp(wave[inside] / (1 + v / LIGHT), model.wavelength, model) for v in grid]
    correlation = np.array([np.corrcoef(observed, one)[0, 1] for one in shifted])
    best = int(correlation.argmax())
    return float(grid[best]), float(correlation[best])
