"""How well short trainings predict a long one: `python -m benchmarks.fidelity --dataset fashion-mnist`.

Trains the library's losses for ten classes and the forty evolved ones of `evolved.csv` at every rung of a table and for
long, at least 15 times the examples of the last rung, and correlates the ranks: within an optimizer, and from one to
the other. The evolved losses passed the screens of the run `runs/fashion-mnist-hybrid-0` and were trained there: of
each family as many, its best and others at even steps down its ranks, and no two losses with the same gradients.

Scores are accuracies on the select role; where a rung or the long training has several learning rates, a loss counts
with its best one. A loss that fails there at every rate ranks last. Rungs and the long training share no seed: no
initial weights, no draw of samples, no order of batches. Intervals are of a bootstrap over the losses.

Prints a table and writes `scores.csv` (every training), `correlations.csv` and `fidelity.png` into `--out`. An archive
there keeps every training: the same command carries on where it was stopped, and more seeds, losses or optimizers cost
only what they add. Where the archive is gone, `scores.csv` is read in its place; the optimizers that are in it take
part in any case. With `--long-seeds 2` the long training is also compared with itself, which bounds what any rung can
reach. All losses take some 60 core-minutes an optimizer on Fashion-MNIST, and 11 core-hours on CIFAR-10.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks import fidelity_report
from evoloss import data
from evoloss.archive import Archive
from evoloss.baselines import BASELINES
from evoloss.batches import LARGEST, batched
from evoloss.config import Rung, validated
from evoloss.contest import REFERENCE, SCREEN_LIMIT, Evaluate
from evoloss.evaluate import Workbenches, prepare
from evoloss.evaluate import evaluate as run
from evoloss.evidence import Estimate, bootstrapped, rank_correlations
from evoloss.expression import Expression
from evoloss.records import Budget, DataSpec, Evaluation, Job, Status, derive_seed
from evoloss.regimes import OPTIMIZERS, with_optimizer
from evoloss.report import read_table
from evoloss.workers import Pool, open_pool

EVOLVED = Path(__file__).with_name("evolved.csv")
FAILED = -1.0  # ranks below every accuracy
TOP = 5  # of the long training, which a rung that keeps a third should keep
TURNS = 3  # of timing the shortest and the last rung
REPORTS = 4  # of progress, a rung


@dataclass(frozen=True)
class Study:
    """A proxy, its rungs (the cheapest first), and the long training that they are to predict."""

    proxy: str
    rungs: tuple[Rung, ...]
    long: Rung


@dataclass(frozen=True)
class Entry:
    """A loss that takes part; `scale` makes its initial gradient as long as cross-entropy's."""

    name: str
    expression: Expression
    scale: float


@dataclass(frozen=True, eq=False)
class Trained:
    """All losses under one budget, [seeds, losses] each: select accuracy, NaN where a training failed, and seconds.

    The seconds are on the clock of the wall: where trainings outnumber cores they are no measure of cost.
    """

    accuracy: np.ndarray
    seconds: np.ndarray


Results = dict[Budget, Trained]
Plan = list[tuple[Rung, list[int]]]  # the rungs under an optimizer, each with its seeds


@dataclass(frozen=True)
class Reading:
    """One way to score losses: a rung and so many seeds."""

    rung: Rung
    seeds: int

    @property
    def title(self) -> str:
        """Samples and epochs, rates and seeds where there are several."""
        rates, seeds = self.rung.rates, self.seeds
        words = f"{self.rung.samples:,} x {self.rung.epochs}" + " pooled" * (self.rung.pooled > 1)
        words += f" at {', '.join(f'{rate:g}' for rate in rates)}" * (len(rates) > 1)
        return words + f"; {seeds} seeds" * (seeds > 1)

    def scores(self, results: Results) -> list[np.ndarray]:
        """Scores [losses], once for each group of so many seeds that there is."""
        count = len(results[self.rung.budgets()[0]].accuracy)
        groups = [range(first, first + self.seeds) for first in range(0, count - self.seeds + 1, self.seeds)]
        return [best(self.rung, results, group) for group in groups]


