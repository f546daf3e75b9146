"""The Cannon (Ness et al. 2015, ApJ 808, 16): spectra as quadratic functions of labels, learned from examples.

At every wavelength the flux of a star with K labels is f = v·θ + noise, where the design vector v holds 1, the
scaled labels and all their products (T = 1 + K + K(K+1)/2 terms), and the variance of the noise is σ² + s²: the
error of that pixel and an intrinsic scatter of the model.
"""

import io
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from labtools.cache import writing
from labtools.errors import BadFile
from labtools.quadratic import (
    about_the_mean,
    chi_square,
    departure,
    design,
    design_slopes,
    maximize_pixels,
    minimize,
    slope_and_curvature,
    symmetric,
)

__all__ = ["Cannon", "design", "design_slopes"]


@dataclass(frozen=True, eq=False, repr=False)
class Cannon:
    """A trained model.

    labels : names of the K labels.
    offset, scale : (K,) so that the scaled label is (label - offset) / scale.
    wavelength : (L,) Angstrom.
    theta : (L, T) coefficients of the design vector; 1, 0, 0, ... where a pixel could not be trained.
    s2 : (L,) variance of the intrinsic scatter; infinite where a pixel could not be trained.
    examples : (N, K) scaled labels of the training set: starting points, and the region where the model holds.
    """

    labels: tuple
    offset: np.ndarray
    scale: np.ndarray
    wavelength: np.ndarray
    theta: np.ndarray
    s2: np.ndarray
    examples: np.ndarray

    def __repr__(self):
        trained = np.isfinite(self.s2).sum()
        return (
            f"Cannon({', '.join(self.labels)}; {self.theta.shape[1]} terms, {trained} of {self.s2.size} pixels, "
            f"{len(self.examples)} training stars)"
        )

    @classmethod
    def train(cls, spectra, labels):
        """Fit coefficients and scatter of every pixel by maximum likelihood (Ness et al. 2015, eq. 7-8).

        For a given s² the coefficients are weighted least squares; for given coefficients the likelihood has one
        dimension, ln s², and an analytic slope ½ Σ s²(w²r² - w) with w = 1/(σ²+s²). The two steps are repeated,
        for all pixels at once, until s² stands still.

        Parameters
        ----------
        spectra : Dataset, normalized `flux` and `error` (star, wavelength); error = inf leaves a pixel out.
        labels : DataFrame indexed like `star`, one column a label, any number of labels, in any units.

        Raises
        ------
        ValueError if labels are missing, not finite, constant or linearly dependent, if there are fewer than twice
        as many stars as coefficients, or if a star has no usable pixel.
        """
        y = _aligned_labels(spectra, labels)
        offset, scale = y.mean(axis=0), y.std(axis=0)
        x = (y - offset) / np.where(scale > 0, scale, 1)
        v = design(x)
        _check_training(spectra, labels.columns, x, v, scale)
        flux, variance = _flux_and_variance(spectra)
        theta, s2 = maximize_pixels(v, flux, variance)
        return cls(tuple(labels.columns), offset, scale, spectra.wavelength.values.astype(float), theta, s2, x)

    def predict(self, labels):
        """Model flux, DataArray (star, wavelength), for the stars of a DataFrame with a column for each label."""
        flux = design(self._scaled(labels)) @ self.theta.T
        return xr.DataArray(flux, coords={"star": labels.index.values, "wavelength": self.wavelength})

    def gradient(self, labels):
        """Derivative of the model flux, DataArray (star, label, wavelength), per unit of each label."""
        slopes = design_slopes(self._scaled(labels)) / self.scale
        return xr.DataArray(
            np.einsum("ntk,lt->nkl", slopes, self.theta, optimize=True),
            coords={"star": labels.index.values, "label": list(self.labels), "wavelength": self.wavelength},
        )

    def quadratic_form(self, spectra, chunk=500):
        """The likelihood of each star as a quadratic form of its design vector v: χ² = vᵀAv - 2bᵀv + c.

        It is exact, because the weights 1/(σ²+s²) do not depend on the labels.

        Returns
        -------
        A (star, T, T), b (star, T), c (star,), and the number of pixels that count (star,).
        """
        if not spectra.sizes["star"]:
            raise ValueError("there is no star in these spectra")
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError("the spectra are not on the wavelengths of the model: normalize them on the same grid")
        i, j = np.triu_indices(self.theta.shape[1])
        products = self.theta[:, i] * self.theta[:, j]
        parts = []
        for start in range(0, spectra.sizes["star"], chunk):
            flux, variance = _flux_and_variance(spectra.isel(star=slice(start, start + chunk)))
            weight = 1 / (variance + self.s2)
            weighted = weight * flux
            a = symmetric(weight @ products, i, j)
            parts.append((a, weighted @ self.theta, np.vecdot(weighted, flux), np.count_nonzero(weight, axis=1)))
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def fit(self, spectra, starts=3):
        """Labels of stars, by least squares.

        All stars are fitted together by damped Newton steps on their quadratic forms. To keep out of local minima each
        star starts from `starts` places: the training stars whose model spectra fit it best, the second and later ones
        at least one standard deviation away from those before.

        Returns
        -------
        DataFrame indexed by star: the labels, `<label>_err` (from the curvature of χ²), `chi2`, `n_pixels`,
        `converged` (the slope of χ² vanished), `agree` (how many starts ended in the same minimum) and
        `extrapolated` (the labels lie further from the training set than any of its stars, by Mahalanobis distance).
        A star without a usable pixel has NaN labels and converged = False.

        Raises
        ------
        ValueError if the wavelengths differ from the model's or no star has a usable pixel.
        """
        a, b, c, n_pixels = self.quadratic_form(spectra)
        usable = n_pixels > len(self.labels)
        if not usable.any():
            raise ValueError(f"no usable pixel in {_some(spectra.star.values)}: nothing to fit")
        if not usable.all():
            names = _some(spectra.star.values[~usable])
            warnings.warn(f"no usable pixel in {names}: their labels are NaN", stacklevel=2)
        a, b, c = about_the_mean(a[usable], b[usable], c[usable])
        trials = np.stack([minimize(a, b, c, x) for x in self._starting_points(a, b, c, starts)])
        chi2 = np.stack([chi_square(a, b, c, x) for x in trials])
        best = np.argmin(chi2, axis=0)
        x = trials[best, np.arange(len(best))]
        result = self._table(x, *slope_and_curvature(a, b, x))
        result.insert(2 * len(self.labels), "chi2", chi2.min(axis=0))
        result.insert(2 * len(self.labels) + 1, "n_pixels", n_pixels[usable])
        result["agree"] = (chi2 - chi2.min(axis=0) < 1e-3).sum(axis=0)
        result["extrapolated"] = self._distance(x) > self._distance(self.examples).max()
        result.index = pd.Index(spectra.star.values[usable], name="star")
        flags = {"n_pixels": 0, "converged": False, "agree": 0, "extrapolated": False}
        types = result.dtypes[list(flags)]
        return result.reindex(spectra.star.values).fillna(flags).astype(types).rename_axis("star")

    def to_bytes(self):
        """The model as the content of an .npz file."""
        file = io.BytesIO()
        np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content, source="this file"):
        """The model that `to_bytes` wrote; BadFile, naming the `source`, if it is something else or damaged."""
        names = [field.name for field in fields(cls)]
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                if set(file.files) != set(names):
                    raise ValueError(f"it holds {sorted(file.files)}, not {sorted(names)}")
                parts = {name: file[name] for name in names}
            _check_shapes(**parts)
        except Exception as fault:  # numpy and zipfile raise many kinds on damaged files
            raise BadFile(f"{source} is no trained Cannon: {fault}") from fault
        return cls(**parts | {"labels": tuple(map(str, parts["labels"]))})

    def save(self, path):
        """Write the model to one .npz file, which appears whole or not at all."""
        with writing(path) as part:
            part.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote; BadFile if the file holds something else."""
        return cls.from_bytes(Path(path).read_bytes(), path)

    def _scaled(self, labels):
        missing = [name for name in self.labels if name not in labels]
        if missing:
            raise ValueError(f"the model needs the labels {', '.join(self.labels)}; missing: {', '.join(missing)}")
        y = labels[list(self.labels)].to_numpy(float)
        if not np.isfinite(y).all():
            raise ValueError(
                f"labels must be finite; they are not for {_some(labels.index[~np.isfinite(y).all(axis=1)])}"
            )
        return (y - self.offset) / self.scale

    def _distance(self, x):
        """Mahalanobis distance of scaled labels x (n, K) from the training set."""
        inverse = np.linalg.inv(np.cov(self.examples.T).reshape(2 * x.shape[-1:]))
        return np.sqrt(np.einsum("nk,kl,nl->n", x, inverse, x))

    def _starting_points(self, a, b, c, number):
        """Scaled labels (number, star, K) of training stars that fit best and differ from one another."""
        v = departure(self.examples)
        i, j = np.triu_indices(v.shape[1])
        twice = np.where(i == j, 1.0, 2.0)
        score = a[:, i, j] @ (v[:, i] * v[:, j] * twice).T - 2 * b @ v.T + c[:, None]
        points = []
        for _ in range(number):
            points.append(self.examples[np.argmin(score, axis=1)])
            near = np.linalg.norm(self.examples - points[-1][:, None], axis=-1) < 1
            score = np.where(near, np.inf, score)
        return points

    def _table(self, x, slope, curvature):
        covariance = np.linalg.pinv(curvature, hermitian=True)
        errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)) * self.scale
        step = np.einsum("nk,nkl,nl->n", slope, covariance, slope)
        values = np.concatenate([x * self.scale + self.offset, errors], axis=1)
        table = pd.DataFrame(values, columns=[*self.labels, *(f"{name}_err" for name in self.labels)])
        return table.assign(converged=step < 1e-6)


def _check_shapes(labels, offset, scale, wavelength, theta, s2, examples):
    """ValueError unless the arrays of a model fit together and hold numbers."""
    k, pixels = labels.size, wavelength.size
    shapes = {"offset": (k,), "scale": (k,), "theta": (pixels, 1 + k + k * (k + 1) // 2), "s2": (pixels,)}
    arrays = {"offset": offset, "scale": scale, "theta": theta, "s2": s2}
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape]
    if labels.dtype.kind != "U" or labels.ndim != 1 or wavelength.ndim != 1 or wrong:
        raise ValueError(f"the shapes of {', '.join(wrong) or 'its arrays'} do not fit {k} labels and {pixels} pixels")
    if examples.ndim != 2 or examples.shape[1] != k or len(examples) == 0:
        raise ValueError(f"its examples have the shape {examples.shape}")
    finite = (offset, scale, wavelength, theta, examples)
    if any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in finite) or not (scale > 0).all():
        raise ValueError("a number in it is not finite, or a scale not positive")


def _aligned_labels(spectra, labels):
    """Labels (N, K) in the order of the spectra's stars."""
    stars = pd.Index(spectra.star.values)
    if not labels.index.is_unique or not stars.is_unique:
        twice = stars[stars.duplicated()].append(labels.index[labels.index.duplicated()])
        raise ValueError(f"every star must occur once; repeated: {_some(twice)}")
    missing = stars.difference(labels.index)
    if len(missing):
        raise ValueError(f"no labels for {_some(missing)}")
    y = labels.loc[stars].to_numpy(float)
    if not np.isfinite(y).all():
        raise ValueError(f"labels must be finite; they are not for {_some(stars[~np.isfinite(y).all(axis=1)])}")
    return y


