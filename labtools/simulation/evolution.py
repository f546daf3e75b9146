"""Where stars of given age and composition stand: points on the isochrones that ship with the lab."""

from functools import lru_cache

import numpy as np
import pandas as pd

from labtools.isochrones import shipped_isochrones

__all__ = ["draw_giants"]

COLUMNS = ("initial_mass", "log_teff", "log_g")
GRAVITY = (0.5, 3.45)  # log g of the giants that are drawn
SALPETER = 2.35  # slope of the mass function
BRIGHTNESS = 0.3  # power of luminosity with which a giant gets into the survey


@lru_cache
def _grid():
    """log10 of ages, [Fe/H], phases (EEP), and the columns (column, [Fe/H], age, EEP) of the giants' part."""
    points = shipped_isochrones()
    points = points[points.phase >= 2].sort_values(["feh_init", "age", "eep"], kind="stable")
    fehs, ages, phases = points.feh_init.unique(), points.age.unique(), points.groupby("eep").phase.first()
    shape = len(COLUMNS), len(fehs), len(ages), len(phases)
    return np.log10(ages), fehs, phases.to_numpy(), points[list(COLUMNS)].to_numpy().T.reshape(shape)


def _between(grid, values):
    """Index of the grid point below each value, and how far the value is on its way to the next."""
    values = np.clip(values, grid[0], grid[-1])
    below = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    return below, (values - grid[below]) / (grid[below + 1] - grid[below])


def draw_giants(rng, age, fe_h, alpha_fe, oldest_phase=4):
    """One giant on the isochrone of each age (Gyr), [Fe/H] and [alpha/Fe]: DataFrame of teff, logg, mass, phase.

    How far a star has come is drawn: stars are born by Salpeter's mass function, stay as long as the isochrone says,
    and are the more likely to be observed the brighter they are, by the power of luminosity for which gravities are
    distributed about as those of giants in APOGEE DR12 (12 % below log g = 2, 46 % at 2.25 to 2.75). `phase` is
    MIST's: 2 giant branch, 3 core helium burning, 4 early asymptotic giant branch; none later than `oldest_phase`.
    Alpha elements count as metals do, [M/H] = [Fe/H] + log10(0.638 10^alpha + 0.362)
    (Salaris, Chieffi & Straniero 1993, ApJ 414, 580). Beyond the table its edge is taken (2 to 12 Gyr, -2.5 to 0.5).
    """
    log_ages, fehs, phases, grid = _grid()
    i, x = _between(fehs, fe_h + np.log10(0.638 * 10.0**alpha_fe + 0.362))
    j, y = _between(log_ages, np.log10(age))
    x, y = x[:, None], y[:, None]
    mass, log_teff, logg = (
        (column[i, j] * (1 - y) + column[i, j + 1] * y) * (1 - x)
        + (column[i + 1, j] * (1 - y) + column[i + 1, j + 1] * y) * x
        for column in grid
    )
    luminosity = (np.log10(mass) + 4 * log_teff - logg)[:, 1:]
    number = np.diff(mass) * mass[:, 1:] ** -SALPETER * 10 ** (BRIGHTNESS * luminosity)
    seen = (phases[1:] <= oldest_phase) & (logg[:, 1:] > GRAVITY[0]) & (logg[:, 1:] < GRAVITY[1])
    number = np.cumsum(np.where(seen, number, 0).clip(0), axis=1)
    step = (number < rng.random((len(number), 1)) * number[:, -1:]).sum(axis=1)
    star, part = np.arange(len(step)), rng.random(len(step))
    at = [column[star, step] * (1 - part) + column[star, step + 1] * part for column in (log_teff, logg, mass)]
    return pd.DataFrame({"teff": 10 ** at[0], "logg": at[1], "mass": at[2], "phase": phases[step + 1]})