@dataclass(frozen=True)
class Cost:
    """Core-seconds of a training with cross-entropy: of every training (a new model, scoring), and of every step."""

    training: float
    step: float

    def of(self, reading: Reading) -> float:
        """Core-seconds that a loss takes."""
        budgets = reading.rung.budgets()
        return reading.seeds * len(budgets) * (self.training + self.step * steps(budgets[0]))


Costs = dict[tuple[str, int], Cost]  # by optimizer and pooled pixels


@dataclass(frozen=True)
class Prediction:
    """How well a reading under one optimizer predicts the long training under `long`, the same or another.

    `cost` is in core-seconds, as a share of what the long training of a loss takes at all its rates on one seed. `half`
    is Spearman's correlation among the better half of the losses by the long training, `kept` how many of its best five
    are in the reading's best third. Where the reading can be repeated on other seeds, these are means.
    """

    optimizer: str
    long: str
    reading: Reading
    cost: float
    spearman: Estimate
    kendall: Estimate
    half: Estimate
    kept: float


# Trainings


def evolved() -> dict[str, Expression]:
    """The evolved losses by name."""
    return {row["name"]: Expression(row["expression"]) for row in read_table(EVOLVED)}


def entries(proxy: str, count: int | None, evaluate: Evaluate) -> list[Entry]:
    """The losses that pass the screens; of `count` of them, library and evolved ones in proportion."""
    library = {row.name: Expression.parse(row.expression) for row in BASELINES.values() if row.classes in (None, 10)}
    losses = list((library | evolved()).items())
    chosen = losses if count is None else [losses[place * len(losses) // count] for place in range(count)]
    seed = derive_seed("fidelity", "screen", 0)
    jobs = {name: Job("screen", e.key, e.text, proxy, seed, time_limit=SCREEN_LIMIT) for name, e in chosen}
    answers = evaluate(jobs.values())
    scales = {name: answers[job].scale for name, job in jobs.items()}
    for name in (name for name, scale in scales.items() if scale is None):
        say(f"{name} does not take part: {answers[jobs[name]].detail or 'it learns when negated'}")
    return [Entry(name, expression, scale) for name, expression in chosen if (scale := scales[name]) is not None]


def trained(proxy: str, losses: Sequence[Entry], rung: Rung, seeds: Sequence[int], evaluate: Evaluate) -> Results:
    """Every loss at every rate of the rung on every seed."""
    jobs = {
        budget: [[_job(proxy, entry, budget, seed) for entry in losses] for seed in seeds] for budget in rung.budgets()
    }
    answers = evaluate(job for table in jobs.values() for line in table for job in line)

    def table(budget: Budget, name: str) -> np.ndarray:
        return np.array([[getattr(answers[job], name) for job in line] for line in jobs[budget]], dtype=float)

    return {budget: Trained(table(budget, "score"), table(budget, "seconds")) for budget in jobs}


def _job(proxy: str, entry: Entry, budget: Budget, seed: int) -> Job:
    key, text = entry.expression.key, entry.expression.text
    return Job("train", key, text, proxy, seed, budget, entry.scale, time_limit=budget.time_limit)


def recalled(path: Path, proxy: str, losses: Sequence[Entry], plan: Plan) -> Iterator[Evaluation]:
    """The trainings of a plan that a `scores.csv` has; nan is one that failed."""
    jobs = {
        (entry.expression.text, b.optimizer, b.samples, b.epochs, b.pooled, b.learning_rate, number): _job(
            proxy, entry, b, seed
        )
        for rung, seeds in plan
        for b in rung.budgets()
        for number, seed in enumerate(seeds)
        for entry in losses
    }
    for row in read_table(path):
        counts = (int(row[name]) for name in ("samples", "epochs"))
        pooled = int(row.get("pooled", 1))  # tables of before 0.5.0 lack it
        numbers = (*counts, pooled, float(row["rate"]), int(row["seed"]))
        if job := jobs.get((row["expression"], row["optimizer"], *numbers)):
            score, seconds = float(row["select_acc"]), float(row["seconds"])
            failed = math.isnan(score)
            yield Evaluation(
                job, Status.DIVERGED if failed else Status.OK, score=None if failed else score, seconds=seconds
            )


def known_optimizers(path: Path) -> list[str]:
    """Those that a `scores.csv` has trainings of; none where there is no such file."""
    if not path.exists():
        return []
    return list(dict.fromkeys(row["optimizer"] for row in read_table(path)))


def seeds_of(series: str, count: int) -> list[int]:
    """The seeds of the rungs, or of the long trainings: never the same."""
    return [derive_seed("fidelity", series, number) for number in range(count)]


def steps(budget: Budget) -> int:
    """The steps of a training."""
    return budget.epochs * -(-budget.samples // budget.batch_size)


def clocked(study: Study, optimizer: str, workbenches: Workbenches) -> Costs:
    """By optimizer and by how many pixels are pooled: from the processor time of the shortest and of the last rung.

    They run in turn and in this process, as many trainings together as the engine puts together; the medians count.
    """
    sizes = dict.fromkeys(rung.pooled for rung in (*study.rungs, study.long))
    return {(optimizer, pooled): _clocked(study, optimizer, pooled, workbenches) for pooled in sizes}


def _clocked(study: Study, optimizer: str, pooled: int, workbenches: Workbenches) -> Cost:
    ends = (middle(rung).model_copy(update={"pooled": pooled}) for rung in (study.rungs[0], study.rungs[-1]))
    chosen = [with_optimizer(rung, optimizer).budgets()[0] for rung in ends]
    pairs: list[tuple[float, ...]] = []
    for _ in range(1 + TURNS):
        pairs.append(tuple(_seconds(study.proxy, budget, workbenches) for budget in chosen))
    short, last = map(statistics.median, zip(*pairs[1:], strict=True))  # the first turn prepares the data
    step = (last - short) / (steps(chosen[1]) - steps(chosen[0]))
    return Cost(short - step * steps(chosen[0]), step)


def _seconds(proxy: str, budget: Budget, workbenches: Workbenches) -> float:
    """Processor time of a training with cross-entropy, in a batch with others at rates nearby."""
    budgets = [replace(budget, learning_rate=budget.learning_rate * (1 + n / 100)) for n in range(LARGEST["train"])]
    batch = next(batched(_job(proxy, Entry("ce", REFERENCE, 1.0), near, 0) for near in budgets))
    start = time.process_time()
    run(batch, workbenches)
    return (time.process_time() - start) / len(batch)


def best(rung: Rung, results: Results, places: Sequence[int]) -> np.ndarray:
    """Mean accuracy [losses] over the seeds at these places, at each loss's best rate."""
    means = np.stack([results[budget].accuracy[places].mean(0) for budget in rung.budgets()])
    return np.nan_to_num(means, nan=FAILED).max(0)


# Correlations


def readings(study: Study, optimizer: str, count: int) -> list[Reading]:
    """Every rung, a sweep also at its middle rate alone, and with those beside it, with one seed and with all."""
    parts = [part for rung in study.rungs for part in dict.fromkeys((middle(rung), lower(rung), inner(rung), rung))]
    return [Reading(with_optimizer(part, optimizer), seeds) for part in parts for seeds in dict.fromkeys((1, count))]


def middle(rung: Rung) -> Rung:
    """A sweep cut down to the rate in its middle, of two to the smaller one."""
    return rung.model_copy(update={"rates": (statistics.median_low(rung.rates),)})


def lower(rung: Rung) -> Rung:
    """A sweep without the rates above the one in its middle."""
    (most,) = middle(rung).rates
    return rung.model_copy(update={"rates": tuple(rate for rate in rung.rates if rate <= most)})


def inner(rung: Rung) -> Rung:
    """A sweep cut down to the rate in its middle and the next one above."""
    place = rung.rates.index(*middle(rung).rates)
    return rung.model_copy(update={"rates": rung.rates[place : place + 2]})


def predictions(study: Study, results: dict[str, Results], costs: Costs, count: int) -> list[Prediction]:
    """Every reading under every optimizer against every long training, the same optimizer's first.

    Where the long training has several seeds, the last reading of an optimizer is the long training itself, its second
    seed against its first: the most that any rung can reach.
    """
    pairs = sorted(itertools.product(results, results), key=lambda pair: pair[0] != pair[1])
    lines: list[Prediction] = []
    for optimizer, other in pairs:
        long = Reading(with_optimizer(study.long, other), 1)
        repeats = long.scores(results[other])
        target = best(long.rung, results[other], range(len(repeats)))
        scored = {reading: reading.scores(results[optimizer]) for reading in readings(study, optimizer, count)}
        compared = [(reading, vectors, target) for reading, vectors in scored.items()]
        if optimizer == other and len(repeats) > 1:
            compared.append((long, repeats[1:], repeats[0]))
        for reading, vectors, truth in compared:
            spent = costs[optimizer, reading.rung.pooled].of(reading)
            cost = spent / costs[other, study.long.pooled].of(long)
            lines.append(Prediction(optimizer, other, reading, cost, *agreement(vectors, truth)))
    return lines


def agreement(vectors: Sequence[np.ndarray], target: np.ndarray) -> tuple[Estimate, Estimate, Estimate, float]:
    """Spearman, Kendall, Spearman among the target's better half, and how many of its top the best third keeps."""
    half = np.argsort(-target, kind="stable")[: len(target) // 2]
    pairs = [rank_correlations(vector, target) for vector in vectors]
    upper = [rank_correlations(vector[half], target[half])[0] for vector in vectors]
    curves = (*zip(*pairs, strict=True), upper)
    spearman, kendall, among = (bootstrapped(np.mean(curve, axis=0)) for curve in curves)
    return spearman, kendall, among, statistics.fmean(kept(vector, target) for vector in vectors)


def kept(scores: np.ndarray, target: np.ndarray) -> int:
    """How many of the target's best five are in the best third of the scores."""
    third = np.argsort(-scores, kind="stable")[: -(-len(scores) // 3)]
    return len(np.intersect1d(third, np.argsort(-target, kind="stable")[:TOP]))


# The command


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def optimizers(text: str) -> list[str]:
    """The optimizers of an option's value."""
    names = list(dict.fromkeys(text.split(",")))
    if not set(names) <= set(OPTIMIZERS):
        raise argparse.ArgumentTypeError(f"expected adam, sgd or adam,sgd, got `{text}`")
    return names


def main() -> None:
    """Train what is missing, optimizer by optimizer, and write what is known after each; print it at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=STUDIES, default="fashion-mnist")
    parser.add_argument("--optimizer", type=optimizers, default="adam,sgd", help="one or both, comma-separated")
    parser.add_argument("--losses", type=int, help="so many losses instead of all, spread over the list")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of every rung")
    parser.add_argument("--long-seeds", type=int, default=1, help="seeds of the long training")
    parser.add_argument("--long-rates", help="its learning rates, such as 1e-3,3e-3")
    parser.add_argument("--workers", type=int, help="processes; by default one a core, 0 for none but this one")
    parser.add_argument("--out", type=Path, help="where the archive and the files go; by default fidelity-DATASET")
    options = parser.parse_args()
    out = options.out or Path(f"fidelity-{options.dataset}")
    out.mkdir(parents=True, exist_ok=True)
    scores = out / "scores.csv"
    study, spec = STUDIES[options.dataset], DataSpec(options.dataset)
    if options.long_rates:
        long = study.long.model_dump() | {"rates": options.long_rates.split(",")}
        study = replace(study, long=validated(Rung, long, "--long-rates"))
    dataset = data.load(spec)
    with closing(Archive(out / "archive.sqlite", spec)) as archive, ExitStack() as stack:
        opened = cache(lambda: stack.enter_context(open_pool({None: dataset}, options.workers)))
        evaluate = partial(_answers, archive, lambda jobs: opened()(jobs))
        losses = entries(study.proxy, options.losses, evaluate)
        results: dict[str, Results] = {}
        costs: Costs = {}
        names = dict.fromkeys([*options.optimizer, *known_optimizers(scores)])
        plans = {name: plan_of(study, name, options.seeds, options.long_seeds) for name in names}
        if scores.exists():
            for plan in plans.values():
                archive.add(recalled(scores, study.proxy, losses, plan))
        for optimizer, plan in plans.items():
            results[optimizer] = _measured(study.proxy, losses, plan, evaluate)
            costs |= clocked(study, optimizer, prepare({None: dataset}))
            lines = predictions(study, results, costs, options.seeds)
            fidelity_report.write(out, losses, results, lines)
    print(f"{options.dataset}, {study.proxy}, {len(losses)} losses")
    for (name, pooled), cost in costs.items():
        words = name + (f", {pooled} x {pooled} pixels pooled" if pooled > 1 else "")
        print(f"{words}: {1e3 * cost.step:.2f} ms a step, {1e3 * cost.training:.0f} ms more a training")
    print()
    fidelity_report.show(lines)


def plan_of(study: Study, optimizer: str, short: int, long: int) -> Plan:
    """The rungs under an optimizer, each with its seeds, the cheap ones first."""
    plan = [(rung, seeds_of("rung", short)) for rung in study.rungs] + [(study.long, seeds_of("long", long))]
    return [(with_optimizer(rung, optimizer), seeds) for rung, seeds in plan]


def _measured(proxy: str, losses: Sequence[Entry], plan: Plan, evaluate: Evaluate) -> Results:
    """All trainings under one optimizer."""
    results: Results = {}
    for rung, seeds in plan:
        say(f"{rung.optimizer}, {Reading(rung, len(seeds)).title}: {len(losses)} losses")
        results |= trained(proxy, losses, rung, seeds, evaluate)
    return results


def _answers(archive: Archive, pool: Pool, jobs: Iterable[Job]) -> dict[Job, Evaluation]:
    """The archive's answers, with reports of progress."""
    jobs = list(jobs)
    heard = itertools.count(1)

    def report(_: Evaluation) -> None:
        number = next(heard)
        if number % -(-len(jobs) // REPORTS) == 0:
            say(f"  {number} of {len(jobs)}")

    return archive.answers(jobs, pool, report)


# Tables

_IMAGES = {"batch_size": 64, "flips": True}

STUDIES = {
    "fashion-mnist": Study(
        "mlp",
        (
            Rung(samples=1_000, epochs=1, rates=(3e-3,)),
            Rung(samples=2_500, epochs=1, rates=(3e-3,)),
            Rung(samples=5_000, epochs=1, rates=(3e-3,)),
            Rung(samples=5_000, epochs=2, rates=(1.5e-3, 3e-3, 6e-3, 1.2e-2)),
            Rung(samples=10_000, epochs=1, rates=(3e-3,)),
            Rung(samples=10_000, epochs=2, rates=(3e-3,)),
            Rung(samples=10_000, epochs=3, rates=(1.5e-3, 3e-3, 6e-3, 1.2e-2)),
        ),
        Rung(samples=50_000, epochs=10, rates=(1e-3, 2e-3, 4e-3), time_limit=3600),
    ),
    "cifar10": Study(
        "inception",
        (
            Rung(samples=2_000, epochs=1, rates=(3e-3,), pooled=2, **_IMAGES),
            Rung(samples=4_000, epochs=1, rates=(3e-3,), pooled=2, **_IMAGES),
            Rung(samples=5_000, epochs=2, rates=(1.5e-3, 3e-3, 6e-3, 1.2e-2), pooled=2, **_IMAGES),
        ),
        Rung(samples=25_000, epochs=6, rates=(1e-3, 3e-3), time_limit=14_400, **_IMAGES),  # 2 to 4 core-minutes each
    ),
}

if __name__ == "__main__":
    main()
