"""The Cannon against plain references: typed-out numbers, a grid, scipy, and known truth."""

import io
import tracemalloc
import warnings
import zipfile
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.optimize import curve_fit

from apogee_archive.errors import CorruptFileError
from labtools import cannon as room
from labtools.cannon import (
    Cannon,
    centered_design,
    design,
    design_slopes,
    example_stars,
    fit_pixels,
    quadratic_forms,
    ridge_scores,
    slope_and_curvature,
)
from labtools.coverage import nuisance_components
from synthetic import made_up_cannon, made_up_stars

KINDS = [(1, ()), (2, ()), (2, ("teff",)), (3, ()), (3, ("teff",))]

MODEL = made_up_cannon()


@pytest.fixture(scope="module")
def taught():
    """300 training stars of five labels on 400 pixels, and the model trained on them."""
    spectra, labels = made_up_stars(MODEL, 300, snr=120, seed=4)
    return spectra, labels, Cannon.train(spectra, labels)


def test_the_design_vector_of_three_labels():
    assert design([2, 3, 5]).tolist() == [1, 2, 3, 5, 4, 6, 10, 9, 15, 25]
    assert design(np.zeros((7, 5))).shape == (7, 21)


def test_design_vectors_of_other_degrees():
    assert design([2, 3], 1).tolist() == [1, 2, 3]
    assert design([2, 3], 3).tolist() == [1, 2, 3, 4, 6, 9, 8, 12, 18, 27]
    assert design(np.zeros((2, 5)), 3).shape == (2, 56)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_slopes_of_the_design_vector_are_its_differences(degree):
    x = np.random.default_rng(0).normal(size=(4, 5))
    for k in range(5):
        step = 1e-6 * np.eye(5)[k]
        difference = (design(x + step, degree) - design(x - step, degree)) / 2e-6
        np.testing.assert_allclose(design_slopes(x, degree)[..., k], difference, atol=1e-7)


@pytest.mark.parametrize("degree", [2, 3])
def test_the_curvature_is_the_difference_of_slopes(degree):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(2, 3))
    terms = design(x, degree).shape[1]
    root, b = rng.normal(size=(2, terms, terms)), rng.normal(size=(2, terms))
    a = root @ np.swapaxes(root, 1, 2)
    _, gauss_newton, bend = slope_and_curvature(a, b, x, degree)
    for k in range(3):
        step = 1e-6 * np.eye(3)[k]
        up, down = (slope_and_curvature(a, b, x + sign * step, degree)[0] for sign in (1, -1))
        np.testing.assert_allclose(
            (gauss_newton + bend)[..., k], (up - down) / 2e-6, rtol=1e-5, atol=1e-4
        )


