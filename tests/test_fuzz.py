"""Readers on damaged input: the documented error or a result that can be trusted, nothing else."""

import hashlib
import os
import random
import warnings
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import HealthCheck, example, given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from apogee_archive import catalog
from apogee_archive.apstar import parse_apstar, read_apstar
from apogee_archive.catalog import (
    COLUMNS,
    catalog_bytes,
    catalog_of,
    parse_answer,
    read_allstar,
    read_tables,
    tidy,
)
from apogee_archive.columns import ERRORS, PARAMETERS
from apogee_archive.errors import CorruptFileError
from apogee_archive.files import pack, read_continuum_pixels, read_star, sas_path
from labtools.continuum import normalize
from labtools.isochrones import read_mist
from labtools.spectra import WAVELENGTH
from tiny_archive import write_apstar, write_archive

STAR = "2M00000001+0000001"
NUMBER = int(os.environ.get("LAB_FUZZ", 200))
"""Mutations of each kind of file; `make fuzz` tries 3,000."""

fuzz = settings(
    max_examples=min(60, NUMBER),
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


def mutations(body, reach=None, seed=0):
    """`NUMBER` damaged versions of `body`: bits flipped, bytes overwritten, cut out or put in, or an early end."""
    rng = random.Random(seed)
    for _ in range(NUMBER):
        changed = bytearray(body)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            at = rng.randrange(min(len(changed), reach or len(changed)) or 1)
            new = rng.choice(
                [
                    bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20))),
                    b"9" * 12,
                    b"-",
                    b" ",
                ]
            )
            kind = rng.choice(["flip", "flip", "set", "cut", "add", "end"])
            if kind == "flip" and changed:
                changed[at] ^= 1 << rng.randrange(8)
            elif kind == "end":
                del changed[at:]
            else:
                changed[at : at + (0 if kind == "add" else len(new))] = (
                    b"" if kind == "cut" else new
                )
        if changed != body:
            yield bytes(changed)


def survivors(path, body, read, check, reach=None):
    """How many damaged versions of a file a reader took, all of which `check` trusts; it refuses the others by name."""
    taken = 0
    for changed in mutations(body, reach):
        path.unlink(missing_ok=True)
        path.write_bytes(changed)
        message = path.name
        try:
            check(read(path))
            taken += 1
        except CorruptFileError as fault:
            message = str(fault)
        assert path.name in message
    return taken


# ---------------------------------------------------------------- apStar files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_apstar(tmp_path_factory.mktemp("fuzz") / "whole.fits", STAR, nvisits=2)


@pytest.mark.parametrize("reach", [None, 8640], ids=["anywhere", "in the headers"])
def test_damaged_apstar_files(whole, tmp_path, reach):
    assert survivors(
        tmp_path / "apStar.fits", whole.read_bytes(), read_apstar, assert_trustworthy, reach
    )


def test_damaged_files_under_a_checksum_never_survive(whole, tmp_path):
    body = whole.read_bytes()
    sha1 = hashlib.sha1(body).hexdigest()
    read = partial(read_star, star=STAR, sha1=sha1)
    assert survivors(tmp_path / "apStar.fits", body, read, assert_trustworthy) == 0
    whole_again = tmp_path / "whole.fits"
    whole_again.write_bytes(body)
    assert_trustworthy(read(whole_again))


PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
HEADER_VALUES = st.one_of(st.integers(-(2**40), 2**40), FINITE, st.booleans(), PLAIN)


@example(key="CDELT1", value=2e-261)
@given(
    key=st.sampled_from(["CRVAL1", "CDELT1", "NWAVE", "OBJID", "NVISITS", "SNR"]),
    value=HEADER_VALUES,
)
@fuzz
def test_headers_that_say_something_else(whole, tmp_path, key, value):
    path = tmp_path / "apStar.fits"
    with fits.open(whole) as hdus:
        hdus[0].header[key] = value
        hdus.writeto(path, overwrite=True)
    with suppress(CorruptFileError):
        assert_trustworthy(read_apstar(path))


NUMBERS = st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, 1e300, np.nan, np.inf, -np.inf, -9999.0, 1e10]
)


