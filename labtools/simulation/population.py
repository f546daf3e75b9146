"""The stars of the simulated survey: who they are (the truth) and what the catalogue says about them."""

import numpy as np
import pandas as pd

from labtools.selection import LABELS
from labtools.simulation.synthesis import complete_labels

__all__ = ["MYSTERY", "catalogue_tables", "draw_population"]

FIELDS = {
    # name: (right ascension, declination of the centre in degrees, giants, share of the high-alpha sequence)
    "M15": (322.49, 12.17, 250, 0.45),
    "N6791": (290.22, 37.77, 560, 0.20),
    "K2_C4_168-21": (57.90, 24.80, 480, 0.15),
    "060+00": (295.90, 23.90, 610, 0.10),
}
NAMED = {"2M21235315+1244123": "M15", "2M03533659+2512012": "K2_C4_168-21"}
"""The two stars that the assignment names."""

EXTRAS = {"dwarf": 170, "metal-poor": 90, "faint": 120, "no labels": 60}
PECULIAR = {"bad labels": 9, "fast rotator": 5, "wrong velocity": 5, "blue persistence": 6}
DUPLICATES = 24
MYSTERY = pd.Series(
    {"teff": 4392.0, "logg": 1.87, "fe_h": -0.34, "mg_fe": 0.19, "si_fe": 0.13, "snr": 310.0, "nvisits": 1}
)
"""True labels of the simulated mystery star."""

ERRORS = {"teff": 9.0, "logg": 0.028, "fe_h": 0.007, "mg_fe": 0.011, "si_fe": 0.012}
"""Standard errors of catalogue labels at SNR 150, sizes as in APOGEE DR17."""


def branch_temperature(logg, fe_h):
    """Effective temperature (K) of the red giant branch of an old star: a rough fit by eye to isochrones of 6 Gyr.

    At [Fe/H] = 0: 4900, 4660, 4430, 4190, 3930, 3650 K at log g = 3, 2.5, 2, 1.5, 1, 0.5; bluer by about 380 K per
    dex towards low [Fe/H]; meant for 0 < log g < 4 and -2.5 < [Fe/H] < 0.5.
    """
    knots = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    teff = [3350, 3650, 3930, 4190, 4430, 4660, 4870, 5050, 5300]
    return np.interp(logg, knots, teff) - 380 * fe_h - 60 * fe_h**2


def _draw_giants(rng, number, high_alpha):
    """Labels of giants: red giant branch, red clump, two sequences in [Mg/Fe] and [Si/Fe]."""
    old = rng.random(number) < high_alpha
    fe_h = np.where(old, rng.normal(-0.38, 0.22, number), rng.normal(-0.05, 0.19, number)).clip(-0.98, 0.6)
    plateau = 0.31 - 0.28 * np.clip(fe_h + 0.55, 0, None)
    sequence = 0.03 - 0.12 * fe_h + 0.1 * np.clip(fe_h, None, 0) ** 2
    mg_fe = np.where(old, plateau, sequence) + rng.normal(0, 0.035, number)
    si_fe = 0.02 + np.where(old, 0.72, 0.6) * mg_fe - 0.04 * fe_h + rng.normal(0, 0.032, number)
    clump = rng.random(number) < 0.36
    logg = np.where(clump, rng.normal(2.44 + 0.05 * fe_h, 0.07), 3.45 - 2.6 * rng.beta(1.6, 2.3, number))
    teff = branch_temperature(logg, fe_h) + np.where(clump, 170, 0) + rng.normal(0, 45, number)
    return pd.DataFrame({"teff": teff, "logg": logg, "fe_h": fe_h, "mg_fe": mg_fe, "si_fe": si_fe, "kind": "giant"})


def _draw_extras(rng):
    """Stars that the lab's cuts must remove."""
    dwarfs = _draw_giants(rng, EXTRAS["dwarf"], 0.1).assign(kind="dwarf")
    dwarfs["logg"] = rng.normal(4.45, 0.15, len(dwarfs)).clip(4.05, 4.8)
    dwarfs["teff"] = rng.uniform(4000, 6400, len(dwarfs))
    hot = dwarfs.index[:25]
    dwarfs.loc[hot, "logg"] = rng.uniform(3.6, 3.95, len(hot))
    dwarfs.loc[hot, "teff"] = rng.uniform(5750, 6300, len(hot))
    poor = _draw_giants(rng, EXTRAS["metal-poor"], 1.0).assign(kind="metal-poor")
    cluster = rng.random(len(poor)) < 0.6
    poor["fe_h"] = np.where(cluster, rng.normal(-2.33, 0.05, len(poor)), rng.uniform(-1.8, -1.03, len(poor)))
    poor["teff"] = branch_temperature(poor.logg, poor.fe_h)
    others = [_draw_giants(rng, EXTRAS[kind], 0.2).assign(kind=kind) for kind in ("faint", "no labels")]
    return pd.concat([dwarfs, poor, *others], ignore_index=True)


