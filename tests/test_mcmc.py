"""Posteriors: the small quadratic form against all pixels, and one sampler against another."""

import dataclasses
import warnings
from types import SimpleNamespace

import arviz as az
import numpy as np
import pandas as pd
import pymc as pm
import pytest
import xarray as xr
from scipy import stats

from labtools.mcmc import build_model, diagnose, flat_priors, labels_of, sample, sample_stars
from synthetic import made_up_cannon, made_up_stars

QUIET = {"progressbar": False, "cores": 1, "quiet": True}


def near_best(cannon, spectra, number=6, seed=2):
    """Labels within a few errors of the best fit of the first star."""
    best, rng = cannon.fit(spectra).iloc[0], np.random.default_rng(seed)
    errors = best[[f"{name}_err" for name in cannon.labels]].to_numpy(float)
    return best[list(cannon.labels)].to_numpy(float) + 3 * errors * rng.standard_normal(
        (number, len(errors))
    )


def log_likelihood_of(model, y, **others):
    """The sum over pixels; PyTensor's graph is not compiled, because that takes longer."""
    values = dict(zip([v.name for v in model.free_RVs], y, strict=False)) | others
    logp = pm.logp(model["flux"], model.rvs_to_values[model["flux"]]).sum()
    return float(logp.eval({model[name]: value for name, value in values.items()}))


@pytest.mark.parametrize(("pixels", "degree", "reciprocal"), [(7214, 2, ()), (300, 3, ("teff",))])
def test_log_likelihood_is_that_of_all_pixels(pixels, degree, reciprocal):
    labels = 5 if degree == 2 else 3
    cannon = made_up_cannon(labels, pixels, degree=degree, reciprocal=reciprocal)
    spectra, _ = made_up_stars(cannon, 1)
    model = build_model(cannon, spectra)
    flux, error = spectra["flux"].values[0], spectra["error"].values[0]
    good = np.isfinite(error) & np.isfinite(cannon.s2)
    sigma = np.sqrt(error[good] ** 2 + cannon.s2[good])
    for y in [*near_best(cannon, spectra), cannon.unscaled(0 * cannon.offset)]:
        table = pd.DataFrame([y], columns=list(cannon.labels), index=["star"])
        expected = stats.norm.logpdf(flux[good], cannon.predict(table).values[0, good], sigma).sum()
        assert log_likelihood_of(model, y) == pytest.approx(expected, rel=1e-12, abs=1e-8)


def synthetic_modes(cannon, number=3):
    rng = np.random.default_rng(3)
    shapes = 0.02 * rng.standard_normal((number, len(cannon.wavelength)))
    return xr.DataArray(
        shapes, coords={"wavelength": cannon.wavelength}, dims=("mode", "wavelength")
    )


def test_modes_add_patterns_to_the_flux():
    cannon = made_up_cannon(labels=3, pixels=60)
    spectra, _ = made_up_stars(cannon, 1)
    modes = synthetic_modes(cannon)
    model = build_model(cannon, spectra, modes=modes)
    good = np.isfinite(spectra["error"].values[0]) & np.isfinite(cannon.s2)
    sigma = np.sqrt((spectra["error"].values[0] ** 2 + cannon.s2)[good])
    amplitude = np.array([0.5, -1.0, 2.0])
    for y in near_best(cannon, spectra, number=2):
        table = pd.DataFrame([y], columns=list(cannon.labels), index=["star"])
        mean = (cannon.predict(table).values[0] + amplitude @ modes.values)[good]
        expected = stats.norm.logpdf(spectra["flux"].values[0, good], mean, sigma).sum()
        found = log_likelihood_of(model, y, amplitude=amplitude)
        assert found == pytest.approx(expected, abs=1e-8)


