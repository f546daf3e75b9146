"""A local server that behaves like SDSS: SkyServer's SQL search and the SAS, on a good day or a bad one.

As a script it serves a replica of the archive to whole notebooks:

    python tests/sdss_server.py --replica ../shared/data/dr17-replica --port 8017 --config build/sdss-config
    XDG_CONFIG_HOME=build/sdss-config LAB_SURVEY=dr17 make lab

`--config` writes the settings with which astroquery asks this server instead of SDSS. `--bad-day SEED` makes
30% of the requests fail and cuts 10% of the bodies.
"""

import argparse
import csv
import gzip
import hashlib
import io
import random
import sqlite3
import threading
import time
import zlib
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SEARCH = "/dr17/en/tools/search/x_results.aspx"
HTML = b"<!DOCTYPE html>\n<html><head><title>Sorry</title></head>\n<body><p>Not now, please</p></body></html>\n"
FAULTS = (
    "503",
    "429",
    "500",
    "drop",
    "html",
    "other",
    "truncated",
    "long",
    "short",
    "garbage",
    "odd length",
)


def no_fault(path, number):
    """A good day. Such a function names the fault of the `number`-th request of `path`, or gives None."""
    return None


def bad_day(seed, failing=0.3, cut=0.1):
    """A fault in a share `failing` of all requests, and a body cut in a share `cut`.

    Drawn from the seed, the path and the number of its request: whichever connection is first.
    """

    def fault(path, number):
        generator = random.Random(f"{seed} {path} {number}")
        draw, kind = generator.random(), generator.choice(FAULTS)
        return kind if draw < failing else "cut" if draw < failing + cut else None

    return fault


def bad_start(path, number):
    """The first two requests of every address fail, each in another way: whoever asks a third time has the file."""
    return FAULTS[(zlib.crc32(path.encode()) + 5 * number) % len(FAULTS)] if number <= 2 else None


class SdssServer(ThreadingHTTPServer):
    """Serves the folder `replica` (apogeeStar.csv, aspcapStar.csv, sas/) on `port` of this machine.

    `fault(path, number)` names what goes wrong with a request; `requests` lists (path, headers) of all of them,
    `arrived` when they came, `answered` when and with what status; `busiest` is the largest number of requests in
    work at once; `sums` False has no lists of checksums.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, replica, port=0, fault=no_fault, sums=True):
        super().__init__(("127.0.0.1", port), _Handler)
        self.replica, self.fault, self.sums = Path(replica).resolve(), fault, sums
        self.requests, self.counts, self.lock = [], Counter(), threading.Lock()
        self.arrived, self.answered = [], []
        self.working = self.busiest = 0
        self.retry_after, self.stall, self.redirect = "0", 2.0, "/elsewhere"
        self.database = _database(self.replica)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, part):
        """How many requests had `part` in their path."""
        return sum(part in path for path, _ in self.requests)

    def handle_error(self, request, client_address):
        """Clients that hang up are no news."""


@contextmanager
def serving(replica, **options):
    """An `SdssServer` at work, to which astroquery's addresses point."""
    from astroquery.sdss import conf

    server = SdssServer(replica, **options)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        with (
            conf.set_temp("skyserver_baseurl", server.url),
            conf.set_temp("sas_baseurl", f"{server.url}/sas"),
        ):
            yield server
    finally:
        server.shutdown()
        server.server_close()


