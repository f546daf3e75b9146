"""The simulated survey: an archive in the formats and folders of SDSS DR17, from forward-model spectra.

The model is that of `labtools.simulation.synthesis`; stars and catalogue are those of
`labtools.simulation.population`. Everything is drawn from one seed, and the folder is named after the version of the
model, the seed, and a digest of the line table.
"""

import io
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits
from numpy.polynomial import chebyshev
from tqdm import tqdm

from labtools.cache import cached_folder, sha256_of
from labtools.continuum import find_continuum_pixels, normalize
from labtools.selection import LABELS
from labtools.simulation.population import MYSTERY, catalogue_tables, draw_population
from labtools.simulation.synthesis import LINE_TABLE, complete_labels, synthesize
from labtools.spectra import CHIPS, GRID, LIGHT, WAVELENGTH

__all__ = ["SEED", "continuum_map", "observe", "read_truth", "write_survey"]

VERSION = 12
"""Raise this whenever the spectra or the catalogue of a seed change."""

SEED = 128
STARS_FOLDER = Path("sas/dr17/apogee/spectro/redux/dr17/stars")
SKY_LINES = np.array(
    [15187.1, 15241.0, 15287.8, 15332.4, 15395.3, 15432.2, 15509.8, 15539.7, 15546.1, 15570.2, 15597.6, 15631.4,
     15655.1, 15702.5, 15833.3, 15848.1, 15869.3, 15972.6, 16030.8, 16079.8, 16128.6, 16194.6, 16235.4, 16317.2,
     16350.7, 16388.5, 16442.2, 16502.4, 16553.8, 16692.4, 16708.9, 16732.5, 16840.5, 16903.7, 16955.1]
)  # fmt: skip
"""Strong OH lines of the night sky, Angstrom, vacuum (Rousselot et al. 2000, A&A 354, 1134), in the observed frame."""

TELLURIC = ((15680, 15790), (16000, 16090), (16430, 16470))
"""Rough ranges of absorption by carbon dioxide and methane in the air, Angstrom, observed frame."""

NOTHING = 1e10
"""The error of a pixel of which nothing is known, in real files too."""

BAD = 0xFF
"""Pixels of a visit with one of these bits do not enter the combined spectrum."""

KM_PER_PIXEL = LIGHT * 6e-6 * np.log(10)


def observe(model, star, rng):
    """One star as the telescope sees it: the images of an apStar file.

    Parameters
    ----------
    model : (8575,) continuum-normalized flux.
    star : Series with snr (of the combined spectrum, per pixel), nvisits, vhelio (km/s) and peculiar.

    Returns
    -------
    flux, error (float32, 1e-17 erg/s/cm2/Angstrom) and mask (int32), (rows, 8575): as in DR17 row 0 is the combined
    spectrum with the bits that all visits share, row 1 another combination without a mask, or nothing if there was
    one visit, then the visits. Of several visits only the good pixels are combined, and where there is none row 0 has
    flux 0 and error 1e10, whatever its bits: visits may have lost a pixel for different reasons, which they do not
    share. A single visit is kept as it is.
    """
    if star.peculiar == "wrong velocity":
        pixels = np.arange(WAVELENGTH.size)
        model = np.interp(pixels - rng.choice([-1, 1]) * rng.uniform(3.0, 4.5) / KM_PER_PIXEL, pixels, model)
    source = model * _throughput(star, rng)
    visits = [_visit(source, star, rng) for _ in range(int(star.nvisits))]
    flux, error, mask = (np.array(part) for part in zip(*visits, strict=True))
    weight = np.where((mask & BAD == 0) | (len(visits) == 1), 1 / error**2, 0)
    total = weight.sum(axis=0)
    seen = total > 0
    safe = np.where(seen, total, 1)
    combined = (weight * flux).sum(axis=0) / safe
    sigma = np.where(seen, 1 / np.sqrt(safe), NOTHING)
    shared = np.bitwise_and.reduce(mask, axis=0)
    if star.nvisits == 1:
        nothing = np.zeros(WAVELENGTH.size)
        return (
            np.stack([combined, nothing]),
            np.stack([sigma, nothing]),
            np.stack([shared, nothing]).astype("i4"),
        )
    rows = np.vstack([combined, combined, flux]), np.vstack([sigma, sigma, error])
    return *rows, np.vstack([shared, np.zeros_like(shared), mask]).astype("i4")


