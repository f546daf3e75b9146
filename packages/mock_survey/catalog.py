"""What the survey's pipeline says about stars: entries, flags, labels with errors like ASPCAP's.

A label of the catalog is the true one plus three errors:

  - what the noise of *this* spectrum does to it: its best linear estimate from the pixels, so that
    the catalog and whoever fits the same spectrum err alike, and labels err together (hotter goes
    with higher gravity and more metals);
  - the pipeline's own error (continuum, line spread function, interpolation), with the same
    correlations between labels, of the size that makes the whole `ERRORS` times `ERROR_SCALE`;
  - systematic ones (`SYSTEMATICS`) along Teff and [Fe/H], and an offset in log g of stars that burn
    helium.

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

TELESCOPE = "apo25m"
DUPLICATES = 24 / 1900  # share of the giants
ERRORS = pd.Series([9.0, 0.028, 0.007, 0.011, 0.012], LABELS)
"""Quoted standard errors of a spectrum of SNR 150; they go as SNR^-0.5."""

ERROR_SCALE = pd.Series([1.3, 1.2, 0.9, 1.15, 0.85], LABELS)
"""True size of the errors in units of the quoted one."""

SYSTEMATICS = pd.DataFrame(
    [(25.0, 0.02, -0.01, 0.015, -0.01), (20.0, 0, 0, 0, 0), (0, 0.04, 0, 0, 0)],
    ["teff", "fe_h", "clump"],
    LABELS,
)
"""Systematic errors per 500 K above 4600 K, per dex of [Fe/H], and of stars that burn helium."""

STEPS = pd.Series([50.0, 0.2, 0.1, 0.1, 0.1], LABELS)
"""By how much labels are moved to see how a spectrum responds."""

USABLE_ERROR = 1e5  # a pixel with a larger error counts for nothing


class Pipeline:
    """Best linear estimates of labels from the noise of a spectrum.

    What matters of a star is how its spectrum responds to each label. That is taken from the
    nearest of eight giants along the branch.

    Examples
    --------
    >>> Pipeline().response.shape  # (giant, label, pixel)
    (8, 5, 7214)
    """

    def __init__(self) -> None:
        rows = [
            (teff, logg, fe_h, 0.1, 0.1)
            for teff, logg in ((3800, 1), (4300, 1.8), (4750, 2.5), (5000, 3.2))
            for fe_h in (-0.5, 0)
        ]
        self.examples = pd.DataFrame(rows, columns=LABELS, dtype=float)
        self.place = self.examples[["teff", "fe_h"]].to_numpy()
        moved = [
            self.examples.assign(**{label: self.examples[label] + sign * step})
            for label, step in STEPS.items()
            for sign in (1, -1)
        ]
        flux = synthesize(pd.concat(moved, ignore_index=True)).values[:, GRID].astype(float)
        flux = flux.reshape(len(STEPS), 2, len(rows), GRID.size)  # (label, sign, giant, pixel)
        self.response = (flux[:, 0] - flux[:, 1]).transpose(1, 0, 2) / 2  # per step of each label

    def errors(
        self, star: pd.Series, source: np.ndarray, images: tuple[np.ndarray, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the noise of one spectrum does to the labels.

        Parameters
        ----------
        star : pandas.Series
            With ``teff`` (K) and ``fe_h``.
        source : numpy.ndarray of shape (8575,)
            The spectrum without noise.
        images : tuple of numpy.ndarray of shape (row, 8575)
            Flux, error and mask of `mock_survey.instrument.observe`.

        Returns
        -------
        shift : numpy.ndarray of shape (5,)
            Error of each label, K and dex.
        covariance : numpy.ndarray of shape (5, 5)
            Of such errors.
        """
        flux, error, mask = (image[0, GRID] for image in images)
        good = (mask & int(LAB_BITS) == 0) & (flux != 0) & (error < USABLE_ERROR)
        weight = np.where(good, source[GRID] / np.where(good, error, 1), 0)
        noise = np.where(good, flux / source[GRID] - 1, 0)
        distance = ((self.place - np.array([star.teff, star.fe_h], float)) / (400, 0.5)) ** 2
        response = self.response[distance.sum(axis=1).argmin()] * weight
        # Weighted least squares, in units of the steps.
        covariance = np.linalg.inv(response @ response.T)
        steps = STEPS.to_numpy()
        shift = covariance @ response @ (noise * weight) * steps
        return shift, covariance * np.outer(steps, steps)


