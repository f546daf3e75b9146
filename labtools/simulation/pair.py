"""A simulated JWST/APOGEE pair: giants drawn at random, their model spectra, the two HDF5 files of the real pair."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from astropy.coordinates import Angle
from astropy.io import fits
from tqdm import tqdm

from labtools.cache import cached_folder, sha256_of
from labtools.jwst.pair import (
    CATALOGUE_COLUMNS,
    ELEMENTS,
    FILES,
    JWST_COLUMNS,
    PIXELS,
    STARS_PER_SET,
    catalogue_in_x_h,
    name_of,
)
from labtools.settings import table
from labtools.simulation import population, synthesis
from labtools.simulation.synthesis import LINE_TABLE, read_lines, synthesize
from labtools.spectra import CHIPS, WAVELENGTH

__all__ = ["apogee_spectra", "draw_catalogue", "wide_lines", "write_pair"]

LINES = table("lines_jwst.csv")
WAVELENGTHS = np.linspace(9000, 18000, PIXELS)
RESOLUTION = 2700  # NIRSpec with G140H
SNR = 200  # per pixel of the JWST spectra
FULL = 19_800
MISSING = 11_215  # the row of the full catalogue whose model does not exist
REPEATED = 798  # rows of the full catalogue that repeat a star
VERSION = 1
"""Raise this whenever the pair of a seed changes."""


def wide_lines():
    """Lines for all of 0.9 to 1.8 micron: `lines.csv` and what `lines_jwst.csv` adds outside APOGEE's range."""
    return pd.concat([read_lines(), read_lines(LINES)], ignore_index=True)


def draw_catalogue(stars=2000, seed=42):
    """The table `allstar` of a simulated pair, in the columns of the real one; about 4 % of rows repeat a star.

    Three populations of giants: thin disk, thick disk and, a twelfth of all, halo around [Fe/H] = -1.25; all along the
    red giant branch and the clump. Abundances without a trend of their own scatter about those of iron.
    """
    if not 10 <= stars <= FULL:
        raise ValueError(f"a pair has 10 to {FULL} stars, not {stars}")
    rng = np.random.default_rng(seed)
    table = _labels(rng, stars)
    table["snr"] = 200 + rng.lognormal(4.6, 0.7, stars).clip(0, 2743)
    table["ra"], table["dec"] = rng.uniform(0, 360, stars), np.degrees(np.arcsin(rng.uniform(-0.6, 1, stars)))
    table["vhelio_avg"], table["verr"] = rng.normal(0, 60, stars), 0.02
    table["apogee_id"] = _designations(table.ra, table.dec)
    table["telescope"] = np.where(table.dec < -20, "lco25m", "apo25m")
    table["field"] = [f"{int(ra):03d}{int(dec):+03d}" for ra, dec in zip(table.ra, table.dec, strict=True)]
    _repeat(table, rng, round(REPEATED / FULL * stars))
    prefix = np.where(table.telescope == "lco25m", "asStar", "apStar")
    table["file"] = [f"{p}-dr17-{name}.fits" for p, name in zip(prefix, table.apogee_id, strict=True)]
    for name in [c.removesuffix("_ERR").lower() for c in CATALOGUE_COLUMNS if c.endswith("_ERR")]:
        table[f"{name}_err"] = {"teff": 6.2, "logg": 0.025, "fe_h": 0.009}.get(name, 0.02)
    table = table.rename(columns=str.upper)[CATALOGUE_COLUMNS]
    numbers = table.select_dtypes("number").columns.difference(["RA", "DEC"])
    return table.astype(dict.fromkeys(numbers, np.float32))


def _labels(rng, stars):
    """Labels of giants (see `draw_catalogue`): teff, logg, all [X/Fe], m_h, alpha_m, vmicro, vmacro."""
    kind = rng.choice(3, stars, p=[0.58, 0.34, 0.08])
    fe_h = rng.normal(np.array([-0.12, -0.52, -1.25])[kind], np.array([0.21, 0.19, 0.16])[kind]).clip(-2.0, 0.45)
    high = np.array([0.0, 0.27, 0.24])[kind]
    mg_fe = np.where(kind == 0, 0.05 - 0.12 * fe_h, high) + rng.normal(0, 0.035, stars)
    si_fe = 0.01 + 0.75 * mg_fe + rng.normal(0, 0.03, stars)
    clump = rng.random(stars) < 0.25
    logg = np.where(clump, rng.normal(2.44, 0.08, stars), 3.4 - 2.9 * rng.beta(1.8, 1.9, stars))
    teff = population.branch_temperature(logg, fe_h) + np.where(clump, 150, 0) + rng.normal(0, 45, stars)
    table = pd.DataFrame({"teff": teff.clip(3500, 5600), "logg": logg, "fe_h": fe_h, "mg_fe": mg_fe, "si_fe": si_fe})
    full = synthesis.complete_labels(table)
    table = table.assign(vmicro=full.vmicro, vmacro=full.vmacro)
    for element in map(str.lower, ELEMENTS):
        if element not in ("fe", "mg", "si"):
            trend = full.get(f"{element}_fe", 0.0)
            table[f"{element}_fe"] = trend + rng.normal(0, 0.08 if element in ("n", "na", "ce") else 0.04, stars)
    table["m_h"] = table.fe_h + rng.normal(0, 0.01, stars)
    table["alpha_m"] = (table.mg_fe + table.si_fe) / 2
    return table