def test_sampled_amplitudes_give_the_posterior_of_integrated_ones():
    cannon = made_up_cannon(labels=3, pixels=60)
    spectra, _ = made_up_stars(cannon, 1, snr=20)
    modes = synthetic_modes(cannon)
    idata = sample(build_model(cannon, spectra, modes=modes), draws=1000, **QUIET)
    assert list(labels_of(idata)) == list(cannon.labels)
    assert (diagnose(idata)["r_hat"] < 1.01).all()
    agree(labels_of(idata), sample_stars(cannon, spectra, modes=modes, draws=4000)[0].to_pandas())


@pytest.fixture(scope="module")
def chains():
    """NUTS on one star through the quadratic form, with the star and the model."""
    cannon = made_up_cannon(labels=3, pixels=60)
    spectra, truth = made_up_stars(cannon, 1, snr=20)
    return SimpleNamespace(
        cannon=cannon,
        spectra=spectra,
        truth=truth,
        idata=sample(build_model(cannon, spectra), draws=1000, **QUIET),
    )


def agree(first, second, errors=5):
    """Means and standard deviations of two sets of draws agree within their Monte Carlo errors."""
    for name in first:
        a, b = first[name].to_numpy(), second[name].to_numpy()
        error = a.std() * np.sqrt(1 / 1000 + 1 / 1000)
        assert a.mean() == pytest.approx(b.mean(), abs=errors * error)
        assert a.std() == pytest.approx(b.std(), rel=errors / np.sqrt(1000))
        np.testing.assert_allclose(
            np.quantile(a, [0.05, 0.95]), np.quantile(b, [0.05, 0.95]), atol=errors * 2 * error
        )


def test_the_chains_are_good(chains):
    table = diagnose(chains.idata)
    assert list(table.index) == list(chains.cannon.labels)
    assert table.attrs["divergences"] == 0
    assert (table["r_hat"] < 1.01).all()
    assert (table[["ess_bulk", "ess_tail"]] > 400).all(axis=None)
    assert (table["farthest"] < 8).all()
    pull = (table["mean"] - chains.truth.iloc[0]) / table["sd"]
    assert (pull.abs() < 4).all()


def test_posterior_is_that_of_the_model_of_all_pixels(chains):
    cannon, spectrum = chains.cannon, chains.spectra
    good = np.isfinite(spectrum["error"].values[0]) & np.isfinite(cannon.s2)
    sigma = np.sqrt(spectrum["error"].values[0, good] ** 2 + cannon.s2[good])
    with pm.Model():
        y = [pm.Uniform(name, low, high) for name, low, high in flat_priors(cannon).itertuples()]
        x = [(y[k] - cannon.offset[k]) / cannon.scale[k] for k in range(3)]
        terms = [1, *x, *(x[i] * x[j] for i in range(3) for j in range(i, 3))]
        flux = sum(term * cannon.theta[good, t] for t, term in enumerate(terms))
        pm.Normal("flux", flux, sigma, observed=spectrum["flux"].values[0, good])
        start = cannon.fit(spectrum).iloc[0][list(cannon.labels)].to_dict()
        full = pm.sample(1000, tune=400, random_seed=5, initvals=start, init="adapt_diag", **QUIET)
    agree(labels_of(chains.idata), labels_of(full))


def starting_points(monkeypatch, model, chains):
    """Where `sample` lets the chains of a model start: (chain, free numbers)."""
    seen = {}
    monkeypatch.setattr(pm, "sample", lambda *args, **options: seen.update(options))
    sample(model, chains=chains)
    return np.array([np.hstack([*point.values()]) for point in seen["initvals"]])


def distances(points, draws):
    """Distances of points from the mean of draws, in standard deviations (Mahalanobis)."""
    off = np.asarray(points) - draws.mean(axis=0)
    return np.sqrt(np.einsum("nk,kl,nl->n", off, np.linalg.inv(np.cov(draws.T)), off))


