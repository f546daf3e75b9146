"""StarNet: a small convolutional network from spectra to labels (Fabbro et al. 2018, MNRAS 475, 2978)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from labtools.cache import writing

__all__ = ["ARCHITECTURES", "SmallNet", "StarNet", "TrainedNet", "scores", "split_stars"]


class StarNet(nn.Module):
    """Two convolutions, max pooling and two dense layers: (batch, pixels) -> (batch, outputs).

    The sizes are those of the JWST project's network: 8192 pixels and 3 outputs make 8,406,327 parameters.
    """

    def __init__(self, pixels, outputs, filters=(4, 16), length=8, pool=4, dense=(256, 128)):
        super().__init__()
        left = (pixels - 2 * (length - 1)) // pool
        if left < 1:
            raise ValueError(f"{pixels} pixels are too few for filters of {length} and a pool of {pool}")
        self.layers = nn.Sequential(
            nn.Conv1d(1, filters[0], length), nn.ELU(),
            nn.Conv1d(filters[0], filters[1], length), nn.ELU(),
            nn.MaxPool1d(pool), nn.Flatten(),
            nn.Linear(filters[1] * left, dense[0]), nn.ELU(),
            nn.Linear(dense[0], dense[1]), nn.ELU(),
            nn.Linear(dense[1], outputs),
        )  # fmt: skip

    def forward(self, flux):
        return self.layers(flux.reshape(len(flux), 1, -1))


class SmallNet(nn.Module):
    """A network that keeps absorption lines in place: one strided convolution, no pooling, one dense layer.

    A direct linear path goes with it: over a small range labels are nearly linear in the flux, and the rest
    has only to learn the curvature.
    """

    def __init__(self, pixels, outputs, filters=8, length=16, stride=8, dense=64):
        super().__init__()
        left = (pixels - length) // stride + 1
        if left < 1:
            raise ValueError(f"{pixels} pixels are too few for a filter of {length}")
        self.linear = nn.Linear(pixels, outputs)
        self.layers = nn.Sequential(
            nn.Conv1d(1, filters, length, stride), nn.ELU(), nn.Flatten(),
            nn.Linear(filters * left, dense), nn.ELU(), nn.Linear(dense, outputs),
        )  # fmt: skip
        nn.init.zeros_(self.linear.weight)

    def forward(self, flux):
        return self.linear(flux) / flux.shape[1] ** 0.5 + self.layers(flux.reshape(len(flux), 1, -1))


ARCHITECTURES = {"StarNet": StarNet, "SmallNet": SmallNet}


@dataclass(frozen=True)
class TrainedNet:
    """A trained network, the scales of its input and output, and how the training went.

    labels : names of the labels, in the order of the outputs.
    wavelength : (pixels,) Angstrom.
    scale : arrays label_mean, label_std (labels,), flux_mean (pixels,) and flux_std (1,) of the training set.
    history : DataFrame, one row an epoch: training and validation loss, learning rate.
    errors : whether the network also predicts the logarithm of each label's variance.
    """

    network: nn.Module
    labels: tuple
    wavelength: np.ndarray
    scale: dict
    history: pd.DataFrame
    errors: bool = False

    def __repr__(self):
        name, count = type(self.network).__name__, sum(p.numel() for p in self.network.parameters())
        return f"<{name}: {self.wavelength.size} pixels -> {', '.join(self.labels)}; {count:,} parameters>"

    def predict(self, spectra):
        """Labels of spectra: DataFrame indexed by star, in the units of the training labels.

        A pixel with infinite error, or not finite, counts as a pixel of the mean training spectrum. With
        `errors` there is a column `<label>_err`, one standard deviation, for each label. Raises ValueError if
        the wavelengths are not those of the training set.
        """
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError("the spectra are on another wavelength grid than those the network was trained on")
        flux = to_inputs(spectra, self.scale)
        self.network.eval()
        device = next(self.network.parameters()).device
        with torch.no_grad():
            parts = [self.network(part.to(device)).cpu() for part in torch.split(flux, 512)]
        output = torch.cat(parts).double() if parts else torch.empty(0, 2 * len(self.labels)).double()
        count = len(self.labels)
        table = output[:, :count].numpy() * self.scale["label_std"] + self.scale["label_mean"]
        table = pd.DataFrame(table, index=pd.Index(spectra.star.values, name="star"), columns=list(self.labels))
        if self.errors:
            sigma = np.exp(0.5 * log_variance(output[:, count:]).numpy()) * self.scale["label_std"]
            table[[f"{label}_err" for label in self.labels]] = sigma
        return table

    def save(self, path):
        """Write the network to a file that holds tensors, numbers and strings, no objects."""
        content = {
            "architecture": type(self.network).__name__,
            "labels": list(self.labels),
            "wavelength": torch.tensor(self.wavelength),
            "scale": {name: torch.tensor(value) for name, value in self.scale.items()},
            "history": {name: self.history[name].tolist() for name in self.history},
            "errors": self.errors,
            "weights": {name: value.cpu() for name, value in self.network.state_dict().items()},
        }
        write(content, path)

    @classmethod
    def load(cls, path):
        """Read what `save` wrote. Nothing is unpickled but tensors, numbers and strings.

        Raises ValueError if the file is no saved network.
        """
        content = read(path)
        missing = {"architecture", "labels", "wavelength", "scale", "history", "errors", "weights"} - set(content)
        if missing or content["architecture"] not in ARCHITECTURES:
            raise ValueError(f"{Path(path).name} holds no network that this version knows")
        outputs = len(content["labels"]) * (2 if content["errors"] else 1)
        network = ARCHITECTURES[content["architecture"]](len(content["wavelength"]), outputs)
        try:
            network.load_state_dict(content["weights"])
        except RuntimeError as fault:
            raise ValueError(f"{Path(path).name}: weights do not fit {content['architecture']}: {fault}") from None
        scale = {name: value.numpy() for name, value in content["scale"].items()}
        history = pd.DataFrame(content["history"]).rename_axis("epoch")
        labels = tuple(content["labels"])
        return cls(network, labels, content["wavelength"].numpy(), scale, history, content["errors"])


def log_variance(output):
    """What a network says of the variance of a scaled label, kept between e^-9 and e^9 without a corner."""
    return 9 * torch.tanh(output / 9)


def split_stars(stars, seed, parts=(5, 1, 2)):
    """Random groups of stars in the ratio of `parts` (training, validation, test): a list of Index objects.

    All entries of one star fall into the same group; the groups keep the order of `stars`.
    """
    stars = pd.Index(stars)
    distinct = np.random.default_rng(seed).permutation(stars.unique().sort_values())
    edges = np.round(np.cumsum(parts)[:-1] / np.sum(parts) * len(distinct)).astype(int)
    return [stars[stars.isin(group)] for group in np.split(distinct, edges)]


def scores(predicted, true):
    """How good predictions are: one row a label: rmse, bias (mean), median, scatter (1.4826 MAD), R2.

    `predicted` and `true` are DataFrames; the columns and stars of `predicted` count (columns `*_err` aside).
    """
    labels = [name for name in predicted if name in true and not name.endswith("_err")]
    truth = true.loc[predicted.index, labels]
    difference = predicted[labels] - truth
    spread = 1.4826 * (difference - difference.median()).abs().median()
    r2 = 1 - (difference**2).sum() / ((truth - truth.mean()) ** 2).sum()
    return pd.DataFrame(
        {"rmse": (difference**2).mean() ** 0.5, "bias": difference.mean(), "median": difference.median(),
         "scatter": spread, "R2": r2}
    )  # fmt: skip


def _usable(spectra):
    """Flux (star, pixel), float32, NaN where a pixel must not count."""
    flux = spectra.flux.values.astype(np.float32)
    if "error" in spectra:
        flux[~np.isfinite(spectra.error.values)] = np.nan
    flux[~np.isfinite(flux)] = np.nan
    return flux


def scales(spectra, labels):
    flux, values = _usable(spectra), labels.loc[spectra.star.values].to_numpy(float)
    seen = np.isfinite(flux).sum(axis=0)
    mean = np.where(seen > 0, np.nansum(flux, axis=0, dtype=float) / np.maximum(seen, 1), 1.0)
    std = np.sqrt(np.nanmean((flux - mean.astype(np.float32)) ** 2, dtype=float))
    spread = values.std(axis=0)
    return {
        "label_mean": values.mean(axis=0),
        "label_std": np.where(spread > 0, spread, 1.0),
        "flux_mean": mean.astype(np.float32),
        "flux_std": np.array([std if std > 0 else 1.0]),
    }


def to_inputs(spectra, scale):
    """Tensor (star, pixel): flux minus the mean training spectrum, over one number; 0 for a bad pixel."""
    scaled = (_usable(spectra) - scale["flux_mean"]) / np.float32(scale["flux_std"][0])
    return torch.from_numpy(np.nan_to_num(scaled, copy=False, nan=0.0))


def to_targets(spectra, labels, names, scale):
    values = labels.loc[spectra.star.values, list(names)].to_numpy(float)
    return torch.from_numpy(((values - scale["label_mean"]) / scale["label_std"]).astype(np.float32))


def write(content, path):
    """Save tensors, numbers and strings; the file appears whole or not at all."""
    with writing(path) as part:
        torch.save(content, part)


def read(path):
    """What `write` wrote; anything but tensors, numbers and strings is refused (`weights_only`)."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise
    except Exception as fault:
        raise ValueError(f"{Path(path).name} is no file of a saved network: {fault}".splitlines()[0]) from None
    if not isinstance(content, dict):
        raise ValueError(f"{Path(path).name} is no file of a saved network")
    return content
