"""Pairs and triplets as Motta (2020) mines them, and the batches in which a formula sees them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from evoloss.layouts import FLOOR, distances


def mine_pairs(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Indices [P, 2] of pairs and whether their classes agree [P]; as many agree as not, in random order.

    With n one less than the smallest class, each class d gives n pairs of neighbours (d_i, d_i+1) and n pairs
    (d_i, e_i) with another class e drawn uniformly (Keras's mnist_siamese example). Bigger classes are cut.
    """
    members = [(labels == label).nonzero().squeeze(1) for label in labels.unique()]
    count = min(map(len, members)) - 1
    table = torch.stack([indices[: count + 1] for indices in members])
    classes = torch.arange(len(table)).unsqueeze(1)
    others = (classes + torch.randint(1, len(table), (len(table), count), generator=generator)) % len(table)
    positives = torch.stack([table[:, :-1], table[:, 1:]], 2)
    negatives = torch.stack([table[:, :-1], table[others, torch.arange(count)]], 2)
    pairs = torch.cat([positives.flatten(0, 1), negatives.flatten(0, 1)])
    same = torch.arange(len(pairs)) < len(pairs) // 2
    order = torch.randperm(len(pairs), generator=generator)
    return pairs[order], same[order]


def mine_triplets(labels: Tensor) -> Tensor:
    """Indices [T, 3]: every two samples a < p of one class with every sample n of another."""
    agree = labels.unsqueeze(0) == labels.unsqueeze(1)
    anchor, positive = agree.triu(1).nonzero(as_tuple=True)
    place, negative = (~agree[anchor]).nonzero(as_tuple=True)
    return torch.stack([anchor[place], positive[place], negative], 1)


def pair_distances(pairs: Tensor) -> Tensor:
    """Euclidean distances [P] within pairs of embeddings [P, 2, E], at least sqrt(1e-7), where the gradient is 0."""
    return (pairs[:, 0] - pairs[:, 1]).square().sum(1).clamp_min(FLOOR).sqrt()


@dataclass(frozen=True)
class MinedPairs:
    """Pairs as a formula sees them: distances `D` [P], and `Y` [P], 1 where the classes agree, else 0."""

    D: Tensor
    Y: Tensor

    @classmethod
    def of(cls, pairs: Tensor, same: Tensor) -> "MinedPairs":
        """From pairs of embeddings [P, 2, E]."""
        return cls(pair_distances(pairs), same.to(pairs.dtype))

    def pair(self, values: Tensor | float) -> Tensor:
        """The plain mean: mined pairs agree as often as not."""
        return torch.as_tensor(values, dtype=self.D.dtype).expand_as(self.D).mean()


@dataclass(frozen=True)
class MinedTriplets:
    """Triplets as a formula sees them: distances [T] from anchors to positives `Dp` and to negatives `Dn`."""

    Dp: Tensor
    Dn: Tensor

    @classmethod
    def of(cls, embeddings: Tensor, labels: Tensor) -> "MinedTriplets":
        """All triplets of a batch of embeddings [B, E]."""
        every = distances(embeddings, embeddings)
        anchor, positive, negative = mine_triplets(labels).unbind(1)
        return cls(every[anchor, positive], every[anchor, negative])

    def trip(self, values: Tensor | float) -> Tensor:
        """The mean over triplets; 0 where there is none."""
        return torch.as_tensor(values, dtype=self.Dp.dtype).expand_as(self.Dp).sum() / max(len(self.Dp), 1)
