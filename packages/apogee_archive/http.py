"""The one way to servers: whole answers within limits of size and time, from servers that fail, lie or stall.

An event loop (httpx) rather than urllib3's `Retry`: only a loop ends an attempt wherever it hangs, and `Retry` knows
neither wrong bodies nor the pauses of other connections. What broke off starts anew: files are of 1-2 MB.
"""

import asyncio
import contextlib
import queue
import random
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256

import httpx

from apogee_archive.errors import ArchiveError, TransferError
from apogee_archive.settings import setting

__all__ = ["Request", "fetch", "gather"]

CONNECTIONS, ATTEMPTS = 4, 8
BACKOFF = 0.5  # seconds before the second attempt, doubled for each further one up to LONGEST_WAIT
LONGEST_WAIT, LONGEST_RETRY_AFTER = 30.0, 120.0
REDIRECTS = 5
LIMIT = 64 * 2**20  # bytes of an answer, unpacked
SAME = 3  # times that one address gives the same wrong answer, after which it is believed
ALIKE = 8  # wrong answers in a row that are the same, from several addresses: they are not the archive's
GIVE_UP = 8  # transfers in a row that the network failed
GRACE = 1.5  # seconds for open connections to close
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_ABSENT = {404: "not on the server (404)", 410: "not on the server (410)"}


@dataclass(frozen=True)
class Request:
    """What to fetch: `parse` makes the result of the bytes, or raises ValueError if they are something else."""

    url: str
    parse: Callable = bytes
    limit: int = LIMIT
    attempts: int | None = None
    quiet: float = 30.0  # seconds without a byte
    deadline: float = 300.0  # seconds for one attempt in all


def fetch(url, parse=bytes, **options):
    """What `parse` makes of the answer of one address (see `Request`). Raises ArchiveError, mostly a TransferError.

    Faults that may pass (time-outs, broken connections, 408, 425, 429, 5xx, a body that `parse` refuses) are tried
    again after a growing pause, or after that which the server asks for in Retry-After.
    """
    [(_, result)] = gather({0: Request(url, parse, **options)})
    if isinstance(result, TransferError):
        raise result
    return result


def gather(jobs):
    """Do `jobs` (name -> Request) over as many connections as a server likes; yield names and results as they come.

    A result is that of `parse`, or the TransferError of an address that is given up. Raises ArchiveError when going on
    is of no use: the network is gone, something else answers in the archive's place, or a server asks for a long
    pause; and what else `parse` raises. However it ends, connections are closed at once.
    """
    answers, stop = queue.SimpleQueue(), threading.Event()
    run = threading.Thread(target=lambda: asyncio.run(_work(jobs, answers.put, stop)), daemon=True)
    run.start()
    try:
        for _ in jobs:
            name, result = _next(answers)
            if name is _Line:
                raise result
            yield name, result
    finally:
        stop.set()
        run.join(GRACE)


def _next(answers):
    """Waits in short steps, between which Ctrl-C is noticed on every system."""
    while True:
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=0.2)


async def _work(jobs, put, stop):
    """Do the jobs until they are done, one raises, or `stop` is set."""
    try:
        async with httpx.AsyncClient(
            headers={"User-Agent": "stellar spectra lab", "Accept-Encoding": "identity"}
        ) as web:
            line, todo = _Line(web), iter(jobs.items())
            workers = {
                asyncio.create_task(line.work(todo, put))
                for _ in range(min(CONNECTIONS, len(jobs)))
            }
            done, pending = set(), workers
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
        put((_Line, fault))


