"""The simulated survey: an archive in the formats and folders of SDSS DR17, from forward-model
spectra.

The model is that of `mock_survey.synthesis`; stars, instrument and pipeline are those of
`population`, `instrument` and `catalog`. Everything is drawn from one seed, and the folder is named
after the number of giants, the seed, the version of the survey, and a digest of the version of the
model, of its lines and of the isochrones.
"""

import io
import shutil
from functools import lru_cache
from hashlib import sha1
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from tqdm.auto import tqdm

from apogee_archive.cache import hash_key, sha256_of, verify_manifest, write_manifest
from apogee_archive.columns import LABELS
from apogee_archive.files import STARS as STARS_FOLDER, sas_path
from apogee_archive.fits_headers import fits_headers
from apogee_archive.grid import CHIPS, WAVELENGTH
from apogee_archive.settings import int_setting
from mock_survey.catalog import TELESCOPE, Pipeline, list_entries, measure
from mock_survey.instrument import KM_PER_PIXEL, observe, throughput
from mock_survey.kept import verified_folder
from mock_survey.population import (
    FIELDS,
    MYSTERY,
    STAR_TABLES,
    STARS,
    TRENDS,
    draw_population,
    trends,
)
from mock_survey.synthesis import MODEL, MODEL_TABLES, complete_labels, synthesize
from mock_survey.tables import table

__all__ = ["SEED", "read_truth", "survey_key", "write_survey"]

VERSION = 15
"""Raise this whenever the spectra, the catalog or the continuum pixels of a seed change."""

SEED = 128
BATCH = 250  # stars whose models are held at a time
BLOCK = 2880  # bytes, to which FITS fills up its headers
PIXEL = np.arange(WAVELENGTH.size)
CONTINUUM_PIXELS = table("continuum_pixels.npz")  # made by calibration/continuum_map.py
OWN_FILES = (
    "apogeeStar.csv",
    "aspcapStar.csv",
    "truth.csv",
    "mystery.fits",
    "continuum_pixels.npz",
)
"""Files of a survey that no list of the archive covers."""

TABLES = [*MODEL_TABLES, *STAR_TABLES, table("sky_lines.csv"), CONTINUUM_PIXELS]


def _header(name: str, star: pd.Series, mask: np.ndarray) -> fits.Header:
    """The primary header, with the keys of a DR17 file that a reader looks at."""
    number = int(star.nvisits)
    # First and last pixel of each chip that any visit has; a chip is looked for a little beyond its
    # limits.
    lit = [np.flatnonzero(mask[0, a - 45 : b + 12] & 1 == 0)[[0, -1]] + a - 45 for a, b in CHIPS]
    cards = [
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", 8, "array data type"),
        ("NAXIS", 0, "number of array dimensions"),
        ("OBJID", name, "star"),
        ("SURVEY", "simulated", "not an observation"),
        ("TELESCOP", TELESCOPE),
        ("FIELD", star.field),
        ("RA", star.ra, "deg, J2000"),
        ("DEC", star.dec, "deg, J2000"),
        ("NVISITS", number, "visit spectra combined"),
        ("VHELIO", star.vhelio, "km/s"),
        ("SNR", star.snr, "median signal-to-noise ratio per pixel"),
        ("STARFLAG", int(star.starflag)),
        ("ANDFLAG", int(star.starflag)),
    ]
    for visit in range(1, number + 1):
        cards.append((f"SNRVIS{visit}", star.snr / np.sqrt(number), "of this visit"))
    for chip, edges in zip("BGR", lit, strict=True):
        for end, edge in zip(("MIN", "MAX"), edges, strict=True):
            cards.append((f"{chip}{end}", int(edge), "pixel limit of a chip, any visit"))
    history = "simulated spectrum, written by labtools; HDUs 4-7 (sky, telluric) are not simulated"
    cards += [
        ("NWAVE", WAVELENGTH.size),
        ("CRVAL1", 4.179, "log10(wavelength / Angstrom, vacuum)"),
        ("CDELT1", 6e-6),
        ("CRPIX1", 1),
        ("CTYPE1", "LOG-LINEAR"),
        ("DC-FLAG", 1),
        ("HISTORY", history),
    ]
    return fits.Header(cards)


