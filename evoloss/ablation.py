"""Smaller formulas from one: a part left out, or frozen to a number."""

import itertools
import statistics
from collections.abc import Iterator

from evoloss.canonical import fold
from evoloss.expression import Expression
from evoloss.operators import REDUCTIONS
from evoloss.syntax import MAX_NUMBER, ExpressionError, Node

NEUTRAL = (0.0, 1.0)  # of a sum and of a product
DIGITS = 3  # of a number that a part is frozen to


def ablations(expression: Expression) -> list[Expression]:
    """The smaller formulas that one cut makes of this one, the smallest first.

    A cut puts in the place of one part of the tree one of the part's own arguments, so that the rest is left out, or,
    inside a reduction, a number: 0, 1, or the mean of what the part is at `TYPICAL` inputs. What no training can learn
    from is not among them.
    """
    found: dict[str, Expression] = {}
    for node in _cuts(expression.node, inside=False):
        try:
            smaller = Expression.from_node(node)
        except ExpressionError:  # infinite, undefined, or a constant
            continue
        if not smaller.missing and smaller.complexity < expression.complexity:
            found[smaller.key] = smaller
    return sorted(found.values(), key=lambda smaller: (smaller.complexity, smaller.text))


def _cuts(node: Node, inside: bool) -> Iterator[Node]:
    """The tree with one part replaced; `inside` a reduction, where a number may stand for a part."""
    if isinstance(node, tuple):
        name, *children = node
        if name not in REDUCTIONS:
            yield from (("neg", child) if name == "sub" and place else child for place, child in enumerate(children))
        for place, child in enumerate(children):
            for smaller in _cuts(child, inside or name in REDUCTIONS):
                yield _with_argument(node, place, smaller)
    if inside:
        yield from NEUTRAL
        if not isinstance(node, float) and (value := typical(node)) is not None:
            yield value


def _with_argument(node: tuple[str, *tuple[Node, ...]], place: int, argument: Node) -> Node:
    """The tree with another argument at that place."""
    name, *arguments = node
    arguments[place] = argument
    return (name, *arguments)


def typical(node: Node) -> float | None:
    """The mean of an elementwise part over `TYPICAL` inputs, to three digits; None where it is not finite somewhere."""
    names = sorted(_variables(node))
    try:
        values = [
            _value(node, dict(zip(names, inputs, strict=True)))
            for inputs in itertools.product(*(TYPICAL[name] for name in names))
        ]
        mean = float(f"{statistics.fmean(values):.{DIGITS}g}")
    except (ExpressionError, OverflowError):
        return None
    return mean if mean == 0 or 1 / MAX_NUMBER <= abs(mean) <= MAX_NUMBER else None


def _variables(node: Node) -> set[str]:
    if isinstance(node, tuple):
        return set().union(*map(_variables, node[1:]))
    return {node} if isinstance(node, str) else set()


def _value(node: Node, inputs: dict[str, float]) -> float:
    if isinstance(node, tuple):
        name, *children = node
        return fold(name, *(_value(child, inputs) for child in children))
    return inputs[node] if isinstance(node, str) else node


_DISTANCES = (0.5, 1.0, 2.0, 4.0, 8.0)  # of embeddings and centers, before a training and after it

# What a variable may be while a model is trained, each value as often as the others.
TYPICAL: dict[str, tuple[float, ...]] = {
    "p": (0.05, 0.25, 0.5, 0.75, 0.95),
    "y": (0.0, 1.0),
    "z": (-3.0, -1.0, 1.0, 3.0),
    "d": _DISTANCES,
    "D": _DISTANCES,
    "Y": (0.0, 1.0),
    "Dp": _DISTANCES,
    "Dn": _DISTANCES,
    "K": (10.0,),
}
