"""A whole survey by Dask: the numbers of one process, whatever is killed on the way, in memory that does not grow."""

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits

import labtools
from apogee_archive.catalog import read_tables
from apogee_archive.survey import Survey
from labtools.spectra import GRID, WAVELENGTH
from mock_survey.survey import SimulatedSurvey
from synthetic import made_up_cannon
from tiny_archive import STARS, write_apstar, write_archive

dask = pytest.importorskip("dask", reason="needs labtools[batch]: dask, distributed, zarr, pyarrow")
distributed = pytest.importorskip(
    "distributed", reason="needs labtools[batch]: dask, distributed, zarr, pyarrow"
)
from survey_batch import ModelSurvey, label_survey, run  # noqa: E402
from survey_batch.chunk import _star_by_star  # noqa: E402


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def pixels_of(cannon):
    """A third of the pixels of a model, as its continuum."""
    return xr.DataArray(
        np.arange(cannon.wavelength.size) % 3 == 0, coords={"wavelength": cannon.wavelength}
    )


def made_up_survey(stars, kind=ModelSurvey, **more):
    cannon = made_up_cannon()
    return kind(cannon, pixels_of(cannon), stars, **more)


def full_grid():
    """A made-up model on the pixels of the lab."""
    return replace(made_up_cannon(pixels=GRID.size), wavelength=WAVELENGTH[GRID])


def numbers(report):
    """What must be the same in every run."""
    return report.labels().drop(columns="seconds").sort_index()


class WithoutFiles(SimulatedSurvey):
    """The simulated survey after its files were lost."""

    def spectra(self, rows, share=0):
        raise AssertionError("the archive was read again")


@pytest.fixture(scope="module")
def simulated():
    survey = labtools.open_survey("simulated")
    catalog = survey.catalog()
    return survey, catalog[~catalog.index.duplicated()].groupby("field").head(30)


@pytest.fixture(scope="module")
def labelled(client, simulated, tmp_path_factory):
    """120 stars of the simulated survey, those that the cuts remove among them, in chunks that divide fields."""
    survey, stars = simulated
    cannon, _, _ = labtools.lab_cannon(survey)
    out = tmp_path_factory.mktemp("simulated")
    return cannon, out, label_survey(survey, cannon, out, client, stars=stars, chunk=20)


def test_numbers_are_those_of_one_process(labelled, simulated):
    survey, stars = simulated
    cannon, _, report = labelled
    spectra = labtools.normalize(survey.spectra(stars), survey.continuum_pixels())[
        ["flux", "error"]
    ].astype("f4")
    expected, found = cannon.fit(spectra), report.labels().loc[stars.index]
    names = list(cannon.labels)
    error = expected[[f"{name}_err" for name in names]].to_numpy()
    assert (abs(found[names] - expected[names]) < 1e-3 * error).all(axis=None)
    pd.testing.assert_frame_equal(
        found[expected.columns[5:]], expected.iloc[:, 5:], rtol=1e-4, check_names=False
    )
    assert (found.distance > 0).all()
    assert (found.status == "labelled").all()
    assert found[["apstar_id", "snr", "aspcapflag"]].equals(
        stars[["apstar_id", "snr", "aspcapflag"]]
    )
    assert len(report.partitions) == 8
    assert report.counts.labelled.to_dict() == {
        ("apo25m", field): 30 for field in stars.field.unique()
    }
    assert (
        repr(report) == "120 stars in 8 partitions: 120 labelled, 0 masked out, 0 missing, 0 failed"
    )


def test_a_second_model_labels_without_reading_the_archive(labelled, simulated, client):
    survey, stars = simulated
    cannon, out, report = labelled
    other = replace(cannon, s2=2 * cannon.s2)
    second = label_survey(
        WithoutFiles(survey.root, survey.shared), other, out, client, stars=stars, chunk=20
    )
    assert second.counts.labelled.sum() == 120
    assert not set(second.partitions) & set(report.partitions)
    assert (second.labels().chi2 < report.labels().chi2).all()


def test_what_is_done_is_not_done_again(labelled, simulated, monkeypatch):
    cannon, out, report = labelled
    monkeypatch.setattr(run, "_connected", None)
    again = label_survey(WithoutFiles(simulated[0].root), cannon, out, stars=simulated[1], chunk=20)
    assert numbers(again).equals(numbers(report))


class Archive(Survey):
    """A small archive of FITS files."""

    name = version = "tiny"
    title = "tiny archive"

    def _folders(self):
        return [self.root]

    def catalog(self):
        return read_tables(self.root)

    def continuum_pixels(self):
        return pixels_of(full_grid())


