"""Files of stars: names are no paths, a file counts only if whole, the compact form loses nothing."""

import hashlib

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from apogee_archive.apstar import parse_apstar, read_apstar
from apogee_archive.errors import CorruptFileError
from apogee_archive.files import (
    RECEIVED,
    check_star,
    expected_bytes,
    pack,
    parse_sha1sums,
    read_continuum_pixels,
    read_sha1sums,
    read_star,
    sas_path,
)
from labtools.spectra import WAVELENGTH
from tiny_archive import PIXELS, write_apstar

STAR = "2M00000001+0000001"


@pytest.fixture
def path(tmp_path):
    return write_apstar(tmp_path / "apStar.fits", STAR, nvisits=3)


def row(telescope="apo25m", field="060+00", file=f"apStar-dr17-{STAR}.fits"):
    return {"telescope": telescope, "field": field, "file": file}


def test_places_are_those_of_the_archive():
    stars = "dr17/apogee/spectro/redux/dr17/stars"
    assert sas_path(row()) == f"{stars}/apo25m/060+00/apStar-dr17-{STAR}.fits"
    south = row("lco25m", "293-37-C", "asStar-dr17-2M03174068-7748459.fits")
    assert sas_path(south) == f"{stars}/lco25m/293-37-C/asStar-dr17-2M03174068-7748459.fits"
    assert (
        sas_path(row("apo1m", "hip", "apStar-dr17-VESTA.fits"))
        == f"{stars}/apo1m/hip/apStar-dr17-VESTA.fits"
    )


@pytest.mark.parametrize(
    "evil",
    [
        "../../etc",
        "..",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "M15\x00",
        "M15\n",
        "",
        ".",
        "Ｍ15",
        "x" * 99,
        np.nan,
        None,
        12,
    ]
    + ["CON", "nul", "Aux.1", "com1", "LPT9.x", "M15."],
)
def test_names_are_never_paths(evil):
    files = [row(file=f"apStar-dr17-{evil}.fits")] if isinstance(evil, str) else []
    for bad in (row(field=evil), row(telescope=evil), row(file=evil), *files):
        with pytest.raises(ValueError, match=r"refused|names no file"):
            sas_path(bad)


def test_real_files_pass(shared_data):
    files = [*shared_data.glob("apstar-dr13/*.fits"), *shared_data.glob("course/*.fits")]
    for file in files:
        check_star(file.read_bytes(), file, fits.getheader(file)["OBJID"])
    assert len(files) == 7


@pytest.mark.parametrize("kept", [0, 1, 79, 2880, 5000, 8640, 100_000, -2880, -1])
def test_a_truncated_file_does_not(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CorruptFileError):
        read_star(path, STAR)


def test_a_file_with_more_behind_it_does_not(path):
    path.write_bytes(path.read_bytes() + b"\0" * 2880)
    with pytest.raises(CorruptFileError):
        read_star(path, STAR)


def test_the_file_of_another_star_does_not(path):
    with pytest.raises(CorruptFileError, match=r"another star, .* not of 2M99999999"):
        read_star(path, "2M99999999+9999999")


def test_a_spectrum_on_another_grid_is_refused(path):
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["CDELT1"] = 6.1e-6
    with pytest.raises(CorruptFileError, match="not the 8575"):
        read_star(path, STAR)


def test_the_compact_form_loses_nothing(path, tmp_path):
    before, size = read_apstar(path), path.stat().st_size
    packed = pack(parse_apstar(path.read_bytes(), path, bits=0), tmp_path / "arrays" / "star.npz")
    xr.testing.assert_equal(read_star(packed, STAR), before)
    assert packed.stat().st_size < size / 5


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-500], lambda b: b[:99], lambda b: b"", lambda b: b.replace(b"flux", b"flax")],
)
def test_a_damaged_compact_file_is_refused(path, tmp_path, damage):
    packed = pack(parse_apstar(path.read_bytes(), path, bits=0), tmp_path / "star.npz")
    packed.write_bytes(damage(packed.read_bytes()))
    with pytest.raises(CorruptFileError, match="packed"):
        read_star(packed, STAR)


