"""What every survey does in the same way: from names of stars to one Dataset of raw spectra.

A survey is a catalog and the files of its stars. `Survey` reads those files, whoever brought them
here; a subclass says where the catalog is from, in which folders files lie, and how absent ones
come here.
"""

from __future__ import annotations

import abc
import contextlib
import json
import re
import warnings
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from apogee_archive.cache import hash_key, sha256_of
from apogee_archive.errors import ArchiveError, CorruptFileError
from apogee_archive.files import read_sha1sums, read_star, sas_path
from apogee_archive.grid import WAVELENGTH
from apogee_archive.settings import setting

__all__ = ["Survey", "left_out", "star_names"]

MIN_FRACTION = 0.5  # of the spectra asked for; with fewer the lab stops
# With more spectra than both of these kept back by the network, the lab stops.
MAX_FRACTION_LATER, MAX_NUMBER_LATER = 0.1, 8
LISTED = 40  # stars that a warning names
DUPLICATE = 4  # bit of EXTRATARG: another entry of the star is the main one
WHERE = ["telescope", "field", "file", "nvisits"]

Found = Generator[tuple[str, xr.Dataset | Exception], None, None]
"""Stars one after the other, each with its spectrum or with why there is none."""


@dataclass(frozen=True, repr=False)
class Survey(abc.ABC):
    """A catalog and its spectra.

    A subclass has `name` (as in LAB_SURVEY), `title` (for figures) and `version` (what its data
    depend on, beside their bytes), and the methods below that raise NotImplementedError, as far as
    they are used.

    Parameters
    ----------
    root : Path
        Folder below which files lie, and are written.
    shared : tuple of Path
        Folders below which files may lie too; they are only read.
    """

    root: Path
    shared: tuple[Path, ...] = ()

    name: ClassVar[str]
    title: ClassVar[str]
    version: ClassVar[str]

    def __repr__(self) -> str:
        return f"<{self.title} in {self.root}>"

    @property
    def folders(self) -> list[Path]:
        """Where data may be: `root`, and the shared folders."""
        return [self.root, *self.shared]

    # ------------------------------------------------ what a subclass says

    @property
    def sample(self) -> str:
        """What the user chose, in a few characters for names of files: not the version.

        Of a version such as "1900-seed128-v14.2fc1bd66" that is what stands before "-v14".
        """
        chosen = re.match(r"(.*)-v\d+", self.version)
        return f"{self.name}-{chosen[1]}" if chosen else self.name

    @abc.abstractmethod
    def catalog(self, raw: bool = False) -> pd.DataFrame:
        """All stars, uncut, indexed by `apogee_id`, and `raw` with the archive's fillers."""

    def mystery(self) -> xr.Dataset:
        """Raw spectrum of the star without labels: Dataset with one star."""
        raise NotImplementedError(f"the {self.title} has no mystery star")

    def continuum_pixels(self) -> xr.DataArray:
        """Which pixels show the continuum: boolean DataArray over wavelength (Angstrom, vacuum)."""
        raise NotImplementedError(f"the {self.title} has no map of continuum pixels")

    def _folders(self) -> list[Path]:
        """Folders that have `sas`, with files of the archive, or `arrays`, with packed ones."""
        raise NotImplementedError(f"the {self.title} does not say where its files are")

    def _checksums(self, folder: Path) -> dict[str, str]:
        """File name -> SHA-1 of the files in a folder, as far as they are listed."""
        return read_sha1sums(folder)

    def _download(self, rows: pd.DataFrame, storage: str) -> Found:
        """Bring the files of stars that are absent or damaged: each star, and its spectrum.

        An exception in the place of the spectrum says why there is none.
        """
        yield from ()

    # ------------------------------------------------ what all have

    def spectra(
        self,
        ids: Iterable[str] | pd.DataFrame,
        storage: str | None = None,
        min_fraction: float = MIN_FRACTION,
        faults: dict[str, Exception] | None = None,
    ) -> xr.Dataset:
        """Raw combined spectra of stars, in the order asked for, with a progress bar.

        Stars whose file is missing, damaged or not readable are left out, listed in a warning, and
        by `left_out`.

        Parameters
        ----------
        ids : iterable of str, or DataFrame
            Names (apogee_id), or rows of the catalog indexed by them. A star named twice comes
            once. Of several entries of a star in the catalog the one with the highest SNR is taken,
            among those not flagged as duplicates (bit 4 of EXTRATARG).
        storage : {"files", "arrays"}, optional
            Whether downloaded FITS files are kept, or only what is extracted from them, some 30
            times smaller. None takes LAB_STORAGE, or "files".
        min_fraction : float
            Of the spectra asked for; with fewer this raises.
        faults : dict, optional
            What `fetch` returned for these stars: they are not asked for again.

        Returns
        -------
        xarray.Dataset
            Dimensions star and wavelength (8575 pixels, Angstrom, vacuum, rest frame): `flux` and
            `error` (float32, 1e-17 erg/s/cm2/Angstrom), `mask` (int32).

        Raises
        ------
        ValueError
            Without ids, or for another word as `storage`.
        KeyError
            For a star that is not in the catalog.
        ArchiveError
            If too few spectra are to be had, or the network fails.
        CacheError
            If the cache cannot be written.
        """
        rows, storage = self._rows(ids), _storage(storage)
        spectra, missing = self._empty(rows.index), dict[str, Any]()
        with (
            tqdm(total=len(rows), desc=f"{self.title}: spectra", unit="star") as bar,
            contextlib.closing(self._stars(rows, storage, faults or {})) as stars,
        ):
            for star, found in stars:
                if isinstance(found, Exception):
                    missing[star] = found
                    continue
                number = rows.index.get_loc(star)
                for name, array in spectra.items():
                    array.values[number] = found[name].values[0]
                missing.pop(star, None)
                bar.update()
        _report(missing, len(rows), min_fraction)
        reasons = {star: getattr(fault, "reason", str(fault)) for star, fault in missing.items()}
        spectra = spectra.isel(star=~rows.index.isin(list(missing))) if missing else spectra
        return spectra.assign_attrs(missing=json.dumps(reasons))

    def fetch(
        self, ids: Iterable[str] | pd.DataFrame, storage: str | None = None
    ) -> dict[str, Exception]:
        """Bring the files of stars that are not here.

        Parameters
        ----------
        ids, storage
            As in `spectra`.

        Returns
        -------
        dict of str to Exception
            The stars of which there is no file now, and why.
        """
        rows = self._rows(ids)
        absent = [not self._local_paths(row) for row in rows.to_dict("records")]
        faults: dict[str, Exception] = {
            star: ValueError("no such file") for star in rows.index[absent]
        }
        with contextlib.closing(self._download(rows[absent], _storage(storage))) as arriving:
            for star, found in arriving:
                if isinstance(found, Exception):
                    faults[star] = found
                else:
                    del faults[star]
        return faults

    def fingerprint(
        self,
        ids: Iterable[str] | pd.DataFrame,
        faults: dict[str, Exception] | None = None,
    ) -> str:
        """A key of the files of stars: it changes with the bytes of any of them.

        Each file counts by its checksum in a list where there is one (`spectra` verifies it), else
        by the checksum of its bytes; times of change do not count. A star without a file counts as
        absent.

        Parameters
        ----------
        ids
            As in `spectra`.
        faults : dict, optional
            What `fetch` returned for these stars; None fetches what is not here.

        Returns
        -------
        str
            See `apogee_archive.cache.hash_key`.
        """
        if faults is None:
            self.fetch(ids)
        checksums, parts = lru_cache(self._checksums), []
        for row in self._rows(ids).to_dict("records"):
            paths, made_of = self._local_paths(row), "absent"
            if paths:
                try:
                    made_of = checksums(paths[0].parent).get(paths[0].name) or sha256_of(paths[0])
                except (OSError, CorruptFileError):
                    made_of = "not readable"
            parts.append((str(row["file"]), made_of))
        return hash_key(parts)

    def path(self, star: str) -> Path:
        """Path of the apStar file of one star on this machine, fetched if it is not there.

        Raises
        ------
        FileNotFoundError
            If only its arrays are kept here (LAB_STORAGE=arrays).
        ArchiveError, KeyError, CacheError
            As `spectra`.
        """
        self.spectra([star], storage="files")
        paths = self._local_paths(self._rows([star]).iloc[0])
        files = [path for path in paths if path.suffix == ".fits"]
        if not files:
            raise FileNotFoundError(
                f"of {star} only arrays are kept here (LAB_STORAGE=arrays), not its FITS file"
            )
        return files[0]

    # ------------------------------------------------ how it is done

    def _rows(self, ids: Iterable[str] | pd.DataFrame) -> pd.DataFrame:
        """Telescope, field, file and visits of each star, each star once, in the order of `ids`."""
        wanted = star_names(ids)
        if not wanted:
            raise ValueError(
                "no star is asked for: ids is empty. Did the selection remove every star?"
            )
        if isinstance(ids, pd.DataFrame) and {*WHERE, "extratarg", "snr"} <= set(ids.columns):
            table = ids.set_axis(star_names(ids, unique=False), axis="index")
        else:
            table = self.catalog()
        unknown = [star for star in wanted if star not in table.index]
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            raise KeyError(
                f"not in the catalog of the {self.title}: {', '.join(unknown[:5])}{more}"
            )
        if not table.index.is_unique:
            flags = table.extratarg.fillna(0).to_numpy(np.int64)
            best = table.assign(duplicate=flags >> DUPLICATE & 1)
            best = best.sort_values(["duplicate", "snr"], ascending=[True, False], kind="stable")
            table = best[~best.index.duplicated()]
        return table.loc[wanted, WHERE]

    def _empty(self, stars: pd.Index) -> xr.Dataset:
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

    def _stars(self, rows: pd.DataFrame, storage: str, faults: dict[str, Exception]) -> Found:
        """Each star and its spectrum, or why there is none; once more if it could be fetched."""
        checksums, absent = lru_cache(self._checksums), []
        for star, row in zip(rows.index, rows.to_dict("records"), strict=True):
            found = self._read(star, row, checksums)
            if isinstance(found, Exception) and star in faults:
                found = faults[star]
            elif isinstance(found, Exception):
                absent.append(star)
            yield star, found
        if absent:
            with contextlib.closing(self._download(rows.loc[absent], storage)) as arriving:
                yield from arriving

    def _local_paths(self, row: Any) -> list[Path]:
        """Files here that hold the star of a row of the catalog, whole or packed."""
        try:
            place = sas_path(row)
        except ValueError:
            return []
        return [
            path
            for folder in self._folders()
            for path in (folder / "sas" / place, folder / "arrays" / f"{place}.npz")
            if path.is_file()
        ]

    def _read(self, star: str, row: Any, checksums: Any) -> xr.Dataset | Exception:
        """A star's spectrum from the first good copy of its file, or why there is none."""
        fault: Exception = ValueError("no such file")
        for path in self._local_paths(row):
            try:
                return read_star(path, star, checksums(path.parent).get(path.name))
            except (CorruptFileError, OSError) as damage:  # closed to us is one of the latter
                fault = damage
        return fault


