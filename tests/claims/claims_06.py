"""What the prose of 06_mcmc states, held against its variables."""


def claims(v):
    """Words of the prose, value, number stated, tolerance."""
    if v["survey"].name != "simulated":
        return  # the prose speaks of the simulated survey
    yield "60 of 60 optimizations", v["same"], 60, 0
    yield "r-hat is below 1.01", v["diagnosis"].r_hat.max(), 1.005, 0.005
    smallest = v["diagnosis"].filter(like="ess_").min(axis=None)
    yield "all ESS are above 400 for each label", smallest, 5200, 4800
    yield "χ² is 4.7 per pixel", v["chi2_per_pixel"], 4.7, 0.05
    yield "less than 0.89 and 99 % less than 1.8", v["usual"][0.5], 0.89, 0.005
    yield "less than 0.89 and 99 % less than 1.8", v["usual"][0.99], 1.8, 0.05
    yield "correlate with 0.96", v["correlation"], 0.96, 0.005

    mean, sd = v["mean"], v["width_of"]
    for label, words, value, error in (
        ("teff", "4562 ± 3 K", 4562, 3),
        ("logg", "log g = 1.702 ± 0.009,", 1.702, 0.009),
        ("fe_h", "[Fe/H] = -0.535 ± 0.002,", -0.535, 0.002),
        ("mg_fe", "[Mg/Fe] = 0.298 ± 0.004", 0.298, 0.004),
        ("si_fe", "[Si/Fe] = 0.237 ± 0.004", 0.237, 0.004),
    ):
        yield words, mean[label], value, 0.3 * error
        yield words, sd[label], error, 0.25 * error
    tilts = v["tilts"].abs().mask(lambda table: table == 1)
    yield (
        "tilted most for magnesium and silicon",
        tilts.loc["mg_fe", "si_fe"],
        tilts.max(axis=None),
        0,
    )

    yield "(a correlation of 0.6 to 0.7)", tilts.loc["mg_fe", "si_fe"], 0.65, 0.07
    yield "for temperature and [Fe/H] (0.6)", tilts.loc["teff", "fe_h"], 0.6, 0.08
    yield "(3.3 and 2.6 K;", v["widths"]["NUTS"]["teff"], 3.3, 0.3
    yield "(3.3 and 2.6 K;", v["widths"]["curve_fit"]["teff"], 2.6, 0.06
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
    yield words, v["test"]["off / CV scatter"].abs().max(), 0.5, 0.5
    yield "6,887 independent pixels", v["good"].sum(), 6887, 0

    yield "95 K hotter", v["gap"]["teff"], 95, 1
    yield "lower by 0.33 in log g", -v["gap"]["logg"], 0.33, 0.005
    in_scatter = (v["gap"] / v["widths"]["CV scatter"]).abs()
    yield "2.7 and 3.3 times the scatter", in_scatter["teff"], 2.7, 0.06
    yield "2.7 and 3.3 times the scatter", in_scatter["logg"], 3.3, 0.06
    yield "[Fe/H] agrees within 1.1 of it", in_scatter["fe_h"], 1.1, 0.06

    yield "wins by 4367 ± 202", -v["elpd_gain"], 4367, 40
    yield "wins by 4367 ± 202", v["elpd_error"], 202, 5
    yield "its χ² per pixel is 2.9 instead of 4.7", v["linear_chi2"], 2.9, 0.05
    yield "become 1.6 times as large", v["s2_ratio"], 1.6, 0.05
