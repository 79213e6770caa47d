import pytest
from rows import sized

from evoloss.analysis.nearest import FAMILIES, nearest
from evoloss.baselines import BASELINES
from evoloss.expression import Expression


def found(text, input_="logits", num_classes=10):
    return nearest(Expression.parse(text), num_classes, input_)


@pytest.mark.parametrize(("name", "count"), sized(10))
def test_every_baseline_is_itself(name, count):
    expression = Expression.parse(BASELINES[name].expression)
    input_ = "embeddings" if expression.sees_embeddings else "logits"
    rows = nearest(expression, count, input_)
    assert name in {row.name for row in rows if row.is_same}
    assert not all(row.is_same for row in rows)  # the nearest other one is named too


def test_a_factor_and_a_constant_mean_nothing():
    for text in ("-3*y*log(p)", "-y*log(p) + 2*y"):
        assert found(text)[0].name == "ce"
        assert found(text)[0].is_same


@pytest.mark.parametrize("smoothing", [0.03, 0.11, 0.5])
def test_label_smoothing_is_recognized_with_its_amount(smoothing):
    rows = found(f"-((1 - {smoothing})*y + {smoothing}/K)*log(p)")
    (family,) = [row for row in rows if row.kind == "family"]
    assert family.name == f"cross-entropy with label smoothing {smoothing:.2g}"
    assert family.explained > 1 - 1e-6


@pytest.mark.parametrize(
    ("text", "input_", "name"),
    [
        ("-y*(1 - p)**3.5*log(p)", "logits", "focal loss, gamma 3.5"),
        ("y*(1 - p**0.31)", "logits", "generalized cross-entropy, q 0.31"),
        ("exp(1.3 - p*(y + 1)) - cos(cos(sin(p)))", "logits", "NGL, alpha 1.3"),
        ("pair(Y*D**2 + (1 - Y)*relu(2.5 - D)**2)", "embeddings", "contrastive loss, margin 2.5"),
        ("pair((1 - Y)*exp(-4*D)/D + Y*D**3)", "embeddings", "Yukawa, range 4"),
        ("trip(relu(Dp**2 - Dn**2 + 0.2))", "embeddings", "triplet loss, margin 0.2"),
        ("cls(y*d**1.5)", "embeddings", "center loss, d to the power of 1.5"),
    ],
)
def test_a_family_gives_its_parameter(text, input_, name):
    assert name in {row.name for row in found(text, input_) if row.kind == "family"}


def test_a_mixture_is_recognized():
    rows = found("-y*log(p) + 6*(p - y)**2")
    (mixture,) = [row for row in rows if row.kind == "mixture"]
    assert mixture.explained > 1 - 1e-9
    assert {"ce", "brier"} == {word for word in mixture.name.split() if word in BASELINES}
    assert all(row.explained < mixture.explained for row in rows if row is not mixture)


def test_explained_shares_are_shares():
    for text in ("sin(3*(p - y)**2)", "y*log(p)", "cls(y*d**p)", "z*y"):
        for row in found(text):
            assert 0.01 < row.explained <= 1 + 1e-9


def test_the_opposite_of_a_loss_is_not_like_it():
    assert max((row.explained for row in found("y*log(p)")), default=0) < 0.2
    assert found("y*sin(1/p)") == []


def test_a_loss_without_a_gradient_is_like_none():
    assert found("cls(d)") == []
    assert found("cls(sign(p)*y)") == []


@pytest.mark.parametrize("input_", FAMILIES)
def test_every_family_is_of_the_language(input_):
    for family in FAMILIES[input_]:
        for value in (family.low, family.high):
            assert Expression.parse(family.member(value).text)
