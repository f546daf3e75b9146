"""The cache: made once, made again when something changed or broke, never half, and never in the way of a result."""

import errno
import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import apogee_archive.cache
from apogee_archive.cache import UNUSED, atomic_write, cached, cached_folder, hash_key, remove_old
from apogee_archive.errors import CacheError

HOLD = """
import sys
from apogee_archive import cache
with cache.atomic_write(sys.argv[1]) as part:
    part.write_text("half")
    print("writing", flush=True)
    sys.stdin.read()
"""
USE = """
import sys
from apogee_archive.cache import cached_folder
print(cached_folder([sys.argv[1]], sys.argv[2], lambda folder: None), flush=True)
sys.stdin.read()
"""
FILL = """
import resource, sys
import numpy as np, xarray as xr
from apogee_archive.cache import cached, cached_folder
from apogee_archive.errors import CacheError
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
made = cached([sys.argv[1]], "x", lambda: xr.Dataset({"flux": ("star", np.ones(100_000))}))
assert made.flux.sum() == 100_000
try:
    cached_folder([sys.argv[1]], "y", lambda folder: (folder / "big").write_bytes(bytes(100_000)))
except CacheError as fault:
    print(fault)
"""


@pytest.fixture
def build():
    """A function that makes a Dataset and counts how often it was asked."""

    def build():
        build.calls += 1
        return xr.Dataset({"flux": ("star", np.array([1.0, np.inf]))}, coords={"star": ["a", "b"]})

    build.calls = 0
    return build


@pytest.fixture
def running():
    """Start Python on a script, with arguments; returns the process after its first line. All are ended afterwards."""
    processes = []

    def start(script, *arguments):
        command = [sys.executable, "-c", script, *map(str, arguments)]
        processes.append(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert processes[-1].stdout.readline()
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def grow_old(path, seconds):
    os.utime(path, (time.time() - seconds,) * 2)


def test_made_once(tmp_path, build):
    first = cached([tmp_path], "x", build, "key", np.arange(3))
    assert cached([tmp_path], "x", build, "key", np.arange(3)).identical(first)
    assert build.calls == 1


@pytest.mark.parametrize(
    "change",
    [
        ("other", np.arange(3)),
        ("key", np.arange(4)),
        ("key", np.arange(3.0)),
        ("key", (0, 1, 2)),
        ("key", np.array([0, 1, "2"], object).tolist()),
    ],
)
def test_made_again_when_something_changed(tmp_path, build, change):
    cached([tmp_path], "x", build, "key", np.arange(3))
    cached([tmp_path], "x", build, *change)
    assert build.calls == 2
    assert len(names(tmp_path)) == 2


def test_a_key_tells_all_of_what_it_is_made_of():
    stars = tuple(f"star {number}" for number in range(3000))
    assert hash_key(stars) != hash_key((*stars[:1500], "another", *stars[1501:]))
    assert hash_key("ab", "c") != hash_key("a", "bc")
    assert hash_key(("a",), "b") != hash_key("a", ("b",))
    for part in (np.array(stars, object), pd.Series(stars), xr.DataArray([1]), hash_key, {"a": 1}):
        with pytest.raises(TypeError, match="has no key"):
            hash_key(part)


def test_read_from_any_folder_and_written_to_the_first(tmp_path, build):
    own, shared = tmp_path / "own", tmp_path / "shared"
    cached([shared], "x", build, 1)
    cached([own, shared], "x", build, 1)
    assert build.calls == 1
    assert not own.exists()
    cached([own, shared], "x", build, 2)
    assert len(names(own)) == len(names(shared)) == 1


def test_any_flipped_byte_is_noticed(tmp_path, build):
    expected = cached([tmp_path], "x", build)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    places = np.linspace(0, len(content) - 1, 60).astype(int)
    for calls, place in enumerate(places, start=2):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match="damaged .* made again"):
            assert cached([tmp_path], "x", build).identical(expected)
        assert build.calls == calls
    path.write_bytes(content[:-1])
    with pytest.warns(UserWarning, match="damaged"):
        cached([tmp_path], "x", build)
    assert names(tmp_path) == [path.name]


def test_what_is_not_worth_keeping_is_not_kept(tmp_path, build):
    cached([tmp_path], "x", build, keep=lambda made: False)
    assert names(tmp_path) == []


