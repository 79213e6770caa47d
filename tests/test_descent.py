import pytest
import torch

from evoloss import descent
from evoloss.baselines import BASELINES
from evoloss.descent import learning_signs
from evoloss.expression import Expression

parse = Expression.parse

# The sign that learns, for ten classes.
SIGNS = {
    "-y*log(p)": 1,
    "y*log(p)": -1,
    "y*d + (1 - y)*exp(-d)": 1,
    "pair(Y*D - (1 - Y)*tanh(D))": 1,
    "trip(Dn - Dp)": -1,
    "trip(relu(Dp - Dn + 0.2))": 1,
    "p**2": 0,
    "y": 0,
    "trip(exp(Dn))": 0,  # knows no positives
    "y*log(z)": 0,  # not a number from the first step on
    "y*exp(40*exp(z))": 0,
    "sin(50*p*y)": 0,
    "y*sin(300*p)": 0,
    "y*cos(20*z)": 0,
    "pair(Y*sin(50*D))": 0,
    "trip(sin(50*(Dp - Dn)))": 0,
    "y*sin(50*d)": 0,
}


def test_signs():
    expressions = {text: parse(text) for text in SIGNS}
    assert dict(zip(SIGNS, learning_signs(list(expressions.values()), 10), strict=True)) == SIGNS


STEEP = (  # each trains to 98 % of digits, as cross-entropy does
    "pair(exp(D)*(1 - Y)/D + tanh(tanh(D)))",
    "pair(Y*D**D/sqrt(1 + Y**2) + exp(D)*(1 - Y)/D)",
    "trip(relu(Dp**2 + 0.85 - Dn**(min(Dp, K) - log(Dp))))",
)


def test_losses_that_are_steep_at_large_distances_need_the_second_start(monkeypatch):
    expressions = [parse(text) for text in STEEP]
    assert learning_signs(expressions, 10) == [1, 1, 1]
    monkeypatch.setattr(descent, "EMBEDDINGS", descent.EMBEDDINGS[:1])
    monkeypatch.setattr(descent, "_start", descent._start.__wrapped__)
    assert learning_signs(expressions, 10) == [0, 0, 0]


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_a_factor_means_nothing(factor, num_classes):
    nodes = [parse(row.expression).node for row in BASELINES.values() if row.classes is None]
    expressions = [Expression.from_node(("mul", factor, node)) for node in nodes]
    assert learning_signs(expressions, num_classes) == [1] * len(nodes)


@pytest.mark.parametrize("most", [1, 30_000])
def test_a_large_stack_is_split(monkeypatch, most):
    """Distances of 40 samples, in four attempts: 6,400 numbers a loss."""
    expressions = [parse(text) for text in SIGNS]
    monkeypatch.setattr(descent, "MOST_NUMBERS", most)
    assert learning_signs(expressions, 10) == list(SIGNS.values())


def test_hundreds_of_classes():
    expressions = [parse(BASELINES[name].expression) for name in ("ce", "triplet", "center")]
    assert learning_signs(expressions, 300) == [1, 1, 1]
    assert learning_signs([parse("y*log(p)")], 300) == [-1]


def test_adam_is_that_of_torch():
    """To rounding: the one here has no fused multiply-adds."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, 5, generator=generator)
    theirs = values.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=descent.RATE, betas=descent.BETAS, eps=descent.EPSILON)
    state = torch.stack([values, torch.zeros_like(values), torch.zeros_like(values)])
    for step in range(1, 6):
        gradient = torch.randn(2, 3, 5, generator=generator)
        theirs.grad = gradient.clone()
        optimizer.step()
        descent._adam(state, gradient, step)
    torch.testing.assert_close(state[0], theirs.detach(), rtol=1e-5, atol=1e-6)
