"""APOGEE in SDSS DR17: what the archive gives, downloaded when it is needed and kept."""

import json
import shutil
import sys
import warnings
from collections import defaultdict
from datetime import UTC, datetime
from functools import partial
from hashlib import sha1, sha256

from astroquery.sdss import conf

from apogee_archive import catalog as cas
from apogee_archive import files
from apogee_archive.apstar import read_apstar
from apogee_archive.cache import atomic_write, cached, sha256_of
from apogee_archive.errors import ArchiveError, CacheError, TransferError
from apogee_archive.http import Request, fetch, gather
from apogee_archive.settings import setting
from apogee_archive.survey import Survey

__all__ = ["SdssSurvey"]

COURSE = (
    "https://raw.githubusercontent.com/ucb-datalab/course_materials_fa2025/main/labs/lab2_data/"
)
COURSE_FILES = {
    "mystery_spec_wiped.fits": "ab9278a490042cbfea047447150dc84b8c77a77966fdb8d38778ecb9653a5d2c",
    "cannon_continuum_apogee.npz": "5fe07f06360ec109b58f8d325c23ae8cd0ea68279aa62737cea59ed5f8bdc48f",
}
ANNOUNCE = 50  # files to download, from which on space and time are announced


class SdssSurvey(Survey):
    """APOGEE in SDSS DR17, fetched from the addresses in `astroquery.sdss.conf` and kept in `root`/dr17."""

    name = version = "dr17"
    title = "APOGEE DR17"

    @property
    def home(self):
        """The folder that is written."""
        return self.root / self.name

    def _folders(self):
        return [folder / self.name for folder in self.folders]

    def catalog(self, raw=False):
        """All stars of the lab's four fields, uncut, and `raw` with the archive's fillers: see `sdss.catalog.tidy`.

        They come from an allStar file of DR17 if one lies in the data folder (labels of the run synspec_rev1), else
        from SkyServer (run synspec); `attrs` says which, and when. LAB_FIELDS names other fields, separated by commas,
        or "all". Raises CorruptFileError or ArchiveError if there is no catalog.
        """
        named = setting("FIELDS")
        fields = (
            None
            if named == "all"
            else tuple(filter(None, map(str.strip, named.split(",")))) or cas.FIELDS
        )
        allstar, server = self.find("allStar*-dr17-*.fits"), conf.skyserver_baseurl
        about = {
            "survey": self.title,
            "fields": fields or "all",
            "source": "CAS synspec",
            "query": cas.sql_of("..."),
        }
        about["fillers"] = "kept"
        if allstar:
            query = f"{allstar.name}, {allstar.stat().st_size} bytes, {allstar.stat().st_mtime_ns}"
            about |= {"source": "SAS synspec_rev1", "query": query}

        def build():
            if allstar:
                catalog = cas.read_allstar(allstar, fields, raw=True)
            else:
                catalog = cas.query_catalog(fields or cas.query_fields(), raw=True)
            date = datetime.now(UTC).isoformat(timespec="seconds")
            catalog.attrs.update(about, date=date, rows=len(catalog), server=server)
            return catalog

        catalog = cached(self._folders(), "catalog", build, json.dumps(about), codec=cas.CODEC)
        if not allstar and catalog.attrs["server"] != server:
            kept = f"this catalog came from {catalog.attrs['server']}, not from {server}"
            warnings.warn(
                f"{kept}: delete catalog-*.csv in {self.home} if that is not meant", stacklevel=2
            )
        return catalog if raw else cas.without_fillers(catalog)

    def find(self, pattern):
        """The first file of that name where it is kept or a user may have put it."""
        folders = [folder for root in self.folders for folder in (root / self.name, root)]
        return next((path for folder in folders for path in sorted(folder.glob(pattern))), None)

    def _obtain(self, rows, keep):
        places = {}
        for star, row in zip(rows.index, rows.to_dict("records"), strict=True):
            try:
                places[star] = files.place_of(row)
            except ValueError as fault:
                yield star, fault
        _announce(rows.nvisits, keep, self.home)
        listed, received = self._lists(places.values()), defaultdict(dict)
        jobs = {
            star: Request(
                f"{_sas()}/{place}", partial(self._keep, star, place, listed.get(place), keep)
            )
            for star, place in places.items()
        }
        try:
            for star, result in gather(jobs):
                fault = result if isinstance(result, TransferError) else None
                if not fault and places[star] not in listed:
                    folder, _, name = places[star].rpartition("/")
                    received[self.home / "sas" / folder][name] = result
                yield star, fault
        finally:
            for folder, sums in received.items() if keep == "files" else ():
                lines = [
                    f"{one}  {name}\n"
                    for name, one in sorted((files.sums_in(folder) | sums).items())
                ]
                _save(folder / files.OWN, "".join(lines).encode())

    def _keep(self, star, place, listed, keep, content):
        """Keep the bytes of a star's file if they are right; returns their sha1."""
        files.check_star(content, place.rpartition("/")[2], star, listed)
        if keep == "arrays":
            files.pack(content, self.home / "arrays" / f"{place}.npz")
        else:
            _save(self.home / "sas" / place, content)
        return sha1(content).hexdigest()

    def _lists(self, places):
        """Place of a file -> sha1 by the archive's lists, which are fetched and kept; says where there is none."""
        folders = dict.fromkeys(place.rpartition("/")[0] for place in places)
        lists = {
            one: f"{one}/dr17_stars_{'_'.join(one.split('/')[-2:])}.sha1sum" for one in folders
        }
        jobs = {
            folder: Request(
                f"{_sas()}/{place}", partial(_save_list, self.home / "sas" / place), attempts=4
            )
            for folder, place in lists.items()
            if not (self.home / "sas" / place).is_file()
        }
        without = {
            folder: fault for folder, fault in gather(jobs) if isinstance(fault, TransferError)
        }
        if without:
            names = ", ".join(dict.fromkeys(folder.rpartition("/")[2] for folder in without))
            fault = next(iter(without.values())).reason
            warnings.warn(
                f"no list of checksums for field {names} ({fault}): files are whole, not verified",
                stacklevel=4,
            )
        sums = {
            folder: files.sums_in(self.home / "sas" / folder)
            for folder in lists
            if folder not in without
        }
        return {
            f"{folder}/{name}": one for folder, found in sums.items() for name, one in found.items()
        }

    def mystery(self):
        """Raw spectrum of the star without labels that the course hands out: Dataset with one star."""
        return read_apstar(self._course_file("mystery_spec_wiped.fits"))

    def continuum_pixels(self):
        """Which pixels show the continuum by the map of the course: boolean DataArray over wavelength (7214)."""
        path = self.find("continuum_pixels_apogee.npz")
        return files.read_continuum_pixels(path or self._course_file("cannon_continuum_apogee.npz"))

    def _course_file(self, name):
        """Path of a file of the course, fetched if it is in none of the data folders."""
        path = self.find(name)
        if path and (path.parent != self.home or sha256_of(path) == COURSE_FILES[name]):
            return path

        def keep(content):
            if sha256(content).hexdigest() != COURSE_FILES[name]:
                raise ValueError("it is not the file that this lab knows (its sha256 differs)")
            return _save(self.home / name, content)

        try:
            return fetch(COURSE + name, keep)
        except ArchiveError as fault:
            raise ArchiveError(
                f"{name} could not be fetched ({fault}). Put it into {self.root}."
            ) from fault


