"""The numbers that the prose of 07_starnet states.

A network that is trained on another processor is like one from another random start. The
tolerances are those of its spread.
"""

import numpy as np


def claims(v):
    sizes = [len(v[name]) for name in ("training", "validation", "test")]
    yield "1199 stars train, 239 validate and 480 test", sizes[0], 1199, 0
    yield "1199 stars train, 239 validate and 480 test", sizes[1], 239, 0
    yield "1199 stars train, 239 validate and 480 test", sizes[2], 480, 0
    yield "No star is in two sets", len(v["shared"]), 0, 0
    means = v["scaled"].loc[v["validation"]].mean().abs().max()
    yield "within 0.1 of 0", max(means, v["scaled"].loc[v["test"]].mean().abs().max()), 0.05, 0.0545
    relative = v["quality"]["± "] / v["quality"]["RMSE"]
    yield "an RMSE is known to about 5 %", relative.mean(), 0.05, 0.015

    tried = v["tried"]
    yield "the 8.4 million parameters", tried.parameters["as in the report"], 8_406_327, 0
    first_layer = (16 * 2044 + 1) * 256 / tried.parameters["as in the report"]
    yield "Almost all of the 8.4 million parameters", first_layer, 1, 0.01
    growth = tried.parameters / tried.parameters["as in the report"]
    yield "twice the filters double", growth["twice the filters"], 2, 0.01
    yield "a pool of 16 leaves a quarter", growth["pool of 16"], 0.25, 0.01
    yield "15 times fewer parameters", 1 / growth["SmallNet"], 15.3, 0.5
    loss = tried["validation loss"]
    yield "three random starts differ\nby 0.004", v["luck"], 0.0042, 0.004
    yield "(0.042 against 0.025)", loss["pool of 16"], 0.042, 0.01
    yield "(0.042 against 0.025)", loss["as in the report"], 0.025, 0.01
    yield "SmallNet reaches 0.028", loss["SmallNet"], 0.028, 0.008

    contest = v["contest"]
    words = "the training loss goes on falling (0.0035)"
    yield words, contest.loc["StarNet", ("training", "mean")], 0.0035, 0.0012
    yield "0.0083 ± 0.0006", contest.loc["StarNet", ("validation", "mean")], 0.0083, 0.001
    yield "0.0083 ± 0.0006", contest.loc["StarNet", ("validation", "std")], 0.0006, 0.0008
    yield "0.0119 ± 0.0005.", contest.loc["SmallNet", ("validation", "mean")], 0.0119, 0.001
    yield "0.0119 ± 0.0005.", contest.loc["SmallNet", ("validation", "std")], 0.0005, 0.0008
    yield "4.2 million parameters", v["nets"]["StarNet", 1].parameters / 1e6, 4.2, 0.05
    yield "lowers it by only 5 %", v["last_epoch"], 0.05, 0.04
    sweep = v["sweep"]
    yield "(0.017)", sweep.loc[16, 1e-3], 0.017, 0.004
    yield "0.040 ± 0.001", sweep.loc[64, 1e-3], 0.040, 0.004
    yield "0.040 ± 0.001", v["sweep_luck"], 0.001, 0.0025
    yield "The best are 16, the smallest tried,", sweep.loc[16, 1e-3] - sweep.min().min(), 0, 1e-9
    yield "16 make 300 noisy steps", 4 * np.ceil(sizes[0] / 16), 300, 0
    yield "256 only 20 quieter ones", 4 * np.ceil(sizes[0] / 256), 20, 0

    quality, regions = v["quality"], v["regions"]
    for label, stated in {"teff": 0.996, "logg": 0.990, "fe_h": 0.996}.items():
        yield "R² is 0.996, 0.990 and 0.996", quality["R²"][label], stated, 0.002
    rows = {"teff": (19, 1, 1.6), "logg": (0.061, 0.003, 0.004), "fe_h": (0.022, 0.001, 0.004)}
    words = {"teff": "19 ± 1 K", "logg": "0.061 ± 0.003 dex", "fe_h": "0.022 ± 0.001 dex"}
    for label, (stated, error, tolerance) in rows.items():
        yield words[label], quality["RMSE"][label], stated, tolerance
        yield words[label], quality["± "][label], error, error / 2
    biases = {"teff": (-1, 1, 4), "logg": (-0.007, 0.003, 0.02), "fe_h": (-0.004, 0.001, 0.008)}
    words = {"teff": "−1 ± 1 K", "logg": "−0.007 ± 0.003", "fe_h": "−0.004 ± 0.001 dex"}
    for label, (stated, error, tolerance) in biases.items():
        yield words[label], quality["bias"][label], stated, tolerance
        yield words[label], quality["±"][label], error, error / 2
    signs = (v["starts"].T > 0).nunique()
    yield "another start changes its sign", signs.min(), 2, 0
    hot = regions.loc["Teff > 5100 K"]
    train_hot = (v["labels"].teff[v["training"]] > 5100).sum()
    yield "(99 of 1199 training stars)", train_hot, 99, 0
    yield "too low by 28 ± 5 K", hot["bias teff"], -28, 10
    yield "too low by 28 ± 5 K", hot["± teff"], 5, 1.5
    yield "0.09 ± 0.01 dex", hot["bias logg"], -0.09, 0.035
    yield "0.09 ± 0.01 dex", hot["± logg"], 0.012, 0.005
    yield "an RMSE of 42 K", hot["RMSE teff"], 42, 9
    yield "it is 14 K", regions.loc["4800 to 5100 K", "RMSE teff"], 14, 3
    cool = regions.loc["Teff < 4400 K"]
    yield "The 53 test stars below 4400 K have 18 K", cool["stars"], 53, 0
    yield "The 53 test stars below 4400 K have 18 K", cool["RMSE teff"], 18, 4
    yield "23 test stars are in both groups", v["both"].sum(), 23, 0
    yield "there are 162 of their kind in training", v["cool"].sum(), 162, 0
    yield "it is 46 K; 23 test stars are in both", regions.loc["[Fe/H] < −1", "RMSE teff"], 46, 12

    table = v["architectures"]
    for name, words, loss, spread in (
        ("StarNet", "0.045 ± 0.002", 0.045, 0.002),
        ("SmallNet", "0.044 ± 0.006.", 0.044, 0.006),
        ("SmallNet, no noise", "0.043 ± 0.005", 0.043, 0.005),
    ):
        yield words, table["validation loss"][name], loss, 0.006
        yield words, table["spread of starts"][name], spread, 0.005
    gap = table["validation loss"] / table["training loss"]
    yield "1.5 to 1.9 times", gap["StarNet"], 1.5, 0.25
    yield "1.5 to 1.9 times", gap["SmallNet"], 1.9, 0.35
    yield "without noise 2.3 times", gap["SmallNet, no noise"], 2.3, 0.5
    yield "814 stars are few", len(v["teach"]), 814, 0
    fewer = table.parameters["StarNet"] / table.parameters["SmallNet"]
    yield "SmallNet, which has 15 times fewer parameters", fewer, 15, 0.5

    judged = v["judged"]
    nets, cannon = judged["three SmallNets"], judged["the Cannon"]
    for words, values, stated, tolerances in (
        (
            "three SmallNets have +2 K, −0.009, −0.001, +0.001 and +0.002 dex",
            nets["bias"],
            (2, -0.009, -0.001, 0.001, 0.002),
            (4, 0.012, 0.004, 0.004, 0.004),
        ),
        (
            "the Cannon 0 K, −0.011, −0.003, +0.008 and +0.002 dex",
            cannon["bias"],
            (0, -0.011, -0.003, 0.008, 0.002),
            (0.5, 0.001, 0.001, 0.001, 0.001),
        ),
        (
            "+2 K, −0.012, −0.001, +0.001 and +0.003 dex for three SmallNets",
            nets["median"],
            (2, -0.012, -0.001, 0.001, 0.003),
            (4, 0.008, 0.004, 0.003, 0.003),
        ),
        (
            "+2 K, −0.006, −0.002, +0.007 and +0.003 dex for the Cannon",
            cannon["median"],
            (2, -0.006, -0.002, 0.007, 0.003),
            (0.6, 0.001, 0.001, 0.001, 0.001),
        ),
    ):
        for value, number, tolerance in zip(values, stated, tolerances, strict=True):
            yield words, value, number, tolerance
    words = "23 K, 0.063, 0.016, 0.028 and 0.022 dex"
    for label, stated in zip(nets.index, (23, 0.063, 0.016, 0.028, 0.022), strict=True):
        yield words, nets.scatter[label], stated, 0.12 * stated
    words = "35 K, 0.100, 0.024, 0.040 and 0.034 dex"
    for label, stated in zip(cannon.index, (35, 0.100, 0.024, 0.040, 0.034), strict=True):
        yield words, cannon.scatter[label], stated, 0.03 * stated
    ratio = v["ratio"]
    yield "between 0.63 and 0.70", ratio.loc["three SmallNets"].min(), 0.63, 0.06
    yield "between 0.63 and 0.70", ratio.loc["three SmallNets"].max(), 0.70, 0.06
    one = ratio.loc[["one StarNet", "one SmallNet"]]
    yield "one network has 0.59 to 0.79", one.min(axis=None), 0.59, 0.08
    yield "one network has 0.59 to 0.79", one.max(axis=None), 0.79, 0.08
    farther = v["farther"]
    words = "In [Mg/Fe] the Cannon is farther from zero by 0.0065 ± 0.0016"
    yield words, -farther.farther["mg_fe"], 0.0065, 0.003
    yield words, farther["±"]["mg_fe"], 0.0016, 0.0005
    words = "in log g the difference of 0.006 ± 0.004 is luck"
    yield words, farther.farther["logg"], 0.006, 0.008
    yield words, farther["±"]["logg"], 0.004, 0.0015
    yield "each known to about 0.03", ratio.loc["three SmallNets, ±"].mean(), 0.03, 0.01

    noisy, masked = v["noisy"], v["masked"]
    for words, row, stated, error, tolerance in (
        ("70 ± 5 K", noisy.loc[0.07, "three SmallNets"], 70, 5, 12),
        ("the Cannon 46 ± 4 K", noisy.loc[0.07, "the Cannon"], 46, 4, 4),
        ("from 23 ± 2 to 41 ± 2 K", masked.loc[0.0, "three SmallNets"], 23, 2, 3),
        ("from 23 ± 2 to 41 ± 2 K", masked.loc[0.5, "three SmallNets"], 41, 2, 7),
        ("from 34 ± 2 to 36 ± 3 K", masked.loc[0.0, "the Cannon"], 34, 2, 1),
        ("from 34 ± 2 to 36 ± 3 K", masked.loc[0.5, "the Cannon"], 36, 3, 3),
        ("removes the first weakness (46 ± 3 K)", noisy.loc[0.07, "three hardened"], 46, 3, 8),
        ("not the second (45 ± 3 K)", masked.loc[0.5, "three hardened"], 45, 3, 8),
        ("costs: 35 ± 2 K", noisy.loc[0.0, "three hardened"], 35, 2, 6),
    ):
        yield words, row.teff, stated, tolerance
        yield words, row["± teff"], error, 1.6
    biases = v["biases"]
    yield "+0.29 ± 0.02 dex (Cannon)", biases["the Cannon"].mean(), 0.29, 0.01
    yield "+0.29 ± 0.02 dex (Cannon)", biases["the Cannon"].sem(), 0.02, 0.006
    yield "+0.40 ± 0.03 dex (networks)", biases["three SmallNets"].mean(), 0.40, 0.08
    yield "+0.40 ± 0.03 dex (networks)", biases["three SmallNets"].sem(), 0.03, 0.01
    yield "Of these 33 stars", len(biases), 33, 0
    strangers = v["flagged"]["strangers"]
    binomial = np.sqrt(strangers * (1 - strangers) / len(biases))
    yield "88 ± 6 % have a larger χ² than 95 %", strangers.iloc[0], 0.88, 0.031
    yield "88 ± 6 % have a larger χ² than 95 %", binomial.iloc[0], 0.06, 0.006
    yield "67 ± 8 % a larger spread", strangers.iloc[1], 0.67, 0.2
    yield "67 ± 8 % a larger spread", binomial.iloc[1], 0.08, 0.02
