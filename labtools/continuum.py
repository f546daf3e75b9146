"""Pseudo-continuum normalization: a smooth curve per chip through pixels that no line touches.

`normalize` is what the lab uses; the functions below it are its steps. The last two functions find
continuum pixels from the stars alone, for those who have no map of them.

References
----------
Ness et al. 2015, ApJ 808, 16, sections 2.3 and 5.3.
"""

import warnings
from numbers import Integral

import numpy as np
import pandas as pd
import xarray as xr
from numpy.polynomial import chebyshev

from labtools.selection import native_byte_order
from labtools.spectra import by_star, chips, resample, usable

__all__ = ["find_continuum_pixels", "normalize", "running_quantile"]

CHUNK = 50
"""Stars that are held in double precision at a time."""

ROUNDS = 5
"""How often a continuum is fitted again without its outliers."""

LEAST_ERROR = 1e-8
"""Smallest ratio of error to flux that is believed; a smaller one is a filler, not an error."""


def normalize(
    spectra: xr.Dataset, continuum_pixels: xr.DataArray, degree: int = 2, clip: float = 4.0
) -> xr.Dataset:
    """
    Divide the flux and the error of spectra by their pseudo-continuum, chip by chip.

    The continuum of a chip is a Chebyshev polynomial through its good continuum pixels, by least
    squares with weights 1/σ² on the squared residuals. Pixels further than `clip` robust standard
    deviations from it are left out and the fit is repeated. A chip is masked rather than guessed
    if its good continuum pixels are fewer than 10, fewer than five per coefficient, or span less
    than half of it; a warning names the star.

    Parameters
    ----------
    spectra : Dataset
        `flux` and `error` (and `mask`) over (star, wavelength), in any unit of flux; also one star
        that was picked out.
    continuum_pixels : DataArray of bool
        Over `wavelength` (Angstrom), True where the continuum shows. Its wavelengths are the grid
        of the result.
    degree : int
        Degree of the polynomial, 0 to 10.
    clip : float
        Outliers are further from the curve than this many robust standard deviations.

    Returns
    -------
    Dataset
        Over (star, wavelength), in the precision of the input: `flux` and `error` relative to the
        pseudo-continuum, 0 and inf where a pixel must not count; `continuum` in the unit of the
        input, NaN on masked chips; `mask` if the input had one.

    Raises
    ------
    ValueError
        If the arguments are something else, or no pixel of the spectra is usable on that grid.

    Warns
    -----
    UserWarning
        If chips are masked: which, and of which stars.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16, section 2.3.

    Examples
    --------
    A star without lines, whose flux falls along the only chip:

    >>> wavelength = np.linspace(15000.0, 15100.0, 200)
    >>> flux = 400 - (wavelength - 15000.0)
    >>> spectra = xr.Dataset(
    ...     {"flux": ("wavelength", flux), "error": ("wavelength", np.full(200, 4.0))},
    ...     coords={"star": "2M01", "wavelength": wavelength},
    ... )
    >>> pixels = xr.DataArray(np.arange(200) % 5 == 0, coords={"wavelength": wavelength})
    >>> normalized = normalize(spectra, pixels)
    >>> normalized.flux.values.round(3)[0, :3]
    array([1., 1., 1.])
    >>> normalized.error.values.round(3)[0, [0, -1]]
    array([0.01 , 0.013])
    """
    _check_arguments(spectra, continuum_pixels, degree, clip)
    spectra = by_star(spectra)
    n_star, grid = spectra.sizes["star"], continuum_pixels.wavelength.values
    precision = np.result_type(spectra.flux.dtype, np.float32)
    result = (
        spectra.drop_dims("wavelength")
        .assign_coords(wavelength=grid)
        .assign_attrs(units="pseudo-continuum = 1")
    )
    any_usable = False
    # Some stars at a time: in double precision all of them would need twice their memory again.
    for start in range(0, n_star, CHUNK):
        rows = slice(start, start + CHUNK)
        on_grid = resample(spectra.isel(star=rows), grid)
        flux, error = _without_bad_pixels(on_grid.flux.values, on_grid.error.values)
        any_usable = any_usable or np.isfinite(error).any()
        continuum = _fit_continua(flux, error, grid, continuum_pixels.values, degree, clip)
        flux, error = _divide(flux, error, continuum)
        arrays = {
            "flux": flux.astype(precision),
            "error": error.astype(precision),
            "continuum": continuum.astype(precision),
        }
        if "mask" in on_grid:
            arrays["mask"] = on_grid["mask"].values
        for name, values in arrays.items():
            if name not in result:
                empty = np.empty((n_star, grid.size), values.dtype)
                result[name] = ("star", "wavelength"), empty
            result[name].values[rows] = values
    if not any_usable:
        raise ValueError(
            "no usable pixel: all are masked, or outside the wavelengths of continuum_pixels"
        )
    _warn_of_masked_chips(result)
    return result


