"""Is this number right, and if not, which typical mistake made it?

Each check computes the answer anew, from the survey where it can, and also what the typical
mistakes would give. It returns a line of praise, or raises `CheckFailed` with what was found;
nothing of the right answer is printed. Any container is taken (array, list, Series, DataFrame), in
any order of stars, and any formula that gives the same numbers within the noise.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from astropy import constants, units

from labtools import jwst as pairs
from labtools.cannon import Cannon
from labtools.isochrones import best_isochrone, giant_branch
from labtools.selection import LABELS, count_cuts, select_giants
from labtools.spectra import GRID, LAB_BITS, WAVELENGTH, chips

__all__ = [
    "CheckFailed", "continuum", "conversion", "giants", "gravity", "labels", "likelihood",
    "markers", "mean_label", "normalized_error", "pairing", "pixels", "scaler", "scatter",
    "sequence", "split",
]  # fmt: skip

RADII = (1.0, 15.0, 100.0)
"""Radii that Problem 1 asks for, in units of the Sun's."""


class CheckFailed(AssertionError):
    """The student's number is not right; the message says what it looks like."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in the place of a traceback."""
        return [f"Not yet: {self}"]


def _filled(what: str, value: Any) -> Any:
    """The value, unless it is still the ``...`` of an unsolved task."""
    if value is Ellipsis or (isinstance(value, list | tuple) and Ellipsis in value):
        raise CheckFailed(f"{what}: not filled in yet")
    return value


def _numbers(what: str, value: Any) -> np.ndarray:
    """Any container of numbers or booleans as an array."""
    array = np.asarray(getattr(_filled(what, value), "values", value))
    if array.dtype.kind not in "biuf":
        try:
            array = array.astype(float)
        except (TypeError, ValueError) as fault:
            kind = type(value).__name__
            raise CheckFailed(f"{what}: numbers are wanted, this is a {kind}") from fault
    return array


def _judge(what: str, given, right, mistakes: dict, rtol: float = 1e-6, atol: float = 0.0) -> str:
    """Praise, or CheckFailed with the first of `mistakes` (words -> value) that fits.

    Mistakes are tried at the tight tolerance before the right answer is at the loose one (`atol`),
    so that a mistake which changes little is still named.
    """
    given, right = _numbers(what, given), np.asarray(right)
    if _same(given, right, rtol):
        return f"Right: {what}."
    for words, value in mistakes.items():
        if _same(given, np.asarray(value), rtol):
            raise CheckFailed(f"{what}: {words}")
    if atol and _same(given, right, 0, atol):
        return f"Right: {what}."
    if given.shape != right.shape:
        raise CheckFailed(f"{what}: the shape is {given.shape}, and should be {right.shape}")
    raise CheckFailed(
        f"{what}: not what it should be, and none of the usual mistakes. Compare one value by hand"
    )


def _same(given, right, rtol: float, atol: float | None = None) -> bool:
    if given.shape != right.shape or given.dtype.kind not in "biuf":
        return False
    if atol is None:
        finite = np.abs(right[np.isfinite(right)])
        atol = 1e-9 * finite.max(initial=0) if right.dtype.kind == "f" else 0
    return np.allclose(given, right, rtol=rtol, atol=atol, equal_nan=True)


def gravity(log_g, mass, radius) -> str:
    """Problem 1: surface gravities of a star of one solar mass at three radii.

    Parameters
    ----------
    log_g : array_like
        The student's gravities (dex, cgs).
    mass, radius : array_like
        What they were computed for, in units of the Sun's.
    """
    what = "the surface gravities"
    radius, mass = _numbers(what, radius).astype(float), _numbers(what, mass).astype(float)
    if radius.size == len(RADII) and not np.allclose(np.sort(radius), RADII):
        raise CheckFailed(f"{what}: the assignment asks for radii of 1, 15 and 100 of the Sun's")
    force = constants.G * mass * units.M_sun
    si = (force / (radius * units.R_sun) ** 2).si.value
    wrong_power = (force / (radius * units.R_sun)).si.value
    mistakes = {
        "this is g in SI units, m/s²; astronomers mean cm/s², which is 2 dex more": np.log10(si),
        "this is the natural logarithm; log g is to base 10": np.log(100 * si),
        "this is g itself, not its logarithm": 100 * si,
        "the radius enters squared": np.log10(1e4 * wrong_power),
    }
    # 0.02 dex: whoever takes 2e33 g and 7e10 cm for the Sun is right
    given = _numbers(what, log_g)
    for words, value in mistakes.items():
        if _same(given, np.asarray(value), 5e-3, 0.02):
            raise CheckFailed(f"{what}: {words}")
    return _judge(what, log_g, np.log10(100 * si), {}, atol=0.02)


