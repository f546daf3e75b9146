"""Isochrones from the web form of MIST: a stand-in for the server, on a good day or a bad one."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import numpy as np
import pytest
from test_isochrones import EEPS, mist_text

from labtools.errors import TransferError
from labtools.isochrones import best_isochrone, read_mist
from labtools.sdss import http, mist
from labtools.sdss.mist import fetch_mist


class Interpolator(BaseHTTPRequestHandler):
    """Answers as iso_form.php and its downloads do; `faults` names what goes wrong, one entry a request."""

    faults = ()
    forms = ()

    def answer(self, code, body, kind="text/html"):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def next_fault(self):
        return type(self).faults.pop(0) if type(self).faults else ""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fault = self.next_fault()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        type(self).forms.append(form)
        link = "https://elsewhere.invalid/a.zip" if fault == "elsewhere" else "tmp/MIST_iso_1.zip"
        page = f'<html><p>Your file: <a href="{link}">MIST_iso_1.zip</a></p></html>'
        if fault == "busy":
            page = "<html><p>failed in age interpolation!</p></html>"
        self.answer(503 if fault == "503" else 200, page.encode())

    def do_GET(self):
        fault = self.next_fault()
        form = type(self).forms[-1]
        age, feh = float(form["age_value"]), float(form["FeH_value"])
        text = mist_text([np.log10(age) + (0.1 if fault == "other age" else 0)], feh, linear=True)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("../../MIST_iso_1.iso.UBVRIplus", bytes(mist.LIMIT + 1) if fault == "bomb" else text)
            if fault == "many":
                archive.writestr("other.iso", text)
        body = packed.getvalue()
        body = body[: len(body) // 2] if fault == "cut" else b"<html>404" if fault == "page" else body
        self.answer(404 if fault == "404" else 200, body, "application/zip")

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http, "BACKOFF", 0.001)
    monkeypatch.setattr(http, "ATTEMPTS", 4)
    Interpolator.faults, Interpolator.forms = [], []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Interpolator)
    threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def test_fetching_what_is_needed_and_only_once(server, tmp_path):
    paths = fetch_mist(6.0, (0.0, -1.0), tmp_path / "mist", address=server)
    assert [path.name for path in paths] == [f"MIST_v1.2_feh_{feh}_6Gyr.iso.cmd" for feh in ("p0.00", "m1.00")]
    assert sorted(paths) == sorted((tmp_path / "mist").iterdir())
    wanted = {"version": "MIST1", "age_type": "single", "age_scale": "linear", "age_value": "6e+09"}
    assert wanted.items() <= Interpolator.forms[0].items()
    assert [form["FeH_value"] for form in Interpolator.forms] == ["0", "-1"]
    one = best_isochrone(6.0, -1.0, tmp_path / "mist")
    assert one["feh_init"].unique() == [-1.0]
    assert one.attrs["source"].startswith("MIST v1.2")
    fetch_mist(6.0, (0.0, -1.0), tmp_path / "mist", address=server)
    assert len(Interpolator.forms) == 2


@pytest.mark.parametrize("faults", [["503"], ["", "cut"], ["503", "503", "", "page"]])
def test_passing_faults_are_survived(faults, server, tmp_path):
    Interpolator.faults = list(faults)
    (path,) = fetch_mist(6.0, (0.0,), tmp_path, address=server)
    assert len(read_mist(path)) == len(EEPS)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["busy"], "failed in age interpolation"),
        (["503"] * 9, "answers 503"),
        (["elsewhere"], "another place"),
        (["", "404"], "not on the server"),
        (["", "page", "page", "page"], "not a whole zip archive"),
        (["", "many"], "it holds"),
        (["", "bomb"], "it holds"),
        (["", "other age"], "no isochrone for"),
    ],
)
def test_what_is_not_the_isochrone_is_not_kept(faults, message, server, tmp_path):
    Interpolator.faults = [*faults, *faults[-1:] * 9] if faults[0] == "" else [*faults, *faults * 9]
    with pytest.raises(TransferError, match=message):
        fetch_mist(6.0, (0.0,), tmp_path, address=server)
    assert not list(tmp_path.iterdir())