@given(
    flux=NUMBERS,
    error=NUMBERS,
    mask=st.integers(-(2**31), 2**31 - 1),
    kind=st.sampled_from([">f4", "<f4", ">f8"]),
    shape=st.sampled_from(
        [(8575,), (2, 8575), (4, 8575), (1, 8575), (0, 8575), (8574,), (2, 2, 8575)]
    ),
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
    with suppress(CorruptFileError):
        assert_trustworthy(read_apstar(path))


def test_damaged_compact_files(whole, tmp_path):
    """Whatever survives has the numbers of the whole file; next to nothing does, for all bytes are under a CRC."""
    body = pack(
        parse_apstar(whole.read_bytes(), whole, bits=0), tmp_path / "whole.npz"
    ).read_bytes()
    truth = read_star(tmp_path / "whole.npz", STAR)
    read = partial(read_star, star=STAR)
    assert (
        survivors(tmp_path / "apStar.npz", body, read, partial(xr.testing.assert_equal, truth))
        < NUMBER / 10
    )
    xr.testing.assert_equal(truth, read_apstar(whole))


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
            place = PurePosixPath(sas_path(row))
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
    st.tuples(
        st.sampled_from(["flux", "error"]), st.integers(0, 8574), st.integers(1, 4000), NUMBERS
    ),
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
    arrays = {
        "flux": np.where(bad, 0, arrays["flux"]),
        "error": np.where(bad, np.inf, arrays["error"]),
    }
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


def test_damaged_continuum_maps(tmp_path):
    np.savez(tmp_path / "whole.npz", trusted=CONTINUUM.values[:200], wavelengths=GRID[:200])
    truth = read_continuum_pixels(tmp_path / "whole.npz")
    body = (tmp_path / "whole.npz").read_bytes()
    assert (
        survivors(
            tmp_path / "map.npz",
            body,
            read_continuum_pixels,
            partial(xr.testing.assert_equal, truth),
        )
        > 0
    )


# ---------------------------------------------------------------- the catalog


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return read_tables(write_archive(tmp_path_factory.mktemp("fuzz"), number=4)).reset_index()


def assert_catalog(found):
    numbers = found[[*PARAMETERS, *ERRORS]].to_numpy()
    assert not np.isinf(numbers).any()
    assert not (numbers < -9000).any()
    assert all(found[name].dtype == np.int64 for name in catalog.FLAGS)


PIECES = st.sampled_from(["null", "", "-9999", "1e400", b"", b"\x80", True, 2**70, -(2**63)])
CELLS = st.one_of(st.none(), st.integers(), st.floats(), st.text(max_size=8), PIECES)


@given(
    st.lists(st.tuples(st.sampled_from(COLUMNS), st.integers(0, 5), CELLS), min_size=1, max_size=4)
)
@fuzz
def test_tables_with_strange_cells(table, cells):
    table = table.astype(object)
    for name, row, value in cells:
        table.loc[row, name] = value
    with suppress(CorruptFileError):
        assert_catalog(tidy(table, "test"))


@example("")
@example("#Table1\n")
@example("<html></html>")
@given(st.text(max_size=300))
@fuzz
def test_answers_of_skyserver(body):
    with pytest.raises(CorruptFileError):
        parse_answer(COLUMNS, body.encode(errors="replace"))


def test_damaged_answers_of_skyserver(table):
    body = ("#Table1\n" + table[list(COLUMNS)].to_csv(index=False)).encode()
    taken = 0
    for changed in mutations(body):
        with suppress(CorruptFileError):
            assert_catalog(tidy(parse_answer(COLUMNS, changed), "test"))
            taken += 1
    assert taken > 0


def test_a_kept_catalog_comes_back(table):
    good = table.set_index("apogee_id")
    good.attrs["source"] = "test"
    pd.testing.assert_frame_equal(catalog_of(catalog_bytes(good)), good)


@pytest.mark.parametrize("reach", [None, 8640], ids=["anywhere", "in the headers"])
def test_damaged_allstar_files(table, tmp_path, reach):
    from test_catalog import write_allstar

    body = write_allstar(tmp_path / "whole.fits", table).read_bytes()
    assert survivors(tmp_path / "allStar.fits", body, read_allstar, assert_catalog, reach) > 0


@pytest.mark.parametrize("name", ["apogeeStar", "aspcapStar"])
def test_damaged_tables(tmp_path, name):
    folder = write_archive(tmp_path, number=4)
    path = folder / f"{name}.csv"
    taken = 0
    for changed in mutations(path.read_bytes()):
        path.write_bytes(changed)
        with suppress(CorruptFileError):
            assert_catalog(read_tables(folder))
            taken += 1
    assert taken > 0


# ---------------------------------------------------------------- MIST


def test_damaged_mist_files(tmp_path):
    from test_isochrones import mist_text

    def check(table):
        assert np.isfinite(
            table[["eep", "age", "feh_init", "teff", "log_g", "phase"]].to_numpy()
        ).all()

    assert (
        survivors(tmp_path / "grid.iso.cmd", mist_text([9.8], -1.0).encode(), read_mist, check) > 0
    )
