"""Many MLPs trained as one: each layer of all members is one batched matrix product.

Members share data, batches and initial weights; they differ in loss and learning rate. What becomes of a member does
not depend on who trains beside it. Derivatives are written out: for networks this small, autograd's bookkeeping took as
long as the products.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evoloss.calibration import calibration_error
from evoloss.errors import EvolossError
from evoloss.gradient import compile_gradient
from evoloss.layouts import FLOOR, Batch, pull_softmax
from evoloss.lower import Loss
from evoloss.proxies import Proxy
from evoloss.records import Budget, Role, Status, TrainResult
from evoloss.train import (
    CALIBRATED,
    CENTERS_RATE,
    CHECK_EVERY,
    OPTIMIZERS,
    Decoder,
    Samples,
    augmented,
    batches,
    class_means,
    nearest,
)

DISTANCES = ("d", "D", "Dp", "Dn")  # variables that depend on embeddings
TARGETS = {"y": "y", "d": "y", "Y": "Y", "Dp": "_triplets", "Dn": "_triplets"}  # what a variable needs that all share


@dataclass(frozen=True)
class Member:
    """One training of a stack."""

    loss: Loss
    learning_rate: float
    decoder: Decoder = "argmax"


def train_stack(
    model: Proxy,
    members: Sequence[Member],
    samples: Samples,
    scored: dict[Role, Samples],
    budget: Budget,
    seed: int,
) -> list[TrainResult]:
    """`train.train` for each member, from the weights of `model`, an MLP, which stays as it is.

    The weights are those of separate trainings to 1e-4 after 100 steps, the results in the order of the members. The
    time limit is for all of them together. `budget.learning_rate` is not used.
    """
    order = sorted(range(len(members)), key=lambda place: members[place].learning_rate)  # an optimizer a rate
    ordered = [members[place] for place in order]
    with torch.no_grad():
        network = Layers(model, len(members))
        failed = fit(network, ordered, samples, budget, seed)
        results = _results(network, ordered, failed, samples, scored, _steps(budget))
    return [result for _, result in sorted(zip(order, results, strict=True), key=lambda pair: pair[0])]


def fit(
    network: "Layers", members: Sequence[Member], samples: Samples, budget: Budget, seed: int
) -> dict[int, TrainResult]:
    """Train the network in place; what became of the members that failed, by their places."""
    deadline = time.monotonic() + budget.time_limit * len(members)
    generator = torch.Generator().manual_seed(seed)
    losses = _Losses(members)
    optimizers = _optimizers(network, members, budget.optimizer)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    steps = _steps(budget)
    draws = batches(len(samples.labels), budget.batch_size, generator)
    for step, batch in zip(range(steps), draws, strict=False):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        x = augmented(samples.images[batch], budget, generator).flatten(1)
        outputs = network.forward(x)
        by_logits, by_embeddings = losses.pull(outputs[-1], outputs[-2], samples.labels[batch], step)
        if step % CHECK_EVERY == 0 or step == steps - 1:
            losses.check(step)
            if time.monotonic() > deadline:
                limit = f"over {budget.time_limit:g} s a training at step {step}"
                return {place: TrainResult(Status.TIMEOUT, steps=step, detail=limit) for place in range(len(members))}
        network.backward(x, outputs, by_embeddings, by_logits)
        for optimizer in optimizers:
            optimizer.step()
    return losses.failed


def _steps(budget: Budget) -> int:
    return budget.epochs * -(-budget.samples // budget.batch_size)


class Layers:
    """The linear layers of S equal MLPs: weights [S, out, in] and biases [S, 1, out].

    A ReLU follows the first `active` of them; the last two are the embedding and the head.
    """

    def __init__(self, model: Proxy, count: int) -> None:
        hidden = [layer for layer in model.features if isinstance(layer, nn.Linear)]
        layers = [*hidden, model.embedding, model.head]
        self.active = len(hidden)
        self.weights = [layer.weight.detach().repeat(count, 1, 1) for layer in layers]
        self.biases = [layer.bias.detach().repeat(count, 1, 1) for layer in layers]
        self.gradients = [torch.zeros_like(tensor) for tensor in self.parameters]

    @property
    def parameters(self) -> list[Tensor]:
        """The weights, then the biases; `gradients` has the same order."""
        return [*self.weights, *self.biases]

    def forward(self, x: Tensor) -> list[Tensor]:
        """The outputs [S, B, out] of all layers on inputs [B, in] that the members share."""
        outputs: list[Tensor] = []
        h = x.expand(len(self.weights[0]), -1, -1)
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h, weight.transpose(1, 2))
            outputs.append(h.relu_() if place < self.active else h)
        return outputs

    def backward(self, x: Tensor, outputs: list[Tensor], by_embeddings: Tensor, by_logits: Tensor) -> None:
        """Set `gradients` from the derivatives of the losses by embeddings [S, B, E] and logits [S, B, K]."""
        count = len(self.weights)
        inputs = [x.expand(len(by_logits), -1, -1), *outputs[:-1]]
        above = by_logits
        for place in reversed(range(count)):
            torch.bmm(above.transpose(1, 2), inputs[place], out=self.gradients[place])
            torch.sum(above, 1, keepdim=True, out=self.gradients[count + place])
            if place == count - 1:
                above = torch.baddbmm(by_embeddings, above, self.weights[place])
            elif place:
                above = torch.bmm(above, self.weights[place])
                above = torch.ops.aten.threshold_backward(above, inputs[place], 0)


def _optimizers(network: Layers, members: Sequence[Member], name: str) -> list[torch.optim.Optimizer]:
    """One for each run of members at the same rate, on views of the stacked tensors; one for all learned centers."""
    optimizers: list[torch.optim.Optimizer] = []
    for start, stop in _runs([member.learning_rate for member in members]):
        views: list[Tensor] = []
        for tensor, gradient in zip(network.parameters, network.gradients, strict=True):
            view = nn.Parameter(tensor[start:stop])
            view.grad = gradient[start:stop]
            views.append(view)
        optimizers.append(OPTIMIZERS[name](views, members[start].learning_rate))
    if centers := [parameter for member in members for parameter in member.loss.parameters()]:
        optimizers.append(torch.optim.SGD(centers, lr=CENTERS_RATE))
    return optimizers


def _runs(values: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Where equal neighbors start and stop."""
    start = 0
    for place in range(1, len(values) + 1):
        if place == len(values) or values[place] != values[start]:
            yield start, place
            start = place