def _throughput(star, rng):
    """Counts at the continuum: the star's slope times the response of each chip, which no one knows exactly."""
    level = 10 ** rng.uniform(2.0, 3.6) * (WAVELENGTH / 16000) ** -2.5
    for first, last in CHIPS:
        x = np.linspace(-1, 1, last - first + 1)
        shape = np.r_[rng.normal(1, 0.04), rng.normal(0, [0.05, 0.04]), rng.normal(0, [0.002, 0.001])]
        level[first : last + 1] *= chebyshev.chebval(x, shape)
        if star.peculiar == "blue persistence" and first == CHIPS[0][0]:
            level[first : last + 1] *= 1 + rng.uniform(0.06, 0.2) * np.exp(-0.5 * ((x + 0.6) / 0.15) ** 2)
    return level


def _visit(source, star, rng):
    """Flux, error and mask (8575,) of one visit."""
    observed = WAVELENGTH * (1 + (star.vhelio + rng.uniform(-28, 28)) / LIGHT)
    snr = star.snr / np.sqrt(star.nvisits)
    error = np.sqrt(source * np.median(source)) / snr
    mask = np.zeros(WAVELENGTH.size, "i4")
    sky = np.abs(observed - SKY_LINES[:, None]).min(axis=0) < 0.9
    air = np.any([(observed > a) & (observed < b) for a, b in TELLURIC], axis=0) & (np.sin(observed / 1.9) > 0.55)
    error = error * np.where(sky, rng.uniform(3, 12), 1) * np.where(air, 1.5, 1)
    mask[sky] |= 1 << 12
    mask[air] |= 1 << 13
    flux = source + error * rng.standard_normal(source.size)
    hits = rng.choice(source.size, rng.poisson(12), replace=False)
    size = rng.uniform(0.1, 1.5, hits.size)
    flux[hits] += source[hits] * size
    mask[hits[(size > 0.4) | (rng.random(hits.size) < 0.95)]] |= 1 << 1
    for bit, number in ((0, 25), (3, 2), (4, 12), (5, 20), (7, 2)):
        bad = rng.choice(source.size, rng.poisson(number), replace=False)
        flux[bad] *= rng.uniform(0.5, 1.3, bad.size)
        mask[bad] |= 1 << bit
    if star.peculiar == "blue persistence":
        mask[CHIPS[0][0] : CHIPS[0][0] + 1100] |= 1 << 9
    return _without_gaps(flux, error, mask, rng.integers(-40, 6))


def _without_gaps(flux, error, mask, shift):
    """Nothing was recorded between the chips, which lie `shift` pixels from where they are for a star at rest."""
    recorded = np.zeros(flux.size, bool)
    for first, last in CHIPS:
        recorded[first + shift : last + shift + 1] = True
    return (
        np.where(recorded, flux, 0),
        np.where(recorded, error, NOTHING),
        np.where(recorded, mask, 1).astype("i4"),
    )


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
    ]  # fmt: skip
    header = fits.Header(cards)
    header["HISTORY"] = "simulated spectrum, written by labtools; HDUs 4-7 (sky, telluric) are not simulated"
    return header


@lru_cache
def _extension_headers(rows):
    """Headers of HDU 1 to 10 as bytes, and the images that do not differ from star to star."""
    units = ["1e-17 erg/s/cm2/Ang", "1e-17 erg/s/cm2/Ang", "bitwise"]
    images = [fits.ImageHDU(np.zeros((rows, WAVELENGTH.size), kind)) for kind in ("f4", "f4", "i4")]
    for image, unit in zip(images, units, strict=True):
        image.header.update({"BUNIT": unit, "CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR"})
    rest = [fits.ImageHDU(name=name) for name in ("SKY", "SKYERR", "TELLURIC", "TELLERR")]
    rest.append(fits.ImageHDU(np.array([3.2 * KM_PER_PIXEL, 22500.0]), name="LSF"))
    visits = [fits.Column("VISIT", "I", array=np.arange(1, rows + 1))]
    rest += [fits.BinTableHDU.from_columns(visits, name=name) for name in ("RV", "RVCOMB")]
    tail = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), *rest]).writeto(tail)
    return [image.header.tostring().encode("ascii") for image in images], tail.getvalue()[2880:]


