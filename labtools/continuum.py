"""Pseudo-continuum normalization: a smooth curve per chip through pixels that no line touches."""

import warnings

import numpy as np
import xarray as xr
from numpy.polynomial import chebyshev

from labtools.spectra import by_star, chips, resample, usable

__all__ = ["find_continuum_pixels", "normalize", "running_quantile"]

CHUNK = 50  # stars that are held as float64 at a time


def normalize(spectra, continuum_pixels, degree=2, clip=4.0):
    """Divide spectra by their pseudo-continuum, chip by chip, some stars at a time.

    The continuum is a Chebyshev polynomial through the good continuum pixels, by least squares with weights 1/σ on
    the residuals (Ness et al. 2015, ApJ 808, 16, §2.3); pixels further than `clip` robust standard deviations from
    it are left out and the fit repeated. A chip whose good continuum pixels are fewer than 10, fewer than five per
    coefficient or span less than half of it is masked, not guessed, and a warning names the star.

    Parameters
    ----------
    spectra : Dataset with `flux` and `error` (star, wavelength), any flux unit.
    continuum_pixels : boolean DataArray over `wavelength` (Angstrom): the grid, True where the continuum shows.

    Returns
    -------
    Dataset on that grid, in the precision of the input: `flux` and `error` (0 and inf where a pixel must not count),
    `continuum` (units of the input, NaN on masked chips) and `mask` if the input had one. Raises ValueError if the
    arguments are something else, or no pixel of the spectra is usable on that grid.
    """
    spectra = _checked(spectra, continuum_pixels, degree)
    stars, grid, seen = spectra.sizes["star"], continuum_pixels.wavelength.values, False
    result = (
        spectra.drop_dims("wavelength")
        .assign_coords(wavelength=grid)
        .assign_attrs(units="pseudo-continuum = 1")
    )
    for start in range(0, stars, CHUNK):
        rows = slice(start, start + CHUNK)
        picked = resample(spectra.isel(star=rows), grid)
        flux, error = _cleaned(picked.flux.values, picked.error.values)
        seen = seen or np.isfinite(error).any()
        kind = np.result_type(spectra.flux.dtype, np.float32)
        made = _normalized(flux, error, grid, continuum_pixels.values, degree, clip)
        arrays = {name: values.astype(kind) for name, values in made.items()}
        if "mask" in picked:
            arrays["mask"] = picked["mask"].values
        for name, values in arrays.items():
            if not start:
                result[name] = ("star", "wavelength"), np.empty((stars, grid.size), values.dtype)
            result[name].values[rows] = values
    if not seen:
        raise ValueError(
            "no usable pixel: all are masked, or outside the wavelengths of continuum_pixels"
        )
    _report_masked_chips(result)
    return result


def _checked(spectra, pixels, degree):
    """Spectra over (star, wavelength); ValueError if an argument of `normalize` is something else."""
    if (
        not isinstance(pixels, xr.DataArray)
        or pixels.dims != ("wavelength",)
        or pixels.dtype != bool
    ):
        raise ValueError(
            "continuum_pixels must be a boolean DataArray with the one dimension 'wavelength'"
        )
    if not all(
        name in spectra.data_vars and "wavelength" in spectra[name].dims
        for name in ("flux", "error")
    ):
        raise ValueError("spectra must be a Dataset with flux and error over (star, wavelength)")
    for data in (spectra, pixels):
        if not (np.diff(data.wavelength.values) > 0).all() or data.sizes["wavelength"] < 2:
            raise ValueError(
                "the wavelengths of spectra and of continuum_pixels must be numbers that increase"
            )
    if not isinstance(degree, int) or not 0 <= degree <= 10:
        raise ValueError(
            f"the degree of the polynomial must be an integer from 0 to 10, not {degree}"
        )
    return by_star(spectra)


def _cleaned(flux, error):
    """Flux and error in float64, 0 and inf where a pixel must not count."""
    with np.errstate(over="ignore"):
        good = usable(flux, error) & (error >= 1e-8 * np.abs(flux))
    return np.where(good, flux, 0).astype(float), np.where(good, error, np.inf).astype(float)


def _normalized(flux, error, wavelength, trusted, degree, clip):
    """Normalized flux and error and the continuum of a few stars, by name."""
    continuum = np.full(flux.shape, np.nan)
    for chip in chips(wavelength):
        used = np.flatnonzero(trusted[chip])
        x = np.linspace(-1, 1, chip.stop - chip.start)
        basis, columns = chebyshev.chebvander(x, degree), used + chip.start
        coefficients = _robust_fit(x[used], basis[used], flux[:, columns], error[:, columns], clip)
        continuum[:, chip] = coefficients @ basis.T
    good = np.isfinite(error) & (continuum > 0)
    safe = np.where(good, continuum, 1.0)
    flux, error = np.where(good, flux, 0) / safe, np.where(good, error / safe, np.inf)
    return {"flux": flux, "error": error, "continuum": continuum}