def test_chains_start_outside_of_the_posterior(chains, monkeypatch):
    """Ten standard deviations off, in all directions."""
    points = starting_points(monkeypatch, build_model(chains.cannon, chains.spectra), 300)
    draws = labels_of(chains.idata)
    off = distances(points, draws.to_numpy())
    assert np.median(off) == pytest.approx(10, rel=0.1)
    assert off.min() > 5, "a few were moved to the edge of a prior"
    middle, sd = draws.mean().to_numpy(), draws.std().to_numpy()
    np.testing.assert_allclose((points.mean(axis=0) - middle) / sd, 0, atol=2)


def test_amplitudes_of_modes_start_outside_too(monkeypatch):
    """Also if the best amplitude is many of its own standard deviations from zero."""
    cannon = made_up_cannon(labels=3, pixels=60)
    spectra, _ = made_up_stars(cannon, 1, snr=200)
    modes = synthetic_modes(cannon)
    spectra["flux"] += 1.5 * modes[0].values
    model = build_model(cannon, spectra, modes=modes)
    idata = sample(model, draws=500, **QUIET)
    names = [*cannon.labels, "amplitude"]
    draws = np.column_stack([idata["posterior"][name].values.reshape(2000, -1) for name in names])
    assert draws[:, 3].mean() > 1
    points = starting_points(monkeypatch, model, 100)
    np.testing.assert_allclose(distances(points, draws), 10, rtol=0.3)


def test_chains_start_inside_of_the_priors(chains, monkeypatch):
    """Also where the best fit lies beyond a bound, or a prior is narrower than the posterior."""
    best = chains.cannon.fit(chains.spectra).iloc[0]
    priors = flat_priors(chains.cannon)
    priors.loc["logg"] = best["logg"] + [1.0, 1.1]
    priors.loc["teff"] = best["teff"] + [-0.1, 0.1]
    model = build_model(chains.cannon, chains.spectra, priors)
    points = starting_points(monkeypatch, model, 50)
    assert (points > priors["low"].to_numpy()).all()
    assert (points < priors["high"].to_numpy()).all()


def test_a_prior_that_ends_at_the_best_fit_is_sampled_well(chains):
    priors = flat_priors(chains.cannon)
    priors.loc["teff", "high"] = chains.cannon.fit(chains.spectra)["teff"].iloc[0]
    idata = sample(build_model(chains.cannon, chains.spectra, priors), **QUIET)
    table = diagnose(idata)
    assert (table["r_hat"] < 1.02).all()
    assert (table[["ess_bulk", "ess_tail"]] > 250).all(axis=None)
    assert idata["sample_stats"]["n_steps"].mean() < 12, "24 with the slope at the bound itself"
    fast = sample_stars(chains.cannon, chains.spectra, priors, draws=4000)[0].to_pandas()
    agree(labels_of(idata), fast, errors=7)


def test_all_chains_have_arrived_when_tuning_ends():
    """A chain that is still on its way leaves draws far away, which spoil standard deviations."""
    cannon = made_up_cannon(labels=5, pixels=2000)
    spectra, _ = made_up_stars(cannon, 1)
    idata = sample(build_model(cannon, spectra), draws=50, tune=50, chains=20, **QUIET)
    posterior = sample_stars(cannon, spectra, draws=4000)[0].to_pandas()  # knows no chains
    farthest = distances(labels_of(idata)[list(posterior)], posterior.to_numpy()).max()
    assert farthest < 6, "1,000 draws of a normal of five dimensions end at 4.6"


def test_a_few_draws_far_away_are_noticed():
    """r-hat and the effective sizes do not see them, because they rank the draws."""
    draws = np.random.default_rng(0).normal(4500, 10, (4, 500))
    for strays in (1, 10):
        draws[3, :strays] = 4500 - np.linspace(500, 100, strays)
        idata = az.from_dict({"teff": draws}, sample_stats={"diverging": draws > 9999})
        teff = diagnose(idata).loc["teff"]
        assert teff["r_hat"] < 1.01
        assert (teff[["ess_bulk", "ess_tail"]] > 400).all()
        assert teff["farthest"] == pytest.approx(50, rel=0.1)
    assert teff["sd"] > 20


