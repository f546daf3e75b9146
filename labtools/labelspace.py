"""The labels of a model: their scaling, and the region that its training set covers."""

import warnings

import numpy as np
import pandas as pd

__all__ = ["LabelSpace", "finite", "some", "turn"]


class LabelSpace:
    """What a model with `labels`, `offset`, `scale`, `examples` and `reciprocal` (see `Cannon`) knows of labels."""

    def scaled(self, y):
        """Scaled labels of labels y (..., K) in the order of the model."""
        return (turn(y, self._turned) - self.offset) / self.scale

    def unscaled(self, x):
        """Labels (..., K) in their own units, of scaled labels x (..., K)."""
        return turn(x * self.scale + self.offset, self._turned)

    def units(self, x):
        """How much labels change with scaled labels, at x (..., K): derivatives (..., K) in units of the labels."""
        return np.where(self._turned, -(self.unscaled(x) ** 2) / 5040, 1.0) * self.scale

    def distance(self, labels):
        """Mahalanobis distance of labels (DataFrame) from the training set: Series indexed by star."""
        stars, x = self._checked(labels, warn=False)
        return pd.Series(self._distance(x), stars, name="distance")

    def extrapolates(self, labels):
        """Whether labels lie further from the training set than any of its stars: boolean Series indexed by star."""
        stars, x = self._checked(labels, warn=False)
        return pd.Series(self._outside(x), stars, name="extrapolated")

    @property
    def _turned(self):
        return np.isin(self.labels, self.reciprocal)

    def _checked(self, labels, warn=True):
        """Index and scaled labels (n, K) of a DataFrame; a warning names stars outside the training set."""
        table = labels.to_frame().T if isinstance(labels, pd.Series) else labels
        if missing := [name for name in self.labels if name not in table]:
            raise ValueError(
                f"the model needs the labels {', '.join(self.labels)}; missing: {', '.join(missing)}"
            )
        x = self.scaled(finite(table[list(self.labels)], self._turned))
        outside = self._outside(x)
        if warn and outside.any():
            names = some(table.index[outside])
            warnings.warn(
                f"the model extrapolates: the labels of {names} lie outside its training set",
                stacklevel=3,
            )
        return table.index, x

    def _distance(self, x):
        inverse = np.linalg.inv(np.atleast_2d(np.cov(self.examples.T)))
        return np.sqrt(np.einsum("nk,kl,nl->n", x, inverse, x))

    def _outside(self, x):
        return self._distance(x) > self._distance(self.examples).max()


def turn(values, turned):
    """5040 / value where a label is `turned`, the value elsewhere; twice it is the value again."""
    return np.where(turned, 5040 / np.where(turned, values, 1), values)


def finite(table, turned, filler=-np.inf):
    """Labels (N, K) of a DataFrame; ValueError if one is not finite, up to a filler, or turned and not positive."""
    y = table.to_numpy(float)
    bad = ~(np.isfinite(y) & (y > np.where(turned, 0, filler))).all(axis=1)
    if bad.any():
        allowed = (
            "finite, temperatures positive"
            if np.isinf(filler)
            else "finite, no fillers, temperatures positive"
        )
        raise ValueError(f"labels must be {allowed}; not so for {some(table.index[bad])}")
    return y


def some(stars):
    """The names of stars, of many the first five, for a message."""
    names = ", ".join(map(str, stars[:5]))
    return f"{len(stars)} stars ({names}, ...)" if len(stars) > 5 else names
