"""What a core-hour of a search yields: `python -m benchmarks.search_efficiency --dataset fashion-mnist --out DIR`.

One stream of trees (`benchmarks.stream`) goes through two loops, generation by generation in turns. The naive loop is
what DEAP's `toolbox.map` over Ray's workers comes to: each tree that is a valid formula is trained by itself, as it
stands, in full: as long as a playoff trains, and at all its rates. evoloss screens, leaves out what it knows, matches
scales, climbs the rungs and trains in stacks. Both score on the select role, from the same seed.

A loss is judged when it has a verdict: a score, a rejection, or the loss that it equals. Losses are distinct if their
gradients are, up to a positive factor, or their texts where they were rejected. Cost is processor time of the workers
and of the driver, the loading of data left out. A formula that the stream repeats is trained once by the benchmark, and
its cost counted as often as the naive loop would have trained it.

Then evolution and random search, generation by generation in turns, with the same number of new losses trained.

Curves show, after each generation, the loss that then leads, by its select accuracy in the full training, which is not
put on the bill: the scores by which a loop found it flatter it, and those of different budgets do not compare.

Prints the tables; writes `loops.csv`, `candidates.csv`, `top.csv`, `searches.csv`, `curves.csv` and `efficiency.png`.
Archives in the directory keep every evaluation: the same command carries on where it was stopped. Half a core-hour.
"""

import argparse
import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import efficiency_picture, stream
from benchmarks.clocked_workers import clocked_workers
from benchmarks.loops import Evoloss, Ledger, Naive, Seen, as_it_stands, full, full_select
from evoloss import data
from evoloss.archive import Archive
from evoloss.config import RunConfig, load_space
from evoloss.contest import REFERENCE
from evoloss.files import write_csv
from evoloss.records import Candidate, Job
from evoloss.regimes import regimes_of
from evoloss.search import Progress, Search, TimeIsUpError
from evoloss.tables import print_table
from evoloss.tree import Individual
from evoloss.workers import Pool

TOP = 5  # of the naive loop, which evoloss should find as well
STRATEGIES = ("evolve", "random")

Row = dict[str, Any]
Quality = Callable[[Candidate], float]


def configured(dataset: str, population: int | None, generations: int) -> RunConfig:
    """A search in the default space."""
    space = load_space("hybrid")
    return RunConfig(
        version=version("evoloss"),
        dataset=dataset,
        proxy=data.default_proxy(dataset),
        space_name="hybrid",
        generations=generations,
        population=population or space.evolution.population,
        playoff=False,
        space=space,
    )


def cut(generations: Iterator[list[Individual]], count: int) -> Iterator[list[Individual]]:
    """The first `count` trees."""
    while count > 0:
        trees = next(generations)[:count]
        count -= len(trees)
        yield trees


# The stream through both loops


class Race:
    """The naive loop and evoloss on the same stream."""

    def __init__(
        self, config: RunConfig, naive: Archive, evoloss: Archive, pools: tuple[Pool, Pool], quality: Quality
    ) -> None:
        self.ledgers = {name: Ledger() for name in ("naive", "evoloss")}
        self.curves: dict[str, list[tuple[float, float]]] = {name: [] for name in self.ledgers}
        self.quality = quality
        first, second = self.ledgers.values()
        self.naive = Naive(config, first.evaluate(naive, pools[0]), first)
        self.evoloss = Evoloss(config, second.evaluate(evoloss, pools[1]))

    def run(self, generations: Iterator[list[Individual]]) -> None:
        """Each generation through both, which take turns in beginning: a machine's speed varies."""
        turns = [(self.naive, self.ledgers["naive"]), (self.evoloss, self.ledgers["evoloss"])]
        for number, trees in enumerate(generations):
            for loop, ledger in turns:
                with ledger.driving():
                    loop.judge(number, trees)
            turns.reverse()
            leader = self.evoloss.leader
            self.curves["naive"].append((self.ledgers["naive"].seconds, self.naive.leader))
            self.curves["evoloss"].append((self.ledgers["evoloss"].seconds, self.quality(leader) if leader else 0.0))
            spent = ", ".join(f"{name} {ledger.seconds:.0f}" for name, ledger in self.ledgers.items())
            say(f"generation {number}: {len(trees)} trees; core-seconds so far: {spent}")

    def identity(self, key: str) -> str:
        """The key of the loss that a formula is."""
        verdict = self.evoloss.verdict(key)
        return key if verdict is None else verdict.key

    @property
    def distinct(self) -> int:
        """How many losses were judged."""
        return len({self.identity(key) for key in self.naive.seen})

    def top(self) -> list[tuple[str, Seen]]:
        """The best losses of the naive loop, each with the key of the loss that it is."""
        scored = [(seen.score, seen.text, key) for key, seen in self.naive.seen.items() if seen.score is not None]
        best: dict[str, Seen] = {}
        for _, _, key in sorted(scored, key=lambda row: (-row[0], len(row[1]), row[2])):
            best.setdefault(self.identity(key), self.naive.seen[key])
        return list(itertools.islice(best.items(), TOP))


