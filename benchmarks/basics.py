"""The figures that a user feels, measured on this machine: `python -m benchmarks.basics`.

Prints a table of figure, bound and measurement in two minutes; `--fashion` adds a search on Fashion-MNIST, ten
minutes on two cores, with the data from where `EVOLOSS_DATA` points. Nothing else should be running.
"""

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from evoloss.baselines import BASELINES
from evoloss.config import load_space
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.machine import cores, processor
from evoloss.tree import Grammar, Individual, seeded


def seconds(action: Callable[[], object]) -> float:
    """Wall-clock seconds of one call."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def bred_trees(count: int) -> list[Individual]:
    """Trees as a run meets them: random ones and their children over a few generations."""
    grammar = Grammar(load_space("hybrid"))
    trees: list[Individual] = []
    with seeded(0):
        parents = [grammar.individual(Expression.parse(BASELINES[name].expression)) for name in grammar.space.seeds]
        parents += [grammar.draw(index) for index in range(40)]
        while len(trees) < count:
            for number, tree in enumerate(parents):
                tree.fitness.values = (0, number % 7)
                tree.expression = Expression.parse("-y*log(p)")
            children = [grammar.vary(parents) for _ in range(40)]
            trees += children
            parents = children
    return trees[:count]


def help_time() -> str:
    """The median of five `evoloss --help`."""
    command = [sys.executable, "-m", "evoloss", "--help"]
    times = [seconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(5)]
    return f"{statistics.median(times):.2f} s"


def canonical_time() -> str:
    """Tree to canonical text, median over 1,000 bred trees."""
    grammar = Grammar(load_space("hybrid"))
    times: list[float] = []
    for tree in bred_trees(1000):
        start = time.perf_counter()
        try:
            grammar.expression(tree)
        except EvolossError:
            continue
        times.append(time.perf_counter() - start)
    return f"{1e3 * statistics.median(times):.1f} ms (mean {1e3 * statistics.fmean(times):.1f}, {len(times)} trees)"


def step_overhead() -> str:
    """A training step of the small Inception: NGL over `F.cross_entropy`."""
    import torch

    from benchmarks import step

    torch.set_num_threads(1)
    ngl = Expression.parse(BASELINES["ngl"].expression).text
    plain, evolved = step.rows(step.INCEPTION, [ngl], step.peak())
    return f"{100 * (evolved['ratio'] - 1):+.1f} % (of {plain['ms']:.1f} ms)"


def digits_search() -> tuple[str, str]:
    """A search with the defaults, Ray included; then its playoff."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        took = search_seconds(run, "--dataset", "digits", "--no-playoff")
        settings = run / "run.toml"
        settings.write_text(settings.read_text().replace("playoff = false", "playoff = true", 1))
        playoff = resume_seconds(run)
    return f"{took:.0f} s", f"{playoff:.0f} s"


def fashion_search() -> str:
    """Fifty generations on Fashion-MNIST."""
    with tempfile.TemporaryDirectory() as folder:
        return f"{search_seconds(Path(folder) / 'run', '--dataset', 'fashion-mnist', '--generations', '50'):.0f} s"


def search_seconds(directory: Path, *options: str) -> float:
    """The wall-clock seconds of a search in a process of its own."""
    command = [sys.executable, "-m", "evoloss", "search", *options, "--out", str(directory), "--quiet"]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def resume_seconds(directory: Path) -> float:
    """The wall-clock seconds of what is left of a run."""
    command = [sys.executable, "-m", "evoloss", "resume", str(directory), "--quiet"]
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True))


def main() -> None:
    """Measure and print, a line as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", action="store_true", help="time the search on Fashion-MNIST as well")
    arguments = parser.parse_args()

    def line(what: str, bound: str, measured: str) -> None:
        print(f"| {what} | {bound} | {measured} |", flush=True)

    print(f"{processor()}, {cores()} cores, {platform.system()}, Python {platform.python_version()}\n")
    print("| what | bound | measured |\n| --- | --- | --- |")
    line("`evoloss --help`", "under 0.6 s", help_time())
    line("tree to canonical text, median", "under 10 ms", canonical_time())
    line("NGL over `F.cross_entropy`, training step of the small Inception", "under 5 %", step_overhead())
    whole, playoff = digits_search()
    line("`search --dataset digits --no-playoff`", "under 90 s", whole)
    line("its playoff, unseen regimes included", "", playoff)
    if arguments.fashion:
        line("`search --dataset fashion-mnist --generations 50`", "under 300 s", fashion_search())


if __name__ == "__main__":
    main()
