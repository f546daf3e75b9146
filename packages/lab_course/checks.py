"""Is this number right, and if not, which typical mistake made it?

Each check computes the answer anew, and what the typical mistakes would give. It returns a line of praise, or raises
`NotYet` with what was found; nothing of the right answer is printed.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from astropy import constants, units

from labtools import jwst as pairs
from labtools.selection import count_cuts, select_giants
from labtools.spectra import LAB_BITS


class NotYet(AssertionError):
    """The student's number is not right; the message says what it looks like."""

    def _render_traceback_(self):
        return [f"Not yet: {self}"]


def _judge(what, given, right, mistakes, rtol=1e-6):
    """Praise, or NotYet with the first of `mistakes` (words -> value) that gives what was given."""
    if _same(given, right, rtol):
        return f"Right: {what}."
    for words, value in mistakes.items():
        if _same(given, value, rtol):
            raise NotYet(f"{what}: {words}")
    if np.shape(given) != np.shape(right):
        raise NotYet(f"{what}: the shape is {np.shape(given)}, and should be {np.shape(right)}")
    raise NotYet(
        f"{what}: not what it should be, and none of the usual mistakes. Compare one value by hand"
    )


def _same(given, right, rtol):
    given, right = np.asarray(given), np.asarray(right)
    if given.shape != right.shape or given.dtype.kind not in "biuf":
        return False
    scale = np.nanmax(np.abs(right), initial=0) if right.dtype.kind == "f" else 0
    return np.allclose(given, right, rtol=rtol, atol=1e-9 * scale, equal_nan=True)


def gravity(log_g, mass, radius):
    """Surface gravities, dex in cgs units, of `mass` and `radius` in solar units (Problem 1)."""
    si = (
        constants.G * mass * units.M_sun / (np.asarray(radius, float) * units.R_sun) ** 2
    ).si.value
    mistakes = {
        "this is g in SI units, m/s²; astronomers mean cm/s², which is 2 dex more": np.log10(si),
        "this is the natural logarithm; log g is to base 10": np.log(100 * si),
        "this is g itself, not its logarithm": 100 * si,
        "the radius enters squared": np.log10(100 * si * np.asarray(radius) * units.R_sun.to("m")),
    }
    return _judge("the surface gravities", log_g, np.log10(100 * si), mistakes, rtol=5e-3)


def mean_label(mean, column):
    """The mean of a raw column of the catalog, with its fillers (Problem 1)."""
    values = np.asarray(column, float)
    known = values[np.isfinite(values) & (values > -9000)]
    mistakes = {
        "the fillers (-9999 and their like) were averaged as if they were labels": np.nanmean(
            values
        ),
        "only one of the fillers was removed: look for the others": np.nanmean(
            values[values != -9999]
        ),
        "fillers were set to zero; a missing label has no value": np.where(
            values > -9000, values, 0
        ).mean(),
    }
    return _judge("the mean of the known labels", mean, known.mean(), mistakes)


def giants(selected, catalog):
    """The stars that pass the lab's cuts (Problem 1): a DataFrame indexed by apogee_id, or an index."""
    index = pd.Index(getattr(selected, "index", selected))
    right = select_giants(catalog).index
    if index.has_duplicates and set(index) == set(right):
        raise NotYet("the giants: some stars are in it twice: keep the entry with the highest SNR")
    if set(index) == set(right):
        return f"Right: {len(right)} giants."
    extra, lost = catalog.loc[list(set(index) - set(right))], set(right) - set(index)
    if len(extra):
        reasons = count_cuts(extra)
        raise NotYet(
            f"the giants: {len(extra)} entries too many; look again at the cut '{reasons.alone.idxmax()}'"
        )
    raise NotYet(
        f"the giants: {len(lost)} stars are missing; is a limit too strict, or an inequality turned round?"
    )


