"""Fixtures that more than one test file uses."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real data files, where they are at hand: `LAB_SHARED`, or `shared` beside the
    checkout."""
    folder = Path(os.environ.get("LAB_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(
            f"the real data files are not here: no folder {folder.name!r} in LAB_SHARED or beside the checkout"
        )
    return folder