def test_options_of_the_step_and_other_samplers(chains):
    model = build_model(chains.cannon, chains.spectra)
    few = {"draws": 20, "tune": 100, "chains": 2, "compute_convergence_checks": False} | QUIET
    idata = sample(model, target_accept=0.99, max_treedepth=3, **few)
    assert idata["sample_stats"]["tree_depth"].max() <= 3
    with model:
        idata = sample(model, step=pm.Metropolis(), **few)
    assert diagnose(idata).attrs["divergences"] == 0


def test_a_model_to_which_a_variable_was_added_is_sampled(chains):
    model = build_model(chains.cannon, chains.spectra)
    with model:
        pm.HalfNormal("jitter", 1, shape=2)
    few = {"draws": 20, "tune": 100, "chains": 2, "compute_convergence_checks": False} | QUIET
    assert "jitter" in sample(model, **few)["posterior"]


def test_default_draws_are_enough_on_a_real_spectrum_size():
    cannon = made_up_cannon(labels=5, pixels=2000)
    spectra, _ = made_up_stars(cannon, 1)
    table = diagnose(sample(build_model(cannon, spectra), **QUIET))
    assert table.attrs["divergences"] == 0
    assert (table["r_hat"] < 1.01).all()
    assert (table[["ess_bulk", "ess_tail"]] > 400).all(axis=None)
    assert (table["farthest"] < 8).all()


def test_models_can_be_compared_by_pixels_left_out(chains):
    """The model that made the spectrum predicts left-out pixels better than one without log g."""
    cannon, spectra = chains.cannon, chains.spectra
    blind = cannon.theta.copy()
    blind[:, 2] = 0  # the linear term of log g
    models = {"true": cannon, "blind": dataclasses.replace(cannon, theta=blind)}
    found = {}
    for name, one in models.items():
        model = build_model(one, spectra)
        found[name] = sample(model, draws=300, **QUIET)
        pm.compute_log_likelihood(found[name], model=model, progressbar=False)
        usable = int(np.isfinite(spectra["error"].values[0]).sum()) - int(np.isinf(one.s2).sum())
        assert abs(az.loo(found[name]).n_data_points - usable) <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the blind model has pixels that rule its fit
        assert az.compare(found).index[0] == "true"


def test_draws_of_a_star_do_not_depend_on_its_neighbors():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, _ = made_up_stars(cannon, 4)
    together = sample_stars(cannon, spectra, draws=50)
    backwards = sample_stars(cannon, spectra.isel(star=[3, 2]), draws=50)
    for star in ("star002", "star003"):
        # Another seed moves draws by per cents. Products of matrices of another size round
        # otherwise, and a fit ends where its slope is small: on some processors 2e-9 are left.
        np.testing.assert_allclose(together.sel(star=star), backwards.sel(star=star), rtol=1e-7)
    assert not np.allclose(
        sample_stars(cannon, spectra, draws=50, seed=7)[0], together[0], rtol=1e-6
    )


def test_known_fits_are_not_made_again(monkeypatch):
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, _ = made_up_stars(cannon, 4)
    fits, expected = cannon.fit(spectra), sample_stars(cannon, spectra, draws=50)
    monkeypatch.setattr(type(cannon), "fit", None)
    xr.testing.assert_identical(sample_stars(cannon, spectra, draws=50, fits=fits), expected)
    with pytest.raises(ValueError, match="other stars"):
        sample_stars(cannon, spectra, draws=50, fits=fits[::-1])


def test_importance_resampling_agrees_with_nuts(chains):
    fast = sample_stars(chains.cannon, chains.spectra, draws=4000)
    assert fast.dims == ("star", "draw", "label")
    assert float(fast.efficiency[0]) > 0.5
    agree(labels_of(chains.idata), fast[0].to_pandas())


