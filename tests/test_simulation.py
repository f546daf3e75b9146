"""The simulated survey: its stars, its formats, and that its truth comes back out."""

import warnings

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from labtools import LABELS, Cannon, normalize, select_giants, split_by_star
from labtools.apstar import read_apstar
from labtools.simulation.archive import observe
from labtools.simulation.population import MYSTERY, catalogue_tables, draw_population
from labtools.simulation.synthesis import synthesize
from labtools.spectra import GRID, LAB_BITS, WAVELENGTH, chips


@pytest.fixture(scope="module")
def truth():
    return draw_population(seed=5)


def test_the_population_repeats_itself(truth):
    assert truth.equals(draw_population(seed=5))
    assert not truth.equals(draw_population(seed=6))
    assert truth.index.is_unique
    assert truth.index.str.fullmatch(r"2M\d{8}[+-]\d{7}").all()


def test_names_are_positions(truth):
    ra = 15 * (truth.index.str[2:4].astype(int) + truth.index.str[4:6].astype(int) / 60)
    assert np.abs(ra - truth.ra).max() < 0.3
    sign = np.where(truth.index.str[10] == "-", -1, 1)
    assert np.abs(sign * truth.index.str[11:13].astype(int) - truth.dec).max() < 1


def test_the_catalogue_holds_what_the_cuts_must_remove(truth):
    stars, labels = catalogue_tables(truth, 5)
    catalogue = stars.merge(labels.drop(columns="apogee_id"), on="apstar_id").set_index("apogee_id")
    for gone in (
        (labels[LABELS] < -9000).any(axis=1),
        stars.snr < 50,
        labels.logg > 4,
        labels.fe_h.between(-9, -1),
    ):
        assert gone.sum() > 20
    assert stars.extratarg.eq(16).sum() > 20
    giants = select_giants(catalogue.replace([-9999.0, -9999.99], np.nan))
    assert 1800 < len(giants) < 2000
    assert {"2M21235315+1244123", "2M03533659+2512012"} <= set(giants.index)
    assert set(giants.field) == {"M15", "N6791", "K2_C4_168-21", "060+00"}
    assert giants.aspcapflag.gt(0).sum() > 10
    assert giants.starflag.gt(0).sum() > 10


def test_catalogue_errors_are_as_quoted(truth):
    stars, labels = catalogue_tables(truth, 5)
    labels = labels.assign(extratarg=stars.extratarg).set_index("apogee_id")
    plain = truth.index[(truth.kind == "giant") & (truth.peculiar == "")]
    labels = labels[labels.extratarg == 0].loc[plain]
    for name in LABELS:
        pulls = (labels[name] - truth.loc[plain, name]) / labels[f"{name}_err"]
        assert pulls.mean() == pytest.approx(0, abs=0.1)
        assert pulls.std() == pytest.approx(1, abs=0.07)


def test_giants_have_two_sequences_and_a_clump(truth):
    giants = truth[truth.kind == "giant"]
    assert giants.logg.between(2.2, 2.7).mean() > 0.4
    rest = giants.si_fe - np.polyval(np.polyfit(giants.mg_fe, giants.si_fe, 2), giants.mg_fe)
    assert rest.std() > 0.02, "[Si/Fe] is no function of [Mg/Fe]"
    middle = giants[giants.fe_h.between(-0.6, -0.3)].mg_fe
    low, gap, high = (middle.between(a, b).sum() / (b - a) for a, b in ((0.05, 0.13), (0.16, 0.2), (0.23, 0.31)))
    assert gap < 0.6 * min(low, high), "a gap between the sequences"


@pytest.fixture(scope="module")
def images():
    star = pd.Series(MYSTERY.to_dict() | {"vhelio": 20.0, "peculiar": "", "nvisits": 3, "snr": 150.0})
    model = synthesize(MYSTERY.to_frame("m").T[LABELS].astype(float)).values[0]
    return model, star, {n: observe(model, star, np.random.default_rng(n)) for n in (1, 2)}


def test_noise_is_what_the_error_says(images):
    model, _, observed = images
    spectra = [
        (flux[0], error[0], (mask[0] & int(LAB_BITS) == 0) & (flux[0] != 0)) for flux, error, mask in observed.values()
    ]
    for flux, error, good in spectra:
        smooth = np.full(flux.size, np.nan)
        for first, last in ((300, 3280), (3630, 6090), (6390, 8340)):
            x = np.linspace(-1, 1, last - first)
            use = good[first:last]
            ratio = flux[first:last] / model[first:last]
            smooth[first:last] = np.polyval(np.polyfit(x[use], ratio[use], 6), x)
        pull = ((flux / model - smooth) / (error / model))[good & np.isfinite(smooth)]
        assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1, abs=0.06)
        assert np.mean(np.abs(pull) > 5) < 0.01


def test_rows_are_laid_out_as_in_dr17(images):
    model, star, observed = images
    flux, error, mask = observed[1]
    assert flux.shape == error.shape == mask.shape == (5, WAVELENGTH.size)
    assert np.all(mask[1] == 0), "row 1 has no mask"
    np.testing.assert_array_equal(mask[0], mask[2] & mask[3] & mask[4])
    single = star.copy()
    single["nvisits"] = 1
    flux, error, mask = observe(model, single, np.random.default_rng(3))
    assert flux.shape == (2, WAVELENGTH.size)
    assert not flux[1].any()
    assert not error[1].any()
    assert not mask[1].any()


