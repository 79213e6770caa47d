import dataclasses

import pytest
import torch
from rows import sized

from evoloss import stack
from evoloss.baselines import BASELINES
from evoloss.evaluate import decoder, prepare
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.records import Budget, Status
from evoloss.stack import Layers, Member, fit, train_stack
from evoloss.train import train

HUNDRED = Budget(12_800, 1, 3e-3)  # steps: 100
SHORT = Budget(512, 1, 3e-3)
NAMES = [name for name, classes in sized(10) if classes == 10]


@pytest.fixture(scope="module")
def workbench(digits):
    return prepare({None: digits})[None]


def member(name, rate=3e-3, scale=1.0):
    expression = Expression.parse(BASELINES[name].expression if name in BASELINES else name)
    loss = Loss(expression, 10, 64, scale=scale, generator=torch.Generator().manual_seed(5))
    return Member(loss, rate, decoder(expression))


def data(workbench):
    roles = {role: workbench.samples(role) for role in ("select",)}
    return workbench.samples("train"), roles


def together(workbench, members, budget=SHORT):
    samples, roles = data(workbench)
    return train_stack(workbench.proxy("mlp", 7), members, samples, roles, budget, 3)


def alone(workbench, one, budget):
    """The result and the weights of a separate training."""
    samples, roles = data(workbench)
    model = workbench.proxy("mlp", 7)
    budget = dataclasses.replace(budget, learning_rate=one.learning_rate)
    result = train(model, one.loss, samples, roles, budget, 3, one.decoder)
    return result, [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear)]


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_weights_are_those_of_separate_trainings_after_100_steps(workbench, optimizer):
    """To 1e-4 for every baseline; two rates and the order of members make no difference."""
    budget = dataclasses.replace(HUNDRED, optimizer=optimizer)
    rates = [3e-3, 1e-3] if optimizer == "adam" else [1e-2, 3e-3]
    names = [(name, rates[place % 2]) for place, name in enumerate(NAMES)]
    members = [member(name, rate) for name, rate in names]
    samples, _ = data(workbench)
    network = Layers(workbench.proxy("mlp", 7), len(members))
    with torch.no_grad():
        assert not fit(network, members, samples, budget, 3)
    for place, (name, rate) in enumerate(names):
        one = member(name, rate)
        _, layers = alone(workbench, one, budget)
        for layer, weights, biases in zip(layers, network.weights, network.biases, strict=True):
            torch.testing.assert_close(weights[place], layer.weight.detach(), rtol=0, atol=1e-4)
            torch.testing.assert_close(biases[place, 0], layer.bias.detach(), rtol=0, atol=1e-4)
        if one.loss.centers is not None:
            own = members[place].loss.centers.detach()
            torch.testing.assert_close(own, one.loss.centers.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["ce", "yukawa", "standalone-center", "center"])
def test_every_decoder_scores_as_in_a_separate_training(workbench, name):
    (together_,) = together(workbench, [member(name)], HUNDRED)
    separate, _ = alone(workbench, member(name), HUNDRED)
    assert together_.status is Status.OK
    assert together_.accuracy["select"] == pytest.approx(separate.accuracy["select"], abs=0.003)


def test_a_member_does_not_depend_on_its_neighbors(workbench):
    names = ["ce", "ngl", "triplet", "center", "contrastive"]
    everyone = together(workbench, [member(name) for name in names])
    for place, name in enumerate(names):
        assert together(workbench, [member(name)]) == [everyone[place]]
    backwards = together(workbench, [member(name) for name in reversed(names)])
    assert backwards[::-1] == everyone


def test_images_are_augmented_as_in_a_separate_training(workbench):
    budget = dataclasses.replace(SHORT, flips=True, shifts=True)
    (result,) = together(workbench, [member("ce")], budget)
    separate, _ = alone(workbench, member("ce"), budget)
    assert result.accuracy["select"] == pytest.approx(separate.accuracy["select"], abs=0.003)
    assert result != together(workbench, [member("ce")])[0]


def test_who_fails_fails_alone(workbench, monkeypatch):
    exploding = member("cls(-y*log(p))", scale=1e38)
    not_finite = member("cls(y*log(z))")
    raising = member("ngl")
    compiled = stack.compile_gradient

    def compiling(node, num_classes):
        return out_of_memory if node == raising.loss.expression.node else compiled(node, num_classes)

    def out_of_memory(batch):
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(stack, "compile_gradient", compiling)
    members = [member("ce"), exploding, not_finite, raising]
    answers = together(workbench, members, dataclasses.replace(SHORT, optimizer="sgd"))
    assert [answer.status for answer in answers] == [Status.OK, Status.DIVERGED, Status.DIVERGED, Status.INVALID]
    assert answers[0] == together(workbench, [member("ce")], dataclasses.replace(SHORT, optimizer="sgd"))[0]
    assert answers[2].detail == "loss nan at step 0"
    assert answers[3].detail == "RuntimeError: not enough memory"


def test_a_stack_that_takes_too_long_times_out(workbench):
    answers = together(workbench, [member("ce")] * 2, dataclasses.replace(SHORT, time_limit=1e-9))
    assert {answer.status for answer in answers} == {Status.TIMEOUT}
