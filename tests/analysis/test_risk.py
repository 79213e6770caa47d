import math

import numpy as np
import pytest
import torch
from rows import sized

from evoloss.analysis.curves import initial_length
from evoloss.analysis.parts import split
from evoloss.analysis.risk import Risk, above_floor, line, one_hot, perfect
from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.layouts import FLOOR
from evoloss.lower import Loss


def risk(text, num_classes=10):
    expression = Expression.parse(BASELINES[text].expression if text in BASELINES else text)
    return Risk(split(expression).by_kind["logits"], num_classes)


@pytest.mark.parametrize(("name", "count"), [row for row in sized(10) if BASELINES[row[0]].family == "classification"])
def test_losses_and_gradients_are_those_of_the_module(name, count):
    logits = 2 * torch.randn(8, count, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(8) % count
    free = logits.clone().requires_grad_()
    module = Loss(Expression.parse(BASELINES[name].expression), count, reduction="none")
    expected = module(free, labels)
    (gradient,) = torch.autograd.grad(expected.sum(), free)
    looked_at = risk(name, count)
    torch.testing.assert_close(looked_at.losses(logits).gather(1, labels.unsqueeze(1)).squeeze(1), expected.detach())
    values, gradients = looked_at.gradients(logits, one_hot(labels, count))
    torch.testing.assert_close(values, expected.detach())
    torch.testing.assert_close(gradients, gradient)


def test_the_risk_is_the_expected_loss():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    shares = torch.rand(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    shares /= shares.sum(1, keepdim=True)
    for name in ("ngl", "squentropy"):
        looked_at = risk(name, 4)
        torch.testing.assert_close(looked_at.risks(logits, shares), (looked_at.losses(logits) * shares).sum(1))


def test_the_line_gives_the_right_class_its_share():
    shares = np.array([1e-6, 0.1, 0.5, perfect(10)])
    logits = line(shares, 10)
    p = logits.softmax(1)
    np.testing.assert_allclose(p[:, 0], shares, rtol=1e-9)
    assert float((p[:, 1:].amax(1) - p[:, 1:].amin(1)).max()) < 1e-15
    assert float(logits.mean(1).abs().max()) < 1e-12
    assert float(p.min()) == pytest.approx(FLOOR, rel=1e-6)


# Computed for this project from the published formula, means over classes there (reference/losses.md 1.5).
@pytest.mark.parametrize(
    ("count", "optimum", "uniform", "best", "perfect_", "length"),
    [
        (2, 0.566, 4.789, 4.765, 5.652, 0.359),
        (10, 0.391, 9.426, 9.319, 9.598, 0.0815),
        (100, 0.362, 10.473, 10.456, 10.486, 0.0011),
    ],
)
def test_the_figures_of_ngl(count, optimum, uniform, best, perfect_, length):
    looked_at = risk("ngl", count)
    values = looked_at.on_line(np.array([1 / count, optimum, perfect(count)]))[0] / count
    np.testing.assert_allclose(values, [uniform, best, perfect_], atol=6e-4)
    assert initial_length(looked_at) / count == pytest.approx(length, rel=0.02)  # two digits of it are known
    found = looked_at.minimize(one_hot(torch.zeros(1, dtype=torch.long), count))
    assert float(found.best[0].softmax(1)[0, 0]) == pytest.approx(optimum, abs=1e-3)
    assert found.descents == 7


@pytest.mark.parametrize("name", ["ce", "brier"])
def test_proper_losses_are_minimized_at_the_truth(name):
    shares = torch.tensor([[0.6, 0.3, 0.1], [0.34, 0.33, 0.33]], dtype=torch.float64)
    logits, risks = risk(name, 3).minimize(shares).best
    torch.testing.assert_close(logits.softmax(1), shares, atol=2e-3, rtol=0)
    if name == "ce":
        torch.testing.assert_close(risks, -(shares * shares.log()).sum(1), atol=1e-5, rtol=0)


def test_losses_of_one_side_are_minimized_by_certainty():
    shares = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    logits, _ = risk("mae", 3).minimize(shares).best
    assert float(logits.softmax(1)[0, 0]) > 0.99


def test_no_probability_falls_below_the_floor_of_the_language():
    logits = above_floor(torch.tensor([[0.0, -40.0, 3.0], [900.0, 0.0, 0.0]], dtype=torch.float64))
    assert float(logits.softmax(1).min()) >= FLOOR
    assert logits[0, 0] == 0


def test_cross_entropy_begins_with_a_gradient_of_its_own_length():
    assert initial_length(risk("ce", 7)) == pytest.approx(1)
    assert risk("ce", 7).on_line(np.array([1 / 7]))[2][0] == pytest.approx(math.sqrt(1 - 1 / 7))
