"""Files and machines as real users have them: what is to come of each.

Trials of the selection, the continuum, the Cannon, the samplers and the networks are with the tests
of their modules; these are of the archive.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from apogee_archive.apstar import read_apstar
from apogee_archive.aspcapstar import read_aspcapstar
from apogee_archive.errors import ArchiveError, CorruptFileError, TransferError
from apogee_archive.files import check_star
from apogee_archive.hdf5_frames import read_frame
from apogee_archive.http import fetch
from apogee_archive.survey import Survey
from labtools.spectra import WAVELENGTH

ROOT = Path(__file__).resolve().parents[1]
STAR = "2M00000000+0000000"


@pytest.fixture
def plain_machine(monkeypatch):
    """No proxy and no certificates are set."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


# ---------------------------------------------------------------- machines


def test_certificates_that_are_not_there_are_named(plain_machine):
    plain_machine.setenv("SSL_CERT_FILE", "/nowhere/cacert.pem")
    with pytest.raises(ArchiveError, match=r"SSL_CERT_FILE=/nowhere/cacert\.pem"):
        fetch("http://127.0.0.1:9/x", attempts=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("SSL_CERT_FILE", "/nowhere/cacert.pem"), ("ALL_PROXY", "socks5://user:word@127.0.0.1:1")],
)
def test_the_doctor_diagnoses_a_machine_instead_of_crashing(plain_machine, tmp_path, name, value):
    plain_machine.setenv(name, value)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "packages")])
    done = subprocess.run(
        [sys.executable, "-m", "lab_course", "doctor"],
        env=os.environ | {"LAB_SURVEY": "dr17", "LAB_DATA": str(tmp_path), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.startswith("BAD") and name in line]
    assert "word" not in done.stdout, "the password of a proxy is not shown"


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks5://127.0.0.1:1"), ("NO_PROXY", "localhost,[::1]")]
)
def test_odd_proxies_work_or_are_named(plain_machine, name, value):
    plain_machine.setenv(name, value)
    with pytest.raises(ArchiveError) as caught:  # nobody listens there
        fetch("http://127.0.0.1:9/x", attempts=1)
    assert isinstance(caught.value, TransferError) or name in str(caught.value)


# ---------------------------------------------------------------- wavelength scales


def write(path, primary=(), image=(), pixels=1000):
    """An apStar file with keywords in the primary header, and in the headers of its images."""
    first = fits.Header({"OBJID": STAR} | dict(primary))
    images = [
        fits.ImageHDU(np.ones(pixels, k), fits.Header(dict(image))) for k in ("f4", "f4", "i2")
    ]
    fits.HDUList([fits.PrimaryHDU(header=first), *images]).writeto(path)
    return path


SCALE = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CTYPE1": "LOG-LINEAR"}


@pytest.mark.parametrize("where", ["primary", "image"])
@pytest.mark.parametrize("reference", [-99.0, -99, 1, 0.5, 101])
def test_the_reference_pixel_shifts_the_wavelengths(tmp_path, where, reference):
    path = write(tmp_path / "cut.fits", **{where: SCALE | {"CRPIX1": reference}})
    expected = 10 ** (4.179 + 6e-6 * (np.arange(1000) + 1 - reference))
    np.testing.assert_allclose(read_apstar(path).wavelength, expected, rtol=1e-12)


def test_a_cut_of_the_survey_lies_exactly_on_its_grid(tmp_path):
    path = write(tmp_path / "cut.fits", image=SCALE | {"CRPIX1": -99})
    np.testing.assert_array_equal(read_apstar(path).wavelength, WAVELENGTH[100:1100])


def test_a_shifted_spectrum_of_full_length_is_not_one_of_the_survey(tmp_path):
    path = write(tmp_path / "shift.fits", SCALE | {"CRPIX1": 2}, pixels=WAVELENGTH.size)
    with pytest.raises(CorruptFileError, match="not the 8575"):
        check_star(path.read_bytes(), path, STAR)


@pytest.mark.parametrize(
    ("primary", "image"),
    [
        (SCALE | {"CRPIX1": 1}, SCALE | {"CRPIX1": -99}),
        (SCALE, SCALE | {"CDELT1": 6.1e-6}),
        (SCALE | {"CD1_1": 7e-6}, {}),
        (SCALE | {"CTYPE1": "LINEAR"}, {}),
        (SCALE | {"DC-FLAG": 0}, {}),
        (SCALE | {"CRPIX1": "one"}, {}),
        (SCALE | {"CRPIX1": 1e300}, {}),
        ({"CRPIX1": 1}, {}),
        ({}, {}),
    ],
)
def test_contradictory_scales_are_refused_and_none_is_guessed(tmp_path, primary, image):
    with pytest.raises(CorruptFileError, match=r"CRVAL1|CDELT1|CTYPE1"):
        read_apstar(write(tmp_path / "odd.fits", primary, image))


def test_a_normalized_spectrum_of_the_pipeline_is_on_the_grid_or_refused(tmp_path):
    """Another reader, the same keywords."""
    path = write(tmp_path / "right.fits", image=SCALE | {"CRPIX1": 1}, pixels=WAVELENGTH.size)
    assert read_aspcapstar(path)[0].shape == WAVELENGTH.shape
    path = write(tmp_path / "shift.fits", image=SCALE | {"CRPIX1": 2}, pixels=WAVELENGTH.size)
    with pytest.raises(CorruptFileError, match="not on the wavelengths"):
        read_aspcapstar(path)


# ---------------------------------------------------------------- files of other Pythons


@pytest.mark.filterwarnings("ignore::pandas.errors.PerformanceWarning")
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tables_of_old_pythons_are_read(tmp_path, monkeypatch, protocol):
    monkeypatch.setattr(pickle, "HIGHEST_PROTOCOL", protocol)
    names = np.array([b"2M1", b"2M2", b""], object)
    table = pd.DataFrame({"APOGEE_ID": names, "TEFF": [4000.0, 5000.0, 5.0]})
    table.to_hdf(tmp_path / "apogee_dr17.h5", key="allstar", mode="w")
    pd.testing.assert_frame_equal(read_frame(tmp_path / "apogee_dr17.h5", "allstar"), table)


# ---------------------------------------------------------------- names of stars


class Small(Survey):
    """One star, without files."""

    title = "small"

    def catalog(self, raw=False):
        row = {"telescope": "apo25m", "field": "M15", "file": "apStar-dr17-2M1.fits", "nvisits": 1}
        return pd.DataFrame(
            row | {"snr": 100.0, "extratarg": 0}, index=pd.Index(["2M1"], name="apogee_id")
        )


@pytest.mark.parametrize("ids", [np.array([b"2M1"]), ["2M1 "], {"2M1"}, {"2M1": 0}.keys(), "2M1"])
def test_names_as_bytes_padded_or_in_sets(ids):
    assert Small(Path())._rows(ids).index.tolist() == ["2M1"]
