"""What notebook 09 states in prose, against its variables."""

import numpy as np


def claims(v):
    levers = v["lever_changes"]
    for words, name, column, value, tolerance in (
        ("by -3.2 ± 1.2 %", "equal weights in training", 0, -3.2, 0.06),
        ("by -3.2 ± 1.2 %", "equal weights in training", 1, 1.2, 0.1),
        ("(standard deviation -3.3 ± 0.5 %)", "equal weights in training", 2, -3.3, 0.06),
        ("(standard deviation -3.3 ± 0.5 %)", "equal weights in training", 3, 0.5, 0.1),
        ("lowers the standard deviation by 0.7 ± 0.2 %", "SNR cap of 200", 2, -0.7, 0.06),
        ("lowers the standard deviation by 0.7 ± 0.2 %", "SNR cap of 200", 3, 0.2, 0.06),
        ("the flag cut (-1.4 ± 1.0 %)", "flag cut in training", 0, -1.4, 0.06),
        ("the flag cut (-1.4 ± 1.0 %)", "flag cut in training", 1, 1.0, 0.1),
    ):
        yield words, levers.loc[name].iloc[column], value, tolerance
    for name in ("one start", "continuum of degree 4", "SNR cap of 200"):
        change, error = levers.loc[name].iloc[:2]
        yield "ties", abs(change) < 2 * error, 1, 0

    catalog, truth, duels = v["against_catalog"], v["against_truth"], v["duels"]
    for words, table, name, change, error in (
        ("gains 3.8 ± 1.3 % against the catalog", catalog, "5040/T", -3.8, 1.3),
        ("2.2 ± 1.2 % against the truth", truth, "5040/T", -2.2, 1.2),
        ("(0.7 ± 1.6 %)", duels, "cubic against 5040/T", 0.7, 1.6),
        ("Carbon and nitrogen gain 18 ± 2 %", catalog, "quadratic, C and N", -18, 2),
        ("(16 ± 2 % against the truth)", truth, "quadratic, C and N", -16, 2),
        ("The modes gain 27 ± 2 %", catalog, "quadratic, modes", -27, 2),
        ("(28 ± 2 % against the truth)", truth, "quadratic, modes", -28, 2),
        ("14 ± 2 % more", duels, "quadratic, modes against quadratic, C and N", -14, 2),
        ("(-1.6 ± 1.9 %)", duels, "cubic, modes against quadratic, modes", -1.6, 1.9),
    ):
        tolerance = 0.6 if error == 2 else 0.06
        yield words, table.loc[name, "change [%]"], change, tolerance
        yield words, table.loc[name, "±"], error, max(tolerance, 0.1)
    yield "23 K and 0.015 dex", catalog.loc["quadratic, modes", "teff"], 23, 0.6
    yield "23 K and 0.015 dex", catalog.loc["quadratic, modes", "fe_h"], 0.015, 0.0006
    for words, name, value, error in (
        ("-51 ± 4 K against the truth", "quadratic", -51, 4),
        ("-31 ± 6 K with 5040/T", "5040/T", -31, 6),
        ("-21 ± 7 K with the quadratic and its modes", "quadratic, modes", -21, 7),
        ("-1 ± 13 K and -6 ± 10 K", "cubic", -1, 13),
        ("-1 ± 13 K and -6 ± 10 K", "cubic, modes", -6, 10),
    ):
        yield words, truth.loc[name, "hottest 2 % [K]"], value, 0.6
        yield words, truth.loc[name, "± "], error, 0.9
    yield "Only 19 stars", len(v["hottest"]), 19, 0
    bias = v["bends"]["the catalog"]
    yield "in the coolest bin the catalog is -28 ± 2 K", bias.iloc[0], -28, 0.6
    yield "in the hottest +15 ± 2 K", bias.iloc[-1], 15, 0.6

    departs = v["bends"]["quadratic"] - bias
    yield "by -22 K in the last bin", departs.iloc[-1], -22, 0.6
    yield "elsewhere by at most 16 K", departs.iloc[:-1].abs().max(), 16, 0.6

    curves, learning = v["curves"], v["learning"]
    for words, model, size, mean, spread in (
        ("is 41 ± 9 % above", "quadratic", 50, 41, 9),
        ("with 200 it is 10 ± 3 %", "quadratic", 200, 10, 3),
        ("with 400 it is 3 ± 3 %", "quadratic", 400, 3, 3),
    ):
        yield words, curves.loc[(model, size), "mean"], mean, 0.6
        yield words, curves.loc[(model, size), "std"], spread, 0.6
    yield "(8 % above with 200", curves.loc[("cubic", 200), "mean"], 8, 0.6
    yield "with 700 no longer above", curves.loc[("quadratic", 700), "mean"], 0, 0.6
    draws = learning[learning.model == "quadratic"].groupby("stars").change.apply(np.array)
    gains = draws[400] - draws[700]
    yield "all five draws still gain", (gains > 0).sum(), 5, 0
    yield "3 % on average", gains.mean(), 2.9, 0.6
    worst = learning[(learning.model == "quadratic") & (learning.stars == 50)].change.max()
    yield "the worst of the five draws of 50 stars is 56 %", worst, 56, 0.6
