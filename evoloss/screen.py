"""The checks before any training, of many formulas at once, cheapest first: finite, not flat, learns.

Neither monotonicity nor a minimum at p = 1 is asked for: NGL and Baikal have neither. A loss that learns with the other
sign is reported as such and not thrown away.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.descent import learning_signs
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.probes import Scales, probes

# In the precision of a training, as untrained samples, nothing at its farthest together: few samples ever are.
EXAMINED = Scales((0.1, 1.0, 4.0, 15.0), (0.1, 0.2, 2.0, 1.0), torch.float32, trained=False)
TOLD_APART = Scales((0.25, 1.0, 4.0, 16.0), (0.1, 0.4, 1.6, 6.4), torch.float64)  # without a gap from end to end
LARGEST = 1e100  # derivative that is told from a larger one: the square of 1e155 is infinite
PROJECTIONS = 16  # numbers that a probe's gradient is reduced to


@dataclass(frozen=True)
class Verdict:
    """`problem` is empty for a loss worth training, else the screen that it failed and how."""

    problem: str = ""
    negate: bool = False
    fingerprint: tuple[float, ...] = ()


def screen(expressions: Sequence[Expression], num_classes: int) -> list[Verdict]:
    """All checks on each formula, for a problem of `num_classes`.

    A formula has the same verdict, to the last bit, whichever others are there. One that raises fails alone.
    """
    problems = [_problem(expression, num_classes) for expression in expressions]
    sound = [expression for expression, problem in zip(expressions, problems, strict=True) if not problem]
    signs = iter(learning_signs(sound, num_classes))
    return [
        Verdict(problem) if problem else _verdict(expression, num_classes, next(signs))
        for expression, problem in zip(expressions, problems, strict=True)
    ]


def _problem(expression: Expression, num_classes: int) -> str:
    """What is wrong with a formula's values and gradients, if anything."""
    try:
        values, gradients = probes(num_classes, EXAMINED).gradients(expression)
    except (EvolossError, ArithmeticError, RuntimeError, MemoryError, ValueError) as error:
        return f"raises: {type(error).__name__}: {error}".splitlines()[0]
    for value in values.flatten().tolist():
        if not math.isfinite(value):
            return f"finite: the loss is {value:g} on a probe"
    if not all(bool(gradient.isfinite().all()) for gradient in gradients.values()):
        return "finite: the gradient is not finite on a probe"
    if not any(bool(gradient.any()) for name, gradient in gradients.items() if name != "centers"):
        return "flat: no gradient on any probe"
    return ""


def _verdict(expression: Expression, num_classes: int, sign: int) -> Verdict:
    if sign > 0:
        return Verdict(fingerprint=fingerprint(expression, num_classes))
    return Verdict(negate=True) if sign else Verdict("learns: neither sign fits free logits or embeddings")


def fingerprint(expression: Expression, num_classes: int) -> tuple[float, ...]:
    """The gradient field on the probes, in float64, up to a positive factor.

    Per probe: 16 random projections of the gradient's direction, and the logarithm of its share of the length.
    Two losses that differ by a positive factor and a constant have the same numbers. What is not finite counts as 0.
    """
    _, gradients = probes(num_classes, TOLD_APART).gradients(expression)
    projections = _projections(num_classes)
    fields = {name: gradient.flatten(1).nan_to_num(0, 0, 0).clamp(-LARGEST, LARGEST) for name, gradient in gradients.items()}
    lengths = sum(field.square().sum(1) for field in fields.values()).sqrt()
    shadows = sum(field @ projections[name] for name, field in fields.items())
    directions = shadows / torch.where(lengths > 0, lengths, 1).unsqueeze(1)
    shares = (lengths / lengths.norm()).clamp_min(1e-12).log() / 10
    return tuple(round(number, 9) for number in torch.cat([directions, shares.unsqueeze(1)], 1).flatten().tolist())


@functools.lru_cache(maxsize=8)
def _projections(num_classes: int) -> dict[str, Tensor]:
    """16 directions [L, 16] in the space of each input."""
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(tensor[0].numel(), PROJECTIONS, generator=generator, dtype=torch.float64)
        for name, tensor in probes(num_classes, TOLD_APART).inputs.items()
    }
