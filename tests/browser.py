"""The lab as a student has it: JupyterLab in Chromium (make test-browser). No part of make test.

A clone of the checkout is opened in a real browser; each notebook is opened from the file browser
and run by the menu. Screenshots go to build/screenshots. Skipped, saying so, where there is no
Chromium.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright, of the extra browser")
ROOT = Path(__file__).resolve().parents[1]
SHOTS = ROOT / "build" / "screenshots"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "extensionmanager-extension/plugin": {"enabled": False},
}
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium: apt-get install chromium, or set PATH to one"
)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The checkout as committed, with the working copies that `make jupyter` makes."""
    folder = tmp_path_factory.mktemp("clone") / "lab"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", ROOT, folder], check=True)
    shutil.copytree(folder / "notebooks", folder / "build" / "work")
    return folder


@pytest.fixture(scope="module")
def lab(clone, tmp_path_factory):
    """Address of a JupyterLab server on the clone; its kernels use a small survey in the data of
    this checkout."""
    settings, port = tmp_path_factory.mktemp("settings"), free_port()
    for name, content in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    environment = os.environ | {
        "PYTHONPATH": str(clone),
        "LAB_DATA": os.environ.get("LAB_DATA") or str(ROOT / "data"),
        "LAB_STARS": "300",
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTER_CONFIG_DIR": str(tmp_path_factory.mktemp("config")),
    }
    options = [
        "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={clone}", "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    log = open(tmp_path_factory.mktemp("log") / "jupyter.log", "w")  # noqa: SIM115
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options], env=environment, stdout=log, stderr=log
    )
    address = f"http://127.0.0.1:{port}/lab"
    try:
        for _ in range(120):
            try:
                urlopen(f"{address}/api/settings", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, lab):
    """A page of JupyterLab that remembers what its console called an error."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.faults = []
    page.on(
        "console",
        lambda message: page.faults.append(message.text) if message.type == "error" else None,
    )
    page.goto(f"{lab}/tree/build/work?reset")
    page.wait_for_selector(".jp-DirListing-item", timeout=120_000)
    yield page
    page.close()


def open_notebook(page, name):
    page.locator(".jp-DirListing-item", has_text=name).dblclick()
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
    page.wait_for_selector(".jp-Notebook .jp-RenderedMarkdown h1", state="visible", timeout=120_000)
    page.keyboard.press("Control+b")  # the side bar closes


def run_all(page, minutes=15):
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells$")).click()
    page.wait_for_function(
        f"() => {{ const cells = {CELLS}; return cells.every(c => c.executionCount > 0) }}",
        timeout=minutes * 60_000,
    )
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)


CELLS = """Array.from(jupyterapp.shell.currentWidget.content.model.cells)
    .filter(c => c.type === 'code').map(c => ({executionCount: c.executionCount, outputs: c.outputs.toJSON()}))"""
TOO_WIDE = """() => Array.from(document.querySelectorAll(
    '.jp-Notebook .jp-RenderedMarkdown, .jp-Notebook .jp-OutputArea-output'))
    .filter(e => e.scrollWidth > e.clientWidth + 2).map(e => e.textContent.trim().slice(0, 90))"""
COLOURS = """() => {
    const paper = getComputedStyle(document.querySelector('.jp-Notebook')).backgroundColor;
    const texts = document.querySelectorAll('.jp-RenderedMarkdown p, .jp-RenderedHTMLCommon td');
    return Array.from(texts).slice(0, 60).map(e => [getComputedStyle(e).color, paper]);
}"""
DRAWN = "() => document.querySelector('.jupyter-matplotlib canvas').toDataURL()"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_the_menu(page, name):
    open_notebook(page, name)
    run_all(page)
    outputs = [output for cell in page.evaluate(f"() => {CELLS}") for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    said = [output["text"] for output in outputs if output.get("name") == "stderr"]
    assert not [text for text in said if not text.startswith("Dask dashboard: ")], (
        "bars are widgets, and nothing warns"
    )
    assert page.evaluate(TOO_WIDE) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name[:2]}_1440.png")
    page.set_viewport_size({"width": 1024, "height": 768})
    page.wait_for_timeout(500)
    assert page.evaluate(TOO_WIDE) == []
    assert page.faults == []


def test_sliders_move_the_curve(page):
    open_notebook(page, "03_cannon_training.ipynb")
    run_all(page)
    figure = page.locator(".jupyter-matplotlib").first
    figure.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    before = page.evaluate(DRAWN)
    handle = page.locator(".noUi-handle").first
    handle.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(f"before => ({DRAWN})() !== before", arg=before, timeout=20_000)
    page.screenshot(path=SHOTS / "explorer.png")
    page.locator(".jupyter-matplotlib").last.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)
    page.screenshot(path=SHOTS / "spectrum.png")


def test_the_dark_theme_is_legible(page):
    page.evaluate(
        "() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
    )
    open_notebook(page, "04_cross_validation.ipynb")
    page.wait_for_timeout(1000)
    page.screenshot(path=SHOTS / "dark.png")
    colours = page.evaluate(COLOURS)
    assert colours
    assert min(contrast(*map(brightness, pair)) for pair in colours) > 4.5
    page.evaluate(
        "() => jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})"
    )


def brightness(colour):
    """Relative luminance of a CSS colour (WCAG 2)."""
    parts = [float(part) / 255 for part in re.findall(r"[\d.]+", colour)[:3]]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_looking_at_a_notebook_changes_nothing(browser, lab, clone):
    """Opened where it lies in the repository, looked at, closed: not even marked as changed."""
    page = browser.new_page()
    page.goto(f"{lab}/tree/notebooks/01_selection.ipynb?reset")
    page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=120_000)
    page.wait_for_timeout(1500)
    assert page.evaluate("() => jupyterapp.shell.currentWidget.context.model.dirty") is False
    page.close()


def test_the_work_tree_is_clean_after_all_this(clone):
    assert (
        subprocess.run(
            ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True
        ).stdout
        == ""
    )


# ---------------------------------------------------------------- the site that `make site` builds

SITE = ROOT / "build" / "site" / "html"
PAGES = sorted(path.name for path in SITE.glob("*.html") if path.stem not in ("search", "genindex"))
RAW_TEX = r"""() => Array.from(document.querySelectorAll('article .math'))
    .filter(e => !e.querySelector('mjx-container')).map(e => e.textContent.slice(0, 60))"""
SCROLLS = """() => Array.from(document.querySelectorAll('article pre'))
    .filter(e => e.scrollWidth > e.clientWidth + 2).map(e => e.textContent.trim().slice(0, 60))"""


def test_the_site_was_built():
    assert PAGES, "there is no site to look at: make site"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_site(browser, name):
    """Formulas are set without a network, long lines of code wrap, every picture is there."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    outside = []
    page.on("request", lambda ask: outside.append(ask.url) if ask.url[:4] == "http" else None)
    page.goto((SITE / name).as_uri())
    page.wait_for_load_state("networkidle")
    page.wait_for_function(f"() => ({RAW_TEX})().length === 0", timeout=60_000)
    assert page.evaluate(SCROLLS) == []
    missing = page.evaluate(
        "() => Array.from(document.images).filter(i => !i.naturalWidth).map(i => i.src)"
    )
    assert missing == []
    assert outside == [], "a page of the site needs nothing from elsewhere"
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"site_{Path(name).stem}.png")
    page.close()
