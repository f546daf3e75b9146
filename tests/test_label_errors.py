"""Training with labels that err: the moments, the identity with plain training, and the bias."""

import numpy as np
import pandas as pd
import pytest

from labtools.cannon import Cannon, design
from labtools.label_errors import gaussian_points, train_with_label_errors
from synthetic import made_up_cannon, made_up_stars


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_moments_of_a_normal_vector_are_exact(size):
    points, weights = gaussian_points(size)
    rng = np.random.default_rng(size)
    root = np.tril(rng.standard_normal((size, size)))
    covariance = root @ root.T
    x = points @ root.T
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose((x.T * weights) @ x, covariance, atol=1e-12)
    # Isserlis: E[x_i x_j x_k x_l] is the sum over the three ways to pair
    fourth = np.einsum("p,pi,pj,pk,pl->ijkl", weights, x, x, x, x)
    pairs = np.einsum("ij,kl->ijkl", covariance, covariance)
    wanted = pairs + pairs.transpose(0, 2, 1, 3) + pairs.transpose(0, 3, 2, 1)
    np.testing.assert_allclose(fourth, wanted, atol=1e-10 * np.abs(wanted).max())


def taught(stars=500, error=0.35, gaps=0.0, seed=4):
    """A true model, spectra, true labels, and labels with errors (in scaled units) and gaps."""
    truth = made_up_cannon(labels=3, pixels=150)
    spectra, labels = made_up_stars(truth, stars, snr=60, seed=seed)
    rng = np.random.default_rng(seed)
    errors = pd.DataFrame(error * truth.scale + 0 * labels, labels.index, labels.columns)
    wrong = labels + errors * rng.standard_normal(labels.shape)
    return truth, spectra, labels, wrong.mask(rng.random(labels.shape) < gaps), errors


def slopes_of(model, truth):
    """Slopes of the flux with each label, at the mean star of the true model (pixel, label)."""
    place = pd.DataFrame([truth.offset], ["mean"], list(truth.labels))
    return model.gradient(place).values[0][:, np.isfinite(truth.s2)]


def test_plain_training_attenuates_and_maximization_of_expectation_does_not():
    truth, spectra, _, wrong, errors = taught()
    wanted = slopes_of(truth, truth)
    plain = slopes_of(Cannon.train(spectra, wrong), truth)
    model, _, _ = train_with_label_errors(spectra, wrong, errors)
    fair = slopes_of(model, truth)

    def ratio(found):
        return (found * wanted).sum(axis=1) / (wanted**2).sum(axis=1)

    assert (ratio(plain) < 0.95).all()
    np.testing.assert_allclose(ratio(fair), 1, atol=0.07)


def test_labels_of_training_stars_become_better_than_those_that_taught():
    _, spectra, labels, wrong, errors = taught(gaps=0.2)
    _, means, covariances = train_with_label_errors(spectra, wrong, errors)
    before = (wrong - labels).std()
    after = (means - labels).std()
    assert (after < 0.4 * before).all()
    # The covariances are those of one star; the map that all stars share is uncertain as well
    pulls = (means - labels) / np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    assert pulls.std().between(0.8, 2).all()


def test_exact_labels_give_the_plain_model():
    _, spectra, labels, _, errors = taught(stars=200)
    plain = Cannon.train(spectra, labels)
    model, _, _ = train_with_label_errors(spectra, labels, errors * 1e-4, rounds=3)
    v = design(plain.training_labels)
    np.testing.assert_allclose(v @ model.theta.T, v @ plain.theta.T, atol=2e-3)
    good = np.isfinite(plain.s2)
    assert np.corrcoef(model.s2[good], plain.s2[good])[0, 1] > 0.99


def test_the_order_of_stars_changes_nothing():
    _, spectra, _, wrong, errors = taught(stars=150, gaps=0.1)
    order = np.random.default_rng(0).permutation(150)
    one, first, _ = train_with_label_errors(spectra, wrong, errors, rounds=2)
    two, second, _ = train_with_label_errors(spectra.isel(star=order), wrong, errors, rounds=2)
    np.testing.assert_allclose(two.predict(first.iloc[:5]), one.predict(first.iloc[:5]), rtol=1e-6)
    np.testing.assert_allclose(second.loc[first.index], first, rtol=1e-6, atol=1e-6)


def test_bad_labels_are_refused():
    _, spectra, _, wrong, errors = taught(stars=60)
    with pytest.raises(ValueError, match="fewer than half of the stars: logg"):
        train_with_label_errors(spectra, wrong.assign(logg=np.nan), errors)
    with pytest.raises(ValueError, match="must be positive"):
        train_with_label_errors(spectra, wrong, errors * 0)
