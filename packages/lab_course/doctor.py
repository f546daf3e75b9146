"""The doctor: what is installed, set, cached and reachable, and what to do about what is wrong."""

import re
import shutil
import sys
from importlib import metadata

from astroquery.sdss import conf

from apogee_archive import dr17, settings
from apogee_archive.cache import sha256_of
from apogee_archive.errors import ArchiveError, CorruptFileError
from apogee_archive.files import read_sha1sums, read_star
from apogee_archive.http import Request, gather
from labtools.isochrones import read_mist
from labtools.surveys import open_survey

__all__ = ["examine", "main"]

OK, NOTE, BAD = "ok  ", "note", "BAD "
ROOM = 1e9  # bytes that a session may need


def examine(network=True, verify=False):
    """Yield what the doctor finds: OK, NOTE or BAD, what it is, and what to do.

    Parameters
    ----------
    network : bool
        Whether servers are asked.
    verify : bool
        Whether all checksums are compared.
    """
    yield from _installed()
    try:
        survey = open_survey()
    except ValueError as fault:
        yield BAD, str(fault), "set LAB_SURVEY"
        return
    yield OK, f"{survey.title} (LAB_SURVEY={survey.name}) in {survey.root}", ""
    free = shutil.disk_usage(
        next(one for one in (survey.root, *survey.root.parents) if one.exists())
    ).free
    mark, advice = (OK, "") if free > ROOM else (NOTE, "make room, or set LAB_DATA")
    yield mark, f"{free / 1e9:.1f} GB free there", advice
    if not settings.writable(survey.root):
        yield (
            NOTE,
            f"{survey.root} is read-only",
            "set LAB_DATA to a folder of your own, LAB_DATA_SHARED to this one",
        )
    for folder in survey.folders:
        yield from _caches(folder, survey.name, verify)
    if network:
        yield from _network(BAD if survey.name == "dr17" else NOTE)


def _installed():
    yield (
        OK if sys.version_info >= (3, 11) else BAD,
        f"Python {sys.version.split()[0]} (3.11 or newer is needed)",
        "",
    )
    for name in [
        re.match(r"[\w.-]+", one)[0]
        for one in metadata.requires("labtools") or []
        if "extra ==" not in one
    ]:
        try:
            yield OK, f"{name} {metadata.version(name)}", ""
        except metadata.PackageNotFoundError:
            yield BAD, f"{name} is missing", f"run: make lab (or: pip install {name})"


def _caches(root, chosen, verify):
    """How many files of each folder are whole, and each that is not."""
    whole = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        place = path.relative_to(root).parts
        check = next(
            (check for pattern, check in _CHECKS.items() if re.search(pattern, path.name)), None
        )
        if any(part.startswith("unfinished-") for part in place) or path.suffix == ".part":
            yield (
                NOTE,
                f"{path} is left over from a run that was killed",
                "make clean-old lists it after a day, and removes it",
            )
        elif check:
            try:
                found = check(path, verify), path.stat().st_size
                whole.setdefault("/".join(place[:-1][:2]), []).append(found)
            except ValueError as fault:
                yield (
                    BAD if place[0] == chosen else NOTE,
                    f"{path}: {fault}",
                    "delete it: it is made or fetched anew",
                )
    for folder, files in whole.items():
        sure, sizes = map(sum, zip(*files, strict=True))
        yield (
            OK,
            f"{root / folder}: {len(files)} whole, {sizes / 1e9:.2f} GB, "
            f"{sure} verified by a checksum",
            "",
        )


def _spectrum(path, verify):
    sha1 = read_sha1sums(path.parent).get(path.name) if verify else None
    read_star(path, re.search(r"Star-\w+?-(.*?)\.fits", path.name)[1], sha1)
    return bool(sha1) or path.suffix == ".npz"


# Each check of a file says whether a checksum has verified it; ValueError if it is damaged


def _named(path, verify):
    if verify and not sha256_of(path).startswith(path.name.split(".")[-2]):
        raise CorruptFileError("its checksum is not the one in its name")
    return verify


def _isochrones(path, verify):
    return read_mist(path).empty


_CHECKS = {
    r"a[ps]Star-.*\.fits(\.npz)?$": _spectrum,
    r"\.[0-9a-f]{16}\.\w+$": _named,
    r"\.iso(\.\w+)?$": _isochrones,
}


def _network(wrong):
    """Whether the servers answer that real data come from."""
    urls = [conf.skyserver_baseurl, conf.sas_baseurl, dr17.COURSE + next(iter(dr17.COURSE_FILES))]
    try:
        for url, result in gather({url: Request(url, attempts=1, deadline=8.0) for url in urls}):
            silent = getattr(result, "retryable", False)
            what = f"{url} does not answer ({result.reason})" if silent else f"{url} answers"
            yield (
                wrong if silent else OK,
                what,
                "are you online? behind a proxy set HTTPS_PROXY" if silent else "",
            )
    except ArchiveError as fault:
        yield wrong, str(fault), "" if "of this machine" in str(fault) else "are you online?"


def main(network=True, verify=False):
    """Print the report; returns 1 if something is wrong that the chosen survey needs, else 0."""
    bad = 0
    for mark, what, advice in examine(network, verify):
        print(f"{mark}  {what}" + (f"\n      -> {advice}" if advice else ""))
        bad += mark == BAD
    print(f"\n{bad} thing(s) to see to, marked BAD" if bad else "\nAll is well.")
    return int(bad > 0)