def mean_label(mean, column) -> str:
    """Problem 1: the mean of a raw column of the catalog, in which fillers stand for no value."""
    what, values = "the mean of the known labels", np.asarray(column, float)
    known = values[np.isfinite(values) & (values > -900)]
    mistakes = {
        "the fillers (-9999 and their like) were averaged as if they were labels": np.nanmean(
            values
        ),
        "only one of the fillers was removed: look for the others": np.nanmean(
            values[values != -9999]
        ),
        "fillers were set to zero; a missing label has no value": np.where(
            values > -900, values, 0
        ).mean(),
        "this is the median; the mean is asked for": np.median(known),
    }
    return _judge(what, mean, known.mean(), mistakes, rtol=1e-5)


def _ids(what: str, stars) -> pd.Index:
    """Names of stars from a DataFrame (index or column apogee_id), an index, or a list."""
    stars = _filled(what, stars)
    if isinstance(stars, pd.DataFrame):
        stars = stars.get("apogee_id", stars.index)
    values = [one.decode() if isinstance(one, bytes) else one for one in stars]
    return pd.Index([str(one).strip() for one in values])


def giants(selected, catalog: pd.DataFrame) -> str:
    """Problem 1: the stars that pass the lab's cuts.

    Parameters
    ----------
    selected : DataFrame, index, list of ids, or boolean array over the catalog
        The student's giants.
    catalog : pandas.DataFrame
        The uncut catalog.
    """
    what = "the giants"
    mask = np.asarray(getattr(_filled(what, selected), "values", selected))
    if mask.dtype == bool and mask.shape == (len(catalog),):
        selected = catalog[mask]
    index, right = _ids(what, selected), select_giants(catalog)
    if unknown := set(index) - set(catalog.index):
        raise CheckFailed(f"{what}: {sorted(unknown)[0]} is not in the catalog")
    if index.has_duplicates and set(index) == set(right.index):
        raise CheckFailed(
            f"{what}: some stars are in it twice: keep the entry with the highest SNR"
        )
    if extra := set(index) - set(right.index):
        reasons = count_cuts(catalog.loc[list(extra)])
        cut = reasons.alone.idxmax()
        raise CheckFailed(f"{what}: {len(extra)} too many; look again at the cut '{cut}'")
    if lost := set(right.index) - set(index):
        raise CheckFailed(
            f"{what}: {len(lost)} are missing; is a limit too strict, or an inequality reversed?"
        )
    if isinstance(selected, pd.DataFrame) and "snr" in selected:
        snr = pd.Series(np.asarray(selected.snr), index)
        if (snr < right.snr.reindex(index) - 1e-6).any():
            raise CheckFailed(f"{what}: of stars with two entries, that of the lower SNR was kept")
    return f"Right: {len(right)} giants."


