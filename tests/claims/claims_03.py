"""What notebook 03 states in prose, against its variables."""

import numpy as np


def claims(v):
    yield "950 stars train and 950 validate", len(v["training"]), 950, 0
    yield "950 stars train and 950 validate", len(v["validation"]), 950, 0
    yield "differ by at most\n0.9 standard errors", v["imbalance"].abs().max(), 0.9, 0.05
    yield "**21 coefficients**", v["X"].shape[1], 21, 0
    yield "$s$ = 0.0105, in steps of 8 %", np.sqrt(v["best"]), 0.0105, 0.0005
    yield "in steps of 8 %", 100 * (v["s2_grid"][-1] / v["s2_grid"][-2] - 1), 8, 0.5
    yield "All 100 random pixels have exactly one maximum", v["maxima"].count(1), 100, 0
    yield "between its points 83 and 126", min(v["highest"]), 83, 1
    yield "between its points 83 and 126", max(v["highest"]), 126, 1
    yield "**158,708 free parameters**", v["parameters"], 158708, 0
    yield "22 parameters for each of 7214 pixels", v["cannon"].s2.size, 7214, 0
    yield "$s^2$ within half a step of the grid", v["steps_apart"].max(), 0.5, 0.04
    yield "coefficients within 0.0002", v["apart"].max(), 0.0002, 0.0001
    pulls = v["pulls"].loc["training residuals"]
    yield "a robust σ of\n0.95", pulls["robust σ"], 0.95, 0.005
    yield "0.15 % lie beyond 4σ", pulls["beyond 4σ [%]"], 0.15, 0.005
    stars = np.nonzero(np.isfinite(v["error"]))[0]  # the star of each pull
    wild = np.bincount(stars[np.abs(v["pull"]) > 4])
    yield "ten of 950 hold 79 %", 100 * np.sort(wild)[-10:].sum() / wild.sum(), 79, 0.6
    core = v["taught"].flux.sel(wavelength=15753.2, method="nearest")
    depth = 1 - float(core.median())
    yield "two thirds of the depth", np.sqrt(v["s2_grid"][-1]) / depth, 0.67, 0.04
    quality = v["fit_quality"]
    stretch = "16052-16075 Å: "
    yield "the rms difference is 1.0 %", quality["rms difference [%]"], 1.0, 0.05
    yield "1.1 times the\nexpected noise", quality["rms in units of the noise"], 1.1, 0.05
    yield (
        "0.9 times in lines deeper than 10 %",
        quality["the same in lines deeper than 10 %"],
        0.9,
        0.05,
    )
    yield "(correlation 0.6, where", quality["correlation of neighbors"], 0.6, 0.05
    yield "in 96 % of the pixels", quality[stretch + "share above the model [%]"], 96, 0.6
    yield "by 1.2 % in the mean", quality[stretch + "mean difference [%]"], 1.2, 0.05
    lines, continuum = v["repeat"].iloc[0], v["repeat"].iloc[1]
    words = "correlations of 0.97, 0.93 and 0.98 in lines"
    yield from (
        (words, lines[name], value, 0.006)
        for name, value in (("teff", 0.97), ("logg", 0.93), ("fe_h", 0.98))
    )
    words = "(correlations of 0.77 and 0.88 in the continuum)"
    yield words, continuum["teff"], 0.77, 0.006
    yield words, continuum["fe_h"], 0.88, 0.006
    yield "$\\log g$ (0.60)", continuum["logg"], 0.60, 0.006
    yield "noise there (0.05 and 0.17)", continuum["mg_fe"], 0.05, 0.006
    yield "noise there (0.05 and 0.17)", continuum["si_fe"], 0.17, 0.006
    dips = v["hot_dips"]["dip [Å]"]
    for words, at in (
        ("Br 11 at 16811 Å", 16811),
        ("sulfur (15426, 15474, 15483 Å)", 15426.5),
        ("sulfur (15426, 15474, 15483 Å)", 15474),
        ("sulfur (15426, 15474, 15483 Å)", 15483),
        ("carbon (16009, 16026, 16895 Å)", 16009),
        ("carbon (16009, 16026, 16895 Å)", 16026),
        ("carbon (16009, 16026, 16895 Å)", 16895),
    ):
        yield words, dips.iloc[(dips - at).abs().argmin()], at, 0.6
    table = v["at_lines"]
    words = "all 7 magnesium and all 9 silicon lines"
    yield words, table["deeper than 5σ"]["Mg I"], 7, 0
    yield words, table["deeper than 5σ"]["Si I"], 9, 0
    yield words, table["lines on the grid"]["Si I"], 9, 0
    yield "12σ in the median", table["median [σ]"].min(), 12, 0.5
    yield "6 and 12 % are", table["by chance [%]"]["Mg I"], 6, 0.6
    yield "6 and 12 % are", table["by chance [%]"]["Si I"], 12, 0.6
    seven = v["own_dips"]["Mg I"]["known line"].notna()
    yield "its 7 lines are the 7 deepest dips", seven.head(7).sum(), 7, 0
    known = v["own_dips"]["Si I"]["known line"].notna().sum()
    yield "Of the 12 deepest dips of silicon four are well-known lines", known, 4, 0
    after = v["own_dips"]["Mg I"]["lines in the full list"].iloc[7:10]
    yield "the next three, weaker, lie at aluminum", after.str.contains("Al I").sum(), 3, 0
    silicon = v["own_dips"]["Si I"]
    others = silicon["lines in the full list"][silicon["known line"].isna()]
    unidentified = others.str.contains("?Si", regex=False)
    yield "five are at unidentified lines", unidentified.sum(), 5, 0
    further = others[~unidentified].str.contains("Si I", regex=False)
    yield "the other three at further lines of Si I", further.sum(), 3, 0
    above = v["by_depth"]["above"]
    yield "from 32 % in the continuum to 97 %", above.iloc[0], 32, 0.6
    yield "from 32 % in the continuum to 97 %", above.iloc[-1], 97, 0.6
    shares = v["scatter_at_lines"]
    smith = shares.iloc[0]
    yield "it is 93 %, against 50 ± 7 %", smith.iloc[0], 93, 0.6
    yield "it is 93 %, against 50 ± 7 %", smith.iloc[1], 50, 0.6
    yield "it is 93 %, against 50 ± 7 %", smith.iloc[2], 7, 0.6
    for words, name, value in (
        ("OH (94 %)", "OH", 94),
        ("CO (81 %)", "CO", 81),
        ("CN\n(73 %)", "CN", 73),
        ("Ni I (86 %, but chance has 41 ± 16 %)", "Ni I", 86),
        ("Fe I (54 %, chance is 49 ± 2 %)", "Fe I", 54),
    ):
        yield words, shares.iloc[:, 0][name], value, 0.6
    yield "chance has 41 ± 16 %", shares.iloc[:, 1]["Ni I"], 41, 0.6
    yield "chance has 41 ± 16 %", shares.iloc[:, 2]["Ni I"], 16, 0.6
    yield "chance is 49 ± 2 %", shares.iloc[:, 1]["Fe I"], 49, 0.6
    yield "All of the 20 largest values lie at CO", v["near_co"][v["largest"]].sum(), 20, 0
    yield "as do 33 % of all pixels", 100 * v["near_co"].mean(), 33, 0.6
    yield "A floor of $s$ = 0.45 %", v["floor"], 0.45, 0.006
