"""Training of the networks of `labtools.starnet`: the recipe, the epochs, and going on after an interrupt."""

import time
import warnings
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from tqdm.auto import tqdm

from apogee_archive.cache import atomic_write, hash_key
from labtools.starnet import ARCHITECTURES, TrainedNet, ask, device, scales, to_inputs, to_targets

__all__ = ["Recipe", "train"]

VERSION = 2  # raise it whenever the same data and recipe give another network

KEEP_EVERY = 10.0  # seconds between checkpoints
BLOCK = 100  # neighbouring pixels that are masked together
SMALL = 2_000_000  # parameters up to which a second thread costs more than it brings


@dataclass(frozen=True)
class Recipe:
    """How to train.

    seed : of the first weights, the order of the stars, the noise and the masks.
    batch : stars in a step.
    rate : the learning rate of Adam at the start; it is multiplied by `decay` every `step` epochs.
    epochs, patience, least : training ends when the validation loss falls less than `least` in `patience` epochs.
    noise, masks : standard deviation of noise that is added to the flux, and share of pixels that are masked in blocks;
    each is drawn anew, between 0 and this, whenever a star is shown.
    """

    seed: int = 42
    batch: int = 64
    rate: float = 1e-3
    step: int = 5
    decay: float = 0.1
    epochs: int = 20
    patience: int = 5
    least: float = 1e-3
    noise: float = 0.0
    masks: float = 0.0


def train(
    spectra,
    labels,
    validation,
    validation_labels,
    architecture="StarNet",
    recipe=None,
    checkpoint=None,
    **sizes,
):
    """Train a network on spectra (flux and, where there is one, error) and labels (one column a label).

    It gets the weights of the epoch whose validation loss was lowest.

    Parameters
    ----------
    architecture, sizes : "StarNet" or "SmallNet", and sizes of its layers that are not the usual ones.
    recipe : a `Recipe`; the same one gives the same network on the same machine.
    checkpoint : file that keeps the state every ten seconds; with the same data and recipe an interrupted training
        goes on from there, and a finished one is read from it. If it cannot be written, a warning says so.

    Raises ValueError for labels missing or not finite, other wavelengths, an empty set, a loss that is not finite.
    """
    recipe, names = recipe or Recipe(), tuple(labels.columns)
    sets = [(spectra, labels), (validation, validation_labels)]
    _check(sets, names)
    scale = scales(spectra, labels)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    arrays = [
        tensor
        for one in sets
        for tensor in (to_inputs(one[0], scale), to_targets(*one, names, scale))
    ]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        network = ARCHITECTURES[architecture](spectra.sizes["wavelength"], len(names), **sizes)
    choices = (VERSION, architecture, tuple(sorted(sizes.items())), astuple(recipe))
    made_by = hash_key(*choices, *(tensor.numpy() for tensor in arrays))
    state = _State(
        network.to(device()),
        recipe,
        float(recipe.noise / scale["flux_std"][0]),
        checkpoint,
        made_by,
    )
    with _processor(1 if sum(p.numel() for p in network.parameters()) < SMALL else 4):
        state.run(*(tensor.to(device()) for tensor in arrays))
    history = pd.DataFrame(
        state.history, columns=["training", "validation", "learning rate"]
    ).rename_axis("epoch")
    return TrainedNet(network, names, spectra.wavelength.values, scale, history)


