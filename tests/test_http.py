"""Transfers: whatever the server does, a file is right or it is not there."""

import errno
import itertools
import threading

import pytest
import requests
from sdss_server import HTML, SdssServer
from tiny_archive import write_apstar

from labtools.cache import writing
from labtools.errors import CacheError, TransferError
from labtools.sdss import http as download
from labtools.sdss.files import check_whole
from labtools.sdss.http import (
    NotOnServer,
    Stopped,
    WrongFile,
    fetch,
    gather,
    new_session,
)

STAR = "2M00000001+0000001"
FILE = "sas/apStar-dr17-2M00000001+0000001.fits"


class Clock(threading.Event):
    """The Event that a transfer waits on, but it notes for how long, and does not wait."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, timeout=None):
        self.waits += [timeout] if timeout else []
        return False


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.01)
    monkeypatch.setattr(download, "TIMEOUT", (2.0, 0.4))
    write_apstar(tmp_path / "archive" / FILE, STAR)
    write_apstar(tmp_path / "archive" / FILE.replace("1.fits", "2.fits"), STAR[:-1] + "2", seed=2)
    with SdssServer(tmp_path / "archive") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def body(server):
    return (server.replica / FILE).read_bytes()


def get(server, path, **options):
    return fetch(f"{server.url}/{FILE}", path, lambda part: check_whole(part, STAR), **options)


def first(*faults):
    """A server's `fault`: these on its first requests, none on later ones."""
    return lambda path, number: faults[number - 1] if number <= len(faults) else None


PASSING = [
    "503",
    "429",
    "500",
    "drop",
    "cut",
    "stall",
    "long",
    "short",
    "html",
    "truncated",
    "garbage",
    "other",
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_survived(server, body, tmp_path, fault):
    server.fault = first(fault)
    path = get(server, tmp_path / "cache" / "file.fits")
    assert path.read_bytes() == body
    assert len(server.requests) == 2
    assert [one.name for one in path.parent.iterdir()] == ["file.fits"]


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ("503", TransferError, "503"),
        ("stall", TransferError, "timed out"),
        ("long", TransferError, "broken off|IncompleteRead"),
        ("html", WrongFile, "HTML page"),
        ("truncated", WrongFile, "not a whole file|damaged"),
        ("other", WrongFile, "another star"),
    ],
)
def test_a_fault_that_stays_is_named_and_leaves_nothing(server, tmp_path, fault, kind, says):
    server.fault = lambda path, number: fault
    with pytest.raises(kind, match=says) as caught:
        get(server, tmp_path / "cache" / "file.fits", attempts=3)
    assert FILE in str(caught.value), "the message gives the address"
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(("fault", "kind"), [("404", NotOnServer), ("403", TransferError)])
def test_a_refusal_is_taken_at_once(server, tmp_path, fault, kind):
    server.fault = first(fault)
    with pytest.raises(kind):
        get(server, tmp_path / "file.fits")
    assert len(server.requests) == 1


