"""The mathematics of The Cannon: design vectors, and all stars fitted at once by their quadratic forms."""

from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np

__all__ = [
    "departure", "design", "design_slopes", "fit_forms", "joined", "monomials", "quadratic_forms",
    "slope_and_curvature", "spread_out", "symmetric",
]  # fmt: skip


@lru_cache
def monomials(labels, degree):
    """How design vectors grow: for each power, the earlier terms and the labels whose products are its terms."""
    number, powers = {(): 0}, []
    for power in range(1, degree + 1):
        terms = list(combinations_with_replacement(range(labels), power))
        powers.append(([number[term[:-1]] for term in terms], [term[-1] for term in terms]))
        number |= {term: len(number) + i for i, term in enumerate(terms)}
    return powers


def design(x, degree=2):
    """Design vectors (..., T) of scaled labels x (..., K): 1, the labels, their products with i <= j, ..."""
    return _expand(x, degree, 0)[0]


def design_slopes(x, degree=2):
    """Derivatives (..., T, K) of the design vector with respect to the scaled labels x (..., K)."""
    return _expand(x, degree, 1)[1]


def _expand(x, degree, order):
    """Design vectors (..., T) and their first (..., T, K) and second (..., T, K, K) derivatives, up to `order`."""
    x = np.asarray(x, float)
    stars, k = x.shape[:-1], x.shape[-1]
    one, parts = (
        np.eye(k),
        [np.ones((*stars, 1)), np.zeros((*stars, 1, k)), np.zeros((*stars, 1, k, k))][: order + 1],
    )
    for earlier, label in monomials(k, degree):
        below, factor = [part.take(earlier, axis=len(stars)) for part in parts], x[..., label]
        new = [below[0] * factor]
        if order > 0:
            new.append(below[1] * factor[..., None] + below[0][..., None] * one[label])
        if order > 1:
            cross = below[1][..., None] * one[label][:, None, :]
            new.append(below[2] * factor[..., None, None] + cross + np.swapaxes(cross, -1, -2))
        parts = [np.concatenate(pair, axis=len(stars)) for pair in zip(parts, new, strict=True)]
    return parts


def symmetric(upper, size):
    """Symmetric matrices (n, T, T) from their upper triangles (n, T(T+1)/2)."""
    i, j = np.triu_indices(size)
    full = np.empty((len(upper), size, size))
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


def joined(parts):
    """Arrays of all stars, or pixels, from tuples of arrays of some after the other."""
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def quadratic_forms(theta, s2, chunks, terms):
    """χ² of stars as vᵀAv - 2bᵀv + c, which is exact: the weights 1/(σ²+s²) do not depend on the labels.

    theta (L, T and more), s2 (L,). For each of `chunks`, flux and σ² (n, L), yields A (n, T, T), b (n, T) and c (n,) of
    the first T = `terms` columns, a log-determinant (n,) for the others, and the number of pixels that count (n,).
    """
    i, j = np.triu_indices(theta.shape[1])
    products = theta[:, i] * theta[:, j]
    for flux, variance in chunks:
        weight = 1 / (variance + s2)
        a, weighted = symmetric(weight @ products, theta.shape[1]), weight * flux
        form = _marginalized(a, weighted @ theta, np.vecdot(weighted, flux), terms)
        yield *form, np.count_nonzero(weight, axis=1)


def _marginalized(a, b, c, terms):
    """A, b, c of the first `terms` terms when the amplitudes of the others are integrated out, and a log-determinant.

    Their priors are standard normal. What is left is the form of pixels that vary together (Woodbury's identity); the
    log-determinant is what that adds to Σ ln(σ² + s²).
    """
    inner = a[:, terms:, terms:] + np.eye(a.shape[1] - terms)
    gain = np.linalg.solve(
        inner, np.concatenate([a[:, terms:, :terms], b[:, terms:, None]], axis=2)
    )
    cross, best = a[:, :terms, terms:], gain[..., terms]
    rest = a[:, :terms, :terms] - cross @ gain[..., :terms], b[:, :terms] - np.matvec(cross, best)
    return *rest, c - np.vecdot(b[:, terms:], best), np.linalg.slogdet(inner)[1]