def list_entries(truth: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Entries of the catalog, without labels: one for each star, and second ones of stars seen from
    two fields.

    Parameters
    ----------
    truth : pandas.DataFrame
        Of `mock_survey.population.draw_population`.
    seed : int
        Of the survey.

    Returns
    -------
    pandas.DataFrame
        Like `truth`, with the columns that name files and entries, and with ``starflag``,
        ``aspcapflag`` and ``extratarg``.

    Examples
    --------
    >>> from mock_survey.population import draw_population
    >>> entries = list_entries(draw_population(1, stars=60), seed=1)
    >>> int((entries.kind == "duplicate").sum())
    4
    """
    rng = np.random.default_rng([seed, 1])
    ordinary = (truth.kind == "giant") & (truth.anomaly == "") & ~truth.index.isin(list(NAMED))
    giants = truth.index[ordinary]
    number = max(round(DUPLICATES * len(giants)), 4)
    twice = truth.loc[rng.choice(giants, number, replace=False)].copy()
    next_field = dict(zip(FIELDS, [*list(FIELDS)[1:], "M15"], strict=True))
    twice["field"] = twice.field.map(next_field)
    twice = twice.assign(snr=(0.6 * twice.snr).clip(51), kind="duplicate")
    entries = pd.concat([truth, twice])
    entries["apogee_id"] = entries.index
    entries["telescope"] = TELESCOPE
    entries["file"] = "apStar-dr17-" + entries.apogee_id + ".fits"
    entries["apstar_id"] = "apogee.apo25m.stars." + entries.field + "." + entries.apogee_id
    entries["aspcap_id"] = "apogee.apo25m.aspcap." + entries.field + "." + entries.apogee_id
    entries = entries.assign(starflag=0, aspcapflag=0, extratarg=0)
    # Which bits mean what is in data/bits.csv of apogee_archive.
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


def measure(
    entries: pd.DataFrame, noise: np.ndarray, covariance: np.ndarray, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of the archive: entries with labels as the pipeline finds them, and fillers.

    Parameters
    ----------
    entries : pandas.DataFrame
        Of `list_entries`.
    noise : numpy.ndarray of shape (entry, 5)
        Of `Pipeline.errors`.
    covariance : numpy.ndarray of shape (entry, 5, 5)
        Of `Pipeline.errors`.
    seed : int
        Of the survey.

    Returns
    -------
    apogee_star, aspcap_star : pandas.DataFrame
        In the columns of the tables of that name in DR17, joined by ``apstar_id``.

    Examples
    --------
    >>> from mock_survey.population import draw_population
    >>> entries = list_entries(draw_population(1, stars=60), seed=1)
    >>> covariance = np.tile(np.diag(ERRORS.to_numpy() / 10) ** 2, (len(entries), 1, 1))
    >>> stars, labels = measure(entries, np.zeros((len(entries), 5)), covariance, seed=1)
    >>> list(labels)[:5]
    ['apstar_id', 'aspcap_id', 'apogee_id', 'teff', 'logg']
    """
    rng, entries = np.random.default_rng([seed, 3]), entries.copy()
    quoted = np.sqrt(150 / entries.snr.clip(10, 300)).to_numpy()[:, None] * ERRORS.to_numpy()

    # The pipeline's own errors are correlated as those of the noise are: (entry, 5, 5).
    formal = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    root = np.linalg.cholesky(covariance / (formal[:, :, None] * formal[:, None]))
    own = np.sqrt(((quoted * ERROR_SCALE.to_numpy()) ** 2 - formal**2).clip(0))
    own = own * np.einsum("nij,nj->ni", root, rng.standard_normal(own.shape))

    place = np.column_stack([(entries.teff - 4600) / 500, entries.fe_h, entries.phase == 3])
    wrong = np.where(entries.anomaly == "bad labels", rng.choice([-9, 9], len(entries)), 0)
    systematic = place @ SYSTEMATICS.to_numpy() + wrong[:, None] * ERRORS.to_numpy()
    entries[LABELS] = entries[LABELS].to_numpy(float) + noise + own + systematic
    entries[[f"{label}_err" for label in LABELS]] = quoted
    entries["m_h"] = entries.fe_h + rng.normal(0, 0.006, len(entries))
    entries["alpha_m"] = (entries.mg_fe + entries.si_fe) / 2 + rng.normal(0, 0.01, len(entries))
    entries["vhelio_avg"] = entries.vhelio

    # Fillers for what the pipeline did not find, of both kinds that the archive uses.
    missing = np.flatnonzero(entries.kind == "no labels")
    gone = rng.choice(5, missing.size)
    for number, label in enumerate(LABELS):
        lost = missing[gone == number if number else gone <= 1]
        entries.iloc[lost, entries.columns.get_loc(label)] = -9999.0 if number % 2 else -9999.99
    own_columns = ["apstar_id", "apogee_id", "file", "telescope", "field", "snr", "nvisits"]
    own_columns += ["starflag", "extratarg", "ra", "dec", "vhelio_avg"]
    labels = ["apstar_id", "aspcap_id", "apogee_id", "teff", "logg", "m_h", "alpha_m", *LABELS[2:]]
    labels += [f"{label}_err" for label in LABELS] + ["aspcapflag"]
    return entries[own_columns].reset_index(drop=True), entries[labels].reset_index(drop=True)
