"""`evaluate(batch, workbenches)`: the one function that a worker runs, for candidates and baselines. Never raises."""

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from evoloss import limits, train
from evoloss.batches import STACKED
from evoloss.data import Dataset
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.proxies import EMBEDDING_DIM, Proxy, build
from evoloss.records import Batch, Budget, DataSpec, Evaluation, Job, Role, Status, TrainResult, derive_seed
from evoloss.roles import ROLE_SEED
from evoloss.screen import Verdict, screen
from evoloss.stack import Member, train_stack

SCALE_BATCH = 128  # training samples on which the initial gradients are matched
CROSS_ENTROPY = Expression("cls(-y*log(p))")


@dataclass(frozen=True)
class Workbench:
    """What a worker keeps between jobs: the data set on its device, normalized when first needed."""

    dataset: Dataset
    device: torch.device
    scale_batch: ClassVar[int] = SCALE_BATCH

    def __hash__(self) -> int:
        return id(self)

    @functools.cached_property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the training pixels, [1, C, 1, 1] each."""
        images = torch.from_numpy(self.dataset.splits["train"].images[:10_000].copy()).float() / 255
        deviation = images.std((0, 2, 3), keepdim=True)
        return images.mean((0, 2, 3), keepdim=True), deviation.clamp_min(1e-3)

    def samples(self, role: Role, count: int | None = None, seed: int = 0, pooled: int = 1) -> train.Samples:
        """A role's normalized samples: all, or `count` of them drawn with `seed`; averaged over squares of pixels."""
        return _samples(self, role, count, seed, pooled)

    def proxy(self, name: str, seed: int, pooled: int = 1) -> Proxy:
        """A new proxy for this data set, its images averaged over squares of so many pixels."""
        channels, height, width = self.dataset.shape
        shape = (channels, height // pooled, width // pooled)
        return build(name, shape, self.dataset.num_classes, seed, EMBEDDING_DIM).to(self.device)

    def loss(self, expression: Expression, seed: int, scale: float = 1.0) -> Loss:
        """A formula for this data set and the embeddings of its proxies, its centers drawn from `seed`."""
        generator = torch.Generator().manual_seed(seed)
        classes = self.dataset.num_classes
        return Loss(expression, classes, EMBEDDING_DIM, scale=scale, generator=generator).to(self.device)

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
        """One training, as `train.train` does it."""
        return train.train(model, loss, samples, scored, budget, seed, decoder)


Workbenches = dict[DataSpec | None, Workbench]  # None: the data of the run


@functools.lru_cache(maxsize=16)  # all candidates of a rung train on the same samples; a generation has some ten kinds
def _samples(workbench: Workbench, role: Role, count: int | None, seed: int, pooled: int) -> train.Samples:
    split = workbench.dataset.splits[role]
    drawn = np.arange(len(split.labels))
    if count is not None and count < len(drawn):
        drawn = torch.randperm(len(drawn), generator=torch.Generator().manual_seed(seed))[:count].numpy()
    images, labels = torch.from_numpy(split.images[drawn]), torch.from_numpy(split.labels[drawn])
    mean, deviation = workbench.moments
    normalized = ((images.float() / 255 - mean) / deviation).to(workbench.device)
    if normalized.shape[1] > 1:  # channels last is 25 to 40 % faster for convolutions, and the same for the MLP
        normalized = normalized.contiguous(memory_format=torch.channels_last)
    if pooled > 1:
        normalized = nn.functional.avg_pool2d(normalized, pooled)
    return train.Samples(normalized, labels.to(workbench.device))


def prepare(datasets: Mapping[DataSpec | None, Dataset], device: str = "cpu") -> Workbenches:
    """Set this process up for evaluations on these data. One torch thread: two made a step up to 13 times slower.

    The device is chosen here: in a Ray worker `cuda` is the GPU that Ray gave it. Raises `EvolossError` without one.
    """
    torch.set_num_threads(1)
    if device == "cpu":  # the driver of a GPU claims far more than it takes
        limits.memory(limits.worker_share())
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise EvolossError(
            f"the device is {device}, and torch {torch.__version__} finds no GPU: --device cpu does without"
        )
    return {spec: Workbench(dataset, torch.device(device)) for spec, dataset in datasets.items()}


def evaluate(batch: Batch, workbenches: Workbenches) -> list[Evaluation]:
    """Screen formulas, or train with them. Whatever goes wrong becomes a status with a detail.

    A batch that fails as a whole, or overruns its time, is done again job by job: each answers for itself alone.
    """
    start = time.perf_counter()
    first = batch[0]
    act = _screen if first.task == "screen" else _train_stack if first.proxy in STACKED else _train
    try:
        evaluations = act(batch, workbenches[first.data])
    except (EvolossError, ArithmeticError, RuntimeError, MemoryError, ValueError) as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0]
        evaluations = [Evaluation(first, Status.INVALID, detail)]
    if len(batch) > 1 and (len(evaluations) == 1 or evaluations[0].status is Status.TIMEOUT):
        return [evaluation for job in batch for evaluation in evaluate((job,), workbenches)]
    seconds = (time.perf_counter() - start) / len(batch)
    return [replace(evaluation, seconds=seconds) for evaluation in evaluations]


