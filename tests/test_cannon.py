"""The Cannon against plain references: typed-out numbers, a loop over a grid, scipy, and known truth."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from made_up import made_up_cannon, made_up_stars
from scipy.optimize import curve_fit

from labtools.cannon import Cannon, design, design_slopes

MODEL = made_up_cannon()


@pytest.fixture(scope="module")
def taught():
    """300 training stars of five labels on 400 pixels, and the model trained on them."""
    spectra, labels = made_up_stars(MODEL, 300, snr=120, seed=4)
    return spectra, labels, Cannon.train(spectra, labels)


def test_the_design_vector_of_three_labels():
    assert design([2, 3, 5]).tolist() == [1, 2, 3, 5, 4, 6, 10, 9, 15, 25]
    assert design(np.zeros((7, 5))).shape == (7, 21)


def test_slopes_of_the_design_vector_are_its_differences():
    x = np.random.default_rng(0).normal(size=(4, 5))
    for k in range(5):
        step = 1e-6 * np.eye(5)[k]
        np.testing.assert_allclose(design_slopes(x)[..., k], (design(x + step) - design(x - step)) / 2e-6, atol=1e-8)


def noiseless(labels=3, stars=80, pixels=40):
    model = made_up_cannon(labels, pixels)
    x = np.random.default_rng(1).normal(size=(stars, labels))
    index = [f"s{number}" for number in range(stars)]
    table = pd.DataFrame(x * model.scale + model.offset, index=index, columns=list(model.labels))
    flux = model.predict(table)
    return xr.Dataset({"flux": flux, "error": xr.full_like(flux, 0.01)}), table


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
    f, sigma, A = f[good], sigma[good], design((labels.to_numpy() - model.offset) / model.scale)[good]
    grid = np.r_[0, np.geomspace(1e-10, 1, 400)]
    for _ in range(5):
        scores = [log_likelihood(s2, f, sigma, A)[0] for s2 in grid]
        best = int(np.argmax(scores))
        grid = np.linspace(grid[max(best - 1, 0)], grid[min(best + 1, grid.size - 1)], 100)
    s2 = grid[np.argmax([log_likelihood(s2, f, sigma, A)[0] for s2 in grid])]
    assert model.s2[pixel] == pytest.approx(s2, rel=1e-4, abs=1e-12)
    assert log_likelihood(model.s2[pixel], f, sigma, A)[0] >= log_likelihood(s2, f, sigma, A)[0] - 1e-9
    np.testing.assert_allclose(
        model.theta[pixel], log_likelihood(model.s2[pixel], f, sigma, A)[1], rtol=1e-6, atol=1e-9
    )


def test_the_slope_of_the_likelihood_vanishes_at_every_pixel(taught):
    """Also where the grid test does not look: at s² > 0 the slope is zero, at s² = 0 it points down."""
    spectra, labels, model = taught
    residual = spectra.flux.values - model.predict(labels).values
    w = np.where(np.isfinite(spectra.error), 1 / (spectra.error.values**2 + model.s2), 0)
    slope = np.sum(w * (w * residual**2 - 1), axis=0)
    size = np.sum(w, axis=0)
    assert np.all(np.abs(slope[model.s2 > 0]) < 1e-6 * size[model.s2 > 0])
    assert np.all(slope[model.s2 == 0] <= 0)


def test_scatter_is_recovered(taught):
    """Maximum likelihood takes the T coefficients from the variance: (σ² + s²)(1 - T/N) is what it finds."""
    spectra, _, model = taught
    known = np.isfinite(MODEL.s2)
    used = np.isfinite(spectra.error).sum("star").values[known]
    total = (1 / 120**2 + model.s2[known]) / (1 / 120**2 + MODEL.s2[known])
    assert np.median(total / (1 - 21 / used)) == pytest.approx(1, abs=0.02)


def test_fits_agree_with_scipy(taught):
    model = taught[2]
    spectra, truth = made_up_stars(model, 6, snr=60, seed=9)
    fit = model.fit(spectra)
    for star in truth.index:
        one = spectra.sel(star=star)
        good = np.isfinite(one.error.values)
        sigma = np.sqrt(one.error.values[good] ** 2 + model.s2[good])

        def spectrum(_, *values, good=good):
            return model.predict(pd.DataFrame([values], columns=model.labels)).values[0, good]

        tight = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "x_scale": model.scale}
        labels, covariance = curve_fit(
            spectrum,
            None,
            one.flux.values[good],
            model.offset,
            sigma,
            absolute_sigma=True,
            method="trf",
            **tight,
        )
        errors = fit.loc[star, [f"{name}_err" for name in model.labels]].to_numpy(float)
        np.testing.assert_allclose(fit.loc[star, list(model.labels)].to_numpy(float), labels, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(errors, np.sqrt(np.diag(covariance)), rtol=1e-4)


def test_the_quadratic_form_is_the_sum_over_pixels(taught):
    model = taught[2]
    spectra, truth = made_up_stars(model, 5, seed=3)
    a, b, c, n_pixels = model.quadratic_form(spectra, chunk=2)
    v = design((truth.to_numpy() - model.offset) / model.scale)
    short = np.einsum("ni,nij,nj->n", v, a, v) - 2 * np.sum(b * v, axis=1) + c
    pull = (spectra.flux - model.predict(truth)) / np.sqrt(spectra.error**2 + model.s2)
    np.testing.assert_allclose(short, (pull**2).sum("wavelength"), rtol=1e-9)
    np.testing.assert_array_equal(n_pixels, (np.isfinite(spectra.error) & np.isfinite(model.s2)).sum("wavelength"))


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


def test_the_gradient_is_the_derivative_of_the_prediction(taught):
    _, labels, model = taught
    few = labels.iloc[:3]
    gradient = model.gradient(few)
    assert gradient.dims == ("star", "label", "wavelength")
    for name, step in zip(model.labels, 1e-4 * model.scale, strict=True):
        up, down = (model.predict(few.assign(**{name: few[name] + sign * step})) for sign in (1, -1))
        np.testing.assert_allclose(gradient.sel(label=name), (up - down) / (2 * step), rtol=1e-5, atol=1e-9)


def test_the_order_of_rows_and_columns_does_not_matter(taught):
    spectra, labels, model = taught
    shuffled = Cannon.train(spectra, labels.sample(frac=1, random_state=1))
    np.testing.assert_array_equal(shuffled.theta, model.theta)
    np.testing.assert_array_equal(model.predict(labels[list(labels)[::-1]]), model.predict(labels))


def test_saving_and_loading(taught, tmp_path):
    model = taught[2]
    model.save(tmp_path / "model.npz")
    copy = Cannon.load(tmp_path / "model.npz")
    assert copy.labels == model.labels
    for part in ("theta", "s2", "offset", "scale", "wavelength", "examples"):
        np.testing.assert_array_equal(getattr(copy, part), getattr(model, part))
    np.savez(tmp_path / "other.npz", theta=model.theta)
    with pytest.raises(ValueError, match="other.npz is damaged"):
        Cannon.load(tmp_path / "other.npz")
    np.savez(tmp_path / "pickle.npz", theta=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="pickle.npz is damaged"):
        Cannon.load(tmp_path / "pickle.npz")


def test_pixels_without_enough_stars_are_left_untrained(taught):
    spectra, labels, _ = taught
    spectra = spectra.copy(deep=True)
    spectra.error[20:, 5] = np.inf
    model = Cannon.train(spectra, labels)
    assert np.isinf(model.s2[5])
    assert model.theta[5].tolist() == [1] + 20 * [0]
    assert np.isfinite(model.fit(spectra).chi2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, y: (s, y.iloc[1:]), "no labels for star000"),
        (lambda s, y: (s, y.assign(logg=y.logg.where(y.index != "star003"))), "star003"),
        (lambda s, y: (s, y.assign(logg=2.0)), "same for all stars: logg"),
        (lambda s, y: (s, y.assign(logg=2 * y.teff)), "dependent"),
        (lambda s, y: (s.isel(star=slice(41)), y), "too few"),
        (lambda s, y: (s, pd.concat([y, y.iloc[:1]])), "once"),
        (lambda s, y: (s.assign(error=s.error.where(s.star != "star007", np.inf)), y), "star007"),
    ],
)
def test_what_cannot_be_trained_on(taught, change, message):
    with pytest.raises(ValueError, match=message):
        Cannon.train(*change(taught[0], taught[1]))


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
