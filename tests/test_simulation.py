"""The simulated survey: its stars, its formats, and that its truth comes back out."""

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from apogee_archive import settings
from apogee_archive.apstar import read_apstar
from apogee_archive.errors import CorruptFileError
from labtools import (
    LABELS,
    Cannon,
    normalize,
    open_survey,
    real_mystery,
    select_giants,
    split_by_star,
)
from labtools.isochrones import best_isochrone, giant_branch, isochrone, shipped_isochrones
from labtools.spectra import GRID, LAB_BITS, WAVELENGTH, chips
from mock_survey import archive
from mock_survey.catalog import ERROR_SCALE, ERRORS, SYSTEMATICS
from mock_survey.instrument import observe, throughput
from mock_survey.population import MYSTERY, NAMED, draw_population
from mock_survey.synthesis import synthesize


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


@pytest.mark.parametrize("stars", [60, 300])
def test_a_small_survey_has_every_kind_of_star(stars):
    small = draw_population(128, stars)
    giants = small[small.kind == "giant"]
    assert len(giants) == pytest.approx(stars, abs=3)
    assert set(NAMED) <= set(giants.index)
    assert set(small.kind) == {"giant", "dwarf", "metal-poor", "faint", "no labels"}
    assert set(small.anomaly) == {
        "",
        "bad labels",
        "fast rotator",
        "wrong velocity",
        "blue persistence",
    }


@pytest.mark.parametrize("stars", [0, 59, 1901])
def test_another_size_is_refused(stars):
    with pytest.raises(ValueError, match="LAB_STARS"):
        draw_population(128, stars)


@pytest.fixture(scope="module")
def small_root(tmp_path_factory):
    return tmp_path_factory.mktemp("small")


@pytest.fixture
def small(small_root, monkeypatch):
    """Folder of data with a survey of 60 giants, which is written once."""
    monkeypatch.setenv("LAB_STARS", "60")
    assert open_survey("simulated", small_root).folder.is_dir()
    return small_root


def flip(path, byte):
    content = bytearray(path.read_bytes())
    content[byte] ^= 4
    path.write_bytes(content)


def test_a_flipped_bit_of_a_spectrum_is_noticed(small):
    survey = open_survey("simulated", small)
    ids = survey.catalog().index.unique()[:5]
    path = survey.path(ids[2])
    flip(path, 80_000)
    with pytest.warns(
        UserWarning, match=f"(?s)1 of 5 spectra are left out.*{ids[2].replace('+', '.')}.*sha1"
    ):
        assert survey.spectra(ids).star.values.tolist() == [star for star in ids if star != ids[2]]
    flip(path, 80_000)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("apogeeStar.csv", "catalog"),
        ("aspcapStar.csv", "catalog"),
        ("truth.csv", "truth"),
        ("mystery.fits", "mystery"),
        ("continuum_pixels.npz", "continuum_pixels"),
    ],
)
def test_a_flipped_bit_of_any_other_file_is_noticed_when_it_is_read(small, name, read):
    survey = open_survey("simulated", small)
    path, rng = survey.folder / name, np.random.default_rng(1)
    for byte in rng.integers(path.stat().st_size, size=20):
        flip(path, byte)
        with pytest.raises(CorruptFileError, match=f"{name} is damaged"):
            getattr(survey, read)()
        flip(path, byte)
    getattr(survey, read)()


@pytest.mark.parametrize("damage", ["a flipped bit", "an emptied list of checksums"])
def test_a_damaged_survey_is_made_again(small, damage):
    folder = open_survey("simulated", small).folder
    before = (folder / "truth.csv").read_bytes()
    if damage == "a flipped bit":
        flip(folder / "truth.csv", 4000)
    else:
        next(folder.glob("sas/**/*.sha1sum")).write_text("")
    survey = open_survey("simulated", small)
    with pytest.warns(UserWarning, match="is damaged and is made again"):
        assert survey.folder == folder
    assert len(survey.truth()) > 60
    assert (survey.folder / "truth.csv").read_bytes() == before


