import pytest
import torch
from hypothesis import given, settings
from rows import sized
from strategies import scalars

from evoloss.analysis.parts import split, substitute
from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.syntax import read, write


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("-y*log(p)", {"logits": "cls(-y*log(p))"}),
        ("cls(-y*log(p)) + 0.04*cls(d)", {"logits": "cls(-y*log(p))", "centers": "cls(0.04*d)"}),
        ("p*y + 2*cos(d)", {"logits": "cls(p*y)", "centers": "cls(2*cos(d))"}),
        ("cls((p - d)/K)/2", {"logits": "cls(0.5/K*p)", "centers": "cls(-(0.5/K)*d)"}),
        ("pair(D*Y) - 0.1*partner((1 - Y)*D)", {"pairs": "pair(D*Y)", "partners": "partner(-0.1*(D*(1 - Y)))"}),
        ("trip(relu(Dp - Dn)) + trip(3)", {"triplets": "trip(relu(Dp - Dn))"}),
        ("cls(p*y) + cls(cos(y))", {"logits": "cls(p*y + cos(y))"}),
    ],
)
def test_what_sees_what(text, parts):
    found = split(Expression.parse(text))
    assert found.whole
    assert not found.mixed
    assert {kind: part.text for kind, part in found.by_kind.items()} == parts


def test_distances_that_meet_probabilities_are_in_no_part():
    found = split(Expression.parse("cls(y*d**p) - cls(y*log(p))"))
    assert found.mixed == ("cls(y*d**p)",)
    assert {kind: part.text for kind, part in found.by_kind.items()} == {"logits": "cls(-(y*log(p)))"}
    assert found.reason("distances") == "no term sees distances alone: p or z meets d in `cls(y*d**p)`"


@pytest.mark.parametrize("text", ["log(cls(y*p))", "cls(p*y)*cls(z)", "max(cls(p*y), 1)"])
def test_no_sum_of_means_has_no_parts(text):
    found = split(Expression.parse(text))
    assert not found.by_kind
    assert not found.whole
    assert found.reason("the logits") == "the loss is no sum of means over samples"


@pytest.mark.parametrize(("name", "count"), sized(10))
def test_the_parts_of_every_baseline_add_up_to_it(name, count):
    expression = Expression.parse(BASELINES[name].expression)
    found = split(expression)
    assert found.whole
    assert not found.mixed
    generator = torch.Generator().manual_seed(1)
    logits, embeddings = (torch.randn(12, n, generator=generator, dtype=torch.float64) for n in (count, 5))
    labels = torch.arange(12) % count

    def value(expression):
        generator = torch.Generator().manual_seed(2)
        return Loss(expression, count, 5, generator=generator).double()(logits, labels, embeddings).item()

    total = sum(value(Expression(part.text)) for part in found.by_kind.values())
    assert total == pytest.approx(value(expression), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(scalars(max_leaves=4))
def test_parts_are_formulas_of_the_language(node):
    found = split(Expression(write(node)))
    for part in found.by_kind.values():
        assert read(part.text)[0] == part.reduction


def test_substitution():
    assert substitute(read("y*log(p)")[1], {"y": 1.0, "p": ("sub", 1.0, "p")}) == (
        "mul",
        1.0,
        ("log", ("sub", 1.0, "p")),
    )
