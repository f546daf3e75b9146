"""Grids, the continuum fit, and what it must not be upset by."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.polynomial import Chebyshev

from labtools import continuum as room
from labtools.continuum import find_continuum_pixels, normalize, running_quantile
from labtools.spectra import CHIPS, GRID, WAVELENGTH, cap_snr, chips, resample

DIMS = ("star", "wavelength")


@pytest.fixture
def pixels():
    """A map like the course's: every tenth pixel, none in the outer 100 of the green chip."""
    trusted = np.arange(GRID.size) % 10 == 0
    trusted[2920:3020] = trusted[5220:5320] = False
    return xr.DataArray(trusted, coords={"wavelength": WAVELENGTH[GRID]})


def smooth(number, seed=0, degree=2):
    """Continua (number, 8575) that are parabolas on each chip of the grid."""
    rng = np.random.default_rng(seed)
    level = np.zeros((number, WAVELENGTH.size))
    for chip in chips(WAVELENGTH[GRID]):
        x = np.linspace(-1, 1, chip.stop - chip.start)
        for row in level:
            row[GRID[chip]] = 500 * Chebyshev(np.r_[1, rng.normal(0, 0.08, degree)])(x)
    return level


def as_spectra(flux, error):
    flux = np.array(np.atleast_2d(flux))
    error = np.where(flux != 0, np.broadcast_to(error, flux.shape), np.inf)
    names = [f"s{number}" for number in range(len(flux))]
    return xr.Dataset(
        {"flux": (DIMS, flux), "error": (DIMS, error)},
        coords={"star": names, "wavelength": WAVELENGTH},
    )


def test_a_parabola_is_found_exactly(pixels):
    level = smooth(3)
    result = normalize(as_spectra(level, 5.0), pixels)
    np.testing.assert_allclose(result.flux, 1, rtol=1e-10)
    np.testing.assert_allclose(result.continuum, level[:, GRID], rtol=1e-10)
    np.testing.assert_allclose(result.error, 5.0 / level[:, GRID], rtol=1e-10)


def test_noise_lines_and_outliers_do_not_pull_it(pixels):
    rng = np.random.default_rng(1)
    level = smooth(20, seed=1)
    error = level / 100
    flux = level + error * rng.standard_normal(level.shape)
    inside = GRID[~pixels.values]
    flux[:, rng.choice(inside, 2000)] *= 0.6
    hit = rng.choice(GRID[pixels.values], 25, replace=False)
    flux[:, hit] *= rng.choice([0.3, 3.0], 25)
    result = normalize(as_spectra(flux, error), pixels)
    ratio = result.continuum.values / level[:, GRID]
    assert np.abs(ratio - 1).max() < 0.015, "also at the ends of the green chip"
    assert np.sqrt(np.mean((ratio - 1) ** 2)) < 0.003


def test_weights_are_those_of_a_least_squares_fit(pixels):
    """One chip against numpy's own fit, which takes 1/σ and squares it."""
    rng = np.random.default_rng(2)
    level = smooth(1, seed=2)
    error = level * rng.uniform(0.002, 0.05, level.shape)
    flux = level + error * rng.standard_normal(level.shape)
    result = normalize(as_spectra(flux, error), pixels, clip=np.inf)
    chip = chips(WAVELENGTH[GRID])[1]
    x = np.linspace(-1, 1, chip.stop - chip.start)
    use, own = pixels.values[chip], GRID[chip]
    reference = Chebyshev.fit(
        x[use], flux[0, own][use], 2, w=1 / error[0, own][use], domain=[-1, 1]
    )
    np.testing.assert_allclose(result.continuum.values[0, chip], reference(x), rtol=1e-9)


def test_masked_pixels_do_not_count_and_stay_masked(pixels):
    level = smooth(1)
    spectra = as_spectra(level, 5.0)
    bad = GRID[pixels.values][::3]
    spectra.flux[0, bad] = 1e6
    spectra.error[0, bad] = np.inf
    result = normalize(spectra, pixels)
    np.testing.assert_allclose(result.continuum, level[:, GRID], rtol=1e-10)
    assert np.isinf(result.error.values[0, np.isin(GRID, bad)]).all()
    assert np.isfinite(result.flux).all()


