"""Hostile servers and crafted files: all ends in time, in bounded memory, with a documented error."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import pytest
from astropy.io import fits

from tiny_archive import write_apstar, write_archive

ROOT = Path(__file__).resolve().parents[1]
PATHS = os.pathsep.join(
    [str(ROOT), str(ROOT / "packages")]
)  # this checkout, if others are installed
STAR = "2M00000001+0000001"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(autouse=True)
def interruptible():
    """SIGINT interrupts, also where the tests run in the background and were born with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def hostile(script):
    """A server that hands each connection, after its request, to `script(connection)`; gives its address."""
    listener, closed = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve(connection):
        with connection:
            try:
                if script is not never_accepts_the_request:
                    connection.recv(65536)
                script(connection, closed)
            except OSError:
                pass

    def accept():
        while not closed.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        closed.set()
        listener.close()


def drip(connection, closed, byte=b"x"):
    while not closed.wait(0.05):
        connection.sendall(byte)


def flood(connection, closed):
    while not closed.is_set():
        connection.sendall(bytes(2**20))


def never_accepts_the_request(connection, closed):
    closed.wait(60)


def silence(connection, closed):
    closed.wait(60)


def drips_the_status(connection, closed):
    drip(connection, closed)


def drips_headers(connection, closed):
    connection.sendall(OK + b"X-Long: ")
    drip(connection, closed)


def drips_the_body(connection, closed):
    connection.sendall(OK + b"Content-Length: 1000000\r\n\r\n")
    drip(connection, closed)


def drips_chunks(connection, closed):
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    drip(connection, closed, b"1\r\nx\r\n")


def drips_the_length_of_a_chunk(connection, closed):
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n5;")
    drip(connection, closed)


def redirects_with_an_endless_body(connection, closed):
    connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n")
    flood(connection, closed)


def drips_in_continues(connection, closed):
    drip(connection, closed, b"HTTP/1.1 100 Continue\r\n\r\n")


def sends_headers_without_end(connection, closed):
    connection.sendall(OK)
    while not closed.is_set():
        connection.sendall(b"X-More: " + bytes(9).hex().encode() * 50 + b"\r\n")


def sends_a_body_without_end(connection, closed):
    connection.sendall(OK + b"\r\n")
    flood(connection, closed)


def announces_terabytes(connection, closed):
    connection.sendall(OK + b"Content-Length: 9000000000000\r\n\r\n")
    flood(connection, closed)


def sends_a_gzip_bomb(connection, closed):
    packer = zlib.compressobj(1, wbits=31)
    small = b"".join(packer.compress(bytes(2**26)) for _ in range(8)) + packer.flush()
    head = f"Content-Encoding: gzip\r\nContent-Length: {len(small)}\r\n\r\n"
    connection.sendall(OK + head.encode() + small)


SLOW = [
    never_accepts_the_request,
    silence,
    drips_the_status,
    drips_headers,
    drips_the_body,
    drips_chunks,
    drips_the_length_of_a_chunk,
    redirects_with_an_endless_body,
    drips_in_continues,
    sends_headers_without_end,
]
LARGE = [sends_a_body_without_end, announces_terabytes, sends_a_gzip_bomb]


def ending(code, *arguments, seconds=60, gigabytes=3.0):
    """What a Python program in its own process prints, within limits of memory and processor time."""
    limits = (
        "import resource\n"
        f"resource.setrlimit(resource.RLIMIT_AS, [int({gigabytes} * 2**30)] * 2)\n"
        f"resource.setrlimit(resource.RLIMIT_CPU, [{seconds}] * 2)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", limits + code, *map(str, arguments)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": PATHS}
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=20 * seconds, cwd=ROOT, env=environment
    )
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


# ---------------------------------------------------------------- servers


@pytest.mark.parametrize("script", SLOW)
def test_an_attempt_ends_within_its_deadline_wherever_it_hangs(script):
    from apogee_archive.errors import TransferError
    from apogee_archive.http import fetch

    # These servers never end: that this ends at all is the deadline's doing.
    with hostile(script) as url, pytest.raises(TransferError):
        fetch(f"{url}/file", attempts=1, deadline=0.5)


FETCH = """
import sys
from apogee_archive.errors import TransferError
from apogee_archive.http import fetch
try:
    fetch(sys.argv[1] + "/file", attempts=1, limit=2**24)
except TransferError as fault:
    print(fault.reason)
"""


