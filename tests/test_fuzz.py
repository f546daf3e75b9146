"""Readers on damaged input: the documented error or a result that can be trusted, nothing else."""

import warnings
from contextlib import suppress
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from astroquery.sdss import SDSS
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_archive import write_apstar, write_archive

from labtools.apstar import read_apstar
from labtools.continuum import normalize
from labtools.errors import BadFile
from labtools.isochrones import read_mist
from labtools.sdss import catalog
from labtools.sdss.catalog import (
    COLUMNS,
    load_catalog,
    read_allstar,
    read_tables,
    save_catalog,
    tidy,
)
from labtools.sdss.files import check_whole, pack, place_of, read_continuum_pixels, read_star
from labtools.spectra import WAVELENGTH

STAR = "2M00000001+0000001"
fuzz = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
pytestmark = pytest.mark.filterwarnings("ignore")


def assert_trustworthy(spectra):
    """Whoever divides by the errors gets numbers."""
    flux, error = spectra.flux.values, spectra.error.values
    assert np.isfinite(flux).all()
    assert not np.isnan(error).any()
    assert (error > 0).all()
    assert np.all(np.diff(spectra.wavelength) > 0)


@st.composite
def damage(draw, reach=None):
    """A function that damages bytes: overwrites some, cuts some out, puts some in, or ends too early."""
    where = st.floats(0, 1) if reach is None else st.floats(0, reach)
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(["set", "cut", "add", "end"]), where, st.binary(min_size=1, max_size=40)),
            min_size=1,
            max_size=4,
        )
    )

    def apply(body):
        body = bytearray(body)
        for kind, share, new in steps:
            at = int(share * len(body))
            if kind == "end":
                del body[at:]
            else:
                body[at : at + (0 if kind == "add" else len(new))] = b"" if kind == "cut" else new
        return bytes(body)

    return apply


# ---------------------------------------------------------------- apStar files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_apstar(tmp_path_factory.mktemp("fuzz") / "whole.fits", STAR, nvisits=2)


@given(harm=damage())
@fuzz
def test_damaged_apstar_files(whole, tmp_path, harm):
    path = tmp_path / "apStar.fits"
    path.write_bytes(harm(whole.read_bytes()))
    try:
        assert_trustworthy(read_apstar(path))
    except BadFile as fault:
        message = str(fault)
    else:
        message = str(path)
    assert str(path) in message


@example(harm=lambda body: body.replace(b"NVISITS =                    2", b"NVISITS =                  2 2"))
@given(harm=damage(reach=8640 / 600_000))
@fuzz
def test_damaged_headers_of_apstar_files(whole, tmp_path, harm):
    path = tmp_path / "apStar.fits"
    path.write_bytes(harm(whole.read_bytes()))
    with suppress(BadFile):
        assert_trustworthy(read_apstar(path))


@given(harm=damage())
@fuzz
def test_only_whole_files_count(whole, tmp_path, harm):
    path = tmp_path / "apStar.fits"
    path.write_bytes(harm(whole.read_bytes()))
    try:
        check_whole(path, STAR)
    except BadFile:
        return
    assert path.stat().st_size % 2880 == 0


PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
HEADER_VALUES = st.one_of(st.integers(-(2**40), 2**40), FINITE, st.booleans(), PLAIN)


@example(key="CDELT1", value=2e-261)
@given(key=st.sampled_from(["CRVAL1", "CDELT1", "NWAVE", "OBJID", "NVISITS", "SNR"]), value=HEADER_VALUES)
@fuzz
def test_headers_that_say_something_else(whole, tmp_path, key, value):
    path = tmp_path / "apStar.fits"
    with fits.open(whole) as hdus:
        hdus[0].header[key] = value
        hdus.writeto(path, overwrite=True)
    with suppress(BadFile):
        assert_trustworthy(read_apstar(path))


NUMBERS = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, 1e300, np.nan, np.inf, -np.inf, -9999.0, 1e10])


