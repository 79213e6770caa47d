"""A part of a loss that sees the logits, as its properties ask for it: formulas of one variable, and numbers."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from evoloss.analysis.parts import Part, names, substitute
from evoloss.analysis.prover import Prover
from evoloss.analysis.risk import Minima, Risk, above_floor, line, one_hot, perfect
from evoloss.analysis.verdicts import RELATIVE, Answer
from evoloss.probes import Scales, probes
from evoloss.syntax import Node

UNIT = (0.0, 1.0)
REALS = (-float("inf"), float("inf"))
LINE_POINTS = 2001
PROBED = Scales((0.25, 1.0, 4.0), (0.1, 0.4, 1.6), torch.float64)  # 576 predictions, from hardly trained to certain
TIED = 0.01  # two probabilities


@dataclass(frozen=True)
class Optimum:
    """The prediction of least loss: p of the right class, its logits [1, K], and how that is known."""

    share: float
    logits: Tensor
    answer: Answer


class Subject:
    """A part that sees logits, for K classes, with what several properties ask of it."""

    def __init__(self, part: Part, num_classes: int, prover: Prover) -> None:
        self.part, self.num_classes, self.prover = part, num_classes, prover
        self.risk = Risk(part, num_classes)

    def side(self, target: float, **values: Node) -> Node:
        """The formula of a class that is (1) or is not (0) the right one."""
        return substitute(self.part.field, {"y": target, "K": float(self.num_classes), **values})

    @property
    def sees(self) -> frozenset[str]:
        """Which of p and z."""
        return self.part.variables & {"p", "z"}

    def line(self, right: bool = True) -> Node:
        """The loss as a formula of p of the right class, or of a wrong one; the others have equal parts of the rest.

        Of a part without z.
        """
        others = float(self.num_classes - 1)
        rest: Node = ("div", ("sub", 1.0, "p"), others)
        if right:
            return ("add", self.side(1.0), ("mul", others, self.side(0.0, p=rest)))
        total: Node = ("add", self.side(0.0), self.side(1.0, p=rest))
        return ("add", total, ("mul", others - 1, self.side(0.0, p=rest)))

    def logit_line(self) -> Node:
        """The loss as a formula of the gap `s` between the right logit and the others, the mean logit 0."""
        count = float(self.num_classes)
        decay: Node = ("mul", count - 1, ("exp", ("neg", "s")))
        right = {"p": ("div", 1.0, ("add", 1.0, decay)), "z": ("mul", (count - 1) / count, "s")}
        wrong = {"p": ("div", 1.0, ("add", count - 1, ("exp", "s"))), "z": ("div", "s", -count)}
        return ("add", self.side(1.0, **right), ("mul", count - 1, self.side(0.0, **wrong)))

    def ask(self, claim: str, formula: Node, *arguments: Any) -> Any:
        """The prover's answer about a formula of p, of z or of s."""
        name = next(name for name in ("s", "z", "p") if name in names(formula)) if names(formula) else "p"
        return self.prover.ask(claim, formula, {name: UNIT if name == "p" else REALS}, *arguments)

    @cached_property
    def shares(self) -> np.ndarray:
        """p of the right class along the line, evenly spaced in its log-odds, up to the floor of the others."""
        most = perfect(self.num_classes)
        farthest = np.log(most / (1 - most))
        return 1 / (1 + np.exp(-np.linspace(-farthest, farthest, LINE_POINTS)))

    @cached_property
    def on_line(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Loss, derivative by the right logit, and length of the gradient at these."""
        return self.risk.on_line(self.shares)

    @cached_property
    def predictions(self) -> Tensor:
        """Logits [N, K] of probes."""
        return above_floor(probes(self.num_classes, PROBED).inputs["logits"].detach().transpose(1, 2).flatten(0, 1))

    @cached_property
    def minima(self) -> Minima:
        """Under a dozen distributions of the classes."""
        return self.risk.minimize(distributions(self.num_classes))

    @cached_property
    def optimum(self) -> Optimum:
        """For a target that is certain."""
        target = one_hot(torch.zeros(1, dtype=torch.long), self.num_classes)
        ends = self.risk.minimize(target)
        logits, risk = ends.best
        share = float(logits.softmax(1)[0, 0])
        if self.sees == {"p"}:
            place, value = self._line_minimum
            if value <= float(risk) + RELATIVE * (1 + abs(value)):
                share, logits = place, line(np.array([place]), self.num_classes)
        if self.sees == {"z"} and self.falls(1.0, strictly=True) and self.rises(0.0):
            reason = "approached as the right logit grows and the others fall"
            return Optimum(1.0, line(np.array([perfect(self.num_classes)]), self.num_classes), ("proved", reason))
        if reason := self._optimum_proof(share):
            return Optimum(share, logits, ("proved", reason))
        as_low = ends.logits.softmax(2)[ends.risks <= risk + RELATIVE * (1 + risk.abs())][:, 0]
        several = ", of which not all are there" if float(as_low.max() - as_low.min()) > TIED else ""
        return Optimum(share, logits, ("checked", f"the lowest of {ends.descents} descents{several}"))

    @cached_property
    def _line_minimum(self) -> tuple[float, float]:
        values = self.on_line[0]
        place = int(np.nanargmin(values))
        if place in (0, len(values) - 1):
            return float(self.shares[place]), float(values[place])
        around = np.log(self.shares / (1 - self.shares))[[place - 1, place + 1]]
        found = optimize.minimize_scalar(
            lambda odds: float(self.risk.on_line(1 / (1 + np.exp(-np.array([odds]))))[0][0]),
            bounds=tuple(around),
            method="bounded",
            options={"xatol": 1e-9},
        )
        return float(1 / (1 + np.exp(-found.x))), float(found.fun)

    def _optimum_proof(self, share: float) -> str:
        if self.sees == {"p"} and self.falls(1.0) and self.rises(0.0) and self.falls(1.0, strictly=True):
            return "every term falls or rises to it" if share > 0.99 else ""
        convex = self.sees == {"p"} and self.ask("convex", self.side(1.0), True) and self.ask("convex", self.side(0.0))
        ends = (share - 1e-4, share + 1e-4)
        if convex and ends[0] > 0 and ends[1] < 1 and self.ask("brackets", self.line(), *ends):
            return "strictly convex in p, its derivative changes sign within 0.0001 of there"
        return ""

    def falls(self, target: float, strictly: bool = False) -> bool:
        """Whether the formula of a class is proved to fall with p, or with z where it sees z alone."""
        (name,) = self.sees
        return bool(self.ask("falls", self.side(target), name, strictly))

    def rises(self, target: float) -> bool:
        """Likewise to rise."""
        (name,) = self.sees
        return bool(self.ask("falls", ("neg", self.side(target)), name))


def share_text(share: float, num_classes: int) -> str:
    """A probability of the right class; 1 where the others are at the floor, which the loss only approaches."""
    if share >= 1 - 1.2 * (1 - perfect(num_classes)):
        return "1"
    return "0" if share < 1e-6 else f"{share:.4g}"


def distributions(num_classes: int) -> Tensor:
    """A dozen distributions [12, K] of the classes, the first the likeliest; no class has no chance."""
    generator = np.random.default_rng(0)
    chosen = [(0.6, 0.4), (0.9, 0.1), (0.5, 0.3, 0.2), (0.45, 0.35, 0.2), (0.4, 0.35, 0.25), (0.28, 0.26, 0.24, 0.22)]
    rows = []
    for numbers in chosen:
        kept = np.array(numbers[:num_classes])
        rows.append(np.pad(kept / kept.sum(), (0, num_classes - len(kept))))
    rows += [generator.dirichlet(np.full(num_classes, concentration)) for concentration in (0.3, 0.5, 1, 1, 3, 10)]
    mixed = 0.97 * np.array(rows) + 0.03 / num_classes
    return torch.from_numpy(-np.sort(-mixed, axis=1))
