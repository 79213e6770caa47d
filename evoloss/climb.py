"""The rungs: everybody trains a little, the best train longer, the leaders on further seeds."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from evoloss.config import RunConfig
from evoloss.errors import EvolossError
from evoloss.newcomers import Evaluate
from evoloss.ranking import ranked
from evoloss.records import Budget, Candidate, Evaluation, Job, derive_seed
from evoloss.regimes import Regime, regimes_of

Trained = dict[tuple[str, str], list[Evaluation]]  # by key and regime: a training for each rate


class Climb:
    """Trains candidates in all regimes of a search and scores them.

    In one regime a score is the select accuracy at the best rate. In several it is the mean over the regimes of the
    gain over cross-entropy, trained on the same samples from the same weights.
    """

    def __init__(self, config: RunConfig, evaluate: Evaluate) -> None:
        self.config = config
        self.evaluate = evaluate
        self.regimes = regimes_of(config)
        self.height = max(len(regime.rungs) for regime in self.regimes)

    def climb(self, contenders: list[Candidate], reference: Candidate) -> None:
        """Successive halving (Jamieson and Talwalkar 2016) over the rungs; named losses go all the way."""
        trained: Trained = {}
        for index in range(self.height):
            if index:
                contenders = promoted(contenders, self.regimes[0].rung(index).keep)
            budgets = partial(_budgets, index, trained)
            trained = self._train(f"rung {index + 1} of {self.height}", contenders, reference, budgets, 0)
            for candidate in contenders:
                candidate.rung, candidate.scores, candidate.select = index, {}, {}
                self._score(candidate, reference, trained, 0, f"rung {index + 1}")

    def glance(self, candidates: list[Candidate], reference: Candidate, index: int) -> None:
        """Score candidates at one rung, without a climb."""
        index = min(index, self.height - 1)
        trained = self._train("refining constants", candidates, reference, partial(_budgets, index, {}), 0)
        for candidate in candidates:
            self._score(candidate, reference, trained, 0, "refining")

    def reseed(self, leaders: Iterable[Candidate], reference: Candidate) -> list[Candidate]:
        """Train each of those on one further seed, at its best rates; returns those that lacked a seed."""
        most = self.config.space.evolution.max_seeds
        last = self.height - 1
        lacking = [c for c in leaders if c.rung == last and c.fitness is not None and len(c.scores) < most]
        for seed in sorted({len(candidate.scores) for candidate in lacking}):
            group = [candidate for candidate in lacking if len(candidate.scores) == seed]
            trained = self._train("further seeds", group, reference, self._at_best, seed)
            for candidate in group:
                self._score(candidate, reference, trained, seed, f"seed {seed}")
        return lacking

    def _at_best(self, candidate: Candidate, regime: Regime) -> list[Budget]:
        return [regime.longest(candidate.rates[self.regimes.index(regime)])]

    def _train(
        self,
        phase: str,
        candidates: Sequence[Candidate],
        reference: Candidate,
        budgets: Callable[[Candidate, Regime], list[Budget]],
        seed: int,
    ) -> Trained:
        """All trainings of the candidates in all regimes. In several, the reference's too: the archive has most."""
        everyone = {c.key: c for c in [*candidates, *([reference] if len(self.regimes) > 1 else [])]}
        jobs = {
            (c.key, regime.name): [self._job(c, regime, budget, seed) for budget in budgets(c, regime)]
            for c in everyone.values()
            for regime in self.regimes
        }
        answers = self.evaluate(phase, [job for group in jobs.values() for job in group])
        return {place: [answers[job] for job in group] for place, group in jobs.items()}

    def _job(self, candidate: Candidate, regime: Regime, budget: Budget, seed: int) -> Job:
        return Job(
            "train",
            candidate.key,
            candidate.expression,
            regime.proxy,
            derive_seed(self.config.seed, "training", seed),
            budget,
            1.0 if candidate.scale is None else candidate.scale,
            time_limit=budget.time_limit,
            data=regime.data,
        )

    def _score(self, candidate: Candidate, reference: Candidate, trained: Trained, seed: int, stage: str) -> None:
        """Enter the result of one seed: rates and scores, or how a regime failed."""
        groups = [trained[candidate.key, regime.name] for regime in self.regimes]
        candidate.seconds += sum(evaluation.seconds for group in groups for evaluation in group)
        best = [_best(group) for group in groups]
        for regime, group, evaluation in zip(self.regimes, groups, best, strict=True):
            if evaluation.score is None:
                where = f"{stage}, {regime.name}" if len(self.regimes) > 1 else stage
                candidate.status, candidate.detail = group[-1].status, f"{where}: {group[-1].detail}"
                return
        candidate.rates = tuple(evaluation.job.budget.learning_rate for evaluation in best if evaluation.job.budget)
        accuracies = [evaluation.score or 0.0 for evaluation in best]
        candidate.select[seed] = accuracies[0]
        candidate.scores[seed] = accuracies[0]
        if len(self.regimes) > 1:
            gains = zip(accuracies, self._reference_accuracies(reference, trained), strict=True)
            candidate.scores[seed] = statistics.fmean(own - other for own, other in gains)

    def _reference_accuracies(self, reference: Candidate, trained: Trained) -> list[float]:
        accuracies: list[float] = []
        for regime in self.regimes:
            best = _best(trained[reference.key, regime.name])
            if best.score is None:
                raise EvolossError(f"cross-entropy fails in the regime {regime.name}: {best.detail}; leave it out")
            accuracies.append(best.score)
        return accuracies


def _budgets(index: int, before: Trained, candidate: Candidate, regime: Regime) -> list[Budget]:
    """The trainings of a rung, without the rates that cannot win."""
    known = before.get((candidate.key, regime.name), [])
    return [budget for budget in regime.budgets(index) if _can_win(budget, known)]


def _can_win(budget: Budget, known: Sequence[Evaluation]) -> bool:
    """Whether a rate may beat those that trained as long before, if accuracy over rates has one peak.

    It had on 44 of 45 losses that a search had promoted (10,000 x 3 on Fashion-MNIST, rates .0015, .003, .006).
    """
    scores = {e.job.budget.learning_rate: e.score for e in known if e.job.budget and e.score is not None}
    if not scores or not any(_same_length(budget, e.job.budget) for e in known):
        return True
    best = max(scores, key=lambda rate: scores[rate])
    low, high = sorted((best, budget.learning_rate))
    return not any(low < rate < high for rate in scores)


def _same_length(budget: Budget, other: Budget | None) -> bool:
    return other is not None and (budget.samples, budget.epochs) == (other.samples, other.epochs)


def _best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The training of the best score, of equal ones the first."""
    return max(evaluations, key=lambda evaluation: -1.0 if evaluation.score is None else evaluation.score)


def promoted(contenders: list[Candidate], keep: float) -> list[Candidate]:
    """The baselines, the best share of the others, and the best of each family.

    A family that learns slowly at first, as losses of distances and centers do, is not judged by its first epoch.
    """
    alive = ranked(contenders)
    others = [candidate for candidate in alive if not candidate.name]
    first_of_family = {candidate.family: candidate.key for candidate in reversed(others)}
    chosen = {*first_of_family.values(), *(candidate.key for candidate in others[: math.ceil(keep * len(others))])}
    return [candidate for candidate in alive if candidate.name or candidate.key in chosen]
