"""Write mist_v2.5.csv of apogee_archive: isochrones out of the MIST v2.5 grid.

Its rotation is v/vcrit = 0.4, without alpha enhancement.

The grid is the HDF5 file of the package `lachesis-grids` 0.0.9, which stays outside the lab's
environment:

    python -m venv elsewhere && elsewhere/bin/pip install lachesis-grids==0.0.9
    python packages/mock_survey/calibration/mist_isochrones.py \\
        elsewhere/lib/python*/site-packages/lachesis_grids/grids/mist_v2.5_vvcrit0.4.h5

It holds, for each [Fe/H] and log10 age, `lengths` rows of `values` that begin at the equivalent
evolutionary point `offsets`; 2, 3, 6 and 12 Gyr lie between its ages and are interpolated linearly
in log age at fixed point.
"""

import argparse
from pathlib import Path

import h5py
import numpy as np
import pandas as pd

from apogee_archive.settings import table as shipped
from labtools.isochrones import isochrone

AGES = (2, 3, 6, 12)  # Gyr
FEHS = (-2.5, -1.75, -1.0, -0.5, 0.0, 0.25, 0.5)
# Zero-age main sequence (sparse), giant branch, core helium burning, early asymptotic giant branch:
# Dotter (2016).
POINTS = np.r_[202:454:12, 454:605:2, 605:707:3, 707:808:6]
COLUMNS = {
    "eep": int,
    "age": float,
    "initial_mass": float,
    "log_Teff": float,
    "log_g": float,
    "phase": int,
}


def read_grid(path):
    """The grid's rows from 1 Gyr on as a table with the columns of
    `labtools.isochrones.read_mist`."""
    with h5py.File(path) as file:
        names = [str(name) for name in file.attrs["columns"].astype(str)]
        fehs, ages, sizes = file["feh_values"][:], file["age_values"][:], file["lengths"][:]
        table = pd.DataFrame(file["values"][:].astype(float), columns=names)
    place = np.repeat(np.arange(sizes.size), sizes)
    table = table.assign(feh_init=fehs[place // ages.size], log_age=ages[place % ages.size])
    table = table[table.eep.isin(POINTS) & (table.log_age >= 9) & table.feh_init.isin(FEHS)]
    table = table.assign(age=10 ** (table.log_age - 9)).astype(COLUMNS)
    return table[[*COLUMNS, "feh_init"]].rename(columns=str.lower).reset_index(drop=True)


def main():
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path)
    parser.add_argument("--out", type=Path, default=shipped("mist_v2.5.csv"))
    arguments = parser.parse_args()
    grid = read_grid(arguments.grid)
    parts = [isochrone(grid, age, feh) for feh in FEHS for age in AGES]
    table = pd.concat(parts)[
        ["age", "feh_init", "eep", "initial_mass", "log_teff", "log_g", "phase"]
    ]
    for name in ("initial_mass", "log_teff", "log_g"):
        table[name] = table[name].map(f"{{:.{6 if name == 'initial_mass' else 4}f}}".format)
    table.to_csv(arguments.out, index=False)
    print(f"{len(table)} rows, {arguments.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
