"""What is installed, which survey is set, what the caches hold, what answers, and what to do about it."""

import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import NamedTuple

import requests
from astroquery.sdss import conf
from tqdm import tqdm

from labtools.cache import sha256_of
from labtools.errors import BadFile
from labtools.isochrones import ADDRESS as MIST
from labtools.isochrones import read_mist
from labtools.sdss import dr17 as archive
from labtools.sdss.catalog import load_catalog
from labtools.sdss.files import check_whole, read_checksums, read_star
from labtools.sdss.http import new_session
from labtools.surveys import open_survey

__all__ = ["Finding", "examine", "main"]

OLDEST = (3, 11)
ROOM = 1e9  # bytes that a session may need
PATIENCE = 8  # seconds for a server to answer


class Finding(NamedTuple):
    """One line of the report: is it well (None: no, but that does not matter now), and what to do."""

    well: bool | None
    what: str
    advice: str = ""

    def __str__(self):
        mark = {True: "ok  ", None: "note", False: "BAD "}[self.well]
        return f"  {mark}  {self.what}" + (f"\n        -> {self.advice}" if self.advice else "")


def examine(network=True):
    """Section of the report -> list of `Finding`."""
    sections = {"Installed": installed()}
    try:
        survey = open_survey()
    except ValueError as fault:
        return sections | {"Survey": [Finding(False, str(fault))]}
    sections["Survey"] = survey_set(survey)
    sections["Caches"] = caches(survey)
    if network:
        sections["Network"] = addresses(survey.name == "dr17")
    return sections


def installed():
    """Python and the packages that the lab asks for, with their versions."""
    version = ".".join(map(str, sys.version_info[:3]))
    advice = "" if sys.version_info >= OLDEST else "the lab needs Python 3.11 or newer"
    findings = [Finding(not advice, f"Python {version}", advice)]
    try:
        wanted = [name for name in metadata.requires("labtools") or [] if "extra ==" not in name]
    except metadata.PackageNotFoundError:
        return [
            *findings,
            Finding(False, "labtools is not installed", "run: make lab (or: pip install -e .)"),
        ]
    for name in [re.match(r"[\w.-]+", one)[0] for one in wanted]:
        try:
            findings.append(Finding(True, f"{name} {metadata.version(name)}"))
        except metadata.PackageNotFoundError:
            findings.append(Finding(False, f"{name} is missing", f"run: make lab (or: pip install {name})"))
    return findings