def _database(replica):
    database = sqlite3.connect(":memory:", check_same_thread=False)
    for table in ("apogeeStar", "aspcapStar"):
        path = replica / f"{table}.csv"
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                names, *rows = csv.reader(file)
            kinds = [
                "TEXT" if not all(map(_is_number, column)) else "NUMERIC"
                for column in zip(*rows, strict=True)
            ]
            columns = ", ".join(f"[{name}] {kind}" for name, kind in zip(names, kinds, strict=True))
            database.execute(f"CREATE TABLE {table} ({columns})")
            database.executemany(
                f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", rows
            )
    return database


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """Quiet: the server keeps its own list."""

    def do_GET(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        with server.lock:
            server.requests.append((path, dict(self.headers)))
            server.arrived.append(time.monotonic())
            server.counts[path] += 1
            number = server.counts[path]
            server.working += 1
            server.busiest = max(server.busiest, server.working)
        try:
            fault = server.fault(path, number)
            if fault in ("503", "429", "500", "404", "403"):
                self._send(int(fault), HTML, "text/html", {"Retry-After": server.retry_after})
            elif fault == "html":
                self._send(200, HTML, "text/html")
            elif fault == "redirect":
                self._send(302, b"", "text/html", {"Location": server.redirect})
            elif path == SEARCH:
                self._search(fault)
            else:
                self._file(path.removeprefix("/elsewhere"), fault)
        finally:
            with server.lock:
                server.working -= 1

    do_HEAD = do_GET

    def _search(self, fault):
        query = parse_qs(urlsplit(self.path).query)
        if query.get("format") != ["csv"] or query.get("searchtool") != ["SQL"]:
            return self._send(200, HTML, "text/html")
        try:
            with self.server.lock:
                answer = self.server.database.execute(query["cmd"][0])
                names, rows = [column[0] for column in answer.description], answer.fetchall()
        except sqlite3.Error as error:
            return self._send(200, f"<html>error_message: {error}</html>".encode(), "text/html")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(
            [names, *(rows[:-1] if fault == "fewer rows" else rows)]
        )
        body = "" if fault == "nothing" else f"#Table1\n{text.getvalue()}"
        if fault == "no rows":
            body = f"#Table1\n{','.join(names)}\n"
        self._send(200, body.encode(), "text/plain", fault=fault)

    def _file(self, path, fault):
        file = (self.server.replica / path.lstrip("/")).resolve()
        body = None
        if self.server.replica in file.parents and file.is_file():
            body = file.read_bytes()
        elif file.name.endswith(".sha1sum") and file.parent.is_dir() and self.server.sums:
            files = sorted(file.parent.glob("*.fits"))
            body = "".join(
                f"{hashlib.sha1(one.read_bytes()).hexdigest()}  {one.name}\n" for one in files
            ).encode()
        if body is None:
            return self._send(404, HTML, "text/html")
        if fault == "other":
            body = next(
                (one for one in sorted(file.parent.glob("*.fits")) if one != file), file
            ).read_bytes()
        elif fault == "truncated":
            body = body[: len(body) // 2 // 2880 * 2880]
        elif fault == "garbage":
            body = body[:2880] + bytes(len(body) - 2880)
        self._send(200, body, "application/fits", fault=fault)

    def _send(self, status, body, kind, headers=(), fault=None):
        headers = dict(headers)
        self.server.answered.append((time.monotonic(), status))
        if fault in ("gzip", "gzip cut"):
            body = gzip.compress(body, 1)[: None if fault == "gzip" else 1000]
            headers["Content-Encoding"] = "gzip"
        length = len(body) + {"long": 1000, "short": -min(1000, len(body))}.get(fault, 0)
        length = "many" if fault == "odd length" else length
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers, "Content-Length": length}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("cut", "drop", "stall", "long", "short", "odd length"):
            self.close_connection = True
        if fault in ("cut", "drop"):
            body = body[: len(body) // 2] if fault == "cut" else b""
        if fault == "stall":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(self.server.stall)
            return
        self.wfile.write(body)
        self.wfile.flush()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--replica",
        type=Path,
        required=True,
        help="folder with apogeeStar.csv, aspcapStar.csv, sas/",
    )
    parser.add_argument("--port", type=int, default=8017)
    parser.add_argument(
        "--config", type=Path, help="folder for astroquery's settings (XDG_CONFIG_HOME)"
    )
    parser.add_argument("--bad-day", type=int, metavar="SEED", help="fail as the internet does")
    options = parser.parse_args()
    fault = no_fault if options.bad_day is None else bad_day(options.bad_day)
    server = SdssServer(options.replica, options.port, fault)
    if options.config:
        folder = options.config / "astropy"
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["[sdss]", f"skyserver_baseurl = {server.url}", f"sas_baseurl = {server.url}/sas"]
        (folder / "astroquery.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"SDSS of {options.replica} at {server.url}; end with Ctrl-C", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print(f"{len(server.requests)} requests answered")


if __name__ == "__main__":
    main()
