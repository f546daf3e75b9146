"""Reading apStar files: rows, masks, shapes, byte orders, and files that are something else."""

import hashlib
from decimal import Decimal

import numpy as np
import pytest
from astropy.io import fits

from apogee_archive.apstar import read_apstar
from apogee_archive.errors import CorruptFileError
from labtools.spectra import LAB_BITS, PIXEL_FLAWS, WAVELENGTH, PixMask

PIXELS = 50


def write(path, flux, error, mask, header=None, order=">"):
    primary = fits.PrimaryHDU()
    primary.header.update(
        {"OBJID": "2M00000000+0000000", "CRVAL1": 4.179, "CDELT1": 6e-6, "SNR": 99.0}
        | (header or {})
    )
    images = [
        np.asarray(image).astype(np.asarray(image).dtype.newbyteorder(order))
        for image in (flux, error, mask)
    ]
    fits.HDUList([primary, *map(fits.ImageHDU, images)]).writeto(path)
    return path


def rows(number, dtype="f4"):
    """Images whose row r holds the value r + 1 everywhere."""
    return np.tile(np.arange(1, number + 1, dtype=dtype)[:, None], PIXELS)


@pytest.mark.parametrize("visits", [1, 2, 5])
def test_the_combined_spectrum_is_row_zero(tmp_path, visits):
    mask = np.zeros((visits + 2, PIXELS), "i4")
    mask[1:] = 1
    star = read_apstar(write(tmp_path / "a.fits", rows(visits + 2), 0.1 * rows(visits + 2), mask))
    assert np.all(star.flux == 1)
    np.testing.assert_allclose(star.error, 0.1, rtol=1e-6)
    assert star.star.values == ["2M00000000+0000000"]


def test_files_of_one_visit_before_dr17_have_no_rows(tmp_path):
    star = read_apstar(write(tmp_path / "a.fits", rows(1)[0], rows(1)[0], np.zeros(PIXELS, "i2")))
    assert star.flux.shape == (1, PIXELS)
    assert np.isfinite(star.error).all()


def test_the_grid_has_the_same_bits_on_every_machine():
    """Keys of caches, and spectra beside a model, are compared bit by bit; a data folder may have several machines."""
    exact = [
        float(Decimal(10) ** (Decimal("4.179") + n * Decimal("6e-6")))
        for n in range(0, WAVELENGTH.size, 50)
    ]
    assert WAVELENGTH[::50].tolist() == exact
    assert hashlib.sha256(WAVELENGTH.astype("<f8").tobytes()).hexdigest()[:16] == "153a76f6f16b1a92"


def test_wavelengths_follow_the_header(tmp_path):
    star = read_apstar(write(tmp_path / "a.fits", rows(1), rows(1), np.zeros((1, PIXELS), "i4")))
    np.testing.assert_allclose(star.wavelength, WAVELENGTH[:PIXELS], rtol=1e-14)
    assert WAVELENGTH[[0, -1]] == pytest.approx([15100.80, 16999.81], abs=0.005)


@pytest.mark.parametrize("bit", range(15))
def test_which_bits_disqualify_a_pixel(tmp_path, bit):
    mask = np.zeros((1, PIXELS), "i2")
    mask[0, 7] = 1 << bit
    error = read_apstar(write(tmp_path / "a.fits", rows(1), rows(1), mask)).error.values[0]
    assert np.isinf(error[7]) == (bit in (0, 1, 2, 3, 4, 5, 6, 7, 12))
    assert np.isfinite(np.delete(error, 7)).all()


def test_the_set_of_bits_is_an_argument(tmp_path):
    mask = np.full((1, PIXELS), 1 << 14, "i4")
    path = write(tmp_path / "a.fits", rows(1), rows(1), mask)
    assert np.isfinite(read_apstar(path).error).all()
    assert np.isinf(read_apstar(path, bits=1 << 14).error).all()


def test_the_sign_bit_of_old_masks_is_no_other_bit(tmp_path):
    mask = np.full((1, PIXELS), -32768, "i2")
    star = read_apstar(write(tmp_path / "a.fits", rows(1), rows(1), mask))
    assert np.all(star.mask == 32768)
    assert np.isfinite(star.error).all()


@pytest.mark.parametrize(
    ("flux", "error"), [(np.nan, 1), (np.inf, 1), (0, 1), (1, np.nan), (1, 0), (1, -1), (1, np.inf)]
)
def test_numbers_that_are_no_measurement(tmp_path, flux, error):
    fluxes, errors = rows(1), rows(1)
    fluxes[0, 3], errors[0, 3] = flux, error
    star = read_apstar(write(tmp_path / "a.fits", fluxes, errors, np.zeros((1, PIXELS), "i4")))
    assert np.isinf(star.error[0, 3])
    assert np.isfinite(star.flux).all()
    assert np.isfinite(star.error).sum() == PIXELS - 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_numbers_are_in_native_byte_order(tmp_path, order):
    path = write(tmp_path / "a.fits", rows(3), rows(3), np.zeros((3, PIXELS), "i4"), order=order)
    star = read_apstar(path)
    assert star.flux.dtype == np.float32
    assert star.flux.dtype.isnative


def foreign_files():
    good, zeros = rows(1), np.zeros((1, PIXELS), "i4")
    table = fits.BinTableHDU.from_columns([fits.Column("x", "E", array=[1.0])])
    yield (
        "no wavelength scale",
        lambda path: write(path, good, good, zeros, {"CRVAL1": "x"}),
        "CRVAL1",
    )
    yield (
        "a linear scale",
        lambda path: write(path, good, good, zeros, {"CRVAL1": 15000.0}),
        "log10",
    )
    yield "unequal images", lambda path: write(path, good, good[:, 1:], zeros), "pixels"
    yield "a mask of floats", lambda path: write(path, good, good, good), "integer"
    yield (
        "fewer images",
        lambda path: fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(good)]).writeto(path),
        "2 HDUs",
    )
    yield (
        "tables",
        lambda path: fits.HDUList([fits.PrimaryHDU(), table, table, table]).writeto(path),
        "TABLE",
    )
    yield "a web page", lambda path: path.write_text("<html>404</html>"), "web page"
    yield "nothing", lambda path: path.write_bytes(b""), "no header"
    yield "promised pixels", lambda path: write(path, good, good, zeros, {"NWAVE": 8575}), "8575"


@pytest.mark.parametrize(
    ("make", "message"), [pytest.param(m, t, id=name) for name, m, t in foreign_files()]
)
def test_foreign_files_are_named_with_their_fault(tmp_path, make, message):
    path = tmp_path / "suspect.fits"
    make(path)
    with pytest.raises(CorruptFileError, match=message) as fault:
        read_apstar(path)
    assert "suspect.fits" in str(fault.value)


def test_a_truncated_file_is_not_read(tmp_path):
    path = write(tmp_path / "cut.fits", rows(200), rows(200), np.zeros((200, PIXELS), "i4"))
    path.write_bytes(path.read_bytes()[:-6000])
    with pytest.raises(CorruptFileError, match=r"cut\.fits"):
        read_apstar(path)


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_apstar(tmp_path / "none.fits")


def test_the_lab_and_the_pipeline_sets():
    assert int(LAB_BITS) == 4351
    assert [flag.name for flag in PixMask(1 | 4096 | 1 << 15)] == ["BADPIX", "SIG_SKYLINE"]
    assert list(PIXEL_FLAWS) == list(PixMask)
