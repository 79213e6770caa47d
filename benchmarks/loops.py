"""Two loops that judge trees, and what they spend: the one that everyone writes, and evoloss's without its breeding."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from evoloss.archive import Archive
from evoloss.census import Census
from evoloss.climb import Climb
from evoloss.config import RunConfig
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.newcomers import Evaluate, Newcomers, new_candidate
from evoloss.playoff import full_rung
from evoloss.ranking import ranked
from evoloss.records import Budget, Candidate, Evaluation, Job, Status, derive_seed
from evoloss.tree import Grammar, Individual
from evoloss.workers import Pool


def full(config: RunConfig) -> list[Budget]:
    """The training that a search foresees, at all rates: what losses would get that are trained once and for all."""
    return full_rung(config.space, config.proxy).budgets()


def as_it_stands(config: RunConfig, expression: Expression, budget: Budget) -> Job:
    """A training of a loss at its plain scale, on the seed on which a search trains first."""
    seed = derive_seed(config.seed, "training", 0)
    text, key = expression.text, expression.key
    return Job("train", key, text, config.proxy, seed, budget, time_limit=budget.time_limit)


def full_select(config: RunConfig, candidate: Candidate, evaluate: Evaluate) -> float:
    """The select accuracy of a candidate in the full training, at its matched scale and its best rate."""
    expression, scale = Expression(candidate.expression), candidate.scale or 1.0
    jobs = [replace(as_it_stands(config, expression, budget), scale=scale) for budget in full(config)]
    return max((e.score for e in evaluate("full training", jobs).values() if e.score is not None), default=0.0)


@dataclass
class Ledger:
    """What a loop has spent, in core-seconds, and on how many trainings."""

    workers: float = 0.0
    driver: float = 0.0
    trainings: int = 0
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
    """Every tree that is a valid formula is trained as a playoff trains, at all its rates."""

    def __init__(self, config: RunConfig, evaluate: Evaluate, ledger: Ledger) -> None:
        self.config, self.evaluate, self.ledger = config, evaluate, ledger
        self.grammar = Grammar(config.space)
        self.budgets = full(config)
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

    @property
    def leader(self) -> float:
        """The select accuracy of the best loss so far."""
        return max((seen.score for seen in self.seen.values() if seen.score is not None), default=0.0)

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

    @property
    def leader(self) -> Candidate | None:
        """The best loss so far."""
        return next(iter(ranked(self.census.living())), None)

    def verdict(self, key: str) -> Candidate | None:
        """What became of a formula, or of the known loss that it equals; None where its text alone was rejected."""
        candidate = self.census.candidates.get(key)
        if candidate is not None and candidate.status is Status.DUPLICATE:
            return self.census.candidates[candidate.detail]
        return candidate
