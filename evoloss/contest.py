"""Losses side by side under equal budgets: one sweep of learning rates, fresh seeds, then the test split once.

The sweep is a row of rates without ends: it begins with those of the rung, and goes on beyond an end at which a loss
gets better. A sweep with ends makes leads out of nothing: with 40 % of the labels wrong, 5,000 x 30 on Fashion-MNIST,
cross-entropy has .734 at the best of four rates, the highest, and .808 two steps below the lowest.
"""

import logging
import statistics
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from evoloss.archive import Archive
from evoloss.baselines import BASELINES
from evoloss.config import Rung
from evoloss.expression import Expression
from evoloss.records import DataSpec, Evaluation, Job, Role, Standing, Status, derive_seed
from evoloss.regimes import rounded
from evoloss.workers import Pool, opened_when_needed

TUNING_SEEDS = 2  # trainings a rate of the sweep; their scores choose the rate and are not reported
WIDER = 4  # further rates beyond an end of the sweep; four steps of two are a factor of 16
SCREEN_LIMIT = 60.0  # seconds, for formulas that hang
REFERENCE = Expression.parse(BASELINES["ce"].expression)  # what every loss is compared with

Evaluate = Callable[[Iterable[Job]], dict[Job, Evaluation]]
Sweep = dict[float, list[Evaluation]]  # by rate, those of the tuning seeds

log = logging.getLogger("evoloss")


@dataclass(frozen=True)
class Contender:
    """A loss that takes part; `name` is empty for one that no paper has named."""

    expression: Expression
    name: str = ""


@dataclass(frozen=True)
class Contest:
    """Who meets under which conditions: data, a proxy, and a rung (budget, optimizer and sweep of learning rates).

    `series` tells the seeds of one occasion from those of another: a playoff's are not used again by `evoloss compare`.
    """

    regime: str
    data: DataSpec
    proxy: str
    rung: Rung
    contenders: tuple[Contender, ...]
    seeds: int
    seed: int
    series: str = ""

    @property
    def trainings(self) -> int:
        """The trainings that it takes if no loss fails or gets better at an end of the sweep."""
        return len(self.contenders) * (len(self.rung.rates) * self._tuning_seeds + self.seeds)

    @property
    def _tuning_seeds(self) -> int:
        return TUNING_SEEDS if len(self.rung.rates) > 1 else 0

    def standings(self, evaluate: Evaluate) -> list[Standing]:
        """Every contender at its best rate on the same fresh seeds, in the order of the contenders.

        Best is the mean select accuracy over the tuning seeds. A loss that is better at an end of the sweep than beside
        it meets further rates beyond, up to `WIDER`, until one is worse; one that fails at all rates meets lower ones.
        A loss that fails the screens, all rates or a fresh seed stands there with the reason and without scores.
        """
        standings = self._screened(evaluate)
        standings = self._tuned(standings, evaluate)
        return self._trained(standings, evaluate)

    def _screened(self, evaluate: Evaluate) -> list[Standing]:
        # The seed with which a search screens: a candidate keeps the scale that its run gave it.
        seed = derive_seed(self.seed, "training", 0)
        jobs = [
            Job("screen", c.expression.key, c.expression.text, self.proxy, seed, time_limit=SCREEN_LIMIT)
            for c in self.contenders
        ]
        answers = evaluate(jobs)
        return [_screened(self.regime, c, answers[job]) for c, job in zip(self.contenders, jobs, strict=True)]

    def _tuned(self, standings: list[Standing], evaluate: Evaluate) -> list[Standing]:
        rates = sorted(self.rung.rates)
        if len(rates) == 1:
            return [replace(s, rate=rates[0]) if s.status is Status.OK else s for s in standings]
        sweeps: dict[str, Sweep] = {s.key: {} for s in standings if s.status is Status.OK}
        due = dict.fromkeys(sweeps, rates)
        for _ in range(1 + WIDER):
            self._try(standings, due, sweeps, evaluate)
            due = {key: further for key, sweep in sweeps.items() if (further := _beyond(sweep))}
            if not due:
                break
        return [_tuned(s, sweeps[s.key]) if s.key in sweeps else s for s in standings]

    def _try(
        self, standings: list[Standing], due: dict[str, list[float]], sweeps: dict[str, Sweep], evaluate: Evaluate
    ) -> None:
        """Enter into the sweeps what comes of the rates that are due."""
        jobs = [
            (s.key, rate, self._job(s, rate, ("tuning", number)))
            for s in standings
            for rate in due.get(s.key, ())
            for number in range(TUNING_SEEDS)
        ]
        answers = evaluate(job for _, _, job in jobs)
        log.info("%s: %d rates tried", self.regime, len(jobs))
        for key, rate, job in jobs:
            sweeps[key].setdefault(rate, []).append(answers[job])

    def _trained(self, standings: list[Standing], evaluate: Evaluate) -> list[Standing]:
        jobs = {
            (s.key, number): self._job(s, s.rate, ("fresh", number), ("select", "test"))
            for s in standings
            if s.status is Status.OK and s.rate is not None
            for number in range(self.seeds)
        }
        answers = evaluate(jobs.values())
        log.info("%s: %d fresh seeds trained", self.regime, len(jobs))
        results = {place: answers[job] for place, job in jobs.items()}
        return [
            _trained(s, [results[s.key, number] for number in range(self.seeds)]) if s.status is Status.OK else s
            for s in standings
        ]

    def _job(
        self, standing: Standing, rate: float | None, seed: tuple[str, int], roles: tuple[Role, ...] = ("select",)
    ) -> Job:
        budget = self.rung.budgets()[0]
        if rate is not None:
            budget = replace(budget, learning_rate=rate)
        purpose, place = seed
        number = derive_seed(self.seed, self.series + purpose, place)
        scale = 1.0 if standing.scale is None else standing.scale
        return Job(
            "train", standing.key, standing.expression, self.proxy, number, budget, scale, roles, budget.time_limit
        )


