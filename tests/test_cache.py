"""The cache: made once, made again when something changed or broke, never half, never in the way."""

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
from apogee_archive.cache import (
    DAY,
    MANIFEST,
    Codec,
    atomic_write,
    cached,
    cached_folder,
    find_superseded,
    hash_key,
    verify_manifest,
    write_manifest,
)
from apogee_archive.errors import CacheError, CorruptFileError

SLOW = """
import sys, time
from pathlib import Path
from apogee_archive.cache import Codec, cached, cached_folder
folder, calls = Path(sys.argv[1]), Path(sys.argv[2])
def build(*_):
    with open(calls, "a") as file:
        file.write("called\\n")
    time.sleep(1)
    return "result"
print(cached([folder], "x", build, 1, codec=Codec(".txt", str.encode, bytes.decode)))
cached_folder([folder], "y-v1", build)
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
    for plain, of_numpy in (
        (2, np.int64(2)),
        (True, np.bool_(True)),
        (0.5, np.float64(0.5)),
        ("a", np.str_("a")),
    ):
        assert hash_key(plain) == hash_key(of_numpy)
    assert len({hash_key(one) for one in (1, 1.0, True, "1", None, (1,))}) == 6
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
    cached([tmp_path], "x", build, should_cache=lambda made: False)
    assert names(tmp_path) == []


def test_another_codec(tmp_path):
    codec = Codec(".txt", str.encode, bytes.decode)
    made = [cached([tmp_path], "x", build, codec=codec) for build in (lambda: "one", lambda: "two")]
    assert made == ["one", "one"]


def test_a_dataset_comes_back_with_all_that_it_had(tmp_path):
    made = xr.Dataset(
        {"flux": (("star", "wavelength"), np.float32([[1, np.nan]]), {"units": "none"})},
        coords={"star": ["2M1"], "wavelength": ("wavelength", [1.5, 2.5], {"units": "Angstrom"})},
        attrs={"missing": "{}", "degree": np.int64(2)},
    )
    cached([tmp_path], "x", lambda: made)
    again = cached([tmp_path], "x", lambda: None)
    assert again.identical(made)
    assert again.flux.dtype == np.float32
    again.flux.values[:] = 0  # a result may be changed, whether it was made or read
    objects = made.assign_coords(star=np.array(["2M1"], object))
    assert cached([tmp_path], "y", lambda: objects).equals(cached([tmp_path], "y", lambda: None))
    with pytest.raises(TypeError, match="star holds objects"):
        cached(
            [tmp_path], "z", lambda: made.assign_coords(star=np.array([b"2M1", None], object)[1:])
        )


def test_a_file_of_the_right_checksum_that_cannot_be_read_is_made_again(tmp_path):
    def decode(content):
        raise CorruptFileError("of another version")

    old, new = (Codec(".txt", str.encode, how) for how in (bytes.decode, decode))
    cached([tmp_path], "x", lambda: "old", codec=old)
    with pytest.warns(UserWarning, match="of another version.*made again"):
        assert cached([tmp_path], "x", lambda: "new", codec=new) == "new"


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


def test_no_descriptor_stays_open(tmp_path, build):
    """Workers of a batch ask for thousands of folders in one process."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("descriptors are counted in /proc")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        cached_folder([tmp_path], f"x-v{number}", lambda folder: None)
        cached([tmp_path], "y", build, number)
    assert len(os.listdir("/proc/self/fd")) == before


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


def test_shared_folders_are_never_written(tmp_path, build):
    """Neither their times nor a damaged file in them, though this user could."""
    own, shared = tmp_path / "own", tmp_path / "shared"
    expected = cached([shared], "x", build)
    cached_folder([shared], "y-v1", lambda folder: (folder / "part").touch())
    (kept,) = shared.glob("x-*")
    for path in [shared, *shared.rglob("*")]:
        grow_old(path, 30 * DAY)
    before = snapshot(shared)
    cached([own, shared], "x", build)
    cached_folder([own, shared], "y-v1", lambda folder: None)
    assert snapshot(shared) == before
    kept.write_bytes(kept.read_bytes()[:-1])
    before = snapshot(shared)
    with pytest.warns(UserWarning, match="damaged"):
        assert cached([own, shared], "x", build).identical(expected)
    assert snapshot(shared) == before
    assert len(names(own)) == 1, "what is made again goes to the first folder"


