"""Photospheres of cool stars from the MARCS grid; their atoms, ions and molecules in LTE."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import constants
from scipy.interpolate import make_interp_spline

from mock_survey.tables import table

__all__ = [
    "ATOMS",
    "MOLECULES",
    "Layers",
    "abundances",
    "dissociation",
    "h_minus",
    "h_minus_bound_free",
    "h_minus_free_free",
    "molecular_partition",
    "photosphere",
    "populations",
    "saha",
]

K_BOLTZMANN = constants.k * 1e7  # erg / K
EV = constants.e * 1e7  # erg
HC_K = constants.h * constants.c / constants.k * 100  # cm K
SAHA = 2.4146830e15  # (2 pi m_e k / h^2)^1.5, cm^-3 K^-1.5
ELECTRON_MASSES = 1822.89  # in an atomic unit of mass
CN_UPPER = 9243.3  # cm^-1, energy of the A state of CN

Abundance = dict[str, np.ndarray]
"""Element -> atoms per hydrogen nucleus, (star,)."""


def _read_rows(name: str) -> dict[str, Any]:
    """The rows of a table that ships (`data/README.md`) by the name in their first column."""
    rows = pd.read_csv(table(name), index_col=0, float_precision="round_trip")
    return dict(zip(rows.index, rows.itertuples(index=False, name="Row"), strict=True))


ATOMS = _read_rows("atoms.csv")
"""Element -> its row in ``data/atoms.csv``."""

MOLECULES = _read_rows("molecules.csv")
"""Molecule -> its row in ``data/molecules.csv``."""

DONORS = ("Na", "Mg", "Al", "Si", "K", "Ca", "Fe", "Ni")  # of electrons
with np.load(table("marcs.npz")) as _archive:
    GRID = {name: _archive[name].astype(float) for name in _archive.files}


class Layers(NamedTuple):
    """State of the gas in the cells of photospheres: arrays (star, cell)."""

    temperature: np.ndarray  # K
    electrons: np.ndarray  # cm^-3
    nuclei: np.ndarray  # of hydrogen, cm^-3
    column: np.ndarray  # hydrogen nuclei in the cell, cm^-2
    atoms: np.ndarray  # neutral hydrogen, cm^-3


def h_minus_bound_free(wavelength: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Bound-free opacity of H- per hydrogen atom and electron pressure, with stimulated emission.

    Parameters
    ----------
    wavelength : numpy.ndarray
        Micron.
    temperature : numpy.ndarray
        K, of a shape that broadcasts with `wavelength`.

    Returns
    -------
    numpy.ndarray
        cm^4 / dyn; 0 beyond the edge at 1.64 micron.

    References
    ----------
    John 1988, A&A 193, 189, eq. 3-5.

    Examples
    --------
    >>> float(h_minus_bound_free(1.7, 5000.0))
    0.0
    """
    edge, alpha = 1.6419, 1.439e4
    x = np.maximum(1 / wavelength - 1 / edge, 0)
    root = np.sqrt(x)
    coefficients = (152.519, 49.534, -118.858, 92.536, -34.194, 4.982)
    series = sum(c * root**n for n, c in enumerate(coefficients))
    cross_section = 1e-18 * wavelength**3 * x**1.5 * series
    emission = 1 - np.exp(-alpha / (wavelength * temperature))
    factor = 0.750 * temperature**-2.5 * np.exp(alpha / (edge * temperature))
    return factor * emission * cross_section


