"""The JWST/APOGEE pair: names, format, safe reading, matching, simulation; real spectra."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, strategies as st

from apogee_archive import jwst_pair as files_of
from apogee_archive.errors import CorruptFileError
from apogee_archive.hdf5_frames import read_frame
from apogee_archive.jwst_pair import index_of, name_of, read_catalog, read_jwst
from labtools.jwst import (
    catalog_in_x_h,
    convolve_to_resolution,
    divide_running_percentile,
    list_spec1d,
    match,
    radial_velocity,
    read_spec1d,
)
from labtools.surveys import open_pair
from mock_survey import jwst_pair as pairs
from mock_survey.synthesis import synthesize

STARS = 60


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def pair(root):
    return open_pair(root, stars=STARS, seed=3)


@pytest.fixture
def files(pair, root, tmp_path):
    """Both files of the simulated pair where a user would put the real ones."""
    folder = next((root / "cache").glob("simulated-jwst-*"))
    for name in files_of.FILES:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "row"), [("aaaaa_00", 0), ("aaieb_03", 3811), ("aajij_19", 19799), ("aaaaa_01", 990)]
)
def test_names_by_hand(name, row):
    assert index_of(name) == row
    assert name_of(row) == name


@given(st.integers(0, 98_999))
def test_names_and_rows_are_one_to_one(row):
    assert index_of(name_of(row)) == row


@pytest.mark.parametrize(
    "name", ["aaaaa", "aaaak_00", "aajja_00", "aaaaa_0", "AAAAA_00", "aaaaa_00 ", ""]
)
def test_names_of_another_form_are_refused(name):
    with pytest.raises(ValueError, match=r"is no name|is star"):
        index_of(name)


def test_files_have_the_format_of_the_real_ones(files):
    catalog = pd.read_hdf(files / "apogee_dr17.h5", "allstar")
    labels, spectra, wavelength = (
        pd.read_hdf(files / "JWST_APOGEE.h5", key) for key in ("labels", "spectra", "wavelength")
    )
    assert catalog.shape == (STARS, 55)
    assert list(catalog)[:5] == ["FILE", "APOGEE_ID", "TELESCOPE", "FIELD", "RA"]
    assert {"X_FE", "FE_FE"}.isdisjoint(catalog)
    assert {"CE_FE", "CE_FE_ERR", "FE_H", "FE_H_ERR", "VMACRO"} <= set(catalog)
    assert isinstance(catalog.APOGEE_ID[0], bytes)
    assert list(labels) == ["Teff", "logg", *files_of.ELEMENTS]
    assert labels.index.equals(spectra.index)
    assert labels.index[0] == "aaaaa_00"
    assert spectra.shape == (STARS - 1, 8192)
    assert wavelength.iloc[0].to_numpy()[[0, -1]] == pytest.approx([9000, 18000])


def test_reader_agrees_with_pandas(files, pair):
    pd.testing.assert_frame_equal(
        read_frame(files / "apogee_dr17.h5", "allstar"),
        pd.read_hdf(files / "apogee_dr17.h5", "allstar"),
    )
    expected = pd.read_hdf(files / "JWST_APOGEE.h5", "spectra")
    np.testing.assert_array_equal(pair.spectra.flux, expected)
    assert list(pair.spectra.star.values) == list(expected.index)


def test_real_files_come_first_and_both_are_needed(files):
    real = open_pair(files)
    assert "simulated" not in real.title
    assert len(real.catalog) == STARS
    (files / "JWST_APOGEE.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"apogee_dr17\.h5 but not JWST_APOGEE\.h5"):
        open_pair(files)


def test_one_star_is_missing_and_duplicates_exist(pair):
    names, counts = match(pair.catalog, pair.labels)
    missing = pair.catalog.index.difference(pair.labels.index)
    assert list(missing) == [name_of(11215 * STARS // 19800)]
    assert counts["only in the catalog"] == 1
    assert (
        counts["further rows of a star"]
        == STARS - 1 - pair.catalog.apogee_id[pair.labels.index].nunique()
        > 0
    )
    assert len(names) == counts["matched stars"] == pair.catalog.apogee_id.loc[names].nunique()


def test_matching_is_by_name_not_position(pair):
    names, _ = match(pair.catalog, pair.labels)
    shuffled = match(pair.catalog, pair.labels.sample(frac=1, random_state=1).drop(index=names[3]))
    assert shuffled[1]["only in the catalog"] == 2
    assert set(shuffled[0]) <= set(pair.labels.index)
    difference = catalog_in_x_h(pair.catalog.loc[names]) - pair.labels.loc[names]
    assert difference.abs().max(axis=None) < 2e-5
    late = [name for name in names if index_of(name) > 11215 * STARS // 19800]
    by_position = pair.catalog.loc[pair.labels.index].reset_index(drop=True)
    off = by_position.loc[[index_of(name) for name in late if index_of(name) < len(by_position)]]
    assert not np.allclose(off.teff, pair.labels.loc[late[: len(off)], "teff"])


def test_abundances_are_converted_to_x_h(pair):
    table = catalog_in_x_h(pair.catalog)
    expected = pair.catalog.mg_fe.astype(float) + pair.catalog.fe_h.astype(float)
    np.testing.assert_allclose(table.mg_h, expected)
    np.testing.assert_allclose(table.fe_h, pair.catalog.fe_h)


def test_spectra_are_models_of_their_labels(pair):
    some = pair.labels.index[[2, 20]]
    models = pairs.nirspec_spectra(pair.catalog.loc[some])
    residual = pair.spectra.flux.sel(star=some).values - models.values
    gap = np.abs(pairs.WAVELENGTHS - np.mean(pairs.GAP)) <= np.ptp(pairs.GAP) / 2
    assert residual[:, ~gap].std() == pytest.approx(1 / 200, rel=0.05)
    assert not pair.spectra.flux.values[:, gap].any(), "nothing is recorded between the detectors"
    assert pair.spectra.flux.values[:, ~gap].all()


def test_lines_are_as_wide_as_two_pixels_of_the_detector(monkeypatch):
    """The resolution grows with wavelength: a line has the same width in Angstrom everywhere."""
    lines = pd.DataFrame(
        {"species": "Fe I", "wavelength": [10000.0, 13500.0, 17000.0], "ep": 5.0, "loggf": -3.5}
    )
    monkeypatch.setattr(pairs, "wide_lines", lambda: lines)
    labels = pd.DataFrame(
        {"teff": [4500.0], "logg": 2.0, "fe_h": 0.0, "mg_fe": 0.0, "si_fe": 0.0, "vmacro": 0.0}
    )
    depth = 1 - pairs.nirspec_spectra(labels).values[0].astype(float)
    for line in lines.wavelength:
        near = np.abs(pairs.WAVELENGTHS - line) < 15
        moment = np.average((pairs.WAVELENGTHS[near] - line) ** 2, weights=depth[near])
        assert np.sqrt(8 * np.log(2) * moment) == pytest.approx(pairs.FWHM, rel=0.05)


def test_the_key_holds_all_that_a_pair_depends_on(monkeypatch, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("another table")
    keys = {pairs.pair_key(60, 3), pairs.pair_key(61, 3), pairs.pair_key(60, 4)}
    tables = [[*pairs.TABLES[:n], other, *pairs.TABLES[n + 1 :]] for n in range(len(pairs.TABLES))]
    changes = [("VERSION", 0), ("MODEL", 0), *(("TABLES", some) for some in tables)]
    for name, value in changes:
        with monkeypatch.context() as changed:
            changed.setattr(pairs, name, value)
            keys.add(pairs.pair_key(60, 3))
    assert len(keys) == 3 + len(changes) == 12


def spoil(path, key, change):
    tables = {k: pd.read_hdf(path, k) for k in ("wavelength", "labels", "spectra")}
    tables[key] = change(tables[key])
    for number, (k, table) in enumerate(tables.items()):
        table.to_hdf(path, key=k, mode="w" if number == 0 else "a")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("labels", lambda t: t.drop(columns="Mg"), "lacks the columns Mg"),
        ("labels", lambda t: t.rename(index={"aaaab_00": "aaaac_77"}), "name different stars"),
        ("labels", lambda t: t.iloc[::-1], "name different stars"),
        (
            "labels",
            lambda t: t.replace({"Teff": {t.Teff.iloc[4]: np.nan}}),
            "labels of 1 stars are not finite, first",
        ),
        ("spectra", lambda t: t.iloc[:, :8191], "8191 columns of spectra, not 8192"),
        (
            "spectra",
            lambda t: t.replace(t.iloc[5, 3], np.nan),
            "spectra of 1 stars are not finite, first aaaaf_00",
        ),
        ("wavelength", lambda t: t / 1e4, "must increase and be in Angstrom"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(files, key, change, message):
    spoil(files / "JWST_APOGEE.h5", key, change)
    with pytest.raises(CorruptFileError, match=message):
        read_jwst(files / "JWST_APOGEE.h5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["TEFF", "CE_FE"]), "lacks the columns TEFF, CE_FE"),
        (lambda t: t.set_index("RA"), "rows of 'allstar' must be numbered|lacks the columns"),
        (lambda t: t.set_axis([0] * len(t)), "must be numbered, each number once"),
        (lambda t: t.assign(APOGEE_ID=b" "), "have no APOGEE_ID"),
    ],
)
@pytest.mark.filterwarnings("ignore::pandas.errors.PerformanceWarning")
def test_what_is_wrong_with_the_catalog_is_said(files, change, message):
    path = files / "apogee_dr17.h5"
    change(pd.read_hdf(path, "allstar")).to_hdf(path, key="allstar", mode="w")
    with pytest.raises(CorruptFileError, match=message):
        read_catalog(path)


@pytest.mark.filterwarnings("ignore::pandas.errors.PerformanceWarning")
def test_fillers_become_nan(files):
    path = files / "apogee_dr17.h5"
    table = pd.read_hdf(path, "allstar")
    table.loc[5, "CE_FE"] = -9999.99
    table.to_hdf(path, key="allstar", mode="w")
    assert read_catalog(path).ce_fe.isna().sum() == 1


@pytest.mark.parametrize("content", [b"", b"<html>sign in</html>", "half"])
def test_files_that_are_no_hdf5(files, content):
    path = files / "JWST_APOGEE.h5"
    path.write_bytes(path.read_bytes()[:40000] if content == "half" else content)
    with pytest.raises(CorruptFileError, match=r"JWST_APOGEE\.h5"):
        read_jwst(path)


def test_other_formats_of_pandas_and_missing_tables(tmp_path):
    pd.DataFrame({"a": [1.0]}).to_hdf(tmp_path / "t.h5", key="labels", format="table")
    with pytest.raises(CorruptFileError, match="frame_table"):
        read_frame(tmp_path / "t.h5", "labels")
    with pytest.raises(CorruptFileError, match="no group 'spectra', only labels"):
        read_frame(tmp_path / "t.h5", "spectra")


@pytest.mark.parametrize(
    ("survey", "size"), [("", 2000), ("1900", 2000), ("950", 1000), ("300", 315), ("60", 300)]
)
def test_a_pair_shrinks_with_the_survey(survey, size, monkeypatch):
    monkeypatch.setenv("LAB_STARS", survey)
    assert pairs.pair_size() == size


def test_a_pair_is_written_once(root, pair):
    folder = next((root / "cache").glob("simulated-jwst-*"))
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = open_pair(root, stars=STARS, seed=3)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    xr.testing.assert_identical(again.spectra, pair.spectra)
    assert [path.name for path in (root / "cache").glob("unfinished*")] == []
    with pytest.raises(ValueError, match="10 to 19800"):
        open_pair(root, stars=20_000)


def test_full_catalog_has_the_numbers_of_the_real_one():
    table = pairs.draw_catalog(19_800)
    assert table.drop(index=11_215).APOGEE_ID.nunique() == 19_001
    assert table.SNR.min() >= 200


def test_apogee_spectra_of_the_pair(pair):
    names = pair.labels.index[:4]
    spectra = pairs.apogee_spectra(pair.catalog, names)
    good = np.isfinite(spectra.error.values)
    assert spectra.sizes == {"star": 4, "wavelength": 8575}
    assert np.isfinite(spectra.flux).all()
    gap = spectra.sel(wavelength=slice(15825, 15860))
    assert not np.isfinite(gap.error).any()
    assert good.mean() == pytest.approx(7801 / 8575, abs=0.01)


def test_line_table_covers_the_range_and_fits_the_other():
    lines, apogee = pairs.wide_lines(), pairs.read_lines()
    outside = lines.iloc[len(apogee) :]
    assert len(outside.merge(apogee, on=["species", "wavelength"])) == 0
    metals = outside[~outside.species.isin(["H I"])]
    assert not metals.wavelength.between(15140, 16960).any()
    paschen = 1e8 / (109677.58 * (1 / 9 - 1 / 25))
    assert np.abs(lines.query("species == 'H I'").wavelength - paschen).min() < 0.1
    # K I doublet and Al I in vacuum (air 12522.13, 13150.75 of the literature)
    for species, wavelength in (("K I", 12525.56), ("Al I", 13154.35), ("Ca I", 13138.53)):
        assert np.abs(lines.wavelength[lines.species == species] - wavelength).min() < 0.05
    heads = outside.query("species == 'CN'").wavelength
    assert heads.between(10900, 11000).sum() > 50  # the 0-0 band


def test_velocity_of_a_shifted_model():
    wave = np.arange(15000, 17000, 1.1)
    labels = pd.DataFrame(
        {"teff": [4400], "logg": [1.8], "fe_h": [-0.7], "mg_fe": [0.3], "si_fe": [0.2]}
    )
    model = synthesize(labels, wave, 2700).isel(star=0)
    shifted = model.copy(data=np.interp(wave / (1 - 42 / 299792.458), wave, model))
    velocity, correlation = radial_velocity(shifted, model)
    assert velocity == pytest.approx(-42, abs=2)
    assert correlation > 0.99


def test_real_jwst_spectra_look_like_models_of_their_apogee_labels(shared_data):
    folder = shared_data / "nirspec-m71"
    if not folder.is_dir():
        pytest.skip("the NIRSpec spectra of M71 are not here")
    labels = pd.read_csv(folder / "M71_xmatch_sources.csv", index_col="source_name")
    star = "2609_49"
    spectrum = read_spec1d(next(folder.glob(f"spec1d_*_source_{star}.fits")))
    assert spectrum.star.item() == star
    assert 9600 < float(spectrum.wavelength[0]) < 9700
    good = np.isfinite(spectrum.error.values[0])
    one = spectrum.isel(star=0, wavelength=good).sel(wavelength=slice(15000, 17000))
    flat = divide_running_percentile(one.flux)
    wave = np.arange(14900, 17100, 1.1)
    model = synthesize(labels.loc[[star]], wave, 2700, pairs.wide_lines()).isel(star=0)
    velocity, correlation = radial_velocity(flat, divide_running_percentile(model))
    assert correlation > 0.65
    assert -60 < velocity < 20  # M71 recedes with -23 km/s, JWST itself moves with up to 30


def test_spec1d_without_a_spectrum_is_refused(tmp_path):
    from astropy.io import fits

    fits.HDUList([fits.PrimaryHDU()]).writeto(tmp_path / "spec1d_x.fits")
    with pytest.raises(CorruptFileError, match="no extracted spectrum"):
        read_spec1d(tmp_path / "spec1d_x.fits")


def extraction(name, snr, share, kinds=("OPT",), first=10000):
    """A table of PypeIt: constant counts of a signal-to-noise ratio, of which a share is good."""
    from astropy.io import fits

    arrays = {
        "WAVE": ("D", np.linspace(first, first + 8000, 1000)),
        "COUNTS": ("D", np.full(1000, float(snr))),
        "COUNTS_IVAR": ("D", np.ones(1000)),
        "MASK": ("L", np.arange(1000) < share * 1000),
    }
    columns = [
        fits.Column(
            f"{kind}_{column}",
            form,
            array=array / (1 + (kind == "BOX" and column == "COUNTS")) if form == "D" else array,
        )
        for kind in kinds
        for column, (form, array) in arrays.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=name)


def spec1d(path, *tables):
    from astropy.io import fits

    primary = fits.PrimaryHDU(header=fits.Header({"TARGET": "2609_12"}))
    fits.HDUList([primary, *tables]).writeto(path)
    return path


def test_of_several_extractions_the_user_hears_and_chooses(tmp_path):
    """S/N 200 in 45 % of the pixels is more than S/N 4 in 60 %: masked pixels are not S/N 0."""
    names = ["SPAT0011-SLIT0010-MSC01", "SPAT0006-SLIT0010-MSC01"]
    path = spec1d(
        tmp_path / "s.fits", extraction(names[1], 4, 0.6), extraction(names[0], 200, 0.45)
    )
    with pytest.warns(UserWarning, match=f"taken is {names[0]}.*not {names[1]}.*to choose"):
        assert read_spec1d(path).flux.max() == 200
    other = read_spec1d(path, name=names[1])
    assert other.flux.max() == 4
    assert other.attrs == {"name": names[1], "extraction": "OPT"}
    with pytest.raises(KeyError, match=names[0]):
        read_spec1d(path, name="SPAT0099-SLIT0010-MSC01")
    table = list_spec1d(path)
    assert list(table.index) == [(name, "OPT") for name in names]
    assert table.good.tolist() == [450, 600]
    assert table.snr.tolist() == [200, 4]


def test_spectra_of_two_detectors_are_both_named(tmp_path):
    path = spec1d(
        tmp_path / "s.fits",
        extraction("SPAT0016-SLIT0014-DET01", 50, 1, first=9700),
        extraction("SPAT0016-SLIT0014-DET02", 90, 1, first=12000),
    )
    with pytest.warns(UserWarning, match="DET02.*DET01.*9700-17700"):
        assert read_spec1d(path).attrs["name"].endswith("DET02")
    assert float(read_spec1d(path, name="SPAT0016-SLIT0014-DET01").wavelength[0]) == 9700


@pytest.mark.filterwarnings("error")
def test_box_extractions_are_read_if_asked_for_or_alone(tmp_path):
    name = "SPAT0016-SLIT0014-DET02"
    both = spec1d(tmp_path / "both.fits", extraction(name, 60, 1, kinds=("OPT", "BOX")))
    assert read_spec1d(both).flux.max() == 60
    assert read_spec1d(both, extraction="BOX").flux.max() == 30
    box = read_spec1d(spec1d(tmp_path / "box.fits", extraction(name, 60, 1, kinds=("BOX",))))
    assert box.attrs["extraction"] == "BOX"


def test_no_velocity_without_overlap():
    wave = np.arange(15000.0, 16000.0)
    depth = 1 - 0.2 * np.exp(-0.5 * ((wave - 15500) / 3) ** 2)
    model = xr.DataArray(depth, dims="wavelength", coords={"wavelength": wave})
    away = model.assign_coords(wavelength=wave + 2000)
    with pytest.raises(ValueError, match=r"0 good pixels of the spectrum \(17000 to 17999"):
        radial_velocity(away, model)
    with pytest.raises(ValueError, match="0 good pixels"):
        radial_velocity(model * np.nan, model)
    with pytest.raises(ValueError, match="does not vary"):
        radial_velocity(model, model * 0 + 1)
    with pytest.warns(UserWarning, match="no maximum"):
        radial_velocity(model.assign_coords(wavelength=wave * (1 + 60 / 299792.458)), model, 40.0)


def test_blurring_keeps_the_area_of_a_line_and_cannot_sharpen():
    wave = 15000 * 10 ** (6e-6 * np.arange(2000))
    flux = 1 - 0.5 * np.exp(-0.5 * ((np.arange(2000) - 1000) / 2) ** 2)
    axes = ("star", "wavelength")
    line = xr.Dataset(
        {"flux": (axes, flux[None]), "error": (axes, np.full((1, 2000), 0.01))},
        coords={"star": ["a"], "wavelength": wave},
    )
    blurred = convolve_to_resolution(line, 3400, wave)
    assert float((1 - blurred).sum()) == pytest.approx(float((1 - flux).sum()), rel=1e-3)
    assert float(1 - blurred.min()) < 0.2
    for impossible in (22500, 30000, 0):
        with pytest.raises(ValueError, match="blurring cannot sharpen"):
            convolve_to_resolution(line, impossible, wave)
    with pytest.raises(ValueError, match="logarithm"):
        convolve_to_resolution(line.assign_coords(wavelength=15000 + np.arange(2000.0)), 3400, wave)


def test_a_name_twice_is_not_matched(pair):
    with pytest.raises(ValueError, match="occurs twice in the JWST file"):
        match(pair.catalog, pd.concat([pair.labels, pair.labels.iloc[:1]]))
