"""What notebook 10 states in prose, against its variables."""


def claims(v):
    photons = v["photon_coverage"]
    words = "hold 9 to 14 % of the true labels"
    yield words, photons[0.68].iloc[:5].min(), 9, 1.5
    yield words, photons[0.68].iloc[:5].max(), 14, 1.5
    yield "none of all five together", photons.loc["all", 0.68], 0, 0.5
    yield "(right posteriors would hold 68 ± 1.5 %)", 100 * v["counting"][0.68], 1.5, 0.05
    agrees = v["nuts_agrees"]
    words = "means within 0.15 standard deviations"
    yield words, float(agrees["shift / sd"].abs().max() < 0.15), 1, 0
    yield "and widths within 10 %", float((agrees["sd / sd"] - 1).abs().max() < 0.1), 1, 0

    causes, errors = v["causes"], v["cause_errors"]

    def both(words, cause, label, value, error, size):
        yield words, causes.loc[cause, label], value, size
        yield words, errors.loc[cause, label], error, max(size, 0.6 * error)

    yield from both("24 ± 2 K", "elements", "teff", 24, 2, 1)
    yield from both("of the 34 ± 3 K", "observed spectra", "teff", 34, 3, 1)
    yield from both("0.079 ± 0.008", "elements", "logg", 0.079, 0.008, 0.002)
    yield from both("0.092 ± 0.008", "observed spectra", "logg", 0.092, 0.008, 0.002)
    yield from both("18 ± 1 K", "ripple", "teff", 18, 1, 1)
    yield from both("14 ± 1 K", "noise", "teff", 14, 1, 1)
    yield from both("9 ± 1 K", "polynomial", "teff", 9, 1, 0.6)
    yield from both("0.026 ± 0.002", "polynomial", "mg_fe", 0.026, 0.002, 0.001)
    yield from both("0.042 ± 0.002", "observed spectra", "mg_fe", 0.042, 0.002, 0.001)
    yield from both("0.046 ± 0.004", "trends of teachers", "logg", 0.046, 0.004, 0.002)
    yield from both("nothing: 34 ± 3 K", "observed, without s²", "teff", 34, 3, 1)
    yield from both("(0.103 ± 0.009 dex)", "observed, without s²", "logg", 0.103, 0.009, 0.003)
    yield from both("falls to 20 ± 1 K", "observed, with components", "teff", 20, 1, 1)
    words = "(0.028 ± 0.002 against 0.023 ± 0.002 dex)"
    yield from both(words, "ripple", "si_fe", 0.028, 0.002, 0.001)
    yield from both(words, "elements", "si_fe", 0.023, 0.002, 0.001)
    yield "between -28 and 12 %", v["share_unexplained"].min(), -28, 3
    yield "between -28 and 12 %", v["share_unexplained"].max(), 12, 3

    yield "47 components lie above the edge", v["components"].sizes["mode"], 47, 1
    yield "same shape ends at 14.1", v["noise_eigenvalues"][0], 14.1, 0.1
    yield "ends at 14.1", v["edge"], 14.1, 0.05
    scatter = v["scatter_of_labels"]
    yield "from 32.8 to\n15.6 K", scatter.loc["photons", "teff"], 32.8, 0.5
    yield "from 32.8 to\n15.6 K", scatter.loc["with components", "teff"], 15.6, 0.5
    yield "from 0.097 to 0.046 dex", scatter.loc["photons", "logg"], 0.097, 0.002
    yield "from 0.097 to 0.046 dex", scatter.loc["with components", "logg"], 0.046, 0.002
    lower = 100 * (1 - scatter.loc["with components"] / scatter.loc["photons"])
    yield "by 35 to 53 %", lower.min(), 35, 1
    yield "by 35 to 53 %", lower.max(), 53, 1
    repaired = v["repaired_coverage"]
    yield "covered by 53 to 65 % at 68 %", repaired[0.68].iloc[:5].min(), 53, 1.5
    yield "covered by 53 to 65 % at 68 %", repaired[0.68].iloc[:5].max(), 65, 1.5
    yield "29 % at 68 %, and 74 % at 95 %", repaired.loc["all", 0.68], 29, 1.5
    yield "29 % at 68 %, and 74 % at 95 %", repaired.loc["all", 0.95], 74, 1.5

    found, known = v["trends"].values, v["trends"].errors

    def trend(words, label, term, value, error, size):
        yield words, found.loc[label, term], value, size
        yield words, known.loc[label, term], error, size

    yield from trend("+27 ± 3 K per 500 K", "teff", "teff", 27, 3, 0.6)
    yield from trend("+30 ± 6 K per dex of [Fe/H]", "teff", "fe_h", 30, 6, 0.6)
    yield from trend("0.051 ± 0.010 dex (0.040)", "logg", "clump", 0.051, 0.010, 0.001)
    yield from trend("+0.012 ± 0.003 dex of [Mg/Fe]", "mg_fe", "teff", 0.012, 0.003, 0.001)
    yield from trend("-7.2 ± 2.7 K where none was put in", "teff", "zero", -7.2, 2.7, 0.2)
    joint = 100 * v["joint_coverage"]["teacher calibrated"]
    words = "hold 52, 70, 91 and 95 %"
    yield from (
        (words, joint[level], value, 1.2)
        for level, value in ((0.5, 52), (0.68, 70), (0.9, 91), (0.95, 95))
    )
    words = "counting alone errs by 1.6, 1.5, 1.0 and\n0.7 %"
    yield from (
        (words, 100 * v["counting"][level], value, 0.05)
        for level, value in ((0.5, 1.6), (0.68, 1.5), (0.9, 1.0), (0.95, 0.7))
    )
    poor = v["by_group"].loc["[Fe/H]"].iloc[0]
    yield "hold 52 ± 4 %", 100 * poor["all"], 52, 2
    yield "hold 52 ± 4 %", 100 * poor["error"], 4, 0.5
    single = v["final_coverage"][0.68]
    yield "64 % (temperature) to 77 % ([Fe/H]) at 68 %", single["teff"], 64, 1.5
    yield "64 % (temperature) to 77 % ([Fe/H]) at 68 %", single["fe_h"], 77, 1.5
    tested = 100 * v["tests"]
    for words, column, stated in (
        ("finds 44, 62, 86 and 92 %", "TARP, calibrated", (44, 62, 86, 92)),
        ("(52, 66, 87 and 93 %)", "TARP, repaired", (52, 66, 87, 93)),
    ):
        for share, number in zip(tested[column], stated, strict=True):
            yield words, share, number, 1.5
    seeds = 100 * v["other_seeds"]["teacher calibrated"].unstack("level")
    words = "67 to 73 % at 68 % and 95 to 96 % at 95 %"
    yield words, seeds[0.68].min(), 67, 0.6
    yield words, seeds[0.68].max(), 73, 0.6
    yield words, seeds[0.95].min(), 95, 0.6
    yield words, seeds[0.95].max(), 96, 0.6
    yield "On three other seeds", len(seeds), 3, 0

    slopes = v["slopes"].div(v["slopes"]["true"], axis=0)
    yield "0.78 times the true slopes", slopes["plain"].mean(), 0.78, 0.02
    yield "maximization 1.00", slopes["EM"].mean(), 1.00, 0.02
    yield from more(v)


