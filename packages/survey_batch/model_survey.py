"""A survey without files: stars drawn from a trained model, as many as are wanted."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive.cache import hash_key
from labtools.cannon import Cannon

__all__ = ["ModelSurvey"]


@dataclass(frozen=True)
class ModelSurvey:
    """Stars with the labels of a model's training set, their spectra drawn from the model when they
    are asked for.

    A spectrum depends on the seed and on the number of its star alone, so that any chunk of stars
    can be made anywhere.

    Parameters
    ----------
    cannon : Cannon
        The trained model.
    pixels : xarray.DataArray
        Which of its pixels show the continuum: boolean over wavelength (Angstrom).
    stars : int
        How many stars there are.
    snr : float
        Signal-to-noise ratio per pixel.
    seed : int
        Of labels and noise.

    Examples
    --------
    >>> wavelength = np.linspace(16000, 16010, 40)
    >>> theta = np.hstack([np.ones((40, 1)), np.full((40, 2), 0.02)])
    >>> s2, teach = np.full(40, 1e-5), [[-1.0], [1.0]]
    >>> numbers = ([4600.0], [250.0], wavelength, theta, s2, teach)
    >>> cannon = Cannon(("teff",), *map(np.array, numbers))
    >>> survey = ModelSurvey(cannon, xr.DataArray(np.ones(40, bool), {"wavelength": wavelength}), 3)
    >>> dict(survey.spectra(survey.catalog()).sizes)
    {'star': 3, 'wavelength': 40}
    """

    cannon: Cannon
    pixels: xr.DataArray
    stars: int
    snr: float = 100.0
    seed: int = 1

    title: ClassVar[str] = "spectra made from the model"

    @property
    def version(self) -> str:
        """What the spectra depend on."""
        return f"made-{hash_key(self.cannon.theta, self.cannon.s2, self.snr, self.seed)}"

    def catalog(self) -> pd.DataFrame:
        """The true labels in the units of the model, and names: one row per star, index
        `apogee_id`."""
        numbers, cannon = range(self.stars), self.cannon
        chosen = np.random.default_rng(self.seed).choice(cannon.training_labels, self.stars)
        names = pd.Index([f"made{n:07d}" for n in numbers], name="apogee_id")
        truth = pd.DataFrame(cannon.unscaled(chosen), names, list(cannon.labels))
        return truth.assign(
            apstar_id=names,
            telescope="model",
            field=[f"{n // 1000:04d}" for n in numbers],
            snr=self.snr,
        )

    def continuum_pixels(self) -> xr.DataArray:
        """Which pixels of the model show the continuum: boolean over wavelength (Angstrom)."""
        return self.pixels

    def spectra(self, rows: pd.DataFrame, min_fraction: float = 0.0) -> xr.Dataset:
        """Raw spectra of stars, as a survey of files gives them.

        Parameters
        ----------
        rows : pandas.DataFrame
            Rows of the catalog.
        min_fraction : float
            Not used: no spectrum is ever missing.

        Returns
        -------
        xarray.Dataset
            Over star and wavelength: flux and error, float32, in units that no one knows.
        """
        model = self.cannon.predict(rows)  # (star, wavelength)
        scatter = np.where(np.isfinite(self.cannon.s2), self.cannon.s2, 0)
        # One generator per star: its noise does not depend on the stars beside it.
        noise = np.array(
            [
                np.random.default_rng([self.seed, number]).standard_normal(scatter.size, dtype="f4")
                for number in rows.index.str.removeprefix("made").astype(int)
            ]
        )
        flux = model + np.sqrt(self.snr**-2 + scatter) * noise
        level = 100 * (model.wavelength.values / 16000) ** -2.5  # a slope for the normalization
        error = xr.zeros_like(model) + level / self.snr
        return xr.Dataset({"flux": flux * level, "error": error}).astype("float32")
