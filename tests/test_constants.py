import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from pydantic import ValidationError

from evoloss.baselines import BASELINES
from evoloss.config import Refinement
from evoloss.constants import DIGITS, constants, refine, with_constants
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.syntax import ExpressionError
from tests.strategies import scalars

CENTER = Expression.parse("cls(-y*log(p)) + 0.009*cls(d**1.52*sigmoid(3*d*y))")
NGL = Expression.parse(BASELINES["ngl"].expression)
NGL_CHILD = Expression.parse("exp(2.67 - p*(y + 1.845)) - cos(cos(p))")
NO_CONSTANTS = Expression.parse(BASELINES["focal"].expression)
THOROUGH = Refinement(population=10, generations=25, sigma=0.5)

FREE = {
    "exp(2.4092 - p*(1 + y)) - cos(cos(sin(p)))": (2.4092,),
    "cls(-y*log(p)) + 0.01*cls(y*d**1.52)": (0.01, 1.52),
    "pair((1 - Y)*exp(-10*D)/D + Y*D**3)": (-10,),
    "trip(relu(Dp**2 - Dn**2 + 0.85))": (0.85,),
    "-y*log(p) + 2*y*(1 - p)": (2,),
    "y*max(0.25, p)/(0.5 + z**2)": (0.25, 0.5),
    "y*(2*p + 3)*(5*z - 1)": (2, 3, 5),
    "y*2.5**p": (2.5,),
    "-y*(1 - p)**2*log(p)": (),  # shape
    "y*(1 - p)/p - 1/K": (),
    "3*y*(1 - p**0.7) + 4": (0.7,),  # a factor of the whole loss and a constant beside it
    "cls(-y*log(p)) - trip(0.76)": (),
    "7*(log(p + 3)*y - 5)": (3,),
    "3*cls(2*y/p + 5)": (),
    "3*y/(5*p)": (),
    "1/(p*y + 3)": (3,),
    "7*cls(y*p) + 2*cls(3*y*z + 5)": (7, 2, 3),
    "log(3*cls(y*p) + 2)": (3, 2),
}


NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-\d+)?")


def shape(expression):
    return NUMBER.sub("#", expression.text)


def numbers(expression):
    return [float(text) for text in NUMBER.findall(expression.text)]


class Scorer:
    """Scores by the nearness of numbers to those of the optimum of the same shape; remembers what it was asked."""

    def __init__(self, *optima, fails=lambda expression: False):
        self.optima = {shape(optimum): numbers(optimum) for optimum in optima}
        self.fails = fails
        self.calls = []

    def __call__(self, expressions):
        self.calls.append(expressions)
        return [None if self.fails(expression) else self.nearness(expression) for expression in expressions]

    def nearness(self, expression):
        """Minus the distance of the logarithms; None where a constant took another shape, such as 2 for 1.998."""
        if shape(expression) not in self.optima:
            return None
        optimum = self.optima[shape(expression)]
        return -math.dist([math.log(number) for number in numbers(expression)], [math.log(c) for c in optimum])

    @property
    def asked(self):
        return [expression for call in self.calls for expression in call]


@pytest.mark.parametrize("text", FREE)
def test_the_free_constants(text):
    assert sorted(constants(Expression.parse(text))) == sorted(FREE[text])


@settings(max_examples=60, deadline=None)
@given(scalars())
def test_its_own_constants_make_the_same_formula(node):
    try:
        expression = Expression.from_node(node)
    except ExpressionError:
        return
    assert with_constants(expression, constants(expression)) == expression


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("3*y*(1 - p**0.7) + 4", "y*(1 - p**0.7) - 2"),
        ("cls(-y*log(p)) - cls(0.76)", "cls(3 - 2*y*log(p))"),
        ("7*(log(p + 3)*y - 5)", "y*log(p + 3)"),
        ("3*y/(5*p)", "y/(7*p)"),
    ],
)
def test_fixed_constants_move_no_gradient(text, other):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(20, 5, generator=generator), torch.randint(5, (20,), generator=generator)

    def direction(formula):
        inputs = logits.clone().requires_grad_()
        Loss(Expression.parse(formula), 5)(inputs, labels).backward()
        return inputs.grad / inputs.grad.norm()

    torch.testing.assert_close(direction(text), direction(other))


