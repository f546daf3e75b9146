"""A simulated JWST/APOGEE pair: giants drawn at random, their model spectra, the two HDF5 files of
the real pair."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from scipy.ndimage import gaussian_filter1d
from tqdm.auto import tqdm

from apogee_archive import jwst_pair as real
from apogee_archive.aspcapstar import read_aspcapstar
from apogee_archive.cache import hash_key, sha256_of, verify_manifest, write_manifest
from apogee_archive.grid import WAVELENGTH
from apogee_archive.settings import int_setting
from mock_survey.instrument import recorded
from mock_survey.kept import verified_folder
from mock_survey.population import STAR_TABLES, STARS, designations, draw_abundances, draw_giants
from mock_survey.synthesis import MODEL, MODEL_TABLES, complete_labels, read_lines, synthesize
from mock_survey.tables import table

__all__ = [
    "apogee_spectra",
    "draw_catalog",
    "nirspec_spectra",
    "pair_key",
    "pair_size",
    "wide_lines",
    "write_pair",
]

LINES = table("lines_jwst.csv")
TABLES = [LINES, *MODEL_TABLES, *STAR_TABLES]
WAVELENGTHS = np.linspace(9000, 18000, real.PIXELS)
FWHM = 4.71
"""Width of a line in NIRSpec with G140H, Angstrom: two pixels of 2.356 as in the spectra of M71, so
that R grows with wavelength from 1,900 to 3,800."""

GAP = (11624, 11974)
"""Angstrom that fall between the two detectors, as for star 12 in M71; where the gap lies depends
on the shutter."""

SNR = 200  # per pixel of the JWST spectra
TYPICAL_ERRORS = {"teff": 6.2, "logg": 0.025, "fe_h": 0.009}  # K, dex; 0.02 of other labels
FULL = 19_800  # rows of the real catalog
MISSING = 11_215  # the row of the full catalog whose model does not exist
REPEATED = 798  # rows of the full catalog that repeat a star
VERSION = 3
"""Raise this whenever the pair of a seed changes."""


def wide_lines() -> pd.DataFrame:
    """Lines for all of 0.9 to 1.8 micron: `lines.csv` and what `lines_jwst.csv` adds outside
    APOGEE's range.

    Returns
    -------
    pandas.DataFrame
        As of `mock_survey.synthesis.read_lines`.

    Examples
    --------
    >>> len(wide_lines()) > len(read_lines())
    True
    """
    return pd.concat([read_lines(), read_lines(LINES)], ignore_index=True)


def draw_catalog(stars: int = 2000, seed: int = 42) -> pd.DataFrame:
    """The table `allstar` of a simulated pair, in the columns of the real one; about 4 % of rows
    repeat a star.

    Three populations of giants: thin disk, thick disk and, a twelfth of all, halo around [Fe/H] =
    -1.25; all on isochrones. Abundances without a trend of their own scatter about those of iron.

    Parameters
    ----------
    stars : int
        How many rows, 10 to 19,800.
    seed : int
        Of all that is drawn.

    Returns
    -------
    pandas.DataFrame
        One row per observation, names of columns in capitals as in the real table.

    Raises
    ------
    ValueError
        For another number of stars.

    Examples
    --------
    >>> draw_catalog(10, seed=1)[["APOGEE_ID", "TEFF"]].shape
    (10, 2)
    """
    if not 10 <= stars <= FULL:
        raise ValueError(f"a pair has 10 to {FULL} stars, not {stars}")
    rng = np.random.default_rng(seed)
    table = _labels(rng, stars)
    table["snr"] = 200 + rng.lognormal(4.6, 0.7, stars).clip(0, 2743)
    table["ra"], table["dec"] = (
        rng.uniform(0, 360, stars),
        np.degrees(np.arcsin(rng.uniform(-0.6, 1, stars))),
    )
    table["vhelio_avg"], table["verr"] = rng.normal(0, 60, stars), 0.02
    table["apogee_id"] = designations(table.ra, table.dec)
    table["telescope"] = np.where(table.dec < -20, "lco25m", "apo25m")
    table["field"] = [
        f"{int(ra):03d}{int(dec):+03d}" for ra, dec in zip(table.ra, table.dec, strict=True)
    ]
    _repeat(table, rng, round(REPEATED / FULL * stars))
    prefix = np.where(table.telescope == "lco25m", "asStar", "apStar")
    table["file"] = [
        f"{p}-dr17-{name}.fits" for p, name in zip(prefix, table.apogee_id, strict=True)
    ]
    for column in real.CATALOG_COLUMNS:
        if column.endswith("_ERR"):
            name = column.removesuffix("_ERR").lower()
            table[f"{name}_err"] = TYPICAL_ERRORS.get(name, 0.02)
    table = table.rename(columns=str.upper)[real.CATALOG_COLUMNS]
    numbers = table.select_dtypes("number").columns.difference(["RA", "DEC"])
    return table.astype(dict.fromkeys(numbers, np.float32))


def _labels(rng: np.random.Generator, stars: int) -> pd.DataFrame:
    """Labels of giants (see `draw_catalog`): teff, logg, all [X/Fe], m_h, alpha_m, vmicro,
    vmacro."""
    kind = rng.choice(3, stars, p=[0.58, 0.34, 0.08])  # thin disk, thick disk, halo
    mean, scatter = np.array([-0.12, -0.52, -1.25])[kind], np.array([0.21, 0.19, 0.16])[kind]
    fe_h = rng.normal(mean, scatter).clip(-2.0, 0.45)
    high = np.array([0.0, 0.27, 0.24])[kind]
    mg_fe = np.where(kind == 0, 0.05 - 0.12 * fe_h, high) + rng.normal(0, 0.035, stars)
    si_fe = 0.01 + 0.75 * mg_fe + rng.normal(0, 0.03, stars)
    age = np.where(
        kind == 0, rng.lognormal(np.log(4), 0.5, stars), rng.normal(10.5, 1.2, stars)
    ).clip(2, 12)
    table = draw_giants(rng, age, fe_h, (mg_fe + si_fe) / 2)[["teff", "logg"]]
    table = table.assign(teff=table.teff.clip(3500, 5600), fe_h=fe_h, mg_fe=mg_fe, si_fe=si_fe)
    full = complete_labels(table)
    table = table.assign(vmicro=full.vmicro, vmacro=full.vmacro, **draw_abundances(rng, table))
    for element in map(str.lower, real.ELEMENTS):
        if f"{element}_fe" not in table and element != "fe":
            table[f"{element}_fe"] = rng.normal(0, 0.08 if element == "ce" else 0.04, stars)
    table["m_h"] = table.fe_h + rng.normal(0, 0.01, stars)
    table["alpha_m"] = (table.mg_fe + table.si_fe) / 2
    return table


def _repeat(table: pd.DataFrame, rng: np.random.Generator, number: int) -> None:
    """Make some rows further observations of earlier stars: same star, another field, labels a
    little different."""
    candidates = np.setdiff1d(np.arange(len(table) // 2, len(table)), MISSING * len(table) // FULL)
    later = rng.choice(candidates, number, replace=False)
    first = rng.choice(len(table) // 2, number, replace=False)
    same = [c for c in table if c not in ("snr", "field", "telescope", "verr")]
    table.loc[later, same] = table.loc[first, same].set_axis(later)
    table.loc[later, "teff"] += rng.normal(0, 6, number)
    table.loc[later, ["logg", "fe_h"]] += rng.normal(0, [0.02, 0.008], (number, 2))


def nirspec_spectra(labels: pd.DataFrame) -> xr.DataArray:
    """Model spectra on the pair's wavelengths at NIRSpec's resolution.

    They are computed twice as finely and sharper than needed, and blurred by a Gaussian that is the
    same in Angstrom at all wavelengths, so that lines are `FWHM` wide to 3 %.

    Parameters
    ----------
    labels : pandas.DataFrame
        As for `mock_survey.synthesis.synthesize`.

    Returns
    -------
    xarray.DataArray
        Over star and wavelength (Angstrom, vacuum), float32.

    Examples
    --------
    >>> star = draw_catalog(10, seed=1).rename(columns=str.lower).head(1)
    >>> nirspec_spectra(star).sizes["wavelength"] == real.PIXELS
    True
    """
    sharp = 12000
    fine = np.linspace(WAVELENGTHS[0], WAVELENGTHS[-1], 2 * real.PIXELS - 1)
    flux = synthesize(labels, fine, sharp, wide_lines())
    sigma = np.sqrt((FWHM**2 - (fine.mean() / sharp) ** 2) / (8 * np.log(2))) / (fine[1] - fine[0])
    blurred = flux.copy(data=gaussian_filter1d(flux.values, sigma, axis=1, mode="nearest"))
    return blurred[:, ::2].assign_coords(wavelength=WAVELENGTHS)


def _write_jwst(path: Path, catalog: pd.DataFrame, rows: pd.Index, seed: int) -> None:
    """The JWST file: models of the given rows of the catalog with noise, and nothing in the gap of
    the detectors."""
    labels = real.catalog_in_x_h(catalog).loc[rows].set_axis(real.JWST_COLUMNS, axis=1).round(5)
    names = [real.name_of(row) for row in rows]
    seen = np.abs(WAVELENGTHS - np.mean(GAP)) > np.ptp(GAP) / 2  # by one of the two detectors
    parts, together = [], real.STARS_PER_SET // 10
    with tqdm(total=len(rows), desc="model spectra 0.9-1.8 µm", unit="star", mininterval=1) as bar:
        for start in range(0, len(rows), together):
            some = rows[start : start + together]
            flux = nirspec_spectra(catalog.loc[some]).values
            noise = np.random.default_rng([seed, start]).standard_normal(
                flux.shape, dtype=np.float32
            )
            parts.append((flux + noise / SNR) * seen.astype(np.float32))
            bar.update(len(some))
    pd.DataFrame(WAVELENGTHS[None]).to_hdf(path, key="wavelength", mode="w")
    labels.set_axis(names).to_hdf(path, key="labels")
    pd.DataFrame(np.concatenate(parts), index=names).to_hdf(path, key="spectra")


def pair_key(stars: int, seed: int) -> str:
    """Name of the folder of a simulated pair: what it depends on is in it.

    Examples
    --------
    >>> pair_key(2000, 42).startswith("simulated-jwst-2000-seed42-v")
    True
    """
    tables = hash_key(MODEL, *map(sha256_of, TABLES))[:8]
    return f"simulated-jwst-{stars}-seed{seed}-v{VERSION}.{tables}"


def pair_size() -> int:
    """Default number of stars of a pair: 2,000, and with LAB_STARS in proportion, but no fewer than
    300.

    Raises
    ------
    ValueError
        If LAB_STARS is not a number.

    Examples
    --------
    >>> pair_size() >= 300
    True
    """
    return max(300, 2000 * int_setting("STARS", STARS) // STARS)


def write_pair(folders: list[Path], stars: int = 2000, seed: int = 42) -> Path:
    """A simulated pair in one of some folders, or else written to the first: 30 ms and 34 kB per
    star.

    Parameters
    ----------
    folders : list of pathlib.Path
        The first is written, the others are only read.
    stars, seed : int
        As for `draw_catalog`.

    Returns
    -------
    pathlib.Path
        Folder of the two files, with a list of their checksums (SHA-256).

    Raises
    ------
    ValueError
        For another number of stars.
    CacheError
        If the first folder cannot be written.

    Examples
    --------
    `labtools.open_pair` calls it.
    """

    def write(folder: Path) -> None:
        table = draw_catalog(stars, seed)
        encoded = table.select_dtypes(exclude="number").map(str.encode)
        with warnings.catch_warnings():
            # Strings as bytes are pickled, which is slow, but so it is in the real file.
            warnings.simplefilter("ignore", pd.errors.PerformanceWarning)
            table.assign(**encoded).to_hdf(folder / real.FILES[0], key="allstar", mode="w")
        rows = table.index.delete(MISSING * stars // FULL)
        _write_jwst(folder / real.FILES[1], table.rename(columns=str.lower), rows, seed)
        write_manifest(folder)

    def verify(folder: Path) -> None:
        for name in real.FILES:
            verify_manifest(folder, name)

    return verified_folder(folders, pair_key(stars, seed), write, verify)


def apogee_spectra(
    catalog: pd.DataFrame, names: Sequence[str], root: str | Path | None = None, seed: int = 42
) -> xr.Dataset:
    """Normalized APOGEE spectra of stars of the pair: real ones where they are at hand, else models
    with noise.

    Parameters
    ----------
    catalog : pandas.DataFrame
        Of the pair, one row per star, with ``apogee_id``, ``snr`` and labels.
    names : sequence of str
        Some of its stars.
    root : path, optional
        Where to look for aspcapStar-dr17-<apogee_id>.fits; real spectra are taken if those of all
        stars are there.
    seed : int
        Of the noise.

    Returns
    -------
    xarray.Dataset
        Over star and wavelength (8575, Angstrom, vacuum): ``flux`` and ``error``; between the chips
        the error is infinite and the flux 0. ``attrs["source"]`` says which spectra they are.

    Raises
    ------
    KeyError
        For a star that is not in the catalog.
    ValueError
        If a file has another number of pixels.

    Examples
    --------
    >>> catalog = draw_catalog(10, seed=1).rename(columns=str.lower)
    >>> apogee_spectra(catalog, [catalog.index[0]]).attrs["source"]
    'simulated APOGEE spectra'
    """
    rows = catalog.loc[list(names)]
    found = [
        sorted(Path(root).glob(f"**/aspcapStar-dr17-{star}.fits")) if root else []
        for star in rows.apogee_id
    ]
    if all(found):
        flux, error = map(
            np.array, zip(*(read_aspcapstar(paths[0]) for paths in found), strict=True)
        )
        source = "APOGEE DR17"
    else:
        flux, source = synthesize(rows).values.astype(float), "simulated APOGEE spectra"
        error = np.broadcast_to(1 / rows.snr.to_numpy(float)[:, None], flux.shape)
        flux = flux + error * np.random.default_rng(seed).standard_normal(flux.shape)
    bad = ~recorded() | ~np.isfinite(flux) | ~(error > 0) | (flux == 0)
    flux, error = np.where(bad, 0, flux), np.where(bad, np.inf, error)
    axes, coords = (
        ("star", "wavelength"),
        {"star": rows.index.to_numpy(str), "wavelength": WAVELENGTH},
    )
    return xr.Dataset(
        {"flux": (axes, flux), "error": (axes, error)}, coords=coords, attrs={"source": source}
    )
