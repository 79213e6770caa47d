"""Which jobs go to a worker together: those that can share their steps, such as the trainings of one rung.

What is batched with what follows from the list of jobs alone, never from the number of workers, so that a result can
not depend on it.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from evoloss.records import Batch, Job, Task

# Jobs. From 8 on, a stacked training gains less from another member than an idle core loses. Most losses of a screening
# are soon judged, and the few that are left share its steps.
LARGEST: dict[Task, int] = {"screen": 32, "train": 8}
WORTH_HALVING = 4  # jobs: with fewer, two halves cost more than a second core gains
STACKED = ("mlp",)  # proxies that train as one stacked model


def batched(jobs: Iterable[Job]) -> Iterator[Batch]:
    """The jobs in batches of `LARGEST` at most, all of one kind, as even in size as can be.

    An even number of them, unless there is but a handful of jobs: no machine of today has a single core, and a rung of
    8 jobs in one batch would leave all cores but one idle.
    """
    kinds: dict[Job | None, list[Job]] = {}
    for job in dict.fromkeys(jobs):
        kinds.setdefault(_kind(job), []).append(job)
    for kind, group in kinds.items():
        yield from _parts(group, len(group) if kind is None else _count(len(group), LARGEST[kind.task]))


def _kind(job: Job) -> Job | None:
    """What the jobs of a batch have in common; None for a job that has to run alone."""
    if job.task == "train" and job.proxy not in STACKED:
        return None
    budget = job.budget and replace(job.budget, learning_rate=0.0)
    return replace(job, key="", expression="", scale=1.0, budget=budget)


def _count(jobs: int, largest: int) -> int:
    return 1 if jobs < WORTH_HALVING else 2 * -(-jobs // (2 * largest))


def _parts(jobs: list[Job], count: int) -> Iterator[Batch]:
    size, rest = divmod(len(jobs), count)
    places = iter(jobs)
    for number in range(count):
        yield tuple(itertools.islice(places, size + (number < rest)))
