"""Checks of a student's numbers: right answers pass in any form, each mistake has its name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from apogee_archive.catalog import read_tables
from lab_course import checks
from lab_course.checks import CheckFailed
from labtools import select_giants
from labtools.cannon import Cannon, design
from labtools.isochrones import best_isochrone, giant_branch
from labtools.jwst import match, name_of
from labtools.spectra import LAB_BITS
from synthetic import made_up_cannon, made_up_stars
from tiny_archive import write_archive

RNG = np.random.default_rng(7)


def test_gravity():
    right = np.array([4.438, 2.086, 0.438])
    assert "Right" in checks.gravity(right, 1, [1, 15, 100])
    for wrong, words in (
        (right - 2, "SI"),
        (np.log(10) * right, "natural"),
        (10**right, "not its logarithm"),
    ):
        with pytest.raises(CheckFailed, match=words):
            checks.gravity(wrong, 1, [1, 15, 100])


def test_fillers_that_were_averaged():
    column = np.array([4800.0, -9999.0, 5000.0, -9999.99])
    assert "Right" in checks.mean_label(4900.0, column)
    for wrong, words in (
        (column.mean(), "averaged"),
        (column[[0, 2, 3]].mean(), "only one"),
        (2450.0, "zero"),
    ):
        with pytest.raises(CheckFailed, match=words):
            checks.mean_label(wrong, column)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return read_tables(write_archive(tmp_path_factory.mktemp("archive"), number=40))


def test_giants_and_the_cut_that_was_forgotten(catalog):
    right = select_giants(catalog)
    assert "Right" in checks.giants(right, catalog)
    faint = catalog.assign(snr=np.where(np.arange(len(catalog)) < 5, 20.0, catalog.snr))
    with pytest.raises(CheckFailed, match="SNR"):
        checks.giants(select_giants(faint.assign(snr=100.0)), faint)
    with pytest.raises(CheckFailed, match="missing"):
        checks.giants(right.iloc[:-2], catalog)
    with pytest.raises(CheckFailed, match="twice"):
        checks.giants(pd.concat([right, right.iloc[:1]]), catalog)


@pytest.fixture(scope="module")
def raw():
    mask = RNG.choice([0, 0, 0, 1, 2, 4, 8, 32, 512, 4096, 8192, 16384, 1 << 8], (3, 400))
    flux = RNG.uniform(90, 110, mask.shape)
    error = np.where(mask & int(LAB_BITS) == 0, 1.0, np.inf)
    values = {"flux": flux, "error": error, "mask": mask}
    return xr.Dataset({name: (("star", "wavelength"), value) for name, value in values.items()})


@pytest.mark.parametrize(
    ("bits", "words"),
    [(12, "not 12"), (40, "added"), (0xFF, "bit 12, the bright"), (0x1FE | 4096, "1 to 8"),
     (16639, "pipeline"), (-1, "mere warning"), (0, "not used")],
)  # fmt: skip
def test_wrong_bits_of_the_mask(raw, bits, words):
    assert "Right" in checks.pixels(raw.mask & int(LAB_BITS) == 0, raw)
    with pytest.raises(CheckFailed, match=words):
        checks.pixels(raw.mask & bits == 0, raw)


def test_the_mask_turned_round(raw):
    with pytest.raises(CheckFailed, match="marks the bad"):
        checks.pixels(raw.mask & int(LAB_BITS) != 0, raw)


def test_weights_of_the_continuum():
    x = np.linspace(-1, 1, 600)
    error = RNG.uniform(0.5, 5, x.size)
    flux = 100 + 10 * x + 6 * x**2 + 2 * x**3 + error * RNG.standard_normal(x.size)
    use = RNG.random(x.size) < 0.2
    error[::50] = np.inf

    def fit(weight, degree=2, where=use):
        good = where & np.isfinite(error)
        return np.polynomial.Chebyshev.fit(x[good], flux[good], degree, w=weight[good])(x)

    everywhere = np.ones_like(use)
    assert "Right" in checks.continuum(fit(1 / error), flux, error, use)
    wrong = {
        "1/σ⁴": fit(1 / error**2), "same weight": fit(np.ones_like(error)),
        "lines included": fit(1 / error, 2, everywhere),
        "too stiff": fit(1 / error, 1), "degree 3": fit(1 / error, 3),
    }  # fmt: skip
    for words, curve in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.continuum(curve, flux, error, use)


def test_a_split_by_row():
    stars = pd.Index([f"2M{n:04d}" for n in range(100)])
    mixed = stars[RNG.permutation(100)]
    assert "Right" in checks.split(mixed[:50], mixed[50:], stars)
    wrong = {
        "by star, not by row": (mixed[:51], mixed[49:]), "in neither": (mixed[:50], mixed[51:]),
        "two halves": (mixed[:90], mixed[90:]), "at random": (stars[:50], stars[50:]),
    }  # fmt: skip
    for words, groups in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.split(*groups, stars)


def test_the_scatter_of_a_pixel():
    x = design(RNG.standard_normal((400, 2)))
    sigma = RNG.uniform(0.002, 0.02, 400)
    f = x @ (1, 0.05, -0.03, 0.01, 0, 0.02) + np.hypot(sigma, 0.006) * RNG.standard_normal(400)
    sigma[:5] = np.inf
    good = np.isfinite(sigma)

    def solve(s2, power=1):
        w = np.where(good, 1 / (sigma**2 + s2), 0) ** power
        return np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * f))

    def log_likelihood(s2):
        variance = (sigma**2 + s2)[good]
        return -0.5 * np.sum((f - x @ solve(s2))[good] ** 2 / variance + np.log(variance))

    grid = np.geomspace(1e-8, 1e-1, 200)
    best = grid[np.argmax([log_likelihood(s2) for s2 in grid])]
    assert "Right" in checks.scatter(solve(best), best, x, f, sigma)
    wrong = {
        "this is s;": (solve(best), np.sqrt(best)), "far too large": (solve(grid[-1]), grid[-1]),
        "at a larger": (solve(best / 30), best / 30), "weights are squared": (solve(best, 2), best),
        "left out": (solve(0), best),
    }  # fmt: skip
    for words, (theta, s2) in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.scatter(theta, s2, x, f, sigma)


def test_wavelengths_in_air():
    lines = pd.DataFrame({"wavelength": [15745.02, 15753.20, 15770.11]})
    assert "Right" in checks.markers([15770.1, 15745.0, 15753.2], lines)
    with pytest.raises(CheckFailed, match="in air"):
        checks.markers([15740.72, 15748.89, 15765.84], lines)
    with pytest.raises(CheckFailed, match="none at 15748"):
        checks.markers([15745.0, 15748.9, 15770.1], lines)
    with pytest.raises(CheckFailed, match="at least three"):
        checks.markers([15745.0], lines)


def test_labels_that_changed_places():
    cannon = made_up_cannon(pixels=300)
    spectra, _ = made_up_stars(cannon, 12, snr=600)
    fitted = cannon.fit(spectra)
    assert "Right" in checks.labels(fitted, spectra, cannon)
    names = list(cannon.labels)
    swapped = fitted[names].rename(columns={"mg_fe": "si_fe", "si_fe": "mg_fe"})
    scaled = (fitted[names] - cannon.offset) / cannon.scale
    parts = {name: getattr(cannon, name) for name in cannon.__dataclass_fields__}
    bare = Cannon(**parts | {"s2": np.where(np.isfinite(cannon.s2), 0.0, np.inf)}).fit(spectra)
    for words, wrong in {
        "changed places": swapped,
        "scaled": scaled,
        "no column": fitted[names[:4]],
    }.items():
        with pytest.raises(CheckFailed, match=words):
            checks.labels(wrong, spectra, cannon)
    with pytest.raises(CheckFailed, match="without s²"):
        checks.labels(bare, spectra, cannon)
    noisy = fitted[names] + 0.5 * fitted[[f"{name}_err" for name in names]].to_numpy()
    with pytest.raises(CheckFailed, match="close, but"):
        checks.labels(noisy, spectra, cannon)
    with pytest.raises(CheckFailed, match="far from the best fit"):
        checks.labels(fitted[names] * 1.1, spectra, cannon)


def test_terms_of_the_likelihood():
    flux, model = RNG.normal(1, 0.1, 50), np.ones(50)
    variance = RNG.uniform(0.005, 0.02, 50)
    chi2, logs = np.sum((flux - model) ** 2 / variance), np.sum(np.log(variance))
    constant = 50 * np.log(2 * np.pi)
    assert "Right" in checks.likelihood(-0.5 * (chi2 + logs + constant), flux, model, variance)
    wrong = {
        "factor ½": -(chi2 + logs + constant), "term of the variances is missing": -0.5 * chi2,
        "wrong sign": -0.5 * (chi2 - logs - constant), "only the constant": -0.5 * (chi2 + logs),
    }  # fmt: skip
    for words, value in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.likelihood(value, flux, model, variance)


def test_pairs_by_position():
    names = [name_of(row) for row in range(30)]
    catalog = pd.DataFrame(
        {"apogee_id": [f"2M{n:03d}" for n in range(30)]}, index=pd.Index(names, name="name")
    )
    catalog.loc[names[20], "apogee_id"] = "2M003"
    labels = pd.DataFrame({"teff": RNG.uniform(4000, 5000, 29)}, index=names[:7] + names[8:])
    right, _ = match(catalog, labels)
    assert "Right" in checks.pairing(labels.loc[right], catalog, labels)
    by_position = labels.set_axis(names[:29])
    for words, wrong in {
        "by position": by_position,
        "more than once": labels,
        "not the same": labels.iloc[:9],
    }.items():
        with pytest.raises(CheckFailed, match=words):
            checks.pairing(wrong, catalog, labels)


def test_a_student_sees_one_line_and_no_traceback():
    assert CheckFailed("the labels: far off")._render_traceback_() == [
        "Not yet: the labels: far off"
    ]


# Correct work in other forms: none may be rejected. Each is a name and a function of the fixtures.
TABLE = pd.DataFrame({"snr": np.linspace(50, 500, 200)}, index=[f"2M{n:04d}" for n in range(200)])
HALF = np.random.default_rng(3).permutation(200)[:100]
CHOSEN = np.isin(np.arange(200), HALF)


@pytest.mark.parametrize(
    "groups",
    [
        (TABLE.index[HALF], TABLE.index[~CHOSEN]),
        (HALF, np.flatnonzero(~CHOSEN)),
        (CHOSEN, ~CHOSEN),
        (TABLE[CHOSEN], TABLE[~CHOSEN]),
        (list(TABLE.index[CHOSEN]), {*TABLE.index[~CHOSEN]}),
        (TABLE[CHOSEN].rename_axis("apogee_id").reset_index(), TABLE.index[~CHOSEN]),
    ],
    ids=["names", "positions", "mask", "tables", "list and set", "column"],
)
def test_any_form_of_a_random_split_is_right(groups):
    assert "Right" in checks.split(*groups, TABLE.index)
    assert "Right" in checks.split(*groups, TABLE)


SORTED = TABLE.assign(snr=np.random.default_rng(4).permutation(TABLE.snr))
BY_SNR = np.argsort(-SORTED.snr.to_numpy())


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ((np.arange(100, 200), np.arange(100)), "sorted table"),
        ((np.arange(0, 200, 2), np.arange(1, 200, 2)), "alternating"),
        ((BY_SNR[:100], BY_SNR[100:]), "sorted by snr"),
        ((np.arange(100), np.arange(100, 250)), "outside"),
        ((..., HALF), "not filled in"),
    ],
    ids=["last half", "every second row", "by SNR", "positions", "unsolved"],
)
def test_a_split_that_is_not_random(groups, words):
    with pytest.raises(CheckFailed, match=words):
        checks.split(*groups, SORTED)


@pytest.mark.parametrize(
    "form",
    [
        lambda giants: giants,
        lambda giants: giants.rename_axis("apogee_id").reset_index(),
        lambda giants: list(giants.index),
        lambda giants: giants.index[::-1],
        lambda giants: set(giants.index),
        lambda giants: giants.index.to_numpy().astype("S"),
        lambda giants: giants.sample(frac=1, random_state=1),
    ],
)
def test_any_form_of_the_giants_is_right(form, catalog):
    assert "Right" in checks.giants(form(select_giants(catalog)), catalog)


def test_a_mask_over_the_catalog_is_right(catalog):
    unique = catalog[~catalog.index.duplicated(keep=False)]
    giants = select_giants(unique)
    assert "Right" in checks.giants(unique.index.isin(giants.index), unique)


def test_mistakes_with_the_giants(catalog):
    right = select_giants(catalog)
    with pytest.raises(CheckFailed, match="not in the catalog"):
        checks.giants([*right.index[:-1], "2M99999999+9999999"], catalog)
    with pytest.raises(CheckFailed, match="lower SNR"):
        checks.giants(right.assign(snr=right.snr - 20), catalog)
    with pytest.raises(CheckFailed, match="not filled in"):
        checks.giants(..., catalog)


@pytest.mark.parametrize("sun", [(1.989e33, 6.957e10), (2e33, 7e10), (1.9884e33, 6.96e10)])
def test_rounded_constants_of_the_sun_are_right(sun):
    mass, radius = sun
    log_g = np.log10(6.674e-8 * mass / (np.array([1, 15, 100]) * radius) ** 2)
    assert "Right" in checks.gravity(list(log_g), 1, [1, 15, 100])


def test_mistakes_with_the_gravity():
    with pytest.raises(CheckFailed, match="1, 15 and 100"):
        checks.gravity([4.44, 2.44, 0.44], 1, [1, 10, 100])
    with pytest.raises(CheckFailed, match="not filled in"):
        checks.gravity(..., 1, [1, 15, 100])
    force = 6.674e-8 * 1.989e33
    with pytest.raises(CheckFailed, match="squared"):
        checks.gravity(np.log10(force / (np.array([1, 15, 100]) * 6.957e10)), 1, [1, 15, 100])


def test_the_median_is_not_the_mean():
    column = np.array([4000.0, 4100.0, 5000.0, -9999.0])
    with pytest.raises(CheckFailed, match="median"):
        checks.mean_label(4100.0, column)


def test_the_bits_of_the_assignment_are_right_where_nothing_was_measured(raw):
    mask = raw.mask.values.copy()
    dark = raw.assign(flux=raw.flux.where(raw.flux > 91, 0))
    dark = dark.assign(error=dark.error.where(dark.flux > 0, np.inf))
    assert "Right" in checks.pixels((mask & (0xFF | 4096)) == 0, dark)
    as_errors = np.where(mask & (0xFF | 4096), np.inf, 0.01)
    assert "Right" in checks.pixels(as_errors, dark)
    assert "Right" in checks.pixels(np.isfinite(dark.error), dark)


@pytest.mark.parametrize(
    ("good", "words"),
    [
        (lambda mask: ~np.isin(mask, [1 << bit for bit in (*range(8), 12)]), "mask == 2"),
        (lambda mask: mask & (0x7F | 4096) == 0, "bit 7"),
        (lambda mask: mask & (0xFF | 4096 | 16384) == 0, "12 and 14"),
        (lambda mask: ..., "not filled in"),
    ],
)
def test_more_wrong_bits(good, words):
    mask = RNG.choice([0, 0, 1, 3, 128, 4096, 4097, 8192, 16384], (3, 400))
    values = {"flux": np.ones(mask.shape), "error": np.ones(mask.shape), "mask": mask}
    raw = xr.Dataset({name: (("star", "wavelength"), value) for name, value in values.items()})
    with pytest.raises(CheckFailed, match=words):
        checks.pixels(good(mask), raw)


@pytest.fixture(scope="module")
def chip():
    """Flux, error and continuum pixels of a chip of 600 pixels, with noise of half a percent."""
    rng = np.random.default_rng(5)
    x = np.linspace(-1, 1, 600)
    error = rng.uniform(0.3, 0.7, x.size)
    lines = 10 * np.exp(-0.5 * ((np.arange(600) % 40 - 20) / 3.0) ** 2)
    flux = 100 + 10 * x + 3 * x**2 - lines + error * rng.standard_normal(x.size)
    use = lines < 0.01
    error[::50] = np.inf
    return flux, error, use


def fitted(flux, error, use, x=None, clip=None, degree=2):
    x = np.linspace(-1, 1, flux.size) if x is None else x
    kept = use & np.isfinite(error)
    for _ in range(5 if clip else 1):
        curve = np.polynomial.Chebyshev.fit(x[kept], flux[kept], degree, w=1 / error[kept])(x)
        if clip:
            kept = use & np.isfinite(error) & (np.abs(flux - curve) < clip * error)
    return curve


def test_other_continua_within_the_noise_are_right(chip):
    flux, error, use = chip
    wavelength = 15150 * np.exp(6e-6 * np.log(10) * np.arange(600))
    assert "Right" in checks.continuum(fitted(*chip, x=wavelength), *chip, trusted=use)
    assert "Right" in checks.continuum(fitted(*chip, clip=3), *chip, trusted=use)
    polynomial = np.polynomial.Chebyshev.fit(
        np.linspace(-1, 1, 600)[use & np.isfinite(error)],
        flux[use & np.isfinite(error)],
        2,
        w=1 / error[use & np.isfinite(error)],
    )
    assert "Right" in checks.continuum(polynomial, *chip, trusted=use)


def test_mistakes_with_the_continuum(chip):
    flux, error, use = chip
    everywhere = np.ones_like(use)
    shifted = np.roll(use, 20)
    dark = np.where(np.isfinite(error), flux, 0)
    wrong = {
        "lines included": (fitted(flux, error, everywhere), flux, error, everywhere),
        "not continuum of this chip": (fitted(flux, error, shifted), flux, error, shifted),
        "degree 4": (fitted(flux, error, use, degree=4), flux, error, use),
        "is 1 everywhere": (np.ones(600), np.ones(600), error, use),
        "keep a finite error": (flux, dark, np.where(np.isfinite(error), error, 0.01), use),
        "not filled in": (..., flux, error, use),
        "different lengths": (flux, flux, error, use[:-1]),
    }
    for words, arguments in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.continuum(*arguments, trusted=use)
    whole = np.ones(7214)
    with pytest.raises(CheckFailed, match="all chips in one fit"):
        checks.continuum(whole, whole, whole, whole > 0)


def test_errors_are_divided_by_the_same_continuum(chip):
    flux, error, _ = chip
    curve = fitted(*chip)
    assert "Right" in checks.normalized_error(error / curve, error, curve, flux)
    for words, value in {
        "left as they were": error,
        "twice": error / curve**2,
        "multiplied": error * curve,
        "by the flux": error / flux,
    }.items():
        with pytest.raises(CheckFailed, match=words):
            checks.normalized_error(value, error, curve, flux)


def test_a_coarse_grid_of_the_scatter_is_right():
    x = design(RNG.standard_normal((900, 2)))
    sigma = RNG.uniform(0.002, 0.01, 900)
    f = x @ (1, 0.05, -0.03, 0.01, 0, 0.02) + np.hypot(sigma, 0.006) * RNG.standard_normal(900)

    def solve(s2, power=1.0):
        w = (1 / (sigma**2 + s2)) ** power
        return np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * f))

    def height(s2):
        r, variance = f - x @ solve(s2), sigma**2 + s2
        return -0.5 * np.sum(r**2 / variance + np.log(variance))

    grid = np.geomspace(1e-9, 1e-1, 50)
    best = grid[np.argmax([height(s2) for s2 in grid])]
    assert "Right" in checks.scatter(solve(best), best, x, f, sigma)
    assert "Right" in checks.scatter(list(solve(best)), np.float32(best), x, f, sigma)
    for words, (theta, s2) in {
        "not weighted": (solve(best, 0), best),
        "1/√": (solve(best, 0.5), best),
        "negative": (solve(best), -1.0),
        "not filled in": (solve(best), ...),
    }.items():
        with pytest.raises(CheckFailed, match=words):
            checks.scatter(theta, s2, x, f, sigma)


def test_an_own_list_of_lines_is_right():
    lines = pd.DataFrame({"wavelength": np.linspace(15200, 16900, 17)})
    assert "Right" in checks.markers(lines.wavelength[2:9], lines)
    assert "Right" in checks.markers(list(lines.wavelength[[1, 4, 16]]), lines)
    air = lines.wavelength / 1.0002733
    with pytest.raises(CheckFailed, match="in air"):
        checks.markers(air, lines)
    with pytest.raises(CheckFailed, match="micron"):
        checks.markers(lines.wavelength / 1e4, lines)


def test_labels_in_any_container():
    cannon = made_up_cannon(pixels=300)
    spectra, _ = made_up_stars(cannon, 12, snr=600)
    names = list(cannon.labels)
    right = cannon.fit(spectra)[names]
    forms = (
        right,
        right.to_numpy(),
        {star: row.to_numpy() for star, row in right.iterrows()},
        right.iloc[::-1],
        right.iloc[:5],
    )
    for form in forms:
        assert "Right" in checks.labels(form, spectra, cannon)
    wrong = {
        "taught the model": (right, list(right.index[:3])),
        "no spectrum of": (right.rename(index={right.index[0]: "2M_other"}), ()),
        "the shape is": (right.to_numpy()[:, :3], ()),
        "not filled in": (..., ()),
        "changed places": (right.to_numpy()[:, [1, 2, 0, 3, 4]], ()),
        "have no labels": (right * np.nan, ()),
    }
    for words, (given, training) in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.labels(given, spectra, cannon, training)


def test_the_variance_of_the_likelihood():
    error, s2 = RNG.uniform(0.005, 0.02, 50), RNG.uniform(1e-6, 1e-4, 50)
    flux, model = RNG.normal(1, 0.01, 50), np.ones(50)

    def height(variance):
        return -0.5 * np.sum((flux - model) ** 2 / variance + np.log(2 * np.pi * variance))

    right = error**2 + s2
    assert "Right" in checks.likelihood(height(right), flux, model, right, error, s2)
    for words, variance in {
        "s² is missing": error**2,
        r"σ² \+ s$": error**2 + np.sqrt(s2),
        r"σ \+ s²": error + s2,
        "square root": np.sqrt(right),
        "σ² is missing": s2,
    }.items():
        with pytest.raises(CheckFailed, match=words):
            checks.likelihood(height(variance), flux, model, variance, error, s2)


def test_sequences_of_labels():
    names = ["teff", "logg", "fe_h", "mg_fe", "si_fe"]
    metals = pd.DataFrame([(4750, 2.5, f, 0, 0) for f in np.linspace(-1, 0.5, 7)], columns=names)
    logg = np.linspace(3.5, 0.5, 7)
    solar, poor = (giant_branch(best_isochrone(6, feh), logg) for feh in (0.0, -0.5))
    branch = pd.DataFrame({"teff": solar, "logg": logg, "fe_h": 0.0, "mg_fe": 0.0, "si_fe": 0.0})
    assert "Right" in checks.sequence(metals, "fe_h")
    assert "Right" in checks.sequence(branch.iloc[::-1], "logg")
    wrong = {
        "teff changes too": (metals.assign(teff=metals.fe_h), "fe_h"),
        "from -1 to 0.5": (metals.iloc[2:], "fe_h"),
        "are cooler": (branch.assign(teff=5000 - 100 * logg), "logg"),
        "at 9000 K": (metals.assign(teff=9000.0), "fe_h"),
        "temperatures of": (branch.assign(teff=poor), "logg"),
        "that of .Fe/H. = 0": (branch.assign(fe_h=-1.0), "logg"),
        "off the solar branch": (branch.assign(teff=3700 + 500 * logg), "logg"),
        "no column": (metals.drop(columns="si_fe"), "fe_h"),
    }
    for words, arguments in wrong.items():
        with pytest.raises(CheckFailed, match=words):
            checks.sequence(*arguments)


def test_a_scaler_that_has_seen_the_test_set():
    everyone = RNG.normal([4700, 2.5], [300, 0.5], (500, 2))
    training = everyone[:300]
    right = training.mean(axis=0), training.std(axis=0)
    assert "Right" in checks.scaler(*right, training, everyone)
    assert "Right" in checks.scaler(right[0], training.std(axis=0, ddof=1), training, everyone)
    with pytest.raises(CheckFailed, match="training set alone"):
        checks.scaler(everyone.mean(axis=0), everyone.std(axis=0), training, everyone)
    with pytest.raises(CheckFailed, match="training set alone"):
        checks.scaler(right[0], everyone.std(axis=0, ddof=1), training, everyone)


def test_pairs_in_another_order_and_the_labels_of_the_catalog():
    names = [name_of(row) for row in range(30)]
    ids = [f"2M{n:03d}" for n in range(30)]
    catalog = pd.DataFrame({"apogee_id": ids, "teff": 4000.0 + np.arange(30)}, index=names)
    catalog.loc[names[20], "apogee_id"] = "2M003"
    labels = pd.DataFrame({"teff": RNG.uniform(4000, 5000, 29)}, index=names[:7] + names[8:])
    right, _ = match(catalog, labels)
    pairs = labels.loc[right]
    assert "Right" in checks.pairing(pairs.sample(frac=1, random_state=1), catalog, labels)
    other = [names[20] if name == names[3] else name for name in right]
    assert "Right" in checks.pairing(labels.loc[other], catalog, labels)
    with pytest.raises(CheckFailed, match="catalog's labels"):
        checks.pairing(catalog.loc[right, ["teff"]], catalog, labels)
    with pytest.raises(CheckFailed, match="not filled in"):
        checks.pairing(..., catalog, labels)


def test_the_conversion_is_judged_by_its_abundances():
    """A table of [X/H], which right names and temperatures alone do not make."""
    names = ["a", "b", "c"]
    catalog = pd.DataFrame(
        {"fe_h": [-0.5, 0.0, 0.2], "mg_fe": [0.3, 0.1, 0.0], "si_fe": [0.2, 0.0, 0.1]}, names
    )
    right = pd.DataFrame(
        {"fe_h": catalog.fe_h, "mg_h": [-0.2, 0.1, 0.2], "si_h": [-0.3, 0.0, 0.3]}, names
    )
    assert checks.conversion(right[::-1], catalog) == "Right: [X/H] of 2 elements and 3 stars."
    for wrong, why in (
        (right.assign(mg_h=catalog.mg_fe), "mg_h is .Mg/Fe.; .Fe/H. has to be added"),
        (right.assign(si_h=catalog.si_fe - catalog.fe_h), "subtracted in si_h"),
        (right.assign(mg_h=0.0), "mg_h is not"),
        (right.assign(fe_h=2 * catalog.fe_h), "nothing is added"),
        (right[["fe_h"]], "no column such as mg_h"),
        (right.rename(index={"a": "x"}), "no star x"),
        (..., "not filled in yet"),
    ):
        with pytest.raises(checks.CheckFailed, match=why):
            checks.conversion(wrong, catalog)
