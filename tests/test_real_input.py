"""Real spectra go through every step: read, masked, normalized, and labelled by a Cannon trained here."""

import shutil

import numpy as np
import pytest
from astropy.io import fits

from apogee_archive.files import read_continuum_pixels
from labtools import Cannon, normalize, open_survey, read_apstar, select_giants
from labtools.spectra import LAB_BITS
from sdss_server import serving

LABELS = ["teff", "logg", "fe_h", "alpha_m"]


@pytest.fixture(scope="module")
def course(shared_data, tmp_path_factory):
    """A data folder that holds the files of the course."""
    folder = tmp_path_factory.mktemp("data")
    for file in (shared_data / "course").iterdir():
        shutil.copy(file, folder)
    return folder


def test_the_mystery_star_is_read_masked_and_normalized(course):
    survey = open_survey("dr17", course)
    star = survey.mystery()
    with fits.open(course / "mystery_spec_wiped.fits") as hdus:
        flagged = hdus[3].data.astype(int) & int(LAB_BITS) != 0
        dark = hdus[1].data == 0
    assert flagged.sum() == 1204, "pixels with one of the lab's bits, as counted independently"
    np.testing.assert_array_equal(np.isinf(star.error.values[0]), flagged | dark)
    normal = normalize(star, survey.continuum_pixels())
    usable = np.isfinite(normal.error.values[0])
    flux = normal.flux.values[0][usable]
    assert np.isfinite(normal.flux).all()
    assert 0.9 < np.median(flux) < 1.0, "lines take light away, the continuum is at 1"
    assert np.percentile(flux, 90) == pytest.approx(1, abs=0.02)


@pytest.mark.filterwarnings("ignore:chip")
def test_six_real_files_are_read_and_normalized(shared_data, course):
    pixels = read_continuum_pixels(course / "cannon_continuum_apogee.npz")
    files = sorted(shared_data.glob("apstar-dr13/*.fits"))
    for file in files:
        spectra = read_apstar(file)
        assert spectra.star.item() in file.name
        normal = normalize(spectra, pixels)
        good = np.isfinite(normal.error)
        assert good.sum() > 4000
        assert float(normal.flux.where(good & pixels).median()) == pytest.approx(1, abs=0.02)
    assert len(files) == 6


def test_a_cannon_of_the_replica_knows_the_mystery_star(shared_data, course):
    with serving(shared_data / "dr17-replica"):
        survey = open_survey("dr17", course)
        giants = select_giants(survey.catalog())
        spectra = survey.spectra(giants)
    pixels = survey.continuum_pixels()
    labels = giants.loc[spectra.star.values, LABELS]
    model = Cannon.train(normalize(spectra, pixels), labels)
    found = model.fit(normalize(survey.mystery(), pixels)).iloc[0]
    assert found.converged
    known = {"teff": (4467, 80), "logg": (2.03, 0.2), "fe_h": (-0.51, 0.08), "alpha_m": (0.23, 0.1)}
    for label, (value, tolerance) in known.items():
        assert found[label] == pytest.approx(value, abs=tolerance), label
