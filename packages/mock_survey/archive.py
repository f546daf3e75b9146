"""The simulated survey: an archive in the formats and folders of SDSS DR17, from forward-model spectra.

The model is that of `mock_survey.synthesis`; stars, instrument and pipeline are those of `population`,
`instrument` and `catalog`. Everything is drawn from one seed, and the folder is named after the number of giants, the
seed, the version of the survey, and a digest of the version of the model, of its lines and of the isochrones.
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

from apogee_archive.cache import cached_folder, hash_key, sha256_of
from apogee_archive.columns import LABELS
from apogee_archive.files import place_of
from apogee_archive.fits_headers import fits_headers
from apogee_archive.grid import CHIPS, WAVELENGTH
from apogee_archive.settings import setting
from mock_survey.catalog import Pipeline, list_entries, measure
from mock_survey.instrument import KM_PER_PIXEL, observe, throughput
from mock_survey.population import MYSTERY, STAR_TABLES, STARS, TRENDS, draw_population, trends
from mock_survey.synthesis import MODEL, MODEL_TABLES, complete_labels, synthesize
from mock_survey.tables import table

__all__ = ["SEED", "int_setting", "read_truth", "survey_key", "write_survey"]

VERSION = 14
"""Raise this whenever the spectra, the catalog or the continuum pixels of a seed change."""

SEED = 128
BATCH = 250  # stars whose models are held at a time
PIXEL = np.arange(WAVELENGTH.size)
CONTINUUM_PIXELS = table("continuum_pixels.npz")  # made by calibration/continuum_map.py
TABLES = [*MODEL_TABLES, *STAR_TABLES, table("sky_lines.csv"), CONTINUUM_PIXELS]


def _header(name, star, mask):
    """The primary header, with the keys of a DR17 file that a reader looks at."""
    number = int(star.nvisits)
    lit = [np.flatnonzero(mask[0, a - 45 : b + 12] & 1 == 0)[[0, -1]] + a - 45 for a, b in CHIPS]
    cards = [
        ("OBJID", name, "star"), ("SURVEY", "simulated", "not an observation"), ("TELESCOP", "apo25m"),
        ("FIELD", star.field), ("RA", star.ra, "deg, J2000"), ("DEC", star.dec, "deg, J2000"),
        ("NVISITS", number, "visit spectra combined"), ("VHELIO", star.vhelio, "km/s"),
        ("SNR", star.snr, "median signal-to-noise ratio per pixel"), ("STARFLAG", int(star.starflag)),
        ("ANDFLAG", int(star.starflag)),
        *((f"SNRVIS{i + 1}", star.snr / np.sqrt(number), "of this visit") for i in range(number)),
        *((f"{c}{e}", int(edge), "pixel limit of a chip, any visit")
          for c, edges in zip("BGR", lit, strict=True) for e, edge in zip(("MIN", "MAX"), edges, strict=True)),
        ("NWAVE", WAVELENGTH.size), ("CRVAL1", 4.179, "log10(wavelength / Angstrom, vacuum)"), ("CDELT1", 6e-6),
        ("CRPIX1", 1), ("CTYPE1", "LOG-LINEAR"), ("DC-FLAG", 1),
        ("HISTORY", "simulated spectrum, written by labtools; HDUs 4-7 (sky, telluric) are not simulated"),
    ]  # fmt: skip
    return fits.Header(cards)


@lru_cache
def _empty_file(rows):
    """An apStar file of that many rows in which nothing is a star's own yet, and where its first images begin."""
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


def _write_apstar(path, name, star, images):
    """Fill an empty file: ten times as quick as astropy, which would build all HDUs anew."""
    empty, starts = _empty_file(len(images[0]))
    content = bytearray(empty)
    for start, image, kind in zip(starts, images, (">f4", ">f4", ">i4"), strict=True):
        data = image.astype(kind).tobytes()
        content[start : start + len(data)] = data
    primary = (
        fits.PrimaryHDU(header=_header(name, star, images[2])).header.tostring().encode("ascii")
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(primary + content[2880:])


def survey_key(seed, stars):
    """Name of the folder of a survey: what it depends on is in it."""
    return f"{stars}-seed{seed}-v{VERSION}.{hash_key(MODEL, *map(sha256_of, TABLES))[:8]}"


def write_survey(folders):
    """The simulated archive in one of `folders`, or else written to the first: half a minute, 0.8 GB.

    LAB_SEED draws the stars, 128 by default; LAB_STARS is the number of giants, by default all 1900. The folder holds
    the catalog (apogeeStar.csv, aspcapStar.csv), truth.csv, mystery.fits, continuum_pixels.npz and the apStar files
    in the folders of the SDSS archive.
    """
    seed, stars = int_setting("SEED", SEED), int_setting("STARS", STARS)
    return cached_folder(
        folders, survey_key(seed, stars), lambda unfinished: _write_all(unfinished, seed, stars)
    )


def int_setting(name, default):
    """The number that LAB_<name> gives. Raises ValueError if it is none."""
    wanted = str(setting(name, default))
    if not wanted.isdecimal():
        raise ValueError(f"LAB_{name} is a number, not {wanted!r}")
    return int(wanted)


def _write_all(folder, seed, stars):
    truth = draw_population(seed, stars)
    everyone = pd.concat([truth, _mystery_star(truth)])
    everyone.to_csv(folder / "truth.csv", index_label="apogee_id")
    shutil.copyfile(CONTINUUM_PIXELS, folder / "continuum_pixels.npz")
    cataloged = list_entries(truth, seed)
    entries = pd.concat([cataloged, everyone.tail(1).assign(file="", starflag=0)])
    pipeline, found = Pipeline(), []
    with tqdm(
        total=len(entries), desc="writing the simulated survey", unit="star", mininterval=1
    ) as bar:
        for start in range(0, len(entries), BATCH):
            part = entries.iloc[start : start + BATCH]
            models = synthesize(
                part[[*LABELS, *TRENDS.index, "vmacro"]], resolution=part.resolution.to_numpy()
            ).values
            for number, (model, (name, star)) in enumerate(
                zip(models, part.iterrows(), strict=True)
            ):
                rng = np.random.default_rng([seed, 2, start + number])
                if star.anomaly == "wrong velocity":  # the survey takes it to be at rest elsewhere
                    model = np.interp(
                        PIXEL - rng.choice([-1, 1]) * rng.uniform(3.0, 4.5) / KM_PER_PIXEL,
                        PIXEL,
                        model,
                    )
                source = model * throughput(star, rng)
                images = observe(source, star, rng)
                found.append(pipeline.errors(star, source, images))
                place = f"sas/{place_of(star)}" if star.file else "mystery.fits"
                _write_apstar(folder / place, name, star, images)
                bar.update()
    noise, covariance = (np.array(part[:-1]) for part in zip(*found, strict=True))
    for name, rows in zip(
        ("apogeeStar", "aspcapStar"), measure(cataloged, noise, covariance, seed), strict=True
    ):
        rows.to_csv(folder / f"{name}.csv", index=False)
    for place in {path.parent for path in folder.glob("sas/**/apStar-*.fits")}:
        sums = [
            f"{sha1(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(place.iterdir())
        ]
        (place / f"dr17_stars_{place.parent.name}_{place.name}.sha1sum").write_text("".join(sums))


def _mystery_star(truth):
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


def read_truth(folder):
    """The truth about every star of a simulated survey: DataFrame indexed by apogee_id (see `draw_population`)."""
    return pd.read_csv(Path(folder) / "truth.csv", index_col="apogee_id").fillna({"anomaly": ""})
