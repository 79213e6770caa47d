"""The properties of a loss that a reviewer asks for, a row each: proved, checked in numbers, or refuted by an example.

A proof is sympy's or interval arithmetic's (`proofs.py`); what it leaves open is checked at points, which proves
nothing, and the evidence says at how many. A refutation shows numbers that anybody can compute again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evoloss.analysis import forces, predictions
from evoloss.analysis.parts import Kind, Parts
from evoloss.analysis.verdicts import Answer, Verdict


@dataclass(frozen=True)
class Finding:
    """What is known of one property of one part of a loss. `part` is empty for the whole of it."""

    property: str
    question: str
    verdict: Verdict
    evidence: str
    part: str = ""


def _symmetric(_: Any) -> Answer:
    return "proved", "a reduction treats all classes alike"


def _isometric(_: Any) -> Answer:
    return "proved", "distances do not change when embeddings and centers are moved or rotated together"


@dataclass(frozen=True)
class Property:
    """A row: what it says of a loss, the kinds of parts that have it or not, and how to find out."""

    says: str
    kinds: tuple[Kind, ...]
    look: Callable[[Any], Answer]


LOGITS: tuple[Kind, ...] = ("logits",)
DISTANCES: tuple[Kind, ...] = ("centers", "pairs", "partners", "triplets")

PROPERTIES: dict[str, Property] = {
    "optimum": Property("p of the right class at which the loss is least", LOGITS, predictions.optimum),
    "monotone": Property("falls as p of the right class rises, the others equal", LOGITS, predictions.monotone),
    "bounded": Property("has a largest and a smallest value", LOGITS, predictions.bounded),
    "bounded gradient": Property(
        "no sample, an outlier for instance, has more than so much gradient", LOGITS, predictions.bounded_gradient
    ),
    "shift-invariant": Property("a number added to all logits changes nothing", LOGITS, predictions.shift_invariant),
    "proper": Property(
        "the expected loss is least at the true probabilities of the classes", LOGITS, predictions.proper
    ),
    "calibrated": Property(
        "where the expected loss is least, the likeliest class is on top", LOGITS, predictions.calibrated
    ),
    "noise-robust": Property(
        "losses of all labels add up to a constant (Ghosh et al. 2017): uniform label noise moves no minimum",
        LOGITS,
        predictions.noise_robust,
    ),
    "pulls": Property("rises with distances of what belongs together", DISTANCES, forces.pulls),
    "pushes": Property("falls with distances of what does not", DISTANCES, forces.pushes),
    "rest": Property("distances at which the loss is least", DISTANCES, forces.rest),
    "bounded in distance": Property("has a largest and a smallest value", DISTANCES, forces.bounded),
    "bounded force": Property("no distance has more than so much gradient", DISTANCES, forces.bounded_force),
    "isometry-invariant": Property("embeddings may be moved and rotated", DISTANCES, _isometric),
    "symmetric over classes": Property("renaming the classes changes nothing", (*LOGITS, *DISTANCES), _symmetric),
}


def findings(parts: Parts, subjects: Mapping[Kind, Any]) -> list[Finding]:
    """Every property of every part that can have it; of those that none can have, why."""
    found = []
    for name, row in PROPERTIES.items():
        concerned = [kind for kind in row.kinds if kind in subjects]
        if row.look is _symmetric:
            found.append(Finding(name, row.says, *_symmetric(None)))
        elif concerned:
            for kind in concerned:
                found.append(Finding(name, row.says, *row.look(subjects[kind]), part=parts.by_kind[kind].text))
        else:
            what = "the logits" if row.kinds == LOGITS else "distances"
            found.append(Finding(name, row.says, "does not apply", parts.reason(what)))
    return found
