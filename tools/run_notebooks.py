"""Run the lab's notebooks in order, showing which cell runs and how far it is; stop at the first
error.

Without --into the notebooks are re-run in place, to refresh the outputs and the figures that are
committed. Those are of the simulated survey, and without a student's name.
"""

import argparse
import html
import multiprocessing
import os
import re
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

import claims

ROOT = Path(__file__).resolve().parents[1]
SPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
BAR = re.compile(
    r"(?:\x1b\[A|\r)*[^\r\n]*?(?:\d%\|[^\r\n|]*\| *[\d.]+\w?/[\d.]+\w?|\d\w*)"
    r" \[\d[\d:]*[<,][^\r\n\]]*\](?:\x1b\[A|\r)*"
)
PORT = re.compile(r"Dask dashboard: .*\n?")
FAULTS = (CellExecutionError, CellTimeoutError, DeadKernelError)
QUIET = [
    "--log-level=ERROR"
]  # the kernel warns about encryption, though it talks to this machine alone
# Those that take longest, the longest first: they begin, so that no core waits for the last of them
LONG = (
    "07_starnet",
    "04_cross_validation",
    "06_mcmc",
    "12_one_star_two_instruments",
    "10_believable_errors",
    "11_whole_survey",
)
WIDGET = "application/vnd.jupyter.widget-view+json"


def without_bars(outputs):
    """The outputs of a cell without progress bars and ports; of a living figure the still picture
    stays."""
    for out in outputs:
        if out.output_type == "stream" and out.name == "stderr":
            out = NotebookNode(out, text=PORT.sub("", BAR.sub("", out.text)))
            if not out.text.strip():
                continue
        if WIDGET not in out.get("data", {}):
            yield out
        elif "image/png" in out.data:
            yield NotebookNode(
                out,
                data=NotebookNode(
                    {kind: data for kind, data in out.data.items() if kind != WIDGET}
                ),
            )


def show(text, end="\n"):
    """A line that replaces an unfinished one (with end="") on a terminal; elsewhere unfinished ones
    are left out."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end=end, flush=True)
    elif end:
        print(text, flush=True)


class Client(NotebookClient):
    """Runs one notebook and says where it is."""

    def __init__(self, notebook, label, **options):
        super().__init__(notebook, **options)
        self.label, self.running = label, None
        self.code = [
            number for number, cell in enumerate(notebook.cells) if cell.cell_type == "code"
        ]
        self.on_cell_execute, self.on_cell_executed = self.starting, self.finished

    @property
    def place(self):
        return f"{self.label}: cell {self.code.index(self.running) + 1} of {len(self.code)}"

    def starting(self, cell, cell_index):
        self.running, self.began = cell_index, time.monotonic()
        show(f"{self.place} ...", end="")

    def finished(self, cell, cell_index, execute_reply):
        took = time.monotonic() - self.began
        if took > 1:
            show(f"{self.place} took {took:.1f} s")

    def process_message(self, msg, cell, cell_index):
        """Show the progress bar that a cell writes to stderr, or sends as a widget."""
        content = msg["content"]
        text = content.get("text", "") if content.get("name") == "stderr" else ""
        if msg["msg_type"] == "comm_msg":
            text = content["data"].get("state", {}).get("value", "")
        if isinstance(text, str) and (bars := re.findall(r"[^\r\n\x1b]*\[\d[^\r\n\x1b]*\]", text)):
            show(f"{self.place}  {html.unescape(bars[-1]).strip()}"[:100], end="")
        return super().process_message(msg, cell, cell_index)


def run(path, target, label, timeout):
    """Execute one notebook and write it to `target`, to another file also when a cell fails; raises
    one of FAULTS."""
    notebook = nbformat.read(path, as_version=4)
    began = time.monotonic()
    folder = {"metadata": {"path": str(path.parent)}}
    options = {
        "kernel_name": "python3",
        "extra_arguments": QUIET,
        "record_timing": target != path,
        "coalesce_streams": True,
    }
    own = path.resolve().parent == ROOT / "notebooks"  # not the work of a student
    checked = own and claims.claims_file(path.stem).is_file() and is_the_survey_that_ships()
    if checked:
        notebook.cells.append(nbformat.v4.new_code_cell(claims.kernel_code(path.stem)))
    client = Client(notebook, label, timeout=timeout, resources=folder, **options)
    try:
        client.execute()
        if checked:
            check_claims(notebook, path.stem)
    except FAULTS as fault:
        number, source = (
            client.code.index(client.running) + 1,
            notebook.cells[client.running].source,
        )
        show(f"{path.name}, cell {number} of {len(client.code)} failed:\n{source}\n")
        print(fault, file=sys.stderr)
        raise
    finally:
        if checked and notebook.cells[-1].source == claims.kernel_code(path.stem):
            notebook.cells.pop()  # a cell before it failed
        if target != path or not sys.exc_info()[0]:
            write(notebook, target)
    show(f"{label}: done in {time.monotonic() - began:.0f} s")


def check_claims(notebook, stem):
    """Say which numbers of the prose the run did not confirm, and take the cell that computed them
    away again."""
    cell = notebook.cells.pop()
    rows = claims.rows_in("".join(out.get("text", "") for out in cell.outputs))
    for fault in claims.faults(notebook, rows):
        show(f"{stem}: {fault}")


def write(notebook, target):
    """Write an executed notebook as JupyterLab would, without the bars, whose speeds differ at
    every run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = SPEC
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = list(without_bars(cell.outputs))
    partial = target.with_suffix(".part")
    nbformat.write(notebook, partial)
    os.replace(partial, target)


