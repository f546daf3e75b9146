"""What the survey's pipeline says about the simulated stars: entries, flags, labels with errors like ASPCAP's.

A label of the catalog is the true one plus
  - what the noise of *this* spectrum does to it: its best linear estimate from the pixels, so that the catalog and
    whoever fits the same spectrum err alike, and labels err together (hotter goes with higher gravity, more metals);
  - the pipeline's own error (continuum, line spread function, interpolation), with the same correlations between
    labels, of the size that makes the whole `ERRORS` times `ERROR_SCALE`;
  - trends (`TRENDS`) along Teff and [Fe/H], and an offset in log g of stars that burn helium.

Which of these sizes are measured and which are choices is in docs/simulation.md.
"""

import numpy as np
import pandas as pd

from apogee_archive.bitmasks import LAB_BITS
from apogee_archive.columns import LABELS
from apogee_archive.grid import GRID
from mock_survey.population import FIELDS, NAMED
from mock_survey.synthesis import synthesize

__all__ = ["Pipeline", "list_entries", "measure"]

DUPLICATES = 24 / 1900  # share of the giants
ERRORS = pd.Series([9.0, 0.028, 0.007, 0.011, 0.012], LABELS)
"""Quoted standard errors of a spectrum of SNR 150; they go as SNR^-0.5."""

ERROR_SCALE = pd.Series([1.3, 1.2, 0.9, 1.15, 0.85], LABELS)
"""True size of the errors in units of the quoted one."""

TRENDS = pd.DataFrame(
    [(25.0, 0.02, -0.01, 0.015, -0.01), (20.0, 0, 0, 0, 0), (0, 0.04, 0, 0, 0)],
    ["teff", "fe_h", "clump"],
    LABELS,
)
"""Systematic errors per 500 K above 4600 K, per dex of [Fe/H], and of stars that burn helium in their core."""

STEPS = pd.Series([50.0, 0.2, 0.1, 0.1, 0.1], LABELS)


class Pipeline:
    """Best linear estimates of labels from the noise of a spectrum, with the responses of giants along the branch."""

    def __init__(self):
        rows = [
            (t, g, f, 0.1, 0.1)
            for t, g in ((3800, 1), (4300, 1.8), (4750, 2.5), (5000, 3.2))
            for f in (-0.5, 0)
        ]
        self.examples = pd.DataFrame(rows, columns=LABELS, dtype=float)
        self.place = self.examples[["teff", "fe_h"]].to_numpy()
        moved = [
            self.examples.assign(**{k: self.examples[k] + a * step})
            for k, step in STEPS.items()
            for a in (1, -1)
        ]
        flux = synthesize(pd.concat(moved, ignore_index=True)).values[:, GRID].astype(float)
        flux = flux.reshape(len(STEPS), 2, len(rows), GRID.size)
        self.response = (flux[:, 0] - flux[:, 1]).transpose(1, 0, 2) / 2  # per step of each label

    def errors(self, star, source, images):
        """Error of the labels (5,) from the noise of one spectrum, and their covariance (5, 5)."""
        flux, error, mask = (image[0, GRID] for image in images)
        good = (mask & int(LAB_BITS) == 0) & (flux != 0) & (error < 1e5)
        weight = np.where(good, source[GRID] / np.where(good, error, 1), 0)
        noise = np.where(good, flux / source[GRID] - 1, 0)
        near = ((self.place - np.array([star.teff, star.fe_h], float)) / (400, 0.5)) ** 2
        response = self.response[near.sum(axis=1).argmin()] * weight
        covariance = np.linalg.inv(response @ response.T)
        steps = STEPS.to_numpy()
        return covariance @ response @ (noise * weight) * steps, covariance * np.outer(steps, steps)


