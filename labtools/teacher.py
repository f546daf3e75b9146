"""What is wrong with the labels that a model learns from, found without knowing the truth.

A model that learns from a catalog inherits its systematic errors: no spectrum can tell. But a
survey holds stars of which something else is known. Giants lie on isochrones, which fixes how
temperature and gravity may run along the branch and where helium-burning stars stand beside it;
and along the branch of one population, or of a cluster, abundances do not change.

The catalog's error of each label is modeled as

    error = zero + slope_teff (Teff - 4600 K) / 500 K + slope_fe_h [Fe/H] + offset of the clump

and its coefficients are found with their covariance (`calibrate_teacher`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy.optimize import minimize

from labtools.isochrones import shipped_isochrones
from labtools.selection import LABELS

__all__ = ["TERMS", "Trends", "calibrate_teacher", "trend_terms"]

TERMS = ["zero", "teff", "fe_h", "clump"]
"""Coefficients of a label's error: at 4600 K and [Fe/H] = 0, per 500 K, per dex, of the clump."""

PRIOR = pd.DataFrame(
    [
        [60.0, 60.0, 60.0, 40.0],
        [0.1, 0.1, 0.1, 0.1],
        [0.0, 0.02, 0.02, 0.02],
        [0.0, 0.03, 0.02, 0.02],
        [0.0, 0.03, 0.02, 0.02],
    ],
    LABELS,
    TERMS,
)
"""Standard deviations of normal priors about 0. No star of a survey tells the zero points of
abundances: that scale is taken to be right at 4600 K and [Fe/H] = 0."""

AGES = np.geomspace(2, 12, 10)  # Gyr; how many stars have which is learned
GRAVITIES = (0.3, 3.6)  # log g of the part of the isochrones that giants may be on
BIN = 0.07  # dex of log g in which the selection of a survey is learned
PARTS = 2  # points into which each step of an isochrone is divided
ISOCHRONE_ERROR = (3.0, 0.01)  # K and dex by which isochrones are blurred, as their steps are
WIDER = 2.0  # by which errors of trends are widened: rms of pulls in simulated populations
OUTLIER = -25.0  # log-density of a star that is on no isochrone
CLUMP = 3  # the phase of MIST in which helium burns in the core


@dataclass(frozen=True)
class Trends:
    """Systematic errors of a catalog, and how well they are known.

    Attributes
    ----------
    values : DataFrame
        Coefficients (label, term), in K or dex (`TERMS`).
    covariance : DataFrame
        Covariance of all coefficients; rows and columns are pairs (label, term).

    Examples
    --------
    >>> trends = Trends.none()
    >>> stars = pd.DataFrame({"teff": [4600.0], "fe_h": [0.0]}, index=["a"])
    >>> trends.at(stars).loc["a", "teff"]
    np.float64(0.0)
    """

    values: pd.DataFrame
    covariance: pd.DataFrame

    @classmethod
    def none(cls) -> Trends:
        """No systematic errors, known exactly."""
        pairs = pd.MultiIndex.from_product([LABELS, TERMS])
        size = len(pairs)
        zero = pd.DataFrame(np.zeros((len(LABELS), len(TERMS))), LABELS, TERMS)
        return cls(zero, pd.DataFrame(np.zeros((size, size)), pairs, pairs))

    @property
    def errors(self) -> pd.DataFrame:
        """Standard errors of the coefficients: DataFrame (label, term)."""
        return (
            pd.Series(np.sqrt(np.diag(self.covariance)), self.covariance.index)
            .unstack()[TERMS]
            .loc[list(self.values.index)]
        )

    def at(self, stars: pd.DataFrame, clump: pd.Series | float = 0.0) -> pd.DataFrame:
        """The error of each label for stars with these labels.

        Parameters
        ----------
        stars : DataFrame
            With columns teff (K) and fe_h (dex), indexed by star.
        clump : Series or float
            Probability of burning helium in the core.

        Returns
        -------
        DataFrame
            (star, label): what to subtract from the catalog's labels.
        """
        return trend_terms(stars, clump) @ self.values.T

    def add_to(
        self, samples: xr.DataArray, clump: pd.Series | float = 0.0, seed: int = 128
    ) -> xr.DataArray:
        """Draws with the uncertainty of the trends added: one possible teacher for each draw.

        Parameters
        ----------
        samples : DataArray
            Draws (star, draw, label) of labels from which the trends are already taken.
        clump : Series or float
            Probability of burning helium in the core.
        seed : int
            Of the random numbers.

        Returns
        -------
        DataArray
            Draws in the same order of dimensions. Draw number i has the same trends for all
            stars, so that stars err together, as they do.
        """
        names = list(samples["label"].values)
        rng = np.random.default_rng(seed)
        size = samples.sizes["draw"], len(self.covariance)
        root = _root(self.covariance.to_numpy())
        errors = (rng.standard_normal(size) @ root.T).reshape(-1, len(self.values), len(TERMS))
        mean = samples.mean("draw").transpose("star", "label").to_pandas()
        terms = trend_terms(mean, clump).to_numpy()  # (star, term)
        rows = [self.values.index.get_loc(name) for name in names]
        added = np.einsum("nt,dlt->ndl", terms, errors[:, rows])
        ordered = samples.transpose("star", "draw", "label")
        return (ordered + added).transpose(*samples.dims)