def loop_rows(race: Race) -> list[Row]:
    """What each loop spent and found."""
    return [
        {
            "loop": name,
            "formulas": sum(seen.times for seen in race.naive.seen.values()),
            "texts": len(race.naive.seen),
            "distinct": race.distinct,
            "trainings": ledger.trainings,
            "worker_seconds": round(ledger.workers, 2),
            "driver_seconds": round(ledger.driver, 2),
            "distinct_per_core_hour": round(3600 * race.distinct / ledger.seconds, 1),
            "leader_select": race.curves[name][-1][1],
        }
        for name, ledger in race.ledgers.items()
    ]


def top_rows(race: Race) -> list[Row]:
    """What became in evoloss of the best losses of the naive loop."""
    return [
        {"place": place, "naive_select": seen.score, **_verdict(race.evoloss.verdict(key)), "expression": seen.text}
        for place, (key, seen) in enumerate(race.top(), 1)
    ]


def candidate_rows(race: Race) -> list[Row]:
    """Every formula of the stream."""
    return [
        {"generation": seen.generation, "times": seen.times, "loss": race.identity(key), "naive_select": seen.score}
        | _verdict(race.evoloss.verdict(key))
        | {"key": key, "expression": seen.text}
        for key, seen in race.naive.seen.items()
    ]


def _verdict(candidate: Candidate | None) -> Row:
    if candidate is None:
        return {"status": "rejected", "detail": "", "rung": 0, "select": None}
    select = candidate.select.get(0) if candidate.fitness is not None else None
    return {"status": candidate.status, "detail": candidate.detail, "rung": candidate.rung + 1, "select": select}


# Evolution and random search


def search_in_turns(config: RunConfig, archives: dict[str, Archive], pool: Pool) -> None:
    """Both strategies, generation by generation. Random search trains as many new losses as evolution has bred."""
    for number, strategy in itertools.product(range(config.generations + 1), STRATEGIES):
        archive = archives[strategy]
        if len(archive.generations()) > number:
            continue
        bred = tuple(row.evaluated for row in archives["evolve"].generations()[1:])
        changes = {"strategy": strategy, "newcomers": bred if strategy == "random" else None}
        with contextlib.suppress(TimeIsUpError):
            Search(config.model_copy(update=changes), archive, pool, _stop_after_a_generation).run()
        say(f"{strategy}, generation {number} of {config.generations}")


def _stop_after_a_generation(progress: Progress) -> None:
    if progress.finished is not None:
        raise TimeIsUpError


def search_curve(candidates: Sequence[Candidate], height: int, quality: Quality) -> list[tuple[float, float]]:
    """Core-seconds of the workers after each generation, and the quality of who leads on the last rung.

    A candidate's further seeds count in the generation that it is from; who leads is told by the first seed.
    """
    seconds, curve = 0.0, []
    leader: Candidate | None = None
    for _, group in itertools.groupby(sorted(candidates, key=lambda c: c.generation), key=lambda c: c.generation):
        members = list(group)
        seconds += sum(candidate.seconds for candidate in members)
        finished = [c for c in members if c.fitness is not None and c.rung == height - 1]
        leader = max([leader, *finished] if leader else finished, key=lambda c: c.select[0], default=None)
        curve.append((seconds, quality(leader) if leader else 0.0))
    return curve


def search_rows(archives: dict[str, Archive], curves: dict[str, list[tuple[float, float]]]) -> list[Row]:
    """What each strategy spent and found."""
    return [
        {
            "strategy": strategy,
            "generations": len(archive.generations()),
            "trained": sum(row.evaluated for row in archive.generations()),
            "trainings": archive.spent()[0],
            "worker_seconds": round(curves[strategy][-1][0], 2),
            "leader_select": curves[strategy][-1][1],
        }
        for strategy, archive in archives.items()
    ]


