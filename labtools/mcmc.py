"""The trained Cannon as a likelihood: posteriors of the labels of stars.

Two ways lead to the same posterior:

- `build_model` and `sample` use PyMC and its sampler NUTS, one star at a time. That is what the
  assignment asks for, and everything that PyMC and ArviZ offer works with the result.
- `sample_stars` draws from the posteriors of many stars by importance resampling, in
  milliseconds per star.

The model is the same in both. The flux of pixel i of a star with labels y is normal,

    f_i ~ N(v(y) . theta_i, sigma_i^2 + s_i^2),

with the design vector v (T terms), the coefficients theta_i and the scatter s_i of `Cannon`, and
the error sigma_i of the pixel. Each label has a uniform prior.
"""

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytensor.tensor as pt
import xarray as xr
from pymc.step_methods.hmc.quadpotential import QuadPotentialFull

from labtools.cannon import (
    Cannon,
    centered_design,
    design,
    format_names,
    monomials,
    slope_and_curvature,
)
from labtools.spectra import by_star

__all__ = ["build_model", "diagnose", "flat_priors", "labels_of", "sample", "sample_stars"]

PRIOR_MARGIN = 0.1  # priors reach this share of the training set's range beyond each of its ends
START_DISTANCE = 10  # of chains from the best fit, in standard deviations of the posterior
START_MARGIN = 0.01  # chains start inside the priors by this share of their width
OF_NUTS = ("target_accept", "max_treedepth")  # options of `pymc.sample` that the step takes
T_DEGREES = 5  # degrees of freedom of the multivariate t that proposes labels
OVERSAMPLING = 4  # proposals per draw
MIN_EFFICIENCY = 0.01  # of importance resampling; below it the draws would be a few labels repeated


def flat_priors(cannon: Cannon) -> pd.DataFrame:
    """Bounds of uniform priors, a tenth wider at each end than the training set.

    Parameters
    ----------
    cannon : Cannon
        A trained model of K labels.

    Returns
    -------
    DataFrame
        One row per label, with the columns `low` and `high` in the units of the label.

    Examples
    --------
    >>> import numpy as np
    >>> from labtools import Cannon
    >>> from labtools.mcmc import flat_priors
    >>> scaled = np.array([[-2.0], [0.0], [2.0]])  # three training stars with one label
    >>> cannon = Cannon(("teff",), np.array([4600.0]), np.array([250.0]), np.arange(3.0),
    ...                 np.zeros((3, 3)), np.ones(3), scaled)
    >>> flat_priors(cannon)
             low    high
    teff  4000.0  5200.0
    """
    y = cannon.unscaled(cannon.training_labels)  # (training stars, K)
    low, high = y.min(axis=0), y.max(axis=0)
    margin = PRIOR_MARGIN * (high - low)
    return pd.DataFrame({"low": low - margin, "high": high + margin}, index=list(cannon.labels))