def test_a_chip_with_too_few_continuum_pixels_is_masked_and_named(pixels):
    spectra = as_spectra(smooth(2), 5.0)
    green = GRID[2920:5320]
    spectra.error[1, green[pixels.values[2920:5320]][:-5]] = np.inf
    with pytest.warns(UserWarning, match=r"chip 2 .* 1 star.*s1"):
        result = normalize(spectra, pixels)
    assert np.isinf(result.error[1, 2920:5320]).all()
    assert np.isfinite(result.error[1, :2920]).all()
    assert np.isfinite(result.error[0]).all()
    assert np.isfinite(result.flux).all()


def test_a_chip_whose_continuum_pixels_crowd_at_one_end_is_masked(pixels):
    spectra = as_spectra(smooth(1), 5.0)
    spectra.error[0, GRID[700:2920]] = np.inf
    with pytest.warns(UserWarning, match="chip 1"):
        assert np.isinf(normalize(spectra, pixels).error[0, :2920]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, p: (s, p.values), "DataArray"),
        (lambda s, p: (s, p.astype(float)), "boolean"),
        (lambda s, p: (s.drop_vars("error"), p), "flux and error"),
        (lambda s, p: (s.assign(error=s.error * np.inf), p), "no usable pixel"),
        (lambda s, p: (s.assign(error=s.error * 0), p), "no usable pixel"),
        (lambda s, p: (s.assign(error=s.error * 1e-31), p), "no usable pixel"),
        (
            lambda s, p: (s.assign_coords(wavelength=s.wavelength * np.nan), p),
            "wavelengths .* increase",
        ),
        (
            lambda s, p: (s, p.assign_coords(wavelength=p.wavelength.where(p.wavelength > 15200))),
            "wavelengths",
        ),
        (lambda s, p: (s.isel(wavelength=slice(None, None, -1)), p), "wavelengths"),
        (lambda s, p: (s, p, -1), "degree"),
        (lambda s, p: (s, p, 2.5), "degree"),
    ],
)
def test_input_that_is_something_else(pixels, change, message):
    with pytest.raises(ValueError, match=message):
        normalize(*change(as_spectra(smooth(1), 5.0), pixels))


def test_a_continuum_of_degree_0_is_a_level(pixels):
    spectra = as_spectra(np.full((2, WAVELENGTH.size), 7.0), 0.1)
    np.testing.assert_allclose(normalize(spectra, pixels, degree=0).flux, 1, rtol=1e-10)


def test_errors_that_are_none_mask_their_pixels(pixels):
    level = smooth(1)
    clean, harmed = as_spectra(level, 5.0), as_spectra(level, 5.0)
    at = GRID[[500, 510, 520, 530]]
    harmed.error[0, at] = [0, -5, np.nan, 1e-30]
    harmed.flux[0, at] = 1e7
    result = normalize(harmed, pixels)
    assert np.isinf(result.error.values[0, [500, 510, 520, 530]]).all()
    assert np.isinf(result.error).sum() == 4
    np.testing.assert_allclose(result.continuum, normalize(clean, pixels).continuum, rtol=1e-10)


def test_one_star_picked_out_and_transposed_spectra(pixels):
    spectra = as_spectra(smooth(3), 5.0)
    whole = normalize(spectra, pixels)
    np.testing.assert_allclose(
        normalize(spectra.isel(star=1), pixels).continuum[0], whole.continuum[1], rtol=1e-12
    )
    np.testing.assert_array_equal(
        normalize(spectra.transpose("wavelength", "star"), pixels).flux, whole.flux
    )


def test_some_stars_at_a_time_give_the_same_numbers(pixels, monkeypatch):
    spectra = as_spectra(smooth(7), 5.0).assign_attrs(source="made up")
    spectra["mask"] = spectra.flux.astype("int32")
    spectra["snr"] = "star", np.arange(7.0)
    whole = normalize(spectra, pixels)
    monkeypatch.setattr(room, "CHUNK", 3)
    np.testing.assert_array_equal(whole.mask, spectra.mask[:, GRID])
    assert whole.attrs["source"] == "made up"
    pd.testing.assert_index_equal(whole.indexes["star"], spectra.indexes["star"])
    xr.testing.assert_allclose(normalize(spectra, pixels), whole, rtol=1e-12)


