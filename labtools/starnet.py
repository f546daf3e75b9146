"""StarNet: a small convolutional network from spectra to labels (Fabbro et al. 2018, MNRAS 475, 2978)."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from labtools.selection import bias_and_scatter

__all__ = ["ARCHITECTURES", "SmallNet", "StarNet", "TrainedNet", "scores"]


class Conv1d(nn.Conv1d):
    """`nn.Conv1d` as an image with the channels last: the same numbers, a third sooner on a processor."""

    def forward(self, flux):
        image, weight = (
            flux.unsqueeze(2).contiguous(memory_format=torch.channels_last),
            self.weight.unsqueeze(2),
        )
        return nn.functional.conv2d(image, weight, self.bias, (1, *self.stride)).squeeze(2)


class StarNet(nn.Module):
    """Two convolutions, max pooling and two dense layers: (batch, pixels) -> (batch, outputs).

    The sizes are those of the JWST project's network: 8192 pixels and 3 outputs make 8,406,327 parameters. Pooling
    comes before the ELU: as that function only grows, the result is the same, for a quarter of the work.
    """

    def __init__(self, pixels, outputs, filters=(4, 16), length=8, pool=4, dense=(256, 128)):
        super().__init__()
        left = (pixels - 2 * (length - 1)) // pool
        if left < 1:
            raise ValueError(
                f"{pixels} pixels are too few for filters of {length} and a pool of {pool}"
            )
        self.layers = nn.Sequential(
            Conv1d(1, filters[0], length), nn.ELU(),
            Conv1d(filters[0], filters[1], length), nn.MaxPool1d(pool), nn.ELU(), nn.Flatten(),
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
        return self.linear(flux) / flux.shape[1] ** 0.5 + self.layers(
            flux.reshape(len(flux), 1, -1)
        )


ARCHITECTURES = {"StarNet": StarNet, "SmallNet": SmallNet}


def device():
    """Where networks are trained and asked: on a graphics card, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def ask(network, inputs):
    """Outputs (star, label) of a network for inputs (star, pixel), some stars at a time."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(part.to(device())) for part in torch.split(inputs, 512)])


@dataclass(frozen=True)
class TrainedNet:
    """A trained network, the scales of its input and output, and how the training went.

    labels : names of the labels, in the order of the outputs.
    wavelength : (pixels,) Angstrom.
    scale : arrays label_mean, label_std (labels,), flux_mean (pixels,) and flux_std (1,) of the training set.
    history : DataFrame, one row an epoch: training and validation loss, learning rate.
    """

    network: nn.Module
    labels: tuple
    wavelength: np.ndarray
    scale: dict
    history: pd.DataFrame

    @property
    def parameters(self):
        """Number of trained numbers."""
        return sum(weights.numel() for weights in self.network.parameters())

    @property
    def loss(self):
        """Validation loss of the epoch whose weights were kept."""
        return self.history.validation.min()

    def __repr__(self):
        name = type(self.network).__name__
        return f"<{name}: {self.wavelength.size} pixels -> {', '.join(self.labels)}; {self.parameters:,} parameters>"

    def predict(self, spectra):
        """Labels of spectra: DataFrame indexed by star, in the units of the training labels.

        A pixel with infinite error, or not finite, counts as a pixel of the mean training spectrum. Raises ValueError
        if the wavelengths are not those of the training set.
        """
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError(
                "the spectra are on another wavelength grid than those the network was trained on"
            )
        output = ask(self.network.to(device()), to_inputs(spectra, self.scale))
        values = output.double().cpu().numpy() * self.scale["label_std"] + self.scale["label_mean"]
        return pd.DataFrame(
            values, index=pd.Index(spectra.star.values, name="star"), columns=list(self.labels)
        )


def scores(predicted, true):
    """How good predictions are: one row a label: rmse, bias (mean), median, scatter (1.4826 MAD), R2.

    `predicted` and `true` are DataFrames; the stars of `predicted` and the columns that both have count.
    """
    labels = [name for name in predicted if name in true]
    truth = true.loc[predicted.index, labels]
    squares, variance = (predicted[labels] - truth) ** 2, (truth - truth.mean()) ** 2
    table = bias_and_scatter(predicted, true, labels).rename(
        columns={"mean": "bias", "1.4826 MAD": "scatter"}
    )
    table = table.assign(rmse=squares.mean() ** 0.5, R2=1 - squares.sum() / variance.sum())
    return table[["rmse", "bias", "median", "scatter", "R2"]]


def _usable(spectra):
    """Flux (star, pixel), float32, NaN where a pixel must not count."""
    flux = spectra.flux.values.astype(np.float32)
    good = np.isfinite(flux) & np.isfinite(spectra.error.values if "error" in spectra else 0)
    return np.where(good, flux, np.float32(np.nan))


def scales(spectra, labels):
    """Mean and standard deviation of the labels and of the flux of a training set (see `TrainedNet`)."""
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
    """Tensor (star, pixel): flux minus the mean training spectrum, over one number; 0 for a bad pixel.

    As with dropout, what is left of a spectrum is scaled up by the inverse of its share of good pixels.
    """
    scaled = (_usable(spectra) - scale["flux_mean"]) / np.float32(scale["flux_std"][0])
    share = np.isfinite(scaled).mean(axis=1, keepdims=True, dtype=np.float32)
    return torch.from_numpy(
        np.nan_to_num(scaled, copy=False, nan=0.0) / np.maximum(share, np.float32(0.05))
    )


def to_targets(spectra, labels, names, scale):
    """Tensor (star, label): labels less their mean, over their standard deviation."""
    values = labels.loc[spectra.star.values, list(names)].to_numpy(float)
    return torch.from_numpy(
        ((values - scale["label_mean"]) / scale["label_std"]).astype(np.float32)
    )
