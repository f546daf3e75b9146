"""Fetching files over HTTP from servers that fail, into a cache that is never left half-written."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util.retry import Retry

from labtools.cache import writing
from labtools.errors import TransferError

__all__ = [
    "NotOnServer",
    "Stopped",
    "WrongFile",
    "fetch",
    "gather",
    "may_pass",
    "new_session",
]

CONNECTIONS = 4
ATTEMPTS = 6
BACKOFF = 0.5  # seconds before the second attempt, doubled for each further one up to LONGEST_WAIT
LONGEST_WAIT = 30.0
LONGEST_RETRY_AFTER = 120.0
TIMEOUT = (10.0, 30.0)  # seconds to connect, and to wait for the next bytes
DEADLINE = 300.0  # seconds for one attempt in all
LIMIT = 64 * 2**20  # bytes

_PASSING = {408, 425, 429, 500, 502, 503, 504}


class NotOnServer(TransferError):
    """The server says that it has no such file (404 or 410)."""


class WrongFile(TransferError):
    """What the server gives in this place, time and again, is not the file that was wanted."""


class Stopped(TransferError):
    """Not tried, or not to its end, because other transfers failed or the user interrupted."""


class _TryAgain(Exception):
    """A fault that may pass: seconds to `wait` as the server asks, attempts that it counts for (`cost`)."""

    def __init__(self, reason, wait=0.0, cost=1, kind=TransferError):
        super().__init__(reason)
        self.wait, self.cost, self.kind = wait, cost, kind


class _Session(requests.Session):
    """Keeps connections open, follows few redirects and none that leaves http(s) or gives up encryption."""

    def get_redirect_target(self, response):
        target = super().get_redirect_target(response)
        if target:
            before, after = (urlsplit(url).scheme for url in (response.url, urljoin(response.url, target)))
            if after not in ("http", "https") or (before, after) == ("https", "http"):
                raise InvalidSchema(f"refused to follow a redirect from {before} to {after}")
        return target


def new_session():
    """A `requests.Session` with the manners wanted here; certificates are verified."""
    session = _Session()
    session.max_redirects = 5
    session.headers.update({"User-Agent": "labtools (stellar spectra lab)", "Accept-Encoding": "identity"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=CONNECTIONS))
    return session


def fetch(url, path, check=None, session=None, attempts=None, limit=LIMIT, stop=None):
    """Fetch `url` into the file `path`, which appears complete and checked or not at all.

    Faults that may pass (time-outs, broken connections, 408, 425, 429, 5xx, a body that fails `check`) are
    tried again after a growing pause, or after that which the server asks for in Retry-After; a wrong body
    counts as two attempts. A transfer that broke off goes on where it stopped if the server gives a strong
    ETag or a date and allows ranges.

    Parameters
    ----------
    check : function of a path that raises ValueError if the file is not what was wanted.
    session : see `new_session`. attempts : how often to try, by default `ATTEMPTS`.
    limit : bytes; a larger file is refused.
    stop : `threading.Event`; once it is set the transfer ends.

    Raises
    ------
    TransferError, which is NotOnServer or WrongFile if the network is not to blame, Stopped after `stop`;
    CacheError if the file cannot be written.
    """
    session, stop, attempts = session or new_session(), stop or threading.Event(), attempts or ATTEMPTS
    with writing(path) as part:
        partial = _Partial(part)
        tried = pause = 0
        while tried < attempts:
            if stop.wait(pause):
                raise Stopped(url, "not tried any more, after other transfers failed")
            try:
                _attempt(session, url, partial, check, limit, stop)
                return Path(path)
            except _TryAgain as fault:
                reason, asked, tried, kind = str(fault), fault.wait, tried + fault.cost, fault.kind
            if asked > LONGEST_RETRY_AFTER:
                raise TransferError(url, f"{reason}, come back in {asked / 60:.0f} minutes")
            pause = max(asked, min(LONGEST_WAIT, BACKOFF * 2 ** (tried - 1)) * random.uniform(0.5, 1))
        raise kind(url, reason)


def gather(tasks, give_up):
    """Run `tasks` (number -> function of a `threading.Event`) on as many threads as a server likes.

    Yields the number of each task and its result, or its TransferError or ValueError. After `give_up`
    transfers in a row that failed the Event is set. Raises what else a task raises. However it ends, the
    threads have ended.
    """
    stop, failed = threading.Event(), 0
    pool = ThreadPoolExecutor(CONNECTIONS)
    try:
        jobs = {pool.submit(task, stop): number for number, task in tasks.items()}
        for job in as_completed(jobs):
            number, fault = jobs.pop(job), job.exception()
            if fault and not isinstance(fault, (TransferError, ValueError)):
                raise fault
            failed = failed + 1 if may_pass(fault) else 0
            if failed >= give_up:
                stop.set()
            yield number, fault or job.result()
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def may_pass(fault):
    """Whether a fault is one of the network, so that another time may do better."""
    return isinstance(fault, TransferError) and not isinstance(fault, (NotOnServer, WrongFile))


@dataclass
class _Partial:
    """What has arrived of a file so far, and what the server calls this version of it."""

    path: Path
    version: str = ""

    def size(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def drop(self):
        self.path.unlink(missing_ok=True)
        self.version = ""

    def headers(self):
        if not (self.version and self.size()):
            return {}
        return {"Range": f"bytes={self.size()}-", "If-Range": self.version}

    def start(self, response):
        """Bytes to keep of what is there: all if `response` goes on where it ends, else none."""
        if response.status_code != 206:
            return 0
        if not response.headers.get("Content-Range", "").startswith(f"bytes {self.size()}-"):
            self.drop()
            raise _TryAgain("the server sent another part of the file than the one asked for")
        return self.size()


def _attempt(session, url, partial, check, limit, stop):
    """One request; raises _TryAgain if another may do better."""
    try:
        with session.get(url, headers=partial.headers(), stream=True, timeout=TIMEOUT) as response:
            _check_status(url, response, partial)
            _receive(url, response, partial, limit, stop)
    except (InvalidSchema, requests.exceptions.InvalidURL, requests.TooManyRedirects) as fault:
        raise TransferError(url, str(fault)) from fault
    except (requests.RequestException, HTTPError) as fault:
        raise _TryAgain(_short(fault)) from fault
    try:
        if check:
            check(partial.path)
    except ValueError as fault:
        partial.drop()
        raise _TryAgain(str(fault), cost=2, kind=WrongFile) from fault


def _check_status(url, response, partial):
    code = response.status_code
    if code in (200, 206):
        return
    if code in (404, 410):
        raise NotOnServer(url, f"not on the server ({code})")
    if code == 416:
        partial.drop()
        raise _TryAgain("the server cannot continue a broken transfer (416)")
    if code in _PASSING:
        raise _TryAgain(f"the server answers {code} {response.reason}", _retry_after(response))
    raise TransferError(url, f"the server answers {code} {response.reason}")


def _retry_after(response):
    try:
        return float(Retry().parse_retry_after(response.headers.get("Retry-After", "0")))
    except InvalidHeader:
        return 0.0


def _receive(url, response, partial, limit, stop):
    """Write the body of `response` to the file and see that its length is the one announced."""
    done, encoded = partial.start(response), "Content-Encoding" in response.headers
    version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
    partial.version = "" if encoded or version.startswith("W/") else version
    announced = response.headers.get("Content-Length", "")
    total = done + int(announced) if announced.isdigit() and not encoded else None
    if (total or 0) > limit:
        raise TransferError(url, f"{total} bytes, more than the {limit} allowed here")
    deadline = time.monotonic() + DEADLINE
    with open(partial.path, "r+b" if done else "wb") as file:
        file.seek(done)
        for chunk in response.iter_content(2**16):
            file.write(chunk)
            if file.tell() > limit:
                raise TransferError(url, f"more than the {limit} bytes allowed here")
            if stop.is_set():
                raise Stopped(url, "stopped half-way")
            if time.monotonic() > deadline:
                raise _TryAgain(f"not finished after {DEADLINE:.0f} s")
        size = file.tell()
    if total is not None and size != total:
        raise _TryAgain(f"broken off after {size} of {total} bytes")


def _short(fault, length=160):
    """The innermost reason of a chain of transport errors, on one line."""
    while getattr(fault, "reason", None) or (fault.args and isinstance(fault.args[0], Exception)):
        fault = getattr(fault, "reason", None) or fault.args[0]
        if isinstance(fault, str):
            break
    text = " ".join(str(fault).split())
    return text if len(text) <= length else text[: length - 1] + "…"