def pixels(good, raw):
    """Which pixels count (Problem 3): booleans (star, pixel) for a raw Dataset with flux, error and mask."""
    mask, measured = raw.mask.values, (raw.flux.values != 0) & np.isfinite(raw.flux.values)
    good = np.asarray(getattr(good, "values", good))

    def without(bits):
        return (mask & bits == 0) & measured

    mistakes = {
        "the mask was not used": measured,
        "this marks the bad pixels; the good ones are wanted": ~np.isfinite(raw.error.values),
        "every pixel with any bit is dropped, also those with a mere warning": without(-1),
        "bit 12 has the value 2**12 = 4096, not 12: the numbers of the bits were taken for their values": without(
            12
        ),
        "the numbers of the bits were added, but bit n has the value 2**n": without(
            sum(range(8)) + 12
        ),
        "bit 12, the bright lines of the night sky, is missing": without(0xFF),
        "bits 1 to 8 were taken for bits 0 to 7": without(0x1FE | 1 << 12),
        "these are the bits that the survey's pipeline uses (0-7 and 14); the lab's are 0-7 and 12": without(
            16639
        ),
    }
    return _judge(
        "the usable pixels", good, without(int(LAB_BITS)) & np.isfinite(raw.error.values), mistakes
    )


def continuum(curve, flux, error, use, degree=2):
    """The pseudo-continuum of one chip (Problem 4): `curve` (pixel) through the pixels `use` of flux and error."""
    flux, error, use = (np.asarray(getattr(part, "values", part)) for part in (flux, error, use))
    x = np.linspace(-1, 1, flux.size)

    def fit(weight, degree=degree, where=use):
        where = where & np.isfinite(error)
        return np.polynomial.Chebyshev.fit(x[where], flux[where], degree, w=weight[where])(x)

    safe = np.where(np.isfinite(error), error, 1)
    mistakes = {
        "the weights are 1/σ⁴: numpy squares what it is given, so give it 1/σ": fit(1 / safe**2),
        "all pixels have the same weight; give numpy 1/σ": fit(np.ones_like(safe)),
        "it runs through all pixels, lines included: use the continuum pixels": fit(
            1 / safe, where=error > 0
        ),
        "a straight line is too stiff; the degree is 2": fit(1 / safe, 1),
        "the polynomial has degree 3; the paper's has 2": fit(1 / safe, 3),
    }
    return _judge("the pseudo-continuum", curve, fit(1 / safe), mistakes)


def split(training, validation, stars):
    """Two groups of stars (Problem 5) that share no star and lose none of `stars`."""
    first, second = set(training), set(validation)
    if both := first & second:
        raise NotYet(f"the groups: {len(both)} stars are in both; split by star, not by row")
    if lost := set(stars) - first - second:
        raise NotYet(f"the groups: {len(lost)} stars are in neither")
    if not 0.4 < len(first) / len(set(stars)) < 0.6:
        raise NotYet(f"the groups: {len(first)} and {len(second)} stars; two halves are wanted")
    if list(training) == list(stars)[: len(training)]:
        raise NotYet(
            "the groups: these are the first rows and the last; the catalog is sorted, so draw at random"
        )
    return f"Right: {len(first)} and {len(second)} stars, none in both."


def scatter(theta, s2, design, flux, error):
    """The fit of one pixel (Problem 6b): coefficients (T,) and s² for a design matrix (N, T), flux and error (N,)."""
    good = np.isfinite(error)
    x, f, sigma = design[good], flux[good], error[good]

    def solve(s2, power=1):
        w = (1 / (sigma**2 + s2)) ** power
        found = np.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * f))
        r = f - x @ found
        return found, -0.5 * np.sum(r**2 / (sigma**2 + s2) + np.log(sigma**2 + s2))

    grid = np.geomspace(1e-9, 1e-1, 400)
    heights = np.array([solve(one)[1] for one in grid])
    if s2 > 3 * grid[heights.argmax()] and abs(s2 / grid[heights.argmax()] ** 0.5 - 1) < 0.3:
        raise NotYet("the scatter: this is s; the grid is one of s²")
    if solve(s2)[1] < heights.max() - 0.5 and s2 >= 30 * grid[heights.argmax()]:
        raise NotYet(
            "the scatter: far too large: the likelihood needs its term -½ ln(σ² + s²), which asks a price for s²"
        )
    if solve(s2)[1] < heights.max() - 0.5:
        raise NotYet("the scatter: the likelihood has a higher point elsewhere on the grid")
    mistakes = {
        "the weights are squared: they are 1/(σ² + s²)": solve(s2, 2)[0],
        "s² is left out": solve(0)[0],
    }
    return _judge(
        "the coefficients and the scatter of the pixel", theta, solve(s2)[0], mistakes, rtol=1e-5
    )