def test_a_pixel_without_a_good_visit_counts_for_nothing(images):
    """Bad in two visits for two reasons: no bit is shared, and only the error can say so."""
    model, star, _ = images
    star = star.copy()
    star["nvisits"] = 2
    hopeless = 0
    for seed in range(20):
        flux, error, mask = observe(model, star, np.random.default_rng(seed))
        lost = (mask[2:] & 0xFF > 0).all(axis=0)
        assert (error[0, lost] >= 1e10).all()
        assert (flux[0, lost] == 0).all()
        assert (error[0, ~lost] < 1e5).all()
        hopeless += (lost & (mask[0] & int(LAB_BITS) == 0)).sum()
    assert hopeless > 0, "the case occurs"


def test_real_files_treat_such_pixels_so(shared_data):
    several = 0
    for path in (shared_data / "apstar-dr13").glob("*.fits"):
        with fits.open(path) as hdus:
            flux, error, mask = (np.atleast_2d(hdus[number].data) for number in (1, 2, 3))
        if len(mask) > 1:
            lost = (mask[2:] & 0xFF > 0).all(axis=0)
            assert (error[0, lost] >= 1e10).all()
            assert (flux[0, lost] == 0).all()
            several += 1
    assert several >= 3


@pytest.fixture(scope="module")
def survey():
    """The survey that the notebooks use too; written below the data folder if it is not there yet."""
    from labtools import open_survey

    return open_survey("simulated")


def test_files_read_as_real_ones_do(survey):
    giants = select_giants(survey.catalog())
    spectra = survey.spectra(giants.index[:5])
    assert spectra.sizes == {"star": 5, "wavelength": WAVELENGTH.size}
    np.testing.assert_allclose(spectra.wavelength, WAVELENGTH, rtol=1e-12)
    path = next(survey.root.glob("simulated/**/M15/apStar-dr17-2M21235315+1244123.fits"))
    with fits.open(path) as hdus, warnings.catch_warnings():
        warnings.simplefilter("error")
        hdus.verify("exception")
        assert hdus[0].header["NVISITS"] == 2
        assert hdus[0].header["SURVEY"] == "simulated"
        assert [hdus[k].data.shape for k in (1, 2, 3)] == 3 * [(4, 8575)]
        assert len(hdus) == 11
    star = read_apstar(path)
    assert star.attrs["snr"] == pytest.approx(180)
    ends = [star.attrs[key] for key in ("blue_min", "blue_max", "green_min", "green_max", "red_min", "red_max")]
    lit = np.flatnonzero(star.flux.values[0])
    assert ends[0] == lit[0]
    assert ends[-1] == lit[-1]
    assert all(np.diff(ends) > 0)


def test_the_mystery_star_has_no_labels(survey):
    assert survey.mystery().sizes["star"] == 1
    assert "mystery" not in survey.catalog().index
    assert survey.truth().loc["mystery", "teff"] == MYSTERY.teff


def test_continuum_pixels_cover_the_chips(survey):
    pixels = survey.continuum_pixels()
    np.testing.assert_allclose(pixels.wavelength, WAVELENGTH[GRID], rtol=1e-12)
    for chip in chips(pixels.wavelength):
        inside = pixels.wavelength[chip][pixels[chip]].values
        assert inside.size > 60
        assert np.diff(inside).max() < 70


def test_the_map_resembles_the_courses(survey, shared_data):
    with np.load(shared_data / "course" / "cannon_continuum_apogee.npz", allow_pickle=False) as course:
        both = (survey.continuum_pixels().values & course["trusted"]).sum()
        chance = survey.continuum_pixels().values.mean() * course["trusted"].sum()
    assert both > 2.5 * chance


def test_labels_come_back_out(survey):
    """Closure: a Cannon taught by 400 catalogue entries finds the true labels of other stars."""
    giants = select_giants(survey.catalog())
    giants = giants[(giants.aspcapflag < 1 << 23) & (giants.starflag == 0)].iloc[::3]
    spectra = normalize(survey.spectra(giants), survey.continuum_pixels())
    teach, test = split_by_star(giants.index, seed=1, fraction=0.75)
    model = Cannon.train(spectra.sel(star=teach), giants.loc[teach, LABELS])
    found = model.fit(spectra.sel(star=test))
    off = found[LABELS] - survey.truth().loc[test, LABELS]
    limits = {"teff": 35, "logg": 0.12, "fe_h": 0.035, "mg_fe": 0.05, "si_fe": 0.05}
    for name, limit in limits.items():
        assert 1.4826 * (off[name] - off[name].median()).abs().median() < limit, name
        assert abs(off[name].median()) < limit / 2, name
    assert found.converged.mean() > 0.99


def test_similar_stars_have_similar_spectra(survey):
    """Two stars of the same labels, observed with different continua, noise and masks, agree within their noise."""
    truth = survey.truth()
    star = truth[(truth.kind == "giant") & (truth.peculiar == "")].iloc[40]
    model = synthesize(star[LABELS].astype(float).to_frame("s").T).values[0]
    pair = []
    for seed in (1, 2):
        flux, error, mask = observe(model, star, np.random.default_rng(seed))
        bad = (mask[0] & int(LAB_BITS) > 0) | (flux[0] == 0)
        one = survey.mystery()
        one = one.assign(
            flux=one.flux.copy(data=flux[:1]),
            error=one.error.copy(data=np.where(bad, np.inf, error[0])[None]),
        )
        pair.append(normalize(one, survey.continuum_pixels()))
    pull = (pair[0].flux - pair[1].flux).values / np.hypot(pair[0].error, pair[1].error).values
    pull = pull[np.isfinite(pull) & (pull != 0)]
    assert 1.4826 * np.median(np.abs(pull)) == pytest.approx(1, abs=0.12)
