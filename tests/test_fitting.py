import dataclasses

import numpy as np
import pytest
import torch

from evoloss import fitting
from evoloss.data import Dataset
from evoloss.fitting import Setting, fit, wen_gradient
from evoloss.images import Split
from evoloss.recipe import Contender, load_recipe, recipe_names

SHORT = {"epochs": 2, "network": "mlp"}  # the loop is the same for every network


@pytest.fixture(scope="module")
def small(digits):
    splits = {role: Split(split.images[:160], split.labels[:160]) for role, split in digits.splits.items()}
    return Dataset("digits", digits.classes, splits)


def setting(name, number, dataset, seed=0, embedding=8, **changes):
    recipe = load_recipe(name).model_copy(update=SHORT | {"batch_size": 32} | changes)
    return Setting(recipe, recipe.contenders[number], embedding, dataset, recipe.network, seed)


CONTENDERS = [(name, number) for name in recipe_names() for number in range(len(load_recipe(name).contenders))]


@pytest.mark.parametrize(("name", "number"), CONTENDERS)
def test_every_contender_trains_and_repeats(name, number, small):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, again, other = (fit(setting(name, number, small, seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.diverged
    assert [epoch.epoch for epoch in first.history] == [1, 2]
    assert first.history == again.history != other.history
    np.testing.assert_array_equal(first.snapshots[-1].embeddings, again.snapshots[-1].embeddings)
    assert [snapshot.epoch for snapshot in first.snapshots] == [0, 2]
    if first.centers is not None:
        assert not np.array_equal(first.centers, first.snapshots[0].centers)


@pytest.mark.parametrize("number", range(3))
def test_the_losses_of_pairs_learn(number, digits):
    done = fit(setting("yukawa", number, digits, epochs=6, network="siamese-mlp", embedding=32))
    first, *_, last = done.history
    assert last.loss < first.loss
    distances, same = done.pairs("test")
    assert distances[same].mean() < distances[~same].mean()


def test_contenders_start_from_the_same_weights_and_pairs(small):
    first, second = (fit(setting("yukawa", number, small)) for number in (0, 1))
    np.testing.assert_array_equal(first.snapshots[0].embeddings, second.snapshots[0].embeddings)
    np.testing.assert_array_equal(first.pairs("test")[1], second.pairs("test")[1])


def test_a_snapshot_of_every_epoch_where_it_can_be_drawn(small):
    done = fit(setting("center", 1, small, embedding=2, epochs=3))
    assert [snapshot.epoch for snapshot in done.snapshots] == [0, 1, 2, 3]
    assert done.snapshots[0].centers.shape == (10, 2)


def test_a_loss_that_explodes_is_told(small):
    wild = setting("ngl", 0, small)
    wild = dataclasses.replace(wild, contender=Contender(name="wild", loss="cls(y*exp(exp(exp(z**2 + 3))))"))
    done = fit(wild)
    assert done.diverged in ("loss inf in epoch 1", "loss nan in epoch 1")
    assert done.history == []


def test_progress_is_told_up_to_the_last_epoch(small):
    told = []
    fit(setting("ngl", 0, small), told.append)
    assert told == sorted(told)
    assert told[-1] == 2


def test_the_update_of_wen():
    """delta c_j = sum over the class of (c_j - x_i) / (1 + n_j), Wen et al. 2016, eq. 4; by hand."""
    centers = torch.tensor([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0]])
    embeddings = torch.tensor([[2.0, 0.0], [4.0, 2.0], [1.0, 4.0]])
    moved = wen_gradient(centers, embeddings, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(moved, torch.tensor([[-2.0, -2 / 3], [0.0, -1.5], [0.0, 0.0]]))


def test_the_update_of_wen_is_not_the_gradient(small):
    """What a maintainer called equivalent: the ports divide by the batch, the paper by 1 + the count of the class."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    embeddings, centers = torch.randn(6, 2), torch.randn(2, 2, requires_grad=True)
    (embeddings - centers[labels]).square().sum(1).mean().backward()
    ports = 0.5 * centers.grad  # at the rate 0.5 of K. Zhou's README
    ratio = wen_gradient(centers.detach(), embeddings, labels) / ports
    torch.testing.assert_close(ratio, torch.tensor([[6 / 5] * 2, [6 / 3] * 2]))


@pytest.mark.parametrize(("number", "optimizers"), [(0, 1), (1, 2), (2, 2)])
def test_centers_have_an_optimizer_of_their_own(number, optimizers, small):
    done = fit(setting("center", number, small))
    assert len(fitting._optimizers(done)) == optimizers


def test_weight_decay_is_the_contenders_own(small):
    decays = [
        fitting._optimizers(fit(setting("ngl", number, small)))[0].param_groups[0]["weight_decay"]
        for number in range(5)
    ]
    assert decays == [0, 0, 0, 0, 1e-4]


def test_the_plateau_of_the_standalone_recipe_falls_every_eleven_epochs():
    """Above .909 an accuracy cannot grow by a tenth of itself: .01 until epoch 11, .002 from 12, 4e-4 from 23, ..."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 0.01)
    reschedule = fitting._SCHEDULES["plateau"](optimizer, load_recipe("standalone-center").schedule)
    rates = []
    for _ in range(46):
        rates.append(optimizer.param_groups[0]["lr"])
        reschedule(0.95)
    falls = [epoch for epoch in range(1, 46) if rates[epoch] != rates[epoch - 1]]  # counted from 0, as the original
    assert falls == [12, 23, 34, 45]
    assert [rates[epoch] for epoch in falls] == pytest.approx([2e-3, 4e-4, 8e-5, 1.6e-5])


def test_rmsprop_is_that_of_keras():
    """a = 0.9 a + 0.1 g^2; w -= lr g/(sqrt(a) + 1e-7)."""
    recipe = load_recipe("yukawa")
    weight = torch.tensor([1.0, -2.0], requires_grad=True)
    optimizer = fitting._OPTIMIZERS["rmsprop"]([weight], recipe.optimizer, 0.0)
    expected, average = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(4):
        gradient = 2 * expected
        average = 0.9 * average + 0.1 * gradient**2
        expected = expected - 1e-3 * gradient / (np.sqrt(average) + 1e-7)
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    np.testing.assert_allclose(weight.detach().numpy(), expected, rtol=1e-6)
