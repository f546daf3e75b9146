"""A whole survey by Dask: the numbers of one process and a row for every star, whatever is killed
on the way."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits

import labtools
from apogee_archive.catalog import read_tables
from apogee_archive.errors import CorruptFileError
from apogee_archive.survey import Survey
from labtools.spectra import GRID, WAVELENGTH
from mock_survey.survey import SimulatedSurvey
from synthetic import made_up_cannon, made_up_stars
from tiny_archive import STARS, write_apstar, write_archive

dask = pytest.importorskip("dask", reason="needs the extra batch: dask, distributed, zarr, pyarrow")
distributed = pytest.importorskip(
    "distributed", reason="needs the extra batch: dask, distributed, zarr, pyarrow"
)
from survey_batch import ModelSurvey, chunk, label_survey, run, store  # noqa: E402


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

    def spectra(self, rows, min_fraction=0):
        raise AssertionError("the archive was read again")


@pytest.fixture(scope="module")
def simulated():
    survey = labtools.open_survey("simulated")
    catalog = survey.catalog()
    return survey, catalog[~catalog.index.duplicated()].groupby("field").head(30)


@pytest.fixture(scope="module")
def labelled(client, simulated, tmp_path_factory):
    """120 stars of the simulated survey, those that the cuts remove among them, in chunks that
    divide fields."""
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
    """An archive with a star that is missing, a damaged one, one that is masked and one that is
    nearly so."""
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


def flip(path, bit):
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def files_of(path):
    return sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]


def test_damaged_results_are_noticed_and_made_again(client, tmp_path):
    survey = made_up_survey(100)
    first = label_survey(survey, survey.cannon, tmp_path, client, chunk=50)
    before = numbers(first)
    for path in (first.partitions[0], first.stores[1] / "star" / "c" / "0"):
        flip(path, 4000)
    with pytest.raises(CorruptFileError, match="Call label_survey again"):
        first.labels()
    with pytest.raises(CorruptFileError, match="Call label_survey again"):
        first.spectra()
    with pytest.warns(UserWarning, match="is damaged") as told:
        report = label_survey(survey, survey.cannon, tmp_path, client, chunk=50)
    assert len(told) == 2
    assert numbers(report).equals(before)
    assert report.spectra().sizes["star"] == 100


def test_a_flipped_bit_anywhere_is_never_silent(tmp_path):
    """Labels and spectra of one chunk: 20 bits of each of their files, one after the other."""
    survey = made_up_survey(5)
    config = run._config(survey, survey.cannon, tmp_path, keep=True, degree=2)
    chunk.label_chunk(config, "model/0000/one", survey.catalog())
    partition = store.find(config.labels, "model/0000/one", ".parquet")
    spectra = store.find(config.spectra, "model/0000/one", ".zarr")
    files, rng = [*files_of(partition), *files_of(spectra)], random.Random(1)
    assert len(files) > 8
    for path in files:
        for _ in range(20):
            bit = rng.randrange(8 * path.stat().st_size)
            flip(path, bit)
            with pytest.raises(CorruptFileError, match="checksum"):
                store.verify(partition if path == partition else spectra)
            flip(path, bit)
    store.verify(spectra)
    files[-1].unlink()
    with pytest.raises(CorruptFileError):
        store.open_spectra(spectra)


def test_a_partition_damaged_between_run_and_report_is_named(client, tmp_path, monkeypatch):
    survey, send = made_up_survey(100), run._run

    def run_and_damage(*arguments):
        faults = send(*arguments)
        flip(min(tmp_path.rglob("*.parquet")), 4000)
        return faults

    monkeypatch.setattr(run, "_run", run_and_damage)
    with pytest.warns(UserWarning, match="1 of 4 chunks, 25 stars, were not done"):
        report = label_survey(survey, survey.cannon, tmp_path, client, chunk=25)
    assert len(report.stars) == len(report.labels()) == 100
    assert report.counts.failed.sum() == len(report.problems) == 25
    assert report.problems.reason.str.contains("damaged").all()
    monkeypatch.setattr(run, "_run", send)
    with pytest.warns(UserWarning, match="is damaged"):
        again = label_survey(survey, survey.cannon, tmp_path, client, chunk=25)
    assert again.counts.labelled.sum() == 100


def test_spectra_that_were_not_kept_are_made_when_they_are_to_be(client, tmp_path):
    survey = made_up_survey(40)
    without = label_survey(survey, survey.cannon, tmp_path, client, chunk=20, keep=False)
    assert without.stores == []
    with pytest.raises(FileNotFoundError, match="keep=True"):
        without.spectra()
    dates = [path.stat().st_mtime_ns for path in without.partitions]
    kept = label_survey(survey, survey.cannon, tmp_path, client, chunk=20, keep=True)
    assert kept.partitions == without.partitions
    assert [path.stat().st_mtime_ns for path in kept.partitions] == dates
    assert len(kept.stores) == 2
    assert kept.spectra().sizes["star"] == 40


def test_one_unreadable_spectrum_costs_only_itself(spoiled, client, tmp_path, monkeypatch):
    """A file that the disk does not give back, which is not the kind of damage that the survey
    knows of."""
    survey, _, (missing, damaged, masked, nearly) = spoiled
    star = next(
        one for one in survey.catalog().index if one not in (missing, damaged, masked, nearly)
    )
    unreadable = Unreadable(survey.root, bad=star)
    report = label_survey(unreadable, full_grid(), tmp_path / "out", client)
    assert set(report.problems.index) == {missing, damaged, masked, nearly, star}
    assert report.problems.status[star] == "failed"
    assert "Input/output error" in report.problems.reason[star]


def test_what_killed_writers_left_is_removed(client, tmp_path):
    survey = made_up_survey(10)
    first = label_survey(survey, survey.cannon, tmp_path, client)
    old, new = (first.partitions[0].parent / f"unfinished-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "part.parquet").touch()
    for path in (old / "part.parquet", old):
        os.utime(path, (time.time() - 3600,) * 2)
    report = label_survey(survey, survey.cannon, tmp_path, client)
    assert not old.exists()
    assert new.exists(), "its writer may live"
    assert report.partitions == first.partitions


def test_a_star_without_a_number_is_never_labelled():
    survey = made_up_survey(4)
    rows = survey.catalog()
    fits = survey.cannon.fit(made_up_stars(survey.cannon, 4)[0]).set_axis(rows.index)
    fits = fits.assign(distance=1.0)
    fits.iloc[1, fits.columns.get_loc("teff")] = np.nan
    fits.iloc[2, fits.columns.get_loc("logg_err")] = np.inf
    table = chunk._table(survey.cannon, rows, [fits.iloc[:3]], {})
    assert table.status.tolist() == ["labelled", "failed", "failed", "failed"]
    assert table.reason.ne("").tolist() == [False, True, True, True]
    assert table.loc[table.status == "failed", ["teff", "logg"]].isna().all(axis=None)


def test_a_star_that_breaks_a_step_does_not_take_its_neighbours_along():
    stars = [f"s{n}" for n in range(9)]

    def step(part):
        if "s4" in part:
            raise np.linalg.LinAlgError("Singular matrix")
        return part

    parts, faults = chunk.star_by_star(step, stars, (ValueError,))
    assert {star: str(fault) for star, fault in faults.items()} == {"s4": "Singular matrix"}
    assert [star for part in parts for star in part] == [one for one in stars if one != "s4"]


@dataclass(frozen=True, repr=False)
class Unreadable(Archive):
    """An archive on a disk of which one file cannot be read."""

    bad: str = ""

    def spectra(self, rows, min_fraction=0):
        if self.bad in rows.index:
            raise OSError(5, "Input/output error")
        return super().spectra(rows, min_fraction=min_fraction)


@dataclass(frozen=True)
class Deadly(ModelSurvey):
    """The worker that reads star 130 for the first time dies of it."""

    grave: str = ""

    def spectra(self, rows, min_fraction=0):
        if "made0000130" in rows.index and not Path(self.grave).exists():
            Path(self.grave).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().spectra(rows)


@dataclass(frozen=True)
class Broken(ModelSurvey):
    """Of one chunk no spectrum can be read."""

    def spectra(self, rows, min_fraction=0):
        if rows.index.min() >= "made0000120" and rows.index.max() < "made0000140":
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
    assert max(map(max, spectra.flux.chunks)) <= store.PIXELS_PER_BLOCK
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
    with pytest.warns(UserWarning, match="1 of 20 chunks, 20 stars.*OSError: the disk does not"):
        report = label_survey(survey, survey.cannon, tmp_path, client, chunk=20)
    assert report.counts.sum().to_dict() == {
        "labelled": 380,
        "masked out": 0,
        "missing": 0,
        "failed": 20,
    }
    again = label_survey(made_up_survey(400), survey.cannon, tmp_path, client, chunk=20)
    assert numbers(again).equals(undisturbed)


@dataclass(frozen=True)
class Slow(ModelSurvey):
    """It takes its time, so that it can be killed."""

    pause: float = 0.5

    def spectra(self, rows, min_fraction=0):
        time.sleep(self.pause)
        return super().spectra(rows)


def strike(victim, client):
    """What can happen to a run: its client or its cluster is closed, or workers are killed."""
    if victim == "client":
        client.close()
    elif victim == "cluster":
        client.cluster.close()
    else:
        workers = [worker.pid for worker in client.cluster.workers.values()]
        for pid in workers[:1] if victim == "one worker" else workers:
            os.kill(pid, signal.SIGKILL)


VICTIMS = 4 * ["client"] + 3 * ["cluster"] + ["one worker", "all workers", "all workers"]


@pytest.mark.parametrize(("turn", "victim"), enumerate(VICTIMS))
def test_whatever_is_killed_every_star_is_accounted_for(
    turn, victim, client, undisturbed, tmp_path
):
    """200 stars in 20 chunks; at a random moment, after some of them, it strikes."""
    survey, after = made_up_survey(200, Slow, pause=0.02), random.Random(turn).randrange(15)
    cluster = None
    if "worker" not in victim:  # threads are workers enough, and quick to start
        cluster = distributed.LocalCluster(2, processes=False, dashboard_address=":0")
        client = distributed.Client(cluster, set_as_default=False)

    def wait_and_strike():
        while len(written(tmp_path)) < after:
            time.sleep(0.005)
        strike(victim, client)

    threading.Thread(target=wait_and_strike, daemon=True).start()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        report = label_survey(survey, survey.cannon, tmp_path, client, chunk=10)
    if cluster:
        client.close()
        cluster.close()
    expected = undisturbed.iloc[:200]
    asked = list(survey.catalog().index)
    labelled = report.stars.index[report.stars.status == "labelled"]
    lost = report.problems
    assert sorted(report.stars.index) == sorted(report.labels().index) == asked
    assert set(lost.index) == set(asked) - set(labelled)
    assert (lost.status == "failed").all()
    assert lost.reason.ne("").all()
    assert any("were not done" in str(one.message) for one in told) == (len(lost) > 0)
    found = numbers(report).loc[labelled]
    pd.testing.assert_frame_equal(found, expected.loc[labelled], check_dtype=False)
    if "worker" in victim:
        assert lost.empty, "another worker does what a lost one was doing"


RUN = """
import sys, time
from pathlib import Path
from test_batch import Slow, made_up_survey
from survey_batch import label_survey

