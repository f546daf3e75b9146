"""APOGEE in SDSS DR17: what the archive gives, downloaded when it is needed and kept."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import partial
from hashlib import sha1, sha256
from pathlib import Path

import pandas as pd
import xarray as xr
from astroquery.sdss import conf

from apogee_archive import catalog as cas, files
from apogee_archive.apstar import mask_pixels, read_apstar
from apogee_archive.cache import atomic_write, cached, hash_key, sha256_of
from apogee_archive.errors import ArchiveError, CacheError, TransferError
from apogee_archive.http import Request, fetch, gather
from apogee_archive.settings import setting
from apogee_archive.survey import Found, Survey

__all__ = ["SdssSurvey"]

COURSE = (
    "https://raw.githubusercontent.com/ucb-datalab/course_materials_fa2025/main/labs/lab2_data/"
)
COURSE_FILES = {
    "mystery_spec_wiped.fits": "ab9278a490042cbfea047447150dc84b8c77a77966fdb8d38778ecb9653a5d2c",
    "cannon_continuum_apogee.npz": "5fe07f06360ec109b58f8d325c23ae8cd0ea68279aa62737cea59ed5f8bdc48f",  # noqa: E501
}
"""The files of the course, and their SHA-256."""

ANNOUNCE = 50  # files to download, from which on space and time are announced
PACKED_BYTES = 45e3  # of one star, with LAB_STORAGE=arrays
ABSENT = "absent.json"
ABSENT_DAYS = 30  # after which the archive is asked again for what it did not have


class SdssSurvey(Survey):
    """APOGEE in SDSS DR17, fetched from the addresses in `astroquery.sdss.conf`.

    Files are kept in `root`/dr17, in the folders of the archive.

    References
    ----------
    Abdurro'uf et al. 2022, ApJS 259, 35.
    """

    name = version = "dr17"
    title = "APOGEE DR17"

    @property
    def home(self) -> Path:
        """The folder that is written."""
        return self.root / self.name

    @property
    def sample(self) -> str:
        """Of other fields than the lab's, a key of them too."""
        fields = _fields()
        return self.name if fields == cas.FIELDS else f"{self.name}-{hash_key(fields)[:8]}"

    def _folders(self) -> list[Path]:
        return [folder / self.name for folder in self.folders]

    def catalog(self, raw: bool = False) -> pd.DataFrame:
        """All stars of the lab's four fields, uncut.

        They come from an allStar file of DR17 if one lies in the data folder (labels of the run
        synspec_rev1), else from SkyServer (run synspec); `attrs` says which, and when. LAB_FIELDS
        names other fields, separated by commas, or "all".

        Parameters
        ----------
        raw : bool
            Whether the fillers of the archive stay; else they are NaN.

        Returns
        -------
        pandas.DataFrame
            See `apogee_archive.catalog.tidy`.

        Raises
        ------
        CorruptFileError, ArchiveError
            If there is no catalog.
        """
        fields = _fields()
        allstar, server = self.find("allStar*-dr17-*.fits"), conf.skyserver_baseurl
        about = {
            "survey": self.title,
            "fields": fields or "all",
            "source": "CAS synspec",
            "query": cas.sql_of("..."),
            "fillers": "kept",
        }
        if allstar:
            size, changed = allstar.stat().st_size, allstar.stat().st_mtime_ns
            query = f"{allstar.name}, {size} bytes, {changed}"
            about |= {"source": "SAS synspec_rev1", "query": query}

        def build() -> pd.DataFrame:
            if allstar:
                catalog = cas.read_allstar(allstar, fields, raw=True)
            else:
                catalog = cas.query_catalog(fields or cas.query_fields(), raw=True)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            catalog.attrs.update(about, date=now, rows=len(catalog), server=server)
            return catalog

        catalog = cached(self._folders(), "catalog", build, json.dumps(about), codec=cas.CODEC)
        if not allstar and catalog.attrs["server"] != server:
            kept = f"this catalog came from {catalog.attrs['server']}, not from {server}"
            warnings.warn(
                f"{kept}: delete catalog-*.csv in {self.home} if that is not meant", stacklevel=2
            )
        return catalog if raw else cas.without_fillers(catalog)

    def find(self, pattern: str) -> Path | None:
        """The first file of that name where it is kept or a user may have put it."""
        folders = [folder for root in self.folders for folder in (root / self.name, root)]
        return next((path for folder in folders for path in sorted(folder.glob(pattern))), None)

    # ------------------------------------------------ spectra

    def _download(self, rows: pd.DataFrame, storage: str) -> Found:
        places, faults = self._places(rows)
        yield from faults.items()
        if not places:
            return
        _announce(rows.nvisits.loc[list(places)], storage, self.home)
        listed, with_list = self._checksum_lists(places.values())
        requests = {
            star: Request(_url(place), partial(self._keep, star, place, listed.get(place), storage))
            for star, place in places.items()
        }
        received: dict[Path, dict[str, str]] = defaultdict(dict)
        absent = []
        try:
            for star, result in gather(requests):
                folder, _, name = places[star].rpartition("/")
                if isinstance(result, TransferError):
                    # Only where the archive's own list does not name the file either: what says
                    # "404" may also be something in the archive's place.
                    unlisted = folder in with_list and places[star] not in listed
                    if not result.retryable and unlisted and _is_absent(result):
                        absent.append(places[star])
                    yield star, result
                    continue
                checksum, spectrum = result
                if places[star] not in listed:
                    received[self.home / "sas" / folder][name] = checksum
                yield star, spectrum
        finally:
            if storage == "files":
                _remember_received(received)
            self._remember_absent(absent)

    def _places(self, rows: pd.DataFrame) -> tuple[dict[str, str], dict[str, Exception]]:
        """Path in the archive of each star to ask for, and why others are not asked for."""
        places, faults, known = {}, dict[str, Exception](), self._known_absent()
        for star, row in zip(rows.index, rows.to_dict("records"), strict=True):
            try:
                place = files.sas_path(row)
            except ValueError as fault:
                faults[star] = fault
                continue
            if day := known.get(_url(place)):
                reason = f"not on the server (404) on {day}; to ask again, delete {ABSENT}"
                faults[star] = TransferError(_url(place), f"{reason} in {self.home}")
            else:
                places[star] = place
        return places, faults

    def _known_absent(self) -> dict[str, str]:
        """Address -> day on which the archive did not have it, of the last `ABSENT_DAYS` days."""
        known: dict[str, str] = {}
        since = (datetime.now(UTC).date() - timedelta(days=ABSENT_DAYS)).isoformat()
        for folder in self._folders():
            with contextlib.suppress(OSError, ValueError, AttributeError):
                for url, day in json.loads((folder / ABSENT).read_bytes()).items():
                    if date.fromisoformat(day).isoformat() >= since:
                        known[url] = day
        return known

    def _remember_absent(self, places: list[str]) -> None:
        if not places:
            return
        today = datetime.now(UTC).date().isoformat()
        known = self._known_absent() | {_url(place): today for place in places}
        with contextlib.suppress(OSError):  # it is only asked again
            _save(self.home / ABSENT, json.dumps(known, indent=1, sort_keys=True).encode())

    def _keep(
        self, star: str, place: str, listed: str | None, storage: str, content: bytes
    ) -> tuple[str, xr.Dataset]:
        """Keep the bytes of a star's file if they are right; their SHA-1, and the spectrum."""
        raw = files.check_star(content, place.rpartition("/")[2], star, listed, bits=0)
        if storage == "arrays":
            files.pack(raw, self.home / "arrays" / f"{place}.npz")
        else:
            _save(self.home / "sas" / place, content)
        return sha1(content).hexdigest(), mask_pixels(raw)

    def _checksum_lists(self, places: Iterable[str]) -> tuple[dict[str, str], set[str]]:
        """Place of a file -> SHA-1 by the archive's lists, and the folders that have a list.

        Lists are fetched and kept; a warning says where there is none.
        """
        folders = dict.fromkeys(place.rpartition("/")[0] for place in places)
        lists = {
            one: f"{one}/dr17_stars_{'_'.join(one.split('/')[-2:])}.sha1sum" for one in folders
        }
        requests = {
            folder: Request(_url(place), partial(_save_list, self.home / "sas" / place), attempts=4)
            for folder, place in lists.items()
            if not _is_list(self.home / "sas" / place)
        }
        without = {
            folder: fault for folder, fault in gather(requests) if isinstance(fault, TransferError)
        }
        if without:
            names = ", ".join(dict.fromkeys(folder.rpartition("/")[2] for folder in without))
            fault = next(iter(without.values())).reason
            warnings.warn(
                f"no list of checksums for field {names} ({fault}): files are whole, not verified",
                stacklevel=4,
            )
        with_list = set(folders) - set(without)
        sums = {folder: files.read_sha1sums(self.home / "sas" / folder) for folder in with_list}
        return {
            f"{folder}/{name}": one for folder, found in sums.items() for name, one in found.items()
        }, with_list

    # ------------------------------------------------ files of the course

    def mystery(self) -> xr.Dataset:
        """Raw spectrum of the star without labels that the course hands out, one star."""
        return read_apstar(self._course_file("mystery_spec_wiped.fits"))

    def continuum_pixels(self) -> xr.DataArray:
        """Which pixels show the continuum by the course's map: boolean over wavelength (7214)."""
        path = self.find("continuum_pixels_apogee.npz")
        return files.read_continuum_pixels(path or self._course_file("cannon_continuum_apogee.npz"))

    def _course_file(self, name: str) -> Path:
        """Path of a file of the course, fetched if it is in none of the data folders."""
        path = self.find(name)
        # What lies in `home` was fetched by us, so it must have our checksum.
        if path and (path.parent != self.home or sha256_of(path) == COURSE_FILES[name]):
            return path

        def keep(content: bytes) -> Path:
            if sha256(content).hexdigest() != COURSE_FILES[name]:
                raise ValueError("it is not the file that this lab knows (its sha256 differs)")
            return _save(self.home / name, content)

        try:
            return fetch(COURSE + name, keep)
        except ArchiveError as fault:
            raise ArchiveError(
                f"{name} could not be fetched ({fault}). Put it into {self.root}."
            ) from fault


