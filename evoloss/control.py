"""Evolution beside random search under the same budget, repeated: did evolution beat chance?

A control is a directory of run directories, `evolve-<seed>` and `random-<seed>` for each repeat. Both start from the
same generation 0, which is trained once, and in each one after it random search trains as many new losses as evolution
has trained there. Scores that guided a search flatter its winner, so each winner is trained again on seeds that neither
search has used.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from evoloss import directory, report, run
from evoloss.archive import Archive
from evoloss.backend import HERE, Backend
from evoloss.cache import spared
from evoloss.climb import Climb
from evoloss.config import Count, RunConfig, Settings, read_toml, validated
from evoloss.evidence import Difference, difference, verdict
from evoloss.ranking import ranked
from evoloss.records import Candidate
from evoloss.search import Watch
from evoloss.workers import Pool

Strategy = Literal["evolve", "random"]
Watching = Callable[[str], AbstractContextManager[Watch]]  # shows what goes on under a title

SETTINGS = "control.toml"
VERDICTS = {
    "better": "evolution beat chance",
    "worse": "chance beat evolution",
    "not distinguishable": "not distinguishable from chance",
    "one seed shows nothing": "one repeat shows nothing",
}


class Control(Settings):
    """All that a control depends on, as `control.toml` has it: `run` is repeated at its seed and those that follow."""

    repeats: Count = 5
    fresh_seeds: Count = 5
    run: RunConfig


@dataclass(frozen=True)
class Winner:
    """The best loss of a search, and what its trainings took in core-seconds, those included that both searches share.

    `name` is empty unless the loss is hand-written; `fitness` is its score in the search, `fresh` on fresh seeds.
    """

    fitness: float
    fresh: float
    trainings: int
    seconds: float
    generation: int
    name: str
    expression: str


@dataclass(frozen=True)
class Repeat:
    """Both searches at one seed, and cross-entropy."""

    seed: int
    evolve: Winner
    random: Winner
    ce_fitness: float | None
    ce_fresh: float | None


@dataclass(frozen=True)
class _Outcome:
    """A finished search."""

    best: Candidate
    ce: Candidate
    newcomers: tuple[int, ...]
    spent: tuple[int, float]

    def winner(self, fresh: dict[str, float]) -> Winner:
        best = self.best
        scores = (best.fitness or 0.0, fresh[best.key])
        return Winner(*scores, *self.spent, best.generation, best.name, best.expression)


def create(path: Path, control: Control) -> None:
    """Make the directory of a control. Raises `EvolossError` where it exists."""
    directory.create(path, SETTINGS, control.toml(), control.run.device)


def load(path: Path) -> Control:
    """The settings of a control's directory. Raises `EvolossError`."""
    return validated(Control, read_toml(path / SETTINGS), str(path / SETTINGS))


def carry_on(path: Path, watching: Watching, backend: Backend = HERE) -> list[Repeat]:
    """All repeats, from where they stand to the end; `control.csv` is rewritten after each."""
    control = load(path)
    directory.check_version(path, control.run.version)
    repeats: list[Repeat] = []
    for seeds in _sharing(control):
        datasets = run.load_data(_configured(control, seeds[0], "evolve"))
        known = run.digests(datasets)
        with backend.open(datasets, control.run.device) as pool:
            for seed in seeds:
                repeats.append(_repeat(path, control, seed, pool, known, watching))
                report.write_rows(path / "control.csv", [_row(repeat) for repeat in repeats])
    return repeats


def gaps(repeats: Sequence[Repeat]) -> tuple[Difference | None, Difference | None]:
    """Evolution minus random search, paired by repeat: winners on fresh seeds, and as their searches scored them."""
    fresh = difference([r.evolve.fresh for r in repeats], [r.random.fresh for r in repeats])
    return fresh, difference([r.evolve.fitness for r in repeats], [r.random.fitness for r in repeats])


def conclusion(repeats: Sequence[Repeat]) -> str:
    """Whether evolution beat chance, by the fresh seeds."""
    return VERDICTS[verdict(gaps(repeats)[0])]


def _sharing(control: Control) -> list[Sequence[int]]:
    """The seeds of all repeats, in groups on the same data: one group, unless a seed shapes the train role."""
    seeds = range(control.run.seed, control.run.seed + control.repeats)
    return [[seed] for seed in seeds] if control.run.data().shaped else [seeds]


def _configured(control: Control, seed: int, strategy: Strategy, newcomers: tuple[int, ...] | None = None) -> RunConfig:
    """One run of a control. It holds no playoff: its winner is judged beside the other one's."""
    changes = {"seed": seed, "strategy": strategy, "newcomers": newcomers, "playoff": False}
    return control.run.model_copy(update=changes)


def _repeat(path: Path, control: Control, seed: int, pool: Pool, known: dict[str, str], watching: Watching) -> Repeat:
    """Evolution, random search with as many newcomers, then both winners and cross-entropy on fresh seeds."""

    def searched(strategy: Strategy, pool: Pool, newcomers: tuple[int, ...] | None = None) -> _Outcome:
        place = path / f"{strategy}-{seed}"
        if not (place / "run.toml").is_file():
            run.create(place, _configured(control, seed, strategy, newcomers))
            directory.record_data(place, known)
        with watching(f"seed {seed}, {strategy}") as watch:
            run.carry_on(place, watch, pool=pool)
        return _outcome(place, config)

    config = _configured(control, seed, "evolve")
    evolve = searched("evolve", pool)
    with closing(_archive(path / f"evolve-{seed}", config)) as archive:
        random = searched("random", spared(pool, archive.find), evolve.newcomers)
    ce = evolve.ce
    with watching(f"seed {seed}, winners on fresh seeds"), directory.in_use(path):
        fresh = _fresh(path / "fresh.sqlite", config, control.fresh_seeds, [evolve.best, random.best], ce, pool)
    return Repeat(seed, evolve.winner(fresh), random.winner(fresh), ce.fitness, fresh.get(ce.key))


def _archive(path: Path, config: RunConfig) -> Archive:
    return Archive(path / "archive.sqlite", config.data(), read_only=True)


def _outcome(path: Path, config: RunConfig) -> _Outcome:
    with closing(_archive(path, config)) as archive:
        candidates = archive.candidates()
        newcomers = tuple(row.evaluated for row in archive.generations()[1:])
        ce = next(candidate for candidate in candidates if candidate.name == "ce")
        return _Outcome(ranked(candidates)[0], ce, newcomers, archive.spent())


def _fresh(
    path: Path, config: RunConfig, count: int, winners: Iterable[Candidate], ce: Candidate, pool: Pool
) -> dict[str, float]:
    """Mean score, as a search scores, over `count` seeds that no search uses, by key; without those that have none."""
    living = {candidate.key: candidate for candidate in (*winners, ce) if candidate.fitness is not None}
    with closing(Archive(path, config.data())) as archive:
        climb = Climb(config, lambda _, jobs: archive.answers(jobs, pool), "control")
        return climb.fresh(list(living.values()), ce, count)


def _row(repeat: Repeat) -> dict[str, Any]:
    sides = {"evolve": asdict(repeat.evolve), "random": asdict(repeat.random)}
    columns = {f"{side}_{name}": values[name] for name in sides["evolve"] for side, values in sides.items()}
    return {"seed": repeat.seed} | columns | {"ce_fitness": repeat.ce_fitness, "ce_fresh": repeat.ce_fresh}