class _Losses:
    """The losses of all members, and what became of those that failed."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.losses = [member.loss for member in members]
        self.programs = [compile_gradient(loss.expression.node, loss.num_classes) for loss in self.losses]
        self.groups: dict[tuple[str, ...], list[int]] = {}  # members by the distances that they see
        for place, loss in enumerate(self.losses):
            if names := tuple(name for name in DISTANCES if name in loss.expression.variables):
                self.groups.setdefault(names, []).append(place)
        self.values: dict[int, Tensor] = {}
        self.failed: dict[int, TrainResult] = {}

    def pull(self, logits: Tensor, embeddings: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The derivatives of each member's loss by its logits [S, B, K] and its embeddings [S, B, E].

        Those by learned centers are left in their `grad`.
        """
        chain = _Chain(logits, embeddings, labels, step)
        for names, places in self.groups.items():
            chain.measure(names, places, self.losses)
        for place, loss in enumerate(self.losses):
            if place not in self.failed:
                loss.zero_grad()
                try:
                    value, gradients = self.programs[place](chain.batch(place, loss.expression.variables))
                    self.values[place] = loss.scale * value
                    chain.add(place, gradients, loss.scale)
                except (EvolossError, ArithmeticError, RuntimeError, ValueError) as error:
                    detail = f"{type(error).__name__}: {error}".splitlines()[0]
                    self.failed[place] = TrainResult(Status.INVALID, steps=step, detail=detail)
        return chain.pull()

    def check(self, step: int) -> None:
        """Note those whose loss is not finite any more."""
        for place, value in self.values.items():
            if place not in self.failed and not torch.isfinite(value):
                detail = f"loss {value.item():g} at step {step}"
                self.failed[place] = TrainResult(Status.DIVERGED, steps=step, detail=detail)