def _check_training(spectra, names, x, v, scale):
    if v.shape[0] < 2 * v.shape[1]:
        raise ValueError(f"{v.shape[0]} stars are too few to train {v.shape[1]} coefficients a pixel")
    if (scale == 0).any():
        raise ValueError(f"these labels are the same for all stars: {', '.join(np.array(names)[scale == 0])}")
    if np.linalg.matrix_rank(np.column_stack([np.ones(len(x)), x]), tol=1e-6 * np.sqrt(len(x))) <= x.shape[1]:
        raise ValueError(f"the labels {', '.join(names)} are linearly dependent: leave one out")
    blind = ~np.isfinite(spectra.error.values).any(axis=1)
    if blind.any():
        raise ValueError(f"no usable pixel in {_some(spectra.star.values[blind])}: leave these stars out")


def _flux_and_variance(spectra):
    """Flux and σ² (star, wavelength), float64; flux 0 and σ² infinite where a pixel must not count."""
    flux, error = spectra.flux.values.astype(float), spectra.error.values.astype(float)
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    return np.where(good, flux, 0.0), np.where(good, error, np.inf) ** 2


def _some(stars):
    names = ", ".join(map(str, stars[:5]))
    return f"{len(stars)} stars ({names}, ...)" if len(stars) > 5 else names
