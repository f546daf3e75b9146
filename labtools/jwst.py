"""One star seen by two instruments, APOGEE and JWST's NIRSpec.

Matching of the two files by name, spectra of one instrument brought to the resolution of the other,
and observed spectra brought to the rest frame.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import xarray as xr
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
from apogee_archive.nirspec import list_spec1d, read_spec1d

__all__ = [
    "ELEMENTS",
    "Pair",
    "catalog_in_x_h",
    "convolve_to_resolution",
    "divide_running_percentile",
    "index_of",
    "list_spec1d",
    "match",
    "name_of",
    "radial_velocity",
    "read_catalog",
    "read_jwst",
    "read_spec1d",
]

APOGEE_RESOLUTION = 22500  # Majewski et al. 2017, AJ 154, 94
FWHM = np.sqrt(8 * np.log(2))  # full width at half maximum of a Gaussian, in standard deviations
FEWEST_PIXELS = 50  # a correlation of fewer pixels finds a velocity in anything


def match(catalog: pd.DataFrame, labels: pd.DataFrame) -> tuple[pd.Index, pd.Series]:
    """Match the rows of the catalog and of the JWST file by name, each star once.

    Parameters
    ----------
    catalog : DataFrame
        Indexed by the name of the model, with a column `apogee_id`, see `read_catalog`.
    labels : DataFrame
        Indexed by the name of the model, see `read_jwst`.

    Returns
    -------
    names : Index
        Names of the stars that both files have, in the order of the catalog. Of several rows with
        the same `apogee_id` the first that has a model is kept.
    counts : Series
        What became of all rows.

    Raises
    ------
    ValueError
        If a name occurs twice in one of the tables.

    Examples
    --------
    >>> catalog = pd.DataFrame({"apogee_id": ["2M1", "2M2", "2M1"]}, index=["a", "b", "c"])
    >>> names, counts = match(catalog, pd.DataFrame(index=["a", "c"]))
    >>> list(names), int(counts["further rows of a star"])
    (['a'], 1)
    """
    for what, index in (("catalog", catalog.index), ("JWST file", labels.index)):
        if not index.is_unique:
            raise ValueError(f"a name occurs twice in the {what}: {index[index.duplicated()][0]}")
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


def convolve_to_resolution(
    spectra: xr.Dataset,
    resolution: float,
    wavelength: np.ndarray,
    native_resolution: float = APOGEE_RESOLUTION,
) -> xr.DataArray:
    """Spectra as an instrument of lower resolution would see them.

    Parameters
    ----------
    spectra : Dataset (star, wavelength)
        `flux` and `error` on a grid that is even in the logarithm of wavelength, as APOGEE's.
    resolution
        The resolution to reach, wavelength / FWHM of a line.
    wavelength : array (pixel,)
        The pixels of the other instrument, in Angstrom.
    native_resolution
        The resolution that the spectra have; by default APOGEE's.

    Returns
    -------
    DataArray (star, wavelength)
        The flux; NaN outside the spectra, and where a twentieth or more of the light would come
        from pixels with infinite error.

    Raises
    ------
    ValueError
        If the resolution is not below that of the spectra, or their grid is not logarithmic.

    Examples
    --------
    >>> wave = 15000 * 1.00002 ** np.arange(400)
    >>> flux = np.ones((1, 400))
    >>> flux[0, 200] = 0
    >>> axes = ("star", "wavelength")
    >>> line = xr.Dataset({"flux": (axes, flux), "error": (axes, 0 * flux)},
    ...                   coords={"star": ["a"], "wavelength": wave})
    >>> blurred = convolve_to_resolution(line, 3000, wave)

    The line is shallower, and its area is what it was:

    >>> round(float(blurred.min()), 2), round(float((1 - blurred).sum()), 2)
    (0.94, 1.0)
    """
    if not 0 < resolution < native_resolution:
        raise ValueError(
            f"the resolution must be below that of the spectra, {native_resolution:g}, "
            f"not {resolution:g}: blurring cannot sharpen"
        )
    steps = np.diff(np.log(spectra.wavelength.values))
    if not np.allclose(steps, steps[0], rtol=1e-3):
        raise ValueError(
            "the spectra must be on a grid that is even in the logarithm of wavelength"
        )
    # Two Gaussians, one after the other, add their variances; from FWHM to sigma, then to pixels.
    fwhm = np.sqrt(1 / resolution**2 - 1 / native_resolution**2)
    sigma = fwhm / FWHM / steps[0]
    good = np.isfinite(spectra.error.values).astype(float)  # (star, pixel)
    share = gaussian_filter1d(good, sigma, axis=1)  # how much of the light is from good pixels
    light = np.where(good > 0, spectra.flux.values, 0.0)
    blurred = gaussian_filter1d(light, sigma, axis=1) / np.maximum(share, 1e-9)
    blurred = np.where(share > 0.95, blurred, np.nan)
    return spectra.flux.copy(data=blurred).interp(wavelength=wavelength)


def divide_running_percentile(
    spectrum: xr.DataArray, width: float = 120.0, percent: float = 80
) -> xr.DataArray:
    """Divide a spectrum by a running percentile: a continuum good enough to compare two spectra.

    Parameters
    ----------
    spectrum : DataArray (wavelength,)
        Finite flux.
    width
        Width of the window, in Angstrom. It counts pixels: in a gap it is wider.
    percent
        The percentile that stands for the continuum. It is smoothed with a quarter of the width.

    Raises
    ------
    ValueError
        If the flux is not finite (leave such pixels out first), or of fewer than 50 pixels.

    Examples
    --------
    >>> wave = np.arange(15000.0, 15500.0)
    >>> spectrum = xr.DataArray(7 * np.ones(500), dims="wavelength", coords={"wavelength": wave})
    >>> round(float(divide_running_percentile(spectrum).mean()), 6)
    1.0
    """
    values = np.asarray(spectrum.values, float)
    if values.size < FEWEST_PIXELS:
        raise ValueError(f"a spectrum of {values.size} pixels has no continuum to divide by")
    if not np.isfinite(values).all():
        raise ValueError("the flux is not finite everywhere: leave out the bad pixels first")
    pixel = float(np.median(np.diff(spectrum.wavelength)))
    size = max(5, round(width / pixel))
    upper = percentile_filter(values, percent, size=size)
    return spectrum / gaussian_filter1d(upper, size / 4)


def radial_velocity(
    spectrum: xr.DataArray, model: xr.DataArray, limit: float = 200.0
) -> tuple[float, float]:
    """Radial velocity at which a model correlates best with a spectrum.

    Velocities from `-limit` to `limit` are tried in steps of 2 km/s.

    Parameters
    ----------
    spectrum, model : DataArray (wavelength,)
        Divided by their continua (see `divide_running_percentile`): the observed spectrum, with NaN
        where a pixel must not count, and the model in the rest frame. Pixels more than 30 % from
        the continuum count as bad, and so do those that some velocity would move off the model.
    limit
        Largest velocity, in km/s.

    Returns
    -------
    velocity : float
        In km/s, positive if the star recedes.
    correlation : float
        Pearson's coefficient of correlation at this velocity.

    Raises
    ------
    ValueError
        If fewer than 50 pixels of the spectrum lie on the model.

    Warns
    -----
    UserWarning
        If the best velocity is the largest or smallest that was tried: it is no maximum.

    Examples
    --------
    >>> wave = np.arange(15000.0, 15500.0)
    >>> flux = 1 - 0.2 * np.exp(-0.5 * ((wave - 15250) / 3) ** 2)
    >>> model = xr.DataArray(flux, dims="wavelength", coords={"wavelength": wave})
    >>> receding = model.assign_coords(wavelength=wave * (1 + 30 / LIGHT))
    >>> radial_velocity(receding, model)[0]
    30.0
    """
    velocities = np.arange(-limit, limit + 1, 2.0)
    wave, flux = spectrum.wavelength.values, np.asarray(spectrum.values, float)
    edge = 1 + limit / LIGHT
    counts = np.isfinite(flux) & (np.abs(flux - 1) < 0.3)
    counts &= wave > float(model.wavelength[0]) * edge
    counts &= wave < float(model.wavelength[-1]) / edge
    if counts.sum() < FEWEST_PIXELS:
        ends = [float(grid[place]) for grid in (spectrum.wavelength, model.wavelength)
                for place in (0, -1)]  # fmt: skip
        raise ValueError(
            f"only {counts.sum()} good pixels of the spectrum ({ends[0]:.0f} to {ends[1]:.0f} "
            f"Angstrom) lie on the model ({ends[2]:.0f} to {ends[3]:.0f} Angstrom): "
            f"{FEWEST_PIXELS} are needed for a velocity"
        )
    shifted = [
        np.interp(wave[counts] / (1 + velocity / LIGHT), model.wavelength, model)
        for velocity in velocities
    ]
    if not (np.std(flux[counts]) > 0 and np.min(np.std(shifted, axis=1)) > 0):
        raise ValueError("spectrum or model does not vary, or is not finite: nothing to correlate")
    correlation = np.array([np.corrcoef(flux[counts], one)[0, 1] for one in shifted])
    best = int(correlation.argmax())
    if best in (0, len(velocities) - 1):
        warnings.warn(
            f"the correlation is still rising at {velocities[best]:+.0f} km/s: this is no maximum",
            stacklevel=2,
        )
    return float(velocities[best]), float(correlation[best])
