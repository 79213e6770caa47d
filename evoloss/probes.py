"""Small batches of labeled samples, many at once, as formulas see them: what the screens look at.

Leading dimensions are batches, and no batch's numbers, nor its place among the others, touch another's last bit: each
number comes from a row of its own, and there is no matrix product, whose kernel depends on how many there are. Classes
stand before samples: torch's softmax over a last dimension of ten takes seven times as long as over the one before.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from evoloss.expression import Expression
from evoloss.layouts import FLOOR, pull_softmax, triplets
from evoloss.lower import compile_node
from evoloss.operators import VARIABLES

DIMENSION = 8  # of embeddings
NEAREST = FLOOR**0.5  # distance

Inputs = dict[str, Tensor]  # "logits" [..., K, N], "embeddings" [..., N, 8], "centers" [..., K, 8]


class Labels:
    """N samples, as many of one class as of another, and what a formula sees of their labels alone.

    labels [N], the classes in turn; y [K, N]; Y [1, P] of the unordered pairs of the first M samples, each with its
    weight in `pair`; shares, what a sum of values counts in the mean that a reduction is.
    """

    def __init__(
        self,
        num_classes: int,
        per_class: int,
        *,
        present: int | None = None,
        paired: int | None = None,
        negatives: int = 1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`per_class` samples of each of the first `present` classes; `paired` of them, not all, in pairs and triplets.

        Each ordered agreeing pair has `negatives` third samples, drawn at random.
        """
        self.num_classes, self.per_class, self.present = num_classes, per_class, present or num_classes
        self.size, self.paired = self.present * per_class, self.present * (paired or per_class)
        self.negatives = negatives
        self.labels = torch.arange(self.size) % self.present
        self.y = functional.one_hot(self.labels, num_classes).T.to(dtype).contiguous()
        first, second = torch.triu_indices(self.paired, self.paired, 1)
        self.pairs = first * self.paired + second  # places in [M * M] distances
        self.Y = (self.labels[first] == self.labels[second]).to(dtype).unsqueeze(0)
        agreeing = self.Y.sum()
        self.weights = self.Y * (0.5 / agreeing) + (1 - self.Y) * (0.5 / (self.Y.numel() - agreeing))
        counts = {"cls": self.size, "partner": self.paired / 2, "trip": agreeing * 2 * negatives}
        self.shares = {name: torch.as_tensor(1 / count, dtype=dtype) for name, count in counts.items()}
        self._triplets: dict[int, tuple[Tensor, Tensor]] = {}

    def triplets(self, step: int) -> tuple[Tensor, Tensor]:
        """Places [T] in [M * M] distances: of anchor and positive, of anchor and negative. `step` seeds the draw."""
        if step not in self._triplets:
            seeds = range(step * self.negatives, (step + 1) * self.negatives)
            drawn = [triplets(self.labels[: self.paired], seed) for seed in seeds]
            anchor, positive, negative = map(torch.cat, zip(*drawn, strict=True))
            self._triplets[step] = anchor * self.paired + positive, anchor * self.paired + negative
        return self._triplets[step]


