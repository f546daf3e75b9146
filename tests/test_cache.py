"""The cache: made once, made again when something changed or broke, never half."""

import numpy as np
import pytest
import xarray as xr

import labtools.cache
from labtools.cache import cached, cached_folder


@pytest.fixture
def build():
    """A function that makes a Dataset and counts how often it was asked."""

    def build():
        build.calls += 1
        return xr.Dataset({"flux": ("star", np.array([1.0, np.inf]))}, coords={"star": ["a", "b"]})

    build.calls = 0
    return build


def test_made_once(tmp_path, build):
    first = cached(tmp_path, "x", build, "key", np.arange(3))
    assert cached(tmp_path, "x", build, "key", np.arange(3)).identical(first)
    assert build.calls == 1


@pytest.mark.parametrize(
    "change",
    [("other", np.arange(3)), ("key", np.arange(4)), ("key", np.arange(3.0)), ("key", labtools.cache)],
)
def test_made_again_when_something_changed(tmp_path, build, change):
    cached(tmp_path, "x", build, "key", np.arange(3))
    cached(tmp_path, "x", build, *change)
    assert build.calls == 2


def test_a_broken_file_is_made_again(tmp_path, build):
    cached(tmp_path, "x", build)
    next(tmp_path.iterdir()).write_bytes(b"broken")
    assert cached(tmp_path, "x", build).flux[0] == 1
    assert build.calls == 2


def test_a_failure_leaves_nothing(tmp_path, monkeypatch, build):
    def full(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(xr.Dataset, "to_netcdf", full)
    with pytest.raises(OSError, match="disk full"):
        cached(tmp_path, "x", build)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_once_and_replaces_older_ones(tmp_path):
    (tmp_path / "x-old").mkdir()
    (tmp_path / "other").mkdir()
    calls = []

    def write(folder):
        calls.append(folder)
        (folder / "part").write_text("whole")

    for _ in range(2):
        assert (cached_folder(tmp_path / "x-new", write, "x-*") / "part").read_text() == "whole"
    assert len(calls) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "x-new"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached_folder(tmp_path / "x", fail, "x*")
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_faster_process_is_taken(tmp_path):
    def write(folder):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "theirs").touch()

    assert (cached_folder(tmp_path / "x", write, "x*") / "theirs").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
