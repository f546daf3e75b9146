"""The notebooks as programs: on real input over HTTP, and what happens when a cell fails."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

import labtools

ROOT = Path(__file__).resolve().parents[1]
RUNNER = ROOT / "tools" / "run_notebooks.py"


def run(*arguments, **environment):
    """Run tools/run_notebooks.py; returns the finished process."""
    command = [sys.executable, str(RUNNER), *map(str, arguments)]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=2400
    )


def text_of(path):
    """All text that the cells of an executed notebook put out."""
    outputs = [out for cell in nbformat.read(path, 4).cells for out in cell.get("outputs", [])]
    return "\n".join(
        out.get("data", {}).get("text/markdown", "") or out.get("text", "") for out in outputs
    )


def write_notebook(path, *cells):
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source) for source in cells]
    )
    nbformat.write(notebook, path)
    return path


def test_a_failing_cell_stops_the_run_and_is_named(tmp_path):
    bad = write_notebook(tmp_path / "1_bad.ipynb", "x = 1", "1 / 0", "y = 2")
    never = write_notebook(tmp_path / "2_never.ipynb", "x = 1")
    before = bad.read_text()
    result = run(bad, never, "--at-once=1")
    assert result.returncode == 1
    assert "1_bad.ipynb, cell 2 of 3 failed" in result.stdout
    assert "ZeroDivisionError" in result.stderr
    assert "2_never" not in result.stdout
    assert bad.read_text() == before, "a notebook that fails is not overwritten"


def test_notebooks_are_left_untouched_when_copies_are_asked_for(tmp_path):
    good = write_notebook(tmp_path / "good.ipynb", "6 * 7")
    before = good.read_text()
    assert run(good, "--into", tmp_path / "build").returncode == 0
    assert good.read_text() == before
    assert "42" in (tmp_path / "build" / "good.ipynb").read_text()
    assert run(good).returncode == 0
    assert "42" in good.read_text()


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """01 to 08 run with LAB_SURVEY=dr17 on the replica of the archive, served over HTTP.

    The JWST pair and its networks, which know nothing of the survey, are shared with this checkout.
    """
    from sdss_server import serving

    folder = tmp_path_factory.mktemp("dr17")
    (folder / "data" / "cache").mkdir(parents=True)
    for file in (shared_data / "course").iterdir():
        shutil.copy(file, folder / "data")
    here = Path(os.environ.get("LAB_DATA") or ROOT / "data")
    for net in here.glob("cache/*.safetensors"):
        shutil.copy(net, folder / "data" / "cache")
    config = folder / "config" / "astropy"
    config.mkdir(parents=True)
    with serving(shared_data / "dr17-replica") as server:
        addresses = f"[sdss]\nskyserver_baseurl = {server.url}\nsas_baseurl = {server.url}/sas\n"
        (config / "astroquery.cfg").write_text(addresses)
        settings = {
            "LAB_SURVEY": "dr17",
            "LAB_DATA": str(folder / "data"),
            "LAB_DATA_SHARED": str(here),
            "LAB_FIGURES": str(folder / "figures"),
            "LAB_STUDENT": "Cecilia Payne-Gaposchkin",
            "XDG_CONFIG_HOME": str(folder / "config"),
        }
        notebooks = sorted((ROOT / "notebooks").glob("0[1-8]*.ipynb"))
        result = run(*notebooks, "--into", folder / "build", **settings)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    return folder


def test_notebooks_run_on_the_real_layout(real):
    built = sorted((real / "build").glob("*.ipynb"))
    assert len(built) == len(list((ROOT / "notebooks").glob("0[1-8]*.ipynb")))
    assert all("APOGEE DR17" in path.read_text() for path in built)
    assert "151 stars" in text_of(built[0])
    assert sorted((real / "data" / "dr17").rglob("apStar-dr17-*.fits"))


def test_checkpoints_carry_the_students_name(real):
    names = sorted(path.name for path in (real / "figures").glob("*.pdf"))
    assert names == [f"Cecilia_Payne-Gaposchkin_lab2_cp{number}.pdf" for number in (1, 2, 3)]


@pytest.fixture(scope="module")
def validation():
    """What 04 works on: survey, giants, normalized spectra, the Cannon of the lab and both
    groups."""
    survey = labtools.open_survey("simulated")
    return survey, *labtools.normalized_giants(survey), *labtools.lab_cannon(survey)


def test_cross_validation_finds_the_labels_again(validation):
    """Sizes as docs/simulation.md says: five labels alone miss the assignment's 30 K and 0.02 dex
    by a little."""
    _, giants, spectra, cannon, _, stars = validation
    fitted = cannon.fit(spectra.sel(star=stars))
    summary = labtools.bias_and_scatter(fitted, giants)
    assert fitted.converged.mean() > 0.99
    assert summary.loc["teff", "1.4826 MAD"] < 45
    assert summary.loc["fe_h", "1.4826 MAD"] < 0.04
    assert (summary["median"].abs() < 0.3 * summary["1.4826 MAD"]).all()


def test_carbon_and_nitrogen_are_what_five_labels_leave_out(validation):
    """The lever that 04 names: with both as labels the temperature's scatter falls to what the
    assignment asks for."""
    survey, giants, spectra, cannon, training, stars = validation
    labels = giants[labtools.LABELS].join(survey.truth()[["c_fe", "n_fe"]])
    seven = labtools.Cannon.train(spectra.sel(star=training), labels.loc[training])
    fits = [model.fit(spectra.sel(star=stars)) for model in (cannon, seven)]
    five, more = (labtools.bias_and_scatter(fit, giants)["1.4826 MAD"] for fit in fits)
    assert more.teff < 0.8 * five.teff


def test_the_page_on_the_simulation_tells_these_sizes(validation):
    survey, giants, spectra, cannon, training, stars = validation
    modes = labtools.coverage.nuisance_components(
        cannon, spectra.sel(star=training), giants[labtools.LABELS]
    )
    plain, free = (cannon.fit(spectra.sel(star=stars), modes=some) for some in (None, modes))
    rows = {
        "against the catalog": (plain, giants),
        "against the truth": (plain, survey.truth()),
        "the same model with modes, against the catalog": (free, giants),
    }
    page = (ROOT / "docs" / "simulation.md").read_text()
    for name, (fitted, reference) in rows.items():
        cells = page.partition(f"| {name} |")[2].partition("\n")[0].strip(" |").split("|")
        told = np.array([cell.split("/") for cell in cells], float)
        found = labtools.bias_and_scatter(fitted, reference)[["std", "1.4826 MAD"]].to_numpy()
        assert (np.abs(told - found) < [[1.0], [0.011], [0.0015], [0.0015], [0.0015]]).all(), name
    assert (found[[0, 2], 1] < [30, 0.0225]).all(), "with modes it is what the assignment asks for"


def test_the_gradient_finds_the_magnesium_lines_in_vacuum(validation):
    _, giants, _, cannon, training, _ = validation
    median = giants.loc[training, labtools.LABELS].median().to_frame("median").T
    gradient = cannon.gradient(median).sel(star="median", label="mg_fe")
    offset = np.arange(-12, 13)
    for line in (15745.02, 15753.20, 15770.11):
        here = gradient.values[np.argmin(np.abs(gradient.wavelength.values - line)) + offset]
        depth = np.maximum(-here, 0)
        assert here.min() < -0.05
        assert abs(np.average(offset, weights=depth)) < 1.5, "in air it would be 20 pixels"
