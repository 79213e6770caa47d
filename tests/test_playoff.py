import math
import random
import statistics

import pytest
import stubs
from scipy import stats

from evoloss import playoff
from evoloss.config import Rung
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import Evaluation, Status

RUNG = Rung(samples=100, epochs=1, rates=(1e-3, 2e-3))
CE, SQUARED = Expression.parse("-y*log(p)"), Expression.parse("(p - y)**2")


def pool_scoring(score):
    def pool(jobs):
        for job in jobs:
            if job.task == "screen":
                yield Evaluation(job, Status.OK, scale=2.0)
            else:
                test = score(job) if "test" in job.roles else None
                yield Evaluation(job, Status.OK, score=score(job), test_score=test)

    return pool


def test_a_contest_tunes_on_select_and_tests_fresh_seeds_of_its_own():
    seen = []

    def score(job):
        seen.append(job)
        return 0.5 + 100 * job.budget.learning_rate + stubs.number(job.key, job.seed) / 100

    standings = playoff.contest([SQUARED, CE], "mlp", RUNG, 3, 0, pool_scoring(score))
    assert [s.expression for s in standings] == [SQUARED, CE]
    assert [s.rate for s in standings] == [2e-3, 2e-3]
    assert all(len(s.test) == len(s.select) == 3 for s in standings)
    tuning = [job for job in seen if "test" not in job.roles]
    final = [job for job in seen if "test" in job.roles]
    assert {job.seed for job in tuning}.isdisjoint(job.seed for job in final)
    assert {(job.key, job.budget.learning_rate) for job in tuning} == {
        (e.key, r) for e in (CE, SQUARED) for r in RUNG.rates
    }
    by_loss = {e.key: {job.seed for job in final if job.key == e.key} for e in (CE, SQUARED)}
    assert by_loss[CE.key] == by_loss[SQUARED.key]
    assert all(job.scale == 2.0 for job in seen)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"status": Status.OK, "negate": True}, "learns when negated"),
        ({"status": Status.REJECTED, "detail": "flat: no gradient"}, "flat: no gradient"),
    ],
)
def test_a_loss_that_fails_the_screens_is_refused(answer, message):
    with pytest.raises(EvolossError, match=message):
        playoff.contest([CE], "mlp", RUNG, 2, 0, lambda jobs: (Evaluation(job, **answer) for job in jobs))


def test_a_training_that_fails_is_an_error():
    def pool(jobs):
        for job in jobs:
            if job.task == "screen":
                yield Evaluation(job, Status.OK, scale=1.0)
            else:
                yield Evaluation(job, Status.DIVERGED, "loss nan")

    with pytest.raises(EvolossError, match="loss nan"):
        playoff.contest([CE], "mlp", RUNG, 2, 0, pool)


def test_the_difference_is_the_paired_t_test_of_scipy():
    rng = random.Random(0)
    first = [0.9 + rng.gauss(0, 0.01) for _ in range(7)]
    second = [value - 0.004 + rng.gauss(0, 0.002) for value in first]
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    gap = playoff.difference(first, second)
    assert gap.mean == pytest.approx(statistics.fmean(first) - statistics.fmean(second))
    assert (gap.low, gap.high, gap.p) == pytest.approx((interval.low, interval.high, expected.pvalue))


def test_differences_without_spread_or_without_pairs():
    assert playoff.difference([0.5], [0.4]) is None
    assert playoff.difference([0.5, 0.5], [0.5, 0.5]).p == 1.0
    assert playoff.difference([0.75, 0.75], [0.5, 0.5]).p == 0.0


def test_verdicts_follow_the_interval():
    gaps = {"better": (0.1, 0.2), "worse": (-0.2, -0.1), "not distinguishable": (-0.1, 0.2)}
    for word, (low, high) in gaps.items():
        assert playoff.verdict(playoff.Difference((low + high) / 2, low, high, math.nan)) == word
    assert playoff.verdict(None) == "one seed shows nothing"


def test_a_loss_compared_with_itself_is_seldom_called_different():
    """The verdict's error rate on pairs without a difference is the 5 % that it promises: 7 % is 2.4 sd above."""
    rng = random.Random(1)
    verdicts = [
        playoff.verdict(
            playoff.difference([rng.gauss(0.9, 0.002) for _ in range(5)], [rng.gauss(0.9, 0.002) for _ in range(5)])
        )
        for _ in range(700)
    ]
    assert sum(word != "not distinguishable" for word in verdicts) <= 0.07 * len(verdicts)
