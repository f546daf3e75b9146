"""One star, two instruments: identities of the joint model, and how it does on a small pair."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import multivariate_normal

import labtools
from labtools import jwst as jwst_files, twins
from labtools.twins import TwoViews, View, evaluate
from mock_survey.degrade import degrade
from mock_survey.jwst_pair import apogee_spectra

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "12_one_star_two_instruments.ipynb"


@pytest.fixture(scope="module")
def little():
    return twins._made_up(stars=80, seed=3)


@pytest.fixture(scope="module")
def model(little):
    return TwoViews.train(*little)


def covariance(rng, size):
    root = rng.standard_normal((size, size))
    return root @ root.T + np.eye(size)


def with_holes(spectra, seed=1, share=0.2):
    """Spectra in which pixels are missing, other ones in each star, and wild values in them."""
    missing = np.random.default_rng(seed).random(spectra.flux.shape) < share
    return spectra.assign(
        flux=spectra.flux.where(~missing, 1e6), error=spectra.error.where(~missing, np.inf)
    )


def test_the_likelihood_is_that_of_a_normal_distribution():
    rng = np.random.default_rng(0)
    mean, b = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    own, noise = covariance(rng, 3), np.array([covariance(rng, 3) for _ in b])
    expected = [
        [multivariate_normal(m, own + n).logpdf(x) for x, n in zip(b, noise, strict=True)]
        for m in mean
    ]
    np.testing.assert_allclose(twins._ln_normal(mean, own, b, noise), expected)


def test_the_posterior_is_that_of_the_joint_normal_distribution():
    rng = np.random.default_rng(1)
    loadings, private, noise = rng.standard_normal((4, 2)), covariance(rng, 4), covariance(rng, 4)
    c = rng.standard_normal(4)
    signal = loadings @ loadings.T + private
    z, spread = twins._posterior(c[None], noise[None], loadings, signal)
    # By Bayes' rule in terms of precisions, where the private part counts as noise of z.
    weight = np.linalg.inv(private + noise)
    precision = np.eye(2) + loadings.T @ weight @ loadings
    np.testing.assert_allclose(spread[0], np.linalg.inv(precision))
    np.testing.assert_allclose(z[0], np.linalg.solve(precision, loadings.T @ weight @ c))


def test_left_out_residuals_are_those_of_fits_without_the_star():
    rng = np.random.default_rng(2)
    x, y, penalty = (
        rng.standard_normal((12, 3)),
        rng.standard_normal((12, 2)),
        np.array([0, 1, 5.0]),
    )
    _, residual = twins._left_out(x, y, penalty)
    for star in range(12):
        others = np.arange(12) != star
        coefficients = twins._ridge(x[others], y[others], penalty)
        np.testing.assert_allclose(residual[star], y[star] - x[star] @ coefficients)


def test_a_missing_pixel_counts_as_a_pixel_that_is_not_there(model, little):
    view, spectra = model.views[1], little[1]
    used = np.arange(spectra.sizes["wavelength"]) % 3 > 0
    masked = spectra.assign(
        error=spectra.error.where(used, np.inf), flux=spectra.flux.where(used, 9)
    )
    short = View(
        view.wavelength[used], view.mean[used], view.components[:, used], view.scatter[used]
    )
    # Correlations of neighbours differ where neighbours do: without them both are the same numbers.
    c, noise, *_ = view.coordinates(masked)
    d, other, *_ = short.coordinates(spectra.isel(wavelength=used))
    np.testing.assert_allclose(c, d, atol=1e-6)
    sizes = [np.trace(x, axis1=1, axis2=2) for x in (noise, other)]
    np.testing.assert_allclose(
        noise / sizes[0][:, None, None], other / sizes[1][:, None, None], atol=1e-6
    )


def test_a_missing_pixel_is_one_of_which_nothing_is_known(model, little):
    view, spectra = model.views[0], little[0]
    used = np.arange(spectra.sizes["wavelength"]) % 4 > 0
    missing, unknown = (
        view.coordinates(spectra.assign(error=spectra.error.where(used, value)))[0]
        for value in (np.inf, 1e6)
    )
    np.testing.assert_allclose(missing, unknown, atol=1e-4)


def test_modes_are_integrated_out(model, little):
    """As if noise along the pattern had a very large variance."""
    view, spectra = model.views[0], little[0].isel(star=[0])
    pattern = np.linspace(-1, 1, view.wavelength.size)
    modes = xr.DataArray(
        pattern[None], coords={"wavelength": view.wavelength}, dims=("mode", "wavelength")
    )
    c = view.coordinates(spectra, modes).values
    noise = np.diag(spectra.error.values[0] ** 2 + view.scatter) + 1e6 * np.outer(pattern, pattern)
    weight = view.components @ np.linalg.inv(noise)
    expected = np.linalg.solve(
        weight @ view.components.T, weight @ (spectra.flux.values[0] - view.mean)
    )
    np.testing.assert_allclose(c[0], expected, rtol=1e-3, atol=1e-3)
    shifted = spectra.assign(flux=spectra.flux + 0.3 * pattern)
    np.testing.assert_allclose(view.coordinates(shifted, modes)[0], c, atol=1e-3)


def test_the_order_of_stars_changes_nothing(model, little):
    apogee, jwst, _ = little
    order = np.random.default_rng(4).permutation(apogee.sizes["star"])
    found = model.find(apogee, jwst, k=5)
    again = model.find(apogee.isel(star=order), jwst.isel(star=order[::-1]), k=5)
    pd.testing.assert_frame_equal(again.loc[found.index], found)
    again = TwoViews.train(apogee.isel(star=order), jwst.isel(star=order[::-1]), little[2])
    z, w = model.encode(apogee), again.encode(apogee)
    np.testing.assert_allclose(abs(w), abs(z), atol=1e-6)  # a direction has no sign


def test_missing_pixels_cost_little(little):
    apogee, jwst, labels = little
    whole = TwoViews.train(apogee, jwst, labels)
    holed = TwoViews.train(with_holes(apogee), with_holes(jwst, 2), labels)
    first, second = (m.find(apogee, jwst) for m in (whole, holed))
    assert (second[1] == second.index).mean() > (first[1] == first.index).mean() - 0.15
    assert abs(holed.labels(with_holes(jwst, 5)).teff - labels.teff).median() < 60


def test_probabilities_are_those_of_all_candidates(model, little):
    apogee, jwst, _ = little
    query = apogee.isel(star=[7])
    z = model._evidence(0, model.views[0].coordinates(query))
    b = model._evidence(1, model.views[1].coordinates(jwst))
    score = model._ln_conditional(*z, *b)[0] - model._ln_marginal(*b)
    score /= model._temperature(b[1].mean(axis=0), forward=True)
    share = np.exp(score - score.max()) / np.exp(score - score.max()).sum()
    found = model.find(query, jwst, k=80)
    assert found.probability.iloc[0] == pytest.approx(share.max())
    assert found.iloc[0, :10].tolist() == jwst.star.values[np.argsort(-score)][:10].tolist()


def test_coordinates_may_stand_for_spectra(model, little):
    apogee, jwst, labels = little
    a, b = (view.coordinates(one) for view, one in zip(model.views, (apogee, jwst), strict=True))
    pd.testing.assert_frame_equal(model.find(a, b), model.find(apogee, jwst))
    pd.testing.assert_frame_equal(model.labels(b), model.labels(jwst))
    xr.testing.assert_equal(model.encode(a), model.encode(apogee))
    xr.testing.assert_equal(model.other(b), model.other(jwst))
    pd.testing.assert_frame_equal(
        evaluate(model, a, b, labels), evaluate(model, apogee, jwst, labels)
    )
    again = TwoViews.train(a, b, labels)
    pd.testing.assert_frame_equal(again.find(a, b), model.find(a, b))


def test_one_star_picked_out_is_a_set_of_one(model, little):
    apogee, jwst, labels = little
    one = model.find(apogee.isel(star=7), jwst.isel(star=7), k=3)
    assert one.loc["star07", 1] == "star07"
    assert one.loc["star07", "probability"] == pytest.approx(1)
    assert evaluate(model, apogee.isel(star=7), jwst, labels).found.to_dict() == {"star07": True}


def test_coordinates_of_another_model_are_refused(model, little):
    apogee, jwst, labels = little
    another = TwoViews.train(apogee, jwst, labels)
    for view, spectra in zip(another.views, (apogee, jwst), strict=True):
        with pytest.raises(ValueError, match="components of another model"):
            model.labels(view.coordinates(spectra))
    modes = xr.DataArray(np.ones((1, 40)), dims=("mode", "wavelength"))
    with pytest.raises(ValueError, match="give modes to View"):
        model.encode(model.views[0].coordinates(apogee), modes)
    some = jwst.isel(star=[n for n in range(80) if n != 7])
    with pytest.raises(KeyError, match="star07"):
        evaluate(model, apogee, some, labels)


def test_blocks_change_nothing(model, little, monkeypatch):
    apogee, jwst, _ = little
    found = model.find(jwst, apogee, k=4), model.find(apogee, jwst, k=4)
    monkeypatch.setattr(twins, "BLOCK", 7)
    for before, sets in zip(found, ((jwst, apogee), (apogee, jwst)), strict=True):
        after = model.find(*sets, k=4)
        # Only what noise of the reference adds is a mean over a block.
        assert (after[1] == before[1]).mean() > 0.95
        np.testing.assert_allclose(after.probability, before.probability, atol=0.05)


def test_memory_is_less_than_the_matrix_of_all_pairs(model):
    apogee, _, _ = twins._made_up(stars=2500, seed=5)
    _, jwst, _ = twins._made_up(stars=20_000, seed=6)
    tracemalloc.start()
    found = model.find(apogee, jwst)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 2500
    assert peak < 0.6 * 2500 * 20_000 * 8


def test_stars_of_one_instrument_help(little):
    """The stars in common may be few: the others teach components and labels."""
    apogee, jwst, labels = little
    names = [
        name if number < 30 else f"other {name}" for number, name in enumerate(jwst.star.values)
    ]
    model = TwoViews.train(apogee, jwst.assign_coords(star=names), labels)
    assert "80 stars, 30 of them seen by both" in repr(model)
    found = model.find(apogee, jwst)
    assert (found[1] == found.index).mean() > 0.4


def test_the_other_spectrum(model, little):
    apogee, jwst, _ = little
    for spectra, there in ((apogee, jwst), (jwst, apogee)):
        off = model.other(spectra) - there.flux
        assert float(off.std()) < 0.5 * float((there.flux - there.flux.mean("star")).std())


def test_bad_input_is_named(model, little):
    apogee, jwst, labels = little
    twice = xr.concat([apogee, apogee.isel(star=[0])], "star")
    for sets, words in (
        ((twice, jwst, labels), "occurs twice"),
        ((apogee, apogee, labels), "same wavelengths"),
        ((apogee, jwst.isel(star=slice(10)), labels), "only 10 stars"),
        ((apogee, jwst, labels.iloc[1:]), "star00"),
        ((apogee, jwst, labels.where(labels.fe_h < 0.3)), "lack a label"),
    ):
        with pytest.raises(ValueError, match=words):
            TwoViews.train(*sets)
    with pytest.raises(ValueError, match="one instrument"):
        model.find(apogee, apogee)
    with pytest.raises(ValueError, match="ask for one"):
        model.find(apogee, jwst.isel(star=[]))
    with pytest.raises(ValueError, match="neither instrument"):
        model.encode(apogee.isel(wavelength=slice(10)))


@pytest.fixture(scope="module")
def small_pair(tmp_path_factory):
    """Names, labels and spectra of 400 simulated stars, JWST's with an SNR of 200."""
    pair = labtools.open_pair(tmp_path_factory.mktemp("pair"), stars=400, seed=7)
    names, _ = jwst_files.match(pair.catalog, pair.labels)
    apogee = apogee_spectra(pair.catalog, names)
    spectra = pair.spectra.sel(star=names)
    recorded = (spectra.flux != 0).any("star")
    error = xr.where(recorded, 1 / 200, np.inf).broadcast_like(spectra.flux)
    return (
        names,
        pair.catalog.loc[names, labtools.LABELS].astype(float),
        apogee,
        spectra.assign(error=error),
    )