def _robust_fit(x, basis, flux, error, clip, rounds=5):
    """Weighted least squares of every row of `flux` (n_star, n) on `basis` (n, terms), with outliers left out."""
    if not len(basis):
        return np.full((len(flux), basis.shape[1]), np.nan)
    weight = np.where(np.isfinite(error), 1 / np.maximum(error, 1e-30) ** 2, 0.0)
    scale = weight.max(axis=1, keepdims=True, initial=0)
    weight = weight / np.where(scale > 0, scale, 1)
    good = weight > 0
    coefficients = _least_squares(basis, flux, weight)
    for _ in range(rounds):
        residual = np.where(good, flux - coefficients @ basis.T, np.nan) * np.sqrt(weight)
        residual -= _median(residual)
        spread = 1.4826 * _median(np.abs(residual))
        kept = good & (np.abs(residual) <= clip * spread)
        coefficients = _least_squares(basis, flux, np.where(kept, weight, 0.0))
    span = x[len(x) - 1 - np.argmax(kept[:, ::-1], axis=1)] - x[np.argmax(kept, axis=1)]
    enough = (kept.sum(axis=1) >= max(10, 5 * basis.shape[1])) & (span >= 1)
    return np.where(enough[:, None], coefficients, np.nan)


def _median(values):
    """Medians of rows (n, 1) without NaN; NaN for a row of nothing else. `np.nanmedian` is slow on short rows."""
    number = values.shape[1] - np.isnan(values).sum(axis=1, keepdims=True)
    middle = np.hstack([np.maximum(number - 1, 0), number]) // 2
    return np.take_along_axis(
        np.sort(values, axis=1), np.minimum(middle, values.shape[1] - 1), axis=1
    ).mean(axis=1, keepdims=True)


def _least_squares(basis, flux, weight):
    """Coefficients (n_star, terms); singular systems give their shortest solution."""
    normal = np.einsum("pi,np,pj->nij", basis, weight, basis, optimize=True)
    return (np.linalg.pinv(normal, hermitian=True) @ ((weight * flux) @ basis)[..., None])[..., 0]


def _report_masked_chips(spectra):
    for number, chip in enumerate(chips(spectra.wavelength.values)):
        lost = spectra["star"].values[np.isnan(spectra.continuum.values[:, chip.start])]
        if lost.size:
            names = ", ".join(map(str, lost[:5])) + (" ..." if lost.size > 5 else "")
            low, high = spectra.wavelength.values[[chip.start, chip.stop - 1]]
            what = f"chip {number + 1} ({low:.0f}-{high:.0f} Å) of {lost.size} star(s)"
            warnings.warn(
                f"{what} has too few good continuum pixels and is masked: {names}", stacklevel=3
            )


def running_quantile(spectra, width=50.0, quantile=0.9):
    """First guess of the continuum: a running quantile of the good pixels, per chip (Ness et al. 2015, §5.3).

    The window has a full `width` in Angstrom. Returns a DataArray (star, wavelength), NaN where no pixel is good.
    """
    wavelength = spectra.wavelength.values
    good = np.where(np.isfinite(spectra.error), spectra.flux, np.nan)
    result = np.full(good.shape, np.nan)
    for chip in chips(wavelength):
        inside = wavelength[chip]
        knots = np.arange(inside[0], inside[-1] + 5.0, 5.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # windows without a good pixel stay NaN
            near = [good[:, chip][:, abs(inside - knot) <= width / 2] for knot in knots]
            values = np.stack([np.nanquantile(part, quantile, axis=1) for part in near], axis=1)
        for row, value in enumerate(values):
            if (known := np.isfinite(value)).any():
                result[row, chip] = np.interp(inside, knots[known], value[known])
    return spectra.flux.copy(data=result)


def find_continuum_pixels(spectra, labels, level=0.015, slopes=(1e-5, 0.0045, 0.0085)):
    """Pixels whose flux is near the continuum and hardly depends on the labels (Ness et al. 2015, §5.3).

    spectra : Dataset, normalized in some first way (`running_quantile`), on the grid that is wanted.
    labels : DataFrame indexed by star with teff (K), logg (dex), fe_h (dex).
    level : how far from 1 the flux of the mean star may be.
    slopes : largest derivative with respect to teff (per K), logg and fe_h (per dex); the paper's values.

    Returns a boolean DataArray over `wavelength`.
    """
    x = labels.loc[spectra.star.values, ["teff", "logg", "fe_h"]].to_numpy(float)
    design = np.column_stack([np.ones(len(x)), x - x.mean(axis=0)])
    weight = np.where(np.isfinite(spectra.error), 1 / spectra.error**2, 0.0)
    flux = np.where(weight > 0, spectra.flux, 0.0)
    terms = _least_squares(design, flux.T, weight.T)
    flat = np.all(np.abs(terms[:, 1:]) < slopes, axis=1)
    near = np.abs(terms[:, 0] - 1) < level
    return xr.DataArray(
        flat & near & (weight.sum(axis=0) > 0), coords={"wavelength": spectra.wavelength}
    )
