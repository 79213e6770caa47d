import math
import random
from itertools import combinations

import pytest
import torch
from rows import sized

from evoloss.baselines import BASELINES
from evoloss.duplicates import TOLERANCE, Fingerprints
from evoloss.expression import Expression
from evoloss.screen import Verdict, fingerprint, screen

torch.set_num_threads(1)

parse = Expression.parse


def alone(text: str, num_classes: int) -> Verdict:
    (verdict,) = screen([parse(text)], num_classes)
    return verdict


def difference(first: str, second: str, num_classes: int = 10) -> float:
    a, b = (fingerprint(parse(text), num_classes) for text in (first, second))
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("name", "num_classes"), sized(2, 10))
def test_every_baseline_passes(name, num_classes):
    verdict = alone(BASELINES[name].expression, num_classes)
    assert verdict.problem == ""
    assert not verdict.negate
    assert verdict.fingerprint
    assert all(math.isfinite(number) for number in verdict.fingerprint)


@pytest.mark.parametrize(("name", "num_classes"), sized(2, 10))
def test_every_negated_baseline_is_told_to_turn_round(name, num_classes):
    negated = parse(BASELINES[name].expression).negated
    (verdict,) = screen([negated], num_classes)
    assert verdict.problem == ""
    assert verdict.negate
    assert verdict.fingerprint == ()
    assert screen([negated.negated], num_classes)[0].fingerprint


@pytest.mark.parametrize("name", ["ce", "ngl", "yukawa", "center"])
@pytest.mark.parametrize("num_classes", [3, 100])
def test_other_numbers_of_classes(name, num_classes):
    verdict = alone(BASELINES[name].expression, num_classes)
    assert (verdict.problem, verdict.negate) == ("", False)


BAD = {
    "p": "learns",
    "p**2": "learns",
    "cos(p) + y": "learns",
    "cls(z)": "learns",
    "d": "learns",
    "z/p": "learns",
    "p*log(p)": "learns",  # entropy: sharp, but nobody says where
    "y*cos(1000000*z)": "learns",
    "cls(p)**2 + cls(y)": "learns",
    "log(p - 2)": "finite",
    "sqrt(y - 2)*p": "finite",
    "exp(z**2)*y": "finite",
    "-y*log(p)/(1 - p)": "finite",
    "pair(Y*log(D - 50))": "finite",
    "y*sqrt(p - min(p, 1))": "finite",  # 0 everywhere, with an infinite slope on both sides
    "sign(p - y)": "flat",
    "y*sign(z)": "flat",
    "relu(p - 2)*y": "flat",
    "trip(sign(Dn - Dp))": "flat",
    "pair(relu(-D)*Y)": "flat",
}


@pytest.mark.parametrize("text", BAD)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_bad_formulas_fail_the_right_screen(text, num_classes):
    verdict = alone(text, num_classes)
    assert verdict.problem.split(":")[0] == BAD[text]
    assert not verdict.negate
    assert verdict.fingerprint == ()


GOOD = (
    "y*exp(-3*p)",
    "y*log(p)**2",
    "-y*tanh(z) + 0.1*z**2",
    "cls(-y*log(p)) + pair(Y*D**2)",
    "pair(Y*D - (1 - Y)*tanh(D))",
    "trip(softplus(Dp - Dn))",
    "y*d + (1 - y)*exp(-d)",
)


@pytest.mark.parametrize("text", GOOD)
def test_known_good_losses_pass(text):
    verdict = alone(text, 10)
    assert (verdict.problem, verdict.negate) == ("", False)


@pytest.mark.parametrize("text", ["y*log(p)", "sin(3*(p - y)**2)", "y*p", "-abs(p - y)", "trip(Dn - Dp)"])
def test_the_wrong_sign_is_no_reason_to_reject(text):
    verdict = alone(text, 10)
    assert verdict.negate
    assert verdict.problem == ""


# --- Batches ----------------------------------------------------------------------------------------------------------

RAISING = Expression("cls(-y*log(p)")
ALL = (
    *(parse(text) for text in (*(row.expression for row in BASELINES.values()), *BAD, *GOOD, "y*log(p)", "y")),
    RAISING,
)


@pytest.fixture(scope="module")
def each_alone():
    return {expression: screen([expression], 7)[0] for expression in ALL}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [2, 8, 16, len(ALL)])
def test_the_others_have_no_say_in_a_verdict(each_alone, size, seed):
    order = random.Random(seed).sample(ALL, len(ALL))
    for first in range(0, len(order), size):
        batch = order[first : first + size]
        assert screen(batch, 7) == [each_alone[expression] for expression in batch]


def test_a_formula_may_come_twice():
    once = alone("-y*log(p)", 7)
    assert screen([parse("-y*log(p)")] * 3, 7) == [once] * 3


def test_no_formulas_have_no_verdicts():
    assert screen([], 10) == []


