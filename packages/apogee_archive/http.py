"""The one way to servers: whole answers, within limits of size and time, from servers that fail.

httpx fetches, stamina tries again. They run in an event loop in a thread of its own, because only a
loop can end an attempt wherever it hangs, and only so is Ctrl-C prompt. What broke off starts anew:
files are of 1-2 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import re
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import httpx
import stamina

from apogee_archive.errors import ArchiveError, TransferError
from apogee_archive.settings import setting

__all__ = ["Request", "fetch", "gather"]

CONNECTIONS = 4
ATTEMPTS = 8
UNREACHABLE = 3  # attempts to connect, as long as no server has answered at all
BACKOFF = 0.5  # seconds before the second attempt, doubled before each further one
LONGEST_WAIT = 30.0  # seconds between two attempts
LONGEST_RETRY_AFTER = 120.0  # seconds; a server that wants more is taken at its word
REDIRECTS = 5
LIMIT = 64 * 2**20  # bytes of an answer, unpacked
SAME = 3  # times that one address gives the same wrong answer; then it is permanent
GIVE_UP = 8  # transfers in a row that failed: the others are not tried
GRACE = 1.5  # seconds for open connections to close
_RETRYABLE = {408, 425, 429, 500, 502, 503, 504}
_ABSENT = {404: "not on the server (404)", 410: "not on the server (410)"}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")

# Whoever sets up logging sees stamina's notes of retries; else they do not fill the notebook.
logging.getLogger("stamina").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Request:
    """What to fetch.

    Attributes
    ----------
    url : str
        The address, http or https.
    parse : callable
        Makes the result of the bytes, in a thread, or raises ValueError if they are not what was
        asked for.
    limit : int
        Largest answer, bytes.
    attempts : int, optional
        How often it is tried; None takes `ATTEMPTS`.
    read_timeout : float
        Seconds without a byte that end an attempt.
    deadline : float
        Seconds that end an attempt in any case.
    """

    url: str
    parse: Callable[[bytes], Any] = bytes
    limit: int = LIMIT
    attempts: int | None = None
    read_timeout: float = 30.0
    deadline: float = 300.0


def fetch(url: str, parse: Callable[[bytes], Any] = bytes, **options: Any) -> Any:
    """What `parse` makes of the answer of one address.

    Faults that may pass (time-outs, broken connections, status 408, 425, 429 and 5xx, a body that
    `parse` refuses) are tried again after a growing pause, or after that which the server asks for.

    Parameters
    ----------
    url, parse, **options
        See `Request`.

    Returns
    -------
    object
        The result of `parse`.

    Raises
    ------
    ArchiveError
        Mostly a TransferError; also if the settings of this machine (proxies, certificates) cannot
        be used. What `parse` raises apart from ValueError passes through.

    Examples
    --------
    >>> fetch("http://127.0.0.1:9/nobody-listens-here", attempts=1)
    Traceback (most recent call last):
    ...
    apogee_archive.errors.TransferError: http://127.0.0.1:9/nobody-listens-here: All connection \
attempts failed
    """
    [(_, result)] = gather({0: Request(url, parse, **options)})
    if isinstance(result, TransferError):
        raise result
    return result


def gather(requests: Mapping[Any, Request]) -> Iterator[tuple[Any, Any]]:
    """Do `requests` over at most `CONNECTIONS` connections; yield results as they come.

    Parameters
    ----------
    requests : mapping
        Name -> Request.

    Yields
    ------
    name : object
        A key of `requests`.
    result : object
        The result of `parse`, or the TransferError of an address that is given up.

    Raises
    ------
    ArchiveError
        When going on is of no use: `GIVE_UP` transfers in a row failed for other reasons than that
        the file is not there, a server asks for a long pause, or this machine's settings cannot be
        used. Also what `parse` raises apart from ValueError.

    However it ends, connections are closed at once.

    Examples
    --------
    >>> list(gather({}))
    []
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()
    stop = threading.Event()
    run = threading.Thread(
        target=lambda: asyncio.run(_work(requests, answers.put, stop)), daemon=True
    )
    run.start()
    try:
        for _ in requests:
            name, result = _next(answers)
            if name is _Session:
                raise result
            yield name, result
    finally:
        stop.set()
        run.join(GRACE)