def test_a_broken_transfer_goes_on_where_it_stopped(server, body, tmp_path):
    server.fault = first("cut")
    assert get(server, tmp_path / "file.fits").read_bytes() == body
    start = int(server.requests[1][1]["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= len(body) // 2


def test_a_broken_transfer_starts_again_if_the_file_has_changed(server, tmp_path):
    def fault(path, number):
        if number == 2:
            write_apstar(server.replica / FILE, STAR, seed=9)
        return "cut" if number == 1 else None

    before = (server.replica / FILE).read_bytes()
    server.fault = fault
    after = get(server, tmp_path / "file.fits").read_bytes()
    assert after == (server.replica / FILE).read_bytes() != before


def test_retry_after_is_honoured(server, tmp_path):
    server.fault, server.retry_after, clock = first("429", "503"), "7", Clock()
    get(server, tmp_path / "file.fits", stop=clock)
    assert clock.waits == [7, 7]


def test_a_pause_grows(server, tmp_path):
    server.fault, clock = first(*["500"] * 5), Clock()
    get(server, tmp_path / "file.fits", stop=clock)
    assert clock.waits[4] > 4 * clock.waits[0] > 0


def test_a_server_that_wants_an_hour_gets_it(server, tmp_path):
    server.fault, server.retry_after = first("503"), "3600"
    with pytest.raises(TransferError, match="come back in 60 minutes"):
        get(server, tmp_path / "file.fits")


def test_a_redirect_within_http_is_followed(server, body, tmp_path):
    server.fault, server.redirect = first("redirect"), f"/elsewhere/{FILE}"
    assert get(server, tmp_path / "file.fits").read_bytes() == body


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/file.fits", "gopher:x"])
def test_a_redirect_out_of_http_is_refused(server, tmp_path, target):
    server.fault, server.redirect = (lambda path, number: "redirect"), target
    with pytest.raises(TransferError, match="refused"):
        get(server, tmp_path / "file.fits")
    assert len(server.requests) == 1


def test_a_redirect_may_not_give_up_encryption():
    session = new_session()
    response = requests.Response()
    response.status_code, response.url = 302, "https://a.org/x"
    response.headers["location"] = "http://a.org/x"
    with pytest.raises(ValueError, match=r"refused.* from https to http"):
        session.get_redirect_target(response)
    assert session.verify is True, "certificates are verified"


def test_a_circle_of_redirects_ends(server, tmp_path):
    server.fault, server.redirect = (lambda path, number: "redirect"), f"/{FILE}"
    with pytest.raises(TransferError, match="redirects"):
        get(server, tmp_path / "file.fits")
    assert len(server.requests) < 10


def test_a_file_that_is_too_large_is_refused(server, tmp_path):
    with pytest.raises(TransferError, match="more than the 1000 allowed"):
        get(server, tmp_path / "file.fits", limit=1000)
    assert not (tmp_path / "file.fits").exists()


def test_the_limit_holds_without_an_announced_length(tmp_path):
    partial = download._Partial(tmp_path / "part")
    endless = requests.Response()
    endless.status_code, endless.iter_content = 200, lambda size: itertools.repeat(b"x" * size)
    with pytest.raises(TransferError, match="more than the 100000"):
        download._receive("http://x", endless, partial, 100_000, threading.Event())


class FullDisk:
    """A file on a disk that takes nothing any more."""

    def __init__(self, number):
        self.number = number

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        return None

    def seek(self, offset):
        return offset

    def write(self, data):
        raise OSError(self.number, "no")


@pytest.mark.parametrize(
    ("number", "says"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written"), (errno.EACCES, "LAB_DATA")],
)
def test_a_cache_that_takes_nothing_is_a_clear_error(server, tmp_path, monkeypatch, number, says):
    earlier = get(server, tmp_path / "cache" / "earlier.fits").read_bytes()
    monkeypatch.setattr(download, "open", lambda *arguments: FullDisk(number), raising=False)
    with pytest.raises(CacheError, match=says):
        get(server, tmp_path / "cache" / "file.fits")
    assert {one.name: one.read_bytes() for one in (tmp_path / "cache").iterdir()} == {"earlier.fits": earlier}


def test_a_file_in_the_way_of_the_cache_is_a_clear_error(server, tmp_path):
    (tmp_path / "cache").write_text("I am a file")
    with pytest.raises(CacheError, match="folder of your own"):
        get(server, tmp_path / "cache" / "file.fits")


def test_writing_keeps_the_old_file_when_it_fails(tmp_path):
    def interrupted():
        with writing(path) as part:
            part.write_text("half of the ne")
            raise KeyboardInterrupt

    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_many_writers_of_one_file_do_not_mix(server, body, tmp_path):
    server.fault = lambda path, number: ("cut", None, "503", None)[number % 4]
    tasks = {number: lambda stop: get(server, tmp_path / "file.fits") for number in range(12)}
    assert len(dict(gather(tasks, 99))) == 12
    assert (tmp_path / "file.fits").read_bytes() == body
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["file.fits"]
    assert server.busiest <= download.CONNECTIONS


def test_gather_stops_trying_when_the_network_is_gone():
    done = []

    def task(stop, number):
        if stop.wait(0.005):
            raise Stopped("http://x", "not tried")
        done.append(number)
        raise TransferError("http://x", "no route")

    tasks = {number: lambda stop, number=number: task(stop, number) for number in range(200)}
    results = dict(gather(tasks, give_up=5))
    assert len(results) == 200
    assert 5 <= len(done) < 150
    assert isinstance(results[199], Stopped)


def test_a_transfer_that_drips_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "DEADLINE", -1)
    with pytest.raises(TransferError, match="not finished"):
        get(server, tmp_path / "file.fits", attempts=2)


def test_gather_hands_on_what_concerns_all():
    def task(stop):
        raise CacheError(errno.ENOSPC, "full")

    with pytest.raises(CacheError):
        list(gather(dict.fromkeys(range(9), task), give_up=5))
    assert not [one for one in threading.enumerate() if one.name.startswith("ThreadPoolExecutor")]


def test_html_with_status_200_never_counts(server, tmp_path):
    (server.replica / FILE).write_bytes(HTML)
    with pytest.raises(WrongFile, match="HTML"):
        get(server, tmp_path / "file.fits")