def test_a_formula_that_raises_fails_alone(each_alone):
    assert each_alone[RAISING].problem.startswith("raises: ExpressionError: ")
    assert len(each_alone[RAISING].problem.splitlines()) == 1


@pytest.mark.parametrize("text", ["-y*log(p)", "trip(softplus(Dp - Dn))", "-y*log(p) + 0.01*y*d**2", "p"])
def test_a_verdict_depends_on_no_generator_and_changes_none(text):
    torch.manual_seed(1)
    first = alone(text, 7)
    alone("abs(p - y)", 3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert alone(text, 7) == first
    assert torch.equal(torch.get_rng_state(), before)


# --- Fingerprints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["-3*y*log(p)", "7 - 0.001*y*log(p)", "-1000000*y*log(p) + K", "cls(-y*log(p))*0.37 - 12", "-y*log(p)*K"]
)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_a_factor_and_a_constant_change_no_fingerprint(text, num_classes):
    assert difference(text, "-y*log(p)", num_classes) <= 1e-8


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("y*sin(p)**2", "y*(1 - cos(2*p))/2"),
        ("pair(Y*D**2)", "pair(Y*abs(D)*D)"),
        ("(p - y)**2", "p**2 - 2*p*y + y**2"),
        ("sigmoid(z)*y", "y*(1 + tanh(z/2))"),
        ("-y*log(p)", "y*log(K) - y*log(p) + y**2"),
    ],
)
def test_the_same_loss_in_other_words_has_the_same_fingerprint(first, second):
    assert difference(first, second) <= TOLERANCE


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_cross_entropy_merges_with_all_its_multiples(num_classes):
    table = Fingerprints()
    table.add("ce", alone("-y*log(p)", num_classes).fingerprint)
    multiples = [parse(f"{sign}10**{power}*y*log(p)") for power in range(-6, 7) for sign in ("-", "-3.7*")]
    assert [table.find(v.fingerprint) for v in screen(multiples, num_classes)] == ["ce"] * len(multiples)


def test_a_term_without_gradient_changes_no_fingerprint():
    assert difference("-y*log(p)", "cls(-y*log(p)) + trip(relu(Dp - Dn - 1000)) + cls(relu(-d))") == 0


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        ("trip(relu(Dp**2 - Dn**2 + {}))", 0.85, 0.86),
        ("trip(relu(Dp - Dn + {}))", 0.2, 0.201),
        ("pair(Y*D + (1 - Y)*relu({} - D))", 1.0, 1.01),
        ("pair(Y*D + (1 - Y)*relu({} - D))", 9.0, 9.5),
        ("y*relu({} - z) + (1 - y)*relu(1 + z)", 1.0, 1.05),
        ("-y*min(p, {})", 0.9, 0.91),
        ("-y*log(max(p, {}))", 0.05, 0.053),
        ("y*min(d, {})", 2.0, 2.1),
    ],
)
@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_a_threshold_moved_a_little_makes_another_loss(form, first, second, num_classes):
    assert difference(form.format(first), form.format(second), num_classes) > 1000 * TOLERANCE


DISTINCT = (
    *(row.expression for row in BASELINES.values()),
    *GOOD,
    "-y*log(p) + 0.001*y*p**2",
    "-y*log(p) + 0.001*p**2",
    "-y*log(p) + 0.02*y*d**2",
    "pair((1 - Y)*exp(-9.9*D)/D + Y*D**3)",
    "trip(relu(Dp**2 - Dn**2 + 0.5))",
    "y*log(p)",
)


def test_distinct_losses_are_apart():
    assert len(DISTINCT) >= 20
    marks = {text: fingerprint(parse(text), 10) for text in DISTINCT}
    table = Fingerprints()
    for text in DISTINCT:
        assert table.find(marks[text]) is None, text
        table.add(text, marks[text])
    assert {text: table.find(marks[text]) for text in DISTINCT} == {text: text for text in DISTINCT}
    largest = [max(abs(x - y) for x, y in zip(marks[a], marks[b], strict=True)) for a, b in combinations(DISTINCT, 2)]
    assert min(largest) > TOLERANCE


def test_a_thousandth_of_another_term_is_another_loss():
    assert difference("-y*log(p)", "-y*log(p) + 0.001*y*p**2") > TOLERANCE


def test_all_fingerprints_of_a_problem_have_one_length():
    assert len({len(fingerprint(parse(text), 10)) for text in DISTINCT}) == 1


@pytest.mark.parametrize("text", ["cls(y*exp(d**2))", "trip(exp(Dp**2.2) - Dn)", "pair(Y*D**(4*D))"])
def test_a_gradient_of_any_length_leaves_numbers(text):
    """The square of a derivative of 1e155 is infinite, and infinite over infinite is no number."""
    assert all(math.isfinite(number) for number in fingerprint(parse(text), 10))