def test_a_damaged_survey_of_someone_else_is_passed_over(small, tmp_path, monkeypatch):
    folder = open_survey("simulated", small).folder
    flip(folder / "truth.csv", 4000)
    monkeypatch.setenv("LAB_DATA_SHARED", str(small))
    monkeypatch.setattr(archive, "_write_all", lambda made, seed, stars: (made / "own").touch())
    with pytest.warns(UserWarning, match="is damaged"):
        own = open_survey("simulated", tmp_path).folder
    assert own.is_relative_to(tmp_path)
    flip(folder / "truth.csv", 4000)
    assert open_survey("simulated", tmp_path / "elsewhere").folder == folder


def test_a_size_that_is_no_number_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_STARS", "many")
    with pytest.raises(ValueError, match="LAB_STARS is a whole number"):
        archive.write_survey([tmp_path])
    monkeypatch.setenv("LAB_STARS", "60")
    monkeypatch.setenv("LAB_SEED", "mine")
    with pytest.raises(ValueError, match="LAB_SEED is a whole number"):
        archive.write_survey([tmp_path])


def test_the_key_holds_all_that_a_survey_depends_on(monkeypatch, tmp_path):
    first = archive.survey_key(128, 1900)
    keys = {first, archive.survey_key(129, 1900), archive.survey_key(128, 300)}
    other = tmp_path / "other.csv"
    other.write_text("another table")
    tables = [
        [*archive.TABLES[:n], other, *archive.TABLES[n + 1 :]] for n in range(len(archive.TABLES))
    ]
    changes = [
        ("VERSION", archive.VERSION + 1),
        ("MODEL", archive.MODEL + 1),
        *(("TABLES", some) for some in tables),
    ]
    for name, value in changes:
        with monkeypatch.context() as changed:
            changed.setattr(archive, name, value)
            keys.add(archive.survey_key(128, 1900))
    assert len(keys) == 3 + len(changes) == 13
    assert archive.survey_key(128, 1900) == first


def test_giants_stand_on_their_isochrones(truth):
    """Branch and clump of the younger sequence are where the isochrone of 6 Gyr has them: this is
    what 05 measures."""
    giants = truth[(truth.kind == "giant") & (truth.mg_fe < 0.15) & truth.fe_h.between(-0.6, 0.4)]
    at_six = cache(lambda fe_h: best_isochrone(6, fe_h))  # Gyr; many stars share one
    branch, clump = giants[giants.phase == 2], giants[giants.phase == 3]
    offset = [
        star.teff - giant_branch(at_six(round(star.fe_h, 1)), star.logg)
        for _, star in branch.iloc[::5].iterrows()
    ]
    assert abs(np.nanmedian(offset)) < 40
    assert 1.4826 * np.nanmedian(np.abs(offset - np.nanmedian(offset))) < 60
    one = at_six(0)
    burning = one[(one.phase == 3) & (one.eep > 631)]
    assert clump.logg.median() == pytest.approx(burning.log_g.median(), abs=0.1)
    hotter = clump.teff - [
        giant_branch(at_six(round(f, 1)), g) for f, g in clump[["fe_h", "logg"]].values
    ]
    assert 60 < hotter.median() < 250


def test_the_mystery_star_is_a_giant_of_eight_gigayears():
    metals = MYSTERY.fe_h + np.log10(0.638 * 10 ** ((MYSTERY.mg_fe + MYSTERY.si_fe) / 2) + 0.362)
    branch = giant_branch(isochrone(shipped_isochrones(), 8, metals), MYSTERY.logg)
    assert MYSTERY.teff == pytest.approx(branch, abs=5)


def test_gravities_are_distributed_as_in_the_survey(truth, shared_data):
    real = pd.read_csv(shared_data / "dr12-labels" / "apogee_dr12_labels.csv")
    real = real[real.FE_H.between(-1, 0.5) & real.LOGG.between(0.5, 3.45)].LOGG
    ours = truth[truth.kind == "giant"].logg
    for edges in ((0.5, 2.0), (2.25, 2.75), (2.75, 3.45)):
        assert ours.between(*edges).mean() == pytest.approx(real.between(*edges).mean(), abs=0.09)


