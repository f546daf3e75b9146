"""The wheel: everything is in it, and it works where no source tree is in sight."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from apogee_archive.settings import data_folders
from labtools import open_survey

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = """
import sys
from pathlib import Path
import matplotlib.pyplot as plt
import labtools
from apogee_archive.settings import checkout, data_folders, figures_folder
from mock_survey.synthesis import read_lines
site, home = map(Path, sys.argv[1:])
assert Path(labtools.__file__).is_relative_to(site), labtools.__file__
assert checkout() is None
assert data_folders()[0].is_relative_to(home), data_folders()
assert figures_folder() == Path.cwd() / "build" / "figures"
plt.style.use("labtools.lab")
assert len(read_lines()) > 1000
survey = labtools.open_survey()
giants = labtools.select_giants(survey.catalog())
spectra = survey.spectra(giants.index[:3])
normal = labtools.normalize(spectra, survey.continuum_pixels())
print(labtools.__version__, len(giants), *normal.sizes.values())
"""


def pip(*arguments):
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the tree without the network."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    for name in ("labtools", "packages"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, source)
    (built,) = place.glob("*.whl")
    return built


def test_every_file_of_the_packages_is_in_it(wheel):
    roots = {ROOT: ["labtools"], ROOT / "packages": ["apogee_archive", "mock_survey"]}
    roots[ROOT / "packages"] += ["survey_batch", "lab_course"]
    expected = {
        path.relative_to(root).as_posix()
        for root, packages in roots.items()
        for package in packages
        for path in (root / package).rglob("*")
        if path.is_file() and not {"__pycache__", "calibration"} & set(path.parts)
    }
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert found == expected


def test_it_works_without_the_source_tree(wheel, tmp_path):
    """Installed beside the packages of this environment, with a home of its own and the survey in a shared folder."""
    first, shared = data_folders()
    open_survey(root=first).catalog()  # it is there now
    site, home = tmp_path / "site", tmp_path / "home"
    home.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", site, wheel)
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith(("LAB_", "XDG_"))
    }
    settings |= {"PYTHONPATH": str(site), "HOME": str(home), "XDG_DATA_HOME": str(home / "data")}
    settings |= {
        "LAB_DATA_SHARED": os.pathsep.join(map(str, (first, *shared))),
        "MPLCONFIGDIR": str(home),
    }
    command = [sys.executable, "-c", SCRIPT, str(site), str(home)]
    done = subprocess.run(command, cwd=home, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, giants, *sizes = done.stdout.split()
    assert version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert int(giants) > 1000
    assert sizes == ["3", "7214"]
