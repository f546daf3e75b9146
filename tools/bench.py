"""How fast the package is, as ratios to plain alternatives timed in the same run (make bench)."""

import time

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit

import labtools
from labtools import LABELS, Cannon
from labtools.cannon import design


def timed(function, repeats=3):
    """Shortest wall time of a few calls, seconds, and the last result."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def train_by_loop(spectra, labels, model, pixels):
    """Coefficients and scatter of some pixels by the grid of s² that the lab asks for."""
    design_matrix = design((labels.to_numpy() - model.offset) / model.scale)
    for pixel in pixels:
        f, sigma = spectra.flux.values[:, pixel].astype(float), spectra.error.values[:, pixel].astype(float)
        good = np.isfinite(sigma)
        f, sigma, a = f[good], sigma[good], design_matrix[good]
        for s2 in np.geomspace(1e-8, 1e-2, 30):
            w = 1 / (sigma**2 + s2)
            np.linalg.solve(a.T @ (w[:, None] * a), a.T @ (w * f))


def fit_by_scipy(spectra, model):
    """Labels of stars one after the other by curve_fit(method="trf") on all pixels."""
    for star in spectra.star.values:
        one = spectra.sel(star=star)
        good = np.isfinite(one.error.values)
        sigma = np.sqrt(one.error.values[good].astype(float) ** 2 + model.s2[good])

        def predict(_, *values, good=good):
            return model.predict(pd.DataFrame([values], columns=model.labels)).values[0, good]

        curve_fit(predict, None, one.flux.values[good], model.offset, sigma, method="trf", x_scale=model.scale)


def main():
    survey = labtools.open_survey()
    giants, spectra = labtools.normalized_giants(survey)
    training, validation = labtools.split_by_star(giants.index, seed=17)
    labels = giants.loc[training, LABELS]
    teach, test = spectra.sel(star=training), spectra.sel(star=validation)
    train_time, model = timed(lambda: Cannon.train(teach, labels))
    fit_time, _ = timed(lambda: model.fit(test))
    pixels = np.linspace(0, model.s2.size - 1, 40).astype(int)
    loop_time = timed(lambda: train_by_loop(teach, labels, model, pixels), 1)[0] * model.s2.size / pixels.size
    few = test.isel(star=slice(0, None, len(validation) // 20))
    scipy_time = timed(lambda: fit_by_scipy(few, model), 1)[0] * test.sizes["star"] / few.sizes["star"]
    size = f"{len(training)} stars x {model.s2.size} pixels x {len(LABELS)} labels"
    print(f"training, {size}: {train_time:.2f} s; a loop over 30 values of s²: {loop_time / train_time:.0f} times that")
    print(f"fitting {len(validation)}: {fit_time:.2f} s; scipy, one by one: {scipy_time / fit_time:.0f} times that")


if __name__ == "__main__":
    main()
