"""The simulated survey as notebooks see it: an archive in the real formats, read as the real one is."""

from labtools.apstar import read_apstar
from labtools.sdss.catalog import read_tables
from labtools.sdss.files import read_continuum_pixels
from labtools.sdss.survey import Survey

__all__ = ["SimulatedSurvey"]


class SimulatedSurvey(Survey):
    """The archive that `labtools.simulation.archive` writes once."""

    name = "simulated"
    title = "simulated survey"

    def _folder(self):
        from labtools.simulation.archive import write_survey

        return write_survey([folder / self.name for folder in self.folders])

    def _folders(self):
        return [self._folder()]

    @property
    def version(self):
        """What the data depend on: version, seed and line table."""
        return self._folder().name

    def catalog(self, raw=False):
        """All stars of the survey, uncut, and `raw` with the archive's fillers: see `labtools.sdss.catalog.tidy`."""
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
        """What no real survey has: the true labels of all stars (`labtools.simulation.population.draw_population`)."""
        from labtools.simulation.archive import read_truth

        return read_truth(self._folder())
