"""Are errors believable? Coverage of posteriors, and what mends it: correlated pixels, learned scatter."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import gammaln

__all__ = ["coverage", "learn_scatter", "residual_modes", "widen"]


def residual_modes(cannon, spectra, labels, number=10, clip=5.0):
    """How pixels deviate from the model together: principal components of the residuals of many stars.

    What the labels do not say (other elements, rotation) and what the reduction does (continuum, sky) moves
    many pixels at once. Residuals at given labels, in units of √(σ² + s²) and clipped, are split in principal
    components; each gets the amplitude that exceeds independent noise. A likelihood with these modes leaves
    their coefficients free, with standard normal priors, and integrates over them exactly.

    Parameters
    ----------
    spectra, labels : as in `Cannon.train`; the training set itself will do.
    number : how many modes, fewer than the stars.

    Returns
    -------
    DataArray (mode, wavelength) in units of flux, the largest first. Raises ValueError for too few stars.
    """
    if not 0 < number < spectra.sizes["star"]:
        raise ValueError(f"{number} modes cannot be learned from {spectra.sizes['star']} stars")
    model = cannon.predict(labels.loc[spectra["star"].values]).values
    sigma = np.sqrt(spectra["error"].values.astype(float) ** 2 + cannon.s2)
    good = np.isfinite(sigma) & np.isfinite(spectra["flux"].values)
    residual = np.where(good, np.clip((spectra["flux"].values - model) / sigma, -clip, clip), 0)
    typical = np.sqrt(np.median(np.where(good, sigma, np.inf) ** 2, axis=0))
    power, vectors = np.linalg.eigh(residual @ residual.T / len(residual))
    power, vectors = power[::-1][:number], vectors[:, ::-1][:, :number]
    shapes = vectors.T @ residual
    shapes *= np.sqrt(np.maximum(power - 1, 0) / np.vecdot(shapes, shapes))[:, None]
    modes = shapes * np.where(np.isfinite(typical), typical, 0)
    return xr.DataArray(modes, coords={"wavelength": cannon.wavelength}, dims=("mode", "wavelength"))


def coverage(samples, truth, levels=(0.68, 0.95)):
    """What share of true labels lies inside credible regions, and its counting error.

    samples : DataArray (star, draw, label). truth : DataFrame indexed by star.
    For a label the region is the central interval of the draws; for "all" together it is the ellipsoid of
    their mean and covariance that holds a share `level` of them. Stars with NaN draws are left out.

    Returns a DataFrame indexed by label and "all", with columns (level, "share") and (level, "error"), the
    error being that of a right share, √(p(1 - p) / stars); `attrs["stars"]` counts the stars.
    """
    draws, y = _paired(samples, truth)
    rank = (draws < y[:, None]).mean(axis=1)
    spread = draws - draws.mean(axis=1, keepdims=True)
    inverse = np.linalg.inv(np.einsum("ndk,ndl->nkl", spread, spread) / draws.shape[1])
    distance = np.vecdot(spread @ inverse, spread)
    off = y - draws.mean(axis=1)
    joint = (distance < np.vecdot(np.matvec(inverse, off), off)[:, None]).mean(axis=1)
    within = np.column_stack([2 * np.abs(rank - 0.5), joint])
    columns = {}
    for level in levels:
        columns[level, "share"] = (within < level).mean(axis=0)
        columns[level, "error"] = np.sqrt(level * (1 - level) / len(y))
    table = pd.DataFrame(columns, index=[*samples["label"].values, "all"])
    table.attrs["stars"] = len(y)
    return table


def learn_scatter(samples, reference, tails=(3, 4, 5, 6, 8, 12, 20, 50, 200)):
    """The scatter of labels that posteriors do not account for, learned on stars with reference labels.

    Model: reference minus posterior mean is multivariate t with nu degrees of freedom, squared scale C + S,
    C the star's posterior covariance and S the same for all stars. S is found by expectation maximization for
    each nu of `tails` (Liu & Rubin 1995), nu by the likelihood. S contains the errors of the reference, too.

    Returns S as a DataFrame (label, label) in the squared units of the labels, with `attrs["nu"]`.
    """
    draws, y = _paired(samples, reference)
    if len(y) < 10 * y.shape[1]:
        raise ValueError(f"{len(y)} stars are too few to learn the scatter of {y.shape[1]} labels")
    unit = np.std(y - draws.mean(axis=1), axis=0)
    off = (y - draws.mean(axis=1)) / unit
    spread = (draws - draws.mean(axis=1, keepdims=True)) / unit
    c = np.einsum("ndk,ndl->nkl", spread, spread) / draws.shape[1]
    fits = [_expectation_maximization(off, c, nu) for nu in tails]
    best = int(np.argmax([likelihood for likelihood, _ in fits]))
    names = list(samples["label"].values)
    table = pd.DataFrame(fits[best][1] * np.outer(unit, unit), index=names, columns=names)
    table.attrs["nu"] = tails[best]
    return table


def _expectation_maximization(off, c, nu, rounds=300):
    """Log-likelihood up to a constant, and S, for offsets (n, K) with covariances C (n, K, K)."""
    n, k = off.shape
    s = np.cov(off.T).reshape(k, k) / 2
    for _ in range(rounds):
        inverse = np.linalg.inv(c + s)
        pull = np.matvec(inverse, off)
        distance = np.vecdot(off, pull)
        u = (nu + k) / (nu + distance)
        mean = pull @ s
        s = ((u[:, None] * mean).T @ mean + n * s - s @ inverse.sum(axis=0) @ s) / n
    terms = np.linalg.slogdet(inverse)[1] - (nu + k) * np.log1p(distance / nu)
    return 0.5 * terms.sum() + n * (gammaln((nu + k) / 2) - gammaln(nu / 2) - 0.5 * k * np.log(nu)), s


def widen(samples, scatter, seed=128):
    """Draws (star, draw, label) with the extra scatter and the tails of `learn_scatter` given to them."""
    rng = np.random.default_rng(seed)
    nu, names = scatter.attrs["nu"], list(samples["label"].values)
    centre = samples.mean("draw")
    root = np.linalg.cholesky(scatter.loc[names, names].to_numpy())
    noise = rng.standard_normal(samples.shape) @ root.T
    tail = np.sqrt(rng.chisquare(nu, samples.shape[:2]) / nu)[..., None]
    return (centre + (samples - centre + noise) / tail).transpose(*samples.dims)


def _paired(samples, truth):
    """Draws (n, draw, K) and labels (n, K) of the stars that have both; ValueError if labels are missing."""
    names, stars = list(samples["label"].values), samples["star"].values
    if missing := set(names) - set(truth.columns) or set(stars) - set(truth.index):
        raise ValueError(f"no true value for {len(missing)} labels or stars, {sorted(missing)[:5]}")
    draws, y = samples.transpose("star", "draw", "label").values, truth.loc[stars, names].to_numpy(float)
    known = np.isfinite(draws).all(axis=(1, 2)) & np.isfinite(y).all(axis=1)
    if not known.any():
        raise ValueError("no star has both draws and true labels")
    return draws[known], y[known]
