import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import evaluate, fields, short_number

from evoloss.analysis.intervals import sigmoid, softplus
from evoloss.analysis.proofs import CLAIMS, Question, ask, to_sympy
from evoloss.operators import OPERATORS
from evoloss.syntax import read

UNIT, RAY, REALS = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)


def question(text, **domain):
    return Question(read(text)[1], domain or {"p": UNIT})


# Each with what is true and can be seen by hand: a claim, a formula, further arguments, the domain, the answer.
KNOWN = [
    ("constant", "(p - 1)*p*2 + (1 - p)*2*p", (), {}, 0.0),
    ("constant", "p*p", (), {}, None),
    ("affine", "1 - p + 9*p", (), {}, [1.0, 8.0]),
    ("affine", "1 - p**0.7", (), {}, None),
    ("falls", "-log(p)", ("p", True), {}, True),
    ("falls", "-(1 - p)**2*log(p)", ("p", True), {}, True),
    ("falls", "abs(p - 1)", ("p", True), {}, True),
    ("falls", "log(p)", ("p",), {}, None),
    ("falls", "1/(p - 0.5)", ("p",), {}, None),  # falls wherever it is defined
    ("falls", "-sign(p - 0.5)", ("p",), {}, None),  # falls by a jump, which is not looked into
    ("falls", "softplus(-z)", ("z", True), {"z": REALS}, True),
    ("falls", "relu(1 - z)", ("z",), {"z": REALS}, True),
    ("falls", "relu(1 - z)", ("z", True), {"z": REALS}, None),
    ("falls", "exp(-10*D)/D", ("D", True), {"D": RAY}, True),
    ("falls", "relu(Dp**2 - Dn**2 + 0.85)", ("Dn",), {"Dp": RAY, "Dn": RAY}, True),
    ("falls", "relu(Dp**2 - Dn**2 + 0.85)", ("Dp",), {"Dp": RAY, "Dn": RAY}, None),
    ("convex", "-log(p)", (True,), {}, True),
    ("convex", "(p - 0.3)**2", (True,), {}, True),
    ("convex", "1 - p", (True,), {}, None),
    ("convex", "1 - p", (), {}, True),
    ("convex", "1 - p**0.7", (), {}, True),
    ("convex", "p**0.7", (), {}, None),
    ("convex", "abs(p - 0.5)", (), {}, None),  # has a kink, where no second derivative is
    ("ordered", "-log(p)", (), {}, True),
    ("ordered", "exp(2.4092 - 2*p) - exp(2.4092 - p)", (), {}, True),  # NGL's f1 - f0 turns at p = log(2)
    ("ordered", "(p - 0.5)**2", (), {}, None),  # at 1 as at 0
    ("ordered", "p", (), {}, None),
    ("bounded below", "-log(p)", (), {}, True),
    ("bounded below", "log(p)", (), {}, None),
    ("brackets", "(p - 0.3)**2", (0.29, 0.31), {}, True),
    ("brackets", "(p - 0.3)**2", (0.31, 0.32), {}, None),
    ("brackets", "-(p - 0.3)**2", (0.29, 0.31), {}, None),
]


@pytest.mark.parametrize(("claim", "text", "arguments", "domain", "answer"), KNOWN)
def test_what_is_known(claim, text, arguments, domain, answer):
    assert ask(claim, question(text, **domain), *arguments) == answer


def test_every_claim_is_tried():
    assert {claim for claim, *_ in KNOWN} | {"bounded", "bounded slope", "stationary"} == set(CLAIMS)


@pytest.mark.parametrize(
    ("text", "domain", "end"),
    [
        ("-log(p)", {}, 0.0),
        ("1/p - log(p)", {}, 0.0),
        ("1/(1 - p)", {}, 1.0),
        ("-z", {"z": REALS}, -math.inf),
        ("softplus(z)", {"z": REALS}, math.inf),
        ("relu(D**2 - 1)", {"D": RAY}, math.inf),
        ("abs(z - 3)", {"z": REALS}, -math.inf),
    ],
)
def test_unbounded_with_values_on_the_way(text, domain, end):
    answer = ask("bounded", question(text, **domain))
    assert not answer["bounded"]
    assert answer["end"] == end
    sizes = [abs(value) for _, value in answer["points"]]
    assert sizes == sorted(sizes)
    place, value = answer["points"][1]
    expected, _ = evaluate(read(text)[1], {name: np.array([place]) for name in ("p", "z", "D")})
    assert value == pytest.approx(expected[0], rel=1e-6)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("1 - p**0.7", 0, 1),
        ("-p*log(p)", 0, 1 / math.e),
        ("exp(2.4092 - p) - cos(cos(sin(p)))", 0, 11),
        ("p*(1 - p)", 0, 0.25),
    ],
)
def test_bounds_enclose(text, low, high):
    answer = ask("bounded", question(text))
    assert answer["bounded"]
    assert answer["low"] >= low - 0.05
    values, _ = evaluate(read(text)[1], {"p": np.linspace(1e-9, 1 - 1e-9, 1001)})
    assert answer["low"] <= values.min() + 1e-12
    assert answer["high"] >= values.max() - 1e-12
    assert answer["high"] <= high + 0.05


