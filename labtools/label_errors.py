"""A Cannon whose teachers err: training with labels that have errors and gaps.

Plain training takes labels as exact. If they are not, coefficients come out too small, because
part of the spread of the labels is noise to which no spectrum responds. Here the true labels of
the training stars are unknowns, of which the catalog and the spectrum both tell something.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pandas as pd
import xarray as xr

from labtools.cannon import Cannon, design, design_slopes
from labtools.spectra import by_star

__all__ = ["gaussian_points", "train_with_label_errors"]

MISSING = 1e3  # error, in standard deviations of a label, of one that is not known


def gaussian_points(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights that average polynomials of a normal vector exactly, up to degree 5.

    With them the mean of v vᵀ, for a quadratic design vector v of uncertain labels, is exact.

    Parameters
    ----------
    size : int
        Number of labels, K.

    Returns
    -------
    points : array (2K² + 1, K)
        In units of standard deviations.
    weights : array (2K² + 1,)
        They sum to 1; some are negative for more than four labels.

    References
    ----------
    McNamee & Stenger 1967, Numerische Mathematik 10, 327.

    Examples
    --------
    >>> points, weights = gaussian_points(2)
    >>> np.round(weights @ points**2, 12).tolist(), round(float(weights @ points[:, 0] ** 4), 12)
    ([1.0, 1.0], 3.0)
    """
    unit = np.sqrt(3) * np.eye(size)
    pairs = [(i, j) for i in range(size) for j in range(i)]
    both = [a * unit[i] + b * unit[j] for i, j in pairs for a in (1, -1) for b in (1, -1)]
    points = np.vstack([np.zeros((1, size)), unit, -unit, *both])
    weights = np.r_[
        1 + (size**2 - 7 * size) / 18,
        np.full(2 * size, (4 - size) / 18),
        np.full(len(both), 1 / 36),
    ]
    return points, weights


def train_with_label_errors(
    spectra: xr.Dataset,
    labels: pd.DataFrame,
    errors: pd.DataFrame,
    scatter: pd.DataFrame | None = None,
    modes: xr.DataArray | None = None,
    rounds: int = 10,
) -> tuple[Cannon, pd.DataFrame, np.ndarray]:
    """Train a quadratic Cannon by expectation maximization, with labels that have errors and gaps.

    Each star's true labels x are unknown, normal in the population; the catalog says y = x + e
    with e ~ N(0, E), and the spectrum f ~ N(v(x)·θ, σ² + s²). In turn

    - *expect*: the labels of each star given its spectrum and its catalog entry, normal about
      their most probable values (χ² is a quadratic form in v, see `Cannon.likelihood`);
    - *maximize*: coefficients θ and scatter s² of each pixel given the means of v and v vᵀ, which
      are exact for normal labels (`gaussian_points`); mean and covariance of the population.

    Parameters
    ----------
    spectra : Dataset
        Normalized `flux` and `error` (star, wavelength).
    labels : DataFrame
        Labels of the catalog, indexed by star; NaN where one is missing.
    errors : DataFrame
        Their standard errors, in the same units. Where a label is missing they do not count.
    scatter : DataFrame, optional
        Covariance (label, label) of what spectra get wrong beyond independent noise, as from
        `labtools.coverage.learn_scatter`. Without it spectra are believed to the last photon: do
        so where the model is true.
    modes : DataArray, optional
        Components of `labtools.coverage.nuisance_components`.
    rounds : int
        How often both steps are made.

    Returns
    -------
    cannon : Cannon
        The trained model.
    means : DataFrame
        The most probable true labels of the training stars.
    covariances : array (star, label, label)
        Their covariances.

    Raises
    ------
    ValueError
        If a label is known for fewer than half of the stars, or an error is not positive.

    References
    ----------
    Dempster, Laird & Rubin 1977, J. R. Statist. Soc. B 39, 1.

    Examples
    --------
    >>> model, means, _ = train_with_label_errors(spectra, labels, errors)  # doctest: +SKIP
    """
    spectra, names = by_star(spectra), list(labels.columns)
    stars = spectra["star"].values
    y, sigma = labels.loc[stars].to_numpy(float), errors.loc[stars, names].to_numpy(float)
    known = np.isfinite(y)
    if (known.mean(axis=0) < 0.5).any():
        few = [name for name, part in zip(names, known.mean(axis=0), strict=True) if part < 0.5]
        raise ValueError(f"known for fewer than half of the stars: {', '.join(few)}")
    if not (sigma[known] > 0).all():
        raise ValueError("errors of labels must be positive wherever there is a label")
    filled = pd.DataFrame(np.where(known, y, np.nanmean(y, axis=0)), stars, names)
    model = Cannon.train(spectra, filled)
    y = (np.where(known, y, 0) - model.offset) / model.scale
    sigma = np.where(known, sigma / model.scale, MISSING)
    extra = np.zeros((len(names), len(names)))
    if scatter is not None:
        extra = scatter.loc[names, names].to_numpy() / np.outer(model.scale, model.scale)
    x = np.where(known, y, 0)
    middle, width = np.zeros(len(names)), np.eye(len(names))
    for _ in range(rounds):
        x, covariance = _expect(model, spectra, x, y, sigma, extra, middle, width, modes)
        x, covariance = _align(x, covariance, y, sigma)
        middle = x.mean(axis=0)
        width = np.cov(x.T) + covariance.mean(axis=0)
        model = _maximize(model, spectra, x, covariance)
    scale = np.outer(model.scale, model.scale)
    return model, pd.DataFrame(model.unscaled(x), stars, names), covariance * scale