# Everything


def say(text: str) -> None:
    """A line of progress, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def write(out: Path, name: str, rows: Sequence[Row]) -> None:
    """A table as CSV."""
    write_csv(out / f"{name}.csv", rows[0], rows)


def show(rows: Sequence[Row]) -> None:
    """A table."""

    def cell(value: Any) -> str:
        return "-" if value is None else f"{value:.4f}" if isinstance(value, float) and value < 1 else f"{value}"

    print_table([name.replace("_", " ") for name in rows[0]], [[cell(v) for v in row.values()] for row in rows])
    print()


def report(out: Path, race: Race, archives: dict[str, Archive]) -> None:
    """Print and write the tables, and draw the picture."""
    height = race.evoloss.climb.height
    loops, top = loop_rows(race), top_rows(race)
    searched = {n: search_curve(archive.candidates(), height, race.quality) for n, archive in archives.items()}
    searches = search_rows(archives, searched)
    show(loops)
    naive, evoloss = (row["distinct_per_core_hour"] for row in loops)
    print(f"evoloss judges {evoloss / naive:.1f} times as many distinct losses per core-hour\n")
    show([{name: value for name, value in row.items() if name != "detail"} for row in top])
    reached = sum(row["rung"] == height for row in top)
    print(f"{reached} of the naive loop's best {len(top)} reach evoloss's last rung, number {height}\n")
    show(searches)
    tables = {"loops": loops, "top": top, "candidates": candidate_rows(race), "searches": searches}
    curves = race.curves | searched
    points = [
        {"curve": n, "core_seconds": round(s, 2), "leader_select": b} for n, line in curves.items() for s, b in line
    ]
    for name, rows in (tables | {"curves": points}).items():
        write(out, name, rows)
    titles = (f"the same {loops[0]['formulas']} candidates", "searches, as many losses trained")
    efficiency_picture.draw(out / "efficiency.png", dict(zip(titles, (race.curves, searched), strict=True)))


def examples(config: RunConfig) -> list[Job]:
    """Jobs that need all data that any loop needs."""
    (regime,) = regimes_of(config)
    rungs = [budget for index in range(len(regime.rungs)) for budget in regime.budgets(index)]
    jobs = [as_it_stands(config, REFERENCE, budget) for budget in [*rungs, *full(config)]]
    return [replace(jobs[0], task="screen", budget=None), *jobs]


def check(out: Path, config: RunConfig) -> None:
    """Note with which options a directory was made; end where it was made with others."""
    path = out / "run.toml"
    if path.exists() and path.read_text(encoding="utf-8") != config.toml():
        raise SystemExit(f"{out} was made with other options or another evoloss: choose another --out")
    path.write_text(config.toml(), encoding="utf-8")


def main() -> None:
    """Run the stream through both loops, then both searches, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="fashion-mnist")
    parser.add_argument("--candidates", type=int, default=360, help="trees of the stream")
    parser.add_argument("--generations", type=int, default=10, help="of both searches")
    parser.add_argument("--population", type=int, help="by default the space's")
    parser.add_argument("--out", type=Path, help="where all files go; by default efficiency-DATASET")
    options = parser.parse_args()
    out = options.out or Path(f"efficiency-{options.dataset}")
    out.mkdir(parents=True, exist_ok=True)
    config = configured(options.dataset, options.population, options.generations)
    check(out, config)
    with ExitStack() as stack:
        archives = {
            name: stack.enter_context(closing(Archive(out / f"{name}.sqlite", config.data())))
            for name in ("stream", "naive", "evoloss", "full", *STRATEGIES)
        }
        workers = clocked_workers({None: data.load(config.data())}, examples(config))
        alone, stacked = stack.enter_context(workers)
        quality = partial(full_select, config, evaluate=lambda _, jobs: archives["full"].answers(jobs, stacked))
        race = Race(config, archives["naive"], archives["evoloss"], (alone, stacked), quality)
        trees = stream.generations(config, lambda _, jobs: archives["stream"].answers(jobs, stacked))
        race.run(cut(trees, options.candidates))
        searches = {strategy: archives[strategy] for strategy in STRATEGIES}
        search_in_turns(config, searches, stacked)
        report(out, race, searches)


if __name__ == "__main__":
    main()