@pytest.fixture(autouse=True)
def predictions_beyond_the_training_set():
    """Made-up stars lie where they are put: the warning about it has its own test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model extrapolates")
        yield


def noiseless(labels=3, stars=80, pixels=40, degree=2, reciprocal=()):
    model = made_up_cannon(labels, pixels, degree=degree, reciprocal=reciprocal)
    x = np.random.default_rng(1).normal(size=(stars, labels))
    index = [f"s{number}" for number in range(stars)]
    table = pd.DataFrame(model.unscaled(x), index=index, columns=list(model.labels))
    flux = model.predict(table)
    return xr.Dataset({"flux": flux, "error": xr.full_like(flux, 0.01)}), table


@pytest.mark.parametrize(("degree", "reciprocal"), KINDS)
def test_a_noiseless_polynomial_is_learned_and_inverted_exactly(degree, reciprocal):
    spectra, table = noiseless(3, degree=degree, reciprocal=reciprocal)
    model = Cannon.train(spectra, table, degree, reciprocal=reciprocal)
    np.testing.assert_allclose(model.predict(table), spectra.flux, atol=1e-9)
    fit = model.fit(spectra)
    np.testing.assert_allclose(fit[list(table)], table, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("labels", [1, 2, 3, 5])
def test_a_noiseless_quadratic_is_learned_and_inverted_exactly(labels):
    spectra, table = noiseless(labels)
    model = Cannon.train(spectra, table)
    np.testing.assert_allclose(model.predict(table), spectra.flux, atol=1e-10)
    assert np.all(model.s2 == 0)
    fit = model.fit(spectra)
    np.testing.assert_allclose(fit[list(table)], table, rtol=1e-5, atol=1e-5)
    assert fit.converged.all()
    assert fit.chi2.max() < 1e-6


def log_likelihood(s2, f, sigma, A):
    w = 1 / (sigma**2 + s2)
    theta = np.linalg.solve(A.T @ (w[:, None] * A), A.T @ (w * f))
    return -0.5 * np.sum(w * (f - A @ theta) ** 2 - np.log(w)), theta


@pytest.mark.parametrize("pixel", [0, 31, 100, 222, 399])
def test_scatter_and_coefficients_are_those_of_the_labs_grid(taught, pixel):
    """A loop over a grid of s², refined twice around its maximum."""
    spectra, labels, model = taught
    f, sigma = spectra.flux.values[:, pixel], spectra.error.values[:, pixel]
    good = np.isfinite(sigma)
    f, sigma, A = (
        f[good],
        sigma[good],
        design((labels.to_numpy() - model.offset) / model.scale)[good],
    )
    grid = np.r_[0, np.geomspace(1e-10, 1, 400)]
    for _ in range(5):
        scores = [log_likelihood(s2, f, sigma, A)[0] for s2 in grid]
        best = int(np.argmax(scores))
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)], 100)
    s2 = grid[np.argmax([log_likelihood(s2, f, sigma, A)[0] for s2 in grid])]
    assert model.s2[pixel] == pytest.approx(s2, rel=1e-4, abs=1e-12)
    assert (
        log_likelihood(model.s2[pixel], f, sigma, A)[0] >= log_likelihood(s2, f, sigma, A)[0] - 1e-9
    )
    np.testing.assert_allclose(
        model.theta[pixel], log_likelihood(model.s2[pixel], f, sigma, A)[1], rtol=1e-6, atol=1e-9
    )


def test_the_slope_of_the_likelihood_vanishes_at_every_pixel(taught):
    """Also where the grid does not look: at s² > 0 the slope is zero, at s² = 0 it is negative."""
    spectra, labels, model = taught
    residual = spectra.flux.values - model.predict(labels).values
    w = np.where(np.isfinite(spectra.error), 1 / (spectra.error.values**2 + model.s2), 0)
    slope = np.sum(w * (w * residual**2 - 1), axis=0)
    size = np.sum(w, axis=0)
    assert np.all(np.abs(slope[model.s2 > 0]) < 1e-6 * size[model.s2 > 0])
    assert np.all(slope[model.s2 == 0] <= 0)


@pytest.mark.parametrize("seed", range(4))
def test_uneven_errors_and_few_stars_are_trained_to_the_maximum(seed):
    """With errors that differ a hundredfold and many coefficients, long steps must not diverge."""
    model, rng = made_up_cannon(3, pixels=120), np.random.default_rng(seed)
    spectra, labels = made_up_stars(model, 60, snr=1000, seed=seed)
    spectra["error"] = spectra.error * 10 ** rng.uniform(0, 2.3, spectra.error.shape)
    spectra["flux"] = spectra.flux + rng.standard_t(2, spectra.flux.shape) * np.where(
        np.isfinite(spectra.error), spectra.error, 0
    )
    found = Cannon.train(spectra, labels, degree=3)
    v = design(found.scaled(labels.to_numpy()), 3)
    trained = np.flatnonzero(np.isfinite(found.s2))
    assert len(trained) > 100
    for pixel in trained[::7]:
        f, sigma = spectra.flux.values[:, pixel], spectra.error.values[:, pixel]
        good = np.isfinite(sigma)
        here, theta = log_likelihood(found.s2[pixel], f[good], sigma[good], v[good])
        np.testing.assert_allclose(found.theta[pixel], theta, rtol=1e-5, atol=1e-6)
        near = found.s2[pixel] * np.array([0.97, 1.03]) + [0, 1e-12]
        assert all(
            here >= log_likelihood(s2, f[good], sigma[good], v[good])[0] - 1e-9 for s2 in near
        )


def test_scatter_is_recovered(taught):
    """Maximum likelihood loses T degrees of freedom: it finds (σ² + s²)(1 - T/N)."""
    spectra, _, model = taught
    known = np.isfinite(MODEL.s2)
    used = np.isfinite(spectra.error).sum("star").values[known]
    total = (1 / 120**2 + model.s2[known]) / (1 / 120**2 + MODEL.s2[known])
    assert np.median(total / (1 - 21 / used)) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [None, *KINDS[2:]])
def test_fits_agree_with_scipy(taught, kind):
    model = taught[2] if kind is None else made_up_cannon(3, degree=kind[0], reciprocal=kind[1])
    spectra, truth = made_up_stars(model, 6, snr=60, seed=9)
    fit = model.fit(spectra)
    for star in truth.index:
        one = spectra.sel(star=star)
        good = np.isfinite(one.error.values)
        sigma = np.sqrt(one.error.values[good] ** 2 + model.s2[good])

        def spectrum(_, *values, good=good):
            return model.predict(pd.DataFrame([values], columns=model.labels)).values[0, good]

        tight = {
            "ftol": 1e-15,
            "xtol": 1e-15,
            "gtol": 1e-15,
            "x_scale": np.abs(model.units(0 * model.scale)),
        }
        labels, covariance = curve_fit(
            spectrum,
            None,
            one.flux.values[good],
            truth.loc[star].to_numpy(),
            sigma,
            absolute_sigma=True,
            method="trf",
            **tight,
        )
        errors = fit.loc[star, [f"{name}_err" for name in model.labels]].to_numpy(float)
        np.testing.assert_allclose(
            fit.loc[star, list(model.labels)].to_numpy(float), labels, rtol=1e-6, atol=1e-6
        )
        np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-4)


def test_the_quadratic_form_is_the_sum_over_pixels(taught):
    model = taught[2]
    spectra, truth = made_up_stars(model, 5, seed=3)
    chunks = room._star_chunks(spectra, 2)
    parts = quadratic_forms(model.theta, model.s2, chunks, model.theta.shape[1])
    a, b, c, _, n_pixels = room._concatenate(parts)
    v = design((truth.to_numpy() - model.offset) / model.scale)
    short = np.einsum("ni,nij,nj->n", v, a, v) - 2 * np.sum(b * v, axis=1) + c
    pull = (spectra.flux - model.predict(truth)) / np.sqrt(spectra.error**2 + model.s2)
    np.testing.assert_allclose(short, (pull**2).sum("wavelength"), rtol=1e-9)
    np.testing.assert_array_equal(
        n_pixels, (np.isfinite(spectra.error) & np.isfinite(model.s2)).sum("wavelength")
    )


def test_errors_are_honest_for_spectra_of_the_model(taught):
    model = taught[2]
    spectra, truth = made_up_stars(model, 400, snr=70, seed=8)
    fit = model.fit(spectra)
    names = list(model.labels)
    pulls = (fit[names] - truth) / fit[[f"{name}_err" for name in names]].to_numpy()
    assert np.abs(pulls.mean()).max() < 0.2
    np.testing.assert_allclose(pulls.std(), 1, atol=0.12)
    assert fit.converged.mean() > 0.99
    assert (fit.chi2 / fit.n_pixels).mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("degree", "reciprocal"), KINDS)
def test_the_gradient_is_the_derivative_of_the_prediction(degree, reciprocal):
    model = made_up_cannon(degree=degree, reciprocal=reciprocal)
    few = made_up_stars(model, 3)[1]
    gradient = model.gradient(few)
    assert gradient.dims == ("star", "label", "wavelength")
    for name, step in zip(model.labels, 1e-4 * MODEL.scale, strict=True):
        up, down = (
            model.predict(few.assign(**{name: few[name] + sign * step})) for sign in (1, -1)
        )
        np.testing.assert_allclose(
            gradient.sel(label=name), (up - down) / (2 * step), rtol=1e-5, atol=1e-8
        )


def test_the_order_of_rows_and_columns_does_not_matter(taught):
    spectra, labels, model = taught
    shuffled = Cannon.train(spectra, labels.sample(frac=1, random_state=1))
    np.testing.assert_array_equal(shuffled.theta, model.theta)
    np.testing.assert_array_equal(model.predict(labels[list(labels)[::-1]]), model.predict(labels))


@pytest.mark.parametrize(("degree", "reciprocal"), KINDS)
def test_saving_and_loading(degree, reciprocal, tmp_path):
    model = made_up_cannon(degree=degree, reciprocal=reciprocal)
    model.save(tmp_path / "model.npz")
    copy = Cannon.load(tmp_path / "model.npz")
    for field in fields(model):
        np.testing.assert_array_equal(getattr(copy, field.name), getattr(model, field.name))
    assert isinstance(copy.degree, int)
    assert copy.reciprocal == reciprocal
    stars = made_up_stars(model, 2)[1]
    np.testing.assert_array_equal(copy.predict(stars), model.predict(stars))


def parts_of(model):
    with np.load(io.BytesIO(model.to_bytes())) as file:
        return dict(file)


@pytest.mark.parametrize(
    "change",
    [
        {"theta": np.ones((3, 3))},
        {"theta": np.array([{}], dtype=object)},
        {"s2": -np.ones(40)},
        {"s2": np.full(40, np.nan)},
        {"scale": np.zeros(3)},
        {"offset": np.array([1, 2, 3])},
        {"labels": np.zeros(3)},
        {"degree": np.array(9)},
        {"degree": np.array([2, 2])},
        {"reciprocal": np.array(["teff"])},
        {"training_labels": np.ones(3)},
        {"training_labels": np.ones((1, 3))},
        {"wavelength": np.array(3.0)},
        {"more": np.ones(3)},
    ],
)
def test_files_that_are_no_model(change, tmp_path):
    parts = parts_of(made_up_cannon(3, 40))
    np.savez(tmp_path / "model.npz", **parts)
    Cannon.load(tmp_path / "model.npz")
    np.savez(tmp_path / "model.npz", **parts | change)
    with pytest.raises(CorruptFileError, match=r"model\.npz"):
        Cannon.load(tmp_path / "model.npz")


def test_a_model_of_an_older_version_is_refused(tmp_path):
    parts = parts_of(made_up_cannon(3, 40))
    del parts["degree"], parts["reciprocal"]
    np.savez(tmp_path / "old.npz", **parts)
    with pytest.raises(CorruptFileError, match=r"old\.npz"):
        Cannon.load(tmp_path / "old.npz")


def bomb(shape, method):
    """A model file whose theta claims a shape, and is packed by a method."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in parts_of(made_up_cannon(3, 40)).items():
            content = io.BytesIO()
            np.save(content, array)
            data = content.getvalue()
            if name == "theta":
                header = (
                    f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
                    + "\n"
                )
                data = b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(10_000_000)
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