def survey_set(survey):
    """Which survey the notebooks work on, and whether its folder can be used."""
    place = next(folder for folder in (survey.root, *survey.root.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    writable = os.access(place, os.W_OK)
    return [
        Finding(True, f"{survey.title} (LAB_SURVEY={survey.name})"),
        Finding(
            writable or None,
            f"data folder {survey.root}" + ("" if writable else ", read-only"),
            "" if writable else "set LAB_DATA to a folder of your own, and LAB_DATA_SHARED to this one",
        ),
        Finding(
            free > ROOM or None,
            f"{free / 1e9:.1f} GB free there",
            "" if free > ROOM else "make room, set LAB_DATA to a larger disk, or LAB_KEEP=arrays",
        ),
        *(
            Finding(
                folder.is_dir() or None,
                f"shared folder {folder}",
                "" if folder.is_dir() else "it does not exist",
            )
            for folder in survey.shared
        ),
    ]


def caches(survey):
    """What the caches of both surveys hold, and whether it is whole."""
    findings = []
    for name in ("simulated", "dr17"):
        folder, needed = survey.root / name, name == survey.name
        findings += spectra_in(folder, needed) + catalogs_in(folder, needed)
        left = list(folder.rglob(".*.part"))
        if left:
            advice = "if no download is running, delete them: find . -name '.*.part' -delete"
            findings.append(Finding(None, f"{len(left)} unfinished files in {folder}", advice))
    return (
        findings
        + isochrones_in(survey.root / "cache" / "mist")
        + [course_file(survey, name) for name in archive.COURSE_FILES]
    )


def spectra_in(folder, needed):
    """One finding on all spectra in a cache, and one on each that is damaged."""
    files = sorted(folder.rglob("a[ps]Star-*.fits")) + sorted(folder.rglob("a[ps]Star-*.npz"))
    if not files:
        advice = "nothing yet: the first notebook that needs it fills it" if needed else ""
        return [Finding(True, f"{folder}: no spectra", advice)]
    faults = {}
    sums = {path.parent: sums_in(path) for path in folder.rglob("*.sha1sum")}
    for path in tqdm(files, desc=f"checking {folder.name}", unit="file", leave=False):
        try:
            check(path, sums.get(path.parent, {}).get(path.name))
        except ValueError as fault:
            faults[path] = fault
    size = sum(path.stat().st_size for path in files) / 1e9
    whole = Finding(True, f"{folder}: {len(files) - len(faults)} whole spectra, {size:.2f} GB")
    advice = "delete it; it comes anew" if folder.name == "dr17" else f"delete {folder}; it is written anew"
    return [
        whole,
        *(Finding(False if needed else None, f"{path}: {faults[path]}", advice) for path in faults),
    ]


def sums_in(path):
    try:
        return read_checksums(path)
    except ValueError:
        return {}


def check(path, sha1=None):
    """Raise BadFile if a spectrum in a cache is not whole, or not that of the star in its name."""
    star = re.search(r"Star-\w+?-(.*?)\.fits", path.name)[1]
    if path.suffix == ".npz":
        read_star(path, star)
    else:
        check_whole(path, star)
    if sha1 and sha256_of(path, "sha1") != sha1:
        raise BadFile("its sha1 is not that of the archive's list")


def catalogs_in(folder, needed):
    findings = []
    for path in sorted(folder.glob("catalog-*.csv")):
        try:
            about = load_catalog(path).attrs
            source = f"{about.get('source')} of {about.get('date')}"
            findings.append(Finding(True, f"{path}: {about.get('rows')} rows, {source}"))
        except BadFile as fault:
            findings.append(Finding(False if needed else None, str(fault)))
    return findings


def isochrones_in(folder):
    """One finding on each MIST file in a cache."""
    findings = []
    for path in sorted(folder.glob("*.iso*")):
        try:
            findings.append(Finding(True, f"{path}: {len(read_mist(path))} points"))
        except ValueError as fault:
            findings.append(Finding(None, str(fault), "delete it; it is fetched anew"))
    return findings


def course_file(survey, name):
    """Whether a file of the course is at hand, and is the one that the lab knows."""
    path = archive.SdssSurvey(survey.root, survey.shared).find(name)
    if not path:
        return Finding(True, f"{name}: not here", "with LAB_SURVEY=dr17 it is fetched when it is needed")
    same = sha256_of(path) == archive.COURSE_FILES[name]
    return Finding(same or None, f"{path}", "" if same else "it is not the course's file of fall 2025: is that meant?")


def addresses(needed):
    """Whether the servers answer that real data come from."""
    servers = {
        "SkyServer": conf.skyserver_baseurl,
        "SDSS archive": f"{conf.sas_baseurl.rstrip('/')}/",
        "MIST": MIST,
        "course repository": archive.COURSE + next(iter(archive.COURSE_FILES)),
    }
    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(lambda one: answers(*one, needed), servers.items()))


def answers(name, url, needed):
    """One finding on the server `name`: anything below status 500 is an answer."""
    try:
        with new_session().get(url, stream=True, timeout=PATIENCE) as response:
            status = response.status_code
    except (requests.RequestException, OSError, ValueError) as fault:
        advice = "are you online? behind a proxy set HTTPS_PROXY; "
        advice += "else wait" if needed else "the simulated survey does not need it"
        return Finding(False if needed else None, f"{name} ({url}) does not answer: {type(fault).__name__}", advice)
    if status < 500:
        return Finding(True, f"{name} ({url}) answers")
    return Finding(False if needed else None, f"{name} ({url}) answers {status}", "it has trouble: try again later")


def main(network=True):
    """Print the report; returns 1 if something is wrong that the chosen survey needs, else 0."""
    sections = examine(network)
    for title, findings in sections.items():
        print(title, *findings, sep="\n")
    bad = sum(finding.well is False for findings in sections.values() for finding in findings)
    print(f"\n{bad} thing(s) to see to, marked BAD" if bad else "\nAll is well.")
    return int(bad > 0)
