"""LAB_* and the folders they name: defaults, sharing, and folders that cannot be written."""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import platformdirs
import pytest

import labtools
from apogee_archive import settings
from apogee_archive.cache import cached_folder
from apogee_archive.settings import data_folders, figures_folder, setting, table, writable
from mock_survey import tables

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def unset(monkeypatch, tmp_path):
    """No LAB_* is set, and the user's own folder is a new one."""
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "own" / name)


@pytest.fixture
def wheel(monkeypatch):
    """As if the package was installed from a wheel."""
    monkeypatch.setattr(settings, "checkout", lambda: None)


def test_empty_and_blank_are_not_set(monkeypatch):
    for value in ("", "  "):
        monkeypatch.setenv("LAB_SURVEY", value)
        assert setting("SURVEY", "simulated") == "simulated"
    monkeypatch.setenv("LAB_SURVEY", " dr17 ")
    assert setting("SURVEY") == "dr17"


@pytest.mark.parametrize("value", [None, "", " "])
def test_data_lie_in_the_checkout(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("LAB_DATA", value)
        monkeypatch.setenv("LAB_DATA_SHARED", value)
    assert data_folders() == (ROOT / "data", ())
    assert labtools.open_survey().root == ROOT / "data"


def test_data_lie_in_the_users_folder_without_a_checkout(wheel, tmp_path, monkeypatch):
    assert data_folders() == (tmp_path / "own" / "stellar-lab", ())
    monkeypatch.chdir(tmp_path)
    assert figures_folder() == tmp_path / "build" / "figures"


def test_settings_name_the_same_folder_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_DATA", "data/mine")
    monkeypatch.setenv("LAB_DATA_SHARED", f"~/class{os.pathsep} {os.pathsep}{tmp_path}")
    monkeypatch.setenv("LAB_FIGURES", "pictures")
    assert data_folders() == (ROOT / "data" / "mine", (Path.home() / "class", tmp_path))
    assert figures_folder() == ROOT / "pictures"
    assert data_folders("here")[0] == tmp_path / "here"


def test_figures_go_to_build_unless_something_else_is_set(monkeypatch, tmp_path):
    assert figures_folder() == ROOT / "build" / "figures"
    assert figures_folder("figures") == ROOT / "figures"
    monkeypatch.setenv("LAB_FIGURES", str(tmp_path))
    assert figures_folder() == figures_folder("figures") == tmp_path


def test_a_folder_that_cannot_be_written_is_read_and_the_own_one_written(monkeypatch, tmp_path):
    (tmp_path / "class").write_text("a file in the way")
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "class"))
    with pytest.warns(UserWarning, match="cannot be written: new data go to .*own.*set LAB_DATA"):
        first, shared = data_folders()
    assert first == tmp_path / "own" / "stellar-lab"
    assert shared == (tmp_path / "class",)


@pytest.mark.skipif(
    not hasattr(os, "fork") or os.getuid() != 0, reason="becomes another user, which only root may"
)
def test_another_user_reads_a_shared_cache_and_writes_to_the_own_folder(monkeypatch):
    """Permission bits as they are on a real machine: a class folder of root, read by `nobody`."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        umask = os.umask(0o022)
        theirs = cached_folder(
            [Path(place) / "class"], "x-v1", lambda folder: (folder / "part").write_text("read me")
        )
        os.umask(umask)
        own = Path(place) / "own"
        own.mkdir()
        os.chmod(own, 0o777)
        monkeypatch.setattr(platformdirs, "user_data_path", lambda name: own)
        assert as_nobody(lambda: _reads_and_writes(theirs.parent, own))
        assert (own / "x-v2" / "new").exists()


def as_nobody(check):
    """Whether `check()` is true in a process of another user."""
    child = os.fork()
    if not child:
        try:
            os.setuid(65534)
            os._exit(not check())
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def _reads_and_writes(shared, own):
    with pytest.warns(UserWarning, match="cannot be written"):
        first, others = data_folders(shared)
    found = cached_folder([first, *others], "x-v1", lambda folder: None)
    made = cached_folder([first, *others], "x-v2", lambda folder: (folder / "new").touch())
    return not writable(shared) and (found / "part").read_text() == "read me" and made.parent == own


def test_the_simulated_survey_is_shared(monkeypatch, tmp_path):
    """Who has only LAB_DATA_SHARED reads the survey that lies there and writes nothing."""
    first, shared = data_folders()
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("LAB_DATA_SHARED", os.pathsep.join(map(str, (first, *shared))))
    labtools.open_survey(root=first).catalog()  # it is there now
    survey = labtools.open_survey()
    assert len(survey.catalog()) > 2000
    assert survey.spectra(survey.catalog().index[:2]).sizes["star"] == 2
    assert not (tmp_path / "mine").exists()


def test_every_table_ships():
    for name in ("bits.csv", "mist_v2.5.csv", "mystery_star.fits.gz"):
        assert table(name).is_file()
    for name in ("lines.csv", "known_lines.csv", "lines_jwst.csv", "continuum_pixels.npz"):
        assert tables.table(name).is_file()


def test_the_package_is_light_and_knows_its_version():
    code = "import sys, labtools; print(labtools.__version__, *({'torch', 'pymc', 'astroquery'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ]