def star_names(ids: Any, unique: bool = True) -> list[str]:
    """Names of stars as text, from whatever holds them.

    Parameters
    ----------
    ids : str, bytes, iterable of these, or DataFrame
        Bytes, as h5py and FITS tables give them, are decoded, and padding is removed. Of a
        DataFrame the column `apogee_id` counts, or else the index.
    unique : bool
        Whether each name comes once, where it comes first.

    Returns
    -------
    list of str

    Examples
    --------
    >>> star_names([b"2M1 ", "2M2", "2M1"])
    ['2M1', '2M2']
    """
    if isinstance(ids, pd.DataFrame):
        ids = ids.get("apogee_id", ids.index)
    if isinstance(ids, str | bytes):
        ids = [ids]
    # Sets, views of dicts and generators are no arrays.
    values = np.asarray(ids if hasattr(ids, "__array__") else list(ids), dtype=object).ravel()
    names = [
        (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).strip()
        for value in values
    ]
    return list(dict.fromkeys(names)) if unique else names


def left_out(spectra: xr.Dataset) -> pd.DataFrame:
    """The stars that `spectra` lacks because their file is missing or damaged.

    Parameters
    ----------
    spectra : xarray.Dataset
        From `Survey.spectra`, or normalized from it.

    Returns
    -------
    pandas.DataFrame
        One row per star: `star`, `reason`.

    Examples
    --------
    >>> left_out(xr.Dataset(attrs={"missing": '{"2M1": "no such file"}'}))
      star        reason
    0  2M1  no such file
    """
    missing = json.loads(spectra.attrs.get("missing", "{}"))
    return pd.DataFrame({"star": list(missing), "reason": list(missing.values())})


def _storage(storage: str | None) -> str:
    """What to keep of downloads, by argument or LAB_STORAGE."""
    storage = storage or setting("STORAGE", "files")
    if storage not in ("files", "arrays"):
        raise ValueError(f"storage (or LAB_STORAGE) is 'files' or 'arrays', not {storage!r}")
    return storage


def _report(missing: dict[str, Exception], asked: int, min_fraction: float) -> None:
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
    if later >= MAX_NUMBER_LATER and later > MAX_FRACTION_LATER * asked:
        raise ArchiveError(
            f"{later} of {asked} spectra could not be fetched now. What has arrived is kept: see "
            f"to the network (python -m lab_course doctor), then run this again.\n{table}"
        )
    if found < min_fraction * asked:
        raise ArchiveError(
            f"only {found} of {asked} spectra are there, fewer than {min_fraction:.0%}: too few to "
            f"go on with. Is the archive complete, and the catalog of the same release?\n{table}"
        )
    warnings.warn(f"{len(missing)} of {asked} spectra are left out:\n{table}", stacklevel=3)