@pytest.mark.parametrize("shape", [(10**12, 10), (1250000, 1), (-1, 10), (2**62, 4)])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_a_file_claims_costs_no_memory(shape, method):
    content = bomb(shape, method)
    tracemalloc.start()
    with pytest.raises(CorruptFileError):
        Cannon.from_bytes(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(content) + 1e6


def test_damaged_files_are_refused_or_hold_the_same_numbers():
    model, rng, survivors = made_up_cannon(3, 40), np.random.default_rng(3), 0
    content = model.to_bytes()
    for _ in range(300):
        harmed = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            harmed[at] ^= 1 << rng.integers(8)
        harmed = bytes(harmed[: rng.integers(1, len(content))] if rng.random() < 0.2 else harmed)
        try:
            copy = Cannon.from_bytes(harmed)
        except CorruptFileError:
            continue
        survivors += 1
        np.testing.assert_array_equal(copy.theta, model.theta)
        np.testing.assert_array_equal(copy.training_labels, model.training_labels)
    assert 0 < survivors < 150


def test_pixels_without_enough_stars_are_left_untrained(taught):
    spectra, labels, _ = taught
    spectra = spectra.copy(deep=True)
    spectra.error[20:, 5] = np.inf
    model = Cannon.train(spectra, labels)
    assert np.isinf(model.s2[5])
    assert model.theta[5].tolist() == [1] + 20 * [0]
    assert np.isfinite(model.fit(spectra).chi2).all()


def at_star(data, star, value):
    return data.where(data.star != star, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y: (s, y.iloc[1:]), "no labels for star000"),
        (lambda s, y: (s, y.assign(logg=y.logg.where(y.index != "star003"))), "star003"),
        (
            lambda s, y: (s, y.assign(logg=y.logg.where(y.index != "star003", -9999))),
            "fillers.*star003",
        ),
        (lambda s, y: (s, y.assign(logg=2.0)), "same for all stars: logg"),
        (lambda s, y: (s, y.assign(logg=2 * y.teff)), "dependent"),
        (
            lambda s, y: (s, y.assign(field="M71", hot=y.teff > 4600)),
            "not labels, which are numbers: field, hot",
        ),
        (lambda s, y: (s, y.teff), "DataFrame"),
        (lambda s, y: (s.isel(star=slice(41)), y), "too few"),
        (lambda s, y: (s, pd.concat([y, y.iloc[:1]])), "once"),
        (lambda s, y: (s.assign(error=at_star(s.error, "star007", np.inf)), y), "star007"),
        (
            lambda s, y: (s.assign(error=at_star(s.error, "star007", 1e-30)), y),
            "errors below.*invalid.*star007",
        ),
        (
            lambda s, y: (s.assign(flux=at_star(s.flux, "star007", 2500.0)), y),
            "star007 are not normalized",
        ),
        (lambda s, y: (s, y, 0), "degree"),
        (lambda s, y: (s, y, 2, -1.0), "ridge"),
        (lambda s, y: (s, y, 2, 0, ["Teff"]), "reciprocal names Teff"),
        (lambda s, y: (s, y, 2, 0, ["fe_h"]), "temperatures positive"),
    ],
)
def test_what_cannot_be_trained_on(taught, change, message):
    with pytest.raises(ValueError, match=message):
        Cannon.train(*change(taught[0], taught[1]))


