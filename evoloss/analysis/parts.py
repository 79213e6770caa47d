"""A loss as a sum of parts: what of it sees the logits, and what sees distances.

Questions about one input can be asked of a part alone: that the gradient of `cls(-y*log(p)) + 0.04*cls(d)` with respect
to the logits is that of cross-entropy, one sees here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from evoloss.expression import Expression
from evoloss.operators import REDUCTIONS, VARIABLES
from evoloss.syntax import Node, write

Kind = Literal["logits", "centers", "pairs", "partners", "triplets"]


@dataclass(frozen=True)
class Part:
    """The terms of a loss under one reduction that see one kind of input, as one elementwise formula."""

    kind: Kind
    reduction: str
    field: Node

    @property
    def text(self) -> str:
        """As a formula."""
        return write((self.reduction, self.field))

    @property
    def variables(self) -> frozenset[str]:
        """The names of variables in it."""
        return names(self.field)


@dataclass(frozen=True)
class Parts:
    """The parts of a loss by kind. `mixed` are terms in which distances meet `p` or `z`; they are in no part.

    `whole` is false where a loss is no sum of means over samples, such as `log(cls(p))`: then there are no parts.
    """

    by_kind: Mapping[Kind, Part]
    mixed: tuple[str, ...] = ()
    whole: bool = True

    def reason(self, what: str) -> str:
        """Why no part sees `what`, the logits or distances."""
        if not self.whole:
            return "the loss is no sum of means over samples"
        if self.mixed:
            return f"no term sees {what} alone: p or z meets d in `{self.mixed[0]}`"
        return f"the loss does not see {what}"


class _NoSumError(Exception):
    """A reduction inside a function or a product of reductions."""


def split(expression: Expression) -> Parts:
    """The parts of a loss. Terms that nothing can learn from, such as `trip(3)`, are left out."""
    fields: dict[Kind, Node] = {}
    reductions: dict[Kind, str] = {}
    mixed: list[str] = []
    idle: list[Node] = []  # terms of `cls` without a prediction, such as cos(y): they add to the value
    try:
        terms = [
            (name, term) for name, body, factor in _reduced(expression.node, 1.0) for term in _addends(body, factor)
        ]
    except _NoSumError:
        return Parts({}, whole=False)
    for name, term in terms:
        seen = {variable for variable in names(term) if VARIABLES[variable].prediction}
        if "d" in seen and len(seen) > 1:
            mixed.append(write((name, term)))
        elif seen:
            kind: Kind = "centers" if "d" in seen else KINDS[name]
            fields[kind] = _sum(fields[kind], term) if kind in fields else term
            reductions[kind] = name
        elif name == "cls":
            idle.append(term)
    for term in idle if "logits" in fields else ():
        fields["logits"] = _sum(fields["logits"], term)
    whole = expression.node
    if len(fields) == 1 and not mixed and isinstance(whole, tuple) and whole[0] in REDUCTIONS:
        (kind,) = fields
        fields[kind] = _argument(whole)  # as it is written
    return Parts({kind: Part(kind, reductions[kind], field) for kind, field in fields.items()}, tuple(mixed))


def names(node: Node) -> frozenset[str]:
    """The variables in a tree."""
    if isinstance(node, tuple):
        return frozenset().union(*(names(child) for child in node[1:]))
    return frozenset([node]) if isinstance(node, str) else frozenset()


def substitute(node: Node, values: Mapping[str, Node]) -> Node:
    """The tree with variables replaced."""
    if isinstance(node, tuple):
        return (node[0], *(substitute(child, values) for child in node[1:]))
    return values.get(node, node) if isinstance(node, str) else node


def _reduced(node: Node, factor: Node) -> Iterator[tuple[str, Node, Node]]:
    """Each reduction with its argument and its factor. Raises `_NoSumError`."""
    if not _has_reduction(node):
        return
    assert isinstance(node, tuple)
    name, *children = node
    if name in REDUCTIONS:
        yield name, children[0], factor
    else:
        yield from (item for child, share in _shares(name, children, factor) for item in _reduced(child, share))


def _argument(node: tuple[str, *tuple[Node, ...]]) -> Node:
    _, *arguments = node
    return arguments[0]


def _addends(node: Node, factor: Node) -> Iterator[Node]:
    """The terms of an elementwise formula, each times the factor."""
    try:
        shares = _shares(node[0], list(node[1:]), factor) if isinstance(node, tuple) else None
    except _NoSumError:
        shares = None
    if shares is None:
        yield _times(factor, node)
    else:
        yield from (term for child, share in shares for term in _addends(child, share))


def _shares(name: str, children: list[Node], factor: Node) -> list[tuple[Node, Node]]:
    """What a sum, a difference or a multiple consists of, each with its factor. Raises `_NoSumError` otherwise."""
    if name in ("add", "sub"):
        return [(children[0], factor), (children[1], factor if name == "add" else _negated(factor))]
    if name == "neg":
        return [(children[0], _negated(factor))]
    if name in ("mul", "div") and _is_constant(children[1]):
        return [(children[0], (name, factor, children[1]) if factor != 1.0 or name == "div" else children[1])]
    if name == "mul" and _is_constant(children[0]):
        return [(children[1], _times(factor, children[0]))]
    raise _NoSumError


def _is_constant(node: Node) -> bool:
    return names(node) <= {"K"} and not _has_reduction(node)


def _has_reduction(node: Node) -> bool:
    return isinstance(node, tuple) and (node[0] in REDUCTIONS or any(_has_reduction(child) for child in node[1:]))


def _negated(factor: Node) -> Node:
    return -factor if isinstance(factor, float) else ("neg", factor)


def _times(factor: Node, node: Node) -> Node:
    if isinstance(factor, float) and isinstance(node, float):
        return factor * node
    if factor == 1.0:
        return node
    return ("neg", node) if factor == -1.0 else ("mul", factor, node)


def _sum(left: Node, right: Node) -> Node:
    """Their sum, written with a minus where the right one begins with one."""
    match right:
        case ("neg", term):
            return ("sub", left, term)
        case ("mul" | "div" as name, float() as factor, term) if factor < 0:
            return ("sub", left, (name, -factor, term))
        case float() if right < 0:
            return ("sub", left, -right)
    return ("add", left, right)


KINDS: dict[str, Kind] = {"cls": "logits", "pair": "pairs", "partner": "partners", "trip": "triplets"}
