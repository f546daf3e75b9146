"""What every survey does alike: turn the identifiers of stars into one Dataset of raw spectra."""

import contextlib
import json
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from tqdm import tqdm

from labtools.errors import ArchiveError, BadFile
from labtools.sdss.files import copies_of, place_of, read_star
from labtools.sdss.http import NotOnServer, Stopped, WrongFile, gather, may_pass
from labtools.settings import setting
from labtools.spectra import WAVELENGTH

__all__ = ["Survey", "from_disk", "left_out"]

SHARE = 0.5  # of the spectra asked for; with fewer the lab stops
LATER = 0.1  # of them; with more that the network kept back the lab stops
PASSES = 3  # rounds over what a passing fault kept back
GIVE_UP = 8  # transfers in a row that the network failed, after which no more are tried
LISTED = 40  # lines of the table of what is left out


@dataclass(frozen=True, repr=False)
class Survey:
    """A catalogue and its spectra below the folder `root`, and below `shared` ones that are only read."""

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
        ids : apogee_ids, or rows of the catalogue. A star named twice comes once; of several entries of a
            star in the catalogue that counts which is no duplicate (bit 4 of EXTRATARG) and has the highest
            SNR.
        keep : "files" keeps downloaded FITS files, "arrays" only what is extracted from them, some 30 times
            smaller; None takes LAB_KEEP from the environment, or "files".
        share : of the spectra asked for; with fewer this raises.

        Returns
        -------
        Dataset over star and wavelength (8575 pixels, Angstrom, vacuum, rest frame): flux and error (float32,
        1e-17 erg/s/cm2/Angstrom), mask (int32). Stars whose file is missing or damaged are left out, listed
        in a warning, and by `left_out(spectra)`.

        Raises
        ------
        ValueError without ids, KeyError for an id that is not in the catalogue, ArchiveError if fewer than
        `share` of the spectra are to be had or the network fails, CacheError if the cache cannot be written.
        """
        rows = self._rows(ids)
        keep = keep or setting("KEEP", "files")
        if keep not in ("files", "arrays"):
            raise ValueError(f"keep (or LAB_KEEP) is 'files' or 'arrays', not {keep!r}")
        arrays, missing, later = self._collect(rows, keep)
        _report(missing, later, len(rows), share)
        dims, found = ("star", "wavelength"), ~rows.index.isin(missing)
        return xr.Dataset(
            {name: (dims, array[found] if missing else array) for name, array in arrays.items()},
            coords={
                "star": rows.index[found].to_numpy(str),
                "wavelength": ("wavelength", WAVELENGTH, {"units": "Angstrom, vacuum"}),
            },
            attrs={"units": "1e-17 erg/s/cm2/Angstrom", "source": self.title, "missing": json.dumps(missing)},
        )

    def _rows(self, ids):
        """Telescope, field, file and visits of each star, index unique and in the order of `ids`."""
        columns = ["telescope", "field", "file", "nvisits"]
        ids, table = (ids.index, ids) if isinstance(ids, pd.DataFrame) else (ids, None)
        if table is None or not {*columns, "extratarg", "snr"} <= set(table.columns):
            table = self.catalog()
        wanted = list(dict.fromkeys([ids] if isinstance(ids, str) else map(str, np.asarray(ids).ravel())))
        if not wanted:
            raise ValueError("no star is asked for: ids is empty. Did the selection remove every star?")
        unknown = [star for star in wanted if star not in table.index]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise KeyError(f"not in the catalogue of the {self.title}: {', '.join(unknown[:5])}{more}")
        if not table.index.is_unique:
            best = table.assign(duplicate=table.extratarg.to_numpy() >> 4 & 1)
            best = best.sort_values(["duplicate", "snr"], ascending=[True, False], kind="stable")
            table = best[~best.index.duplicated()]
        return table.loc[wanted, columns]

    def _collect(self, rows, keep):
        """Arrays (star, pixel) of all rows; why stars are missing; how many of them the network kept back."""
        shape = (len(rows), WAVELENGTH.size)
        arrays = {
            "flux": np.zeros(shape, "f4"),
            "error": np.zeros(shape, "f4"),
            "mask": np.zeros(shape, "i4"),
        }
        missing, todo = {}, self._tasks(rows, keep)
        with tqdm(total=len(rows), desc=f"{self.title}: spectra", unit="star") as bar:
            for _ in range(PASSES):
                again, later, stopped = {}, 0, False
                with contextlib.closing(gather(todo, GIVE_UP)) as results:
                    for number, result in results:
                        star = rows.index[number]
                        bar.update(star not in missing)
                        if isinstance(result, Exception):
                            missing.setdefault(star, getattr(result, "reason", str(result)))
                            if may_pass(result) or isinstance(result, WrongFile):
                                again[number] = todo[number]
                            later += may_pass(result)
                            stopped |= isinstance(result, Stopped)
                            continue
                        missing.pop(star, None)
                        for name, array in arrays.items():
                            array[number] = result[name].values[0]
                todo = again
                if stopped or not again:
                    break
        return arrays, missing, later

    def _tasks(self, rows, keep):
        """A function of a `threading.Event` for each row, by its number, that returns the star's Dataset."""
        folders = self._folders()
        rows = zip(rows.index, rows.to_dict("records"), strict=True)
        return {number: partial(from_disk, folders, star, row) for number, (star, row) in enumerate(rows)}


def from_disk(folders, star, row, stop=None):
    """A star's spectrum from the first whole copy of its file in `folders`.

    Raises BadFile if no copy is whole, NotOnServer if there is none, ValueError as `place_of`.
    """
    place = place_of(row)
    fault = NotOnServer(place, "no such file")
    for path in copies_of(place, folders):
        try:
            return read_star(path, star)
        except BadFile as damage:
            fault = damage
    raise fault


def left_out(spectra):
    """Table of the stars that `spectra` lacks because their file is missing or damaged: star, reason."""
    missing = json.loads(spectra.attrs.get("missing", "{}"))
    return pd.DataFrame({"star": list(missing), "reason": list(missing.values())})


def _report(missing, later, asked, share):
    """Warn of what is left out, in one table; raise ArchiveError if it is too much."""
    if not missing:
        return
    lines = [f"  {star}  {reason}" for star, reason in list(missing.items())[:LISTED]]
    if len(missing) > LISTED:
        lines.append(f"  ... and {len(missing) - LISTED} more: labtools.sdss.dr17.left_out(spectra)")
    table, found = "\n".join(lines), asked - len(missing)
    if later >= GIVE_UP and later > LATER * asked:
        raise ArchiveError(
            f"{later} of {asked} spectra could not be fetched now. What has arrived is kept: see to the "
            f"network (python -m labtools doctor), then run this again.\n{table}"
        )
    if found < share * asked:
        raise ArchiveError(
            f"only {found} of {asked} spectra are there, fewer than {share:.0%}: too few to go on with. "
            f"Is the archive complete, and the catalogue of the same release?\n{table}"
        )
    warnings.warn(f"{len(missing)} of {asked} spectra are left out:\n{table}", stacklevel=3)