def pixels(good, raw: xr.Dataset) -> str:
    """Problem 3: which pixels of raw spectra count, booleans (star, pixel).

    Parameters
    ----------
    good : array_like (star, pixel), of one star also (pixel,)
        The student's good pixels, as booleans, or as errors that are infinite for the bad ones.
    raw : xarray.Dataset
        The spectra, with flux, error and mask.
    """
    what, mask = "the usable pixels", raw.mask.values
    measured = (raw.flux.values != 0) & np.isfinite(raw.flux.values)
    given = np.atleast_2d(_numbers(what, good))
    if given.dtype.kind == "f":
        given = np.isfinite(given)

    def without(bits):
        return mask & bits == 0

    right = without(int(LAB_BITS))
    names = {
        "every pixel with any bit is dropped, also those with a mere warning": -1,
        "bit 12 has the value 2**12 = 4096, not 12: numbers of bits were taken for values": 12,
        "the numbers of the bits were added, but bit n has the value 2**n": sum(range(8)) + 12,
        "bit 12, the bright lines of the night sky, is missing": 0xFF,
        "bit 7 is missing: bits 0 to 7 are eight bits, 0xFF": 0x7F | 1 << 12,
        "bits 1 to 8 were taken for bits 0 to 7": 0x1FE | 1 << 12,
        "these are the bits that the survey's pipeline uses (0-7 and 14), not 0-7 and 12": 16639,
        "bits 12 and 14 are both dropped; the lab drops 0-7 and 12": 0xFF | 1 << 12 | 1 << 14,
    }
    mistakes = {"the mask was not used": np.ones_like(right)}
    mistakes |= {"this marks the bad pixels; the good ones are wanted": ~right}
    mistakes |= {words: without(bits) for words, bits in names.items()}
    equal = ~np.isin(mask, [1 << bit for bit in (*range(8), 12)])
    mistakes |= {"`mask == 2**n` misses pixels with two bits; use `mask & 2**n`": equal}
    if given.shape != right.shape:
        return _judge(what, given, right, {})
    # Pixels that were not measured (flux 0, or error infinite for want of light) do not matter
    counted = measured & ((np.isfinite(raw.error.values)) | ~right)
    mistakes = {words: value[counted] for words, value in mistakes.items()}
    return _judge(what, given.astype(bool)[counted], right[counted], mistakes)


def _chip_of(size: int, trusted) -> np.ndarray | None:
    """Which pixels of a chip of `size` pixels the survey's map calls continuum, None if unknown."""
    if trusted is not None:
        return np.asarray(getattr(trusted, "values", trusted), bool)
    for chip in chips(WAVELENGTH[GRID]):
        if chip.stop - chip.start == size:
            from labtools import open_survey

            return open_survey().continuum_pixels().values[chip]
    return None


def continuum(curve, flux, error, use, degree: int = 2, trusted=None) -> str:
    """Problem 4: the pseudo-continuum of one chip.

    Parameters
    ----------
    curve : array_like (pixel), or a function of -1 ... 1
        The student's continuum, in the units of the flux.
    flux, error : array_like (pixel)
        The raw spectrum of the chip; bad pixels have an infinite error.
    use : array_like of bool (pixel)
        The continuum pixels that the fit runs through.
    degree : int
        Degree of the polynomial.
    trusted : array_like of bool (pixel), optional
        The map of continuum pixels; None takes the survey's.
    """
    what = "the pseudo-continuum"
    flux, error = _numbers(what, flux).astype(float), _numbers(what, error).astype(float)
    use = _numbers(what, use).astype(bool)
    x = np.linspace(-1, 1, flux.size)
    curve = curve(x) if callable(curve) else curve
    if flux.size == GRID.size:
        raise CheckFailed(f"{what}: all chips in one fit; each of the three needs its own curve")
    if not use.shape == flux.shape == error.shape:
        raise CheckFailed(f"{what}: flux, error and `use` have different lengths")
    if np.abs(np.median(flux) - 1) < 1e-9 and np.ptp(flux) < 1e-9:
        raise CheckFailed(f"{what}: this flux is 1 everywhere; fit the raw one")
    if ((flux == 0) & np.isfinite(error) & use).any():
        raise CheckFailed(f"{what}: pixels without light keep a finite error: set it to infinity")
    known = _chip_of(flux.size, trusted)
    if known is not None:
        if use.all() or (use & np.isfinite(error)).sum() == np.isfinite(error).sum():
            raise CheckFailed(
                f"{what}: it runs through all pixels, lines included: use the continuum pixels"
            )
        if (use & ~known).sum() > 0.05 * use.sum():
            raise CheckFailed(f"{what}: `use` marks pixels that are not continuum of this chip")

    def fit(weight, degree=degree, where=use, clip=None):
        kept = where & np.isfinite(error)
        for _ in range(5 if clip else 1):
            curve = np.polynomial.Chebyshev.fit(x[kept], flux[kept], degree, w=weight[kept])(x)
            if clip:
                pull = np.where(where & np.isfinite(error), (flux - curve) * weight, np.inf)
                spread = 1.4826 * np.median(np.abs(pull[kept] - np.median(pull[kept])))
                kept = where & (np.abs(pull) < clip * spread)
        return curve

    safe = np.where(np.isfinite(error), error, 1)
    mistakes = {
        "the weights are 1/σ⁴: numpy squares what it is given, so give it 1/σ": fit(1 / safe**2),
        "the weights are σ: noisy pixels count most; give numpy 1/σ": fit(safe),
        "all pixels have the same weight; give numpy 1/σ": fit(np.ones_like(safe)),
        "it runs through all pixels, lines included: use the continuum pixels": fit(
            1 / safe, where=error > 0
        ),
        "a straight line is too stiff; the degree is 2": fit(1 / safe, 1),
        "the polynomial has degree 3; the paper's has 2": fit(1 / safe, 3),
        "the polynomial has degree 4; the paper's has 2": fit(1 / safe, 4),
    }
    right = fit(1 / safe)
    noise = np.median(safe[use & np.isfinite(error)])
    # Another variable on the axis, and clipping, move the curve by a small part of the noise
    tolerance = 0.3 * noise + np.abs(fit(1 / safe, clip=3) - right).max()
    return _judge(what, curve, right, mistakes, atol=tolerance)


