"""Photospheres of cool stars from the MARCS grid; their atoms, ions and molecules in LTE."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import constants
from scipy.interpolate import make_interp_spline

from mock_survey.tables import table as shipped

__all__ = ["ATOMS", "MOLECULES", "Layers", "abundances", "h_minus", "photosphere", "populations"]

K_BOLTZMANN = constants.k * 1e7  # erg / K
EV = constants.e * 1e7  # erg
HC_K = constants.h * constants.c / constants.k * 100  # cm K
SAHA = 2.4146830e15  # (2 pi m_e k / h^2)^1.5, cm^-3 K^-1.5


def _rows(name):
    """The rows of a table that ships (`labtools/data/README.md`) by the name in their first column."""
    table = pd.read_csv(shipped(name), index_col=0, float_precision="round_trip")
    return dict(zip(table.index, table.itertuples(index=False, name="Row"), strict=True))


ATOMS, MOLECULES = _rows("atoms.csv"), _rows("molecules.csv")
DONORS = ("Na", "Mg", "Al", "Si", "K", "Ca", "Fe", "Ni")  # of electrons
with np.load(shipped("marcs.npz")) as _archive:
    GRID = {name: _archive[name].astype(float) for name in _archive.files}


class Layers(NamedTuple):
    """State of the gas in the cells of photospheres: arrays (star, cell)."""

    temperature: np.ndarray  # K
    electrons: np.ndarray  # cm^-3
    nuclei: np.ndarray  # of hydrogen, cm^-3
    column: np.ndarray  # hydrogen nuclei in the cell, cm^-2
    atoms: np.ndarray  # neutral hydrogen, cm^-3


def h_minus_bound_free(wavelength, temperature):
    """Bound-free opacity of H- per hydrogen atom and electron pressure (cm^4 / dyn): John (1988), eq. 3-5.

    `wavelength` in micron, `temperature` in K (broadcast); corrected for stimulated emission.
    """
    edge, alpha = 1.6419, 1.439e4
    x = np.maximum(1 / wavelength - 1 / edge, 0)
    root = np.sqrt(x)
    series = sum(
        c * root**n for n, c in enumerate((152.519, 49.534, -118.858, 92.536, -34.194, 4.982))
    )
    cross_section = 1e-18 * wavelength**3 * x**1.5 * series
    emission = 1 - np.exp(-alpha / (wavelength * temperature))
    return (
        0.750 * temperature**-2.5 * np.exp(alpha / (edge * temperature)) * emission * cross_section
    )


def h_minus_free_free(wavelength, temperature):
    """Free-free opacity of H- (cm^4 / dyn): John (1988), eq. 6 and table 3a, for more than 0.3645 micron."""
    table = (
        (2483.3460, 285.8270, -2054.2910, 2827.7760, -1341.5370, 208.9520),
        (-3449.8890, -1158.3820, 8746.5230, -11485.6320, 5303.6090, -812.9390),
        (2200.0400, 2427.7190, -13651.1050, 16755.5240, -7510.4940, 1132.7380),
        (-696.2710, -1841.4000, 8624.9700, -10051.5300, 4400.0670, -655.0200),
        (88.2830, 444.5170, -1863.8640, 2095.2880, -901.7880, 132.9850),
    )
    w = np.maximum(wavelength, 0.3645)
    theta = 5040.0 / temperature
    powers = (w**2, 1.0, 1 / w, w**-2.0, w**-3.0, w**-4.0)
    terms = (
        theta ** ((n + 1) / 2) * sum(c * p for c, p in zip(row, powers, strict=True))
        for n, row in enumerate(table, start=2)
    )
    return 1e-29 * sum(terms)


def h_minus(wavelength, temperature):
    """Total opacity of H- (cm^4 / dyn) at `wavelength` (micron)."""
    return h_minus_bound_free(wavelength, temperature) + h_minus_free_free(wavelength, temperature)


def _partition(element, temperature):
    row, x = ATOMS[element], temperature / 5040.0
    return row.atom * x**row.atom_power, row.ion * x**row.ion_power


def saha(temperature, energy, u_atom, u_ion):
    """n_e n_ion / n_atom (cm^-3) for an ionization `energy` in eV: Saha's equation, Gray (2005) eq. 1.20."""
    return (
        2
        * SAHA
        * temperature**1.5
        * u_ion
        / u_atom
        * np.exp(-energy * EV / (K_BOLTZMANN * temperature))
    )


def _ionization(element, temperature):
    """Saha's ratio (cm^-3) of the first ions of an element to its atoms."""
    return saha(temperature, ATOMS[element].ionization, *_partition(element, temperature))


