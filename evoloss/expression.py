"""`Expression`: a loss as one canonical text, which is its identity everywhere."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from evoloss.mathml import to_mathml
from evoloss.operators import OPERATORS, VARIABLES
from evoloss.syntax import ExpressionError, Node, read, to_latex, write


@dataclass(frozen=True)
class Expression:
    """A loss formula. Two formulas that sympy's automatic evaluation makes equal are the same `Expression`.

    >>> Expression.parse("log(p)*(-y)").text
    'cls(-y*log(p))'
    """

    text: str

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """Read, canonicalize and check a user's text. Raises `ExpressionError`."""
        return cls.from_node(read(text))

    @classmethod
    def from_node(cls, node: Node) -> "Expression":
        """The expression of a scalar syntax tree. Raises `ExpressionError`."""
        from evoloss.canonical import canonical  # sympy takes a second to import

        form = canonical(node)
        expression = cls(write(form))
        if expression.node != form:  # reading it also refuses a form that has outgrown the limits of a formula
            raise ExpressionError("the canonical form of this formula is not a formula of the language")
        return expression

    @functools.cached_property
    def node(self) -> Node:
        """The syntax tree."""
        return read(self.text)

    @functools.cached_property
    def key(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @functools.cached_property
    def variables(self) -> frozenset[str]:
        """The names of `operators.VARIABLES` in the formula."""
        return frozenset(name for name in _walk(self.node) if name in VARIABLES)

    @property
    def layouts(self) -> frozenset[str]:
        """The layouts of these variables."""
        return frozenset(layout for name in self.variables if (layout := VARIABLES[name].layout))

    @functools.cached_property
    def complexity(self) -> int:
        """The cost of all nodes: 1 for a variable, number or reduction, a function's cost in `operators.py`."""
        return sum(OPERATORS[name].cost if name in OPERATORS else 1 for name in _walk(self.node))

    @property
    def latex(self) -> str:
        """The formula in LaTeX."""
        return to_latex(self.node)

    @property
    def mathml(self) -> str:
        """The formula as a MathML element."""
        return to_mathml(self.node)

    @property
    def missing(self) -> str:
        """Why no training can learn from this formula: "no prediction", "no target", or nothing."""
        for kind in ("prediction", "target"):
            if not any(getattr(VARIABLES[name], kind) for name in self.variables):
                return f"no {kind}"
        return ""

    @property
    def sees_logits(self) -> bool:
        """Whether the loss depends on the logits: the model is then judged by their argmax."""
        return bool(self.variables & {"p", "z"})

    @property
    def sees_embeddings(self) -> bool:
        """Whether the loss needs embeddings."""
        return bool(self.variables & {"d", "D", "Dp", "Dn"})

    @property
    def negated(self) -> "Expression":
        """The same loss with the other sign."""
        return Expression.from_node(("neg", self.node))

    def __str__(self) -> str:
        return self.text


def _walk(node: Node) -> Iterator[str]:
    """The names of all nodes; a number's name is "constant"."""
    if isinstance(node, tuple):
        yield node[0]
        for child in node[1:]:
            yield from _walk(child)
    else:
        yield node if isinstance(node, str) else "constant"