def normalized_error(error, raw_error, curve, flux=None) -> str:
    """Problem 4: errors divided by the same continuum as the flux.

    Parameters
    ----------
    error : array_like (pixel)
        The student's error of the normalized flux.
    raw_error, curve : array_like (pixel)
        Error before, and continuum.
    flux : array_like (pixel), optional
        The raw flux, by which errors are wrongly divided.
    """
    what = "the normalized errors"
    raw_error, curve = _numbers(what, raw_error), _numbers(what, curve)
    mistakes = {
        "the errors were left as they were; divide them by the continuum too": raw_error,
        "the errors were divided twice": raw_error / curve**2,
        "the errors were multiplied by the continuum": raw_error * curve,
    }
    if flux is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            mistakes["the errors were divided by the flux; divide by the continuum"] = (
                raw_error / np.asarray(flux)
            )
    return _judge(what, error, raw_error / curve, mistakes, rtol=1e-4)


def _group(what: str, group, stars: pd.Index) -> pd.Index:
    """A group of stars from names, a table, a boolean mask over the stars, or integer positions."""
    group = _filled(what, group)
    if isinstance(group, pd.DataFrame):
        return _ids(what, group)
    values = np.asarray(getattr(group, "values", group))
    if values.dtype == bool and values.shape == (len(stars),):
        return stars[values]
    if values.dtype.kind in "iu":
        if values.size and (values.min() < 0 or values.max() >= len(stars)):
            raise CheckFailed(f"{what}: positions outside the table")
        return stars[values]
    return _ids(what, group)


def split(training, validation, stars) -> str:
    """Problem 5: two random groups that share no star and lose none.

    Parameters
    ----------
    training, validation : names, DataFrame, boolean mask or integer positions
        The student's groups.
    stars : pandas.Index or DataFrame
        All stars, in the order of the catalog; a DataFrame also shows a group that was sorted.
    """
    what = "the groups"
    everyone = _ids(what, stars)
    first, second = (_group(what, group, everyone) for group in (training, validation))
    if both := set(first) & set(second):
        raise CheckFailed(f"{what}: {len(both)} stars are in both; split by star, not by row")
    if lost := set(everyone) - set(first) - set(second):
        raise CheckFailed(f"{what}: {len(lost)} stars are in neither")
    if not 0.4 < len(set(first)) / everyone.nunique() < 0.6:
        sizes = f"{len(first)} and {len(second)}"
        raise CheckFailed(f"{what}: {sizes} stars; two halves are wanted")
    chosen = everyone.isin(first)
    changes = np.count_nonzero(chosen[1:] != chosen[:-1])
    # A random half changes group at every second star, √N / 2 times more or less
    expected, error = len(everyone) / 2, np.sqrt(len(everyone)) / 2
    if abs(changes - expected) > 6 * error:
        pattern = "first rows and the last" if changes < expected else "alternating rows"
        raise CheckFailed(f"{what}: these are the {pattern} of a sorted table; draw at random")
    if isinstance(stars, pd.DataFrame):
        for name in stars.select_dtypes("number"):
            values = stars[name].to_numpy(float)
            rank = pd.Series(values).rank().to_numpy()
            shift = abs(rank[chosen].mean() - rank[~chosen].mean()) / len(values)
            if shift > 0.3:
                raise CheckFailed(f"{what}: sorted by {name} before they were cut; draw at random")
    return f"Right: {len(first)} and {len(second)} stars, none in both."


