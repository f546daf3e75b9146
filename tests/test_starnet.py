"""Networks: their size, that they learn, repeat, resume and reload, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from labtools import starnet
from labtools.selection import split_by_star
from labtools.starnet import (
    SmallNet,
    StarNet,
    TrainConfig,
    augment,
    scores,
    should_stop,
    train,
)


def toy(number, seed, pixels=96, noise=0.002):
    """Spectra with two lines whose depths are two labels, and the labels (in odd units)."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (number, 2))
    pixel = np.arange(pixels)
    lines = np.exp(-0.5 * ((pixel - np.array([[30], [60]])) / 2) ** 2)
    flux = 1 - (0.2 + 0.1 * x) @ lines + noise * rng.standard_normal((number, pixels))
    stars = [f"s{seed}-{i}" for i in range(number)]
    axes = ("star", "wavelength")
    arrays = {"flux": (axes, flux), "error": (axes, np.full(flux.shape, noise))}
    spectra = xr.Dataset(arrays, coords={"star": stars, "wavelength": 15000.0 + pixel})
    labels = pd.DataFrame({"teff": 4500 + 300 * x[:, 0], "fe_h": 0.3 * x[:, 1] - 0.2}, index=stars)
    return spectra, labels


@pytest.fixture(scope="module")
def sets():
    return [*toy(200, 1), *toy(50, 2)]


QUICK = TrainConfig(epochs=6, lr=3e-3, batch_size=32)


@pytest.fixture(scope="module")
def net(sets):
    return train(*sets, "StarNet", QUICK)


