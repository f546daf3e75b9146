"""Write data/lines_jwst.csv: lines of 0.9-1.8 micron outside the range of lines.csv.

Atoms from the literature (rounded), hydrogen from Rydberg's formula, CN, CO and OH from constants.
"""

import numpy as np
import pandas as pd
from line_sources import COLUMNS, RARER, WAVENUMBER, air_to_vacuum, co_lines, hydrogen_lines

from mock_survey.synthesis import read_lines
from mock_survey.tables import table as shipped

CALIBRATED = (15140, 16960)  # Angstrom: what lines.csv covers
RANGE = (8960, 18060)

# Air wavelength (Angstrom), excitation potential (eV), log gf.
ATOMS = {
    "Fe I": """8999.56 2.83 -1.32 9088.33 2.85 -1.99 9089.41 2.95 -1.68 9118.88 2.83 -2.12
    9146.13 2.59 -2.80 9210.03 2.85 -2.40 9738.57 4.99 0.15 9753.09 4.80 -0.78
    9800.31 5.09 -0.45 9811.50 5.01 -1.36 9861.74 5.06 -0.14 9868.19 5.09 -0.98
    9889.04 5.03 -0.45 9944.21 5.01 -1.34 9980.46 5.03 -1.38 10065.05 4.84 -0.29
    10145.56 4.80 -0.18 10195.11 2.73 -3.58 10216.31 4.73 -0.06 10218.41 3.07 -2.76
    10265.22 2.22 -4.54 10340.89 2.20 -3.58 10395.80 2.18 -3.39 10423.03 2.69 -3.62
    10423.74 3.07 -2.92 10469.65 3.88 -1.18 10532.24 3.93 -1.48 10577.14 3.30 -3.14
    10616.72 3.27 -3.13 10783.05 3.11 -2.57 10818.28 3.96 -1.95 10849.47 5.54 -1.44
    10863.52 4.73 -0.90 10884.26 3.93 -1.93 10896.30 3.07 -2.69 11119.80 2.85 -2.20
    11374.08 2.18 -3.50 11422.32 2.20 -2.70 11439.12 2.59 -2.98 11593.59 2.22 -2.45
    11607.57 2.20 -2.01 11638.26 2.18 -2.21 11689.97 2.22 -2.07 11783.27 2.83 -1.57
    11882.84 2.20 -1.67 11884.08 2.22 -2.08 11973.05 2.18 -1.48 12053.08 4.56 -1.54
    12119.50 4.59 -1.64 12190.10 3.64 -2.33 12213.34 4.64 -1.85 12227.11 4.61 -1.37
    12283.30 6.17 -0.54 12340.48 2.28 -4.79 12342.92 4.64 -1.46 12510.52 4.96 -1.61
    12556.99 2.28 -3.63 12615.93 4.64 -1.52 12638.70 4.56 -0.78 12648.74 4.61 -1.14
    12789.45 5.01 -1.51 12807.15 3.64 -2.45 12808.24 4.99 -1.36 12824.86 3.02 -3.84
    12840.57 4.96 -1.33 12879.77 2.28 -3.46 12934.67 5.39 -0.95 13098.88 5.01 -1.29
    13147.92 5.39 -0.81 13352.17 5.31 -0.52 13392.10 5.35 -0.20 15051.75 5.35 0.20
    15094.69 5.36 0.60""",
    "Ti I": """9638.30 0.85 -0.61 9647.37 0.82 -1.43 9675.54 0.84 -0.80 9688.87 0.81 -1.61
    9705.66 0.83 -1.01 9728.40 0.82 -1.21 9743.61 0.81 -1.31 9770.30 0.85 -1.58
    9787.69 0.83 -1.44 9832.14 1.89 -1.13 10396.80 0.85 -1.54 10496.11 0.84 -1.65
    10584.63 0.83 -1.78 10607.72 0.85 -2.70 10661.62 0.82 -1.92 10677.05 0.84 -2.52
    10726.39 0.81 -2.06 10732.86 0.83 -2.52 10774.87 0.82 -2.67 11780.54 1.44 -2.17
    11797.19 1.43 -2.28 11892.88 1.43 -1.73 11949.55 1.44 -1.57 11973.85 1.46 -1.39
    12569.57 2.18 -2.05 12600.28 1.44 -2.32 12671.10 1.43 -2.36 12738.38 2.18 -1.28
    12744.91 2.49 -1.28 12811.48 2.16 -1.39 12821.67 1.46 -1.19 12831.44 1.43 -1.49
    12847.03 1.44 -1.34 12919.90 2.15 -1.56 12927.48 2.15 -1.74 12987.57 2.51 -1.55
    13011.90 1.44 -2.27 13077.27 1.46 -2.22""",
    "Si I": """9413.51 5.08 -0.45 10288.94 4.92 -1.51 10371.26 4.93 -0.71 10585.14 4.95 0.01
    10603.43 4.93 -0.31 10627.65 5.86 -0.87 10660.97 4.92 -0.27 10689.72 5.95 -0.12
    10694.25 5.96 0.05 10727.41 5.98 0.22 10749.38 4.93 -0.21 10784.56 5.96 -0.84
    10786.85 4.93 -0.30 10827.09 4.95 0.30 10843.86 5.86 -0.11 10869.54 5.08 0.37
    10882.81 5.98 -0.82 10885.33 6.18 0.22 10979.31 4.95 -0.52 11984.20 4.93 0.24
    11991.57 4.92 -0.11 12031.50 4.95 0.48 12103.54 4.93 -0.35 12270.69 4.95 -0.40
    12390.15 5.08 -1.77 12395.83 4.95 -1.64 12583.92 6.62 -0.46 13176.89 5.86 -0.20""",
    "Mg I": """9255.78 5.75 -0.15 10811.08 5.95 -0.14 10953.32 5.93 -0.86 10957.28 5.93 -0.99
    10965.45 5.93 -0.24 11828.17 4.35 -0.33 12039.82 5.75 -1.53 12083.65 5.75 0.42
    12417.94 5.93 -1.66 12423.03 5.93 -1.19 12433.45 5.93 -0.97 14877.62 5.93 0.36
    15024.99 5.11 0.36 15040.25 5.11 0.14 15047.71 5.11 -0.34 17108.66 5.39 0.06""",
    "Ca I": """10343.82 2.93 -0.30 10838.97 4.88 0.24 11767.48 4.53 -0.54 11769.35 4.53 -1.01
    11793.04 4.54 -0.26 11955.95 4.13 -0.85 12105.84 4.55 -0.31 12816.05 3.91 -0.77
    12823.87 3.91 -1.00 12885.29 4.43 -1.16 12909.07 4.43 -0.22 13001.40 4.44 -1.14
    13033.55 4.44 -0.06 13086.44 4.44 -1.21 13134.94 4.45 0.09""",
    "K I": """11690.22 1.61 0.25 11769.64 1.62 -0.45 11772.84 1.62 0.51 12432.27 1.61 -0.44
    12522.13 1.62 -0.14 13377.88 2.67 -0.60 13397.09 2.67 -0.40""",
    "Na I": """9961.28 3.62 -0.82 10746.45 3.19 -1.29 10834.87 3.62 -0.50 11381.45 2.10 -0.21
    11403.78 2.10 0.09 12679.17 3.62 -0.04""",
    "Al I": """10872.97 4.09 -0.33 10891.73 4.09 -0.03 13123.41 3.14 0.27 13150.75 3.14 -0.03""",
    "C I": """9061.43 7.48 -0.35 9062.48 7.48 -0.46 9078.28 7.48 -0.58 9088.51 7.48 -0.43
    9094.83 7.49 0.15 9111.80 7.49 -0.30 9405.73 7.69 0.29 9658.43 7.49 -0.28
    10683.08 7.48 0.08 10685.34 7.48 -0.27 10691.24 7.49 0.35 10707.32 7.48 -0.41
    10729.53 7.49 -0.42 11748.22 8.64 0.38 11753.32 8.65 0.69 11754.76 8.64 0.54
    11895.75 8.65 -0.01 17448.60 9.00 0.02""",
    "S I": """9212.86 6.53 0.42 9228.09 6.53 0.26 9237.54 6.53 0.04 10455.45 6.86 0.25
    10456.76 6.86 -0.45 10459.41 6.86 0.03""",
    "Cr I": """10486.25 3.01 -0.95 10510.01 3.01 -1.53 12532.84 2.71 -1.88 12910.09 2.71 -1.78
    12937.02 2.71 -1.90 13201.15 2.71 -1.83 13217.02 2.71 -2.30""",
    "Mn I": """12899.76 2.11 -1.07 12975.92 2.89 -0.94""",
    "Ni I": """10193.22 4.09 -0.76 10378.62 4.09 -0.82""",
}  # fmt: skip