def test_pickles_are_never_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    np.savez(
        tmp_path / "trap.npz", star=np.array([Trap()], object), trusted=np.array([Trap()], object)
    )
    with pytest.raises(CorruptFileError):
        read_star(tmp_path / "trap.npz", STAR)
    with pytest.raises(ValueError, match="not a readable"):
        read_continuum_pixels(tmp_path / "trap.npz")
    assert not (tmp_path / "sprung").exists()


def test_names_that_begin_like_reserved_ones_are_free():
    assert sas_path(row(field="CONTROL"))
    assert sas_path(row(field="COM"))


def test_a_file_under_another_checksum_is_refused(path):
    right = hashlib.sha1(path.read_bytes()).hexdigest()
    assert read_star(path, STAR, right).sizes["star"] == 1
    with pytest.raises(CorruptFileError, match="its sha1 is not that"):
        read_star(path, STAR, "0" * 40)


def test_the_expected_size_is_near_the_true_one():
    sizes = [2 * 7 * 4 * PIXELS, 2 * 7 * 4 * PIXELS, 5 * 7 * 4 * PIXELS]
    assert expected_bytes([0, 1, 3]) == pytest.approx(sum(sizes), rel=0.2)


def test_lists_of_checksums(tmp_path):
    content = f"{'a' * 40}  apStar-1.fits\n{'b' * 40} *./M15/apStar-2.fits\nnonsense\n".encode()
    assert parse_sha1sums(content) == {"apStar-1.fits": "a" * 40, "apStar-2.fits": "b" * 40}
    with pytest.raises(ValueError, match="not a list"):
        parse_sha1sums(b"<html>Sorry</html>")
    (tmp_path / RECEIVED).write_bytes(content.replace(b"aaa", b"ccc"))
    assert read_sha1sums(tmp_path)["apStar-1.fits"].startswith("ccc")
    (tmp_path / "archive.sha1sum").write_bytes(content)
    assert read_sha1sums(tmp_path)["apStar-1.fits"] == "a" * 40, "what the archive says counts"


GRID = WAVELENGTH[np.r_[322:3242, 3648:6048, 6412:8306]]


@pytest.mark.parametrize("key", ["trusted", "continuum", "mask"])
@pytest.mark.parametrize("grid", ["wavelengths", "wavelength", None])
def test_continuum_maps_of_every_key(tmp_path, key, grid):
    pixels = np.random.default_rng(1).random(GRID.size) < 0.1
    np.savez(tmp_path / "map.npz", **{key: pixels}, **({grid: GRID * (1 + 3e-13)} if grid else {}))
    found = read_continuum_pixels(tmp_path / "map.npz")
    assert found.dims == ("wavelength",)
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(
        found.wavelength, GRID, "exactly wavelengths of the survey's grid"
    )


BAD_MAPS = {
    "nothing": {},
    "no boolean": {"trusted": np.arange(9.0)},
    "two dimensions": {"trusted": np.ones((9, 9), bool)},
    "none trusted": {"trusted": np.zeros(9, bool), "wavelength": np.linspace(15000, 16000, 9)},
    "other length": {"trusted": np.ones(9, bool), "wavelength": np.linspace(15000, 16000, 8)},
    "falling": {"trusted": np.ones(9, bool), "wavelength": np.linspace(16000, 15000, 9)},
    "NaN": {"trusted": np.ones(9, bool), "wavelength": np.full(9, np.nan)},
    "micrometres": {"trusted": np.ones(9, bool), "wavelength": np.linspace(1.5, 1.6, 9)},
    "no wavelengths": {"trusted": np.ones(9, bool)},
}


@pytest.mark.parametrize("arrays", BAD_MAPS.values(), ids=BAD_MAPS)
def test_bad_continuum_maps_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "map.npz", **arrays)
    with pytest.raises(ValueError, match=r"map\.npz"):
        read_continuum_pixels(tmp_path / "map.npz")


def test_the_course_map(shared_data):
    pixels = read_continuum_pixels(shared_data / "course" / "cannon_continuum_apogee.npz")
    assert (pixels.size, int(pixels.sum())) == (7214, 529)
    np.testing.assert_array_equal(pixels.wavelength, GRID)
