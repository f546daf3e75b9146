"""One latent space for two instruments: which spectra belong to one star, and what that star is.

The model is a joint latent-variable model in closed form, in four steps. Instrument v gives star i
a spectrum x_vi.

1. **Components.** x_vi = m_v + V_v c_vi + noise: the spectra of an instrument are a mean and a few
   principal components (Tipping & Bishop 1999), as many as stand out of the noise. The noise of
   every pixel is known, so that the coordinates of a spectrum are weighted least squares,
   c = C V^T N^-1 (x - m) with the covariance C = (V^T N^-1 V)^-1. A missing pixel has N = inf and
   weight 0: to leave it out *is* to integrate over it.
2. **Latents.** The coordinates of both share a vector z of a few numbers and have a private rest:
   c_v = W_v z + private_v, z ~ N(0, 1), private_v ~ N(0, Psi_v). This is probabilistic canonical
   correlation analysis (Bach & Jordan 2005). Its maximum likelihood is known: with canonical
   directions U_v and correlations R of the two sides, W_v = S_v^1/2 U_v R^1/2. One spectrum gives
   E[z | c] = W^T (S + C)^-1 c, where S is the covariance of c without noise: of a noisy spectrum
   little is believed, and its z stays near 0.
3. **The curved conditional.** Lines saturate, so that the second instrument is not linear in z:
   c = theta^T v(z) + private, where v(z) holds 1, z and all products of two, the design vector of
   The Cannon with latents in the place of labels. The ridge of its regression and the covariance
   Sigma of the private part come from residuals of stars left out.
4. **Which candidate?** For a star a of the first instrument and a star b of the second
   ln p(b | a) = ln N(c_b; theta^T v(z_a), Sigma + C_b + what the noise of a adds).
   Of candidates b for one a, one is the partner and all others are strangers, so that
   P(b) ~ p(b | a) / p(b); of candidates a for one b, P(a) ~ p(b | a). Here p(b) is the mean of
   p(b | a) over the training set, each star made a little broader. A temperature, at which pairs of
   the training set with noise as in the spectra are most probable, makes probabilities agree with
   frequencies (Guo et al. 2017).

Labels are a regression on z. To predict them from a spectrum with some noise, the regression must
have seen z with that noise: training stars go through steps 3 and 2 with noise drawn for them. No
label of the second instrument is needed.

References: Tipping & Bishop 1999, J. R. Stat. Soc. B 61, 611; Bach & Jordan 2005, Tech. Rep. 688,
Berkeley, theorem 2; Ness et al. 2015, ApJ 808, 16, eq. 1-5; Guo et al. 2017, ICML 34, 1321.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.linalg import eigh
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from labtools.cannon import design, design_slopes, format_names
from labtools.spectra import by_star

__all__ = ["Coordinates", "TwoViews", "View", "evaluate"]

MOST = 100  # components of an instrument
LATENTS = 16  # canonical directions
BLOCK = 512  # stars whose spectra are held at a time
BROADER = 0.03  # variance that is added to p(b), as a share of that of the stars
COPIES = 10  # noisy copies of each training star from which labels are learned
CUBIC = 8  # latents of which labels may depend to the third power
RIDGES = 10.0 ** np.arange(-4, 7)
TRIALS = 1024  # pairs from which a temperature is found
LN_TEMPERATURE = (-0.5, 2.5)  # limits of the logarithm of a temperature


@dataclass(frozen=True, eq=False, repr=False)
class View:
    """Spectra of one instrument as a mean, principal components and what they leave over.

    Attributes
    ----------
    wavelength : array (L,)
        Angstrom.
    mean : array (L,)
        In units of flux.
    components : array (p, L)
        In units of flux.
    scatter : array (L,)
        Variance that neither components nor errors explain; infinite where a pixel does not count.
    """

    wavelength: np.ndarray
    mean: np.ndarray
    components: np.ndarray
    scatter: np.ndarray

    @classmethod
    def learn(cls, spectra: xr.Dataset, most: int = MOST) -> View:
        """Principal components of spectra with errors; missing pixels by EM.

        Those are kept whose eigenvalue is above that of pure noise, (1 + sqrt(L / N))² for N
        spectra of L pixels.

        Parameters
        ----------
        spectra : xarray.Dataset
            `flux` and `error` (star, wavelength), a bad pixel with error = inf.
        most : int
            Most components that are kept.

        Returns
        -------
        View

        References
        ----------
        Marchenko & Pastur 1967, Math. USSR Sb. 1, 457.
        """
        flux, variance = _arrays(spectra)
        good = np.isfinite(variance)
        used = good.mean(axis=0) > 0.5
        flux, variance, good = flux[:, used], variance[:, used], good[:, used]
        # Noise is nearly a star's noise times a pixel's: with both divided out it is 1 everywhere.
        known = np.where(good, variance, np.nan)
        pixel = np.nanmedian(known, axis=0)
        star = np.nanmedian(known / pixel, axis=1, keepdims=True)
        good &= variance < 25 * pixel * star  # five times as noisy as others: as good as missing
        mean = np.where(good, flux, 0).sum(axis=0) / good.sum(axis=0)
        residual = np.where(good, (flux - mean) / np.sqrt(pixel), 0)
        number, pixels = residual.shape
        # Where pixels are missing, first few components fill them in: more would learn the holes.
        for limit in [most] if good.all() else [1, 2, 4, 8, 16, 32, 64, most, most]:
            scaled = residual / np.sqrt(star)
            first = max(0, number - most)
            values, vectors = eigh(scaled @ scaled.T, subset_by_index=[first, number - 1])
            edge = 1.05 * (np.sqrt(number) + np.sqrt(pixels)) ** 2
            p = min(limit, max(2, int(np.count_nonzero(values > edge))))
            values, vectors = values[: -p - 1 : -1], vectors[:, : -p - 1 : -1]
            basis = vectors.T @ scaled / np.sqrt(values[:, None])  # (p, pixel), orthonormal
            fit = residual @ basis.T @ basis
            residual = np.where(good, residual, fit)  # a missing pixel is what the components say
        share = 1 - p / number - p / pixels  # of the noise is not fitted away
        left = np.where(good, (residual - fit) ** 2 / share - variance / pixel, 0)
        left = left.sum(axis=0) / good.sum(axis=0)
        scatter = np.full(used.size, np.inf)
        scatter[used] = np.maximum(left, 0) * pixel
        components, whole = np.zeros((p, used.size)), np.zeros(used.size)
        components[:, used], whole[used] = basis * np.sqrt(pixel), mean
        return cls(spectra.wavelength.values.astype(float), whole, components, scatter)

    def coordinates(self, spectra: xr.Dataset, modes: xr.DataArray | None = None) -> Coordinates:
        """Coordinates c of spectra, and the covariance C of their noise.

        They are all that `TwoViews` takes from spectra, and may be given to its methods in their
        place: what is asked more than once need not be worked out each time.

        Patterns of flux `modes` (mode, wavelength) are fitted with the components and then left
        out, which is to integrate over them. Errors are enlarged where residuals say so: by the
        reduced chi² where it is above 1, and by the correlation of neighboring pixels, since a
        component averages over many of them.

        Parameters
        ----------
        spectra : xarray.Dataset
            `flux` and `error` (star, wavelength).
        modes : xarray.DataArray, optional
            Patterns of flux (mode, wavelength).

        Returns
        -------
        Coordinates
        """
        patterns, stars = self.components, by_star(spectra).star.values
        if modes is not None:
            patterns = np.vstack([patterns, modes.transpose("mode", "wavelength").values])
        parts = [self._coordinates(_arrays(some), patterns) for some in _blocks(spectra)]
        p = len(self.components)
        c, noise = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Coordinates(c[:, :p], noise[:, :p, :p], stars, self)

    def _coordinates(self, arrays, patterns):
        flux, variance = arrays
        if (variance == variance[:1]).all():  # equal errors: one row of weights serves all stars
            variance = variance[:1]
        weight = 1 / (variance + self.scatter)  # (star or 1, pixel), 0 for a pixel without flux
        residual = flux - self.mean
        normal = _normal_matrices(patterns, weight)
        # A direction that no pixel sees keeps a variance that is large, but finite.
        noise = np.linalg.inv(normal + 1e-6 * np.eye(len(patterns)))
        c = (noise @ ((residual * weight) @ patterns.T)[..., None])[..., 0]
        left = (residual - c @ patterns) * np.sqrt(weight)
        return c, noise * _enlargement(left, weight > 0, len(patterns))[:, None, None]


def _normal_matrices(patterns, weight):
    """V N^-1 V^T (star, p, p) of patterns V (p, pixel) with weights N^-1 (star, pixel)."""
    row, column = np.triu_indices(len(patterns))
    normal = np.empty((len(weight), len(patterns), len(patterns)))
    for some in _slices(row.size, BLOCK):  # products of two patterns at a time
        products = weight @ (patterns[row[some]] * patterns[column[some]]).T
        normal[:, row[some], column[some]] = normal[:, column[some], row[some]] = products
    return normal


def _enlargement(left, good, p):
    """By how much noise is larger than errors say (star,): reduced chi² times correlated pixels."""
    squares, pixels = np.einsum("sp,sp->s", left, left), good.sum(axis=1)
    products = [np.einsum("sp,sp->s", left[:, lag:], left[:, :-lag]) for lag in (1, 2, 3)]
    correlation = np.array(products) / np.maximum(squares, 1e-30)
    certain = correlation > 2 / np.sqrt(np.maximum(pixels, 1))
    reduced = squares / np.maximum(pixels - p, 1)
    return np.maximum(1, reduced) * (1 + 2 * np.where(certain, correlation, 0).sum(axis=0))


class Coordinates(NamedTuple):
    """Spectra of n stars in the components of one instrument, as from `View.coordinates`."""

    values: np.ndarray  # (n, p)
    noise: np.ndarray  # (n, p, p) covariance
    star: np.ndarray  # (n,) names
    view: View  # whose components they are


@dataclass(frozen=True, eq=False, repr=False)
class TwoViews:
    """The joint model of two instruments (see the head of this module); the first is the reference.

    Attributes
    ----------
    views : the components of each instrument.
    center, total, noise : of each view the mean (p,) and the covariance (p, p) of the coordinates
        of the training set, and the mean covariance (p, p) of their noise.
    loadings : of each view W (p, K), what a unit of each latent adds to the coordinates.
    correlations : (K,) canonical correlations of the two views.
    theta : (T, p) coefficients of the second view's coordinates in the design vector of z.
    private : (p, p) covariance of what the second view has of its own.
    reference : coordinates (N, p) of the training stars of the first view, and their z (N, K).
    pairs : coordinates (n, p) of the second view of the stars that both have, and what the model
        says of each of them when it is left out.
    teachers : DataFrame, the labels of the N training stars.
    seed : of the noise that is drawn.
    """

    views: tuple[View, View]
    center: tuple[np.ndarray, np.ndarray]
    total: tuple[np.ndarray, np.ndarray]
    noise: tuple[np.ndarray, np.ndarray]
    loadings: tuple[np.ndarray, np.ndarray]
    correlations: np.ndarray
    theta: np.ndarray
    private: np.ndarray
    reference: tuple[np.ndarray, np.ndarray]
    pairs: tuple[np.ndarray, np.ndarray]
    teachers: pd.DataFrame
    seed: int

    def __repr__(self) -> str:
        first, second = (len(view.components) for view in self.views)
        return (
            f"TwoViews({first} and {second} components, {self.correlations.size} latents; "
            f"{len(self.reference[0])} stars, {len(self.pairs[0])} of them seen by both)"
        )

    @classmethod
    def train(
        cls,
        apogee: xr.Dataset | Coordinates,
        jwst: xr.Dataset | Coordinates,
        labels: pd.DataFrame,
        seed: int = 0,
    ) -> TwoViews:
        """Learn both instruments; stars that both have seen teach how they hang together.

        Parameters
        ----------
        apogee, jwst : Dataset or Coordinates
            Normalized `flux` and `error` (star, wavelength), wavelength in Angstrom; error = inf
            leaves a pixel out. Stars go by name; those of only one instrument help its components.
            Any two instruments do: nothing but the wavelengths tells them apart. Components are
            learned from spectra; coordinates bring theirs along.
        labels : DataFrame
            Indexed by star, one row for every star of `apogee`, one column a label, in any units.
        seed : int
            Of the noise that `find` and `labels` draw for the training stars.

        Returns
        -------
        TwoViews

        Raises
        ------
        ValueError
            If fewer than 20 stars have both spectra, a name occurs twice, a label is missing or not
            finite, or both instruments have the same wavelengths.

        References
        ----------
        Bach & Jordan 2005, "A probabilistic interpretation of canonical correlation analysis",
        theorem 2; Ness et al. 2015, ApJ 808, 16, eq. 1-5 for the design vector.

        Examples
        --------
        >>> TwoViews.train(*_made_up())
        TwoViews(2 and 2 components, 2 latents; 60 stars, 60 of them seen by both)
        """
        apogee, jwst = (
            one if isinstance(one, Coordinates) else by_star(one) for one in (apogee, jwst)
        )
        _check(apogee, jwst, labels)
        a, noise_a, stars, first = _learned(apogee)
        b, noise_b, others, second = _learned(jwst)
        views, stars, others = (first, second), pd.Index(stars), pd.Index(others)
        common = stars.intersection(others, sort=False)
        center = (a.mean(axis=0), b.mean(axis=0))
        noise = (noise_a.mean(axis=0), noise_b.mean(axis=0))
        total = (np.cov(a.T), np.cov(b.T))
        both, b = stars.get_indexer(common), b[others.get_indexer(common)]
        loadings, correlations = _canonical(a[both] - center[0], b - center[1], *total)
        z, _ = _posterior(a - center[0], noise_a, loadings[0], _positive(total[0] - noise[0]))
        theta, left_out = _curved(z[both], b, total[1])
        residual = b - left_out
        private = _positive(residual.T @ residual / len(b) - noise[1])
        return cls(
            views, center, total, noise, loadings, correlations, theta, private,
            (a, z), (b, left_out), labels.loc[stars].astype(float), seed,
        )  # fmt: skip

    def encode(
        self, spectra: xr.Dataset | Coordinates, modes: xr.DataArray | None = None
    ) -> xr.DataArray:
        """Latents of spectra of either instrument: the mean of p(z | spectrum), step 2 above.

        Parameters
        ----------
        spectra : Dataset or Coordinates
            `flux` and `error` (star, wavelength), on the wavelengths of one of the two instruments.
        modes : DataArray, optional
            Patterns of flux (mode, wavelength) of any amplitude that are integrated out, such as
            the shape of a continuum or a shift.

        Returns
        -------
        DataArray
            (star, latent), dimensionless. Over all stars a latent has mean 0 and, where a spectrum
            leaves no doubt, variance 1; the first is the one on which both instruments agree best.

        Raises
        ------
        ValueError
            If the wavelengths are those of neither instrument.

        Examples
        --------
        >>> apogee, jwst, labels = _made_up()
        >>> z = TwoViews.train(apogee, jwst, labels).encode(jwst)
        >>> z.dims, z.shape
        (('star', 'latent'), (60, 2))
        """
        view, c = self._coordinates(spectra, modes)
        z, _ = self._latents(view, c.values, c.noise)
        coords = {"star": c.star, "latent": np.arange(z.shape[1])}
        return xr.DataArray(z, coords=coords, dims=("star", "latent"))

    def find(
        self,
        queries: xr.Dataset | Coordinates,
        candidates: xr.Dataset | Coordinates,
        k: int = 10,
        modes: xr.DataArray | None = None,
    ) -> pd.DataFrame:
        """For each star the most probable partners among spectra of the other instrument.

        Scores are made for a block of stars at a time and only the best k of each star are kept, so
        that memory does not grow with queries times candidates. Exactly one candidate is taken to
        be the same star: where the partner may be missing, probabilities say which it would be.

        Parameters
        ----------
        queries, candidates : Dataset or Coordinates
            `flux` and `error` (star, wavelength), each on the wavelengths of one instrument.
        k : int
            How many partners to name; all of them if there are fewer.
        modes : DataArray, optional
            Patterns of flux (mode, wavelength) in the queries that are integrated out.

        Returns
        -------
        DataFrame
            Indexed by star; the columns 1 to k are the names of the most probable partners, best
            first, and `probability` (0 to 1) is that of the first.

        Raises
        ------
        ValueError
            If both sets are of one instrument, one is of neither, or there is no candidate.

        Examples
        --------
        >>> apogee, jwst, labels = _made_up()
        >>> found = TwoViews.train(apogee, jwst, labels).find(jwst, apogee, k=2)
        >>> list(found.columns), bool((found[1] == found.index).mean() > 0.5)
        ([1, 2, 'probability'], True)
        """
        if self._view(queries) == self._view(candidates):
            raise ValueError("queries and candidates are of one instrument: give a set of each")
        number = np.size(candidates.star)
        if not number or k < 1:
            raise ValueError(f"{k} of {number} candidates are asked for: ask for one at least")
        ours, query = self._coordinates(queries, modes)
        theirs, candidate = self._coordinates(candidates)
        k = min(k, number)
        place, probability = self._partners(
            ours, self._evidence(ours, query), self._evidence(theirs, candidate), k
        )
        index = pd.Index(query.star, name="star")
        found = pd.DataFrame(candidate.star[place], index, range(1, k + 1))
        return found.assign(probability=probability)

    def labels(
        self, spectra: xr.Dataset | Coordinates, modes: xr.DataArray | None = None
    ) -> pd.DataFrame:
        """Labels of spectra of either instrument, learned from the labels of the reference alone.

        Parameters
        ----------
        spectra : Dataset or Coordinates
            `flux` and `error` (star, wavelength), on the wavelengths of one of the two instruments.
        modes : DataArray, optional
            Patterns of flux (mode, wavelength) of any amplitude that are integrated out.

        Returns
        -------
        DataFrame
            Indexed by star: the labels and `<label>_err`, in the units of the training labels. The
            error is that of training stars left out, nearby in z and with as much noise.

        Raises
        ------
        ValueError
            If the wavelengths are those of neither instrument.

        Examples
        --------
        >>> apogee, jwst, labels = _made_up()
        >>> fitted = TwoViews.train(apogee, jwst, labels).labels(jwst)
        >>> list(fitted.columns)
        ['teff', 'fe_h', 'teff_err', 'fe_h_err']
        >>> bool((fitted.teff - labels.teff).std() < 0.2 * labels.teff.std())
        True
        """
        view, c = self._coordinates(spectra, modes)
        values, errors = self._fitted(view, c.values, c.noise)
        columns = [*self.teachers, *(f"{name}_err" for name in self.teachers)]
        index = pd.Index(c.star, name="star")
        return pd.DataFrame(np.hstack([values, errors]), index, columns)

    def other(self, spectra: xr.Dataset | Coordinates) -> xr.DataArray:
        """The spectra that the other instrument would see of these stars, as far as z tells.

        Parameters
        ----------
        spectra : Dataset or Coordinates
            `flux` and `error` (star, wavelength), on the wavelengths of one of the two instruments.

        Returns
        -------
        DataArray
            Flux (star, wavelength) without noise, NaN where the other instrument has no pixel.

        Raises
        ------
        ValueError
            If the wavelengths are those of neither instrument.

        Examples
        --------
        >>> apogee, jwst, labels = _made_up()
        >>> flux = TwoViews.train(apogee, jwst, labels).other(apogee)
        >>> bool(abs(flux - jwst.flux).mean() < 0.02)
        True
        """
        view, c = self._coordinates(spectra)
        z, _ = self._latents(view, c.values, c.noise)
        there = self.views[1 - view]
        drawn = design(z) @ self.theta if view == 0 else self.center[0] + z @ self.loadings[0].T
        flux = np.where(np.isfinite(there.scatter), there.mean + drawn @ there.components, np.nan)
        coords = {"star": c.star, "wavelength": there.wavelength}
        return xr.DataArray(flux, coords=coords, dims=("star", "wavelength"))

    def _coordinates(self, spectra, modes=None):
        """Which of the two instruments spectra are of, and their coordinates."""
        view = self._view(spectra)
        if not isinstance(spectra, Coordinates):
            return view, self.views[view].coordinates(spectra, modes)
        if modes is not None:
            raise ValueError("give modes to View.coordinates, or spectra in place of coordinates")
        return view, spectra

    def _view(self, spectra):
        """Which of the two instruments spectra, or coordinates, are of."""
        if isinstance(spectra, Coordinates):
            for number, view in enumerate(self.views):
                if view is spectra.view:
                    return number
            raise ValueError("these coordinates are in the components of another model")
        for number, view in enumerate(self.views):
            if np.array_equal(view.wavelength, spectra.wavelength.values):
                return number
        raise ValueError(
            "the spectra are on the wavelengths of neither instrument: see labtools.resample"
        )

    def _latents(self, view, c, noise):
        """Mean (star, K) and covariance (star, K, K) of z, given coordinates and their noise."""
        signal = _positive(self.total[view] - self.noise[view])
        return _posterior(c - self.center[view], noise, self.loadings[view], signal)

    def _evidence(self, view, c):
        """What scores are made of: mean and covariance of z for the reference, else of c."""
        return self._latents(view, c.values, c.noise) if view == 0 else (c.values, c.noise)

    def _partners(self, ours, query, candidate, k):
        """Numbers of the k best candidates (query, k), best first, and the probability of the best.

        `query` and `candidate` are the `_evidence` of both sides, `ours` is the view of the first.
        """
        _, noise = candidate if ours == 0 else query
        temperature = self._temperature(noise.mean(axis=0), forward=ours == 0)
        # ln p(b) of candidates as strangers; stars of the reference are all alike as candidates.
        stranger = self._ln_marginal(*candidate) if ours == 0 else np.zeros(len(candidate[0]))
        best = np.full((len(query[0]), k), -np.inf)
        place, total = np.zeros(best.shape, int), np.full(len(best), -np.inf)
        for some in _blocks_of_alike(query[1], BLOCK):
            star = [part[some] for part in query]
            for others in _blocks_of_alike(candidate[1], 4 * BLOCK):
                other = [part[others] for part in candidate]
                if ours == 0:
                    score = self._ln_conditional(*star, *other)
                else:
                    score = self._ln_conditional(*other, *star).T
                score = (score - stranger[others]) / temperature
                total[some] = np.logaddexp(total[some], logsumexp(score, axis=1))
                score = np.hstack([best[some], score])
                where = np.hstack([place[some], np.tile(others, (len(some), 1))])
                kept = np.argsort(-score, axis=1, kind="stable")[:, :k]
                best[some] = np.take_along_axis(score, kept, axis=1)
                place[some] = np.take_along_axis(where, kept, axis=1)
        return place, np.exp(best[:, 0] - total)

    def _ln_conditional(self, z, spread, b, noise):
        """ln p(b | a) (star a, star b); stars a share what noise adds, the mean of J dP J^T.

        J is the slope of theta^T v(z), dP how much more uncertain z is than in the training set.
        """
        _, usual = self._latents(0, self.center[0][None], self.noise[0][None])
        slope = np.einsum("ntk,tp->npk", design_slopes(z), self.theta)
        added = np.einsum("npk,nkl,nql->pq", slope, spread - usual, slope, optimize=True) / len(z)
        return _ln_normal(design(z) @ self.theta, self.private + _positive(added), b, noise)

    def _ln_marginal(self, b, noise):
        """ln p(b) (star b,) of any star: the mean over the training set, a little broadened."""
        mean = design(self.reference[1]) @ self.theta
        broad = self.private + BROADER * np.cov(mean.T)
        parts = [
            logsumexp(_ln_normal(mean, broad, b[some], noise[some]), axis=0)
            for some in _slices(len(b), BLOCK)
        ]
        return np.concatenate(parts) - np.log(len(mean))

    def _temperature(self, noise, forward):
        """The temperature at which training pairs, with that noise, are most probable."""
        rng = np.random.default_rng([self.seed, 1])
        some = rng.permutation(len(self.pairs[0]))[:TRIALS]
        b, predicted = (part[some] for part in self.pairs)
        b = b + _draw(rng, _positive(noise - self.noise[1]), len(b))
        score = _ln_normal(predicted, self.private, b, noise[None])
        if forward:
            broad = self.private + BROADER * np.cov(predicted.T)
            others = _ln_normal(predicted, broad, b, noise[None])
            np.fill_diagonal(others, -np.inf)  # a star says nothing about itself
            score = score - logsumexp(others, axis=0)
        score = score if forward else score.T

        def loss(ln_t):
            scaled = score * np.exp(-ln_t)
            return np.mean(logsumexp(scaled, axis=1) - scaled.diagonal())

        return np.exp(minimize_scalar(loss, bounds=LN_TEMPERATURE, options={"xatol": 0.02}).x)

    def _fitted(self, view, c, noise):
        """Labels and errors (star, label) of coordinates c (star, p) with noise (star, p, p)."""
        z, _ = self._latents(view, c, noise)
        values, errors = np.empty((2, len(c), self.teachers.shape[1]))
        for some in _groups_of_alike(noise):
            values[some], errors[some] = self._head(view, noise[some].mean(axis=0), z[some])
        return values, errors

    def _head(self, view, noise, z):
        """Labels and errors (star, label) at z (star, K), learned from stars with that noise."""
        rng = np.random.default_rng([self.seed, 2])
        a, known = self.reference
        if view == 0:  # the training spectra have noise of their own already
            clean, missing = a, _positive(noise - self.noise[0])
        else:
            clean, missing = design(known) @ self.theta, self.private + noise
        clean = np.tile(clean, (COPIES, 1))
        noisy, _ = self._latents(view, clean + _draw(rng, missing, len(clean)), noise[None])
        center, scale = self.teachers.mean().to_numpy(), self.teachers.std().to_numpy()
        y = np.tile((self.teachers.to_numpy() - center) / scale, (COPIES, 1))
        terms = _terms(noisy)
        penalty = COPIES * np.r_[0, np.ones(terms.shape[1] - 1)]
        # Residuals of stars that were left out, a fifth of them at a time with all of their copies.
        fold = np.tile(rng.permutation(len(a)) % 5, COPIES)
        parts = [(terms[fold == out], y[fold == out]) for out in range(5)]
        squares = np.array([x.T @ x for x, _ in parts])  # (fold, term, term); sums leave one out
        products = np.array([x.T @ labels for x, labels in parts])
        ridge, all_squares, all_products = (
            np.diag(penalty),
            squares.sum(axis=0),
            products.sum(axis=0),
        )
        residual = np.empty_like(y)
        for out, (x, labels) in enumerate(parts):
            left_in = all_squares - squares[out] + ridge, all_products - products[out]
            residual[fold == out] = labels - x @ np.linalg.solve(*left_in)
        # The logarithm of their squares as a function of z gives the error, up to a factor.
        few = design(noisy)
        ln_squares = _ridge(few, np.log(residual**2 + 1e-12), 30 * penalty[: few.shape[1]])
        factor = np.mean(residual**2 / np.exp(few @ ln_squares), axis=0)
        errors = np.sqrt(factor * np.exp(design(z) @ ln_squares))
        values = _terms(z) @ np.linalg.solve(all_squares + ridge, all_products)
        return center + scale * values, scale * errors


def evaluate(
    model: TwoViews,
    apogee: xr.Dataset | Coordinates,
    jwst: xr.Dataset | Coordinates,
    labels: pd.DataFrame,
) -> pd.DataFrame:
    """How a model does on stars that both instruments have seen, star by star.

    Parameters
    ----------
    model : TwoViews
        Trained on other stars.
    apogee, jwst : Dataset or Coordinates
        Spectra of the same stars, `flux` and `error` (star, wavelength).
    labels : DataFrame
        True labels, indexed by star, with the columns of the training labels.

    Returns
    -------
    DataFrame
        Indexed by star. From `apogee` to `jwst`: `found` (the first partner is the star itself),
        `among_ten` and `probability` of the first; back again: `found_back`, `probability_back`.
        For each label from `jwst`: `<label>_off`, fitted less true, and `<label>_z`, that over its
        error.

    Raises
    ------
    KeyError
        If a star has no spectrum on one side, or no label.
    ValueError
        If the first set is not of the model's reference, or the second not of the other instrument.

    Examples
    --------
    >>> apogee, jwst, labels = _made_up()
    >>> stars = evaluate(TwoViews.train(apogee, jwst, labels), apogee, jwst, labels)
    >>> list(stars.columns[:3]), bool(stars.found.mean() > 0.5)
    (['found', 'among_ten', 'probability'], True)
    """
    if model._view(apogee) != 0 or model._view(jwst) != 1:
        raise ValueError("give the spectra of the model's reference first, then the others")
    _, here = model._coordinates(apogee)
    _, there = model._coordinates(jwst)
    names = pd.Index(here.star, name="star")
    rows = pd.Index(there.star).get_indexer(names)
    if (rows < 0).any():
        raise KeyError(f"no spectrum on the other side: {format_names(names[rows < 0])}")
    b, noise = there.values[rows], there.noise[rows]
    z, spread = model._evidence(0, here)
    own, k = np.arange(len(names)), min(10, len(names))
    ahead, probability = model._partners(0, (z, spread), (b, noise), k)
    back, probability_back = model._partners(1, (b, noise), (z, spread), 1)
    table = {
        "found": ahead[:, 0] == own,
        "among_ten": (ahead == own[:, None]).any(axis=1),
        "probability": probability,
        "found_back": back[:, 0] == own,
        "probability_back": probability_back,
    }
    values, errors = model._fitted(1, b, noise)
    off = values - labels.loc[names, list(model.teachers)].to_numpy(float)
    for number, name in enumerate(model.teachers):
        table[f"{name}_off"] = off[:, number]
        table[f"{name}_z"] = off[:, number] / errors[:, number]
    return pd.DataFrame(table, index=names)


def _canonical(a, b, total_a, total_b):
    """Loadings of both views and canonical correlations (K,), from coordinates (n, p) of pairs.

    The covariance of the two is that of a with what a ridge regression on a predicts of b: with few
    pairs, directions that cannot be told from chance are shrunk.
    """
    white_a, white_b = _power(total_a, -0.5), _power(total_b, -0.5)
    target = b @ white_b
    fits = [_left_out(a, target, np.full(a.shape[1], ridge)) for ridge in RIDGES]
    slope, _ = min(fits, key=lambda fit: np.mean(fit[1] ** 2))
    u, r, v = np.linalg.svd(white_a @ total_a @ slope)
    k = min(LATENTS, len(r))
    r = np.minimum(r[:k], 0.9999)
    w_a = _power(total_a, 0.5) @ u[:, :k] * np.sqrt(r)
    w_b = _power(total_b, 0.5) @ v[:k].T * np.sqrt(r)
    return (w_a, w_b), r


def _curved(z, b, total_b):
    """Coefficients of b in the design vector of z, and b (n, p) as predicted for stars left out.

    Ridges of the linear and of the quadratic terms are those with the smallest volume of residuals.
    """
    terms = design(z)
    linear = 1 + z.shape[1]
    b_white = b @ _power(total_b, -0.5)
    trials = []
    for first in RIDGES[:6]:
        for second in RIDGES[3:]:
            penalty = np.r_[0, np.full(linear - 1, first), np.full(terms.shape[1] - linear, second)]
            _, residual = _left_out(terms, b_white, penalty)
            trials.append((np.linalg.slogdet(residual.T @ residual)[1], first, second, penalty))
    theta, residual = _left_out(terms, b, min(trials)[3])
    return theta, b - residual


def _ridge(x, y, penalty):
    """Coefficients of the regression of y (n, m) on x (n, t) with a penalty (t,) on squares."""
    return np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ y)


def _left_out(x, y, penalty):
    """Ridge coefficients, and residuals of stars left out, which are residual / (1 - leverage)."""
    hat = np.linalg.solve(x.T @ x + np.diag(penalty), x.T)
    coefficients = hat @ y
    leverage = np.einsum("nt,tn->n", x, hat)
    return coefficients, (y - x @ coefficients) / (1 - leverage)[:, None]


def _posterior(c, noise, loadings, signal):
    """Mean (star, K) and covariance (star, K, K) of z; c (star, p) centred, noise (star, p, p)."""
    gain = loadings.T @ np.linalg.inv(signal + noise)
    z = (gain @ c[..., None])[..., 0]
    return z, np.eye(loadings.shape[1]) - gain @ loadings


def _ln_normal(mean, covariance, b, noise):
    """ln N(b; mean, covariance + noise) (row of mean, row of b); noise is (row of b, p, p).

    As for The Cannon, chi² is linear in the products of the mean's coordinates: a matrix product.
    """
    precision = np.linalg.inv(covariance + noise)
    _, ln_det = np.linalg.slogdet(precision)
    pulled = (precision @ b[..., None])[..., 0]
    i, j = np.triu_indices(mean.shape[1])
    products = mean[:, i] * mean[:, j] * np.where(i == j, 0.5, 1)
    constant = 0.5 * (ln_det - (b * pulled).sum(axis=1) - b.shape[1] * np.log(2 * np.pi))
    return mean @ pulled.T - products @ precision[:, i, j].T + constant


def _positive(matrix, least=1e-10):
    """The nearest covariance: eigenvalues are at least that share of the largest."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, least * max(values[-1], 0))) @ vectors.T


