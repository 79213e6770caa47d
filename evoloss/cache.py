"""Evaluations that runs share: what one has trained, another need not train again.

An evaluation is known by its loss, its seed and all else that its result depends on; the data by what they are, not by
their name, their place or the seed that shaped them. Several processes on one machine may use a cache at once.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from evoloss import evaluations
from evoloss.errors import EvolossError
from evoloss.records import Batch, DataSpec, Evaluation, Job, Status, protocol

if TYPE_CHECKING:
    from evoloss.data import Dataset
    from evoloss.workers import Pool

CACHE = evaluations.Kind("a cache of evoloss", 0x65766F6C, 1, evaluations.SCHEMA, "name another file as --cache")

# The others say nothing about the loss: timeouts and lost workers are the machine's, and so may an error be.
LASTING = (Status.OK, Status.REJECTED, Status.DIVERGED)


def check(path: Path) -> None:
    """Make the cache where there is none. Raises `EvolossError` where the file is something else, and leaves it so."""
    evaluations.connect(path, CACHE).close()


def spared(pool: "Pool", find: Callable[[Job], Evaluation | None]) -> "Pool":
    """The pool, asked only for what `find` does not know."""

    def answers(batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
        missing: list[Batch] = []
        for batch in batches:
            known = {job: found for job in batch if (found := find(job)) is not None}
            if known:
                yield list(known.values())
            if rest := tuple(job for job in batch if job not in known):
                missing.append(rest)
        yield from pool(missing) if missing else ()

    return answers


class Cache:
    """A cache that is open, for jobs on these data and on this kind of device; how many were `taken` and `added`."""

    def __init__(self, path: Path, datasets: "Mapping[DataSpec | None, Dataset]", device: str) -> None:
        """Open the file. Raises `EvolossError` where it is no cache."""
        self.path = path
        self.datasets = datasets
        kind = device.partition(":")[0]
        self.setting = {"evoloss": version("evoloss"), "torch": version("torch"), "device": kind}
        self.taken = self.added = 0
        self._connection = evaluations.connect(path, CACHE)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(self, job: Job) -> Evaluation | None:
        """The evaluation of this job, marked as `shared`, or None."""
        with evaluations.as_written(self.path), self._explained():
            found = evaluations.find(self._connection, job, self._protocol(job))
        return None if found is None else replace(found, shared=True)

    def add(self, finished: Iterable[Evaluation]) -> None:
        """Keep those that say something about their loss."""
        kept = [(evaluation, self._protocol(evaluation.job)) for evaluation in finished if evaluation.status in LASTING]
        with self._explained():
            evaluations.add(self._connection, kept)
        self.added += len(kept)

    def _protocol(self, job: Job) -> str:
        """That of an archive, with what differs between runs: the data by their contents, versions, the device."""
        dataset = self.datasets[job.data]
        data = {role: dataset.splits[role].digest for role in ("train", *job.roles)}
        return protocol(job, self.setting | {"data": data, "classes": dataset.num_classes})

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise EvolossError(f"cannot go on with the cache {self.path}: {error}; go on without --cache") from None

    def ahead_of(self, pool: "Pool") -> "Pool":
        """The pool, asked only for what is not here; what it answers is kept."""

        def found(job: Job) -> Evaluation | None:
            evaluation = self.find(job)
            self.taken += evaluation is not None
            return evaluation

        def asked(batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
            for finished in pool(batches):
                self.add(finished)
                yield finished

        return spared(asked, found)