def fainter(spectra, snr):
    noise = np.random.default_rng(snr).standard_normal(spectra.flux.shape)
    flux = spectra.flux + np.sqrt(snr**-2.0 - 200**-2.0) * noise
    return spectra.assign(flux=flux, error=spectra.error * 200 / snr)


def test_the_main_table_of_the_notebook_on_a_small_pair(small_pair):
    names, labels, apogee, spectra = small_pair
    cells = nbformat.read(NOTEBOOK, 4).cells
    wanted = [c.source for c in cells if "def taught(" in c.source or "def main_table(" in c.source]
    assert len(wanted) == 2
    seen = {200: spectra, 20: fainter(spectra, 20), 50: fainter(spectra, 50)}
    page = {
        "names": names, "labels": labels, "apogee": apogee, "seen": seen, "SNRS": (20, 50),
        "labtools": labtools, "pd": pd, "np": np,
    }  # fmt: skip
    exec(wanted[0], page)
    exec(wanted[1].replace("SEEDS = (1, 2, 3)", "SEEDS = (1,)"), page)
    table = page["results"].groupby("SNR").mean(numeric_only=False)
    assert table.found[20] > 0.25
    assert table.found[50] > 0.6
    assert table.among_ten[50] > 0.95
    # Probabilities agree with frequencies, within three standard errors of some two hundred stars.
    assert np.all(abs(table.probability - table.found) < 0.11)
    errors = (page["results"].teff_off ** 2).groupby("SNR").mean() ** 0.5
    assert errors[50] < 50


