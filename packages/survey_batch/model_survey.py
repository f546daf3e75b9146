"""A survey without files: stars drawn from a trained model, as many as are wanted."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive.cache import hash_key
from labtools.cannon import Cannon

__all__ = ["ModelSurvey"]


@dataclass(frozen=True)
class ModelSurvey:
    """Stars with labels of a model's training set; a spectrum is made when it is asked for, by seed and number alone.

    cannon, pixels : the model and its continuum pixels (boolean DataArray over wavelength, Angstrom).
    stars : how many. snr : signal-to-noise ratio per pixel. seed : of labels and noise.
    """

    cannon: Cannon
    pixels: xr.DataArray
    stars: int
    snr: float = 100.0
    seed: int = 1
    title = "spectra made from the model"

    @property
    def version(self):
        """What the spectra depend on."""
        return f"made-{hash_key(self.cannon.theta, self.cannon.s2, self.snr, self.seed)}"

    def catalog(self):
        """One row a star, index `apogee_id`, with the true labels in the units of the model."""
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

    def continuum_pixels(self):
        """Which pixels of the model show the continuum: boolean DataArray over wavelength (Angstrom)."""
        return self.pixels

    def spectra(self, rows, share=0.0):
        """Raw spectra of rows of the catalog: Dataset (star, wavelength) of flux and error, float32, any unit."""
        model, s2 = self.cannon.predict(rows), self.cannon.s2
        numbers = rows.index.str.removeprefix("made").astype(int)
        noise = [
            np.random.default_rng([self.seed, n]).standard_normal(s2.size, dtype="f4")
            for n in numbers
        ]
        level = 100 * (model.wavelength.values / 16000) ** -2.5
        noisy = model + np.sqrt(self.snr**-2 + np.where(np.isfinite(s2), s2, 0)) * np.array(noise)
        return xr.Dataset(
            {"flux": noisy * level, "error": xr.zeros_like(model) + level / self.snr}
        ).astype("float32")