@pytest.mark.parametrize("script", LARGE)
def test_an_answer_stays_within_its_limit(script):
    with hostile(script) as url:
        assert "more than the 16777216 bytes" in ending(FETCH, url, gigabytes=1.5)


CATALOG = """
import sys
from astroquery.sdss import conf
from apogee_archive.errors import ArchiveError
from apogee_archive import catalog, http
http.BACKOFF = 0.01
conf.skyserver_baseurl = sys.argv[1]
try:
    catalog.query_catalog(["M15"])
except ArchiveError as fault:
    print(fault)
"""


@pytest.mark.parametrize(
    "body", [b"/dev/zero", b"/etc/hostname", b"{url}/other.csv", b"#Table1\n/dev/zero\n"]
)
def test_skyservers_answer_is_data_and_no_address(body):
    asked = []

    def answers(connection, closed):
        text = body.replace(b"{url}", url.encode())
        asked.append(text)
        connection.sendall(OK + f"Content-Length: {len(text)}\r\n\r\n".encode() + text)

    with hostile(answers) as url:
        assert "gave no catalog" in ending(CATALOG, url)
    assert len(asked) == 3, "the same answer three times, and nothing else"


INTERRUPTED = """
import sys
from astroquery.sdss import conf
from labtools import open_survey
from apogee_archive.catalog import read_tables
conf.sas_baseurl = sys.argv[1]
survey = open_survey("dr17", sys.argv[3])
print("begun", flush=True)
survey.spectra(read_tables(sys.argv[2]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize(
    "script", [silence, drips_headers, drips_the_body, redirects_with_an_endless_body]
)
def test_control_c_ends_it_and_leaves_nothing(script, tmp_path):
    arrived = threading.Event()

    def tell(connection, closed):
        arrived.set()
        script(connection, closed)

    mirror = write_archive(tmp_path / "mirror", number=8)
    with hostile(tell) as url:
        command = [sys.executable, "-c", INTERRUPTED, url, str(mirror), str(tmp_path / "data")]
        run = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": PATHS},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert arrived.wait(120)
        run.send_signal(signal.SIGINT)
        _, said = run.communicate(timeout=600)
    assert "KeyboardInterrupt" in said
    assert "never retrieved" not in said
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_control_c_is_prompt():
    """The part of Ctrl-C that is ours: transfers that would never end get a grace of so many seconds."""
    from apogee_archive import http

    with hostile(drips_the_body) as url:
        answers = http.gather({number: http.Request(f"{url}/{number}") for number in range(9)})
        threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(answers)
        answers.close()
        assert http.GRACE <= 1.5


# ---------------------------------------------------------------- files

READERS = """
import sys
from pathlib import Path
from apogee_archive.apstar import read_apstar
from apogee_archive.errors import CorruptFileError
from apogee_archive.catalog import read_allstar
from apogee_archive.files import read_continuum_pixels, read_star
from apogee_archive.hdf5_frames import read_frame
from apogee_archive.mist import read_mist
from apogee_archive.nirspec import read_spec1d
STAR = "2M00000001+0000001"
readers = {
    "fits": [read_apstar, lambda path: read_star(path, STAR), read_allstar, read_spec1d],
    "npz": [read_continuum_pixels, lambda path: read_star(path, STAR)],
    "cmd": [read_mist],
    "h5": [lambda path: read_frame(path, "allstar")],
}
for path in map(Path, sys.argv[1:]):
    for reader in readers[path.suffix[1:]]:
        try:
            print(path.name, "READ", reader(path))
        except CorruptFileError as fault:
            assert path.name in str(fault), fault
            print(path.name, "refused", fault)
