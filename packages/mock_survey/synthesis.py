"""Near-infrared spectra of cool giants from labels: LTE line formation in MARCS photospheres."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import xarray as xr
from scipy import fft, sparse
from scipy.special import dawsn

from apogee_archive.columns import LABELS
from apogee_archive.grid import LIGHT, WAVELENGTH
from mock_survey import atmosphere
from mock_survey.atmosphere import ATOMS, EV, HC_K, K_BOLTZMANN, MOLECULES
from mock_survey.tables import table

__all__ = ["complete_labels", "read_lines", "synthesize"]

MODEL = 2
"""Raise this whenever the same labels and lines give other spectra: the keys of all that is simulated hold it."""

LINE_TABLE = table("lines.csv")
MODEL_TABLES = [
    LINE_TABLE,
    *map(table, ("atoms.csv", "molecules.csv", "marcs.npz")),
]  # all that a model is made of
FINE_STEP = np.log(10) * 6e-6 / 3  # ln(wavelength): a third of an APOGEE pixel, 1.38 km / s
SECANT = 1.5  # mean, of the rays that leave a star
DOPPLER = (1.5, 3.0)  # km / s, the two profile widths between which a line is interpolated
STARK = 80.0  # km / s, half width of the Brackett lines
STRONG = 1.0  # log10 of strength from which a line gets damping wings


def read_lines(path=LINE_TABLE):
    """The line table: DataFrame of species, wavelength (Angstrom, vacuum), ep (eV), loggf, source."""
    return pd.read_csv(path)


def complete_labels(labels):
    """`labels` with every abundance and both broadening velocities filled in; a new DataFrame of floats.

    Absent columns: O, S, Ca, Ti and Al follow alpha, the mean of Mg and Si. Carbon and nitrogen follow the
    trends of giants in APOGEE DR12 (after the first dredge-up; rounded). Other elements follow iron; `vmicro` and
    `vmacro` (km/s) are those of APOGEE's pipeline (Holtzman et al. 2018). Columns that the model does not know are
    left out. Raises ValueError for a missing or non-finite label.
    """
    missing = [name for name in LABELS if name not in labels]
    if missing:
        raise ValueError(
            f"labels need the columns {missing}: teff (K), logg, fe_h, mg_fe, si_fe (dex)"
        )
    iron = {f"{element.lower()}_fe": 0.0 for element in ATOMS if element not in ("H", "Fe")}
    full = labels[[name for name in labels if name in {*LABELS, *iron, "vmicro", "vmacro"}]].astype(
        float
    )
    g, alpha = full["logg"], 0.5 * (full["mg_fe"] + full["si_fe"])
    defaults = iron | dict.fromkeys(("o_fe", "s_fe", "ca_fe", "ti_fe", "al_fe"), alpha)
    defaults |= {"c_fe": -0.1 + 0.8 * alpha + 0.1 * (g - 2.5), "n_fe": 0.1 - 0.2 * (g - 2.5)}
    defaults["vmicro"] = 10 ** (0.226 - 0.0228 * g + 0.0297 * g**2 - 0.0113 * g**3)
    defaults["vmacro"] = 10 ** (0.470794 - 0.254120 * full["fe_h"].clip(-2.5, 0.6))
    full = full.assign(**{k: v for k, v in defaults.items() if k not in full})
    bad = full.index[~np.isfinite(full).all(axis=1)]
    if len(bad):
        raise ValueError(f"labels of {len(bad)} star(s) are not finite, first: {bad[0]}")
    return full


def _profiles(log_fine, centres, reach, shape_function):
    """Sparse (fine pixel, line): shape_function of the velocity (km/s) from each centre, out to `reach`."""
    half = int(np.ceil(reach / (LIGHT * FINE_STEP)))
    nearest = np.rint((np.log(centres) - log_fine[0]) / FINE_STEP).astype(int)
    rows = nearest[:, None] + np.arange(-half, half + 1)
    values = shape_function(
        LIGHT * (log_fine[0] + rows * FINE_STEP - np.log(centres)[:, None])
    ).astype(np.float32)
    inside = (rows >= 0) & (rows < len(log_fine))
    places = rows[inside], np.nonzero(inside)[0]
    return sparse.csr_matrix((values[inside], places), shape=(len(log_fine), len(centres)))


def _gauss(b):
    return lambda v: np.exp(-((v / b) ** 2)) / (np.sqrt(np.pi) * b)


def _wing(v, b=2.0):
    """First order of the Voigt function in the damping parameter, H1 (Gray 2005, sect. 11), per km/s."""
    return -2 / np.pi / b * (1 - 2 * v / b * dawsn(v / b))


def _stark(v):
    return STARK / np.pi / (v**2 + STARK**2)


def _van_der_waals(energy, wavelength):
    """Width of a line per hydrogen atom at 10,000 K (cm^3 / s): Unsöld's approximation (Gray 2005, ch. 11).

    `energy`: what would ionize the atom from the lower level, eV; `wavelength` in Angstrom.
    """
    upper = np.maximum(energy - HC_K * 1e8 * K_BOLTZMANN / EV / wavelength, 0.5)
    return 1e20 * (0.3e-30 * (upper**-2 - energy**-2)) ** 0.4 * K_BOLTZMANN * 1e4**0.3


class _Model:
    """What does not depend on the labels: fine grid, profiles, interpolation in wavelength, line data."""

    def __init__(self, wavelength, resolution, lines):
        ln = np.log(wavelength)
        pad = int(40 / (LIGHT * FINE_STEP)) + int(4 / (2.35 * resolution * FINE_STEP))
        self.log_fine = ln[0] + FINE_STEP * np.arange(
            -pad, int((ln[-1] - ln[0]) / FINE_STEP) + pad + 2
        )
        self.position = (ln - self.log_fine[0]) / FINE_STEP
        fine = np.exp(self.log_fine)
        lines = lines[lines["wavelength"].between(fine[0] - 80, fine[-1] + 80)]
        self.centre, self.ep, self.loggf = (
            lines[c].to_numpy(float) for c in ("wavelength", "ep", "loggf")
        )
        # The particle whose abundance an entry follows: "Fe I" -> "Fe", "?Fe" (unidentified) -> "Fe", "13CO" -> "CO".
        carrier = lines["species"].str.removeprefix("?").str.split().str[0].str.removeprefix("13")
        unknown = sorted(set(carrier) - set(ATOMS) - set(MOLECULES))
        if unknown:
            raise ValueError(f"the model knows no atom or molecule for the lines of {unknown}")
        self.carrier, self.species = pd.factorize(carrier)
        self.mass = carrier.map(
            {name: row.mass for name, row in (ATOMS | MOLECULES).items()}
        ).to_numpy(float)
        hydrogen = (carrier == "H").to_numpy()
        solar = np.array([ATOMS[c].abundance if c in ATOMS else -9.0 for c in carrier])
        self.damped = np.flatnonzero((self.loggf - 1.12 * self.ep + solar > STRONG) & ~hydrogen)
        energy = (
            carrier.iloc[self.damped].map({c: row.ionization for c, row in ATOMS.items()})
            - self.ep[self.damped]
        )
        self.damping = _van_der_waals(energy.to_numpy(), self.centre[self.damped])
        self.metals, self.stark = np.flatnonzero(~hydrogen), np.flatnonzero(hydrogen)
        parts = [(self.metals, 3 * b, _gauss(b)) for b in DOPPLER]
        parts += [(self.damped, 180, _wing), (self.stark, 1500, _stark)]
        blocks = [
            _profiles(self.log_fine, self.centre[rows], reach, shape)
            for rows, reach, shape in parts
        ]
        self.profiles = sparse.hstack(blocks, format="csr")
        self.nodes = np.linspace(fine[0], fine[-1], max(3, int((fine[-1] - fine[0]) / 250)))
        hats = [np.interp(fine, self.nodes, unit) for unit in np.eye(len(self.nodes))]
        self.at_fine = np.stack(hats, axis=1).astype(
            np.float32
        )  # weights (fine pixel, node) of linear interpolation


def _optical_depths(model, full, layers, species):
    """Optical depth of the lines down to the bottom of each cell, times km/s: (profile, depth, star)."""
    t = layers.temperature.T[..., None]  # depth, star, line
    population = np.stack([species[c] for c in model.species], axis=-1)[
        ..., model.carrier
    ].swapaxes(0, 1)
    x = HC_K * 1e8 / (model.centre * t)
    constant = np.log(0.026540 * 1e-13) + np.log(10) * model.loggf + np.log(model.centre)
    log_line = population + constant - model.ep * EV / K_BOLTZMANN / t + np.log(-np.expm1(-x))
    s = np.exp(log_line) * SECANT * layers.column.T[..., None]
    b = np.sqrt(2 * 8.31446e-3 * 0.85 * full["teff"].to_numpy()[:, None] / model.mass)
    b = np.hypot(b, full["vmicro"].to_numpy()[:, None])
    weight = np.clip((1 / b - 1 / DOPPLER[1]) / (1 / DOPPLER[0] - 1 / DOPPLER[1]), 0, 1)[
        :, model.metals
    ]
    gamma = model.damping * (layers.atoms * (layers.temperature / 1e4) ** 0.3).T[..., None]
    damping = np.minimum(gamma * model.centre[model.damped] * 1e-13 / (4 * np.pi * 2.0), 0.5)
    metals = s[..., model.metals]
    parts = [
        metals * weight,
        metals * (1 - weight),
        s[..., model.damped] * damping,
        s[..., model.stark],
    ]
    total = np.cumsum(np.concatenate(parts, axis=-1, dtype=np.float32), axis=0)
    return np.ascontiguousarray(np.moveaxis(total, -1, 0))


def _continuum(model, layers, step):
    """Shares of the continuum flux (star, depth, node): F = B_1 + sum_j (B_{j+1} - B_j) exp(-tau_j), over F.

    Each cell has one source function (Planck) and tau_j (slant) is the depth at its bottom.
    """
    planck = 1 / np.expm1(HC_K * 1e8 / (model.nodes * layers.temperature[..., None]))
    rise = np.diff(planck, axis=1, append=planck[:, -1:]) * np.exp(-np.cumsum(step, axis=1))
    return rise / (planck[:, :1] + rise.sum(axis=1, keepdims=True))


def _depths(model, shares, tau):
    """Depth of the lines below the continuum (fine pixel, star): every cell shines through exp(-tau)."""
    _, cells, stars = tau.shape
    tau = (model.profiles @ tau.reshape(len(tau), -1)).reshape(-1, cells, stars)
    weight = model.at_fine @ shares.transpose(2, 1, 0).reshape(len(model.nodes), -1).astype(
        np.float32
    )
    np.negative(tau, out=tau)
    np.exp(tau, out=tau)
    weight = weight.reshape(tau.shape)
    return weight.sum(axis=1) - np.einsum("fcs,fcs->fs", weight, tau)


def _observe(model, depth, vmacro, resolution):
    """Convolve (fine pixel, star) with the instrument's Gaussian and macroturbulence: flux (star, pixel)."""
    size = fft.next_fast_len(len(depth), real=True)
    sigma = np.hypot(1 / (np.sqrt(8 * np.log(2)) * resolution), vmacro / LIGHT / np.sqrt(2))
    frequency = 2 * np.pi * fft.rfftfreq(size, FINE_STEP)
    kernel = np.exp(-0.5 * (frequency * sigma[:, None]) ** 2).astype(np.float32)
    depth = fft.irfft(fft.rfft(depth.T, size, axis=1) * kernel, size, axis=1)
    left = np.floor(model.position + 1e-6).astype(int)
    weight = np.maximum(model.position - left, 0).astype(np.float32)
    blurred = depth[:, left] + (depth[:, left + 1] - depth[:, left]) * weight
    return np.minimum(1 - blurred, 1)