def build_model(
    cannon: Cannon,
    spectrum: xr.Dataset,
    priors: pd.DataFrame | None = None,
    modes: xr.DataArray | None = None,
) -> pm.Model:
    """PyMC model of the labels of one star.

    Every usable pixel is an observation of its own, so that `pymc.compute_log_likelihood`,
    `arviz.loo`, `arviz.compare` and `pymc.sample_posterior_predictive` work. The mean flux is
    plain PyTensor, and NUTS therefore has its gradient.

    Parameters
    ----------
    cannon : Cannon
        A trained model of K labels.
    spectrum : Dataset
        One normalized star, `flux` and `error`, on the wavelengths of the model. Pixels with
        error = inf do not count.
    priors : DataFrame, optional
        Bounds of the uniform priors, as from `flat_priors`, which is the default.
    modes : DataArray (mode, wavelength), optional
        Patterns in which pixels vary together, from `labtools.coverage.nuisance_components`. Each
        gets an amplitude with a standard normal prior, sampled together with the labels.

    Returns
    -------
    pymc.Model
        One free variable per label, `amplitude` if there are modes, and the observed `flux`. Three
        constants tell `sample` where the posterior is: `best_fit` (labels and amplitudes),
        `best_fit_covariance`, and `bounds` (of the labels).

    Raises
    ------
    ValueError
        If there is more than one star, no usable pixel, or if the priors do not belong to the
        labels or the wavelengths not to the model.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from labtools import Cannon
    >>> from labtools.mcmc import build_model
    >>> wavelength, scaled = np.array([15000.0, 15001.0]), np.array([[-2.0], [0.0], [2.0]])
    >>> theta = np.array([[1.0, 0.02, 0.0], [1.0, -0.03, 0.0]])  # constant, linear, quadratic
    >>> cannon = Cannon(("teff",), np.array([4600.0]), np.array([250.0]), wavelength, theta,
    ...                 np.full(2, 1e-4), scaled)
    >>> star = xr.Dataset({"flux": (("star", "wavelength"), [[1.01, 0.98]]),
    ...                    "error": (("star", "wavelength"), [[0.01, 0.01]])},
    ...                   coords={"star": ["one star"], "wavelength": wavelength})
    >>> model = build_model(cannon, star)
    >>> model.free_RVs, model.observed_RVs
    ([teff], [flux])
    """
    spectrum = by_star(spectrum)
    if spectrum.sizes["star"] != 1:
        stars = spectrum.sizes["star"]
        raise ValueError(f"the posterior is that of one star, not of {stars}: choose one")
    priors = _checked_priors(cannon, priors)
    best = cannon.fit(spectrum, modes=modes)[list(cannon.labels)]  # one row
    flux, error = (spectrum[name].values[0].astype(float) for name in ("flux", "error"))
    sigma = np.sqrt(error**2 + cannon.s2)  # (L,)
    used = np.isfinite(sigma)
    theta = cannon.theta[used]  # (usable pixels, T)
    with pm.Model(coords={"wavelength": cannon.wavelength[used]}) as model:
        labels = [pm.Uniform(name, low, high) for name, low, high in priors.itertuples()]
        mean_flux = theta @ _design_in_pytensor(cannon, labels)
        if modes is not None:
            patterns = modes.transpose("wavelength", "mode").values[used]
            model.add_coord("mode", np.arange(patterns.shape[1]))
            amplitude = pm.Normal("amplitude", 0, 1, dims="mode")
            mean_flux = mean_flux + patterns @ amplitude
        pm.Normal("flux", mean_flux, sigma[used], observed=flux[used], dims="wavelength")
        values, covariance = _best_fit(cannon, best, spectrum, modes)
        pm.Data("best_fit", values)
        pm.Data("best_fit_covariance", covariance)
        pm.Data("bounds", priors.to_numpy().T)
    return model


