"""How fast the networks are: stars per second, beside the same layers in plain PyTorch.

`python tools/bench_nets.py` prints a table; both are timed in the same run, and both times are the
shortest of a few.
"""

import shutil

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import nn

from bench import timed
from labtools import open_pair, split_by_star
from labtools.jwst import match
from labtools.starnet import StarNet, TrainConfig, TrainedNet, device, train

STARS, PIXELS, LABELS, BATCH = 512, 8192, 3, 64


def made_up(stars):
    """Spectra of noise and labels of noise: the time does not depend on them."""
    rng = np.random.default_rng(0)
    names = [f"star{number}" for number in range(stars)]
    flux = (("star", "wavelength"), rng.normal(1, 0.1, (stars, PIXELS)).astype("f4"))
    spectra = xr.Dataset(
        {"flux": flux}, coords={"star": names, "wavelength": np.linspace(9000, 18000, PIXELS)}
    )
    return spectra, pd.DataFrame(rng.normal(size=(stars, LABELS)), names, ["teff", "logg", "fe_h"])


def plain(outputs=LABELS):
    """The published layers, in the published order."""
    return nn.Sequential(
        nn.Conv1d(1, 4, 8), nn.ELU(), nn.Conv1d(4, 16, 8), nn.ELU(), nn.MaxPool1d(4), nn.Flatten(),
        nn.Linear(16 * 2044, 256), nn.ELU(), nn.Linear(256, 128), nn.ELU(), nn.Linear(128, outputs),
    )  # fmt: skip


def plain_training(network, flux, labels, batch=BATCH):
    """One epoch as one would write it: Adam, batches in order."""
    torch.set_flush_denormal(True)  # as in `labtools.starnet.train`
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for some in torch.split(torch.arange(len(flux)), batch):
        loss = nn.functional.mse_loss(network(flux[some, None]), labels[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_flush_denormal(False)


def plain_inference(network, flux):
    with torch.no_grad():
        return [network(part[:, None]) for part in torch.split(flux, 512)]


def levers(flux, targets):
    """What batch, precision and compilation make of the time of an epoch of the plain layers."""
    network = plain().to(device())
    usual = timed(lambda: plain_training(network, flux, targets))
    for batch in (16, 256):
        seconds = timed(lambda b=batch: plain_training(network, flux, targets, b))
        yield f"StarNet, an epoch in batches of {batch} / of {BATCH}", f"{seconds / usual:.2f}"
    with torch.autocast(device().type, torch.bfloat16):
        seconds = timed(lambda: plain_training(network, flux, targets))
    yield "StarNet, an epoch in bfloat16 / in float32", f"{seconds / usual:.2f}"
    if shutil.which("g++"):
        compiled = torch.compile(network)
        first = timed(lambda: plain_training(compiled, flux, targets), 1)
        seconds = timed(lambda: plain_training(compiled, flux, targets))
        yield (
            "StarNet, an epoch compiled / not",
            f"{seconds / usual:.2f}, after {first:.0f} s of compiling",
        )


def early_stop(epochs=20, stop=8):
    """What the epochs after the first `stop` bring, on the JWST pair."""
    pair = open_pair()
    names, _ = match(pair.catalog, pair.labels)
    labels = pair.labels.loc[names, ["teff", "logg", "fe_h"]]
    sets = [
        (pair.spectra.sel(star=group), labels.loc[group])
        for group in split_by_star(names, 42, parts=(5, 1, 2))
    ]
    losses = train(
        *sets[0], *sets[1], config=TrainConfig(epochs=epochs, patience=epochs)
    ).history.validation
    early, late = losses[:stop].min(), losses.min()
    yield (
        f"StarNet, validation loss after {stop} epochs, after {epochs}",
        f"{early:.4f}, {late:.4f}",
    )


def rows():
    """What was timed, and its figure."""
    spectra, labels = made_up(STARS)
    few = spectra.isel(star=slice(8)), labels.iloc[:8]
    flux = torch.tensor(spectra.flux.values).to(device())
    targets = torch.tensor(labels.to_numpy(np.float32)).to(device())
    reference, scale = (
        plain().to(device()),
        {"label_mean": 0.0, "label_std": 1.0, "flux_mean": 0.0, "flux_std": [1.0]},
    )
    net = TrainedNet(StarNet(PIXELS, LABELS), tuple(labels), spectra.wavelength.values, scale, None)
    config = TrainConfig(epochs=1, batch_size=BATCH)
    pairs = {
        "training": (
            lambda: train(spectra, labels, *few, config=config),
            lambda: plain_training(reference, flux, targets),
        ),
        "inference": (lambda: net.predict(spectra), lambda: plain_inference(reference, flux)),
    }
    threads = torch.get_num_threads()
    where = f"{device().type}, {threads} thread{'s' if threads > 1 else ''}"
    for what, (ours, theirs) in pairs.items():
        mine, other = STARS / timed(ours), STARS / timed(theirs)
        yield (
            f"StarNet {what}, {PIXELS} pixels ({where})",
            f"{mine:.0f} stars/s, {mine / other:.2f} of plain PyTorch",
        )
    yield from levers(flux, targets)
    yield from early_stop()


if __name__ == "__main__":
    for row in rows():
        print(*row, sep=": ")
