"""tools/run_notebooks.py: what it says on the way, and where figures and outputs go."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock, PropertyMock

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import run_notebooks

ROOT = Path(__file__).resolve().parents[1]
BAR = "import time; from tqdm import tqdm\nfor _ in tqdm(range(3), desc='slow', mininterval=0): time.sleep(0.4)"
ASK = "import os; print(os.environ.get('LAB_FIGURES'), os.environ.get('LAB_STUDENT'))"


def run(*arguments, **environment):
    command = [sys.executable, str(ROOT / "tools" / "run_notebooks.py"), *map(str, arguments)]
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("LAB_FIGURES", "LAB_SURVEY", "LAB_BATCH_STARS")
    }
    return subprocess.run(
        command, env=clean | environment, capture_output=True, text=True, timeout=300
    )


def outputs_of(path):
    return [out for cell in nbformat.read(path, 4).cells for out in cell.outputs]


def written(folder, *sources, names=()):
    """Notebooks of one cell each, by default named 1, 2, ..."""
    paths = [folder / f"{name}.ipynb" for name in names or range(1, len(sources) + 1)]
    for path, source in zip(paths, sources, strict=True):
        nbformat.write(new_notebook(cells=[new_code_cell(source)]), path)
    return paths


@pytest.fixture
def notebooks(tmp_path):
    return written(tmp_path, BAR, ASK, names=("1_slow", "2_ask"))


def test_copies_are_counted_and_named_and_complete(notebooks, tmp_path):
    done = run(
        *notebooks,
        "--into",
        tmp_path / "build",
        LAB_STUDENT="Cecilia Payne",
        LAB_FIGURES="pictures",
    )
    assert done.returncode == 0, done.stderr
    assert "encryption" not in done.stdout + done.stderr
    assert "[1/2] 1_slow: cell 1 of 1 took" in done.stdout
    assert "[2/2] 2_ask: done" in done.stdout
    assert f"Executed notebooks: {tmp_path / 'build'}/" in done.stdout
    assert "for Cecilia Payne" in done.stdout
    assert "jupyter lab" in done.stdout
    slow, ask = (tmp_path / "build" / path.name for path in notebooks)
    assert outputs_of(slow) == [], "bars are not kept: their speeds differ at every run"
    assert outputs_of(ask)[0].text == "pictures Cecilia Payne\n"
    assert "version" in nbformat.read(ask, 4).metadata.language_info
    assert nbformat.read(ask, 4).metadata.kernelspec == run_notebooks.SPEC


def test_two_notebooks_run_side_by_side(tmp_path):
    """Each of the two waits for the other."""
    start = "import os, time; from pathlib import Path; here = Path(os.environ['LAB_FIGURES'])"
    meet = "(here / '{}').touch()\nwhile not (here / '{}').exists(): time.sleep(0.05)"
    end = "print(os.environ['LAB_BATCH_STARS'])"
    paths = written(
        tmp_path, f"{start}\n{meet.format(1, 2)}", f"{start}\n{meet.format(2, 1)}\n{end}"
    )
    done = run(
        *paths,
        "--into",
        tmp_path / "build",
        "--timeout=60",
        "--at-once=2",
        LAB_STARS="300",
        LAB_FIGURES=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert outputs_of(tmp_path / "build" / "2.ipynb")[0].text == "2500\n"


def test_a_fault_ends_what_runs_beside_it(tmp_path):
    paths = written(tmp_path, "1 / 0", "import time; time.sleep(200)", "print('never')", "4")
    done = run(*paths, "--into", tmp_path / "build", "--at-once=2")
    assert done.returncode == 1
    assert "1.ipynb, cell 1 of 1 failed" in done.stdout
    assert not (tmp_path / "build" / "4.ipynb").exists()


def test_a_fault_is_seen_where_the_exit_code_comes_after_the_end(monkeypatch):
    """A process closes its sentinel before the system has its exit code: on a busy machine the two
    are apart."""

    late = MagicMock(sentinel="ready")
    type(late).exitcode = PropertyMock(side_effect=[None, 1])
    late.join.side_effect = lambda: late.exitcode
    monkeypatch.setattr(run_notebooks.multiprocessing, "Process", lambda **options: late)
    monkeypatch.setattr(run_notebooks, "wait", list)
    with pytest.raises(SystemExit, match="1"):
        run_notebooks.side_by_side([(Path("1.ipynb"),)], at_once=2)
    late.kill.assert_called_once()


@pytest.mark.parametrize(
    ("stars", "small"), [("", False), ("60", True), ("300", True), ("1900", False), ("x", False)]
)
def test_which_survey_is_small(stars, small, monkeypatch):
    monkeypatch.setenv("LAB_STARS", stars)
    assert run_notebooks.is_small() is small


def test_the_long_notebooks_are_there():
    assert set(run_notebooks.LONG) <= {path.stem for path in ROOT.glob("notebooks/*.ipynb")}


def test_in_place_the_gallery_changes_and_no_name_is_kept(notebooks):
    assert run(notebooks[1], LAB_STUDENT="Cecilia Payne").returncode == 0
    assert outputs_of(notebooks[1])[0].text == f"{ROOT / 'figures'} None\n"


def test_in_place_only_on_the_simulated_survey(notebooks):
    before = notebooks[1].read_bytes()
    done = run(notebooks[1], LAB_SURVEY="dr17")
    assert done.returncode == 2
    assert "unset LAB_SURVEY" in done.stderr
    assert notebooks[1].read_bytes() == before


@pytest.mark.parametrize(
    "message",
    [
        {
            "msg_type": "stream",
            "content": {
                "name": "stderr",
                "text": "\r  0%| | 0/3 [00:00<?]\r 33%|3 | 1/3 [00:01<00:02]",
            },
        },
        {
            "msg_type": "comm_msg",
            "content": {"data": {"state": {"value": " 1/3 [00:01&lt;00:02]"}}},
        },
    ],
)
def test_bars_are_forwarded_to_a_terminal(message, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(run_notebooks.NotebookClient, "process_message", lambda *arguments: None)
    client = run_notebooks.Client(new_notebook(cells=[new_code_cell(BAR)]), "[1/2] slow")
    client.starting(None, 0)
    client.process_message(message, None, 0)
    shown = capsys.readouterr().out.rpartition("\r")[2]
    assert "[1/2] slow: cell 1 of 1" in shown
    assert "1/3 [00:01<00:02]" in shown