@given(
    flux=NUMBERS,
    error=NUMBERS,
    mask=st.integers(-(2**31), 2**31 - 1),
    kind=st.sampled_from([">f4", "<f4", ">f8"]),
    shape=st.sampled_from([(8575,), (2, 8575), (4, 8575), (1, 8575), (0, 8575), (8574,), (2, 2, 8575)]),
)
@fuzz
def test_images_of_every_kind(tmp_path, flux, error, mask, kind, shape):
    path = tmp_path / "apStar.fits"
    primary = fits.PrimaryHDU()
    primary.header.update({"OBJID": STAR, "CRVAL1": 4.179, "CDELT1": 6e-6})
    images = [np.full(shape, 100, kind), np.ones(shape, kind), np.zeros(shape, ">i4")]
    for image, value in zip(images, (flux, error, mask), strict=True):
        image[..., 5:9] = value
    with np.errstate(over="ignore"):
        fits.HDUList([primary, *map(fits.ImageHDU, images)]).writeto(path, overwrite=True)
    with suppress(BadFile):
        assert_trustworthy(read_apstar(path))


@given(harm=damage())
@fuzz
def test_damaged_compact_files(whole, tmp_path, harm):
    source, path = tmp_path / "apStar.fits", tmp_path / "apStar.npz"
    source.write_bytes(whole.read_bytes())
    path.write_bytes(harm(pack(source, path).read_bytes()))
    with suppress(BadFile):
        assert_trustworthy(read_star(path, STAR))


# ---------------------------------------------------------------- names


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
@fuzz
def test_no_name_leads_out_of_the_cache(telescope, field, file):
    rows = [
        {"telescope": telescope, "field": field, "file": file},
        {"telescope": "apo25m", "field": field, "file": f"apStar-dr17-{file}.fits"},
    ]
    for row in rows:
        try:
            place = PurePosixPath(place_of(row))
        except ValueError:
            continue
        assert len(place.parts) == 9
        assert ".." not in place.parts
        assert str(place).isascii()
        assert str(place).isprintable()


# ---------------------------------------------------------------- normalize

GRID = WAVELENGTH[np.r_[322:3242, 3648:6048, 6412:8306]]
CONTINUUM = xr.DataArray(np.arange(GRID.size) % 13 == 0, coords={"wavelength": GRID})
EDITS = st.lists(
    st.tuples(st.sampled_from(["flux", "error"]), st.integers(0, 8574), st.integers(1, 4000), NUMBERS),
    max_size=5,
)


@given(edits=EDITS)
@settings(fuzz, max_examples=30)
def test_normalize_of_strange_spectra(edits):
    rng = np.random.default_rng(1)
    arrays = {"flux": rng.uniform(90, 110, (2, 8575)), "error": rng.uniform(0.5, 1, (2, 8575))}
    for name, at, length, value in edits:
        arrays[name][0, at : at + length] = value
    bad = ~np.isfinite(arrays["flux"]) | ~(arrays["error"] > 0)
    arrays = {"flux": np.where(bad, 0, arrays["flux"]), "error": np.where(bad, np.inf, arrays["error"])}
    spectra = xr.Dataset(
        {name: (("star", "wavelength"), array) for name, array in arrays.items()},
        coords={"star": ["strange", "plain"], "wavelength": WAVELENGTH},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = normalize(spectra, CONTINUUM)
        alone = normalize(spectra.isel(star=[1]), CONTINUUM)
    assert_trustworthy(result)
    assert abs(float(result.flux[1].median()) - 1) < 0.05
    xr.testing.assert_allclose(result.isel(star=[1]), alone, rtol=1e-9)


@example(np.arange(7214) > 6000)
@given(hnp.arrays(bool, 7214, elements=st.booleans(), fill=st.booleans()))
@settings(fuzz, max_examples=20)
def test_normalize_with_strange_continuum_maps(pixels):
    spectra = xr.Dataset(
        {name: (("star", "wavelength"), np.ones((1, 8575))) for name in ("flux", "error")},
        coords={"star": ["plain"], "wavelength": WAVELENGTH},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_trustworthy(normalize(spectra, CONTINUUM.copy(data=pixels)))


@given(harm=damage())
@fuzz
def test_damaged_continuum_maps(tmp_path, harm):
    path = tmp_path / "map.npz"
    np.savez(path, trusted=CONTINUUM.values[:200], wavelengths=GRID[:200])
    path.write_bytes(harm(path.read_bytes()))
    try:
        pixels = read_continuum_pixels(path)
    except ValueError:
        return
    assert pixels.dtype == bool
    assert np.all(np.diff(pixels.wavelength) > 0)


# ---------------------------------------------------------------- the catalogue


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return read_tables(write_archive(tmp_path_factory.mktemp("fuzz"), number=4)).reset_index()


def assert_catalog(found):
    numbers = found[[*catalog.LABELS, *catalog.ERRORS]].to_numpy()
    assert not np.isinf(numbers).any()
    assert not (numbers < -9000).any()
    assert all(found[name].dtype == np.int64 for name in catalog.FLAGS)


PIECES = st.sampled_from(["null", "", "-9999", "1e400", b"", b"\x80", True, 2**70, -(2**63)])
CELLS = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=8), PIECES)


