"""Which known loss a loss is most like: its gradient field, projected on those of the library.

A field is the gradient with respect to the logits, or to the embeddings, on fixed probes. The share of it that a known
field g explains is that of the best multiple a*g, a >= 0: the squared cosine of their angle, if that is acute.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import optimize

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.probes import Scales, probes

Input = Literal["logits", "embeddings"]

FIELD = Scales((0.25, 1.0), (0.4, 1.6), torch.float64)  # larger ones, and a few huge gradients are all of some fields
SAME = 1 - 1e-9  # explained: a multiple, but for rounding
COARSE = 25  # values of a parameter looked at before the best one is refined
WORTH = 0.01  # that a loss, or the second one of a mixture, has to explain


@dataclass(frozen=True)
class Family:
    """Losses that differ by one number `a`, and where it lies."""

    name: str
    template: str
    low: float
    high: float

    def member(self, value: float) -> Expression:
        """The loss with that number."""
        return Expression(self.template.replace("[a]", f"{value:.6g}"))


@dataclass(frozen=True)
class Likeness:
    """A known loss beside the one asked about: `formula` explains this share of its field.

    `kind` is "library" (a name of `evoloss baselines`), "family" (with the best value of its parameter) or "mixture" (a
    positive combination of two of the library).
    """

    input: Input
    kind: Literal["library", "family", "mixture"]
    name: str
    formula: str
    explained: float

    @property
    def is_same(self) -> bool:
        """Whether the fields are multiples of each other."""
        return self.explained >= SAME


def nearest(expression: Expression, num_classes: int, input_: Input) -> list[Likeness]:
    """The nearest of the library, of the families, and the nearest mixture where it explains a hundredth more.

    Of the library first those with the same field, then the nearest other. Who explains less than a hundredth is left
    out: empty for a loss like no other, or without a finite field.
    """
    field = _field(expression, num_classes, input_)
    if field is None:
        return []
    known = _library(num_classes, input_)
    shares = {name: _explained(field, other) for name, other in known.items()}
    ranked = sorted(shares, key=lambda name: -shares[name])
    same = [name for name in ranked if shares[name] >= SAME]
    singles = [
        Likeness(input_, "library", name, BASELINES[name].expression, shares[name]) for name in ranked[: len(same) + 1]
    ]
    families = sorted(
        (_fitted(family, field, num_classes, input_) for family in FAMILIES[input_]), key=lambda row: -row.explained
    )
    found = singles + [row for row in families[:1] if not (row.is_same and same)]
    if not same and not any(row.is_same for row in families):
        mixture = _mixture(field, known, input_)
        alone = max((row.explained for row in found), default=0.0)
        found += [mixture] if mixture and mixture.explained > alone + WORTH else []
    return [row for row in found if row.explained > WORTH]


def _field(expression: Expression, num_classes: int, input_: Input) -> np.ndarray | None:
    """The gradient on the probes as one vector, its length 1; None where it is 0 or not finite."""
    _, gradients = probes(num_classes, FIELD).gradients(expression)
    if input_ not in gradients:
        return None
    field = gradients[input_].flatten().numpy()
    length = float(np.linalg.norm(field))
    return field / length if 0 < length < float("inf") else None


@functools.lru_cache(maxsize=8)
def _library(num_classes: int, input_: Input) -> dict[str, np.ndarray]:
    """The fields of the hand-written losses of one kind of input; of losses of both, those of the embeddings."""
    fields = {}
    for name, row in BASELINES.items():
        expression = Expression.parse(row.expression)
        fits = expression.sees_embeddings if input_ == "embeddings" else not expression.sees_embeddings
        if fits and row.classes in (None, num_classes):
            field = _field(expression, num_classes, input_)
            if field is not None:
                fields[name] = field
    return fields


def _explained(field: np.ndarray, other: np.ndarray) -> float:
    return max(0.0, float(field @ other)) ** 2


def _fitted(family: Family, field: np.ndarray, num_classes: int, input_: Input) -> Likeness:
    """The member of a family that explains most."""

    def unexplained(value: float) -> float:
        other = _field(family.member(value), num_classes, input_)
        return 1.0 if other is None else 1 - _explained(field, other)

    values = np.linspace(family.low, family.high, COARSE)
    losses = [unexplained(value) for value in values]
    place = int(np.argmin(losses))
    around = (values[max(place - 1, 0)], values[min(place + 1, COARSE - 1)])
    fine = optimize.minimize_scalar(unexplained, bounds=around, method="bounded", options={"xatol": 1e-4})
    value, least = min((losses[place], values[place]), (float(fine.fun), float(fine.x)))[::-1]
    return Likeness(input_, "family", family.name.replace("[a]", f"{value:.2g}"), family.member(value).text, 1 - least)


def _mixture(field: np.ndarray, known: Mapping[str, np.ndarray], input_: Input) -> Likeness | None:
    """The two known fields of which a positive combination explains most."""
    names = list(known)
    by_field = {name: float(field @ known[name]) for name in names}
    best: tuple[float, Sequence[str], Sequence[float]] = (0.0, (), ())
    for one, other in itertools.combinations(names, 2):
        cosine = float(known[one] @ known[other])
        if 1 - cosine**2 < 1e-9:
            continue
        weights = [(by_field[a] - cosine * by_field[b]) / (1 - cosine**2) for a, b in ((one, other), (other, one))]
        explained = weights[0] * by_field[one] + weights[1] * by_field[other]
        if min(weights) > 0 and explained > best[0]:
            best = (explained, (one, other), weights)
    explained, pair, weights = best
    if not pair:
        return None
    total = sum(weights)
    order = sorted(zip(weights, pair, strict=True), reverse=True)
    text = " + ".join(f"{100 * weight / total:.0f} % {name}" for weight, name in order)
    return Likeness(input_, "mixture", text, "", explained)


FAMILIES: dict[Input, tuple[Family, ...]] = {
    "logits": (
        Family("cross-entropy with label smoothing [a]", "cls(-((1 - [a])*y + [a]/K)*log(p))", 0.0, 0.95),
        Family("focal loss, gamma [a]", "cls(-y*(1 - p)**[a]*log(p))", 0.0, 8.0),
        Family("generalized cross-entropy, q [a]", "cls(y*(1 - p**[a])/[a])", 0.01, 2.0),
        Family("Poly-1, epsilon [a]", "cls(-y*log(p) + ([a])*y*(1 - p))", -1.0, 20.0),
        Family("NGL, alpha [a]", "cls(exp([a] - p*(y + 1)) - cos(cos(sin(p))))", 0.0, 5.0),
        Family("cross-entropy less [a] times the entropy", "cls(-y*log(p) + [a]*p*log(p))", 0.0, 1.0),
    ),
    "embeddings": (
        Family("contrastive loss, margin [a]", "pair(Y*D**2 + (1 - Y)*relu([a] - D)**2)", 0.1, 10.0),
        Family("Yukawa, range [a]", "pair((1 - Y)*exp(-[a]*D)/D + Y*D**3)", 0.1, 20.0),
        Family("triplet loss, margin [a]", "trip(relu(Dp**2 - Dn**2 + [a]))", 0.01, 10.0),
        Family("center loss, d to the power of [a]", "cls(y*d**[a])", 0.25, 6.0),
        Family("all centers, d to the power of [a]", "cls(d**[a])", 0.25, 6.0),
    ),
}