def scatter(theta, s2, design, flux, error) -> str:
    """Problem 6(b): the fit of one pixel.

    Parameters
    ----------
    theta : array_like (T,)
        The student's coefficients.
    s2 : float
        Their intrinsic scatter squared.
    design : array_like (N, T)
        Design matrix.
    flux, error : array_like (N,)
        Normalized flux of the training stars in this pixel, and its error.
    """
    what = "the coefficients and the scatter of the pixel"
    s2 = float(_numbers(what, s2))
    good = np.isfinite(error)
    x, f, sigma = np.asarray(design)[good], np.asarray(flux)[good], np.asarray(error)[good]

    def solve(s2, power=1.0):
        w = (1 / (sigma**2 + s2)) ** power
        found = np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * f))
        r = f - x @ found
        return found, -0.5 * np.sum(r**2 / (sigma**2 + s2) + np.log(sigma**2 + s2))

    grid = np.geomspace(1e-9, 1e-1, 400)
    heights = np.array([solve(one)[1] for one in grid])
    best = grid[heights.argmax()]
    if s2 < 0:
        raise CheckFailed("the scatter: s² is negative")
    # A grid of 50 points between 1e-9 and 1e-1 has steps of a factor 1.46
    near = abs(np.log(max(s2, 1e-12) / best)) < np.log(1.5) or solve(s2)[1] > heights.max() - 0.5
    if not near and abs(s2 / best**0.5 - 1) < 0.3:
        raise CheckFailed("the scatter: this is s; the grid is one of s²")
    if not near and s2 > 30 * best:
        raise CheckFailed(
            "the scatter: far too large: the likelihood needs its term -½ ln(σ² + s²), "
            "which penalizes a large s²"
        )
    if not near:
        side = "larger" if s2 < best else "smaller"
        raise CheckFailed(f"the scatter: the likelihood is higher at a {side} s²")
    mistakes = {
        "the weights are squared: they are 1/(σ² + s²)": solve(s2, 2)[0],
        "the weights are 1/√(σ² + s²): they are 1/(σ² + s²)": solve(s2, 0.5)[0],
        "the fit is not weighted: the weights are 1/(σ² + s²)": solve(s2, 0)[0],
        "s² is left out": solve(0)[0],
    }
    return _judge(what, theta, solve(s2)[0], mistakes, rtol=1e-5)


def _in_air(vacuum: np.ndarray) -> np.ndarray:
    """Wavelengths in air (Angstrom) of wavelengths in vacuum (Ciddor 1996, in the infrared)."""
    k2 = (1e4 / vacuum) ** 2  # 1/µm²
    return vacuum / (1 + 0.05792105 / (238.0185 - k2) + 0.00167917 / (57.362 - k2))


def markers(wavelengths, lines: pd.DataFrame) -> str:
    """Problem 8: vacuum wavelengths (Angstrom) of lines, all or some of a table's `wavelength`."""
    what = "the lines"
    given = np.sort(_numbers(what, wavelengths).astype(float).ravel())
    known = np.sort(np.asarray(lines.wavelength, float))
    if given.size < 3:
        raise CheckFailed(f"{what}: at least three are wanted")
    if given.max() < 100:
        raise CheckFailed(f"{what}: these are in micron; spectra of the lab are in Angstrom")

    def distance(reference):
        return np.abs(given[:, None] - reference).min(axis=1)

    if (distance(known) < 0.15).all():
        return f"Right: {given.size} lines, in vacuum."
    if (distance(_in_air(known)) < 0.15).all():
        raise CheckFailed(
            f"{what}: these are wavelengths in air; spectra of APOGEE are in vacuum, "
            "4.2 to 4.6 Å further red"
        )
    wrong = given[distance(known).argmax()]
    raise CheckFailed(f"{what}: there is none at {wrong:.2f} Å; are they in Angstrom, in vacuum?")