@given(st.lists(st.tuples(st.sampled_from(COLUMNS), st.integers(0, 5), CELLS), min_size=1, max_size=4))
@fuzz
def test_tables_with_strange_cells(table, cells):
    table = table.astype(object)
    for name, row, value in cells:
        table.loc[row, name] = value
    with suppress(BadFile):
        assert_catalog(tidy(table, "test"))


@given(body=st.one_of(st.text(max_size=300), st.sampled_from(["", "#Table1\n", "<html></html>", "error_message"])))
@fuzz
def test_answers_of_skyserver(body):
    def query_sql(sql, **options):
        return SDSS._parse_result(SimpleNamespace(text=body))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "SDSS", SimpleNamespace(query_sql=query_sql))
        patch.setattr(catalog, "BACKOFF", 0)
        with pytest.raises(BadFile):
            catalog.query_catalog(["M15"])


@given(harm=damage())
@fuzz
def test_damaged_answers_of_skyserver(table, harm):
    body = harm(("#Table1\n" + table[list(COLUMNS)].to_csv(index=False)).encode()).decode(errors="replace")

    def query_sql(sql, **options):
        text = f"#Table1\nstars\n{len(table)}\n" if "COUNT" in sql else body
        return SDSS._parse_result(SimpleNamespace(text=text))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "SDSS", SimpleNamespace(query_sql=query_sql))
        patch.setattr(catalog, "BACKOFF", 0)
        patch.setattr(catalog, "ATTEMPTS", 1)
        try:
            assert_catalog(catalog.query_catalog(["M15"]))
        except BadFile:
            return


@given(harm=damage())
@fuzz
def test_damaged_catalogues_in_the_cache(table, tmp_path, harm):
    path, good = tmp_path / "catalog.csv", table.set_index("apogee_id")
    save_catalog(good, path, source="test")
    path.write_bytes(harm(path.read_bytes()))
    try:
        found = load_catalog(path)
    except BadFile:
        return
    pd.testing.assert_frame_equal(found, good)


@given(harm=damage())
@fuzz
def test_damaged_allstar_files(table, tmp_path, harm):
    from test_catalog import write_allstar

    path = tmp_path / "allStar.fits"
    path.unlink(missing_ok=True)
    path.write_bytes(harm(write_allstar(path, table).read_bytes()))
    with suppress(BadFile):
        assert_catalog(read_allstar(path))


# ---------------------------------------------------------------- MIST


@given(harm=damage())
@fuzz
def test_damaged_mist_files(tmp_path, harm):
    from test_isochrones import mist_text

    path = tmp_path / "grid.iso.cmd"
    path.write_bytes(harm(mist_text([9.8], -1.0).encode()))
    try:
        table = read_mist(path)
    except BadFile:
        return
    assert np.isfinite(table[["eep", "age", "feh_init", "teff", "log_g", "phase"]].to_numpy()).all()
