"""Batches of jobs in, their evaluations out as they finish. The only file that imports Ray.

`open_pool` gives a function from batches to an iterator of lists of evaluations. Whatever happens to a worker, every
job comes back exactly once: as timeout where it overran its limit, as lost where three workers died of it. A node is
one death, however many workers it takes with it; one that joins gets workers as soon as Ray knows it.
"""

import contextlib
import functools
import logging
import math
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from evoloss.errors import EvolossError
from evoloss.machine import cores
from evoloss.records import Batch, DataSpec, Evaluation, Status

if TYPE_CHECKING:
    from evoloss.data import Dataset

Pool = Callable[[Iterable[Batch]], Iterator[list[Evaluation]]]
Datasets = Mapping[DataSpec | None, "Dataset"]  # None: the data of the run; further data by what they are

MAX_DEATHS = 3  # of workers on the same job, before the job is blamed
GRACE = 60.0  # seconds beyond its limit after which a worker that does not answer is killed
START = 600.0  # seconds without a single worker: on a busy machine the import of torch alone takes minutes
KNOCK = 10.0  # seconds for a cluster to answer
POLL = 1.0  # seconds between looks at the clock while waiting
CENSUS = 5.0  # seconds between looks at how large a cluster is
NOTICE = 120.0  # seconds by which Ray knows that a node is gone; till then it places workers there, and they die

log = logging.getLogger("evoloss")


