"""Run the lab's notebooks in order, showing which cell runs and for how long; stop at the first error.

Without --into the notebooks are re-run in place, to refresh the outputs that are committed.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]


def run(path, target, timeout):
    """Execute one notebook and write it to `target`, also when a cell fails; raises CellExecutionError."""
    notebook = nbformat.read(path, as_version=4)
    code = [number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    began = time.monotonic()
    started = {}

    def show(text, end="\n"):
        print(
            f"\r\033[K{text}" if sys.stdout.isatty() else text,
            end=end if sys.stdout.isatty() else "\n",
            flush=True,
        )

    def starting(cell, cell_index):
        started[cell_index] = time.monotonic()
        show(f"{path.stem}: cell {code.index(cell_index) + 1} of {len(code)} ...", end="")

    def done(cell, cell_index, execute_reply):
        took = time.monotonic() - started[cell_index]
        if took > 1:
            show(f"{path.stem}: cell {code.index(cell_index) + 1} of {len(code)} took {took:.1f} s")

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
        record_timing=False,
        coalesce_streams=True,
        on_cell_execute=starting,
        on_cell_executed=done,
    )
    try:
        client.execute()
    except CellExecutionError as fault:
        number = code.index(max(started)) + 1
        show(f"{path.name}, cell {number} of {len(code)} failed:\n{''.join(notebook.cells[max(started)].source)}\n")
        print(fault, file=sys.stderr)
        raise
    finally:
        if target != path or not sys.exc_info()[0]:
            _write(notebook, target)
    show(f"{path.stem}: done in {time.monotonic() - began:.0f} s")


def _write(notebook, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    notebook.metadata["language_info"] = {"name": "python"}
    partial = target.with_suffix(".part")
    nbformat.write(notebook, partial)
    os.replace(partial, target)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all, in order")
    parser.add_argument("--into", type=Path, help="folder for the executed copies")
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take")
    options = parser.parse_args()
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    for path in paths:
        try:
            run(path, options.into / path.name if options.into else path, options.timeout)
        except CellExecutionError:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
