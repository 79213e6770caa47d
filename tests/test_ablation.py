import pytest
from hypothesis import given, settings
from strategies import scalars, short_number

from evoloss.ablation import TYPICAL, ablations, typical
from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.operators import VARIABLES
from evoloss.syntax import ExpressionError, read


def texts(formula):
    return {smaller.text for smaller in ablations(Expression.parse(formula))}


def test_a_term_is_left_out_and_what_stays_keeps_its_sign():
    assert texts("cls(-y*log(p)) - cls(z*y)") >= {"cls(-y*log(p))", "-cls(y*z)"}


def test_a_function_is_replaced_by_its_argument_and_a_part_by_a_number():
    found = texts("cls(-y*log(p)*tanh(d))")
    assert found >= {"cls(-d*y*log(p))", "cls(-y*log(p))", "cls(-p*y*tanh(d))", "cls(-y*tanh(d))"}
    assert "cls(-0.837*y*log(p))" in found  # (.46212 + .76159 + .96403 + .99933 + 1) / 5 = .83741


def test_the_number_is_the_mean_over_all_inputs():
    assert typical(read("cls(y)")[1]) == 0.5
    assert typical(read("cls(p)")[1]) == 0.5
    assert typical(read("cls(d*y)")[1]) == pytest.approx(0.5 * (0.5 + 1 + 2 + 4 + 8) / 5)
    assert typical(read("cls(log(y)*p)")[1]) is None  # not finite where y is 0
    assert typical(read("cls(p*K)")[1]) == 5
    assert TYPICAL.keys() == VARIABLES.keys()


@pytest.mark.parametrize("name", BASELINES)
def test_ablations_of_the_library_are_smaller_losses(name):
    formula = Expression.parse(BASELINES[name].expression)
    found = ablations(formula)
    assert len({smaller.key for smaller in found}) == len(found)
    assert [smaller.complexity for smaller in found] == sorted(smaller.complexity for smaller in found)
    assert all(smaller.complexity < formula.complexity and not smaller.missing for smaller in found)
    assert all(Expression.parse(smaller.text) == smaller for smaller in found)


@settings(max_examples=25, deadline=None)
@given(scalars(short_number))
def test_ablations_of_any_formula_are_smaller_losses(node):
    try:
        formula = Expression.from_node(node)
    except ExpressionError:
        return
    for smaller in ablations(formula):
        assert smaller.complexity < formula.complexity
        assert not smaller.missing
        assert smaller.variables <= formula.variables
