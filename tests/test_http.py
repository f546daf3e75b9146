"""Transfers: whatever the server does, an answer is right or there is none."""

import errno
import threading

import httpx
import pytest

from apogee_archive import http
from apogee_archive.cache import atomic_write
from apogee_archive.errors import ArchiveError, CacheError, TransferError
from apogee_archive.files import check_star
from apogee_archive.http import Request, fetch, gather
from sdss_server import HTML, SdssServer
from tiny_archive import write_apstar

STAR = "2M00000001+0000001"
FILE = "sas/apStar-dr17-2M00000001+0000001.fits"


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "BACKOFF", 0.01)
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


def right(content):
    """The bytes of the star's file, and nothing else."""
    check_star(content, "the file", STAR)
    return content


def get(server, **options):
    return fetch(f"{server.url}/{FILE}", right, **{"read_timeout": 0.4} | options)


def first(*faults):
    """A server's `fault`: these on its first requests, none on later ones."""
    return lambda path, number: faults[number - 1] if number <= len(faults) else None


PASSING = [
    *(
        "503",
        "429",
        "500",
        "drop",
        "cut",
        "stall",
        "long",
        "short",
        "odd length",
        "html",
        "truncated",
        "garbage",
        "other",
    ),
    "gzip cut",
]


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_survived(server, body, fault):
    server.fault = first(fault)
    assert get(server) == body
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("fault", "retryable", "says"),
    [
        ("503", True, "503"),
        ("stall", True, "timed out"),
        ("long", True, "without sending complete|incomplete"),
        ("odd length", True, "[Cc]ontent-[Ll]ength"),
        ("html", False, "a web page"),
        ("truncated", False, "not a whole file|where one should begin"),
        ("other", False, "another star"),
    ],
)
def test_a_fault_that_stays_is_named(server, fault, retryable, says):
    server.fault = lambda path, number: fault
    with pytest.raises(TransferError, match=says) as caught:
        get(server, attempts=3)
    assert FILE in str(caught.value), "the message gives the address"
    assert caught.value.retryable is retryable


def test_the_same_wrong_answer_is_believed_when_it_comes_again_and_again(server):
    server.fault = lambda path, number: "other"
    with pytest.raises(TransferError, match="another star"):
        get(server)
    assert len(server.requests) == http.SAME < http.ATTEMPTS


@pytest.mark.parametrize(
    ("fault", "says"), [("404", r"not on the server \(404\)"), ("403", "answers 403")]
)
def test_a_refusal_is_taken_at_once(server, fault, says):
    server.fault = first(fault)
    with pytest.raises(TransferError, match=says):
        get(server)
    assert len(server.requests) == 1


def test_packed_answers_are_unpacked(server, body):
    server.fault = first("gzip")
    assert get(server) == body


def test_a_pause_grows(server, body, monkeypatch):
    slept, sleep = [], http.asyncio.sleep

    async def note(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(http.asyncio, "sleep", note)
    server.fault = first(*["500"] * 5)
    assert get(server) == body
    assert slept[4] > 4 * slept[0] > 0


def test_a_pause_that_a_server_asks_for_is_kept(server, body):
    server.fault, server.retry_after = first("429"), "1"
    assert get(server) == body
    first_request, second = server.arrived
    assert second - first_request >= 1


@pytest.mark.parametrize(
    ("value", "pause"),
    [("7", 7), ("soon", 0), ("", 0), ("-5", 0), ("1e999", 0), ("inf", 0), ("9" * 400, 0)],
)
def test_nonsense_in_the_place_of_a_pause_is_no_pause(value, pause):
    assert http._retry_after({"Retry-After": value}) == pause


def test_a_server_that_wants_an_hour_gets_it(server):
    server.fault, server.retry_after = first("503"), "3600"
    with pytest.raises(ArchiveError, match="come back in 60 minutes"):
        list(gather({number: Request(f"{server.url}/{FILE}", right) for number in range(50)}))
    assert len(server.requests) <= http.CONNECTIONS + 1


def test_a_redirect_within_a_host_is_followed(server, body):
    server.fault, server.redirect = first("redirect"), f"/elsewhere/{FILE}"
    assert get(server) == body


REFUSED = [
    "file:///etc/hostname",
    "ftp://127.0.0.1/file.fits",
    "gopher:x",
    "http://localhost/x",
    "http://[",
    "http://127.0.0.1:99999/x",
    "http://127.0.0.1:0/x",
]


@pytest.mark.parametrize("target", REFUSED)
def test_a_redirect_elsewhere_is_refused(server, target):
    server.fault, server.redirect = (lambda path, number: "redirect"), target
    with pytest.raises(TransferError, match="refused"):
        get(server)
    assert len(server.requests) == 1


def test_a_host_that_is_named_may_be_led_to(server, body, monkeypatch):
    port = server.server_address[1]
    server.fault, server.redirect = first("redirect"), f"http://localhost:{port}/{FILE}"
    monkeypatch.setenv("LAB_ALLOWED_HOSTS", "mirror.example.org, localhost")
    assert get(server) == body


@pytest.mark.parametrize(
    ("before", "after", "follows"),
    [
        ("https", "https", True),
        ("https", "http", False),
        ("http", "https", True),
        ("http", "http", True),
    ],
)
def test_a_redirect_may_not_give_up_encryption(before, after, follows):
    job, location = Request(f"{before}://a.org/x"), f"{after}://a.org/y"
    if follows:
        assert http._followed(job, httpx.URL(job.url), location) == location
    else:
        with pytest.raises(TransferError, match="refused"):
            http._followed(job, httpx.URL(job.url), location)


def test_a_circle_of_redirects_ends(server):
    server.fault, server.redirect = (lambda path, number: "redirect"), f"/{FILE}"
    with pytest.raises(TransferError, match="redirects"):
        get(server)
    assert len(server.requests) < 10


def test_an_answer_that_is_too_large_is_refused(server):
    with pytest.raises(TransferError, match="more than the 1000 bytes"):
        get(server, limit=1000)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "disk is full|is full"),
        (errno.EROFS, "cannot be written"),
        (errno.EACCES, "LAB_DATA"),
    ],
)
def test_a_cache_that_takes_nothing_is_a_clear_error(server, tmp_path, number, says):
    def keep(content):
        with atomic_write(tmp_path / "cache" / "file") as part:
            part.write_bytes(content)
            raise OSError(number, "no")

    with pytest.raises(CacheError, match=says):
        fetch(f"{server.url}/{FILE}", keep)
    assert not list((tmp_path / "cache").iterdir())
    assert len(server.requests) == 1