class _Line:
    """What all transfers of one call share: the client, pauses, and what went wrong in a row."""

    def __init__(self, client):
        self.client, self.open_at, self.failed, self.alike = client, 0.0, 0, []

    async def work(self, todo, put):
        for name, job in todo:
            put((name, await self.fetch(job)))

    async def fetch(self, job):
        """The job's result, or its TransferError; raises ArchiveError if the others need not be tried."""
        seen = Counter()
        for attempt in range(job.attempts or ATTEMPTS):
            await self._pause(attempt)
            body = None
            try:
                async with asyncio.timeout(job.deadline):
                    body = await self._get(job)
                result = job.parse(body)
            except TransferError as fault:
                failed = fault
            except httpx.InvalidURL as fault:
                failed = TransferError(job.url, f"refused a redirect: {fault}")
            except (httpx.TransportError, TimeoutError, zlib.error) as fault:
                slow = isinstance(fault, (TimeoutError, httpx.TimeoutException))
                reason = "timed out" if slow else str(fault) or type(fault).__name__
                failed = TransferError(job.url, reason, retryable=True)
            except ValueError as fault:
                failed = TransferError(job.url, str(fault))
            else:
                self.failed, self.alike = 0, []
                return result
            sign = failed.reason if body is None else sha256(body).hexdigest()
            seen[sign] += 1
            self._judge(job, failed, sign)
            if not failed.retryable and (body is None or seen[sign] == SAME):
                break
        self.failed = self.failed + 1 if failed.retryable else 0
        if self.failed >= GIVE_UP:
            raise ArchiveError(
                f"the last {GIVE_UP} transfers failed, at last {failed}: see to the network, run this again"
            )
        return failed

    async def _pause(self, attempt):
        if attempt:
            await asyncio.sleep(
                min(LONGEST_WAIT, BACKOFF * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
            )
        while (left := self.open_at - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left)

    def _judge(self, job, failed, sign):
        """Raise ArchiveError if the answers of many addresses are alike, as those of a portal are."""
        if failed.retryable or failed.reason in _ABSENT.values():
            return
        self.alike = [*(one for one in self.alike if one[0] == sign), (sign, job.url)]
        if len(self.alike) >= ALIKE and len({url for _, url in self.alike}) > 1:
            raise ArchiveError(
                f"{httpx.URL(job.url).host} gives the same wrong answer, whatever is asked for: {failed.reason}. "
                "Does this network want you to log in, or does the address lead somewhere else?"
            )

    async def _get(self, job):
        """The body of the answer, after few redirects, none of which gives up encryption or leaves the host."""
        url = httpx.URL(job.url)
        for _ in range(REDIRECTS + 1):
            timeout = httpx.Timeout(job.quiet, connect=10.0)
            async with self.client.stream("GET", url, timeout=timeout) as answer:
                if not answer.has_redirect_location:
                    self._check_status(job, answer)
                    return await _body(job, answer)
                url = _followed(job, url, answer.headers["Location"])
        raise TransferError(job.url, f"more than {REDIRECTS} redirects")

    def _check_status(self, job, answer):
        code, asked = answer.status_code, _retry_after(answer.headers)
        if code in _PASSING:
            self.open_at = max(self.open_at, asyncio.get_running_loop().time() + asked)
            if asked > LONGEST_RETRY_AFTER:
                raise ArchiveError(
                    f"{answer.url.host} answers {code}: come back in {asked / 60:.0f} minutes"
                )
        if code != 200:
            raise TransferError(
                job.url, _ABSENT.get(code, f"the server answers {code}"), retryable=code in _PASSING
            )


def _retry_after(headers):
    """Seconds to wait; a date is read against the server's own clock."""
    value = headers.get("Retry-After", "0")
    if value.isdecimal():
        return float(value)
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        now = parsedate_to_datetime(headers["Date"]) if "Date" in headers else datetime.now(UTC)
        return (parsedate_to_datetime(value) - now).total_seconds()
    return 0.0


def _followed(job, before, location):
    """The address that a redirect leads to; raises TransferError if it may not be followed."""
    after = before.join(location)
    known = {before.host, *map(str.strip, setting("ALLOWED_HOSTS").split(","))}
    if after.host not in known or not (
        after.scheme == "https" or before.scheme == after.scheme == "http"
    ):
        place = f"{after.scheme}://{after.host}"
        raise TransferError(
            job.url,
            f"refused to follow a redirect to {place} (LAB_ALLOWED_HOSTS names hosts to trust)",
        )
    return after


async def _body(job, answer):
    """The bytes of an answer, unpacked, as far as they are allowed to go."""
    coding = answer.headers.get("Content-Encoding", "identity").lower()
    if coding not in ("identity", "gzip"):
        raise TransferError(job.url, f"sent in a coding that was not asked for, {coding[:20]!r}")
    unpack, body = zlib.decompressobj(31) if coding == "gzip" else None, bytearray()
    async for chunk in answer.aiter_raw():
        body += unpack.decompress(chunk, job.limit + 1 - len(body)) if unpack else chunk
        if len(body) > job.limit:
            raise TransferError(job.url, f"more than the {job.limit} bytes allowed here")
    if unpack and not unpack.eof:
        raise TransferError(job.url, "broken off", retryable=True)
    return bytes(body)
