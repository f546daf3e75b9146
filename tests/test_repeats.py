"""Visits of one star, read from apStar files and compared."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from apogee_archive.errors import CorruptFileError
from apogee_archive.grid import WAVELENGTH
from labtools.repeats import pair_scatter, pairs_of_entries, read_visits


def write(path, rows, pixels=WAVELENGTH.size):
    flux = np.arange(rows)[:, None] + np.ones(pixels)
    mask = np.zeros((rows, pixels), "i4")
    mask[-1, 7] = 1  # BADPIX in the last row
    images = [fits.ImageHDU(image) for image in (flux.astype("f4"), flux.astype("f4") / 50, mask)]
    first = fits.PrimaryHDU()
    first.header["OBJID"] = "2M00000000+0000000"
    fits.HDUList([first, *images]).writeto(path)
    return path


def test_visits_are_the_rows_after_the_combinations(tmp_path):
    visits = read_visits(write(tmp_path / "three.fits", rows=5))
    assert list(visits.star.values) == [f"2M00000000+0000000/{number}" for number in (1, 2, 3)]
    np.testing.assert_allclose(visits.flux.values[:, 0], [3, 4, 5])
    assert np.isinf(visits.error.values[2, 7])
    assert np.isfinite(visits.error.values[1]).all()


def test_a_single_visit_has_no_rows_of_its_own(tmp_path):
    assert read_visits(write(tmp_path / "one.fits", rows=2)).sizes["star"] == 0


def test_real_files_have_the_visits_that_their_headers_count(shared_data):
    counted = 0
    for path in sorted((shared_data / "apstar-dr13").glob("*.fits")):
        visits = read_visits(path)
        number = fits.getheader(path)["NVISITS"]
        assert visits.sizes["star"] == (number if number > 1 else 0), path.name
        assert np.isfinite(visits.flux).all()
        counted += visits.sizes["star"]
    assert counted > 1


def test_what_is_no_file_of_visits_is_refused(tmp_path):
    (tmp_path / "page.fits").write_text("<html>not found</html>")
    with pytest.raises(CorruptFileError):
        read_visits(tmp_path / "page.fits")
    with pytest.raises(CorruptFileError, match="8575"):
        read_visits(write(tmp_path / "short.fits", rows=4, pixels=100))


def test_scatter_of_pairs_is_found_with_its_error():
    rng = np.random.default_rng(1)
    errors = pd.DataFrame({"teff": rng.uniform(5, 50, 3000), "logg": 0.01})
    differences = errors * rng.standard_normal(errors.shape) * [1.0, 1.7]
    table = pair_scatter(differences, errors, by=errors.teff, edges=(0, 20, 50))
    pull = (table.xs("ratio", axis=1, level=1) - [1.0, 1.7]) / table.xs("error", axis=1, level=1)
    assert (pull.abs() < 4).all(axis=None)
    assert table["pairs"].sum().sum() == 3000


def test_entries_without_a_partner_or_a_label_make_no_pair():
    catalog = pd.DataFrame(
        {"teff": [1.0, 4.0, 5.0, np.nan, 2.0], "teff_err": 1.0}, index=["a", "a", "b", "b", "c"]
    )
    differences, errors = pairs_of_entries(catalog, ["teff"])
    assert list(differences.index) == ["a"]
    assert differences.teff.item() == -3
    np.testing.assert_allclose(errors, np.sqrt(2))
