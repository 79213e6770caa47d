"""One contender of a recipe trained from one seed: its batches, its optimizers, what was seen after every epoch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from evoloss.augmentation import augmented
from evoloss.data import Dataset
from evoloss.lower import Loss, compile_node
from evoloss.metrics import nearest, pair_accuracy
from evoloss.mining import MinedPairs, MinedTriplets, mine_pairs, pair_distances
from evoloss.proxies import Proxy, build
from evoloss.recipe import Augmentation, Contender, Optimizer, Recipe, Schedule
from evoloss.records import Role, derive_seed

SCORING_BATCH = 500  # images
SHOWN = 2000  # test images that pictures show, the first ones
TICK_EVERY = 20  # steps

Tick = Callable[[float], None]  # told how many epochs are done, a fraction too
Step = Callable[[Tensor], Tensor]  # from indices of a batch to its loss, detached, leaving the gradients behind


@dataclass(frozen=True, eq=False)
class Setting:
    """All that a training depends on."""

    recipe: Recipe
    contender: Contender
    embedding: int
    dataset: Dataset
    network: str
    seed: int

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers for a purpose: the same for every contender."""
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose))

    def samples(self, role: Role) -> tuple[Tensor, Tensor]:
        """Bytes [N, C, H, W] and labels [N] of a role; of the select role no more than of the train role."""
        split = self.dataset.splits[role]
        count = len(self.dataset.splits["train"].labels) if role == "select" else None
        return torch.from_numpy(split.images[:count]), torch.from_numpy(split.labels[:count])

    def pixels(self, images: Tensor) -> Tensor:
        """Bytes as the floats that the recipe trains on."""
        mean, deviation = self.recipe.pixels
        return (images.float() / 255 - mean) / deviation


@dataclass(frozen=True)
class Epoch:
    """After an epoch: the mean loss of its batches, its learning rate, and the accuracy on the select role.

    Where a recipe mines pairs, the accuracy is that of pairs at the threshold 0.5.
    """

    epoch: int
    loss: float
    rate: float
    select: float


@dataclass(frozen=True, eq=False)
class Snapshot:
    """After an epoch: embeddings [N, E] of the test images that are shown, learned centers [K, E], select accuracy."""

    epoch: int
    embeddings: np.ndarray
    centers: np.ndarray | None
    select: float


@dataclass(eq=False)
class Fit:
    """A trained contender; `diverged` says where its loss ceased to be finite, if it did.

    Snapshots are of the untrained network and the last epoch; of every epoch where the embedding can be drawn.
    """

    setting: Setting
    model: Proxy
    loss: Loss
    history: list[Epoch] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    diverged: str = ""

    @torch.no_grad()
    def embed(self, images: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings [N, E] and logits [N, K] of images in bytes, by the network in evaluation."""
        self.model.eval()
        parts = [self.model(self.setting.pixels(part)) for part in images.split(SCORING_BATCH)]
        embeddings, logits = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
        return embeddings, logits

    @property
    def centers(self) -> np.ndarray | None:
        """The learned centers [K, E]."""
        return None if self.loss.centers is None else self.loss.centers.detach().numpy().copy()

    def accuracy(self, embeddings: np.ndarray, logits: np.ndarray, labels: Tensor) -> float:
        """The share of images with these embeddings and logits that the contender's decision classifies correctly."""
        by_center = self.setting.contender.decision == "nearest center"
        guess = nearest(embeddings, self.centers) if by_center else logits.argmax(1)
        return float((guess == labels.numpy()).mean())

    def pairs(self, role: Role) -> tuple[np.ndarray, np.ndarray]:
        """Distances [P] of a role's mined pairs, and whether their classes agree [P]."""
        images, labels = self.setting.samples(role)
        pairs, same = mine_pairs(labels, self.setting.generator(f"pairs of {role}"))
        embeddings = torch.from_numpy(self.embed(images)[0])
        return pair_distances(embeddings[pairs]).numpy(), same.numpy()


def fit(setting: Setting, tick: Tick = lambda done: None) -> Fit:
    """Train as the recipe says. The same setting gives the same result; torch's global generator is left alone."""
    dataset, width = setting.dataset, setting.embedding
    weights = derive_seed(setting.seed, "weights")
    model = build(setting.network, dataset.shape, dataset.num_classes, weights, width)
    centers = setting.generator("centers")
    loss = Loss(setting.contender.expression, dataset.num_classes, width, generator=centers)
    done = Fit(setting, model, loss)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(setting.seed, "dropout"))
        _train(done, tick)
    return done


def _train(done: Fit, tick: Tick) -> None:
    recipe = done.setting.recipe
    size, step = _course(done)
    optimizers = _optimizers(done)
    reschedule = _SCHEDULES[recipe.schedule.name](optimizers[0], recipe.schedule) if recipe.schedule else lambda _: None
    generator = done.setting.generator("batches")
    _look(done, 0)
    for epoch in range(1, recipe.epochs + 1):
        done.model.train()
        batches = torch.randperm(size, generator=generator).split(recipe.batch_size)
        if len(batches) > 1 and (len(batches[-1]) == 1 or (recipe.drop_last and len(batches[-1]) < recipe.batch_size)):
            batches = batches[:-1]  # of one sample, batch norm has no deviation
        total = 0.0
        for number, batch in enumerate(batches):
            for optimizer in optimizers:
                optimizer.zero_grad()
            total += step(batch).item()
            for optimizer in optimizers:
                optimizer.step()
            if number % TICK_EVERY == 0:
                tick(epoch - 1 + number / len(batches))
        if not math.isfinite(total):
            done.diverged = f"loss {total:g} in epoch {epoch}"
            return
        rate = optimizers[0].param_groups[0]["lr"]
        accuracy = _look(done, epoch)
        done.history.append(Epoch(epoch, total / len(batches), rate, accuracy))
        reschedule(accuracy)
        tick(epoch)