def test_transposed_spectra_are_put_right():
    spectra, table = noiseless(3, stars=40, pixels=40)
    turned = spectra.transpose("wavelength", "star")
    model = Cannon.train(spectra, table)
    np.testing.assert_array_equal(Cannon.train(turned, table).theta, model.theta)
    pd.testing.assert_frame_equal(model.fit(turned), model.fit(spectra))


def test_one_star_picked_out_is_enough(taught):
    spectra, labels, model = taught
    star = spectra.star.values[3]
    pd.testing.assert_frame_equal(
        model.fit(spectra.sel(star=star)), model.fit(spectra.sel(star=[star]))
    )
    np.testing.assert_array_equal(
        model.predict(labels.loc[star]), model.predict(labels.loc[[star]])
    )
    np.testing.assert_array_equal(
        model.gradient(labels.loc[star]), model.gradient(labels.loc[[star]])
    )
    assert model.distance(labels.loc[star]).index.tolist() == [star]


def test_covariances_belong_to_the_errors(taught):
    spectra, labels, model = taught
    table, covariance = model.fit(spectra, covariance=True)
    pd.testing.assert_frame_equal(table, model.fit(spectra))
    assert covariance.dims == ("star", "label", "other")
    names = list(labels)
    variances = np.diagonal(covariance, axis1=1, axis2=2)
    np.testing.assert_allclose(np.sqrt(variances), table[[f"{name}_err" for name in names]])
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert len(pd.concat([table, table])) == 2 * len(table)


