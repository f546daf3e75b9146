"""The simulated survey as notebooks see it: an archive in the real formats, read as the real one is."""

from apogee_archive.apstar import read_apstar
from apogee_archive.catalog import read_tables
from apogee_archive.files import read_continuum_pixels
from apogee_archive.survey import Survey

__all__ = ["SimulatedSurvey"]


class SimulatedSurvey(Survey):
    """The archive that `mock_survey.archive` writes once."""

    name = "simulated"
    title = "simulated survey"

    def _folder(self):
        from mock_survey.archive import write_survey

        return write_survey([folder / self.name for folder in self.folders])

    def _folders(self):
        return [self._folder()]

    @property
    def version(self):
        """What the data depend on: version, seed and line table."""
        return self._folder().name

    def catalog(self, raw=False):
        """All stars of the survey, uncut, and `raw` with the archive's fillers: see `apogee_archive.catalog.tidy`."""
        catalog = read_tables(self._folder(), raw)
        catalog.attrs.update(survey=self.title, source=self.title)
        return catalog

    def mystery(self):
        """Raw spectrum of the star without labels: Dataset with one star."""
        return read_apstar(self._folder() / "mystery.fits")

    def continuum_pixels(self):
        """Which pixels show the continuum: boolean DataArray over wavelength (7214, Angstrom, vacuum)."""
        return read_continuum_pixels(self._folder() / "continuum_pixels.npz")

    def truth(self):
        """What no real survey has: the true labels of all stars (`mock_survey.population.draw_population`)."""
        from mock_survey.archive import read_truth

        return read_truth(self._folder())
