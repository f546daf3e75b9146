"""The stars of the simulated survey: who they are, and where they stand on isochrones.

Which distributions are measured on real stars, and which are choices, is in docs/simulation.md.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from astropy.coordinates import Angle

from apogee_archive.columns import LABELS
from apogee_archive.mist import TABLE, shipped_isochrones
from mock_survey.synthesis import complete_labels
from mock_survey.tables import table

__all__ = ["designations", "draw_abundances", "draw_giants", "draw_population", "trends"]

FIELDS = {
    # name: (right ascension, declination of the centre, degrees; number of giants; share of these
    # that belong to the high-alpha sequence)
    "M15": (322.49, 12.17, 250, 0.45),
    "N6791": (290.22, 37.77, 560, 0.20),
    "K2_C4_168-21": (57.90, 24.80, 480, 0.15),
    "060+00": (295.90, 23.90, 610, 0.10),
}
STARS = sum(giants for *_, giants, _ in FIELDS.values())
"""Giants of the whole survey."""

NAMED = {
    "2M21235315+1244123": ("M15", "21h23m53.15s", "+12d44m12.3s"),
    "2M03533659+2512012": ("K2_C4_168-21", "03h53m36.59s", "+25d12m01.2s"),
}
"""The two stars that the assignment names: field and place."""

RADIUS = 1.45  # degrees, of a field

EXTRAS = {"dwarf": 170, "metal-poor": 90, "faint": 120, "no labels": 60}
"""Stars that the lab's cuts must remove: kind -> how many there are beside 1900 giants."""

ANOMALIES = {"bad labels": 9, "fast rotator": 5, "wrong velocity": 5, "blue persistence": 6}
"""Giants with something wrong: what it is -> how many of 1900."""

MYSTERY = pd.Series(
    {
        "teff": 4393.0,
        "logg": 1.87,
        "fe_h": -0.34,
        "mg_fe": 0.19,
        "si_fe": 0.13,
        "snr": 310.0,
        "nvisits": 1,
    }
)
"""The simulated mystery star: true labels of a giant of 8 Gyr."""

STAR_TABLES = [TABLE, table("abundance_trends.csv")]  # all that stars are drawn by
TRENDS = pd.read_csv(STAR_TABLES[1], index_col="abundance", float_precision="round_trip")
"""Abundances that the lab has no label for, as functions of alpha - 0.1, [Fe/H] and log g - 2.5,
and their scatter."""

GRAVITY = (0.5, 3.45)  # log g of the giants that are drawn
SALPETER = 2.35  # slope of the mass function
BRIGHTNESS = 0.3  # power of luminosity with which a giant gets into the survey


class IsochroneGrid(NamedTuple):
    """The giants' part of the isochrones that ship with the lab, on a regular grid."""

    log_ages: np.ndarray  # log10 of Gyr
    fe_h: np.ndarray
    phases: np.ndarray  # of each equivalent evolutionary point (EEP)
    columns: np.ndarray  # (column, [Fe/H], age, EEP): initial mass, log10 Teff, log g


@lru_cache
def _isochrone_grid() -> IsochroneGrid:
    """The grid, read once."""
    points = shipped_isochrones()
    points = points[points.phase >= 2].sort_values(["feh_init", "age", "eep"], kind="stable")
    fehs, ages, phases = (
        points.feh_init.unique(),
        points.age.unique(),
        points.groupby("eep").phase.first(),
    )
    columns = points[["initial_mass", "log_teff", "log_g"]].to_numpy().T
    return IsochroneGrid(
        np.log10(ages),
        fehs,
        phases.to_numpy(),
        columns.reshape(3, len(fehs), len(ages), len(phases)),
    )


