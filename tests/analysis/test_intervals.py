"""An enclosure that misses a value would be a wrong proof: every row is tried at random points of random boxes."""

import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import evaluate, fields, short_number

from evoloss.analysis import intervals, proofs
from evoloss.analysis.intervals import PROBABILITY as P
from evoloss.analysis.intervals import UndecidedError, enclosure, holds, hull
from evoloss.analysis.parts import names
from evoloss.operators import FUNCTIONS

Z = sympy.Symbol("z", real=True)
REALS = (-math.inf, math.inf)


def box(low, high, symbol=P):
    return {symbol: (np.array([low]), np.array([high]))}


@settings(max_examples=150, deadline=None)
@given(fields("class", short_number, max_leaves=6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_every_value_lies_in_the_enclosure(node, one, other, seed):
    """Of formulas of p and z, at points inside a box, by numpy, which knows nothing of intervals."""
    rng = np.random.default_rng(seed)
    low, high = sorted((one, other))
    symbols = {"p": P, "z": Z, "y": sympy.S.One, "K": sympy.Integer(7), "d": sympy.Rational(3, 2)}
    try:
        formula = proofs.to_sympy(node, symbols)
        (bottom,), (top,) = enclosure(formula, box(low, high) | box(10 * low - 5, 10 * high - 5, Z))
    except proofs.OPEN:
        return
    size = 50
    at = {name: rng.uniform(low, high, size) for name in ("p", "z")}
    at["z"] = 10 * at["z"] - 5
    values, largest = evaluate(node, at | {"y": np.ones(size), "K": np.full(size, 7.0), "d": np.full(size, 1.5)})
    sound = np.isfinite(values) & (largest < 1e6) & (np.abs(at["p"] - 0.5) < 0.5)
    kept = sound & ~np.isnan(bottom) & ~np.isnan(top)
    slack = 1e-9 * (1 + largest)
    assert (values[kept] >= bottom - slack[kept]).all()
    assert (values[kept] <= top + slack[kept]).all()


@pytest.mark.parametrize("name", [row.name for row in FUNCTIONS.values() if row.arity == 1])
def test_a_function_of_one_variable_is_enclosed_tightly(name):
    formula = proofs.to_sympy((name, "z"), {"z": Z})
    low, high = (2.0, 2.5) if name in ("log", "sqrt") else (-0.5, 1.25)
    (bottom,), (top,) = enclosure(formula, box(low, high, Z))
    points = np.linspace(low, high, 1001)
    values, _ = evaluate((name, "z"), {"z": points, "p": points})
    assert bottom <= values.min() + 1e-12
    assert top >= values.max() - 1e-12
    if name != "sign":
        assert top - bottom < (values.max() - values.min()) * 1.02 + 1e-9


@pytest.mark.parametrize(
    ("formula", "low", "high", "least", "greatest"),
    [
        (P * sympy.log(P), 0, 1, -1 / math.e, 0),
        (sympy.log(P), 0, 1, -math.inf, 0),
        (1 / P, 0, 1, 1, math.inf),
        (1 / (1 - P), 0.5, 1, 2, math.inf),
        (sympy.sin(100 * P), 0, 1, -1, 1),
        (sympy.sin(P), 1, 2, math.sin(1), 1),
        (sympy.Abs(P - sympy.Rational(1, 2)), 0, 1, 0, 0.5),
        ((P - sympy.Rational(1, 2)) ** 2, 0, 1, 0, 0.25),
        ((P - sympy.Rational(1, 2)) ** 3, 0, 1, -0.125, 0.125),
        (sympy.Heaviside(P - 1), 0, 1, 0, 1),
    ],
)
def test_known_ranges(formula, low, high, least, greatest):
    (bottom,), (top,) = enclosure(formula, box(low, high))
    assert bottom == pytest.approx(least, abs=1e-12)
    assert top == pytest.approx(greatest, abs=1e-12)
    assert bottom <= least
    assert top >= greatest


@pytest.mark.parametrize(
    "formula",
    [
        1 / (P - sympy.Rational(1, 2)),
        1 / (P - sympy.Rational(1, 2)) ** 2,
        sympy.log(P - sympy.Rational(1, 2)),
        sympy.sqrt(P - sympy.Rational(1, 2)),
        sympy.tan(10 * P),
        1 / sympy.sin(10 * P),
    ],
)
def test_poles_and_undefined_values_prove_nothing(formula):
    low, high = enclosure(formula, box(0, 1))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    assert not holds(lambda low, high: low > -math.inf, formula, {P: (0.0, 1.0)})


def test_halving_decides_what_one_box_cannot():
    formula = P**2 - P + sympy.Rational(26, 100)  # at least 0.01
    assert hull(formula.subs(P, P), {P: (0.0, 1.0)})[0] <= 0.01
    assert holds(lambda low, high: low > 0, formula, {P: (0.0, 1.0)})
    assert not holds(lambda low, high: low > 0, formula - sympy.Rational(2, 100), {P: (0.0, 1.0)})


def test_two_variables_and_infinite_domains():
    one, other = (sympy.Symbol(name, positive=True) for name in ("Dp", "Dn"))
    domain = {one: (0.0, math.inf), other: (0.0, math.inf)}
    assert holds(lambda low, high: low >= 0, sympy.Max(one - other, 0), domain)
    assert not holds(lambda low, high: low >= 0, one - other, domain)
    assert holds(lambda low, high: (low >= 0) & (high <= 1), intervals.sigmoid(Z), {Z: REALS})


def test_unknown_functions_are_undecided():
    with pytest.raises(UndecidedError):
        enclosure(sympy.besselj(0, P), box(0, 1))
    assert names(("add", "p", 1.0)) == {"p"}