def _check_arguments(spectra: xr.Dataset, pixels: xr.DataArray, degree: int, clip: float) -> None:
    """Raise ValueError if an argument of `normalize` is something else than it should be."""
    is_map = isinstance(pixels, xr.DataArray) and pixels.dims == ("wavelength",)
    if not is_map or pixels.dtype != bool:
        raise ValueError(
            "continuum_pixels must be a boolean DataArray with the one dimension 'wavelength'"
        )
    for name in ("flux", "error"):
        if name not in spectra.data_vars or "wavelength" not in spectra[name].dims:
            raise ValueError(
                "spectra must be a Dataset with flux and error over (star, wavelength)"
            )
    for data in (spectra, pixels):
        if not (np.diff(data.wavelength.values) > 0).all() or data.sizes["wavelength"] < 2:
            raise ValueError(
                "the wavelengths of spectra and of continuum_pixels must be numbers that increase"
            )
    whole = isinstance(degree, Integral) and not isinstance(degree, bool)
    if not whole or not 0 <= degree <= 10:
        raise ValueError(
            f"the degree of the polynomial must be an integer from 0 to 10, not {degree}"
        )
    if not clip > 0:
        raise ValueError(f"clip must be a positive number of standard deviations, not {clip}")


def _without_bad_pixels(flux: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error in double precision, with 0 and inf where a pixel must not count."""
    with np.errstate(over="ignore"):
        good = usable(flux, error) & (error >= LEAST_ERROR * np.abs(flux))
    return np.where(good, flux, 0).astype(float), np.where(good, error, np.inf).astype(float)


def _fit_continua(
    flux: np.ndarray,
    error: np.ndarray,
    wavelength: np.ndarray,
    trusted: np.ndarray,
    degree: int,
    clip: float,
) -> np.ndarray:
    """Continua (star, pixel) of a few stars, NaN on chips that cannot be fitted.

    `trusted` (pixel) marks the continuum pixels.
    """
    continuum = np.full(flux.shape, np.nan)
    for chip in chips(wavelength):
        x = np.linspace(-1, 1, chip.stop - chip.start)
        basis = chebyshev.chebvander(x, degree)  # (pixel of the chip, term)
        used = np.flatnonzero(trusted[chip])  # continuum pixels, counted from the chip's first
        columns = used + chip.start
        coefficients = _robust_fit(x[used], basis[used], flux[:, columns], error[:, columns], clip)
        continuum[:, chip] = coefficients @ basis.T  # (star, term) @ (term, pixel)
    return continuum


def _divide(
    flux: np.ndarray, error: np.ndarray, continuum: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flux and error relative to a continuum, with 0 and inf where there is none."""
    good = np.isfinite(error) & (continuum > 0)
    divisor = np.where(good, continuum, 1.0)
    return np.where(good, flux, 0) / divisor, np.where(good, error / divisor, np.inf)


def _robust_fit(
    x: np.ndarray, basis: np.ndarray, flux: np.ndarray, error: np.ndarray, clip: float
) -> np.ndarray:
    """Coefficients (star, term) of a weighted fit without outliers; NaN where too little is left.

    `x` (pixel) and `basis` (pixel, term) belong to the continuum pixels of one chip, `flux` and
    `error` (star, pixel) are measured in them.
    """
    n_term = basis.shape[1]
    if not len(basis):
        return np.full((len(flux), n_term), np.nan)
    weight = np.where(np.isfinite(error), 1 / np.maximum(error, 1e-30) ** 2, 0.0)
    # Only ratios of weights matter; the largest is set to 1 so that units of 1e-17 do no harm.
    largest = weight.max(axis=1, keepdims=True, initial=0)
    weight = weight / np.where(largest > 0, largest, 1)
    good = weight > 0
    coefficients = _least_squares(basis, flux, weight)
    for _ in range(ROUNDS):
        residual = np.where(good, flux - coefficients @ basis.T, np.nan) * np.sqrt(weight)
        residual -= _median(residual)
        spread = 1.4826 * _median(np.abs(residual))
        kept = good & (np.abs(residual) <= clip * spread)
        coefficients = _least_squares(basis, flux, np.where(kept, weight, 0.0))
    first, last = np.argmax(kept, axis=1), len(x) - 1 - np.argmax(kept[:, ::-1], axis=1)
    span = x[last] - x[first]  # of the 2 that a whole chip has
    enough = (kept.sum(axis=1) >= max(10, 5 * n_term)) & (span >= 1)
    return np.where(enough[:, None], coefficients, np.nan)


def _median(values: np.ndarray) -> np.ndarray:
    """Medians (row, 1) of the numbers in each row; NaN for a row that has none.

    `np.nanmedian` does the same, but sorts row by row and takes most of the time on short rows.
    """
    number = values.shape[1] - np.isnan(values).sum(axis=1, keepdims=True)
    # NaN is sorted to the end; the median is the mean of the two middle numbers before them.
    middle = np.hstack([np.maximum(number - 1, 0), number]) // 2
    middle = np.minimum(middle, values.shape[1] - 1)
    ordered = np.sort(values, axis=1)
    return np.take_along_axis(ordered, middle, axis=1).mean(axis=1, keepdims=True)


def _least_squares(basis: np.ndarray, flux: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients (star, term) of all stars at once, for weights (star, pixel).

    Each star has normal equations (BᵀWB) c = BᵀWf of its own; the pseudo-inverse gives the
    shortest solution where pixels are too few to determine one.
    """
    normal = np.einsum("pi,np,pj->nij", basis, weight, basis, optimize=True)
    right = (weight * flux) @ basis  # (star, term)
    return (np.linalg.pinv(normal, hermitian=True) @ right[..., None])[..., 0]


def _warn_of_masked_chips(spectra: xr.Dataset) -> None:
    """Name the chips without a continuum, and up to five of the stars concerned."""
    wavelength = spectra.wavelength.values
    for number, chip in enumerate(chips(wavelength), start=1):
        lost = spectra["star"].values[np.isnan(spectra.continuum.values[:, chip.start])]
        if lost.size:
            names = ", ".join(map(str, lost[:5])) + (" ..." if lost.size > 5 else "")
            first, last = wavelength[[chip.start, chip.stop - 1]]
            warnings.warn(
                f"chip {number} ({first:.0f}-{last:.0f} Å) of {lost.size} star(s) has too few "
                f"good continuum pixels and is masked: {names}",
                stacklevel=3,
            )


def running_quantile(
    spectra: xr.Dataset, width: float = 50.0, quantile: float = 0.9
) -> xr.DataArray:
    """
    First guess of the continuum: a running quantile of the good pixels, chip by chip.

    Parameters
    ----------
    spectra : Dataset
        `flux` and `error`, of one star or many.
    width : float
        Full width of the window in Angstrom.
    quantile : float
        Between 0 and 1.

    Returns
    -------
    DataArray
        The envelope over (star, wavelength) in the unit of the flux, interpolated between windows
        whose centers are 5 Angstrom apart; NaN on chips without a good pixel.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16, section 5.3.

    Examples
    --------
    Lines, however deep, do not pull it down as long as most pixels are free of them:

    >>> wavelength = np.linspace(15000.0, 15200.0, 1000)
    >>> flux = np.where(np.arange(1000) % 5 == 0, 20.0, 100.0)
    >>> spectra = xr.Dataset(
    ...     {"flux": ("wavelength", flux), "error": ("wavelength", np.ones(1000))},
    ...     coords={"star": "2M01", "wavelength": wavelength},
    ... )
    >>> running_quantile(spectra).values[0, :3]
    array([100., 100., 100.])
    """
    spectra = by_star(spectra)
    wavelength = spectra.wavelength.values
    good = np.where(np.isfinite(spectra.error), spectra.flux, np.nan)
    envelope = np.full(good.shape, np.nan)
    for chip in chips(wavelength):
        inside = wavelength[chip]
        knots = np.arange(inside[0], inside[-1] + 5.0, 5.0)
        values = np.empty((len(good), knots.size))  # (star, knot)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # windows without a good pixel
            for number, knot in enumerate(knots):
                near = abs(inside - knot) <= width / 2
                values[:, number] = np.nanquantile(good[:, chip][:, near], quantile, axis=1)
        for row, value in enumerate(values):
            known = np.isfinite(value)
            if known.any():
                envelope[row, chip] = np.interp(inside, knots[known], value[known])
    return spectra.flux.copy(data=envelope)


def find_continuum_pixels(
    spectra: xr.Dataset,
    labels: pd.DataFrame,
    level: float = 0.015,
    slopes: tuple[float, float, float] = (1e-5, 0.0045, 0.0085),
) -> xr.DataArray:
    """
    Pixels whose flux is near the continuum and hardly depends on the labels.

    The flux of each pixel is fitted as a linear function of three labels.

    Parameters
    ----------
    spectra : Dataset
        Spectra of many stars, normalized in some first way (for example by `running_quantile`), on
        the grid that is wanted.
    labels : DataFrame
        Indexed by star, with `teff` (K), `logg` and `fe_h` (dex).
    level : float
        How far from 1 the flux of the mean star may be.
    slopes : tuple of float
        Largest derivative of the flux with respect to `teff` (per K), `logg` and `fe_h` (per dex).
        The defaults of `level` and `slopes` are the values of the paper.

    Returns
    -------
    DataArray of bool
        Over `wavelength`; False also where no star has a good pixel.

    Raises
    ------
    KeyError
        If the labels lack a star.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16, section 5.3.

    Examples
    --------
    Of three pixels the first is always at the continuum, the second fades with temperature and
    the third lies in a line:

    >>> names = ["2M01", "2M02", "2M03", "2M04", "2M05"]
    >>> labels = pd.DataFrame(
    ...     {"teff": [4500.0, 4700, 4600, 4400, 4800], "logg": [2.0, 2.2, 2.6, 1.9, 2.4],
    ...      "fe_h": [0.0, -0.2, 0.1, -0.1, 0.2]}, index=names,
    ... )
    >>> flux = [[1.0, 1 + 1e-4 * (teff - 4600), 0.7] for teff in labels.teff]
    >>> spectra = xr.Dataset(
    ...     {"flux": (("star", "wavelength"), flux),
    ...      "error": (("star", "wavelength"), np.full((5, 3), 0.01))},
    ...     coords={"star": names, "wavelength": [15000.0, 15000.2, 15000.4]},
    ... )
    >>> find_continuum_pixels(spectra, labels).values
    array([ True, False, False])
    """
    spectra, labels = by_star(spectra), native_byte_order(labels)
    x = labels.loc[spectra.star.values, ["teff", "logg", "fe_h"]].to_numpy(float)
    design = np.column_stack([np.ones(len(x)), x - x.mean(axis=0)])  # (star, term)
    weight = np.where(np.isfinite(spectra.error), 1 / spectra.error**2, 0.0)
    flux = np.where(weight > 0, spectra.flux, 0.0)
    # The roles are exchanged: here every pixel has a fit of its own, over the stars.
    coefficients = _least_squares(design, flux.T, weight.T)  # (pixel, term)
    is_flat = np.all(np.abs(coefficients[:, 1:]) < slopes, axis=1)
    is_near_one = np.abs(coefficients[:, 0] - 1) < level
    measured = weight.sum(axis=0) > 0
    return xr.DataArray(is_flat & is_near_one & measured, coords={"wavelength": spectra.wavelength})
