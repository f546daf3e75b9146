"""Trends and scatter of abundances in real giants, for `data/abundance_trends.csv`.

[X/Fe] of APOGEE DR12 (giants with 0.5 < log g < 3.5, -1 < [Fe/H] < 0.5, 3900 to 5300 K) against
[alpha/Fe], the mean of Mg and Si, [Fe/H] and log g: least squares, clipped at three sigma. The
scatter left is also given less, in quadrature, that with which The Cannon finds the same labels at
high signal-to-noise ratio (Casey et al. 2016), an upper limit to the errors of both.

    python packages/mock_survey/calibration/abundance_trends.py apogee_dr12_labels.csv
"""

import argparse

import numpy as np
import pandas as pd

CASEY = {
    "C": 0.03, "N": 0.04, "O": 0.03, "NA": 0.08, "AL": 0.06, "S": 0.05, "K": 0.07, "CA": 0.05,
    "TI": 0.07, "V": 0.16,
    "MN": 0.04, "NI": 0.03,
}  # fmt: skip


def robust(values):
    """Robust standard deviation: 1.4826 times the median absolute deviation."""
    return 1.4826 * np.median(np.abs(values - np.median(values)))


def fit(design, ratio):
    """Coefficients and residuals of a clipped least-squares fit."""
    use = np.isfinite(ratio)
    for _ in range(10):
        solution, *_ = np.linalg.lstsq(design[use], ratio[use])
        rest = ratio - design @ solution
        use = np.abs(rest) < 3 * robust(rest[use])
    return solution, rest


def main():
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels")
    stars = pd.read_csv(parser.parse_args().labels)
    stars = stars[
        stars.LOGG.between(0.5, 3.5) & stars.TEFF.between(3900, 5300) & stars.FE_H.between(-1, 0.5)
    ]
    alpha = (stars.MG_H + stars.SI_H) / 2 - stars.FE_H
    design = np.column_stack([np.ones(len(stars)), alpha - 0.1, stars.FE_H, stars.LOGG - 2.5])
    rows, rests = {}, {}
    for element, error in CASEY.items():
        solution, rests[element] = fit(design, (stars[f"{element}_H"] - stars.FE_H).to_numpy())
        scatter = robust(rests[element])
        rows[element] = [*solution, scatter, np.sqrt(max(scatter**2 - error**2, 0))]
    columns = ["origin", "alpha", "[Fe/H]", "log g", "scatter", "beyond errors"]
    print(f"{len(stars)} giants")
    print(pd.DataFrame(rows, index=columns).T.round(3).to_string())
    print(
        "rank correlation of C and N about their trends:",
        round(pd.DataFrame(rests).corr("spearman").loc["C", "N"], 2),
    )


if __name__ == "__main__":
    main()
