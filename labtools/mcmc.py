"""The trained Cannon as a likelihood: posteriors of labels by NUTS in PyMC, or of many stars at once.

The likelihood of a star is exactly a quadratic form in its design vector (`Cannon.likelihood`): 7214 pixels become
T x T numbers, T = 21 for five labels.
"""

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr

from labtools.cannon import (
    centered_design,
    design,
    format_names,
    monomials,
    slope_and_curvature,
)
from labtools.spectra import by_star

__all__ = ["build_model", "diagnose", "flat_priors", "labels_of", "sample", "sample_stars"]

TAILS = 5  # degrees of freedom of the multivariate t that proposes labels
LEAST = 0.01  # efficiency of importance resampling
MARGIN = 0.1  # of the range of the training set, by which priors are longer at each end


def flat_priors(cannon):
    """Bounds of uniform priors, a tenth wider at each end than the training set: DataFrame (label; low, high)."""
    y = cannon.unscaled(cannon.training_labels)
    low, high = y.min(axis=0), y.max(axis=0)
    more = MARGIN * (high - low)
    return pd.DataFrame({"low": low - more, "high": high + more}, index=list(cannon.labels))


def build_model(cannon, spectrum, priors=None, modes=None):
    """PyMC model of the labels of one star, each with a uniform prior, and the Cannon as the likelihood.

    The likelihood is plain PyTensor, so that NUTS has its gradient. Its value is that of independent normal
    pixels of variance σ² + s², constant included; with `modes`, that of pixels which also vary together.

    spectrum : Dataset of one star, normalized, on the wavelengths of the model.
    priors : DataFrame like that of `flat_priors`, which is what None means.
    modes : DataArray of `labtools.coverage.nuisance_components`, or None.

    Raises ValueError for more than one star, no usable pixel, or priors that are not those of the labels.
    """
    spectrum = by_star(spectrum)
    if spectrum.sizes["star"] != 1:
        raise ValueError(
            f"the posterior is that of one star, not of {spectrum.sizes['star']}: choose one"
        )
    priors = _checked(cannon, priors)
    best = _best(cannon, spectrum, modes)
    x0, a, r, constant = (part[0] for part in (best, *cannon.likelihood(spectrum, best, modes)))
    edge = 1e-3 * (priors["high"] - priors["low"])
    start = cannon.unscaled(x0).clip(priors["low"] + edge, priors["high"] - edge)
    with pm.Model() as model:
        labels = [
            pm.Uniform(name, low, high, initval=start[name])
            for name, low, high in priors.itertuples()
        ]
        inside = [
            5040 / y if name in cannon.reciprocal else y
            for name, y in zip(cannon.labels, labels, strict=True)
        ]
        x = (pt.stack(inside) - cannon.offset) / cannon.scale
        v = pt.ones(1)
        for earlier, label in monomials(len(x0), cannon.degree):
            v = pt.concatenate([v, v[earlier] * x[label]])
        d = v - design(x0, cannon.degree)
        pm.Potential("log_likelihood", constant - 0.5 * (d @ a @ d) + r @ d)
    return model


def sample(model, draws=1000, tune=600, chains=4, seed=128, **options):
    """Draws from the posterior by NUTS, started at the best fit: what `pymc.sample` returns, which gets the options."""
    with model, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "PyTensor could not link to a BLAS"
        )  # nothing here is large
        return pm.sample(
            draws, tune=tune, chains=chains, random_seed=seed, init="adapt_diag", **options
        )


def labels_of(idata):
    """All draws: DataFrame (chain x draw, label)."""
    return idata["posterior"].to_dataframe()


def diagnose(idata):
    """Whether the chains can be believed: DataFrame by label with mean, sd, r_hat, ess_bulk, ess_tail.

    `attrs["divergences"]` counts diverging transitions. Good: r_hat < 1.01, none of them, both ess > 400.
    """
    table = az.summary(idata, round_to="none")[["mean", "sd", "r_hat", "ess_bulk", "ess_tail"]]
    table.attrs["divergences"] = int(idata["sample_stats"]["diverging"].sum())
    return table


