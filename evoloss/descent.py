"""Can a model learn from a loss at all? Adam moves free logits, embeddings and centers, for many losses at once.

Adam, not SGD, which would turn NGL, MAE and GCE down for their small gradients. Free inputs share nothing, as those of
a network do: a loss that learns by that alone, such as one that only pushes embeddings apart, is not recognized.
"""

import functools
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.expression import Expression
from evoloss.gradient import Gradient, compile_gradient
from evoloss.probes import DIMENSION, Chain, Inputs, Labels, View, distances

STEPS = 40
HOPELESS_AT = 15  # steps
HOPELESS, LEARNED = 0.1, 0.6  # shares of the way from chance to perfect
RATE, BETAS = 0.3, (0.9, 0.999)  # of Adam
EPSILON = 1e-15  # the same; far below any gradient, since a factor of a loss means nothing: trainings match it
LOGITS = 0.3  # standard deviation at the start; from 0.1, one wave of sin(50*p) is enough to put a class first
EMBEDDINGS = (1.0, 0.5)  # the same; a second attempt, nearer, for losses that are steep where distances are large
MOST_CLASSES = 100  # that have samples
MOST_NUMBERS = 10_000_000  # in the distances of a stack


def learning_signs(expressions: Sequence[Expression], num_classes: int) -> list[int]:
    """For each loss 1 if free inputs learn the labels by it, else -1 if they do by its negative, else 0.

    The answer for a loss is the same whatever the others are.
    """
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, expression in enumerate(expressions):
        if names := _inputs_of(expression):
            groups[names].append(place)
    signs = [0] * len(expressions)
    most = max(1, MOST_NUMBERS // (4 * _labels(num_classes).size ** 2))
    for names, places in groups.items():
        for first in range(0, len(places), most):
            chosen = places[first : first + most]
            for place, sign in zip(chosen, _descend([expressions[i] for i in chosen], names, num_classes), strict=True):
                signs[place] = sign
    return signs


def _inputs_of(expression: Expression) -> tuple[str, ...]:
    seen = (expression.sees_logits, expression.sees_embeddings, "d" in expression.variables)
    return tuple(name for name, used in zip(("logits", "embeddings", "centers"), seen, strict=True) if used)


@functools.lru_cache(maxsize=4)
def _labels(num_classes: int) -> Labels:
    present = min(num_classes, MOST_CLASSES)
    return Labels(num_classes, max(4, -(-40 // present)), present=present)


@dataclass(frozen=True)
class _Start:
    """Where the inputs start in R attempts: values [R, L], one input after the other. The last R/2 negate the loss."""

    shapes: dict[str, torch.Size]
    values: Tensor

    @property
    def signs(self) -> Tensor:
        """[R]."""
        return torch.tensor([1.0, -1.0]).repeat_interleave(len(self.values) // 2)

    def inputs(self, flat: Tensor) -> Inputs:
        """The inputs in [..., L]."""
        pieces = flat.split([shape.numel() for shape in self.shapes.values()], -1)
        return {name: piece.unflatten(-1, self.shapes[name]) for name, piece in zip(self.shapes, pieces, strict=True)}


@functools.lru_cache(maxsize=16)
def _start(names: tuple[str, ...], num_classes: int) -> _Start:
    generator = torch.Generator().manual_seed(3)
    size = _labels(num_classes).size
    normal = {
        "logits": torch.randn(num_classes, size, generator=generator),
        "embeddings": torch.randn(size, DIMENSION, generator=generator),
        "centers": torch.randn(num_classes, DIMENSION, generator=generator),
    }
    scales = [{"logits": LOGITS, "embeddings": scale, "centers": 1.0} for scale in EMBEDDINGS]
    if "logits" in names:  # which decide then
        del scales[1:]
    values = [torch.cat([scale[name] * normal[name].flatten() for name in names]) for scale in scales]
    return _Start({name: normal[name].shape for name in names}, torch.stack(2 * values))


@dataclass
class _Member:
    """A loss in a stack, and the outcome of each attempt, None as long as it is open."""

    program: Gradient
    variables: frozenset[str]
    outcomes: list[bool | None]

    def judge(self, outcomes: Iterable[bool | None]) -> None:
        """Settle attempts that are open."""
        pairs = zip(self.outcomes, outcomes, strict=True)
        self.outcomes = [new if known is None else known for known, new in pairs]

    @property
    def sign(self) -> int | None:
        """The answer, if it is known. The negative counts only where the loss itself has failed."""
        half = len(self.outcomes) // 2
        for sign, outcomes in ((1, self.outcomes[:half]), (-1, self.outcomes[half:])):
            if True in outcomes:
                return sign
            if None in outcomes:
                return None
        return 0


def _descend(expressions: list[Expression], names: tuple[str, ...], num_classes: int) -> list[int]:
    """`learning_signs` of losses that see the same inputs. A loss leaves the stack when its sign is known."""
    labels, start = _labels(num_classes), _start(names, num_classes)
    signs = start.signs.view(-1, 1, 1)
    everyone = [_member(expression, num_classes, len(start.values)) for expression in expressions]
    members = everyone
    values = start.values.expand(len(members), -1, -1)
    state = torch.stack([values, torch.zeros_like(values), torch.zeros_like(values)])  # and Adam's two moments
    for step in range(STEPS):
        inputs = start.inputs(state[0])
        chain = Chain(frozenset().union(*(member.variables for member in members)), inputs, labels, step)
        for member, row in zip(members, _progress(chain.words, inputs, labels).tolist(), strict=True):
            member.judge(_outcome(progress, step) for progress in row)
        rows = [row for row, member in enumerate(members) if member.sign is None]
        if not rows:
            break
        leaving, members = len(rows) < len(members), [members[row] for row in rows]
        pulled = chain.pull(_slopes(members, rows, chain.words, labels, signs))
        _adam(state, torch.cat([slope.flatten(2) for slope in pulled.values()], 2), step + 1)
        if leaving:
            state = state[:, rows]
    for member in members:
        member.judge(itertools.repeat(False, len(signs)))
    return [member.sign or 0 for member in everyone]


def _member(expression: Expression, num_classes: int, attempts: int) -> _Member:
    program = compile_gradient(expression.node, num_classes, stacked=True)
    return _Member(program, expression.variables, [None] * attempts)


def _slopes(
    members: Sequence[_Member], rows: Sequence[int], made: dict[str, Tensor], labels: Labels, signs: Tensor
) -> dict[str, Tensor]:
    """The derivatives of the losses, times signs [R, 1, 1], by the words in whose rows they are, 0 in other rows.

    An attempt whose loss is not finite is judged.
    """
    slopes = {name: torch.zeros_like(word) for name, word in made.items()}
    into = {name: slope.unbind() for name, slope in slopes.items()}
    pieces = {name: word.unbind() for name, word in made.items()}
    values = []
    for member, row in zip(members, rows, strict=True):
        value, derivatives = member.program(View(labels, {name: piece[row] for name, piece in pieces.items()}))
        values.append(value.expand_as(signs))
        for name, derivative in derivatives.items():
            torch.mul(derivative, signs, out=into[name][row])
    for member, finite in zip(members, torch.stack(values).flatten(1).isfinite().tolist(), strict=True):
        member.judge(None if good else False for good in finite)
    return slopes


def _outcome(progress: float, step: int) -> bool | None:
    if progress >= LEARNED:
        return True
    return False if step >= HOPELESS_AT and progress < HOPELESS else None


def _progress(made: dict[str, Tensor], inputs: Inputs, labels: Labels) -> Tensor:
    """How far [...] the decoder of the formula has come from chance, 0, to perfect, 1."""
    scores = _scores(made, inputs, labels)
    own = labels.y[: scores.shape[-2]]
    right = (scores * own).sum(-2) > scores.masked_fill(own > 0, -torch.inf).amax(-2)
    chance = 1 / labels.num_classes
    return (right.sum(-1) / labels.size - chance) / (1 - chance)


def _scores(made: dict[str, Tensor], inputs: Inputs, labels: Labels) -> Tensor:
    """[..., K, N], largest for the class that the decoder of the formula names."""
    if "z" in made:
        return made["z"]
    if "d" in made:
        return -made["d"]
    # Distances to the class means, a sample left out of its own: random embeddings score chance.
    means = inputs["embeddings"].unflatten(-2, (labels.per_class, labels.present)).mean(-3)
    return -distances(means, inputs["embeddings"]) * (1 + labels.y[: labels.present] / (labels.per_class - 1))


def _adam(state: Tensor, gradient: Tensor, step: int) -> None:
    """One step in place. Only products, sums, quotients and roots: a number is the same wherever it lies in memory.

    torch's fused kernel, and its `lerp` and `addcmul`, may round the last numbers of a tensor otherwise than the rest.
    """
    values, first, second = state
    first.mul_(BETAS[0]).add_(gradient * (1 - BETAS[0]))
    second.mul_(BETAS[1]).add_(gradient * gradient * (1 - BETAS[1]))
    root = (second / (1 - BETAS[1] ** step)).sqrt_().add_(EPSILON)
    values.sub_((first / root).mul_(RATE / (1 - BETAS[0] ** step)))
