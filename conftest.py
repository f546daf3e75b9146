"""Hooks of every pytest run, `pytest --nbval notebooks` included."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "tests"))
pytest_plugins = ["nbval_numbers"]
