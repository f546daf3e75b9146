"""The mathematics of The Cannon: quadratic design vectors, all pixels trained at once, all stars fitted at once."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = [
    "about_the_mean",
    "chi_square",
    "departure",
    "design",
    "design_slopes",
    "maximize_pixels",
    "minimize",
    "slope_and_curvature",
    "symmetric",
]


def design(x):
    """Design vectors (..., T) of scaled labels x (..., K): 1, the labels, their products with i <= j."""
    x = np.asarray(x, float)
    i, j = np.triu_indices(x.shape[-1])
    return np.concatenate([np.ones((*x.shape[:-1], 1)), x, x[..., i] * x[..., j]], axis=-1)


def design_slopes(x):
    """Derivatives (..., T, K) of the design vector with respect to the scaled labels x (..., K)."""
    x = np.asarray(x, float)
    one = np.eye(x.shape[-1])
    i, j = np.triu_indices(x.shape[-1])
    products = x[..., i, None] * one[j] + x[..., j, None] * one[i]
    constant = np.broadcast_to(np.vstack([np.zeros_like(one[:1]), one]), (*x.shape[:-1], 1 + len(one), len(one)))
    return np.concatenate([constant, products], axis=-2)


def _design_bends(labels):
    """Second derivatives (T, K, K) of the design vector of K labels, which are constants."""
    one = np.eye(labels)
    i, j = np.triu_indices(labels)
    products = one[i][:, :, None] * one[j][:, None, :]
    return np.concatenate([np.zeros((1 + labels, labels, labels)), products + products.swapaxes(1, 2)])


def symmetric(upper, i, j):
    """Symmetric matrices (n, T, T) from their upper triangles (n, T(T+1)/2)."""
    size = i.max() + 1
    full = np.empty((len(upper), size, size))
    full[:, i, j] = upper
    full[:, j, i] = upper
    return full


def maximize_pixels(v, flux, variance, chunk=128):
    """Coefficients (L, T) and scatter s² (L,) of all pixels, some at a time on all cores."""
    i, j = np.triu_indices(v.shape[1])
    products = np.ascontiguousarray((v[:, i] * v[:, j]).T)

    def block(start):
        columns = slice(start, start + chunk)
        f, var = np.ascontiguousarray(flux[:, columns]), np.ascontiguousarray(variance[:, columns])
        return _maximize_block(v, products, f, var)

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(block, range(0, flux.shape[1], chunk)))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def _maximize_block(v, products, flux, variance, tolerance=1e-8, rounds=100):
    """Alternate weighted least squares and scoring steps in s² until s² stands still."""
    n_pixels, terms = flux.shape[1], v.shape[1]
    theta = np.eye(1, terms).repeat(n_pixels, axis=0)
    s2 = np.full(n_pixels, np.inf)
    active = np.flatnonzero(np.isfinite(variance).sum(axis=0) >= 2 * terms)
    flux, variance, old = flux[:, active], variance[:, active], np.full(active.size, 1e-4)
    for _ in range(rounds):
        theta[active] = _weighted_least_squares(v, products, flux, 1 / (variance + old))
        new, size = _improve_scatter(flux - v @ theta[active].T, variance, old)
        s2[active] = new
        moved = np.abs(new - old) > tolerance * size
        if not moved.any():
            break
        active, old = active[moved], new[moved]
        if not moved.all():
            flux, variance = flux[:, moved], variance[:, moved]
    return theta, s2


def _weighted_least_squares(v, products, flux, weight):
    """θ (L, T) from the normal equations of all pixels: one matrix product makes all normal matrices."""
    i, j = np.triu_indices(v.shape[1])
    normal = symmetric((products @ weight).T, i, j)
    return np.linalg.solve(normal, ((weight * flux).T @ v)[..., None])[..., 0]


def _improve_scatter(residual, variance, s2, steps=4):
    """Fisher scoring steps towards the s² (L,) of largest likelihood, given the residuals (N, L).

    The slope of the log-likelihood in s² is ½ Σ w(wr² - 1) and its expected curvature -½ Σ w². Returns s² and the
    harmonic mean of the total variance, which is the size that s² is to be compared with.
    """
    r2 = residual**2
    for _ in range(steps):
        w = 1 / (variance + s2)
        s2 = np.maximum(s2 + np.vecdot(w, w * r2 - 1, axis=0) / np.vecdot(w, w, axis=0), 0)
    return s2, 1 / w.mean(axis=0)


def about_the_mean(a, b, c):
    """The same χ² in terms of the departure of the design vector from that of the mean star, (1, 0, 0, ...).

    χ² is what is left of terms a hundred thousand times larger, the squares of all fluxes; without them an optimizer
    can tell smaller steps apart.
    """
    return a, b - a[:, :, 0], c - 2 * b[:, 0] + a[:, 0, 0]


def departure(x):
    """Design vectors without their leading 1."""
    v = design(x)
    v[..., 0] = 0
    return v


def chi_square(a, b, c, x):
    """χ² (n,) of scaled labels x (n, K), by a quadratic form about the mean star."""
    v = departure(x)
    return np.vecdot(v, np.matvec(a, v) - 2 * b) + c


def slope_and_curvature(a, b, x):
    """Half the gradient (n, K) of χ² and half its Gauss-Newton second derivative (n, K, K)."""
    v, jacobian = departure(x), design_slopes(x)
    transposed = np.swapaxes(jacobian, 1, 2)
    return np.matvec(transposed, np.matvec(a, v) - b), transposed @ (a @ jacobian)


def minimize(a, b, c, x, rounds=100):
    """Scaled labels (n, K) that minimize χ² of every star: damped Newton steps from starting points x (n, K)."""
    x, bends = x.copy(), _design_bends(x.shape[1])
    damping = np.full(len(x), 1e-3)
    active = np.arange(len(x))
    chi2 = chi_square(a, b, c, x)
    for _ in range(rounds):
        aa, bb, cc = a[active], b[active], c[active]
        slope, curvature = slope_and_curvature(aa, bb, x[active])
        bend = np.tensordot(np.matvec(aa, departure(x[active])) - bb, bends, 1)
        raised = curvature * (1 + damping[active, None, None] * np.eye(x.shape[1])) + bend
        step = -np.linalg.solve(raised, slope[..., None])[..., 0]
        new = chi_square(aa, bb, cc, x[active] + step)
        better = new <= chi2[active]
        x[active[better]] += step[better]
        chi2[active[better]] = new[better]
        damping[active] = np.clip(np.where(better, damping[active] / 10, damping[active] * 10), 1e-12, 1e12)
        active = active[(np.abs(np.vecdot(slope, step)) > 1e-10) & (damping[active] < 1e12)]
        if not active.size:
            break
    return x