@contextmanager
def _processor(most):
    """For a while at most so many threads, and zero for what is too small for full precision, as Adam's moments are."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(most, before))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)


class _State:
    """A training under way: network, optimizer, the best weights so far, the history, and the file that keeps them."""

    def __init__(self, network, recipe, noise, checkpoint, made_by):
        self.network, self.recipe, self.noise = network, recipe, noise
        self.checkpoint, self.made_by = checkpoint and Path(checkpoint), made_by.encode()
        self.weights = list(network.parameters())
        self.optimizer = torch.optim.Adam(self.weights, lr=recipe.rate, fused=True)
        for one in self.weights:
            moments = {"exp_avg": torch.zeros_like(one), "exp_avg_sq": torch.zeros_like(one)}
            self.optimizer.state[one] = {"step": torch.zeros((), device=one.device)} | moments
        self.tensors = [
            *self.weights,
            *(value for one in self.optimizer.state.values() for value in one.values()),
        ]
        self.history, self.best = [], _vector(self.weights)

    def run(self, inputs, targets, validation, validation_targets):
        """Epoch after epoch until the recipe's end; the state is kept now and then, and at the end."""
        recipe, kept, finished = self.recipe, time.monotonic(), self.resume()
        with tqdm(
            total=recipe.epochs, initial=len(self.history), desc=type(self.network).__name__
        ) as bar:
            while not finished:
                rate = recipe.rate * recipe.decay ** (len(self.history) // recipe.step)
                training = self.epoch(inputs, targets, rate)
                loss = float(
                    nn.functional.mse_loss(ask(self.network, validation), validation_targets)
                )
                if not np.isfinite(training + loss):
                    raise ValueError(
                        f"the loss is not finite: try a learning rate below {recipe.rate:g}"
                    )
                if loss < min((row[1] for row in self.history), default=np.inf):
                    self.best = _vector(self.weights)
                self.history.append((training, loss, rate))
                finished = len(self.history) == recipe.epochs or self.stands_still()
                if finished or time.monotonic() - kept > KEEP_EVERY:
                    self.keep(finished)
                    kept = time.monotonic()
                bar.update()
                bar.set_postfix(validation=f"{loss:.4f}")
        vector_to_parameters(torch.tensor(self.best, device=device()), self.weights)

    def stands_still(self):
        """Whether the last `patience` epochs brought less than `least`."""
        losses = [row[1] for row in self.history]
        before = losses[: -self.recipe.patience]
        return bool(before) and min(losses) > min(before) - self.recipe.least

    def epoch(self, inputs, targets, rate):
        """One pass over the training set in random order; the mean loss on the way."""
        self.network.train()
        self.optimizer.param_groups[0]["lr"] = rate
        chance = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + len(self.history))
        total = torch.zeros((), device=inputs.device)
        for some in torch.split(torch.randperm(len(inputs), generator=chance), self.recipe.batch):
            loss = nn.functional.mse_loss(
                self.network(self.shown(inputs[some], chance)), targets[some]
            )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * len(some)
        return float(total) / len(inputs)

    def shown(self, flux, chance):
        """Spectra as the network sees them this time, noisier and with blocks masked."""
        if self.noise:
            level = self.noise * torch.rand(len(flux), 1, generator=chance)
            flux = flux + (level * torch.randn(flux.shape, generator=chance)).to(flux.device)
        if self.recipe.masks:
            share = self.recipe.masks * torch.rand(len(flux), 1, generator=chance)
            lost = torch.rand(len(flux), flux.shape[1] // BLOCK + 1, generator=chance) < share
            kept = 1 - lost.repeat_interleave(BLOCK, 1)[:, : flux.shape[1]].float()
            flux = flux * (kept / kept.mean(dim=1, keepdim=True).clamp(0.05)).to(flux.device)
        return flux

    def keep(self, finished):
        """Write history and best weights, and of an unfinished training what it takes to go on, under a checksum."""
        if self.checkpoint is None:
            return
        content = (
            np.array([finished, len(self.history), *np.ravel(self.history)]).tobytes()
            + self.best.tobytes()
        )
        if not finished:
            content += _vector(self.tensors).tobytes()
        try:
            with atomic_write(self.checkpoint) as part:
                part.write_bytes(sha256(self.made_by + content).digest() + content)
        except OSError as fault:
            warnings.warn(f"the training goes on but could not be kept: {fault}", stacklevel=2)

    def resume(self):
        """Go on from the checkpoint, if it is whole and of the same data and recipe; whether it is finished."""
        try:
            content = self.checkpoint.read_bytes() if self.checkpoint else b""
        except OSError:
            return False
        if content[:32] != sha256(self.made_by + content[32:]).digest():
            return False
        finished, epochs = np.frombuffer(content, float, 2, 32).astype(int)
        history = np.frombuffer(content, float, 3 * epochs, 48).reshape(-1, 3)
        self.history = [tuple(row) for row in history.tolist()]
        numbers = np.frombuffer(content, np.float32, offset=48 + history.nbytes)
        self.best, rest = np.split(numbers, [len(self.best)])
        if not finished:
            vector_to_parameters(torch.tensor(rest, device=device()), self.tensors)
        return bool(finished)


def _vector(tensors):
    """Tensors one after the other: an array of float32."""
    return parameters_to_vector(tensors).detach().cpu().numpy()


def _check(sets, names):
    for (spectra, labels), what in zip(sets, ("training", "validation"), strict=True):
        stars = pd.Index(spectra.star.values)
        there = (
            set(names) <= set(labels) and labels.index.is_unique and stars.isin(labels.index).all()
        )
        if len(stars) == 0 or not there:
            raise ValueError(
                f"the {what} set needs stars, and for each of them one row of labels {', '.join(names)}"
            )
        bad = stars[~np.isfinite(labels.loc[stars, list(names)].to_numpy(float)).all(axis=1)]
        if len(bad):
            raise ValueError(f"labels of {len(bad)} {what} star(s) are not finite, first: {bad[0]}")
    if not np.array_equal(*(spectra.wavelength.values for spectra, _ in sets)):
        raise ValueError("training and validation spectra are on different wavelength grids")
