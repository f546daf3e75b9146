"""What the prose of 05_kiel_isochrones states, held against its variables."""

import numpy as np


def claims(v):
    """Words of the prose, value, number stated, tolerance."""
    if v["survey"].name != "simulated":
        return  # the prose speaks of the simulated survey
    words = "its 287 stars have a median fitted log g of 2.499 ± 0.009, against 2.43"
    yield words, (v["phase"] == 3).sum(), 287, 0
    yield words, v["peak"], 2.499, 0.001
    yield words, v["peak_error"], 0.009, 0.001
    yield words, v["clump"].log_g, 2.43, 0.005
    yield "that difference of 0.07", v["peak"] - v["clump"].log_g, 0.07, 0.005
    yield "Their true median is 2.455", v["truth"].logg[v["phase"] == 3].median(), 2.455, 0.001
    excess = v["peak"] - v["truth"].logg[v["phase"] == 3].median()
    yield "the fit is too high by 0.04", excess, 0.04, 0.006
    yield "Of the 192 stars above the clump 41", v["n_upper"], 192, 0
    yield "Of the 192 stars above the clump 41", v["n_agb"], 41, 0
    yield "in the *tip* at log g = 0.24", v["tip"].log_g, 0.24, 0.005
    yield "which our stars do not reach", v["fitted"].logg.min() > 0.4, 1, 0

    fit, true = v["offsets"]["fitted"], v["offsets"]["truth"]
    for words, table, row, median, error in (
        ("+12 ± 3 K with fitted labels", fit, -3, 12, 3),
        ("0 ± 2 K with the true ones", true, -3, 0, 2),
        ("-118 ± 9 K in the poorest bin", fit, 0, -118, 9),
        ("+41 ± 8 K in the richest", fit, 4, 41, 8),
        ("-106 ± 6 and +22 ± 7 K", true, 0, -106, 6),
        ("-106 ± 6 and +22 ± 7 K", true, 4, 22, 7),
        ("150 ± 3 K hotter", fit, -2, 150, 3),
        ("81 ± 13 K", fit, -1, 81, 13),
    ):
        yield words, table["median"].iloc[row], median, 0.6
        yield words, table["error"].iloc[row], error, 0.6
    words = "The fit adds 14 ± 3 K near solar metallicity"
    yield words, np.mean((fit["median"] - true["median"]).iloc[2:4]), 14, 1
    yield words, v["added"][0], 14, 1
    yield words, v["added"][1], 3, 0.5
    age = v["truth"].age[v["phase"] == 3]
    yield "most clump stars are younger than 6 Gyr", (age < 6).mean(), 0.75, 0.25
    diamonds = [v["clump_of"](one).log_g for one in v["isochrones"].values()]
    yield "(diamonds) stand no higher in log g", max(diamonds) - v["clump"].log_g, 0, 0.005

    trends, words = v["trends"], "-271 ± 28, -257 ± 21, -221 ± 14 and -220 ± 18 K per dex"
    stated = {1.5: (-271, 28), 2.0: (-257, 21), 2.5: (-221, 14), 3.0: (-220, 18)}
    for g0, (slope, error) in stated.items():
        yield words, trends.loc[g0, "fitted"], slope, 0.6
        yield words, trends.loc[g0, "± (fitted)"], error, 0.6
    yield "isochrones have about -400 to -370", trends["isochrones"].min(), -404, 1
    yield "isochrones have about -400 to -370", trends["isochrones"].max(), -369, 1
    change = (trends["from -1 to 0"] / trends["isochrones"] - 1).abs().max()
    yield "(from -1 to 0 the same)", change, 0, 0.03
    yield "-248 ± 11 at 2.5 too", trends.loc[2.5, "truth"], -248, 0.6
    yield "-248 ± 11 at 2.5 too", trends.loc[2.5, "± (truth)"], 11, 0.6
    yield "-342 to -297 K per dex", min(v["with_alpha"].values()), -342, 0.6
    yield "-342 to -297 K per dex", max(v["with_alpha"].values()), -297, 0.6
    difference = trends["fitted"] - trends["truth"]
    yield "by 45 ± 14 K per dex at 2.0", difference[2.0], 45, 0.6
    yield "by 45 ± 14 K per dex at 2.0", trends.loc[2.0, "± (difference)"], 14, 0.6
    yield "by 27 ± 9 at 2.5", difference[2.5], 27, 0.6
    yield "by 27 ± 9 at 2.5", trends.loc[2.5, "± (difference)"], 9, 0.6
    yield "by 23 ± 7 at 3.0", difference[3.0], 23, 1
    yield "by 23 ± 7 at 3.0", trends.loc[3.0, "± (difference)"], 7, 0.6
    gap = trends["fitted"] - trends["isochrones"]
    closed = [(trends["fitted"][g0] - value) / gap[g0] for g0, value in v["with_alpha"].items()]
    yield "closes about half of the gap", np.mean(closed), 0.5, 0.08
    age, fe_h = v["truth"].age, v["truth"].fe_h
    yield "10 Gyr in the median below -0.6, 4 above 0", age[fe_h < -0.6].median(), 10, 0.5
    yield "10 Gyr in the median below -0.6, 4 above 0", age[fe_h > 0].median(), 4, 0.5
    pull = difference[1.5] / trends.loc[1.5, "± (difference)"]
    yield "at 1.5 the difference is within its error", pull, 0, 1
    yield "3 and 12 Gyr differ by 65 K", v["age_effect"], 65, 0.6

    growth = v["growth"]
    fixed, follows = growth["EW, α fixed [Å]"], growth["EW, α follows [Å]"]
    yield "the metals increase by a factor of 5.6", 10**0.75, 5.6, 0.05
    yield "from 5.7 to 11.0 Å", fixed[2], 5.7, 0.06
    yield "from 5.7 to 11.0 Å", fixed[5], 11.0, 0.06
    yield "The three dashed curves", v["outside"].sum(), 3, 0
    yield "from -0.75 to -1 (5.0 Å in both)", fixed[0], 5.0, 0.06
    yield "from -0.75 to -1 (5.0 Å in both)", fixed[1], 5.0, 0.06
    yield "from 5.5 Å at -0.50 to 4.3 Å at -0.75", follows[2], 5.5, 0.06
    yield "from 5.5 Å at -0.50 to 4.3 Å at -0.75", follows[1], 4.3, 0.06
    yield "only the two ends stay extrapolated", growth["outside "].sum(), 2, 0

    widths = v["climb_widths"]
    yield "from 6.2 Å at log g = 3.5 to 19.2 Å at 1.0", widths[0], 6.2, 0.06
    yield "from 6.2 Å at log g = 3.5 to 19.2 Å at 1.0", widths[5], 19.2, 0.06
    yield "from 4990 to 3830 K", v["climb"].teff[0], 4990, 6
    yield "from 4990 to 3830 K", v["climb"].teff[5], 3830, 6

    depths = v["climb_depths"]
    yield "deepens from 0.05 to 0.45", depths[0, 0], 0.05, 0.006
    yield "deepens from 0.05 to 0.45", depths[5, 0], 0.45, 0.006
    yield "stays between 0.32 and 0.36", depths[:6, 1].min(), 0.32, 0.006
    yield "stays between 0.32 and 0.36", depths[:6, 1].max(), 0.36, 0.006

    yield "4108 K against 4438 K", v["cool"].teff[0], 4108, 1
    yield "4108 K against 4438 K", v["rich"].teff[0], 4438, 1
    yield "[Fe/H] = +0.51", v["match"], 0.51, 0.005
    lines = v["by_line"]
    in_noise = {name: group["in noise"] for name, group in lines.groupby("species")}
    yield "Ca I by 3.9 to 6.0", in_noise["Ca I"].min(), 3.9, 0.06
    yield "Ca I by 3.9 to 6.0", in_noise["Ca I"].max(), 6.0, 0.06
    yield "Fe I by 3.0 to 4.2", in_noise["Fe I"].min(), 3.0, 0.06
    yield "Fe I by 3.0 to 4.2", in_noise["Fe I"].max(), 4.2, 0.06
    yield "band head is weaker by 4.4", -in_noise["CO band head"].iloc[0], 4.4, 0.06
    words = "by 10.9 and 11.5, twice as much as their cores (5.0 and 4.6)"
    yield words, in_noise["Mg I, wing"].iloc[0], 10.9, 0.06
    yield words, in_noise["Mg I, wing "].iloc[0], 11.5, 0.06
    yield words, in_noise["Mg I"].iloc[1], 5.0, 0.06
    yield words, in_noise["Mg I"].iloc[2], 4.6, 0.06
    yield "nominally 233σ", v["apart"], 233, 1
    yield "double has 4160 K and [Fe/H] = +0.19", v["double"].teff[0], 4160, 1
    yield "double has 4160 K and [Fe/H] = +0.19", v["double"].fe_h[0], 0.19, 0.005
    yield "more than 6.8σ", np.abs(v["found"].fun).max(), 6.8, 0.06
    yield "pixels hold only a third of its square", v["share"], 1 / 3, 0.03
    yield "told apart at 75σ", np.sqrt(2 * v["found"].cost), 75, 0.6
    yield "log g scatters by 0.10 dex", v["scatter_logg"], 0.10, 0.005
