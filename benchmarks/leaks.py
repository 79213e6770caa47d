"""Do long runs grow? Memory and open files of the driver and of a worker: `python -m benchmarks.leaks`.

A search on digits, as `evoloss search` runs it, over one Ray worker, with budgets so small that 5,000 screens and
trainings take minutes. Memory is what is the process's own (RssAnon of Linux): what workers share in Ray's object store
is not counted. The bound: after all evaluations at most a tenth more than after the first tenth of them, and no more
open files. `--workers 0` has both in one process. Writes every reading as CSV (`--out`).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks import chaos, nodes
from evoloss import run
from evoloss.backend import Backend
from evoloss.config import RunConfig, load_space
from evoloss.files import write_csv
from evoloss.search import Progress, TimeIsUpError
from evoloss.tables import print_table

READINGS = 50
GROWTH = 0.1  # at most, of the memory after the first tenth
SPACE = chaos.SMALL[1]


@dataclass(frozen=True)
class Reading:
    """A process after so many evaluations: its own memory, in MB, and its open files."""

    process: str
    evaluations: int
    memory: float
    files: int


class Meter:
    """Reads at every so many evaluations, and ends the search when there were enough."""

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations
        self.every = max(evaluations // READINGS, 1)
        self.heard = 0
        self.readings: list[Reading] = []

    def __call__(self, progress: Progress) -> None:
        """What a search tells as it goes on: an evaluation, or the end of a generation."""
        if progress.finished is not None:
            return
        self.heard += 1
        if self.heard % self.every == 0:
            self.readings += [Reading(name, self.heard, own_memory(pid), files(pid)) for name, pid in processes()]
        if self.heard >= self.evaluations:
            raise TimeIsUpError


def processes() -> Iterator[tuple[str, int]]:
    """The driver, which is this process, and its Ray workers."""
    yield "driver", os.getpid()
    for pid, line in nodes.descendants(os.getpid()).items():
        if line.startswith("ray::_Worker"):
            yield "worker", pid


def own_memory(pid: int) -> float:
    """The memory that only this process has, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


def files(pid: int) -> int:
    """The files, sockets and pipes that are open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def measure(evaluations: int, workers: int) -> list[Reading]:
    """The readings of one search."""
    config = RunConfig(
        version=version("evoloss"),
        dataset="digits",
        proxy="mlp",
        space_name=SPACE,
        generations=evaluations,  # more than will be
        population=max(evaluations // 125, 8),  # the first tenth is to have more than one generation
        playoff=False,
        space=load_space(SPACE),
    )
    meter = Meter(evaluations)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        run.create(path, config)
        run.carry_on(path, meter, Backend(workers))
    return meter.readings


def growth(readings: list[Reading]) -> dict[str, tuple[Reading, Reading]]:
    """By process, the reading after the first tenth of the evaluations and the last one."""
    found: dict[str, tuple[Reading, Reading]] = {}
    for name in dict.fromkeys(reading.process for reading in readings):
        own = [reading for reading in readings if reading.process == name]
        last = own[-1]
        first = next(reading for reading in own if reading.evaluations >= last.evaluations / 10)
        found[name] = first, last
    return found


def complaints(readings: list[Reading], bound: float = GROWTH) -> list[str]:
    """What has grown beyond the bounds."""
    found: list[str] = []
    for name, (first, last) in growth(readings).items():
        if last.memory > first.memory * (1 + bound):
            found.append(f"the memory of the {name} grew from {first.memory:.0f} to {last.memory:.0f} MB")
        if last.files > first.files:
            found.append(f"the open files of the {name} grew from {first.files} to {last.files}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluations", type=int, default=5_000)
    parser.add_argument("--workers", type=int, default=1, choices=[0, 1])
    parser.add_argument("--bound", type=float, default=GROWTH, help="of the memory, as a share")
    parser.add_argument("--out", type=Path, default=Path("leaks.csv"), help="the CSV file")
    options = parser.parse_args()
    readings = measure(options.evaluations, options.workers)
    rows = [
        [
            name,
            *(f"{reading.memory:.1f} MB, {reading.files} files" for reading in pair),
            f"{pair[1].memory / pair[0].memory - 1:+.1%}",
        ]
        for name, pair in growth(readings).items()
    ]
    first, last = next(iter(growth(readings).values()))
    columns = ("process", f"after {first.evaluations:,}", f"after {last.evaluations:,} evaluations", "memory")
    print_table(columns, rows)
    found = complaints(readings, options.bound)
    for line in found:
        print(line)
    write_csv(options.out, asdict(readings[0]), [asdict(reading) for reading in readings])
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