def _look(done: Fit, epoch: int) -> float:
    """The select accuracy, and a snapshot where one is due."""
    setting = done.setting
    if setting.recipe.pairs:
        accuracy = pair_accuracy(*done.pairs("select"))
    else:
        images, labels = setting.samples("select")
        accuracy = done.accuracy(*done.embed(images), labels)
    if setting.embedding == 2 or epoch in (0, setting.recipe.epochs):
        embeddings, _ = done.embed(setting.samples("test")[0][:SHOWN])
        done.snapshots.append(Snapshot(epoch, embeddings, done.centers, accuracy))
    return accuracy


# What a contender is trained on: how many items there are to draw batches of, and the step on a batch of them.


def _course(done: Fit) -> tuple[int, Step]:
    if not done.setting.recipe.pairs:
        return _images(done)
    return _triplets(done) if "triplet" in done.loss.expression.layouts else _pairs(done)


def _images(done: Fit) -> tuple[int, Step]:
    setting, generator = done.setting, done.setting.generator("augmentation")
    images, labels = setting.samples("train")
    how = setting.recipe.augmentation.get(setting.dataset.name, Augmentation())
    by_wen = setting.contender.centers is not None and setting.contender.centers.rule == "wen"

    def step(batch: Tensor) -> Tensor:
        embeddings, logits = done.model(augmented(setting.pixels(images[batch]), how, generator))
        value = done.loss(logits, labels[batch], embeddings)
        value.backward()
        if by_wen:
            centers = done.loss.centers
            centers.grad = wen_gradient(centers.detach(), embeddings.detach(), labels[batch])
        return value.detach()

    return len(labels), step


def _pairs(done: Fit) -> tuple[int, Step]:
    setting = done.setting
    images, labels = setting.samples("train")
    pairs, same = mine_pairs(labels, setting.generator("pairs of train"))
    program = compile_node(setting.contender.expression.node, setting.dataset.num_classes)

    def step(batch: Tensor) -> Tensor:
        embeddings, _ = done.model(setting.pixels(images[pairs[batch].flatten()]))
        value = program(MinedPairs.of(embeddings.unflatten(0, (-1, 2)), same[batch]))
        value.backward()
        return value.detach()

    return len(pairs), step


def _triplets(done: Fit) -> tuple[int, Step]:
    setting = done.setting
    images, labels = setting.samples("train")
    program = compile_node(setting.contender.expression.node, setting.dataset.num_classes)

    def step(batch: Tensor) -> Tensor:
        embeddings, _ = done.model(setting.pixels(images[batch]))
        value = program(MinedTriplets.of(embeddings, labels[batch]))
        value.backward()
        return value.detach()

    return len(labels), step


def wen_gradient(centers: Tensor, embeddings: Tensor, labels: Tensor) -> Tensor:
    """sum of (c_j - x_i) over the n_j samples of class j in the batch, divided by 1 + n_j, [K, E].

    What Wen et al. (2016, eq. 4) give to the centers for a gradient; it is not that of their loss. Centers [K, E],
    embeddings [B, E], labels [B].
    """
    counts = torch.bincount(labels, minlength=len(centers)).unsqueeze(1)
    sums = torch.zeros_like(centers).index_add_(0, labels, embeddings)
    return (counts * centers - sums) / (1 + counts)


def _optimizers(done: Fit) -> list[torch.optim.Optimizer]:
    """The network's and, where the centers have one of their own, theirs."""
    setting, options = done.setting, done.setting.recipe.optimizer
    own = setting.contender.weight_decay
    decay = options.weight_decay if own is None else own
    centers, rule = list(done.loss.parameters()), setting.contender.centers
    shared = centers if rule and rule.rule == "network" else []
    optimizers = [_OPTIMIZERS[options.name]([*done.model.parameters(), *shared], options, decay)]
    if rule and not shared:
        optimizers.append(torch.optim.SGD(centers, lr=rule.rate))
    return optimizers


def _plateau(optimizer: torch.optim.Optimizer, row: Schedule) -> Callable[[float], None]:
    kind = "rel" if row.relative else "abs"
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max", row.factor, row.epochs, row.threshold, kind, min_lr=row.least_rate
    ).step


def _steps(optimizer: torch.optim.Optimizer, row: Schedule) -> Callable[[float], None]:
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, row.epochs, row.factor)
    return lambda _: scheduler.step()


_SCHEDULES = {"plateau": _plateau, "step": _steps}

Parameters = list[torch.nn.Parameter]

_OPTIMIZERS: dict[str, Callable[[Parameters, Optimizer, float], torch.optim.Optimizer]] = {
    "adam": lambda parameters, row, decay: torch.optim.Adam(parameters, row.rate, weight_decay=decay),
    "rmsprop": lambda parameters, row, decay: torch.optim.RMSprop(
        parameters, row.rate, alpha=0.9, eps=1e-7, weight_decay=decay, momentum=row.momentum
    ),
    "sgd": lambda parameters, row, decay: torch.optim.SGD(parameters, row.rate, row.momentum, weight_decay=decay),
}
