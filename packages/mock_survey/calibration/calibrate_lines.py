"""Make data/lines.csv: known lines, CO bands from molecular constants, strengths from real giants.

The target is a Cannon trained on real APOGEE giants (coefficients of DR10), evaluated along the
giant branch. Strengths are found by Gauss-Newton steps through `mock_survey.synthesis.synthesize`
itself. Positions come, in this order, from data/known_lines.csv, from molecular constants, and from
minima of the real spectra. A minimum takes the species whose response to the labels it shows, by
name if a list has such a line there, else with a question mark. Deterministic; five to ten minutes
on two cores.

    python packages/mock_survey/calibration/calibrate_lines.py \\
        --cannon DIR --mystery FITS --continuum NPZ --linelists DIR [--out CSV]
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from line_sources import COLUMNS, name_lines, read_lists, start_lines
from line_targets import Target, branch_labels, mystery_labels, read_mystery
from scipy import sparse
from scipy.sparse.linalg import spsolve

from apogee_archive.grid import WAVELENGTH
from mock_survey.synthesis import synthesize
from mock_survey.tables import table

MG_STRONG = np.array([15753.20, 15770.11])
WINDOW = 1.3  # Angstrom on either side of a line in which its strength shows
# Species (with excitation in eV) that a minimum is tried as; the response to the labels decides,
# first among
# every second, then among all.
TEMPLATES = (
    ("Fe", 2.4), ("OH", 0.3), ("Fe", 5.0), ("Fe", 6.2), ("Si", 6.0), ("CN", 1.3), ("Ti", 1.5),
    ("Ca", 4.7),
    ("OH", 1.0), ("CO", 0.8), ("CN", 0.6),
)  # fmt: skip


def colours(wavelength):
    """Numbers such that lines of one number do not see each other; `wavelength` is sorted."""
    result, last = np.empty(len(wavelength), int), []
    for i, w in enumerate(wavelength):
        c = next((k for k, x in enumerate(last) if w - x > 2 * WINDOW + 0.1), len(last))
        last[c:] = [w, *last[c + 1 :]]
        result[i] = c
    return result


def weights(target, labels):
    """(star, star) and (pixel,) weights: like stars share the model's errors, so contrasts count
    more."""
    x = labels[["teff", "logg", "fe_h", "mg_fe"]].to_numpy() / (400.0, 0.8, 0.4, 0.2)
    distance = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    values, vectors = np.linalg.eigh(0.012**2 * np.exp(-0.5 * distance) + 0.003**2 * np.eye(len(x)))
    return (vectors / np.sqrt(values)) @ vectors.T, 0.006 / np.hypot(0.006, target.scatter)


def jacobian(target, labels, lines, column, step):
    """Sparse weighted d flux / d column, ((star, pixel), line), by differences of many lines at
    once."""
    wave, colour = target.wavelength, colours(lines["wavelength"].to_numpy())
    base = synthesize(labels, lines=lines).values[:, target.pixels]
    stars, pixels = weights(target, labels)
    blocks = []
    for c in range(colour.max() + 1):
        moved = lines.copy()
        moved.loc[colour == c, column] += step
        change = (synthesize(labels, lines=moved).values[:, target.pixels] - base) / step
        index = np.flatnonzero(colour == c)
        centre = lines["wavelength"].to_numpy()[index]
        first = np.searchsorted(wave, centre - WINDOW)
        count = np.searchsorted(wave, centre + WINDOW) - first
        pixel = np.concatenate([np.arange(a, a + n) for a, n in zip(first, count, strict=True)])
        rows = np.arange(len(labels))[:, None] * len(wave) + pixel
        cols = np.broadcast_to(np.repeat(index, count), rows.shape)
        blocks.append(
            (rows.ravel(), cols.ravel(), (stars @ (change[:, pixel] * pixels[pixel])).ravel())
        )
    rows, cols, values = (np.concatenate(x) for x in zip(*blocks, strict=True))
    return sparse.csc_matrix((values, (rows, cols)), shape=(base.size, len(lines)))


def weighted_residual(target, labels, real, lines):
    """Residuals (star, pixel) in units in which all are alike and independent."""
    stars, pixels = weights(target, labels)
    return stars @ (residuals(target, labels, real, lines) * pixels)


def improve(target, labels, real, lines, width, steps=3, column="loggf", limit=0.4):
    """Damped Gauss-Newton steps in `column`; strengths are drawn to `prior`, positions held, by
    `width`."""
    for _ in range(steps):
        residual = weighted_residual(target, labels, real, lines).ravel()
        slope = jacobian(target, labels, lines, column, 0.05 if column == "loggf" else 0.02)
        normal = slope.T @ slope
        pull = (lines["prior"] - lines["loggf"]).to_numpy() / width**2 if column == "loggf" else 0.0
        damping = 0.2 * normal.diagonal() + 1 / width**2 + 1e-3
        delta = spsolve((normal + sparse.diags(damping)).tocsc(), slope.T @ residual + pull)
        lines = lines.assign(**{column: lines[column] + np.clip(delta, -limit, limit)})
    return lines


def residuals(target, labels, real, lines):
    """Real less model spectra, both normalized alike: (star, pixel)."""
    model = target.normalize(synthesize(labels, lines=lines).values[:, target.pixels])
    return real - model


def unit_strengths():
    """log gf with which a template makes a line a tenth deep in a typical giant: (carrier, ep) ->
    log gf."""
    star = pd.DataFrame(
        {"teff": [4400.0], "logg": [1.9], "fe_h": [-0.25], "mg_fe": [0.15], "si_fe": [0.15]}
    )
    trial = np.arange(-11, 3, 0.05)
    result = {}
    for carrier, ep in TEMPLATES:
        wave = 15200 + 6.0 * np.arange(len(trial))
        table = pd.DataFrame({"species": carrier, "wavelength": wave, "ep": ep, "loggf": trial})
        flux = synthesize(star, wave, lines=table).values[0]
        result[carrier, ep] = float(np.interp(0.1, 1 - flux, trial))
    return result


def new_sites(target, residual, lines, depth, separation=0.34):
    """Wavelengths and depths of minima that the lines do not explain, deepest first, apart from
    each other.

    None stands within 0.8 Angstrom of a strong known line of Mg, Si or Al: it would only mend the
    wings.
    """
    low, mean = np.percentile(residual, 10, axis=0), residual.mean(axis=0)
    score = np.minimum(0.5 * low, mean)
    score = np.convolve(score, (0.25, 0.5, 0.25), mode="same")
    inner = (
        np.flatnonzero(
            (score[1:-1] < score[:-2]) & (score[1:-1] <= score[2:]) & (score[1:-1] < -depth)
        )
        + 1
    )
    inner = inner[np.argsort(score[inner], kind="stable")]
    strong = lines["species"].isin(["Mg I", "Si I", "Al I"]) & (lines["source"] == "Smith2013")
    strong = lines.loc[strong & (lines["prior"] > -0.7), "wavelength"].to_numpy()
    taken, result = list(lines["wavelength"]), []
    left, right = score[inner - 1], score[inner + 1]
    offset = 0.5 * (left - right) / (left - 2 * score[inner] + right)
    for i, shift in zip(inner, np.clip(offset, -0.5, 0.5), strict=True):
        wave = target.wavelength[i] * (1 + shift * 6e-6 * np.log(10))
        if (
            np.abs(np.asarray(taken) - wave).min() > separation
            and np.abs(strong - wave).min() > 0.8
        ):
            taken.append(wave)
            result.append((wave, -score[i]))
    return np.array(result).reshape(-1, 2)


def as_template(lines, template, units):
    """Every free line as that template, with the depth it was found with."""
    free, (carrier, ep) = lines["free"], template
    loggf = np.where(free, units[template] + lines["excess"], lines["loggf"])
    species = np.where(free, "?" + carrier, lines["species"])
    return lines.assign(
        species=species, ep=np.where(free, ep, lines["ep"]), loggf=loggf, prior=loggf
    )


def local_sum(target, values, wavelength, reach=0.45):
    """Sum of (star, pixel) `values` over stars and pixels within `reach` (Angstrom) of each
    wavelength."""
    total = np.concatenate([[0], np.cumsum(values.sum(axis=0))])
    first, last = (np.searchsorted(target.wavelength, wavelength + s * reach) for s in (-1, 1))
    return total[last] - total[first]


def local_chi2(target, residual, wavelength):
    """Chi squared of weighted residuals around each wavelength."""
    return local_sum(target, residual**2, wavelength)


def choose_templates(target, labels, real, lines, units):
    """Give each free line the template that leaves the least chi2 around it, all lines refitted for
    each."""
    fits, chi2 = [], []
    for template in TEMPLATES[::2]:
        trial = as_template(lines, template, units)
        width = np.where(trial["free"], 1.5, trial["width"])
        trial = improve(target, labels, real, trial, width, steps=3)
        residual = weighted_residual(target, labels, real, trial)
        chi2.append(local_chi2(target, residual, trial["wavelength"].to_numpy()))
        fits.append(trial)
    best = np.argmin(chi2, axis=0)
    chosen = lines.copy()
    for k, fit in enumerate(fits):
        rows = lines["free"].to_numpy() & (best == k)
        chosen.loc[rows, ["species", "ep", "loggf"]] = fit.loc[rows, ["species", "ep", "loggf"]]
    return chosen.assign(prior=chosen["loggf"])


def revise_templates(target, labels, real, lines, units):
    """Try every template on each free line once more, with all its neighbours as they now are."""
    lines, free = lines.copy(), np.flatnonzero(lines["free"])
    colour = colours(lines["wavelength"].to_numpy()[free])
    for c in range(colour.max() + 1):
        index = free[colour == c]
        wave = lines["wavelength"].to_numpy()[index]
        names = lines.loc[index, "species"].str.removeprefix("?")
        excess = lines.loc[index, "loggf"] - [
            units[k] for k in zip(names, lines.loc[index, "ep"], strict=True)
        ]
        least = local_chi2(target, weighted_residual(target, labels, real, lines), wave)
        best = lines.loc[index].copy()
        for carrier, ep in TEMPLATES:
            trial = lines.copy()
            trial.loc[index, ["species", "ep"]] = "?" + carrier, ep
            trial.loc[index, "loggf"] = units[carrier, ep] + excess
            before = weighted_residual(target, labels, real, trial)
            moved = trial.copy()
            moved.loc[index, "loggf"] += 0.1
            change = before - weighted_residual(target, labels, real, moved)
            step = (
                0.1 * local_sum(target, change * before, wave) / local_sum(target, change**2, wave)
            )
            trial.loc[index, "loggf"] += np.clip(step, -0.7, 0.7)
            chi2 = local_chi2(target, weighted_residual(target, labels, real, trial), wave)
            best.loc[index[chi2 < least]] = trial.loc[index[chi2 < least]]
            least = np.minimum(chi2, least)
        lines.loc[index] = best
    return lines.assign(prior=lines["loggf"].where(lines["free"], lines["prior"]))


def drop_faint(lines, units, least=-1.6):
    """Without the free lines that the fit has made too weak to see."""
    unit = pd.Series(
        [units.get((s[1:], e), np.nan) for s, e in zip(lines["species"], lines["ep"], strict=True)]
    )
    return lines[
        ~(lines["free"].to_numpy() & (lines["loggf"].to_numpy() - unit < least))
    ].reset_index(drop=True)


def sites_as_lines(sites, units):
    """New free lines at `sites` (wavelength, depth); in the wings of the strong Mg lines they stay
    iron."""
    free = (np.abs(sites[:, :1] - MG_STRONG) > 2.0).all(axis=1)
    excess = np.log10(sites[:, 1] / 0.1)
    lines = pd.DataFrame(
        {"species": "?Fe", "wavelength": sites[:, 0], "ep": 5.0, "loggf": units["Fe", 5.0] + excess}
    )
    return lines.assign(
        source="unidentified", free=free, excess=excess, prior=lines["loggf"], width=1.5
    )


def edge_lines(target, mystery, lines, units):
    """Lines outside the Cannon's pixels, from the one real star that covers them, taken to behave
    as iron."""
    flux, _, good = read_mystery(mystery)
    inside = np.zeros(8575, bool)
    inside[target.pixels] = True
    wave, star = WAVELENGTH, mystery_labels()
    result = []
    for low, high in (
        (213, 322),
        (3242, 3308),
        (3553, 3648),
        (6048, 6116),
        (6309, 6412),
        (8306, 8369),
    ):
        span = np.arange(max(low - 150, 0), min(high + 150, 8575))
        span = span[good[span]]
        level = np.quantile(flux[span], 0.92)
        model = synthesize(star, lines=lines).values[0]
        residual = np.where(good, flux / level - model, 0.0)
        smooth = np.convolve(residual, (0.25, 0.5, 0.25), mode="same")
        here = np.arange(low, high)
        minimum = (
            (smooth[here] < smooth[here - 1])
            & (smooth[here] <= smooth[here + 1])
            & (smooth[here] < -0.04)
        )
        result += [(wave[i], -smooth[i]) for i in here[minimum] if not inside[i]]
    table = sites_as_lines(np.array(result).reshape(-1, 2), units)
    return table.assign(loggf=table["loggf"] + 0.3 + 0.8 * table["excess"].clip(0))


def report(name, target, labels, real, lines):
    """Print how well the lines reproduce the real spectra; returns the residuals."""
    residual = residuals(target, labels, real, lines)
    r = [np.corrcoef(a, a - b)[0, 1] for a, b in zip(real, residual, strict=True)]
    agreement = f"rms {residual.std():.4f}, r {min(r):.3f} to {max(r):.3f}"
    print(f"{name:28s} {len(lines):5d} lines, {agreement}", flush=True)
    return residual


def calibrate(target, mystery, linelists):
    """The calibrated line table, step by step as the module says."""
    labels, units = branch_labels(), unit_strengths()
    real = target.flux(labels)
    lines = start_lines()
    lines = improve(target, labels, real, lines, lines["width"].to_numpy(), steps=3)
    for depth in (0.012, 0.008):
        residual = report("known so far", target, labels, real, lines)
        found = sites_as_lines(new_sites(target, residual, lines, depth), units)
        lines = pd.concat([lines, found]).sort_values(
            "wavelength", kind="stable", ignore_index=True
        )
        lines = choose_templates(target, labels, real, lines, units)
        lines = improve(target, labels, real, lines, lines["width"].to_numpy(), steps=4)
        report("with new sites", target, labels, real, lines)
        lines = drop_faint(lines, units)
    found = sites_as_lines(
        new_sites(target, residuals(target, labels, real, lines), lines, 0.006), units
    )
    lines = pd.concat([lines, found]).sort_values("wavelength", kind="stable", ignore_index=True)
    lines = improve(target, labels, real, lines, lines["width"].to_numpy(), steps=3)
    lines = revise_templates(target, labels, real, lines, units)
    lines = improve(target, labels, real, lines, lines["width"].to_numpy(), steps=3)
    report("kinds revised", target, labels, real, lines)
    for _ in range(2):
        width = np.where(lines["free"], 0.06, 1e-6)
        lines = improve(
            target, labels, real, lines, width, steps=1, column="wavelength", limit=0.08
        )
        lines = improve(target, labels, real, lines, lines["width"].to_numpy(), steps=3)
        report("positions improved", target, labels, real, lines)
    lines = drop_faint(name_lines(lines, read_lists(linelists)), units)
    distance = np.abs(lines["wavelength"].to_numpy()[:, None] - target.wavelength).min(axis=1)
    fixed = (lines["source"] == "Rydberg") | (distance > 0.3)
    lines = lines.assign(source=lines["source"].where(fixed, lines["source"] + "-calibrated"))
    lines = pd.concat([lines, edge_lines(target, mystery, lines, units)]).sort_values(
        "wavelength", kind="stable"
    )
    return lines[COLUMNS]


def main():
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("cannon", "mystery", "continuum", "linelists"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--out", type=Path, default=table("lines.csv"))
    arguments = parser.parse_args()
    target = Target(arguments.cannon, arguments.continuum)
    lines = calibrate(target, arguments.mystery, arguments.linelists)
    temporary = arguments.out.with_suffix(".tmp")
    lines.to_csv(temporary, index=False, float_format="%.3f")
    os.replace(temporary, arguments.out)
    print(lines["source"].value_counts().to_string())


if __name__ == "__main__":
    main()
