"""How fast and how large the package is, as ratios to plain alternatives of one run (make bench).

The table goes to docs/performance.md with the machine, the versions and the date; above it stands
what a reader asks first: how long do 1,000 stars take, and all of DR17?
"""

import datetime
import os
import platform
import sys
import time
import tracemalloc
import warnings
from importlib import metadata
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import curve_fit

import labtools
from apogee_archive.apstar import read_apstar
from lab_course.interactive import explore_spectrum
from labtools import LABELS, Cannon, normalize
from labtools.cannon import design, design_slopes
from labtools.mcmc import build_model, diagnose, sample, sample_stars
from mock_survey.synthesis import read_lines

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
PIXELS = 7214
DR17 = 733_901  # spectra of APOGEE in DR17 (Abdurro'uf et al. 2022)
SECONDS = {}  # seconds per star that the suites measure, for the head of the page
JOIN = {
    "combine_attrs": "drop",
    "join": "override",
    "coords": "minimal",
    "compat": "override",
    "data_vars": "all",
}


def timed(function, repeats=3):
    """Shortest wall time of a few calls, seconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def peak(function):
    """Most memory that a call held at a time, bytes."""
    tracemalloc.start()
    function()
    size = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return size


def observe(model, number, seed=1, snr=100):
    """Spectra (float32) and labels of stars made from a model, near its training stars."""
    rng = np.random.default_rng(seed)
    x = model.training_labels[
        rng.integers(0, len(model.training_labels), number)
    ] + 0.1 * rng.standard_normal((number, len(model.labels)))
    flux = np.empty((number, model.s2.size), np.float32)
    for rows in np.array_split(np.arange(number), max(1, number // 500)):
        noise = rng.standard_normal((len(rows), model.s2.size), np.float32)
        flux[rows] = design(x[rows], model.degree) @ model.theta.T + noise * np.float32(1 / snr)
    names = [f"star{i}" for i in range(number)]
    coords = {"star": names, "wavelength": model.wavelength}
    axes = ("star", "wavelength")
    spectra = xr.Dataset(
        {"flux": (axes, flux), "error": (axes, np.full_like(flux, 1 / snr))}, coords=coords
    )
    return spectra, pd.DataFrame(model.unscaled(x), index=names, columns=list(model.labels))


def train_by_loop(spectra, labels, model, pixels):
    """Coefficients and scatter of some pixels by the grid of s² that the lab asks for."""
    rows = design(model.scaled(labels.to_numpy()))
    for pixel in pixels:
        f, sigma = (
            spectra.flux.values[:, pixel].astype(float),
            spectra.error.values[:, pixel].astype(float),
        )
        good = np.isfinite(sigma)
        f, sigma, a = f[good], sigma[good], rows[good]
        for s2 in np.geomspace(1e-8, 1e-2, 30):
            w = 1 / (sigma**2 + s2)
            np.linalg.solve(a.T @ (w[:, None] * a), a.T @ (w * f))


def fit_by_scipy(spectra, model, analytic):
    """Labels of stars one after the other by curve_fit(method="trf") on all pixels."""
    for flux, error in zip(spectra.flux.values, spectra.error.values, strict=True):
        good = np.isfinite(error) & np.isfinite(model.s2)
        sigma, theta = np.sqrt(error[good].astype(float) ** 2 + model.s2[good]), model.theta[good]

        def predict(_, *x, theta=theta):
            return theta @ design(np.array(x))

        def jacobian(_, *x, theta=theta):
            return theta @ design_slopes(np.array(x))

        start = np.zeros(len(model.labels))
        curve_fit(
            predict,
            None,
            flux[good],
            start,
            sigma,
            method="trf",
            jac=jacobian if analytic else None,
        )


def training(model, teach, labels):
    rows = model.scaled(labels.to_numpy())
    v = design(rows)
    i, j = np.triu_indices(v.shape[1])
    products, weight = (
        np.ascontiguousarray((v[:, i] * v[:, j]).T),
        np.random.default_rng(0).random(teach.flux.shape),
    )
    ours, limit = timed(lambda: Cannon.train(teach, labels)), timed(lambda: products @ weight)
    pixels = np.linspace(0, PIXELS - 1, 30).astype(int)
    loop = timed(lambda: train_by_loop(teach, labels, model, pixels), 1) * PIXELS / pixels.size
    yield f"training, {len(labels)} stars x {PIXELS} pixels x 5 labels", f"{ours:.2f} s"
    yield "the assignment's loop over 30 values of s² / training", f"{loop / ours:.0f}"
    yield "training / the one matrix product that no method avoids (goal 4)", f"{ours / limit:.1f}"


def fitting(model, test):
    ours, few = (
        timed(lambda: model.fit(test)),
        test.isel(star=slice(0, None, max(1, test.sizes["star"] // 12))),
    )
    share = test.sizes["star"] / few.sizes["star"]
    yield f"fitting {test.sizes['star']} stars", f"{ours:.2f} s"
    for name, analytic in (("curve_fit, numerical", False), ("curve_fit, analytic Jacobian", True)):
        yield (
            f"{name} / fitting",
            f"{timed(lambda a=analytic: fit_by_scipy(few, model, a), 1) * share / ours:.0f}",
        )


def sampling(model, one):
    start = time.process_time()
    draws = sample(build_model(model, one), progressbar=False, quiet=True)
    seconds = time.process_time() - start
    yield "a posterior by NUTS, processor time", f"{seconds:.1f} s"
    yield (
        "1,000 effective draws by NUTS",
        f"{1000 * seconds / diagnose(draws).ess_bulk.min():.1f} s",
    )
    importance = timed(lambda: sample_stars(model, one), 1)
    yield "1,000 draws by importance resampling", f"{1000 * importance:.0f} ms"


def reading(survey, number=60):
    files = [path for folder in survey.folders for path in Path(folder).rglob("apStar-*.fits")][
        :number
    ]
    pixels = survey.continuum_pixels()
    if files:
        byte = timed(lambda: [path.read_bytes() for path in files])
        whole = timed(
            lambda: normalize(xr.concat(map(read_apstar, files), "star", **JOIN), pixels), 1
        )
        SECONDS["reading"] = whole / len(files)
        yield (
            "reading and normalizing an apStar file (goal 5 ms)",
            f"{1000 * whole / len(files):.1f} ms",
        )
        yield "... / reading its bytes", f"{whole / byte:.0f}"


def growth(model, number):
    spectra, labels = observe(model, number)
    train, fit = (
        timed(lambda: Cannon.train(spectra, labels), 1),
        timed(lambda: model.fit(spectra), 1),
    )
    SECONDS["training"], SECONDS["fitting"] = train / number, fit / number
    yield (
        f"{number} stars: training, fitting a star",
        f"{1e3 * train / number:.2f} ms, {1e3 * fit / number:.2f} ms",
    )


def memory(model, number=3000):
    spectra, labels = observe(model, number)
    grid = xr.DataArray(np.arange(PIXELS) % 10 == 0, coords={"wavelength": model.wavelength})
    steps = {
        "normalizing": lambda: normalize(spectra, grid),
        "training": lambda: Cannon.train(spectra, labels),
        "fitting": lambda: model.fit(spectra),
    }
    for name, step in steps.items():
        size = spectra.flux.nbytes + spectra.error.nbytes
        yield (
            f"{number} stars, float32: memory of {name} / its input (goal 2)",
            f"{peak(step) / size:.2f}",
        )


def label_growth(model, k):
    rng, names = np.random.default_rng(2), tuple(f"label{i}" for i in range(k))
    x = rng.standard_normal((1000, k))
    terms = design(x).shape[1]
    theta = 0.01 * rng.standard_normal((PIXELS, terms)) + np.eye(1, terms)
    made = Cannon(names, np.zeros(k), np.ones(k), model.wavelength, theta, np.full(PIXELS, 1e-5), x)
    spectra, labels = observe(made, 1000)
    yield (
        f"{k} labels, 1000 stars: training",
        f"{timed(lambda: Cannon.train(spectra, labels), 1):.2f} s",
    )


def redrawing(survey, model, teach, labels, moves=20):
    """From the move of a slider in notebook 03 to a picture ready to be sent to the browser:
    medians of some moves."""
    explorer = explore_spectrum(model, teach, labels, read_lines(), survey)
    for name, what in (("teff", "a label (goal 50 ms)"), ("window", "the window")):
        slider, times = explorer.controls[name], []
        for value in np.linspace(slider.min, slider.max, moves):
            start = time.perf_counter(), time.process_time()
            slider.value = value
            times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        wall, busy = 1000 * np.median(times, axis=0)
        yield f"redrawing the explorer for {what}: wall, processor", f"{wall:.0f} ms, {busy:.0f} ms"


def cells(number=12):
    """The longest cells of the notebooks that the last `make lab` has left in build/."""
    found, totals = [], {}
    for path in sorted((ROOT / "build").glob("[0-9]*.ipynb")):
        code = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
        for place, cell in enumerate(code, start=1):
            if len(
                times := sorted(
                    map(
                        datetime.datetime.fromisoformat, cell.metadata.get("execution", {}).values()
                    )
                )
            ):
                seconds = (times[-1] - times[0]).total_seconds()
                found.append((seconds, f"make lab: {path.stem}, cell {place}"))
                totals[path.stem] = totals.get(path.stem, 0) + seconds
    yield from (
        (f"make lab: {name}, all cells", f"{seconds:.0f} s") for name, seconds in totals.items()
    )
    yield from (
        (what, f"{seconds:.0f} s") for seconds, what in sorted(found, reverse=True)[:number]
    )


def how_long(cores):
    """Two sentences: 1,000 stars, and all of DR17 with as many processes as there are cores."""
    thousand = 1000 * (SECONDS["reading"] + SECONDS["fitting"])
    hours = DR17 * (SECONDS["reading"] + SECONDS["fitting"]) / cores / 3600
    sentences = (
        "**How long?** Files that are here already, a model that is trained: 1,000 stars are read, "
        f"normalized and labelled in {thousand:.1f} s on one core.",
        f"All {DR17:,} spectra of DR17 would take {hours:.1f} hours on the {cores} cores of this "
        "machine, and as much less as there are more cores. `label_survey` also keeps the "
        "normalized spectra, which takes longer than all the rest: notebook 11 measures it.",
        f"Training on 1,000 stars takes {1000 * SECONDS['training']:.1f} s, once.",
    )
    return "\n".join(sentences) + "\n"


def page(rows):
    """The page as Markdown."""
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("numpy", "scipy", "pymc", "torch", "xarray")
    )
    cores = os.cpu_count()
    machine = f"{cores} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}"
    head = f"""# Performance