def test_memory_and_precision_are_those_of_the_input(pixels):
    spectra = as_spectra(np.repeat(smooth(1), 2000, axis=0), 5.0).astype("float32")
    tracemalloc.start()
    result = normalize(spectra, pixels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * (spectra.flux.nbytes + spectra.error.nbytes)
    between = normalize(
        spectra.isel(star=[0]), pixels.assign_coords(wavelength=pixels.wavelength * (1 + 3e-6))
    )
    kinds = [array.dtype for made in (result, between) for array in made.data_vars.values()]
    assert set(kinds) == {np.dtype("float32")}
    double = normalize(spectra.isel(star=[0]).astype(float), pixels)
    error = double.error.values[0]
    assert np.abs((result.flux[0] - double.flux[0]) / error).max() < 1e-3
    assert np.abs(result.error[0] / double.error[0] - 1).max() < 1e-6


def test_the_courses_grid_is_part_of_the_surveys(shared_data):
    with np.load(
        shared_data / "course" / "cannon_continuum_apogee.npz", allow_pickle=False
    ) as course:
        np.testing.assert_allclose(WAVELENGTH[GRID], course["wavelengths"], rtol=1e-12)
        wanted = course["wavelengths"]
    flux = np.arange(1.0, WAVELENGTH.size + 1)
    np.testing.assert_array_equal(resample(as_spectra(flux, 1.0), wanted).flux[0], flux[GRID])


def test_foreign_grids_are_interpolated_without_spreading_bad_pixels():
    flux = np.linspace(100, 200, WAVELENGTH.size)
    spectra = as_spectra(flux.copy(), 2.0)
    spectra.flux[0, 4000], spectra.error[0, 4000] = 1e9, np.inf
    new = np.sqrt(WAVELENGTH[3990:4010] * WAVELENGTH[3991:4011])
    result = resample(spectra, new)
    np.testing.assert_allclose(result.flux[0], (flux[3990:4010] + flux[3991:4011]) / 2, rtol=1e-4)
    assert set(np.unique(result.error)) == {2.0, np.inf}
    assert np.isinf(result.error).sum() == 1
    outside = resample(spectra, np.array([15000.0, 16000.3, 17100.0]))
    np.testing.assert_array_equal(np.isinf(outside.error[0]), [True, False, True])


def test_cap_of_the_signal_to_noise_ratio():
    spectra = as_spectra(
        np.full(WAVELENGTH.size, 100.0), np.where(np.arange(WAVELENGTH.size) < 9, 0.1, 3.0)
    )
    spectra.error[0, 20] = np.inf
    capped = cap_snr(spectra, 200)
    assert capped.error[0, 0] == 0.5
    assert capped.error[0, 10] == 3.0
    assert np.isinf(capped.error[0, 20])


def test_the_running_quantile_follows_the_continuum():
    level = np.outer([500.0, 20.0], 1 + 1e-5 * (WAVELENGTH - 16000))
    spectra = as_spectra(level.copy(), 5.0).isel(wavelength=GRID)
    spectra.flux[:, ::7] *= 0.5
    spectra.flux[0, 100], spectra.error[0, 100] = 1e9, np.inf
    envelope = running_quantile(spectra)
    np.testing.assert_allclose(envelope, level[:, GRID], rtol=1e-3)


def test_continuum_pixels_are_those_that_do_not_change():
    rng = np.random.default_rng(3)
    names = [f"s{number}" for number in range(60)]
    labels = pd.DataFrame(
        {
            "teff": rng.normal(4700, 200, 60),
            "logg": rng.normal(2.4, 0.5, 60),
            "fe_h": rng.normal(0, 0.2, 60),
        },
        index=names,
    )
    flux = np.ones((60, 400))
    flux[:, 50:100] += 3e-5 * (labels.teff.to_numpy() - 4700)[:, None]
    flux[:, 100:150] += 0.02 * (labels.logg.to_numpy() - 2.4)[:, None]
    flux[:, 150:200] += 0.03 * labels.fe_h.to_numpy()[:, None]
    flux[:, 200:250] -= 0.1
    coords = {"star": names, "wavelength": WAVELENGTH[4000:4400]}
    spectra = xr.Dataset(
        {"flux": (DIMS, flux), "error": (DIMS, np.full(flux.shape, 0.01))}, coords=coords
    )
    spectra.error[:, 300:310] = np.inf
    found = find_continuum_pixels(spectra, labels).values
    expected = np.ones(400, bool)
    expected[50:250] = expected[300:310] = False
    np.testing.assert_array_equal(found, expected)


def test_a_map_on_all_pixels_has_a_polynomial_for_each_chip(pixels):
    """Some courses hand out a map on the survey's own grid, which runs across the gaps."""
    trusted = np.zeros(WAVELENGTH.size, bool)
    trusted[GRID] = pixels.values
    everywhere = xr.DataArray(trusted, coords={"wavelength": WAVELENGTH})
    flux, error = np.zeros((1, WAVELENGTH.size)), np.full((1, WAVELENGTH.size), np.inf)
    for level, (first, last) in zip((100.0, 160.0, 120.0), CHIPS, strict=True):
        flux[0, first : last + 1], error[0, first : last + 1] = level, 1.0
    result = normalize(as_spectra(flux, error), everywhere)
    seen = result.flux.values[np.isfinite(result.error.values)]
    assert seen.size == sum(last - first + 1 for first, last in CHIPS)
    np.testing.assert_allclose(seen, 1, rtol=1e-9)


def test_chips_of_other_grids():
    assert [(c.start, c.stop) for c in chips(WAVELENGTH[GRID])] == [
        (0, 2920),
        (2920, 5320),
        (5320, 7214),
    ]
    assert len(chips(WAVELENGTH * (1 + 3e-6))) == 3, "half a pixel away"
    assert len(chips(WAVELENGTH[4000:4400])) == 1
    assert len(chips(np.arange(9000.0, 18000.0, 1.1))) == 1, "another instrument's pixels"


def test_the_cap_leaves_unusable_pixels_unusable():
    error = np.array([np.nan, 0.0, -1.0, np.inf, 0.1, 3.0, 0.1])
    flux = np.array([100.0] * 6 + [np.nan])
    spectra = as_spectra(np.full(WAVELENGTH.size, 100.0), 3.0).isel(wavelength=slice(7))
    spectra.flux.values[0], spectra.error.values[0] = flux, error
    capped = cap_snr(spectra).error.values[0]
    np.testing.assert_array_equal(capped, [np.inf] * 4 + [0.5, 3.0, np.inf])
    for limit in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="limit"):
            cap_snr(spectra, limit)


