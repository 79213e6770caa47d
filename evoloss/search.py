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

from evoloss import newcomers
from evoloss.archive import Archive
from evoloss.config import RunConfig, Rung
from evoloss.duplicates import Fingerprints
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.newcomers import Member, new_candidate
from evoloss.records import Budget, Candidate, Evaluation, Generation, Job, Status, Task, derive_seed
from evoloss.tree import Grammar, Individual, seeded
from evoloss.workers import Pool

VARY_ATTEMPTS = 10  # tries for a child whose formula is new, before a known one is accepted
INITIAL_ROUNDS = 20  # of drawing and screening until the first population is full
RANDOM_ROUNDS = 100  # of the same in random search, where a round draws only what is still missing
SETTLE_ROUNDS = 20  # of seeds for the winners at the end
SCREEN_LIMIT = 60.0  # seconds, for formulas that hang

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
    cached: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    best: Candidate | None = None
    references: dict[str, Candidate] = field(default_factory=dict)
    finished: Generation | None = None


Watch = Callable[[Progress], None]


class Search:
    """One search, from where its archive stands to its last generation."""

    def __init__(self, config: RunConfig, archive: Archive, pool: Pool, watch: Watch = lambda _: None) -> None:
        self.config = config
        self.archive = archive
        self.pool = pool
        self.watch = watch
        self.evolution = config.space.evolution
        self.rungs = config.space.rungs_for(config.proxy)
        self.grammar = Grammar(config.space)
        self.candidates: dict[str, Candidate] = {}
        self.population: list[Individual] = []
        self.fingerprints = Fingerprints()
        self.changed: dict[str, Candidate] = {}
        self.tally: Counter[str] = Counter()
        self.progress = Progress(config.generations, time.monotonic())
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
        for candidate in self.archive.candidates():
            self.candidates[candidate.key] = candidate
            if candidate.fingerprint and candidate.status is not Status.DUPLICATE:
                self.fingerprints.add(candidate.key, candidate.fingerprint)
        for key, names in self.archive.population():
            tree = self.grammar.load(names)
            tree.expression = Expression(self.candidates[key].expression)
            self.population.append(tree)
        self._update_fitness()

    # One generation

    def _generation(self, number: int) -> None:
        start = time.monotonic()
        self.changed, self.tally = {}, Counter()
        self.progress.generation = number
        members = _STRATEGIES[self.config.strategy](self, number) if number else self._initial()
        self._climb(members)
        self._select([member.tree for member in members if member.tree is not None])
        self._reseed(self._leaders() + self._references())
        self._update_fitness()
        self._end(number, time.monotonic() - start)

    def _initial(self) -> list[Member]:
        """The baselines, the user's seeds, and random trees until the population is full of losses worth training."""
        members = self._screened(newcomers.seeds(self.config, self.grammar), 0)
        for turn in range(INITIAL_ROUNDS):
            if sum(member.tree is not None for member in members) >= self.config.population:
                break
            members += self._drawn(0, range(self.config.population), "initial", turn)
        return members

    def _strangers(self, number: int) -> list[Member]:
        """Random trees, as in generation 0, until so many are worth training as the budget has room for."""
        members: list[Member] = []
        drawn, due = 0, newcomers.due(self.config, number)
        for turn in range(RANDOM_ROUNDS):
            missing = due - len(members)
            if not missing:
                break
            members += self._drawn(number, range(drawn, drawn + missing), "random", number, turn)
            drawn += missing
        return members

    def _drawn(self, number: int, places: range, *purpose: object) -> list[Member]:
        """The trees at these places of a ramped initialization that are new and pass the screens."""
        with seeded(derive_seed(self.config.seed, *purpose)):
            trees = [self.grammar.draw(place) for place in places]
        drawn = [member for tree in trees if (member := self._member(tree, number)) and self._is_new(member)]
        return self._screened(drawn, number)

    def _offspring(self, number: int) -> list[Member]:
        """New formulas bred from the population, screened. A known one is looked up, not evaluated again."""
        children: dict[str, Member] = {}
        with seeded(derive_seed(self.config.seed, "generation", number)):
            for _ in range(newcomers.due(self.config, number)):
                for _ in range(VARY_ATTEMPTS):
                    child = self._member(self.grammar.vary(self.population), number)
                    if child is None:
                        continue
                    if child.candidate.key not in children and self._is_new(child):
                        children[child.candidate.key] = child
                        break
                    self.tally["cached"] += 1
        return self._screened(list(children.values()), number)

    def _member(self, tree: Individual, number: int) -> Member | None:
        """The candidate of a tree, or None where its formula has no canonical form or sees too little."""
        try:
            tree.expression = self.grammar.expression(tree)
        except EvolossError:
            self._reject("no canonical form")
            return None
        if missing := tree.expression.missing:
            self._reject(missing)
            return None
        return Member(new_candidate(tree.expression, number, tree.parents), tree)

    def _is_new(self, member: Member) -> bool:
        return member.candidate.key not in self.candidates

    def _reject(self, cause: str) -> None:
        self.tally["rejected"] += 1
        self.progress.rejected[cause] += 1

    # Screens and duplicates

    def _screened(self, members: list[Member], number: int) -> list[Member]:
        """Those worth training. A loss that learns with the other sign takes part negated, as a formula of its own."""
        distinct: dict[str, Member] = {}
        for member in members:
            distinct.setdefault(member.candidate.key, member)
        members = list(distinct.values())
        jobs = [self._job(member.candidate, "screen") for member in members]
        answers = self._evaluate("screening", jobs)
        kept: list[Member] = []
        negated: list[Member] = []
        for member, job in zip(members, jobs, strict=True):
            answer, candidate = answers[job], member.candidate
            candidate.seconds += answer.seconds
            self._register(candidate)
            if answer.negate:
                candidate.status, candidate.detail = Status.REJECTED, "sign: learns when negated"
                negated += self._negated(member, number)
            elif answer.status is not Status.OK:
                candidate.status, candidate.detail = answer.status, answer.detail
                self._reject(answer.detail.partition(":")[0] or answer.status)
            elif twin := self.fingerprints.find(answer.fingerprint):
                candidate.status, candidate.detail = Status.DUPLICATE, twin
                candidate.scale, candidate.fingerprint = answer.scale, answer.fingerprint
                self.tally["duplicates"] += 1
            else:
                candidate.scale, candidate.fingerprint = answer.scale, answer.fingerprint
                self.fingerprints.add(candidate.key, answer.fingerprint)
                kept.append(member)
        for candidate in (member.candidate for member in members):
            if candidate.name and candidate.status is not Status.OK:
                log.warning("%s (%s) is refused: %s", candidate.name, candidate.expression, _reason(candidate))
        return kept + self._screened(negated, number) if negated else kept

    def _negated(self, member: Member, number: int) -> list[Member]:
        if member.tree is None or member.candidate.name:
            self._reject("sign")
            return []
        tree = self.grammar.negated(member.tree)
        negated = self._member(tree, number) if tree is not None else None
        if negated is None or not self._is_new(negated):
            self.tally["cached"] += 1
            return []
        return [negated]

    def _register(self, candidate: Candidate) -> None:
        self.candidates[candidate.key] = self.changed[candidate.key] = candidate

    # Rungs

    def _climb(self, members: list[Member]) -> None:
        """Successive halving (Jamieson and Talwalkar 2016) over the rungs; seeds go all the way."""
        contenders = [member.candidate for member in members]
        for index, rung in enumerate(self.rungs):
            if index:
                contenders = _promoted(contenders, rung.keep)
            self._train_rung(contenders, index, rung)
        self.tally["evaluated"] += len(members)
        self.tally["diverged"] += sum(member.candidate.status is not Status.OK for member in members)

    def _train_rung(self, contenders: list[Candidate], index: int, rung: Rung) -> None:
        jobs = {(c.key, b.learning_rate): self._job(c, "train", b) for c in contenders for b in rung.budgets()}
        answers = self._evaluate(f"rung {index + 1} of {len(self.rungs)}", jobs.values())
        before = self.rungs[index - 1] if index else rung
        same_budget = index > 0 and (before.samples, before.epochs) == (rung.samples, rung.epochs)
        for candidate in contenders:
            results = {rate: answers[jobs[candidate.key, rate]] for rate in rung.rates}
            candidate.seconds += sum(answer.seconds for answer in results.values())
            scores = {rate: answer.score for rate, answer in results.items() if answer.score is not None}
            if same_budget and candidate.rate is not None:
                scores[candidate.rate] = candidate.scores[0]
            candidate.rung = index
            if scores:
                candidate.rate = max(sorted(scores), key=lambda rate: scores[rate])
                candidate.scores = {0: scores[candidate.rate]}
            else:
                last = results[rung.rates[-1]]
                candidate.status, candidate.detail = last.status, f"rung {index + 1}: {last.detail}"

    def _reseed(self, leaders: Iterable[Candidate]) -> bool:
        """Train each of those on one further seed, at its best rate. False where all have their seeds already."""
        last = len(self.rungs) - 1
        jobs: dict[str, Job] = {}
        for candidate in leaders:
            due = candidate.rung == last and len(candidate.scores) < self.evolution.max_seeds
            if due and candidate.fitness is not None:
                budget = self.config.budget_of(candidate)
                jobs[candidate.key] = self._job(candidate, "train", budget, seed=len(candidate.scores))
        answers = self._evaluate("further seeds", jobs.values())
        for key, job in jobs.items():
            candidate, answer = self.candidates[key], answers[job]
            self.changed[key] = candidate
            candidate.seconds += answer.seconds
            if answer.score is None:
                candidate.status, candidate.detail = answer.status, f"seed {len(candidate.scores)}: {answer.detail}"
            else:
                candidate.scores[len(candidate.scores)] = answer.score
        return bool(jobs)

    def _settle(self) -> None:
        """Give the winners all their seeds; who leads by one lucky seed is found out and overtaken."""
        self.changed = {}
        for _ in range(SETTLE_ROUNDS):
            if not self._reseed(sorted(self._living(), key=lambda c: c.rank)[: self.evolution.elites]):
                break
        finished = self.archive.generations()
        if self.changed and finished:
            self.archive.end_generation(finished[-1], self.changed.values(), self.archive.population())

    # Selection

    def _living(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates.values() if candidate.fitness is not None]

    def _leaders(self) -> list[Candidate]:
        members = [self.candidates[tree.expression.key] for tree in self.population]
        return sorted(members, key=lambda candidate: candidate.rank)[: self.evolution.elites]

    def _references(self) -> list[Candidate]:
        return [candidate for candidate in self.candidates.values() if candidate.name in ("ce", "ngl")]

    def _select(self, newcomers: list[Individual]) -> None:
        """Elites, then the newcomers, best first; the old population fills what they leave."""

        def ranked(trees: Iterable[Individual]) -> list[Individual]:
            alive = [tree for tree in trees if self.candidates[tree.expression.key].fitness is not None]
            return sorted(alive, key=lambda tree: self.candidates[tree.expression.key].rank)

        elites = ranked([*self.population, *newcomers])[: self.evolution.elites]
        chosen = {tree.expression.key: tree for tree in [*elites, *ranked(newcomers), *ranked(self.population)]}
        self.population = list(chosen.values())[: self.config.population]
        if not self.population:
            raise EvolossError(
                "no loss of this search space survived its first trainings: see the statuses in the archive, "
                "and widen the space or give --seed-expr"
            )

    def _update_fitness(self) -> None:
        for tree in self.population:
            candidate = self.candidates[tree.expression.key]
            if candidate.fitness is None:
                tree.fitness.values = (-1, 0)
            else:
                tree.fitness.values = (candidate.rung, candidate.fitness)

    # Jobs

    def _job(self, candidate: Candidate, task: Task, budget: Budget | None = None, seed: int = 0) -> Job:
        number = derive_seed(self.config.seed, "training", seed)
        limit = budget.time_limit if budget else SCREEN_LIMIT
        scale = 1.0 if candidate.scale is None else candidate.scale
        return Job(
            task, candidate.key, candidate.expression, self.config.proxy, number, budget, scale, ("select",), limit
        )

    def _evaluate(self, phase: str, jobs: Iterable[Job]) -> dict[Job, Evaluation]:
        """The evaluations of all jobs: from the archive where they are there, else from the workers, stored at once."""
        jobs = list(jobs)
        self.progress.phase, self.progress.done, self.progress.due = phase, 0, len(jobs)
        return self.archive.answers(jobs, self._counted, self._heard)

    def _counted(self, jobs: list[Job]) -> Iterator[Evaluation]:
        for evaluation in self.pool(jobs):
            self.progress.trained += evaluation.job.task == "train"
            yield evaluation

    def _heard(self, _: Evaluation) -> None:
        self.progress.done += 1
        self.watch(self.progress)
        if time.monotonic() > self.deadline:
            raise TimeIsUpError

    def _end(self, number: int, seconds: float) -> None:
        leaders = self._leaders()
        last = len(self.rungs) - 1
        scores = [c.fitness for t in self.population if (c := self.candidates[t.expression.key]).rung == last]
        finished = [score for score in scores if score is not None]
        references = {candidate.name: candidate for candidate in self._references()}
        row = Generation(
            generation=number,
            evaluated=self.tally["evaluated"],
            cached=self.tally["cached"],
            duplicates=self.tally["duplicates"],
            rejected=self.tally["rejected"],
            diverged=self.tally["diverged"],
            best_fitness=leaders[0].fitness,
            mean_fitness=math.fsum(finished) / len(finished) if finished else None,
            best_expression=leaders[0].expression,
            ce_fitness=references["ce"].fitness if "ce" in references else None,
            ngl_fitness=references["ngl"].fitness if "ngl" in references else None,
            seconds=round(seconds, 2),
        )
        population = [[tree.expression.key, self.grammar.dump(tree)] for tree in self.population]
        self.archive.end_generation(row, self.changed.values(), population)
        self.progress.cached += self.tally["cached"]
        self.progress.best, self.progress.references, self.progress.finished = leaders[0], references, row
        self.watch(self.progress)
        self.progress.finished = None


def _reason(candidate: Candidate) -> str:
    if candidate.status is Status.DUPLICATE:
        return f"it has the gradients of the loss {candidate.detail}"
    return candidate.detail


def _promoted(contenders: list[Candidate], keep: float) -> list[Candidate]:
    """The baselines, the best share of the others, and the best of each family.

    A family that learns slowly at first, as losses of distances and centers do, is not judged by its first epoch.
    """
    alive = sorted((c for c in contenders if c.fitness is not None), key=lambda candidate: candidate.rank)
    others = [candidate for candidate in alive if not candidate.name]
    first_of_family = {candidate.family: candidate.key for candidate in reversed(others)}
    chosen = {*first_of_family.values(), *(candidate.key for candidate in others[: math.ceil(keep * len(others))])}
    return [candidate for candidate in alive if candidate.name or candidate.key in chosen]


_STRATEGIES: dict[str, Callable[[Search, int], list[Member]]] = {
    "evolve": Search._offspring,
    "random": Search._strangers,
}
