"""Coverage of posteriors against known truth, and the two things that mend it."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from labtools.coverage import coverage, inflate_posterior, learn_scatter, nuisance_components
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