def test_one_star_picked_out_is_as_good_as_many(pixels):
    spectra = as_spectra(smooth(2), 5.0).isel(wavelength=GRID)
    one, several = spectra.isel(star=1), spectra.isel(star=[1])
    between = np.sqrt(WAVELENGTH[500:510] * WAVELENGTH[501:511])
    for wavelength in (WAVELENGTH[GRID][:50], between):
        xr.testing.assert_identical(resample(one, wavelength), resample(several, wavelength))
        xr.testing.assert_identical(
            resample(one, wavelength), resample(several.transpose(), wavelength)
        )
    np.testing.assert_array_equal(running_quantile(one), running_quantile(several))
    np.testing.assert_array_equal(cap_snr(one).error, cap_snr(several).error[0])


@pytest.mark.parametrize("degree", [np.int64(2), np.int8(2)])
def test_options_may_be_numbers_of_numpy(pixels, degree):
    spectra = as_spectra(smooth(1), 5.0)
    xr.testing.assert_identical(normalize(spectra, pixels, degree), normalize(spectra, pixels))


@pytest.mark.parametrize("clip", [0, -1, np.nan])
def test_a_clip_that_leaves_nothing_is_refused(pixels, clip):
    with pytest.raises(ValueError, match="clip"):
        normalize(as_spectra(smooth(1), 5.0), pixels, clip=clip)