def atoms():
    """The atomic lines in vacuum."""
    rows = []
    for species, text in ATOMS.items():
        for air, ep, loggf in np.array(text.split(), float).reshape(-1, 3):
            rows.append((species, air_to_vacuum(air), ep, loggf, "literature"))
    return pd.DataFrame(rows, columns=COLUMNS)


def hydrogen():
    """Paschen and Brackett lines."""
    return pd.concat(
        [hydrogen_lines(low, ep, range(low + 2, 26)) for low, ep in ((3, 12.088), (4, 12.749))]
    )


def co():
    """Second overtone of CO and 13CO, strengths as in lines.csv."""
    return pd.concat(
        [co_lines("CO", 1.0, -9.27, levels=12), co_lines("13CO", RARER, -9.27 - 1.2, levels=12)]
    )


def doublet_pi(b, d, h, a, j):
    """Terms (2, J) in cm^-1 of the F1 and F2 levels of a 2-Pi state (Hill & Van Vleck 1928)."""
    x, y = (j + 0.5) ** 2, a / b
    n = np.array([j - 0.5, j + 0.5]) * np.array([j + 0.5, j + 1.5])
    root = np.sqrt(4 * x + y * (y - 4))
    return b * (x - 1 + np.array([-0.5, 0.5])[:, None] * root) - d * n**2 + h * n**3


