"""How precise labels come out: a Cannon taught by half of a survey's giants fits the other half.

Prints, for each label, bias (median), standard deviation and robust scatter (1.4826 MAD) against
the catalog and, where the survey has one, against the truth; and how often the quoted errors of
both hold the truth.

    python packages/mock_survey/calibration/cross_validate.py
"""

import numpy as np
import pandas as pd

from labtools import LABELS, Cannon, normalized_giants, open_survey, split_by_star
from labtools.products import split_seed


def scatter(off):
    """Bias, standard deviation and robust scatter of differences (star, label)."""
    middle = off.median()
    return pd.DataFrame(
        {"bias": middle, "std": off.std(), "robust": 1.4826 * (off - middle).abs().median()}
    )


def held(off, error):
    """Share of stars whose error bar (one standard error) holds zero; 68 % if errors are Gaussian
    and as quoted."""
    return pd.Series({name: np.mean(off[name].abs() < error[f"{name}_err"]) for name in LABELS})


def main():
    """Run the script."""
    survey = open_survey()
    giants, spectra = normalized_giants(survey)
    training, validation = split_by_star(giants.index, split_seed(giants.index))
    cannon = Cannon.train(spectra.sel(star=training), giants.loc[training, LABELS])
    found, catalog = cannon.fit(spectra.sel(star=validation)), giants.loc[validation]
    columns = {"against the catalog": scatter(found[LABELS] - catalog[LABELS])}
    if hasattr(survey, "truth"):
        truth = survey.truth().loc[validation, LABELS]
        columns["against the truth"] = scatter(found[LABELS] - truth)
        columns["catalog against the truth"] = scatter(catalog[LABELS] - truth)
        shares = {"the Cannon's": held(found[LABELS] - truth, found)}
        shares["the catalog's"] = held(catalog[LABELS] - truth, catalog)
        columns["errors that hold the truth"] = pd.DataFrame(shares)
    print(f"{survey.title} {survey.version}:")
    print(f"{len(training)} stars teach, {len(validation)} are fitted")
    print(pd.concat(columns, axis=1).T.round(4).to_string())


if __name__ == "__main__":
    main()