def markers(wavelengths, lines):
    """Vacuum wavelengths (Angstrom) of lines (Problem 8), against a table with a column `wavelength`."""
    given, right = (
        np.sort(np.asarray(wavelengths, float)),
        np.sort(np.asarray(lines.wavelength, float)),
    )
    if given.shape == right.shape and np.abs(given - right).max() < 0.15:
        return f"Right: {right.size} lines, in vacuum."
    if given.shape == right.shape and np.abs(given - right + 4.33).max() < 0.25:
        raise NotYet(
            "the lines: these are wavelengths in air; spectra of APOGEE are in vacuum, 4.3 Å further red"
        )
    raise NotYet("the lines: not where they should be; are they all there, in Angstrom?")


def labels(fitted, spectra, cannon):
    """Labels of stars (Problem 9), a DataFrame with a column for each, against a fit of the same spectra."""
    best = cannon.fit(spectra.sel(star=list(fitted.index)))
    names, sigma = list(cannon.labels), best[[f"{name}_err" for name in cannon.labels]].to_numpy()
    if missing := set(names) - set(fitted):
        raise NotYet(f"the labels: no column {', '.join(sorted(missing))}")
    given, right = fitted[names].to_numpy(float), best[names].to_numpy()

    def off(values):
        return np.median(np.abs(values - right) / sigma, axis=0).max()

    if off(given) < 0.05:
        return f"Right: labels of {len(fitted)} stars."
    if off(given * cannon.scale + cannon.offset) < 0.05:
        raise NotYet(
            "the labels: these are the scaled ones; multiply by the scale and add the offset"
        )
    for one, other in combinations(range(len(names)), 2):
        order = np.arange(len(names))
        order[[one, other]] = other, one
        if off(given[:, order]) < 0.05:
            raise NotYet(f"the labels: {names[one]} and {names[other]} have changed places")
    if off(given) < 1:
        raise NotYet("the labels: close, but not the best fit; is the scatter s² in the variance?")
    raise NotYet(
        "the labels: far from the best fit; does the optimizer start inside the training set, and end well?"
    )


def likelihood(value, flux, model, variance):
    """ln L of one spectrum (Problem 12): arrays (pixel) of the pixels that count."""
    chi2, logs = np.sum((flux - model) ** 2 / variance), np.sum(np.log(variance))
    constant = variance.size * np.log(2 * np.pi)
    mistakes = {
        "the factor ½ is missing": -(chi2 + logs + constant),
        "the term of the variances is missing; it decides between values of s²": -0.5 * chi2,
        "the term of the variances has the wrong sign": -0.5 * (chi2 - logs - constant),
        "this is χ²": chi2,
        "only the constant ln 2π is missing; it does no harm, but PyMC keeps it": -0.5
        * (chi2 + logs),
    }
    return _judge("the likelihood", value, -0.5 * (chi2 + logs + constant), mistakes)


def pairing(matched, catalog, jwst_labels):
    """JWST labels of catalog stars (Question 2.6): a DataFrame, one row for each matched star, indexed by name."""
    names, _ = pairs.match(catalog, jwst_labels)
    count = min(len(catalog), len(jwst_labels))
    by_position = jwst_labels.iloc[:count].set_axis(catalog.index[:count])
    given = matched.teff
    if given.index.equals(names) and np.allclose(given, jwst_labels.loc[names, "teff"]):
        return f"Right: {len(names)} stars, each with its own spectrum."
    common = given.index.intersection(by_position.index)
    if len(common) and np.allclose(given[common], by_position.loc[common, "teff"]):
        raise NotYet(
            "the pairs: matched by position; after the star that is missing all rows are off by one"
        )
    if matched.index.has_duplicates or len(matched) > len(names):
        raise NotYet("the pairs: some stars are in it more than once")
    raise NotYet("the pairs: not the same stars; match by name, and keep each star once")
