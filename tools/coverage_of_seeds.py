"""Joint coverage on simulated surveys of other seeds: data/joint_coverage_seeds.csv.

Notebook 10 shows one survey. Whether its errors can be believed elsewhere, other ones must tell,
on which nothing was tuned. Each takes some minutes and 1 GB in the data folder:

    python tools/coverage_of_seeds.py 211 212 213
"""

import os
import sys
import warnings
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("photons", "repaired", "teacher calibrated")
LEVELS = (0.5, 0.68, 0.9, 0.95)


def coverage_of(seed):
    """Shares (level, version) of the stars of one survey whose five labels lie in the regions."""
    os.environ["LAB_SEED"] = str(seed)
    from labtools import LABELS, calibration, lab_cannon, normalized_giants, open_survey
    from labtools.coverage import coverage
    from labtools.mcmc import sample_stars

    survey = open_survey("simulated")
    giants, spectra = normalized_giants(survey)
    cannon, _, validation = lab_cannon(survey)
    truth = survey.truth()
    trends, clump = calibration.calibrated_teacher(
        survey, calibration.m15_members(survey.catalog())
    )
    repaired = calibration.repaired_posteriors(survey)
    corrected = calibration.repaired_posteriors(survey, giants[LABELS] - trends.at(giants, clump))
    versions = (
        sample_stars(cannon, spectra.sel(star=validation), draws=300),
        repaired["repaired"],
        trends.add_to(corrected["repaired"], clump),
    )
    shares = [
        coverage(samples, truth, LEVELS).loc["all"].xs("share", level=1) for samples in versions
    ]
    return (
        pd.concat(shares, axis=1, keys=COLUMNS).rename_axis("level").assign(stars=len(validation))
    )


def main():
    warnings.filterwarnings("ignore", "importance resampling fails|the model extrapolates")
    target = ROOT / "data" / "joint_coverage_seeds.csv"
    for seed in sys.argv[1:]:
        table = coverage_of(int(seed)).assign(seed=int(seed)).reset_index()
        if target.exists():
            known = pd.read_csv(target)
            table = pd.concat([known[known["seed"] != int(seed)], table])
        table.round(4).to_csv(target, index=False)
        print(table.tail(len(LEVELS)).to_string(index=False), flush=True)


if __name__ == "__main__":
    main()
