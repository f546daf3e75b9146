"""What the prose of 06_mcmc states, held against its variables."""


def claims(v):
    """Words of the prose, value, number stated, tolerance."""
    if v["survey"].name != "simulated":
        return  # the prose speaks of the simulated survey
    yield "60 of 60 optimizations", v["same"], 60, 0
    diagnosis = v["diagnosis"]
    yield "r-hat is below 1.01", float(diagnosis.r_hat.max() < 1.01), 1, 0
    smallest = diagnosis[["ess_bulk", "ess_tail"]].min(axis=None)
    yield "bulk and tail ESS are above 400", float(smallest > 400), 1, 0
    yield "the farthest draw lies some 4 widths off", diagnosis.farthest.max(), 4, 1.2
    yield "at most 5 % of the prior", 100 * (1 - 0.05 ** (1 / v["same"])), 5, 0.2
    yield "χ² is 4.7 per pixel", v["chi2_per_pixel"], 4.7, 0.05
    yield "less than 0.89 and 99 % less than 1.8", v["usual"][0.5], 0.89, 0.005
    yield "less than 0.89 and 99 % less than 1.8", v["usual"][0.99], 1.8, 0.05
    yield "correlate with 0.96", v["correlation"], 0.96, 0.005

    mean, sd = v["mean"], v["width_of"]
    for label, words, value, error in (
        ("teff", "4562 ± 3.4 K", 4562, 3.4),
        ("logg", "log g = 1.702 ± 0.0087,", 1.702, 0.0087),
        ("fe_h", "[Fe/H] = -0.535 ± 0.0023,", -0.535, 0.0023),
        ("mg_fe", "[Mg/Fe] = 0.298 ± 0.0038", 0.298, 0.0038),
        ("si_fe", "[Si/Fe] = 0.237 ± 0.0042", 0.237, 0.0042),
    ):
        yield words, mean[label], value, 0.3 * error
        yield words, sd[label], error, 0.1 * error
    tilts = v["tilts"].abs().mask(lambda table: table == 1)
    yield (
        "tilted most for magnesium and silicon",
        tilts.loc["mg_fe", "si_fe"],
        tilts.max(axis=None),
        0,
    )

    yield "(a correlation of 0.68 ± 0.02)", tilts.loc["mg_fe", "si_fe"], 0.68, 0.06
    yield "for temperature and [Fe/H] (0.63 ± 0.02)", tilts.loc["teff", "fe_h"], 0.63, 0.06
    yield "(3.4 and 2.6 K;", v["widths"]["NUTS"]["teff"], 3.4, 0.25
    yield "(3.4 and 2.6 K;", v["widths"]["curve_fit"]["teff"], 2.6, 0.06
    yield "1.9 to 2.6 times the formal ones", v["aspcap_ratio"].min(), 1.9, 0.1
    yield "1.9 to 2.6 times the formal ones", v["aspcap_ratio"].max(), 2.6, 0.1
    stated = {
        "with s²": [
            ("8.7 ± 0.3 (temperature)", 8.7, 0.3),
            ("8.8 ± 0.4 (log g)", 8.8, 0.4),
            ("6.5 ± 0.4 ([Fe/H])", 6.5, 0.4),
            ("6.9 ± 0.2 ([Mg/Fe])", 6.9, 0.2),
            ("6.9 ± 0.3 ([Si/Fe])", 6.9, 0.3),
        ],
        "without s²": [
            ("14.5 ± 0.7, 14.9 ± 0.8, 10.4 ± 0.5, 9.5", 14.5, 0.7),
            ("14.5 ± 0.7, 14.9 ± 0.8, 10.4 ± 0.5, 9.5", 14.9, 0.8),
            ("14.5 ± 0.7, 14.9 ± 0.8, 10.4 ± 0.5, 9.5", 10.4, 0.5),
            ("9.5 ± 0.4 and 9.5 ± 0.4,", 9.5, 0.4),
            ("9.5 ± 0.4 and 9.5 ± 0.4,", 9.5, 0.4),
        ],
    }
    for column, rows in stated.items():
        for label, (words, value, error) in zip(v["LABELS"], rows, strict=True):
            yield words, v["ratios"].loc[label, column], value, 0.06
            yield words, v["ratios"].loc[label, f"± ({column})"], error, 0.06
    change = v["widths"]["CV scatter, no s²"] / v["widths"]["CV scatter"]
    yield "the scatter itself hardly changes", (change - 1).abs().max(), 0, 0.1
    off = v["test"].loc["si_fe", "off / sd"]
    yield "off by 7 to 8 standard deviations in [Si/Fe]", off, 7.5, 0.6
    words = "less than one scatter of cross-validation in every label"
    yield words, float(v["test"]["off / CV scatter"].abs().max() < 1), 1, 0
    yield "6,887 independent pixels", v["good"].sum(), 6887, 0

    yield "95 K hotter", v["gap"]["teff"], 95, 1
    yield "lower by 0.33 in log g", -v["gap"]["logg"], 0.33, 0.005
    in_scatter = (v["gap"] / v["widths"]["CV scatter"]).abs()
    yield "2.7 and 3.3 times the scatter", in_scatter["teff"], 2.7, 0.06
    yield "2.7 and 3.3 times the scatter", in_scatter["logg"], 3.3, 0.06
    yield "[Fe/H] agrees within 1.1 of it", in_scatter["fe_h"], 1.1, 0.06

    yield "wins by 4368 ± 202", -v["elpd_gain"], 4368, 40
    yield "wins by 4368 ± 202", v["elpd_error"], 202, 5
    yield "become 1.6 times as large", v["s2_ratio"], 1.6, 0.05
    best = v["best_fits"]
    chi2, rms = best["χ² per pixel"], best["rms"]
    swapped = "quadratic, s² of the linear"
    gained = best["ln L"][swapped] - best["ln L"]["quadratic"]
    yield "the quadratic model gains 3,861 in ln L", gained, 3861, 5
    yield "falls from 4.7 to 3.1", chi2["quadratic"], 4.7, 0.05
    yield "falls from 4.7 to 3.1", chi2[swapped], 3.1, 0.05
    yield "(rms residual 0.0137, not 0.0143)", rms["linear"], 0.0137, 0.00006
    yield "(rms residual 0.0137, not 0.0143)", rms["quadratic"], 0.0143, 0.00006
