"""What notebook 04 states in prose, against its variables."""

import numpy as np


def claims(v):
    fitted, apart = v["fitted"], v["apart"]
    yield (
        "All 950 stars were fitted by `curve_fit`",
        v["by_scipy"].notna().all(axis=1).sum(),
        950,
        0,
    )
    yield "for 947 it agrees", (apart < 0.1).sum(), 947, 0
    yield "to 0.02 of the formal error", apart[apart < 0.1].max(), 0.02, 0.01
    yield "larger by 0.3 to 4.6", v["worse"].min(), 0.3, 0.1
    yield "larger by 0.3 to 4.6", v["worse"].max(), 4.6, 0.1
    yield "All 950 fits of the package converged", fitted.converged.sum(), 950, 0
    yield "in 935 of them the three", (fitted.n_agreeing_starts == 3).sum(), 935, 0

    summary, error = v["summary"], v["its_error"]
    scatter, its_error = summary.loc["1.4826 MAD"], error.loc["1.4826 MAD"]
    for words, name, value, sigma in (
        ("35 ± 1 K in $T_{\\rm eff}$", "teff", 35, 1),
        ("0.100 ± 0.004 in $\\log g$", "logg", 0.100, 0.004),
        ("0.024 ± 0.001 in [Fe/H]", "fe_h", 0.024, 0.001),
        ("0.040 ± 0.001 in\n[Mg/Fe]", "mg_fe", 0.040, 0.001),
        ("0.034 ± 0.001 in [Si/Fe]", "si_fe", 0.034, 0.001),
    ):
        unit = 1 if name == "teff" else 1e-3
        yield words, scatter[name], value, 0.55 * unit
        yield words, its_error[name], sigma, 0.6 * unit
    yield "(some 4 %, as above)", 100 * (its_error / scatter).mean(), 4, 0.6
    ratio = summary.loc["std"] / scatter
    yield "standard deviations are up to 15 % larger", 100 * (ratio.max() - 1), 15, 1.5
    for words, name, value, sigma in (
        ("+1.6 ± 1.4 K", "teff", 1.6, 1.4),
        ("-0.006 ± 0.005", "logg", -0.006, 0.005),
        ("-0.002 ± 0.001", "fe_h", -0.002, 0.001),
        ("+0.007 ± 0.002", "mg_fe", 0.007, 0.002),
        ("+0.003 ± 0.001", "si_fe", 0.003, 0.001),
    ):
        unit = 0.1 if name == "teff" else 1e-3
        yield words, summary.loc["median", name], value, 0.6 * unit
        yield words, error.loc["median", name], sigma, 0.8 * unit
    words = "Those of [Mg/Fe] and [Si/Fe] are more than two of their errors from zero"
    beyond_two = (summary.loc["median"] / error.loc["median"]).abs() > 2
    yield words, list(beyond_two.index[beyond_two]) == ["mg_fe", "si_fe"], 1, 0
    words = "by four and three of their errors"
    yield words, (scatter["teff"] - 30) / its_error["teff"], 4, 0.5
    yield words, (scatter["fe_h"] - 0.02) / its_error["fe_h"], 3, 0.5
    ratios = v["sizes"].loc["fit − truth"] / v["sizes"].loc["formal error"]
    yield "6 to 9 times too small", ratios.min(), 6, 0.5
    yield "6 to 9 times too small", ratios.max(), 9, 0.5

    hot = v["hot"]
    deep = hot["lines deeper than predicted [% of continuum]"]
    yield "by 0.41 ± 0.09 % of the continuum", deep[0], 0.41, 0.006
    yield "by 0.41 ± 0.09 % of the continuum", deep[1], 0.09, 0.015
    yield "19 hottest stars (above 5103 K", len(v["hottest"]), 19, 0
    yield "above 5103 K", v["catalog"].teff[v["hottest"]].min(), 5103, 0.6
    yield "never hotter than 5134 K", fitted.teff.max(), 5134, 0.6
    for words, name, value, sigma in (
        ("-68 ± 5 K from the\ncatalog", "fit − catalog [K]", -68, 5),
        ("+21 ± 5 K", "catalog − truth [K]", 21, 5),
        ("-51 ± 4 K are left", "fit − truth [K]", -51, 4),
    ):
        yield words, hot[name][0], value, 0.6
        yield words, hot[name][1], sigma, 0.9

    by_truth = v["truth"].teff.nlargest(len(v["hottest"])).index
    yield "18 of the 19 are also", len(by_truth.intersection(v["hottest"])), 18, 0

    rates = v["base_rates"]
    outliers, others = rates.columns
    yield "for all 12 outliers the three starts agree", rates[outliers]["starts disagree"], 0, 0
    yield "15 of the other 938 stars", rates[others]["starts disagree"], 15, 0
    yield "for 4 of 12, against 3 of 938", rates[outliers]["χ² per pixel above 2"], 4, 0
    yield "for 4 of 12, against 3 of 938", rates[others]["χ² per pixel above 2"], 3, 0
    yield "7 of 12 carry one, against 8 of 938", rates[outliers]["a flag"], 7, 0
    yield "7 of 12 carry one, against 8 of 938", rates[others]["a flag"], 8, 0
    evidence = v["evidence"]
    spoiled = v["spoiled"][evidence.index]
    chips = v["per_chip"].loc[spoiled.index[spoiled == "blue persistence"][0]]
    yield "χ² is 15 there and 2 in the others", chips["blue"], 15, 0.6
    yield "χ² is 15 there and 2 in the others", chips["green"], 2, 0.5
    cool = "2M19393203+2444175"
    yield "off by only 2.7 local σ", evidence.loc[cool, "local σ"], 2.7, 0.05
    yield "an ordinary star of 3600 K", v["catalog"].teff[cool], 3600, 10
    chi2, teff = v["chi2"], v["catalog"].teff
    higher = chi2[teff < 3700].median() - chi2[teff >= 3700].median()
    yield "median χ² per pixel is higher by 0.5", higher, 0.5, 0.06
    few, rng = chi2[teff < 3700].to_numpy(), np.random.default_rng(0)
    yield "the 11 stars below 3700 K", few.size, 11, 0
    medians = [np.median(rng.choice(few, few.size)) for _ in range(500)]
    yield "higher by 0.5 ± 0.2", np.std(medians), 0.2, 0.05
    yield "this one is the worst of them", chi2[cool] - chi2[teff < 3700].max(), 0, 0
    yield "each of the 14 validation stars", (v["spoiled"] != "ordinary").sum(), 14, 0
    yield "each of the 14 validation stars", v["causes"]["flagged"].drop("ordinary").sum(), 14, 0
    yield "and one other for low\nsignal", v["causes"]["flagged"]["ordinary"], 1, 0
    ordinary = evidence[spoiled == "ordinary"]
    yield "Five ordinary stars", len(ordinary), 5, 0
    edge = v["in_local"].loc[ordinary.index[ordinary["edge"]], "fe_h"].abs()
    yield "(6.5 and 5.4 local σ in [Fe/H])", edge.max(), 6.5, 0.06
    yield "(6.5 and 5.4 local σ in [Fe/H])", edge.min(), 5.4, 0.06
    tail = ordinary[~ordinary["edge"]]["local σ"]
    yield "(2.7 to 3.2 local σ)", tail.min(), 2.7, 0.05
    yield "(2.7 to 3.2 local σ)", tail.max(), 3.2, 0.05

    yield "without the 11 flagged stars", len(v["training"]) - len(v["clean"]), 11, 0
    clean, patterns = v["changes"].values()
    yield "by -1.4 ± 1.1 %: a tie", clean[0], -1.4, 0.06
    yield "by -1.4 ± 1.1 %: a tie", clean[1], 1.1, 0.1
    yield "by -27 ± 2 %", patterns[0], -27, 0.6
    yield "by -27 ± 2 %", patterns[1], 2, 0.5
    yield "to 23 K in $T_{\\rm eff}$", v["scatters"]["teff"].iloc[1], 23, 0.6
    yield "0.015 in [Fe/H]", v["scatters"]["fe_h"].iloc[1], 0.015, 0.0006
