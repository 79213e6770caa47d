import random

import pytest
import torch

from benchmarks import step
from benchmarks.step import INCEPTION, LOSSES, MLP, REFERENCE, nodes, rows, steps, times
from evoloss.expression import Expression
from evoloss.proxies import build
from evoloss.screen import screen

torch.set_num_threads(1)


@pytest.mark.parametrize("text", LOSSES)
def test_the_losses_are_such_as_a_search_trains(text):
    formula = Expression.parse(text)
    assert formula.text == text
    assert not formula.missing
    (verdict,) = screen([formula], step.CLASSES)
    assert not verdict.problem
    assert not verdict.negate


def test_the_losses_have_all_sizes_with_and_without_embeddings():
    for sees_embeddings in (False, True):
        formulas = [Expression(text) for text in LOSSES]
        sizes = [nodes(formula.node) for formula in formulas if formula.sees_embeddings is sees_embeddings]
        assert sizes == sorted(sizes)
        assert all(any(abs(size - wanted) <= 3 for size in sizes) for wanted in (5, 15, 30))


@pytest.mark.parametrize(
    ("text", "size"), [("cls(p)", 2), ("cls(p - y)", 4), ("cls(-y*log(p))", 6), ("cls(p**2) - pair(D)", 7)]
)
def test_nodes(text, size):
    assert nodes(Expression(text).node) == size


@pytest.mark.parametrize("setting", [MLP, INCEPTION], ids=lambda setting: setting.proxy)
def test_rows(setting):
    table = list(rows(setting._replace(batch_size=8, rounds=1), LOSSES[:1], fastest=1e9))
    assert [row["loss"] for row in table] == [REFERENCE, LOSSES[0]]
    assert [row["nodes"] for row in table] == ["", 6]
    assert table[0]["ratio"] == 1
    assert all(tuple(row) == step.COLUMNS and row["ms"] > 0 and row["peak_share"] > 0 for row in table)


def test_a_step_computes_gradients_and_leaves_the_weights(monkeypatch):
    model = build("mlp", MLP.shape, step.CLASSES, seed=0)
    monkeypatch.setattr(step, "build", lambda *_, **__: model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for action in steps(MLP, LOSSES).values():
        model.zero_grad()
        action()
        assert model.features[1].weight.grad.any()
    assert all(torch.equal(was, now) for was, now in zip(before, model.parameters(), strict=True))


def test_every_action_is_timed_once_a_round_after_a_first_call():
    calls = []
    random.seed(0)
    taken = times({name: lambda name=name: calls.append(name) for name in "abc"}, 4)
    assert sorted(calls) == sorted("abc" * 5)
    assert {name: len(column) for name, column in taken.items()} == dict.fromkeys("abc", 4)