def _screen(batch: Batch, workbench: Workbench) -> list[Evaluation]:
    expressions = [Expression(job.expression) for job in batch]
    verdicts = screen(expressions, workbench.dataset.num_classes)
    return [_screened(*each, workbench) for each in zip(batch, expressions, verdicts, strict=True)]


def _screened(job: Job, expression: Expression, verdict: Verdict, workbench: Workbench) -> Evaluation:
    if problem := expression.missing:
        return Evaluation(job, Status.REJECTED, f"{problem}: the formula sees none")
    if verdict.problem:
        return Evaluation(job, Status.REJECTED, verdict.problem)
    if verdict.negate:
        return Evaluation(job, Status.OK, negate=True)
    scale = matching_scale(expression, workbench, job.proxy, job.seed)
    if not 0 < scale < float("inf"):
        return Evaluation(job, Status.REJECTED, "flat: no gradient at the initial weights")
    return Evaluation(job, Status.OK, scale=scale, fingerprint=verdict.fingerprint)


def matching_scale(expression: Expression, workbench: Workbench, proxy: str, seed: int) -> float:
    """The constant that makes a loss's gradient at the initial weights as long as cross-entropy's, to 6 digits.

    Measured with respect to the logits; for losses of embeddings alone, with respect to the embeddings. 0 or infinite
    where there is none.
    """
    by_logits = expression.sees_logits
    own = _gradient_length(workbench, proxy, seed, expression, by_logits)
    ratio = _reference_length(workbench, proxy, seed, by_logits) / own if own > 0 else float("inf")
    return float(f"{ratio:.6g}")


@functools.lru_cache(maxsize=4)
def _reference_length(workbench: Workbench, proxy: str, seed: int, by_logits: bool) -> float:
    return _gradient_length(workbench, proxy, seed, CROSS_ENTROPY, by_logits)


def _gradient_length(workbench: Workbench, proxy: str, seed: int, expression: Expression, by_logits: bool) -> float:
    embeddings, logits, labels = _initial(workbench, proxy, seed)
    value = workbench.loss(expression, seed)(logits, labels, embeddings)
    return torch.autograd.grad(value, logits if by_logits else embeddings)[0].norm().item()


def _initial(workbench: Workbench, proxy: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings and logits of an untrained proxy, the logits a function of the embeddings; labels."""
    values, labels, head = _initial_values(workbench, proxy, seed)
    embeddings = values.clone().requires_grad_()
    return embeddings, head(embeddings), labels


@functools.lru_cache(maxsize=2)
def _initial_values(workbench: Workbench, proxy: str, seed: int) -> tuple[Tensor, Tensor, nn.Module]:
    model = workbench.proxy(proxy, seed).train()
    samples = workbench.samples("train", workbench.scale_batch, seed)
    with torch.no_grad():
        embeddings, _ = model(samples.images)
    return embeddings, samples.labels.long(), model.head


def _train(batch: Batch, workbench: Workbench) -> list[Evaluation]:
    return [_trained(job, _alone(job, workbench)) for job in batch]


def _alone(job: Job, workbench: Workbench) -> TrainResult:
    member, model = _member(job, workbench), _model(job, workbench)
    samples, scored, budget = _data(job, workbench)
    seed = derive_seed(job.seed, "batches")
    return workbench.train(model, member.loss, samples, scored, budget, seed, member.decoder)


def _train_stack(batch: Batch, workbench: Workbench) -> list[Evaluation]:
    members = [_member(job, workbench) for job in batch]
    model = _model(batch[0], workbench)
    samples, scored, budget = _data(batch[0], workbench)
    results = train_stack(model, members, samples, scored, budget, derive_seed(batch[0].seed, "batches"))
    return [_trained(job, result) for job, result in zip(batch, results, strict=True)]


def _trained(job: Job, result: TrainResult) -> Evaluation:
    accuracy = result.accuracy
    calibration = result.calibration.get("test")
    return Evaluation(
        job, result.status, result.detail, accuracy.get("select"), accuracy.get("test"), test_ece=calibration
    )


def _member(job: Job, workbench: Workbench) -> Member:
    """The job's loss at its scale, its centers drawn from the job's seed."""
    assert job.budget is not None
    expression = Expression(job.expression)
    loss = workbench.loss(expression, derive_seed(job.seed, "centers"), job.scale)
    return Member(loss, job.budget.learning_rate, decoder(expression))


def _model(job: Job, workbench: Workbench) -> Proxy:
    assert job.budget is not None
    return workbench.proxy(job.proxy, derive_seed(job.seed, "weights"), job.budget.pooled)


def _data(job: Job, workbench: Workbench) -> tuple[train.Samples, dict[Role, train.Samples], Budget]:
    """What a job trains on, what it is scored on, and its budget."""
    assert job.budget is not None
    pooled = job.budget.pooled
    samples = workbench.samples("train", job.budget.samples, derive_seed(job.seed, "samples"), pooled)
    counts = {"select": job.budget.scored}
    scored = {role: workbench.samples(role, counts.get(role), ROLE_SEED, pooled) for role in job.roles}
    return samples, scored, job.budget


def decoder(expression: Expression) -> train.Decoder:
    """How a model trained with this loss names a class: logits if the loss sees them, else the nearest class center."""
    if expression.sees_logits:
        return "argmax"
    return "centers" if "d" in expression.variables else "means"
