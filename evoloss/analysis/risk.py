"""The part of a loss that sees logits, in numbers: its values, its gradients, and what minimizes its expected value.

A loss of a one-hot target is the sum over classes of `cls`'s formula f: f1 = f(y = 1) of the right class, f0 = f(y = 0)
of each other. Its risk under probabilities q of the classes is sum_k q_k*f1(k) + (1 - q_k)*f0(k). In float64.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from evoloss.analysis.parts import Part
from evoloss.layouts import FLOOR, Batch
from evoloss.lower import compile_node

STEPS = 400  # of Adam
RATES = (0.3, 0.002)  # its first and last learning rate, of logits
FARTHEST = 17.0  # logits stay within, and p above the language's floor, below which formulas mean something else
RANDOM_STARTS = 3
NUMBERS = 2_000_000  # in a batch of risks


@dataclass(frozen=True)
class Risk:
    """A part of kind "logits" for K classes."""

    part: Part
    num_classes: int

    @cached_property
    def _program(self):
        return compile_node(self.part.field, self.num_classes)

    @property
    def sees_z(self) -> bool:
        """Whether the logits count beside their softmax."""
        return "z" in self.part.variables

    def fields(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """f1 and f0 [N, K] of logits [N, K]: what each class adds if it is the right one, and if it is not."""
        labels = torch.zeros(len(logits), dtype=torch.long)
        sides = []
        for target in (1.0, 0.0):
            soft = torch.full_like(logits, target, requires_grad=False)
            value = self._program(Batch(logits, labels, soft, None, None, self.num_classes))
            sides.append(value.expand_as(logits))
        return sides[0], sides[1]

    def losses(self, logits: Tensor) -> Tensor:
        """The loss [N, K] of each sample if class k is the right one."""
        right, wrong = self.fields(logits)
        return wrong.sum(1, keepdim=True) - wrong + right

    def risks(self, logits: Tensor, shares: Tensor) -> Tensor:
        """The risk [N] under shares [N, K] of the classes."""
        right, wrong = self.fields(logits)
        return (shares * right + (1 - shares) * wrong).sum(1)

    def gradients(self, logits: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Risks [N] and their gradients [N, K] by the logits."""
        free = logits.detach().clone().requires_grad_()
        values = self.risks(free, shares)
        if not values.requires_grad:
            return values, torch.zeros_like(logits)
        return values.detach(), torch.autograd.grad(values.sum(), free)[0]

    def on_line(self, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where class 0 is the right one with probability `shares` [N] and the others have equal parts of the rest.

        The loss [N], its derivative [N] by the right logit, and the length [N] of its gradient.
        """
        logits = line(shares, self.num_classes)
        values, gradients = self.gradients(logits, one_hot(torch.zeros(len(logits), dtype=torch.long), logits.shape[1]))
        return values.numpy(), gradients[:, 0].numpy(), gradients.norm(dim=1).numpy()

    def minimize(self, shares: Tensor, seed: int = 0) -> "Minima":
        """The least risk under each of M shares [M, K], by Adam from several starts."""
        starts = _starts(shares, seed)
        logits = starts.flatten(0, 1).requires_grad_()
        wanted = shares.repeat(len(starts), 1)
        optimizer = torch.optim.Adam([logits], lr=RATES[0], eps=1e-20)  # a factor of the loss means nothing
        ratio = (RATES[1] / RATES[0]) ** (1 / STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            risks = self.risks(logits, wanted)
            if not risks.requires_grad:
                break
            (gradient,) = torch.autograd.grad(risks.sum(), logits)
            logits.grad = gradient.nan_to_num(0, 0, 0)
            optimizer.step()
            with torch.no_grad():
                logits.copy_(above_floor(logits.clamp_(-FARTHEST, FARTHEST)))
                optimizer.param_groups[0]["lr"] *= ratio
        with torch.no_grad():
            risks = self.risks(logits, wanted)
        found = logits.detach().view(len(starts), len(shares), -1)
        return Minima(shares, found, risks.view(len(starts), -1).nan_to_num(math.inf))


@dataclass(frozen=True)
class Minima:
    """Where descents from S starts ended: logits [S, M, K] and risks [S, M] under shares [M, K]."""

    shares: Tensor
    logits: Tensor
    risks: Tensor

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """The logits [M, K] and the risk [M] of the lowest end."""
        risks, place = self.risks.min(0)
        return self.logits[place, torch.arange(len(place))], risks

    @property
    def descents(self) -> int:
        """How many there were."""
        return self.risks.numel()


def line(shares: np.ndarray, num_classes: int) -> Tensor:
    """Logits [N, K] of mean 0 that give class 0 the probability `shares` [N] and the others equal parts of the rest."""
    shares = np.asarray(shares, dtype=np.float64)
    gap = torch.from_numpy(np.log(shares) - np.log1p(-shares) + math.log(num_classes - 1))
    logits = -gap.unsqueeze(1).repeat(1, num_classes) / num_classes
    logits[:, 0] += gap
    return logits


def perfect(num_classes: int) -> float:
    """The largest probability of the right class at which no other is below the language's floor."""
    return 1 - (num_classes - 1) * FLOOR


def above_floor(logits: Tensor) -> Tensor:
    """Logits [N, K] with the lowest ones raised to where no p is below the language's floor."""
    return torch.maximum(logits, logits.logsumexp(1, keepdim=True) + math.log(1.05 * FLOOR))


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """[N, K] in float64."""
    return torch.nn.functional.one_hot(labels, num_classes).double()


def _starts(shares: Tensor, seed: int) -> Tensor:
    """[S, M, K]: the shares themselves, no opinion, each of the two largest classes alone, and random logits."""
    generator = torch.Generator().manual_seed(seed)
    count, classes = shares.shape
    centered = shares.clamp_min(1e-4).log()
    largest = shares.topk(2).indices
    alone = [6 * one_hot(largest[:, place], classes) for place in (0, 1)]
    spare = max(1, min(RANDOM_STARTS, NUMBERS // (count * classes) - 4))
    drawn = 2 * torch.randn(spare, count, classes, generator=generator, dtype=torch.float64)
    fixed = [centered - centered.mean(1, keepdim=True), torch.zeros_like(shares), *alone]
    return torch.cat([torch.stack(fixed), drawn])
