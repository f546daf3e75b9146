"""APOGEE in SDSS DR17: what the archive gives, downloaded when it is needed and kept."""

import json
import shutil
import sys
import tempfile
import warnings
from functools import partial
from hashlib import sha256
from pathlib import Path

from astroquery.sdss import conf

from labtools.apstar import read_apstar
from labtools.cache import sha256_of
from labtools.errors import ArchiveError, BadFile, CacheError, TransferError
from labtools.sdss.catalog import (
    FIELDS,
    load_catalog,
    query_catalog,
    query_fields,
    read_allstar,
    save_catalog,
    sql_of,
)
from labtools.sdss.files import (
    check_whole,
    copies_of,
    expected_bytes,
    pack,
    place_of,
    read_checksums,
    read_continuum_pixels,
    read_star,
)
from labtools.sdss.http import NotOnServer, fetch, may_pass, new_session
from labtools.sdss.survey import Survey, from_disk
from labtools.settings import setting

__all__ = ["SdssSurvey"]

COURSE = "https://raw.githubusercontent.com/ucb-datalab/course_materials_fa2025/main/labs/lab2_data/"
COURSE_FILES = {
    "mystery_spec_wiped.fits": "ab9278a490042cbfea047447150dc84b8c77a77966fdb8d38778ecb9653a5d2c",
    "cannon_continuum_apogee.npz": "5fe07f06360ec109b58f8d325c23ae8cd0ea68279aa62737cea59ed5f8bdc48f",
}
ANNOUNCE = 50  # files to download, from which on space and time are announced


