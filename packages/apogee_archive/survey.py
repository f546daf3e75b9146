"""What every survey does alike: turn the identifiers of stars into one Dataset of raw spectra."""

import contextlib
import json
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from apogee_archive.cache import hash_key
from apogee_archive.errors import ArchiveError, CorruptFileError
from apogee_archive.files import place_of, read_star, sums_in
from apogee_archive.grid import WAVELENGTH
from apogee_archive.settings import setting

__all__ = ["Survey", "left_out"]

SHARE = 0.5  # of the spectra asked for; with fewer the lab stops
LATER, FEW = (
    0.1,
    8,
)  # share, and number, of spectra that the network kept back; with more the lab stops
LISTED = 40  # lines of the table of what is left out
NAMES = ["telescope", "field", "file", "nvisits"]


@dataclass(frozen=True, repr=False)
class Survey:
    """A catalog and its spectra below the folder `root`, and below `shared` ones that are only read."""

    root: Path
    shared: tuple = ()

    def __repr__(self):
        return f"<{self.title} in {self.root}>"

    @property
    def folders(self):
        """Where data may be: `root`, and the shared folders."""
        return [self.root, *self.shared]

    def spectra(self, ids, keep=None, share=SHARE):
        """Raw combined spectra of the stars `ids`, in this order, with a progress bar.

        Parameters
        ----------
        ids : apogee_ids, or rows of the catalog. A star named twice comes once. Of several entries of a star in the
            catalog the one with the highest SNR is taken, among those not flagged as duplicates (bit 4 of EXTRATARG).
        keep : "files" keeps downloaded FITS files, "arrays" only what is extracted from them, some 30 times smaller;
            None takes LAB_STORAGE from the environment, or "files".
        share : of the spectra asked for; with fewer this raises.

        Returns Dataset over star and wavelength (8575 pixels, Angstrom, vacuum, rest frame): flux and error (float32,
        1e-17 erg/s/cm2/Angstrom), mask (int32). Stars whose file is missing or damaged are left out, listed in a
        warning, and by `left_out`. Raises ValueError without ids, KeyError for an id that is not in the catalog,
        ArchiveError if too few are to be had or the network fails, CacheError if the cache cannot be written.
        """
        rows = self._rows(ids)
        keep = keep or setting("STORAGE", "files")
        if keep not in ("files", "arrays"):
            raise ValueError(f"keep (or LAB_STORAGE) is 'files' or 'arrays', not {keep!r}")
        made, missing = self._empty(rows.index), {}
        with (
            tqdm(total=len(rows), desc=f"{self.title}: spectra", unit="star") as bar,
            contextlib.closing(self._stars(rows, keep)) as stars,
        ):
            for number, found in stars:
                if isinstance(found, Exception):
                    missing[rows.index[number]] = found
                    continue
                for name, array in made.items():
                    array.values[number] = found[name].values[0]
                missing.pop(rows.index[number], None)
                bar.update()
        _report(missing, len(rows), share)
        reasons = {star: getattr(fault, "reason", str(fault)) for star, fault in missing.items()}
        made = made.isel(star=~rows.index.isin(missing)) if missing else made
        return made.assign_attrs(missing=json.dumps(reasons))

    def _empty(self, stars):
        """A Dataset for the spectra of `stars`."""
        shape, axes = (len(stars), WAVELENGTH.size), ("star", "wavelength")
        wavelength = ("wavelength", WAVELENGTH, {"units": "Angstrom, vacuum"})
        return xr.Dataset(
            {
                name: (axes, np.zeros(shape, kind))
                for name, kind in (("flux", "f4"), ("error", "f4"), ("mask", "i4"))
            },
            coords={"star": stars.to_numpy(str), "wavelength": wavelength},
            attrs={"units": "1e-17 erg/s/cm2/Angstrom", "source": self.title},
        )

    def path(self, star):
        """Path of the apStar file of one star on this machine, fetched if it is not there.

        Raises FileNotFoundError if only its arrays are kept here (LAB_STORAGE=arrays), and as `spectra`.
        """
        self.spectra([star], keep="files")
        copies = self._copies(self._rows([star]).iloc[0])
        files = [path for path in copies if path.suffix == ".fits"]
        if not files:
            raise FileNotFoundError(
                f"of {star} only arrays are kept here (LAB_STORAGE=arrays), not its FITS file"
            )
        return files[0]

    def fingerprint(self, ids):
        """What the spectra of `ids` are made of: a digest that changes with the bytes of any file.

        Each file counts by its checksum in a list where there is one (`spectra` verifies it), else by size and date.
        What the archive has to give is fetched first.
        """
        rows, sums, stamps = self._rows(ids), lru_cache(sums_in), []
        absent = [not self._copies(row) for row in rows.to_dict("records")]
        list(self._obtain(rows[absent], setting("STORAGE", "files")))
        for path in [path for row in rows.to_dict("records") for path in self._copies(row)[:1]]:
            about = path.stat()
            stamps.append(
                (path.name, sums(path.parent).get(path.name) or (about.st_size, about.st_mtime_ns))
            )
        return hash_key(stamps)

    def _rows(self, ids):
        """Telescope, field, file and visits of each star, index unique and in the order of `ids`."""
        ids, table = (ids.index, ids) if isinstance(ids, pd.DataFrame) else (ids, None)
        if table is None or not {*NAMES, "extratarg", "snr"} <= set(table.columns):
            table = self.catalog()
        wanted = list(
            dict.fromkeys([ids] if isinstance(ids, str) else map(str, np.asarray(ids).ravel()))
        )
        if not wanted:
            raise ValueError(
                "no star is asked for: ids is empty. Did the selection remove every star?"
            )
        unknown = [star for star in wanted if star not in table.index]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise KeyError(
                f"not in the catalog of the {self.title}: {', '.join(unknown[:5])}{more}"
            )
        if not table.index.is_unique:
            best = table.assign(duplicate=table.extratarg.fillna(0).to_numpy(np.int64) >> 4 & 1)
            best = best.sort_values(["duplicate", "snr"], ascending=[True, False], kind="stable")
            table = best[~best.index.duplicated()]
        return table.loc[wanted, NAMES]

    def _stars(self, rows, keep):
        """Number and spectrum, or error, of every star; what was absent or damaged comes again once it is fetched."""
        sums, absent = lru_cache(sums_in), []
        for number, star in enumerate(rows.index):
            found = self._read(star, rows.iloc[number], sums)
            if isinstance(found, ValueError):
                absent.append(star)
            yield number, found
        sums = lru_cache(sums_in)
        with contextlib.closing(self._obtain(rows.loc[absent], keep)) as arriving:
            for star, fault in arriving:
                yield rows.index.get_loc(star), fault or self._read(star, rows.loc[star], sums)

    def _copies(self, row):
        """Files that hold the star of a row of the catalog, as a whole or packed."""
        with contextlib.suppress(ValueError):
            place = place_of(row)
            places = [f"sas/{place}", f"arrays/{place}.npz"]
            return [
                path
                for folder in self._folders()
                for path in map(folder.joinpath, places)
                if path.is_file()
            ]
        return []

    def _read(self, star, row, sums):
        """A star's spectrum from the first right copy of its file, or the ValueError that says why there is none."""
        fault = ValueError("no such file")
        for path in self._copies(row):
            try:
                return read_star(path, star, sums(path.parent).get(path.name))
            except CorruptFileError as damage:
                fault = damage
        return fault

    def _obtain(self, rows, keep):
        """Bring the files of stars that are absent or damaged; yields each star, and an error or None."""
        yield from ()