@pytest.fixture
def spoiled(tmp_path):
    """An archive with a star that is missing, a damaged one, one that is masked and one that is nearly so."""
    survey = Archive(write_archive(tmp_path / "archive"))
    catalog = survey.catalog()
    path = {
        star: survey.root / STARS / row.telescope / row.field / row.file
        for star, row in catalog.iterrows()
    }
    names = catalog.index.unique()[5:9]
    missing, damaged, masked, nearly = names
    path[missing].unlink()
    path[damaged].write_bytes(path[damaged].read_bytes()[:50_000])
    for star, good in {masked: 0, nearly: 40}.items():
        write_apstar(path[star], star)
        with fits.open(path[star], mode="update") as hdus:
            hdus[3].data[0, good:] = 1
    return survey, path, names


def test_every_star_has_its_line_and_its_reason(spoiled, client, tmp_path):
    survey, path, (missing, damaged, masked, nearly) = spoiled
    report = label_survey(survey, full_grid(), tmp_path / "out", client)
    assert len(report.stars) == len(survey.catalog())
    assert set(report.problems.index) == {missing, damaged, masked, nearly}
    assert report.problems.index.is_unique
    assert report.problems.status[[missing, damaged]].tolist() == ["missing", "failed"]
    assert (report.problems.status[[masked, nearly]] == "masked out").all()
    assert report.problems.reason[damaged].startswith(str(path[damaged]))
    assert report.problems.reason[missing] == "no such file"
    labels = report.labels()
    assert (
        labels.loc[report.problems.index, ["teff", "teff_err", "chi2", "distance"]]
        .isna()
        .all(axis=None)
    )
    assert not labels.loc[report.problems.index, "converged"].any()
    assert labels.drop(report.problems.index)[["teff", "chi2"]].notna().all(axis=None)
    assert labels.dtypes.equals(pd.read_parquet(report.partitions[0]).dtypes)


def test_a_star_that_comes_back_is_labelled_when_that_is_asked_for(spoiled, client, tmp_path):
    survey, path, (missing, damaged, *_) = spoiled
    first = label_survey(survey, full_grid(), tmp_path / "out", client)
    for star in (missing, damaged):
        write_apstar(path[star], star)
    assert numbers(label_survey(survey, full_grid(), tmp_path / "out", client)).equals(
        numbers(first)
    )
    report = label_survey(survey, full_grid(), tmp_path / "out", client, retry=True)
    assert not {missing, damaged} & set(report.problems.index)
    assert len(report.problems) == 2