def draw_population(seed):
    """The truth about every star of the survey.

    Returns
    -------
    DataFrame indexed by apogee_id: field, ra, dec (degrees), kind, peculiar, true labels (teff in K, logg, abundances
    in dex), vmacro (km/s), vhelio (km/s), snr per pixel and nvisits. Abundances that the lab has no label for scatter
    from star to star, so that no model in five labels can be perfect; by how much was chosen so that labels come out
    about as precise as those published for APOGEE.
    """
    rng = np.random.default_rng(seed)
    giants = [_draw_giants(rng, n, share).assign(field=field) for field, (*_, n, share) in FIELDS.items()]
    extras = _draw_extras(rng)
    poor = extras.kind == "metal-poor"
    extras["field"] = np.where(poor, "M15", rng.choice(list(FIELDS), len(extras)))
    stars = pd.concat([*giants, extras], ignore_index=True)
    n = len(stars)
    full = complete_labels(stars[LABELS])
    for element in (
        "c_fe",
        "n_fe",
        "o_fe",
        "al_fe",
        "ca_fe",
        "ti_fe",
        "s_fe",
        "k_fe",
        "mn_fe",
        "ni_fe",
        "v_fe",
        "cr_fe",
    ):
        stars[element] = full[element] + rng.normal(0, 0.012, n)
    stars["vmacro"] = full.vmacro * rng.lognormal(0, 0.05, n)
    stars["snr"] = np.where(stars.kind == "faint", rng.uniform(12, 49, n), 54 + rng.lognormal(4.5, 0.6, n).clip(2, 900))
    stars["nvisits"] = rng.choice([1, 2, 3], n, p=[0.6, 0.25, 0.15])
    stars["vhelio"] = np.where(poor.reindex(range(n), fill_value=False), -107, rng.normal(-20, 45, n))
    stars["peculiar"] = ""
    chosen = rng.permutation(np.flatnonzero((stars.kind == "giant") & (stars.index > 0)))
    for reason, count in PECULIAR.items():
        stars.loc[chosen[:count], "peculiar"] = reason
        chosen = chosen[count:]
    stars.loc[stars.peculiar == "fast rotator", "vmacro"] = 10.0
    return _name(stars, rng).drop(columns="index", errors="ignore")


def _name(stars, rng):
    """Positions in the fields, and 2MASS-like names from the positions; the named stars take suitable giants."""
    centre = np.array([FIELDS[field][:2] for field in stars.field])
    distance, angle = 1.45 * np.sqrt(rng.random(len(stars))), rng.uniform(0, 2 * np.pi, len(stars))
    stars["dec"] = centre[:, 1] + distance * np.sin(angle)
    stars["ra"] = (centre[:, 0] + distance * np.cos(angle) / np.cos(np.radians(stars.dec))) % 360
    names = [_designation(ra, dec) for ra, dec in zip(stars.ra, stars.dec, strict=True)]
    for name, field in NAMED.items():
        ordinary = (stars.kind == "giant") & (stars.peculiar == "") & (stars.field == field)
        number = stars.index[ordinary & stars.logg.between(2.0, 2.9) & stars.fe_h.between(-0.4, 0.2)][0]
        names[number] = name
        hours, minutes, seconds, degrees, arcmin, arcsec = (
            float(name[a:b]) for a, b in ((2, 4), (4, 6), (6, 10), (10, 13), (13, 15), (15, 18))
        )
        stars.loc[number, "ra"] = 15 * (hours + minutes / 60 + seconds / 360000)
        stars.loc[number, "dec"] = degrees + arcmin / 60 + arcsec / 36000
        stars.loc[number, ["snr", "nvisits"]] = (180.0, 2 if field == "M15" else 1)
    stars.index = pd.Index(names, name="apogee_id")
    return stars[~stars.index.duplicated()]