def test_covariances_are_those_of_many_noisy_spectra(taught):
    model = taught[2]
    one, truth = made_up_stars(model, 1, snr=100, seed=2)
    many = one.isel(star=np.zeros(1500, int))
    sigma = np.sqrt(many.error**2 + model.s2).values
    noise = np.where(np.isfinite(sigma), sigma, 0) * np.random.default_rng(3).standard_normal(
        sigma.shape
    )
    table, covariance = model.fit(
        many.assign(flux=many.flux * 0 + model.predict(truth).values + noise), covariance=True
    )
    expected, found = covariance.median("star").values, np.cov(table[list(truth)].T)
    size = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        found / np.outer(size, size), expected / np.outer(size, size), atol=0.12
    )


def test_duplicates_and_blind_stars_keep_their_places(taught):
    model = taught[2]
    spectra, _ = made_up_stars(model, 3, seed=3)
    spectra = spectra.isel(star=[0, 1, 0, 2])
    spectra.error[1] = np.inf
    with pytest.warns(UserWarning, match="star001"):
        fit = model.fit(spectra)
    assert fit.index.tolist() == ["star000", "star001", "star000", "star002"]
    assert fit.iloc[0].equals(fit.iloc[2])
    assert fit.teff.isna().tolist() == [False, True, False, False]


def test_a_ridge_holds_products_of_labels_near_zero(taught):
    spectra, labels, model = taught
    held = Cannon.train(spectra, labels, ridge=1e4)
    assert np.abs(held.theta[:, 6:]).max() < 1e-4
    straight = Cannon.train(spectra, labels, degree=1)
    np.testing.assert_allclose(held.theta[:, :6], straight.theta, atol=1e-4)
    assert np.abs(Cannon.train(spectra, labels, ridge=1e-9).theta - model.theta).max() < 1e-6


