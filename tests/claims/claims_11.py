"""The numbers that the prose of 11_whole_survey states."""


def claims(v):
    yield "All 2364 spectra of the catalog have labels", v["labelled"], 2364, 0
    yield "One call labels all 2364 spectra", v["asked"], 2364, 0

    passed, caught = v["passed"], v["caught"]
    share, error = "applicable [%]", "± [%]"
    yield "the limits catch 68 ± 3 %", caught[share], 68, 1
    yield "catch 68 ± 3 % of the stars unlike the training set", caught[error], 3, 0.5
    yield "of 23 hot stars none passes", passed.loc["Teff ≤ 5700 K", share], 0, 0
    poor = v["labels"][v["labels"].cut == "[Fe/H] ≥ -1"].applicable
    yield "of 90 metal-poor ones 3 do", poor.sum(), 3, 1
    yield "of 90 metal-poor ones", len(poor), 90, 0
    yield "54 ± 4 % of the dwarfs pass", passed.loc["log g ≤ 4", share], 54, 1
    yield "54 ± 4 %", passed.loc["log g ≤ 4", error], 4, 0.5
    yield "off by 253 K in the median", passed.loc["log g ≤ 4", "off by [K]"], 253, 8
    yield "giants are off by 23 K", passed.loc["none: the lab's giants", "off by [K]"], 23, 1
    yield "The limits stop 2 % of the", 100 - passed.loc["none: the lab's giants", share], 2, 0.5

    offset = v["offset"]
    yield "the largest offset is -0.009", offset["offset [dex]"].min(), -0.009, 0.001
    yield "-0.009 ± 0.006 dex, at the tip", offset["±"].iloc[0], 0.006, 0.001
    ratio = (offset["offset [dex]"] / offset["±"]).abs().max()
    yield "No bin is more than two standard errors", ratio, 1.7, 0.3
    size = v["stars"].groupby("bin", observed=True).size()
    yield "The bin at the tip has 126 stars", size.iloc[0], 126, 1
    yield "hold 1,477 of the 1,856 stars", size.iloc[2:].sum(), 1477, 1
    yield "an offset above 0.011 dex", 2 * offset["±"].iloc[0], 0.011, 0.0015
    yield "the first two bins differ by 0.015 ± 0.007 dex", v["difference"], 0.015, 0.001
    yield "by 0.015 ± 0.007 dex", v["difference_error"], 0.007, 0.001

    mean, spread = v["drift"]["mean [dex]"], v["drift"]["±"]
    fit, catalog = "fit - truth", "catalog - truth"
    yield "goes from -0.004 ± 0.003 dex at the tip", mean[fit].iloc[0], -0.004, 0.001
    yield "-0.004 ± 0.003", spread[fit].iloc[0], 0.003, 0.0005
    yield "to +0.016 ± 0.002 in the next bin", mean[fit].iloc[1], 0.016, 0.001
    yield "+0.016 ± 0.002", spread[fit].iloc[1], 0.002, 0.0005
    yield "0.020 ± 0.004 dex", mean[fit].iloc[1] - mean[fit].iloc[0], 0.020, 0.001
    total = (spread[fit].iloc[0] ** 2 + spread[fit].iloc[1] ** 2) ** 0.5
    yield "0.020 ± 0.004 dex, more than five", total, 0.004, 0.0005
    yield "from -0.018 ± 0.001 at the tip", mean[catalog].iloc[0], -0.018, 0.001
    yield "to +0.009 ± 0.001 at the foot", mean[catalog].iloc[3], 0.009, 0.001
    yield "it rises by 0.012 dex only", mean[catalog].iloc[1] - mean[catalog].iloc[0], 0.012, 0.001
    words = "the fit falls by 0.008 ± 0.002 dex where the catalog rises"
    yield words, mean[fit].iloc[1] - mean[fit].iloc[2], 0.008, 0.001
    total = (spread[fit].iloc[1] ** 2 + spread[fit].iloc[2] ** 2) ** 0.5
    yield words, total, 0.002, 0.0006
    yield words, mean[catalog].iloc[2] > mean[catalog].iloc[1], 1, 0

    yield "The clump holds 516 ± 37", v["excess"], 516, 3
    yield "516 ± 37 of the 1856 stars", v["excess_error"], 37, 3
    yield "of the 1856 stars", len(v["stars"]), 1856, 1
    yield "counting alone gives ± 32", v["counting"], 32, 1
    yield "The truth is 554", v["burning"].sum(), 554, 1
    yield "$\\log g$ = 2.499", v["peak"], 2.499, 0.002
    yield "2.499 ± 0.007, where the true median", v["peak_error"], 0.007, 0.001
    yield "where the true median is 2.456", v["truth"].logg[v["burning"]].median(), 2.456, 0.002

    models = v["models"]
    yield "differ by 11 K in temperature", models["between models"].teff, 11, 1
    yield "0.036 dex in [Mg/Fe]", models["between models"].mg_fe, 0.036, 0.002
    yield "3 and 6 times the formal errors", models.ratio.teff, 3, 0.3
    yield "3 and 6 times", models.ratio.mg_fe, 6, 0.6

    mean = v["pull"].mean().abs().max()
    yield "off by at most 0.1 of the error", mean, 0.07, 0.04
    std = v["pull"].std()
    yield "The scatter is 9 to 11 %", 100 * (std.drop("fe_h").min() - 1), 9, 2
    yield "9 to 11 %", 100 * (std.drop("fe_h").max() - 1), 11, 2
    yield "and 29 % for [Fe/H]", 100 * (std.fe_h - 1), 29, 2
    peaks = list(v["peaks"].values())
    yield "five times the stars do not take twice as much", peaks[1] / peaks[0], 1.4, 0.6
    yield "some 0.3 GB", peaks[1], 0.3, 0.2

    # What a star takes in seconds depends on what else the machine does: it is not claimed here

    yield "about 1.0 TB", v["sizes"]["FITS files"] / 1e3, 1.0, 0.05
    yield "where this catalog has 1.6", v["visits_here"], 1.6, 0.05
    yield "144 hours of fetching at 2 MB/s", v["download"][2], 144, 2
    yield "3 hours at 100 MB/s", v["download"][100], 3, 0.2
    yield "kept the store, about 35 GB", v["sizes"]["store"], 35, 2