def _designation(ra, dec):
    """2MASS designation, hhmmsss(s)+ddmmss(s) without points, of a position in degrees."""
    ra_ticks, dec_ticks = round(ra / 15 * 360000) % 8640000, round(abs(dec) * 36000)
    hours, rest = divmod(ra_ticks, 360000)
    degrees, arc = divmod(dec_ticks, 36000)
    sign = "+" if dec >= 0 else "-"
    return f"2M{hours:02d}{rest // 6000:02d}{rest % 6000:04d}{sign}{degrees:02d}{arc // 600:02d}{arc % 600:03d}"


def catalogue_tables(truth, seed):
    """What the survey's pipeline would say: the tables apogeeStar and aspcapStar, one row an entry.

    Labels scatter about the truth by their quoted errors; fillers, flags, and second entries of stars that were
    observed in two fields are in them.
    """
    rng = np.random.default_rng([seed, 1])
    entries = pd.concat([truth, _second_entries(truth, rng)])
    entries["apogee_id"] = entries.index
    entries["telescope"] = "apo25m"
    entries["file"] = "apStar-dr17-" + entries.apogee_id + ".fits"
    entries["apstar_id"] = "apogee.apo25m.stars." + entries.field + "." + entries.apogee_id
    entries["aspcap_id"] = "apogee.apo25m.aspcap." + entries.field + "." + entries.apogee_id
    entries = _measure(entries, rng)
    entries = _flag(entries)
    first = [
        "apstar_id", "apogee_id", "file", "telescope", "field", "snr", "nvisits", "starflag", "extratarg", "ra",
        "dec", "vhelio_avg",
    ]  # fmt: skip
    second = ["apstar_id", "aspcap_id", "apogee_id", "teff", "logg", "m_h", "alpha_m", *LABELS[2:]]
    second += [f"{label}_err" for label in LABELS] + ["aspcapflag"]
    return entries[first].reset_index(drop=True), entries[second].reset_index(drop=True)


def _second_entries(truth, rng):
    """Rows of stars that a second field observed too, with fewer photons."""
    giants = truth.index[(truth.kind == "giant") & (truth.peculiar == "") & ~truth.index.isin(list(NAMED))]
    twice = truth.loc[rng.choice(giants, DUPLICATES, replace=False)].copy()
    twice["field"] = twice.field.map(dict(zip(FIELDS, [*list(FIELDS)[1:], "M15"], strict=True)))
    return twice.assign(snr=(0.6 * twice.snr).clip(51), kind="duplicate")


def _measure(entries, rng):
    entries = entries.copy()
    quality = (150 / entries.snr.clip(10, 300)) ** 0.5
    bad = entries.peculiar == "bad labels"
    for label, size in ERRORS.items():
        entries[f"{label}_err"] = size * quality
        wrong = np.where(bad, 9 * size * rng.choice([-1, 1], len(entries)), 0.0)
        entries[label] += rng.normal(0, 1, len(entries)) * entries[f"{label}_err"] + wrong
    entries["m_h"] = entries.fe_h + rng.normal(0, 0.006, len(entries))
    entries["alpha_m"] = (entries.mg_fe + entries.si_fe) / 2 + rng.normal(0, 0.01, len(entries))
    entries["vhelio_avg"] = entries.vhelio
    missing = entries.kind == "no labels"
    gone = rng.choice(5, missing.sum())
    for number, label in enumerate(LABELS):
        lost = entries.index[missing][gone == number] if number else entries.index[missing][gone <= 1]
        entries.loc[lost, label] = -9999.0 if number % 2 else -9999.99
    return entries


def _flag(entries):
    bits = {"starflag": 0, "aspcapflag": 0, "extratarg": 0}
    entries = entries.assign(**bits)
    reasons = [
        ("extratarg", entries.kind == "duplicate", 1 << 4),
        ("starflag", entries.kind == "faint", 1 << 4),
        ("aspcapflag", entries.kind == "faint", 1 << 11 | 1 << 23 | 1 << 27),
        ("aspcapflag", entries.kind == "no labels", 1 << 23 | 1 << 31),
        ("aspcapflag", entries.peculiar == "bad labels", 1 << 8 | 1 << 23 | 1 << 24),
        ("starflag", entries.peculiar == "fast rotator", 1 << 17),
        ("aspcapflag", entries.peculiar == "fast rotator", 1 << 10 | 1 << 7),
        ("starflag", entries.peculiar == "wrong velocity", 1 << 16),
        ("starflag", entries.peculiar == "blue persistence", 1 << 9),
        ("aspcapflag", entries.snr.between(50, 70), 1 << 11),
    ]
    for column, rows, value in reasons:
        entries[column] |= np.where(rows, value, 0)
    return entries
