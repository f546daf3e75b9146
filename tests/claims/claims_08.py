"""The numbers that the prose of 08_jwst_apogee states."""

import numpy as np


def claims(v):
    yield "2000 rows of 1919 stars", v["rows"], 2000, 0
    yield "2000 rows of 1919 stars", v["stars"], 1919, 0
    yield "18 abundances", len(v["abundances"]), 18, 0

    yield "(correlation 0.83 ± 0.01)", v["correlation"], 0.83, 0.005
    yield "(correlation 0.83 ± 0.01)", v["correlation_error"], 0.01, 0.005
    yield "log g = 2.45 is the *red clump*", v["peak"], 2.45, 0.01
    yield "38 % of the stars are within 0.15", v["in_clump"].mean(), 0.38, 0.005
    yield "The 74 stars above 5200 K are metal-poor", len(v["hot"]), 74, 0
    yield "metal-poor (median −1.29)", v["hot"].fe_h.median(), -1.29, 0.006
    yield "median −0.29 ± 0.01", np.median(v["iron"]), -0.29, 0.005
    yield "median −0.29 ± 0.01", v["median_error"], 0.011, 0.004
    yield "a tail reaches below −1.2", np.quantile(v["iron"], 0.05), -1.2, 0.05
    worse = v["gaussians"]["BIC − best"]
    yield "better by 330 in BIC", worse[1], 330, 6
    yield "better than two by 50", worse[2], 50, 6
    for mean, stated in zip(v["means"][3][::-1], (-0.1, -0.5, -1.2), strict=True):
        yield "near −0.1, −0.5 and −1.2", mean, stated, 0.01
    groups = v["groups"]
    for name, words, stars, mean in (
        ("disk, low [Mg/Fe]", "(1129 stars, mean [Mg/Fe] = 0.066 ± 0.001)", 1129, 0.066),
        ("disk, high [Mg/Fe]", "(626 stars, 0.274 ± 0.001)", 626, 0.274),
    ):
        yield words, groups.stars[name], stars, 0
        yield words, groups.mg_fe[name], mean, 0.0006
        yield words, groups["error of mg_fe"][name], 0.001, 0.0005
    yield "164 stars of the halo", groups.stars["halo"], 164, 0
    yield "median correlation 0.97", np.median(v["x_h"]), 0.97, 0.005
    yield "the strongest pairs reach 0.97", v["strongest"].iloc[0], 0.97, 0.006
    odd = [{"k_fe", "al_fe"} & set(pair) != set() for pair in v["strongest"].index[:3]]
    yield "and potassium and aluminum with them", sum(odd), 3, 0
    linked = v["linked"]
    for name, words, value, error in (
        ("c_fe, mg_fe", "(+0.73 ± 0.01)", 0.73, 0.01),
        ("n_fe, fe_h", "(+0.78 ± 0.01)", 0.78, 0.01),
        ("n_fe, logg", "−0.48 ± 0.02 with log g", -0.48, 0.02),
        ("c_fe, logg", "in carbon (+0.16 ± 0.02)", 0.16, 0.02),
        ("teff, logg", "(+0.83 ± 0.01)", 0.83, 0.01),
    ):
        yield words, linked.correlation[name], value, 0.006
        yield words, linked["±"][name], error, 0.005

    wave = v["wave"]
    yield "from 15100.8 to 16999.8 Å in 8575 pixels", wave[0], 15100.8, 0.05
    yield "from 15100.8 to 16999.8 Å in 8575 pixels", wave[-1], 16999.8, 0.05
    yield "from 15100.8 to 16999.8 Å in 8575 pixels", wave.size, 8575, 0
    yield "Of these 7801 are recorded", v["recorded"].sum(), 7801, 0
    starts, ends = wave[v["starts"]], wave[v["ends"]]
    for words, value, stated in (
        ("15819 and 15866 Å", ends[0], 15819),
        ("15819 and 15866 Å", starts[1], 15866),
        ("16444 and 16482 Å", ends[1], 16444),
        ("16444 and 16482 Å", starts[2], 16482),
    ):
        yield words, value, stated, 0.5

    lost = v["lost"].iloc[0]
    yield "`aabec_01`, row 1132", v["row_of"](v["missing"][0]), 1132, 0
    yield "5153 K, log g 3.40, [Fe/H] −0.31", lost.teff, 5153, 0.5
    yield "5153 K, log g 3.40, [Fe/H] −0.31", lost.logg, 3.40, 0.005
    yield "5153 K, log g 3.40, [Fe/H] −0.31", lost.fe_h, -0.31, 0.005
    yield "1918 different stars are matched", len(v["by_hand"]), 1918, 0
    yield "81 rows repeat a star", v["row_counts"]["further rows of a star"], 81, 0
    mismatch = v["mismatch"].loc["by position"]
    yield "43 % of all spectra", mismatch.iloc[0], 0.43, 0.005
    yield "148 K in the mean", mismatch.iloc[1], 148, 0.5

    yield "differ by 0.000005 at most", v["agreement"].max(axis=None), 0.000005, 0.000001
    grid = v["grid"]
    yield "from 9000 to 18000 Å in 8192 pixels of 1.10 Å", grid[0], 9000, 0.5
    yield "from 9000 to 18000 Å in 8192 pixels of 1.10 Å", grid[-1], 18000, 0.5
    yield "from 9000 to 18000 Å in 8192 pixels of 1.10 Å", grid.size, 8192, 0
    yield "from 9000 to 18000 Å in 8192 pixels of 1.10 Å", np.diff(grid).mean(), 1.10, 0.005
    recorded = wave[v["recorded"]]
    yield "five times APOGEE's range", np.ptp(grid) / np.ptp(recorded), 5, 0.1
    yield "318 of them, 11625 to 11973 Å", v["gap"].sum().item(), 318, 0
    yield "318 of them, 11625 to 11973 Å", v["gap_ends"][0], 11625, 0.5
    yield "318 of them, 11625 to 11973 Å", v["gap_ends"][1], 11973, 0.5

    yield "R = 3351 ± 8,", v["resolution"], 3351, 2
    yield "R = 3351 ± 8,", v["resolution_error"], 8, 1
    rms = np.sqrt(v["squares"].min(axis=0).mean())
    yield "differ by 0.005 rms", rms, 0.005, 0.0002
    yield "48 ± 5 %", v["first_share"], 0.48, 0.0201
    yield "48 ± 5 %", v["first_error"], 0.05, 0.003
    share = (v["rank"] <= 10).mean()
    yield "95 ± 2 %", share, 0.95, 0.0101
    yield "95 ± 2 %", np.sqrt(share * (1 - share) / len(v["rank"])), 0.02, 0.005
    yield "the worst rank is 32", v["rank"].max(), 32, 3
    yield "the nearest of 1918", len(v["names"]), 1918, 0
    poor = v["rank"][v["poor"]]
    yield "2 of 7 rank first", (poor == 1).sum(), 2, 0
    yield "2 of 7 rank first", len(poor), 7, 0

    real = v["real"]
    yield "For four stars of six", len(v["good"]), 4, 0
    yield "For four stars of six", len(real), 6, 0
    yield "−2.4 ± 1.2 km/s", v["shift"].mean(), -2.4, 0.6
    yield "−2.4 ± 1.2 km/s", v["shift"].sem(), 1.2, 0.3
    yield "(correlation 0.32 and 0.05)", real.correlation["2609_7"], 0.32, 0.02
    yield "(correlation 0.32 and 0.05)", real.correlation["2609_12"], 0.05, 0.02
    apogee = v["m71"].vhelio_avg.to_series()["2609_7"]
    yield "the velocity of source 7 is right", real["velocity [km/s]"]["2609_7"] - apogee, 0, 6
    yield "1.3 % robust rms", v["residual"], 0.013, 0.0006
    yield "photons alone would give 0.5 %", v["photons"], 0.005, 0.0005
    yield "0.17 dex is needed to leave one peak", v["critical"], 0.17, 0.006
    yield "none of 200 one-peaked samples", v["exceeded"], 0, 0
    yield "p < 0.015", 3 / 200, 0.015, 0  # the rule of three
