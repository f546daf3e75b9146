"""A small SDSS archive for tests: both tables of SkyServer, and apStar files in the layout of the SAS."""

from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits

PIXELS = 8575
STARS = Path("sas/dr17/apogee/spectro/redux/dr17/stars")
FIELDS = ("M15", "N6791", "K2_C4_168-21", "060+00")


def write_apstar(path, star, nvisits=1, seed=0):
    """An apStar file of DR17 with flux, error and mask; returns its path."""
    rng = np.random.default_rng(seed)
    rows = 2 if nvisits == 1 else nvisits + 2
    flux = rng.uniform(90, 110, (rows, PIXELS)).astype(">f4")
    error = rng.uniform(0.5, 1.5, (rows, PIXELS)).astype(">f4")
    mask = rng.choice([0, 0, 0, 1, 512, 4096], (rows, PIXELS)).astype(">i4")
    if nvisits == 1:
        flux[1], error[1], mask[1] = 0, 0, 0
    primary = fits.PrimaryHDU()
    primary.header.update({"OBJID": star, "NVISITS": nvisits, "SNR": 100.0, "NWAVE": PIXELS})
    primary.header.update({"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList([primary, *map(fits.ImageHDU, (flux, error, mask))]).writeto(path, overwrite=True)
    return path


def write_archive(folder, number=12):
    """An archive of `number` stars in the four fields, one of them seen from the south; returns `folder`.

    Star 1 has a duplicate row in another field that is flagged as one, star 2 a second row of lower SNR.
    """
    rng = np.random.default_rng(1)
    stars = pd.DataFrame({"apogee_id": [f"2M{i:08d}+{i:07d}" for i in range(number)]})
    stars["field"] = [FIELDS[i % 4] for i in range(number)]
    stars["telescope"] = ["lco25m" if i == 3 else "apo25m" for i in range(number)]
    stars["snr"] = rng.uniform(60, 300, number).round(3)
    stars["nvisits"] = [1 + i % 3 for i in range(number)]
    stars = stars.assign(starflag=0, extratarg=0)
    twice = stars.iloc[[1, 2]].assign(field="060+00", snr=[400.0, 55.0], extratarg=[17, 0])
    stars = pd.concat([stars, twice], ignore_index=True)
    for column in ("ra", "dec", "vhelio_avg"):
        stars[column] = rng.uniform(-90, 90, len(stars)).round(5)
    prefix = stars.telescope.map({"apo25m": "apStar", "lco25m": "asStar"})
    stars["file"] = prefix + "-dr17-" + stars.apogee_id + ".fits"
    stars["apstar_id"] = (
        "apogee." + stars.telescope + ".s.stars." + stars.field + "." + stars.apogee_id
    )
    labels = stars[["apstar_id", "apogee_id", "starflag"]].copy()
    for column, (low, high) in {
        "teff": (4000, 5500), "logg": (1, 4), "m_h": (-1, 0.4), "alpha_m": (0, 0.3), "fe_h": (-1, 0.4),
        "mg_fe": (0, 0.3), "si_fe": (0, 0.3), "teff_err": (5, 50), "logg_err": (0.01, 0.1),
        "fe_h_err": (0.005, 0.02), "mg_fe_err": (0.01, 0.03), "si_fe_err": (0.01, 0.03),
    }.items():  # fmt: skip
        labels[column] = rng.uniform(low, high, len(labels)).astype("f4").astype(float)
    labels["aspcapflag"] = np.where(np.arange(len(labels)) == 5, 2**40 + 2**23, 0)
    labels.loc[4, ["teff", "mg_fe"]] = -9999.0, -9999.99
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stars.to_csv(folder / "apogeeStar.csv", index=False)
    labels.sample(frac=1, random_state=1).to_csv(folder / "aspcapStar.csv", index=False)
    for number, row in stars.iterrows():
        write_apstar(
            folder / STARS / row.telescope / row.field / row.file,
            row.apogee_id,
            row.nvisits,
            number,
        )
    return folder