def test_damaged_results_are_noticed_and_made_again(client, tmp_path):
    survey = made_up_survey(100)
    first = label_survey(survey, survey.cannon, tmp_path, client, chunk=50)
    before = numbers(first)
    for path in (first.partitions[0], first.stores[0] / "flux" / "c" / "0" / "0"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = content[len(content) // 2 :][::-1]
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged and is made again"):
        report = label_survey(survey, survey.cannon, tmp_path, client, chunk=50)
    assert numbers(report).equals(before)


def test_a_star_that_breaks_a_step_does_not_take_its_neighbours_along():
    stars = xr.Dataset(
        {"flux": ("star", np.arange(9.0))}, coords={"star": [f"s{n}" for n in range(9)]}
    )

    def step(part):
        if "s4" in part.star:
            raise np.linalg.LinAlgError("Singular matrix")
        return part

    parts, faults = _star_by_star(step, stars)
    assert faults == {"s4": "Singular matrix"}
    assert xr.concat(parts, "star").star.values.tolist() == [f"s{n}" for n in range(9) if n != 4]


@dataclass(frozen=True)
class Deadly(ModelSurvey):
    """The worker that reads star 130 for the first time dies of it."""

    grave: str = ""

    def spectra(self, rows, share=0):
        if "made0000130" in rows.index and not Path(self.grave).exists():
            Path(self.grave).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().spectra(rows)


@dataclass(frozen=True)
class Broken(ModelSurvey):
    """One chunk cannot be read at all."""

    def spectra(self, rows, share=0):
        if "made0000130" in rows.index:
            raise OSError("the disk does not answer")
        return super().spectra(rows)


@pytest.fixture(scope="module")
def whole(client, tmp_path_factory):
    survey = made_up_survey(400)
    return label_survey(survey, survey.cannon, tmp_path_factory.mktemp("made"), client, chunk=20)


@pytest.fixture(scope="module")
def undisturbed(whole):
    return numbers(whole)


def test_a_model_learns_from_spectra_that_are_read_when_they_are_used(whole):
    """As many as you like: blocks of pixels are read one after the other."""
    spectra, labels = whole.spectra(), made_up_survey(400).catalog()[["teff", "logg", "fe_h"]]
    assert spectra.sizes["star"] == 400
    assert max(map(max, spectra.flux.chunks)) <= 128
    with dask.config.set(scheduler="threads"):
        lazy, loaded = (
            labtools.Cannon.train(spectra, labels),
            labtools.Cannon.train(spectra.load(), labels),
        )
    np.testing.assert_allclose(lazy.theta, loaded.theta, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(lazy.s2, loaded.s2, rtol=1e-9, atol=1e-15)


def test_a_worker_killed_in_the_middle_costs_nothing(client, undisturbed, tmp_path):
    survey = made_up_survey(400, Deadly, grave=str(tmp_path / "grave"))
    report = label_survey(survey, survey.cannon, tmp_path, client, chunk=20)
    assert (tmp_path / "grave").exists()
    assert numbers(report).equals(undisturbed)


def test_a_chunk_that_breaks_is_reported_and_tried_again(client, undisturbed, tmp_path):
    survey = made_up_survey(400, Broken)
    with pytest.warns(UserWarning, match="1 chunks broke.*OSError: the disk does not answer"):
        report = label_survey(survey, survey.cannon, tmp_path, client, chunk=20)
    assert report.counts.sum().to_dict() == {
        "labelled": 380,
        "masked out": 0,
        "missing": 0,
        "failed": 20,
    }
    again = label_survey(made_up_survey(400), survey.cannon, tmp_path, client, chunk=20)
    assert numbers(again).equals(undisturbed)


RUN = """
import sys, time
from pathlib import Path
from test_batch import Slow, made_up_survey
from survey_batch import label_survey

if __name__ == "__main__":
    survey = made_up_survey(400, Slow)
    label_survey(survey, survey.cannon, sys.argv[1], chunk=20)
"""


@dataclass(frozen=True)
class Slow(ModelSurvey):
    """It takes its time, so that it can be killed."""

    def spectra(self, rows, share=0):
        time.sleep(0.5)
        return super().spectra(rows)


def written(out):
    """Partitions that are there, without what is being written, whose folder may go while one looks."""
    places = [(Path(place), names) for place, _, names in os.walk(out)]
    whole = [(place, names) for place, names in places if not place.name.startswith("unfinished-")]
    return [place / name for place, names in whole for name in names if name.endswith(".parquet")]


def test_a_run_that_was_killed_goes_on_where_it_was(client, undisturbed, tmp_path):
    script, out = tmp_path / "whole_run.py", tmp_path / "out"
    script.write_text(RUN)
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(labtools.__file__).parents[1])])
    process = subprocess.Popen(
        [sys.executable, str(script), str(out)], env=os.environ | {"PYTHONPATH": path}
    )
    try:
        while len(written(out)) < 3 and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL, "it was killed before its end"
    done = {path: path.stat().st_mtime_ns for path in written(out)}
    assert 3 <= len(done) < 20
    survey = made_up_survey(400)
    report = label_survey(survey, survey.cannon, out, client, chunk=20)
    assert numbers(report).equals(undisturbed)
    assert set(done) <= set(report.partitions)
    assert {path: path.stat().st_mtime_ns for path in done} == done


def test_memory_does_not_grow_with_the_number_of_stars(client, tmp_path):
    """Four times the stars in chunks of 50, and, to see that it is measured, all of them in one chunk."""
    client.run(tracemalloc.start)

    cannon = made_up_cannon(pixels=3000)

    def peak(stars, chunk):
        survey = ModelSurvey(cannon, pixels_of(cannon), stars)
        before = client.run(
            lambda: (tracemalloc.reset_peak(), tracemalloc.get_traced_memory()[0])[1]
        )
        label_survey(survey, cannon, tmp_path / f"{stars}-{chunk}", client, chunk=chunk)
        after = client.run(lambda: tracemalloc.get_traced_memory()[1])
        return max(after[worker] - before[worker] for worker in after)

    try:
        peak(50, 25)
        few, many, together = peak(150, 50), peak(600, 50), peak(600, 600)
    finally:
        client.run(tracemalloc.stop)
    assert many < 1.3 * few
    assert together > 3 * many


def test_what_cannot_go_well_is_said_at_once(simulated, tmp_path):
    survey = made_up_survey(10)
    with pytest.raises(ValueError, match="not on the wavelengths"):
        label_survey(simulated[0], survey.cannon, tmp_path)
    with pytest.raises(ValueError, match="lacks telescope"):
        label_survey(
            survey, survey.cannon, tmp_path, stars=survey.catalog().drop(columns="telescope")
        )
    with pytest.raises(ValueError, match="no star"):
        label_survey(survey, survey.cannon, tmp_path, stars=survey.catalog().iloc[:0])


def test_dask_is_loaded_when_it_is_needed_and_asked_for_where_it_is_missing():
    code = "import sys, labtools; assert 'dask' not in sys.modules; sys.modules['distributed'] = None; import survey_batch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'labtools[batch]'" in done.stderr
