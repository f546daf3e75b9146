"""Python code in a process of its own, under limits of memory and of processor time.

For files that could bring a process down. A wall clock would fail on a busy machine.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
LIMIT = """
import resource
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {megabytes} * 2**20, -1))
spent = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
resource.setrlimit(resource.RLIMIT_CPU, (spent + {seconds}, -1))
"""


def run_limited(imports, code, *arguments, seconds=120, megabytes=1024):
    """Lines that `code` prints; fails if the process fails.

    After `imports` it may take so many more megabytes, and seconds of processor time.
    """
    program = (
        imports
        + (LIMIT.format(megabytes=megabytes, seconds=seconds) if sys.platform == "linux" else "")
        + code
    )
    folders = [TESTS.parent, TESTS.parent / "packages", TESTS]
    paths = os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)]
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=20 * seconds,
    )
    assert done.returncode == 0, (
        f"{done.stdout[-1000:]}\n{done.stderr[-2000:]} (status {done.returncode})"
    )
    return done.stdout.splitlines()