def test_few_connections_are_open_and_all_is_done(server, body):
    server.fault = lambda path, number: ("cut", None, "503", None)[number % 4]
    results = dict(gather({number: Request(f"{server.url}/{FILE}", right) for number in range(12)}))
    assert results == dict.fromkeys(range(12), body)
    assert server.busiest <= http.CONNECTIONS


def test_it_stops_trying_when_the_network_is_gone(monkeypatch):
    monkeypatch.setattr(http, "BACKOFF", 0.001)
    jobs = {number: Request(f"http://127.0.0.1:9/{number}") for number in range(200)}
    results = []
    with pytest.raises(ArchiveError, match="see to the network"):
        results.extend(gather(jobs))
    assert len(results) < 50


def test_what_concerns_all_ends_all(server):
    def keep(content):
        raise CacheError(errno.ENOSPC, "full")

    before = threading.active_count()
    with pytest.raises(CacheError):
        list(gather({number: Request(f"{server.url}/{FILE}", keep) for number in range(9)}))
    assert len([one for one in threading.enumerate() if "lambda" in one.name]) == 0
    assert threading.active_count() <= before + http.CONNECTIONS, (
        "nothing but the server's own threads is left"
    )


@pytest.mark.parametrize("fault", ["html", "403", "away"])
def test_a_network_that_wants_a_login_ends_it(server, fault):
    """Eighty stars, each of which gets the page of a portal: the truth after a few requests."""
    server.fault, server.redirect = (
        (lambda path, number: "redirect" if fault == "away" else fault),
        "http://login.lan/",
    )
    jobs = {number: Request(f"{server.url}/{FILE}?{number}", right) for number in range(80)}
    with pytest.raises(ArchiveError, match="log in"):
        list(gather(jobs))
    assert len(server.requests) <= http.SAME * (http.GIVE_UP + http.CONNECTIONS)


def test_without_a_network_it_does_not_wait_for_long(monkeypatch):
    """As long as no server has answered, three attempts to connect are enough."""
    slept, sleep = [], http.asyncio.sleep

    async def note(seconds):
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(http.asyncio, "sleep", note)
    with pytest.raises(TransferError) as caught:
        fetch("http://127.0.0.1:9/x")
    assert caught.value.retryable
    assert sum(slept) < 5


def test_a_connection_that_breaks_later_is_tried_as_often_as_others(server, monkeypatch):
    """One refused connection between answers is no network that is gone."""
    server.fault = first(*["drop"] * 5)
    assert get(server)


def test_parsing_blocks_no_other_connection(server):
    """Each `parse` waits for another one: in the event loop they would wait for ever."""
    both = threading.Barrier(2, timeout=20)

    def parse(content):
        both.wait()
        return len(content)

    jobs = {number: Request(f"{server.url}/{FILE}", parse) for number in range(2)}
    assert len(set(dict(gather(jobs)).values())) == 1


BAD_SETTINGS = {
    "SSL_CERT_FILE": "/nowhere/cacert.pem",
    "ALL_PROXY": "socks5://user:secret@127.0.0.1:1",
    "HTTPS_PROXY": "gopher://127.0.0.1:1",
    "HTTP_PROXY": "http://127.0.0.1:port",
    "NO_PROXY": "localhost,[::1]",
}


@pytest.mark.parametrize("name", BAD_SETTINGS)
def test_settings_of_the_machine_that_cannot_be_used_are_named(name, monkeypatch):
    for other in (*http._PROXIES, *http._CERTIFICATES):
        monkeypatch.delenv(other, raising=False)
        monkeypatch.delenv(other.lower(), raising=False)
    monkeypatch.setenv(name, BAD_SETTINGS[name])
    with pytest.raises(ArchiveError) as caught:
        fetch("http://127.0.0.1:9/x", attempts=1)
    message = str(caught.value)
    works = isinstance(caught.value, TransferError) and name in ("ALL_PROXY", "NO_PROXY")
    assert name in message or works, "named, or httpx can use it"
    assert "secret" not in message


def test_stars_that_are_absent_make_no_portal(server):
    server.fault = lambda path, number: "404"
    results = dict(
        gather({number: Request(f"{server.url}/{FILE}?{number}", right) for number in range(30)})
    )
    assert len(results) == 30
    assert all("404" in str(fault) for fault in results.values())


def test_html_with_status_200_never_counts(server):
    (server.replica / FILE).write_bytes(HTML)
    with pytest.raises(TransferError, match="web page"):
        get(server)
