"""Hooks of every pytest run, `pytest --nbval notebooks` included."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent
sys.path += [
    str(ROOT / "tests"),
    str(ROOT / "tools"),
    str(ROOT / "packages" / "mock_survey" / "calibration"),
]
pytest_plugins = ["nbval_numbers"]


def pytest_configure():
    """Tests see the lab as it comes, apart from where its data are, and write figures and PDFs to a
    place of theirs."""
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        if name not in ("LAB_DATA", "LAB_DATA_SHARED", "LAB_SHARED", "LAB_FUZZ"):
            del os.environ[name]
    os.environ["IPYTHONDIR"] = os.path.join(
        tempfile.gettempdir(), f"lab-ipython-{os.getpid()}"
    )  # no shared history
    os.environ["LAB_FIGURES"] = os.path.join(tempfile.gettempdir(), f"lab-figures-{os.getpid()}")


def pytest_collection_modifyitems(items):
    """Long ones first: the notebooks, then their run on the replica, which finds what they have
    made."""
    items.sort(
        key=lambda item: (item.path.suffix != ".ipynb") + (item.path.name != "test_notebooks.py")
    )


def pytest_unconfigure():
    for name in ("LAB_FIGURES", "IPYTHONDIR"):
        shutil.rmtree(os.environ.pop(name, ""), ignore_errors=True)