def _next(answers: queue.SimpleQueue) -> tuple[Any, Any]:
    """Waits in short steps, between which Ctrl-C is noticed on every system."""
    while True:
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=0.2)


async def _work(
    requests: Mapping[Any, Request], put: Callable[[tuple], None], stop: threading.Event
) -> None:
    """Do the requests until they are done, one raises, or `stop` is set."""
    try:
        async with _open_client() as client:
            session, todo = _Session(client), iter(requests.items())
            workers = {
                asyncio.create_task(session.work(todo, put))
                for _ in range(min(CONNECTIONS, len(requests)))
            }
            done: set[asyncio.Task] = set()
            pending = workers
            while pending and not stop.is_set() and not any(task.exception() for task in done):
                done, pending = await asyncio.wait(
                    pending, timeout=0.05, return_when=asyncio.FIRST_EXCEPTION
                )
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            for task in done:
                task.result()
    except Exception as fault:
        put((_Session, fault))


def _open_client() -> httpx.AsyncClient:
    """A client by the settings of this machine; ArchiveError names those that cannot be used."""
    headers = {"User-Agent": "stellar spectra lab", "Accept-Encoding": "identity"}
    try:
        return httpx.AsyncClient(headers=headers)
    except OSError as fault:  # ssl.SSLError is one
        raise ArchiveError(_blame(_CERTIFICATES, "certificates", fault)) from fault
    except (ValueError, ImportError, httpx.InvalidURL) as fault:  # ImportError: SOCKS
        raise ArchiveError(_blame(_PROXIES, "proxies", fault)) from fault


def _blame(names: tuple[str, ...], what: str, fault: Exception) -> str:
    """Which variables of the environment are at fault, without passwords of proxies."""
    values = {
        name: os.environ[name]
        for known in names
        for name in (known, known.lower())
        if name in os.environ
    }
    # Of files and folders, those that are not there are to blame, if any.
    gone = {name: value for name, value in values.items() if not os.path.exists(value)}
    values = gone if names == _CERTIFICATES and gone else values
    shown = ", ".join(
        f"{name}={re.sub('//[^/@]*@', '//***@', value)}" for name, value in values.items()
    )
    return (
        f"the {what} of this machine cannot be used ({fault}): "
        f"correct or unset {shown or 'the settings of the system'}"
    )


class _TryAgain(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, fault: TransferError, pause: float = 0.0):
        super().__init__(str(fault))
        self.fault, self.pause = fault, pause


def _retry_hook(fault: Exception) -> bool | float:
    """What stamina asks: whether to try again, or after how many seconds."""
    if not isinstance(fault, _TryAgain):
        return False
    return fault.pause or True


