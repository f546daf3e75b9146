"""Model atmospheres of cool stars: temperature, pressure, electrons, atoms and molecules in LTE."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import constants

from labtools import settings

__all__ = ["ATOMS", "MOLECULES", "Layers", "abundances", "h_minus", "hydrostatic", "populations", "rosseland_opacity"]

K_BOLTZMANN = constants.k * 1e7  # erg / K
EV = constants.e * 1e7  # erg
HC_K = constants.h * constants.c / constants.k * 100  # cm K
M_HYDROGEN = 1.6735e-24  # g
HELIUM = 0.085  # atoms per hydrogen nucleus
SAHA = 2.4146830e15  # (2 pi m_e k / h^2)^1.5, cm^-3 K^-1.5


def _rows(name):
    """The rows of a table that ships (`labtools/data/README.md`) by the name in their first column."""
    table = pd.read_csv(settings.table(name), index_col=0, float_precision="round_trip")
    return dict(zip(table.index, table.itertuples(index=False, name="Row"), strict=True))


ATOMS, MOLECULES = _rows("atoms.csv"), _rows("molecules.csv")
DONORS = ("H", "Na", "Mg", "Al", "Si", "K", "Ca", "Fe", "Ni")


class Layers(NamedTuple):
    """State of the gas at `tau` (Rosseland): arrays (star, depth); densities in cm^-3, temperature in K."""

    tau: np.ndarray
    temperature: np.ndarray
    electrons: np.ndarray
    nuclei: np.ndarray  # hydrogen nuclei
    atoms: np.ndarray  # neutral hydrogen atoms

    def at(self, depths):
        """The layers at some of the depths (a slice)."""
        return Layers(*(array[..., depths] for array in self))


def h_minus_bound_free(wavelength, temperature):
    """Bound-free opacity of H- per hydrogen atom and electron pressure (cm^4 / dyn): John (1988), eq. 3-5.

    `wavelength` in micron, `temperature` in K (broadcast); corrected for stimulated emission.
    """
    edge, alpha = 1.6419, 1.439e4
    x = np.maximum(1 / wavelength - 1 / edge, 0)
    root = np.sqrt(x)
    series = sum(c * root**n for n, c in enumerate((152.519, 49.534, -118.858, 92.536, -34.194, 4.982)))
    cross_section = 1e-18 * wavelength**3 * x**1.5 * series
    emission = 1 - np.exp(-alpha / (wavelength * temperature))
    return 0.750 * temperature**-2.5 * np.exp(alpha / (edge * temperature)) * emission * cross_section


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


def rosseland_opacity(temperature):
    """Rosseland mean of `h_minus` (cm^4 / dyn), by quadrature in h nu / kT, interpolated in ln T."""
    grid = np.linspace(np.log(1500.0), np.log(15000.0), 120)
    u = np.linspace(1.0, 9.0, 33)
    t = np.exp(grid)[:, None]
    weight = u**4 * np.exp(u) / np.expm1(u) ** 2
    mean = weight.sum() / (weight / h_minus(1e4 * HC_K / (u * t), t)).sum(axis=1)
    return np.exp(np.interp(np.log(temperature), grid, np.log(mean)))


def scaled_solar_temperature(teff, tau):
    """T(tau) of the solar photosphere scaled to `teff`: T^4 = 3/4 Teff^4 (tau + q), K, (star, depth).

    q fits the VAL-C atmosphere (Vernazza et al. 1981) as in Sonoi et al. (2019): unlike a grey one it has
    the cool surface and the steep gradient that line blanketing and convection make.
    """
    q = 1.017 - 0.3 * np.exp(-2.54 * tau) - 0.291 * np.exp(-30 * tau)
    return np.asarray(teff)[..., None] * (0.75 * (tau + q)) ** 0.25


def _partition(element, temperature):
    row, x = ATOMS[element], temperature / 5040.0
    return row.atom * x**row.atom_power, row.ion * x**row.ion_power


def saha(temperature, energy, u_atom, u_ion):
    """n_e n_ion / n_atom (cm^-3) for an ionization `energy` in eV: Saha's equation, Gray (2005) eq. 1.20."""
    return 2 * SAHA * temperature**1.5 * u_ion / u_atom * np.exp(-energy * EV / (K_BOLTZMANN * temperature))


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


def _electrons(temperature, nuclei, abundance):
    """Electron density from charge conservation, by bisection in its logarithm; arrays (star, depth)."""
    donors = [(abundance[element][:, None] * nuclei, _ionization(element, temperature)) for element in DONORS]
    low, high = np.log(nuclei) - 40, np.log(nuclei) + 1
    for _ in range(36):
        middle = 0.5 * (low + high)
        n_e = np.exp(middle)
        excess = sum(n * k / (n_e + k) for n, k in donors) > n_e
        low, high = np.where(excess, middle, low), np.where(excess, high, middle)
    return np.exp(0.5 * (low + high))


def _equation_of_state(temperature, pressure, abundance):
    """(electrons, nuclei, neutral H) of hydrogen (H, H2) and helium; ions count as atoms in the pressure."""
    total = pressure / (K_BOLTZMANN * temperature)
    k_h2 = dissociation("H2", temperature)
    atoms = total / (1 + HELIUM)
    for _ in range(6):  # total = atoms + atoms^2/K + HELIUM (atoms + 2 atoms^2/K): Newton
        square = atoms**2 / k_h2
        excess = atoms * (1 + HELIUM) + square * (1 + 2 * HELIUM) - total
        atoms = atoms - excess / (1 + HELIUM + 2 * square / atoms * (1 + 2 * HELIUM))
    nuclei = atoms + 2 * atoms**2 / k_h2
    n_e = _electrons(temperature, nuclei, abundance)
    return n_e, nuclei, atoms / (1 + _ionization("H", temperature) / n_e)


def hydrostatic(teff, logg, abundance, tau):
    """Plane-parallel atmospheres in hydrostatic equilibrium, dP/dtau = g / kappa, with H- opacity.

    `teff`, `logg`: (star,); `abundance`: element -> atoms per hydrogen nucleus (star,); `tau`: (depth,).
    Returns `Layers`. The pressure is iterated with its geometric mean, since kappa grows about as P.
    """
    temperature = scaled_solar_temperature(teff, tau)
    mass = (1 + 4 * HELIUM) * M_HYDROGEN * 10.0 ** np.asarray(logg)[:, None]
    opacity = rosseland_opacity(temperature)
    pressure = 1e4 * tau**0.6 * np.ones_like(temperature)
    for _ in range(9):
        n_e, nuclei, atoms = _equation_of_state(temperature, pressure, abundance)
        slope = mass * nuclei * tau / (opacity * n_e * K_BOLTZMANN * temperature * atoms)
        step = np.diff(np.log(tau)) * 0.5 * (slope[:, 1:] + slope[:, :-1])
        new = np.cumsum(np.concatenate([slope[:, :1] / 0.6, step], axis=1), axis=1)
        pressure = np.sqrt(pressure * new)
    return Layers(tau, temperature, *_equation_of_state(temperature, pressure, abundance))


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
    k_n2 = dissociation("N2", t)
    free["N"] = 2 * free["N"] / (1 + np.sqrt(1 + 8 * free["N"] / k_n2))
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
    numbers = {e: (10 ** (ATOMS[e].abundance - 12 + labels["fe_h"] + x)).to_numpy() for e, x in ratios.items()}
    return numbers | {"H": np.ones(len(labels))}
