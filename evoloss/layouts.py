"""The variables of the language on one batch, and the reductions of its layouts, in torch.

Class layout [N, K]; pair layout [N, N - 1], each sample with every other; triplet layout [T].
"""

import functools
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

FLOOR = 1e-7  # of a probability, and of a squared distance

Reduce = Literal["mean", "sum", "none"]


@dataclass
class Batch:
    """N samples as a formula sees them. A property is a variable, computed once, when first asked for.

    logits [N, K] and embeddings [N, E] or None; labels [N]; soft [N, K], the target where it is probabilities;
    centers [K, E]; weight [K]; step seeds the negatives of triplets. Distances may be asked of stacks, of embeddings
    [S, N, E] and centers [S, K, E]: they have that dimension first.
    """

    logits: Tensor | None
    labels: Tensor
    soft: Tensor | None
    embeddings: Tensor | None
    centers: Tensor | None
    num_classes: int
    weight: Tensor | None = None
    reduction: Reduce = "mean"
    step: int = 0

    @property
    def floats(self) -> Tensor:
        """A tensor of the batch that has its floating type and its device."""
        tensor = self.logits if self.logits is not None else self.embeddings
        assert tensor is not None
        return tensor

    @functools.cached_property
    def z(self) -> Tensor:
        """Logits [N, K]."""
        assert self.logits is not None
        return self.logits

    @functools.cached_property
    def p(self) -> Tensor:
        """Softmax probabilities [N, K], at least 1e-7."""
        return self.z.softmax(1).clamp(FLOOR, 1)

    @functools.cached_property
    def log_p(self) -> Tensor:
        """Their logarithm [N, K], by log-softmax: exact where `p` is clamped."""
        return self.z.log_softmax(1)

    @functools.cached_property
    def y(self) -> Tensor:
        """Targets [N, K], one-hot or soft."""
        if self.soft is not None:
            return self.soft.to(self.floats.dtype)
        return functional.one_hot(self.labels, self.num_classes).to(self.floats.dtype)

    @functools.cached_property
    def d(self) -> Tensor:
        """Distances [N, K] to the centers; those of classes that are absent get no gradient."""
        assert self.embeddings is not None
        assert self.centers is not None
        present = (self.y > 0).any(0).unsqueeze(1)
        centers = torch.where(present, self.centers, self.centers.detach()).to(self.embeddings.dtype)
        return distances(self.embeddings, centers)

    @functools.cached_property
    def _all_pairs(self) -> Tensor:
        """[N, N], the diagonal included."""
        assert self.embeddings is not None
        return distances(self.embeddings, self.embeddings)

    @functools.cached_property
    def _agree(self) -> Tensor:
        return self.labels.unsqueeze(0) == self.labels.unsqueeze(1)

    @functools.cached_property
    def D(self) -> Tensor:
        """Distances [N, N - 1] of each sample to every other."""
        return _off_diagonal(self._all_pairs)

    @functools.cached_property
    def Y(self) -> Tensor:
        """1 [N, N - 1] where the classes agree, else 0."""
        return _off_diagonal(self._agree).to(self.floats.dtype)

    @functools.cached_property
    def _triplets(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices [T] of anchors, positives and negatives: all ordered agreeing pairs, one random negative each."""
        return triplets(self.labels, self.step)

    @functools.cached_property
    def Dp(self) -> Tensor:
        """Distances [T] from anchors to positives."""
        anchor, positive, _ = self._triplets
        return self._all_pairs[..., anchor, positive]

    @functools.cached_property
    def Dn(self) -> Tensor:
        """Distances [T] from anchors to negatives."""
        anchor, _, negative = self._triplets
        return self._all_pairs[..., anchor, negative]

    def cls(self, values: Tensor | float) -> Tensor:
        """[N, K] to the sum over classes of each sample, and their (weighted) mean."""
        values = self._spread(values, self.num_classes)
        if self.weight is None:
            return self._mean(values.sum(1))
        weight = self.weight.to(values.dtype)
        if self.soft is not None:
            return self._mean((values * weight).sum(1))
        per_sample, weights = values.sum(1), weight[self.labels]
        if self.reduction != "mean":
            return per_sample * weights
        return (per_sample * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).tiny)

    def partner(self, values: Tensor | float) -> Tensor:
        """[N, N - 1] to the sum over partners of each sample, and their mean."""
        return self._mean(self._spread(values, len(self.labels) - 1).sum(1))

    @functools.cached_property
    def pair_weights(self) -> Tensor:
        """What each pair [N, N - 1] counts in `pair`."""
        agree = self.Y
        agreeing = agree.sum()
        differing = agree.numel() - agreeing
        return agree * (0.5 / agreeing.clamp_min(1)) + (1 - agree) * (0.5 / differing.clamp_min(1))

    def pair(self, values: Tensor | float) -> Tensor:
        """Half the mean over agreeing pairs plus half the mean over the others; a kind that is absent contributes 0."""
        return (self._spread(values, len(self.labels) - 1) * self.pair_weights).sum()

    def trip(self, values: Tensor | float) -> Tensor:
        """[T] to the mean; no triplet, no loss."""
        if not isinstance(values, Tensor):
            return self.floats.new_tensor(values if len(self._triplets[0]) else 0.0)
        return values.sum() / max(len(values), 1)

    def share(self, reduction: str) -> Tensor:
        """What [] a sample counts in the mean of `cls` or `partner`, a triplet in that of `trip`."""
        count = len(self._triplets[0]) if reduction == "trip" else len(self.labels)
        return self.floats.new_full((), 1 / max(count, 1))

    def _spread(self, values: Tensor | float, width: int) -> Tensor:
        """A constant under a reduction stands for itself in every place."""
        if isinstance(values, Tensor):
            return values
        return self.floats.new_full((len(self.labels), width), values)

    def _mean(self, per_sample: Tensor) -> Tensor:
        return per_sample if self.reduction != "mean" else per_sample.sum() / max(len(per_sample), 1)


def triplets(labels: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Indices [T] of anchors, positives and negatives: all ordered agreeing pairs of labels [N], one negative each."""
    agree = labels.unsqueeze(0) == labels.unsqueeze(1)
    size = len(agree)
    others = size - agree.sum(1)
    diagonal = torch.eye(size, dtype=torch.bool, device=agree.device)
    anchor, positive = (agree & ~diagonal & (others > 0).unsqueeze(1)).nonzero(as_tuple=True)
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(len(anchor), generator=generator).to(agree.device)
    negatives_first = agree.to(torch.uint8).argsort(dim=1, stable=True)
    place = (draw * others[anchor]).long().clamp_max(size - 1)
    return anchor, positive, negatives_first[anchor, place]


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean distances [..., N, M] of the rows of a [..., N, E] and b [..., M, E], at least sqrt(1e-7).

    There the gradient is 0.

    By the Gram form, five times as fast as [N, M, E] differences. It cancels far from the origin (a true 1e-4 at norm
    1000 becomes 0 in float32), so both are moved there first.
    """
    origin = a.detach().mean(-2, keepdim=True)
    a, b = (a - origin, a - origin) if a is b else (a - origin, b - origin)
    squared = a.square().sum(-1, keepdim=True) + b.square().sum(-1).unsqueeze(-2) - 2 * a @ b.mT
    return squared.clamp_min(FLOOR).sqrt()


def pull_softmax(by_p: Tensor, by_log_p: Tensor, softmax: Tensor, log_p: Tensor, dim: int) -> Tensor:
    """The derivatives by logits from those by `p`, clamped from `softmax`, and by `log_p`; classes lie along `dim`."""
    clamped = (softmax <= FLOOR) | (softmax >= 1)  # where torch's clamp lets no gradient through
    by_softmax = by_p.masked_fill(clamped, 0.0)
    by_logits = torch._softmax_backward_data(by_softmax, softmax, dim, softmax.dtype)
    return by_logits + torch._log_softmax_backward_data(by_log_p, log_p, dim, log_p.dtype)


def _off_diagonal(square: Tensor) -> Tensor:
    """[..., N, N] to [..., N, N - 1] without the diagonal, in order."""
    *leading, size, _ = square.shape
    if size < 2:
        return square[..., :0]
    shifted = square.flatten(-2)[..., 1:].view(*leading, size - 1, size + 1)
    return shifted[..., :-1].reshape(*leading, size, size - 1)
