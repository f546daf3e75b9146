"""What the prose of 01_selection states, held against its variables."""


def claims(v):
    """Words of the prose, value, number stated, tolerance."""
    if v["survey"].name != "simulated":
        return  # the prose speaks of the simulated survey
    raw, treated, giants, passed = v["raw"], v["treated"], v["giants"], v["passed"]
    fields = raw.groupby("field").size()
    yield "return 2,364 entries", len(raw), 2364, 0
    yield "between 438 and 696 per field", fields.min(), 438, 0
    yield "between 438 and 696 per field", fields.max(), 696, 0
    snr = raw.groupby("field").snr.median()
    yield "a median SNR of about 140 in each", snr.min(), 140, 4
    yield "a median SNR of about 140 in each", snr.max(), 140, 4
    yield "mean $\\log g$ of -61", raw.logg.mean(), -61, 0.5
    yield "-9999.99 stands 44 times", v["fillers"].get(-9999.99, 0), 44, 0
    yield "-9999 stands 31 times", v["fillers"].get(-9999.0, 0), 31, 0
    yield "75 missing labels", treated.isna().sum().sum(), 75, 0
    yield "the 33 missing temperatures", treated.teff.isna().sum(), 33, 0
    yield "lower the mean by 206 K", treated.teff.mean() - raw.teff.mean(), 206, 0.5
    yield "the 15 missing gravities", treated.logg.isna().sum(), 15, 0
    yield "but for [Fe/H] (down to -0.98)", v["giants"].fe_h.min(), -0.98, 0.005
    for number, stated in enumerate((4.44, 2.09, 0.44)):
        yield "$\\log g$ is 4.44, 2.09 and 0.44", v["phases"]["log g"].iloc[number], stated, 0.005
    yield "lies at 1.66 R☉ for one solar mass", v["radius_at_cut"], 1.66, 0.005
    yield "leave 1,924 entries of 1,900 stars", len(passed), 1924, 0
    yield "leave 1,924 entries of 1,900 stars", passed.index.nunique(), 1900, 0
    yield "they are **1,900 stars**", len(giants), 1900, 0
    repeated = len(passed) - passed.index.nunique()
    yield "24 of 1,924", repeated, 24, 0
    yield "1.2 ± 0.3 %", 100 * repeated / len(passed), 1.2, 0.05
    yield "1.2 ± 0.3 %", 100 * repeated**0.5 / len(passed), 0.3, 0.05
    yield "flagged as bad (9 here)", v["star_bad"], 9, 0
    yield "does not change when a limit moves", max(map(max, v["moved"].values())), 1900, 0
    yield "does not change when a limit moves", min(map(min, v["moved"].values())), 1900, 0
    far = [number for pair in v["moved_far"].values() for number in pair]
    yield "up to 65 stars more or 10 fewer", max(far) - len(giants), 65, 0
    yield "up to 65 stars more or 10 fewer", len(giants) - min(far), 10, 0
    catalog, reason = v["catalog"], v["reason"]
    hot = catalog[reason == "Teff ≤ 5700 K"]
    yield "The 23 diamonds", len(hot), 23, 0
    yield "5,800 to 6,400 K", hot.teff.min(), 5800, 50
    yield "5,800 to 6,400 K", hot.teff.max(), 6400, 50
    yield "$\\log g$ 3.6 to 4.0", hot.logg.min(), 3.6, 0.05
    yield "$\\log g$ 3.6 to 4.0", hot.logg.max(), 4.0, 0.05
    yield "strip between 3.53 and 3.63", giants.logg.max(), 3.53, 0.006
    yield "strip between 3.53 and 3.63", catalog.logg[catalog.logg > 3.55].min(), 3.63, 0.006
    r, error = v["correlations"], v["correlation_errors"]
    yield "r = 0.922 ± 0.004", r.teff.logg, 0.922, 0.0005
    yield "r = 0.922 ± 0.004", error.teff.logg, 0.004, 0.0005
    yield "r = 0.88 ± 0.01, and both", r.mg_fe.si_fe, 0.88, 0.005
    yield "r = 0.88 ± 0.01, and both", error.mg_fe.si_fe, 0.01, 0.005
    yield "r = -0.76 ± 0.01", r.fe_h.mg_fe, -0.76, 0.005
    yield "r = -0.76 ± 0.01", error.fe_h.mg_fe, 0.01, 0.005
    yield "holds 8,575 pixels", v["spectra"].sizes["wavelength"], 8575, 0
    first = v["spectra"].flux.values[0].nonzero()[0][0]
    yield "chips by 28 pixels", v["labtools"].spectra.CHIPS[0][0] - first, 28, 0
    yield "the 307 stars", v["band"].size, 307, 0
    yield "0.066 dex", v["critical"], 0.066, 0.0001
    yield "p < 0.01", v["p_value"], 0, 0.0099
    yield "error of 0.011 dex", giants.mg_fe_err.median(), 0.011, 0.0005
