"""Properties of what sees distances: whom a loss pulls together and pushes apart, how strongly, and where that ends."""

from collections.abc import Callable
from typing import Any

from evoloss.analysis.distances import RAY, Distances
from evoloss.analysis.verdicts import Answer, is_bounded, shown
from evoloss.syntax import Node


def pulls(distances: Distances) -> Answer:
    """Whether the loss never falls as what belongs together moves apart."""
    return _force(distances, 1.0, "falls")


def pushes(distances: Distances) -> Answer:
    """Whether it never rises as what does not belong together moves apart."""
    return _force(distances, 0.0, "rises")


def _force(distances: Distances, target: float, wrong: str) -> Answer:
    """Whether the loss rises with the distance of what belongs together, or falls with that of what does not."""
    name = distances.variable(target)
    sign = 1 if target else -1
    example = distances.counterexample(target, sign)
    if example is not None:
        (at, before), (then, after) = example
        ends = [f"{shown(value)} at {name} = {shown(place)}" for place, value in ((at, before), (then, after))]
        return "refuted", f"{wrong} from {ends[0]} to {ends[1]}"
    if distances.is_flat(target):
        return "refuted", f"no force: {name} of {distances.word(target)} does not matter"
    formula = distances.formula(target)
    if distances.prover.ask("falls", ("neg", formula) if target else formula, distances.domain(target), name):
        return "proved", f"the derivative by {name} is never {'below' if target else 'above'} 0"
    return "checked", f"at {distances.points:,} points"


def rest(distances: Distances) -> Answer:
    """The distances of least loss."""
    told = []
    for target in (1.0, 0.0):
        place = distances.lowest(target)
        told.append(f"{distances.word(target)}: {place}")
    return "checked", f"{'; '.join(told)} (of {distances.points:,} points)"


def bounded(distances: Distances) -> Answer:
    """Whether the loss has bounds, at whatever distances."""
    return _limits(distances, lambda formula, domain, _: distances.prover.ask("bounded", formula, domain), "loss")


def bounded_force(distances: Distances) -> Answer:
    """Whether its derivative by a distance has bounds, which is the length of the gradient by an embedding."""

    def ask(formula: Node, domain: Any, name: str) -> Any:
        return distances.prover.ask("bounded slope", formula, domain, name, "1")

    return _limits(distances, ask, "derivative")


def _limits(distances: Distances, ask: Callable[..., Any], what: str) -> Answer:
    whole = [
        (target, ask(distances.formula(target), distances.domain(target), distances.variable(target)))
        for target in (1.0, 0.0)
    ]
    if all(is_bounded(answer) for _, answer in whole):
        return "proved", "by an enclosure over all distances"
    for target in (1.0, 0.0):
        name = distances.variable(target)
        answer = ask(distances.alone(target), {name: RAY}, name)
        if answer and not answer["bounded"]:
            place, value = answer["points"][-1]
            where = f"of {distances.word(target)} at {name} = {place:g}"
            return "refuted", f"{what} {shown(value)} {where}, and on without limit"
    return "checked", f"at {distances.points:,} points, the largest {shown(distances.largest(what == 'derivative'))}"