def test_two_processes_make_it_once(tmp_path):
    folder, calls = tmp_path / "cache", tmp_path / "calls"
    command = [sys.executable, "-c", SLOW, folder, calls]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=100)[0] for process in both] == ["result\n"] * 3
    assert calls.read_text().count("called") == 2, "once the file, once the folder"
    assert len(names(folder)) == 2, "no lock is left"


def make(folder, *ages_and_names):
    """Files and folders of some ages in days; names that end in a slash are folders."""
    for age, name in ages_and_names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("x")
        grow_old(path, age * DAY)


KEY, OTHER = "0123456789abcdef.0123456789abcdef", "fedcba9876543210.fedcba9876543210"


def test_only_superseded_versions_of_ours_are_listed(tmp_path):
    superseded = [
        (9, "simulated/1900-seed128-v13.f4b2cb91/"),
        (9, f"cache/normalized-simulated-1900-seed128-degree2-{KEY}.npz"),
        (9, f"cache/cannon-simulated-1900-seed128-{KEY}.npz"),
        (9, "cache/simulated-jwst-2000-seed42-v1.c09b4620/"),
        (9, f"cache/normalized-simulated-{KEY}.nc"),  # as version 0.2 named them
        (9, f"cache/cannon-simulated-{KEY}.npz"),
        (2, "dr17/sas/unfinished-0123456789ab/"),
        (2, "cache/.normalized-simulated-1900-seed128-degree2-0123456789abcdef.lock"),
    ]
    kept = [
        (1, "simulated/1900-seed128-v14.2fc1bd66/"),
        (8, "simulated/300-seed128-v13.f4b2cb91/"),  # another number of stars, or another seed
        (8, "simulated/1900-seed1-v13.f4b2cb91/"),
        (1, f"cache/normalized-simulated-1900-seed128-degree2-{OTHER}.npz"),
        (8, f"cache/normalized-simulated-1900-seed128-degree4-{OTHER}.npz"),
        (1, f"cache/cannon-simulated-1900-seed128-{OTHER}.npz"),
        (1, "cache/simulated-jwst-2000-seed42-v2.184d985e/"),
        (99, f"dr17/catalog-{KEY}.csv"),  # downloads, of two LAB_FIELDS
        (1, f"dr17/catalog-{OTHER}.csv"),
        (99, "notes-v1/"),
        (1, "notes-v2/"),
        (99, "cache/notes-v1"),
        (0, "cache/unfinished-0123456789ac/"),
    ]
    make(tmp_path, *superseded, *kept)
    before = snapshot(tmp_path)
    assert find_superseded(tmp_path) == sorted(tmp_path / name for _, name in superseded)
    assert snapshot(tmp_path) == before, "nothing is removed"


@pytest.fixture
def verified(tmp_path):
    """A folder with two files under a manifest."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "truth.csv").write_text("star,teff\na,4000\n")
    (tmp_path / "sub" / "list.sha1sum").write_text("0 1\n")
    write_manifest(tmp_path)
    return tmp_path


def test_any_flip_under_a_manifest_is_noticed(verified):
    for name in ("truth.csv", "sub/list.sha1sum"):
        path = verify_manifest(verified, name)
        content = path.read_bytes()
        for place in range(len(content)):
            damaged = bytearray(content)
            damaged[place] ^= 1 << (place % 8)
            path.write_bytes(damaged)
            with pytest.raises(CorruptFileError, match=f"{name} is damaged.*delete the folder"):
                verify_manifest(verified, name)
        path.write_bytes(content)


def test_any_flip_of_a_manifest_is_noticed(verified):
    path = verified / MANIFEST
    content = path.read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        faults = 0
        for name in ("truth.csv", "sub/list.sha1sum"):
            try:
                verify_manifest(verified, name)
            except CorruptFileError:
                faults += 1
        assert faults, f"byte {place}"


def test_a_folder_without_a_manifest_says_so(verified):
    (verified / MANIFEST).unlink()
    with pytest.warns(UserWarning, match="has no manifest"):
        assert verify_manifest(verified, "truth.csv").is_file()
    (verified / MANIFEST).write_text("")
    with pytest.raises(CorruptFileError, match="does not name"):
        verify_manifest(verified, "truth.csv")
