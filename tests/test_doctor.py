"""The doctor says what is wrong and what to do about it."""

import shutil
from importlib import metadata

import pytest
from astroquery.sdss import conf

from apogee_archive import dr17 as archive
from lab_course import doctor
from lab_course.__main__ import main
from labtools.surveys import open_survey
from sdss_server import serving
from tiny_archive import write_archive


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("mirror"), number=6)


@pytest.fixture
def sdss(mirror, monkeypatch):
    with serving(mirror) as server:
        monkeypatch.setattr(archive, "COURSE", server.url + "/")
        yield server


@pytest.fixture
def home(tmp_path, sdss, monkeypatch):
    """A data folder with a DR17 cache that is whole."""
    for name in ("LAB_SURVEY", "LAB_DATA_SHARED", "LAB_FIELDS", "LAB_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("LAB_SURVEY", "dr17")
    survey = open_survey()
    ids = survey.catalog().index.unique()
    survey.spectra(ids[:4])
    survey.spectra(ids[4:], storage="arrays")
    return survey.root


def wrong(**options):
    return [
        (what, advice) for mark, what, advice in doctor.examine(**options) if mark == doctor.BAD
    ]


def test_a_lab_that_is_well(home, capsys):
    assert main(["doctor"]) == 0
    report = capsys.readouterr().out
    expected = ["Python", "astroquery", "APOGEE DR17 (LAB_SURVEY=dr17)", "All is well"]
    expected += ["dr17/sas: 4 whole", "dr17/arrays: 2 whole"]
    assert not [one for one in expected if one not in report]
    assert report.count("answers") == 3


def test_what_is_verified_is_counted_only_on_request(home, capsys):
    main(["doctor", "--offline"])
    assert "sas: 4 whole, 0.00 GB, 0 verified" in capsys.readouterr().out
    main(["doctor", "--offline", "--verify"])
    report = capsys.readouterr().out
    assert "sas: 4 whole, 0.00 GB, 4 verified" in report
    for path in home.rglob("*.sha1sum"):
        path.unlink()
    main(["doctor", "--offline", "--verify"])
    assert "sas: 4 whole, 0.00 GB, 0 verified" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["*.fits", "*.npz"])
def test_a_damaged_spectrum_is_found_and_not_counted(home, kind, capsys):
    path = next(iter(sorted(home.rglob(f"apStar{kind}"))))
    path.write_bytes(path.read_bytes()[:-3000])
    ((what, advice),) = wrong(network=False)
    assert path.name in what
    assert "delete it" in advice
    main(["doctor", "--offline"])
    assert ("3 whole" if kind == "*.fits" else "1 whole") in capsys.readouterr().out


def flip(path, at):
    body = bytearray(path.read_bytes())
    body[at] ^= 1
    path.write_bytes(body)


def test_a_flipped_bit_is_found_by_the_checksum(home):
    flip(next(home.rglob("*.fits")), 100_000)
    (catalog,) = home.rglob("catalog-*.csv")
    flip(catalog, 700)
    assert wrong(network=False) == []
    found = wrong(network=False, verify=True)
    assert sorted("sha1" in what for what, _ in found) == [False, True]
    assert any("not the one in its name" in what for what, _ in found)


def test_every_cache_is_seen(home, capsys):
    cache = home / "cache"
    cache.mkdir()
    (cache / "normalized-dr17-0123456789abcdef.0123456789abcdef.nc").write_bytes(b"something else")
    (cache / "mist").mkdir()
    (cache / "mist" / "grid.iso.cmd").write_text("<html>")
    main(["doctor", "--offline", "--verify"])
    report = capsys.readouterr().out
    assert "0123456789abcdef.nc: its checksum is not the one in its name" in report
    assert "not a MIST isochrone file" in report


def test_what_killed_runs_left_is_told_and_not_counted(home, capsys):
    path = next(home.rglob("*.fits"))
    (home / "dr17" / "unfinished-0123").mkdir()
    shutil.copy(path, home / "dr17" / "unfinished-0123")
    (path.parent / f".{path.name}.0123.part").write_bytes(b"half")
    assert main(["doctor", "--offline"]) == 0
    report = capsys.readouterr().out
    assert report.count("left over from a run that was killed") == 2
    assert "sas: 4 whole" in report


def test_a_server_that_is_down_matters_only_to_the_survey_that_needs_it(home, sdss, monkeypatch):
    sdss.fault = lambda path, number: "503"
    assert len(wrong()) == 3
    assert all("503" in what for what, _ in wrong())
    monkeypatch.setenv("LAB_SURVEY", "simulated")
    assert wrong() == []


def test_a_server_that_is_not_there(monkeypatch):
    monkeypatch.setattr(doctor.dr17, "COURSE", "http://127.0.0.1:9/")
    with (
        conf.set_temp("skyserver_baseurl", "http://127.0.0.1:9"),
        conf.set_temp("sas_baseurl", "http://127.0.0.1:9"),
    ):
        found = list(doctor._network(doctor.BAD))
    assert {mark for mark, _, _ in found} == {doctor.BAD}
    assert all("online" in advice for _, _, advice in found)


def test_a_wrong_name_of_a_survey(monkeypatch, capsys):
    monkeypatch.setenv("LAB_SURVEY", "dr71")
    assert main(["doctor", "--offline"]) == 1
    assert "'dr71'" in capsys.readouterr().out


def test_a_missing_package(monkeypatch):
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["numpy", "nowhere>=2", 'x; extra == "test"']
    )
    found = list(doctor._installed())
    assert [what for mark, what, _ in found if mark == doctor.BAD] == ["nowhere is missing"]
    assert f"numpy {metadata.version('numpy')}" in [what for _, what, _ in found]