@contextlib.contextmanager
def open_pool(
    datasets: Datasets,
    workers: int | None = None,
    address: str | None = None,
    device: str = "cpu",
    gpus: float | None = None,
) -> Iterator[Pool]:
    """A pool of `workers` processes (None: one a core), or of this process for 0; closed at the end.

    `address` joins a running Ray cluster instead of starting one on this machine; without a number of workers it has
    as many as the cluster has room for, be it more or less by and by. `gpus` is the share of a GPU that a worker takes
    (None: of all there are, an equal one). Raises `EvolossError`.
    """
    if gpus is not None and not device.startswith("cuda"):
        raise EvolossError(f"--gpus-per-worker is for the device cuda, this is on {device}: leave it out")
    if workers == 0:
        yield _in_process(datasets, device)
        return
    with _ray(workers, address, datasets) as ray:
        share = _share(ray, workers, gpus) if device.startswith("cuda") else 0.0
        # A cluster may grow; what was started here cannot.
        wanted = (lambda: workers) if workers else functools.partial(_room, ray, share)
        pool = _RayPool(ray, ray.put(datasets), wanted, device, share)
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
def _ray(workers: int | None, address: str | None, datasets: Datasets) -> Iterator[Any]:
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
        else:
            splits = [split for dataset in datasets.values() for split in dataset.splits.values()]
            size = sum(split.images.nbytes + split.labels.nbytes for split in splits)
            store = max(2 * size, 128 * 2**20)
            # "local": without it Ray would join whatever cluster was last started on this machine.
            ray.init("local", num_cpus=workers or cores(), object_store_memory=store, include_dashboard=False, **quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        mend = "its token belongs in ~/.ray/auth_token here" if address else "--workers 0 runs without Ray"
        raise EvolossError(f"cannot {where}: {_first_line(error)}; {mend}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=KNOCK).close()


def _room(ray: Any, share: float) -> int:
    """How many workers of a core and a share of a GPU the cluster has room for now; one at least, to wait with."""
    has = ray.cluster_resources()
    by_core = has.get("CPU", 0.0)
    room = min(by_core, has.get("GPU", 0.0) / share) if share else by_core
    return max(1, math.floor(room + 1e-6))


def _share(ray: Any, workers: int | None, gpus: float | None) -> float:
    """The share of a GPU that a worker takes. Raises `EvolossError` where Ray knows of none."""
    has = ray.cluster_resources()
    there, count = has.get("GPU", 0.0), workers or int(has.get("CPU", 1))
    if not there:
        raise EvolossError("the device is cuda, and Ray finds no GPU: --device cpu does without")
    return gpus or math.floor(1e4 * min(1.0, there / count)) / 1e4  # Ray counts ten-thousandths


def versions() -> dict[str, str]:
    """What has to be the same wherever a run is trained; that of torch without the name of its build."""
    return {"evoloss": version("evoloss"), "torch": version("torch").partition("+")[0]}


class _Worker:
    """What runs in a worker process, which on another machine is the evoloss that is installed there."""

    def hello(self) -> dict[str, str]:
        import ray

        place = {"host": ray.util.get_node_ip_address(), "node": ray.get_runtime_context().get_node_id()}
        return versions() | place

    def prepare(self, datasets: Datasets, device: str) -> None:
        from evoloss.evaluate import prepare

        self.workbenches = prepare(datasets, device)

    def evaluate(self, batch: Batch) -> list[Evaluation]:
        from evoloss.evaluate import evaluate

        return evaluate(batch, self.workbenches)


@dataclass(eq=False)
class _Seat:
    """A worker process: what it says of itself, and the node that it is on, once it has said it."""

    actor: Any
    hello: Any
    node: str = ""


@dataclass
class _Running:
    """A batch on a worker."""

    seat: _Seat
    batch: Batch
    deadline: float


class _RayPool:
    def __init__(self, ray: Any, datasets: Any, wanted: Callable[[], int], device: str, gpus: float = 0.0) -> None:
        self.ray = ray
        self.datasets, self.device = datasets, device
        self.actor_class = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
        self.wanted = wanted
        self.counted = -math.inf  # when `wanted` was last asked
        self.coming: dict[Any, _Seat] = {}  # by what tells that they are ready
        self.idle: list[_Seat] = []
        self.running: dict[Any, _Running] = {}
        # A worker of another version keeps its seat, so that Ray does not put the next one there.
        self.refused: list[_Seat] = []
        self.refusal = ""
        self.stillborn: list[float] = []  # when workers died before they were ready, since one was
        self._fill()

    def run(self, batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
        """The evaluations of each batch, in the order in which they finish."""
        waiting = deque(batches)
        deaths: dict[Batch, set[Any]] = {}
        manned = time.monotonic()  # when there was last a worker
        try:
            while waiting or self.running:
                while waiting and self.idle:
                    self._submit(self.idle.pop(), waiting.popleft())
                finished, _ = self.ray.wait([*self.running, *self.coming], num_returns=1, timeout=POLL)
                for reference in finished:
                    if reference in self.coming:
                        self._welcome(reference, self.coming.pop(reference))
                    else:
                        yield from self._collect(self.running.pop(reference), reference, deaths, waiting)
                for reference in [r for r, task in self.running.items() if time.monotonic() > task.deadline]:
                    yield from self._overrun(self.running.pop(reference), waiting)
                if self.idle or self.running:
                    manned = time.monotonic()
                self._fill()
                self._check(time.monotonic() - manned)
        finally:
            for task in self.running.values():  # the caller stopped early: what runs is of no use to anyone
                self._replace(task.seat)
            self.running.clear()

    def close(self) -> None:
        for seat in (*self.idle, *self.coming.values(), *self.refused):
            self.ray.kill(seat.actor)

    def _start(self) -> None:
        actor = self.actor_class.remote()
        hello = actor.hello.remote()
        self.coming[actor.prepare.remote(self.datasets, self.device)] = _Seat(actor, hello)

    def _fill(self) -> None:
        """A worker for each place that the cluster has by now."""
        if time.monotonic() < self.counted + CENSUS:
            return
        self.counted = time.monotonic()
        seats = len(self.coming) + len(self.idle) + len(self.running) + len(self.refused)
        for _ in range(self.wanted() - seats):
            self._start()

    def _welcome(self, reference: Any, seat: _Seat) -> None:
        """Let in a worker that is ready, if it is one of ours."""
        try:
            greeting = self.ray.get(seat.hello)
            problem = _difference(greeting)
            if not problem:
                self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            raised = isinstance(error, self.ray.exceptions.RayTaskError) or getattr(error, "actor_init_failed", False)
            if not raised:
                self._lost(seat, error)
                return
            last = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
            problem = f"a worker cannot start: {last}; every machine needs evoloss {version('evoloss')} installed"
        if problem:
            log.warning("left out: %s", problem)
            self.refused.append(seat)
            self.refusal = problem
        else:
            self.stillborn.clear()
            seat.node = greeting["node"]
            self.idle.append(seat)
            log.info("a worker is ready on %s", greeting["host"])

    def _lost(self, seat: _Seat, error: Exception) -> None:
        """A worker died before it was ready; where none of them lives that long, another makes no difference."""
        log.info("a worker died before it was ready (%s)", type(error).__name__)
        self.stillborn.append(time.monotonic())
        lasting = self.stillborn[-1] - self.stillborn[0] > NOTICE
        if lasting and len(self.stillborn) >= MAX_DEATHS * max(self.wanted(), 1):
            raise EvolossError(f"workers die before they are ready: {_first_line(error)}")
        self._replace(seat)

    def _check(self, unmanned: float) -> None:
        """Raise `EvolossError` where there is nobody left to wait for."""
        if self.idle or self.running:
            return
        if not self.coming:
            raise EvolossError(self.refusal)
        if unmanned > START:
            raise EvolossError(
                f"no worker came up within {START:g} s: Ray has no free core (or share of a GPU) for one; "
                f"add a node, or stop what else runs there"
            )

    def _submit(self, seat: _Seat, batch: Batch) -> None:
        limit = sum(job.time_limit for job in batch) + GRACE
        self.running[seat.actor.evaluate.remote(batch)] = _Running(seat, batch, time.monotonic() + limit)

    def _collect(
        self, task: _Running, reference: Any, deaths: dict[Batch, set[Any]], waiting: deque[Batch]
    ) -> Iterator[list[Evaluation]]:
        try:
            evaluations = self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._replace(task.seat)
            first, others = task.batch[0].expression, len(task.batch) - 1
            log.info("a worker died of `%s` or of one of %d beside it (%s)", first, others, type(error).__name__)
            died = deaths.setdefault(task.batch, set())
            died.add(task.seat if self._is_up(task.seat.node) else task.seat.node)
            if len(died) < MAX_DEATHS:
                waiting.appendleft(task.batch)  # as a whole: the last bit of a result may depend on what is beside it
            elif not _split(task.batch, waiting):
                problem = f"{MAX_DEATHS} workers died of it: {_first_line(error)}"
                yield [Evaluation(task.batch[0], Status.LOST, problem)]
        else:
            self.idle.append(task.seat)
            yield evaluations

    def _is_up(self, node: str) -> bool:
        """Whether a node lives; one that does not has taken all its workers with it, and that is one death."""
        return any(known["NodeID"] == node and known["Alive"] for known in self.ray.nodes())

    def _overrun(self, task: _Running, waiting: deque[Batch]) -> Iterator[list[Evaluation]]:
        self._replace(task.seat)
        if not _split(task.batch, waiting):
            (job,) = task.batch
            yield [Evaluation(job, Status.TIMEOUT, f"no answer within {job.time_limit + GRACE:g} s")]

    def _replace(self, seat: _Seat) -> None:
        self.ray.kill(seat.actor)
        self._start()


def _difference(greeting: Mapping[str, str]) -> str:
    """In what a worker differs from this process; empty where in nothing that matters."""
    for name, here in versions().items():
        if greeting.get(name) != here:
            there = greeting.get(name, "none")
            return (
                f"the worker on {greeting.get('host')} has {name} {there}, this is {name} {here}: "
                f"results would not be comparable; install {name} {here} there"
            )
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _split(batch: Batch, waiting: deque[Batch]) -> bool:
    """Put the jobs of a batch back one by one, so that only the one at fault is blamed; False for a single job."""
    if len(batch) == 1:
        return False
    waiting.extendleft((job,) for job in reversed(batch))
    return True
