"""The Cannon (Ness et al. 2015, ApJ 808, 16): spectra as polynomials of labels, learned from examples.

At every wavelength the flux of a star with K labels is f = v·θ + noise, where the design vector v holds 1, the
scaled labels and all their products (for a quadratic model T = 1 + K + K(K+1)/2 terms), and the variance of the noise
is σ² + s²: the error of that pixel and an intrinsic scatter of the model.
"""

import io
import warnings
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive import npz
from apogee_archive.cache import atomic_write
from apogee_archive.errors import wrap_read_errors
from labtools.labelspace import LabelSpace, some
from labtools.quadratic import design, design_slopes, fit_forms, joined, quadratic_forms, spread_out
from labtools.selection import split_by_star
from labtools.spectra import by_star
from labtools.trainer import (
    CHUNK,
    check_normalized,
    chunks,
    fault_of,
    maximize_pixels,
    standardized,
)

__all__ = ["Cannon", "design", "design_slopes", "ridge_scores"]

LARGEST = 1 << 30  # bytes of a model that are read


@dataclass(frozen=True, eq=False, repr=False)
class Cannon(LabelSpace):
    """A trained model.

    labels : names of the K labels.
    offset, scale : (K,); a scaled label is (label - offset) / scale, with 5040 / label for those in `reciprocal`.
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
        names = ", ".join(
            f"5040/{name}" if name in self.reciprocal else name for name in self.labels
        )
        pixels = f"{np.isfinite(self.s2).sum()} of {self.s2.size} pixels"
        return f"Cannon({names}; {self.theta.shape[1]} terms, {pixels}, {len(self.examples)} training stars)"

    @classmethod
    def train(cls, spectra, labels, degree=2, ridge=0.0, reciprocal=()):
        """Fit coefficients and scatter of every pixel by maximum likelihood (Ness et al. 2015, eq. 7-8).

        Each pixel is read once when it is trained, so that spectra on disk (dask, zarr) do.

        Parameters
        ----------
        spectra : Dataset, normalized `flux` and `error` (star, wavelength); error = inf leaves a pixel out.
        labels : DataFrame indexed like `star`, one column a label, any number of labels, in any units.
        degree : highest power of the labels: 1, 2 or 3.
        ridge : how strongly products of labels are held near 0, as a share of the data's weight (`ridge_scores`).
        reciprocal : labels that enter as 5040 / label, such as a temperature in K.

        Raises ValueError if labels are no numbers, missing, fillers, constant or linearly dependent, if stars are fewer
        than twice the coefficients, if one has no usable pixel, or if spectra are not normalized.
        """
        if degree not in (1, 2, 3) or not ridge >= 0:
            raise ValueError(
                f"degree must be 1, 2 or 3 and ridge not negative; they are {degree} and {ridge}"
            )
        spectra = by_star(spectra)
        x, offset, scale = standardized(spectra.star.values, labels, degree, reciprocal)
        check_normalized(spectra)
        v = design(x, degree)
        theta, s2 = maximize_pixels(
            v, spectra, penalty=ridge * (np.arange(v.shape[1]) > x.shape[1])
        )
        wavelength = spectra.wavelength.values.astype(float)
        return cls(
            tuple(labels), offset, scale, wavelength, theta, s2, x, degree, tuple(reciprocal)
        )

    def predict(self, labels):
        """Model flux, DataArray (star, wavelength), for a DataFrame with a column for each label, or one row of it.

        A warning names stars whose labels lie outside the training set.
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
            coords={
                "star": stars.values,
                "label": list(self.labels),
                "wavelength": self.wavelength,
            },
        )

    def likelihood(self, spectra, x0, modes=None):
        """The log-likelihood of each star near scaled labels x0 (star, K): ln L = constant + rᵀd - ½dᵀAd.

        Here d = v(x) - v(x0): no digits are lost to what all models have in common. With `modes` their amplitudes are
        integrated out. NaN in x0 counts as the mean star.
        Returns A (star, T, T), r (star, T), constant (star,).
        """
        spectra, v0, logs = by_star(spectra), design(np.nan_to_num(x0), self.degree), []

        def residuals():
            for v, (flux, variance) in zip(
                np.split(v0, range(CHUNK, len(v0), CHUNK)), chunks(spectra), strict=True
            ):
                total = variance + self.s2
                logs.append(
                    np.log(
                        2 * np.pi * total, where=np.isfinite(total), out=np.zeros_like(total)
                    ).sum(axis=1)
                )
                yield flux - v @ self.theta.T, variance

        a, r, c, more, _ = joined(
            quadratic_forms(self.coefficients(modes), self.s2, residuals(), v0.shape[1])
        )
        return a, r, -(c + (np.concatenate(logs) + more)) / 2

    def fit(self, spectra, starts=3, modes=None, covariance=False):
        """Labels of stars, by least squares: damped Newton steps on the quadratic forms of many stars together.

        Parameters
        ----------
        starts : from how many places each star starts, to keep out of local minima: the training stars, of a selection
            of 200, whose model spectra fit it best, each at least one standard deviation away from those before.
        modes : DataArray of `labtools.coverage.nuisance_components`: patterns of pixels that the fit does not trust.
        covariance : whether to return that of the labels too, DataArray (star, label, other).

        Returns
        -------
        DataFrame indexed by star: the labels, `<label>_err` (from the curvature of χ²), `chi2`, `n_pixels`,
        `converged` (the slope of χ² vanished), `agree` (how many starts ended in the same minimum) and
        `extrapolated` (see `extrapolates`). A star without a usable pixel has NaN labels and converged = False.
        Raises ValueError if the wavelengths differ from the model's or no star has a usable pixel.
        """
        stars, names, candidates = (
            by_star(spectra).star.values,
            list(self.labels),
            spread_out(self.examples),
        )
        forms = self._forms(spectra, modes)
        fits = joined(
            fit_forms(a, b, c, n, candidates, self.degree, starts) for a, b, c, _, n in forms
        )
        x, inverse, chi2, n_pixels, converged, agree = fits
        if not n_pixels.any():
            raise ValueError(f"no usable pixel in {some(stars)}: nothing to fit")
        if not n_pixels.all():
            warnings.warn(
                f"no usable pixel in {some(stars[n_pixels == 0])}: their labels are NaN",
                stacklevel=2,
            )
        units = self.units(x)
        covariances = inverse * units[:, :, None] * units[:, None]
        errors = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
        columns = [*names, *(f"{name}_err" for name in names)]
        table = pd.DataFrame(
            np.hstack([self.unscaled(x), errors]), pd.Index(stars, name="star"), columns
        )
        flags = {"converged": converged, "agree": agree, "extrapolated": self._outside(x)}
        table = table.assign(chi2=chi2, n_pixels=n_pixels, **flags)
        coords = {"star": stars, "label": names, "other": names}
        return (table, xr.DataArray(covariances, coords=coords)) if covariance else table

    def to_bytes(self):
        """The model as the content of an .npz file."""
        return npz.pack(**vars(self) | {"reciprocal": self._turned})

    @classmethod
    def from_bytes(cls, content, source="this file"):
        """The model that `to_bytes` wrote; CorruptFileError, naming the `source`, if it is something else or damaged."""
        with wrap_read_errors(source, "a trained Cannon"):
            parts = npz.arrays(io.BytesIO(content), min(len(content), LARGEST))
            if parts.keys() != {field.name for field in fields(cls)}:
                raise ValueError(f"it holds {', '.join(parts)}")
            if fault := fault_of(**parts):
                raise ValueError(fault)
        names = parts["labels"]
        texts = {
            "labels": tuple(names.tolist()),
            "reciprocal": tuple(names[parts["reciprocal"]].tolist()),
        }
        return cls(**parts | texts | {"degree": int(parts["degree"])})

    def save(self, path):
        """Write the model to one .npz file (see `apogee_archive.cache.atomic_write`)."""
        with atomic_write(path) as part:
            part.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path):
        """Read a model that `save` wrote; CorruptFileError if the file holds something else, or what an older version wrote."""
        with open(path, "rb") as file:
            return cls.from_bytes(file.read(LARGEST + 1), path)

    def coefficients(self, modes=None):
        """θ (L, T), with the modes as further columns."""
        if modes is None:
            return self.theta
        if not np.array_equal(modes["wavelength"].values, self.wavelength):
            raise ValueError(
                "the modes are not on the wavelengths of the model: learn them with this model"
            )
        return np.hstack([self.theta, modes.transpose("wavelength", "mode").values])

    def _forms(self, spectra, modes):
        """The quadratic forms of some stars at a time."""
        spectra = by_star(spectra)
        if not spectra.sizes["star"]:
            raise ValueError("there is no star in these spectra")
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError(
                "the spectra are not on the wavelengths of the model: normalize them on the same grid"
            )
        return quadratic_forms(
            self.coefficients(modes), self.s2, chunks(spectra), self.theta.shape[1]
        )


def ridge_scores(
    spectra, labels, degree=3, ridges=(0, 1e-5, 1e-4, 1e-3, 1e-2), folds=4, seed=17, **options
):
    """How well models of different ridges predict spectra that they have not seen: Series indexed by ridge.

    The training set is divided into `folds` groups of stars; each group is predicted from its labels by a model of the
    others. The score is the mean log-likelihood of a star; take the ridge where it is highest (`.idxmax()`).
    """
    scores = pd.Series(0.0, pd.Index(ridges, name="ridge"))
    for group in split_by_star(labels.index, seed, parts=[1] * folds):
        rest, test = labels.drop(group), by_star(spectra.sel(star=group))
        for ridge in ridges:
            model = Cannon.train(spectra.sel(star=rest.index), rest, degree, ridge, **options)
            x = model.scaled(labels.loc[group].to_numpy(float))
            scores[ridge] += model.likelihood(test, x)[2].sum() / len(labels)
    return scores