def test_starnet_has_the_published_number_of_parameters():
    by_hand = (
        (8 + 1) * 4 + (4 * 8 + 1) * 16 + (16 * ((8192 - 14) // 4) + 1) * 256 + 257 * 128 + 129 * 3
    )
    assert sum(p.numel() for p in StarNet(8192, 3).parameters()) == by_hand == 8_406_327


@pytest.mark.parametrize("kind", [StarNet, SmallNet])
def test_output_shape_and_too_few_pixels(kind):
    assert kind(96, 3)(torch.zeros(5, 96)).shape == (5, 3)
    with pytest.raises(ValueError, match="too few"):
        kind(9, 3)


def test_training_leaves_the_arithmetic_as_it_was(net):
    """Training counts the smallest numbers as zero; whoever computes afterwards must not."""
    small = torch.tensor([1e-40])
    assert (small * 1 > 0).all()


def test_it_learns(net):
    spectra, labels = toy(80, 3)
    predicted = net.predict(spectra)
    assert net.history.training.iloc[-1] < 0.2 * net.history.training.iloc[0]
    assert (scores(predicted, labels).R2 > 0.9).all()


def test_same_seed_same_numbers_other_seed_others(sets, net):
    again = train(*sets, "StarNet", QUICK)
    other = train(*sets, "StarNet", TrainConfig(seed=1, epochs=1))
    pd.testing.assert_frame_equal(again.predict(sets[2]), net.predict(sets[2]))
    assert other.history.training[0] != net.history.training[0]


def test_interrupted_training_goes_on_to_the_same_end(sets, net, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(*sets, "StarNet", QUICK, tmp_path / "c.safetensors")
    epochs, epoch = [], starnet._Training.epoch
    with monkeypatch.context() as patch:
        patch.setattr(starnet._Training, "epoch", lambda *rest: epochs.append(1) or epoch(*rest))
        resumed = train(*sets, "StarNet", QUICK, tmp_path / "c.safetensors")
    assert len(epochs) == QUICK.epochs - 3
    pd.testing.assert_frame_equal(resumed.predict(sets[2]), net.predict(sets[2]), check_exact=True)
    monkeypatch.setattr(
        starnet._Training, "epoch", None
    )  # a finished training is read, not repeated
    cached = train(*sets, "StarNet", QUICK, tmp_path / "c.safetensors")
    pd.testing.assert_frame_equal(cached.predict(sets[2]), net.predict(sets[2]), check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def interrupted_after(epochs, monkeypatch):
    """Let a training be interrupted in the middle, with its state kept after each epoch."""
    monkeypatch.setattr(starnet, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    epoch = starnet._Training.epoch

    def interrupted(state, *rest):
        if len(state.history) == epochs:
            raise KeyboardInterrupt
        return epoch(state, *rest)

    monkeypatch.setattr(starnet._Training, "epoch", interrupted)


@pytest.mark.parametrize("kind", ["finished", "unfinished"])
def test_a_damaged_checkpoint_is_not_used(sets, tmp_path, monkeypatch, kind):
    """Flipped bits, cuts and further bytes are noticed; the training comes to the same end."""
    path, config, rng = (
        tmp_path / "c.safetensors",
        TrainConfig(epochs=2, seed=5),
        np.random.default_rng(0),
    )
    first = train(*sets, "SmallNet", config, path)
    if kind == "unfinished":
        path.unlink()
        with monkeypatch.context() as patch:
            interrupted_after(1, patch)
            with pytest.raises(KeyboardInterrupt):
                train(*sets, "SmallNet", config, path)
    content, epochs, epoch = path.read_bytes(), [], starnet._Training.epoch
    monkeypatch.setattr(starnet._Training, "epoch", lambda *rest: epochs.append(1) or epoch(*rest))
    for number in range(24):
        at = int(rng.integers(len(content))) if number > 4 else number * 20
        flipped = content[:at] + bytes([content[at] ^ 1 << number % 8]) + content[at + 1 :]
        path.write_bytes([flipped, flipped, content[:at], content + b"x"][number % 4])
        again = train(*sets, "SmallNet", config, path)
        pd.testing.assert_frame_equal(again.history, first.history, check_exact=True)
    assert len(epochs) == 24 * config.epochs


@pytest.mark.parametrize("change", [{"seed": 6}, {"noise": 0.1}, {"lr": 2e-3}])
def test_a_checkpoint_of_another_config_is_not_used(sets, tmp_path, change):
    first = train(*sets, "SmallNet", TrainConfig(epochs=1), tmp_path / "c.safetensors")
    second = train(*sets, "SmallNet", TrainConfig(epochs=1, **change), tmp_path / "c.safetensors")
    assert not second.history.equals(first.history)


def test_a_training_that_cannot_be_kept_goes_on(sets, tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.warns(UserWarning, match="could not be kept"):
        net = train(*sets, "SmallNet", TrainConfig(epochs=1), tmp_path / "file" / "c.safetensors")
    assert len(net.history) == 1


def test_pickles_are_no_checkpoints(sets, tmp_path):
    torch.save({"history": [], "best": {}}, tmp_path / "c.safetensors")
    assert (
        len(train(*sets, "SmallNet", TrainConfig(epochs=1), tmp_path / "c.safetensors").history)
        == 1
    )


def test_pooling_before_the_elu_is_the_published_network():
    ours = StarNet(96, 3)
    layers = list(ours.layers)
    published = torch.nn.Sequential(*layers[:3], layers[4], layers[3], *layers[5:])
    assert isinstance(published[3], torch.nn.ELU)
    assert isinstance(published[4], torch.nn.MaxPool1d)
    flux = torch.randn(7, 96)
    torch.testing.assert_close(ours(flux), published(flux[:, None]), rtol=0, atol=0)


def test_masks_and_noise_make_a_network_that_bears_them(sets, monkeypatch):
    monkeypatch.setattr(starnet, "MASK_BLOCK", 8)
    spectra, labels = toy(300, 6)
    lost = np.random.default_rng(1).random((300, 1)) < 0.5
    damaged = spectra.assign(error=spectra.error.where(~(lost & (np.arange(96) < 48)), np.inf))
    config = {"epochs": 30, "lr_step_size": 12, "lr": 3e-3, "min_delta": 0.0}
    plain = train(*sets, "SmallNet", TrainConfig(**config)).predict(damaged)
    robust = train(
        *sets, "SmallNet", TrainConfig(mask_fraction=0.6, noise=0.005, **config)
    ).predict(damaged)
    assert scores(robust, labels).rmse.fe_h < scores(plain, labels).rmse.fe_h


def test_masked_pixels_do_not_count(net, sets):
    spectra = sets[2].copy(deep=True)
    spectra["error"][:, 10:20] = np.inf
    wild = spectra.copy(deep=True)
    wild["flux"][:, 10:20] = 1e4
    pd.testing.assert_frame_equal(net.predict(wild), net.predict(spectra))


def test_labels_are_scaled_as_scikit_learn_does(sets):
    spectra, labels = sets[:2]
    scaled = starnet.to_targets(
        spectra, labels, tuple(labels), starnet.compute_scale(spectra, labels)
    )
    np.testing.assert_allclose(scaled, StandardScaler().fit_transform(labels), atol=1e-6)


def test_early_stopping_and_best_weights(sets):
    spectra, labels, validation, truth = sets
    nonsense = labels.sample(frac=1, random_state=1).set_axis(labels.index)
    net = train(
        spectra,
        nonsense,
        validation,
        truth,
        "SmallNet",
        TrainConfig(epochs=40, patience=3, lr=3e-3),
    )
    assert len(net.history) < 40
    scaled = (net.predict(validation) - truth) / net.scale["label_std"]
    assert (scaled**2).to_numpy().mean() == pytest.approx(net.history.validation.min(), rel=1e-4)


def test_split_is_5_1_2_disjoint_and_by_star():
    stars = pd.Index([f"s{i}" for i in range(800)] + ["s0", "s1"])
    groups = split_by_star(stars, seed=42, parts=(5, 1, 2))
    assert [group.nunique() for group in groups] == [500, 100, 200]
    assert sum(map(len, groups)) == 802
    assert (
        not set(groups[0]) & set(groups[1])
        | set(groups[1]) & set(groups[2])
        | set(groups[0]) & set(groups[2])
    )
    assert not split_by_star(stars, seed=43, parts=(5, 1, 2))[0].equals(groups[0])


def test_scores_against_scikit_learn(net, sets):
    predicted, truth = net.predict(sets[2]), sets[3]
    table = scores(predicted, truth.sample(frac=1, random_state=0))
    for label in truth:
        assert table.R2[label] == pytest.approx(r2_score(truth[label], predicted[label]))
        assert table.rmse[label] == pytest.approx(
            np.sqrt(np.mean((predicted[label] - truth[label]) ** 2))
        )


def test_bad_input_is_refused(sets, net):
    spectra, labels, *rest = sets
    with pytest.raises(ValueError, match="not finite, first: s1-0"):
        train(spectra, labels.replace(labels.fe_h.iloc[0], np.nan), *rest)
    with pytest.raises(ValueError, match="training set needs stars"):
        train(spectra, labels.iloc[1:], *rest)
    shifted = spectra.assign_coords(wavelength=spectra.wavelength + 1)
    with pytest.raises(ValueError, match="different wavelength grids"):
        train(shifted, labels, *rest)
    with pytest.raises(ValueError, match="another wavelength grid"):
        net.predict(shifted)
    with pytest.raises(ValueError, match="try a learning rate below"):
        train(*sets, "SmallNet", TrainConfig(lr=1e25))


def test_a_checkpoint_is_never_given_to_a_training_with_similar_numbers(sets, tmp_path):
    """Written without a space, 12 and 5 are the same digits as 1 and 25."""
    path = tmp_path / "c.safetensors"
    short = train(*sets, "SmallNet", TrainConfig(epochs=1, patience=25), path)
    long = train(*sets, "SmallNet", TrainConfig(epochs=12, patience=5), path)
    assert len(short.history) == 1
    assert len(long.history) > 5


def test_no_epochs_leave_the_network_untrained(sets):
    """An untrained network shows where training starts; it must not train on and on."""
    net = train(*sets, "SmallNet", TrainConfig(epochs=0))
    assert len(net.history) == 0
    assert np.isnan(net.loss)
    torch.manual_seed(TrainConfig.seed)
    fresh = SmallNet(sets[0].sizes["wavelength"], 2)
    for mine, theirs in zip(net.network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(mine.cpu(), theirs)


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 2.5},
        {"epochs": -1},
        {"batch_size": 0},
        {"patience": 0},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"gamma": 2.0},
        {"mask_fraction": 1.0},
        {"noise": -0.1},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        TrainConfig(**bad)


def test_unknown_architectures_are_refused(sets):
    with pytest.raises(ValueError, match="StarNet, SmallNet"):
        train(*sets, "BigNet", TrainConfig(epochs=1))


def test_one_star_that_was_picked_out_is_predicted(net, sets):
    """`isel(star=0)` drops the dimension; transposed spectra have it last."""
    right = net.predict(sets[2].isel(star=[0]))
    pd.testing.assert_frame_equal(net.predict(sets[2].isel(star=0)), right)
    pd.testing.assert_frame_equal(net.predict(sets[2].transpose()), net.predict(sets[2]))


def test_stopping_is_decided_by_the_last_epochs():
    falling = [1.0, 0.5, 0.2, 0.1]
    assert not should_stop(falling, patience=2, min_delta=0.05)
    assert should_stop([*falling, 0.099, 0.098], patience=2, min_delta=0.05)
    assert not should_stop(falling, patience=4, min_delta=10.0), "no epoch before the last four"


def test_a_loop_on_the_page_is_the_training_of_the_package(sets):
    """Ten lines as in the notebook give the same losses: nothing is hidden in `train`."""
    spectra, labels, *_ = sets
    config = TrainConfig(epochs=3, batch_size=32)
    scale = starnet.compute_scale(spectra, labels)
    inputs = starnet.to_inputs(spectra, scale)
    targets = starnet.to_targets(spectra, labels, tuple(labels), scale)
    torch.manual_seed(config.seed)
    network = SmallNet(spectra.sizes["wavelength"], 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    generator = torch.Generator().manual_seed(config.seed)
    losses = []
    for _ in range(config.epochs):
        total = 0.0
        for batch in torch.randperm(len(inputs), generator=generator).split(config.batch_size):
            loss = torch.nn.functional.mse_loss(network(inputs[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / len(inputs))
    theirs = train(*sets, "SmallNet", config).history.training
    np.testing.assert_allclose(losses, theirs, rtol=1e-3)


def test_noise_and_masks_are_of_the_size_that_was_asked_for():
    generator = torch.Generator().manual_seed(0)
    noisy = augment(torch.zeros(400, 500), 0.3, 0.0, generator).std(dim=1)
    assert float(noisy.max()) < 0.35
    assert float(noisy.mean()) == pytest.approx(0.15, abs=0.01)
    masked = (augment(torch.ones(400, 5000), 0.0, 0.6, generator) == 0).float().mean(dim=1)
    assert float(masked.mean()) == pytest.approx(0.3, abs=0.03)