class Chain:
    """The words of inputs, and the way from derivatives by the words back to the inputs.

    words: the variables of these names that have a gradient, and `log_p` beside `p`; [..., K, N], or [..., 1, P] and
    [..., 1, T]. They are made in one order whatever the names, since that is the order in which gradients are added up.
    """

    def __init__(self, names: Collection[str], inputs: Inputs, labels: Labels, step: int = 0) -> None:
        """`step` seeds the triplets."""
        self.words: dict[str, Tensor] = {}
        self._inputs = inputs
        self._places: dict[str, Tensor] = {}  # [..., P] or [..., T] in the distances of all pairs, by word
        if "logits" in inputs:
            self.words["z"] = inputs["logits"]
        if "p" in names:
            self._softmax = inputs["logits"].softmax(-2)
            self.words["p"] = self._softmax.clamp(FLOOR, 1)
            self.words["log_p"] = inputs["logits"].log_softmax(-2)
        if "d" in names:
            self.words["d"] = distances(inputs["centers"], inputs["embeddings"])
        if not {"D", "Dp", "Dn"}.isdisjoint(names):
            self._paired = inputs["embeddings"][..., : labels.paired, :]
            self._pairs = distances(self._paired, self._paired)
            every = self._pairs.flatten(-2)
            positives, negatives = labels.triplets(step)
            for name, places in (("D", labels.pairs), ("Dp", positives), ("Dn", negatives)):
                if name in names:  # the gradient of `gather` is fast, that of an index or of `index_select` slow
                    self._places[name] = places.expand(*every.shape[:-1], -1)
                    self.words[name] = every.gather(-1, self._places[name]).unsqueeze(-2)

    def pull(self, slopes: dict[str, Tensor]) -> Inputs:
        """The derivatives by all inputs from those by all words, without a graph."""
        by = {name: torch.zeros_like(tensor) for name, tensor in self._inputs.items()}
        if "z" in slopes:
            by["logits"] += slopes["z"]
        if "p" in slopes:
            by["logits"] += pull_softmax(slopes["p"], slopes["log_p"], self._softmax, self.words["log_p"], -2)
        if "d" in slopes:
            ends, far = (self._inputs["centers"], self._inputs["embeddings"]), self.words["d"]
            by["centers"] += _pull_distances(slopes["d"], *ends, far)
            by["embeddings"] += _pull_distances(slopes["d"].mT, *reversed(ends), far.mT)
        if self._places:
            slope = torch.zeros_like(self._pairs)
            for name, places in self._places.items():
                slope.flatten(-2).scatter_add_(-1, places, slopes[name].squeeze(-2))
            pulled = _pull_distances(slope + slope.mT, self._paired, self._paired, self._pairs)
            by["embeddings"][..., : pulled.shape[-2], :] += pulled
        return by


