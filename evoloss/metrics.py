"""The figures of losses that place samples: how far pairs are apart, and which class is nearest. Pure numpy."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Labels = NDArray[np.integer]

GIVEN_THRESHOLD = 0.5  # of Keras's mnist_siamese example and of Motta (2020), for every loss
TRUNCATION = 0.4  # positives at or above it are missing from Motta's means and deviations


def pair_accuracy(distances: Floats, same: Bools, threshold: float = GIVEN_THRESHOLD) -> float:
    """The share of pairs with (D < threshold) == same; distances and same are [P]."""
    return float(((distances < threshold) == same).mean())


def fit_threshold(distances: Floats, same: Bools) -> float:
    """The threshold with the highest `pair_accuracy` on these pairs [P], midway between two distances.

    The smallest of equal ones. Fit it on training pairs and use it on others, or it flatters.
    """
    order = np.argsort(distances, kind="stable")
    ordered, agree = distances[order], same[order]
    right = np.concatenate([[0], np.cumsum(np.where(agree, 1, -1))])  # of the pairs below the cut, up to a constant
    bounds = np.concatenate([[2 * ordered[0] - ordered[-1] - 1], ordered, [2 * ordered[-1] - ordered[0] + 1]])
    right[1:-1][ordered[1:] == ordered[:-1]] = -len(right)  # no threshold parts equal distances
    cut = int(right.argmax())
    return float((bounds[cut] + bounds[cut + 1]) / 2)


def auc(distances: Floats, same: Bools) -> float:
    """The probability that a pair of one class is nearer than a pair of two (ties count half)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(same, -distances))


def spread(distances: Floats) -> dict[str, float]:
    """Mean, population standard deviation and median; all nan where there is no distance."""
    if not len(distances):
        return {"mean": np.nan, "sd": np.nan, "median": np.nan}
    return {"mean": float(distances.mean()), "sd": float(distances.std()), "median": float(np.median(distances))}


def pair_figures(distances: Floats, same: Bools, threshold: float) -> dict[str, float]:
    """Every figure of pairs by its name in `FIGURES`, with the `threshold` that was fitted on other pairs.

    "truncated" is what Motta (2020) printed as mean and standard deviation of positives: of those below 0.4 alone.
    """
    distances = distances.astype(np.float64)
    positives = distances[same]
    kept = positives[positives < TRUNCATION]
    groups = {"positive": positives, "negative": distances[~same], "truncated": kept}
    return {
        "pair_accuracy": pair_accuracy(distances, same),
        "threshold": threshold,
        "fitted_accuracy": pair_accuracy(distances, same, threshold),
        "auc": auc(distances, same),
        **{f"{group}_{name}": value for group, values in groups.items() for name, value in spread(values).items()},
        "truncated_share": len(kept) / max(len(positives), 1),
    }


def class_means(embeddings: Floats, labels: Labels, num_classes: int) -> Floats:
    """The mean embedding [K, E] of every class; nan for a class that is absent."""
    sums = np.zeros((num_classes, embeddings.shape[1]))
    np.add.at(sums, labels, embeddings)
    counts = np.bincount(labels, minlength=num_classes)[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def nearest(embeddings: Floats, references: Floats) -> Labels:
    """The index [N] of the reference [K, E] that is nearest to each embedding [N, E]; never one that is nan."""
    squared = np.stack([((embeddings - reference) ** 2).sum(1) for reference in references], 1)
    return np.nan_to_num(squared, nan=np.inf).argmin(1)


def _four(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.4f}"


def _three(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f}"


# What a recipe may print, its heading and its format. Published figures are given by these names.
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("accuracy", _four),
    "nearest_mean_accuracy": ("by nearest class mean", _four),
    "pair_accuracy": ("pairs at 0.5", _four),
    "threshold": ("fitted threshold", _three),
    "fitted_accuracy": ("pairs at fitted", _four),
    "auc": ("AUC", _four),
    "positive_mean": ("same: mean", _three),
    "positive_sd": ("same: sd", _three),
    "positive_median": ("same: median", _three),
    "truncated_mean": ("same, D < 0.4: mean", _three),
    "truncated_sd": ("same, D < 0.4: sd", _three),
    "truncated_median": ("same, D < 0.4: median", _three),
    "truncated_share": ("same, D < 0.4: share", _three),
    "negative_mean": ("other: mean", _three),
    "negative_sd": ("other: sd", _three),
    "negative_median": ("other: median", _three),
}
