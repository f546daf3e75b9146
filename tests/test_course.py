"""The checks of the student version: right answers pass, and each typical mistake is called by its name."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from apogee_archive.catalog import read_tables
from lab_course import checks
from lab_course.checks import NotYet
from labtools import select_giants
from labtools.cannon import Cannon, design
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
        with pytest.raises(NotYet, match=words):
            checks.gravity(wrong, 1, [1, 15, 100])


def test_fillers_that_were_averaged():
    column = np.array([4800.0, -9999.0, 5000.0, -9999.99])
    assert "Right" in checks.mean_label(4900.0, column)
    for wrong, words in (
        (column.mean(), "averaged"),
        (column[[0, 2, 3]].mean(), "only one"),
        (2450.0, "zero"),
    ):
        with pytest.raises(NotYet, match=words):
            checks.mean_label(wrong, column)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    return read_tables(write_archive(tmp_path_factory.mktemp("archive"), number=40))


def test_giants_and_the_cut_that_was_forgotten(catalog):
    right = select_giants(catalog)
    assert "Right" in checks.giants(right, catalog)
    faint = catalog.assign(snr=np.where(np.arange(len(catalog)) < 5, 20.0, catalog.snr))
    with pytest.raises(NotYet, match="SNR"):
        checks.giants(select_giants(faint.assign(snr=100.0)), faint)
    with pytest.raises(NotYet, match="missing"):
        checks.giants(right.iloc[:-2], catalog)
    with pytest.raises(NotYet, match="twice"):
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
    [(12, "not 12"), (40, "added"), (0xFF, "bit 12, the bright"), (0x1FE | 4096, "1 to 8"), (16639, "pipeline"),
     (-1, "mere warning"), (0, "not used")],
)  # fmt: skip
def test_wrong_bits_of_the_mask(raw, bits, words):
    assert "Right" in checks.pixels(raw.mask & int(LAB_BITS) == 0, raw)
    with pytest.raises(NotYet, match=words):
        checks.pixels(raw.mask & bits == 0, raw)


def test_the_mask_turned_round(raw):
    with pytest.raises(NotYet, match="marks the bad"):
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
        with pytest.raises(NotYet, match=words):
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
        with pytest.raises(NotYet, match=words):
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
        "higher point": (solve(best / 30), best / 30), "weights are squared": (solve(best, 2), best),
        "left out": (solve(0), best),
    }  # fmt: skip
    for words, (theta, s2) in wrong.items():
        with pytest.raises(NotYet, match=words):
            checks.scatter(theta, s2, x, f, sigma)


def test_wavelengths_in_air():
    lines = pd.DataFrame({"wavelength": [15745.02, 15753.20, 15770.11]})
    assert "Right" in checks.markers([15770.1, 15745.0, 15753.2], lines)
    with pytest.raises(NotYet, match="in air"):
        checks.markers([15740.72, 15748.89, 15765.84], lines)
    with pytest.raises(NotYet, match="not where"):
        checks.markers([15740.7, 15748.9], lines)


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
        with pytest.raises(NotYet, match=words):
            checks.labels(wrong, spectra, cannon)
    with pytest.raises(NotYet, match=r"scatter s²"):
        checks.labels(bare, spectra, cannon)


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
        with pytest.raises(NotYet, match=words):
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
        with pytest.raises(NotYet, match=words):
            checks.pairing(wrong, catalog, labels)


def test_a_student_sees_one_line_and_no_traceback():
    assert NotYet("the labels: far off")._render_traceback_() == ["Not yet: the labels: far off"]