def more(v):
    """Sections 5 to 7."""
    yield "only 329 of 947 stars have all labels", len(v["whole"]), 329, 0
    yield "only 329 of 947 stars have all labels", len(v["taught"]), 947, 0
    table = v["label_errors"]
    yield "(26 K instead of 30 K)", table.loc["its stars after EM", "teff"], 26, 1
    yield "(26 K instead of 30 K)", table.loc["noisy catalog", "teff"], 30, 1
    changes = v["changes"]
    for words, row, label, value, error in (
        ("by 15 ± 6 % in temperature", "its stars after EM [%]", "teff", -15, 6),
        ("by 24 ± 6 % in [Fe/H]", "its stars after EM [%]", "fe_h", -24, 6),
        ("better by 11 ± 4 %", "fits, EM for plain [%]", "fe_h", -11, 4),
        ("worse by\n11 ± 5 %", "fits, EM for plain [%]", "si_fe", 11, 5),
    ):
        yield words, changes.loc[row, label], value, 2
        spread = changes.loc["±" if "stars" in row else "± ", label]
        yield words, spread, error, 1
    ties = changes.loc[["fits, EM for plain [%]", "± "], ["teff", "logg", "mg_fe"]].to_numpy()
    yield "the others tie", abs(ties[0] / ties[1]).max() < 2, 1, 0

    pairs = v["repeats"]

    def ratio(words, row, label, value, error):
        yield words, pairs.loc[row, (label, "ratio")], value, 0.02
        yield words, pairs.loc[row, (label, "error")], error, 0.03

    visits = ("with components, all", "all")
    yield from ratio("1.22 ± 0.09 in temperature", visits, "teff", 1.22, 0.09)
    yield from ratio("1.36 ± 0.16 ([Fe/H])", visits, "fe_h", 1.36, 0.16)
    yield from ratio("0.93 ± 0.15 ([Si/Fe])", visits, "si_fe", 0.93, 0.15)
    fields = ("catalog, two fields", "all")
    yield from ratio("0.84 ± 0.22", fields, "teff", 0.84, 0.22)
    yield from ratio("1.62 ± 0.35", fields, "logg", 1.62, 0.35)

    told = v["prediction"]

    def registered(words, quantity, value, error):
        yield words, told.loc[quantity, "predicted"], value, 1e-9
        yield words, told.loc[quantity, "error"], error, 1e-9

    yield from registered("0.012 ± 0.006", "scatter of fe_h in NGC 6791", 0.012, 0.006)
    yield from registered("0.020 ± 0.007", "scatter of mg_fe in NGC 6791", 0.020, 0.007)
    yield from registered("0.05 ± 0.03", "offset of logg of the clump", 0.05, 0.03)