def test_abundances_follow_trends_and_scatter(truth):
    giants = truth[truth.kind == "giant"]
    alpha = (giants.mg_fe + giants.si_fe) / 2
    lockstep = {
        name: np.corrcoef(giants[name], alpha)[0, 1] for name in ("ca_fe", "s_fe", "o_fe", "al_fe")
    }
    assert all(0.6 < r < 0.995 for r in lockstep.values()), lockstep
    slopes = {name: np.polyfit(alpha, giants[name], 1)[0] for name in ("ca_fe", "al_fe", "mn_fe")}
    assert slopes["mn_fe"] < 0 < slopes["ca_fe"] < slopes["al_fe"]


def test_giants_have_two_sequences_and_a_clump(truth):
    giants = truth[truth.kind == "giant"]
    assert giants.logg.between(2.2, 2.7).mean() > 0.33
    assert giants.phase.eq(3).mean() == pytest.approx(0.28, abs=0.08)
    rest = giants.si_fe - np.polyval(np.polyfit(giants.mg_fe, giants.si_fe, 2), giants.mg_fe)
    assert rest.std() > 0.02, "[Si/Fe] is no function of [Mg/Fe]"
    middle = giants[giants.fe_h.between(-0.6, -0.3)].mg_fe
    low, gap, high = (
        middle.between(a, b).sum() / (b - a) for a, b in ((0.05, 0.13), (0.16, 0.2), (0.23, 0.31))
    )
    assert gap < 0.6 * min(low, high), "a gap between the sequences"


@pytest.fixture(scope="module")
def images():
    star = pd.Series(
        MYSTERY.to_dict() | {"vhelio": 20.0, "anomaly": "", "nvisits": 3, "snr": 150.0}
    )
    model = synthesize(MYSTERY.to_frame("m").T[LABELS].astype(float)).values[0]
    source = model * throughput(star, np.random.default_rng(0))
    return source, star, {n: observe(source, star, np.random.default_rng(n)) for n in (1, 2)}


def pulls(images):
    """Noise of the combined spectrum in units of its error, and which pixels are good."""
    source, _, observed = images
    for flux, error, mask in observed.values():
        good = (mask[0] & int(LAB_BITS) == 0) & (flux[0] != 0) & (error[0] < 1e9)
        yield (flux[0] - source) / error[0], good


def test_noise_is_what_the_error_says(images):
    for pull, good in pulls(images):
        assert 1.4826 * np.median(np.abs(pull[good])) == pytest.approx(1, abs=0.06)
        assert np.mean(np.abs(pull[good]) > 5) < 0.01


def test_noise_correlates_as_measured_on_real_visits(images):
    """0.4 between neighbours, nothing beyond
    (`packages/mock_survey/calibration/measure_instrument.py`)."""
    for pull, good in pulls(images):
        clean = good & (np.abs(pull) < 5)
        pull = np.where(clean, pull, 0)
        for distance, expected in ((1, 0.4), (2, 0.0), (3, 0.0)):
            both = clean[distance:] & clean[:-distance]
            assert (pull[distance:] * pull[:-distance])[both].mean() == pytest.approx(
                expected, abs=0.06
            )


def test_no_polynomial_takes_the_response_away():
    """What degree 2 leaves on a chip is about 0.4 %, as on real ones; it is the same wherever the
    star stands."""
    star = pd.Series({"anomaly": ""})
    left = []
    for seed in range(40):
        level = throughput(star, np.random.default_rng(seed))[3648:6048]
        x = np.linspace(-1, 1, level.size)
        left.append((level / np.polyval(np.polyfit(x, level, 2), x)).std())
    assert 0.002 < np.median(left) < 0.008


def test_rows_are_laid_out_as_in_dr17(images):
    source, star, observed = images
    flux, error, mask = observed[1]
    assert flux.shape == error.shape == mask.shape == (5, WAVELENGTH.size)
    assert np.all(mask[1] == 0), "row 1 has no mask"
    np.testing.assert_array_equal(mask[0], mask[2] & mask[3] & mask[4])
    single = star.copy()
    single["nvisits"] = 1
    flux, error, mask = observe(source, single, np.random.default_rng(3))
    assert flux.shape == (2, WAVELENGTH.size)
    assert not flux[1].any()
    assert not error[1].any()
    assert not mask[1].any()