def distances(a: Tensor, b: Tensor) -> Tensor:
    """`layouts.distances` of [..., N, E] and [..., M, E], to rounding, without a matrix product."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").clamp_min(NEAREST)


def _pull_distances(slope: Tensor, a: Tensor, b: Tensor, far: Tensor) -> Tensor:
    """The derivatives by `a` [..., N, E] from those by its distances [..., N, M] to `b`, 0 by the least ones."""
    slope = slope.masked_fill(far <= NEAREST, 0)
    return torch.ops.aten._cdist_backward(slope, a.contiguous(), b.contiguous(), 2.0, far.contiguous())


class View:
    """What the program of a formula is applied to in the place of a `layouts.Batch`: words, and how to reduce them.

    The loss is [..., 1, 1], with the leading dimensions of the words.
    """

    def __init__(self, labels: Labels, words: dict[str, Tensor]) -> None:
        self._labels = labels
        self.y, self.Y, self.pair_weights, self.floats = labels.y, labels.Y, labels.weights, labels.y
        vars(self).update(words)

    def cls(self, values: Tensor | float) -> Tensor:
        """[..., K, N] to the mean over samples of the sum over classes."""
        return _total(values, self.y) * self.share("cls")

    def partner(self, values: Tensor | float) -> Tensor:
        """[..., 1, P] to the mean over samples of the sum over partners; each pair counts for both of its samples."""
        return _total(values, self.Y) * self.share("partner")

    def pair(self, values: Tensor | float) -> Tensor:
        """[..., 1, P] to half the mean over agreeing pairs plus half the mean over the others."""
        return (values * self.pair_weights).sum((-2, -1), keepdim=True)

    def trip(self, values: Tensor | float) -> Tensor:
        """[..., 1, T] to the mean."""
        return values.mean((-2, -1), keepdim=True) if isinstance(values, Tensor) else self.y.new_tensor(values)

    def share(self, reduction: str) -> Tensor:
        """What [] a sum of values counts in a reduction that is a mean."""
        return self._labels.shares[reduction]


def _total(values: Tensor | float, like: Tensor) -> Tensor:
    return (values if isinstance(values, Tensor) else torch.full_like(like, values)).sum((-2, -1), keepdim=True)


@dataclass(frozen=True)
class Scales:
    """The standard deviations of probes, and their precision.

    Each sample has a factor of its own, 1/4 to 1, so that hardly a threshold in a formula finds no number near it. If
    `trained`, every second sample of a class is one that a model has been trained on: the probability of the class is
    anything from 0 to 1, and the embedding lies near its center.
    """

    logits: tuple[float, ...]
    embeddings: tuple[float, ...]
    dtype: torch.dtype
    trained: bool = True


@dataclass(frozen=True)
class Probes:
    """Fixed inputs [S, ...] of S scales, the words made of them, and the graph between them, kept for all formulas."""

    labels: Labels
    inputs: Inputs
    words: dict[str, Tensor]

    def gradients(self, expression: Expression) -> tuple[Tensor, Inputs]:
        """A loss [S], and its gradients with respect to the inputs that it depends on."""
        values = compile_node(expression.node, self.labels.num_classes)(View(self.labels, self.words))
        if not values.requires_grad:
            return values, {}
        ones, inputs = torch.ones_like(values), list(self.inputs.values())
        gradients = torch.autograd.grad(values, inputs, ones, retain_graph=True, allow_unused=True)
        pairs = zip(self.inputs, gradients, strict=True)
        return values.flatten(), {name: gradient for name, gradient in pairs if gradient is not None}


@functools.lru_cache(maxsize=8)
def probes(num_classes: int, scales: Scales, seed: int = 1) -> Probes:
    """Normal logits, embeddings and centers: 192 samples of at most four classes, 48 of them in pairs and triplets."""
    present = min(num_classes, 4)
    labels = Labels(num_classes, 192 // present, present=present, paired=48 // present, negatives=4, dtype=scales.dtype)
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(len(scales.logits), *shape, generator=generator, dtype=scales.dtype)

    factors = 4 ** -torch.rand(labels.size, generator=generator, dtype=scales.dtype)
    by_logits, by_embeddings = (
        torch.tensor(numbers, dtype=scales.dtype).view(-1, 1, 1) for numbers in (scales.logits, scales.embeddings)
    )
    logits = normal(num_classes, labels.size) * by_logits * factors
    embeddings = normal(labels.size, DIMENSION) * by_embeddings * factors.unsqueeze(1)
    centers = normal(num_classes, DIMENSION) * by_embeddings
    inputs = {"logits": logits, "embeddings": embeddings, "centers": centers}
    if scales.trained:
        inputs |= _trained(inputs, labels, by_logits.clamp_max(4), generator)
    inputs = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    return Probes(labels, inputs, Chain(VARIABLES, inputs, labels).words)


def _trained(inputs: Inputs, labels: Labels, by_logits: Tensor, generator: torch.Generator) -> Inputs:
    """Logits and embeddings of which every second sample of a class is as after a training."""
    logits, embeddings, centers = (inputs[name] for name in ("logits", "embeddings", "centers"))
    trained = torch.arange(labels.size) // labels.present % 2 > 0
    ranks = torch.rand(len(logits), labels.size // 2, generator=generator).argsort(1)
    shares = torch.zeros_like(logits[:, 0])
    shares[:, trained] = (ranks.to(logits.dtype) + 0.5) / ranks.shape[1]
    others = logits.masked_fill(labels.y > 0, -torch.inf).logsumexp(1, keepdim=True)
    own = others + shares.logit().unsqueeze(1) * by_logits
    logits = torch.where((labels.y > 0) & trained, own, logits)
    near = centers[:, labels.labels] + shares.unsqueeze(2) * embeddings
    return {"logits": logits, "embeddings": torch.where(trained.unsqueeze(1), near, embeddings)}