def labels(fitted, spectra: xr.Dataset, cannon: Cannon, training: Sequence[str] = ()) -> str:
    """Problem 9: labels of stars against a fit of the same spectra.

    Parameters
    ----------
    fitted : DataFrame (index star), dict of star to labels, or array in the order of the spectra
        The student's labels.
    spectra : xarray.Dataset
        Normalized spectra of these stars.
    cannon : Cannon
        The model.
    training : sequence of str
        Names of the training stars, which are not to be fitted for validation.
    """
    what, names = "the labels", list(cannon.labels)
    table = _label_table(what, fitted, spectra, names)
    if len(both := set(table.index) & set(training)):
        raise CheckFailed(f"{what}: {len(both)} of these stars taught the model; fit the others")
    if unknown := set(table.index) - set(spectra.star.values):
        raise CheckFailed(f"{what}: there is no spectrum of {sorted(unknown)[0]}")
    best = cannon.fit(spectra.sel(star=list(table.index)))
    sigma = best[[f"{name}_err" for name in names]].to_numpy()
    given, right = table[names].to_numpy(float), best[names].to_numpy()

    def off(values, reference=right):
        return np.nanmedian(np.abs(values - reference) / sigma, axis=0).max()

    if np.isnan(given).all(axis=1).any():
        raise CheckFailed(
            f"{what}: {np.isnan(given).all(axis=1).sum()} stars have no labels at all"
        )
    if off(given) < 0.05:
        return f"Right: labels of {len(table)} stars."
    if off(given * cannon.scale + cannon.offset) < 0.05:
        raise CheckFailed(
            f"{what}: these are the scaled ones; multiply by the scale, add the offset"
        )
    for order in map(list, permutations(range(len(names)))):
        if off(given[:, order]) < 0.05:
            moved = [name for name, place in zip(names, order, strict=True) if names[place] != name]
            raise CheckFailed(f"{what}: {' and '.join(moved)} have changed places")
    without = replace(cannon, s2=np.where(np.isfinite(cannon.s2), 0.0, np.inf))
    photons_only = without.fit(spectra.sel(star=list(table.index)))[names].to_numpy()
    if off(given, photons_only) < 0.05:
        raise CheckFailed(f"{what}: these are fits without s²; the variance is σ² + s²")
    if off(given) < 1:
        raise CheckFailed(f"{what}: close, but not the best fit; is the variance σ² + s²?")
    raise CheckFailed(
        f"{what}: far from the best fit; does the optimizer start well, and converge?"
    )


def _label_table(what, fitted, spectra, names):
    """Labels in any container as a DataFrame indexed by star."""
    fitted = _filled(what, fitted)
    if isinstance(fitted, dict):
        fitted = pd.DataFrame.from_dict(fitted, orient="index", columns=names)
    if not isinstance(fitted, pd.DataFrame):
        values = np.atleast_2d(_numbers(what, fitted))
        if values.shape != (spectra.sizes["star"], len(names)):
            wanted = (spectra.sizes["star"], len(names))
            raise CheckFailed(f"{what}: the shape is {values.shape}, and should be {wanted}")
        fitted = pd.DataFrame(values, spectra.star.values, names)
    if "apogee_id" in fitted:
        fitted = fitted.set_index("apogee_id")
    if missing := set(names) - set(fitted):
        raise CheckFailed(f"{what}: no column {', '.join(sorted(missing))}")
    return fitted


def likelihood(value, flux, model, variance, error=None, s2=None) -> str:
    """Problem 12: ln L of one spectrum, arrays (pixel) of the pixels that count.

    Parameters
    ----------
    value : float
        The student's ln L.
    flux, model, variance : array_like (pixel)
        Normalized flux, model, and the student's variance.
    error, s2 : array_like (pixel), optional
        Error of the flux and scatter of the model; with them the variance is checked as well.
    """
    what = "the likelihood"
    flux, model, variance = (_numbers(what, part).astype(float) for part in (flux, model, variance))
    if error is not None and s2 is not None:
        error, s2 = np.asarray(error, float), np.asarray(s2, float)
        wrong = {
            "it is σ² + s², and s² is missing": error**2,
            "it is σ² + s², and this is σ² + s": error**2 + np.sqrt(s2),
            "it is σ² + s², and this is σ + s²": error + s2,
            "it is σ² + s², and σ² is missing": s2,
            "it is σ² + s², and this is its square root": np.sqrt(error**2 + s2),
        }
        _judge("the variance", variance, error**2 + s2, wrong, rtol=1e-5)
    chi2, logs = np.sum((flux - model) ** 2 / variance), np.sum(np.log(variance))
    constant = variance.size * np.log(2 * np.pi)
    mistakes = {
        "the factor ½ is missing": -(chi2 + logs + constant),
        "the term of the variances is missing; it decides between values of s²": -0.5 * chi2,
        "the term of the variances has the wrong sign": -0.5 * (chi2 - logs - constant),
        "this is χ²": chi2,
        "only the constant ln 2π is missing; it does no harm, but PyMC keeps it": -0.5
        * (chi2 + logs),
    }
    return _judge(what, value, -0.5 * (chi2 + logs + constant), mistakes)


