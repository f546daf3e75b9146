"""The Cannon (Ness et al. 2015, ApJ 808, 16): spectra as polynomials of labels, learned from stars.

In every pixel the flux of a star with K labels is ``f = v·θ + noise``. The design vector v holds 1,
the scaled labels and all their products (a quadratic model has T = 1 + K + K(K+1)/2 terms). The
variance of the noise is σ² + s²: the error of that pixel, and an intrinsic scatter of the model.

The module follows the lab: the design vector (Problem 6a), the coefficients and the scatter of a
pixel (6b), all pixels (6c), the checks of what is to be learned from, and the class `Cannon` with
`train`, `predict` (6d), `gradient` (8) and `fit` (9). What `fit` rests on stands below the class:
the χ² of a star as a small quadratic form, and its minimum. Shapes in comments use N stars,
L pixels, T terms, K labels.
"""

from __future__ import annotations

import io
import operator
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import pandas as pd
import xarray as xr
from threadpoolctl import threadpool_limits

from apogee_archive import npz
from apogee_archive.cache import atomic_write
from apogee_archive.errors import wrap_read_errors
from labtools.selection import split_by_star
from labtools.spectra import by_star, usable

__all__ = [
    "Cannon",
    "centered_design",
    "design",
    "design_slopes",
    "example_stars",
    "fit_pixels",
    "format_names",
    "monomials",
    "quadratic_forms",
    "ridge_scores",
    "slope_and_curvature",
]

CHUNK = 200  # stars that are held as float64 at a time
READ_AT_ONCE = 2**24  # values of flux, and of error, that are read from disk at a time in training
SMALLEST_ERROR = 1e-6  # an error of a normalized flux below this one is invalid
FILLERS = (-999.0, -9999.0)  # values of labels that stand for "not measured" ...
LOWEST_LABEL = -9000.0  # ... and so does everything up to this one
LARGEST_FILE = 1 << 30  # bytes of a model file that are read


# ----- Problem 6(a): the design vector --------------------------------------------------------


@lru_cache
def monomials(labels: int, degree: int) -> list[tuple[list[int], list[int]]]:
    """How a design vector grows from one power of the labels to the next.

    Each term of power p is a term of power p - 1 times one more label. Because every product is
    made once only, with the labels in order, no term occurs twice.

    Parameters
    ----------
    labels : int
        Number of labels, K.
    degree : int
        Highest power.

    Returns
    -------
    list of (earlier, label)
        For each power from 1 to `degree`: positions of the terms that are multiplied, and the
        positions of the labels that they are multiplied with.

    Examples
    --------
    >>> monomials(2, 2)  # 1, x0, x1 -> x0 x0, x0 x1, x1 x1
    [([0, 0], [0, 1]), ([1, 1, 2], [0, 1, 1])]
    """
    position: dict[tuple[int, ...], int] = {(): 0}  # the term 1 is the empty product
    powers = []
    for power in range(1, degree + 1):
        terms = list(combinations_with_replacement(range(labels), power))
        powers.append(([position[term[:-1]] for term in terms], [term[-1] for term in terms]))
        first = len(position)
        position |= {term: first + number for number, term in enumerate(terms)}
    return powers


def design(x: np.ndarray, degree: int = 2) -> np.ndarray:
    """Design vectors of scaled labels: 1, the labels, their products with i <= j, and so on.

    Parameters
    ----------
    x : array (..., K)
        Scaled labels.
    degree : int
        Highest power of the labels.

    Returns
    -------
    array (..., T)
        T = 1 + K + K(K+1)/2 for a quadratic model.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16, eq. 8.

    Examples
    --------
    >>> design([2, 3])
    array([1., 2., 3., 4., 6., 9.])
    """
    return _expand(x, degree, order=0)[0]


def design_slopes(x: np.ndarray, degree: int = 2) -> np.ndarray:
    """Derivatives of the design vector with respect to the scaled labels.

    Parameters
    ----------
    x : array (..., K)
        Scaled labels.
    degree : int
        Highest power of the labels.

    Returns
    -------
    array (..., T, K)

    Examples
    --------
    >>> design_slopes([2, 3])[:, 0]  # of 1, x, y, x², xy, y² with respect to x
    array([0., 1., 0., 4., 3., 0.])
    """
    return _expand(x, degree, order=1)[1]


def centered_design(x: np.ndarray, degree: int = 2) -> np.ndarray:
    """Design vectors less that of the mean star, which is (1, 0, 0, ...).

    Parameters
    ----------
    x : array (..., K)
        Scaled labels.
    degree : int
        Highest power of the labels.

    Returns
    -------
    array (..., T)

    Examples
    --------
    >>> centered_design([2, 3])
    array([0., 2., 3., 4., 6., 9.])
    """
    v = design(x, degree)
    v[..., 0] = 0
    return v


def _expand(x, degree, order):
    """Design vectors (..., T), their slopes (..., T, K) and curvatures (..., T, K, K), up to order.

    Each new term is an earlier term u times one label y, so that the rules for products give
    (uy)' = u'y + uy' and (uy)'' = u''y + u'y' + y'u', where y' is a unit vector and y'' = 0.
    """
    x = np.asarray(x, float)
    *stars, k = x.shape
    unit = np.eye(k)
    value = np.ones((*stars, 1))
    slope = np.zeros((*stars, 1, k))
    curvature = np.zeros((*stars, 1, k, k))
    for earlier, label in monomials(k, degree):
        y, dy = x[..., label], unit[label]  # (..., new terms), (new terms, K)
        # `take` keeps rows in one piece of memory; an index would not, and products would be slow.
        u = value.take(earlier, axis=-1)
        new = u * y
        if order > 0:
            du = slope.take(earlier, axis=-2)
            new_slope = du * y[..., None] + u[..., None] * dy
            if order > 1:
                ddu = curvature.take(earlier, axis=-3)
                cross = du[..., None] * dy[:, None, :]
                new_curvature = ddu * y[..., None, None] + cross + np.swapaxes(cross, -1, -2)
                curvature = np.concatenate([curvature, new_curvature], axis=-3)
            slope = np.concatenate([slope, new_slope], axis=-2)
        value = np.concatenate([value, new], axis=-1)
    return (value, slope, curvature)[: order + 1]


# ----- Spectra as arrays, some stars or pixels at a time --------------------------------------


def _star_chunks(spectra, size=CHUNK):
    """Flux and σ² (n, L) of `size` stars after the other, as `_flux_and_variance` gives them."""
    for start in range(0, spectra.sizes["star"], size):
        yield _flux_and_variance(spectra.isel(star=slice(start, start + size)))


def _flux_and_variance(spectra):
    """Flux and σ² (star, wavelength), float64: flux 0 and σ² infinite where a pixel must not count.

    Such a pixel has the weight 1/(∞ + s²) = 0 in every sum, so that no sum needs a mask.
    """
    flux, error = spectra.flux.values, spectra.error.values
    good = usable(flux, error)
    too_small = (good & (error < SMALLEST_ERROR)).any(axis=1)
    if too_small.any():
        raise ValueError(
            f"errors below {SMALLEST_ERROR} are invalid (a bad pixel has error = inf): "
            f"{format_names(spectra.star.values[too_small])}"
        )
    variance = np.where(good, error, np.inf).astype(float)
    return np.where(good, flux, 0).astype(float), np.square(variance, out=variance)


