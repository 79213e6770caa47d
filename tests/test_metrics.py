import numpy as np
import pytest

from evoloss import metrics
from evoloss.metrics import FIGURES

DISTANCES = np.array([0.1, 0.2, 0.45, 0.7, 0.3, 0.6, 0.9, 1.2])
SAME = np.array([True, True, True, True, False, False, False, False])


def test_pair_accuracy_is_strict():
    assert metrics.pair_accuracy(DISTANCES, SAME) == 6 / 8  # 0.7 and 0.3 are wrong
    assert metrics.pair_accuracy(np.array([0.5]), np.array([True])) == 0  # (D < 0.5) is strict, as in the original


def test_a_fitted_threshold_is_the_best_of_all():
    generator = np.random.default_rng(0)
    for _ in range(50):
        distances = generator.integers(0, 12, 30) / 10  # with ties
        same = generator.random(30) < 0.5
        fitted = metrics.fit_threshold(distances, same)
        tried = [metrics.pair_accuracy(distances, same, threshold) for threshold in np.arange(-0.05, 1.3, 0.05)]
        assert metrics.pair_accuracy(distances, same, fitted) == max(tried)


def test_a_fitted_threshold_lies_between_the_classes():
    assert metrics.fit_threshold(np.array([0.1, 0.3, 0.7, 0.9]), np.array([True, True, False, False])) == 0.5
    assert metrics.fit_threshold(np.array([0.1, 0.3]), np.array([True, True])) > 0.3
    assert metrics.fit_threshold(np.array([0.1, 0.3]), np.array([False, False])) < 0.1


def test_auc_counts_ordered_pairs():
    """Of 16 (same, different) pairs, 0.45 > 0.3 and 0.7 > 0.3, 0.6 are the three in the wrong order."""
    assert metrics.auc(DISTANCES, SAME) == 13 / 16
    assert metrics.auc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


def test_pair_figures_are_all_there_is_to_say_about_pairs():
    figures = metrics.pair_figures(DISTANCES, SAME, threshold=0.55)
    assert set(figures) == set(FIGURES) - {"accuracy", "nearest_mean_accuracy"}
    assert figures["fitted_accuracy"] == 6 / 8
    assert figures["positive_mean"] == pytest.approx(1.45 / 4)
    assert figures["positive_median"] == pytest.approx(0.325)
    assert figures["negative_mean"] == pytest.approx(0.75)
    # As the original printed them: of the positives below 0.4 alone.
    assert figures["truncated_mean"] == pytest.approx(0.15)
    assert figures["truncated_sd"] == pytest.approx(0.05)
    assert figures["truncated_share"] == 0.5


def test_truncation_flips_the_order_of_spreads():
    """What happened in the original: the tighter of two losses became the looser one."""
    same = np.array([True] * 10 + [False])
    tight = np.array([0.1] * 10 + [1.0])
    heavy = np.array([0.02] * 9 + [1.9, 1.0])
    first, second = (metrics.pair_figures(distances, same, 0.5) for distances in (tight, heavy))
    assert first["truncated_mean"] > second["truncated_mean"]
    assert first["positive_mean"] < second["positive_mean"]


def test_no_positive_below_the_truncation():
    figures = metrics.pair_figures(np.array([0.8, 1.2]), np.array([True, False]), 1.0)
    assert np.isnan(figures["truncated_mean"])
    assert figures["truncated_share"] == 0


def test_an_absent_class_has_no_mean_and_is_never_near():
    embeddings = np.array([[0.0, 0.0], [0.0, 2.0], [4.0, 4.0], [6.0, 4.0]])
    labels = np.array([0, 0, 2, 2])
    means = metrics.class_means(embeddings, labels, 3)
    np.testing.assert_array_equal(means, [[0, 1], [np.nan, np.nan], [5, 4]])
    assert metrics.nearest(np.array([[0.1, 1.0], [9.0, 9.0]]), means).tolist() == [0, 2]
