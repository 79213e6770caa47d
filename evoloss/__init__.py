"""evoloss: loss functions for classifiers, discovered by genetic programming and compared honestly.

>>> import evoloss
>>> loss = evoloss.loss("-y*log(p) + 0.01*y*d**2", num_classes=10, embedding_dim=64)

Importing the package imports neither torch nor Ray; the first call of `loss` imports torch.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from evoloss.baselines import BASELINES, Baseline  # first: loading the module binds its name over the function below

if TYPE_CHECKING:
    from torch import Tensor

    from evoloss.lower import Loss

__all__ = ["baselines", "loss"]


def loss(
    expression: str,
    num_classes: int,
    embedding_dim: int | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
    *,
    weight: "Tensor | None" = None,
    ignore_index: int = -100,
    scale: float = 1.0,
) -> "Loss":
    """A formula as a `torch.nn.Module` that drops in for `nn.CrossEntropyLoss`.

    Call it as `loss(logits, target)`, or `loss(logits, target, embeddings)` where the formula sees distances; shapes
    and options are those of `evoloss.lower.Loss`. `scale` is the column of that name in a hall of fame: with it, a loss
    begins with gradients as long as cross-entropy's. Raises `ValueError` for a formula outside the language.
    """
    from evoloss.expression import Expression
    from evoloss.lower import Loss

    parsed = Expression.parse(expression)
    return Loss(parsed, num_classes, embedding_dim, reduction, weight=weight, ignore_index=ignore_index, scale=scale)


def baselines() -> "Mapping[str, Baseline]":
    """The hand-written losses by name: formula, family, paper."""
    return BASELINES
