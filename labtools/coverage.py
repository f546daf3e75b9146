"""Are errors believable? Coverage of posteriors, and what mends it: correlated pixels, learned scatter."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import gamma

__all__ = ["coverage", "inflate_posterior", "learn_scatter", "nuisance_components"]

CLIP = 5.0  # standard deviations of a residual that count at most
TAILS = (3, 4, 6, 8, 12, 20, 50, 200)  # degrees of freedom that are tried


def nuisance_components(cannon, spectra, labels, number=10):
    """How pixels deviate from the model together: principal components of the residuals of many stars.

    What the labels do not say (other elements, rotation) and what the reduction does (continuum, sky) moves many pixels
    at once. Residuals at given labels, in units of √(σ² + s²) and clipped, are split in principal components; each gets
    the amplitude that exceeds independent noise. A likelihood with these modes leaves their coefficients free, with
    standard normal priors, and integrates over them exactly.

    Spectra and labels are as in `Cannon.train`; the training set itself will do.
    Returns a DataArray (mode, wavelength) in units of flux, the largest first. Raises ValueError for too few stars.
    """
    if not 0 < number < spectra.sizes["star"]:
        raise ValueError(f"{number} modes cannot be learned from {spectra.sizes['star']} stars")
    model = cannon.predict(labels.loc[spectra["star"].values]).values
    sigma = np.sqrt(spectra["error"].values.astype(float) ** 2 + cannon.s2)
    good = np.isfinite(sigma) & np.isfinite(spectra["flux"].values)
    residual = np.where(good, np.clip((spectra["flux"].values - model) / sigma, -CLIP, CLIP), 0)
    typical = np.sqrt(np.median(np.where(good, sigma, np.inf) ** 2, axis=0))
    power, vectors = np.linalg.eigh(residual @ residual.T / len(residual))
    power, vectors = power[::-1][:number], vectors[:, ::-1][:, :number]
    shapes = vectors.T @ residual
    shapes *= np.sqrt(np.maximum(power - 1, 0) / np.vecdot(shapes, shapes))[:, None]
    modes = shapes * np.where(np.isfinite(typical), typical, 0)
    return xr.DataArray(
        modes, coords={"wavelength": cannon.wavelength}, dims=("mode", "wavelength")
    )


def coverage(samples, truth, levels=(0.68, 0.95)):
    """What share of true labels lies inside credible regions, and its counting error.

    For a label the region is the central interval of the draws; for "all" together it is the ellipsoid of their mean
    and covariance that holds a share `level` of them. Stars with NaN draws are left out.

    samples : DataArray (star, draw, label). truth : DataFrame indexed by star.
    Returns a DataFrame indexed by label and "all", with columns (level, "share") and (level, "error"), the error being
    that of a right share, √(p(1 - p) / stars); `attrs["stars"]` counts the stars.
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


def learn_scatter(samples, reference, errors=None):
    """The scatter of labels that posteriors do not account for, learned on stars with reference labels.

    Model: reference minus posterior mean is N(0, (C + S) / u + E). C is the star's posterior covariance, S the same for
    all stars, u a gamma variate of mean 1 and shape nu / 2, which gives t-like tails with nu degrees of freedom, and E
    the square of the reference's own standard errors (0, unless `errors`, a DataFrame like `reference`, gives them).
    S is found by expectation maximization over a grid of u (after Liu & Rubin 1995), nu by the likelihood.

    Returns S as a DataFrame (label, label) in the squared units of the labels, with `attrs["nu"]`.
    """
    draws, y = _paired(samples, reference)
    if len(y) < 10 * y.shape[1]:
        raise ValueError(f"{len(y)} stars are too few to learn the scatter of {y.shape[1]} labels")
    _, sigma = _paired(samples, reference * 0 if errors is None else errors + reference * 0)
    unit = np.std(y - draws.mean(axis=1), axis=0)
    off = (y - draws.mean(axis=1)) / unit
    spread = (draws - draws.mean(axis=1, keepdims=True)) / unit
    c = np.einsum("ndk,ndl->nkl", spread, spread) / draws.shape[1]
    e = np.eye(y.shape[1]) * (sigma / unit)[:, None] ** 2
    s, fits = np.cov(off.T).reshape(e.shape[1:]) / 4, {}
    for nu in TAILS:
        likelihood, s = _expectation_maximization(off, c, e, s, nu)
        fits[nu] = likelihood, s
    nu, (_, s) = max(fits.items(), key=lambda fit: fit[1][0])
    names = list(samples["label"].values)
    table = pd.DataFrame(s * np.outer(unit, unit), index=names, columns=names)
    table.attrs["nu"] = nu
    return table


def _expectation_maximization(off, c, e, s, nu, rounds=200, nodes=16):
    """Log-likelihood and S, for offsets (n, K) with covariances C and E (n, K, K), from a first S (K, K)."""
    u = np.geomspace(*gamma.ppf((1e-5, 1 - 1e-3), nu / 2, scale=2 / nu), nodes)[:, None, None, None]
    log_weight = np.log(u) + gamma.logpdf(u, nu / 2, scale=2 / nu)
    log_weight = (log_weight - np.log(np.exp(log_weight).sum()))[..., 0, 0]
    for _ in range(rounds):
        inverse = np.linalg.inv((c + s) / u + e)
        pull = np.matvec(inverse, off)
        log_p = log_weight + 0.5 * (np.linalg.slogdet(inverse)[1] - np.vecdot(off, pull))
        top = log_p.max(axis=0)
        share = np.exp(log_p - top)
        share /= (total := share.sum(axis=0))
        mean = pull @ s
        outer = np.einsum("un,unk,unl->kl", share / u[..., 0, 0], mean, mean, optimize=True)
        old, s = (
            s,
            s
            + (outer - s @ np.einsum("un,unkl->kl", share / u[..., 0, 0], inverse) @ s) / len(off),
        )
        if np.abs(s - old).max() < 3e-4 * np.abs(s).max():
            break
    return (top + np.log(total)).sum(), s


def inflate_posterior(samples, scatter, seed=128):
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
    draws, y = (
        samples.transpose("star", "draw", "label").values,
        truth.loc[stars, names].to_numpy(float),
    )
    known = np.isfinite(draws).all(axis=(1, 2)) & np.isfinite(y).all(axis=1)
    if not known.any():
        raise ValueError("no star has both draws and true labels")
    return draws[known], y[known]