def _best_fit(
    cannon: Cannon, labels: pd.DataFrame, spectrum: xr.Dataset, modes: xr.DataArray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Values and covariance of labels and amplitudes of modes where the labels fit best.

    The covariance is that of Gauss and Newton, which leaves out second derivatives of the flux.
    """
    flux, error = (spectrum[name].values[0].astype(float) for name in ("flux", "error"))
    sigma = np.sqrt(error**2 + cannon.s2)
    used = np.isfinite(sigma)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model extrapolates")
        residuals = flux - cannon.predict(labels).values[0]
        slopes = cannon.gradient(labels).values[0]  # (K, L)
    if modes is not None:
        slopes = np.vstack([slopes, modes.transpose("mode", "wavelength").values])
    # In units of sigma: (usable pixels,) and (usable pixels, K + modes).
    residuals, slopes = residuals[used] / sigma[used], (slopes[:, used] / sigma[used]).T
    precision = slopes.T @ slopes
    of_modes = slice(len(cannon.labels), None)
    # Labels have flat priors; the standard normal prior of an amplitude adds 1.
    precision[of_modes, of_modes] += np.eye(slopes.shape[1] - len(cannon.labels))
    amplitudes = np.linalg.solve(
        precision[of_modes, of_modes], slopes[:, of_modes].T @ residuals
    )  # none without modes
    return np.concatenate([labels.to_numpy()[0], amplitudes]), np.linalg.inv(precision)


def _design_in_pytensor(cannon: Cannon, labels: list) -> pt.TensorVariable:
    """Design vector (T,) of K random variables: what `labtools.cannon.design` does for numbers."""
    in_model = [
        5040 / label if name in cannon.reciprocal else label
        for name, label in zip(cannon.labels, labels, strict=True)
    ]
    x = (pt.stack(in_model) - cannon.offset) / cannon.scale
    v = pt.ones(1)
    # Each power of the labels is made of the terms before it, times one label more.
    for earlier, label in monomials(len(labels), cannon.degree):
        v = pt.concatenate([v, v[earlier] * x[label]])
    return v


def sample(
    model: pm.Model,
    draws: int = 500,
    tune: int = 200,
    chains: int = 4,
    seed: int = 128,
    cores: int = 1,
    **options,
) -> az.InferenceData:
    """Draws from the posterior by NUTS, from chains that start outside of it.

    Each chain starts ten standard deviations from the best fit, in a random direction: outside, so
    that chains which agree have forgotten where they began (Vehtari et al. 2021), but near enough
    to arrive within some ten steps. From anywhere in the prior, one chain in a hundred takes more
    than 200. Whether there is a second maximum elsewhere is a question for many optimizations,
    such as `cannon.fit` with several `starts`.

    The mass matrix is not learned but taken from the curvature (Gauss-Newton) at the best fit. Only
    the step size is left to tune, and nearly every draw is independent of the last, unless a prior
    cuts the posterior.

    Parameters
    ----------
    model : pymc.Model
        As from `build_model`. The start and the mass matrix of any other model, or of one to which
        variables were added, are PyMC's own.
    draws, tune, chains : int
        Draws to keep and steps of tuning in each chain; number of chains.
    seed : int
        Seed of the starting points and of the chains.
    cores : int
        Processes; to start a second one takes about as long as to sample.
    **options
        Other options of `pymc.sample`, such as `progressbar` or `target_accept`; not `random_seed`,
        which is `seed` here.

    Returns
    -------
    arviz.InferenceData
        What `pymc.sample` returns.

    References
    ----------
    Hoffman & Gelman 2014, JMLR 15, 1593 (NUTS); Vehtari et al. 2021, Bayesian Analysis 16, 667.

    Examples
    --------
    >>> import pymc as pm
    >>> from labtools.mcmc import labels_of, sample
    >>> with pm.Model() as coin:
    ...     chance = pm.Uniform("chance")
    ...     heads = pm.Binomial("heads", 10, chance, observed=7)
    >>> idata = sample(coin, draws=50, tune=50, chains=2, progressbar=False, quiet=True)
    >>> labels_of(idata).shape
    (100, 1)
    """
    with model, warnings.catch_warnings():
        # Vectors of 7,000 numbers do not need BLAS.
        warnings.filterwarnings("ignore", "PyTensor could not link to a BLAS")
        if _knows_its_best_fit(model):
            options.setdefault("initvals", _starting_points(model, chains, seed))
            of_nuts = {name: options.pop(name) for name in OF_NUTS if name in options}
            options.setdefault("step", pm.NUTS(potential=_mass_matrix(model), **of_nuts))
        return pm.sample(draws, tune=tune, chains=chains, random_seed=seed, cores=cores, **options)


def _knows_its_best_fit(model: pm.Model) -> bool:
    """Whether all free variables of a model are those that `build_model` gave it.

    Then, and only then, its best fit and covariance are those of all variables.
    """
    if not {"best_fit", "best_fit_covariance", "bounds"} <= set(model.named_vars):
        return False
    free = sum(np.size(value) for value in model.initial_point().values())
    return free == len(model["best_fit"].get_value())


def _starting_points(model: pm.Model, chains: int, seed: int) -> list[dict]:
    """For each chain the values of all free variables, ten standard deviations off the best fit."""
    best = model["best_fit"].get_value()  # (K + modes,)
    root = np.linalg.cholesky(model["best_fit_covariance"].get_value())
    low, high = model["bounds"].get_value()  # (K,) each
    direction = np.random.default_rng(seed).standard_normal((chains, len(best)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    points = best + START_DISTANCE * direction @ root.T  # (chains, K + modes)
    margin = START_MARGIN * (high - low)
    labels = points[:, : len(low)].clip(low + margin, high - margin)
    names = [variable.name for variable in model.free_RVs if variable.ndim == 0]
    starts = [dict(zip(names, row, strict=True)) for row in labels]
    if "amplitude" in model.named_vars:
        for start, row in zip(starts, points, strict=True):
            start["amplitude"] = row[len(low) :]
    return starts


def _mass_matrix(model: pm.Model) -> QuadPotentialFull:
    """Mass matrix for NUTS: the covariance at the best fit, in the coordinates of the sampler.

    NUTS does not see a label y in [low, high] but its logit, ln((y - low) / (high - y)).
    """
    covariance = model["best_fit_covariance"].get_value()  # (K + modes, K + modes)
    low, high = model["bounds"].get_value()
    # At a bound, and beyond, there is no logit: what counts is its slope where the draws will be,
    # a standard deviation inside.
    sd = np.sqrt(np.diag(covariance))[: len(low)]
    inside = np.clip(sd, START_MARGIN * (high - low), 0.5 * (high - low))
    y = model["best_fit"].get_value()[: len(low)].clip(low + inside, high - inside)
    slope = np.ones(len(covariance))  # d logit / dy; amplitudes of modes have no bounds
    slope[: len(y)] = (high - low) / ((y - low) * (high - y))
    return QuadPotentialFull(covariance * np.outer(slope, slope))


def labels_of(idata: az.InferenceData) -> pd.DataFrame:
    """All draws of the labels as a table.

    Parameters
    ----------
    idata : arviz.InferenceData
        As from `sample`.

    Returns
    -------
    DataFrame
        Indexed by `chain` and `draw`, one column per label.

    Examples
    --------
    >>> import arviz as az, numpy as np
    >>> from labtools.mcmc import labels_of
    >>> draws = labels_of(az.from_dict({"teff": np.full((2, 3), 4500.0)}))
    >>> draws.groupby("chain").size().tolist(), list(draws.columns)
    ([3, 3], ['teff'])
    """
    posterior = idata["posterior"]
    # Amplitudes of modes have a dimension of their own and are not labels.
    names = [name for name in posterior.data_vars if posterior[name].ndim == 2]
    return posterior[names].to_dataframe()[names]


def diagnose(idata: az.InferenceData) -> pd.DataFrame:
    """Whether the chains can be believed.

    Good are r_hat < 1.01 (it needs two chains), both effective sample sizes > 400, no divergence,
    and `farthest` < 8. The first three see only ranks: a few draws far away, as of a chain that
    was still on its way, spoil `sd` and are not noticed by them. `farthest` is the distance of the
    farthest draw from the median, in units of 1.4826 times the median absolute deviation; 2,000
    normal draws reach 3.5.

    Parameters
    ----------
    idata : arviz.InferenceData
        As from `sample`.

    Returns
    -------
    DataFrame
        One row per label: `mean`, `sd`, `r_hat`, `ess_bulk`, `ess_tail`, `farthest`.
        `attrs["divergences"]` counts the diverging transitions (0 for a sampler that has none).

    References
    ----------
    Vehtari et al. 2021, Bayesian Analysis 16, 667.

    Examples
    --------
    >>> import arviz as az, numpy as np
    >>> from labtools.mcmc import diagnose
    >>> chains = np.random.default_rng(0).normal(4500, 10, (4, 500))
    >>> idata = az.from_dict({"teff": chains}, sample_stats={"diverging": chains > 9999})
    >>> table = diagnose(idata)
    >>> bool(table.r_hat["teff"] < 1.01), table.attrs["divergences"]
    (True, 0)
    """
    draws = labels_of(idata)
    table = az.summary(idata, list(draws), round_to="none")
    table = table[["mean", "sd", "r_hat", "ess_bulk", "ess_tail"]]
    off = (draws - draws.median()).abs()
    table["farthest"] = off.max() / (1.4826 * off.median())
    statistics = idata["sample_stats"]
    divergences = statistics["diverging"].sum() if "diverging" in statistics else 0
    table.attrs["divergences"] = int(divergences)
    return table


def sample_stars(
    cannon: Cannon,
    spectra: xr.Dataset,
    priors: pd.DataFrame | None = None,
    modes: xr.DataArray | None = None,
    draws: int = 1000,
    seed: int = 128,
    fits: pd.DataFrame | None = None,
) -> xr.DataArray:
    """Draws from the posteriors of many stars without Markov chains, in milliseconds per star.

    Sampling importance resampling: four times as many labels as needed are proposed from a
    multivariate t with the mode and the curvature of the posterior. Each is weighted by posterior
    over proposal, and labels are drawn again in proportion to the weights. The efficiency, the
    effective share of the proposals, is about 0.8 for a normal posterior. The draws of a star
    depend on its spectrum, its name and the seed, and not on the other stars.

    Parameters
    ----------
    cannon, priors, modes
        As for `build_model`. Here amplitudes of modes are integrated out exactly.
    spectra : Dataset
        Normalized stars, `flux` and `error` (star, wavelength).
    draws : int
        Draws per star.
    seed : int
        Seed, not negative.
    fits : DataFrame, optional
        What `cannon.fit` says of these spectra and modes, if it is known already.

    Returns
    -------
    DataArray (star, draw, label)
        With the coordinate `efficiency` (star). NaN for stars without a usable pixel and, with a
        warning, for those of an efficiency below 0.01.

    Raises
    ------
    ValueError
        As for `build_model`, but for the number of stars; if `fits` are of other stars.

    References
    ----------
    Rubin 1988, in Bayesian Statistics 3, p. 395.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> from labtools import Cannon
    >>> from labtools.mcmc import sample_stars
    >>> wavelength, scaled = np.array([15000.0, 15001.0]), np.array([[-2.0], [0.0], [2.0]])
    >>> theta = np.array([[1.0, 0.02, 0.0], [1.0, -0.03, 0.0]])
    >>> cannon = Cannon(("teff",), np.array([4600.0]), np.array([250.0]), wavelength, theta,
    ...                 np.full(2, 1e-4), scaled)
    >>> star = xr.Dataset({"flux": (("star", "wavelength"), [[1.01, 0.98]]),
    ...                    "error": (("star", "wavelength"), [[0.01, 0.01]])},
    ...                   coords={"star": ["one star"], "wavelength": wavelength})
    >>> sample_stars(cannon, star, draws=50).sizes
    Frozen({'star': 1, 'draw': 50, 'label': 1})
    """
    spectra, priors = by_star(spectra), _checked_priors(cannon, priors)
    low, high = priors["low"].to_numpy(), priors["high"].to_numpy()
    fits = cannon.fit(spectra, modes=modes) if fits is None else fits
    if list(fits.index) != list(spectra.star.values):
        raise ValueError("these are fits of other stars, or in another order than the spectra")
    x0 = cannon.scaled(fits[list(cannon.labels)].to_numpy())  # (star, K)
    usable = np.isfinite(x0).all(axis=1)
    # ln L of a star is exactly r.d - d.A.d / 2 + constant, with d = v(x) - v(x0): `likelihood`.
    a, r, _ = cannon.likelihood(spectra, x0, modes)
    y = np.full((len(x0), draws, x0.shape[1]), np.nan)
    efficiency = np.zeros(len(x0))
    for n in np.flatnonzero(usable):
        rng = np.random.default_rng([seed, *str(spectra.star.values[n]).encode()])
        x, log_q = _propose(x0[n], a[n], r[n], cannon.degree, OVERSAMPLING * draws, rng)
        labels = cannon.unscaled(x)  # (proposals, K)
        d = design(x, cannon.degree) - design(x0[n], cannon.degree)  # (proposals, T)
        log_likelihood = d @ r[n] - 0.5 * np.vecdot(d @ a[n], d)
        # The prior is flat in the labels, the proposal a density in scaled labels: |dy/dx|.
        log_jacobian = np.log(np.abs(cannon.units(x))).sum(axis=1)
        inside = ((labels >= low) & (labels <= high)).all(axis=1)
        log_weight = np.where(inside, log_likelihood + log_jacobian - log_q, -np.inf)
        if not inside.any():
            continue
        weight = np.exp(log_weight - log_weight.max())
        efficiency[n] = weight.sum() ** 2 / (weight**2).sum() / len(weight)
        if efficiency[n] > MIN_EFFICIENCY:
            y[n] = rng.choice(labels, draws, p=weight / weight.sum())
    failed = usable & (efficiency <= MIN_EFFICIENCY)
    if failed.any():
        stars = format_names(spectra.star.values[failed])
        message = f"importance resampling fails for {stars}: use NUTS, or wider priors"
        warnings.warn(message, stacklevel=2)
    coords = {
        "star": spectra.star.values,
        "label": list(cannon.labels),
        "efficiency": ("star", efficiency),
    }
    return xr.DataArray(y, coords=coords, dims=("star", "draw", "label"))


def _propose(
    x0: np.ndarray, a: np.ndarray, r: np.ndarray, degree: int, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scaled labels (number, K) from a multivariate t at the mode, and their log density.

    The density is known up to a constant.

    Its width is the curvature of ln L at x0 (K,), or that of Gauss and Newton where the true one
    is not positive definite. A is (T, T) and r (T,), as from `Cannon.likelihood` for one star.
    """
    # `slope_and_curvature` wants the quadratic form about the mean star instead of about x0.
    b = r + a @ centered_design(x0, degree)
    _, gauss_newton, rest = slope_and_curvature(a[None], b[None], x0[None], degree)
    curvature = gauss_newton[0] + rest[0]
    if np.linalg.eigvalsh(curvature)[0] <= 0:
        curvature = gauss_newton[0]
    # A multivariate t is a normal over the root of a chi-square variate per degree of freedom.
    normal = rng.standard_normal((number, len(x0)))
    t = normal / np.sqrt(rng.chisquare(T_DEGREES, number) / T_DEGREES)[:, None]
    log_q = -0.5 * (T_DEGREES + len(x0)) * np.log1p(np.vecdot(t, t) / T_DEGREES)
    # With curvature = C.C^T, the vectors C^-T t have the covariance of the inverse curvature.
    return x0 + np.linalg.solve(np.linalg.cholesky(curvature).T, t.T).T, log_q


def _checked_priors(cannon: Cannon, priors: pd.DataFrame | None) -> pd.DataFrame:
    """Priors (label; low, high) in the order of the labels; ValueError if they are not bounds."""
    if priors is None:
        return flat_priors(cannon)
    if set(priors.index) != set(cannon.labels) or not {"low", "high"} <= set(priors.columns):
        names = ", ".join(cannon.labels)
        raise ValueError(f"priors need a row for each of {names}, with columns low and high")
    priors = priors.loc[list(cannon.labels), ["low", "high"]].astype(float)
    if not np.isfinite(priors).all(axis=None) or not (priors["low"] < priors["high"]).all():
        raise ValueError(f"each prior must be finite, with low < high:\n{priors}")
    return priors