@pytest.mark.parametrize(
    ("text", "by", "times", "domain", "bounded"),
    [
        ("-log(p)", "p", "p", {}, True),
        ("-(1 - p)**2*log(p)", "p", "p", {}, True),
        ("1/p", "p", "p", {}, False),
        ("softplus(-z)", "z", "1", {"z": REALS}, True),
        ("(z - 1)**2", "z", "1", {"z": REALS}, False),
        ("relu(1 - D)**2", "D", "1", {"D": RAY}, True),
    ],
)
def test_bounded_slopes(text, by, times, domain, bounded):
    assert ask("bounded slope", question(text, **domain), by, times)["bounded"] is bounded


@pytest.mark.parametrize(
    ("right", "wrong", "proper"),
    [("-log(p)", "p*0", True), ("(1 - p)**2", "p**2", True), ("1 - p", "p", False), ("1 - p**0.7", "p*0", False)],
)
def test_proper_losses_are_stationary_at_the_truth(right, wrong, proper):
    for two in (False, True):
        assert ask("stationary", question(right), read(wrong)[1], two) is (True if proper else None)


def test_of_two_classes_more_is_stationary():
    """p*f1' is -p*(1 - p), the same for p and 1 - p, but no constant."""
    right, wrong = question("p**2/2 - p"), read("p*0")[1]
    assert ask("stationary", right, wrong, True) is True
    assert ask("stationary", right, wrong, False) is None


def test_what_is_undefined_stays_open():
    for text in ("log(p - 2)", "sqrt(-p - 1)", "1/(p - p*1)"):
        assert ask("falls", question(text), "p") is None
        assert ask("bounded", question(text)) is None


@settings(max_examples=60, deadline=None)
@given(fields("class", short_number, max_leaves=5), st.booleans())
def test_no_false_claim_is_ever_proved(node, strictly):
    node = _of_p(node)
    points = np.linspace(1e-6, 1 - 1e-6, 2001)
    values, largest = evaluate(node, {"p": points})
    usable = np.isfinite(values).all() and largest.max() < 1e6
    if not usable:
        return
    slack = 1e-9 * (1 + largest.max())
    asked = Question(node, {"p": UNIT})
    if ask("falls", asked, "p", strictly):
        assert (np.diff(values) <= slack).all()
    if ask("convex", asked):
        assert (np.diff(values, 2) >= -slack).all()
    if (answer := ask("bounded", asked)) and answer["bounded"]:
        assert answer["low"] - slack <= values.min()
        assert values.max() <= answer["high"] + slack
    if (value := ask("constant", asked)) is not None:
        assert np.abs(values - value).max() <= slack


def _of_p(node):
    if isinstance(node, tuple):
        return (node[0], *map(_of_p, node[1:]))
    return {"y": 1.0, "z": ("sub", "p", 0.5), "d": ("mul", 3.0, "p"), "K": 4.0}.get(node, node)


@pytest.mark.parametrize("row", OPERATORS.values(), ids=lambda row: row.name)
def test_every_operator_means_what_it_does(row):
    """At a point, by sympy and by numpy."""
    node = (row.name, *("p", ("add", "p", 0.25))[: row.arity])
    symbol = sympy.Symbol("p", positive=True)
    written = to_sympy(node, {"p": symbol}).replace(sigmoid, lambda x: 1 / (1 + sympy.exp(-x)))
    written = written.replace(softplus, lambda x: sympy.log(1 + sympy.exp(x)))
    (expected,), _ = evaluate(node, {"p": np.array([0.375])})
    assert float(written.subs(symbol, sympy.Rational(3, 8))) == pytest.approx(expected)
