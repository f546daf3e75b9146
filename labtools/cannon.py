"""The Cannon (Ness et al. 2015, ApJ 808, 16): spectra as polynomials of labels, learned from examples.

At every wavelength the flux of a star with K labels is f = v·θ + noise, where the design vector v holds 1, the
scaled labels and all their products (for a quadratic model T = 1 + K + K(K+1)/2 terms), and the variance of the noise
is σ² + s²: the error of that pixel and an intrinsic scatter of the model.
"""

import warnings
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import xarray as xr

from labtools import npz
from labtools.cache import writing
from labtools.errors import BadFile
from labtools.quadratic import (
    about_the_mean,
    chi_square,
    departure,
    design,
    design_slopes,
    marginalize,
    minimize,
    quadratic_forms,
    slope_and_curvature,
    spread_out,
    starting_points,
)
from labtools.selection import split_by_star
from labtools.spectra import by_star
from labtools.teaching import (
    CHUNK,
    aligned_labels,
    check_training,
    chunks,
    fault_of,
    flux_and_variance,
    maximize_pixels,
    some,
    turn,
)

__all__ = ["Cannon", "design", "design_slopes", "ridge_scores"]

LARGEST = 1 << 30  # bytes of a file that may be a model


@dataclass(frozen=True, eq=False, repr=False)
class Cannon:
    """A trained model.

    labels : names of the K labels.
    offset, scale : (K,) so that the scaled label is (label - offset) / scale, or (5040 / label - offset) / scale for
        the labels in `reciprocal`.
    wavelength : (L,) Angstrom.
    theta : (L, T) coefficients of the design vector; 1, 0, 0, ... where a pixel could not be trained.
    s2 : (L,) variance of the intrinsic scatter; infinite where a pixel could not be trained.
    examples : (N, K) scaled labels of the training set: starting points, and the region where the model holds.
    degree : the highest power of labels in the design vector.
    """

    labels: tuple
    offset: np.ndarray
    scale: np.ndarray
    wavelength: np.ndarray
    theta: np.ndarray
    s2: np.ndarray
    examples: np.ndarray
    degree: int = 2
    reciprocal: tuple = ()

    def __repr__(self):
        trained = np.isfinite(self.s2).sum()
        names = (f"5040/{name}" if name in self.reciprocal else name for name in self.labels)
        return (
            f"Cannon({', '.join(names)}; {self.theta.shape[1]} terms, {trained} of {self.s2.size} pixels, "
            f"{len(self.examples)} training stars)"
        )

    @classmethod
    def train(cls, spectra, labels, degree=2, ridge=0.0, reciprocal=()):
        """Fit coefficients and scatter of every pixel by maximum likelihood (Ness et al. 2015, eq. 7-8).

        For a given s² the coefficients are weighted least squares; for given coefficients the likelihood has one
        dimension, ln s², and an analytic slope ½ Σ s²(w²r² - w) with w = 1/(σ²+s²). Steps in both, by turns, lead
        to the maximum. Each pixel is read once when it is trained, so that spectra on disk (dask, zarr) do.

        Parameters
        ----------
        spectra : Dataset, normalized `flux` and `error` (star, wavelength); error = inf leaves a pixel out.
        labels : DataFrame indexed like `star`, one column a label, any number of labels, in any units.
        degree : highest power of the labels: 1, 2 or 3.
        ridge : how strongly products of labels are held near 0, as a share of the data's weight (`ridge_scores`).
        reciprocal : labels that enter as 5040 / label, such as a temperature in K.

        Raises
        ------
        ValueError if labels are no numbers, missing, fillers, constant or linearly dependent, if there are fewer than
        twice as many stars as coefficients, if a star has no usable pixel, or if spectra are not normalized.
        """
        if degree not in (1, 2, 3) or not ridge >= 0:
            raise ValueError(f"degree must be 1, 2 or 3 and ridge not negative; they are {degree} and {ridge}")
        spectra = by_star(spectra)
        y = aligned_labels(spectra, labels, reciprocal)
        offset, scale = y.mean(axis=0), y.std(axis=0)
        x = (y - offset) / np.where(scale > 0, scale, 1)
        v = design(x, degree)
        check_training(spectra, labels.columns, x, v, scale)

        def block(pixels):
            flux, variance = flux_and_variance(spectra.isel(wavelength=pixels))
            return np.ascontiguousarray(flux.T), np.ascontiguousarray(variance.T)

        penalty = ridge * (np.arange(v.shape[1]) > x.shape[1])
        theta, s2 = maximize_pixels(v, block, spectra.sizes["wavelength"], penalty)
        wavelength = spectra.wavelength.values.astype(float)
        return cls(tuple(labels.columns), offset, scale, wavelength, theta, s2, x, degree, tuple(reciprocal))

    def predict(self, labels):
        """Model flux, DataArray (star, wavelength), for a DataFrame with a column for each label, or one row of it.

        A warning names stars whose labels lie outside the training set, as `extrapolates` says it.
        """
        stars, x = self._checked(labels)
        flux = design(x, self.degree) @ self.theta.T
        return xr.DataArray(flux, coords={"star": stars.values, "wavelength": self.wavelength})

    def gradient(self, labels):
        """Derivative of the model flux, DataArray (star, label, wavelength), per unit of each label."""
        stars, x = self._checked(labels)
        slopes = design_slopes(x, self.degree) / self.units(x)[:, None]
        return xr.DataArray(
            np.einsum("ntk,lt->nkl", slopes, self.theta, optimize=True),
            coords={"star": stars.values, "label": list(self.labels), "wavelength": self.wavelength},
        )

    def distance(self, labels):
        """Mahalanobis distance of labels (DataFrame) from the training set: Series indexed by star."""
        stars, x = self._checked(labels, warn=False)
        return pd.Series(self._distance(x), stars, name="distance")

    def extrapolates(self, labels):
        """Whether labels lie further from the training set than any of its stars: boolean Series indexed by star."""
        stars, x = self._checked(labels, warn=False)
        return pd.Series(self._outside(x), stars, name="extrapolated")

    def quadratic_form(self, spectra, chunk=CHUNK):
        """The likelihood of each star as a quadratic form of its design vector v: χ² = vᵀAv - 2bᵀv + c.

        It is exact, because the weights 1/(σ²+s²) do not depend on the labels.

        Returns
        -------
        A (star, T, T), b (star, T), c (star,), and the number of pixels that count (star,).
        """
        return tuple(np.concatenate(part) for part in zip(*self._forms(spectra, None, chunk), strict=True))

    def likelihood(self, spectra, x0, modes=None):
        """The log-likelihood of each star near scaled labels x0 (star, K): ln L = constant + rᵀd - ½dᵀAd.

        Here d = v(x) - v(x0): no digits are lost to what all models have in common. With `modes` their amplitudes are
        integrated out. NaN in x0 counts as the mean star.

        Returns
        -------
        A (star, T, T), r (star, T), constant (star,).
        """
        spectra, v0, logs = by_star(spectra), design(np.nan_to_num(x0), self.degree), []

        def residuals():
            for start, (flux, variance) in zip(range(0, len(v0), CHUNK), chunks(spectra, CHUNK), strict=True):
                total = variance + self.s2
                counts = np.isfinite(total)
                logs.append(np.log(2 * np.pi * total, where=counts, out=np.zeros_like(total)).sum(axis=1))
                yield flux - v0[start : start + CHUNK] @ self.theta.T, variance

        forms = quadratic_forms(self.coefficients(modes), self.s2, residuals())
        a, r, c, _ = (np.concatenate(part) for part in zip(*forms, strict=True))
        logs = np.concatenate(logs)
        if modes is not None:
            a, r, c, more = marginalize(a, r, c, self.theta.shape[1])
            logs += more
        return a, r, -(c + logs) / 2

    def fit(self, spectra, starts=3, modes=None, covariance=False):
        """Labels of stars, by least squares.

        Damped Newton steps on the quadratic forms of many stars together. To keep out of local minima each star starts
        from `starts` places: the training stars, of a selection of 200, whose model spectra fit it best, the second and
        later ones at least one standard deviation away from those before.

        Parameters
        ----------
        modes : DataArray of `labtools.coverage.residual_modes`: patterns of pixels that the fit does not trust.
        covariance : whether to return that of the labels too, DataArray (star, label, other).

        Returns
        -------
        DataFrame indexed by star: the labels, `<label>_err` (from the curvature of χ²), `chi2`, `n_pixels`,
        `converged` (the slope of χ² vanished), `agree` (how many starts ended in the same minimum) and
        `extrapolated` (see `extrapolates`). A star without a usable pixel has NaN labels and converged = False.

        Raises
        ------
        ValueError if the wavelengths differ from the model's or no star has a usable pixel.
        """
        spectra, names, candidates = by_star(spectra), list(self.labels), spread_out(self.examples)
        tables, covariances, first = [], [], 0
        for form in self._forms(spectra, modes):
            table, one = self._fit(*form, candidates, starts)
            tables.append(table.set_index(table.index + first))
            covariances.append(one)
            first += len(one)
        table, stars = pd.concat(tables), spectra.star.values
        if table.empty:
            raise ValueError(f"no usable pixel in {some(stars)}: nothing to fit")
        if len(table) < len(stars):
            blind = np.delete(stars, table.index)
            warnings.warn(f"no usable pixel in {some(blind)}: their labels are NaN", stacklevel=2)
        flags = {"n_pixels": 0, "converged": False, "agree": 0, "extrapolated": False}
        types = table.dtypes[list(flags)]
        table = table.reindex(range(len(stars))).fillna(flags).astype(types).set_index(pd.Index(stars, name="star"))
        if not covariance:
            return table
        coords = {"star": stars, "label": names, "other": names}
        return table, xr.DataArray(np.concatenate(covariances), coords=coords)

    def _fit(self, a, b, c, n_pixels, candidates, starts):
        """Table of the stars that have pixels, indexed by number, and covariances (star, K, K) of all."""
        usable, k = n_pixels > len(self.labels), len(self.labels)
        a, b, c = about_the_mean(a[usable], b[usable], c[usable])
        points = starting_points(a, b, c, departure(candidates, self.degree), candidates, starts)
        trials = np.stack([minimize(a, b, c, x, self.degree) for x in points])
        chi2 = np.stack([chi_square(a, b, c, x, self.degree) for x in trials])
        x = trials[np.argmin(chi2, axis=0), np.arange(len(a))]
        slope, curvature, _ = slope_and_curvature(a, b, x, self.degree)
        inverse, units, covariance = (
            np.linalg.pinv(curvature, hermitian=True),
            self.units(x),
            np.full((len(usable), k, k), np.nan),
        )
        covariance[usable] = inverse * units[:, :, None] * units[:, None]
        errors = np.sqrt(np.diagonal(covariance[usable], axis1=1, axis2=2))
        table = pd.DataFrame(
            np.hstack([self.unscaled(x), errors]),
            np.flatnonzero(usable),
            [*self.labels, *(f"{name}_err" for name in self.labels)],
        )
        return table.assign(
            chi2=chi2.min(axis=0),
            n_pixels=n_pixels[usable],
            converged=np.vecdot(slope, np.matvec(inverse, slope)) < 1e-6,
            agree=(chi2 - chi2.min(axis=0) < 1e-3).sum(axis=0),
            extrapolated=self._outside(x),
        ), covariance

    def to_bytes(self):
        """The model as the content of an .npz file."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return npz.pack(**parts | {"reciprocal": self._turned})

    @classmethod
    def from_bytes(cls, content, source="this file"):
        """The model that `to_bytes` wrote; BadFile, naming the `source`, if it is something else or damaged."""
        parts = npz.unpack(content, [field.name for field in fields(cls)], source)
        if fault := fault_of(**parts):
            raise BadFile(f"{source} is no trained Cannon: {fault}")
        labels = tuple(map(str, parts["labels"]))
        reciprocal = tuple(name for name, turned in zip(labels, parts["reciprocal"], strict=True) if turned)
        return cls(**parts | {"labels": labels, "degree": int(parts["degree"]), "reciprocal": reciprocal})

    def save(self, path):
        """Write the model to one .npz file, which appears whole or not at all."""
        with writing(path) as part:
            part.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote; BadFile if the file holds something else, or what an older version wrote."""
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise BadFile(f"{path} is no trained Cannon: it is larger than {LARGEST} bytes")
        return cls.from_bytes(content, path)

    def scaled(self, y):
        """Scaled labels of labels y (..., K) in the order of the model."""
        return (turn(y, self._turned) - self.offset) / self.scale

    def unscaled(self, x):
        """Labels (..., K) in their own units, of scaled labels x (..., K)."""
        return turn(x * self.scale + self.offset, self._turned)

    def units(self, x):
        """How much labels change with scaled labels, at x (..., K): derivatives (..., K) in units of the labels."""
        return np.where(self._turned, -(self.unscaled(x) ** 2) / 5040, 1.0) * self.scale

    def coefficients(self, modes=None):
        """θ (L, T), with the modes as further columns."""
        if modes is None:
            return self.theta
        if not np.array_equal(modes["wavelength"].values, self.wavelength):
            raise ValueError("the modes are not on the wavelengths of the model: learn them with this model")
        return np.hstack([self.theta, modes.transpose("wavelength", "mode").values])

    @property
    def _turned(self):
        return np.array([name in self.reciprocal for name in self.labels])

    def _checked(self, labels, warn=True):
        """Index and scaled labels (n, K) of a DataFrame; a warning names stars outside the training set."""
        table = labels.to_frame().T if isinstance(labels, pd.Series) else labels
        missing = [name for name in self.labels if name not in table]
        if missing:
            raise ValueError(f"the model needs the labels {', '.join(self.labels)}; missing: {', '.join(missing)}")
        y = table[list(self.labels)].to_numpy(float)
        bad = ~(np.isfinite(y) & ((y > 0) | ~self._turned)).all(axis=1)
        if bad.any():
            raise ValueError(f"labels must be finite, temperatures positive; not so for {some(table.index[bad])}")
        x = self.scaled(y)
        outside = self._outside(x)
        if warn and outside.any():
            names = some(table.index[outside])
            warnings.warn(f"the model extrapolates: the labels of {names} lie outside its training set", stacklevel=3)
        return table.index, x

    def _distance(self, x):
        """Mahalanobis distance of scaled labels x (n, K) from the training set."""
        inverse = np.linalg.inv(np.cov(self.examples.T).reshape(2 * x.shape[-1:]))
        return np.sqrt(np.einsum("nk,kl,nl->n", x, inverse, x))

    def _outside(self, x):
        """Whether scaled labels x (n, K) lie further from the training set than any of its stars."""
        return self._distance(x) > self._distance(self.examples).max()

    def _forms(self, spectra, modes, chunk=CHUNK):
        """The quadratic forms of `chunk` stars at a time."""
        spectra = by_star(spectra)
        if not spectra.sizes["star"]:
            raise ValueError("there is no star in these spectra")
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError("the spectra are not on the wavelengths of the model: normalize them on the same grid")
        for *form, n_pixels in quadratic_forms(self.coefficients(modes), self.s2, chunks(spectra, chunk)):
            yield *(form if modes is None else marginalize(*form, self.theta.shape[1])[:3]), n_pixels


def ridge_scores(spectra, labels, degree=3, ridges=(0, 1e-5, 1e-4, 1e-3, 1e-2), folds=4, seed=17, **options):
    """How well models of different ridges predict spectra that they have not seen: Series indexed by ridge.

    The training set is divided into `folds` groups of stars; each group is predicted from its labels by a model of the
    others. The score is the mean log-likelihood of a star; take the ridge where it is highest (`.idxmax()`).
    """
    groups, scores = (
        split_by_star(labels.index, seed, parts=[1] * folds),
        pd.Series(0.0, pd.Index(ridges, name="ridge")),
    )
    for group in groups:
        rest, test = labels.drop(group), by_star(spectra.sel(star=group))
        for ridge in ridges:
            model = Cannon.train(spectra.sel(star=rest.index), rest, degree, ridge, **options)
            x = model.scaled(labels.loc[group].to_numpy(float))
            scores[ridge] += model.likelihood(test, x)[2].sum() / len(labels)
    return scores