def _fields() -> tuple[str, ...] | None:
    """The fields that LAB_FIELDS names, or the lab's own; None stands for all."""
    named = setting("FIELDS")
    if named == "all":
        return None
    return tuple(filter(None, map(str.strip, named.split(",")))) or cas.FIELDS


def _url(place: str) -> str:
    """Address of a file of the archive; `sas_path` has checked that it needs no quoting."""
    return f"{conf.sas_baseurl.rstrip('/')}/{place}"


def _is_absent(fault: TransferError) -> bool:
    return fault.reason.startswith("not on the server")


def _save(path: Path, content: bytes) -> Path:
    with atomic_write(path) as part:
        part.write_bytes(content)
    return path


def _save_list(path: Path, content: bytes) -> Path:
    files.parse_sha1sums(content)
    return _save(path, content)


def _is_list(path: Path) -> bool:
    """Whether a list of checksums is there and whole enough to be read."""
    try:
        return bool(files.parse_sha1sums(path.read_bytes()))
    except (OSError, ValueError):
        return False


def _remember_received(received: dict[Path, dict[str, str]]) -> None:
    """Write what arrived where the archive has no list, beside what arrived before."""
    for folder, sums in received.items():
        lines = [
            f"{checksum}  {name}\n"
            for name, checksum in sorted((files.read_sha1sums(folder) | sums).items())
        ]
        _save(folder / files.RECEIVED, "".join(lines).encode())


def _announce(nvisits: pd.Series, storage: str, folder: Path) -> None:
    """Say what a large download takes; raise CacheError if the disk has no room for it."""
    number, size = len(nvisits), files.expected_bytes(nvisits)
    kept = size if storage == "files" else PACKED_BYTES * number
    free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free
    if kept > free:
        raise CacheError(
            f"{number} spectra take {kept / 1e9:.1f} GB, but {free / 1e9:.1f} GB are left in "
            f"{folder}: make room, set LAB_DATA to a folder on a larger disk, or set "
            "LAB_STORAGE=arrays"
        )
    if number >= ANNOUNCE:
        smaller = "; LAB_STORAGE=arrays would keep some 30 times less" if storage == "files" else ""
        print(
            f"{number} spectra are to be downloaded, {size / 1e9:.1f} GB: "
            f"{size / 1.2e8:.0f} min at 2 MB/s. They take {kept / 1e9:.1f} GB in {folder} "
            f"({free / 1e9:.0f} GB free){smaller}. "
            "You may interrupt this: the next call goes on where it was.",
            file=sys.stderr,
        )
