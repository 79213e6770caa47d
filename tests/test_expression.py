import hashlib
import os
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from strategies import scalars

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import ExpressionError, read

FORMULAS = [row.expression for row in BASELINES.values()] + [
    "max(p, y, z, 0.5) + exp(z)*y*p + sin(p)*cos(y) + 1/(1 + exp(-z))",
    "pair(D*Y) + cls(p*y) + trip(Dp - Dn) + partner(Y*exp(-D))",
]


def test_a_bare_formula_is_reduced():
    expression = Expression.parse("-y*log(p)")
    assert expression.text == "cls(-y*log(p))"
    assert str(expression) == expression.text
    assert expression.node == ("cls", ("mul", ("neg", "y"), ("log", "p")))


def test_an_expression_is_its_text():
    first, second = Expression.parse("log(p)*(-y)"), Expression.parse("-y*log(p)")
    assert first == second
    assert hash(first) == hash(second)
    assert first.key == second.key == hashlib.sha256(b"cls(-y*log(p))").hexdigest()[:16] == "838b746f698b78b1"
    assert pickle.loads(pickle.dumps(first)) == first


def test_keys_are_the_same_in_every_process():
    script = (
        "import sys\nfrom evoloss.expression import Expression\nfor f in sys.argv[1:]: print(Expression.parse(f).key)"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", script, *FORMULAS],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].split() == [Expression.parse(formula).key for formula in FORMULAS]
    assert len(set(outputs[0].split())) == len(FORMULAS)


@pytest.mark.parametrize(
    ("formula", "complexity"),
    [
        ("p", 2),  # cls, p
        ("p*y", 4),  # cls, *, p, y
        ("-y*log(p)", 7),  # cls, *, -, y, log (2), p
        ("2*exp(p)", 6),  # cls, *, 2, exp (2), p
        ("(y - p)**2", 6),
        ("max(p, y, z)", 6),  # two nodes of max
        (BASELINES["ngl"].expression, 18),
        (BASELINES["center"].expression, 16),
        (BASELINES["triplet"].expression, 11),
    ],
)
def test_complexity(formula, complexity):
    assert Expression.parse(formula).complexity == complexity


@pytest.mark.parametrize("row", OPERATORS.values(), ids=OPERATORS)
def test_the_complexity_of_an_operator_is_its_cost(row):
    text = f"cls({row.name}({', '.join('zp'[: row.arity])}))"
    symbols = {"neg": "cls(-z)", "pow": "cls(z**p)"} | {
        name: f"cls(z {OPERATORS[name].symbol} p)" for name in ("add", "sub", "mul", "div")
    }
    expression = Expression(symbols.get(row.name, text))
    assert expression.complexity == 1 + row.cost + row.arity


@pytest.mark.parametrize(
    ("formula", "missing"),
    [
        ("p", "no target"),
        ("z + d", "no target"),
        ("pair(D)", "no target"),
        ("y", "no prediction"),
        ("cls(y)*K", "no prediction"),
        ("pair(Y)", "no prediction"),
        ("cls(2)", "no prediction"),
        ("p*y", ""),
        ("cls(p) + pair(Y)", ""),
        ("Dp", ""),
        ("Dn", ""),
        ("p*y - p*y + z", "no target"),  # what canonical form leaves is what counts
    ],
)
def test_missing(formula, missing):
    assert Expression.parse(formula).missing == missing


@pytest.mark.parametrize(
    ("formula", "logits", "embeddings", "layouts"),
    [
        ("-y*log(p)", True, False, {"class"}),
        ("y*z", True, False, {"class"}),
        ("y*d", False, True, {"class"}),
        ("y*d*p", True, True, {"class"}),
        ("D*Y", False, True, {"pair"}),
        ("Dp", False, True, {"triplet"}),
        ("Dn", False, True, {"triplet"}),
        ("y", False, False, {"class"}),
        ("cls(K)", False, False, set()),
        ("cls(p) + pair(D) + trip(Dp)", True, True, {"class", "pair", "triplet"}),
    ],
)
def test_what_a_formula_sees(formula, logits, embeddings, layouts):
    expression = Expression.parse(formula)
    assert expression.sees_logits is logits
    assert expression.sees_embeddings is embeddings
    assert expression.layouts == layouts


@pytest.mark.parametrize("row", VARIABLES.values(), ids=VARIABLES)
def test_every_prediction_is_seen(row):
    reduction = next(r.name for r in REDUCTIONS.values() if row.layout in (r.layout, None))
    expression = Expression.parse(f"{reduction}({row.name})")
    assert expression.variables == {row.name}
    assert (expression.sees_logits or expression.sees_embeddings) == row.prediction
    assert not (expression.sees_logits and expression.sees_embeddings)
    assert (expression.missing != "no prediction") == row.prediction


@pytest.mark.parametrize(
    ("formula", "negated"),
    [
        ("y*log(p)", "-cls(y*log(p))"),
        ("-cls(p*y)", "cls(p*y)"),
        ("cls(p) - pair(D)", "pair(D) - cls(p)"),
        ("2*cls(p*y)", "-2*cls(p*y)"),
    ],
)
def test_negated(formula, negated):
    assert Expression.parse(formula).negated.text == negated


@settings(max_examples=40, deadline=None)
@given(scalars(max_leaves=6))
def test_negated_twice(node):
    try:
        expression = Expression.from_node(node)
    except ExpressionError:
        return
    assert expression.negated.negated == expression
    assert expression.negated.variables == expression.variables


@pytest.mark.parametrize("row", BASELINES.values(), ids=BASELINES)
def test_the_latex_of_baselines_is_balanced(row):
    latex = Expression.parse(row.expression).latex
    depth = 0
    for character in latex:
        depth += {"{": 1, "}": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert latex.count(r"\left") == latex.count(r"\right")
    assert latex.count("(") == latex.count(")")


def test_the_latex_of_cross_entropy():
    assert Expression.parse("-y*log(p)").latex == r"\mathbb{E}_i \sum_k \left[-y \, \log\left(p\right)\right]"


def test_a_form_that_outgrows_the_limits_is_refused():
    terms = [f"z**{number}.5" if number < 16 else f"z*{number}**z" for number in range(2, 66)]
    while len(terms) > 1:  # a balanced sum nests 6 operations; in canonical order its 64 terms nest 63
        terms = [f"({left}+{right})" for left, right in zip(terms[::2], terms[1::2], strict=True)]
    read(terms[0])
    with pytest.raises(ExpressionError):
        Expression.parse(terms[0])


def test_an_expression_cannot_be_changed():
    expression = Expression.parse("p*y")
    with pytest.raises(AttributeError):
        expression.text = "cls(p)"