def _root(covariance):
    """The symmetric square root of a covariance that may be singular.

    It is unique, while the signs of eigenvectors, and so the draws made with them, differ from one
    processor to the next.
    """
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


def trend_terms(stars: pd.DataFrame, clump: pd.Series | float = 0.0) -> pd.DataFrame:
    """What each coefficient of a trend is multiplied with: DataFrame (star, term).

    Parameters
    ----------
    stars : DataFrame
        With columns teff (K) and fe_h (dex), indexed by star.
    clump : Series or float
        Probability of burning helium in the core.

    Examples
    --------
    >>> trend_terms(pd.DataFrame({"teff": [4100.0], "fe_h": [0.2]})).loc[0].tolist()
    [1.0, -1.0, 0.2, 0.0]
    """
    table = pd.DataFrame({"zero": 1.0, "teff": (stars["teff"] - 4600) / 500}, index=stars.index)
    clump = clump.loc[stars.index] if isinstance(clump, pd.Series) else clump
    return table.assign(fe_h=stars["fe_h"], clump=clump)


def calibrate_teacher(
    giants: pd.DataFrame,
    errors: xr.DataArray,
    cluster: pd.DataFrame | None = None,
    isochrones: pd.DataFrame | None = None,
) -> tuple[Trends, pd.Series]:
    """The systematic errors of a catalog of giants, from isochrones and from populations.

    Nothing is used that a real survey has not: the catalog's own labels, isochrones, and the
    members of a cluster. What is learned along with the trends: the ages of the two sequences of
    stars in [Mg/Fe], and how the survey selects in log g.

    Parameters
    ----------
    giants : DataFrame
        Labels of the catalog, one row a star.
    errors : DataArray
        Covariances (star, label, other) of their random errors, as from
        `labtools.coverage.correlated_errors`.
    cluster : DataFrame, optional
        Members of a cluster, which have one [Fe/H]: columns teff, fe_h.
    isochrones : DataFrame, optional
        As `labtools.isochrones.shipped_isochrones`, which is what None means.

    Returns
    -------
    trends : Trends
        Coefficients and their covariance.
    clump : Series
        Probability that a star burns helium in its core.

    Raises
    ------
    ValueError
        For fewer than 200 stars, or labels that are not finite.

    Notes
    -----
    A star's error is found to the degree that the isochrones are right. In the simulated survey
    they are: its stars were put on them. On the sky they are not (by 50 K, say).

    Examples
    --------
    >>> trends, clump = calibrate_teacher(giants, errors)  # doctest: +SKIP
    >>> better = giants[LABELS] - trends.at(giants, clump)  # doctest: +SKIP
    """
    if len(giants) < 200:
        raise ValueError(f"{len(giants)} giants are too few to find systematic errors")
    if not np.isfinite(giants[LABELS].to_numpy(float)).all():
        raise ValueError("labels must be finite: leave out stars that lack one")
    sequence = _sequences(giants)
    covariance = errors.sel(star=giants.index.values)
    branches = _Branches(giants, covariance, sequence, isochrones)
    parameters = branches.fit()
    trends = Trends.none()
    found, square = branches.trends(parameters)
    _enter(trends, LABELS[:2], found, WIDER**2 * square)
    position, expected, clump = branches.positions(parameters)
    found, square = _abundance_trends(giants, sequence, position - expected, cluster)
    _enter(trends, LABELS[2:], found, square)
    return trends, pd.Series(clump, giants.index, name="clump")


