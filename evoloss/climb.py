"""The rungs: everybody trains a little, the best train longer, the leaders on further seeds."""

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from evoloss.config import RunConfig
from evoloss.errors import EvolossError
from evoloss.newcomers import Evaluate
from evoloss.ranking import ranked
from evoloss.records import Budget, Candidate, Evaluation, Job, Status, derive_seed
from evoloss.regimes import Regime, regimes_of

Entry = tuple[Candidate, int]  # what is trained with, and the number of the seed
Chosen = dict[tuple[str, int], list[Evaluation]]  # by key and number of the seed: the training that counts, by regime
Pick = Callable[[Sequence[Evaluation]], Evaluation]  # of the trainings in one regime, the one that counts

log = logging.getLogger("evoloss")


class Climb:
    """Trains candidates in all regimes of a search and scores them.

    In one regime a score is the select accuracy at the best rate. In several it is the mean over the regimes of the
    gain over the reference, cross-entropy, trained on the same samples from the same weights. `series` tells the
    seeds of one occasion from those of another.
    """

    def __init__(self, config: RunConfig, evaluate: Evaluate, series: str = "training") -> None:
        self.config = config
        self.evaluate = evaluate
        self.series = series
        self.regimes = regimes_of(config)
        self.tallest = max(self.regimes, key=lambda regime: len(regime.rungs))
        self.height = len(self.tallest.rungs)

    def climb(self, contenders: list[Candidate], reference: Candidate) -> None:
        """Successive halving (Jamieson and Talwalkar 2016) over the rungs; named losses go all the way.

        Raises `EvolossError` where gains cannot be measured, since the reference fails.
        """
        if self.config.gains and reference.status is not Status.OK:
            problem = f"{reference.status}: {reference.detail}"
            raise EvolossError(f"no gain over cross-entropy can be measured, it is {problem}; search in one regime")
        for index in range(self.height):
            if index:
                contenders = promoted(contenders, self.tallest.rung(index).keep, of_families=index == 1)
            self._rung(index, contenders, reference, f"rung {index + 1} of {self.height}")

    def glance(self, candidates: list[Candidate], reference: Candidate, index: int) -> None:
        """Score candidates at one rung, without a climb."""
        self._rung(min(index, self.height - 1), candidates, reference, "refining constants")

    def _rung(self, index: int, contenders: list[Candidate], reference: Candidate, phase: str) -> None:
        entries = [(candidate, 0) for candidate in contenders]
        chosen = self._train(phase, entries, reference, partial(self._budgets, index), _best)
        for candidate in contenders:
            candidate.rung, candidate.scores, candidate.select = index, {}, {}
        self._enter(entries, reference, chosen)

    def _budgets(self, index: int, candidate: Candidate, regime: Regime) -> list[Budget]:
        """The trainings of a rung, without the rates that lie beyond a worse one of the same length.

        They cannot win if accuracy over rates has one peak, as it had for 44 of 45 losses that a search had promoted
        (10,000 x 3 on Fashion-MNIST, rates .0015, .003, .006).
        """
        budgets = regime.budgets(index)
        lower = regime.reached(index - 1)
        tried = [budget.learning_rate for budget in budgets if budget in lower]
        if not tried or not candidate.rates:
            return budgets
        best = candidate.rates[self.regimes.index(regime)]

        def is_beyond(rate: float) -> bool:
            return any(min(best, rate) < other < max(best, rate) for other in tried)

        return [budget for budget in budgets if not is_beyond(budget.learning_rate)]

    def reseed(self, leaders: Iterable[Candidate], reference: Candidate) -> list[Candidate]:
        """Train each of those on one further seed, at its best rates; returns those that lacked a seed."""
        most = self.config.space.evolution.max_seeds
        last = self.height - 1
        distinct = {candidate.key: candidate for candidate in leaders}.values()
        lacking = [c for c in distinct if c.rung == last and c.fitness is not None and len(c.scores) < most]
        entries = [(candidate, len(candidate.scores)) for candidate in lacking]
        chosen = self._train("further seeds", entries, reference, partial(self._at_best, reference), _first)
        self._enter(entries, reference, chosen)
        return lacking

    def fresh(self, candidates: Sequence[Candidate], reference: Candidate, count: int) -> dict[str, float]:
        """Mean scores over `count` seeds of this series, by key. A training that fails counts as an accuracy of 0."""
        entries = [(candidate, seed) for candidate in candidates for seed in range(count)]
        chosen = self._train("fresh seeds", entries, reference, partial(self._at_best, reference), _first)
        for evaluation in (e for candidate, seed in entries for e in chosen[candidate.key, seed]):
            if evaluation.score is None:
                text = evaluation.job.expression
                log.warning("`%s` failed a fresh training: %s, %s", text, evaluation.status, evaluation.detail)
        levels = [self._level(chosen, reference, seed) for seed in range(count)]
        return {
            c.key: statistics.fmean(_score(chosen[c.key, seed], level) for seed, level in enumerate(levels))
            for c in candidates
        }

    def _at_best(self, reference: Candidate, candidate: Candidate, regime: Regime) -> list[Budget]:
        """The longest training at the candidate's best rate.

        Where gains are measured, the reference's lower rates follow: the best one of SGD lies close to where a
        training diverges, and a yardstick that breaks on one seed in ten would end the search.
        """
        best = candidate.rates[self.regimes.index(regime)]
        yardstick = self.config.gains and candidate.key == reference.key
        budgets = [b for b in regime.longest() if b.learning_rate == best or (yardstick and b.learning_rate < best)]
        return budgets[::-1]

    def _train(
        self,
        phase: str,
        entries: Sequence[Entry],
        reference: Candidate,
        budgets: Callable[[Candidate, Regime], list[Budget]],
        pick: Pick,
    ) -> Chosen:
        """Train all entries in all regimes. Where gains are measured, the reference too: the archive has most of it."""
        everyone = {(candidate.key, seed): candidate for candidate, seed in entries}
        if self.config.gains:
            everyone |= {(reference.key, seed): reference for _, seed in entries}
        jobs = {
            (key, seed): [[self._job(c, regime, b, seed) for b in budgets(c, regime)] for regime in self.regimes]
            for (key, seed), c in everyone.items()
        }
        answers = self.evaluate(phase, [job for groups in jobs.values() for group in groups for job in group])
        return {
            (key, seed): [
                _with_seconds(pick, [answers[job] for job in group], set() if seed else regime.reached(c.rung))
                for regime, group in zip(self.regimes, jobs[key, seed], strict=True)
            ]
            for (key, seed), c in everyone.items()
        }

    def _job(self, candidate: Candidate, regime: Regime, budget: Budget, seed: int) -> Job:
        return Job(
            "train",
            candidate.key,
            candidate.expression,
            regime.proxy,
            derive_seed(self.config.seed, self.series, seed),
            budget,
            1.0 if candidate.scale is None else candidate.scale,
            time_limit=budget.time_limit,
            data=regime.data,
        )

    def _enter(self, entries: Sequence[Entry], reference: Candidate, chosen: Chosen) -> None:
        """Enter the scores of these seeds (and for the first the rates), or how a regime failed."""
        levels = {seed: self._level(chosen, reference, seed) for _, seed in entries}
        for candidate, seed in entries:
            evaluations = chosen[candidate.key, seed]
            candidate.seconds += sum(evaluation.seconds for evaluation in evaluations)
            failed = next((place for place, e in enumerate(evaluations) if e.score is None), None)
            if failed is not None:
                stage = f"seed {seed}" if seed else f"rung {candidate.rung + 1}"
                where = f"{stage}, {self.regimes[failed].name}" if self.config.gains else stage
                candidate.status = evaluations[failed].status
                candidate.detail = f"{where}: {evaluations[failed].detail}"
                continue
            if not seed:
                candidate.rates = tuple(e.job.budget.learning_rate for e in evaluations if e.job.budget)
            candidate.scores[seed] = _score(evaluations, levels[seed])
            candidate.select[seed] = evaluations[0].score or 0.0

    def _level(self, chosen: Chosen, reference: Candidate, seed: int) -> list[float]:
        """What accuracies are measured from, by regime: the reference's on the same seed, or 0."""
        if not self.config.gains:
            return [0.0]
        level: list[float] = []
        for regime, evaluation in zip(self.regimes, chosen[reference.key, seed], strict=True):
            if evaluation.score is None:
                failure = f"cross-entropy fails in the regime {regime.name}: {evaluation.detail}"
                raise EvolossError(f"{failure}; no gain over it can be measured there: leave that regime out")
            level.append(evaluation.score)
        return level