"""


def patched(whole, old, new):
    """The bytes of a FITS file with one card of a header changed."""
    assert old in whole
    return (
        whole.replace(old.ljust(80), new.ljust(80), 1)
        if old.ljust(80) in whole
        else whole.replace(old, new, 1)
    )


def crafted(folder):
    """Files that promise much and hold little; all that a reader may do with them is refuse."""
    whole = write_apstar(folder / "whole.fits", STAR, nvisits=2).read_bytes()

    def with_card(name, value, hdu=1):
        at = whole.index(b"XTENSION") if hdu else 0
        start = whole.index(f"{name:8}=".encode(), at)
        return whole[:start] + f"{name:8}= {value:>20}".ljust(80).encode() + whole[start + 80 :]

    yield "axes.fits", with_card("NAXIS", "1000000000")
    yield "axes0.fits", with_card("NAXIS", "1000000000", hdu=0)
    yield "long.fits", with_card("NAXIS1", "9" * 20)
    yield "wide.fits", with_card("NAXIS1", "2000000000")
    yield "minus.fits", with_card("NAXIS2", "-4")
    yield "text.fits", with_card("NAXIS1", "'8575'")
    yield "bits.fits", with_card("BITPIX", "-2000000000")
    yield "groups.fits", with_card("GCOUNT", "1000000000000")
    yield "heap.fits", with_card("PCOUNT", "8" * 18)
    yield "endless.fits", whole[:80] + b"COMMENT ".ljust(80) * 500_000
    yield (
        "hdus.fits",
        whole + (whole[: whole.index(b"XTENSION")].replace(b"SIMPLE  =", b"XTENSION=") * 2000),
    )
    image = fits.CompImageHDU(fits.ImageHDU(_zeros(2000)).data, compression_type="GZIP_1")
    fits.HDUList([fits.PrimaryHDU(), image, image.copy(), image.copy()]).writeto(
        folder / "tiles.fits"
    )
    tiles = (folder / "tiles.fits").read_bytes()
    yield (
        "tiles.fits",
        tiles.replace(b"ZNAXIS1 =                 2000", b"ZNAXIS1 =            200000000"),
    )
    table = fits.BinTableHDU.from_columns([fits.Column("FIELD", "3A", array=["M15"])])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(folder / "columns.fits")
    columns = (folder / "columns.fits").read_bytes()
    fields = b"TFIELDS =                    1"
    yield "columns.fits", columns.replace(fields, b"TFIELDS =           1000000000")
    yield (
        "rows.fits",
        columns.replace(b"NAXIS2  =                    1", b"NAXIS2  =         100000000000"),
    )
    empty = columns.replace(b"NAXIS1  =                    3", b"NAXIS1  =                    0")
    yield (
        "empty rows.fits",
        empty.replace(b"NAXIS2  =                    1", b"NAXIS2  =          10000000000"),
    )
    yield "lies.npz", _lying_directory(_npz("trusted", "(4000000000,)", bytes(2**24), repeat=110))
    yield "bomb.npz", _npz("trusted", "(4000000000,)", bytes(2**24), repeat=20)
    yield "claim.npz", _npz("trusted", "(900000000000000,)", b"")
    yield "large.npz", _npz("trusted", "(5000000000,)", b"")
    yield "deep.npz", _npz("trusted", "(" + "1," * 70 + ")", b"\1")
    yield "object.npz", _npz("trusted", "(1,)", b"cos\nsystem\n(S'touch sprung'\ntR.", kind="|O")


def _zeros(size):
    import numpy as np

    return np.zeros((size, 100), "i2")


def _npz(name, shape, content, kind="|b1", repeat=1):
    """An .npz file whose array claims a shape, and holds `content` that many times."""
    import io
    import zipfile

    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{name}.npy", "w") as member,
    ):
        member.write(start)
        for _ in range(repeat):
            member.write(content)
    return packed.getvalue()


def _lying_directory(packed):
    """An .npz file whose directory says that its array is small, however much is packed in it."""
    import io
    import zipfile

    (member,) = zipfile.ZipFile(io.BytesIO(packed)).infolist()
    old, new = struct.pack("<I", member.file_size), struct.pack("<I", 200)
    at = packed.rindex(old)
    return packed[:at] + new + packed[at + 4 :]


SPARSE = ["sparse.fits", "sparse.npz", "sparse.cmd", "sparse.h5"]


def test_crafted_files_are_refused_in_bounded_time_and_memory(tmp_path):
    paths = []
    for name, content in crafted(tmp_path):
        (tmp_path / name).write_bytes(content)
        paths.append(tmp_path / name)
    for name in SPARSE:  # 10 TB that take no room on the disk
        paths.append(tmp_path / name)
        with open(paths[-1], "wb") as file:
            file.write(b"# MIST version number  = 2.5\n" if name.endswith("cmd") else b"")
            file.truncate(10**13)
    said = ending(READERS, *paths, gigabytes=2.5, seconds=120)
    assert "READ" not in said
    assert all(path.name in said for path in paths)
    assert not (ROOT / "sprung").exists()


def test_a_whole_file_is_read_under_the_same_limits(tmp_path):
    path = write_apstar(tmp_path / "whole.fits", STAR, nvisits=2)
    assert ending(READERS, path, gigabytes=2.5).count("READ") == 2
