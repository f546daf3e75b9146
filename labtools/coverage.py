"""Are errors believable? Coverage of posteriors, and what mends it.

A posterior can be tested where the truth is known: of its 68 % regions, 68 % must hold the truth.
`coverage`, `coverage_by`, `sbc_ranks` and `tarp` ask this in four ways. Two things mend a posterior
that fails: pixels that vary together (`nuisance_components`), and the scatter of labels that no
pixel accounts for (`learn_scatter`, `inflate_posterior`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

if TYPE_CHECKING:
    from labtools.cannon import Cannon

__all__ = [
    "correlated_errors",
    "coverage",
    "coverage_by",
    "inflate_posterior",
    "learn_scatter",
    "noise_edge",
    "nuisance_components",
    "sbc_ranks",
    "tarp",
]

CLIP = 5.0  # standard deviations of a residual that count at most
TRACY_WIDOM = 2.02  # 99 % of the largest eigenvalues of noise are below it, in their own units
TAILS = (4, 6, 10, 20, 100)  # degrees of freedom that are tried


# --- What pixels do together -----------------------------------------------------------------


def noise_edge(stars: int, pixels: int, neighbor: float = 0.0) -> float:
    """The largest eigenvalue that noise alone gives the residuals of many stars.

    Even where all pixels are independent, the residuals R (stars x pixels, of variance 1) of a
    finite number of stars seem to be correlated: the eigenvalues of RRᵀ / stars lie between
    (1 - √γ)² and (1 + √γ)², where γ = pixels / stars. Whatever lies above is not noise.
    If neighboring pixels share noise the edge is further out; it is then the smallest z(m) of

        z(m) = -1/m + γ ∫ τ(ω) / (1 + τ(ω) m) dω / π,   τ(ω) = 1 + 2 ρ cos ω,

    for m between -1 / max τ and 0, ρ being the correlation of neighbors.

    Parameters
    ----------
    stars, pixels : int
        Shape of the residuals.
    neighbor : float
        Correlation of the noise of neighboring pixels, from -0.5 to 0.5.

    Returns
    -------
    float
        The edge, in units of the variance of a pixel, for very many stars and pixels.

    Raises
    ------
    ValueError
        If a number is not positive, or the correlation impossible.

    References
    ----------
    Marchenko & Pastur 1967, Math. USSR Sbornik 1, 457; Silverstein & Choi 1995, J. Multivariate
    Analysis 54, 295, eq. 1.4 and theorem 4.1.

    Examples
    --------
    >>> round(noise_edge(100, 400), 2)  # (1 + √4)²
    9.0
    >>> noise_edge(100, 400, neighbor=0.4) > 9
    True
    """
    if not (stars > 0 and pixels > 0 and abs(neighbor) <= 0.5):
        raise ValueError(
            f"{stars} stars, {pixels} pixels, correlation {neighbor}: the first two must be "
            "positive, the last between -0.5 and 0.5"
        )
    tau = 1 + 2 * neighbor * np.cos(np.linspace(0, np.pi, 1001))
    m = -np.linspace(1e-3, 1 - 1e-3, 2000)[:, None] / tau.max()
    z = -1 / m[:, 0] + pixels / stars * np.mean(tau / (1 + tau * m), axis=1)
    return float(z.min())


def nuisance_components(
    cannon: Cannon,
    spectra: xr.Dataset,
    labels: pd.DataFrame,
    number: int | None = None,
    neighbor: float = 0.4,
) -> xr.DataArray:
    """How pixels deviate from the model together: components of the residuals of many stars.

    What the labels do not say (other elements, rotation) and what the reduction does (continuum,
    sky) moves many pixels at once. Residuals at given labels, in units of √(σ² + s²) and clipped,
    are split in principal components. Those above the edge of noise are kept, each with the size
    that it has without noise: an eigenvalue λ of the sample is that of a true one τ by
    λ = τ + γ τ / (τ - 1), where γ = pixels / stars. A likelihood with these components leaves
    their amplitudes free, with standard normal priors, and integrates over them exactly
    (probabilistic principal components, with noise that differs from pixel to pixel).

    Parameters
    ----------
    cannon : Cannon
        The trained model.
    spectra : Dataset
        Normalized `flux` and `error` (star, wavelength), as in `Cannon.train`; the training set
        itself will do.
    labels : DataFrame
        Labels of these stars, indexed by star.
    number : int, optional
        How many components to keep; None keeps those above `noise_edge`, which may be none.
    neighbor : float
        Correlation of the noise of neighboring pixels. 0.4 is that of real APOGEE visits.

    Returns
    -------
    DataArray
        (mode, wavelength) in units of normalized flux, the largest first. `attrs` has the
        `eigenvalues` of all components and the `edge` of noise.

    Raises
    ------
    ValueError
        For a number that these stars cannot give.

    References
    ----------
    Tipping & Bishop 1999, J. R. Statist. Soc. B 61, 611; Baik & Silverstein 2006, J. Multivariate
    Analysis 97, 1382, theorem 1.1.

    Examples
    --------
    >>> components = nuisance_components(cannon, spectra, labels)  # doctest: +SKIP
    >>> cannon.fit(spectra, modes=components)  # doctest: +SKIP
    """
    stars = spectra.sizes["star"]
    if number is not None and not 0 < number < stars:
        raise ValueError(f"{number} modes cannot be learned from {stars} stars")
    residual, typical = _standard_residuals(cannon, spectra, labels)
    power, vectors = np.linalg.eigh(residual @ residual.T / stars)  # (star,), (star, star)
    power, vectors = power[::-1], vectors[:, ::-1]
    used = int(np.isfinite(typical).sum())
    edge = noise_edge(stars, used, neighbor) * (1 + _fluctuation(stars, used))
    if number is None:
        number = int((power > edge).sum())
    shapes = vectors[:, :number].T @ residual  # (mode, wavelength)
    size = np.sqrt(_true_excess(power[:number], used / stars))
    length = np.sqrt(np.maximum(np.vecdot(shapes, shapes), 1e-300))
    modes = shapes * (size / length)[:, None] * np.where(np.isfinite(typical), typical, 0)
    return xr.DataArray(
        modes,
        coords={"wavelength": cannon.wavelength},
        dims=("mode", "wavelength"),
        attrs={"eigenvalues": power, "edge": edge},
    )


def _fluctuation(stars, pixels):
    """By what share the largest eigenvalue of noise exceeds the edge in one of a hundred samples
    (Johnstone 2001, Annals of Statistics 29, 295, theorem 1.1)."""
    a, b = np.sqrt(stars), np.sqrt(pixels)
    return TRACY_WIDOM * (a + b) * (1 / a + 1 / b) ** (1 / 3) / (a + b) ** 2


def _standard_residuals(cannon, spectra, labels):
    """Residuals in units of √(σ² + s²) (star, wavelength), 0 where a pixel does not count, and
    the typical size of that unit (wavelength,), infinite where none counts."""
    model = cannon.predict(labels.loc[spectra["star"].values]).values
    sigma = np.sqrt(spectra["error"].values.astype(float) ** 2 + cannon.s2)
    good = np.isfinite(sigma) & np.isfinite(spectra["flux"].values)
    difference = np.where(good, spectra["flux"].values - model, 0)
    residual = np.clip(difference / np.where(good, sigma, 1), -CLIP, CLIP)
    return residual, np.sqrt(np.median(np.where(good, sigma, np.inf) ** 2, axis=0))


def _true_excess(power, ratio):
    """By how much the eigenvalues that noise has inflated to `power` exceed 1: τ - 1, or 0."""
    middle = power + 1 - ratio
    root = np.sqrt(np.maximum(middle**2 - 4 * power, 0))
    return np.where(middle > 0, np.maximum((middle + root) / 2 - 1, 0), 0)


# --- Whether regions hold what they claim ----------------------------------------------------


def coverage(
    samples: xr.DataArray,
    truth: pd.DataFrame,
    levels: Sequence[float] = (0.5, 0.68, 0.9, 0.95),
) -> pd.DataFrame:
    """What share of true labels lies inside credible regions, and its counting error.

    For a label the region is the central interval of the draws; for "all" together it is the
    ellipsoid of their mean and covariance that holds a share `level` of the draws.

    Parameters
    ----------
    samples : DataArray
        Draws (star, draw, label) in the units of the labels. Stars with NaN draws are left out.
    truth : DataFrame
        True labels, indexed by star.
    levels : sequence of float
        What the regions claim to hold.

    Returns
    -------
    DataFrame
        Indexed by label and "all", with columns (level, "share") and (level, "error"). The error
        is that of a right share, √(p (1 - p) / stars). `attrs["stars"]` counts the stars.

    Raises
    ------
    ValueError
        If labels or stars have no true value.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> coords = {"star": range(500), "label": ["teff"]}
    >>> draws = xr.DataArray(rng.normal(size=(500, 200, 1)), coords, ("star", "draw", "label"))
    >>> truth = pd.DataFrame({"teff": rng.normal(size=500)})
    >>> bool(abs(coverage(draws, truth).loc["teff", (0.68, "share")] - 0.68) < 0.07)
    True
    """
    within, _ = _smallest_regions(samples, truth)
    columns = {}
    for level in levels:
        columns[level, "share"] = (within < level).mean()
        columns[level, "error"] = np.sqrt(level * (1 - level) / len(within))
    table = pd.DataFrame(columns, index=within.columns)
    table.attrs["stars"] = len(within)
    return table


def coverage_by(
    samples: xr.DataArray,
    truth: pd.DataFrame,
    values: pd.Series,
    edges: Sequence[float],
    level: float = 0.68,
) -> pd.DataFrame:
    """Coverage at one level in groups of stars: by signal-to-noise ratio, temperature, [Fe/H].

    Parameters
    ----------
    samples : DataArray
    truth : DataFrame
        As in `coverage`.
    values : Series
        By what stars are grouped, indexed by star, in any unit.
    edges : sequence of float
        Edges of the groups, in the same unit.
    level : float
        What the regions claim to hold.

    Returns
    -------
    DataFrame
        One row a group that has stars: the share for each label and "all", the counting `error`
        of a right share, and the number of `stars`.

    Examples
    --------
    >>> coverage_by(draws, truth, giants.snr, (50, 100, 200))  # doctest: +SKIP
    """
    within, stars = _smallest_regions(samples, truth)
    groups = pd.cut(values.loc[stars].to_numpy(), edges)
    shares = (within < level).groupby(groups, observed=True).mean()
    count = within["all"].groupby(groups, observed=True).size()
    return shares.assign(error=np.sqrt(level * (1 - level) / count), stars=count)


def _smallest_regions(samples, truth):
    """For each star and label, and for all labels, how much of the draws the smallest region
    holds that just contains the truth: DataFrame (star; label and "all"), and the stars."""
    draws, y, stars = _paired(samples, truth)
    rank = (draws < y[:, None]).mean(axis=1)
    spread = draws - draws.mean(axis=1, keepdims=True)
    inverse = np.linalg.inv(np.einsum("ndk,ndl->nkl", spread, spread) / draws.shape[1])
    distance = np.vecdot(spread @ inverse, spread)  # (star, draw), squared
    off = y - draws.mean(axis=1)
    own = np.vecdot(np.matvec(inverse, off), off)  # (star,)
    joint = (distance < own[:, None]).mean(axis=1)
    table = pd.DataFrame(2 * np.abs(rank - 0.5), columns=list(samples["label"].values))
    return table.assign(all=joint), stars


def sbc_ranks(samples: xr.DataArray, truth: pd.DataFrame, bins: int = 20) -> pd.DataFrame:
    """Rank histograms: where true labels fall among the draws (simulation-based calibration).

    Sorted among its draws a true value is as likely to be in any place. Too narrow posteriors
    give a histogram with horns at both ends, too wide ones a hump, a bias a slope.

    Parameters
    ----------
    samples : DataArray
    truth : DataFrame
        As in `coverage`.
    bins : int
        Number of bins of the rank, from 0 to 1.

    Returns
    -------
    DataFrame
        Counts (bin, label). `attrs["p"]` has for each label the probability of a chi-square at
        least as large if the ranks are uniform.

    References
    ----------
    Talts et al. 2018, arXiv:1804.06788, algorithm 1.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> coords = {"star": range(400), "label": ["teff"]}
    >>> draws = xr.DataArray(rng.normal(size=(400, 99, 1)), coords, ("star", "draw", "label"))
    >>> counts = sbc_ranks(draws, pd.DataFrame({"teff": rng.normal(size=400)}), bins=10)
    >>> int(counts["teff"].sum()), bool(counts.attrs["p"]["teff"] > 0.001)
    (400, True)
    """
    draws, y, _ = _paired(samples, truth)
    rank = ((draws < y[:, None]).sum(axis=1) + 0.5) / (draws.shape[1] + 1)  # (star, label)
    edges = np.linspace(0, 1, bins + 1)
    names = list(samples["label"].values)
    counts = {name: np.histogram(rank[:, k], edges)[0] for k, name in enumerate(names)}
    table = pd.DataFrame(counts, index=pd.Index((edges[1:] + edges[:-1]) / 2, name="rank"))
    table.attrs["p"] = {name: float(stats.chisquare(table[name]).pvalue) for name in names}
    return table


def tarp(
    samples: xr.DataArray,
    truth: pd.DataFrame,
    levels: Sequence[float] = (0.5, 0.68, 0.9, 0.95),
    seed: int = 128,
) -> pd.Series:
    """Coverage of all labels together by distances to random points.

    The region around a random point that holds a share of the draws must hold the truth as often.
    No normal shape is assumed; labels are measured in units of their spread over the stars. The
    random point of a star is the true value of another star.

    Parameters
    ----------
    samples : DataArray
    truth : DataFrame
    levels : sequence of float
        As in `coverage`.
    seed : int
        Of the random points.

    Returns
    -------
    Series
        The share of stars for each level.

    References
    ----------
    Lemos et al. 2023, arXiv:2302.03026, algorithm 2.

    Examples
    --------
    >>> rng = np.random.default_rng(2)
    >>> coords = {"star": range(400), "label": ["teff", "logg"]}
    >>> draws = xr.DataArray(rng.normal(size=(400, 99, 2)), coords, ("star", "draw", "label"))
    >>> truth = pd.DataFrame(rng.normal(size=(400, 2)), columns=["teff", "logg"])
    >>> bool(abs(tarp(draws, truth)[0.5] - 0.5) < 0.1)
    True
    """
    draws, y, _ = _paired(samples, truth)
    rng, scale = np.random.default_rng(seed), y.std(axis=0)
    order, point = rng.permutation(len(y)), np.empty_like(y)
    point[order] = y[np.roll(order, 1)]  # the labels of another star
    near = np.linalg.norm((draws - point[:, None]) / scale, axis=2)  # (star, draw)
    own = np.linalg.norm((y - point) / scale, axis=1)
    inside = (near < own[:, None]).mean(axis=1)
    return pd.Series({level: (inside < level).mean() for level in levels}, name="share")


# --- Scatter that no pixel accounts for ------------------------------------------------------


def correlated_errors(errors: pd.DataFrame, covariance: xr.DataArray) -> xr.DataArray:
    """Covariances with these standard errors and the correlations of other covariances.

    A catalog quotes an error for each label. But who measures labels in one spectrum errs in all
    of them together: hotter goes with higher gravity. A fit of the same spectrum knows how.

    Parameters
    ----------
    errors : DataFrame
        Standard errors, indexed by star, columns named as the labels.
    covariance : DataArray
        (star, label, other), as `Cannon.fit(..., covariance=True)` gives it.

    Returns
    -------
    DataArray
        Covariances (star, label, other) in the units of the errors.

    Examples
    --------
    >>> coords = {"star": ["a"], "label": ["x", "y"], "other": ["x", "y"]}
    >>> c = xr.DataArray([[[4.0, 1.0], [1.0, 1.0]]], coords)
    >>> correlated_errors(pd.DataFrame({"x": [1.0], "y": [2.0]}, index=["a"]), c).values.tolist()
    [[[1.0, 1.0], [1.0, 4.0]]]
    """
    names = list(covariance["label"].values)
    sigma = errors.loc[covariance["star"].values, names].to_numpy(float)  # (star, label)
    formal = np.sqrt(np.diagonal(covariance.values, axis1=1, axis2=2))
    ratio = sigma / formal
    return covariance.copy(data=covariance.values * ratio[:, :, None] * ratio[:, None])


def learn_scatter(
    samples: xr.DataArray,
    reference: pd.DataFrame,
    errors: pd.DataFrame | xr.DataArray | None = None,
) -> pd.DataFrame:
    """The scatter of labels that posteriors do not account for, from stars with reference labels.

    Model: reference minus posterior mean is N(0, (C + S) / u + E). C is the star's posterior
    covariance; S is the same for all stars; u, a gamma variate of mean 1 and shape nu / 2, gives
    t-like tails with nu degrees of freedom; and E is the covariance of the reference's own errors.
    S is found by expectation maximization over a grid of u, nu by the likelihood.

    Parameters
    ----------
    samples : DataArray
        Draws (star, draw, label).
    reference : DataFrame
        Labels of the same stars, such as the catalog's, indexed by star.
    errors : DataFrame or DataArray, optional
        Errors of the reference: standard errors, a DataFrame like `reference`, or covariances
        (star, label, other), as from `correlated_errors`. None means none.

    Returns
    -------
    DataFrame
        S (label, label) in the squared units of the labels, with `attrs["nu"]`.

    Raises
    ------
    ValueError
        For fewer than ten stars a label.

    References
    ----------
    Liu & Rubin 1995, Statistica Sinica 5, 19 (the t distribution by expectation maximization).

    Examples
    --------
    >>> scatter = learn_scatter(draws, catalog[LABELS], errors)  # doctest: +SKIP
    >>> wider = inflate_posterior(draws, scatter)  # doctest: +SKIP
    """
    draws, y, stars = _paired(samples, reference)
    names = list(samples["label"].values)
    if len(y) < 10 * len(names):
        raise ValueError(f"{len(y)} stars are too few to learn the scatter of {len(names)} labels")
    unit = np.std(y - draws.mean(axis=1), axis=0)
    square = np.outer(unit, unit)
    off = (y - draws.mean(axis=1)) / unit  # (star, label)
    spread = draws - draws.mean(axis=1, keepdims=True)
    c = np.einsum("ndk,ndl->nkl", spread, spread) / draws.shape[1] / square
    e = _covariances(errors, stars, names) / square
    s, fits = np.cov(off.T).reshape(e.shape[1:]) / 4, {}
    for nu in TAILS:
        likelihood, s = _expectation_maximization(off, c, e, s, nu)
        fits[nu] = likelihood, s
    nu, (_, s) = max(fits.items(), key=lambda fit: fit[1][0])
    table = pd.DataFrame(s * square, index=names, columns=names)
    table.attrs["nu"] = nu
    return table


def _covariances(errors, stars, names):
    """Covariances (star, label, label) from what `learn_scatter` takes for errors."""
    if errors is None:
        return np.zeros((len(stars), len(names), len(names)))
    if isinstance(errors, xr.DataArray):
        return errors.sel(star=stars, label=names, other=names).values
    sigma = errors.loc[stars, names].to_numpy(float)
    return np.eye(len(names)) * sigma[:, None] ** 2


def _expectation_maximization(off, c, e, s, nu, rounds=200, nodes=12):
    """Log-likelihood and S, for offsets (n, K) with covariances C and E (n, K, K), from a first S
    (K, K)."""
    grid = np.geomspace(*stats.gamma.ppf((1e-5, 1 - 1e-3), nu / 2, scale=2 / nu), nodes)
    log_weight = np.log(grid) + stats.gamma.logpdf(grid, nu / 2, scale=2 / nu)
    log_weight -= np.log(np.exp(log_weight).sum())
    u = grid[:, None, None, None]  # before (n, K, K)
    for _ in range(rounds):
        inverse = np.linalg.inv((c + s) / u + e)
        pull = np.matvec(inverse, off)
        log_p = log_weight[:, None] + 0.5 * (np.linalg.slogdet(inverse)[1] - np.vecdot(off, pull))
        top = log_p.max(axis=0)
        share = np.exp(log_p - top)  # (u, n): how probable each u is for a star
        total = share.sum(axis=0)
        share /= total
        weight = share / grid[:, None]
        mean = pull @ s  # expected part of the scatter, times u
        outer = np.einsum("un,unk,unl->kl", weight, mean, mean, optimize=True)
        known = np.einsum("un,unkl->kl", weight, inverse)
        old, s = s, s + (outer - s @ known @ s) / len(off)
        if np.abs(s - old).max() < 1e-3 * np.abs(s).max():
            break
    return (top + np.log(total)).sum(), s


def inflate_posterior(
    samples: xr.DataArray, scatter: pd.DataFrame, seed: int = 128
) -> xr.DataArray:
    """Draws with the extra scatter and the tails of `learn_scatter` given to them.

    Parameters
    ----------
    samples : DataArray
        Draws (star, draw, label).
    scatter : DataFrame
        What `learn_scatter` returned.
    seed : int
        Of the random numbers, which are of each star alone: the order of stars changes nothing.

    Returns
    -------
    DataArray
        New draws in the same order of dimensions.

    Examples
    --------
    >>> coords = {"star": ["a"], "label": ["teff"]}
    >>> draws = xr.DataArray(np.zeros((1, 2000, 1)), coords, ("star", "draw", "label"))
    >>> scatter = pd.DataFrame([[4.0]], ["teff"], ["teff"])
    >>> scatter.attrs["nu"] = 200
    >>> round(float(inflate_posterior(draws, scatter).std()))
    2
    """
    names, nu = list(samples["label"].values), scatter.attrs["nu"]
    root = np.linalg.cholesky(scatter.loc[names, names].to_numpy())
    ordered = samples.transpose("star", "draw", "label")
    noise, tail = np.empty(ordered.shape), np.empty(ordered.shape[:2])
    for row, star in enumerate(ordered["star"].values):
        rng = np.random.default_rng([seed, *str(star).encode()])
        noise[row] = rng.standard_normal(noise.shape[1:]) @ root.T
        tail[row] = np.sqrt(rng.chisquare(nu, tail.shape[1]) / nu)
    center = ordered.mean("draw")
    wider = center + (ordered - center + noise) / tail[..., None]
    return wider.transpose(*samples.dims)


def _paired(samples, truth):
    """Draws (n, draw, K), labels (n, K) and names (n,) of the stars that have both; ValueError if
    labels are missing."""
    names, stars = list(samples["label"].values), samples["star"].values
    if missing := set(names) - set(truth.columns) or set(stars) - set(truth.index):
        raise ValueError(f"no true value for {len(missing)} labels or stars, {sorted(missing)[:5]}")
    draws = samples.transpose("star", "draw", "label").values
    y = truth.loc[stars, names].to_numpy(float)
    known = np.isfinite(draws).all(axis=(1, 2)) & np.isfinite(y).all(axis=1)
    if not known.any():
        raise ValueError("no star has both draws and true labels")
    return draws[known], y[known], stars[known]