def _require_normalized(stars, flux, variance):
    """ValueError if the level of a spectrum is not near 1; stars without a usable pixel pass.

    The mean is quick, but one wild pixel can move it: the median of a suspect has the last word.
    """
    good = np.isfinite(variance)
    n_pixels = np.count_nonzero(good, axis=1)
    mean = flux.sum(axis=1) / np.maximum(n_pixels, 1)
    suspects = np.flatnonzero((n_pixels > 0) & ~((mean > 0.5) & (mean < 2)))
    wrong = [star for star in suspects if not 0.5 <= np.median(flux[star, good[star]]) <= 2]
    if wrong:
        raise ValueError(
            f"the spectra of {format_names(stars[wrong])} are not normalized: "
            "call `labtools.normalize` first"
        )


def _concatenate(parts):
    """Arrays of all stars (or pixels) from tuples of arrays of some after the other."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _symmetric(upper, size):
    """Symmetric matrices (n, T, T) from their upper triangles (n, T(T+1)/2)."""
    i, j = np.triu_indices(size)
    full = np.empty((len(upper), size, size))
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


# ----- Problem 6(b) and (c): coefficients and scatter of all pixels ---------------------------


def fit_pixels(
    v: np.ndarray, spectra: xr.Dataset, penalty: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and scatter of largest likelihood in every pixel.

    A pixel knows nothing of its neighbours, so blocks of pixels are trained on all cores at once,
    and each pixel is read once (from memory or from disk).

    Parameters
    ----------
    v : array (N, T)
        Design vectors of the training stars.
    spectra : Dataset
        Normalized `flux` and `error` (star, wavelength) of these stars.
    penalty : array (T,) or float
        What a ridge adds to the diagonal of the normal matrices, in units of the sum of a
        pixel's weights.

    Returns
    -------
    theta : array (L, T)
        Coefficients; 1, 0, 0, ... in a pixel that could not be trained.
    s2 : array (L,)
        Variance of the intrinsic scatter; infinite in a pixel that could not be trained.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16, eq. 7.

    Examples
    --------
    >>> spectra, labels = example_stars()
    >>> x = (labels - labels.mean()) / labels.std()
    >>> theta, s2 = fit_pixels(design(x.to_numpy()), spectra)
    >>> theta.shape, s2.shape
    ((40, 6), (40,))
    """
    n_pixels, workers = spectra.sizes["wavelength"], os.cpu_count() or 1
    penalty = np.broadcast_to(np.asarray(penalty, float), v.shape[1])
    i, j = np.triu_indices(v.shape[1])
    products = v[:, i] * v[:, j]  # (N, T(T+1)/2): made once, the same for all pixels
    # Small enough for the processor's cache and for all cores to have work, but not tiny.
    width = max(8, min(64, n_pixels // (8 * workers), 2**21 // len(v)))

    def train(some):
        flux, variance = _flux_and_variance(some)  # (N, width)
        # One pixel per row, in one piece of memory, for the sums over stars.
        return _fit_block(
            v, products, np.ascontiguousarray(flux.T), np.ascontiguousarray(variance.T), penalty
        )

    blocks: list[tuple[np.ndarray, np.ndarray]] = []
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        # Many blocks are read at once: on disk hundreds of pixels lie in one compressed piece.
        for some in _pixel_blocks(spectra, width * max(1, READ_AT_ONCE // (width * len(v)))):
            blocks += pool.map(train, _pixel_blocks(some.compute(), width))
    theta, s2 = _concatenate(blocks)
    return theta, s2


def _pixel_blocks(spectra, width):
    """Spectra of `width` pixels at a time, one block after the other."""
    for start in range(0, spectra.sizes["wavelength"], width):
        yield spectra.isel(wavelength=slice(start, start + width))


def _fit_block(v, products, flux, variance, penalty, rounds=200, shared_rounds=5, refresh=8):
    """Train the pixels of one block: steps in the coefficients and in s² by turns.

    At a fixed s² the best coefficients solve the normal equations (VᵀWV) θ = VᵀWf with weights
    w = 1/(σ²+s²). Solving them anew for each s² would be costly, and is not needed: a step
    ``inverse @ gradient`` leads to the same θ for any matrix near the inverse of VᵀWV, for at the
    end the exact gradient is zero. The first `shared_rounds` take the matrix of equal weights,
    which is the same for all pixels; then each pixel has its own, made again only if `refresh`
    rounds were not enough. A pixel that has not come to rest after `rounds` is not trained.

    v (N, T), products (N, T(T+1)/2), flux and variance (P, N) with one row per pixel, penalty (T,).
    Returns theta (P, T) and s2 (P,).
    """
    n_stars, terms = v.shape
    theta, s2 = np.eye(1, terms).repeat(len(flux), axis=0), np.full(len(flux), np.inf)
    # `active` holds the rows of theta and s2 that still move. Pixels seen in fewer stars than
    # twice the coefficients never enter; a pixel that has come to rest leaves, and all arrays of
    # one row per active pixel (flux ... inverse) are cut down with it.
    active = np.flatnonzero(np.isfinite(variance).sum(axis=1) >= 2 * terms)
    flux, variance, s2[active] = flux[active], variance[active], 1e-4
    equal_weights = np.ones((1, n_stars)) / n_stars
    inverse = np.linalg.inv(_symmetric(equal_weights @ products, terms) + np.diag(penalty))
    residual = flux - 1  # the first theta is 1, 0, 0, ...
    weight, work = np.empty_like(flux), np.empty_like(flux)
    for number in range(rounds):
        np.reciprocal(np.add(variance, s2[active, None], out=weight), out=weight)  # 1/(σ²+s²)
        total = weight.sum(axis=1, keepdims=True)
        if number >= shared_rounds and (number - shared_rounds) % refresh == 0:
            normal = _symmetric(weight @ products / total, terms)  # VᵀWV of every active pixel
            inverse = np.linalg.inv(normal + np.diag(penalty))
        # Gradient of the log-likelihood in θ: VᵀW(f - Vθ), less that of the ridge.
        gradient = np.multiply(weight, residual, out=work) @ v - total * penalty * theta[active]
        step = np.matvec(inverse, gradient) / total
        theta[active] += step
        np.subtract(flux, np.matmul(theta[active], v.T, out=residual), out=residual)
        change, size = _scatter_step(residual, weight, total[:, 0], s2[active], work)
        s2[active] += change
        # step·gradient is twice what the log-likelihood still had to gain from θ.
        moved = np.abs(change) > 1e-9 * size
        moved |= np.vecdot(step, gradient) > 1e-13
        moved |= number <= shared_rounds
        if not moved.any():
            break
        if not moved.all():
            active, inverse = active[moved], inverse[moved]
            flux, variance, residual = flux[moved], variance[moved], residual[moved]
            weight, work = weight[: len(flux)], work[: len(flux)]  # their content is made anew
    else:
        theta[active], s2[active] = np.eye(1, terms), np.inf
    return theta, s2


def _scatter_step(residual, weight, total, s2, work):
    """A Newton step towards the s² (P,) of largest likelihood, for residuals r and weights (P, N).

    With w = 1/(σ²+s²) the slope of the log-likelihood in s² is ½ Σ w(wr² - 1). Its second
    derivative is -½ Σ w²(2wr² - 1), which is -½ Σ w² for residuals of the expected size. Far from
    the maximum the first can have the wrong sign, so the step divides by the larger of it and half
    of the second. s² never becomes negative. `work` (P, N) is overwritten.

    Returns the step (P,), and the harmonic mean of σ²+s² (P,), the size to compare it with.
    """
    np.multiply(weight, residual, out=work)
    np.multiply(work, work, out=work)  # w²r²
    expected = np.vecdot(weight, weight)
    curvature = np.maximum(2 * np.vecdot(weight, work) - expected, expected / 2)
    step = np.maximum((work.sum(axis=1) - total) / curvature, -s2)
    return step, weight.shape[1] / total


# ----- Labels that a model can learn from -----------------------------------------------------


def format_names(stars: Sequence | np.ndarray | pd.Index) -> str:
    """Names of stars for a message: all, or of more than five their number and the first five.

    Parameters
    ----------
    stars : sequence of str
        Names of stars.

    Returns
    -------
    str

    Examples
    --------
    >>> format_names(["2M1", "2M2"])
    '2M1, 2M2'
    >>> format_names(list("abcdefg"))
    '7 stars (a, b, c, d, e, ...)'
    """
    names = ", ".join(map(str, stars[:5]))
    return f"{len(stars)} stars ({names}, ...)" if len(stars) > 5 else names


def _invert_temperature(values, inverted):
    """5040 / value where a label is `inverted` (K,), the value elsewhere; its own inverse."""
    return np.where(inverted, 5040 / np.where(inverted, values, 1), values)


def _native(table):
    """A table with its numbers in the byte order of this machine: FITS columns have the other."""
    swapped = {
        name: column.to_numpy().astype(column.dtype.newbyteorder("="))
        for name, column in table.items()
        if isinstance(column.dtype, np.dtype) and not column.dtype.isnative
    }
    return table.assign(**swapped) if swapped else table


def _require_finite(table, inverted, training=False):
    """Labels (N, K) of a DataFrame; ValueError if one is not finite, or inverted and not positive.

    In training, values that stand for "not measured" are refused too.
    """
    y = table.to_numpy(float, na_value=np.nan)
    good = np.isfinite(y) & ~(inverted & (y <= 0))
    if training:
        good &= (y > LOWEST_LABEL) & ~np.isin(y, FILLERS)
    bad = ~good.all(axis=1)
    if bad.any():
        rule = "finite, no fillers" if training else "finite"
        raise ValueError(
            f"labels must be {rule}, temperatures positive; "
            f"not so for {format_names(table.index[bad])}"
        )
    return y


def _scale_labels(stars, labels, degree, reciprocal):
    """Scaled labels (N, K) in the order of the stars, and the offset and scale (K,) that make them.

    ValueError if the labels cannot teach: not numbers, missing, fillers, constant, linearly
    dependent, or of too few stars.
    """
    if not isinstance(labels, pd.DataFrame):
        raise ValueError("labels must be a DataFrame indexed by star, with one column per label")
    labels, names = _native(labels), labels.columns
    if not names.is_unique:
        raise ValueError(
            f"each label must have a name of its own, not {', '.join(map(str, names))}"
        )
    numbers = labels.select_dtypes("number")
    if wrong := [str(name) for name in names if name not in numbers]:
        raise ValueError(
            f"these columns are not labels, which are numbers: {', '.join(wrong)}. "
            "Choose columns, such as giants[LABELS]"
        )
    if wrong := sorted(set(reciprocal) - set(names)):
        raise ValueError(f"reciprocal names {', '.join(wrong)}, which is not among the labels")
    stars = pd.Index(stars)
    if not labels.index.is_unique or not stars.is_unique:
        twice = stars[stars.duplicated()].append(labels.index[labels.index.duplicated()])
        raise ValueError(f"every star must occur once; repeated: {format_names(twice)}")
    if len(missing := stars.difference(labels.index)):
        raise ValueError(f"no labels for {format_names(missing)}")

    inverted, terms = names.isin(reciprocal), comb(len(names) + degree, degree)
    y = _require_finite(labels.loc[stars], inverted, training=True)
    y = _invert_temperature(y, inverted)
    if len(y) < 2 * terms:
        raise ValueError(f"{len(y)} stars are too few to train {terms} coefficients per pixel")
    offset, scale = y.mean(axis=0), y.std(axis=0)
    # The mean of equal numbers is rounded, so that their standard deviation need not be exactly 0.
    constant = scale <= 1e-9 * np.abs(offset)
    if constant.any():
        raise ValueError(
            f"these labels are the same for all stars: {', '.join(names[constant])}; leave them out"
        )
    x = (y - offset) / scale
    # A combination of labels that is constant is a direction in which the labels have no spread.
    _, spread, directions = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    if spread[-1] <= 1e-6 * np.sqrt(len(x)):
        involved = names[np.abs(directions[-1]) > 1e-3]
        raise ValueError(
            f"the labels {', '.join(involved)} are linearly dependent: leave one of them out"
        )
    return x, offset, scale


# ----- The model ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Cannon:
    """A trained model: what each pixel of a spectrum does when the labels change.

    It is made by `Cannon.train` or `Cannon.load`, and is never changed.

    Attributes
    ----------
    labels : tuple of str
        Names of the K labels.
    offset, scale : array (K,)
        A scaled label is (label - offset) / scale, with 5040 / label for those in `reciprocal`.
    wavelength : array (L,)
        Angstrom.
    theta : array (L, T)
        Coefficients of the design vector; 1, 0, 0, ... where a pixel could not be trained.
    s2 : array (L,)
        Variance of the intrinsic scatter; infinite where a pixel could not be trained.
    training_labels : array (N, K)
        Scaled labels of the training set: starting points, and the region where the model holds.
    degree : int
        Highest power of the labels in the design vector.
    reciprocal : tuple of str
        Labels that enter as 5040 / label, such as a temperature in K.

    References
    ----------
    Ness et al. 2015, ApJ 808, 16.

    Examples
    --------
    >>> spectra, labels = example_stars()
    >>> model = Cannon.train(spectra, labels)
    >>> model
    Cannon(teff, fe_h; 6 terms, 40 of 40 pixels, 60 training stars)
    >>> fitted = model.fit(spectra)
    >>> bool(abs(fitted.fe_h - labels.fe_h).max() < 0.02)
    True
    """

    labels: tuple[str, ...]
    offset: np.ndarray
    scale: np.ndarray
    wavelength: np.ndarray
    theta: np.ndarray
    s2: np.ndarray
    training_labels: np.ndarray
    degree: int = 2
    reciprocal: tuple[str, ...] = ()

    def __repr__(self) -> str:
        names = [f"5040/{name}" if name in self.reciprocal else name for name in self.labels]
        trained = np.isfinite(self.s2).sum()
        return (
            f"Cannon({', '.join(names)}; {self.theta.shape[1]} terms, "
            f"{trained} of {self.s2.size} pixels, {len(self.training_labels)} training stars)"
        )

    @classmethod
    def train(
        cls,
        spectra: xr.Dataset,
        labels: pd.DataFrame,
        degree: int = 2,
        ridge: float = 0.0,
        reciprocal: str | Sequence[str] = (),
    ) -> Cannon:
        """Fit the coefficients and the scatter of every pixel by maximum likelihood.

        The spectra are read twice, first to check them and then pixel by pixel, and never as a
        whole: Datasets on disk (dask, zarr) may be larger than the memory.

        Parameters
        ----------
        spectra : Dataset
            Normalized `flux` and `error` (star, wavelength); error = inf leaves a pixel out.
        labels : DataFrame
            Indexed by star, one column per label; any number of labels, in any units.
        degree : int
            Highest power of the labels: 1, 2 or 3.
        ridge : float
            How strongly products of labels are held near 0, as a share of the weight of the data;
            `ridge_scores` compares several.
        reciprocal : str or sequence of str
            Labels that enter as 5040 / label, such as a temperature in K.

        Returns
        -------
        Cannon

        Raises
        ------
        ValueError
            If labels are not numbers, missing, fillers, constant or linearly dependent, if there
            are fewer stars than twice the coefficients, if a star has no usable pixel, or if the
            spectra are not normalized.

        References
        ----------
        Ness et al. 2015, ApJ 808, 16, eq. 7 and 8.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> Cannon.train(spectra, labels, degree=1, reciprocal="teff")
        Cannon(5040/teff, fe_h; 3 terms, 40 of 40 pixels, 60 training stars)
        """
        degree = _whole_number(degree, "degree", (1, 2, 3))
        if not 0 <= ridge < np.inf:
            raise ValueError(f"ridge must be finite and not negative; it is {ridge}")
        reciprocal = (reciprocal,) if isinstance(reciprocal, str) else tuple(reciprocal)
        spectra = by_star(spectra)
        stars = spectra.star.values
        x, offset, scale = _scale_labels(stars, labels, degree, reciprocal)

        first = 0
        for flux, variance in _star_chunks(spectra):
            some = stars[first : first + len(flux)]
            blind = ~np.isfinite(variance).any(axis=1)
            if blind.any():
                raise ValueError(
                    f"no usable pixel in {format_names(some[blind])}: leave these stars out"
                )
            _require_normalized(some, flux, variance)
            first += len(flux)

        v = design(x, degree)  # (N, T)
        is_product = np.arange(v.shape[1]) > x.shape[1]  # the ridge leaves 1 and the labels alone
        theta, s2 = fit_pixels(v, spectra, penalty=ridge * is_product)
        wavelength = spectra.wavelength.values.astype(float)
        return cls(tuple(labels), offset, scale, wavelength, theta, s2, x, degree, reciprocal)

    # Labels and scaled labels

    @property
    def _inverted(self):
        return np.isin(self.labels, self.reciprocal)

    def scaled(self, y: np.ndarray) -> np.ndarray:
        """Scaled labels of labels in their own units.

        Parameters
        ----------
        y : array (..., K)
            Labels, in the order of the model.

        Returns
        -------
        array (..., K)

        Examples
        --------
        >>> model = Cannon.train(*example_stars())
        >>> model.scaled(model.offset)
        array([0., 0.])
        """
        return (_invert_temperature(y, self._inverted) - self.offset) / self.scale

    def unscaled(self, x: np.ndarray) -> np.ndarray:
        """Labels in their own units, of scaled labels.

        Parameters
        ----------
        x : array (..., K)
            Scaled labels.

        Returns
        -------
        array (..., K)

        Examples
        --------
        >>> model = Cannon.train(*example_stars())
        >>> bool(np.all(model.unscaled(np.zeros(2)) == model.offset))
        True
        """
        return _invert_temperature(x * self.scale + self.offset, self._inverted)

    def units(self, x: np.ndarray) -> np.ndarray:
        """Derivatives of the labels with respect to the scaled labels.

        Parameters
        ----------
        x : array (..., K)
            Scaled labels at which they are taken.

        Returns
        -------
        array (..., K)

        Examples
        --------
        >>> model = Cannon.train(*example_stars())
        >>> bool(np.all(model.units(np.zeros(2)) == model.scale))  # no label is a reciprocal
        True
        """
        # d(5040/u)/dx = -(5040/u)²/5040 · du/dx
        inner = np.where(self._inverted, -(self.unscaled(x) ** 2) / 5040, 1.0)
        return inner * self.scale

    def _scaled_table(self, labels, warn=True):
        """Index and scaled labels (n, K) of a DataFrame, or of one row of it.

        A warning names stars outside the training set; ValueError if a label is missing.
        """
        table = labels.to_frame().T if isinstance(labels, pd.Series) else labels
        if missing := [name for name in self.labels if name not in table]:
            raise ValueError(
                f"the model needs the labels {', '.join(self.labels)}; "
                f"missing: {', '.join(missing)}"
            )
        table = _native(table[list(self.labels)])
        x = self.scaled(_require_finite(table, self._inverted))
        outside = self._outside(x)
        if warn and outside.any():
            warnings.warn(
                f"the model extrapolates: the labels of {format_names(table.index[outside])} "
                "lie outside its training set",
                stacklevel=3,
            )
        return table.index, x

    def distance(self, labels: pd.DataFrame) -> pd.Series:
        """Mahalanobis distance of labels from the mean of the training set.

        Parameters
        ----------
        labels : DataFrame
            A column for each label of the model; other columns are ignored.

        Returns
        -------
        Series
            Indexed like `labels`; without unit.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> model = Cannon.train(spectra, labels)
        >>> model.distance(labels.head(2)).round(1).tolist()
        [0.8, 1.3]
        """
        stars, x = self._scaled_table(labels, warn=False)
        return pd.Series(self._distance(x), stars, name="distance")

    def extrapolates(self, labels: pd.DataFrame) -> pd.Series:
        """Whether labels lie further from the training set than those of any of its stars.

        Parameters
        ----------
        labels : DataFrame
            A column for each label of the model; other columns are ignored.

        Returns
        -------
        Series of bool
            Indexed like `labels`.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> model = Cannon.train(spectra, labels)
        >>> bool(model.extrapolates(labels).any())
        False
        """
        stars, x = self._scaled_table(labels, warn=False)
        return pd.Series(self._outside(x), stars, name="extrapolated")

    def _distance(self, x):
        inverse = np.linalg.inv(np.atleast_2d(np.cov(self.training_labels.T)))
        return np.sqrt(np.einsum("nk,kl,nl->n", x, inverse, x))

    def _outside(self, x):
        return self._distance(x) > self._distance(self.training_labels).max()

    # Problems 6(d), 7 and 8

    def predict(self, labels: pd.DataFrame | pd.Series) -> xr.DataArray:
        """Model flux of stars with these labels; a warning names those outside the training set.

        Parameters
        ----------
        labels : DataFrame or Series
            A column for each label of the model, or one row of such a table.

        Returns
        -------
        DataArray (star, wavelength)

        Raises
        ------
        ValueError
            If a label is missing or not finite.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> model = Cannon.train(spectra, labels)
        >>> model.predict(labels.iloc[0]).shape
        (1, 40)
        """
        stars, x = self._scaled_table(labels)
        flux = design(x, self.degree) @ self.theta.T  # (n, T) @ (T, L)
        return xr.DataArray(flux, coords={"star": stars.values, "wavelength": self.wavelength})

    def gradient(self, labels: pd.DataFrame | pd.Series) -> xr.DataArray:
        """Derivative of the model flux with respect to each label, where the others stay fixed.

        Parameters
        ----------
        labels : DataFrame or Series
            A column for each label of the model, or one row of such a table.

        Returns
        -------
        DataArray (star, label, wavelength)
            Change of the flux per unit of the label.

        Raises
        ------
        ValueError
            If a label is missing or not finite.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> model = Cannon.train(spectra, labels)
        >>> slope = model.gradient(labels.iloc[[0]]).sel(label="fe_h")
        >>> bool(slope.min() < -0.1)  # lines deepen with the metallicity
        True
        """
        stars, x = self._scaled_table(labels)
        slopes = design_slopes(x, self.degree) / self.units(x)[:, None]  # (n, T, K)
        return xr.DataArray(
            np.einsum("ntk,lt->nkl", slopes, self.theta, optimize=True),
            coords={
                "star": stars.values,
                "label": list(self.labels),
                "wavelength": self.wavelength,
            },
        )

    # Problem 9

    def likelihood(
        self, spectra: xr.Dataset, x0: np.ndarray, modes: xr.DataArray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The log-likelihood of each star near scaled labels x0: ln L = constant + rᵀd - ½dᵀAd.

        Here d = v(x) - v(x0) is a difference of design vectors. The formula is exact for any x;
        writing it about x0 avoids the cancellation of large numbers that all models share.

        Parameters
        ----------
        spectra : Dataset
            Normalized `flux` and `error` (star, wavelength) on the wavelengths of the model.
        x0 : array (star, K)
            Scaled labels; NaN counts as the mean star.
        modes : DataArray (mode, wavelength), optional
            Patterns of `labtools.coverage.nuisance_components`; their amplitudes are integrated
            out.

        Returns
        -------
        a : array (star, T, T)
        r : array (star, T)
        constant : array (star,)

        Raises
        ------
        ValueError
            If there is no star, or the wavelengths are not those of the model.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> model = Cannon.train(spectra, labels)
        >>> a, r, constant = model.likelihood(spectra, model.scaled(labels.to_numpy()))
        >>> a.shape, r.shape, constant.shape
        ((60, 6, 6), (60, 6), (60,))
        """
        spectra = self._on_my_wavelengths(spectra)
        v0 = design(np.nan_to_num(x0), self.degree)
        log_variances = []

        def residuals():
            # The form of flux - v0·θ instead of that of the flux: its b is r, its c is χ² at x0.
            some = np.split(v0, range(CHUNK, len(v0), CHUNK))
            for v, (flux, variance) in zip(some, _star_chunks(spectra), strict=True):
                total = variance + self.s2
                log_2pi_total = np.log(
                    2 * np.pi * total, where=np.isfinite(total), out=np.zeros_like(total)
                )
                log_variances.append(log_2pi_total.sum(axis=1))
                yield flux - v @ self.theta.T, variance

        forms = quadratic_forms(self._columns(modes), self.s2, residuals(), v0.shape[1])
        a, r, c, log_det, _ = _concatenate(forms)
        return a, r, -(c + (np.concatenate(log_variances) + log_det)) / 2

    @overload
    def fit(
        self,
        spectra: xr.Dataset,
        starts: int = ...,
        modes: xr.DataArray | None = ...,
        covariance: Literal[False] = ...,
    ) -> pd.DataFrame: ...

    @overload
    def fit(
        self,
        spectra: xr.Dataset,
        starts: int = ...,
        modes: xr.DataArray | None = ...,
        *,
        covariance: Literal[True],
    ) -> tuple[pd.DataFrame, xr.DataArray]: ...

    def fit(self, spectra, starts=3, modes=None, covariance=False):
        """Labels of stars by least squares: the point where χ² of data and model is smallest.

        All stars are fitted together, by damped Newton steps on their quadratic forms (see
        `quadratic_forms`).

        Parameters
        ----------
        spectra : Dataset
            Normalized `flux` and `error` (star, wavelength) on the wavelengths of the model.
        starts : int
            From how many places each star starts, to keep out of local minima: the training stars
            (of a selection of 200) whose model spectra fit it best, each at least one standard
            deviation away from those before.
        modes : DataArray (mode, wavelength), optional
            Patterns of `labtools.coverage.nuisance_components`, which the fit does not trust.
        covariance : bool
            Whether to return the covariance of the labels too.

        Returns
        -------
        table : DataFrame
            Indexed by star: the labels; `<label>_err`, from the curvature of χ²; `chi2`;
            `n_pixels`; `converged`, whether the slope of χ² vanished; `n_agreeing_starts`, how many
            ended in the same minimum; `extrapolated`, see `extrapolates`. A star without enough
            usable pixels has NaN labels and converged = False.
        covariance : DataArray (star, label, other)
            Only if asked for, in the squared units of the labels.

        Raises
        ------
        ValueError
            If there is no star, the wavelengths are not those of the model, the spectra are not
            normalized, or no star has a usable pixel.

        Examples
        --------
        >>> spectra, labels = example_stars()
        >>> model = Cannon.train(spectra, labels)
        >>> fitted = model.fit(spectra)
        >>> list(fitted.columns[:4])
        ['teff', 'fe_h', 'teff_err', 'fe_h_err']
        >>> bool(fitted.converged.all())
        True
        """
        starts = _whole_number(starts, "starts", range(1, 201))
        spectra, names = self._on_my_wavelengths(spectra), list(self.labels)
        stars = spectra.star.values
        candidates = farthest_points(self.training_labels)

        def normalized_chunks():
            first = 0
            for flux, variance in _star_chunks(spectra):
                _require_normalized(stars[first : first + len(flux)], flux, variance)
                first += len(flux)
                yield flux, variance

        forms = quadratic_forms(
            self._columns(modes), self.s2, normalized_chunks(), self.theta.shape[1]
        )
        found = Minima(
            *_concatenate(fit_forms(form, candidates, self.degree, starts) for form in forms)
        )
        if not found.n_pixels.any():
            raise ValueError(f"no usable pixel in {format_names(stars)}: nothing to fit")
        if not found.n_pixels.all():
            warnings.warn(
                f"no usable pixel in {format_names(stars[found.n_pixels == 0])}: "
                "their labels are NaN",
                stacklevel=2,
            )
        units = self.units(found.x)  # (n, K)
        covariances = found.inverse * units[:, :, None] * units[:, None]
        errors = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
        columns = [*names, *(f"{name}_err" for name in names)]
        table = pd.DataFrame(
            np.hstack([self.unscaled(found.x), errors]), pd.Index(stars, name="star"), columns
        )
        table = table.assign(
            chi2=found.chi2,
            n_pixels=found.n_pixels,
            converged=found.converged,
            n_agreeing_starts=found.n_agreeing_starts,
            extrapolated=self._outside(found.x),
        )
        if not covariance:
            return table
        coords = {"star": stars, "label": names, "other": names}
        return table, xr.DataArray(covariances, coords=coords)

    def _on_my_wavelengths(self, spectra):
        """The spectra with one row per star; ValueError if they are not on the model's grid."""
        spectra = by_star(spectra)
        if not spectra.sizes["star"]:
            raise ValueError("there is no star in these spectra")
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError(
                "the spectra are not on the wavelengths of the model: "
                "normalize them on the same grid"
            )
        return spectra

    def _columns(self, modes):
        """θ (L, T), with the modes as further columns: their amplitudes are further terms."""
        if modes is None:
            return self.theta
        if not np.array_equal(modes["wavelength"].values, self.wavelength):
            raise ValueError(
                "the modes are not on the wavelengths of the model: learn them with this model"
            )
        return np.hstack([self.theta, modes.transpose("wavelength", "mode").values])

    # Files

    def to_bytes(self) -> bytes:
        """The model as the content of an .npz file.

        Examples
        --------
        >>> model = Cannon.train(*example_stars())
        >>> Cannon.from_bytes(model.to_bytes())
        Cannon(teff, fe_h; 6 terms, 40 of 40 pixels, 60 training stars)
        """
        return npz.pack(**vars(self) | {"reciprocal": self._inverted})

    @classmethod
    def from_bytes(cls, content: bytes, source: str | Path = "this file") -> Cannon:
        """The model that `to_bytes` wrote.

        Parameters
        ----------
        content : bytes
        source : str or path
            What an error message calls it.

        Raises
        ------
        CorruptFileError
            If it holds something else, is damaged, or was written by an older version.

        Examples
        --------
        >>> Cannon.from_bytes(b"not a model")
        Traceback (most recent call last):
        ...
        apogee_archive.errors.CorruptFileError: this file: not a trained Cannon, or a damaged one \
(File is not a zip file)
        """
        with wrap_read_errors(source, "a trained Cannon"):
            parts = npz.arrays(io.BytesIO(content), min(len(content), LARGEST_FILE))
            if parts.keys() != {field.name for field in fields(cls)}:
                raise ValueError(f"it holds {', '.join(parts)}")
            if fault := validate_model(parts):
                raise ValueError(fault)
        names, inverted = parts["labels"], parts["reciprocal"]
        texts = {"labels": tuple(names.tolist()), "reciprocal": tuple(names[inverted].tolist())}
        values: dict[str, Any] = {**parts, **texts, "degree": int(parts["degree"])}
        return cls(**values)

    def save(self, path: str | Path) -> None:
        """Write the model to one .npz file, which appears whole or not at all.

        Parameters
        ----------
        path : str or path

        Examples
        --------
        >>> import tempfile
        >>> model = Cannon.train(*example_stars())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.npz")
        ...     copy = Cannon.load(f"{folder}/model.npz")
        >>> bool(np.all(copy.theta == model.theta))
        True
        """
        with atomic_write(path) as part:
            part.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Cannon:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : str or path

        Raises
        ------
        CorruptFileError
            If the file holds something else, is damaged, or was written by an older version.

        Examples
        --------
        See `save`.
        """
        with open(path, "rb") as file:
            return cls.from_bytes(file.read(LARGEST_FILE + 1), path)


def _whole_number(value, name, allowed):
    """An int that is among the allowed ones, from a Python or numpy integer."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or number not in allowed:
        raise ValueError(
            f"{name} must be a whole number from {allowed[0]} to {allowed[-1]}; it is {value!r}"
        )
    return number


def validate_model(parts: dict[str, np.ndarray]) -> str | None:
    """What is wrong with the arrays of a model file, as a sentence; None if nothing is.

    Parameters
    ----------
    parts : dict of arrays
        One for each field of `Cannon`; `reciprocal` is boolean (K,).

    Examples
    --------
    >>> model = Cannon.train(*example_stars())
    >>> parts = {name: np.asarray(value) for name, value in vars(model).items()}
    >>> validate_model(parts | {"reciprocal": np.zeros(2, bool), "scale": np.zeros(2)})
    'a scale is not positive'
    """
    labels, degree = parts["labels"], parts["degree"]
    if labels.ndim != 1 or labels.dtype.kind != "U" or not 0 < labels.size < 100:
        return "its labels are invalid"
    if degree.shape != () or degree not in (1, 2, 3):
        return "its degree is invalid"
    k, pixels, stars = (
        labels.size,
        parts["wavelength"].size,
        len(np.atleast_1d(parts["training_labels"])),
    )
    shapes = {
        "offset": (k,),
        "scale": (k,),
        "reciprocal": (k,),
        "wavelength": (pixels,),
        "s2": (pixels,),
        "theta": (pixels, comb(k + int(degree), k)),
        "training_labels": (stars, k),
    }
    if wrong := [name for name, shape in shapes.items() if parts[name].shape != shape]:
        return f"the shapes of {', '.join(wrong)} do not fit {k} labels and {pixels} pixels"
    if parts["reciprocal"].dtype != bool:
        return "reciprocal does not say yes or no for each label"
    for name in ("offset", "scale", "wavelength", "theta", "training_labels", "s2"):
        numbers = parts[name]
        if name == "s2":  # infinite where a pixel could not be trained
            numbers = np.where(np.isinf(numbers), 0, numbers)
        if numbers.dtype != float or not np.isfinite(numbers).all():
            return f"a number in {name} is not finite"
    if not (parts["scale"] > 0).all():
        return "a scale is not positive"
    if not (parts["s2"] >= 0).all():
        return "a scatter is negative"
    if stars <= k:
        return "it has no training stars"
    return None


# ----- χ² of a star as a quadratic form of its design vector ----------------------------------


class QuadraticForms(NamedTuple):
    """χ² of n stars, each as vᵀAv - 2bᵀv + c of its design vector v."""

    a: np.ndarray  # (n, T, T)
    b: np.ndarray  # (n, T)
    c: np.ndarray  # (n,)
    log_det: np.ndarray  # (n,) what integrating modes out adds to Σ ln(σ²+s²); 0 without modes
    n_pixels: np.ndarray  # (n,) pixels that count


def quadratic_forms(
    columns: np.ndarray,
    s2: np.ndarray,
    chunks: Iterable[tuple[np.ndarray, np.ndarray]],
    terms: int,
) -> Iterator[QuadraticForms]:
    """χ² of stars as quadratic forms of their design vectors, which is exact.

    χ² = Σ w (f - θv)² with w = 1/(σ²+s²). These weights do not depend on the labels, so that the
    sum over thousands of pixels can be done once: A = ΘᵀWΘ, b = ΘᵀWf, c = fᵀWf.

    Parameters
    ----------
    columns : array (L, T or more)
        Coefficients; further columns are patterns whose amplitudes are integrated out.
    s2 : array (L,)
        Variance of the intrinsic scatter.
    chunks : iterable of (flux, variance)
        Flux and σ² (n, L) of some stars at a time.
    terms : int
        Number of terms of the design vector, T.

    Yields
    ------
    QuadraticForms
        One for each chunk.

    Examples
    --------
    >>> columns = np.array([[1.0, 0.2], [1.0, 0.4]])  # two pixels, a linear model of one label
    >>> flux, variance = np.array([[1.0, 1.1]]), np.array([[0.01, 0.01]])
    >>> form, = quadratic_forms(columns, np.zeros(2), [(flux, variance)], terms=2)
    >>> v = np.array([1.0, 0.5])  # a star of the label 0.5: residuals -0.1 and -0.1
    >>> round(float(v @ form.a[0] @ v - 2 * form.b[0] @ v + form.c[0]), 9)
    2.0
    """
    i, j = np.triu_indices(columns.shape[1])
    products = columns[:, i] * columns[:, j]  # (L, T(T+1)/2)
    for flux, variance in chunks:
        weight = 1 / (variance + s2)  # (n, L)
        weighted = weight * flux
        a = _symmetric(weight @ products, columns.shape[1])  # all stars in one matrix product
        b, c = weighted @ columns, np.vecdot(weighted, flux)
        n_pixels = np.count_nonzero(weight, axis=1)
        a, b, c, log_det = _integrate_out(a, b, c, terms)
        yield QuadraticForms(a, b, c, log_det, n_pixels)


def _integrate_out(a, b, c, terms):
    """A, b, c of the first `terms` terms, and a log-determinant, without the terms after them.

    The amplitudes of the other terms have standard normal priors. To integrate them out is to give
    the pixels a covariance diag(σ²+s²) + MMᵀ with the modes M as columns; this is Woodbury's
    identity for its inverse, and the matrix determinant lemma for its determinant.
    """
    inner = a[:, terms:, terms:] + np.eye(a.shape[1] - terms)
    cross = a[:, :terms, terms:]
    gain = np.linalg.solve(
        inner, np.concatenate([a[:, terms:, :terms], b[:, terms:, None]], axis=2)
    )
    best = gain[..., terms]  # the most probable amplitudes of the modes of the mean star
    reduced = a[:, :terms, :terms] - cross @ gain[..., :terms]
    pull = b[:, :terms] - np.matvec(cross, best)
    return reduced, pull, c - np.vecdot(b[:, terms:], best), np.linalg.slogdet(inner)[1]


# ----- The labels where it is smallest --------------------------------------------------------


class Minima(NamedTuple):
    """The best fits of n stars."""

    x: np.ndarray  # (n, K) scaled labels
    inverse: np.ndarray  # (n, K, K) inverse of half the curvature of χ²: their covariance
    chi2: np.ndarray  # (n,)
    n_pixels: np.ndarray  # (n,)
    converged: np.ndarray  # (n,) whether the slope of χ² vanished
    n_agreeing_starts: np.ndarray  # (n,)


def fit_forms(form: QuadraticForms, candidates: np.ndarray, degree: int, starts: int) -> Minima:
    """Scaled labels of least χ², the best of the minima to which several starting points lead.

    Parameters
    ----------
    form : QuadraticForms
        Those of n stars.
    candidates : array (n, K)
        Scaled labels to choose the starting points from.
    degree : int
        Highest power of the labels.
    starts : int
        Number of starting points.

    Returns
    -------
    Minima
        NaN, 0 and False for a star with no more pixels than labels.

    Examples
    --------
    >>> form = QuadraticForms(  # χ² = (0.2 v₁ - 0.1)² / 0.01, one label, a linear model
    ...     np.array([[[0.0, 0], [0, 4]]]), np.array([[0.0, 2]]), np.ones(1), np.zeros(1),
    ...     np.array([9]))
    >>> fit_forms(form, np.array([[0.0], [2.0]]), degree=1, starts=1).x.round(9)
    array([[0.5]])
    """
    enough = form.n_pixels > candidates.shape[1]
    a, b, c, n_pixels = form.a[enough], form.b[enough], form.c[enough], form.n_pixels[enough]
    # About the mean star v = (1, 0, 0, ...): without this shift χ² would be a small difference of
    # sums a hundred thousand times larger, and rounding would hide the last steps.
    b, c = b - a[:, :, 0], c - 2 * b[:, 0] + a[:, 0, 0]
    v = centered_design(candidates, degree)
    points = _starting_points(a, b, c, v, candidates, starts)
    minima = np.stack([_minimize(a, b, c, x, degree) for x in points])  # (starts, n, K)
    heights = np.stack([_chi_square(a, b, c, x, degree) for x in minima])  # (starts, n)
    chi2 = heights.min(axis=0)
    x = minima[np.argmin(heights, axis=0), np.arange(len(a))]
    slope, curvature, _ = slope_and_curvature(a, b, x, degree)
    inverse = np.linalg.pinv(curvature, hermitian=True)
    # slopeᵀ inverse slope: how far χ² could still fall, if it were a parabola.
    converged = np.vecdot(slope, np.matvec(inverse, slope)) < 1e-6

    def for_all(values, filler):
        everywhere = np.full((len(enough), *values.shape[1:]), filler, values.dtype)
        everywhere[enough] = values
        return everywhere

    return Minima(
        x=for_all(x, np.nan),
        inverse=for_all(inverse, np.nan),
        chi2=for_all(chi2, np.nan),
        n_pixels=for_all(n_pixels, 0),
        converged=for_all(converged, False),
        n_agreeing_starts=for_all((heights - chi2 < 1e-3).sum(axis=0), 0),
    )


def _chi_square(a, b, c, x, degree):
    """χ² (n,) of scaled labels x (n, K), by a quadratic form about the mean star."""
    v = centered_design(x, degree)
    return np.vecdot(v, np.matvec(a, v) - 2 * b) + c


def slope_and_curvature(
    a: np.ndarray, b: np.ndarray, x: np.ndarray, degree: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Derivatives of half of χ² with respect to the scaled labels.

    Parameters
    ----------
    a, b : array (n, T, T) and (n, T)
        Quadratic forms about the mean star.
    x : array (n, K)
        Scaled labels.
    degree : int
        Highest power of the labels.

    Returns
    -------
    slope : array (n, K)
    gauss_newton : array (n, K, K)
        Second derivative, as if the model were linear in the labels; never negative.
    bend : array (n, K, K)
        The rest of the second derivative, due to the curvature of the model.

    Examples
    --------
    >>> slope, _, _ = slope_and_curvature(np.eye(2)[None], np.zeros((1, 2)), np.array([[3.0]]), 1)
    >>> slope  # χ² = x²
    array([[3.]])
    """
    v, jacobian, bends = _expand(x, degree, order=2)  # (n, T), (n, T, K), (n, T, K, K)
    v[..., 0] = 0  # about the mean star
    pull = np.matvec(a, v) - b  # half the derivative of χ² with respect to v
    transposed = np.swapaxes(jacobian, 1, 2)
    return (
        np.matvec(transposed, pull),
        transposed @ (a @ jacobian),
        np.einsum("nt,ntkl->nkl", pull, bends),
    )


def _minimize(a, b, c, x, degree, rounds=100):
    """Scaled labels (n, K) of a minimum of χ² for every star, from starting points x (n, K).

    Levenberg's and Marquardt's rule: a step that makes χ² smaller is taken, and the next is bolder
    (less damping); else the star stays, and its next step is shorter.
    """
    x, damping = x.copy(), np.full(len(x), 1e-3)
    chi2 = _chi_square(a, b, c, x, degree)
    active = np.arange(len(x))  # stars that still move
    for _ in range(rounds):
        form = a[active], b[active], c[active]
        slope, curvature, bend = slope_and_curvature(*form[:2], x[active], degree)
        raised = curvature * (1 + damping[active, None, None] * np.eye(x.shape[1])) + bend
        step = -np.linalg.solve(raised, slope[..., None])[..., 0]
        new = _chi_square(*form, x[active] + step, degree)
        better = new <= chi2[active]
        x[active[better]] += step[better]
        chi2[active[better]] = new[better]
        damping[active] = np.clip(
            np.where(better, damping[active] / 10, damping[active] * 10), 1e-12, 1e12
        )
        moving = np.abs(np.vecdot(slope, step)) > 1e-10
        active = active[moving & (damping[active] < 1e12)]
        if not active.size:
            break
    return x


def farthest_points(points: np.ndarray, number: int = 200) -> np.ndarray:
    """A selection of points that covers where they are: each is far from those before it.

    Parameters
    ----------
    points : array (n, K)
    number : int
        How many to choose.

    Returns
    -------
    array (number or fewer, K)
        In the order of `points`. The first to be chosen is the one nearest 0.

    Examples
    --------
    >>> farthest_points(np.array([[0.1], [0.2], [0.3], [5.0]]), 2).ravel()
    array([0.1, 5. ])
    """
    if len(points) <= number:
        return points
    chosen = [np.argmin(np.linalg.norm(points, axis=1))]
    nearest = np.full(len(points), np.inf)  # distance of each point from the chosen ones
    for _ in range(number - 1):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(np.argmax(nearest))
    return points[np.sort(chosen)]


def _starting_points(a, b, c, v, candidates, number):
    """Scaled labels (n, K) of the candidates that fit best, `number` times, all different."""
    # χ² (n, candidates) by one matrix product: vᵀAv is a sum over the upper triangle of A.
    i, j = np.triu_indices(v.shape[1])
    twice_off_diagonal = np.where(i == j, 1.0, 2.0)
    score = a[:, i, j] @ (v[:, i] * v[:, j] * twice_off_diagonal).T - 2 * b @ v.T + c[:, None]
    for _ in range(number):
        points = candidates[np.argmin(score, axis=1)]
        yield points
        score[np.linalg.norm(candidates - points[:, None], axis=-1) < 1] = np.inf


# ----- How strong a ridge? --------------------------------------------------------------------


def ridge_scores(
    spectra: xr.Dataset,
    labels: pd.DataFrame,
    degree: int = 3,
    ridges: Sequence[float] = (0, 1e-5, 1e-4, 1e-3, 1e-2),
    folds: int = 4,
    seed: int = 17,
    **options,
) -> pd.Series:
    """How well models of different ridges predict spectra that they have not seen.

    The training set is divided into groups of stars; each group is predicted from its labels by a
    model of the others. The best ridge has the highest score (`.idxmax()`).

    Parameters
    ----------
    spectra, labels, degree
        As for `Cannon.train`, which gets the `options` too.
    ridges : sequence of float
        The ridges to compare.
    folds : int
        Number of groups.
    seed : int
        Of the random division.

    Returns
    -------
    Series
        Mean log-likelihood per star, indexed by ridge.

    Examples
    --------
    >>> spectra, labels = example_stars()
    >>> bool(ridge_scores(spectra, labels, degree=2, ridges=(0.0, 1e6)).idxmax() == 0)
    True
    """
    folds = _whole_number(folds, "folds", range(2, max(3, len(labels) + 1)))
    scores = pd.Series(0.0, pd.Index(ridges, name="ridge"))
    for group in split_by_star(labels.index, seed, parts=[1] * folds):
        rest, test = labels.drop(group), by_star(spectra.sel(star=group))
        for ridge in ridges:
            model = Cannon.train(spectra.sel(star=rest.index), rest, degree, ridge, **options)
            x = model.scaled(labels.loc[group].to_numpy(float))
            scores[ridge] += model.likelihood(test, x)[2].sum() / len(labels)
    return scores


def example_stars(number: int = 60, seed: int = 0) -> tuple[xr.Dataset, pd.DataFrame]:
    """Made-up stars to try the module on: 40 pixels with three lines, and two labels.

    Parameters
    ----------
    number : int
        How many stars.
    seed : int
        Of the random labels and noise.

    Returns
    -------
    spectra : Dataset
        Normalized `flux` and `error` (star, wavelength).
    labels : DataFrame
        `teff` (K) and `fe_h` (dex), indexed by star.

    Examples
    --------
    >>> spectra, labels = example_stars(3)
    >>> spectra.flux.shape, list(labels)
    ((3, 40), ['teff', 'fe_h'])
    """
    rng = np.random.default_rng(seed)
    stars = [f"star{number}" for number in range(number)]
    labels = pd.DataFrame(
        {"teff": rng.uniform(4000, 5000, number), "fe_h": rng.uniform(-0.5, 0.3, number)}, stars
    )
    wavelength = np.linspace(16000, 16008, 40)
    warmth, metals = (labels.teff.to_numpy()[:, None] - 4500) / 500, labels.fe_h.to_numpy()[:, None]
    flux = np.ones((number, 40))
    for center, dt, dm in ((16001.5, -0.05, 0.3), (16004, 0.05, 0.2), (16006, -0.1, 0.4)):
        depth = 0.2 + dt * warmth + dm * metals + 0.1 * metals**2
        flux -= depth * np.exp(-(((wavelength - center) / 0.4) ** 2))
    error = np.full_like(flux, 0.001)
    axes, coords = ("star", "wavelength"), {"star": stars, "wavelength": wavelength}
    flux += error * rng.standard_normal(flux.shape)
    return xr.Dataset({"flux": (axes, flux), "error": (axes, error)}, coords=coords), labels
