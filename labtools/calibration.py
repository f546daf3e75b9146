"""Posteriors of a whole survey, calibrated: the steps of `labtools.coverage` and `labtools.teacher`
in their order, each done once and kept."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive.bitmasks import AspcapFlag
from apogee_archive.cache import cached
from apogee_archive.survey import Survey
from labtools.cannon import Cannon
from labtools.continuum import normalize
from labtools.coverage import (
    correlated_errors,
    inflate_posterior,
    learn_scatter,
    nuisance_components,
)
from labtools.mcmc import sample_stars
from labtools.products import lab_cannon, normalized_giants
from labtools.selection import LABELS
from labtools.teacher import CLUMP as CLUMP_PHASE, TERMS, Trends, calibrate_teacher
from mock_survey.catalog import SYSTEMATICS as INJECTED
from mock_survey.causes import FLAWS, flawed_spectra
from mock_survey.survey import SimulatedSurvey

__all__ = [
    "calibrated_teacher",
    "clean_stars",
    "errors_by_cause",
    "injected_trends",
    "m15_members",
    "ngc6791_members",
    "quoted_errors",
    "repaired_posteriors",
    "score_prediction",
]

MADE = {"posteriors": 2, "teacher": 1, "causes": 1}
"""Raise one of these whenever the same survey gives other ones."""


def clean_stars(giants: pd.DataFrame) -> pd.Index:
    """The stars whose catalog labels are not flagged as bad.

    Parameters
    ----------
    giants : DataFrame
        Rows of the catalog, with `aspcapflag`.

    Returns
    -------
    Index
        Names of the stars without STAR_BAD in ASPCAPFLAG.

    Examples
    --------
    >>> giants = pd.DataFrame({"aspcapflag": [0, 1 << 23]}, index=["a", "b"])
    >>> list(clean_stars(giants))
    ['a']
    """
    bad = giants["aspcapflag"].to_numpy(np.int64) & int(AspcapFlag.STAR_BAD) != 0
    return giants.index[~bad]


def quoted_errors(giants: pd.DataFrame) -> pd.DataFrame:
    """The catalog's standard errors, with the names of the labels.

    Parameters
    ----------
    giants : DataFrame
        Rows of the catalog, with `<label>_err`.

    Returns
    -------
    DataFrame
        (star, label), in K and dex.

    Examples
    --------
    >>> table = pd.DataFrame({f"{label}_err": [0.1] for label in LABELS}, index=["a"])
    >>> quoted_errors(table).loc["a", "teff"]
    np.float64(0.1)
    """
    return giants[[f"{label}_err" for label in LABELS]].set_axis(LABELS, axis=1)


def m15_members(catalog: pd.DataFrame) -> pd.DataFrame:
    """Giants of the globular cluster M15 in a catalog: by field, velocity and [Fe/H].

    Parameters
    ----------
    catalog : DataFrame
        All entries, as from `survey.catalog()`.

    Returns
    -------
    DataFrame
        Entries with five labels, within 15 km/s of -107 km/s (Baumgardt & Hilker 2018, MNRAS
        478, 1520) and below [Fe/H] = -2.

    Examples
    --------
    >>> members = m15_members(labtools.open_survey().catalog())  # doctest: +SKIP
    """
    moves = (catalog["vhelio_avg"] + 107).abs() < 15
    return _giants_with_labels(
        catalog[moves & (catalog["field"] == "M15") & (catalog["fe_h"] < -2)]
    )


def ngc6791_members(catalog: pd.DataFrame) -> pd.DataFrame:
    """Giants of the open cluster NGC 6791 in a catalog: by place, velocity and [Fe/H].

    Parameters
    ----------
    catalog : DataFrame
        All entries, as from `survey.catalog()`.

    Returns
    -------
    DataFrame
        Entries with five labels, within 0.15 degrees of the center, 5 km/s of -47.4 km/s
        (Tofflemire et al. 2014, AJ 148, 61) and above [Fe/H] = 0.1.

    Examples
    --------
    >>> members = ngc6791_members(labtools.open_survey().catalog())  # doctest: +SKIP
    """
    # Degrees towards the east: meridians come closer at the declination of the cluster
    east = (catalog["ra"] - 290.22) * np.cos(np.radians(37.77))
    near = np.hypot(east, catalog["dec"] - 37.77) < 0.15
    moves = (catalog["vhelio_avg"] + 47.4).abs() < 5
    return _giants_with_labels(catalog[near & moves & (catalog["fe_h"] > 0.1)])


def _giants_with_labels(members):
    """Those above the main sequence (log g < 3.8) of which all five labels are known."""
    giants = members[members["logg"] < 3.8]
    return giants[np.isfinite(giants[LABELS].to_numpy(float)).all(axis=1)]


def repaired_posteriors(
    survey: Survey, labels: pd.DataFrame | None = None, draws: int = 300
) -> xr.Dataset:
    """Posteriors of the validation stars, with components and learned scatter.

    Two models are trained, one on each half of the giants. The first gives the posteriors of the
    validation stars. The second has not seen the training stars: how far they are from the
    catalog teaches the scatter. So no star is at once teacher, calibrator and test.

    Parameters
    ----------
    survey : Survey
        As from `labtools.open_survey`.
    labels : DataFrame, optional
        Labels that teach, of all giants; None means those of the catalog.
    draws : int
        How many a star.

    Returns
    -------
    Dataset
        `narrow`, draws (star, draw, label) with components only; `repaired`, with the scatter as
        well; `scatter` (label, other), in squared units of the labels, with its `nu` in `attrs`;
        `components`, how many there are.

    Examples
    --------
    >>> made = repaired_posteriors(labtools.open_survey())  # doctest: +SKIP
    """
    giants, spectra = normalized_giants(survey)
    _, training, validation = lab_cannon(survey)
    training, validation = pd.Index(training), pd.Index(validation)
    labels = giants[LABELS] if labels is None else labels[LABELS].loc[giants.index]
    clean = clean_stars(giants)

    def build():
        # Each half teaches once and is measured once, by the model that has not seen it
        learners, samples, covariances = [training, validation], [], []
        for learner, measured in zip(learners, learners[::-1], strict=True):
            taught = learner.intersection(clean, sort=False)
            teach = spectra.sel(star=taught)
            model = Cannon.train(teach, labels.loc[taught])
            components = nuisance_components(model, teach, labels.loc[taught])
            seen = spectra.sel(star=measured)
            fits, covariance = model.fit(seen, modes=components, covariance=True)
            samples.append(sample_stars(model, seen, modes=components, draws=draws, fits=fits))
            covariances.append(covariance)
        # samples[1] and covariances[1] are those of the training stars, fitted by the second model
        calibrators = training.intersection(clean, sort=False)
        errors = correlated_errors(
            quoted_errors(giants).loc[calibrators], covariances[1].sel(star=calibrators)
        )
        scatter = learn_scatter(samples[1].sel(star=calibrators), labels.loc[calibrators], errors)
        repaired = inflate_posterior(samples[0], scatter)
        table = xr.DataArray(
            scatter.to_numpy(), {"label": LABELS, "other": LABELS}, ("label", "other")
        )
        narrow = samples[0].drop_vars("efficiency")
        return xr.Dataset(
            {
                "narrow": narrow.astype("f4"),
                "repaired": repaired.drop_vars("efficiency").astype("f4"),
                "scatter": table,
                "components": components.sizes["mode"],
            },
            attrs={"nu": scatter.attrs["nu"]},
        )

    key = _key(survey, labels)
    return cached(
        _folders(survey), f"repaired-{survey.name}", build, MADE["posteriors"], *key, draws
    )


def calibrated_teacher(
    survey: Survey, cluster: pd.DataFrame | None = None
) -> tuple[Trends, pd.Series]:
    """The systematic errors of a survey's catalog, by `labtools.teacher.calibrate_teacher`.

    Parameters
    ----------
    survey : Survey
        As from `labtools.open_survey`.
    cluster : DataFrame, optional
        Members of a cluster: columns teff, fe_h.

    Returns
    -------
    trends : Trends
    clump : Series
        Probability of the clump, of all giants; 0 where labels are flagged as bad.

    Examples
    --------
    >>> trends, clump = calibrated_teacher(labtools.open_survey())  # doctest: +SKIP
    """
    giants, spectra = normalized_giants(survey)
    cannon, _, _ = lab_cannon(survey)
    clean = clean_stars(giants)
    members = np.zeros((0, 2)) if cluster is None else cluster[["teff", "fe_h"]].to_numpy(float)

    def build():
        _, covariance = cannon.fit(spectra.sel(star=clean), covariance=True)
        errors = correlated_errors(quoted_errors(giants).loc[clean], covariance)
        trends, clump = calibrate_teacher(giants.loc[clean], errors, cluster)
        return xr.Dataset(
            {
                "values": (("label", "term"), trends.values.to_numpy()),
                "covariance": (("row", "column"), trends.covariance.to_numpy()),
                "clump": ("star", clump.to_numpy()),
            },
            {"label": LABELS, "term": TERMS, "star": clean.to_numpy(str)},
        )

    key = _key(survey, giants[LABELS])
    made = cached(_folders(survey), f"teacher-{survey.name}", build, MADE["teacher"], *key, members)
    pairs = pd.MultiIndex.from_product([LABELS, TERMS])
    values = pd.DataFrame(made["values"].values, LABELS, TERMS)
    covariance = pd.DataFrame(made["covariance"].values, pairs, pairs)
    clump = made["clump"].to_pandas().reindex(giants.index).fillna(0.0)
    return Trends(values, covariance), clump


def score_prediction(
    prediction: pd.DataFrame, catalog: pd.DataFrame, trends: Trends, seed: int = 128
) -> pd.DataFrame:
    """A registered prediction against what a survey shows.

    Parameters
    ----------
    prediction : DataFrame
        Indexed by quantity, with columns `predicted` and `error`, as in
        data/registered_prediction.csv.
    catalog : DataFrame
        All entries of a survey.
    trends : Trends
        What `calibrated_teacher` found in it.
    seed : int
        Of the bootstrap over members.

    Returns
    -------
    DataFrame
        The prediction with columns `measured`, `its error` and `pull`; NaN where a cluster has
        fewer than 8 members.

    Examples
    --------
    >>> score_prediction(prediction, survey.catalog(), trends)  # doctest: +SKIP
    """
    rng = np.random.default_rng(seed)
    members = {"M15": m15_members(catalog), "NGC 6791": ngc6791_members(catalog)}
    found = {}
    for cluster, table in members.items():
        for label in ("fe_h", "mg_fe"):
            # A median of fewer than 8 deviations says little of their scatter: NaN
            values, pair = table[label].to_numpy(float), (np.nan, np.nan)
            if len(values) >= 8:
                drawn = values[rng.integers(0, len(values), (300, len(values)))]
                pair = _spread(values), _spread(drawn).std()
            found[f"scatter of {label} in {cluster}"] = pair
    clump = trends.values.loc["logg", "clump"], trends.errors.loc["logg", "clump"]
    found["offset of logg of the clump"] = clump
    table = pd.DataFrame(found, index=["measured", "its error"]).T
    scored = prediction.join(table)
    size = np.hypot(scored["error"], scored["its error"])
    return scored.assign(pull=(scored["measured"] - scored["predicted"]) / size)


def _spread(values):
    """1.4826 median absolute deviations along the last axis."""
    middle = np.median(values, axis=-1, keepdims=True)
    return 1.4826 * np.median(np.abs(values - middle), axis=-1)


def _folders(survey):
    return [folder / "cache" for folder in survey.folders]


def _key(survey, labels):
    """What posteriors of a survey depend on, for `cached`."""
    return survey.version, tuple(labels.index), labels.to_numpy(float)


def errors_by_cause(survey: SimulatedSurvey, taught: int = 300, tested: int = 250) -> xr.DataArray:
    """How wrong labels are when spectra and teachers have only some of their flaws.

    For each set of flaws a Cannon is trained on spectra with them, with the weights of the lab's
    model, and measures other stars with the same flaws. Only a simulated survey can do this.

    Parameters
    ----------
    survey : Survey
        A simulated one: it needs `truth()`.
    taught, tested : int
        How many stars of the training and of the validation set take part.

    Returns
    -------
    DataArray
        Fitted minus true labels (cause, star, label), in K and dex. The causes that begin with
        "+" have all those before them too. The last ones are the observed spectra.

    Examples
    --------
    >>> errors = errors_by_cause(labtools.open_survey())  # doctest: +SKIP
    """
    giants, spectra = normalized_giants(survey)
    cannon, training, validation = lab_cannon(survey)
    training, validation = pd.Index(training), pd.Index(validation)
    truth = survey.truth()
    good = truth.index[truth["anomaly"] == ""].intersection(clean_stars(giants))
    teach = training.intersection(good, sort=False)[:taught]
    test = validation.intersection(good, sort=False)[:tested]

    def build():
        made, models = {}, {}

        def normalized(flaws):
            """Spectra with these flaws, with the errors and masks of the observed ones."""
            if flaws not in made:
                raw = flawed_spectra(truth.loc[teach.append(test)], flaws, models=models)
                flat = normalize(raw, survey.continuum_pixels())
                seen = spectra["error"].sel(star=flat["star"])
                if "noise" not in flaws:
                    flat = flat.assign(error=seen.where(np.isfinite(flat["error"]), np.inf))
                made[flaws] = flat[["flux", "error"]]
            return made[flaws]

        exact = truth[LABELS].astype(float)
        clump = (truth["phase"] == CLUMP_PHASE).astype(float)
        wrong = injected_trends().at(exact.loc[teach], clump)
        catalog = giants.loc[teach, LABELS]
        teachers = {
            "exact": exact.loc[teach],
            "random": catalog - wrong,
            "trends": exact.loc[teach] + wrong,
            "catalog": catalog,
        }
        found = {}

        def measure(name, data, teacher, bare=False, components=False):
            model = Cannon.train(data.sel(star=teach), teachers[teacher])
            model = dataclasses.replace(model, s2=cannon.s2 * (0 if bare else 1))
            modes = None
            if components:
                modes = nuisance_components(model, data.sel(star=teach), teachers[teacher])
            fit = model.fit(data.sel(star=test), modes=modes)
            found[name] = fit[LABELS] - exact.loc[test]

        measure("polynomial", normalized(()), "exact")
        for flaw in FLAWS:
            measure(flaw, normalized((flaw,)), "exact")
        measure("random errors of teachers", normalized(()), "random")
        measure("trends of teachers", normalized(()), "trends")
        together = ()
        for flaw in FLAWS:
            together += (flaw,)
            measure(f"+ {flaw}", normalized(together), "exact")
        measure("+ random errors of teachers", normalized(together), "random")
        measure("+ trends of teachers", normalized(together), "catalog")
        measure("observed spectra", spectra, "catalog")
        measure("observed, without s²", spectra, "catalog", bare=True)
        measure("observed, with components", spectra, "catalog", components=True)
        return xr.Dataset(
            {"error": (("cause", "star", "label"), np.stack(list(found.values())))},
            {"cause": list(found), "star": test.to_numpy(str), "label": LABELS},
        )

    key = _key(survey, giants.loc[teach.append(test), LABELS])
    return cached(_folders(survey), f"causes-{survey.name}", build, MADE["causes"], *key)["error"]


def injected_trends() -> Trends:
    """The systematic errors that the simulator gave the catalog: the answer to the riddle.

    Examples
    --------
    >>> injected_trends().values.loc["logg", "clump"]
    np.float64(0.04)
    """
    trends = Trends.none()
    for term in ("teff", "fe_h", "clump"):
        trends.values.loc[LABELS, term] = INJECTED.loc[term, LABELS]
    return trends
