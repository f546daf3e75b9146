"""How a Cannon is trained: spectra and labels that may teach it, checked, and all pixels trained at once."""

import os
from concurrent.futures import ThreadPoolExecutor
from math import comb

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from labtools.labelspace import finite, some, turn
from labtools.quadratic import design, joined, symmetric
from labtools.spectra import usable

__all__ = ["check_normalized", "chunks", "fault_of", "maximize_pixels", "standardized"]

CHUNK = 200  # stars that are held as float64 at a time
TINY = 1e-6  # smallest error of a normalized flux that is believed
FILLER = -9000  # values of labels up to this one stand for no value


def chunks(spectra, chunk=CHUNK):
    """Flux and σ² (n, wavelength) of some stars after the other."""
    for start in range(0, spectra.sizes["star"], chunk):
        yield _flux_and_variance(spectra.isel(star=slice(start, start + chunk)))


def _flux_and_variance(spectra):
    """Flux and σ² (star, wavelength), float64; flux 0 and σ² infinite where a pixel must not count."""
    flux, error = spectra.flux.values, spectra.error.values
    good = usable(flux, error)
    tiny = (good & (error < TINY)).any(axis=1)
    if tiny.any():
        names = some(spectra.star.values[tiny])
        raise ValueError(f"errors below {TINY} are none; bad pixels have error = inf: {names}")
    variance = np.where(good, error, np.inf).astype(float)
    return np.where(good, flux, 0).astype(float), np.square(variance, out=variance)


def standardized(stars, labels, degree, reciprocal):
    """Scaled labels (N, K) in the order of the stars, and offset and scale (K,); ValueError if they cannot teach."""
    if not isinstance(labels, pd.DataFrame):
        raise ValueError("labels must be a DataFrame indexed by star, with a column for each label")
    numbers, names = labels.select_dtypes("number"), labels.columns
    if wrong := [name for name in labels if name not in numbers]:
        raise ValueError(
            f"these columns are no labels: {', '.join(wrong)}. Choose columns, such as giants[LABELS]"
        )
    if wrong := set(reciprocal) - set(labels):
        raise ValueError(f"reciprocal names {', '.join(wrong)}, which is none of the labels")
    stars = pd.Index(stars)
    if not labels.index.is_unique or not stars.is_unique:
        twice = stars[stars.duplicated()].append(labels.index[labels.index.duplicated()])
        raise ValueError(f"every star must occur once; repeated: {some(twice)}")
    if len(missing := stars.difference(labels.index)):
        raise ValueError(f"no labels for {some(missing)}")
    turned, terms = names.isin(reciprocal), comb(len(names) + degree, degree)
    y = turn(finite(labels.loc[stars], turned, FILLER), turned)
    if len(y) < 2 * terms:
        raise ValueError(f"{len(y)} stars are too few to train {terms} coefficients a pixel")
    offset, scale = y.mean(axis=0), y.std(axis=0)
    if (scale == 0).any():
        raise ValueError(f"these labels are the same for all stars: {', '.join(names[scale == 0])}")
    x = (y - offset) / scale
    if np.linalg.matrix_rank(design(x, 1), tol=1e-6 * np.sqrt(len(x))) <= x.shape[1]:
        raise ValueError(f"the labels {', '.join(names)} are linearly dependent: leave one out")
    return x, offset, scale


def check_normalized(spectra):
    """ValueError if a star has no usable pixel, or a median flux that is not near 1."""
    level = []
    for flux, variance in chunks(spectra):
        seen = np.isfinite(variance)
        level += [
            np.median(f[use]) if use.any() else np.nan for f, use in zip(flux, seen, strict=True)
        ]
    if np.isnan(level).any():
        raise ValueError(
            f"no usable pixel in {some(spectra.star.values[np.isnan(level)])}: leave these stars out"
        )
    off = np.abs(np.log(np.maximum(level, 1e-9))) > np.log(2)
    if off.any():
        raise ValueError(
            f"the spectra of {some(spectra.star.values[off])} are not normalized: call `normalize` first"
        )