def sequence(sequence_labels, varied: str) -> str:
    """Problems 13 and 14: labels of a sequence of model spectra.

    Parameters
    ----------
    sequence_labels : pandas.DataFrame
        One row per spectrum, with the five labels.
    varied : str
        "fe_h": only [Fe/H] changes, from -1 to 0.5. "logg": log g from 3.5 to 0.5 with a
        temperature that falls along the branch, at constant composition.
    """
    what = "the sequence"
    table = _filled(what, sequence_labels)
    if missing := set(LABELS) - set(table):
        raise CheckFailed(f"{what}: no column {', '.join(sorted(missing))}")
    low, high, may_follow = {"fe_h": (-1, 0.5, []), "logg": (0.5, 3.5, ["teff"])}[varied]
    for name in LABELS:
        if name != varied and name not in may_follow and np.ptp(table[name]) > 1e-9:
            raise CheckFailed(f"{what}: {name} changes too; hold it fixed")
    if not np.allclose([table[varied].min(), table[varied].max()], [low, high], atol=0.05):
        raise CheckFailed(f"{what}: {varied} should go from {low} to {high}")
    if may_follow and not (np.diff(table.sort_values("logg").teff) > 0).all():
        raise CheckFailed(f"{what}: stars higher up the branch (lower log g) are cooler")
    if varied == "fe_h" and not ((table.teff > 3500) & (table.teff < 5700)).all():
        raise CheckFailed(f"{what}: at {table.teff.iloc[0]:.0f} K there is no giant of the sample")
    if varied == "logg":
        _on_the_branch(what, table)
    return f"Right: {len(table)} spectra along {varied}."


def _on_the_branch(what, table):
    """Raise CheckFailed if the sequence is not the solar branch of 6 Gyr (within 60 K)."""
    if np.abs(table.fe_h).max() > 0.05:
        raise CheckFailed(f"{what}: the isochrone is that of [Fe/H] = 0")
    gravities = table.logg.to_numpy(float)
    away = table.teff - giant_branch(best_isochrone(age=6, feh=0.0), gravities)
    if np.nanmax(np.abs(away)) < 60:
        return
    for feh in (-1.0, -0.5, 0.5):
        other = table.teff - giant_branch(best_isochrone(age=6, feh=feh), gravities)
        if np.nanmax(np.abs(other)) < 60:
            raise CheckFailed(f"{what}: these are the temperatures of [Fe/H] = {feh}")
    raise CheckFailed(f"{what}: {np.nanmax(np.abs(away)):.0f} K off the solar branch of 6 Gyr")


def scaler(mean, scale, training_labels, all_labels) -> str:
    """Problem 15: mean and standard deviation by which a network's labels are scaled.

    Parameters
    ----------
    mean, scale : array_like (label,)
        The student's.
    training_labels, all_labels : DataFrame or array (star, label)
        Labels of the training set, and of all stars.
    """
    what = "the scaling of the labels"
    training, everyone = np.asarray(training_labels, float), np.asarray(all_labels, float)
    leak = "it has seen validation and test stars; fit it on the training set alone"
    _judge(what, mean, training.mean(axis=0), {leak: everyone.mean(axis=0)}, rtol=1e-5)
    # Whether it is divided by N or by N - 1 makes no difference to a network
    by_n, by_less = (training.std(axis=0, ddof=ddof) for ddof in (0, 1))
    right = by_less if _same(_numbers(what, scale), by_less, 1e-6) else by_n
    leaks = {leak: everyone.std(axis=0), f"{leak} (N - 1)": everyone.std(axis=0, ddof=1)}
    _judge(what, scale, right, leaks, rtol=1e-5)
    return f"Right: {what}, from {len(training)} training stars."