def _screened(regime: str, contender: Contender, answer: Evaluation) -> Standing:
    expression = contender.expression
    standing = Standing(regime, expression.key, expression.text, contender.name)
    if answer.negate:
        opposite = f"teaches the opposite: it learns when negated, try `{expression.negated}`"
        return replace(standing, status=Status.REJECTED, detail=opposite)
    if answer.status is not Status.OK or answer.scale is None:
        return replace(standing, status=answer.status, detail=answer.detail)
    return replace(standing, scale=answer.scale)


def _means(sweep: Sweep) -> dict[float, float]:
    """The mean score at each rate at which no training failed, the lowest first."""
    known = {rate: [e.score for e in sweep[rate] if e.score is not None] for rate in sorted(sweep)}
    return {rate: statistics.fmean(scores) for rate, scores in known.items() if len(scores) == TUNING_SEEDS}


def _beyond(sweep: Sweep) -> list[float]:
    """The next rates beyond the ends at which a loss gets better, as far on as the neighbor of the end lies.

    Both ends are asked, whichever is the best: a training that memorizes has a peak below and one above that.
    """
    means, rates = _means(sweep), sorted(sweep)
    low, high = rates[:2], rates[:-3:-1]
    rising = [pair for pair in (low, high) if means.get(pair[0], -1.0) > means.get(pair[1], -1.0)]
    return [rounded(end * end / beside) for end, beside in (rising if means else [low])]


def _tuned(standing: Standing, sweep: Sweep) -> Standing:
    """At the rate of the best mean; the smallest of equal ones."""
    means = _means(sweep)
    if not means:
        failed = next(e for evaluations in sweep.values() for e in evaluations if e.score is None)
        return replace(standing, status=failed.status, detail=f"at every rate: {failed.detail}")
    best = max(means, key=lambda rate: means[rate])
    return replace(standing, rate=best, at_edge=best in (min(sweep), max(sweep)))


def _trained(standing: Standing, results: Sequence[Evaluation]) -> Standing:
    failed = [result for result in results if result.score is None or result.test_score is None]
    if failed:
        where = f"{len(failed)} of {len(results)} fresh seeds at rate {standing.rate:g}"
        return replace(standing, status=failed[0].status, detail=f"{where}: {failed[0].detail}")
    select = tuple(result.score for result in results if result.score is not None)
    test = tuple(result.test_score for result in results if result.test_score is not None)
    calibration = tuple(result.test_ece for result in results if result.test_ece is not None)
    return replace(standing, select=select, test=test, calibration=calibration)


def hold(
    contests: Iterable[Contest],
    path: Path,
    open_pool: Callable[[DataSpec], AbstractContextManager[Pool]],
    heard: Callable[[Evaluation], None] = lambda _: None,
) -> list[Standing]:
    """All contests, each evaluation and every standing stored in the archive at `path`.

    What is there already is not trained again; a pool is opened for data on which something is left to train.
    """
    by_data: dict[DataSpec, list[Contest]] = {}
    for contest in contests:
        by_data.setdefault(contest.data, []).append(contest)
    standings: list[Standing] = []
    for data, group in by_data.items():
        with closing(Archive(path, data)) as archive, ExitStack() as stack:
            pool = opened_when_needed(stack, partial(open_pool, data))
            for contest in group:
                standings += contest.standings(partial(archive.answers, pool=pool, heard=heard))
            archive.set_standings(standings)
    return standings


def averaged(regime: str, groups: Sequence[Sequence[Standing]]) -> list[Standing]:
    """How losses came out of several contests on the same seeds taken together: the mean accuracy by seed.

    A loss that failed in one of them has failed; its scale and its rate are those of the first.
    """
    by_key = [{standing.key: standing for standing in group} for group in groups]
    return [_averaged(regime, [standings[first.key] for standings in by_key]) for first in groups[0]]


def _averaged(regime: str, standings: Sequence[Standing]) -> Standing:
    failed = next((s for s in standings if s.status is not Status.OK), None)
    if failed:
        detail = f"{failed.regime}: {failed.detail}"
        return replace(
            standings[0], regime=regime, status=failed.status, detail=detail, select=(), test=(), calibration=()
        )
    return replace(
        standings[0],
        regime=regime,
        at_edge=any(s.at_edge for s in standings),
        select=tuple(map(statistics.fmean, zip(*(s.select for s in standings), strict=True))),
        test=tuple(map(statistics.fmean, zip(*(s.test for s in standings), strict=True))),
        calibration=tuple(map(statistics.fmean, zip(*(s.calibration for s in standings), strict=False))),
    )
