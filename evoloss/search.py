"""The loop: vary, dedupe, evaluate, select.

A generation follows from the run's seed, its number and what the finished generations left, and from nothing else: not
from time, the number of workers, or the order in which they answer. That is what makes a resumed run end as one that
was never interrupted.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from evoloss.archive import Archive
from evoloss.census import Census
from evoloss.climb import Climb
from evoloss.config import RunConfig
from evoloss.duplicates import echoes
from evoloss.errors import EvolossError
from evoloss.evaluations import as_written
from evoloss.expression import Expression
from evoloss.newcomers import Member, Newcomers
from evoloss.ranking import ranked
from evoloss.records import Batch, Candidate, Evaluation, Generation, Job, Status
from evoloss.refinement import refined
from evoloss.selection import SELECTIONS
from evoloss.tree import Grammar, Individual
from evoloss.workers import Pool

SETTLE_ROUNDS = 100  # of seeds for the winners at the end; a guard: a front of 20 losses is through after some 40

log = logging.getLogger("evoloss")


class TimeIsUpError(Exception):
    """The time limit of this session has passed; the archive has all that is finished."""


@dataclass
class Progress:
    """What a person watching wants to know."""

    generations: int
    started: float
    first: int = 0  # the generation at which this session began
    generation: int = 0
    phase: str = ""
    done: int = 0
    due: int = 0
    trained: int = 0
    shared: int = 0  # trainings that another run has done, taken from a cache
    cached: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    best: Candidate | None = None
    references: dict[str, Candidate] = field(default_factory=dict)
    finished: Generation | None = None
    gains: bool = False  # fitnesses are gains over cross-entropy, not accuracies
    ended: bool = False  # nobody works on it any more

    def count(self, evaluations: Iterable[Evaluation]) -> None:
        """Count trainings by where they were done."""
        trainings = [evaluation for evaluation in evaluations if evaluation.job.task == "train"]
        taken = sum(evaluation.shared for evaluation in trainings)
        self.shared += taken
        self.trained += len(trainings) - taken


Watch = Callable[[Progress], None]


class Search:
    """One search, from where its archive stands to its last generation."""

    def __init__(self, config: RunConfig, archive: Archive, pool: Pool, watch: Watch = lambda _: None) -> None:
        self.config = config
        self.archive = archive
        self.pool = pool
        self.watch = watch
        self.selection = SELECTIONS[config.selection]
        self.grammar = Grammar(config.space)
        self.census = Census()
        self.newcomers = Newcomers(config, self.grammar, self.census, self._evaluate)
        self.climb = Climb(config, self._evaluate)
        self.population: list[Individual] = []
        self.restored = False  # whether the archive was found to be whole
        self.progress = Progress(
            config.generations, time.monotonic(), rejected=self.census.rejected, gains=config.gains
        )
        limit = config.time_limit
        self.deadline = math.inf if limit is None else time.monotonic() + limit

    def run(self) -> None:
        """Search to the last generation. Raises `TimeIsUpError` at the time limit; `run` again continues."""
        self._restore()
        self.progress.first = len(self.archive.generations())
        for number in range(self.progress.first, self.config.generations + 1):
            self._generation(number)
        self._settle()

    def _restore(self) -> None:
        self.census.restore(self.archive)
        with as_written(self.archive.path):
            _check_losses(self.census.candidates.values())
            for key, names in self.archive.population():
                tree = self.grammar.load(names)
                tree.expression = Expression(self.census.candidates[key].expression)
                self.population.append(tree)
        self.selection.rate_parents(self.population, self.census.candidates)
        self.restored = True

    def _generation(self, number: int) -> None:
        start = time.monotonic()
        self.census.begin()
        self.progress.generation = number
        self._train(_STRATEGIES[self.config.strategy](self, number) if number else self.newcomers.initial())
        self._reseed(self._leaders(self._members()) + self.census.named("ce", "ngl"))
        if not ranked(self._members()):
            raise self._hopeless()
        self.selection.rate_parents(self.population, self.census.candidates)
        self._end(number, time.monotonic() - start)

    def _bred(self, number: int) -> list[Member]:
        """Offspring, and at times the leaders with refined constants."""
        offspring = self.newcomers.offspring(number, self.population, self.selection.choose)
        leaders = ranked(self._members())
        return offspring + refined(number, leaders, self.newcomers, self.climb, self._reference())

    def _train(self, members: list[Member]) -> None:
        """Climb the rungs, and let the best live on."""
        self.climb.climb([member.candidate for member in members], self._reference())
        self.census.tally["evaluated"] += len(members)
        self.census.tally["diverged"] += sum(member.candidate.fitness is None for member in members)
        trees = [member.tree for member in members if member.tree is not None]
        self.population = self.selection.survivors(self.config, self.population, trees, self.census.candidates)
        found = [member.candidate for member in members if not member.candidate.name]
        if self.population and found and not any(candidate.fitness is not None for candidate in found):
            log.warning("generation %d: %s; the others live on", self.progress.generation, _fates(found))
        if not self.population:
            raise self._hopeless()

    def _hopeless(self) -> EvolossError:
        """The error of a generation that leaves nothing to breed from.

        It may be the machine's fault: whom workers died of is tried again after a resume.
        """
        self.archive.forget(Status.LOST)
        fates = _fates(list(self.census.changed.values()))
        number = self.progress.generation
        if number:
            return EvolossError(
                f"no loss survived generation {number}: {fates}; the hall of fame is that of generation {number - 1}, "
                f"and a resume tries again"
            )
        return EvolossError(
            f"no loss of this search space survived its first trainings: {fates}; see the statuses in the archive, "
            f"and widen the space or give --seed-expr"
        )

    def _reference(self) -> Candidate:
        return self.census.named("ce")[0]

    def _reseed(self, leaders: Iterable[Candidate]) -> bool:
        """One further seed for each of those that may have one; False where all have their seeds already."""
        reseeded = self.climb.reseed(leaders, self._reference())
        for candidate in reseeded:
            self.census.change(candidate)
        self._drop_echoes()
        return bool(reseeded)

    def _drop_echoes(self) -> None:
        """Who only repeats another loss neither breeds nor stands in the hall of fame: one formula would fill both."""
        for key, original in echoes(self.census.candidates.values()).items():
            self.census.echo(key, original)
        self.population = [tree for tree in self.population if self._candidate(tree).fitness is not None]

    def _settle(self) -> None:
        """Give the winners all their seeds; who leads by one lucky seed is found out and overtaken."""
        self.census.begin()
        for _ in range(SETTLE_ROUNDS):
            if not self._reseed(self._leaders(self.census.living())):
                break
        if not self.census.living():
            raise self._hopeless()
        finished = self.archive.generations()
        if self.census.changed and finished:
            self.archive.end_generation(finished[-1], self.census.changed.values(), self._dumped())

    def _members(self) -> list[Candidate]:
        """The candidates of the population."""
        return [self._candidate(tree) for tree in self.population]

    def _dumped(self) -> list[list[Any]]:
        """The population as the archive keeps it: keys and trees."""
        return [[tree.expression.key, self.grammar.dump(tree)] for tree in self.population]

    def _candidate(self, tree: Individual) -> Candidate:
        return self.census.candidates[tree.expression.key]

    def _leaders(self, candidates: list[Candidate]) -> list[Candidate]:
        """Those whose further seeds tell the most."""
        return self.selection.leaders(self.config.space.evolution, candidates)

    # Jobs

    def _evaluate(self, phase: str, jobs: Iterable[Job]) -> dict[Job, Evaluation]:
        """The evaluations of all jobs: from the archive where they are there, else from the workers, stored at once."""
        jobs = list(jobs)
        self.progress.phase, self.progress.done, self.progress.due = phase, 0, len(jobs)
        return self.archive.answers(jobs, self._counted, self._heard)

    def _counted(self, batches: list[Batch]) -> Iterator[list[Evaluation]]:
        for evaluations in self.pool(batches):
            self.progress.count(evaluations)
            yield evaluations

    def _heard(self, _: Evaluation) -> None:
        self.progress.done += 1
        self.watch(self.progress)
        if time.monotonic() > self.deadline:
            raise TimeIsUpError

    def _end(self, number: int, seconds: float) -> None:
        tally = self.census.tally
        members = self._members()
        best = ranked(members)[0]
        last = self.climb.height - 1
        finished = [c.fitness for c in members if c.rung == last and c.fitness is not None]
        references = {candidate.name: candidate for candidate in self.census.named("ce", "ngl")}
        row = Generation(
            generation=number,
            evaluated=tally["evaluated"],
            cached=tally["cached"],
            duplicates=tally["duplicates"],
            rejected=tally["rejected"],
            diverged=tally["diverged"],
            best_fitness=best.fitness,
            mean_fitness=math.fsum(finished) / len(finished) if finished else None,
            best_expression=best.expression,
            ce_fitness=references["ce"].fitness if "ce" in references else None,
            ngl_fitness=references["ngl"].fitness if "ngl" in references else None,
            seconds=round(seconds, 2),
        )
        self.archive.end_generation(row, self.census.changed.values(), self._dumped())
        self.progress.cached += tally["cached"]
        self.progress.best, self.progress.references, self.progress.finished = best, references, row
        self.watch(self.progress)
        self.progress.finished = None


def _fates(candidates: list[Candidate]) -> str:
    """What became of losses none of which has a fitness, the commonest first, and of one of them why."""
    failed = [c for c in candidates if c.fitness is None and c.status not in (Status.REJECTED, Status.DUPLICATE)]
    if not failed:
        return "none passed the screens"
    counts = ", ".join(f"{count} {status}" for status, count in Counter(c.status for c in failed).most_common())
    return f"of {len(failed)} losses {counts} (`{failed[0].expression}`: {failed[0].detail})"


def _check_losses(candidates: Iterable[Candidate]) -> None:
    """Raise `ValueError` where one is not the loss of its key, or has another fingerprint than the others can have."""
    lengths: set[int] = set()
    for candidate in candidates:
        if Expression(candidate.expression).key != candidate.key:
            raise ValueError(f"{candidate.expression!r} is not the loss {candidate.key}")
        lengths.add(len(candidate.fingerprint))
    if len(lengths - {0}) > 1:
        raise ValueError("fingerprints have different lengths")


_STRATEGIES: dict[str, Callable[[Search, int], list[Member]]] = {
    "evolve": Search._bred,
    "random": lambda search, number: search.newcomers.strangers(number),
}
