"""A loss and its gradient as curves, over the true class's probability and over a distance. Without torch.

One sample is looked at, whose other classes are all alike. Its true class has the logit t, the others 0, so that

    p = exp(t) / (exp(t) + K - 1),    gradient = dL/dt

is what a training sees; cross-entropy's gradient is p - 1. What the curve leaves out is held: distances at `DISTANCE`,
where embeddings of some hundred dimensions lie from fresh centers (N(0, 1)) and where gradients are matched.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from evoloss.expression import Expression
from evoloss.operators import REDUCTIONS
from evoloss.syntax import ExpressionError, Node

DISTANCE = 10.0
BATCH = 128  # samples, of whose partners `partner` takes the sum
STEP = 1e-4  # of a central difference in float64: errors of some 1e-8
FLOOR = 1e-7  # of p, as in training

Cells: TypeAlias = "dict[str, list[tuple[float, dict[str, float]]]]"  # weights and variables by reduction


@dataclass(frozen=True)
class Curve:
    """`loss` (less its value at the start) and `gradient` at each x; None where they are not finite."""

    x: list[float]
    loss: list[float | None]
    gradient: list[float | None]


def over_probability(expression: Expression, scale: float, classes: int, points: Sequence[float]) -> Curve:
    """`scale` times the loss and its gradient by the true class's logit, where that class has these probabilities.

    A constant that is added to a loss changes nothing: each curve is 0 where all classes are equally probable.
    """
    logits = [math.log(p * (classes - 1) / (1 - p)) for p in points]

    def at(logit: float) -> float | None:
        return _loss(expression.node, _cells(logit, DISTANCE, DISTANCE, classes))

    return _curve(points, logits, at, 0.0, scale)


def over_distance(expression: Expression, scale: float, classes: int, points: Sequence[float], own: bool) -> Curve:
    """The same over a distance, where all classes are equally probable; 0 at `DISTANCE`.

    It is the distance to what the sample belongs to (its center, a sample of its class), or to what it does not.
    """

    def at(distance: float) -> float | None:
        near, far = (distance, DISTANCE) if own else (DISTANCE, distance)
        return _loss(expression.node, _cells(0.0, near, far, classes))

    return _curve(points, points, at, DISTANCE, scale)


def _curve(
    x: Sequence[float], places: Sequence[float], at: Callable[[float], float | None], start: float, scale: float
) -> Curve:
    """What a function comes to at these places, drawn over x."""
    origin = at(start)
    loss: list[float | None] = []
    gradient: list[float | None] = []
    for place in places:
        here, above, below = at(place), at(place + STEP), at(place - STEP)
        loss.append(_scaled(scale, here, origin))
        gradient.append(_scaled(scale / (2 * STEP), above, below))
    return Curve(list(x), loss, gradient)


def _scaled(factor: float, value: float | None, less: float | None) -> float | None:
    result = math.inf if value is None or less is None else factor * (value - less)
    return result if math.isfinite(result) else None


def _cells(logit: float, own: float, other: float, classes: int) -> Cells:
    """The variables of the one sample, by reduction, with how often such a cell is summed."""
    total = math.exp(logit) + classes - 1
    p, rest = (max(value / total, FLOOR) for value in (math.exp(logit), 1.0))
    count = float(classes)
    agreeing = {"D": own, "Y": 1.0, "K": count}
    differing = {"D": other, "Y": 0.0, "K": count}
    return {
        "cls": [
            (1.0, {"p": p, "y": 1.0, "z": logit, "d": own, "K": count}),
            (count - 1, {"p": rest, "y": 0.0, "z": 0.0, "d": other, "K": count}),
        ],
        "pair": [(0.5, agreeing), (0.5, differing)],
        "partner": [(max(BATCH / classes - 1, 0.0), agreeing), (BATCH * (1 - 1 / classes), differing)],
        "trip": [(1.0, {"Dp": own, "Dn": other, "K": count})],
    }


def _loss(node: Node, cells: Cells) -> float | None:
    try:
        return _value(node, {"K": cells["trip"][0][1]["K"]}, cells)
    except ExpressionError:
        return None


def _value(node: Node, variables: dict[str, float], cells: Cells) -> float:
    if isinstance(node, str):
        return variables[node]
    if isinstance(node, float):
        return node
    name, *arguments = node
    if name in REDUCTIONS:
        return math.fsum(weight * _value(arguments[0], inside, cells) for weight, inside in cells[name])
    from evoloss.canonical import fold  # sympy takes a second to import

    return fold(name, *(_value(argument, variables, cells) for argument in arguments))