def test_cross_validation_prefers_a_ridge_where_coefficients_are_many():
    model = made_up_cannon(3, pixels=60)
    few, many = (made_up_stars(model, number, snr=300, seed=6) for number in (100, 900))
    scores = ridge_scores(*few, degree=3, ridges=(0, 0.03, 1e3))
    assert scores.idxmax() == 0.03
    assert ridge_scores(*many, degree=2, ridges=(0, 0.03)).idxmax() == 0


def test_modes_in_the_fit_are_weights_of_correlated_pixels(taught):
    """Against generalized least squares on all pixels, and by the scatter of the labels."""
    model = replace(made_up_cannon(3, pixels=150))
    rng = np.random.default_rng(8)
    shapes = 0.01 * rng.standard_normal((2, 150)) + 0.1 * model.theta[:, 1:3].T
    spectra, truth = made_up_stars(
        model, 300, snr=200, noise=rng.standard_normal((300, 2)) @ shapes
    )
    modes = nuisance_components(model, spectra, truth, number=2)
    plain, better = model.fit(spectra), model.fit(spectra, modes=modes)
    names = list(truth)
    assert ((better[names] - truth).std() < 0.9 * (plain[names] - truth).std()).all()
    one = spectra.isel(star=[0])
    good = np.isfinite(one.error.values[0]) & np.isfinite(model.s2)
    variance = np.diag((one.error.values[0] ** 2 + model.s2)[good])
    covariance = variance + modes.values[:, good].T @ modes.values[:, good]

    def spectrum(_, *values):
        return model.predict(pd.DataFrame([values], columns=model.labels)).values[0, good]

    tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "x_scale": model.scale}
    labels, errors = curve_fit(
        spectrum,
        None,
        one.flux.values[0, good],
        truth.iloc[0],
        covariance,
        absolute_sigma=True,
        method="trf",
        **tight,
    )
    np.testing.assert_allclose(better.iloc[0][names].to_numpy(float), labels, rtol=1e-5)
    found = better.iloc[0][[f"{name}_err" for name in names]].to_numpy(float)
    np.testing.assert_allclose(found, np.sqrt(np.diag(errors)), rtol=1e-3)


def test_a_selection_of_starting_points_finds_the_same_minima(monkeypatch):
    model = made_up_cannon(5, 200)
    model = replace(model, training_labels=np.random.default_rng(1).normal(size=(900, 5)))
    spectra, _ = made_up_stars(model, 150, snr=40)
    assert len(room.farthest_points(model.training_labels)) == 200
    few = model.fit(spectra)
    monkeypatch.setattr(room, "farthest_points", lambda points: points)
    every, names = model.fit(spectra), list(model.labels)
    off = (few[names] - every[names]).abs() / every[[f"{name}_err" for name in names]].to_numpy()
    assert off.max(axis=None) < 1e-3


def memory_of(function):
    """Peak of what a call allocates, bytes."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_stays_below_twice_the_input():
    model = made_up_cannon(3, 1500)
    spectra, labels = made_up_stars(model, 2500, snr=100)
    spectra = spectra.astype("float32")
    size = spectra.flux.nbytes + spectra.error.nbytes
    assert memory_of(lambda: Cannon.train(spectra, labels)) < 2 * size
    assert memory_of(lambda: model.fit(spectra)) < 2 * size


class Counted(np.lib.mixins.NDArrayOperatorsMixin):
    """An array on disk, so to speak: it counts the numbers that are read from it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim, self.read = (
            values,
            values.shape,
            values.dtype,
            2,
            0,
        )

    def __getitem__(self, key):
        part = self.values[key]
        self.read += part.size
        return part


