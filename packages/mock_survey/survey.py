"""The simulated survey as notebooks see it: an archive in the real formats, read as the real one
is."""

from functools import cached_property
from pathlib import Path

import pandas as pd
import xarray as xr

from apogee_archive.apstar import read_apstar
from apogee_archive.cache import verify_manifest
from apogee_archive.catalog import read_tables
from apogee_archive.files import read_continuum_pixels
from apogee_archive.survey import Survey

__all__ = ["SimulatedSurvey"]


class SimulatedSurvey(Survey):
    """The archive that `mock_survey.archive` writes once, in the layout of DR17.

    Spectra are verified by the checksums that the archive lists (SHA-1), everything else by those
    of the survey itself (SHA-256), whenever it is read.

    Examples
    --------
    >>> import labtools
    >>> survey = labtools.open_survey("simulated")
    >>> survey.name
    'simulated'
    """

    name = "simulated"
    title = "simulated survey"

    @cached_property
    def folder(self) -> Path:
        """Folder of the survey, which is written when it is first asked for."""
        from mock_survey.archive import write_survey

        return write_survey([folder / self.name for folder in self.folders])

    def _folders(self) -> list[Path]:
        return [self.folder]

    @property
    def version(self) -> str:  # type: ignore[override]
        """What the data depend on: number of giants, seed, version and tables."""
        return self.folder.name

    def catalog(self, raw: bool = False) -> pd.DataFrame:
        """All stars of the survey, uncut.

        Parameters
        ----------
        raw : bool
            With the archive's fillers (-9999) in the place of NaN.

        Returns
        -------
        pandas.DataFrame
            One row per entry, index ``apogee_id``; see `apogee_archive.catalog`.

        Raises
        ------
        CorruptFileError
            If a table was damaged; the message says what to delete.
        """
        # A damaged digit would still be a number: each file is compared with its checksum first
        for name in ("apogeeStar.csv", "aspcapStar.csv"):
            verify_manifest(self.folder, name)
        catalog = read_tables(self.folder, raw)
        catalog.attrs.update(survey=self.title, source=self.title)
        return catalog

    def mystery(self) -> xr.Dataset:
        """Raw spectrum of the simulated star without labels: Dataset with one star."""
        return read_apstar(verify_manifest(self.folder, "mystery.fits"))

    def continuum_pixels(self) -> xr.DataArray:
        """Which pixels show the continuum: booleans over wavelength (7214, Angstrom, vacuum)."""
        return read_continuum_pixels(verify_manifest(self.folder, "continuum_pixels.npz"))

    def truth(self) -> pd.DataFrame:
        """What no real survey has: the true labels of all stars.

        Returns
        -------
        pandas.DataFrame
            As of `mock_survey.population.draw_population`.
        """
        from mock_survey.archive import read_truth

        verify_manifest(self.folder, "truth.csv")
        return read_truth(self.folder)
