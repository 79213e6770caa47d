import math
import string

import pytest
import sympy
import torch

from evoloss import canonical, lower
from evoloss.operators import FIRST_REDUCTION, FUNCTIONS, OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import ExpressionError, write

POINTS = (-2.3, -1.0, -0.37, 0.0, 0.5, 1.0, 1.7, 3.0)


def _places(template):
    return [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]


def _balanced(latex):
    depth = 0
    for character in latex:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0, latex
    return depth == 0


def _arguments(arity):
    return [(a,) for a in POINTS] if arity == 1 else [(a, b) for a in POINTS for b in POINTS]


@pytest.mark.parametrize("row", OPERATORS.values(), ids=OPERATORS)
def test_every_operator_names_a_torch_function(row):
    function = lower._OWN.get(row.name) or getattr(torch, row.torch, None)
    assert callable(function), f"torch has no {row.torch}"


@pytest.mark.parametrize("row", OPERATORS.values(), ids=OPERATORS)
def test_every_operator_names_a_sympy_head(row):
    head = canonical._OWN.get(row.sympy) or getattr(sympy, row.sympy, None)
    assert callable(head), f"sympy has no {row.sympy}"
    assert canonical._HEADS[row.name] is head


@pytest.mark.parametrize("row", OPERATORS.values(), ids=OPERATORS)
def test_folding_is_what_torch_computes(row):
    function = lower._OWN.get(row.name) or getattr(torch, row.torch)
    compared = 0
    for numbers in _arguments(row.arity):
        expected = function(*(torch.tensor(number, dtype=torch.float64) for number in numbers)).item()
        try:
            value = canonical.fold(row.name, *numbers)
        except ExpressionError:
            assert not math.isfinite(expected), f"{write((row.name, *numbers))} is {expected} for torch, refused here"
            continue
        if math.isfinite(expected):
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-12), write((row.name, *numbers))
            compared += 1
    assert compared >= 4


@pytest.mark.parametrize("row", OPERATORS.values(), ids=OPERATORS)
def test_rows_of_operators(row):
    assert row.name.isidentifier()
    assert row.arity in (1, 2)
    assert row.cost >= 1
    assert not row.associative or row.arity == 2
    assert _places(row.latex) == [""] * row.arity
    assert _balanced(row.latex.format(*"ab"[: row.arity]))


@pytest.mark.parametrize("row", VARIABLES.values(), ids=VARIABLES)
def test_rows_of_variables(row):
    assert row.name.isidentifier()
    assert row.layout is None or row.layout in FIRST_REDUCTION
    assert (row.prediction or row.target) == (row.layout is not None)
    assert row.meaning
    assert _balanced(row.latex)
    assert canonical._SYMBOLS[row.name].is_real
    assert canonical._SYMBOLS[row.name].is_positive is (True if row.sign == "positive" else None)


@pytest.mark.parametrize("row", REDUCTIONS.values(), ids=REDUCTIONS)
def test_rows_of_reductions(row):
    assert any(variable.layout == row.layout for variable in VARIABLES.values())
    assert REDUCTIONS[FIRST_REDUCTION[row.layout]].layout == row.layout
    assert row.meaning
    assert _places(row.latex) == [""]
    assert _balanced(row.latex.format("f"))


def test_the_first_reduction_of_a_layout_is_the_first_in_the_table():
    assert FIRST_REDUCTION == {"class": "cls", "pair": "pair", "triplet": "trip"}


def test_words_mean_one_thing():
    words = [*OPERATORS, *VARIABLES, *REDUCTIONS]
    # `pair` is both a layout and a reduction, which are never confused: layouts are not words of a formula.
    assert len(words) == len(set(words))


def test_symbols_are_not_functions():
    assert {name: row.symbol for name, row in OPERATORS.items() if row.symbol} == {
        "add": "+",
        "sub": "-",
        "mul": "*",
        "div": "/",
        "pow": "**",
        "neg": "-",
    }
    assert not set(FUNCTIONS) & {"add", "sub", "mul", "div", "pow", "neg"}


@pytest.mark.parametrize(
    ("name", "numbers", "value"),
    [
        ("softplus", (0.0,), 0.6931471805599453),  # log 2
        ("softplus", (800.0,), 800.0),
        ("softplus", (-800.0,), 0.0),
        ("sigmoid", (0.0,), 0.5),
        ("sigmoid", (-800.0,), 0.0),
        ("sigmoid", (800.0,), 1.0),
        ("erf", (1.0,), 0.8427007929497149),  # Abramowitz & Stegun, table 7.1
        ("relu", (-1.0,), 0.0),
        ("sign", (0.0,), 0.0),
        ("sign", (-0.2,), -1.0),
        ("pow", (2.0, -1.0), 0.5),
        ("pow", (0.0, 0.0), 1.0),
        ("tan", (1.0,), 1.5574077246549023),
        ("min", (2.0, -3.0), -3.0),
    ],
)
def test_fold_literally(name, numbers, value):
    assert canonical.fold(name, *numbers) == pytest.approx(value, rel=1e-15, abs=1e-300)


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("log", (0.0,)),
        ("log", (-1.0,)),
        ("sqrt", (-1.0,)),
        ("div", (1.0, 0.0)),
        ("exp", (1000.0,)),
        ("pow", (-8.0, 1 / 3)),
        ("pow", (0.0, -1.0)),
        ("pow", (9.0, 9.0**9)),
        ("mul", (1e300, 1e300)),
    ],
)
def test_fold_refuses_what_is_not_a_finite_real(name, numbers):
    with pytest.raises(ExpressionError, match="not a finite real number"):
        canonical.fold(name, *numbers)