def test_spectra_on_disk_are_read_twice_to_train_and_once_to_fit():
    from xarray.core import indexing

    class Stored(xr.backends.BackendArray):
        def __init__(self, values):
            self.counted, self.shape, self.dtype = Counted(values), values.shape, values.dtype

        def __getitem__(self, key):
            return indexing.explicit_indexing_adapter(
                key, self.shape, indexing.IndexingSupport.BASIC, self.counted.__getitem__
            )

    model = made_up_cannon(3, 300)
    spectra, labels = made_up_stars(model, 500)
    stored = {name: Stored(spectra[name].values) for name in ("flux", "error")}
    lazy = xr.Dataset(
        {
            name: (("star", "wavelength"), indexing.LazilyIndexedArray(array))
            for name, array in stored.items()
        },
        coords=spectra.coords,
    )
    np.testing.assert_array_equal(
        Cannon.train(lazy, labels).theta, Cannon.train(spectra, labels).theta
    )
    assert [array.counted.read for array in stored.values()] == [2 * spectra.flux.size] * 2
    pd.testing.assert_frame_equal(model.fit(lazy), model.fit(spectra))
    assert [array.counted.read for array in stored.values()] == [3 * spectra.flux.size] * 2


def test_a_star_without_pixels_has_no_labels(taught):
    model = taught[2]
    spectra, _ = made_up_stars(model, 3, seed=3)
    spectra.error[1] = np.inf
    with pytest.warns(UserWarning, match="star001"):
        fit = model.fit(spectra)
    assert fit.index.tolist() == ["star000", "star001", "star002"]
    assert fit.loc["star001", list(model.labels)].isna().all()
    assert fit.converged.tolist() == [True, False, True]
    spectra.error[:] = np.inf
    with pytest.raises(ValueError, match="no usable pixel"):
        model.fit(spectra)


def test_labels_far_from_the_training_set_are_flagged(taught):
    model = taught[2]
    far = pd.DataFrame([model.offset + 9 * model.scale], index=["far"], columns=model.labels)
    flux = model.predict(pd.concat([far, far.rename({"far": "near"}) * 0 + model.offset]))
    fit = model.fit(xr.Dataset({"flux": flux, "error": xr.full_like(flux, 1e-4)}))
    assert fit.extrapolated.tolist() == [True, False]


