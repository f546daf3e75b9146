"""What the prose of 12_one_star_two_instruments states, held against its variables."""


def mean_and_error(values):
    """Mean and standard error. A star is in up to three divisions, with the same spectra."""
    mean = values.astype(float).mean()
    of_star = (values - mean).groupby(level="star").sum()
    return mean, (of_star**2).sum() ** 0.5 / len(values)


def share(found):
    """Share and its standard error, %."""
    mean, error = mean_and_error(found)
    return 100 * mean, 100 * error


def claims(v):
    """Words of the prose, value, number stated, tolerance."""
    results, board, iron = v["results"], v["scoreboard"], v["by_iron"]
    words = "1.6 % of the stars at SNR 20, 7.8 % at SNR 50, 25.0 % at SNR 100"
    for snr, stated in ((20, 1.6), (50, 7.8), (100, 25.0)):
        yield words, 100 * v["by_rms"][snr], stated, 1.5
    yield "Of 959 candidates", len(v["test"]), 959, 0
    yield "share 14 directions", v["models"][1][0].correlations.size, 14, 1
    yield "Seven correlations are above 0.99", (v["correlations"] > 0.99).sum(), 7, 1
    yield "the last is 0.70", v["correlations"][-1], 0.70, 0.05

    words = "53.6 ± 1.2, 84.2 ± 0.9 and 96.3 ± 0.4 %"
    for snr, stated, error in ((20, 53.6, 1.2), (50, 84.2, 0.9), (100, 96.3, 0.4)):
        value, spread = share(results.found.loc[snr])
        yield words, value, stated, 1
        yield words, spread, error, 0.06
    for words, method, numbers in (
        ("55.7, 89.1 and 97.9 %", "limit of information", (55.7, 89.1, 97.9)),
        ("44.7, 78.8 and 90.0 %", "contrastive network", (44.7, 78.8, 90.0)),
        ("36.4, 75.5 and 94.4 %", "ridge, noise known", (36.4, 75.5, 94.4)),
    ):
        for snr, stated in zip((20, 50, 100), numbers, strict=True):
            yield words, 100 * board.loc[method, snr], stated, 2.5
    yield "first ten for 96.2 %", 100 * results.among_ten.loc[20].mean(), 96.2, 1
    yield "five labels 51.0 % at SNR 50", 100 * board.loc["five labels", 50], 51.0, 1.5
    cosine = board.loc["canonical directions, cosine", 50]
    yield "the cosine 24.9 %", 100 * cosine, 24.9, 1.5

    poor = results.loc[50][v["groups"][results.index.get_level_values("SNR") == 50] == "below -0.9"]
    rich = results.loc[50][v["groups"][results.index.get_level_values("SNR") == 50] == "above -0.3"]
    for words, part, stated, error in (
        ("only 63 ± 4 %", poor, 63, 4),
        ("but 91 ± 1 %", rich, 91, 1),
    ):
        value, spread = share(part.found)
        yield words, value, stated, 2
        yield words, spread, error, 0.5
    yield "only 63 ± 4 %", 100 * iron.loc[50, "below -0.9"], 63, 2
    words = "0.05 ± 0.03 at SNR 20, 0.07 ± 0.04 at SNR 50 and 0.11 ± 0.07 at SNR 100"
    for snr, stated, error in ((20, 0.05, 0.03), (50, 0.07, 0.04), (100, 0.11, 0.07)):
        yield words, v["worst"][snr], stated, 0.03
        yield words, v["reliable"][snr].error[v["far"][snr]], error, 0.02
    for words, snr, stated, error in (
        ("0.010 ± 0.009 at SNR 20", 20, 0.010, 0.009),
        ("0.015 ± 0.007, two errors, at SNR 50", 50, 0.015, 0.007),
    ):
        yield words, v["too_high"][snr], stated, 0.004
        off = results.probability.loc[snr] - results.found.loc[snr]
        yield words, mean_and_error(off)[1], error, 0.001

    cost = v["cost"].loc["degraded"]
    words = "19, 51 and 80 % are found first, and not 54, 84 and 96 %"
    for snr, stated, white in ((20, 19, 54), (50, 51, 84), (100, 80, 96)):
        yield words, 100 * cost.found[snr], stated, 3
        yield words, 100 * v["summary"].found[snr], white, 1.5
    words = "by 0.13 and 0.14 on average at SNR 20 and 50 and by 0.04 at SNR 100"
    for snr, stated in ((20, 0.13), (50, 0.14), (100, 0.04)):
        yield words, cost.probability[snr] - cost.found[snr], stated, 0.03

    steps = v["steps_up"]
    yield "the cosine finds 25 %", 100 * steps["cosine"], 25, 1.5
    yield "of the *same* latents 73 %", 100 * steps["likelihood ratio"], 73, 1.5
    yield "finds 84.5 %", 100 * steps["curved, noise of each"], 84.5, 1.5
    weights = v["r"] / (1 - v["r"] ** 2)
    yield "from 2,217 to 0.7", weights[0], 2217, 100
    yield "from 2,217 to 0.7", weights[-1], 0.7, 0.1

    few = v["few"]
    yield "With 60 pairs 80 %", 100 * few["joint model"][60], 80, 2
    yield "with 30 still 76 %", 100 * few["joint model"][30], 76, 2
    yield "all pairs give 84.5 %", 100 * few["joint model"][959], 84.5, 1.5
    words = "38 % with 60 pairs, 67 % with 240 and 79 % with all"
    for pairs, stated in ((60, 38), (240, 67), (959, 79)):
        yield words, 100 * few["contrastive network"][pairs], stated, 4
    for name, stated, tolerance in (("teff", 30, 2), ("logg", 0.104, 0.01), ("fe_h", 0.030, 0.003)):
        yield "30 K, 0.104 and 0.030 with 60 pairs", few[name][60], stated, tolerance

    words = "25.7 ± 0.9 K, 0.085 ± 0.003 and 0.027 ± 0.001 dex"
    for name, stated, error, digit in (
        ("teff", 25.7, 0.9, 0.2),
        ("logg", 0.085, 0.0034, 0.0005),
        ("fe_h", 0.027, 0.001, 0.0006),
    ):
        squares = results.loc[50][f"{name}_off"] ** 2
        rmse = squares.mean() ** 0.5
        yield words, rmse, stated, 3 * error
        yield words, mean_and_error(squares)[1] / (2 * rmse), error, digit
    rmse = v["rmse"]
    for words, way, numbers in (
        ("wrong by 56 K, 0.21 and 0.048", "naive", (56, 0.21, 0.048)),
        ("by 26 K, 0.088 and 0.028", "noise emulated", (26, 0.088, 0.028)),
    ):
        for name, stated in zip(("teff", "logg", "fe_h"), numbers, strict=True):
            yield words, rmse.loc[way, name], stated, 0.04 * stated
    words = "(ratios 1.00 ± 0.03, 0.98 ± 0.03 and 1.01 ± 0.01)"
    for name, stated, error in (("teff", 1.00, 0.03), ("logg", 0.98, 0.03), ("fe_h", 1.01, 0.01)):
        yield words, rmse.loc["emulated / direct", name], stated, 0.02
        yield words, rmse.loc["±", name], error, 0.006
    words = "within 5 % of 1 for temperature and log g"
    yield words, abs(v["z_rms"][["teff_z", "logg_z"]].to_numpy() - 1).max(), 0.05, 0.03
    yield "[Si/Fe] scatters 9 to 17 % more", 100 * (v["z_rms"]["si_fe_z"].min() - 1), 9, 2
    yield "[Si/Fe] scatters 9 to 17 % more", 100 * (v["z_rms"]["si_fe_z"].max() - 1), 17, 3
    of_rms = []
    for name in v["LABELS"]:
        for snr in (20, 50, 100):
            mean, error = mean_and_error(results[f"{name}_z"].loc[snr] ** 2)
            of_rms.append(error / (2 * mean**0.5))
    yield "(± 0.02 to 0.04)", min(of_rms), 0.02, 0.005
    yield "(± 0.02 to 0.04)", max(of_rms), 0.04, 0.005
    words = "an rms between 0.99 and 1.17"
    yield words, v["z_rms"].min().min(), 0.99, 0.03
    yield words, v["z_rms"].max().max(), 1.17, 0.05

    words = "wrong by 0.0010 rms, 6 % of the 0.0173"
    yield words, v["without_noise"], 0.0010, 0.0001
    yield words, 100 * v["without_noise"] / v["spread_of_stars"], 6, 0.6
    yield words, v["spread_of_stars"], 0.0173, 0.0002

    for words, table, numbers in (
        ("by 91 K, 0.27 and 0.06 dex rms", v["plain"], (91, 0.27, 0.06)),
        ("errors by 89 K, 0.26 and 0.06", v["best"], (89, 0.26, 0.06)),
        ("alone give 238 K, 0.75 and 0.04", v["photon"], (238, 0.75, 0.04)),
        ("without the patterns too 164 K, 0.40 and 0.27", v["bare"], (164, 0.40, 0.27)),
        ("as the answer gives 171 K, 0.40 and 0.38", v["population"], (171, 0.40, 0.38)),
    ):
        for name, stated in zip(("teff", "logg", "fe_h"), numbers, strict=True):
            yield words, table[name], stated, 0.1 * stated
    yield "$z$ has an rms of 1.07", (v["z_best"] ** 2).to_numpy().mean() ** 0.5, 1.07, 0.1
    yield "Aligned means move [Fe/H] by +0.39", v["moved_iron"], 0.39, 0.03
    rejected = v["check"].index[v["check"].correlation < 0.2]
    yield "Sources 7, 11 and 12", sum(int(name.split("_")[1]) for name in rejected), 30, 0

    mystery, spread = v["mystery_labels"], v["neighbors"].std()
    words = "4527 K, log g 1.97 and [Fe/H] -0.55: 60 K, 0.06 and 0.04 from"
    for name, stated, of_cannon, off, tolerance in (
        ("teff", 4527, 4467, 60, 10),
        ("logg", 1.97, 2.03, 0.06, 0.02),
        ("fe_h", -0.55, -0.51, 0.04, 0.02),
    ):
        yield words, mystery[name], stated, tolerance
        yield words, abs(mystery[name] - of_cannon), off, tolerance
    for name, stated, tolerance in (("teff", 46, 6), ("logg", 0.12, 0.02), ("fe_h", 0.07, 0.02)):
        yield "partners spread by 46 K, 0.12 and 0.07", spread[name], stated, tolerance
