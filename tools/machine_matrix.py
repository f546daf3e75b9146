"""Notebooks and tests as on other machines: this one with other kernels of OpenBLAS, numpy, glibc
and torch.

Each configuration is a few settings of the environment. First each setting is tried: what it should
change in a fresh Python has to change, or the configuration is refused. Then all notebooks and
tests run on a fresh data folder below build/test-matrix/. What has passed is not run again as long
as the commit is the same. Without a name whole machines are imitated, which together have all the
settings; where one of them fails, its settings can be run one by one: ONLY="nehalem".
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "test-matrix"

BLAS = "from threadpoolctl import threadpool_info as info; import numpy; show({one.get('architecture') for one in info()})"
SORT = "import numpy as np; show(np.argsort(np.random.default_rng(1).integers(0, 5, 20000)))"
LIBM = (
    "import math; show([math.exp(x / 1e3) * math.sin(x) + math.log(x) for x in range(1, 200000)])"
)
THREADS = "from threadpoolctl import threadpool_info as info; import numpy; show({one['num_threads'] for one in info()})"
TORCH = "import torch; show(torch.backends.cpu.get_cpu_capability())"
SHOW = "import hashlib, sys; show = lambda what: print(hashlib.sha1(repr([*what]).encode()).hexdigest());"

AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"
CONFIGURATIONS = {  # name: settings, what they change, and the feature of the processor that they need
    "nehalem": ({"OPENBLAS_CORETYPE": "Nehalem"}, BLAS, "sse4_2"),
    "haswell": ({"OPENBLAS_CORETYPE": "Haswell"}, BLAS, "avx2"),
    "skylakex": ({"OPENBLAS_CORETYPE": "SkylakeX"}, BLAS, "avx512f"),
    "numpy-without-avx512": ({"NPY_DISABLE_CPU_FEATURES": AVX512}, SORT, "avx512f"),
    "numpy-without-avx2": ({"NPY_DISABLE_CPU_FEATURES": f"X86_V3 {AVX512}"}, SORT, "avx2"),
    "glibc-without-fma": ({"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2"}, LIBM, "fma"),
    "one-thread": ({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}, THREADS, ""),
    "two-threads": ({"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"}, THREADS, ""),
    "torch-without-avx": ({"ATEN_CPU_CAPABILITY": "default"}, TORCH, "avx2"),
}
MACHINES = {  # name: the settings that it has all at once
    "haswell-processor": ("haswell", "numpy-without-avx512"),  # as of 2013, and many today
    "old-processor": (
        "nehalem", "numpy-without-avx2", "glibc-without-fma", "torch-without-avx",
    ),  # as of 2008
}  # fmt: skip
USUALLY = (*MACHINES, "skylakex", "two-threads")  # what runs if no name is given
NEUTRAL = {name for settings, *_ in CONFIGURATIONS.values() for name in settings}
OPTIONS = (
    "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder",
    "--nbval", "--nbval-cell-timeout=900",
)  # fmt: skip
USUAL = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # as the Makefile has them


def environment(settings):
    """The environment with the usual settings, and then with these."""
    others = {name: value for name, value in os.environ.items() if name not in NEUTRAL}
    return others | USUAL | settings


def fingerprint(script, settings):
    """What a fresh Python with these settings prints."""
    command = [sys.executable, "-c", SHOW + script]
    done = subprocess.run(
        command, env=environment(settings), capture_output=True, text=True, check=True
    )
    return done.stdout


def settings_of(name):
    """The settings of a configuration, or of all that a machine has."""
    parts = MACHINES.get(name, (name,))
    return {key: value for part in parts for key, value in CONFIGURATIONS[part][0].items()}


def refusal(name):
    """Why a configuration cannot be had here: "" if its settings work, "the same as ..." if this
    machine is like that."""
    if name in MACHINES:
        return next(filter(None, map(refusal, MACHINES[name])), "")
    settings, script, feature = CONFIGURATIONS[name]
    if feature and feature not in processor():
        return f"this processor has no {feature}"
    if script == THREADS:
        other = {key: str(3 - int(value)) for key, value in settings.items()}
        return (
            ""
            if fingerprint(script, settings) != fingerprint(script, other)
            else "THE SETTING CHANGES NOTHING"
        )
    if fingerprint(script, settings) != fingerprint(script, {}):
        return ""
    if script == BLAS and fingerprint(script, settings) != fingerprint(
        script, {"OPENBLAS_CORETYPE": "Prescott"}
    ):
        return "the same as this machine without settings"
    return "THE SETTING CHANGES NOTHING"


def processor():
    """Features of the processor, as Linux names them."""
    return set(Path("/proc/cpuinfo").read_text().split())


def run(name, paths, data=None):
    """Run pytest as one configuration, by default on fresh data, which go if all passes; returns a
    row of the table."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = settings_of(name) | {"LAB_DATA": str(data or folder / "data")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *OPTIONS, *paths]
    began = time.monotonic()
    with open(folder / "log.txt", "w") as log:
        code = subprocess.run(
            command, cwd=ROOT, env=environment(settings), stdout=log, stderr=log
        ).returncode
    last = (folder / "log.txt").read_text().splitlines()[-1:]
    if not code:
        shutil.rmtree(folder / "data", ignore_errors=True)
    told = re.sub(r"=| in [\d.]+s.*", "", *last).strip()
    return {
        "passed": not code,
        "result": told,
        "minutes": round((time.monotonic() - began) / 60, 1),
    }


def state():
    """Which code is tested, or None if it is not that of a commit."""
    ask = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True
    ).stdout
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return None if ask.strip() else head


def main():
    known = [*MACHINES, *CONFIGURATIONS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("only", nargs="*", help=f"some of: {', '.join(known)}")
    parser.add_argument(
        "--paths", nargs="+", default=[], help="what pytest runs: all, if none is named"
    )
    parser.add_argument(
        "--data", type=Path, help="a data folder that another machine has filled, for a fresh one"
    )
    parser.add_argument("--settings", action="store_true", help="try the settings and run nothing")
    options = parser.parse_args()
    if unknown := set(options.only) - set(known):
        parser.error(f"there is no {', '.join(unknown)}")
    memory = BUILD / "results.json"
    results = json.loads(memory.read_text()) if memory.exists() else {}
    rows = {}
    for name in options.only or USUALLY:
        key = f"{name} {state()} {options.data or ''} {' '.join(options.paths)}"
        if why := refusal(name):
            rows[name] = {"passed": "NOTHING" not in why, "result": why, "minutes": 0}
        elif options.settings:
            rows[name] = {"passed": True, "result": "the setting works", "minutes": 0}
        else:
            print(f"{name} ... ({BUILD / name}/log.txt)", flush=True)
            rows[name] = results.get(key) or run(
                name, options.paths, options.data and options.data.resolve()
            )
            if rows[name]["passed"] and state():
                memory.write_text(json.dumps(results := results | {key: rows[name]}, indent=1))
    print()
    for name, row in rows.items():
        print(
            f"{'ok ' if row['passed'] else 'BAD'}  {name:22} {row['minutes']:5.1f} min  {row['result']}"
        )
    return not all(row["passed"] for row in rows.values())


if __name__ == "__main__":
    sys.exit(main())