def sample_stars(cannon, spectra, priors=None, modes=None, draws=1000, seed=128):
    """Draws from the posteriors of many stars, without Markov chains: milliseconds a star. Arguments: `build_model`.

    Four times as many labels as needed are proposed, from a multivariate t with the mode and curvature of the
    posterior, weighted by posterior over proposal, and drawn again in proportion to the weights (sampling importance
    resampling, Rubin 1988). The efficiency, the effective share of the proposals, tells whether this is as good as
    exact: it is about 0.8 for a normal posterior. Below 0.01 the star gets NaN, with a warning.

    Returns a DataArray (star, draw, label) with the coordinate `efficiency` (star); NaN also where no pixel is usable.
    """
    spectra, priors = by_star(spectra), _checked(cannon, priors)
    x0 = _best(cannon, spectra, modes)
    a, r, _ = cannon.likelihood(spectra, x0, modes)
    rng = np.random.default_rng(seed)
    y, efficiency = np.full((len(x0), draws, x0.shape[1]), np.nan), np.zeros(len(x0))
    for star in np.flatnonzero(np.isfinite(x0).all(axis=1)):
        proposed, log_q = _propose(x0[star], a[star], r[star], cannon.degree, 4 * draws, rng)
        inside = cannon.unscaled(proposed)
        d = design(proposed, cannon.degree) - design(x0[star], cannon.degree)
        log_p = (
            d @ r[star]
            - 0.5 * np.vecdot(d @ a[star], d)
            + np.log(np.abs(cannon.units(proposed))).sum(axis=1)
        )
        log_p[
            ((inside < priors["low"].to_numpy()) | (inside > priors["high"].to_numpy())).any(axis=1)
        ] = -np.inf
        weight = np.exp(log_p - log_q - max(np.max(log_p - log_q), -1e300))
        efficiency[star] = weight.sum() ** 2 / np.maximum((weight**2).sum(), 1e-300) / len(weight)
        if efficiency[star] > LEAST:
            y[star] = rng.choice(inside, draws, p=weight / weight.sum())
    failed = np.isfinite(x0).all(axis=1) & (efficiency <= LEAST)
    if failed.any():
        stars = format_names(spectra.star.values[failed])
        warnings.warn(
            f"importance resampling fails for {stars}: use NUTS, or wider priors", stacklevel=2
        )
    coords = {
        "star": spectra.star.values,
        "label": list(cannon.labels),
        "efficiency": ("star", efficiency),
    }
    return xr.DataArray(y, coords=coords, dims=("star", "draw", "label"))


def _propose(x0, a, r, degree, number, rng):
    """Scaled labels (number, K) from a multivariate t at the mode x0, and log density up to a constant.

    Its width is the curvature there, or that of Gauss and Newton where the true one is not positive definite.
    """
    bent = r + a @ centered_design(
        x0, degree
    )  # the form about the mean star, as `slope_and_curvature` wants it
    _, gauss_newton, bend = slope_and_curvature(a[None], bent[None], x0[None], degree)
    true = gauss_newton[0] + bend[0]
    curvature = true if np.linalg.eigvalsh(true)[0] > 0 else gauss_newton[0]
    t = (
        rng.standard_normal((number, len(x0)))
        / np.sqrt(rng.chisquare(TAILS, number) / TAILS)[:, None]
    )
    log_q = -0.5 * (TAILS + len(x0)) * np.log1p(np.vecdot(t, t) / TAILS)
    return x0 + np.linalg.solve(np.linalg.cholesky(curvature).T, t.T).T, log_q


def _checked(cannon, priors):
    """Priors in the order of the labels; ValueError if they are not a low and a higher bound for each."""
    priors = flat_priors(cannon) if priors is None else priors
    if set(priors.index) != set(cannon.labels) or not {"low", "high"} <= set(priors.columns):
        raise ValueError(
            f"priors need a row for each of {', '.join(cannon.labels)}, columns low and high"
        )
    priors = priors.loc[list(cannon.labels), ["low", "high"]].astype(float)
    if not (priors["low"] < priors["high"]).all() or not np.isfinite(priors).all(axis=None):
        raise ValueError(f"each prior must be finite, with low < high:\n{priors}")
    return priors


def _best(cannon, spectra, modes):
    """Scaled labels (star, K) of the best fits, NaN for stars without a usable pixel."""
    return cannon.scaled(cannon.fit(spectra, modes=modes)[list(cannon.labels)].to_numpy())
