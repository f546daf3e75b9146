"""StarNet: networks that read labels off a spectrum, and how they are trained.

In reading order: the two networks, the settings of a training, the training itself, the trained
network with its scales, and the scores by which it is judged. The network is that of Fabbro et al.
(2018, MNRAS 475, 2978).
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from apogee_archive.cache import atomic_write, hash_key
from labtools.selection import bias_and_scatter
from labtools.spectra import by_star

__all__ = [
    "ARCHITECTURES",
    "SmallNet",
    "StarNet",
    "TrainConfig",
    "TrainedNet",
    "augment",
    "count_parameters",
    "predict_batched",
    "scores",
    "should_stop",
    "train",
]

VERSION = 3  # raise it whenever the same data and settings give another network
SECONDS_BETWEEN_CHECKPOINTS = 10.0
MASK_BLOCK = 100  # neighbouring pixels that are masked together
SMALL_NETWORK = 2_000_000  # parameters up to which a second thread costs more than it brings


# ---------------------------------------------------------------------------------- networks


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d`, computed as a picture one pixel high with the channels last.

    The numbers are the same; on a processor this memory layout saves a third of the time.
    """

    def forward(self, flux: Tensor) -> Tensor:
        # (batch, channels, pixels) -> (batch, channels, 1, pixels), channels last in memory
        picture = flux.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        weight = self.weight.unsqueeze(2)
        return nn.functional.conv2d(picture, weight, self.bias, (1, *self.stride)).squeeze(2)


class StarNet(nn.Module):
    """Two convolutions, max pooling and two dense layers.

    The default sizes are those of the JWST project's network: for 8192 pixels and 3 outputs it has
    8,406,327 parameters.

    Parameters
    ----------
    pixels, outputs
        Number of pixels of a spectrum and number of labels.
    filters
        Number of filters of the first and of the second convolution.
    length
        Pixels per filter.
    pool
        Neighbouring pixels of which pooling keeps the largest.
    dense
        Nodes of the first and of the second dense layer.

    Raises
    ------
    ValueError
        If no pixel is left after convolution and pooling.

    References
    ----------
    Fabbro et al. (2018, MNRAS 475, 2978), section 2.

    Examples
    --------
    >>> network = StarNet(pixels=96, outputs=3)
    >>> network(torch.zeros(5, 96)).shape
    torch.Size([5, 3])
    >>> count_parameters(StarNet(8192, 3))
    8406327
    """

    def __init__(
        self,
        pixels: int,
        outputs: int,
        filters: Sequence[int] = (4, 16),
        length: int = 8,
        pool: int = 4,
        dense: Sequence[int] = (256, 128),
    ) -> None:
        super().__init__()
        pooled = (pixels - 2 * (length - 1)) // pool  # pixels that are left
        if pooled < 1:
            raise ValueError(
                f"{pixels} pixels are too few for filters of {length} and a pool of {pool}"
            )
        # Pooling comes before the ELU. The ELU only grows, so the largest value stays the largest:
        # the result is that of the published order, and the ELU has a quarter of the work.
        self.layers = nn.Sequential(
            Conv1d(1, filters[0], length), nn.ELU(),
            Conv1d(filters[0], filters[1], length), nn.MaxPool1d(pool), nn.ELU(), nn.Flatten(),
            nn.Linear(filters[1] * pooled, dense[0]), nn.ELU(),
            nn.Linear(dense[0], dense[1]), nn.ELU(),
            nn.Linear(dense[1], outputs),
        )  # fmt: skip

    def forward(self, flux: Tensor) -> Tensor:
        """Scaled labels of scaled spectra.

        Parameters
        ----------
        flux : Tensor (batch, pixels)

        Returns
        -------
        Tensor (batch, outputs)
        """
        return self.layers(flux.reshape(len(flux), 1, -1))  # one channel


