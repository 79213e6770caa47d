"""What the driver and the workers say to each other: frozen dataclasses of text and numbers, nothing else."""

import functools
import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

PROTOCOL = 1  # raise it whenever a screen, a proxy or a training comes to other results than before

Role = Literal["train", "select", "test"]
Task = Literal["screen", "train"]


class Status(StrEnum):
    """How a candidate ended. Only `OK` carries a score."""

    OK = "ok"
    INVALID = "invalid"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    LOST = "lost"


@dataclass(frozen=True)
class DataSpec:
    """Which data, and how the train role is shaped; the select and test roles are never touched.

    `samples` keeps that many stratified training samples, `label_noise` redraws that share of the training labels
    uniformly from the other classes, `imbalance` is the ratio of the largest to the smallest class of a long tail.
    """

    name: str
    data_dir: str | None = None
    samples: int | None = None
    label_noise: float = 0.0
    imbalance: float = 1.0
    seed: int = 0

    @property
    def shaped(self) -> bool:
        """Whether the seed changes anything: it draws the samples that are kept and the labels that are wrong."""
        return self.samples is not None or self.label_noise > 0 or self.imbalance > 1


@dataclass(frozen=True)
class Budget:
    """One training: examples seen are `samples * epochs`, however few samples the train role has.

    The number of steps is `epochs * ceil(samples / batch_size)`: a smaller train role is passed over more often, so
    that a rung costs the same on every data set. `scored` is how many select images the score is taken on; None: all.
    Images are averaged over squares of `pooled` pixels: 2 makes 16x16 of 32x32.
    """

    samples: int
    epochs: int
    learning_rate: float
    optimizer: str = "adam"
    batch_size: int = 128
    flips: bool = False
    shifts: bool = False
    pooled: int = 1
    scored: int | None = None
    time_limit: float = 600.0


@dataclass(frozen=True)
class Job:
    """One thing for a worker to do: screen a formula, or train a proxy with it and score `roles`.

    `data` is None for the data of the run, else other data that the workers were given.
    """

    task: Task
    key: str
    expression: str
    proxy: str
    seed: int
    budget: Budget | None = None
    scale: float = 1.0
    roles: tuple[Role, ...] = ("select",)
    time_limit: float = 60.0
    data: DataSpec | None = None


Batch = tuple[Job, ...]  # jobs that go to a worker together


@dataclass(frozen=True)
class TrainResult:
    """What a training came to: accuracies by role (fractions), where it was stopped and why.

    `calibration` is the expected calibration error on the test role, where that was scored and the logits decide.
    """

    status: Status
    accuracy: dict[Role, float] = field(default_factory=dict)
    steps: int = 0
    detail: str = ""
    calibration: dict[Role, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """The answer to a job. `score` is the select accuracy of a training, None unless `status` is ok.

    A screen answers with `scale` (what makes the initial gradient as long as cross-entropy's), `negate` (the formula
    learns with the other sign) and `fingerprint` (its gradient field on fixed probes, unit length). `shared` marks what
    another run has found out. `test_ece` is the calibration error beside `test_score`, None where embeddings decide.
    """

    job: Job
    status: Status
    detail: str = ""
    score: float | None = None
    test_score: float | None = None
    scale: float | None = None
    negate: bool = False
    fingerprint: tuple[float, ...] = ()
    seconds: float = 0.0
    shared: bool = False
    test_ece: float | None = None


@dataclass(frozen=True)
class Standing:
    """How a loss came out of a contest: accuracies on the fresh seeds, in their order; none unless `status` is ok.

    `rate` won the sweep on the tuning seeds; `at_edge` says that it was the smallest or the largest there was, so that
    a wider sweep might do better. `calibration` are the calibration errors on the test split, none where embeddings
    decide.
    """

    regime: str
    key: str
    expression: str
    name: str = ""
    status: Status = Status.OK
    detail: str = ""
    scale: float | None = None
    rate: float | None = None
    at_edge: bool = False
    select: tuple[float, ...] = ()
    test: tuple[float, ...] = ()
    calibration: tuple[float, ...] = ()


def protocol(job: Job, conditions: Mapping[str, Any]) -> str:
    """A short hash of all that a result depends on besides the formula and the seed.

    `conditions` are what the job does not say: the data above all. How long a worker may take changes no result and is
    left out.
    """
    budget = _without("time_limit", job.budget) if job.budget else {}
    parts = {"task": job.task, "proxy": job.proxy, "budget": budget, "scale": job.scale, "roles": job.roles}
    known = {"protocol": PROTOCOL, **parts, **conditions}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


def described(data: DataSpec) -> dict[str, Any]:
    """What a result depends on: the name of data and how they are shaped, not where they lie."""
    return _without("data_dir", data)


@functools.lru_cache(maxsize=64)  # a run has a handful of budgets, and `asdict` copies deeply
def _without(name: str, record: Budget | DataSpec) -> dict[str, Any]:
    """The fields of a record but one."""
    return {key: value for key, value in asdict(record).items() if key != name}


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from the run's seed and a purpose; the same in every process (`hash()` is not)."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass
class Candidate:
    """A formula and all that a run knows of it.

    `scores` are what it is ranked by, at the last rung that it reached, by number of the training seed; `select` are
    the select accuracies in the first regime, the same where there is one. `rates` are the best learning rates there,
    by regime. `detail` says why a status is not ok; for a duplicate it is the key of the loss that it equals.
    """

    key: str
    expression: str
    complexity: int
    family: str
    name: str = ""
    generation: int = 0
    parents: tuple[str, ...] = ()
    status: Status = Status.OK
    detail: str = ""
    scale: float | None = None
    fingerprint: tuple[float, ...] = ()
    rung: int = -1
    rates: tuple[float, ...] = ()
    scores: dict[int, float] = field(default_factory=dict)
    select: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def fitness(self) -> float | None:
        """Mean score over the seeds, None unless the status is ok and a rung was finished."""
        return statistics.fmean(self.scores.values()) if self.status is Status.OK and self.scores else None


@dataclass(frozen=True)
class Generation:
    """What happened in one generation: a row of `generations.csv`."""

    generation: int
    evaluated: int
    cached: int
    duplicates: int
    rejected: int
    diverged: int
    best_fitness: float | None
    mean_fitness: float | None
    best_expression: str
    ce_fitness: float | None
    ngl_fitness: float | None
    seconds: float


@dataclass(frozen=True)
class Cost:
    """How many evaluations of one kind there were, and their core-seconds; `test` for those that saw the test split."""

    task: Task
    test: bool
    count: int
    seconds: float