OPTIMA = {
    "one": (NGL, (3.1,)),
    "negative": (Expression.parse(BASELINES["yukawa"].expression), (-4,)),
    "of all sizes": (Expression.parse("0.002*y*sqrt(p) - 150*y*p + exp(-2*y*p)"), (100, 0.003, -1.5)),
    "three": (CENTER, (0.02, 1.2, 5)),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_a_known_optimum_is_found(name):
    start, targets = OPTIMA[name]
    values = dict(zip(sorted(constants(start)), sorted(targets), strict=True))
    optimum = with_constants(start, [values[c] for c in constants(start)])
    (found,) = refine([start], Scorer(optimum), THOROUGH, seed=0)
    assert constants(found) == pytest.approx(constants(optimum), rel=0.02)


def test_constants_are_tried_with_few_digits():
    scorer = Scorer(CENTER)
    refine([CENTER], scorer, Refinement(), seed=0)
    for expression in scorer.asked:
        assert expression is CENTER or all(c == float(f"{c:.{DIGITS}g}") for c in constants(expression))


def test_the_first_tries_are_spread_as_sigma_says():
    scorer = Scorer(CENTER)
    refine([CENTER], scorer, Refinement(population=300, generations=1, sigma=0.2), seed=0)
    factors = np.log([numbers(expression) for expression in scorer.calls[0]]) - np.log(numbers(CENTER))
    assert factors.mean(0) == pytest.approx([0, 0, 0], abs=0.05)
    assert factors.std(0) == pytest.approx([0.2] * 3, rel=0.15)


def test_the_seed_decides():
    def found(seed, starts=(NGL,)):
        scorer = Scorer(with_constants(NGL, [4]), with_constants(CENTER, [0.02, 1.8, 2]))
        return refine(starts, scorer, Refinement(), seed)

    assert found(1) == found(1)
    assert found(1) != found(2)
    assert found(1, (CENTER, NO_CONSTANTS, NGL))[2:] == found(1)
    assert found(1, (NGL, NGL)) == found(1) * 2


def test_numpy_generator_is_left_alone():
    scorer = Scorer(with_constants(CENTER, [0.02, 1.8, 2]))

    def rude(expressions):
        np.random.standard_normal(7)
        return scorer(expressions)

    expected = refine([CENTER], scorer, Refinement(), seed=0)
    np.random.seed(5)
    following = np.random.standard_normal(3)
    np.random.seed(5)
    assert refine([CENTER], scorer, Refinement(), seed=0) == expected
    assert (np.random.standard_normal(3) == following).all()
    assert refine([CENTER], rude, Refinement(), seed=0) == expected


@pytest.mark.parametrize(("starts", "scored"), [([CENTER], 42), ([CENTER, NO_CONSTANTS, NGL_CHILD, CENTER], 84)])
def test_the_budget_is_counted(starts, scored):
    scorer = Scorer(with_constants(CENTER, [0.02, 1.8, 2]), NGL_CHILD)
    refine(starts, scorer, Refinement(population=8, generations=5), seed=0)
    assert len(set(scorer.asked)) == len(scorer.asked) == scored
    assert [len(call) for call in scorer.calls] == [8 * scored // 42] * 5 + [2 * scored // 42]
    assert CENTER in scorer.calls[-1]


def test_what_has_no_constants_is_not_scored():
    scorer = Scorer()
    assert refine([NO_CONSTANTS], scorer, Refinement(), seed=0) == [None]
    assert refine([], scorer, Refinement(), seed=0) == []
    assert scorer.calls == []


@pytest.mark.parametrize("score", [0.5, None])
def test_nothing_better(score):
    assert refine([NGL], lambda expressions: [score] * len(expressions), Refinement(), seed=0) == [None]


def test_a_start_that_fails_is_bettered_by_what_does_not():
    scorer = Scorer(NGL, fails=lambda expression: expression == NGL)
    (found,) = refine([NGL], scorer, Refinement(), seed=0)
    assert found in scorer.asked
    assert found != NGL


def test_what_fails_is_the_worst():
    optimum = with_constants(NGL, [2])
    scorer = Scorer(optimum, fails=lambda expression: constants(expression)[0] < 2.2)
    (found,) = refine([NGL], scorer, THOROUGH, seed=0)
    assert constants(found)[0] == pytest.approx(2.2, rel=0.01)


def test_what_is_no_formula_is_the_worst():
    start = Expression.parse("y*(1 - p**15.5)")
    with pytest.raises(EvolossError, match="exponent"):
        with_constants(start, [17])
    scorer = Scorer(with_constants(start, [5.5]))
    (found,) = refine([start], scorer, Refinement(population=10, generations=20, sigma=1), seed=0)
    assert len(scorer.calls[0]) < 10
    assert constants(found)[0] == pytest.approx(5.5, rel=0.03)


def test_all_may_fail_for_ever():
    wide = Refinement(population=4, generations=30, sigma=3)
    assert refine([NGL], lambda expressions: [None] * len(expressions), wide, seed=0) == [None]


def test_the_smallest_settings():
    smallest = Refinement(population=4, generations=1)
    scorer = Scorer(with_constants(NGL, [3]))
    refine([NGL], scorer, smallest, seed=0)
    assert len(scorer.asked) == 6
    with pytest.raises(ValidationError):
        Refinement(population=3)
