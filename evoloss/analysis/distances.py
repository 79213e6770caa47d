"""A part of a loss that sees distances, as a formula of a distance and in numbers.

What belongs together (target 1) is a sample and its center, an agreeing pair, or anchor and positive; what does not
(target 0) is a sample and another center, another pair, or anchor and negative.
"""

from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import torch

from evoloss.analysis.parts import Part, substitute
from evoloss.analysis.prover import Prover
from evoloss.layouts import FLOOR
from evoloss.lower import compile_node
from evoloss.syntax import Node

NEAREST, FARTHEST = FLOOR**0.5, 30.0
POINTS = 401  # of a distance
OTHERS = (0.1, 0.3, 1.0, 3.0, 10.0)  # distances of the other side of a triplet
RAY = (0.0, float("inf"))

Point = tuple[float, float]  # a distance and the loss there


@dataclass(frozen=True)
class Distances:
    """A part of a loss of K classes that sees centers, pairs, partners or triplets."""

    part: Part
    num_classes: int
    prover: Prover

    @property
    def is_triplet(self) -> bool:
        """Whether both sides are in one formula."""
        return self.part.kind == "triplets"

    @property
    def points(self) -> int:
        """How many each check looks at."""
        return POINTS * (len(OTHERS) if self.is_triplet else 1)

    def variable(self, target: float) -> str:
        """The name of the distance on one side."""
        return {"centers": "d", "triplets": "Dp" if target else "Dn"}.get(self.part.kind, "D")

    def word(self, target: float) -> str:
        """What is at that distance."""
        words = {"centers": ("own center", "other centers"), "triplets": ("positives", "negatives")}
        return words.get(self.part.kind, ("agreeing pairs", "other pairs"))[0 if target else 1]

    def formula(self, target: float) -> Node:
        """The loss of one side as a formula of its distance, of a triplet of both."""
        return substitute(self.part.field, {"y": target, "Y": target, "K": float(self.num_classes)})

    def alone(self, target: float) -> Node:
        """The same, of a triplet with the other distance at 1."""
        return substitute(self.formula(target), {self.variable(1 - target): 1.0} if self.is_triplet else {})

    def domain(self, target: float) -> dict[str, tuple[float, float]]:
        """Of the variables of `formula`."""
        return {"Dp": RAY, "Dn": RAY} if self.is_triplet else {self.variable(target): RAY}

    @cached_property
    def grid(self) -> np.ndarray:
        """Distances, evenly spaced in their logarithm."""
        return np.geomspace(NEAREST, FARTHEST, POINTS)

    def curve(self, target: float, other: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """The loss of one side on the grid, and its derivative."""
        free = torch.from_numpy(self.grid).requires_grad_()
        fixed = {
            "y": torch.full_like(free, target, requires_grad=False),
            "Y": torch.full_like(free, target, requires_grad=False),
            self.variable(1 - target): torch.full_like(free, other, requires_grad=False),
        }
        values = compile_node(self.part.field, self.num_classes)(
            SimpleNamespace(**fixed | {self.variable(target): free})
        )  # type: ignore[arg-type]
        if not values.requires_grad:
            return values.expand_as(free).detach().numpy(), np.zeros(POINTS)
        (slope,) = torch.autograd.grad(values.sum(), free)
        return values.detach().numpy(), slope.numpy()

    def curves(self, target: float) -> list[tuple[np.ndarray, np.ndarray]]:
        """`curve`, of a triplet at several distances of the other side."""
        return [self.curve(target, other) for other in (OTHERS if self.is_triplet else (1.0,))]

    def counterexample(self, target: float, sign: int) -> tuple[Point, Point] | None:
        """Two distances between which the loss moves against `sign`: falls for 1, rises for -1."""
        for values, _ in self.curves(target):
            signed = sign * values
            highest = np.maximum.accumulate(signed)
            place = int(np.argmax(highest - signed))
            if highest[place] - signed[place] > 1e-9 * (1 + abs(signed[place])):
                start = int(np.argmax(signed[: place + 1]))
                return tuple((float(self.grid[at]), float(values[at])) for at in (start, place))  # type: ignore[return-value]
        return None

    def is_flat(self, target: float) -> bool:
        """Whether the distance on one side does not matter."""
        return not any(slope.any() for _, slope in self.curves(target))

    def lowest(self, target: float) -> str:
        """Where the loss of one side is least: "0", a distance, "infinity", or "anywhere"."""
        if self.is_flat(target):
            return "anywhere"
        values, slopes = self.curve(target)
        place = int(np.argmin(values))
        level = np.flatnonzero((values == values[place]) & (slopes == 0))  # behind a margin, for instance
        if len(level) > 1:
            ends = [f"{self.grid[at]:.3g}" for at in level[[0, -1]]]
            if level[-1] == POINTS - 1:
                return f"from {ends[0]}"
            return f"up to {ends[1]}" if level[0] == 0 else f"{ends[0]} to {ends[1]}"
        return {0: "0", POINTS - 1: "infinity"}.get(place, f"{self.grid[place]:.3g}")

    def largest(self, slopes: bool) -> float:
        """The largest magnitude of the loss, or of its derivative, on both sides."""
        return max(float(np.abs(curve[slopes]).max()) for target in (1.0, 0.0) for curve in self.curves(target))
