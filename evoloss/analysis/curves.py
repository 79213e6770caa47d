"""A loss and its gradient along the true class's probability, or along a distance: numbers for a picture.

Losses are scaled so that their gradients at uniform p are as long as cross-entropy's, and shifted to 0 at their least
value: how a loss is multiplied, and what is added to it, means nothing to a training at a matched scale.
"""

from dataclasses import dataclass

import numpy as np

from evoloss.analysis.distances import Distances
from evoloss.analysis.parts import split
from evoloss.analysis.risk import Risk
from evoloss.baselines import BASELINES
from evoloss.expression import Expression

SHARES = np.linspace(0.002, 0.998, 499)
REFERENCES = ("ce", "ngl")


@dataclass(frozen=True, eq=False)
class Curve:
    """A loss [N] and its derivative [N] at places [N]; `least` is the place of its least value."""

    label: str
    places: np.ndarray
    loss: np.ndarray
    slope: np.ndarray

    @property
    def least(self) -> int:
        """The index of the least value."""
        return int(np.argmin(self.loss))


def initial_length(risk: Risk) -> float:
    """The length of the gradient by the logits at uniform p, in that of cross-entropy, sqrt(1 - 1/K)."""
    return float(risk.on_line(np.array([1 / risk.num_classes]))[2][0]) / (1 - 1 / risk.num_classes) ** 0.5


def curve(label: str, risk: Risk, shares: np.ndarray = SHARES) -> Curve:
    """The loss of a part that sees logits against p of the right class, the others equal; the slope is by its logit."""
    length = initial_length(risk)
    loss, slope, _ = risk.on_line(shares)
    scale = 1 / length if length > 0 else 1.0
    return Curve(label, shares, scale * (loss - loss.min()), scale * slope)


def beside_references(expression: Expression, num_classes: int) -> list[Curve]:
    """A loss after cross-entropy and NGL, as far as it sees logits; nothing for a loss without such a part."""
    risk = _risk(expression, num_classes)
    if risk is None:
        return []
    named = {name: Expression.parse(BASELINES[name].expression) for name in REFERENCES}
    own = next((name for name, reference in named.items() if reference == expression), "this loss")
    others = [curve(name, _risk(reference, num_classes)) for name, reference in named.items() if name != own]
    return [*others, curve(own, risk)]


def _risk(expression: Expression, num_classes: int) -> Risk | None:
    part = split(expression).by_kind.get("logits")
    return Risk(part, num_classes) if part else None


def by_distance(distances: Distances, farthest: float = 3.0) -> list[Curve]:
    """The loss of both sides of a part that sees distances, each against its distance; of triplets, the other at 1."""
    near = (distances.grid > 0.02) & (distances.grid <= farthest)
    curves = []
    for target in (1.0, 0.0):
        loss, slope = distances.curve(target)
        label = f"{distances.word(target)} ({distances.variable(target)})"
        curves.append(Curve(label, distances.grid[near], loss[near], slope[near]))
    return curves