def list_entries(truth, seed):
    """Entries of the catalog, without labels: one for each star, and second ones of stars seen from two fields.

    Returns a DataFrame like `truth` with the columns that name files and entries, starflag, aspcapflag and extratarg.
    """
    rng = np.random.default_rng([seed, 1])
    giants = truth.index[
        (truth.kind == "giant") & (truth.anomaly == "") & ~truth.index.isin(list(NAMED))
    ]
    twice = truth.loc[
        rng.choice(giants, max(round(DUPLICATES * len(giants)), 4), replace=False)
    ].copy()
    twice["field"] = twice.field.map(dict(zip(FIELDS, [*list(FIELDS)[1:], "M15"], strict=True)))
    twice = twice.assign(snr=(0.6 * twice.snr).clip(51), kind="duplicate")
    entries = pd.concat([truth, twice])
    entries["apogee_id"] = entries.index
    entries["telescope"] = "apo25m"
    entries["file"] = "apStar-dr17-" + entries.apogee_id + ".fits"
    entries["apstar_id"] = "apogee.apo25m.stars." + entries.field + "." + entries.apogee_id
    entries["aspcap_id"] = "apogee.apo25m.aspcap." + entries.field + "." + entries.apogee_id
    entries = entries.assign(starflag=0, aspcapflag=0, extratarg=0)
    reasons = [
        ("extratarg", entries.kind == "duplicate", 1 << 4),
        ("starflag", entries.kind == "faint", 1 << 4),
        ("aspcapflag", entries.kind == "faint", 1 << 11 | 1 << 23 | 1 << 27),
        ("aspcapflag", entries.kind == "no labels", 1 << 23 | 1 << 31),
        ("aspcapflag", entries.anomaly == "bad labels", 1 << 8 | 1 << 23 | 1 << 24),
        ("starflag", entries.anomaly == "fast rotator", 1 << 17),
        ("aspcapflag", entries.anomaly == "fast rotator", 1 << 10 | 1 << 7),
        ("starflag", entries.anomaly == "wrong velocity", 1 << 16),
        ("starflag", entries.anomaly == "blue persistence", 1 << 9),
        ("aspcapflag", entries.snr.between(50, 70), 1 << 11),
    ]
    for column, rows, value in reasons:
        entries[column] |= np.where(rows, value, 0)
    return entries


def measure(entries, noise, covariance, seed):
    """The tables apogeeStar and aspcapStar: entries with labels as the pipeline finds them, and fillers.

    `noise` (entry, 5) and `covariance` (entry, 5, 5) are those of `Pipeline.errors`.
    """
    rng, entries = np.random.default_rng([seed, 3]), entries.copy()
    quoted = np.sqrt(150 / entries.snr.clip(10, 300)).to_numpy()[:, None] * ERRORS.to_numpy()
    formal = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    root = np.linalg.cholesky(covariance / (formal[:, :, None] * formal[:, None]))
    own = np.sqrt(((quoted * ERROR_SCALE.to_numpy()) ** 2 - formal**2).clip(0))
    own = own * np.einsum("nij,nj->ni", root, rng.standard_normal(own.shape))
    place = np.column_stack([(entries.teff - 4600) / 500, entries.fe_h, entries.phase == 3])
    wrong = np.where(entries.anomaly == "bad labels", rng.choice([-9, 9], len(entries)), 0)
    systematic = place @ TRENDS.to_numpy() + wrong[:, None] * ERRORS.to_numpy()
    entries[LABELS] = entries[LABELS].to_numpy(float) + noise + own + systematic
    entries[[f"{label}_err" for label in LABELS]] = quoted
    entries["m_h"] = entries.fe_h + rng.normal(0, 0.006, len(entries))
    entries["alpha_m"] = (entries.mg_fe + entries.si_fe) / 2 + rng.normal(0, 0.01, len(entries))
    entries["vhelio_avg"] = entries.vhelio
    missing = np.flatnonzero(entries.kind == "no labels")
    gone = rng.choice(5, missing.size)
    for number, label in enumerate(LABELS):  # fillers for what the pipeline did not find
        lost = missing[gone == number if number else gone <= 1]
        entries.iloc[lost, entries.columns.get_loc(label)] = -9999.0 if number % 2 else -9999.99
    first = [
        "apstar_id",
        "apogee_id",
        "file",
        "telescope",
        "field",
        "snr",
        "nvisits",
        "starflag",
        "extratarg",
    ]
    first += ["ra", "dec", "vhelio_avg"]
    second = ["apstar_id", "aspcap_id", "apogee_id", "teff", "logg", "m_h", "alpha_m", *LABELS[2:]]
    second += [f"{label}_err" for label in LABELS] + ["aspcapflag"]
    return entries[first].reset_index(drop=True), entries[second].reset_index(drop=True)