def pairing(matched: pd.DataFrame, catalog: pd.DataFrame, jwst_labels: pd.DataFrame) -> str:
    """Question 2.4: JWST labels of catalog stars, one row per matched star, indexed by name.

    Parameters
    ----------
    matched : pandas.DataFrame
        The student's, with a column `teff`; any order of stars, and any one entry of a star that
        has several.
    catalog, jwst_labels : pandas.DataFrame
        The two tables, both indexed by name.
    """
    what = "the pairs"
    given = _filled(what, matched)
    if not isinstance(given, pd.DataFrame) or "teff" not in given:
        raise CheckFailed(f"{what}: a DataFrame indexed by name is wanted, with the column teff")
    given = given.set_index("name") if "name" in given else given
    names, _ = pairs.match(catalog, jwst_labels)
    count = min(len(catalog), len(jwst_labels))
    by_position = jwst_labels.iloc[:count].set_axis(catalog.index[:count])
    known = given.index.intersection(jwst_labels.index)
    if given.index.has_duplicates:
        raise CheckFailed(f"{what}: some names are in it more than once")
    if len(known) == len(given) > 0:
        own = jwst_labels.loc[given.index, "teff"]
        stars = catalog.apogee_id.reindex(given.index)
        if np.allclose(given.teff, own) and stars.notna().all():
            if stars.duplicated().any():
                raise CheckFailed(f"{what}: some stars are in it more than once")
            if set(stars) == set(catalog.loc[names, "apogee_id"]):
                return f"Right: {len(given)} stars, each with its own spectrum."
        if "teff" in catalog and np.allclose(given.teff, catalog.teff.reindex(given.index)):
            raise CheckFailed(f"{what}: these are the catalog's labels, not those of the JWST file")
    common = given.index.intersection(by_position.index)
    if len(common) and np.allclose(given.loc[common, "teff"], by_position.loc[common, "teff"]):
        raise CheckFailed(
            f"{what}: matched by position; after the star that is missing all rows are off by one"
        )
    if len(given) > len(names):
        raise CheckFailed(f"{what}: some stars are in it more than once")
    raise CheckFailed(f"{what}: not the same stars; match by name, and keep each star once")


def conversion(converted: pd.DataFrame, catalog: pd.DataFrame) -> str:
    """Question 2.5: [X/H] of catalog stars, which is [X/Fe] + [Fe/H].

    Parameters
    ----------
    converted : pandas.DataFrame
        The student's, indexed by name, with columns such as `mg_h`.
    catalog : pandas.DataFrame
        Indexed by name, with `fe_h` and columns such as `mg_fe`.
    """
    what = "the conversion"
    given = _filled(what, converted)
    if not isinstance(given, pd.DataFrame):
        raise CheckFailed(f"{what}: a DataFrame indexed by name is wanted")
    elements = [c[:-2] for c in given if c.endswith("_h") and f"{c[:-2]}_fe" in catalog]
    if not elements:
        raise CheckFailed(f"{what}: no column such as mg_h is in it")
    if len(unknown := given.index.difference(catalog.index)):
        raise CheckFailed(f"{what}: the catalog has no star {unknown[0]}")
    stars = catalog.loc[given.index]
    iron = stars["fe_h"].to_numpy(float)
    for element in elements:
        ratio = stars[f"{element}_fe"].to_numpy(float)
        found = given[f"{element}_h"].to_numpy(float)
        name = element.capitalize()
        if _same_abundances(found, ratio + iron):
            continue
        if _same_abundances(found, ratio):
            raise CheckFailed(f"{what}: {element}_h is [{name}/Fe]; [Fe/H] has to be added")
        if _same_abundances(found, ratio - iron):
            raise CheckFailed(f"{what}: [Fe/H] is subtracted in {element}_h; it has to be added")
        raise CheckFailed(f"{what}: {element}_h is not [{name}/Fe] + [Fe/H]")
    if "fe_h" in given and not _same_abundances(given["fe_h"].to_numpy(float), iron):
        raise CheckFailed(f"{what}: fe_h is [Fe/H] itself, to which nothing is added")
    return f"Right: [X/H] of {len(elements)} elements and {len(given)} stars."


def _same_abundances(found: np.ndarray, right: np.ndarray) -> bool:
    """Whether abundances (dex) agree to the third digit; files keep five, and NaN where none is."""
    return bool(np.allclose(found, right, atol=2e-3, equal_nan=True))
