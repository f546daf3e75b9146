"""Near-infrared spectra of cool giants from labels: LTE line formation in MARCS photospheres.

From the labels to a spectrum in five steps, which `_synthesize_chunk` takes for some stars at a
time:

1. the photosphere of each star, eight cells deep (`mock_survey.atmosphere`);
2. the optical depth of every line in every cell, with its strength in atoms or molecules, its
   Doppler width and its damping (`_line_depths`);
3. the weight that each cell has in the light of the continuum (`_continuum_weights`);
4. the lines spread over a fine grid of wavelengths and the cells added up (`_absorption`);
5. macroturbulence and the spectrograph's resolution (`_observe`).

What depends on the wavelengths alone is computed once, as a `LineModel`.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy import fft, sparse
from scipy.special import dawsn

from apogee_archive.columns import LABELS
from apogee_archive.grid import LIGHT, WAVELENGTH
from mock_survey import atmosphere
from mock_survey.atmosphere import ATOMS, EV, HC_K, K_BOLTZMANN, MOLECULES, Layers
from mock_survey.tables import table

__all__ = ["complete_labels", "read_lines", "synthesize"]

MODEL = 2
"""Raise this whenever the same labels and lines give other spectra: the keys of all that is
simulated hold it."""

LINE_TABLE = table("lines.csv")
MODEL_TABLES = [LINE_TABLE, *map(table, ("atoms.csv", "molecules.csv", "marcs.npz"))]
"""All tables that a spectrum depends on."""

LIMITS = {"teff": (3000, 7500), "logg": (-1, 5.5), "fe_h": (-4, 1)}
"""Labels (K, dex, dex) beyond which the model means nothing."""

FINE_STEP = np.log(10) * 6e-6 / 3  # ln(wavelength): a third of an APOGEE pixel, 1.38 km / s
SECANT = 1.5  # mean, of the rays that leave a star
DOPPLER_WIDTHS = (1.5, 3.0)  # km / s, the two profile widths between which a line is interpolated
STARK_WIDTH = 80.0  # km / s, half width of the Brackett lines
STRONG = 1.0  # log10 of strength from which a line gets damping wings
DAMPING_REACH, STARK_REACH = 180, 1500  # km / s from the centre to which wings are computed


def read_lines(path: Path = LINE_TABLE) -> pd.DataFrame:
    """The line table that the spectra are made of.

    Parameters
    ----------
    path : pathlib.Path
        A CSV file in the columns of ``data/lines.csv``.

    Returns
    -------
    pandas.DataFrame
        ``species``, ``wavelength`` (Angstrom, vacuum), ``ep`` (excitation potential, eV), ``loggf``
        and ``source``; ``data/README.md`` explains them.

    Examples
    --------
    >>> read_lines().query("species == 'Mg I' and loggf > 0").wavelength.round(2).tolist()[:2]
    [15753.2, 15770.11]
    """
    return pd.read_csv(path)


def complete_labels(labels: pd.DataFrame) -> pd.DataFrame:
    """Labels with every abundance and both broadening velocities filled in.

    What a star has no column for follows from the labels it has: O, S, Ca, Ti and Al follow alpha,
    the mean of Mg and Si; carbon and nitrogen the trends of giants in APOGEE DR12 (after the first
    dredge-up; rounded); other elements iron; ``vmicro`` and ``vmacro`` those of APOGEE's pipeline
    (Holtzman et al. 2018).

    Parameters
    ----------
    labels : pandas.DataFrame
        One row per star: ``teff`` (K), ``logg``, ``fe_h``, ``mg_fe``, ``si_fe`` (dex), and any
        other ``<element>_fe`` (dex), ``vmicro`` and ``vmacro`` (km/s). Other columns are ignored.

    Returns
    -------
    pandas.DataFrame
        One row per star, floats.

    Raises
    ------
    ValueError
        If one of the five labels is missing or not finite.

    References
    ----------
    Holtzman et al. 2018, AJ 156, 125.

    Examples
    --------
    >>> star = pd.DataFrame([(4500, 2.5, 0, 0.1, 0.1)], columns=LABELS)
    >>> complete_labels(star)[["o_fe", "c_fe", "ni_fe", "vmicro"]].round(2).values.tolist()
    [[0.1, -0.02, 0.0, 1.51]]
    """
    missing = [name for name in LABELS if name not in labels]
    if missing:
        raise ValueError(
            f"labels need the columns {missing}: teff (K), logg, fe_h, mg_fe, si_fe (dex)"
        )
    like_iron = {f"{element.lower()}_fe": 0.0 for element in ATOMS if element not in ("H", "Fe")}
    known = {*LABELS, *like_iron, "vmicro", "vmacro"}
    full = labels[[name for name in labels if name in known]].astype(float)

    logg, alpha = full["logg"], 0.5 * (full["mg_fe"] + full["si_fe"])
    defaults = like_iron | dict.fromkeys(("o_fe", "s_fe", "ca_fe", "ti_fe", "al_fe"), alpha)
    defaults["c_fe"] = -0.1 + 0.8 * alpha + 0.1 * (logg - 2.5)
    defaults["n_fe"] = 0.1 - 0.2 * (logg - 2.5)
    defaults["vmicro"] = 10 ** (0.226 - 0.0228 * logg + 0.0297 * logg**2 - 0.0113 * logg**3)
    defaults["vmacro"] = 10 ** (0.470794 - 0.254120 * full["fe_h"].clip(-2.5, 0.6))
    full = full.assign(**{name: value for name, value in defaults.items() if name not in full})

    bad = full.index[~np.isfinite(full).all(axis=1)]
    if len(bad):
        raise ValueError(f"labels of {len(bad)} star(s) are not finite, first: {bad[0]}")
    return full


def synthesize(
    labels: pd.DataFrame,
    wavelength: np.ndarray | None = None,
    resolution: float | np.ndarray = 22500,
    lines: pd.DataFrame | None = None,
    chunk: int = 25,
) -> xr.DataArray:
    """Continuum-normalized model spectra of stars.

    Parameters
    ----------
    labels : pandas.DataFrame
        One row per star, see `complete_labels`.
    wavelength : numpy.ndarray, optional
        Increasing wavelengths, Angstrom, vacuum; None takes the 8575 pixels of apStar files.
    resolution : float or numpy.ndarray of shape (star,)
        Wavelength over full width at half maximum.
    lines : pandas.DataFrame, optional
        A table as from `read_lines`; None takes the one that ships.
    chunk : int
        Stars that are computed at a time.

    Returns
    -------
    xarray.DataArray
        Over star and wavelength, float32, 0 to 1.

    Raises
    ------
    ValueError
        For labels that are missing, not finite or far from those of cool stars, for wavelengths
        that do not increase, and for lines of atoms or molecules that the model does not know.

    Examples
    --------
    A line of magnesium in a cool giant:

    >>> star = pd.DataFrame([(4500, 2.5, 0, 0.1, 0.1)], columns=LABELS)
    >>> flux = synthesize(star, [15750.0, 15753.2])
    >>> bool(flux[0, 1] < flux[0, 0] - 0.2)
    True
    """
    wavelength = WAVELENGTH if wavelength is None else np.asarray(wavelength, dtype=float)
    if not (np.diff(wavelength) > 0).all():
        raise ValueError("wavelength must be increasing (Angstrom, vacuum)")
    resolution = np.broadcast_to(np.asarray(resolution, dtype=float), len(labels))
    full = complete_labels(labels)
    inside = np.logical_and.reduce([full[name].between(*limit) for name, limit in LIMITS.items()])
    if not inside.all():
        raise ValueError(f"labels outside the model {LIMITS}, first: star {full.index[~inside][0]}")
    model = _line_model(wavelength, resolution.min(), read_lines() if lines is None else lines)
    parts = [slice(i, i + chunk) for i in range(0, len(full), chunk)]
    # Threads, because most of the time goes into numpy and scipy, which let others run meanwhile.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        flux = np.concatenate(
            [
                *pool.map(
                    lambda part: _synthesize_chunk(model, full.iloc[part], resolution[part]), parts
                )
            ]
        )
    coords = {"star": labels.index.to_numpy(), "wavelength": wavelength}
    return xr.DataArray(flux, coords=coords, dims=("star", "wavelength"), name="flux")


class Lines(NamedTuple):
    """What is known of every line, whatever the star: arrays over lines, or indices of some of
    them."""

    centre: np.ndarray  # Angstrom
    ep: np.ndarray  # eV
    loggf: np.ndarray
    species: pd.Index  # the different atoms and molecules
    carrier: np.ndarray  # which of them absorbs in a line
    mass: np.ndarray  # of it, atomic units
    metals: np.ndarray  # which lines are not of hydrogen
    hydrogen: np.ndarray  # which lines are
    damped: np.ndarray  # which lines get damping wings
    damping: np.ndarray  # of these (damped line,): width per hydrogen atom, cm^3 / s


class LineModel(NamedTuple):
    """What does not depend on the labels: fine grid, lines, their profiles, interpolation in
    wavelength."""

    log_fine: np.ndarray  # ln(Angstrom) of the fine pixels
    position: np.ndarray  # of the pixels asked for, in fine pixels
    lines: Lines
    profiles: sparse.csr_matrix  # (fine pixel, profile): narrow, wide, damped, Stark
    nodes: np.ndarray  # Angstrom, where the continuum is computed
    at_fine: np.ndarray  # (fine pixel, node): weights of linear interpolation


def _line_model(wavelength: np.ndarray, resolution: float, lines: pd.DataFrame) -> LineModel:
    """All that does not depend on the labels, for these wavelengths (Angstrom)."""
    log_fine = _fine_grid(np.log(wavelength), resolution)
    fine = np.exp(log_fine)
    known = _describe_lines(lines[lines["wavelength"].between(fine[0] - 80, fine[-1] + 80)])
    # The continuum changes slowly: a node every 250 Angstrom is enough.
    nodes = np.linspace(fine[0], fine[-1], max(3, int((fine[-1] - fine[0]) / 250)))
    hats = [np.interp(fine, nodes, unit) for unit in np.eye(len(nodes))]
    return LineModel(
        log_fine,
        (np.log(wavelength) - log_fine[0]) / FINE_STEP,
        known,
        _profile_matrix(log_fine, known),
        nodes,
        np.stack(hats, axis=1).astype(np.float32),
    )


def _fine_grid(log_wavelength: np.ndarray, resolution: float) -> np.ndarray:
    """ln(wavelength) in steps of a third of a pixel, beyond both ends by what the convolution
    needs."""
    rotation_and_turbulence = int(40 / (LIGHT * FINE_STEP))
    instrument = int(4 / (2.35 * resolution * FINE_STEP))  # four standard deviations
    pad = rotation_and_turbulence + instrument
    size = int((log_wavelength[-1] - log_wavelength[0]) / FINE_STEP)
    return log_wavelength[0] + FINE_STEP * np.arange(-pad, size + pad + 2)


def _describe_lines(lines: pd.DataFrame) -> Lines:
    """Atomic data of the lines, and which of them are of hydrogen or strong enough for wings."""
    centre, ep, loggf = (lines[name].to_numpy(float) for name in ("wavelength", "ep", "loggf"))
    # The particle whose abundance a line follows: "Fe I" -> "Fe", "?Fe" (unidentified) -> "Fe",
    # "13CO" -> "CO".
    carrier = lines["species"].str.removeprefix("?").str.split().str[0].str.removeprefix("13")
    unknown = sorted(set(carrier) - set(ATOMS) - set(MOLECULES))
    if unknown:
        raise ValueError(f"the model knows no atom or molecule for the lines of {unknown}")
    codes, species = pd.factorize(carrier)
    mass = carrier.map({name: row.mass for name, row in (ATOMS | MOLECULES).items()})
    hydrogen = (carrier == "H").to_numpy()

    # Strength in a cool star: abundance times gf times the Boltzmann factor at about 4500 K.
    # Molecules,
    # of which there are many weak lines, get no wings.
    solar = np.array([ATOMS[name].abundance if name in ATOMS else -9.0 for name in carrier])
    damped = np.flatnonzero((loggf - 1.12 * ep + solar > STRONG) & ~hydrogen)
    ionization = carrier.iloc[damped].map({name: row.ionization for name, row in ATOMS.items()})
    damping = _van_der_waals((ionization - ep[damped]).to_numpy(), centre[damped])
    return Lines(
        centre,
        ep,
        loggf,
        species,
        codes,
        mass.to_numpy(float),
        np.flatnonzero(~hydrogen),
        np.flatnonzero(hydrogen),
        damped,
        damping,
    )


def _van_der_waals(energy: np.ndarray, wavelength: np.ndarray) -> np.ndarray:
    """Width of a line per hydrogen atom at 10,000 K (cm^3 / s): Unsöld (Gray 2005, ch. 11).

    `energy`: what would ionize the atom from the lower level, eV; `wavelength` in Angstrom.
    """
    upper = np.maximum(energy - HC_K * 1e8 * K_BOLTZMANN / EV / wavelength, 0.5)
    return 1e20 * (0.3e-30 * (upper**-2 - energy**-2)) ** 0.4 * K_BOLTZMANN * 1e4**0.3


def _profile_matrix(log_fine: np.ndarray, lines: Lines) -> sparse.csr_matrix:
    """Profiles of all lines on the fine grid, per km/s: (fine pixel, profile).

    A line that is not of hydrogen has two columns, one for each of the `DOPPLER_WIDTHS`: its own
    width lies between, and a mixture of both is close to it. Damped lines have a third, for their
    wings.
    """
    parts = [(lines.metals, 3 * width, _gauss(width)) for width in DOPPLER_WIDTHS]
    parts += [(lines.damped, DAMPING_REACH, _wing), (lines.hydrogen, STARK_REACH, _stark)]
    blocks = [_profiles(log_fine, lines.centre[rows], reach, shape) for rows, reach, shape in parts]
    return sparse.hstack(blocks, format="csr")


def _profiles(
    log_fine: np.ndarray,
    centres: np.ndarray,
    reach: float,
    shape: Callable[[np.ndarray], np.ndarray],
) -> sparse.csr_matrix:
    """Sparse (fine pixel, line): `shape` of the velocity (km/s) from each centre, out to
    `reach`."""
    half = int(np.ceil(reach / (LIGHT * FINE_STEP)))
    nearest = np.rint((np.log(centres) - log_fine[0]) / FINE_STEP).astype(int)
    rows = nearest[:, None] + np.arange(-half, half + 1)  # (line, fine pixel near it)
    velocity = LIGHT * (log_fine[0] + rows * FINE_STEP - np.log(centres)[:, None])
    values = shape(velocity).astype(np.float32)
    inside = (rows >= 0) & (rows < len(log_fine))
    places = rows[inside], np.nonzero(inside)[0]
    return sparse.csr_matrix((values[inside], places), shape=(len(log_fine), len(centres)))


def _gauss(width: float) -> Callable[[np.ndarray], np.ndarray]:
    """Doppler profile of that width (km/s), per km/s."""
    return lambda velocity: np.exp(-((velocity / width) ** 2)) / (np.sqrt(np.pi) * width)


def _wing(velocity: np.ndarray, width: float = 2.0) -> np.ndarray:
    """First order of the Voigt function in the damping parameter, H1 (Gray 2005, sect. 11), per
    km/s."""
    x = velocity / width
    return -2 / np.pi / width * (1 - 2 * velocity / width * dawsn(x))


def _stark(velocity: np.ndarray) -> np.ndarray:
    """Lorentz profile of the lines of hydrogen, per km/s."""
    return STARK_WIDTH / np.pi / (velocity**2 + STARK_WIDTH**2)


def _synthesize_chunk(model: LineModel, full: pd.DataFrame, resolution: np.ndarray) -> np.ndarray:
    """Spectra of some stars with complete labels: (star, pixel)."""
    abundance = atmosphere.abundances(full)
    teff, logg, vmacro = (full[name].to_numpy() for name in ("teff", "logg", "vmacro"))
    layers = atmosphere.photosphere(teff, logg, abundance)

    # Continuous opacity: H-, from free electrons and neutral hydrogen.
    pressure = layers.electrons * K_BOLTZMANN * layers.temperature * layers.atoms / layers.nuclei
    opacity = atmosphere.h_minus(model.nodes * 1e-4, layers.temperature[..., None])
    continuum_depth = SECANT * opacity * (pressure * layers.column)[..., None]  # (star, cell, node)

    populations = atmosphere.populations(layers, abundance)
    line_depths = _line_depths(model.lines, full, layers, populations)
    weights = _continuum_weights(model.nodes, layers.temperature, continuum_depth)
    return _observe(model, _absorption(model, weights, line_depths), vmacro, resolution)


def _line_depths(
    lines: Lines, full: pd.DataFrame, layers: Layers, populations: dict[str, np.ndarray]
) -> np.ndarray:
    """Optical depth of each profile down to the bottom of each cell, times km/s: (profile, cell,
    star).

    `populations` : species -> ln(n / U) per hydrogen nucleus (star, cell).
    """
    t = layers.temperature.T[..., None]  # (cell, star, line)
    population = np.stack([populations[name] for name in lines.species], axis=-1)
    population = population[..., lines.carrier].swapaxes(0, 1)

    # Boltzmann's excitation and stimulated emission: ln of the cross section per hydrogen nucleus.
    stimulated = np.log(-np.expm1(-(HC_K * 1e8 / (lines.centre * t))))
    constant = (
        np.log(0.026540 * 1e-13)  # pi e^2 / (m_e c), cm^2 / s; Angstrom to cm, cm to km
        + np.log(10) * lines.loggf
        + np.log(lines.centre)
    )
    log_line = population + constant - lines.ep * EV / K_BOLTZMANN / t + stimulated
    strength = np.exp(log_line) * SECANT * layers.column.T[..., None]

    # Doppler width (star, line), at 85 % of the effective temperature, and its place between the
    # two widths.
    width = np.sqrt(2 * 8.31446e-3 * 0.85 * full["teff"].to_numpy()[:, None] / lines.mass)
    width = np.hypot(width, full["vmicro"].to_numpy()[:, None])
    narrow, wide = DOPPLER_WIDTHS
    share = np.clip((1 / width - 1 / wide) / (1 / narrow - 1 / wide), 0, 1)[:, lines.metals]

    gamma = lines.damping * (layers.atoms * (layers.temperature / 1e4) ** 0.3).T[..., None]
    damping = gamma * lines.centre[lines.damped] * 1e-13 / (4 * np.pi * 2.0)
    metals = strength[..., lines.metals]
    parts = [
        metals * share,
        metals * (1 - share),
        strength[..., lines.damped] * np.minimum(damping, 0.5),
        strength[..., lines.hydrogen],
    ]
    total = np.cumsum(np.concatenate(parts, axis=-1, dtype=np.float32), axis=0)
    return np.ascontiguousarray(np.moveaxis(total, -1, 0))


def _continuum_weights(nodes: np.ndarray, temperature: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """What each cell adds to the continuum, as a share of its flux: (star, cell, node).

    Each cell has one source function B (Planck), and tau_j is the slant depth at its bottom. Then
    the flux is F = B_1 + sum_j (B_{j+1} - B_j) exp(-tau_j), and what is returned are the terms of
    the sum over F.
    """
    planck = 1 / np.expm1(HC_K * 1e8 / (nodes * temperature[..., None]))
    rise = np.diff(planck, axis=1, append=planck[:, -1:]) * np.exp(-np.cumsum(depth, axis=1))
    return rise / (planck[:, :1] + rise.sum(axis=1, keepdims=True))


def _absorption(model: LineModel, weights: np.ndarray, line_depths: np.ndarray) -> np.ndarray:
    """Depth of the lines below the continuum, (fine pixel, star): every cell shines through
    exp(-tau)."""
    _, cells, stars = line_depths.shape
    tau = (model.profiles @ line_depths.reshape(len(line_depths), -1)).reshape(-1, cells, stars)
    flat = weights.transpose(2, 1, 0).reshape(len(model.nodes), -1).astype(np.float32)
    weight = model.at_fine @ flat
    # In place: these two arrays are the largest of all (20 MB for 25 stars).
    np.negative(tau, out=tau)
    np.exp(tau, out=tau)
    weight = weight.reshape(tau.shape)
    return weight.sum(axis=1) - np.einsum("fcs,fcs->fs", weight, tau)


def _observe(
    model: LineModel, depth: np.ndarray, vmacro: np.ndarray, resolution: np.ndarray
) -> np.ndarray:
    """Blur (fine pixel, star) by the spectrograph and by macroturbulence: flux (star, pixel).

    On a grid in ln(wavelength) both are Gaussians of one width, so a product of Fourier transforms
    does it.
    """
    size = fft.next_fast_len(len(depth), real=True)
    sigma = np.hypot(1 / (np.sqrt(8 * np.log(2)) * resolution), vmacro / LIGHT / np.sqrt(2))
    frequency = 2 * np.pi * fft.rfftfreq(size, FINE_STEP)
    kernel = np.exp(-0.5 * (frequency * sigma[:, None]) ** 2).astype(np.float32)
    depth = fft.irfft(fft.rfft(depth.T, size, axis=1) * kernel, size, axis=1)
    # Linear interpolation from the fine grid; 1e-6 so that rounding does not move a pixel that lies
    # on it.
    left = np.floor(model.position + 1e-6).astype(int)
    weight = np.maximum(model.position - left, 0).astype(np.float32)
    blurred = depth[:, left] + (depth[:, left + 1] - depth[:, left]) * weight
    return np.minimum(1 - blurred, 1)