def _expect(model, spectra, x, y, sigma, extra, middle, width, modes, steps=3):
    """Scaled labels (star, K) given spectra, catalog and population, and covariances."""
    prior = np.linalg.inv(width) + np.eye(len(middle)) / sigma[:, :, None] ** 2
    pull = np.linalg.inv(width) @ middle + y / sigma**2  # (star, K)
    for _ in range(steps):
        a, r, _ = model.likelihood(spectra, x, modes)  # ln L = rᵀd - ½ dᵀAd, d = v(x) - v(x₀)
        slopes = design_slopes(x)  # (star, term, K)
        fisher = np.swapaxes(slopes, 1, 2) @ a @ slopes
        spectral = (
            x + np.linalg.solve(fisher, np.matvec(np.swapaxes(slopes, 1, 2), r)[..., None])[..., 0]
        )
        precision = np.linalg.inv(np.linalg.inv(fisher) + extra)
        covariance = np.linalg.inv(precision + prior)
        x = np.matvec(covariance, np.matvec(precision, spectral) + pull)
    return x, covariance


def _align(x, covariance, y, sigma):
    """Labels moved and turned as a whole so that they are those of the catalog on average.

    Spectra fix labels much better than the catalog does, but only up to a linear map of all of
    them: the map is what the catalog is for. Expectation maximization finds it in small steps; as
    a parameter of its own (y = a + B x + e) it is found at once (Liu, Rubin & Wu 1998, Biometrika
    85, 755).
    """
    stars, size = x.shape
    moments = np.zeros((stars, size + 1, size + 1))  # means of (1, x)(1, x)ᵀ
    moments[:, 0, 0] = 1
    moments[:, 0, 1:] = moments[:, 1:, 0] = x
    moments[:, 1:, 1:] = covariance + x[:, :, None] * x[:, None]
    weight = 1 / sigma**2  # (star, label)
    normal = np.einsum("nk,nij->kij", weight, moments)
    right = np.einsum("nk,nk,ni->ki", weight, y, moments[:, 0])
    line = np.linalg.solve(normal, right[..., None])[..., 0]  # (label, 1 + label)
    turn = line[:, 1:]
    return line[:, 0] + x @ turn.T, turn @ covariance @ turn.T


def _maximize(model, spectra, x, covariance, chunk=400, turns=8):
    """The model with the coefficients and scatter that uncertain labels make most probable."""
    points, weights = gaussian_points(x.shape[1])
    root = np.linalg.cholesky(covariance)
    spread = x[:, None] + np.einsum("nkl,pl->npk", root, points)
    v = design(spread)  # (star, point, term)
    mean = np.einsum("p,npt->nt", weights, v)
    square = np.einsum("p,npt,npu->ntu", weights, v, v, optimize=True)
    flat = square.reshape(len(x), -1)
    theta, s2 = model.theta.copy(), model.s2.copy()
    for start in range(0, len(s2), chunk):
        part = slice(start, start + chunk)
        block = spectra.isel(wavelength=part)
        flux, error = block["flux"].values.T.astype(float), block["error"].values.T.astype(float)
        good, used = np.isfinite(error), np.isfinite(s2[part])  # (pixel, star), (pixel,)
        flux, variance = np.where(good, flux, 0), np.where(good, error, np.inf) ** 2
        size = np.where(used, s2[part], 1.0)
        for _ in range(turns):
            weight = 1 / (variance + size[:, None])
            normal = (weight @ flat).reshape(-1, *square.shape[1:])  # (pixel, term, term)
            best = np.linalg.solve(normal, ((weight * flux) @ mean)[..., None])[..., 0]
            bent = np.einsum("pt,ntu,pu->pn", best, square, best, optimize=True)
            residual2 = np.maximum(flux**2 - 2 * flux * (best @ mean.T) + bent, 0)
            # Newton's step in s², as in plain training, with the expected squares of residuals
            first = (weight**2 * residual2 - weight).sum(axis=1)
            expected = (weight**2).sum(axis=1)
            bend = np.maximum(2 * (weight**3 * residual2).sum(axis=1) - expected, expected / 2)
            size = np.maximum(size + first / bend, 1e-12)
        theta[part][used], s2[part][used] = best[used], size[used]
    if not np.isfinite(theta).all():
        warnings.warn("some pixels could not be trained with uncertain labels", stacklevel=3)
    return dataclasses.replace(model, theta=theta, s2=s2, training_labels=x)
