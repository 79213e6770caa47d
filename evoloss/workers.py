"""Batches of jobs in, their evaluations out as they finish. The only file that imports Ray.

`open_pool` gives a function from batches to an iterator of lists of evaluations. Whatever happens to a worker, every
job comes back exactly once: as timeout where it overran its limit, as lost where three workers died of it.
"""

import contextlib
import functools
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoloss.errors import EvolossError
from evoloss.machine import cores
from evoloss.records import Batch, DataSpec, Evaluation, Job, Status

if TYPE_CHECKING:
    from evoloss.data import Dataset

Pool = Callable[[Iterable[Batch]], Iterator[list[Evaluation]]]
Datasets = Mapping[DataSpec | None, "Dataset"]  # None: the data of the run; further data by what they are

MAX_DEATHS = 3  # of workers on the same job, before the job is blamed
GRACE = 60.0  # seconds beyond its limit after which a worker that does not answer is killed
START = 600.0  # seconds more for its first answer: on a busy machine the import of torch alone takes minutes
KNOCK = 10.0  # seconds for a cluster to answer
POLL = 1.0  # seconds between looks at the clock while waiting

log = logging.getLogger("evoloss")


@contextlib.contextmanager
def open_pool(
    datasets: Datasets, workers: int | None = None, address: str | None = None, device: str = "cpu"
) -> Iterator[Pool]:
    """A pool of `workers` processes (None: one a core), or of this process for 0; closed at the end.

    `address` joins a running Ray cluster instead of starting one on this machine.
    """
    if workers == 0:
        yield _in_process(datasets, device)
        return
    with _ray(workers, address, datasets) as (ray, count):
        pool = _RayPool(ray, ray.put(datasets), count, device)
        try:
            yield pool.run
        finally:
            pool.close()


def opened_when_needed(stack: contextlib.ExitStack, open_: Callable[[], AbstractContextManager[Pool]]) -> Pool:
    """A pool that is not opened before it has a batch, and closed with the stack."""
    opened = functools.cache(lambda: stack.enter_context(open_()))
    return lambda batches: opened()(batches)


def _in_process(datasets: Datasets, device: str) -> Pool:
    from evoloss.evaluate import evaluate, prepare

    workbenches = prepare(datasets, device)
    return lambda batches: (evaluate(batch, workbenches) for batch in batches)


@contextlib.contextmanager
def _ray(workers: int | None, address: str | None, datasets: Datasets) -> Iterator[tuple[Any, int]]:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Even with log_to_driver off, Ray prints to standard output, where --json goes, that a worker died.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if address:  # clusters ask for their token by default; RAY_AUTH_MODE=disabled joins one that does not
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            _knock(address)
            ray.init(address=address, **quiet)
            count = workers or int(ray.cluster_resources().get("CPU", 1))
        else:
            count = workers or cores()
            splits = [split for dataset in datasets.values() for split in dataset.splits.values()]
            size = sum(split.images.nbytes + split.labels.nbytes for split in splits)
            store = max(2 * size, 128 * 2**20)
            # "local": without it Ray would join whatever cluster was last started on this machine.
            ray.init("local", num_cpus=count, object_store_memory=store, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        mend = "its token belongs in ~/.ray/auth_token here" if address else "--workers 0 runs without Ray"
        problem = str(error).strip().splitlines()[0]
        raise EvolossError(f"cannot {where}: {problem}; {mend}") from None
    try:
        yield ray, count
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


class _Worker:
    """What runs in a worker process."""

    def __init__(self, datasets: Datasets, device: str) -> None:
        from evoloss.evaluate import prepare

        self.workbenches = prepare(datasets, device)

    def evaluate(self, batch: Batch) -> list[Evaluation]:
        from evoloss.evaluate import evaluate

        return evaluate(batch, self.workbenches)


@dataclass(eq=False)
class _Seat:
    """A worker process, and whether it has answered yet."""

    actor: Any
    started: bool = False


@dataclass
class _Running:
    """A batch on a worker."""

    seat: _Seat
    batch: Batch
    deadline: float


class _RayPool:
    def __init__(self, ray: Any, datasets: Any, count: int, device: str) -> None:
        self.ray = ray
        self.count = count
        gpus = 1 / count if device.startswith("cuda") else 0
        actor_class = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
        self.start = lambda: _Seat(actor_class.remote(datasets, device))
        self.idle: list[_Seat] = [self.start() for _ in range(count)]

    def run(self, batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
        """The evaluations of each batch, in the order in which they finish."""
        waiting = deque(batches)
        deaths: dict[Job, int] = {}
        running: dict[Any, _Running] = {}
        try:
            while waiting or running:
                while waiting and self.idle:
                    self._submit(self.idle.pop(), waiting.popleft(), running)
                finished, _ = self.ray.wait(list(running), num_returns=1, timeout=POLL)
                for reference in finished:
                    yield from self._collect(running.pop(reference), reference, deaths, waiting)
                for reference in [r for r, task in running.items() if time.monotonic() > task.deadline]:
                    yield from self._overrun(running.pop(reference), waiting)
        finally:
            for task in running.values():  # the caller stopped early: what runs is of no use to anyone
                self._replace(task.seat)

    def close(self) -> None:
        for seat in self.idle:
            self.ray.kill(seat.actor)

    def _submit(self, seat: _Seat, batch: Batch, running: dict[Any, _Running]) -> None:
        limit = sum(job.time_limit for job in batch) + GRACE + (0 if seat.started else START)
        running[seat.actor.evaluate.remote(batch)] = _Running(seat, batch, time.monotonic() + limit)

    def _collect(
        self, task: _Running, reference: Any, deaths: dict[Job, int], waiting: deque[Batch]
    ) -> Iterator[list[Evaluation]]:
        try:
            evaluations = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._replace(task.seat)
            first, others = task.batch[0].expression, len(task.batch) - 1
            log.info("a worker died of `%s` or of one of %d beside it (%s)", first, others, type(error).__name__)
            if _split(task.batch, waiting):
                return
            (job,) = task.batch
            deaths[job] = deaths.get(job, 0) + 1
            if deaths[job] < MAX_DEATHS:
                waiting.appendleft(task.batch)
            else:
                problem = str(error).strip().splitlines()[0]
                yield [Evaluation(job, Status.LOST, f"{MAX_DEATHS} workers died of it: {problem}")]
        else:
            task.seat.started = True
            self.idle.append(task.seat)
            yield evaluations

    def _overrun(self, task: _Running, waiting: deque[Batch]) -> Iterator[list[Evaluation]]:
        self._replace(task.seat)
        if not _split(task.batch, waiting):
            (job,) = task.batch
            yield [Evaluation(job, Status.TIMEOUT, f"no answer within {job.time_limit + GRACE:g} s")]

    def _replace(self, seat: _Seat) -> None:
        self.ray.kill(seat.actor)
        self.idle.append(self.start())


def _split(batch: Batch, waiting: deque[Batch]) -> bool:
    """Put the jobs of a batch back one by one, so that only the one at fault is blamed; False for a single job."""
    if len(batch) == 1:
        return False
    waiting.extendleft((job,) for job in reversed(batch))
    return True
