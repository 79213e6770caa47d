import json

import pytest
from PIL import Image

from evoloss.analysis.explain import _escaped, draw, explain, latex_table
from evoloss.analysis.properties import PROPERTIES
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.pictures import LOSS_COLORS


@pytest.fixture(scope="module")
def ngl(prover):
    return explain(Expression.parse("exp(2.4092 - p*(1 + y)) - cos(cos(sin(p)))"), 10, prover)


def test_the_places_of_ngl(ngl):
    assert [place.name for place in ngl.places] == ["uniform", "optimum", "perfect prediction", "outlier"]
    uniform, optimum, perfect, outlier = ngl.places
    assert (uniform.share, optimum.share, outlier.share) == (0.1, pytest.approx(0.391, abs=5e-4), 1e-6)
    assert optimum.loss < uniform.loss < outlier.loss < perfect.loss  # a perfect prediction costs most
    assert optimum.length < 1e-5
    assert ngl.initial_length == pytest.approx(0.815, abs=1e-3)  # reference/losses.md: 0.0815 of the mean over classes


def test_every_property_has_a_finding(ngl):
    assert {row.property for row in ngl.findings} == set(PROPERTIES)
    assert ngl.likenesses[0].name == "ngl"


def test_json_is_plain(ngl):
    told = json.loads(json.dumps(ngl.as_json(), allow_nan=False))
    assert told["expression"] == "cls(exp(2.4092 - p*(y + 1)) - cos(cos(sin(p))))"
    assert {row["verdict"] for row in told["findings"]} == {"proved", "refuted", "does not apply"}
    assert told["places"][1]["share"] == pytest.approx(0.391, abs=5e-4)


def test_latex(ngl):
    text = latex_table(ngl)
    assert text.startswith("% cls(exp(2.4092")
    assert text.count(r"\\") == 1 + sum(row.verdict != "does not apply" for row in ngl.findings)
    assert _escaped("50 %_x^2") == r"50 \%\_x\textasciicircum{}2"


def test_a_loss_that_meets_distances_is_not_claimed_to_be_anything(prover):
    explanation = explain(Expression.parse("cls(-d*y*log(p))"), 5, prover)
    assert explanation.places == ()
    assert explanation.initial_length is None
    assert explanation.mixed == ("cls(-d*y*log(p))",)
    assert {row.verdict for row in explanation.findings if row.property != "symmetric over classes"} == {
        "does not apply"
    }
    assert {row.input for row in explanation.likenesses} == {"logits", "embeddings"}


@pytest.mark.parametrize("text", ["cls(-y*(1 - p)*log(p)) + cls(y*d**2)", "trip(relu(Dp - Dn + 1))", "y*softplus(-z)"])
def test_a_picture_shows_every_line(text, prover, tmp_path):
    path = tmp_path / "loss.png"
    draw(path, Expression.parse(text), 10, prover)
    with Image.open(path) as image:
        assert min(image.size) > 600
        seen = {color for _, color in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    for color in LOSS_COLORS[: 2 if text.startswith("trip") else 3]:
        assert tuple(bytes.fromhex(color[1:])) in seen


def test_nothing_to_draw(prover, tmp_path):
    with pytest.raises(EvolossError, match="nothing to draw of `cls"):
        draw(tmp_path / "loss.png", Expression.parse("cls(y*d**p)"), 10, prover)
    assert not (tmp_path / "loss.png").exists()
