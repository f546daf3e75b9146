"""Hooks of every pytest run, `pytest --nbval notebooks` included."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent
sys.path += [str(ROOT / "tests"), str(ROOT / "tools")]
pytest_plugins = ["nbval_numbers"]


def pytest_configure():
    """Tests see the lab as it comes, apart from where its data are, and write figures and PDFs to a place of theirs."""
    for name in [name for name in os.environ if name.startswith("LAB_")]:
        if name not in ("LAB_DATA", "LAB_DATA_SHARED", "LAB_SHARED", "LAB_FUZZ"):
            del os.environ[name]
    os.environ["LAB_FIGURES"] = os.path.join(tempfile.gettempdir(), f"lab-figures-{os.getpid()}")


def pytest_unconfigure():
    shutil.rmtree(os.environ.pop("LAB_FIGURES", ""), ignore_errors=True)