@pytest.mark.parametrize(
    ("degree", "reciprocal"), [(1, ()), (3, ()), (2, ("teff",)), (3, ("teff",))]
)
def test_posterior_of_one_label_is_that_on_a_grid(degree, reciprocal):
    """Broad enough that a prior flat in Teff differs from one flat in 5040/Teff."""
    cannon = made_up_cannon(labels=1, pixels=60, degree=degree, reciprocal=reciprocal)
    spectra, _ = made_up_stars(cannon, 1, snr=4)
    draws = sample_stars(cannon, spectra, draws=20000)
    grid = np.linspace(*flat_priors(cannon).loc["teff"], 4000)
    good = np.isfinite(spectra["error"].values[0]) & np.isfinite(cannon.s2)
    sigma = np.sqrt(spectra["error"].values[0, good] ** 2 + cannon.s2[good])
    model = cannon.predict(pd.DataFrame({"teff": grid})).values[:, good]
    density = np.exp(-0.5 * (((spectra["flux"].values[0, good] - model) / sigma) ** 2).sum(axis=1))
    density /= density.sum()
    mean = density @ grid
    sd = np.sqrt(density @ (grid - mean) ** 2)
    assert draws.values.mean() == pytest.approx(mean, abs=0.04 * sd)
    assert draws.values.std() == pytest.approx(sd, rel=0.03)
    assert draws.values.min() >= grid[0]
    assert draws.values.max() <= grid[-1]


def test_priors_cut_the_posterior(chains):
    draws = labels_of(chains.idata)
    middle = draws["logg"].mean()
    priors = flat_priors(chains.cannon)
    priors.loc["logg", "low"] = middle
    fast = sample_stars(chains.cannon, chains.spectra, priors, draws=4000)[0].to_pandas()
    assert fast["logg"].min() >= middle
    agree(draws[draws["logg"] > middle], fast)
    model = build_model(chains.cannon, chains.spectra, priors)
    density = pm.logp(model["logg"], [middle - 0.01, middle + 0.01]).eval()
    np.testing.assert_array_equal(np.isfinite(density), [False, True])


def test_draws_keep_their_chains(chains):
    draws = labels_of(chains.idata)
    assert draws.shape == (4000, 3)
    assert draws.groupby("chain").size().tolist() == [1000] * 4


def test_a_star_without_pixels_has_no_draws():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, _ = made_up_stars(cannon, 3)
    spectra["error"][1] = np.inf
    with pytest.warns(UserWarning, match="star001"):
        draws = sample_stars(cannon, spectra, draws=50)
    assert np.isnan(draws.sel(star="star001")).all()
    assert np.isfinite(draws.sel(star=["star000", "star002"])).all()


def test_a_spectrum_far_from_every_model_is_sampled_too():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, _ = made_up_stars(cannon, 40)
    spectra["flux"] += 0.3 * np.sin(np.arange(120) / 9)
    chi2 = cannon.fit(spectra)["chi2"]
    assert (chi2 > 10 * 120).all()
    assert (sample_stars(cannon, spectra, draws=500).efficiency > 0.3).all()


def test_a_posterior_that_the_priors_exclude_is_reported():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, truth = made_up_stars(cannon, 1)
    priors = flat_priors(cannon)
    priors.loc["teff"] = truth["teff"].iloc[0] + [500, 600]
    with pytest.warns(UserWarning, match="importance resampling fails for star000"):
        draws = sample_stars(cannon, spectra, priors)
    assert np.isnan(draws).all()


def test_bad_arguments_are_refused():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, _ = made_up_stars(cannon, 30)
    with pytest.raises(ValueError, match="one star, not of 30"):
        build_model(cannon, spectra)
    priors = flat_priors(cannon)
    assert build_model(cannon, spectra.isel(star=3)).free_RVs, "one star picked out"
    with pytest.raises(ValueError, match="a row for each of teff, logg, fe_h"):
        sample_stars(cannon, spectra, priors.drop("logg"))
    with pytest.raises(ValueError, match="low < high"):
        sample_stars(cannon, spectra, priors.assign(high=priors["low"]))
