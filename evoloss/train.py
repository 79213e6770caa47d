"""`train(model, loss, data, budget, seed)`: one training and its accuracies. Knows nothing of formulas or evolution."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from evoloss.calibration import calibration_error
from evoloss.proxies import Proxy
from evoloss.records import Budget, Role, Status, TrainResult

CENTERS_RATE = 0.5  # learning rate of learned centers (SGD without momentum; Wen et al. 2016)
# Images that are scored together, and more of small ones: 500 of 16x16. With 500 of 32x32 each batch of the Inception
# claims its 100 MB of activations from the system anew, which takes a quarter of the scoring; 125 of 16x16 take a fifth
# longer.
SCORING_BATCH, SCORING_PIXELS = 125, 128_000
CHECK_EVERY = 10  # steps between looks at the clock and at the loss

CALIBRATED: tuple[Role, ...] = ("test",)  # roles whose calibration error is wanted: of the others it decides nothing

Decoder = Literal["argmax", "centers", "means"]
Tick = Callable[[int, int], None]  # told after each step how many are done, and of how many


@dataclass(frozen=True)
class Samples:
    """Normalized images [N, C, H, W] and labels [N] of one role, on the device."""

    images: Tensor
    labels: Tensor

    def batch(self, places: Tensor, budget: Budget, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images, augmented as the budget asks, and labels of the samples at these places [B]."""
        return augmented(self.images[places], budget, generator), self.labels[places]

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Images and labels of all samples, as many at a time as are scored together."""
        size = max(SCORING_BATCH, SCORING_PIXELS // self.images.shape[2:].numel())
        return zip(self.images.split(size), self.labels.split(size), strict=True)


def train(
    model: Proxy,
    loss: nn.Module,
    samples: Samples,
    scored: dict[Role, Samples],
    budget: Budget,
    seed: int,
    decoder: Decoder = "argmax",
    tick: Tick = lambda step, steps: None,
) -> TrainResult:
    """Train `model` in place on `samples` with `loss(logits, target, embeddings)` and score it on the `scored` roles.

    The learning rate falls linearly to 0. Batches, flips and shifts follow from `seed`. A loss that is not finite ends
    the training as diverged, `budget.time_limit` seconds as a timeout.
    """
    deadline = time.monotonic() + budget.time_limit
    generator = torch.Generator().manual_seed(seed)
    steps = budget.epochs * -(-budget.samples // budget.batch_size)
    weights = flattened(model)
    optimizers = [OPTIMIZERS[budget.optimizer]([weights], budget.learning_rate)]
    if centers := list(loss.parameters()):
        optimizers.append(torch.optim.SGD(centers, lr=CENTERS_RATE))
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    model.train()
    for step, batch in zip(range(steps), batches(len(samples.labels), budget.batch_size, generator), strict=False):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
            optimizer.zero_grad(set_to_none=False)  # the gradients of the model are views
        images, labels = samples.batch(batch, budget, generator)
        embeddings, logits = model(images)
        value = loss(logits, labels, embeddings)
        if step % CHECK_EVERY == 0 or step == steps - 1:
            if not torch.isfinite(value):
                return TrainResult(Status.DIVERGED, steps=step, detail=f"loss {value.item():g} at step {step}")
            if time.monotonic() > deadline:
                return TrainResult(Status.TIMEOUT, steps=step, detail=f"over {budget.time_limit:g} s at step {step}")
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
        tick(step + 1, steps)
    if not weights.isfinite().all():
        return TrainResult(Status.DIVERGED, steps=steps, detail="weights are not finite after the last step")
    references = _references(model, loss, samples, decoder)
    answers = {role: _answers(model, data, references) for role, data in scored.items()}
    accuracy = {role: int(right.sum()) / len(right) for role, (right, _) in answers.items()}
    calibration = {
        role: calibration_error(confidence, right)
        for role, (right, confidence) in answers.items()
        if role in CALIBRATED and references is None
    }
    return TrainResult(Status.OK, accuracy, steps, calibration=calibration)


def flattened(model: nn.Module) -> nn.Parameter:
    """All weights of a model as one parameter: they become views of it, and their gradients views of its gradient.

    An optimizer that is given one tensor instead of the Inception's 37 takes two fifths of the time.
    """
    parameters = list(model.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    whole = nn.Parameter(parameters[0].new_empty(sum(sizes)))
    whole.grad = torch.zeros_like(whole)
    for parameter, place, gradient in zip(parameters, whole.data.split(sizes), whole.grad.split(sizes), strict=True):
        layout = parameter.shape, parameter.stride()  # channels last stays so
        parameter.data = place.as_strided(*layout).copy_(parameter.data)
        parameter.grad = gradient.as_strided(*layout)
    return whole


def batches(size: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of batches, one permutation after the other, for ever. A rest of one sample is skipped (batch norm)."""
    while True:
        for batch in torch.randperm(size, generator=generator).split(batch_size):
            if len(batch) > 1 or min(size, batch_size) == 1:
                yield batch


def augmented(images: Tensor, budget: Budget, generator: torch.Generator) -> Tensor:
    """Images [B, C, H, W], flipped and shifted as the budget asks."""
    if budget.flips:
        flipped = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
        images = torch.where(flipped.to(images.device), images.flip(3), images)
    if budget.shifts:
        images = _shifted(images, images.shape[-1] // 8, generator)
    return images


def _shifted(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `most` pixels in both directions, its edge repeated."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (most,) * 4, mode="replicate")
    offsets = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator).to(images.device)
    rows = (offsets[0] + torch.arange(height, device=images.device))[:, :, None]
    columns = (offsets[1] + torch.arange(width, device=images.device))[:, None, :]
    picked = padded[torch.arange(count, device=images.device)[:, None, None], :, rows, columns]
    return picked.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _references(model: Proxy, loss: nn.Module, samples: Samples, decoder: Decoder) -> Tensor | None:
    """The points [K, E] whose nearest one is the predicted class, or None where the logits decide."""
    model.eval()
    if decoder == "argmax":
        return None
    if decoder == "centers":
        return next(loss.parameters())
    embeddings = torch.cat([model(images)[0] for images, _ in samples.parts()])
    return class_means(embeddings, samples.labels, model.head.out_features)


def class_means(embeddings: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Means [K, E] of embeddings [N, E] by class; a class without samples lies where nothing is near."""
    sums = torch.zeros(num_classes, embeddings.shape[1], device=embeddings.device)
    sums.index_add_(0, labels, embeddings)
    counts = torch.bincount(labels, minlength=num_classes).unsqueeze(1)
    return torch.where(counts > 0, sums / counts.clamp_min(1), torch.inf)


@torch.no_grad()
def _answers(model: Proxy, data: Samples, references: Tensor | None) -> tuple[Tensor, Tensor]:
    """For each sample whether its guess is right, and the largest softmax probability, [N] both."""
    model.eval()
    right, confidence = [], []
    for images, labels in data.parts():
        embeddings, logits = model(images)
        guess = logits.argmax(1) if references is None else nearest(embeddings, references)
        right.append(guess == labels)
        confidence.append(logits.softmax(1).amax(1))
    return torch.cat(right), torch.cat(confidence)


def nearest(points: Tensor, references: Tensor) -> Tensor:
    """The index of the nearest of references [K, E] to each of points [N, E]; never one that is not finite."""
    distances = torch.cdist(points, references, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.nan_to_num(torch.inf).argmin(1)


def _adam(parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=rate, fused=True)


def _sgd(parameters: Iterable[Tensor], rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, fused=True)


OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], torch.optim.Optimizer]] = {"adam": _adam, "sgd": _sgd}
