"""Where the lab opens without being installed by hand (Codespaces, Binder): the same versions, and
a small survey."""

import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BINDER = ROOT / "binder"
CONTAINER = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
MADE = shlex.split(CONTAINER["postCreateCommand"])
REQUIRED = shlex.split((BINDER / "requirements.txt").read_text())


def after(option, words):
    return words[words.index(option) + 1]


def test_both_install_what_make_installs():
    makefile = (ROOT / "Makefile").read_text()
    index = re.search(r"--extra-index-url (https://\S+?)\)", makefile)[1]
    script = (ROOT / "tools" / "install.sh").read_text()
    assert '-c constraints.txt -e ".[$extras]"' in script
    assert MADE[0] == "make"
    told = subprocess.run(
        [*MADE, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert re.search(rf"tools/install\.sh \S+ lab --extra-index-url {re.escape(index)}\s", told)
    assert after("-e", REQUIRED) == ".[lab]"
    assert after("--extra-index-url", REQUIRED) == index
    assert (BINDER / after("-c", REQUIRED)).samefile(ROOT / "constraints.txt"), (
        "-c counts from its file"
    )


def test_their_python_is_one_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    image, runtime = CONTAINER["image"], (BINDER / "runtime.txt").read_text().strip()
    for version in (image.removeprefix("python:"), runtime.removeprefix("python-")):
        assert f"Programming Language :: Python :: {version}" in project["classifiers"]


def test_both_begin_with_the_small_survey_of_the_readme():
    shown = [BINDER / "start", "sh", "-c", "echo $LAB_STARS"]
    started = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()
    assert started == CONTAINER["containerEnv"]["LAB_STARS"]
    assert f"LAB_STARS={started} make lab" in (ROOT / "README.md").read_text()
