"""Training of the networks of `labtools.starnet`: the recipe, the epochs, and going on after an interrupt."""

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from labtools.starnet import ARCHITECTURES, TrainedNet, log_variance, read, scales, to_inputs, to_targets, write

__all__ = ["Recipe", "train"]

KEEP_EVERY = 10.0  # seconds between checkpoints
SMALL = 2_000_000  # parameters up to which a second thread costs more than it brings


@dataclass(frozen=True)
class Recipe:
    """How to train.

    seed : of the first weights, the order of the stars and the noise.
    batch, rate : stars in a step, and the learning rate of Adam at the start, which is multiplied by `decay`
        every `step` epochs.
    epochs, patience, least : training ends after `epochs`, or when the validation loss has not become better
        by `least` in `patience` epochs.
    noise : standard deviation of the noise that is added to the flux, anew each time a star is shown.
    errors : the network also predicts the variance of each label, and the Gaussian log-likelihood joins the
        mean squared error of the scaled labels in the loss.
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
    errors: bool = False


def train(spectra, labels, validation, validation_labels, architecture="StarNet", recipe=None, checkpoint=None):
    """Train a network; it gets the weights of the epoch whose validation loss was lowest.

    Parameters
    ----------
    spectra, validation : Datasets (star, wavelength) of flux and, where there is one, error.
    labels, validation_labels : DataFrames indexed like the stars, one column a label.
    architecture : "StarNet" or "SmallNet".
    recipe : a `Recipe`; the same one gives the same network on the same machine.
    checkpoint : file that keeps the state every ten seconds; with the same data and recipe an interrupted
        training goes on from there, and a finished one is read from it.

    Raises ValueError for labels that are missing or not finite, for other wavelengths, and for an empty set.
    """
    recipe = recipe or Recipe()
    names = tuple(labels.columns)
    sets = [(spectra, labels), (validation, validation_labels)]
    _check(sets, names)
    scale = scales(spectra, labels)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_flush_denormal(True)  # Adam's moments of small gradients would be slow by a factor of ten
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    taught, tested = [
        (to_inputs(part, scale).to(device), to_targets(part, table, names, scale).to(device)) for part, table in sets
    ]
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        outputs = len(names) * (2 if recipe.errors else 1)
        network = ARCHITECTURES[architecture](spectra.sizes["wavelength"], outputs).to(device)
    state = _State(network, recipe, noise=float(recipe.noise / scale["flux_std"][0]))
    made_by = _digest(taught, tested, architecture, recipe)
    state.resume(checkpoint, made_by)
    with _threads(1 if sum(p.numel() for p in network.parameters()) < SMALL else 4):
        state.run(taught, tested, checkpoint, made_by)
    network.load_state_dict(state.best)
    history = pd.DataFrame(state.history, columns=["training", "validation", "learning rate"])
    history = history.rename_axis("epoch")
    return TrainedNet(network.cpu(), names, spectra.wavelength.values, scale, history, recipe.errors)


@contextmanager
def _threads(most):
    """Use at most so many threads (and cores) for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(most, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _State:
    """A training under way: network, optimizer, the best weights so far and the history."""

    def __init__(self, network, recipe, noise):
        self.network, self.recipe, self.noise = network, recipe, noise
        self.optimizer = torch.optim.Adam(network.parameters(), lr=recipe.rate)
        self.loss = _likelihood if recipe.errors else nn.functional.mse_loss
        self.history, self.best = [], network.state_dict()

    def run(self, taught, tested, checkpoint, made_by):
        """Epoch after epoch until the recipe's end; the state is kept now and then, and at the end."""
        recipe, name, kept = self.recipe, type(self.network).__name__, time.monotonic()
        with tqdm(total=recipe.epochs, initial=len(self.history), desc=f"{name}", unit="epoch") as bar:
            while len(self.history) < recipe.epochs and not self.stands_still():
                rate = recipe.rate * recipe.decay ** (len(self.history) // recipe.step)
                training = self.epoch(*taught, rate)
                validation = self.evaluate(*tested)
                if not np.isfinite(training + validation):
                    raise ValueError(f"the loss is not finite: try a learning rate below {recipe.rate:g}")
                if validation < min((row[1] for row in self.history), default=np.inf):
                    self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
                self.history.append((training, validation, rate))
                if time.monotonic() - kept > KEEP_EVERY:
                    self.keep(checkpoint, made_by)
                    kept = time.monotonic()
                bar.update()
                bar.set_postfix(validation=f"{validation:.4f}")
        self.keep(checkpoint, made_by, finished=True)

    def stands_still(self):
        """Whether the last `patience` epochs brought less than `least`."""
        losses = [row[1] for row in self.history]
        before = losses[: -self.recipe.patience]
        return bool(before) and min(losses) > min(before) - self.recipe.least

    def epoch(self, inputs, targets, rate):
        """One pass over the training set in random order; the mean loss on the way."""
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        chance = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + len(self.history))
        order, total = torch.randperm(len(inputs), generator=chance), 0.0
        for some in torch.split(order, self.recipe.batch):
            flux = inputs[some]
            if self.noise:
                flux = flux + self.noise * torch.randn(flux.shape, generator=chance).to(flux.device)
            loss = self.loss(self.network(flux), targets[some])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(some)
        return total / len(inputs)

    def evaluate(self, inputs, targets):
        """The loss of a set that is not trained on."""
        self.network.eval()
        with torch.no_grad():
            output = torch.cat([self.network(part) for part in torch.split(inputs, 512)])
        return float(self.loss(output, targets))

    def keep(self, checkpoint, made_by, finished=False):
        """Write the state; of a finished training only the best weights, a quarter of it."""
        if checkpoint is not None:
            content = {"made_by": made_by, "history": [list(row) for row in self.history], "best": self.best}
            if not finished:
                content |= {"weights": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            write(content, checkpoint)

    def resume(self, checkpoint, made_by):
        """Go on from a checkpoint, if it is there, whole, and of the same data and recipe."""
        if checkpoint is None or not Path(checkpoint).is_file():
            return
        try:
            content = read(checkpoint)
        except ValueError:
            return
        if content.get("made_by") != made_by:
            return
        before, self.history = self.history, [tuple(row) for row in content["history"]]
        if "optimizer" in content:
            self.network.load_state_dict(content["weights"])
            self.optimizer.load_state_dict(content["optimizer"])
        elif len(self.history) < self.recipe.epochs and not self.stands_still():
            self.history = before  # it ended earlier than this recipe asks for
            return
        self.best = content["best"]


def _likelihood(output, target):
    """Squared error of the mean, and for the variance minus the Gaussian log-likelihood at that mean.

    The mean does not see the variance: otherwise it gives up the stars that it finds hard (Seitzer et al. 2022).
    """
    mean, raw = output.chunk(2, dim=1)
    logarithm, squared = log_variance(raw), (target - mean) ** 2
    return squared.mean() + 0.5 * (squared.detach() * torch.exp(-logarithm) + logarithm).mean()


def _check(sets, names):
    for (spectra, labels), what in zip(sets, ("training", "validation"), strict=True):
        missing = [name for name in names if name not in labels]
        stars = pd.Index(spectra.star.values)
        if len(stars) == 0 or missing or not stars.isin(labels.index).all() or not labels.index.is_unique:
            raise ValueError(f"the {what} set needs stars, and for each of them one row of labels {', '.join(names)}")
        bad = stars[~np.isfinite(labels.loc[stars, list(names)].to_numpy(float)).all(axis=1)]
        if len(bad):
            raise ValueError(f"labels of {len(bad)} {what} star(s) are not finite, first: {bad[0]}")
    if not np.array_equal(*(spectra.wavelength.values for spectra, _ in sets)):
        raise ValueError("training and validation spectra are on different wavelength grids")


def _digest(taught, tested, architecture, recipe):
    content = sha256(architecture.encode())
    settings = asdict(recipe)
    content.update(repr(settings).encode())
    for tensor in (*taught, *tested):
        content.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return content.hexdigest()
