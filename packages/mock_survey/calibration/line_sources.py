"""Lines known beforehand (literature, Rydberg's formula, CO from constants); lists of others."""

from pathlib import Path

import numpy as np
import pandas as pd
import tables

from mock_survey.tables import table

__all__ = [
    "COLUMNS",
    "RARER",
    "WAVENUMBER",
    "air_to_vacuum",
    "co_lines",
    "hydrogen_lines",
    "name_lines",
    "read_lists",
    "start_lines",
]

KNOWN = table("known_lines.csv")
WAVENUMBER = 8065.544  # cm^-1 in an electronvolt
RARER = np.sqrt(
    (12 * 15.9949 / 27.9949) / (13.00335 * 15.9949 / 28.99825)
)  # sqrt(mu / mu') of 13CO
COLUMNS = ["species", "wavelength", "ep", "loggf", "source"]
MATCH = 0.12  # Angstrom within which a listed line names a minimum
# Names in the line lists that a template may stand for.
LISTED = {
    "Fe": ("FE I",),
    "Si": ("SI I",),
    "Ti": ("TI I",),
    "Ca": ("CA I",),
    "OH": ("OH",),
    "CN": ("CN",),
}


def air_to_vacuum(wavelength):
    """Vacuum wavelength (Angstrom) of an air wavelength: Ciddor (1996) as in SDSS, inverted by
    iteration."""
    vacuum = np.asarray(wavelength, dtype=float)
    for _ in range(4):
        s2 = (1e4 / vacuum) ** 2
        vacuum = wavelength * (1 + 0.05792105 / (238.0185 - s2) + 0.00167917 / (57.362 - s2))
    return vacuum


def hydrogen_lines(low, ep, upper):
    """Lines `low` - n of hydrogen, n in `upper`: Rydberg wavelengths in vacuum; oscillator
    strengths by Kramers."""
    n = np.asarray(upper)
    inverse = 1 / low**2 - 1 / n**2
    gf = 2 * low**2 * 32 / (3 * np.pi * np.sqrt(3)) * inverse**-3 / (low**5 * n**3.0)
    wavelength = 1e8 / (109677.58 * inverse)
    lines = pd.DataFrame(
        {"species": "H I", "wavelength": wavelength, "ep": ep, "loggf": np.log10(gf)}
    )
    return lines.assign(source="Rydberg")


def co_lines(species, isotope, offset, levels=10):
    """The second overtone of CO from Dunham constants (Huber & Herzberg 1979); `isotope` = sqrt(mu
    / mu').

    Band strengths grow as those of a harmonic oscillator from log gf = `offset` of 3-0 (J = 1). The
    fourth constant of vibration, 7.6e-5 cm^-1, puts the observed heads of 5-2 to 8-5 within a tenth
    of an Angstrom.
    """
    rho = isotope

    def term(v, j):
        x, y = v + 0.5, j * (j + 1.0)
        vibration = (
            2169.81358 * rho * x
            - 13.28831 * (rho * x) ** 2
            + 0.010511 * (rho * x) ** 3
            + 7.6e-5 * (rho * x) ** 4
        )
        rotation = (1.93128087 * rho**2 - 0.01750441 * rho**3 * x) * y
        return vibration + rotation - 6.12147e-6 * rho**4 * y**2 + 5.8e-12 * rho**6 * y**3

    v, j = (a.ravel() for a in np.meshgrid(np.arange(levels), np.arange(110), indexing="ij"))
    lower = term(v, j) - term(0, 0)
    rows = []
    for step, honl_london in ((1, j + 1.0), (-1, 1.0 * j)):
        good = j + step >= 0
        wave = 1e8 / (term(v + 3, j + step) - term(v, j))[good]
        band = (v + 1) * (v + 2) * (v + 3) / 6
        gf = 10**offset * band * honl_london
        rows.append(np.c_[wave, (lower / WAVENUMBER)[good], np.log10(gf[good] + 1e-30)])
    lines = pd.DataFrame(np.concatenate(rows), columns=["wavelength", "ep", "loggf"])
    return lines[lines["loggf"] - 1.30 * lines["ep"] > -9.0].assign(
        species=species, source="HuberHerzberg1979"
    )[COLUMNS]


def start_lines():
    """The lines whose positions are known beforehand, with the width of the prior on their
    strength.

    The strong Mg triplet keeps its literature strength: it fits, and the label [Mg/Fe] hangs on it.
    """
    co = pd.concat([co_lines("CO", 1.0, -9.27), co_lines("13CO", RARER, -9.27 - 1.2)])
    co = co[co["wavelength"].between(15080, 17020)]
    known = pd.read_csv(KNOWN)
    known["width"] = np.where(known["species"] == "Si I", 0.1, 0.25)
    known.loc[(known["species"] == "Mg I") & (known["loggf"] > -0.5), "width"] = 0.01
    lines = pd.concat(
        [known, hydrogen_lines(4, 12.749, range(10, 26)).assign(width=0.01), co.assign(width=0.15)]
    )
    lines = lines.sort_values("wavelength", kind="stable", ignore_index=True)
    return lines.assign(free=False, excess=0.0, prior=lines["loggf"])


def read_lists(folder):
    """Vacuum wavelengths of the listed lines of each template's carrier."""
    result = {}
    for name in ("APOGEE_ATOMS.hdf5", "APOGEE_MOLEC.hdf5"):
        with tables.open_file(Path(folder) / name) as file:
            nodes = {node._v_name: node[:] for node in file.list_nodes("/")}
        for carrier, listed in LISTED.items():
            for n in listed:
                if n in nodes:
                    result[carrier] = np.sort(air_to_vacuum(nodes[n]))
    return result


def name_lines(lines, lists):
    """Name a free line after its carrier where a list has one within `MATCH`; else it stays in
    question."""
    lines = lines.copy()
    for i in np.flatnonzero(lines["free"]):
        carrier, wave = lines.at[i, "species"].removeprefix("?"), lines.at[i, "wavelength"]
        if carrier in lists and np.abs(lists[carrier] - wave).min() < MATCH:
            atom = "" if carrier in ("OH", "CN", "CO") else " I"
            lines.loc[i, ["species", "source"]] = [carrier + atom, "linelist"]
    return lines
