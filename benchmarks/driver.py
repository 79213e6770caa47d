"""What the driver of a search costs a candidate, and whether that grows: `python -m benchmarks.driver`.

A whole search as `evoloss search` runs it, its archive on disk and its tables rewritten every generation, but on
simulated workers: up to 1,000 batches in flight, answered in a shuffled order, statuses and gradient fields drawn from
the formula's key. Nothing is trained, and the time that the workers take to draw their answers is left out. A candidate
is a formula that was entered, be it a duplicate or rejected. Canonical forms are told apart from the rest: they follow
from formulas alone, which get longer as they are bred; the rest could grow with what a search has met. Prints a row for
each tenth of the evaluations and writes a row for each generation as CSV (`--out`). Three core-minutes.
"""

import argparse
import itertools
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

from evoloss import run
from evoloss.config import RunConfig, load_space
from evoloss.contest import REFERENCE
from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.records import Batch, Evaluation, Job, Status, derive_seed
from evoloss.search import Progress, TimeIsUpError
from evoloss.tables import print_table
from evoloss.tree import Grammar, Individual

WINDOWS = 10
FINGERPRINT = 68  # numbers of a gradient field
FIELDS = 64  # gradient fields that one loss in ten shares with others


def answer(job: Job) -> Evaluation:
    """Of ten formulas one is rejected, one learns negated, one is a duplicate; of ten trainings one diverges."""
    fate = random.Random(derive_seed(job.task, job.key))
    kind = fate.randrange(10) if job.key != REFERENCE.key else 9
    if job.task == "train":
        if kind == 0:
            return Evaluation(job, Status.DIVERGED, "simulated", seconds=0.5)
        score = 0.75 + 0.1 * fate.random() + 0.01 * random.Random(derive_seed(job.key, job.seed, job.budget)).random()
        return Evaluation(job, Status.OK, score=round(score, 4), seconds=0.5)
    if kind == 0:
        return Evaluation(job, Status.REJECTED, "flat: simulated", seconds=0.005)
    if kind == 1:
        return Evaluation(job, Status.OK, negate=True, seconds=0.005)
    field = random.Random(fate.randrange(FIELDS)) if kind == 2 else fate
    fingerprint = tuple(round(field.gauss(0, 0.3), 9) for _ in range(FINGERPRINT))
    return Evaluation(job, Status.OK, scale=fate.lognormvariate(0, 2), fingerprint=fingerprint, seconds=0.005)


class Workers:
    """A pool of simulated workers, and the processor seconds that the simulation took."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.order = random.Random(0)
        self.seconds = 0.0
        self.answered = 0

    def __call__(self, batches: Iterable[Batch]) -> Iterator[list[Evaluation]]:
        """The evaluations of batches, `count` of them in flight, as chance finishes them."""
        waiting = iter(batches)
        running = list(itertools.islice(waiting, self.count))
        while running:
            place = self.order.randrange(len(running))
            running[place], running[-1] = running[-1], running[place]
            start = time.process_time()
            evaluations = [answer(job) for job in running.pop()]
            self.seconds += time.process_time() - start
            self.answered += len(evaluations)
            running.extend(itertools.islice(waiting, 1))
            yield evaluations


class Canon:
    """The processor seconds that canonical forms took, those included that were known or that bred nothing new."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, of: Callable[[Grammar, Individual], Expression]) -> Callable[[Grammar, Individual], Expression]:
        """The method that makes them, on this clock."""

        def expression(grammar: Grammar, tree: Individual) -> Expression:
            start = time.process_time()
            try:
                return of(grammar, tree)
            finally:
                self.seconds += time.process_time() - start

        return expression


@dataclass(frozen=True)
class Reading:
    """How things stand after a generation, since the search began; sizes in MB (of the process now, of the archive).

    `canonical` is the part of the seconds that canonical forms took.
    """

    generation: int
    evaluations: int
    candidates: int
    seconds: float
    canonical: float
    memory: float
    archive: float


