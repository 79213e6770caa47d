import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from strategies import scalars

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.mathml import to_mathml
from evoloss.operators import FUNCTIONS, REDUCTIONS
from evoloss.syntax import read

# MathML Core, W3C: all that browsers set.
ELEMENTS = {"math", "mrow", "mi", "mo", "mn", "mspace", "mfrac", "msup", "msub", "msubsup", "munder", "msqrt"}


def parsed(node):
    return ET.fromstring(to_mathml(node))


@given(scalars())
def test_every_formula_is_well_formed_mathml(node):
    assert {element.tag for element in parsed(node).iter()} <= ELEMENTS


@given(scalars())
def test_a_script_or_fraction_has_as_many_parts_as_it_should(node):
    for element in parsed(node).iter():
        parts = {"mfrac": 2, "msup": 2, "msub": 2, "munder": 2, "msubsup": 3}.get(element.tag)
        assert parts in (None, len(element))


@pytest.mark.parametrize("row", BASELINES.values(), ids=BASELINES.keys())
def test_brackets_are_those_of_latex(row):
    expression = Expression.parse(row.expression)
    marks = re.findall(r"<mo fence[^>]*>(.)</mo>", expression.mathml)
    assert marks.count("(") == marks.count(")") == expression.latex.count("(")


@pytest.mark.parametrize("name", [*FUNCTIONS, *REDUCTIONS])
def test_every_function_is_written(name):
    inside = {"class": "p", "pair": "D", "triplet": "Dp"}
    if name in REDUCTIONS:
        shown = parsed((name, inside[REDUCTIONS[name].layout]))
    else:
        shown = parsed(("cls", (name, *["p"] * FUNCTIONS[name].arity)))
    assert "p" in "".join(shown.itertext()) or "D" in "".join(shown.itertext())


def test_cross_entropy():
    assert (
        "".join(ET.fromstring(Expression.parse("-y*log(p)").mathml).itertext())
        == "\U0001d53ci\u2211k[\u2212ylog\u2061(p)]"
    )


def test_numbers_and_powers():
    text = to_mathml(read("p**2.5/1e-05"))
    assert "<msup><mrow><mi>p</mi></mrow><mrow><mn>2.5</mn></mrow></msup>" in text
    assert "<mn>1</mn><mo>\u22c5</mo><msup><mn>10</mn><mn>\u22125</mn></msup>" in text