def test_distance_and_extrapolation_are_public(taught):
    spectra, labels, model = taught
    centre = pd.DataFrame([model.offset], index=["centre"], columns=model.labels)
    inverse = np.linalg.inv(np.cov(labels.T))
    off = labels.to_numpy() - model.offset
    expected = np.sqrt(np.einsum("nk,kl,nl->n", off, inverse, off))
    np.testing.assert_allclose(model.distance(labels), expected)
    assert model.distance(centre).iloc[0] == pytest.approx(0, abs=1e-9)
    assert not model.extrapolates(labels).any()
    far = labels + 9 * model.scale
    assert model.extrapolates(far).all()
    fit = model.fit(spectra)
    pd.testing.assert_series_equal(model.extrapolates(fit), fit.extrapolated, check_names=False)
    with pytest.warns(UserWarning, match=r"extrapolates: the labels of 300 stars \(star000"):
        model.predict(far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.predict(labels)


def test_input_that_does_not_fit_the_model(taught):
    spectra, labels, model = taught
    with pytest.raises(ValueError, match="wavelengths"):
        model.fit(spectra.isel(wavelength=slice(100)))
    with pytest.raises(ValueError, match="no star"):
        model.fit(spectra.isel(star=[]))
    with pytest.raises(ValueError, match="missing: logg"):
        model.predict(labels.drop(columns="logg"))
    with pytest.raises(ValueError, match="star001"):
        model.predict(labels.assign(teff=labels.teff.where(labels.index != "star001")))


def test_other_wavelengths_have_no_likelihood(taught):
    spectra, labels, model = taught
    x0 = model.scaled(labels.to_numpy())
    shifted = spectra.assign_coords(wavelength=spectra.wavelength + 1)
    for wrong in (shifted, spectra.isel(wavelength=slice(100))):
        with pytest.raises(ValueError, match="wavelengths of the model"):
            model.likelihood(wrong, x0)
    with pytest.raises(ValueError, match="no star"):
        model.likelihood(spectra.isel(star=[]), x0[:0])


@pytest.mark.parametrize("factor", [100, 0.01, 0, -1])
def test_spectra_that_are_not_normalized_are_not_fitted(taught, factor):
    spectra, _, model = taught
    wrong = spectra.isel(star=slice(3)).copy(deep=True)
    wrong["flux"][1] = factor * wrong.flux[1]
    with pytest.raises(ValueError, match="star001 are not normalized"):
        model.fit(wrong)


def test_one_wild_pixel_does_not_make_a_spectrum_unnormalized(taught):
    spectra, labels, model = taught
    wild = spectra.copy(deep=True)
    wild.flux[1, 3], wild.error[1, 3] = 1e6, 0.01
    assert len(model.fit(wild.isel(star=[0, 1]))) == 2
    Cannon.train(wild, labels)


def test_numbers_in_the_byte_order_of_fits_are_numbers(taught):
    spectra, labels, model = taught
    swapped = pd.DataFrame(
        {name: labels[name].to_numpy().astype(">f8") for name in labels}, labels.index
    )
    np.testing.assert_array_equal(Cannon.train(spectra, swapped).theta, model.theta)
    np.testing.assert_array_equal(model.predict(swapped), model.predict(labels))
    np.testing.assert_array_equal(model.distance(swapped), model.distance(labels))
    other = spectra.astype(">f8")
    np.testing.assert_array_equal(Cannon.train(other, labels).theta, model.theta)
    pd.testing.assert_frame_equal(model.fit(other), model.fit(spectra))


def test_numpy_integers_are_options():
    spectra, labels = example_stars()
    plain = Cannon.train(spectra, labels, degree=2)
    model = Cannon.train(spectra, labels, degree=np.int64(2))
    assert isinstance(model.degree, int)
    assert model.to_bytes() == plain.to_bytes()
    pd.testing.assert_frame_equal(
        model.fit(spectra, starts=np.int32(2)), plain.fit(spectra, starts=2)
    )
    scores = [ridge_scores(spectra, labels, 2, (0,), folds) for folds in (3, np.int64(3))]
    pd.testing.assert_series_equal(*scores)


@pytest.mark.parametrize("value", [0, -1, 2.5, "3", None])
def test_numbers_of_starts_and_folds_are_whole_and_positive(value):
    spectra, labels = example_stars()
    with pytest.raises(ValueError, match="starts must be a whole number from 1"):
        Cannon.train(spectra, labels).fit(spectra, starts=value)
    with pytest.raises(ValueError, match="folds must be a whole number from 2"):
        ridge_scores(spectra, labels, 2, (0,), folds=value)
    with pytest.raises(ValueError, match="degree must be a whole number from 1 to 3"):
        Cannon.train(spectra, labels, degree=value)


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7, 1e-9, 12345.678])
def test_a_constant_label_is_named_whatever_its_value(taught, value):
    """The standard deviation of 300 equal numbers need not be zero: their mean is rounded."""
    spectra, labels, _ = taught
    with pytest.raises(ValueError, match="the same for all stars: mg_fe; leave"):
        Cannon.train(spectra, labels.assign(mg_fe=value))


def test_only_dependent_labels_are_blamed(taught):
    spectra, labels, _ = taught
    twice = labels.assign(mg_fe=labels.fe_h + 0.5 * labels.si_fe)
    with pytest.raises(ValueError, match="the labels fe_h, mg_fe, si_fe are linearly dependent"):
        Cannon.train(spectra, twice)


def test_fillers_of_minus_999_do_not_teach(taught):
    spectra, labels, _ = taught
    with pytest.raises(ValueError, match=r"fillers.*star003"):
        Cannon.train(
            spectra, labels.assign(logg=labels.logg.where(labels.index != "star003", -999))
        )


def test_one_reciprocal_label_may_be_given_by_its_name(taught):
    spectra, labels, _ = taught
    one, several = (Cannon.train(spectra, labels, 1, 0, kind) for kind in ("teff", ["teff"]))
    assert one.reciprocal == several.reciprocal == ("teff",)


def test_the_centered_design_is_the_departure_from_the_mean_star():
    x = np.random.default_rng(2).normal(size=(6, 4))
    for degree in (1, 2, 3):
        expected = design(x, degree) - design(np.zeros(4), degree)
        np.testing.assert_array_equal(centered_design(x, degree), expected)


def test_pixels_are_trained_alone(taught):
    """A pixel knows nothing of its neighbours, whatever block it falls into."""
    spectra, _, model = taught
    few = spectra.isel(wavelength=[3, 77, 200])
    theta, s2 = fit_pixels(design(model.training_labels), few)
    np.testing.assert_allclose(theta, model.theta[[3, 77, 200]], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(s2, model.s2[[3, 77, 200]], rtol=1e-7)