def is_the_survey_that_ships():
    """Whether notebooks run on the survey for which their prose was written."""
    others = any(os.environ.get(f"LAB_{name}", "").strip() for name in ("STARS", "SEED", "FIELDS"))
    return os.environ.get("LAB_SURVEY", "").strip().lower() in ("", "simulated") and not others


def is_small():
    """Whether LAB_STARS asks for a small survey, a first look that is to be short."""
    from apogee_archive.settings import setting

    return setting("STARS").isdecimal() and int(setting("STARS")) < 1000


def prepare(in_place):
    """Settings for kernels, which inherit them; in place those of the committed outputs. Returns
    what forbids it."""
    if not in_place:
        if is_small():
            os.environ.setdefault("LAB_BATCH_STARS", "2500")
        return None
    if os.environ.get("LAB_SURVEY", "").strip().lower() not in ("", "simulated"):
        return (
            "The committed outputs are those of the simulated survey: "
            "unset LAB_SURVEY, or give --into FOLDER."
        )
    os.environ["LAB_FIGURES"] = str(ROOT / "figures")
    for name in ("LAB_STUDENT", "LAB_STARS", "LAB_SEED", "LAB_BATCH_STARS"):
        os.environ.pop(name, None)
    return None


def closing(folder):
    """Where the results are and what to open next."""
    from apogee_archive.settings import figures_folder, setting

    pdfs, name = figures_folder("figures"), setting("STUDENT")
    whose = f"for {name}" if name else "without a name: make lab LAB_STUDENT='Your Name'"
    return f"""
Done. Executed notebooks: {folder}/, figures: {figures_folder()}/
Checkpoint PDFs: {pdfs}/*.pdf, {whose}
Open next: {Path(sys.executable).parent / "jupyter"} lab {folder}
"""


def attempt(*job):
    """Run a notebook (arguments of `run`); a cell that fails, which has been said, ends this
    process."""
    try:
        run(*job)
    except FAULTS:
        sys.exit(1)


def make_data():
    """Make the simulated survey, its Cannon and the JWST pair before notebooks ask for them, two at
    a time.

    Each process keeps what it makes in the data folder, from where the notebooks read it.
    """
    began = time.monotonic()
    makers = [multiprocessing.Process(target=maker) for maker in (make_survey, make_pair)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
        if maker.exitcode:
            sys.exit(1)
    if (seconds := time.monotonic() - began) > 10:
        show(f"data: made in {seconds:.0f} s")


def make_survey():
    """The simulated survey, its normalized spectra and the Cannon that notebooks share."""
    import labtools

    labtools.lab_cannon(labtools.open_survey("simulated"))


def make_pair():
    """The JWST/APOGEE pair."""
    import labtools

    labtools.open_pair()


def place_in_line(job):
    """Where a notebook stands in the line: the long ones first, then by number."""
    stem = job[0].stem
    return (LONG.index(stem) if stem in LONG else len(LONG), stem)


def side_by_side(jobs, at_once, keep_going=False):
    """Run some notebooks at a time, until one fails, or all of them; the long ones begin.

    Returns whether one has failed."""
    waiting, running, failed = sorted(jobs, key=place_in_line), [], False
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(multiprocessing.Process(target=attempt, args=waiting.pop(0)))
                running[-1].start()
            ready = wait([one.sentinel for one in running])
            for one in [one for one in running if one.sentinel in ready]:
                one.join()  # ready is a moment before there is an exit code
                if one.exitcode and not keep_going:
                    sys.exit(1)
                failed = failed or bool(one.exitcode)
                running.remove(one)
        return failed
    finally:
        for one in running:
            one.kill()  # its kernel notices


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all, in order")
    parser.add_argument("--into", type=Path, help="folder for the executed copies")
    parser.add_argument(
        "--at-once", type=int, help="notebooks side by side; default: 2, on one core 1"
    )
    parser.add_argument("--timeout", type=int, default=1800, help="seconds a cell may take")
    parser.add_argument(
        "--keep-going", action="store_true", help="run the others when one has failed"
    )
    options = parser.parse_args()
    if refusal := prepare(in_place=not options.into):
        parser.error(refusal)
    paths = options.notebooks or sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    jobs = []
    for number, path in enumerate(paths, start=1):
        target = options.into / path.name if options.into else path.resolve()
        label = f"[{number}/{len(paths)}] {path.stem}"
        jobs.append((path.resolve(), target, label, options.timeout))
    of_the_lab = any(path.resolve().parent == ROOT / "notebooks" for path in paths)
    if of_the_lab and os.environ.get("LAB_SURVEY", "").strip().lower() in ("", "simulated"):
        make_data()
    at_once = options.at_once or min(2, os.cpu_count() or 1)
    if side_by_side(jobs, at_once, options.keep_going):
        return 1
    if options.into:
        print(closing(options.into))
    return 0


if __name__ == "__main__":
    sys.exit(main())
