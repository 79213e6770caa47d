"""Discovered losses train torchvision's networks: a bench for `evaluate` on which a contest is held in this process."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from evoloss import data, train
from evoloss.config import Rung
from evoloss.data import FOLDER, ROLES, Dataset
from evoloss.errors import EvolossError
from evoloss.evaluate import SCALE_BATCH, Workbench, evaluate
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.records import Budget, DataSpec, Evaluation, Job, Role, Status, TrainResult, derive_seed
from evoloss.vision import masks, networks
from evoloss.vision.masks import IGNORE
from evoloss.vision.networks import Design, Moments, Network, Task, Traits
from evoloss.vision.segmentation import MaskedSamples, mean_iou

MEASURED = 500  # training images whose pixels give the mean and the standard deviation
UNSETTLED = 0.1  # share of initial statistics from which a user is warned
LEAST = 32  # pixels; most networks halve a side five times
PHOTOGRAPH = 224  # pixels; the side of images in a folder of classes
SCENE = 256  # pixels; the side of images with masks


@dataclass(frozen=True, eq=False)
class Bench(Workbench):
    """A data set in memory, as bytes, and one network on which losses meet; `tick` is told of each step.

    As many as `batch_size` images are computed at a time, in scoring too.
    """

    design: Design
    traits: Traits
    batch_size: int
    tick: Callable[[int, int], None] = lambda step, steps: None

    @property
    def scale_batch(self) -> int:  # type: ignore[override]
        """Training samples on which the initial gradients are matched."""
        return min(SCALE_BATCH, self.batch_size)

    @functools.cached_property
    def moments(self) -> Moments:
        """Mean and standard deviation of training pixels, [1, C, 1, 1] each."""
        pixels = torch.from_numpy(self.dataset.splits["train"].images[:MEASURED].copy()).float() / 255
        return pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True).clamp_min(1e-3)

    def samples(self, role: Role, count: int | None = None, seed: int = 0, pooled: int = 1) -> train.Samples:
        """A role's samples in bytes: all, or `count` of them drawn with `seed`."""
        if pooled > 1:
            raise EvolossError(f"torchvision's networks see whole images: pooled = {pooled} is for evoloss's own")
        split = self.dataset.splits[role]
        images, labels = torch.from_numpy(split.images), torch.from_numpy(split.labels)
        if count is not None and count < len(labels):
            drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count]
            images, labels = images[drawn], labels[drawn]
        kind = MaskedSamples if self.design.task == "segmentation" else train.Samples
        return kind(images, labels.to(self.device))

    def proxy(self, name: str, seed: int, pooled: int = 1) -> Network:  # type: ignore[override]
        """A new network of the bench's design."""
        return networks.build(self.design, seed, self.moments, self.batch_size).to(self.device)

    def loss(self, expression: Expression, seed: int, scale: float = 1.0) -> Loss:
        """A formula for the data's classes and the network's embeddings; pixels of 255 count for nothing."""
        more = {"ignore_index": IGNORE} if self.design.task == "segmentation" else {}
        generator = torch.Generator().manual_seed(seed)
        classes = self.dataset.num_classes
        return Loss(expression, classes, self.traits.width, scale=scale, generator=generator, **more).to(self.device)

    def train(
        self,
        model: nn.Module,
        loss: nn.Module,
        samples: train.Samples,
        scored: dict[Role, train.Samples],
        budget: Budget,
        seed: int,
        decoder: train.Decoder,
    ) -> TrainResult:
        """One training; its scores are accuracies, or mean IoUs of masks."""
        if self.design.task == "classification":
            return train.train(model, loss, samples, scored, budget, seed, decoder, self.tick)
        result = train.train(model, loss, samples, {}, budget, seed, decoder, self.tick)
        if result.status is not Status.OK:
            return result
        classes = self.dataset.num_classes
        return replace(result, accuracy={r: mean_iou(model, s, classes, self.batch_size) for r, s in scored.items()})

    def check(self, expression: Expression) -> None:
        """Raise `EvolossError` for a loss of embeddings that the network does not give."""
        if expression.sees_embeddings and self.traits.width is None:
            seen = ", ".join(sorted({"d", "D", "Y", "Dp", "Dn"} & expression.variables))
            whose = "a pixel has" if self.design.task == "segmentation" else f"`{self.design.name}` gives"
            raise EvolossError(
                f"`{expression}` is a loss of embeddings ({seen}), and {whose} none: use a loss of p, z and y alone"
            )

    def caution(self, rung: Rung) -> str:
        """What to know of trainings that end before the network's batch norms have seen enough; else nothing.

        MobileNetV3 has a momentum of .01: after 80 steps, 45 % of what it scores with are initial values.
        """
        steps = rung.epochs * -(-rung.samples // rung.batch_size)
        if (share := self.traits.unsettled(steps)) < UNSETTLED:
            return ""
        return (
            f"after {steps} steps the batch norms of `{self.design.name}` still hold {share:.0%} of their initial "
            "statistics, with which it is scored: train longer, or take another network"
        )

    def answer(self, job: Job) -> Evaluation:
        """Screen or train, as a worker does; what networks draw by themselves (dropout) follows from the job's seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(job.seed, "dropout"))
            (evaluation,) = evaluate((job,), {None: self})
        return evaluation


def load(spec: DataSpec, task: Task, side: int | None) -> tuple[Dataset, int]:
    """All roles of the data for a task, and the side to which the network is to scale its images, in pixels.

    Images in files are scaled to it as they are read, those of a named data set by the network. The default is 256
    with masks, 224 for a folder of classes, else that of the images or, if that is less, 32. Raises `EvolossError`.
    """
    if task == "segmentation":
        return masks.load(spec, ROLES, side or SCENE), side or SCENE
    own = (side or PHOTOGRAPH) if spec.name.startswith(FOLDER) else None
    dataset = data.load(spec, ROLES, own)
    return dataset, side or max(LEAST, dataset.shape[1])


def sweep(task: Task, dataset: Dataset) -> Rung:
    """How long a network trains and at which rates, unless something else is asked for: on all samples."""
    color = dataset.shape[0] > 1  # what is grey is often writing, which should not be mirrored
    return SWEEPS[task].model_copy(update={"samples": len(dataset.splits["train"].labels), "flips": color})


def prepare(dataset: Dataset, design: Design, device: str, batch_size: int) -> Bench:
    """A bench for a network, which is tried on images of that size. Raises `EvolossError`.

    Torch keeps its own number of threads: one training at a time has all the cores (`OMP_NUM_THREADS` limits them).
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EvolossError("this torch sees no GPU: use --device cpu, or install a torch with CUDA")
    return Bench(dataset, torch.device(device), design, networks.tried(design), batch_size)


_LONG = 1e7  # seconds: somebody watches

SWEEPS: dict[Task, Rung] = {
    "classification": Rung(samples=1, epochs=10, rates=(3e-4, 1e-3, 3e-3), batch_size=64, time_limit=_LONG),
    "segmentation": Rung(samples=1, epochs=30, rates=(3e-4, 1e-3, 3e-3), batch_size=16, time_limit=_LONG),
}