class _Chain:
    """The variables of all members on one batch, and the way from them back to logits and embeddings."""

    def __init__(self, logits: Tensor, embeddings: Tensor, labels: Tensor, step: int) -> None:
        self.logits, self.embeddings, self.labels, self.step = logits, embeddings, labels, step
        self.log_p = logits.log_softmax(2)
        self.softmax = logits.softmax(2)
        self.p = self.softmax.clamp(FLOOR, 1)
        self.targets = self._batch(logits[0])
        self.by = {name: torch.zeros_like(logits) for name in ("p", "log_p", "z")}
        self.distances: list[_Distances] = []
        self.own: dict[int, tuple[_Distances, int]] = {}  # by member: its group, and its place there

    def _batch(self, logits: Tensor | None, embeddings: Tensor | None = None, centers: Tensor | None = None) -> Batch:
        return Batch(logits, self.labels, None, embeddings, centers, self.logits.shape[2], step=self.step)

    def measure(self, names: tuple[str, ...], places: list[int], losses: Sequence[Loss]) -> None:
        """The distances of these names for the members at these places, as stacked tensors."""
        with torch.enable_grad():
            leaf = self.embeddings[places].requires_grad_()
            centers = [loss.centers for place in places if (loss := losses[place]).centers is not None]
            batch = self._batch(None, leaf, torch.stack(centers) if centers else None)
            vars(batch).update(self._targets(names))
            group = _Distances(places, leaf, {name: getattr(batch, name) for name in names})
        self.distances.append(group)
        self.own |= {place: (group, number) for number, place in enumerate(places)}

    def _targets(self, names: Iterable[str]) -> dict[str, Any]:
        return {TARGETS[name]: getattr(self.targets, TARGETS[name]) for name in names if name in TARGETS}

    def batch(self, place: int, names: Iterable[str]) -> Batch:
        """The batch of one member: its variables are known, and detached from how they came about."""
        batch = self._batch(self.logits[place])
        words = vars(batch)  # where its cached properties look first
        words |= {"p": self.p[place], "log_p": self.log_p[place], "z": self.logits[place]} | self._targets(names)
        if place in self.own:
            group, number = self.own[place]
            words |= {name: values[number] for name, values in group.values.items()}
        return batch

    def add(self, place: int, gradients: dict[str, Tensor], scale: float) -> None:
        """Take in the derivatives of a member's loss by its variables, times `scale`."""
        for name, gradient in gradients.items():
            if name in self.by:
                torch.mul(gradient, scale, out=self.by[name][place])
            else:
                group, number = self.own[place]
                torch.mul(gradient, scale, out=group.by[name][number])

    def pull(self) -> tuple[Tensor, Tensor]:
        """The derivatives by logits [S, B, K] and embeddings [S, B, E]."""
        by_logits = pull_softmax(self.by["p"], self.by["log_p"], self.softmax, self.log_p, 2) + self.by["z"]
        by_embeddings = torch.zeros_like(self.embeddings)
        for group in self.distances:
            torch.autograd.backward(list(group.sources.values()), list(group.by.values()))
            by_embeddings[group.places] = group.leaf.grad
        return by_logits, by_embeddings


class _Distances:
    """The distances [s, ...] by name of s members, from their embeddings [s, B, E] by autograd."""

    def __init__(self, places: list[int], leaf: Tensor, sources: dict[str, Tensor]) -> None:
        self.places, self.leaf, self.sources = places, leaf, sources
        self.values = {name: source.detach() for name, source in sources.items()}
        self.by = {name: torch.zeros_like(value) for name, value in self.values.items()}


def _results(
    network: Layers,
    members: Sequence[Member],
    failed: dict[int, TrainResult],
    samples: Samples,
    scored: dict[Role, Samples],
    steps: int,
) -> list[TrainResult]:
    finite = torch.stack([tensor.isfinite().flatten(1).all(1) for tensor in network.parameters]).all(0)
    references = _references(network, members, samples)
    answers = {role: _answers(network, references, data) for role, data in scored.items()}
    results: list[TrainResult] = []
    for place in range(len(members)):
        lost = TrainResult(Status.DIVERGED, steps=steps, detail="weights are not finite after the last step")
        accuracy = {role: int(right[place].sum()) / right.shape[1] for role, (right, _) in answers.items()}
        calibration = {
            role: calibration_error(confidence[place], right[place])
            for role, (right, confidence) in answers.items()
            if role in CALIBRATED and references[place] is None
        }
        learned = TrainResult(Status.OK, accuracy, steps, calibration=calibration) if finite[place] else lost
        results.append(failed.get(place, learned))
    return results


def _references(network: Layers, members: Sequence[Member], samples: Samples) -> list[Tensor | None]:
    """For each member the points [K, E] whose nearest one is the predicted class; None where the logits decide."""
    means: Tensor | None = None
    if any(member.decoder == "means" for member in members):
        parts = [network.forward(images.flatten(1))[-2] for images, _ in samples.parts()]
        means = torch.cat(parts, 1)
    references: list[Tensor | None] = []
    for place, member in enumerate(members):
        if member.decoder == "argmax":
            references.append(None)
        elif member.decoder == "centers":
            references.append(member.loss.centers)
        else:
            assert means is not None
            references.append(class_means(means[place], samples.labels, member.loss.num_classes))
    return references


def _answers(network: Layers, references: Sequence[Tensor | None], data: Samples) -> tuple[Tensor, Tensor]:
    """For each member and sample whether the guess is right, and the largest softmax probability, [S, N] both."""
    right, confidence = [], []
    for images, labels in data.parts():
        *_, embeddings, logits = network.forward(images.flatten(1))
        guesses = logits.argmax(2)
        for place, points in enumerate(references):
            if points is not None:
                guesses[place] = nearest(embeddings[place], points)
        right.append(guesses == labels)
        confidence.append(logits.softmax(2).amax(2))
    return torch.cat(right, 1), torch.cat(confidence, 1)