class SdssSurvey(Survey):
    """APOGEE in SDSS DR17, fetched from the addresses in `astroquery.sdss.conf` and kept in `root`/dr17."""

    name = version = "dr17"
    title = "APOGEE DR17"

    def _folders(self):
        return [folder / self.name for folder in (self.root, *self.shared)]

    def catalog(self, raw=False):
        """All stars of the lab's four fields, uncut, and `raw` with the archive's fillers: see `sdss.catalog.tidy`.

        They come from an allStar file of DR17 if one lies in the data folder (labels of the run
        synspec_rev1), else from SkyServer (run synspec); `attrs` says which, and when. LAB_FIELDS names other
        fields, separated by commas, or "all". Raises BadFile if neither gives a catalogue, CacheError if
        it cannot be kept.
        """
        named = setting("FIELDS")
        fields = None if named == "all" else tuple(filter(None, map(str.strip, named.split(",")))) or FIELDS
        allstar = self.find("allStar*-dr17-*.fits")
        about = {"survey": self.title, "fields": fields or "all", "fillers": "kept"}
        if allstar:
            size = allstar.stat().st_size
            about |= {"source": "SAS synspec_rev1", "query": f"{allstar.name}, {size} bytes"}
        else:
            about |= {"source": "CAS synspec", "query": sql_of("...")}
        name = f"catalog-{sha256(json.dumps(about).encode()).hexdigest()[:10]}.csv"
        server = "" if allstar else conf.skyserver_baseurl
        kept = self._kept(name, server, raw)
        if kept is not None:
            return kept
        catalog = read_allstar(allstar, fields, True) if allstar else query_catalog(fields or query_fields(), True)
        save_catalog(catalog, self.root / self.name / name, **about, server=server)
        return load_catalog(self.root / self.name / name, raw)

    def _kept(self, name, server, raw):
        """The catalogue in the cache, or None if there is none or it is damaged."""
        path = self.find(name)
        if not path:
            return None
        try:
            catalog = load_catalog(path, raw)
        except BadFile as fault:
            warnings.warn(f"{fault}; it is made again", stacklevel=3)
            return None
        if catalog.attrs["server"] != server:
            kept = f"this catalogue came from {catalog.attrs['server']}, not from {server}"
            warnings.warn(f"{kept}: delete {path} if that is not meant", stacklevel=3)
        return catalog

    def find(self, pattern, *more):
        """The first file of that name where it is kept or a user may have put it, also below `more`."""
        folders = [folder for root in (self.root, *self.shared, *more) for folder in (root / self.name, root)]
        return next((path for folder in folders for path in sorted(folder.glob(pattern))), None)

    def _tasks(self, rows, keep):
        absent = rows[[not self._is_here(row) for row in rows.to_dict("records")]]
        _announce(absent, keep, self.root / self.name)
        obtain = partial(self._obtain, keep, self._checksums(absent), new_session())
        rows = zip(rows.index, rows.to_dict("records"), strict=True)
        return {number: partial(obtain, star, row) for number, (star, row) in enumerate(rows)}

    def _is_here(self, row):
        try:
            return any(copies_of(place_of(row), self._folders()))
        except ValueError:
            return True

    def _checksums(self, rows):
        """Place of a file -> sha1, by the archive's lists for the fields of `rows` as far as it has them."""
        sums = {}
        for row in rows.drop_duplicates(["telescope", "field"]).to_dict("records"):
            name = f"dr17_stars_{row['telescope']}_{row['field']}.sha1sum"
            folder = place_of(row).rpartition("/")[0]
            place = f"{folder}/{name}"
            path = self.root / self.name / "sas" / place
            try:
                if not path.is_file():
                    fetch(_address(place), path, read_checksums, attempts=3)
                sums |= {f"{folder}/{file}": sha1 for file, sha1 in read_checksums(path).items()}
            except TransferError as fault:
                if may_pass(fault):
                    break
            except ValueError:
                path.unlink()
        return sums

    def _obtain(self, keep, sums, session, star, row, stop):
        """A star's spectrum from the disk, or else from the server."""
        try:
            return from_disk(self._folders(), star, row)
        except (NotOnServer, BadFile):
            place, folder = place_of(row), self.root / self.name

        def check(part):
            check_whole(part, star)
            if sums.get(place) not in (None, sha256_of(part, "sha1")):
                raise BadFile("its sha1 is not that of the archive's list")

        if keep == "files":
            path = fetch(_address(place), folder / "sas" / place, check, session, stop=stop)
        else:
            with tempfile.TemporaryDirectory() as own:
                file = fetch(_address(place), Path(own) / "star.fits", check, session, stop=stop)
                path = pack(file, folder / "arrays" / f"{place}.npz")
        return read_star(path, star)

    def mystery(self):
        """Raw spectrum of the star without labels that the course hands out: Dataset with one star."""
        return read_apstar(self._course_file("mystery_spec_wiped.fits"))

    def continuum_pixels(self):
        """Which pixels show the continuum by the map of the course: boolean DataArray over wavelength (7214)."""
        path = self.find("continuum_pixels_apogee.npz")
        return read_continuum_pixels(path or self._course_file("cannon_continuum_apogee.npz"))

    def _course_file(self, name):
        """Path of a file of the course, fetched if it is in none of the data folders."""
        here = self.find(name)
        if here:
            return here

        def check(part):
            if sha256_of(part) != COURSE_FILES[name]:
                raise ValueError("it is not the file that this lab knows (its sha256 differs)")

        try:
            return fetch(COURSE + name, self.root / self.name / name, check, attempts=3)
        except TransferError as fault:
            raise ArchiveError(f"{name} could not be fetched ({fault}). Put it into {self.root}.") from fault


def _address(place):
    """Where a file of the archive lies; `place_of` has checked that the names in it need no quoting."""
    return f"{conf.sas_baseurl.rstrip('/')}/{place}"


def _announce(rows, keep, folder):
    """Say what a large download takes; raise CacheError if the disk has no room for it."""
    number, size = len(rows), expected_bytes(rows.nvisits)
    kept = size if keep == "files" else 45e3 * number
    free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.exists())).free
    if number and kept > free:
        raise CacheError(
            f"{number} spectra take {kept / 1e9:.1f} GB, but {free / 1e9:.1f} GB are left in {folder}: "
            "make room, set LAB_DATA to a folder on a larger disk, or set LAB_KEEP=arrays"
        )
    if number >= ANNOUNCE:
        smaller = "; LAB_KEEP=arrays would keep some 30 times less" if keep == "files" else ""
        print(
            f"{number} spectra are to be downloaded, {size / 1e9:.1f} GB: {size / 1.2e8:.0f} min at 2 MB/s. "
            f"They take {kept / 1e9:.1f} GB in {folder} ({free / 1e9:.0f} GB free){smaller}. "
            "You may interrupt this: the next call goes on where it was.",
            file=sys.stderr,
        )