def mixing(b, a, j):
    """Amplitudes (Omega = 3/2, 1/2) of the lower and the upper of the two levels of a 2-Pi state at
    one J."""
    off = -b * np.sqrt(max((j - 0.5) * (j + 1.5), 0))
    matrix = [[b * ((j + 0.5) ** 2 - 2) + a / 2, off], [off, b * (j + 0.5) ** 2 - a / 2]]
    return np.linalg.eigh(matrix)


def clebsch(j, m1, q, k):
    """<j m1; 1 q | j+k m1+q> for k, q = +-1 or k = 0."""
    m = m1 + q
    if abs(m) > j + k:
        return 0.0
    if k == 1:
        return np.sqrt((j + q * m) * (j + q * m + 1) / ((2 * j + 1) * (2 * j + 2)))
    if k == 0:
        return -q * np.sqrt((j + q * m) * (j - q * m + 1) / (2 * j * (j + 1)))
    return np.sqrt((j - q * m) * (j - q * m + 1) / (2 * j * (2 * j + 1)))


def honl_london(j, k, sign, c3, c1):
    """Strength of j -> j + k from 2-Sigma (parity `sign`) to a 2-Pi level, in Hund's case (a)."""
    total = 0.0
    for p in (1, -1):
        upward = c3 * clebsch(j, 0.5, 1, k) + p * c1 * clebsch(j, 0.5, -1, k)
        downward = c1 * clebsch(j, -0.5, 1, k) + p * c3 * clebsch(j, -0.5, -1, k)
        total += (upward + sign * downward) ** 2 / 4
    return total


X = {
    "te": 0.0,
    "we": 2068.59,
    "wexe": 13.087,
    "be": 1.8997,
    "ae": 0.01736,
    "d": 6.4e-6,
    "re": 1.1718,
}
A = {
    "te": 9245.28,
    "we": 1812.56,
    "wexe": 12.61,
    "be": 1.7151,
    "ae": 0.01708,
    "d": 5.9e-6,
    "re": 1.2333,
}
A_SO, CN_F00 = -52.64, 2.37e-3


def vibration(state, v):
    x = v + 0.5
    return state["te"] + state["we"] * x - state["wexe"] * x**2


def franck_condon(vmax=8):
    """Overlaps squared (v', v'') of the Morse oscillators A and X, on a grid."""
    r = np.linspace(0.8, 2.2, 700)
    step, mass = r[1] - r[0], 6.4622  # u
    waves = []
    for s in (A, X):
        depth = s["we"] ** 2 / (4 * s["wexe"])
        beta = 0.24358 * np.sqrt(mass * s["wexe"])  # per Angstrom
        potential = depth * (1 - np.exp(-beta * (r - s["re"]))) ** 2
        kinetic = 16.8576 / mass / step**2  # hbar^2 / 2 mu
        h = np.diag(potential + 2 * kinetic) - kinetic * (
            np.eye(r.size, k=1) + np.eye(r.size, k=-1)
        )
        waves.append(np.linalg.eigh(h)[1][:, : vmax + 1])
    return (waves[0].T @ waves[1]) ** 2