def _write_apstar(path, name, star, images):
    headers, tail = _extension_headers(len(images[0]))
    primary = fits.PrimaryHDU(header=_header(name, star, images[2]))
    with open(path, "wb") as file:
        file.write(primary.header.tostring().encode("ascii"))
        for header, image, kind in zip(headers, images, (">f4", ">f4", ">i4"), strict=True):
            data = np.ascontiguousarray(image, kind).tobytes()
            file.write(header + data + bytes(-len(data) % 2880))
        file.write(tail)


def continuum_map():
    """The lab's own continuum pixels: found on noise-free model spectra as Ness et al. (2015, §5.3) do on real ones.

    Returns
    -------
    boolean DataArray over the 7214 wavelengths (Angstrom, vacuum) of `GRID`.
    """
    giants = draw_population(SEED).query("kind == 'giant' and peculiar == ''").iloc[::24]
    model = synthesize(giants.drop(columns=["field", "kind", "peculiar"])[LABELS]).isel(wavelength=GRID)
    spectra = xr.Dataset({"flux": model, "error": xr.full_like(model, 0.005)})
    everywhere = xr.ones_like(model.wavelength, bool)
    for _ in range(3):
        upper = spectra.flux > spectra.flux.quantile(0.7, "wavelength")
        first = everywhere & (upper.mean("star") > 0.5)
        spectra = normalize(spectra, first)[["flux", "error"]]
    return find_continuum_pixels(spectra, giants)


def write_survey(folders, seed=SEED):
    """The simulated archive in one of `folders`, or else written to the first: half a minute, 0.8 GB.

    Returns
    -------
    the folder: apogeeStar.csv and aspcapStar.csv (the catalogue), truth.csv, mystery.fits, continuum_pixels.npz and
    the apStar files in the folders of the SDSS archive.
    """
    lines = sha256_of(LINE_TABLE)[:8]
    return cached_folder(folders, f"v{VERSION}-seed{seed}-{lines}", lambda unfinished: _write_all(unfinished, seed))


def _write_all(folder, seed, batch=250):
    truth = draw_population(seed)
    first, second = catalogue_tables(truth, seed)
    first.to_csv(folder / "apogeeStar.csv", index=False)
    second.to_csv(folder / "aspcapStar.csv", index=False)
    mystery = complete_labels(MYSTERY.to_frame("mystery").T[LABELS])
    mystery = mystery.assign(field="N6791", kind="mystery", peculiar="", vhelio=12.0, ra=290.0, dec=37.8)
    mystery[["snr", "nvisits"]] = MYSTERY[["snr", "nvisits"]].to_numpy()
    truth = pd.concat([truth, mystery[truth.columns]])
    truth.to_csv(folder / "truth.csv", index_label="apogee_id")
    continuum = continuum_map()
    np.savez(folder / "continuum_pixels.npz", wavelengths=continuum.wavelength.values, trusted=continuum.values)
    shared = [name for name in truth if name in first]
    entries = pd.concat([first.set_index("apogee_id"), mystery[shared].assign(file="", starflag=0)])
    entries = entries.join(truth.drop(columns=shared))
    with tqdm(total=len(entries), desc="writing the simulated survey", unit="star", mininterval=1) as bar:
        for start in range(0, len(entries), batch):
            part = entries.iloc[start : start + batch]
            models = synthesize(part[_numbers(truth)]).values
            for number, (model, (name, star)) in enumerate(zip(models, part.iterrows(), strict=True)):
                rng = np.random.default_rng([seed, 2, start + number])
                _write_apstar(_place(folder, star), name, star, observe(model, star, rng))
                bar.update()


def _numbers(truth):
    return [name for name in truth if name in LABELS or name.endswith("_fe") or name == "vmacro"]


def _place(folder, star):
    if not star.file:
        return folder / "mystery.fits"
    field = folder / STARS_FOLDER / star.telescope / star.field
    field.mkdir(parents=True, exist_ok=True)
    return field / star.file


def read_truth(folder):
    """The truth about every star of a simulated survey: DataFrame indexed by apogee_id (see `draw_population`)."""
    return pd.read_csv(Path(folder) / "truth.csv", index_col="apogee_id").fillna({"peculiar": ""})