class _Session:
    """What all transfers of one call share: the client, and how many failed in a row."""

    def __init__(self, client: httpx.AsyncClient):
        self.client = client
        self.answered = False  # whether any server has answered at all
        self.failures = 0  # transfers in a row

    async def work(self, todo: Iterator, put: Callable[[tuple], None]) -> None:
        for name, request in todo:
            put((name, await self.fetch(request)))

    async def fetch(self, request: Request) -> Any:
        """The result, or its TransferError; raises ArchiveError if others need not be tried."""
        seen: Counter = Counter()
        retries = stamina.retry_context(
            on=_retry_hook,
            attempts=request.attempts or ATTEMPTS,
            timeout=None,  # each attempt has its own deadline
            wait_initial=BACKOFF,
            wait_max=LONGEST_WAIT,
            wait_jitter=BACKOFF,
        )
        try:
            async for attempt in retries:
                with attempt:
                    result = await self._attempt(request, seen)
        except _TryAgain as last:
            failed = last.fault
        except TransferError as fault:
            failed = fault
        else:
            self.failures = 0
            return result
        self.failures = 0 if failed.reason in _ABSENT.values() else self.failures + 1
        if self.failures >= GIVE_UP:
            raise ArchiveError(
                f"the last {GIVE_UP} transfers failed, at last {failed}: see to the network "
                "(does it want you to log in?), then run this again"
            )
        return failed

    async def _attempt(self, request: Request, seen: Counter) -> Any:
        """The result of one attempt; raises _TryAgain, or TransferError if that is of no use."""
        try:
            async with asyncio.timeout(request.deadline):
                body = await self._get(request)
        except (httpx.InvalidURL, OverflowError, UnicodeError, ExceptionGroup) as fault:
            # The last three come from addresses with impossible ports or names.
            raise TransferError(request.url, f"refused, or redirected to: {fault}") from fault
        except (httpx.TransportError, TimeoutError, zlib.error) as fault:
            slow = isinstance(fault, (TimeoutError, httpx.TimeoutException))
            reason = "timed out" if slow else str(fault) or type(fault).__name__
            failed = TransferError(request.url, reason, retryable=True)
            unreachable = isinstance(fault, httpx.ConnectError | httpx.ConnectTimeout)
            seen["unreachable"] += unreachable
            if not self.answered and seen["unreachable"] == UNREACHABLE:
                raise failed from fault  # there is no network: a minute of pauses would not help
            raise _TryAgain(failed) from fault
        try:
            # In a thread: parsing and writing would block all connections.
            return await asyncio.to_thread(request.parse, body)
        except ValueError as fault:
            failed = TransferError(request.url, str(fault))
            sign = sha256(body).hexdigest()
            seen[sign] += 1
            if seen[sign] == SAME:
                raise failed from fault
            raise _TryAgain(failed) from fault

    async def _get(self, request: Request) -> bytes:
        """The body of the answer, after few redirects: none leaves the host or encryption."""
        url = httpx.URL(request.url)
        timeout = httpx.Timeout(request.read_timeout, connect=10.0)
        for _ in range(REDIRECTS + 1):
            async with self.client.stream("GET", url, timeout=timeout) as answer:
                self.answered = True
                if not answer.has_redirect_location:
                    _check_status(request, answer)
                    return await _body(request, answer)
                url = _followed(request, url, answer.headers["Location"])
        raise TransferError(request.url, f"more than {REDIRECTS} redirects")


def _check_status(request: Request, answer: httpx.Response) -> None:
    """Raise what a status other than 200 stands for."""
    code = answer.status_code
    if code == 200:
        return
    failed = TransferError(
        request.url, _ABSENT.get(code, f"the server answers {code}"), code in _RETRYABLE
    )
    if not failed.retryable:
        raise failed
    pause = _retry_after(answer.headers)
    if pause > LONGEST_RETRY_AFTER:
        raise ArchiveError(
            f"{answer.url.host} answers {code}: come back in {pause / 60:.0f} minutes"
        )
    raise _TryAgain(failed, pause)


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server wants us to wait; 0 if it does not say, or gives a date."""
    value = headers.get("Retry-After", "0")
    return float(value) if re.fullmatch("[0-9]{1,6}", value) else 0.0


def _followed(request: Request, before: httpx.URL, location: str) -> httpx.URL:
    """The address that a redirect leads to; raises TransferError if it may not be followed."""
    after = before.join(location)
    known = {before.host, *map(str.strip, setting("ALLOWED_HOSTS").split(","))}
    encrypted = after.scheme == "https" or before.scheme == after.scheme == "http"
    possible = after.port is None or 0 < after.port < 65536
    if after.host not in known or not encrypted or not possible:
        place = f"{after.scheme}://{after.netloc.decode('ascii', 'replace')}"
        raise TransferError(
            request.url,
            f"refused to follow a redirect to {place} (LAB_ALLOWED_HOSTS names hosts to trust)",
        )
    return after


async def _body(request: Request, answer: httpx.Response) -> bytes:
    """The bytes of an answer, unpacked, as far as they are allowed to go."""
    coding = answer.headers.get("Content-Encoding", "identity").lower()
    if coding not in ("identity", "gzip"):
        raise TransferError(
            request.url, f"sent in a coding that was not asked for, {coding[:20]!r}"
        )
    unpack, body = zlib.decompressobj(31) if coding == "gzip" else None, bytearray()
    async for chunk in answer.aiter_raw():
        body += unpack.decompress(chunk, request.limit + 1 - len(body)) if unpack else chunk
        if len(body) > request.limit:
            raise TransferError(request.url, f"more than the {request.limit} bytes allowed here")
    if unpack and not unpack.eof:
        raise _TryAgain(TransferError(request.url, "broken off", retryable=True))
    return bytes(body)