def _chi_square(a, b, c, x, degree):
    """χ² (n,) of scaled labels x (n, K), by a quadratic form about the mean star."""
    v = departure(x, degree)
    return np.vecdot(v, np.matvec(a, v) - 2 * b) + c


def departure(x, degree):
    """Design vectors without their leading 1."""
    v = design(x, degree)
    v[..., 0] = 0
    return v


def slope_and_curvature(a, b, x, degree):
    """Half the gradient of χ² (n, K), half its Gauss-Newton second derivative (n, K, K), and what that leaves out."""
    v, jacobian, bends = _expand(x, degree, 2)
    v[..., 0] = 0
    pull, transposed = np.matvec(a, v) - b, np.swapaxes(jacobian, 1, 2)
    return (
        np.matvec(transposed, pull),
        transposed @ (a @ jacobian),
        np.einsum("nt,ntkl->nkl", pull, bends),
    )


def _minimize(a, b, c, x, degree, rounds=100):
    """Scaled labels (n, K) that minimize χ² of every star: damped Newton steps from starting points x (n, K)."""
    x, damping, active = x.copy(), np.full(len(x), 1e-3), np.arange(len(x))
    chi2 = _chi_square(a, b, c, x, degree)
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
        active = active[(np.abs(np.vecdot(slope, step)) > 1e-10) & (damping[active] < 1e12)]
        if not active.size:
            break
    return x


def spread_out(points, number=200):
    """A selection of points (n, K), each as far as possible from those before, the first the one nearest 0."""
    if len(points) <= number:
        return points
    chosen = [np.argmin(np.linalg.norm(points, axis=1))]
    nearest = np.full(len(points), np.inf)
    for _ in range(number - 1):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(np.argmax(nearest))
    return points[np.sort(chosen)]


def _starting_points(a, b, c, v, candidates, number):
    """Scaled labels (number, star, K) of the candidates that fit best and differ from one another."""
    i, j = np.triu_indices(v.shape[1])
    score = (
        a[:, i, j] @ (v[:, i] * v[:, j] * np.where(i == j, 1.0, 2.0)).T - 2 * b @ v.T + c[:, None]
    )
    for _ in range(number):
        points = candidates[np.argmin(score, axis=1)]
        yield points
        score[np.linalg.norm(candidates - points[:, None], axis=-1) < 1] = np.inf


def fit_forms(a, b, c, n_pixels, candidates, degree, starts):
    """Scaled labels of least χ², from `starts` of the candidates: the best of the minima that they lead to.

    The fit is about the mean star, (1, 0, 0, ...): the squares of all fluxes are a hundred thousand times larger than
    what is left without them, and an optimizer can tell smaller steps apart.

    Returns
    -------
    Scaled labels (n, K), the inverse curvature there (n, K, K), χ², the number of pixels, whether the slope vanished
    and how many starts agree, (n,). NaN, 0 and False for a star with no more pixels than labels.
    """
    usable = n_pixels > candidates.shape[1]
    a, b, c = a[usable], b[usable], c[usable]
    b, c = b - a[:, :, 0], c - 2 * b[:, 0] + a[:, 0, 0]
    points = _starting_points(a, b, c, departure(candidates, degree), candidates, starts)
    minima = np.stack([_minimize(a, b, c, x, degree) for x in points])
    heights = np.stack([_chi_square(a, b, c, x, degree) for x in minima])
    x, chi2 = minima[np.argmin(heights, axis=0), np.arange(len(a))], heights.min(axis=0)
    slope, curvature, _ = slope_and_curvature(a, b, x, degree)
    inverse = np.linalg.pinv(curvature, hermitian=True)
    converged, agree = (
        np.vecdot(slope, np.matvec(inverse, slope)) < 1e-6,
        (heights - chi2 < 1e-3).sum(axis=0),
    )
    found = x, inverse, chi2, n_pixels[usable], converged, agree
    whole = [
        np.full((len(usable), *p.shape[1:]), np.nan if p.dtype == float else 0, p.dtype)
        for p in found
    ]
    for places, part in zip(whole, found, strict=True):
        places[usable] = part
    return whole