def _score(evaluations: Sequence[Evaluation], level: Sequence[float]) -> float:
    """The mean over the regimes of what the accuracies are above their level."""
    return statistics.fmean((e.score or 0.0) - base for e, base in zip(evaluations, level, strict=True))


def _with_seconds(pick: Pick, evaluations: Sequence[Evaluation], counted: set[Budget]) -> Evaluation:
    """The training that counts, with the seconds of all of them but those that lower rungs have counted."""
    seconds = sum(evaluation.seconds for evaluation in evaluations if evaluation.job.budget not in counted)
    return replace(pick(evaluations), seconds=seconds)


def _best(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The training of the best score, of equal ones the first."""
    return max(evaluations, key=lambda evaluation: -1.0 if evaluation.score is None else evaluation.score)


def _first(evaluations: Sequence[Evaluation]) -> Evaluation:
    """The first training that came through, else the first."""
    return next((evaluation for evaluation in evaluations if evaluation.score is not None), evaluations[0])


def promoted(contenders: list[Candidate], keep: float, of_families: bool) -> list[Candidate]:
    """The baselines, the best share of the others, and the best of each family if `of_families`.

    That is for the first rung: a family that learns slowly at first, as losses of distances and centers do, is not
    judged by its first epoch. On every rung it would take half of all trainings.
    """
    alive = ranked(contenders)
    others = [candidate for candidate in alive if not candidate.name]
    first_of_family = {candidate.family: candidate.key for candidate in reversed(others)} if of_families else {}
    chosen = {*first_of_family.values(), *(candidate.key for candidate in others[: math.ceil(keep * len(others))])}
    return [candidate for candidate in alive if candidate.name or candidate.key in chosen]
