"""Losses side by side under equal budgets: one sweep of learning rates, fresh seeds, then the test split."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evoloss.config import Rung
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import Evaluation, Job, Role, Status, derive_seed
from evoloss.workers import Pool

TUNING_SEED = "tuning"  # of the training that chooses the rate; its score is not reported


@dataclass(frozen=True)
class Standing:
    """A loss after the contest: accuracies by seed, in the order of the seeds."""

    expression: Expression
    scale: float
    rate: float
    select: tuple[float, ...]
    test: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """Mean paired difference of two losses, with its 95 % interval and p of the paired t-test."""

    mean: float
    low: float
    high: float
    p: float


def contest(
    expressions: Sequence[Expression],
    proxy: str,
    rung: Rung,
    seeds: int,
    seed: int,
    pool: Pool,
    tick: Callable[[int, int], None] = lambda done, due: None,
) -> list[Standing]:
    """Each loss at its best rate of the rung, which one training chooses on the select role, on `seeds` fresh seeds.

    Raises `EvolossError` where a loss fails the screens or a training.
    """
    due = len(expressions) * (1 + len(rung.rates) * (len(rung.rates) > 1) + seeds)
    done = 0

    def evaluate(jobs: list[Job]) -> dict[Job, Evaluation]:
        nonlocal done
        answers: dict[Job, Evaluation] = {}
        for evaluation in pool(jobs):
            answers[evaluation.job] = evaluation
            done += 1
            tick(done, due)
        return answers

    scales = _scales(expressions, proxy, seed, evaluate)
    rates = _rates(expressions, scales, proxy, rung, seed, evaluate)
    both: tuple[Role, ...] = ("select", "test")
    jobs = {
        (e, number): _job(e, proxy, scales[e], rung, rates[e], (seed, "fresh", number), both)
        for e in expressions
        for number in range(seeds)
    }
    answers = evaluate(list(jobs.values()))
    standings: list[Standing] = []
    for expression in expressions:
        results = [answers[jobs[expression, number]] for number in range(seeds)]
        for result in results:
            if result.score is None or result.test_score is None:
                raise EvolossError(f"`{expression}` failed a training: {result.status}, {result.detail}")
        select = tuple(result.score for result in results if result.score is not None)
        test = tuple(result.test_score for result in results if result.test_score is not None)
        standings.append(Standing(expression, scales[expression], rates[expression], select, test))
    return standings


_Evaluate = Callable[[list[Job]], dict[Job, Evaluation]]


def _scales(expressions: Sequence[Expression], proxy: str, seed: int, evaluate: _Evaluate) -> dict[Expression, float]:
    """The constants that make the initial gradients as long as cross-entropy's."""
    jobs = {e: Job("screen", e.key, e.text, proxy, derive_seed(seed, "screen")) for e in expressions}
    answers = evaluate(list(jobs.values()))
    scales: dict[Expression, float] = {}
    for expression, job in jobs.items():
        answer = answers[job]
        if answer.negate:
            raise EvolossError(
                f"`{expression}` teaches the opposite: it learns when negated, try `{expression.negated}`"
            )
        if answer.status is not Status.OK or answer.scale is None:
            raise EvolossError(f"`{expression}` is {answer.status} by the screens: {answer.detail}")
        scales[expression] = answer.scale
    return scales


def _rates(
    expressions: Sequence[Expression],
    scales: dict[Expression, float],
    proxy: str,
    rung: Rung,
    seed: int,
    evaluate: _Evaluate,
) -> dict[Expression, float]:
    if len(rung.rates) == 1:
        return dict.fromkeys(expressions, rung.rates[0])
    jobs = {
        (expression, rate): _job(expression, proxy, scales[expression], rung, rate, (seed, TUNING_SEED))
        for expression in expressions
        for rate in rung.rates
    }
    answers = evaluate(list(jobs.values()))
    scores = {place: answers[job].score for place, job in jobs.items()}

    def best(expression: Expression) -> float:
        return max(rung.rates, key=lambda rate: scores[expression, rate] or -1.0)

    return {expression: best(expression) for expression in expressions}


def _job(
    expression: Expression,
    proxy: str,
    scale: float,
    rung: Rung,
    rate: float,
    seed: tuple[object, ...],
    roles: tuple[Role, ...] = ("select",),
) -> Job:
    budget = next(budget for budget in rung.budgets() if budget.learning_rate == rate)
    number, limit = derive_seed(*seed), budget.time_limit
    return Job("train", expression.key, expression.text, proxy, number, budget, scale, roles, limit)


def difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """First minus second, paired by seed: Student's t (1908). None for fewer than two pairs."""
    from scipy import stats

    pairs = [a - b for a, b in zip(first, second, strict=True)]
    if len(pairs) < 2:
        return None
    mean = statistics.fmean(pairs)
    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0)
    width = float(stats.t.ppf(0.975, len(pairs) - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, len(pairs) - 1))
    return Difference(mean, mean - width, mean + width, p)


def verdict(gap: Difference | None) -> str:
    """What the interval allows to say."""
    if gap is None:
        return "one seed shows nothing"
    if gap.low > 0:
        return "better"
    return "worse" if gap.high < 0 else "not distinguishable"
