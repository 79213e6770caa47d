import numpy as np
import pytest

from evoloss.analysis.distances import NEAREST, POINTS, Distances
from evoloss.analysis.parts import split
from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.layouts import FLOOR

TEXTS = [row.expression for row in BASELINES.values() if row.family != "classification"]


def distances(text):
    return [
        Distances(part, 10, None) for kind, part in split(Expression.parse(text)).by_kind.items() if kind != "logits"
    ]


@pytest.mark.parametrize("text", TEXTS)
def test_the_derivative_is_that_of_the_values(text):
    for part in distances(text):
        for target in (1.0, 0.0):
            for values, slopes in part.curves(target):
                inner = np.gradient(values, part.grid)[1:-1]
                smooth = np.abs(np.diff(slopes, 2)) < 0.05 * np.abs(slopes).max()  # away from margins
                np.testing.assert_allclose(
                    inner[smooth], slopes[1:-1][smooth], rtol=0.02, atol=0.02 * np.abs(slopes).max()
                )
        assert part.points in (POINTS, 5 * POINTS)


def test_values_by_hand():
    (contrastive,) = distances(BASELINES["contrastive"].expression)
    grid = contrastive.grid
    assert grid[0] == pytest.approx(FLOOR**0.5) == pytest.approx(NEAREST)
    np.testing.assert_allclose(contrastive.curve(1.0)[0], grid**2)
    np.testing.assert_allclose(contrastive.curve(0.0)[0], np.maximum(1 - grid, 0) ** 2)
    (triplet,) = distances(BASELINES["triplet"].expression)
    np.testing.assert_allclose(triplet.curve(1.0, 2.0)[0], np.maximum(grid**2 - 4 + 0.85, 0))
    np.testing.assert_allclose(triplet.curve(0.0, 2.0)[0], np.maximum(4 - grid**2 + 0.85, 0))


def test_a_counterexample_is_one():
    (part,) = distances("pair(Y*(D - 1)**2 - (1 - Y)*D)")
    (near, high), (far, low) = part.counterexample(1.0, 1)
    assert near < far < 1.2
    assert (high, low) == (pytest.approx((near - 1) ** 2), pytest.approx((far - 1) ** 2))
    assert high > low
    assert part.counterexample(0.0, -1) is None
    assert float(part.lowest(1.0)) == pytest.approx(1, rel=0.03)  # the grid's step


def test_names_of_sides():
    words = {}
    for name in ("contrastive", "triplet", "center"):
        (part,) = distances(BASELINES[name].expression)
        words[name] = [(part.word(target), part.variable(target)) for target in (1.0, 0.0)]
    assert words == {
        "contrastive": [("agreeing pairs", "D"), ("other pairs", "D")],
        "triplet": [("positives", "Dp"), ("negatives", "Dn")],
        "center": [("own center", "d"), ("other centers", "d")],
    }