class Meter:
    """Takes a reading after each generation, and ends the search when there were `evaluations`."""

    def __init__(self, directory: Path, workers: Workers, canon: Canon, evaluations: int) -> None:
        self.directory, self.workers, self.canon, self.evaluations = directory, workers, canon, evaluations
        self.start = time.process_time()
        self.candidates = 0
        self.readings = [Reading(-1, 0, 0, 0.0, 0.0, resident(), 0.0)]

    def __call__(self, progress: Progress) -> None:
        """What a search tells as it goes on."""
        row = progress.finished
        if row is None:
            return
        self.candidates += row.evaluated + row.duplicates + row.rejected
        seconds = time.process_time() - self.start - self.workers.seconds
        size = sum(path.stat().st_size for path in self.directory.glob("archive.sqlite*")) / 1e6
        counts = row.generation, self.workers.answered, self.candidates
        self.readings.append(Reading(*counts, seconds, self.canon.seconds, resident(), size))
        if self.workers.answered >= self.evaluations:
            raise TimeIsUpError


def resident() -> float:
    """The memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def measure(evaluations: int, workers: int, population: int) -> list[Reading]:
    """Readings after each generation of a search, the first one before it began."""
    space = load_space("hybrid")
    config = RunConfig(
        version=run.directory.version("evoloss"),
        dataset="digits",
        proxy="mlp",
        space_name="hybrid",
        generations=evaluations,  # more than will be
        population=population,
        playoff=False,
        space=space,
    )
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        run.create(directory, config)
        pool, canon = Workers(workers), Canon()
        meter = Meter(directory, pool, canon, evaluations)
        with patch.object(Grammar, "expression", canon.timed(Grammar.expression)):
            run.carry_on(directory, meter, pool=pool)
    return meter.readings


def windows(readings: list[Reading], evaluations: int) -> Iterator[tuple[Reading, Reading]]:
    """The readings between which each tenth of the evaluations lies."""
    before = readings[0]
    for number in range(1, WINDOWS + 1):
        after = next((r for r in readings if r.evaluations >= number * evaluations / WINDOWS), readings[-1])
        if after.candidates > before.candidates:
            yield before, after
        before = after


def growth(readings: list[Reading]) -> str:
    """The later half of the candidates beside the earlier one."""
    first, last = readings[1], readings[-1]  # generation 0 draws trees, the others breed them
    middle = min(readings[1:], key=lambda r: abs(r.candidates - (first.candidates + last.candidates) / 2))
    (early, early_canonical), (late, late_canonical) = (
        [milliseconds / (b.candidates - a.candidates) for milliseconds in spent(a, b)]
        for a, b in ((first, middle), (middle, last))
    )
    rest = (late - late_canonical) / (early - early_canonical)
    kilobytes = 1e3 * (last.memory - first.memory) / (last.candidates - first.candidates)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return (
        f"a candidate takes {late / early:.2f} times as long in the later half as in the earlier one, "
        f"its canonical form {late_canonical / early_canonical:.2f} times, all else {rest:.2f} times; "
        f"memory grows by {kilobytes:.1f} kB a candidate, at most {peak:.0f} MB"
    )


def spent(before: Reading, after: Reading) -> tuple[float, float]:
    """Milliseconds between two readings, in all and for canonical forms."""
    return 1e3 * (after.seconds - before.seconds), 1e3 * (after.canonical - before.canonical)


def line(before: Reading, after: Reading) -> list[str]:
    candidates = after.candidates - before.candidates
    milliseconds, canonical = spent(before, after)
    return [
        f"{after.evaluations:,}",
        f"{after.candidates:,}",
        f"{milliseconds / candidates:.2f}",
        f"{canonical / candidates:.2f}",
        f"{milliseconds / (after.evaluations - before.evaluations):.2f}",
        f"{after.memory:.0f}",
        f"{after.archive:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--population", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=Path("driver.csv"), help="the CSV file")
    options = parser.parse_args()
    readings = measure(options.evaluations, options.workers, options.population)
    columns = [
        "evaluations",
        "candidates",
        "ms a candidate",
        "of it canonical form",
        "ms an evaluation",
        "memory MB",
        "archive MB",
    ]
    rows = [line(before, after) for before, after in windows(readings, options.evaluations)]
    print(f"population {options.population:,}, {options.workers:,} simulated workers; processor time of the driver")
    print_table(columns, [*rows, ["all", *line(readings[0], readings[-1])[1:]]])
    print(growth(readings))
    write_csv(options.out, asdict(readings[0]), [asdict(reading) for reading in readings])


if __name__ == "__main__":
    main()
