"""Ray workers whose evaluations are timed in processor seconds: other work on the machine does not count."""

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from evoloss import evaluate as work
from evoloss.errors import EvolossError
from evoloss.evaluate import Workbench, Workbenches
from evoloss.machine import cores
from evoloss.records import Batch, Evaluation, Job, Status
from evoloss.workers import Datasets, Pool

Act = Callable[[Batch, Workbenches], list[Evaluation]]
STORE = 2**29  # bytes of shared memory for the data


def alone(batch: Batch, workbenches: Workbenches) -> list[Evaluation]:
    """Each training by itself, with autograd; what goes wrong becomes a status."""
    return [_alone(job, workbenches[job.data]) for job in batch]


def _alone(job: Job, workbench: Workbench) -> Evaluation:
    try:
        return work._trained(job, work._alone(job, workbench))
    except (EvolossError, ArithmeticError, RuntimeError, MemoryError, ValueError) as error:
        return Evaluation(job, Status.INVALID, f"{type(error).__name__}: {error}".splitlines()[0])


class Worker:
    """What runs in a worker process."""

    def __init__(self, datasets: Datasets, jobs: Sequence[Job]) -> None:
        """Load what jobs like these need, so that no loop pays for it."""
        self.workbenches = work.prepare(datasets)
        for job in jobs:
            if job.budget is None:
                work.evaluate((job,), self.workbenches)
            else:
                work._data(job, self.workbenches[job.data])

    def run(self, act: Act, batch: Batch) -> list[Evaluation]:
        """Evaluations with the processor seconds that they took."""
        start = time.process_time()
        evaluations = act(batch, self.workbenches)
        seconds = (time.process_time() - start) / len(batch)
        return [replace(evaluation, seconds=seconds) for evaluation in evaluations]


@contextlib.contextmanager
def clocked_workers(datasets: Datasets, jobs: Sequence[Job]) -> Iterator[tuple[Pool, Pool]]:
    """Two pools on the same workers, one a core: for the naive loop, job by job, and for evoloss, batch by batch."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray.util import ActorPool

    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init("local", num_cpus=cores(), object_store_memory=STORE, **quiet)
    try:
        shared = ray.put(datasets)
        actors = ActorPool([ray.remote(num_cpus=1)(Worker).remote(shared, jobs) for _ in range(cores())])

        def naive(batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
            single = [(job,) for batch in batches for job in batch]
            return actors.map_unordered(lambda actor, batch: actor.run.remote(alone, batch), single)

        def stacked(batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
            return actors.map_unordered(lambda actor, batch: actor.run.remote(work.evaluate, batch), list(batches))

        yield naive, stacked
    finally:
        ray.shutdown()