def test_a_less_perfect_telescope(small_pair):
    _, _, _, spectra = small_pair
    seen = degrade(spectra, 50, seed=1)
    xr.testing.assert_identical(seen, degrade(spectra, 50, seed=1))
    good = np.isfinite(seen.error.values[0])
    np.testing.assert_allclose(seen.error.values[:, good], 1 / 50)
    left = (seen.flux - spectra.flux).values[:, good][:, 1000:3000]
    assert 0.019 < left.std() < 0.025
    left = left - left.mean(axis=1, keepdims=True)
    assert 0.35 < (left[:, 1:] * left[:, :-1]).mean() / left.var() < 0.55
    with pytest.raises(ValueError, match="already"):
        degrade(spectra, 300)


def test_nothing_in_the_module_names_an_instrument(model, little):
    """Exchanged, the two sets teach a model that finds as well: the reference is a choice."""
    apogee, jwst, labels = little
    turned = TwoViews.train(jwst, apogee, labels)
    ours, theirs = (evaluate(m, apogee, jwst, labels).found.mean() for m in (model, model))
    other = evaluate(turned, jwst, apogee, labels).found.mean()
    assert ours == theirs
    assert abs(other - ours) < 0.25


def test_a_model_keeps_what_it_was_given(model):
    assert replace(model, seed=5).seed == 5
    assert "2 latents" in repr(model)
