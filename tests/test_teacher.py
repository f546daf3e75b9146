"""A teacher's errors, put into a population on isochrones and found again without the truth."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from labtools.selection import LABELS
from labtools.teacher import TERMS, Trends, _Branches, _slopes, calibrate_teacher, trend_terms
from mock_survey.population import draw_population

QUOTED = np.array([12.0, 0.034, 0.007, 0.014, 0.011])


@pytest.fixture(scope="module")
def population():
    """True labels of giants, and covariances of the errors that a catalog would have."""
    stars = draw_population(77, 700)
    stars = stars[(stars.kind == "giant") & (stars.anomaly == "")]
    covariance = np.broadcast_to(np.diag(QUOTED**2), (len(stars), 5, 5))
    coords = {"star": stars.index.to_numpy(), "label": LABELS, "other": LABELS}
    return stars, xr.DataArray(covariance, coords, ("star", "label", "other"))


def cataloged(stars, trends, seed=1):
    """Labels with random errors and these trends."""
    rng = np.random.default_rng(seed)
    labels = stars[LABELS].astype(float)
    wrong = trends.at(labels, (stars.phase == 3).astype(float))
    return labels + QUOTED * rng.standard_normal(labels.shape) + wrong


def test_trends_that_were_put_in_are_found_within_their_errors(population):
    stars, errors = population
    put_in = Trends.none()
    put_in.values.loc["teff"] = [0.0, 40.0, -30.0, 0.0]
    put_in.values.loc["logg"] = [0.0, 0.05, 0.0, -0.15]
    put_in.values.loc["mg_fe", "teff"] = 0.03
    found, clump = calibrate_teacher(cataloged(stars, put_in), errors)
    measured = found.errors.loc[:, ["teff", "clump"]] > 0
    pull = (found.values - put_in.values) / found.errors
    assert (pull[["teff", "clump"]].abs()[measured] < 3.5).all(axis=None)
    # ... and they are found, not merely allowed for
    assert found.values.loc["mg_fe", "teff"] > 3 * found.errors.loc["mg_fe", "teff"]
    assert found.values.loc["logg", "clump"] < -3 * found.errors.loc["logg", "clump"]
    assert ((clump > 0.5) == (stars.phase == 3)).mean() > 0.95


def test_the_slope_of_the_likelihood_is_its_derivative(population):
    stars, errors = population
    few = stars.iloc[:60]
    sequence = (few.mg_fe > 0.1).to_numpy(float)
    branches = _Branches(few, errors.sel(star=few.index.values), sequence)
    place = 0.1 * np.random.default_rng(0).standard_normal(len(branches.precision))
    _, slope = branches.loss(place)
    by_star = branches.scores(place).sum(axis=0)
    np.testing.assert_allclose(branches.precision @ place - by_star, slope, atol=1e-8)
    for number in (0, 1, 3, 5, 7, 12, 20, 40, len(place) - 1):
        step = np.zeros(len(place))
        step[number] = 1e-4
        rise = (branches.loss(place + step)[0] - branches.loss(place - step)[0]) / 2e-4
        np.testing.assert_allclose(slope[number], rise, rtol=2e-3, atol=2e-3)


def test_the_order_of_stars_changes_no_likelihood(population):
    stars, errors = population
    few = stars.iloc[:80]
    losses = []
    for order in (np.arange(80), np.random.default_rng(2).permutation(80)):
        part = few.iloc[order]
        branches = _Branches(part, errors.sel(star=part.index.values), np.zeros(80))
        losses.append(branches.loss(np.zeros(len(branches.precision))))
    np.testing.assert_allclose(losses[0][0], losses[1][0])
    np.testing.assert_allclose(losses[0][1], losses[1][1], atol=1e-8)


def test_slopes_are_those_of_a_weighted_sum_by_hand():
    rng = np.random.default_rng(3)
    position = rng.standard_normal((500, 2))
    curves = np.column_stack([np.ones(500), rng.standard_normal(500)])
    y = curves @ [[0.1], [0.5]] + position @ [[0.02], [-0.03]]
    y = y + 0.01 * rng.standard_normal(y.shape)
    slopes, covariance = _slopes(y, curves, position)
    np.testing.assert_allclose(slopes[0], [0.02, -0.03], atol=0.003)
    assert covariance.shape == (1, 2, 1, 2)
    assert np.sqrt(covariance[0, 0, 0, 0]) < 0.002


def test_errors_of_trends_are_common_to_all_stars():
    trends = Trends.none()
    trends.covariance.loc[("teff", "zero"), ("teff", "zero")] = 100.0
    coords = {"star": ["a", "b"], "label": LABELS}
    still = np.broadcast_to([4600.0, 2.5, 0.0, 0.0, 0.0], (2, 400, 5))
    draws = trends.add_to(xr.DataArray(still, coords, ("star", "draw", "label")))
    teff = draws.sel(label="teff").values
    np.testing.assert_allclose(teff[0], teff[1])
    np.testing.assert_allclose(teff.std(), 10, rtol=0.15)
    assert float(draws.sel(label="logg").std()) == 0


def test_terms_are_named_and_scaled():
    stars = pd.DataFrame({"teff": [5100.0], "fe_h": [-0.5]}, index=["a"])
    clump = pd.Series([1.0, 0.3], ["b", "a"])
    assert list(trend_terms(stars, clump).columns) == TERMS
    np.testing.assert_allclose(trend_terms(stars, clump).loc["a"], [1, 1, -0.5, 0.3])


def test_too_few_stars_and_missing_labels_are_refused(population):
    stars, errors = population
    with pytest.raises(ValueError, match="too few"):
        calibrate_teacher(stars.iloc[:50], errors)
    with pytest.raises(ValueError, match="finite"):
        calibrate_teacher(stars.assign(mg_fe=np.nan), errors)