def cn(jmax=90):
    """Red system of CN, A 2-Pi - X 2-Sigma: f(0,0) = 0.0024, Franck-Condon factors, intermediate
    coupling."""
    q = franck_condon()
    rows = []
    for vu, vl in np.ndindex(8, 6):
        origin = vibration(A, vu) - vibration(X, vl)
        if not 5200 < origin < 11800:
            continue
        f = CN_F00 * q[vu, vl] / q[0, 0] * origin / 9117.4
        bu, bl = A["be"] - A["ae"] * (vu + 0.5), X["be"] - X["ae"] * (vl + 0.5)
        for n in range(jmax):
            low = bl * n * (n + 1) - X["d"] * (n * (n + 1)) ** 2
            for sign, j in ((1, n + 0.5), (-1, n - 0.5)):
                for k in (-1, 0, 1):
                    if j < 0.5 or j + k < 0.5:
                        continue
                    levels, vectors = mixing(bu, A_SO, j + k)
                    for level, (c3, c1) in zip(levels, vectors.T, strict=True):
                        s = (2 * j + 1) * honl_london(j, k, sign, c3, c1)
                        centrifugal = A["d"] * ((j + k) * (j + k + 1)) ** 2
                        energy = origin + level - centrifugal - low
                        rows.append(
                            (
                                1e8 / energy,
                                (vibration(X, vl) - vibration(X, 0) + low) / WAVENUMBER,
                                f * s,
                            )
                        )
    table = pd.DataFrame(rows, columns=["wavelength", "ep", "gf"])
    table = table[table.gf > 1e-7]
    table = table.assign(species="CN", loggf=np.log10(table.gf), source="HuberHerzberg1979").drop(
        columns="gf"
    )
    return table[table.loggf - 1.15 * table.ep > -3.5]


def oh(offset=-6.4):
    """First overtone of OH, P and R branches of both spins, without Lambda doubling: positions to 2
    Angstrom.

    `offset` puts the lines at 15282.7 and 15395.4 Angstrom at the strengths that the literature
    gives.
    """
    origin = np.array([0.0, 3569.64, 6973.68, 10214.05, 13287.19])
    jmax, spin_orbit = 24, -139.1

    def terms(v, j):
        b = 18.8961 - 0.7242 * (v + 0.5) + 0.0060 * (v + 0.5) ** 2
        return origin[v] + doublet_pi(b, 1.938e-3 - 4e-5 * (v + 0.5), 1.4e-7, spin_orbit, j)

    tables = []
    for v in range(3):
        j = np.arange(1.5, jmax)
        low, ground = terms(v, j), terms(0, np.array([1.5]))[0]
        for k in (-1, 1):
            gf = np.log10((2 * j + 1 + k) * (v + 1) * (v + 2) / 2) + offset
            wave = 1e8 / (terms(v + 2, j + k) - low)
            for spin in (0, 1):
                tables.append(
                    pd.DataFrame(
                        {
                            "wavelength": wave[spin],
                            "ep": (low[spin] - ground) / WAVENUMBER,
                            "loggf": gf,
                        }
                    )
                )
    return pd.concat(tables).assign(species="OH", source="HuberHerzberg1979")


def main():
    """Run the script."""
    known = read_lines()
    table = pd.concat([atoms(), hydrogen(), co(), cn(), oh()], ignore_index=True)[COLUMNS]
    new = table.wavelength.between(*RANGE) & ~table.wavelength.between(*CALIBRATED)
    there = {"H I": known.wavelength.max() + 1, "CO": 17020, "13CO": 17020}
    new &= ~(
        (table.wavelength > known.wavelength.min() - 1)
        & (table.wavelength < table.species.map(there))
    )
    table = table[new].sort_values("wavelength", kind="stable")
    table = table.round({"wavelength": 3, "ep": 3, "loggf": 3})
    table.to_csv(shipped("lines_jwst.csv"), index=False, float_format="%.3f")


if __name__ == "__main__":
    main()