def _power(matrix, exponent):
    """A power of a positive symmetric matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-12 * values[-1]) ** exponent) @ vectors.T


def _draw(rng, covariance, number):
    """Noise (number, p) with that covariance."""
    return rng.standard_normal((number, len(covariance))) @ _power(covariance, 0.5)


def _terms(z):
    """What labels depend on: all products of two latents, and of three of the first few."""
    few = z[:, :CUBIC]
    return np.hstack([design(z), design(few, 3)[:, design(few).shape[1] :]])


def _slices(number, size):
    return [slice(start, start + size) for start in range(0, number, size)]


def _blocks_of_alike(noise, size):
    """Numbers of stars in blocks of at most that size, sorted so that noise in a block is alike."""
    order = np.argsort(np.trace(noise, axis1=1, axis2=2), kind="stable")
    return [order[some] for some in _slices(len(order), size)]


def _groups_of_alike(noise: np.ndarray) -> Iterator[np.ndarray]:
    """Numbers of stars in groups, in which noise is within a fifth of the first star's."""
    size = np.log(np.diagonal(noise, axis1=1, axis2=2))
    left = np.arange(len(noise))
    while left.size:
        near = (abs(size[left] - size[left[0]]) < 0.2).all(axis=1)
        yield left[near]
        left = left[~near]


