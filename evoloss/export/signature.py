"""What an exported loss is called with."""

from dataclasses import dataclass

from evoloss.export.source import LIKE, is_number, stable, subtrees
from evoloss.expression import Expression
from evoloss.lower import is_linear
from evoloss.operators import REDUCTIONS
from evoloss.syntax import Node


@dataclass(frozen=True)
class Signature:
    """What an exported loss is called with: tensors in order, and of those what the module keeps as its own.

    `logits`, `embeddings`: [B, K, ...] and [B, E, ...], where the formula sees them; `centers` [K, E]; `num_classes`
    where no tensor tells it; `weight` where there is a term of classes; `triplets` where there is one of them.
    """

    node: Node
    logits: bool
    embeddings: bool
    centers: bool
    num_classes: bool
    weight: bool
    triplets: bool
    linear: bool

    @property
    def predictions(self) -> list[str]:
        """The tensors that a model makes, and the target."""
        first, *rest = [name for name in ("logits", "embeddings") if getattr(self, name)]
        return [first, "target", *rest]

    @property
    def sizes(self) -> list[str]:
        """The sizes that the module is made with."""
        return ["num_classes"] * (self.centers or self.num_classes) + ["embedding_dim"] * self.centers


def signature(expression: Expression) -> Signature:
    """The signature that a formula needs."""
    node = stable(expression.node)
    used = names_used(node)
    sees_classes = bool(used & {"K", "y"})
    return Signature(
        node,
        logits=expression.sees_logits,
        embeddings=expression.sees_embeddings,
        centers="d" in used,
        num_classes=sees_classes and not (expression.sees_logits or "d" in used),
        weight="class" in expression.layouts,
        triplets=bool(used & {"Dp", "Dn"}),
        linear=is_linear(expression.node),
    )


def names_used(node: Node) -> frozenset[str]:
    """The variables that the code of a tree reads: its own, and the one that gives a reduced number its shape."""
    parts = list(subtrees(node))
    filled = {
        LIKE[REDUCTIONS[part[0]].layout]
        for part in parts
        if isinstance(part, tuple) and part[0] in REDUCTIONS and is_number(part[1])
    }
    names = {part for part in parts if isinstance(part, str)} | filled
    return frozenset(names | ({"y"} if "d" in names else set()))
