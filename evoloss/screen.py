"""The checks before any training, cheapest first: finite, not flat, learns. About five milliseconds.

Neither monotonicity nor a minimum at p = 1 is asked for: NGL and Baikal have neither. A loss that learns with the other
sign is reported as such and not thrown away.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.train import nearest

PROBE_SCALES = (
    0.1,
    1.0,
    5.0,
    15.0,
)  # standard deviations of probe logits; embeddings are probed at 1/5 of them, 0.1 to 3
PROBE_DIM = 8
PROJECTIONS = 16  # numbers that a probe's gradient is reduced to
STEPS = 40
HOPELESS_AT = 10  # steps; stopping at 6 would lose 3 % of the losses that trained well in two runs, at 10 it loses 1 %
RATE = 0.3  # of Adam on free logits and embeddings: SGD would reject NGL, MAE and GCE for their small gradients
LEARNED = 0.6  # share of the way from chance to perfect


@dataclass(frozen=True)
class Verdict:
    """`problem` is empty for a loss worth training, else the screen that it failed and how."""

    problem: str = ""
    negate: bool = False
    fingerprint: tuple[float, ...] = ()


def screen(expression: Expression, num_classes: int) -> Verdict:
    """All checks on one formula, for a problem of `num_classes`.

    Values and gradients are looked at in float32, as in a training, at a moderate and at the widest scale; the
    fingerprint then covers all scales in float64.
    """
    loss = Loss(expression, num_classes, PROBE_DIM, generator=torch.Generator().manual_seed(0))
    fields: list[list[Tensor]] = []
    for probe in _probes(num_classes)[1::2]:
        value, gradients = _gradients(loss, probe)
        if not torch.isfinite(value):
            return Verdict(f"finite: the loss is {value.item():g} on a probe")
        if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            return Verdict("finite: the gradient is not finite on a probe")
        fields.append(gradients)
    if not any(bool(gradient.any()) for gradients in fields for gradient in gradients[: _free(expression)]):
        return Verdict("flat: no gradient on any probe")
    for negate in (False, True):
        if learns(expression, num_classes, negate):
            field = () if negate else fingerprint(expression, num_classes)
            problem = "" if all(map(math.isfinite, field)) else "finite: the gradient is not finite on a probe"
            return Verdict(problem, negate, field)
    return Verdict("learns: neither sign fits free logits or embeddings")


@dataclass(frozen=True)
class Probe:
    """Fixed inputs of a loss: logits [N, K], embeddings [N, 8], labels [N]."""

    logits: Tensor
    embeddings: Tensor
    labels: Tensor

    def double(self) -> "Probe":
        """The same in float64."""
        return Probe(self.logits.double(), self.embeddings.double(), self.labels)


@functools.lru_cache
def _probes(num_classes: int) -> tuple[Probe, ...]:
    generator = torch.Generator().manual_seed(1)
    count = max(2 * num_classes, 24)
    labels = torch.arange(count) % num_classes
    return tuple(
        Probe(
            torch.randn(count, num_classes, generator=generator) * scale,
            torch.randn(count, PROBE_DIM, generator=generator) * max(scale / 5, 0.1),
            labels,
        )
        for scale in PROBE_SCALES
    )


def _free(expression: Expression) -> int:
    """How many of the inputs the formula sees: logits, embeddings or both."""
    return expression.sees_logits + expression.sees_embeddings


def _inputs(loss: Loss, logits: Tensor, embeddings: Tensor) -> list[Tensor]:
    """The leaf tensors that a formula depends on: logits, embeddings, centers, as far as it sees them."""
    seen = [(logits, loss.expression.sees_logits), (embeddings, loss.expression.sees_embeddings)]
    return [tensor for tensor, used in seen if used] + list(loss.parameters())


def _gradients(loss: Loss, probe: Probe) -> tuple[Tensor, list[Tensor]]:
    logits = probe.logits.clone().requires_grad_()
    embeddings = probe.embeddings.clone().requires_grad_()
    value = loss(logits, probe.labels, embeddings)
    inputs = _inputs(loss, logits, embeddings)
    if not value.requires_grad:
        return value, [torch.zeros_like(tensor) for tensor in inputs]
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    pairs = zip(gradients, inputs, strict=True)
    return value, [torch.zeros_like(tensor) if gradient is None else gradient for gradient, tensor in pairs]


def fingerprint(expression: Expression, num_classes: int) -> tuple[float, ...]:
    """The gradient field on the probes, in float64, up to a positive factor.

    Per probe: 16 random projections of the gradient's direction, and the logarithm of its share of the length.
    Two losses that differ by a positive factor and a constant have the same numbers.
    """
    loss = Loss(expression, num_classes, PROBE_DIM, generator=torch.Generator().manual_seed(0)).double()
    fields = [
        torch.cat([gradient.flatten() for gradient in _gradients(loss, probe.double())[1]])
        for probe in _probes(num_classes)
    ]
    lengths = [field.norm().item() for field in fields]
    total = math.hypot(*lengths) or 1.0
    numbers: list[float] = []
    for field, length in zip(fields, lengths, strict=True):
        direction = field / (length or 1.0)
        numbers += (_projection(len(field)) @ direction).tolist()
        numbers.append(math.log(max(length / total, 1e-12)) / 10)
    return tuple(round(number, 9) for number in numbers)


@functools.lru_cache
def _projection(size: int) -> Tensor:
    return torch.randn(PROJECTIONS, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def learns(expression: Expression, num_classes: int, negate: bool = False) -> bool:
    """Whether Adam on free logits and embeddings reaches the labels, judged by the decoder of the formula."""
    chance = 1 / num_classes
    for step, accuracy in _descent(expression, num_classes, negate):
        if accuracy >= chance + LEARNED * (1 - chance):
            return True
        if step >= HOPELESS_AT and accuracy < chance + 0.1 * (1 - chance):
            return False
    return False


def _descent(expression: Expression, num_classes: int, negate: bool) -> Iterator[tuple[int, float]]:
    """Accuracy before each step; ends early where the loss stops being finite."""
    generator = torch.Generator().manual_seed(3)
    count = max(4 * num_classes, 40)
    labels = torch.arange(count) % num_classes
    logits = (0.1 * torch.randn(count, num_classes, generator=generator)).requires_grad_()
    embeddings = torch.randn(count, PROBE_DIM, generator=generator).requires_grad_()
    loss = Loss(expression, num_classes, PROBE_DIM, scale=-1.0 if negate else 1.0, generator=generator)
    optimizer = torch.optim.Adam(_inputs(loss, logits, embeddings), lr=RATE, fused=True)
    for step in range(STEPS):
        with torch.no_grad():
            yield step, (_decode(loss, logits, embeddings, labels) == labels).float().mean().item()
        optimizer.zero_grad()
        value = loss(logits, labels, embeddings)
        if not torch.isfinite(value) or not value.requires_grad:
            return
        value.backward()
        optimizer.step()


def _decode(loss: Loss, logits: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    if loss.expression.sees_logits:
        return logits.argmax(1)
    if loss.centers is not None:
        return nearest(embeddings, loss.centers)
    return _nearest_other_mean(embeddings, labels, loss.num_classes)


def _nearest_other_mean(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The class whose mean is nearest, a sample left out of its own class's mean: random embeddings score chance."""
    members = torch.nn.functional.one_hot(labels, num_classes).to(embeddings.dtype)
    sums, counts = members.T @ embeddings, members.sum(0).unsqueeze(1)
    means = (sums / counts).expand(len(labels), -1, -1).clone()
    means[torch.arange(len(labels)), labels] = (sums[labels] - embeddings) / (counts[labels] - 1)
    return (means - embeddings.unsqueeze(1)).norm(dim=2).argmin(1)