class SmallNet(nn.Module):
    """A smaller network: one strided convolution, no pooling, one dense layer, and a linear path.

    Without pooling a line stays where it is. The linear path goes straight from the pixels to the
    outputs: over a small range labels are nearly linear in the flux, so that the layers beside it
    have only the curvature to learn.

    Parameters
    ----------
    pixels, outputs
        Number of pixels of a spectrum and number of labels.
    filters, length, stride
        Number of filters, pixels per filter, and pixels from one position of a filter to the next.
    dense
        Nodes of the dense layer.

    Raises
    ------
    ValueError
        If the spectrum is shorter than a filter.

    Examples
    --------
    >>> SmallNet(pixels=96, outputs=3)(torch.zeros(5, 96)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        pixels: int,
        outputs: int,
        filters: int = 8,
        length: int = 16,
        stride: int = 8,
        dense: int = 64,
    ) -> None:
        super().__init__()
        positions = (pixels - length) // stride + 1
        if positions < 1:
            raise ValueError(f"{pixels} pixels are too few for a filter of {length}")
        self.linear = nn.Linear(pixels, outputs)
        nn.init.zeros_(self.linear.weight)
        self.layers = nn.Sequential(
            nn.Conv1d(1, filters, length, stride), nn.ELU(), nn.Flatten(),
            nn.Linear(filters * positions, dense), nn.ELU(),
            nn.Linear(dense, outputs),
        )  # fmt: skip

    def forward(self, flux: Tensor) -> Tensor:
        """Scaled labels of scaled spectra.

        Parameters
        ----------
        flux : Tensor (batch, pixels)

        Returns
        -------
        Tensor (batch, outputs)
        """
        # Divided by the root of the number of pixels, the linear path learns as fast as the rest.
        straight = self.linear(flux) / flux.shape[1] ** 0.5
        return straight + self.layers(flux.reshape(len(flux), 1, -1))


ARCHITECTURES: dict[str, type[nn.Module]] = {"StarNet": StarNet, "SmallNet": SmallNet}


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters of a network.

    Parameters
    ----------
    network
        Any network.

    Examples
    --------
    >>> count_parameters(nn.Linear(10, 3))
    33
    """
    return sum(weights.numel() for weights in network.parameters())


