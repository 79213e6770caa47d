import math

import pytest
import torch

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.page.curves import DISTANCE, over_distance, over_probability

POINTS = [0.01, 0.1, 0.35, 0.8, 0.99]


def test_cross_entropy_is_minus_log_p_and_its_gradient_p_minus_1():
    curve = over_probability(Expression.parse("-y*log(p)"), 2.0, 10, POINTS)
    assert curve.x == POINTS
    assert curve.loss == pytest.approx([2 * (math.log(0.1) - math.log(p)) for p in POINTS])
    assert curve.gradient == pytest.approx([2 * (p - 1) for p in POINTS], abs=1e-6)


@pytest.mark.parametrize("name", [name for name, row in BASELINES.items() if not row.classes])
def test_curves_are_those_of_the_trained_losses(name):
    expression = Expression.parse(BASELINES[name].expression)
    if not expression.sees_logits or expression.sees_embeddings:
        pytest.skip("the loss is not of logits alone")
    curve = over_probability(expression, 1.0, 4, POINTS)
    loss = Loss(expression, num_classes=4).double()
    target = torch.tensor([2])
    start = loss(torch.zeros(1, 4, dtype=torch.float64), target).item()
    for p, value, slope in zip(POINTS, curve.loss, curve.gradient, strict=True):
        logits = torch.zeros(1, 4, dtype=torch.float64)
        logits[0, 2] = math.log(p * 3 / (1 - p))
        logits.requires_grad_(True)
        there = loss(logits, target)
        (gradient,) = torch.autograd.grad(there, logits)
        assert value == pytest.approx(there.item() - start, rel=1e-5, abs=1e-5)
        assert slope == pytest.approx(gradient[0, 2].item(), rel=1e-4, abs=1e-5)


def test_the_center_loss_pulls_by_twice_the_distance():
    expression = Expression.parse("cls(y*d**2)")
    own = over_distance(expression, 1.0, 10, [1.0, DISTANCE, 20.0], own=True)
    assert own.loss == pytest.approx([1 - DISTANCE**2, 0, 400 - DISTANCE**2])
    assert own.gradient == pytest.approx([2.0, 20.0, 40.0], abs=1e-5)
    assert over_distance(expression, 1.0, 10, [1.0, 20.0], own=False).gradient == [0, 0]


@pytest.mark.parametrize("text", ["pair(Y*D**2)", "trip(relu(Dp - Dn))", "partner((1 - Y)/D)"])
def test_every_layout_has_a_distance(text):
    own, other = (over_distance(Expression.parse(text), 1.0, 10, [2.0, 15.0], own) for own in (True, False))
    assert None not in own.loss + other.loss
    assert any(own.gradient) or any(other.gradient)


def test_what_is_not_finite_is_a_gap():
    curve = over_probability(Expression.parse("log(relu(p - 0.15) + 1 - y)"), 1.0, 10, [0.05, 0.2])
    assert curve.loss == [None, None]  # at the start it is not finite either: nothing to measure from
    assert curve.gradient[0] is None
    assert curve.gradient[1] > 0