def _repeat(table, rng, number):
    """Make some rows further observations of earlier stars: same star, another field, labels a little different."""
    candidates = np.setdiff1d(np.arange(len(table) // 2, len(table)), MISSING * len(table) // FULL)
    later = rng.choice(candidates, number, replace=False)
    first = rng.choice(len(table) // 2, number, replace=False)
    same = [c for c in table if c not in ("snr", "field", "telescope", "verr")]
    table.loc[later, same] = table.loc[first, same].to_numpy()
    table.loc[later, "teff"] += rng.normal(0, 6, number)
    table.loc[later, ["logg", "fe_h"]] += rng.normal(0, [0.02, 0.008], (number, 2))
    numeric = [c for c in same if c != "apogee_id"]
    table[numeric] = table[numeric].astype(float)


def _designations(ra, dec):
    """Names as in 2MASS, hhmmss(ss)+ddmmss(s) without points, of positions in degrees."""
    hours = Angle(ra.to_numpy(), "deg").to_string("hour", sep="", precision=2, pad=True)
    degrees = Angle(dec.to_numpy(), "deg").to_string("deg", sep="", precision=1, pad=True, alwayssign=True)
    return [f"2M{a}{b}".replace(".", "") for a, b in zip(hours, degrees, strict=True)]


def _models(catalogue):
    """Rows of a catalogue (lower case) as labels for the forward model."""
    names = ["teff", "logg", "vmicro", "vmacro", *(f"{e.lower()}_fe" for e in ELEMENTS if e != "Fe"), "fe_h"]
    return catalogue[[name for name in names if name in catalogue]].astype(float)


def _write_jwst(path, catalogue, rows, seed):
    """The JWST file: models of the given rows of the catalogue, with noise, one set of 990 after the other."""
    labels = catalogue_in_x_h(catalogue).loc[rows].set_axis(JWST_COLUMNS, axis=1).round(5)
    names = [name_of(row) for row in rows]
    lines, parts = wide_lines(), []
    with tqdm(total=len(rows), desc="model spectra 0.9-1.8 µm", unit="star", mininterval=1) as bar:
        for start in range(0, len(rows), STARS_PER_SET // 10):
            some = rows[start : start + STARS_PER_SET // 10]
            flux = synthesize(_models(catalogue.loc[some]), WAVELENGTHS, RESOLUTION, lines).values
            noise = np.random.default_rng([seed, start]).standard_normal(flux.shape, dtype=np.float32)
            parts.append(flux + noise / SNR)
            bar.update(len(some))
    pd.DataFrame(WAVELENGTHS[None]).to_hdf(path, key="wavelength", mode="w")
    labels.set_axis(names).to_hdf(path, key="labels")
    pd.DataFrame(np.concatenate(parts), index=names).to_hdf(path, key="spectra")


def _write_catalogue(path, table):
    """The catalogue file; text as bytes, which pandas warns that it pickles, as in the real file."""
    text = [name for name in table if table[name].dtype.kind not in "iuf"]
    encoded = {name: np.array([value.encode() for value in table[name]], object) for name in text}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
        table.assign(**encoded).to_hdf(path, key="allstar", mode="w")


def write_pair(folders, stars=2000, seed=42):
    """A simulated pair in one of `folders`, or else written to the first; returns its folder.

    About 30 ms of computing and 34 kB for each star.
    """
    tables = sha256_of(LINES)[:4] + sha256_of(LINE_TABLE)[:4]

    def write(folder):
        table = draw_catalogue(stars, seed)
        _write_catalogue(folder / FILES[0], table)
        rows = table.index.delete(MISSING * stars // FULL)
        _write_jwst(folder / FILES[1], table.rename(columns=str.lower), rows, seed)

    return cached_folder(folders, f"simulated-jwst-{stars}-seed{seed}-v{VERSION}-{tables}", write)


def apogee_spectra(catalogue, names, root=None, seed=42):
    """Normalized APOGEE spectra of stars of the pair: Dataset (star, wavelength) of flux and error, 8575 pixels.

    Real ones if all the files aspcapStar-dr17-<apogee_id>.fits lie somewhere below `root`, else models with the noise
    that the catalogue's SNR tells; attrs["source"] says which. Between the chips the error is infinite and flux 0.
    """
    rows = catalogue.loc[list(names)]
    files = [
        next(iter(Path(root).glob(f"**/aspcapStar-dr17-{star}.fits")), None) if root else None
        for star in rows.apogee_id
    ]
    if files and all(files):
        flux, error = map(np.array, zip(*map(_read_aspcap, files), strict=True))
        source = "APOGEE DR17"
    else:
        flux = synthesize(_models(rows)).values.astype(float)
        error = np.broadcast_to(1 / rows.snr.to_numpy(float)[:, None], flux.shape).copy()
        rng = np.random.default_rng(seed)
        flux = flux + error * rng.standard_normal(flux.shape)
        source = "simulated APOGEE spectra"
    recorded = np.zeros(WAVELENGTH.size, bool)
    for first, last in CHIPS:
        recorded[first : last + 1] = True
    bad = ~recorded | ~np.isfinite(flux) | ~(error > 0) | (flux == 0)
    flux, error = np.where(bad, 0, flux), np.where(bad, np.inf, error)
    axes, coords = ("star", "wavelength"), {"star": rows.index.to_numpy(str), "wavelength": WAVELENGTH}
    return xr.Dataset({"flux": (axes, flux), "error": (axes, error)}, coords=coords, attrs={"source": source})


def _read_aspcap(path):
    """Normalized flux and its error of an aspcapStar file of DR17 (extensions 1 and 2), 8575 pixels each."""
    with fits.open(path) as hdus:
        flux, error = (np.asarray(hdus[number].data, float).ravel() for number in (1, 2))
    if flux.size != WAVELENGTH.size or error.size != WAVELENGTH.size:
        raise ValueError(f"{path.name} has {flux.size} pixels, not {WAVELENGTH.size}: is it an aspcapStar file?")
    return flux, error