def test_a_pixel_without_a_good_visit_counts_for_nothing(images):
    """Bad in two visits for two reasons: no bit is shared, and only the error can say so."""
    source, star, _ = images
    star = star.copy()
    star["nvisits"] = 2
    hopeless = 0
    for seed in range(20):
        flux, error, mask = observe(source, star, np.random.default_rng(seed))
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
    """The survey that the notebooks use too; written below the data folder if it is not there
    yet."""
    from labtools import open_survey

    return open_survey("simulated")


@pytest.fixture(scope="module")
def tables(survey):
    return tuple(
        pd.read_csv(survey.folder / f"{name}.csv") for name in ("apogeeStar", "aspcapStar")
    )


def test_the_catalog_holds_what_the_cuts_must_remove(tables):
    stars, labels = tables
    catalog = stars.merge(labels.drop(columns="apogee_id"), on="apstar_id").set_index("apogee_id")
    for gone in (
        (labels[LABELS] < -9000).any(axis=1),
        stars.snr < 50,
        labels.logg > 4,
        labels.fe_h.between(-9, -1),
    ):
        assert gone.sum() > 20
    assert stars.extratarg.eq(16).sum() > 20
    giants = select_giants(catalog.replace([-9999.0, -9999.99], np.nan))
    assert 1800 < len(giants) < 2000
    assert set(NAMED) <= set(giants.index)
    assert set(giants.field) == {"M15", "N6791", "K2_C4_168-21", "060+00"}
    assert giants.aspcapflag.gt(0).sum() > 10
    assert giants.starflag.gt(0).sum() > 10


@pytest.fixture(scope="module")
def label_errors(tables, survey):
    """Catalog minus truth of ordinary giants, less the trends; the quoted errors; the stars."""
    stars, labels = tables
    labels = labels.assign(extratarg=stars.extratarg).set_index("apogee_id")
    truth = survey.truth()
    truth = truth[(truth.kind == "giant") & (truth.anomaly == "")]
    labels = labels[labels.extratarg == 0].loc[truth.index]
    place = np.column_stack([(truth.teff - 4600) / 500, truth.fe_h, truth.phase == 3])
    off = labels[LABELS] - truth[LABELS] - place @ SYSTEMATICS[LABELS].to_numpy()
    return off, labels[[f"{name}_err" for name in LABELS]].set_axis(LABELS, axis=1), truth


def test_quoted_errors_are_a_little_wrong(label_errors):
    off, quoted, _ = label_errors
    for name in LABELS:
        pull = off[name] / quoted[name]
        assert pull.mean() == pytest.approx(0, abs=0.1)
        assert pull.std() == pytest.approx(ERROR_SCALE[name], rel=0.2)
    assert not np.allclose(ERROR_SCALE, 1, atol=0.1)


def test_label_errors_are_correlated(label_errors):
    """As the pixels tie labels together, which differs along the branch: in cool giants wings tell
    gravity apart."""
    off, quoted, truth = label_errors
    assert off.corr().loc["teff", "fe_h"] > 0.2
    assert off.corr().loc["logg", "fe_h"] > 0.5
    assert off[truth.teff > 4600].corr().loc["teff", "logg"] > 0.2
    pipeline = archive.Pipeline()
    near = ((pipeline.place - truth[["teff", "fe_h"]].to_numpy(float)[:, None]) / (400, 0.5)) ** 2
    groups = (off / quoted)[["teff", "logg", "fe_h"]].groupby(near.sum(axis=2).argmin(axis=1))
    large = {place: pulls for place, pulls in groups if len(pulls) > 100}
    assert len(large) >= 5
    for place, pulls in large.items():
        covariance = np.linalg.inv(pipeline.response[place] @ pipeline.response[place].T)
        error = np.sqrt(np.diag(covariance))
        expected = (covariance / np.outer(error, error))[:3, :3]
        np.testing.assert_allclose(pulls.corr(), expected, atol=0.1)


