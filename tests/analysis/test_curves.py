import numpy as np
import pytest

from evoloss.analysis.curves import beside_references, by_distance
from evoloss.analysis.distances import Distances
from evoloss.analysis.parts import split
from evoloss.baselines import BASELINES
from evoloss.expression import Expression


def test_cross_entropy_by_hand():
    (_, own) = beside_references(Expression.parse("-y*log(p)"), 10)
    assert own.label == "ce"
    np.testing.assert_allclose(own.loss, np.log(own.places[-1] / own.places), atol=1e-9)
    np.testing.assert_allclose(own.slope, own.places - 1, atol=1e-9)  # dL/dz = p - 1
    assert own.least == len(own.places) - 1


def test_all_begin_with_cross_entropys_gradient():
    curves = beside_references(Expression.parse("7*y*(1 - p)"), 4)
    assert [curve.label for curve in curves] == ["ce", "ngl", "this loss"]
    for curve in curves:
        assert np.interp(0.25, curve.places, curve.slope) == pytest.approx(-0.75, abs=1e-3)
        assert curve.loss.min() == 0


def test_a_loss_without_logits_has_no_curve_against_p():
    assert beside_references(Expression.parse("cls(d)"), 4) == []


def test_both_sides_of_a_distance():
    (part,) = split(Expression.parse(BASELINES["triplet"].expression)).by_kind.values()
    near, far = by_distance(Distances(part, 10, None))
    assert (near.label, far.label) == ("positives (Dp)", "negatives (Dn)")
    np.testing.assert_allclose(near.loss, np.maximum(near.places**2 - 0.15, 0), atol=1e-12)
    assert near.places.max() <= 3