def left_out(spectra):
    """Table of the stars that `spectra` lacks because their file is missing or damaged: star, reason."""
    missing = json.loads(spectra.attrs.get("missing", "{}"))
    return pd.DataFrame({"star": list(missing), "reason": list(missing.values())})


def _report(missing, asked, share):
    """Warn of what is left out, in one table; raise ArchiveError if it is too much."""
    if not missing:
        return
    lines = [
        f"  {star}  {getattr(fault, 'reason', fault)}"
        for star, fault in list(missing.items())[:LISTED]
    ]
    if len(missing) > LISTED:
        lines.append(f"  ... and {len(missing) - LISTED} more: labtools.left_out(spectra)")
    table, found = "\n".join(lines), asked - len(missing)
    later = sum(getattr(fault, "retryable", False) for fault in missing.values())
    if later >= FEW and later > LATER * asked:
        raise ArchiveError(
            f"{later} of {asked} spectra could not be fetched now. What has arrived is kept: see to the "
            f"network (python -m labtools doctor), then run this again.\n{table}"
        )
    if found < share * asked:
        raise ArchiveError(
            f"only {found} of {asked} spectra are there, fewer than {share:.0%}: too few to go on with. "
            f"Is the archive complete, and the catalog of the same release?\n{table}"
        )
    warnings.warn(f"{len(missing)} of {asked} spectra are left out:\n{table}", stacklevel=3)