if __name__ == "__main__":
    survey = made_up_survey(400, Slow)
    label_survey(survey, survey.cannon, sys.argv[1], chunk=20)
"""


def written(out):
    """Partitions that are there, without what is being written, whose folder may go while one
    looks."""
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
    """Four times the stars in chunks of 50, and, to see that it is measured, all of them in one
    chunk."""
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


SCRIPT = """
from test_batch import made_up_survey
from survey_batch import label_survey

survey = made_up_survey(20)
{}label_survey(survey, survey.cannon, "out")
"""


@pytest.mark.parametrize("before", ["", "if 1 > 0:\n    "])
def test_a_script_without_a_guard_is_told_so_at_once(before, tmp_path):
    """Its workers would read it again, start workers of their own, and hang."""
    (tmp_path / "student.py").write_text(SCRIPT.format(before))
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "student.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert 'Put the call under if __name__ == "__main__":' in done.stderr
    assert len(done.stderr.splitlines()) < 20


def test_what_cannot_go_well_is_said_at_once(simulated, tmp_path):
    survey = made_up_survey(10)
    with distributed.LocalCluster(1, processes=False, dashboard_address=None) as cluster:
        closed = distributed.Client(cluster, set_as_default=False)
        closed.close()
        with pytest.raises(RuntimeError, match="client is closed"):
            label_survey(survey, survey.cannon, tmp_path, closed)
    with pytest.raises(ValueError, match="not on the wavelengths"):
        label_survey(simulated[0], survey.cannon, tmp_path)
    with pytest.raises(ValueError, match="lacks telescope"):
        label_survey(
            survey, survey.cannon, tmp_path, stars=survey.catalog().drop(columns="telescope")
        )
    with pytest.raises(ValueError, match="no star"):
        label_survey(survey, survey.cannon, tmp_path, stars=survey.catalog().iloc[:0])


def test_dask_is_loaded_when_it_is_needed_and_asked_for_where_it_is_missing():
    code = "import sys, labtools; assert 'dask' not in sys.modules; "
    code += "sys.modules['distributed'] = None; import survey_batch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install -e '.[batch]'" in done.stderr
