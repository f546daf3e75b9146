"""Networks: their size, that they learn, repeat, resume and reload, and what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.metrics import r2_score
from sklearn.preprocessing import StandardScaler

from labtools import starnet, training
from labtools.selection import split_by_star
from labtools.starnet import SmallNet, StarNet, scores
from labtools.training import Recipe, train


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


QUICK = Recipe(epochs=6, rate=3e-3, batch=32)


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
    other = train(*sets, "StarNet", Recipe(seed=1, epochs=1))
    pd.testing.assert_frame_equal(again.predict(sets[2]), net.predict(sets[2]))
    assert other.history.training[0] != net.history.training[0]


def test_interrupted_training_goes_on_to_the_same_end(sets, net, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            train(*sets, "StarNet", QUICK, tmp_path / "c.net")
    epochs, epoch = [], training._State.epoch
    with monkeypatch.context() as patch:
        patch.setattr(training._State, "epoch", lambda *rest: epochs.append(1) or epoch(*rest))
        resumed = train(*sets, "StarNet", QUICK, tmp_path / "c.net")
    assert len(epochs) == QUICK.epochs - 3
    pd.testing.assert_frame_equal(resumed.predict(sets[2]), net.predict(sets[2]), check_exact=True)
    monkeypatch.setattr(training._State, "epoch", None)  # a finished training is read, not repeated
    cached = train(*sets, "StarNet", QUICK, tmp_path / "c.net")
    pd.testing.assert_frame_equal(cached.predict(sets[2]), net.predict(sets[2]), check_exact=True)
    assert [path.name for path in tmp_path.iterdir()] == ["c.net"]


def interrupted_after(epochs, monkeypatch):
    """Let a training be interrupted in the middle, with its state kept after each epoch."""
    monkeypatch.setattr(training, "KEEP_EVERY", 0.0)
    epoch = training._State.epoch

    def interrupted(state, *rest):
        if len(state.history) == epochs:
            raise KeyboardInterrupt
        return epoch(state, *rest)

    monkeypatch.setattr(training._State, "epoch", interrupted)


@pytest.mark.parametrize("kind", ["finished", "unfinished"])
def test_a_damaged_checkpoint_is_not_used(sets, tmp_path, monkeypatch, kind):
    """Flipped bits, cuts and further bytes are noticed: the training begins anew and comes to the same end."""
    path, recipe, rng = tmp_path / "c.net", Recipe(epochs=2, seed=5), np.random.default_rng(0)
    first = train(*sets, "SmallNet", recipe, path)
    if kind == "unfinished":
        path.unlink()
        with monkeypatch.context() as patch:
            interrupted_after(1, patch)
            with pytest.raises(KeyboardInterrupt):
                train(*sets, "SmallNet", recipe, path)
    content, epochs, epoch = path.read_bytes(), [], training._State.epoch
    monkeypatch.setattr(training._State, "epoch", lambda *rest: epochs.append(1) or epoch(*rest))
    for number in range(24):
        at = int(rng.integers(len(content))) if number > 4 else number * 20
        flipped = content[:at] + bytes([content[at] ^ 1 << number % 8]) + content[at + 1 :]
        path.write_bytes([flipped, flipped, content[:at], content + b"x"][number % 4])
        again = train(*sets, "SmallNet", recipe, path)
        pd.testing.assert_frame_equal(again.history, first.history, check_exact=True)
    assert len(epochs) == 24 * recipe.epochs


@pytest.mark.parametrize("change", [{"seed": 6}, {"noise": 0.1}, {"rate": 2e-3}])
def test_a_checkpoint_of_another_recipe_is_not_used(sets, tmp_path, change):
    first = train(*sets, "SmallNet", Recipe(epochs=1), tmp_path / "c.net")
    second = train(*sets, "SmallNet", Recipe(epochs=1, **change), tmp_path / "c.net")
    assert not second.history.equals(first.history)


def test_a_training_that_cannot_be_kept_goes_on(sets, tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    with pytest.warns(UserWarning, match="could not be kept"):
        net = train(*sets, "SmallNet", Recipe(epochs=1), tmp_path / "file" / "c.net")
    assert len(net.history) == 1


def test_pickles_are_no_checkpoints(sets, tmp_path):
    torch.save({"history": [], "best": {}}, tmp_path / "c.net")
    assert len(train(*sets, "SmallNet", Recipe(epochs=1), tmp_path / "c.net").history) == 1


def test_pooling_before_the_elu_is_the_published_network():
    ours = StarNet(96, 3)
    layers = list(ours.layers)
    published = torch.nn.Sequential(*layers[:3], layers[4], layers[3], *layers[5:])
    assert isinstance(published[3], torch.nn.ELU)
    assert isinstance(published[4], torch.nn.MaxPool1d)
    flux = torch.randn(7, 96)
    torch.testing.assert_close(ours(flux), published(flux[:, None]), rtol=0, atol=0)


def test_masks_and_noise_make_a_network_that_bears_them(sets, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 8)
    spectra, labels = toy(300, 6)
    lost = np.random.default_rng(1).random((300, 1)) < 0.5
    damaged = spectra.assign(error=spectra.error.where(~(lost & (np.arange(96) < 48)), np.inf))
    recipe = {"epochs": 30, "step": 12, "rate": 3e-3, "least": 0.0}
    plain = train(*sets, "SmallNet", Recipe(**recipe)).predict(damaged)
    robust = train(*sets, "SmallNet", Recipe(masks=0.6, noise=0.005, **recipe)).predict(damaged)
    assert scores(robust, labels).rmse.fe_h < scores(plain, labels).rmse.fe_h


def test_masked_pixels_do_not_count(net, sets):
    spectra = sets[2].copy(deep=True)
    spectra["error"][:, 10:20] = np.inf
    wild = spectra.copy(deep=True)
    wild["flux"][:, 10:20] = 1e4
    pd.testing.assert_frame_equal(net.predict(wild), net.predict(spectra))


def test_labels_are_scaled_as_scikit_learn_does(sets):
    spectra, labels = sets[:2]
    scaled = starnet.to_targets(spectra, labels, tuple(labels), starnet.scales(spectra, labels))
    np.testing.assert_allclose(scaled, StandardScaler().fit_transform(labels), atol=1e-6)


def test_early_stopping_and_best_weights(sets):
    spectra, labels, validation, truth = sets
    nonsense = labels.sample(frac=1, random_state=1).set_axis(labels.index)
    net = train(
        spectra, nonsense, validation, truth, "SmallNet", Recipe(epochs=40, patience=3, rate=3e-3)
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
        train(*sets, "SmallNet", Recipe(rate=1e25))
