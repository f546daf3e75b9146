"""The doctor says what is wrong and what to do about it."""

import shutil
from importlib import metadata

import pytest
from sdss_server import serving
from tiny_archive import write_archive

from labtools import doctor
from labtools.__main__ import main
from labtools.sdss import dr17 as archive
from labtools.surveys import open_survey


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("mirror"), number=6)


@pytest.fixture
def sdss(mirror, monkeypatch):
    with serving(mirror) as server:
        monkeypatch.setattr(archive, "COURSE", server.url + "/")
        monkeypatch.setattr(doctor, "MIST", server.url)
        yield server


@pytest.fixture
def home(tmp_path, sdss, monkeypatch):
    """A data folder with a DR17 cache that is whole."""
    for name in ("LAB_SURVEY", "LAB_DATA_SHARED", "LAB_FIELDS", "LAB_KEEP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LAB_SURVEY", "dr17")
    survey = open_survey()
    ids = survey.catalog().index.unique()
    survey.spectra(ids[:4])
    survey.spectra(ids[4:], keep="arrays")
    return survey.root


def wrong():
    return [one for findings in doctor.examine().values() for one in findings if one.well is False]


def test_a_lab_that_is_well(home, capsys):
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    for expected in (
        "Python",
        "astroquery",
        "APOGEE DR17 (LAB_SURVEY=dr17)",
        "6 whole spectra",
        "CAS synspec",
        "All is well",
    ):
        assert expected in report
    assert report.count("answers") == 4


@pytest.mark.parametrize("kind", ["*.fits", "*.npz"])
def test_a_damaged_spectrum_is_found(home, kind):
    path = next(iter(sorted(home.rglob(f"apStar{kind}"))))
    path.write_bytes(path.read_bytes()[:-3000])
    (finding,) = wrong()
    assert path.name in finding.what
    assert "delete it" in finding.advice


def test_a_file_that_has_changed_is_found_by_its_checksum(home):
    path = next(home.rglob("*.fits"))
    body = bytearray(path.read_bytes())
    body[100_000] ^= 1
    path.write_bytes(body)
    (finding,) = wrong()
    assert "sha1" in finding.what


def test_a_damaged_catalogue_and_unfinished_files_are_found(home, capsys):
    (path,) = home.rglob("catalog-*.csv")
    path.write_bytes(b"# {}\n")
    (home / "dr17" / ".apStar.fits.0123.part").write_bytes(b"half")
    assert main(["doctor", "--offline"]) == 1
    report = capsys.readouterr().out
    assert "damaged" in report
    assert "1 unfinished files" in report
    assert "Network" not in report


def test_a_server_that_is_down_matters_only_to_the_survey_that_needs_it(home, sdss, monkeypatch):
    sdss.fault = lambda path, number: "503"
    assert len(wrong()) == 4
    monkeypatch.setenv("LAB_SURVEY", "simulated")
    assert wrong() == []
    assert all("503" in one.what for one in doctor.addresses(needed=True))


def test_a_server_that_is_not_there(monkeypatch):
    (finding,) = [doctor.answers("nobody", "http://127.0.0.1:9/", needed=True)]
    assert finding.well is False
    assert "online" in finding.advice


def test_a_wrong_name_of_a_survey(monkeypatch, capsys):
    monkeypatch.setenv("LAB_SURVEY", "dr71")
    assert main(["doctor", "--offline"]) == 1
    assert "'dr71'" in capsys.readouterr().out


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["numpy", "nowhere>=2", 'x; extra == "test"'])
    findings = doctor.installed()
    assert [one.what for one in findings if one.well is False] == ["nowhere is missing"]
    assert f"numpy {metadata.version('numpy')}" in [one.what for one in findings]


def test_another_mystery_file_than_the_known_one_is_told(home, mirror):
    shutil.copy(next(mirror.rglob("*.fits")), home / "mystery_spec_wiped.fits")
    finding = doctor.course_file(open_survey(), "mystery_spec_wiped.fits")
    assert finding.well is None
    assert "is that meant" in finding.advice
