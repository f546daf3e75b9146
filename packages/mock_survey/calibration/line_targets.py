"""Real spectra on which line strengths are measured: a Cannon of the branch, the mystery star."""

from pathlib import Path

import numpy as np
import pandas as pd

from apogee_archive.apstar import read_apstar
from apogee_archive.grid import GRID, WAVELENGTH
from labtools.spectra import chips

__all__ = ["Target", "branch_labels", "mystery_labels", "read_mystery"]

ORIGIN = np.array([4500.0, 2.0, -0.3, 0.05])


class Target:
    """Pseudo-normalized real spectra at labels along the giant branch, and the way to normalize
    likewise."""

    def __init__(self, folder, continuum):
        self.coefficients = np.loadtxt(Path(folder) / "coefficients.txt")
        self.scatter = np.loadtxt(Path(folder) / "scatter.txt")
        self.trusted = np.load(continuum)["trusted"]
        self.pixels = GRID
        self.wavelength = WAVELENGTH[self.pixels]

    def flux(self, labels):
        """Normalized flux of the real Cannon at some labels: (star, pixel)."""
        x = labels[["teff", "logg", "fe_h", "mg_fe"]].to_numpy() - ORIGIN
        upper = [x[:, i] * x[:, j] for i in range(4) for j in range(i, 4)]
        return np.column_stack([np.ones(len(x)), x, *upper]) @ self.coefficients

    def normalize(self, flux):
        """Model flux (star, pixel) normalized as the Cannon was: chip by chip, degree 2."""
        result = np.empty_like(flux)
        for part in chips(self.wavelength):
            use, x = self.trusted[part], np.linspace(-1, 1, part.stop - part.start)
            fit = np.polynomial.chebyshev.chebfit(x[use], flux[:, part][:, use].T, 2)
            result[:, part] = flux[:, part] / np.polynomial.chebyshev.chebval(x, fit)
        return result


def branch_labels():
    """Labels that span the giants on which the Cannon was trained, varied in alpha and log g."""
    rows = []
    for teff in (4000, 4250, 4500, 4750, 5000):
        for fe_h in (-0.6, -0.25, 0.1):
            logg = 2.55 + 0.0023 * (teff - 4700) + 0.9 * (fe_h + 0.1)
            alpha = 0.12 - 0.15 * fe_h
            rows += [(teff, logg, fe_h, alpha - 0.07), (teff, logg, fe_h, alpha + 0.07)]
            rows += [(teff, logg + 0.35, fe_h, alpha)]
    table = pd.DataFrame(rows, columns=["teff", "logg", "fe_h", "mg_fe"], dtype=float)
    return table.assign(si_fe=table["mg_fe"])


def read_mystery(path):
    """(flux, error, good) of a 1-D apStar file on the 8575 pixels."""
    star = read_apstar(path).isel(star=0)
    return (
        star.flux.values.astype(float),
        star.error.values.astype(float),
        np.isfinite(star.error.values),
    )


def mystery_labels():
    """Labels of the real mystery star by the DR10 Cannon; its [alpha/M] as [Mg/Fe] and [Si/Fe]."""
    star = {"teff": [4467.0], "logg": [2.03], "fe_h": [-0.51], "mg_fe": [0.23], "si_fe": [0.23]}
    return pd.DataFrame(star)
