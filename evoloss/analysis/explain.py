"""`evoloss explain`: what is known of a loss without training with it.

Its values and gradients where they matter, its properties (`properties.py`), and the known losses that it is most like
(`nearest.py`). Nothing here depends on data.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evoloss.analysis.curves import beside_references, by_distance, initial_length
from evoloss.analysis.distances import Distances
from evoloss.analysis.nearest import Input, Likeness, nearest
from evoloss.analysis.parts import Kind, split
from evoloss.analysis.properties import Finding, findings
from evoloss.analysis.prover import Prover
from evoloss.analysis.risk import one_hot, perfect
from evoloss.analysis.subject import Subject, share_text
from evoloss.errors import EvolossError
from evoloss.expression import Expression

CUT = (-3.0, 8.0)  # of pictures, where losses and derivatives may be infinite
WRONG = 1e-6  # p of the right class of a sample that is an outlier


@dataclass(frozen=True)
class Place:
    """The part that sees logits at one prediction: p of the right class, the loss, its derivative by the right logit,
    and the length of its gradient by all logits.
    """

    name: str
    share: float
    loss: float
    slope: float
    length: float


@dataclass(frozen=True)
class Explanation:
    """All that is known of a loss of K classes. `initial_length` is in cross-entropy's."""

    expression: Expression
    num_classes: int
    parts: dict[Kind, str]
    mixed: tuple[str, ...]
    places: tuple[Place, ...]
    initial_length: float | None
    findings: tuple[Finding, ...]
    likenesses: tuple[Likeness, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data; a number that is not finite is null."""
        rest = {name: value for name, value in asdict(self).items() if name != "expression"}
        return _finite({"expression": self.expression.text, "latex": self.expression.latex, **rest})


def explain(expression: Expression, num_classes: int, prover: Prover) -> Explanation:
    """Look at a loss from every side. Takes some seconds."""
    parts = split(expression)
    subjects: dict[Kind, Any] = {
        kind: Subject(part, num_classes, prover) if kind == "logits" else Distances(part, num_classes, prover)
        for kind, part in parts.by_kind.items()
    }
    logits = subjects.get("logits")
    inputs: list[Input] = []
    if expression.sees_logits:
        inputs.append("logits")
    if expression.sees_embeddings:
        inputs.append("embeddings")
    return Explanation(
        expression,
        num_classes,
        {kind: part.text for kind, part in parts.by_kind.items()},
        parts.mixed,
        tuple(_places(logits)) if logits else (),
        initial_length(logits.risk) if logits else None,
        tuple(findings(parts, subjects)),
        tuple(row for input_ in inputs for row in nearest(expression, num_classes, input_)),
    )


def _places(subject: Subject) -> Sequence[Place]:
    best = subject.optimum
    classes = subject.num_classes
    shares = {"uniform": 1 / classes, "perfect prediction": perfect(classes), "outlier": WRONG}
    rows = {
        name: [float(values[0]) for values in subject.risk.on_line(np.array([share]))] for name, share in shares.items()
    }
    places = [Place(name, shares[name], *rows[name]) for name in shares]
    values, gradients = subject.risk.gradients(best.logits, one_hot(torch.zeros(1, dtype=torch.long), classes))
    optimum = Place("optimum", best.share, float(values[0]), float(gradients[0, 0]), float(gradients[0].norm()))
    return [places[0], optimum, *places[1:]]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw(path: Path, expression: Expression, num_classes: int, prover: Prover) -> None:
    """Loss and gradient against p of the right class, beside cross-entropy and NGL, and against distances."""
    from evoloss.pictures import Curves, draw_curves

    rows = []
    if references := beside_references(expression, num_classes):
        share = "p of the right class, the others equal"
        rows.append(Curves(share, "loss, scaled and shifted", "derivative by the right logit, scaled", references, CUT))
    for kind, part in split(expression).by_kind.items():
        if kind != "logits":
            curves = by_distance(Distances(part, num_classes, prover))
            places = f"distance ({kind}{', the other at 1' if kind == 'triplets' else ''})"
            rows.append(Curves(places, "loss", "derivative by the distance", curves))
    if not rows:
        raise EvolossError(f"nothing to draw of `{expression}`: {split(expression).reason('the logits or distances')}")
    draw_curves(path, "\n".join(textwrap.wrap(f"{expression}, {num_classes} classes", 110)), rows)


def latex_table(explanation: Explanation) -> str:
    """The properties as a `tabular` for the booktabs package."""
    rows = [
        f"{_escaped(row.property)} & {row.verdict} & {_escaped(row.evidence)} \\\\"
        for row in explanation.findings
        if row.verdict != "does not apply"
    ]
    head = [rf"% {explanation.expression}, {explanation.num_classes} classes", rf"% ${explanation.expression.latex}$"]
    table = [r"\begin{tabular}{llp{9cm}}", r"\toprule", r"property & verdict & evidence \\", r"\midrule", *rows]
    return "\n".join([*head, *table, r"\bottomrule", r"\end{tabular}", ""])


def _escaped(text: str) -> str:
    for sign in "\\&%$#_{}~^":
        text = text.replace(
            sign,
            {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}.get(sign, f"\\{sign}"),
        )
    return text


def share_of(place: Place, num_classes: int) -> str:
    """p of the right class for people."""
    return share_text(place.share, num_classes)
