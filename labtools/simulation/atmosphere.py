"""Model atmospheres of cool stars: temperature, pressure, electrons, atoms and molecules in LTE."""

from dataclasses import dataclass

import numpy as np
from scipy import constants

__all__ = ["ATOMS", "MOLECULES", "Layers", "h_minus", "hydrostatic", "populations", "rosseland_opacity"]

K_BOLTZMANN = constants.k * 1e7  # erg / K
EV = constants.e * 1e7  # erg
HC_K = constants.h * constants.c / constants.k * 100  # cm K
M_HYDROGEN = 1.6735e-24  # g
HELIUM = 0.085  # atoms per hydrogen nucleus
SAHA = 2.4146830e15  # (2 pi m_e k / h^2)^1.5, cm^-3 K^-1.5

# Element: abundance (Asplund et al. 2009, log N_H = 12), ionization energy (eV), mass (u), partition function
# of the atom at 5040 K, the power of T with which it grows, both for the ion (rounded; Gray 2005, table D.2).
ATOMS = {
    "H": (12.00, 13.598, 1.008, 2.0, 0.0, 1.0, 0.0),
    "C": (8.43, 11.260, 12.011, 9.3, 0.05, 6.0, 0.0),
    "N": (7.83, 14.534, 14.007, 4.1, 0.1, 9.0, 0.0),
    "O": (8.69, 13.618, 15.999, 8.7, 0.05, 4.0, 0.0),
    "Na": (6.24, 5.139, 22.990, 2.04, 0.1, 1.0, 0.0),
    "Mg": (7.60, 7.646, 24.305, 1.01, 0.05, 2.0, 0.0),
    "Al": (6.45, 5.986, 26.982, 5.8, 0.03, 1.0, 0.0),
    "Si": (7.51, 8.152, 28.086, 9.3, 0.12, 5.7, 0.0),
    "S": (7.12, 10.360, 32.06, 8.9, 0.1, 4.1, 0.1),
    "K": (5.03, 4.341, 39.098, 2.15, 0.2, 1.0, 0.0),
    "Ca": (6.34, 6.113, 40.078, 1.15, 0.6, 2.2, 0.3),
    "Ti": (4.95, 6.828, 47.867, 30.0, 1.6, 56.0, 0.5),
    "V": (3.93, 6.746, 50.942, 46.0, 1.3, 43.0, 0.9),
    "Cr": (5.64, 6.767, 51.996, 10.4, 0.9, 7.2, 0.6),
    "Mn": (5.43, 7.434, 54.938, 6.4, 0.35, 7.8, 0.3),
    "Fe": (7.50, 7.902, 55.845, 27.0, 1.0, 43.0, 0.5),
    "Co": (4.99, 7.881, 58.933, 33.0, 0.9, 29.0, 0.7),
    "Ni": (6.22, 7.640, 58.693, 30.0, 0.3, 10.7, 0.7),
    "Cu": (4.19, 7.726, 63.546, 2.3, 0.5, 1.0, 0.1),
}
DONORS = ("H", "Na", "Mg", "Al", "Si", "K", "Ca", "Fe", "Ni")

# Molecule: atoms, dissociation energy D0 (eV), vibration omega_e and rotation B_e (cm^-1), statistical weight
# of the ground state, symmetry number, mass (u). Huber & Herzberg (1979); D0 of CN from Costes et al. (1990).
MOLECULES = {
    "H2": ("H", "H", 4.478, 4401.2, 60.85, 1.0, 2.0, 2.016),
    "CO": ("C", "O", 11.092, 2169.8, 1.931, 1.0, 1.0, 28.01),
    "OH": ("H", "O", 4.392, 3737.8, 18.91, 4.0, 1.0, 17.01),
    "CN": ("C", "N", 7.738, 2068.6, 1.900, 2.0, 1.0, 26.02),
    "N2": ("N", "N", 9.759, 2358.6, 1.998, 1.0, 2.0, 28.01),
}


@dataclass(frozen=True)
class Layers:
    """State of the gas at `tau` (Rosseland): arrays (star, depth); densities in cm^-3, temperature in K."""

    tau: np.ndarray
    temperature: np.ndarray
    electrons: np.ndarray
    nuclei: np.ndarray  # hydrogen nuclei
    atoms: np.ndarray  # neutral hydrogen atoms

    def at(self, depths):
        """The layers at some of the depths (a slice)."""
        arrays = (self.temperature, self.electrons, self.nuclei, self.atoms)
        return Layers(self.tau[depths], *(a[:, depths] for a in arrays))


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
    _, _, _, atom, atom_power, ion, ion_power = ATOMS[element]
    x = temperature / 5040.0
    return atom * x**atom_power, ion * x**ion_power


def saha(temperature, energy, u_atom, u_ion):
    """n_e n_ion / n_atom (cm^-3) for an ionization `energy` in eV: Saha's equation, Gray (2005) eq. 1.20."""
    return 2 * SAHA * temperature**1.5 * u_ion / u_atom * np.exp(-energy * EV / (K_BOLTZMANN * temperature))


def dissociation(molecule, temperature):
    """n_A n_B / n_AB (cm^-3) of a molecule taken as rigid rotator and harmonic oscillator (Tatum 1966)."""
    a, b, energy = MOLECULES[molecule][:3]
    reduced = ATOMS[a][2] * ATOMS[b][2] / (ATOMS[a][2] + ATOMS[b][2])
    atoms = _partition(a, temperature)[0] * _partition(b, temperature)[0]
    translation = SAHA * (reduced * 1822.89 * temperature) ** 1.5
    boltzmann = np.exp(-energy * EV / (K_BOLTZMANN * temperature))
    return translation * atoms / molecular_partition(molecule, temperature) * boltzmann


def molecular_partition(molecule, temperature):
    """Partition function of a molecule from its ground level up; CN with its A state at 9243 cm^-1."""
    _, _, _, vibration, rotation, weight, symmetry, _ = MOLECULES[molecule]
    if molecule == "CN":
        weight = weight + 4 * np.exp(-HC_K * 9243.3 / temperature)
    rotator = temperature / (HC_K * rotation * symmetry)
    return weight * rotator / -np.expm1(-HC_K * vibration / temperature)


def _electrons(temperature, nuclei, abundance):
    """Electron density from charge conservation, by bisection in its logarithm; arrays (star, depth)."""
    donors = []
    for element in DONORS:
        constant = saha(temperature, ATOMS[element][1], *_partition(element, temperature))
        donors.append((abundance[element][:, None] * nuclei, constant))
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
    ions = saha(temperature, ATOMS["H"][1], 2.0, 1.0) / n_e
    return n_e, nuclei, atoms / (1 + ions)


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
        u_atom, u_ion = _partition(element, t)
        ions = 0 if element == "H" else saha(t, ATOMS[element][1], u_atom, u_ion) / layers.electrons
        result[element] = np.log(free[element] / ((1 + ions) * u_atom * n_h))
    for molecule in ("OH", "CO", "CN"):
        a, b = MOLECULES[molecule][:2]
        n = free[a] * free[b] / dissociation(molecule, t)
        result[molecule] = np.log(n / (molecular_partition(molecule, t) * n_h))
    return result
