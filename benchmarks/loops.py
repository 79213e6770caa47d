"""Two loops that judge trees, and what they spend: the one that everyone writes, and evoloss's without its breeding."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from evoloss.archive import Archive
from evoloss.census import Census
from evoloss.climb import Climb
from evoloss.config import RunConfig
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.newcomers import Evaluate, Newcomers, new_candidate
from evoloss.records import Budget, Candidate, Evaluation, Job, Status, derive_seed
from evoloss.regimes import regimes_of
from evoloss.tree import Grammar, Individual
from evoloss.workers import Pool


def trainings(config: RunConfig) -> list[list[Budget]]:
    """The trainings of each rung, one a rate."""
    (regime,) = regimes_of(config)
    return [regime.budgets(index) for index in range(len(regime.rungs))]


def as_it_stands(config: RunConfig, expression: Expression, budget: Budget) -> Job:
    """A training of a loss at its plain scale, on the seed on which a search trains first."""
    seed = derive_seed(config.seed, "training", 0)
    text, key = expression.text, expression.key
    return Job("train", key, text, config.proxy, seed, budget, time_limit=budget.time_limit)


@dataclass
class Ledger:
    """What a loop has spent, in core-seconds, and how its best accuracy at one of the `full` budgets rose with that."""

    full: frozenset[Budget]
    workers: float = 0.0
    driver: float = 0.0
    trainings: int = 0
    best: float = 0.0
    curve: list[tuple[float, float]] = field(default_factory=list)
    paid: set[Job] = field(default_factory=set)

    @property
    def seconds(self) -> float:
        """All that was spent."""
        return self.workers + self.driver

    def hear(self, evaluation: Evaluation) -> None:
        """Enter an evaluation. One that a loop asks for again costs nothing: its archive has it."""
        if evaluation.job not in self.paid:
            self.paid.add(evaluation.job)
            self.pay(evaluation)

    def pay(self, evaluation: Evaluation) -> None:
        """Enter what an evaluation costs."""
        self.workers += evaluation.seconds
        self.trainings += evaluation.job.task == "train"
        if evaluation.score is not None and evaluation.job.budget in self.full and evaluation.score > self.best:
            self.best = evaluation.score
            self.curve.append((self.seconds, self.best))

    @contextlib.contextmanager
    def driving(self) -> Iterator[None]:
        """Put the processor time of this process on the bill."""
        start = time.process_time()
        yield
        self.driver += time.process_time() - start

    def evaluate(self, archive: Archive, pool: Pool) -> Evaluate:
        """The evaluations that a loop asks for, from the workers or, where they were stopped before, the archive."""
        return lambda _, jobs: archive.answers(jobs, pool, self.hear)


@dataclass
class Seen:
    """A formula of the stream in the naive loop: its best score, None where all trainings failed; how often it came."""

    text: str
    generation: int
    score: float | None
    times: int = 0


class Naive:
    """Every tree that is a valid formula is trained at the budget of the last rung, at all its rates."""

    def __init__(self, config: RunConfig, evaluate: Evaluate, ledger: Ledger) -> None:
        self.config, self.evaluate, self.ledger = config, evaluate, ledger
        self.grammar = Grammar(config.space)
        self.budgets = trainings(config)[-1]
        self.seen: dict[str, Seen] = {}

    def judge(self, number: int, trees: list[Individual]) -> None:
        """Train a generation. A formula that comes again is paid again: a loop without an archive trains it again."""
        times = Counter(formula for tree in trees if (formula := self._formula(tree)) is not None)
        jobs = {formula: [as_it_stands(self.config, formula, budget) for budget in self.budgets] for formula in times}
        answers = self.evaluate("training", [job for group in jobs.values() for job in group])
        for formula, group in jobs.items():
            for job in group * (times[formula] - (formula.key not in self.seen)):
                self.ledger.pay(answers[job])
            scores = [score for job in group if (score := answers[job].score) is not None]
            seen = self.seen.setdefault(formula.key, Seen(formula.text, number, max(scores, default=None)))
            seen.times += times[formula]

    def _formula(self, tree: Individual) -> Expression | None:
        try:
            return self.grammar.expression(tree)
        except EvolossError:
            return None


class Evoloss:
    """Screens, duplicates, matched scales, rungs and stacks, as a search has them."""

    def __init__(self, config: RunConfig, evaluate: Evaluate) -> None:
        self.census = Census()
        self.newcomers = Newcomers(config, Grammar(config.space), self.census, evaluate)
        self.climb = Climb(config, evaluate)
        self.reference = new_candidate(REFERENCE, 0)  # counts where there are several regimes: not here

    def judge(self, number: int, trees: list[Individual]) -> None:
        """Screen a generation, and let what is worth training climb the rungs."""
        drawn = [member for tree in trees if (member := self.newcomers.member(tree, number))]
        worth = self.newcomers.screened([member for member in drawn if self.newcomers.is_new(member)], number)
        self.climb.climb([member.candidate for member in worth], self.reference)

    def verdict(self, key: str) -> Candidate | None:
        """What became of a formula, or of the known loss that it equals; None where its text alone was rejected."""
        candidate = self.census.candidates.get(key)
        if candidate is not None and candidate.status is Status.DUPLICATE:
            return self.census.candidates[candidate.detail]
        return candidate