def test_another_form(tmp_path):
    form = (".txt", str.encode, bytes.decode)
    assert [
        cached([tmp_path], "x", build, form=form) for build in (lambda: "one", lambda: "two")
    ] == ["one", "one"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_costs_a_warning(tmp_path, monkeypatch, build, number):
    def refuse(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.warns(UserWarning, match="could not be kept.*LAB_DATA"):
        assert cached([tmp_path], "x", build).flux[0] == 1
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_costs_a_warning(tmp_path, build):
    (tmp_path / "cache").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be written: set LAB_DATA"):
        assert cached([tmp_path / "cache"], "x", build).flux[0] == 1
    with pytest.raises(CacheError, match="cannot be written: set LAB_DATA"):
        cached_folder([tmp_path / "cache"], "x", lambda folder: None)


def test_a_full_disk_in_the_middle_of_a_file(tmp_path):
    """The kernel cuts files at 50 kB: what is made is returned, nothing is left, and the process lives."""
    done = subprocess.run([sys.executable, "-c", FILL, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "x could not be kept" in done.stderr
    assert "The disk is full" in done.stdout
    assert names(tmp_path) == []


def test_a_full_disk_behind_another_library(tmp_path, monkeypatch):
    """HDF5 says only that writing failed; a disk without room is named all the same."""
    usage = apogee_archive.cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage._replace(free=0))
    with pytest.raises(CacheError, match="is full"), atomic_write(tmp_path / "x"):
        raise RuntimeError("unable to write")
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="unable to write"), atomic_write(tmp_path / "x"):
        raise RuntimeError("unable to write")


def test_what_fails_keeps_the_old_file(tmp_path):
    (tmp_path / "x").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "x") as part:
        part.write_text("half") and 1 / 0
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"
    with atomic_write(tmp_path / "x") as part:
        part.write_text("new")
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "new"


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_the_umask_says_who_may_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "sub" / "file") as part:
            part.write_text("text")
        cached_folder([tmp_path], "folder", lambda folder: (folder / "inside").touch())
    finally:
        os.umask(before)
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_a_folder_is_made_once(tmp_path):
    calls = []

    def write(folder):
        calls.append(folder)
        (folder / "part").write_text("whole")

    for _ in range(2):
        assert (cached_folder([tmp_path], "x", write) / "part").read_text() == "whole"
    assert cached_folder([tmp_path / "own", tmp_path], "x", write) == tmp_path / "x"
    assert len(calls) == 1
    assert names(tmp_path) == ["x"]


def test_a_folder_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder([tmp_path], "x", fail)
    assert names(tmp_path) == []


def test_the_folder_of_a_faster_process_is_taken(tmp_path):
    def write(folder):
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "theirs").touch()

    assert (cached_folder([tmp_path], "x", write) / "theirs").exists()
    assert names(tmp_path) == ["x"]


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path, running):
    alive, dead = running(HOLD, tmp_path / "a"), running(HOLD, tmp_path / "b")
    dead.kill()
    dead.wait()
    for place in tmp_path.iterdir():
        grow_old(place, 3600)
    assert len(names(tmp_path)) == 2
    apogee_archive.cache._tidy.cache_clear()
    cached_folder([tmp_path], "x", lambda folder: None)
    assert len(names(tmp_path)) == 2, "that of the living process stays"
    alive.stdin.close()
    alive.wait()
    assert names(tmp_path) == ["a", "x"]


def test_a_version_that_is_used_stays(tmp_path, running):
    """A second checkout reads an older version: it stays while that process lives, however old it looks."""
    for version in (1, 2):
        cached_folder([tmp_path], f"x-v{version}-ab", lambda folder: (folder / "part").touch())
        apogee_archive.cache._in_use.clear()
    reader = running(USE, tmp_path, "x-v1-ab")
    grow_old(tmp_path / "x-v1-ab", 2 * UNUSED)
    assert remove_old(tmp_path.iterdir()) == []
    reader.kill()
    reader.wait()
    assert remove_old(tmp_path.iterdir()) == [tmp_path / "x-v1-ab"]
    assert names(tmp_path) == ["x-v2-ab"]


def test_old_versions_go_after_a_week_and_only_they(tmp_path, build):
    cached([tmp_path], "x", build, 1)
    cached([tmp_path], "x", build, 2)
    cached([tmp_path], "x-y", build, 1)
    for name in ("notes.txt", "x-notes", "x-v1.txt"):
        (tmp_path / name).write_text("mine")
    for path in tmp_path.iterdir():
        grow_old(path, UNUSED - 60)
    (second,) = tmp_path.glob(f"x-{hash_key(2)}.*")
    grow_old(second, 60)
    assert remove_old(tmp_path.iterdir(), UNUSED) == []
    for path in set(tmp_path.iterdir()) - {second}:
        grow_old(path, UNUSED + 60)
    (gone,) = remove_old(tmp_path.iterdir(), UNUSED)
    assert gone.name.startswith(f"x-{hash_key(1)}.")
    assert len(names(tmp_path)) == 5


def test_reading_marks_as_used(tmp_path, build):
    cached([tmp_path], "x", build)
    folder = cached_folder([tmp_path], "y", lambda folder: None)
    for path in tmp_path.iterdir():
        grow_old(path, UNUSED)
    cached([tmp_path], "x", build)
    cached_folder([tmp_path], "y", lambda folder: None)
    assert all(time.time() - path.stat().st_mtime < 60 for path in tmp_path.iterdir())
    assert folder.is_dir()


def test_without_locks_no_folder_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(apogee_archive.cache, "fcntl", None)
    for version in (1, 2):
        cached_folder([tmp_path], f"x-v{version}", lambda folder: None)
    assert remove_old(tmp_path.iterdir()) == []