def _enter(trends, labels, values, covariance):
    """Write coefficients (label, term) and their covariance into `trends`."""
    pairs = pd.MultiIndex.from_product([labels, TERMS])
    trends.values.loc[labels] = values
    trends.covariance.loc[pairs, pairs] = covariance


# --- The two sequences of stars in [Mg/Fe] ---------------------------------------------------


def _sequences(giants, rounds=200):
    """Probability (star,) of belonging to the upper of two sequences of [Mg/Fe] against [Fe/H].

    A mixture of two parabolas with normal scatter, found by expectation maximization. How common
    each sequence is may change with [Fe/H], as an average over neighbors within 0.15 dex.
    """
    x, y = giants["fe_h"].to_numpy(), giants["mg_fe"].to_numpy()
    powers = np.vander(x, 3)
    kernel = np.exp(-0.5 * ((x[:, None] - x) / 0.15) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    upper = (y > powers @ np.polyfit(x, y, 2)).astype(float)
    for _ in range(rounds):
        density = []
        for share in (1 - upper, upper):
            weight = powers * share[:, None]
            line = np.linalg.solve(weight.T @ powers + 1e-6 * np.eye(3), weight.T @ y)
            off = y - powers @ line
            scatter = max(np.sqrt(share @ off**2 / share.sum()), 0.01)
            density.append(kernel @ share * np.exp(-0.5 * (off / scatter) ** 2) / scatter)
        old, upper = upper, density[1] / np.maximum(density[0] + density[1], 1e-300)
        if np.abs(upper - old).max() < 1e-3:
            break
    return upper


# --- Temperature and gravity: stars on isochrones --------------------------------------------


def _metallicity(giants):
    """[M/H] (star,) that counts alpha elements as metals (Salaris, Chieffi & Straniero 1993)."""
    alpha = (giants["mg_fe"] + giants["si_fe"]) / 2
    return (giants["fe_h"] + np.log10(0.638 * 10**alpha + 0.362)).to_numpy()


def _isochrone_points(metallicity, isochrones):
    """Where stars of these metallicities may stand on the isochrones of `AGES`.

    Returns teff (K), log g, whether helium burns in the core, and the share of the stars of this
    age that are there, by Salpeter's mass function: each (star, age, point).
    """
    table = shipped_isochrones() if isochrones is None else isochrones
    table = table[table["phase"] >= 2].sort_values(["feh_init", "age", "eep"], kind="stable")
    fehs, ages = table["feh_init"].unique(), table["age"].unique()
    phases = table.groupby("eep")["phase"].first().to_numpy()
    columns = table[["initial_mass", "log_teff", "log_g"]].to_numpy().T
    grid = columns.reshape(3, len(fehs), len(ages), len(phases))
    below, part = _between(fehs, metallicity)
    part = part[:, None]  # (star, 1)
    points = []
    for age in AGES:
        (j,), (share,) = _between(np.log10(ages), np.log10([age]))
        one = grid[:, :, j] * (1 - share) + grid[:, :, j + 1] * share  # (column, [Fe/H], point)
        mass, log_teff, logg = one[:, below] * (1 - part) + one[:, below + 1] * part
        number = (np.diff(mass) * mass[:, 1:] ** -2.35).clip(0)
        for step in (np.arange(PARTS) + 0.5) / PARTS:
            teff = 10 ** (log_teff[:, :-1] * (1 - step) + log_teff[:, 1:] * step)
            gravity = logg[:, :-1] * (1 - step) + logg[:, 1:] * step
            inside = (gravity > GRAVITIES[0]) & (gravity < GRAVITIES[1]) & (phases[1:] <= 4)
            helium = np.broadcast_to(phases[1:] == CLUMP, teff.shape)
            points.append((teff, gravity, helium, np.where(inside, number, 0)))
    shape = len(AGES), PARTS, len(metallicity), len(phases) - 1
    teff, gravity, helium, number = (
        np.stack(part).reshape(shape).transpose(2, 0, 1, 3).reshape(shape[2], shape[0], -1)
        for part in zip(*points, strict=True)
    )
    return teff, gravity, helium, number / number.sum(axis=2, keepdims=True)


def _between(grid, values):
    """Index of the grid point below each value, and how far the value is on its way to the next."""
    values = np.clip(values, grid[0], grid[-1])
    below = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    return below, (values - grid[below]) / (grid[below + 1] - grid[below])


class _Branches:
    """The likelihood of temperatures and gravities of giants, given isochrones.

    A star of known metallicity is on one of the isochrones, at one of its points:

        p(T, g) = Σ_a w_a Σ_e N_ae u_b(e) / Z_a  N(T, g | isochrone + trend, E)

    with the ages' weights w (one set for each of the two sequences), the lifetimes N, and the
    selection u of the survey in bins of log g, one of them for the clump. Parameters are, in one
    vector: the trends of teff and log g in units of their prior (2 x terms), ln w (2 x age),
    ln u (bin).
    """

    def __init__(self, giants, errors, sequence, isochrones=None):
        self.names = LABELS[:2]
        self.y = giants[self.names].to_numpy(float)
        blur = np.diag(np.square(ISOCHRONE_ERROR))
        covariance = errors.sel(label=self.names, other=self.names).values + blur  # (star, 2, 2)
        sigma = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        self.upper = np.column_stack([1 - sequence, sequence])  # (star, sequence)
        self.fe_h = giants["fe_h"].to_numpy(float)
        teff, gravity, helium, number = _isochrone_points(_metallicity(giants), isochrones)
        stars, ages, _ = teff.shape
        bins = np.floor((gravity - GRAVITIES[0]) / BIN).astype(int)
        self.bins = int((GRAVITIES[1] - GRAVITIES[0]) / BIN) + 2
        bins = np.where(helium, self.bins - 1, np.clip(bins, 0, self.bins - 2))
        place = np.arange(stars * ages).reshape(stars, ages, 1) * self.bins + bins
        self.lifetime = _in_bins(place, number, (stars, ages, self.bins))
        # The mean of each term of the trend in every bin, for what a population would look like
        terms = self._terms(teff, self.fe_h[:, None, None], helium)
        self.mean_term = np.stack(
            [
                _in_bins(place, number * term, (stars, ages, self.bins))
                for term in (terms[..., 1], terms[..., 3])
            ]
        )
        # Of all points those within reach of the star, in one list: star, age, point
        reach = 5 * sigma[:, :, None, None] + np.array([50, 0.1])[:, None, None]
        near = (np.abs(teff - self.y[:, 0, None, None]) < reach[:, 0]) & (number > 0)
        near &= np.abs(gravity - self.y[:, 1, None, None]) < reach[:, 1]
        self.star, self.age, _ = np.nonzero(near)
        self.bin, self.log_number = bins[near], np.log(number[near])
        self.terms = terms[near]
        self.off = self.y[self.star] - np.column_stack([teff[near], gravity[near]])
        self.weight = np.linalg.inv(covariance)[self.star]  # (point, 2, 2)
        self.first = np.searchsorted(self.star, np.arange(stars))
        self.seen = np.flatnonzero(np.bincount(self.star, minlength=stars))
        self.prior = PRIOR.loc[self.names].to_numpy()
        self.stars, self.ages = stars, ages
        self.sizes = np.cumsum([2 * len(TERMS), 2 * ages])
        self.precision = self._precision()

    @staticmethod
    def _terms(teff, fe_h, helium):
        parts = np.ones_like(teff), (teff - 4600) / 500, fe_h + 0 * teff, helium.astype(float)
        return np.stack(parts, axis=-1)

    def _split(self, parameters):
        trend, age, selection = np.split(parameters, self.sizes)
        age = age.reshape(2, self.ages)
        age = age - np.log(np.exp(age).sum(axis=1, keepdims=True))
        return trend.reshape(2, -1) * self.prior, np.exp(age), np.exp(selection)

    def expect(self, parameters):
        """How probable each point is for its star, and what follows from it.

        Returns a dict: `log_p` (star,), `share` (point,) of the point in its star, `pull`
        (point, 2) on the trends, `part` (star, sequence, age), `over_norm` (star, age), and the
        weights `age` and `selection`.
        """
        trend, age, selection = self._split(parameters)
        residual = self.off - self.terms @ trend.T
        pull = np.matvec(self.weight, residual)
        square = np.vecdot(residual, pull)
        norm = self.lifetime @ selection  # (star, age)
        weights = self.upper @ age  # (star, age): the mixture of the two sequences
        log_p = self.log_number - 0.5 * square + np.log(selection)[self.bin]
        log_p += np.log(weights / norm)[self.star, self.age]
        top = np.full(self.stars, OUTLIER)
        top[self.seen] = np.maximum(np.maximum.reduceat(log_p, self.first[self.seen]), OUTLIER)
        share = np.exp(log_p - top[self.star])
        total = np.bincount(self.star, share, minlength=self.stars) + np.exp(OUTLIER - top)
        share /= total[self.star]
        place = self.star * self.ages + self.age
        by_age = _in_bins(place, share, (self.stars, self.ages))
        part = self.upper[:, :, None] * age / weights[:, None] * by_age[:, None]
        return {
            "log_p": np.log(total) + top,
            "share": share,
            "pull": pull,
            "part": part,
            "over_norm": by_age / norm,
            "age": age,
            "selection": selection,
        }

    def loss(self, parameters):
        """Minus the log-likelihood with priors, and its derivative (parameter,)."""
        e = self.expect(parameters)
        prior = self.precision @ parameters
        trend = self.terms.T @ (e["share"][:, None] * e["pull"])  # (term, 2)
        age = e["part"].sum(axis=0)
        age = age - age.sum(axis=1, keepdims=True) * e["age"]
        in_bin = np.bincount(self.bin, e["share"], minlength=self.bins)
        expected = np.tensordot(e["over_norm"], self.lifetime, 2) * e["selection"]
        slope = [(trend.T * self.prior).ravel(), age.ravel(), in_bin - expected]
        return 0.5 * parameters @ prior - e["log_p"].sum(), prior - np.concatenate(slope)

    def scores(self, parameters):
        """Derivatives (star, parameter) of the log-likelihood of each star."""
        e = self.expect(parameters)
        pulls = e["share"][:, None] * e["pull"]
        columns = [
            self.prior[k, t]
            * np.bincount(self.star, pulls[:, k] * self.terms[:, t], minlength=self.stars)
            for k in range(2)
            for t in range(len(TERMS))
        ]
        age = e["part"] - e["part"].sum(axis=2, keepdims=True) * e["age"]
        place = self.star * self.bins + self.bin
        in_bin = _in_bins(place, e["share"], (self.stars, self.bins))
        expected = np.einsum("na,nab->nb", e["over_norm"], self.lifetime) * e["selection"]
        trend, age = np.column_stack(columns), age.reshape(self.stars, -1)
        return np.hstack([trend, age, in_bin - expected])

    def _precision(self):
        """Inverse covariance of the priors of all parameters."""
        trends, selection = self.sizes
        matrix = np.zeros((selection + self.bins, selection + self.bins))
        matrix[:trends, :trends] = np.eye(trends)
        for start in (trends, trends + self.ages):
            rows = slice(start, start + self.ages)
            matrix[rows, rows] = _stiffness(self.ages, 1.0, 0.05)
        matrix[selection:-1, selection:-1] = _stiffness(self.bins - 1, 0.5, 0.01)
        matrix[-1, -1] = 0.01  # the clump's selection is its own
        return matrix

    def fit(self):
        """The most probable parameters."""
        options = {"maxiter": 400, "maxcor": 30, "ftol": 1e-9, "gtol": 1e-2}
        start = np.zeros(len(self.precision))
        return minimize(self.loss, start, jac=True, method="L-BFGS-B", options=options).x

    def trends(self, parameters):
        """Coefficients (2, term) and their covariance, by the outer products of the scores."""
        slopes = self.scores(parameters)
        covariance = np.linalg.inv(slopes.T @ slopes + self.precision)
        size = 2 * len(TERMS)
        unit = self.prior.ravel()
        return self._split(parameters)[0], covariance[:size, :size] * np.outer(unit, unit)

    def positions(self, parameters):
        """Where stars stand on the branch, by gravity, and where one would expect them.

        Returns terms (star, 2: teff and clump) of stars where their gravity puts them, whatever
        their age; the mean of these terms for a star of this metallicity in such a survey; and
        the probability of the clump (star,).
        """
        e = self.expect(parameters)
        share, selection = e["share"], e["selection"]
        place = self.star * self.bins + self.bin
        in_bin = _in_bins(place, share, (self.stars, self.bins))
        weights = self.upper @ e["age"] / (self.lifetime @ selection)  # (star, age)
        common = np.einsum("na,nab->nb", weights, self.lifetime)
        mean_term = np.einsum("na,tnab->tnb", weights, self.mean_term)
        seen = np.sum(in_bin * mean_term / np.maximum(common, 1e-300), axis=2).T
        mean = np.einsum("tnb,b->nt", mean_term, selection)
        lost = in_bin.sum(axis=1) < 0.5  # on no isochrone
        return np.where(lost[:, None], mean, seen), mean, np.where(lost, 0, in_bin[:, -1])


def _in_bins(place, weight, shape):
    """Sums of weights in the places of an array of this shape."""
    size = int(np.prod(shape))
    return np.bincount(place.ravel(), weight.ravel(), minlength=size).reshape(shape)


def _stiffness(size, rough, level):
    """Inverse covariance of a smooth curve: second differences of size `rough`, and `level`."""
    second = np.diff(np.eye(size), 2, axis=0)
    return second.T @ second / rough**2 + level * np.eye(size)


# --- Abundances: one population looks the same all along the branch ---------------------------


def _abundance_trends(giants, sequence, position, cluster):
    """Coefficients (3, term) of [Fe/H], [Mg/Fe] and [Si/Fe], and their covariance.

    Where a star stands on the branch says nothing of what it is made of. So abundances must not
    depend on `position` (star, 2: teff and clump terms, less what the population makes expect).
    Two steps: [Fe/H] against position; [Mg/Fe] and [Si/Fe] against position and a parabola in
    [Fe/H] for each sequence. In the second step the observed [Fe/H] stands for the true one.
    """
    fe_h = giants["fe_h"].to_numpy(float)
    groups = np.column_stack([1 - sequence, sequence])
    first, square = _slopes(fe_h[:, None], groups, position)
    first, square = first[0], square[0, :, 0]  # (2,), (2, 2)
    if cluster is not None and len(cluster) >= 10:
        first, square = _with_cluster(first, square, cluster)
    first, square = _with_prior(first, square, PRIOR.loc["fe_h", ["teff", "clump"]].to_numpy())
    powers = np.column_stack([groups * fe_h[:, None] ** power for power in range(3)])
    y = giants[["mg_fe", "si_fe"]].to_numpy(float)
    second, joint = _slopes(y, powers, position)
    # A star whose [Fe/H] is wrong by d is compared with the curve at [Fe/H] + d
    slope = np.array([_mean_slope(column, powers, fe_h) for column in y.T])
    second = second + slope[:, None] * first
    values, covariance = np.zeros((3, len(TERMS))), np.zeros((3, 4, 3, 4))
    at = [TERMS.index("teff"), TERMS.index("clump")]
    lean = np.concatenate([[1.0], slope])  # how the three follow an error of [Fe/H]
    values[0, at] = first
    covariance[np.ix_(range(3), at, range(3), at)] = np.einsum("i,k,jl->ijkl", lean, lean, square)
    spread = covariance[np.ix_((1, 2), at, (1, 2), at)] + joint
    prior = np.repeat(PRIOR.loc[["mg_fe", "si_fe"], ["teff", "clump"]].to_numpy().ravel(), 1)
    flat, wide = _with_prior(second.ravel(), spread.reshape(4, 4), prior)
    values[np.ix_((1, 2), at)] = flat.reshape(2, 2)
    covariance[np.ix_((1, 2), at, (1, 2), at)] = wide.reshape(2, 2, 2, 2)
    metals = TERMS.index("fe_h")
    for row, label in enumerate(LABELS[2:]):
        covariance[row, metals, row, metals] = PRIOR.loc[label, "fe_h"] ** 2
    return values, covariance.reshape(3 * len(TERMS), -1)


def _slopes(y, curves, position):
    """Slopes (output, 2) of `y` (star, output) with position beside free curves (star, n), and
    their covariance (output, 2, output, 2); stars off by more than 4 robust sigma do not count."""
    design = np.column_stack([curves, position])
    kept = np.ones(len(y), bool)
    for _ in range(3):
        solution = np.linalg.lstsq(design[kept], y[kept], rcond=None)[0]
        off = y - design @ solution
        spread = 1.4826 * np.median(np.abs(off), axis=0)
        kept = (np.abs(off) < 4 * spread).all(axis=1)
    inverse = np.linalg.inv(design[kept].T @ design[kept])[-2:, -2:]
    scatter = off[kept].T @ off[kept] / (kept.sum() - design.shape[1])
    return solution[-2:].T, WIDER**2 * np.einsum("ik,jl->ijkl", scatter, inverse)


def _mean_slope(column, powers, fe_h):
    """How an abundance changes with [Fe/H] within the sequences, on average."""
    line = np.linalg.lstsq(powers, column, rcond=None)[0]
    step = 0.01
    groups = powers[:, :2]
    moved = np.column_stack([groups * (fe_h[:, None] + step) ** power for power in range(3)])
    return np.mean((moved - powers) @ line) / step


def _with_cluster(values, covariance, cluster):
    """Slopes (teff, clump) of [Fe/H], with the members of a cluster, which have one [Fe/H]."""
    terms = np.column_stack([np.ones(len(cluster)), (cluster["teff"] - 4600) / 500])
    fe_h = cluster["fe_h"].to_numpy(float)
    line, rest = np.linalg.lstsq(terms, fe_h, rcond=None)[:2]
    variance = np.linalg.inv(terms.T @ terms)[1, 1] * rest[0] / (len(cluster) - 2)
    precision = np.linalg.inv(covariance)
    more = np.diag([1 / variance, 0])
    wide = np.linalg.inv(precision + more)
    return wide @ (precision @ values + more @ [line[1], 0]), wide


def _with_prior(values, covariance, prior):
    """Values and covariance with independent normal priors about 0."""
    precision = np.linalg.inv(covariance)
    narrow = np.linalg.inv(precision + np.diag(1 / np.square(prior)))
    return narrow @ precision @ values, narrow
