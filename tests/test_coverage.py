"""Coverage of posteriors against known truth, and the two things that mend it."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from labtools.coverage import (
    _expectation_maximization,
    correlated_errors,
    coverage,
    coverage_by,
    inflate_posterior,
    learn_scatter,
    noise_edge,
    nuisance_components,
    sbc_ranks,
    tarp,
)
from labtools.mcmc import sample_stars
from synthetic import NAMES, made_up_cannon, made_up_stars


def within(table, errors=3.5):
    """Every share of a coverage table is right within its counting error."""
    pull = [(table[p, "share"] - p) / table[p, "error"] for p in (0.68, 0.95)]
    return (np.abs(pull) < errors).all()


def test_coverage_is_right_where_the_model_is_true():
    cannon = made_up_cannon()
    spectra, truth = made_up_stars(cannon, 300)
    table = coverage(sample_stars(cannon, spectra, draws=500), truth)
    assert table.attrs["stars"] == 300
    assert list(table.index) == [*NAMES, "all"]
    assert within(table)


def test_coverage_knows_too_small_and_too_large_errors():
    rng = np.random.default_rng(0)
    coords = {"star": np.arange(2000), "label": ["teff", "logg"]}
    draws = xr.DataArray(
        rng.standard_normal((2000, 500, 2)), coords=coords, dims=("star", "draw", "label")
    )
    for spread in (0.5, 1, 3):
        truth = pd.DataFrame(spread * rng.standard_normal((2000, 2)), columns=coords["label"])
        table = coverage(draws, truth)
        for level in (0.68, 0.95):
            single = 2 * stats.norm.cdf(stats.norm.ppf((1 + level) / 2) / spread) - 1
            both = stats.chi2.cdf(stats.chi2.ppf(level, 2) / spread**2, 2)
            np.testing.assert_allclose(table[level, "share"], [single, single, both], atol=0.045)


def test_the_edge_is_that_of_marchenko_and_pastur():
    for stars, pixels in ((100, 400), (300, 300), (950, 7214)):
        wanted = (1 + np.sqrt(pixels / stars)) ** 2
        np.testing.assert_allclose(noise_edge(stars, pixels), wanted, rtol=1e-3)
    with pytest.raises(ValueError, match="must be"):
        noise_edge(100, 400, neighbor=0.7)


@pytest.mark.parametrize("neighbor", [0.0, 0.4])
def test_the_edge_is_where_eigenvalues_of_noise_end(neighbor):
    rng = np.random.default_rng(3)
    stars, pixels = 300, 2000
    # w_i + b w_(i+1) has the correlation b / (1 + b²) between neighbors
    b = 0.5 if neighbor else 0.0
    white = rng.standard_normal((stars, pixels + 1))
    noise = (white[:, :-1] + b * white[:, 1:]) / np.hypot(1, b)
    largest = np.linalg.eigvalsh(noise @ noise.T / stars)[-1]
    np.testing.assert_allclose(largest, noise_edge(stars, pixels, neighbor), rtol=0.03)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pure_noise_has_no_components_and_the_fit_stays_as_it_is(seed):
    cannon = made_up_cannon()
    spectra, truth = made_up_stars(cannon, 200, seed=seed)
    none = nuisance_components(cannon, spectra, truth)
    assert none.sizes == {"mode": 0, "wavelength": 400}
    pd.testing.assert_frame_equal(cannon.fit(spectra, modes=none), cannon.fit(spectra))


def test_as_many_components_are_found_as_there_are():
    cannon = made_up_cannon()
    rng = np.random.default_rng(8)
    shapes = 0.004 * rng.standard_normal((3, 400))
    noise = rng.standard_normal((300, 3)) @ shapes
    spectra, truth = made_up_stars(cannon, 300, snr=200, noise=noise)
    found = nuisance_components(cannon, spectra, truth, neighbor=0)
    assert found.sizes["mode"] == 3
    assert found.attrs["eigenvalues"][2] > found.attrs["edge"] > found.attrs["eigenvalues"][3]
    np.testing.assert_allclose((found**2).sum(), (shapes**2).sum(), rtol=0.15)


def test_ranks_of_right_draws_are_even_and_those_of_narrow_ones_have_horns():
    rng = np.random.default_rng(4)
    coords = {"star": np.arange(2000), "label": ["teff", "logg"]}
    draws = xr.DataArray(
        rng.standard_normal((2000, 99, 2)), coords=coords, dims=("star", "draw", "label")
    )
    truth = pd.DataFrame(rng.standard_normal((2000, 2)) * [1, 2], columns=coords["label"])
    counts = sbc_ranks(draws, truth, bins=10)
    assert (counts.sum() == 2000).all()
    assert counts.attrs["p"]["teff"] > 1e-3 > counts.attrs["p"]["logg"]
    assert counts["logg"].iloc[[0, -1]].mean() > 2 * counts["logg"].iloc[4:6].mean()


def test_distances_to_random_points_see_a_wrong_correlation():
    rng = np.random.default_rng(5)
    n, names = 3000, ["teff", "logg"]
    root = np.linalg.cholesky(np.array([[1.0, 0.95], [0.95, 1.0]]))
    center = 5 * rng.standard_normal((n, 1, 2))
    off = rng.standard_normal((n, 2)) @ root.T
    coords = {"star": np.arange(n), "label": names}
    white = rng.standard_normal((n, 200, 2))
    truth = pd.DataFrame(center[:, 0] + off, columns=names)
    right = xr.DataArray(center + white @ root.T, coords, ("star", "draw", "label"))
    wrong = xr.DataArray(center + 0.4 * white, coords, ("star", "draw", "label"))
    np.testing.assert_allclose(tarp(right, truth), tarp(right, truth).index, atol=0.04)
    assert tarp(wrong, truth)[0.9] < 0.8


def test_coverage_in_groups_is_the_coverage_of_each_group():
    rng = np.random.default_rng(6)
    stars = np.arange(400)
    coords = {"star": stars, "label": ["teff"]}
    draws = xr.DataArray(rng.standard_normal((400, 99, 1)), coords, ("star", "draw", "label"))
    truth = pd.DataFrame({"teff": rng.standard_normal(400) * np.where(stars < 100, 3, 1)})
    snr = pd.Series(np.where(stars < 100, 60.0, 150.0))
    table = coverage_by(draws, truth, snr, (50, 100, 200))
    assert list(table.stars) == [100, 300]
    for group, part in zip(table.index, (stars[:100], stars[100:]), strict=True):
        alone = coverage(draws.sel(star=part), truth).loc["teff", (0.68, "share")]
        np.testing.assert_allclose(table.loc[group, "teff"], alone)


def test_the_order_of_stars_changes_no_inflated_draw():
    rng = np.random.default_rng(7)
    coords = {"star": [f"s{i}" for i in range(80)], "label": ["teff"]}
    draws = xr.DataArray(rng.standard_normal((80, 50, 1)), coords, ("star", "draw", "label"))
    truth = pd.DataFrame({"teff": 2 * rng.standard_normal(80)}, index=coords["star"])
    turned = draws.isel(star=rng.permutation(80))
    scatter, same = learn_scatter(draws, truth), learn_scatter(turned, truth)
    np.testing.assert_allclose(scatter, same, rtol=1e-3)
    one = inflate_posterior(draws, scatter)
    xr.testing.assert_equal(inflate_posterior(turned, scatter).sel(star=one.star), one)


def test_the_likelihood_of_scatter_is_that_of_the_mixture():
    """Against the sum over u done by brute force, star by star."""
    rng = np.random.default_rng(9)
    off = rng.standard_normal((6, 2))
    root = rng.standard_normal((6, 2, 2)) * 0.3
    c = root @ np.swapaxes(root, 1, 2)
    e = np.eye(2) * rng.uniform(0.1, 0.3, (6, 1, 1))
    s, nu = np.array([[0.5, 0.2], [0.2, 0.4]]), 5
    likelihood, _ = _expectation_maximization(off, c, e, s, nu, rounds=1, nodes=60)
    u = np.geomspace(*stats.gamma.ppf((1e-5, 1 - 1e-3), nu / 2, scale=2 / nu), 60)
    weight = u * stats.gamma.pdf(u, nu / 2, scale=2 / nu)
    weight /= weight.sum()
    each = [
        sum(
            part * stats.multivariate_normal([0, 0], (c[n] + s) / one + e[n]).pdf(off[n])
            for part, one in zip(weight, u, strict=True)
        )
        for n in range(6)
    ]
    # two labels and six stars: the constant that `learn_scatter` does not need
    np.testing.assert_allclose(likelihood - 6 * np.log(2 * np.pi), np.log(each).sum())


def test_correlated_errors_of_the_reference_are_not_learned_as_scatter():
    rng = np.random.default_rng(10)
    n, names = 1500, ["teff", "fe_h"]
    root = np.linalg.cholesky(np.array([[1.0, 0.9], [0.9, 1.0]]))
    errors = 2.0 * rng.standard_normal((n, 2)) @ root.T
    off = rng.standard_normal((n, 2))
    draws = off[:, None] + 0.3 * rng.standard_normal((n, 200, 2))
    coords = {"star": np.arange(n), "label": names}
    draws = xr.DataArray(draws, coords, ("star", "draw", "label"))
    reference = pd.DataFrame(errors, columns=names)
    shape = np.broadcast_to(root @ root.T, (n, 2, 2))
    formal = xr.DataArray(shape, coords | {"other": names}, ("star", "label", "other"))
    quoted = pd.DataFrame(2.0, index=np.arange(n), columns=names)
    right = learn_scatter(draws, reference, correlated_errors(quoted, formal))
    alone = learn_scatter(draws, reference, quoted)
    assert abs(right.loc["teff", "fe_h"]) < 0.3 < alone.loc["teff", "fe_h"]


def test_correlated_pixels_spoil_coverage_and_modes_mend_it():
    cannon = made_up_cannon()
    rng = np.random.default_rng(8)
    shapes = 0.003 * rng.standard_normal((3, 400)) + 0.1 * cannon.theta[:, 1:4].T
    spectra, truth = made_up_stars(
        cannon, 400, snr=200, noise=rng.standard_normal((400, 3)) @ shapes
    )
    learn, test = spectra.isel(star=slice(0, 200)), spectra.isel(star=slice(200, 400))
    naive = coverage(sample_stars(cannon, test, draws=500), truth)
    modes = nuisance_components(cannon, learn, truth, number=3)
    np.testing.assert_allclose((modes**2).sum(), (shapes**2).sum(), rtol=0.2)
    better = coverage(sample_stars(cannon, test, modes=modes, draws=500), truth)
    assert naive.loc["teff", (0.68, "share")] < 0.4
    assert within(better)


@pytest.mark.parametrize("nu", [4, 50])
def test_learned_scatter_makes_coverage_right(nu):
    rng = np.random.default_rng(nu)
    n, names = 1200, ["teff", "fe_h"]
    root = np.linalg.cholesky(np.array([[400.0, 0.2], [0.2, 4e-4]]))
    formal = np.array([5.0, 0.004]) * rng.uniform(0.5, 2, (n, 1))
    tail = np.sqrt(rng.chisquare(nu, n) / nu)[:, None]
    off = (formal * rng.standard_normal((n, 2)) + rng.standard_normal((n, 2)) @ root.T) / tail
    centre = np.array([4500.0, 0.0]) + rng.standard_normal((n, 2)) * [200, 0.2]
    draws = centre[:, None] + formal[:, None] * rng.standard_normal((n, 400, 2))
    coords = {"star": np.arange(n), "label": names}
    draws = xr.DataArray(draws, coords=coords, dims=("star", "draw", "label"))
    truth = pd.DataFrame(centre + off, columns=names)
    learn, test = draws[:600], draws[600:]
    scatter = learn_scatter(learn, truth)
    np.testing.assert_allclose(scatter, root @ root.T, rtol=0.25)
    assert (scatter.attrs["nu"] < 8) == (nu < 8)
    assert coverage(test, truth).loc["teff", (0.68, "share")] < 0.4
    assert within(coverage(inflate_posterior(test, scatter), truth))


def test_errors_of_the_reference_are_not_learned_as_scatter():
    rng = np.random.default_rng(5)
    n, names = 1500, ["teff", "fe_h"]
    size, formal = np.array([15.0, 0.02]), np.array([5.0, 0.01])
    errors = pd.DataFrame(np.array([30.0, 0.03]) * rng.uniform(0.5, 1.5, (n, 1)), columns=names)
    truth = np.array([4500.0, 0.0]) + rng.standard_normal((n, 2)) * [200, 0.2]
    centre = truth + rng.standard_normal((n, 2)) * np.hypot(size, formal)
    draws = centre[:, None] + formal * rng.standard_normal((n, 300, 2))
    draws = xr.DataArray(
        draws, coords={"star": np.arange(n), "label": names}, dims=("star", "draw", "label")
    )
    reference = pd.DataFrame(truth, columns=names) + errors * rng.standard_normal((n, 2))
    learned = np.sqrt(np.diag(learn_scatter(draws, reference, errors)))
    np.testing.assert_allclose(learned, size, rtol=0.2)
    assert (np.sqrt(np.diag(learn_scatter(draws, reference))) > 1.3 * learned).all()


def test_widened_draws_keep_their_dimensions():
    rng = np.random.default_rng(6)
    coords = {"star": np.arange(60), "label": ["teff"]}
    draws = xr.DataArray(
        rng.standard_normal((60, 50, 1)), coords=coords, dims=("star", "draw", "label")
    )
    scatter = learn_scatter(draws, pd.DataFrame({"teff": 2 * rng.standard_normal(60)}))
    assert inflate_posterior(draws, scatter).dims == draws.dims


def test_stars_without_draws_are_left_out():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, truth = made_up_stars(cannon, 3)
    draws = sample_stars(cannon, spectra, draws=50)
    assert coverage(draws.where(draws["star"] != "star001"), truth).attrs["stars"] == 2
    with pytest.raises(ValueError, match="no star has both"):
        coverage(draws.where(False), truth)


def test_bad_arguments_are_refused():
    cannon = made_up_cannon(labels=3, pixels=120)
    spectra, truth = made_up_stars(cannon, 30)
    draws = sample_stars(cannon, spectra, draws=50)
    with pytest.raises(ValueError, match="no true value"):
        coverage(draws, truth.drop(columns="logg"))
    with pytest.raises(ValueError, match="too few"):
        learn_scatter(draws[:20], truth)
    with pytest.raises(ValueError, match="modes cannot be learned"):
        nuisance_components(cannon, spectra, truth, number=30)
    modes = nuisance_components(cannon, spectra, truth, number=2)
    with pytest.raises(ValueError, match="not on the wavelengths"):
        sample_stars(cannon, spectra, modes=modes.assign_coords(wavelength=modes["wavelength"] + 1))