def dissociation(molecule, temperature):
    """n_A n_B / n_AB (cm^-3) of a molecule taken as rigid rotator and harmonic oscillator (Tatum 1966)."""
    a, b, energy = MOLECULES[molecule][:3]
    reduced = ATOMS[a].mass * ATOMS[b].mass / (ATOMS[a].mass + ATOMS[b].mass)
    atoms = _partition(a, temperature)[0] * _partition(b, temperature)[0]
    translation = SAHA * (reduced * 1822.89 * temperature) ** 1.5
    boltzmann = np.exp(-energy * EV / (K_BOLTZMANN * temperature))
    return translation * atoms / molecular_partition(molecule, temperature) * boltzmann


def molecular_partition(molecule, temperature):
    """Partition function of a molecule from its ground level up; CN with its A state at 9243 cm^-1."""
    row = MOLECULES[molecule]
    weight = row.weight + (4 * np.exp(-HC_K * 9243.3 / temperature) if molecule == "CN" else 0)
    rotator = temperature / (HC_K * row.rotation * row.symmetry)
    return weight * rotator / -np.expm1(-HC_K * row.vibration / temperature)


def _unpaired(nuclei, constant):
    """Density of atoms that remain beside molecules of two of them; `constant` is that of their dissociation."""
    return 2 * nuclei / (1 + np.sqrt(1 + 8 * nuclei / constant))


def photosphere(teff, logg, abundance):
    """Photospheres between those of the MARCS grid (Gustafsson et al. 2008), by cubic splines: `Layers`.

    `teff` (K), `logg`: (star,); `abundance`: element -> atoms per hydrogen nucleus (star,). The metallicity of a
    model is that of the metals that give electrons. Beyond the grid its edge is taken.
    """
    solar = sum(10 ** (ATOMS[element].abundance - 12) for element in DONORS)
    metals = np.log10(sum(abundance[element] for element in DONORS) / solar)
    weights = [
        make_interp_spline(GRID[name], np.eye(len(GRID[name])))(
            np.clip(x, GRID[name][0], GRID[name][-1])
        )
        for name, x in (("teff", teff), ("logg", logg), ("metals", metals))
    ]
    values = np.einsum("st,sg,sm,tgmcq->qsc", *weights, GRID["cells"], optimize=True)
    temperature = teff[:, None] * values[0]
    electrons, nuclei, column = np.exp(values[1:])
    neutral = _unpaired(nuclei, dissociation("H2", temperature)) / (
        1 + _ionization("H", temperature) / electrons
    )
    return Layers(temperature, electrons, nuclei, column, neutral)


def populations(layers, abundance):
    """ln(n / U) per hydrogen nucleus of every atom and of OH, CO and CN: dict species -> (star, depth).

    C, N and O are shared between atoms, CO, OH, CN and N2; the trace molecules take nothing back from CO.
    """
    t, n_h = layers.temperature, layers.nuclei
    free = {e: abundance[e][:, None] * n_h for e in ATOMS}
    hydroxyl = 1 + layers.atoms / dissociation("OH", t)
    k_co = dissociation("CO", t) * hydroxyl
    b = free["C"] + free["O"] + k_co
    bound = 2 * free["C"] * free["O"] / (b + np.sqrt(b**2 - 4 * free["C"] * free["O"]))
    free["C"], free["O"] = free["C"] - bound, (free["O"] - bound) / hydroxyl
    free["N"] = _unpaired(free["N"], dissociation("N2", t))
    free["H"] = layers.atoms
    result = {}
    for element in ATOMS:
        ions = 0 if element == "H" else _ionization(element, t) / layers.electrons
        result[element] = np.log(free[element] / ((1 + ions) * _partition(element, t)[0] * n_h))
    for molecule in ("OH", "CO", "CN"):
        a, b = MOLECULES[molecule][:2]
        n = free[a] * free[b] / dissociation(molecule, t)
        result[molecule] = np.log(n / (molecular_partition(molecule, t) * n_h))
    return result


def abundances(labels):
    """Atoms per hydrogen nucleus of stars with labels that are complete: element -> (star,)."""
    ratios = {e: labels[f"{e.lower()}_fe"] for e in ATOMS if e not in ("H", "Fe")} | {"Fe": 0.0}
    numbers = {
        e: (10 ** (ATOMS[e].abundance - 12 + labels["fe_h"] + x)).to_numpy()
        for e, x in ratios.items()
    }
    return numbers | {"H": np.ones(len(labels))}