def _chunk(model, full, resolution):
    abundance = atmosphere.abundances(full)
    teff, logg, vmacro = (full[name].to_numpy() for name in ("teff", "logg", "vmacro"))
    layers = atmosphere.photosphere(teff, logg, abundance)
    pressure = layers.electrons * K_BOLTZMANN * layers.temperature * layers.atoms / layers.nuclei
    opacity = atmosphere.h_minus(model.nodes * 1e-4, layers.temperature[..., None])
    step = SECANT * opacity * (pressure * layers.column)[..., None]
    tau = _optical_depths(model, full, layers, atmosphere.populations(layers, abundance))
    depth = _depths(model, _continuum(model, layers, step), tau)
    return _observe(model, depth, vmacro, resolution)


def synthesize(labels, wavelength=None, resolution=22500, lines=None, chunk=25):
    """Continuum-normalized spectra of stars with `labels` (DataFrame; see `complete_labels`).

    `wavelength`: increasing vacuum Angstrom, default `labtools.spectra.WAVELENGTH`; `resolution`: lambda / FWHM, one
    for all or (star,); `lines`: a table as from `read_lines()`. Returns a float32 DataArray (star, wavelength), 0 to 1.
    Raises ValueError for labels that are missing, not finite or far from cool stars, and for a bad grid.
    """
    wavelength = WAVELENGTH if wavelength is None else np.asarray(wavelength, dtype=float)
    if not (np.diff(wavelength) > 0).all():
        raise ValueError("wavelength must be increasing (Angstrom, vacuum)")
    resolution = np.broadcast_to(np.asarray(resolution, dtype=float), len(labels))
    full = complete_labels(labels)
    limits = {"teff": (3000, 7500), "logg": (-1, 5.5), "fe_h": (-4, 1)}
    outside = ~np.logical_and.reduce([full[name].between(*limit) for name, limit in limits.items()])
    if outside.any():
        raise ValueError(f"labels outside the model {limits}, first: star {full.index[outside][0]}")
    model = _Model(wavelength, resolution.min(), read_lines() if lines is None else lines)
    parts = [slice(i, i + chunk) for i in range(0, len(full), chunk)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        flux = np.concatenate(
            [*pool.map(lambda part: _chunk(model, full.iloc[part], resolution[part]), parts)]
        )
    coords = {"star": labels.index.to_numpy(), "wavelength": wavelength}
    return xr.DataArray(flux, coords=coords, dims=("star", "wavelength"), name="flux")
