"""One flipped bit in any file that the archive's client writes is never silent.

Either the numbers are the same as before (the bit does not matter, or the file was made or fetched
again), or the star is left out with a warning that names it. Files of other parts of the lab are
flipped in their own tests: simulation, Cannon, networks, whole survey.
"""

import random
import warnings

import numpy as np
import pytest
import xarray as xr

from apogee_archive import http
from apogee_archive.errors import ArchiveError
from labtools import left_out, open_survey
from sdss_server import serving
from tiny_archive import write_archive

FLIPS = 10  # of one file of each kind


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("mirror"), number=4)


@pytest.fixture(params=["archive's list", "own list"])
def server(mirror, request, monkeypatch):
    """A server with and without lists of checksums."""
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    with serving(mirror, sums=request.param == "archive's list") as server:
        yield server


def flips(path, number=FLIPS):
    """Flip a random bit of a file, again and again; the file is whole again afterwards."""
    content, draw = path.read_bytes(), random.Random(path.name)
    for _ in range(number):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        yield
        path.write_bytes(content)


@pytest.mark.parametrize("storage", ["files", "arrays"])
def test_flips_in_what_is_downloaded(server, tmp_path, storage):
    survey = open_survey("dr17", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = survey.catalog().index.unique()
        truth = survey.spectra(ids, storage=storage)
    catalog = survey.catalog()
    written = {path.suffix: path for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    assert written.keys() >= {".csv", ".fits" if storage == "files" else ".npz"}
    for path in written.values():
        for _ in flips(path):
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                try:
                    found = survey.spectra(ids, storage=storage)
                except ArchiveError:  # too few are left: not silent either
                    continue
            for star in left_out(found).star:
                assert any(star in str(one.message) for one in said), path
            xr.testing.assert_equal(found.drop_attrs(), truth.sel(star=found.star).drop_attrs())
    assert survey.catalog().equals(catalog)


def test_flips_in_what_is_remembered(mirror, tmp_path, monkeypatch):
    """The note of what the archive does not have: damaged, it is asked for again."""
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    survey = open_survey("dr17", tmp_path)
    with serving(mirror) as server:
        ids = survey.catalog().index.unique()
        server.fault = lambda path, number: None
        survey.spectra(ids)
        note = survey.home / "absent.json"
        note.write_text('{"http://elsewhere/x": "2026-01-01"}')
        for _ in flips(note, 100):
            assert survey.spectra(ids).sizes["star"] == len(ids)


def test_flips_in_a_kept_dataset(tmp_path):
    """What normalized spectra are kept as; the checksum is in the name of the file."""
    from apogee_archive.cache import cached

    made = xr.Dataset(
        {"flux": (("star", "wavelength"), np.ones((2, 3), "f4"))}, {"star": ["a", "b"]}
    )
    cached([tmp_path], "normalized", lambda: made)
    (path,) = tmp_path.iterdir()
    for _ in flips(path, 200):
        with pytest.warns(UserWarning, match="damaged .* made again"):
            assert cached([tmp_path], "normalized", lambda: made).identical(made)
