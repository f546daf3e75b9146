"""What the prose of 02_normalization states, held against its variables."""

import numpy as np
import pandas as pd


def claims(v):
    """Words of the prose, value, number stated, tolerance."""
    if v["survey"].name != "simulated":
        return  # the prose speaks of the simulated survey
    real = v["real"]
    real_mask = real["mask"].values[real.flux.values != 0]
    for bit in (10, 11, 13):
        share = 100 * np.mean(real_mask >> bit & 1)
        yield "6 to 7 % of the real star for each of bits 10, 11 and 13", share, 6.7, 0.8
    bit_14 = real["mask"].values >> 14 & 1 == 1
    yield "each of its 74 pixels", bit_14.sum(), 74, 0
    missed = bit_14 & (real["mask"].values & v["bad_bits"] == 0)
    yield "is bad by our bits too", missed.sum(), 0, 0
    yield "Our set, 4351", v["bad_bits"], 4351, 0
    yield "(255 + 16384 = 16639)", 255 + 2**14, 16639, 0
    yield "mask 3.0 % of the pixels", v["masked_share"]["lab: bits 0-7, 12"], 3.0, 0.05
    yield "2.5 % for sky lines alone", v["flags"]["giants [%]"][12], 2.5, 0.05
    yield "in its own files, never here", v["flags"]["giants [%]"][16], 0, 0
    yield "the worst of 1,900 keeps 7,450 pixels", v["fewest"], 7450, 0
    yield "the worst of 1,900", len(v["giants"]), 1900, 0
    yield "all 7,214 pixels of the map", v["grid"].size, 7214, 0
    yield "pixels of the map *are* pixels", v["offset"], 0, 1e-9
    apart = v["apart"]
    yield "rounding of single precision", apart["without clipping"].max(), 0, 1e-5
    yield "less than 0.1 %, and one", apart["with clipping"].quantile(0.9), 0, 0.1
    yield "and one by 0.9 %", apart["with clipping"].max(), 0.9, 0.05
    yield "moves by up to 3.9 %", v["moved"]["our function"], 3.9, 0.05
    yield "the clipped one by less than 0.1 %", v["moved"]["labtools.normalize"], 0, 0.1
    yield "scatter by 0.67 %", v["scatter_percent"], 0.67, 0.005
    yield "1.20 ± 0.04 times their error", v["scatter_sigma"], 1.20, 0.006
    yield "1.20 ± 0.04 times their error", v["scatter_error"], 0.04, 0.006
    yield "3.08 ± 0.11 times their error", v["extreme_scatter"]["coolest"][1], 3.08, 0.011
    yield "3.08 ± 0.11 times their error", v["extreme_scatter"]["coolest"][2], 0.11, 0.006
    others = [v["extreme_scatter"][kind][1] for kind in ("most metal-poor", "noisiest", "hottest")]
    yield "0.99 to 1.18 times", min(others), 0.99, 0.006
    yield "0.99 to 1.18 times", max(others), 1.18, 0.006
    waves = v["waves"]
    for words, degree, stated, error in (
        ("1.78 ± 0.06 %", 1, 1.78, 0.06),
        ("0.40 ± 0.01 %", 2, 0.40, 0.01),
        ("0.37 ± 0.01 %", 4, 0.37, 0.01),
    ):
        yield words, waves[degree][3], stated, 0.006
        yield words, waves[degree][4], error, 0.006
    yield "What all stars share (0.12 %)", waves[2][0], 0.12, 0.005
    # Neighbours of a window's continuum pixels that are continuum too share noise (correlation 0.4)
    trusted, window = v["trusted"], v["window"]
    beside = np.r_[False, trusted[1:] & trusted[:-1] & (window[1:] == window[:-1])]
    counts = pd.DataFrame({"pixels": trusted, "beside": beside}).groupby(window).sum()[v["full"]]
    share = counts.beside / counts.pixels
    larger = np.sqrt(1 + 2 * 0.4 * share.mean())
    yield "it is larger by about a fifth", larger, 1.2, 0.05
    _, own, noise, beyond, _ = waves[2]
    taken = beyond - np.sqrt(own**2 - (larger * noise) ** 2)
    yield "takes 0.01 to 0.02 from the 0.40 %", taken, 0.015, 0.01
    medians, errors = v["medians"], v["standard_errors"]
    for words, group, measure, stated, error, tolerance in (
        ("1.22 ± 0.01", "similar labels", 0, 1.22, 0.01, 0.005),
        ("1.80 ± 0.09", "random pairs", 0, 1.80, 0.09, 0.005),
        ("1.03 ± 0.01", "similar labels", 1, 1.03, 0.01, 0.005),
        ("0.59 ± 0.02 %", "similar labels", 2, 0.59, 0.02, 0.005),
        ("1.005 ± 0.003", "two visits of a star", 0, 1.005, 0.003, 0.0006),
    ):
        yield words, medians[group][measure], stated, tolerance
        yield words, errors[group][measure], error, tolerance
    yield "(0.98 for two visits", medians["two visits of a star"][1], 0.98, 0.005
    yield "only 8 % of them by 1.1 or less", 100 * v["within"], 8, 0
    yield "random error is 0.09 %", v["curve_error"], 0.09, 0.006
    yield "typical error of 0.7 % in a pixel", v["typical_error"], 0.7, 0.05
    yield "gives each of 1,900 stars a curve", np.isnan(v["clipped"].continuum.values).sum(), 0, 0
    yield "differ smoothly by only 0.04 %", v["model_smooth"], 0.04, 0.006
    yield "by 0.2 to 1.0 %", v["below"].min(), 0.2, 0.05
    yield "by 0.2 to 1.0 %", v["below"].max(), 1.0, 0.05
    yield "more in cool stars", v["below"].corr(v["truth"].teff), -0.91, 0.02
    yield "at a given temperature, in metal-rich ones", v["partial"], 0.66, 0.03
    yield "1,103 pixels, among them 652", v["found"].sum(), 1103, 5
    yield "1,103 pixels, among them 652", v["in_map"], 652, 3
    yield "of the map's 1,018", v["trusted"].sum(), 1018, 0
    words = "chance would give 156 ± 19 (from random shifts)"
    found, trusted = v["found"].values, v["trusted"]
    shifts = [(np.roll(found, k) & trusted).sum() for k in range(50, found.size - 50, 18)]
    yield words, v["by_chance"], 156, 1
    yield words, np.std(shifts), 19, 2
