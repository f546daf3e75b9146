"""What may teach a Cannon, and how its numbers are read: some stars at a time, checked."""

import numpy as np
import pandas as pd

from labtools.spectra import usable

__all__ = ["aligned_labels", "check_training", "chunks", "flux_and_variance", "some", "turn"]

CHUNK = 200  # stars that are held as float64 at a time
TINY = 1e-6  # smallest error of a normalized flux that is believed
FILLER = -9000  # values of labels up to this one stand for no value


def turn(values, turned):
    """5040 / value where a label is `turned`, the value elsewhere; twice it is the value again."""
    return np.where(turned, 5040 / np.where(turned, values, 1), values)


def chunks(spectra, chunk=CHUNK):
    """Flux and σ² (n, wavelength) of some stars after the other."""
    for start in range(0, spectra.sizes["star"], chunk):
        yield flux_and_variance(spectra.isel(star=slice(start, start + chunk)))


def flux_and_variance(spectra):
    """Flux and σ² (star, wavelength), float64; flux 0 and σ² infinite where a pixel must not count."""
    flux, error = spectra.flux.values, spectra.error.values
    good = usable(flux, error)
    tiny = (good & (error < TINY)).any(axis=1)
    if tiny.any():
        raise ValueError(
            f"errors below {TINY} are none; bad pixels have error = inf: {some(spectra.star.values[tiny])}"
        )
    variance = np.where(good, error, np.inf).astype(float)
    return np.where(good, flux, 0).astype(float), np.square(variance, out=variance)


def aligned_labels(spectra, labels, reciprocal):
    """Labels (N, K) in the order of the spectra's stars, turned where they enter as 5040 / label."""
    if not isinstance(labels, pd.DataFrame):
        raise ValueError("labels must be a DataFrame indexed by star, with a column for each label")
    numbers = labels.select_dtypes("number")
    if wrong := [name for name in labels if name not in numbers]:
        raise ValueError(f"these columns are no labels: {', '.join(wrong)}. Choose columns, such as giants[LABELS]")
    if wrong := set(reciprocal) - set(labels):
        raise ValueError(f"reciprocal names {', '.join(wrong)}, which is none of the labels")
    stars = pd.Index(spectra.star.values)
    if not labels.index.is_unique or not stars.is_unique:
        twice = stars[stars.duplicated()].append(labels.index[labels.index.duplicated()])
        raise ValueError(f"every star must occur once; repeated: {some(twice)}")
    missing = stars.difference(labels.index)
    if len(missing):
        raise ValueError(f"no labels for {some(missing)}")
    y, turned = labels.loc[stars].to_numpy(float), labels.columns.isin(reciprocal)
    bad = ~(np.isfinite(y) & (y > FILLER) & ((y > 0) | ~turned)).all(axis=1)
    if bad.any():
        raise ValueError(f"labels must be finite, no fillers, temperatures positive; not so for {some(stars[bad])}")
    return turn(y, turned)


def check_training(spectra, names, x, v, scale):
    if v.shape[0] < 2 * v.shape[1]:
        raise ValueError(f"{v.shape[0]} stars are too few to train {v.shape[1]} coefficients a pixel")
    if (scale == 0).any():
        raise ValueError(f"these labels are the same for all stars: {', '.join(np.array(names)[scale == 0])}")
    if np.linalg.matrix_rank(np.column_stack([np.ones(len(x)), x]), tol=1e-6 * np.sqrt(len(x))) <= x.shape[1]:
        raise ValueError(f"the labels {', '.join(names)} are linearly dependent: leave one out")
    level = []
    for flux, variance in chunks(spectra):
        level += [
            np.median(f[use]) if use.any() else np.nan for f, use in zip(flux, np.isfinite(variance), strict=True)
        ]
    if np.isnan(level).any():
        raise ValueError(f"no usable pixel in {some(spectra.star.values[np.isnan(level)])}: leave these stars out")
    off = np.abs(np.log(np.maximum(level, 1e-9))) > np.log(2)
    if off.any():
        raise ValueError(f"the spectra of {some(spectra.star.values[off])} are not normalized: call `normalize` first")


def some(stars):
    names = ", ".join(map(str, stars[:5]))
    return f"{len(stars)} stars ({names}, ...)" if len(stars) > 5 else names