def device() -> torch.device:
    """Where networks are trained and evaluated: on a graphics card, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict_batched(network: nn.Module, inputs: Tensor, batch_size: int = 512) -> Tensor:
    """Outputs of a network, some stars at a time.

    Parameters
    ----------
    network
        A network on `device()`.
    inputs : Tensor (star, pixel)
        As from `to_inputs`.
    batch_size
        Stars at a time.

    Returns
    -------
    Tensor (star, label)

    Examples
    --------
    >>> predict_batched(SmallNet(96, 3).to(device()), torch.zeros(1000, 96)).shape
    torch.Size([1000, 3])
    """
    network.eval()
    with torch.no_grad():
        parts = [network(part.to(device())) for part in torch.split(inputs, batch_size)]
    return torch.cat(parts)


# ---------------------------------------------------------------------------------- settings


@dataclass(frozen=True)
class TrainConfig:
    """The hyper-parameters of a training; the names are those of PyTorch.

    Parameters
    ----------
    seed
        Of the first weights, the order of the stars, the noise and the masks.
    batch_size
        Stars per step.
    lr, lr_step_size, gamma
        The learning rate of Adam at the start; every `lr_step_size` epochs it is multiplied by
        `gamma`, as by `torch.optim.lr_scheduler.StepLR`.
    epochs
        The largest number of passes over the training set. With 0 the network stays untrained.
    patience, min_delta
        Training stops early if the validation loss has fallen by less than `min_delta` in the last
        `patience` epochs.
    noise
        Standard deviation of noise that is added to the flux (in units of the flux).
    mask_fraction
        Share of the pixels that are masked, in blocks. The amounts of noise and masks are drawn
        between 0 and these limits, anew whenever a star is used.

    Raises
    ------
    ValueError
        If a number is out of its range, or not whole where it counts something.

    Examples
    --------
    >>> TrainConfig(epochs=12, lr=3e-3).batch_size
    64
    >>> TrainConfig(epochs=2.5)
    Traceback (most recent call last):
    ValueError: epochs must be a whole number of at least 0, not 2.5
    """

    seed: int = 42
    batch_size: int = 64
    lr: float = 1e-3
    lr_step_size: int = 5
    gamma: float = 0.1
    epochs: int = 20
    patience: int = 5
    min_delta: float = 1e-3
    noise: float = 0.0
    mask_fraction: float = 0.0

    def __post_init__(self) -> None:
        least = {"seed": 0, "batch_size": 1, "lr_step_size": 1, "epochs": 0, "patience": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if isinstance(value, bool) or int(value) != value or value < low:
                raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")
        allowed = {
            "lr": 0 < self.lr < np.inf,
            "gamma": 0 < self.gamma <= 1,
            "min_delta": 0 <= self.min_delta < np.inf,
            "noise": 0 <= self.noise < np.inf,
            "mask_fraction": 0 <= self.mask_fraction < 1,
        }
        for name, fine in allowed.items():
            if not fine:
                raise ValueError(f"{name} is out of range: {getattr(self, name)!r}")

    def learning_rate(self, epoch: int) -> float:
        """The learning rate of an epoch.

        Parameters
        ----------
        epoch
            Counted from 0.

        Examples
        --------
        >>> TrainConfig(lr=1e-3, lr_step_size=5, gamma=0.5).learning_rate(10)
        0.00025
        """
        return self.lr * self.gamma ** (epoch // self.lr_step_size)


def should_stop(losses: Sequence[float], patience: int, min_delta: float) -> bool:
    """Whether the last `patience` epochs have lowered the validation loss by less than `min_delta`.

    Parameters
    ----------
    losses
        Validation loss of each epoch so far.
    patience, min_delta
        See `TrainConfig`.

    Examples
    --------
    >>> should_stop([0.5, 0.1, 0.099, 0.098], patience=2, min_delta=0.01)
    True
    >>> should_stop([0.5, 0.1, 0.05, 0.02], patience=2, min_delta=0.01)
    False
    """
    before, recent = losses[:-patience], losses[-patience:]
    return len(before) > 0 and min(recent) > min(before) - min_delta


def augment(
    inputs: Tensor, noise: float, mask_fraction: float, generator: torch.Generator
) -> Tensor:
    """Scaled spectra as they are shown to a network in training: noisier, and with pixels lost.

    Each star gets its own amount of noise and of masks, drawn between 0 and the given limit.

    Parameters
    ----------
    inputs : Tensor (star, pixel)
        As from `to_inputs`.
    noise
        Largest standard deviation of the noise, in the units of `inputs`.
    mask_fraction
        Largest share of masked pixels. They are masked in blocks of 100 neighbours and become 0,
        the mean training spectrum; what is left is scaled up, as with dropout.
    generator
        Source of the random numbers, on the processor.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> augment(torch.ones(2, 300), 0.0, 0.0, generator).equal(torch.ones(2, 300))
    True
    """
    stars, pixels = inputs.shape
    if noise > 0:
        level = noise * torch.rand(stars, 1, generator=generator)
        inputs = inputs + (level * torch.randn(stars, pixels, generator=generator)).to(
            inputs.device
        )
    if mask_fraction > 0:
        share = mask_fraction * torch.rand(stars, 1, generator=generator)
        blocks = torch.rand(stars, pixels // MASK_BLOCK + 1, generator=generator) < share
        kept = 1 - blocks.repeat_interleave(MASK_BLOCK, dim=1)[:, :pixels].float()
        kept = kept / kept.mean(dim=1, keepdim=True).clamp(0.05)
        inputs = inputs * kept.to(inputs.device)
    return inputs


# ---------------------------------------------------------------------------------- training


def train(
    spectra: xr.Dataset,
    labels: pd.DataFrame,
    validation: xr.Dataset,
    validation_labels: pd.DataFrame,
    architecture: str = "StarNet",
    config: TrainConfig | None = None,
    checkpoint: str | Path | None = None,
    **sizes: int | Sequence[int],
) -> TrainedNet:
    """Train a network to predict labels from spectra.

    The loss is the mean squared error of the scaled labels, the optimizer is Adam. The network gets
    the weights of the epoch whose validation loss was lowest.

    Parameters
    ----------
    spectra : Dataset (star, wavelength)
        Training set: `flux` and, where there is one, `error`. A pixel with infinite error or a flux
        that is not finite counts as a pixel of the mean training spectrum.
    labels : DataFrame
        One row per star, one column per label.
    validation, validation_labels
        The same for the stars that decide when to stop and which epoch is kept.
    architecture
        "StarNet" or "SmallNet".
    config
        The hyper-parameters, see `TrainConfig`. The same ones give the same network on the same
        machine.
    checkpoint
        File (safetensors) that keeps the state every ten seconds. With the same data and
        hyper-parameters an interrupted training goes on from there, and a finished one is read
        from it. Any other file of that name is written over. If it cannot be written, a warning
        says so.
    **sizes
        Sizes of layers that differ from the default ones of the architecture.

    Returns
    -------
    TrainedNet

    Raises
    ------
    ValueError
        If labels are missing or not finite, the wavelengths of both sets differ, a set is empty,
        the architecture is unknown, or the loss is not finite.

    References
    ----------
    Kingma & Ba (2015), "Adam: a method for stochastic optimization", arXiv:1412.6980.

    Examples
    --------
    Forty stars whose only line is deeper the hotter they are:

    >>> rng = np.random.default_rng(0)
    >>> names = [f"star{n}" for n in range(40)]
    >>> labels = pd.DataFrame({"teff": rng.uniform(4000, 5000, 40)}, index=names)
    >>> flux = np.ones((40, 64))
    >>> flux[:, 30] -= labels.teff / 10000
    >>> spectra = xr.Dataset({"flux": (("star", "wavelength"), flux)},
    ...                      coords={"star": names, "wavelength": np.arange(15000, 15064)})
    >>> net = train(spectra, labels, spectra, labels, "SmallNet", TrainConfig(epochs=2))
    >>> net.predict(spectra).shape
    (40, 1)
    """
    config = config or TrainConfig()
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}")
    names = tuple(labels.columns)
    spectra, validation = by_star(spectra), by_star(validation)
    _check_set("training", spectra, labels, names)
    _check_set("validation", validation, validation_labels, names)
    if not np.array_equal(spectra.wavelength.values, validation.wavelength.values):
        raise ValueError("training and validation spectra are on different wavelength grids")

    scale = compute_scale(spectra, labels)
    arrays = (
        to_inputs(spectra, scale),
        to_targets(spectra, labels, names, scale),
        to_inputs(validation, scale),
        to_targets(validation, validation_labels, names, scale),
    )
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    with torch.random.fork_rng():  # whoever draws random numbers beside us is not disturbed
        torch.manual_seed(config.seed)
        network = ARCHITECTURES[architecture](spectra.sizes["wavelength"], len(names), **sizes)
    network = network.to(device())

    # All that decides what comes out: a checkpoint with another key belongs to another training.
    key = hash_key(
        VERSION, architecture, *sorted(sizes.items()), *astuple(config),
        *(tensor.numpy() for tensor in arrays),
    )  # fmt: skip
    noise = float(config.noise / scale["flux_std"][0])
    training = _Training(network, config, noise, key, Path(checkpoint) if checkpoint else None)
    with _limit_threads(1 if count_parameters(network) < SMALL_NETWORK else 4):
        training.run(*(tensor.to(device()) for tensor in arrays))
    history = pd.DataFrame(
        training.history, columns=["training", "validation", "learning rate"]
    ).rename_axis("epoch")
    return TrainedNet(network, names, spectra.wavelength.values, scale, history)


class _Training:
    """A training under way.

    network, optimizer, generator
        What the next epoch goes on from.
    history : list
        Training loss, validation loss and learning rate of each epoch so far.
    best : dict
        The weights of the epoch whose validation loss was lowest.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        noise: float,
        key: str,
        checkpoint: Path | None,
    ) -> None:
        self.network, self.config, self.noise = network, config, noise
        self.key, self.checkpoint = key, checkpoint
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.lr, fused=True)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[tuple[float, float, float]] = []
        self.best = _copied(network)

    def run(
        self,
        inputs: Tensor,
        targets: Tensor,
        validation_inputs: Tensor,
        validation_targets: Tensor,
    ) -> None:
        """All epochs; at the end the network has its best weights."""
        finished = self.resume() or self.config.epochs == 0
        saved = time.monotonic()
        name = type(self.network).__name__
        with tqdm(total=self.config.epochs, initial=len(self.history), desc=name) as bar:
            while not finished:
                lr = self.config.learning_rate(len(self.history))
                training = self.epoch(inputs, targets, lr)
                outputs = predict_batched(self.network, validation_inputs)
                validation = float(nn.functional.mse_loss(outputs, validation_targets))
                if not np.isfinite(training + validation):
                    raise ValueError(
                        f"the loss is not finite: try a learning rate below {self.config.lr:g}"
                    )
                if validation < min(self.validation_losses, default=np.inf):
                    self.best = _copied(self.network)
                self.history.append((training, validation, lr))
                finished = len(self.history) == self.config.epochs or should_stop(
                    self.validation_losses, self.config.patience, self.config.min_delta
                )
                if finished or time.monotonic() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                    self.save(finished)
                    saved = time.monotonic()
                bar.update()
                bar.set_postfix(validation=f"{validation:.4f}")
        self.network.load_state_dict(self.best)

    @property
    def validation_losses(self) -> list[float]:
        """Validation loss of each epoch so far."""
        return [validation for _, validation, _ in self.history]

    def epoch(self, inputs: Tensor, targets: Tensor, lr: float) -> float:
        """One pass over the training set in random order; returns the mean loss on the way."""
        self.network.train()
        self.optimizer.param_groups[0]["lr"] = lr
        order = torch.randperm(len(inputs), generator=self.generator)
        total = torch.zeros((), device=inputs.device)
        for batch in torch.split(order, self.config.batch_size):
            seen = augment(inputs[batch], self.noise, self.config.mask_fraction, self.generator)
            loss = nn.functional.mse_loss(self.network(seen), targets[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(batch)
        return float(total) / len(inputs)

    def save(self, finished: bool) -> None:
        """Write the best weights and, unless finished, what it takes to go on; with a checksum."""
        if self.checkpoint is None:
            return
        tensors = {f"best.{name}": value for name, value in self.best.items()}
        if not finished:
            for name, value in self.network.state_dict().items():
                tensors[f"current.{name}"] = value
            for number, moments in self.optimizer.state_dict()["state"].items():
                for name, value in moments.items():
                    tensors[f"adam.{number}.{name}"] = value
            tensors["generator"] = self.generator.get_state()
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        metadata = {"key": self.key, "finished": str(finished), "history": json.dumps(self.history)}
        metadata["sha256"] = _checksum(tensors, metadata)
        try:
            with atomic_write(self.checkpoint) as part:
                part.write_bytes(save(tensors, metadata))
        except OSError as fault:
            warnings.warn(f"the training goes on but could not be kept: {fault}", stacklevel=2)

    def resume(self) -> bool:
        """Go on from the checkpoint if it is whole and belongs to this training.

        Returns whether that training is finished. Any other file is left aside: the training
        begins anew, and writes over it.
        """
        try:
            if self.checkpoint is None:
                return False
            with safe_open(self.checkpoint, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            checksum = metadata.pop("sha256", None)
            if metadata.get("key") != self.key or checksum != _checksum(tensors, metadata):
                return False
        except (OSError, SafetensorError):
            return False
        self.history = [tuple(row) for row in json.loads(metadata["history"])]
        groups: dict[str, dict[str, Tensor]] = {"best": {}, "current": {}, "adam": {}}
        for name, value in tensors.items():
            if name != "generator":
                kind, _, rest = name.partition(".")
                groups[kind][rest] = value.to(device())
        self.best = groups["best"]
        if metadata["finished"] == "True":
            return True
        self.network.load_state_dict(groups["current"])
        optimizer = self.optimizer.state_dict()
        for name, value in groups["adam"].items():
            number, _, moment = name.partition(".")
            optimizer["state"].setdefault(int(number), {})[moment] = value
        self.optimizer.load_state_dict(optimizer)
        self.generator.set_state(tensors["generator"])
        return False


def _copied(network: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights of a network, which training will not change."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of tensors and metadata, in the order of their names."""
    content = sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        content.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        content.update(value.numpy().tobytes())
    return content.hexdigest()


@contextmanager
def _limit_threads(most: int) -> Iterator[None]:
    """Use at most so many threads, and count numbers too small for full precision as zero.

    Adam's moments of dead weights become that small, and processors are slow with them.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(min(most, before))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


def _check_set(what: str, spectra: xr.Dataset, labels: pd.DataFrame, names: tuple) -> None:
    """Raise ValueError unless each star has one row of finite labels."""
    stars = pd.Index(spectra.star.values)
    known = set(names) <= set(labels) and labels.index.is_unique
    if len(stars) == 0 or not (known and stars.isin(labels.index).all()):
        raise ValueError(
            f"the {what} set needs stars, and for each of them one row of labels {', '.join(names)}"
        )
    finite = np.isfinite(labels.loc[stars, list(names)].to_numpy(float)).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"labels of {(~finite).sum()} {what} star(s) are not finite, first: {stars[~finite][0]}"
        )


# ---------------------------------------------------------------------------- scales, results


def _usable_flux(spectra: xr.Dataset) -> np.ndarray:
    """Flux (star, pixel), float32, NaN where a pixel must not count."""
    flux = spectra.flux.values.astype(np.float32)
    good = np.isfinite(flux)
    if "error" in spectra:
        good &= np.isfinite(spectra.error.values)
    return np.where(good, flux, np.float32(np.nan))


def compute_scale(spectra: xr.Dataset, labels: pd.DataFrame) -> dict[str, np.ndarray]:
    """Mean and standard deviation of the labels and of the flux of a training set.

    Returns
    -------
    dict
        `label_mean` and `label_std` (label,); `flux_mean` (pixel,), 1 where no star has a usable
        pixel; `flux_std` (1,), the standard deviation of all pixels about `flux_mean`. A label or
        flux that does not vary has the standard deviation 1.

    Examples
    --------
    >>> axes, names = ("star", "wavelength"), ["a", "b"]
    >>> spectra = xr.Dataset({"flux": (axes, [[1.0, 0.5], [1.0, 0.7]])}, coords={"star": names})
    >>> labels = pd.DataFrame({"teff": [4400.0, 4600.0]}, index=names)
    >>> compute_scale(spectra, labels)["label_std"]
    array([100.])
    """
    flux = _usable_flux(spectra)  # (star, pixel)
    seen = np.isfinite(flux).sum(axis=0)
    mean = np.where(seen > 0, np.nansum(flux, axis=0, dtype=float) / np.maximum(seen, 1), 1.0)
    flux_std = np.sqrt(np.nanmean((flux - mean.astype(np.float32)) ** 2, dtype=float))
    values = labels.loc[spectra.star.values].to_numpy(float)  # (star, label)
    label_std = values.std(axis=0)
    return {
        "label_mean": values.mean(axis=0),
        "label_std": np.where(label_std > 0, label_std, 1.0),
        "flux_mean": mean.astype(np.float32),
        "flux_std": np.array([flux_std if flux_std > 0 else 1.0]),
    }


def to_inputs(spectra: xr.Dataset, scale: dict[str, np.ndarray]) -> Tensor:
    """Spectra as a network takes them: (flux - mean training spectrum) / flux_std, (star, pixel).

    A bad pixel becomes 0. As with dropout, what is left of a spectrum is scaled up by the inverse
    of its share of good pixels.
    """
    scaled = (_usable_flux(spectra) - scale["flux_mean"]) / np.float32(scale["flux_std"][0])
    share = np.isfinite(scaled).mean(axis=1, keepdims=True, dtype=np.float32)  # (star, 1)
    filled = np.nan_to_num(scaled, copy=False, nan=0.0)
    return torch.from_numpy(filled / np.maximum(share, np.float32(0.05)))


def to_targets(
    spectra: xr.Dataset, labels: pd.DataFrame, names: Sequence[str], scale: dict[str, np.ndarray]
) -> Tensor:
    """Labels as a network gives them: (label - mean) / standard deviation, (star, label)."""
    values = labels.loc[spectra.star.values, list(names)].to_numpy(float)
    scaled = (values - scale["label_mean"]) / scale["label_std"]
    return torch.from_numpy(scaled.astype(np.float32))


@dataclass(frozen=True)
class TrainedNet:
    """A trained network, the scales of its input and output, and how the training went.

    Parameters
    ----------
    network
        The network, with the weights of its best epoch.
    labels
        Names of the labels, in the order of the outputs.
    wavelength : array (pixel,)
        Wavelengths of the training spectra, in Angstrom.
    scale : dict
        See `compute_scale`.
    history : DataFrame
        One row per epoch: training loss, validation loss, learning rate.
    """

    network: nn.Module
    labels: tuple
    wavelength: np.ndarray
    scale: dict
    history: pd.DataFrame

    @property
    def parameters(self) -> int:
        """Number of trainable parameters."""
        return count_parameters(self.network)

    @property
    def loss(self) -> float:
        """Validation loss of the epoch whose weights were kept; NaN of an untrained network."""
        return self.history.validation.min()

    def __repr__(self) -> str:
        name = type(self.network).__name__
        labels = ", ".join(self.labels)
        return (
            f"<{name}: {self.wavelength.size} pixels -> {labels}; {self.parameters:,} parameters>"
        )

    def predict(self, spectra: xr.Dataset) -> pd.DataFrame:
        """Labels of spectra, one row per star, in the units of the training labels.

        Parameters
        ----------
        spectra : Dataset (star, wavelength)
            `flux` and, where there is one, `error`; one star without the dimension `star` will do.
            A pixel with infinite error or a flux that is not finite counts as a pixel of the mean
            training spectrum.

        Raises
        ------
        ValueError
            If the wavelengths are not those of the training set.
        """
        spectra = by_star(spectra)
        if not np.array_equal(spectra.wavelength.values, self.wavelength):
            raise ValueError(
                "the spectra are on another wavelength grid than those the network was trained on"
            )
        inputs = to_inputs(spectra, self.scale)  # (star, pixel)
        outputs = predict_batched(self.network.to(device()), inputs).double().cpu().numpy()
        values = outputs * self.scale["label_std"] + self.scale["label_mean"]  # (star, label)
        stars = pd.Index(spectra.star.values, name="star")
        return pd.DataFrame(values, index=stars, columns=list(self.labels))


def scores(predicted: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """How good predictions are.

    Parameters
    ----------
    predicted, true : DataFrame
        One row per star. The stars of `predicted` count, and the labels that both tables have.

    Returns
    -------
    DataFrame
        One row per label: root-mean-square error `rmse`, mean error `bias`, `median` error,
        `scatter` (1.4826 times the median absolute deviation from the median) and the coefficient
        of determination `R2`.

    Raises
    ------
    KeyError
        If `true` lacks a star.

    Examples
    --------
    >>> true = pd.DataFrame({"teff": [4000.0, 4500.0, 5000.0]}, index=list("abc"))
    >>> scores(true + 10, true).loc["teff", ["rmse", "bias", "scatter"]].tolist()
    [10.0, 10.0, 0.0]
    """
    labels = [name for name in predicted if name in true]
    truth = true.loc[predicted.index, labels]
    squares, variance = (predicted[labels] - truth) ** 2, (truth - truth.mean()) ** 2
    table = bias_and_scatter(predicted, true, labels).rename(
        columns={"mean": "bias", "1.4826 MAD": "scatter"}
    )
    table = table.assign(rmse=squares.mean() ** 0.5, R2=1 - squares.sum() / variance.sum())
    return table[["rmse", "bias", "median", "scatter", "R2"]]