def _sas():
    """Where the archive lies; `place_of` has checked that names below it need no quoting."""
    return conf.sas_baseurl.rstrip("/")


def _save(path, content):
    with atomic_write(path) as part:
        part.write_bytes(content)
    return path


def _save_list(path, content):
    files.read_checksums(content)
    return _save(path, content)


def _announce(nvisits, keep, folder):
    """Say what a large download takes; raise CacheError if the disk has no room for it."""
    number, size = len(nvisits), files.expected_bytes(nvisits)
    kept = size if keep == "files" else 45e3 * number
    free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free
    if number and kept > free:
        raise CacheError(
            f"{number} spectra take {kept / 1e9:.1f} GB, but {free / 1e9:.1f} GB are left in {folder}: "
            "make room, set LAB_DATA to a folder on a larger disk, or set LAB_STORAGE=arrays"
        )
    if number >= ANNOUNCE:
        smaller = "; LAB_STORAGE=arrays would keep some 30 times less" if keep == "files" else ""
        print(
            f"{number} spectra are to be downloaded, {size / 1e9:.1f} GB: {size / 1.2e8:.0f} min at 2 MB/s. "
            f"They take {kept / 1e9:.1f} GB in {folder} ({free / 1e9:.0f} GB free){smaller}. "
            "You may interrupt this: the next call goes on where it was.",
            file=sys.stderr,
        )