def _arrays(spectra):
    """Flux, and variance, infinite where a pixel must not count; both (star, wavelength)."""
    flux, error = spectra.flux.values.astype(float), spectra.error.values.astype(float)
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    return np.where(good, flux, 0), np.where(good, error, np.inf) ** 2


def _blocks(spectra):
    """Spectra, some stars at a time."""
    spectra = by_star(spectra)
    return [spectra.isel(star=some) for some in _slices(spectra.sizes["star"], BLOCK)]


def _learned(spectra):
    """Coordinates of spectra in components that are learned from them; coordinates as they are."""
    if isinstance(spectra, Coordinates):
        return spectra
    return View.learn(spectra).coordinates(spectra)


def _check(apogee, jwst, labels):
    """Raise ValueError if these sets cannot teach a model."""
    stars, others = (pd.Index(np.asarray(one.star)) for one in (apogee, jwst))
    if not (stars.is_unique and others.is_unique):
        raise ValueError("a star occurs twice in one of the sets: give each star one spectrum")
    wavelengths = (
        one.view.wavelength if isinstance(one, Coordinates) else one.wavelength.values
        for one in (apogee, jwst)
    )
    if np.array_equal(*wavelengths):
        raise ValueError("both sets have the same wavelengths: they cannot be told apart later")
    common = stars.intersection(others, sort=False)
    if len(common) < 20:
        raise ValueError(f"only {len(common)} stars have both spectra, fewer than 20")
    taught = labels.reindex(stars)
    bad = taught.index[~np.isfinite(taught.to_numpy(float)).all(axis=1)]
    if len(bad):
        raise ValueError(f"{len(bad)} stars lack a label or it is no number, such as {bad[0]}")


def _made_up(stars=60, seed=0):
    """Spectra of two little instruments of the same stars, and their labels, for examples."""
    rng = np.random.default_rng(seed)
    names = [f"star{number:02d}" for number in range(stars)]
    x = rng.standard_normal((stars, 2))
    sets = []
    for pixels, noise in ((40, 0.003), (50, 0.01)):
        depth = 0.1 + 0.05 * x @ rng.standard_normal((2, pixels))
        flux = 1 - depth + noise * rng.standard_normal(depth.shape)
        coords = {"star": names, "wavelength": 15000.0 + np.arange(pixels)}
        arrays = {"flux": flux, "error": np.full(flux.shape, noise)}
        sets.append(xr.Dataset({n: (("star", "wavelength"), v) for n, v in arrays.items()}, coords))
    labels = pd.DataFrame({"teff": 4500 + 300 * x[:, 0], "fe_h": 0.3 * x[:, 1]}, names)
    return *sets, labels