def _bracket(grid: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the grid point below each value, and which share of the way to the next it has
    gone."""
    values = np.clip(values, grid[0], grid[-1])
    below = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    return below, (values - grid[below]) / (grid[below + 1] - grid[below])


def draw_giants(
    rng: np.random.Generator,
    age: np.ndarray,
    fe_h: np.ndarray,
    alpha_fe: np.ndarray,
    oldest_phase: int = 4,
) -> pd.DataFrame:
    """One giant on the isochrone of each age and composition.

    How far a star has come is drawn: stars are born by Salpeter's mass function, stay as long as
    the isochrone says, and are the more likely to be observed the brighter they are. Alpha elements
    count as metals do (Salaris et al. 1993). Beyond the table (2 to 12 Gyr, [Fe/H] -2.5 to 0.5) its
    edge is taken.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws.
    age : numpy.ndarray of shape (star,)
        Gyr.
    fe_h, alpha_fe : numpy.ndarray of shape (star,)
        [Fe/H] and [alpha/Fe], dex.
    oldest_phase : int
        MIST's number of the last phase that is drawn: 2 giant branch, 3 core helium burning
        (clump), 4 early asymptotic giant branch.

    Returns
    -------
    pandas.DataFrame
        ``teff`` (K), ``logg`` (dex), ``mass`` (solar), ``phase``; one row per star.

    References
    ----------
    Salaris, Chieffi & Straniero 1993, ApJ 414, 580.

    Examples
    --------
    >>> age, fe_h, alpha_fe = np.array([[6.0, 6.0], [0.0, -0.5], [0.0, 0.2]])
    >>> stars = draw_giants(np.random.default_rng(1), age, fe_h, alpha_fe)
    >>> bool(stars.logg.between(0.5, 3.45).all())
    True
    """
    grid = _isochrone_grid()
    metals = fe_h + np.log10(0.638 * 10.0**alpha_fe + 0.362)
    i, x = _bracket(grid.fe_h, metals)
    j, y = _bracket(grid.log_ages, np.log10(age))

    # The isochrone of each star, between four of the grid: (column, star, EEP).
    x, y = x[:, None], y[:, None]
    low, high = (
        grid.columns[:, k, j] * (1 - y) + grid.columns[:, k, j + 1] * y for k in (i, i + 1)
    )
    mass, log_teff, logg = points = low * (1 - x) + high * x

    # How many stars stand between each point of it and the next, and are observed: (star, EEP).
    luminosity = (np.log10(mass) + 4 * log_teff - logg)[:, 1:]
    number = np.diff(mass) * mass[:, 1:] ** -SALPETER * 10 ** (BRIGHTNESS * luminosity)
    seen = grid.phases[1:] <= oldest_phase
    seen = seen & (logg[:, 1:] > GRAVITY[0]) & (logg[:, 1:] < GRAVITY[1])
    number = np.cumsum(np.where(seen, number, 0).clip(0), axis=1)

    # Draw one of these steps, by their numbers, and a place within it.
    step = (number < rng.random((len(number), 1)) * number[:, -1:]).sum(axis=1)
    star, part = np.arange(len(step)), rng.random(len(step))
    mass, log_teff, logg = points[:, star, step] * (1 - part) + points[:, star, step + 1] * part
    phases = grid.phases
    return pd.DataFrame(
        {"teff": 10**log_teff, "logg": logg, "mass": mass, "phase": phases[step + 1]}
    )


def trends(stars: pd.DataFrame) -> pd.DataFrame:
    """The abundances that the lab has no label for, without scatter.

    Parameters
    ----------
    stars : pandas.DataFrame
        One row per star, with ``logg``, ``fe_h``, ``mg_fe`` and ``si_fe`` (dex).

    Returns
    -------
    pandas.DataFrame
        One column per row of `TRENDS`, dex.

    Examples
    --------
    >>> star = pd.DataFrame([(2.5, 0.0, 0.1, 0.1)], columns=["logg", "fe_h", "mg_fe", "si_fe"])
    >>> trends(star).equals(TRENDS[["origin"]].T.set_axis([0]).rename_axis(columns=None))
    True
    """
    alpha, gravity = (stars.mg_fe + stars.si_fe) / 2 - 0.1, stars.logg - 2.5
    rows = TRENDS.itertuples()
    return pd.DataFrame(
        {t.Index: t.origin + t.alpha * alpha + t.fe_h * stars.fe_h + t.logg * gravity for t in rows}
    )


def draw_abundances(rng: np.random.Generator, stars: pd.DataFrame) -> pd.DataFrame:
    """Abundances as in `trends`, with scatter.

    C and N deviate in opposite directions (correlation -0.3), because giants turn one into the
    other and mix both up.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws.
    stars : pandas.DataFrame
        As for `trends`.

    Returns
    -------
    pandas.DataFrame
        As of `trends`.

    Examples
    --------
    >>> star = pd.DataFrame([(2.5, 0.0, 0.1, 0.1)], columns=["logg", "fe_h", "mg_fe", "si_fe"])
    >>> draw_abundances(np.random.default_rng(1), star).shape == (1, len(TRENDS))
    True
    """
    deviation = pd.DataFrame(
        rng.standard_normal((len(TRENDS), len(stars))).T, stars.index, TRENDS.index
    )
    deviation["n_fe"] = -0.3 * deviation.c_fe + np.sqrt(1 - 0.3**2) * deviation.n_fe
    return trends(stars) + TRENDS.scatter * deviation


def _draw_sequences(rng: np.random.Generator, number: int, high_alpha: float) -> pd.DataFrame:
    """Giants on isochrones, of two sequences in [Mg/Fe] and [Si/Fe]: an old one, and one of 2 to 12
    Gyr."""
    old = rng.random(number) < high_alpha
    fe_h = np.where(old, rng.normal(-0.38, 0.22, number), rng.normal(-0.05, 0.19, number)).clip(
        -0.98, 0.6
    )
    plateau = 0.31 - 0.28 * np.clip(fe_h + 0.55, 0, None)
    sequence = 0.03 - 0.12 * fe_h + 0.1 * np.clip(fe_h, None, 0) ** 2
    mg_fe = np.where(old, plateau, sequence) + rng.normal(0, 0.035, number)
    si_fe = 0.02 + np.where(old, 0.72, 0.6) * mg_fe - 0.04 * fe_h + rng.normal(0, 0.032, number)
    age = np.where(old, rng.normal(10, 1.5, number), rng.lognormal(np.log(4), 0.5, number)).clip(
        2, 12
    )
    giants = draw_giants(rng, age, fe_h, (mg_fe + si_fe) / 2)
    return giants.assign(fe_h=fe_h, mg_fe=mg_fe, si_fe=si_fe, age=age, kind="giant")


def _draw_extras(rng: np.random.Generator, share: float) -> pd.DataFrame:
    """Stars that the lab's cuts must remove (`EXTRAS`), four of each kind at least."""
    number = {kind: max(round(share * all_of_them), 4) for kind, all_of_them in EXTRAS.items()}
    # Dwarfs need no isochrone: the lab never looks at them.
    dwarfs = _draw_sequences(rng, number["dwarf"], 0.1).assign(kind="dwarf", phase=0)
    dwarfs["logg"] = rng.normal(4.45, 0.15, len(dwarfs)).clip(4.05, 4.8)
    dwarfs["teff"] = rng.uniform(4000, 6400, len(dwarfs))
    hot = dwarfs.index[: len(dwarfs) // 7]
    dwarfs.loc[hot, "logg"] = rng.uniform(3.6, 3.95, len(hot))
    dwarfs.loc[hot, "teff"] = rng.uniform(5750, 6300, len(hot))
    # Metal-poor giants: three fifths of them are members of M15, the others of the halo.
    poor = _draw_sequences(rng, number["metal-poor"], 1.0).assign(kind="metal-poor", age=12.0)
    cluster = rng.random(len(poor)) < 0.6
    poor["fe_h"] = np.where(
        cluster, rng.normal(-2.33, 0.05, len(poor)), rng.uniform(-1.8, -1.03, len(poor))
    )
    again = draw_giants(
        rng, poor.age.to_numpy(), poor.fe_h.to_numpy(), 0.25 * np.ones(len(poor)), oldest_phase=2
    )
    poor[again.columns] = again
    others = [
        _draw_sequences(rng, number[kind], 0.2).assign(kind=kind) for kind in ("faint", "no labels")
    ]
    return pd.concat([dwarfs, poor, *others], ignore_index=True)


def draw_population(seed: int, stars: int = STARS) -> pd.DataFrame:
    """The truth about every star of a survey, those that the assignments name among them.

    Parameters
    ----------
    seed : int
        Of all that is drawn.
    stars : int
        About how many giants there are, 60 to 1900; stars that the cuts must remove come on top.

    Returns
    -------
    pandas.DataFrame
        One row per star, index ``apogee_id``: ``field``, ``ra`` and ``dec`` (degrees), ``kind``
        ("giant" or one of `EXTRAS`), ``anomaly`` ("" or one of `ANOMALIES`), true labels (``teff``
        in K, ``logg``, abundances in dex), ``age`` (Gyr), ``mass`` (solar), ``phase`` (see
        `draw_giants`), ``vmacro`` and ``vhelio`` (km/s), ``resolution`` of the fibre, ``snr`` per
        pixel and ``nvisits``.

    Raises
    ------
    ValueError
        For another number of stars.

    Examples
    --------
    >>> truth = draw_population(seed=1, stars=60)
    >>> int((truth.kind == "giant").sum()), set(NAMED) <= set(truth.index)
    (60, True)
    """
    if not 60 <= stars <= STARS:
        raise ValueError(
            f"a simulated survey has 60 to {STARS} giants, not {stars}: set LAB_STARS so"
        )
    rng, share = np.random.default_rng(seed), stars / STARS
    giants = [
        _draw_sequences(rng, round(share * n), high).assign(field=field)
        for field, (*_, n, high) in FIELDS.items()
    ]
    extras = _draw_extras(rng, share)
    poor = extras.kind == "metal-poor"
    extras["field"] = np.where(poor, "M15", rng.choice(list(FIELDS), len(extras)))
    everyone = pd.concat([*giants, extras], ignore_index=True)
    n, faint = len(everyone), everyone.kind == "faint"
    everyone[TRENDS.index] = draw_abundances(rng, everyone)
    everyone["vmacro"] = complete_labels(everyone[LABELS]).vmacro * rng.lognormal(0, 0.05, n)
    everyone["resolution"] = 22500 * rng.uniform(0.93, 1.07, n)
    everyone["snr"] = np.where(
        faint, rng.uniform(12, 49, n), 54 + rng.lognormal(4.5, 0.6, n).clip(2, 900)
    )
    everyone["nvisits"] = rng.choice([1, 2, 3], n, p=[0.6, 0.25, 0.15])
    everyone["vhelio"] = np.where(everyone.kind == "metal-poor", -107, rng.normal(-20, 45, n))
    everyone["anomaly"] = ""
    chosen = rng.permutation(np.flatnonzero(everyone.kind == "giant"))
    for reason, all_of_them in ANOMALIES.items():
        count = max(round(share * all_of_them), 1)
        everyone.loc[chosen[:count], "anomaly"] = reason
        chosen = chosen[count:]
    everyone.loc[everyone.anomaly == "fast rotator", "vmacro"] = 10.0
    return _name(everyone, rng)


def _name(stars: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Give stars positions in their fields, and names by these as in 2MASS.

    The names that the assignments mention go to ordinary giants near log g = 2.4 and [Fe/H] = 0.
    """
    centre = np.array([FIELDS[field][:2] for field in stars.field])
    distance, angle = (
        RADIUS * np.sqrt(rng.random(len(stars))),
        rng.uniform(0, 2 * np.pi, len(stars)),
    )
    stars["dec"] = centre[:, 1] + distance * np.sin(angle)
    stars["ra"] = (centre[:, 0] + distance * np.cos(angle) / np.cos(np.radians(stars.dec))) % 360
    names = designations(stars.ra, stars.dec)
    for name, (field, *place) in NAMED.items():
        ordinary = stars[(stars.kind == "giant") & (stars.anomaly == "") & (stars.field == field)]
        number = (10 * (ordinary.logg - 2.4) ** 2 + ordinary.fe_h**2).idxmin()
        names[number] = name
        stars.loc[number, ["ra", "dec"]] = [Angle(part).deg for part in place]
        stars.loc[number, ["snr", "nvisits"]] = (180.0, 2 if field == "M15" else 1)
    stars.index = pd.Index(names, name="apogee_id")
    return stars[~stars.index.duplicated()]


def designations(ra: np.ndarray, dec: np.ndarray) -> list[str]:
    """Names of positions as in 2MASS.

    Parameters
    ----------
    ra, dec : numpy.ndarray of shape (star,)
        Degrees.

    Returns
    -------
    list of str
        ``2M``, hours, minutes and seconds to two decimals, degrees, minutes and seconds to one,
        without points.

    Examples
    --------
    >>> designations([187.5], [-12.25])
    ['2M12300000-1215000']
    """
    hours = Angle(np.asarray(ra), "deg").to_string("hour", sep="", precision=2, pad=True)
    degrees = Angle(np.asarray(dec), "deg").to_string(
        "deg", sep="", precision=1, pad=True, alwayssign=True
    )
    return [f"2M{a}{b}".replace(".", "") for a, b in zip(hours, degrees, strict=True)]