{how_long(cores)}
`make bench` writes this page: times of one run, and ratios to plain alternatives in the same run
(a goal is the largest value aimed for). {datetime.date.today()}; {machine};
Python {platform.python_version()}, {versions}.

| what | figure |
|---|---|
"""
    return head + "".join(f"| {what} | {figure} |\n" for what, figure in rows)


def main(largest=20_000):
    import bench_nets  # these use the clock of this file
    import bench_public
    import bench_twins

    warnings.filterwarnings("ignore", message="(chip|the model extrapolates|PyTensor could not)")
    survey = labtools.open_survey()
    giants, spectra = labtools.normalized_giants(survey)
    first, second = labtools.split_by_star(giants.index, seed=18)
    labels, teach, test = (
        giants.loc[first, LABELS],
        spectra.sel(star=first),
        spectra.sel(star=second),
    )
    model = Cannon.train(teach, labels)
    sizes = [number for number in (250, 1000, 4000, 20_000) if number <= largest]
    suites = [
        training(model, teach, labels), fitting(model, test),
        bench_public.rows(teach, labels, test), sampling(model, test.isel(star=[0])),
        reading(survey), *(growth(model, number) for number in sizes), memory(model),
        *(label_growth(model, k) for k in (3, 5, 7, 10)), bench_nets.rows(), bench_twins.rows(),
        redrawing(survey, model, teach, labels), cells(),
    ]  # fmt: skip
    rows = []
    for suite in suites:
        for row in suite:
            print(f"{row[0]}: {row[1]}", flush=True)
            rows.append(row)
    PAGE.write_text(page(rows))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