def maximize_pixels(v, spectra, penalty):
    """Coefficients (L, T) and scatter s² (L,) of all pixels, each read once, some at a time on all cores.

    v : (N, T) design vectors of the training stars. penalty : (T,) what a ridge adds to the diagonal of the normal
    matrices, in units of the sum of a pixel's weights.
    """
    i, j = np.triu_indices(v.shape[1])
    products, workers, n_pixels = v[:, i] * v[:, j], os.cpu_count(), spectra.sizes["wavelength"]
    width = max(8, min(64, n_pixels // (8 * workers), 2**21 // len(v)))

    def train(start):
        block = _flux_and_variance(spectra.isel(wavelength=slice(start, start + width)))
        return _maximize_block(
            v, products, *(np.ascontiguousarray(part.T) for part in block), penalty
        )

    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        return joined(pool.map(train, range(0, n_pixels, width)))


def _maximize_block(v, products, flux, variance, penalty, rounds=200, guesses=5, trust=8):
    """Steps towards least squares and steps in s² by turns, until both stand still.

    Steps in the coefficients follow the exact gradient, guided by an inverse normal matrix: the first ones by that of
    equal errors, the same for all pixels, all others by that of each pixel, which is made once, and again where `trust`
    rounds were not enough. A pixel that does not come to rest counts as one that cannot be trained.
    """
    terms, shared = v.shape[1], np.ones((1, len(v))) / len(v)
    theta, s2 = np.eye(1, terms).repeat(len(flux), axis=0), np.full(len(flux), np.inf)
    active = np.flatnonzero(np.isfinite(variance).sum(axis=1) >= 2 * terms)
    flux, variance, s2[active] = flux[active], variance[active], 1e-4
    inverse = np.linalg.inv(symmetric(shared @ products, terms) + np.diag(penalty))
    weight, residual, work = np.empty_like(flux), flux - 1, np.empty_like(flux)
    for number in range(rounds):
        np.reciprocal(np.add(variance, s2[active, None], out=weight), out=weight)
        total = weight.sum(axis=1, keepdims=True)
        if number >= guesses and (number - guesses) % trust == 0:
            inverse = np.linalg.inv(symmetric(weight @ products / total, terms) + np.diag(penalty))
        slope = np.multiply(weight, residual, out=work) @ v - total * penalty * theta[active]
        step = np.matvec(inverse, slope) / total
        theta[active] += step
        np.subtract(flux, np.matmul(theta[active], v.T, out=residual), out=residual)
        change, size = _scatter_step(residual, weight, total[:, 0], s2[active], work)
        s2[active] += change
        moved = (
            (np.abs(change) > 1e-9 * size) | (np.vecdot(step, slope) > 1e-13) | (number <= guesses)
        )
        if not moved.any():
            break
        if not moved.all():
            active, inverse = active[moved], inverse[moved]
            flux, variance, residual = flux[moved], variance[moved], residual[moved]
            weight, work = weight[: len(flux)], work[: len(flux)]
    else:
        theta[active], s2[active] = np.eye(1, terms), np.inf
    return theta, s2


def _scatter_step(residual, weight, total, s2, work):
    """A Newton step towards the s² (P,) of largest likelihood, given residuals and w = 1/(σ²+s²) (P, N).

    The slope of the log-likelihood in s² is ½ Σ w(wr² - 1), its curvature -½ Σ w²(2wr² - 1), expected -½ Σ w²; the
    larger of the first and half the second is taken. Returns the step and the harmonic mean of the total variance,
    which is the size that s² is to be compared with.
    """
    np.multiply(weight, residual, out=work)
    np.multiply(work, work, out=work)
    expected = np.vecdot(weight, weight)
    curvature = np.maximum(2 * np.vecdot(weight, work) - expected, expected / 2)
    return np.maximum((work.sum(axis=1) - total) / curvature, -s2), weight.shape[1] / total


def fault_of(labels, offset, scale, wavelength, theta, s2, examples, degree, reciprocal):
    """What is wrong with the arrays of a model: a sentence, or None."""
    k, pixels = labels.size, wavelength.size
    if (
        degree.shape != ()
        or degree not in (1, 2, 3)
        or labels.ndim != 1
        or not 0 < k < 100
        or labels.dtype.kind != "U"
    ):
        return "its labels or its degree are none"
    shapes = {
        "offset": (k,),
        "scale": (k,),
        "reciprocal": (k,),
        "wavelength": (pixels,),
        "s2": (pixels,),
    }
    shapes |= {
        "theta": (pixels, comb(k + int(degree), k)),
        "examples": (len(np.atleast_1d(examples)), k),
    }
    arrays = locals()
    if wrong := [name for name, shape in shapes.items() if arrays[name].shape != shape]:
        return f"the shapes of {', '.join(wrong)} do not fit {k} labels and {pixels} pixels"
    numbers = (offset, scale, wavelength, theta, examples, np.where(np.isinf(s2), 0, s2))
    if (
        any(array.dtype != float or not np.isfinite(array).all() for array in numbers)
        or reciprocal.dtype != bool
    ):
        return "a number in it is not finite"
    if not (scale > 0).all() or not (s2 >= 0).all() or len(examples) <= k:
        return "a scale is not positive, or it has no training stars"