def h_minus_free_free(wavelength: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Free-free opacity of H- per hydrogen atom and electron pressure.

    Parameters
    ----------
    wavelength : numpy.ndarray
        Micron; below 0.3645 that value is taken.
    temperature : numpy.ndarray
        K, of a shape that broadcasts with `wavelength`.

    Returns
    -------
    numpy.ndarray
        cm^4 / dyn.

    References
    ----------
    John 1988, A&A 193, 189, eq. 6 and table 3a.

    Examples
    --------
    >>> print(f"{h_minus_free_free(1.6, 5000.0):.2e}")
    1.69e-26
    """
    # Rows: powers of theta; columns: powers of the wavelength.
    coefficients = (
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
        for n, row in enumerate(coefficients, start=2)
    )
    return 1e-29 * sum(terms)


def h_minus(wavelength: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """Total opacity of H- per hydrogen atom and electron pressure.

    Parameters
    ----------
    wavelength : numpy.ndarray
        Micron.
    temperature : numpy.ndarray
        K.

    Returns
    -------
    numpy.ndarray
        cm^4 / dyn.

    Examples
    --------
    The least of it at 1.6 micron is why cool stars are observed there:

    >>> bool(h_minus(1.6, 5000.0) < min(h_minus(1.3, 5000.0), h_minus(2.0, 5000.0)))
    True
    """
    return h_minus_bound_free(wavelength, temperature) + h_minus_free_free(wavelength, temperature)


def _partition(element: str, temperature: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Partition functions of the atoms and of the first ions of an element."""
    row, x = ATOMS[element], temperature / 5040.0
    return row.atom * x**row.atom_power, row.ion * x**row.ion_power


def saha(
    temperature: np.ndarray, energy: float, u_atom: np.ndarray, u_ion: np.ndarray
) -> np.ndarray:
    """Electrons times ions over atoms in equilibrium: Saha's equation.

    Parameters
    ----------
    temperature : numpy.ndarray
        K.
    energy : float
        Of ionization, eV.
    u_atom, u_ion : numpy.ndarray
        Partition functions.

    Returns
    -------
    numpy.ndarray
        n_e n_ion / n_atom, cm^-3.

    References
    ----------
    Gray 2005, The Observation and Analysis of Stellar Photospheres, eq. 1.20.

    Examples
    --------
    Sodium at 5040 K:

    >>> print(f"{saha(5040.0, 5.139, 2.04, 1.0):.1e}")
    6.2e+15
    """
    boltzmann = np.exp(-energy * EV / (K_BOLTZMANN * temperature))
    return 2 * SAHA * temperature**1.5 * u_ion / u_atom * boltzmann


def _ionization(element: str, temperature: np.ndarray) -> np.ndarray:
    """Saha's ratio (cm^-3) of the first ions of an element to its atoms."""
    return saha(temperature, ATOMS[element].ionization, *_partition(element, temperature))


def dissociation(molecule: str, temperature: np.ndarray) -> np.ndarray:
    """The product of the densities of two atoms over that of their molecule in equilibrium.

    The molecule is taken as a rigid rotator and harmonic oscillator.

    Parameters
    ----------
    molecule : str
        A row of ``data/molecules.csv``.
    temperature : numpy.ndarray
        K.

    Returns
    -------
    numpy.ndarray
        n_A n_B / n_AB, cm^-3.

    References
    ----------
    Tatum 1966, Publ. Dominion Astrophys. Obs. 13, 1.

    Examples
    --------
    CO is bound more tightly than OH:

    >>> bool(dissociation("CO", 4000.0) < 1e-6 * dissociation("OH", 4000.0))
    True
    """
    first, second, energy = MOLECULES[molecule][:3]
    mass, other = ATOMS[first].mass, ATOMS[second].mass
    reduced = mass * other / (mass + other)
    atoms = _partition(first, temperature)[0] * _partition(second, temperature)[0]
    translation = SAHA * (reduced * ELECTRON_MASSES * temperature) ** 1.5
    boltzmann = np.exp(-energy * EV / (K_BOLTZMANN * temperature))
    return translation * atoms / molecular_partition(molecule, temperature) * boltzmann


def molecular_partition(molecule: str, temperature: np.ndarray) -> np.ndarray:
    """Partition function of a molecule from its ground level up; of CN with its A state.

    Parameters
    ----------
    molecule : str
        A row of ``data/molecules.csv``.
    temperature : numpy.ndarray
        K.

    Examples
    --------
    >>> round(float(molecular_partition("CO", 4000.0)))
    2657
    """
    row = MOLECULES[molecule]
    weight = row.weight
    if molecule == "CN":
        weight = weight + 4 * np.exp(-HC_K * CN_UPPER / temperature)
    rotator = temperature / (HC_K * row.rotation * row.symmetry)
    return weight * rotator / -np.expm1(-HC_K * row.vibration / temperature)


def _unpaired(nuclei: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Density of atoms that remain beside molecules of two of them.

    `constant` is that of their dissociation. The root of n + 2 n^2 / constant = nuclei, in the form
    that does not cancel.
    """
    return 2 * nuclei / (1 + np.sqrt(1 + 8 * nuclei / constant))


def photosphere(teff: np.ndarray, logg: np.ndarray, abundance: Abundance) -> Layers:
    """Photospheres between those of the MARCS grid, by cubic splines; beyond the grid its edge is
    taken.

    Parameters
    ----------
    teff : numpy.ndarray of shape (star,)
        K.
    logg : numpy.ndarray of shape (star,)
        dex, cgs.
    abundance : dict
        Of `abundances`. The metallicity of a model is that of the metals that give electrons.

    Returns
    -------
    Layers

    References
    ----------
    Gustafsson et al. 2008, A&A 486, 951.

    Examples
    --------
    The temperature grows inwards through the cells of a Sun:

    >>> names = [f"{element.lower()}_fe" for element in ATOMS] + ["fe_h"]
    >>> sun = abundances(pd.DataFrame(dict.fromkeys(names, [0.0])))
    >>> photosphere(np.array([5772.0]), np.array([4.44]), sun).temperature.round(-2)
    array([[4400., 4500., 4600., 4800., 5000., 5400., 6200., 7900.]])
    """
    solar = sum(10 ** (ATOMS[element].abundance - 12) for element in DONORS)
    metals = np.log10(sum(abundance[element] for element in DONORS) / solar)
    # A spline is linear in the values it goes through: weights (star, grid point) along each axis.
    weights = [
        make_interp_spline(GRID[name], np.eye(len(GRID[name])))(
            np.clip(x, GRID[name][0], GRID[name][-1])
        )
        for name, x in (("teff", teff), ("logg", logg), ("metals", metals))
    ]
    # s star; t, g, m the grid's Teff, log g and metals; c cell; q quantity
    values = np.einsum("st,sg,sm,tgmcq->qsc", *weights, GRID["cells"], optimize=True)
    temperature = teff[:, None] * values[0]
    electrons, nuclei, column = np.exp(values[1:])
    unpaired = _unpaired(nuclei, dissociation("H2", temperature))
    neutral = unpaired / (1 + _ionization("H", temperature) / electrons)
    return Layers(temperature, electrons, nuclei, column, neutral)


def populations(layers: Layers, abundance: Abundance) -> dict[str, np.ndarray]:
    """How many particles of each kind there are to absorb.

    C, N and O are shared between atoms, CO, OH, CN and N2; the trace molecules take nothing back
    from CO.

    Parameters
    ----------
    layers : Layers
        The gas.
    abundance : dict
        Of `abundances`.

    Returns
    -------
    dict
        Atom or molecule (OH, CO, CN) -> ln of its density over its partition function, per hydrogen
        nucleus, (star, cell).

    Examples
    --------
    >>> names = [f"{element.lower()}_fe" for element in ATOMS] + ["fe_h"]
    >>> sun = abundances(pd.DataFrame(dict.fromkeys(names, [0.0])))
    >>> gas = photosphere(np.array([4000.0]), np.array([1.5]), sun)
    >>> populations(gas, sun)["CO"].shape
    (1, 8)
    """
    t, n_h = layers.temperature, layers.nuclei
    free = {element: abundance[element][:, None] * n_h for element in ATOMS}

    # CO takes what it can; where oxygen is left, part of that is in OH.
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
        first, second = MOLECULES[molecule][:2]
        density = free[first] * free[second] / dissociation(molecule, t)
        result[molecule] = np.log(density / (molecular_partition(molecule, t) * n_h))
    return result


def abundances(labels: pd.DataFrame) -> Abundance:
    """Atoms per hydrogen nucleus.

    Parameters
    ----------
    labels : pandas.DataFrame
        One row per star, complete (see `mock_survey.synthesis.complete_labels`).

    Returns
    -------
    dict
        Element -> array (star,).

    Examples
    --------
    >>> sun = pd.DataFrame({f"{e.lower()}_fe": [0.0] for e in ATOMS} | {"fe_h": [0.0]})
    >>> print(f"{abundances(sun)['Fe'][0]:.2e}")
    3.16e-05
    """
    ratios = {e: labels[f"{e.lower()}_fe"] for e in ATOMS if e not in ("H", "Fe")} | {"Fe": 0.0}
    numbers = {
        element: (10 ** (ATOMS[element].abundance - 12 + labels["fe_h"] + ratio)).to_numpy()
        for element, ratio in ratios.items()
    }
    return numbers | {"H": np.ones(len(labels))}