@lru_cache
def _empty_file(rows: int) -> tuple[bytes, list[int]]:
    """An apStar file of that many rows in which nothing is a star's own yet, and where its first
    images begin."""
    hdus = [fits.PrimaryHDU()]
    for kind, unit in (
        ("f4", "1e-17 erg/s/cm2/Ang"),
        ("f4", "1e-17 erg/s/cm2/Ang"),
        ("i4", "bitwise"),
    ):
        hdus.append(fits.ImageHDU(np.zeros((rows, WAVELENGTH.size), kind)))
        hdus[-1].header.update(
            {"BUNIT": unit, "CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR"}
        )
    hdus += [fits.ImageHDU(name=name) for name in ("SKY", "SKYERR", "TELLURIC", "TELLERR")]
    hdus.append(fits.ImageHDU(np.array([3.2 * KM_PER_PIXEL, 22500.0]), name="LSF"))
    visits = [fits.Column("VISIT", "I", array=np.arange(1, rows + 1))]
    hdus += [fits.BinTableHDU.from_columns(visits, name=name) for name in ("RV", "RVCOMB")]
    file = io.BytesIO()
    fits.HDUList(hdus).writeto(file)
    return file.getvalue(), [start for _, start in fits_headers(file.getvalue())[1:4]]


def _write_apstar(path: Path, name: str, star: pd.Series, images: tuple[np.ndarray, ...]) -> None:
    """Fill an empty file: ten times as quick as astropy, which would build all HDUs anew."""
    empty, starts = _empty_file(len(images[0]))
    content = bytearray(empty)
    for start, image, kind in zip(starts, images, (">f4", ">f4", ">i4"), strict=True):
        data = image.astype(kind).tobytes()
        content[start : start + len(data)] = data
    header = _header(name, star, images[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tostring().encode("ascii") + content[BLOCK:])


def survey_key(seed: int, stars: int) -> str:
    """Name of the folder of a survey: what it depends on is in it.

    Parameters
    ----------
    seed, stars : int
        The seed, and the number of giants.

    Examples
    --------
    >>> survey_key(128, 1900).startswith(f"1900-seed128-v{VERSION}.")
    True
    """
    return f"{stars}-seed{seed}-v{VERSION}.{hash_key(MODEL, *map(sha256_of, TABLES))[:8]}"


def write_survey(folders: list[Path]) -> Path:
    """The simulated archive in one of some folders, or else written to the first: half a minute,
    0.8 GB.

    LAB_SEED draws the stars, 128 by default; LAB_STARS is the number of giants, by default all
    1900. The folder holds the catalog (apogeeStar.csv, aspcapStar.csv), truth.csv, mystery.fits,
    continuum_pixels.npz, the apStar files in the folders of the SDSS archive with their lists of
    checksums (SHA-1, as there), and a list of checksums (SHA-256) of everything else. If one of the
    latter files is damaged the survey is made again, with a warning.

    Parameters
    ----------
    folders : list of pathlib.Path
        The first is written, the others are only read.

    Returns
    -------
    pathlib.Path
        Folder of the survey.

    Raises
    ------
    ValueError
        If LAB_SEED or LAB_STARS is not a number, or there cannot be so many giants.
    CacheError
        If the first folder cannot be written.

    Examples
    --------
    `labtools.open_survey` calls it.
    """
    seed, stars = int_setting("SEED", SEED), int_setting("STARS", STARS)
    name = survey_key(seed, stars)
    return verified_folder(folders, name, lambda made: _write_all(made, seed, stars), _verify)


def _verify(folder: Path) -> None:
    """Compare the checksums of all but the apStar files, which are compared when they are read."""
    for name in OWN_FILES:
        verify_manifest(folder, name)
    for field in FIELDS:
        verify_manifest(folder / "sas" / STARS_FOLDER / TELESCOPE / field, _list_name(field))


def _list_name(field: str) -> str:
    """Name of the list of checksums (SHA-1) of the apStar files of a field, as in DR17."""
    return f"dr17_stars_{TELESCOPE}_{field}.sha1sum"


def _write_all(folder: Path, seed: int, stars: int) -> None:
    """Fill the folder of a survey."""
    truth = draw_population(seed, stars)
    everyone = pd.concat([truth, _mystery_star(truth)])
    everyone.to_csv(folder / "truth.csv", index_label="apogee_id")
    shutil.copyfile(CONTINUUM_PIXELS, folder / "continuum_pixels.npz")
    cataloged = list_entries(truth, seed)
    entries = pd.concat([cataloged, everyone.tail(1).assign(file="", starflag=0)])
    noise, covariance = _write_spectra(folder, entries, seed)
    # The mystery star, which is the last, has no entry in the catalog.
    tables = measure(cataloged, noise[:-1], covariance[:-1], seed)
    for name, rows in zip(("apogeeStar", "aspcapStar"), tables, strict=True):
        rows.to_csv(folder / f"{name}.csv", index=False)
    for place in {path.parent for path in folder.glob("sas/**/apStar-*.fits")}:
        sums = [
            f"{sha1(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(place.iterdir())
        ]
        (place / _list_name(place.name)).write_text("".join(sums))
        write_manifest(place, "*.sha1sum")
    write_manifest(folder, "*")


def _write_spectra(folder: Path, entries: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observe all stars and write their files.

    Returns what the noise of each does to its labels, (entry, 5), and the covariance, (entry, 5,
    5).
    """
    pipeline, found = Pipeline(), []
    with tqdm(
        total=len(entries), desc="writing the simulated survey", unit="star", mininterval=1
    ) as bar:
        for start in range(0, len(entries), BATCH):
            part = entries.iloc[start : start + BATCH]
            labels = part[[*LABELS, *TRENDS.index, "vmacro"]]
            models = synthesize(labels, resolution=part.resolution.to_numpy()).values
            for number, (name, star) in enumerate(part.iterrows()):
                # One generator per star, so that its draws do not depend on its neighbours.
                rng = np.random.default_rng([seed, 2, start + number])
                model = models[number]
                if star.anomaly == "wrong velocity":
                    model = _shift(model, rng)
                source = model * throughput(star, rng)
                images = observe(source, star, rng)
                found.append(pipeline.errors(star, source, images))
                place = f"sas/{sas_path(star)}" if star.file else "mystery.fits"
                _write_apstar(folder / place, name, star, images)
                bar.update()
    noise, covariance = zip(*found, strict=True)
    return np.array(noise), np.array(covariance)


def _shift(model: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A spectrum (8575,) that was put to rest with a velocity wrong by 3 to 4.5 km/s."""
    shift = rng.choice([-1, 1]) * rng.uniform(3.0, 4.5) / KM_PER_PIXEL
    return np.interp(PIXEL - shift, PIXEL, model)


def _mystery_star(truth: pd.DataFrame) -> pd.DataFrame:
    """The mystery star as a row of the truth."""
    star = MYSTERY.to_frame("mystery").T.reindex(columns=truth.columns)
    star[TRENDS.index], star["vmacro"] = trends(star), complete_labels(star[LABELS]).vmacro
    place = {
        "field": "N6791",
        "kind": "mystery",
        "anomaly": "",
        "vhelio": 12.0,
        "ra": 290.0,
        "dec": 37.8,
    }
    return star.assign(**place, phase=2, age=8.0, mass=np.nan, resolution=22500.0)


def read_truth(folder: Path) -> pd.DataFrame:
    """The truth about every star of a simulated survey, as `draw_population` has drawn it.

    Parameters
    ----------
    folder : pathlib.Path
        Of `write_survey`.

    Returns
    -------
    pandas.DataFrame
        One row per star, index ``apogee_id``.

    Examples
    --------
    `SimulatedSurvey.truth` calls it.
    """
    return pd.read_csv(Path(folder) / "truth.csv", index_col="apogee_id").fillna({"anomaly": ""})