def test_label_errors_know_the_noise_of_their_spectrum(survey):
    """The best linear estimate finds labels that were put into the noise, and its covariance is
    that of its errors."""
    pipeline = archive.Pipeline()
    star = survey.truth().query("anomaly == '' and kind == 'giant'").iloc[3]
    example = pipeline.examples.iloc[[2]]
    flat = synthesize(example).values[0].astype(float) * 1000
    moved = synthesize(example.assign(teff=example.teff + 25)).values[0] * 1000.0
    star = star.copy()
    star[LABELS] = example.iloc[0]
    mask = np.zeros((1, WAVELENGTH.size), int)
    shift, covariance = pipeline.errors(
        star, flat, (moved[None], np.full((1, WAVELENGTH.size), 5.0), mask)
    )
    assert shift[0] == pytest.approx(25, rel=0.1)
    rng, found = np.random.default_rng(0), []
    for _ in range(300):
        noisy = flat + 5 * rng.standard_normal(flat.size)
        found.append(
            pipeline.errors(star, flat, (noisy[None], np.full((1, flat.size), 5.0), mask))[0]
        )
    np.testing.assert_allclose(np.std(found, axis=0), np.sqrt(np.diag(covariance)), rtol=0.15)
    assert (np.sqrt(np.diag(covariance)) < ERRORS[LABELS]).all()


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
    ends = [
        star.attrs[key]
        for key in ("blue_min", "blue_max", "green_min", "green_max", "red_min", "red_max")
    ]
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
    with np.load(
        shared_data / "course" / "cannon_continuum_apogee.npz", allow_pickle=False
    ) as course:
        both = (survey.continuum_pixels().values & course["trusted"]).sum()
        chance = survey.continuum_pixels().values.mean() * course["trusted"].sum()
    assert both > 2.5 * chance


def test_labels_come_back_out(survey):
    """Closure: a Cannon taught by 400 catalog entries finds the true labels of other stars."""
    giants = select_giants(survey.catalog())
    giants = giants[(giants.aspcapflag < 1 << 23) & (giants.starflag == 0)].iloc[::3]
    spectra = normalize(survey.spectra(giants), survey.continuum_pixels())
    teach, test = split_by_star(giants.index, seed=1, fraction=0.75)
    model = Cannon.train(spectra.sel(star=teach), giants.loc[teach, LABELS])
    found = model.fit(spectra.sel(star=test))
    off = found[LABELS] - survey.truth().loc[test, LABELS]
    limits = {"teff": 60, "logg": 0.2, "fe_h": 0.05, "mg_fe": 0.07, "si_fe": 0.06}
    for name, limit in limits.items():
        assert 1.4826 * (off[name] - off[name].median()).abs().median() < limit, name
        assert abs(off[name].median()) < limit / 2, name
    assert found.converged.mean() > 0.99


def test_similar_stars_have_similar_spectra(survey):
    """Two stars of the same labels, observed with other continua, noise and masks, agree within
    noise and ripple."""
    truth = survey.truth()
    star = truth[(truth.kind == "giant") & (truth.anomaly == "")].iloc[40]
    model = synthesize(star[LABELS].astype(float).to_frame("s").T).values[0]
    pair = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        flux, error, mask = observe(model * throughput(star, rng), star, rng)
        bad = (mask[0] & int(LAB_BITS) > 0) | (flux[0] == 0)
        one = survey.mystery()
        one = one.assign(
            flux=one.flux.copy(data=flux[:1]),
            error=one.error.copy(data=np.where(bad, np.inf, error[0])[None]),
        )
        pair.append(normalize(one, survey.continuum_pixels()))
    pull = (pair[0].flux - pair[1].flux).values / np.hypot(pair[0].error, pair[1].error).values
    pull = pull[np.isfinite(pull) & (pull != 0)]
    assert 0.9 < 1.4826 * np.median(np.abs(pull)) < 1.5


def test_the_real_mystery_star_is_that_of_the_course(shared_data):
    ours, real = real_mystery(), read_apstar(shared_data / "course" / "mystery_spec_wiped.fits")
    for name in ("flux", "error", "mask", "wavelength"):
        np.testing.assert_array_equal(ours[name], real[name], err_msg=name)
    assert ours.star.item() == "mystery star"
    assert {**ours.attrs, "source": ""} == {**real.attrs, "source": ""}


def test_the_real_mystery_star_does_not_tell_its_name():
    ours = real_mystery()
    assert ours.sizes == {"star": 1, "wavelength": 8575}
    assert ours.attrs["snr"] == pytest.approx(366.5, abs=0.1)
    with fits.open(settings.table("mystery_star.fits.gz")) as hdus:
        text = "".join(repr(hdu.header) for hdu in hdus)
    assert "2M16" not in text
    assert "RA " not in text
