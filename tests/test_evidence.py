import math
import random
import statistics

import numpy as np
import pytest
import stubs
from scipy import stats

from evoloss import evidence
from evoloss.config import Rung
from evoloss.contest import REFERENCE, Contender, Contest
from evoloss.records import DataSpec, Evaluation, Standing, Status

SEEDS = 5


def standing(name, test, status=Status.OK):
    return Standing("adam", name, name, name, status, select=tuple(test), test=tuple(test))


def noisy(rng, mean=0.9, deviation=0.002, count=SEEDS):
    return [rng.gauss(mean, deviation) for _ in range(count)]


def test_the_difference_is_the_paired_t_test_of_scipy():
    rng = random.Random(0)
    first = noisy(rng, 0.9, 0.01, 7)
    second = [value - 0.004 + rng.gauss(0, 0.002) for value in first]
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(0.95)
    gap = evidence.difference(first, second)
    assert gap.mean == pytest.approx(statistics.fmean(first) - statistics.fmean(second))
    assert (gap.low, gap.high, gap.p) == pytest.approx((interval.low, interval.high, expected.pvalue))


def test_the_difference_of_students_own_example():
    """The additional sleep of ten patients under two drugs, Student (1908): t = 4.0621, p = .00283, mean 1.58."""
    laevo = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    dextro = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    gap = evidence.difference(laevo, dextro)
    assert gap.mean == pytest.approx(1.58)
    assert gap.p == pytest.approx(0.00283, abs=5e-6)
    assert (gap.low, gap.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)  # R: t.test(..., paired = TRUE)


def test_differences_without_spread_or_without_pairs():
    assert evidence.difference([0.5], [0.4]) is None
    assert evidence.difference([0.5, 0.5], [0.5, 0.5]).p == 1.0
    assert evidence.difference([0.75, 0.75], [0.5, 0.5]).p == 0.5  # two signs that are the same: one case of two
    assert evidence.verdict(evidence.difference([0.75, 0.75], [0.5, 0.5])) == "not distinguishable"
    equal = evidence.difference([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])  # but for the last bits of the floats
    assert equal.p == 0.25


def test_the_correction_is_holms():
    # R: p.adjust(c(0.01, 0.04, 0.03), "holm")
    assert evidence.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    # R: p.adjust(c(0.02, 0.001, 0.4, 0.02, 0.03), "holm")
    assert evidence.holm([0.02, 0.001, 0.4, 0.02, 0.03]) == pytest.approx([0.08, 0.005, 0.4, 0.08, 0.08])
    assert evidence.holm([0.8, 0.9]) == [1.0, 1.0]
    assert evidence.holm([]) == []


@pytest.mark.parametrize(
    ("mean", "p", "word"), [(1, 0.01, "better"), (-1, 0.01, "worse"), (1, 0.05, "not distinguish")]
)
def test_verdicts_follow_p_and_sign(mean, p, word):
    gap = evidence.Difference(mean, mean - 2, mean + 2, p)
    assert evidence.verdict(gap).startswith(word)
    assert evidence.verdict(gap, 1.0) == "not distinguishable"


def test_one_seed_shows_nothing():
    assert evidence.verdict(None) == "one seed shows nothing"


def test_the_interval_excludes_zero_exactly_where_the_verdict_says_so():
    rng = random.Random(2)
    for _ in range(200):
        gap = evidence.difference(noisy(rng, rng.uniform(0.898, 0.902)), noisy(rng))
        assert (evidence.verdict(gap) == "not distinguishable") == (gap.low < 0 < gap.high)


def test_a_judgement_is_corrected_for_all_who_took_part():
    """A p of .037 convinces alone, and not as the best of ten."""
    rng = random.Random(3)
    base = noisy(rng, count=8)
    lucky = [value + difference for value, difference in zip(base, [4, -1, 3, 1, 5, -1, 2, 3], strict=True)]
    assert evidence.difference(lucky, base).p == pytest.approx(0.0371834)
    others = [standing(f"other {n}", noisy(rng, count=8)) for n in range(9)]
    alone = evidence.judge([standing("ce", base), standing("lucky", lucky)], "ce")
    among = evidence.judge([standing("ce", base), standing("lucky", lucky), *others], "ce")
    assert {j.standing.key: j.verdict for j in alone}["lucky"] == "better"
    assert {j.standing.key: j.verdict for j in among}["lucky"] == "not distinguishable"


def test_judgements_are_sorted_and_say_what_failed():
    rows = [
        standing("low", [0.5, 0.6, 0.55]),
        standing("dead", [], Status.DIVERGED),
        standing("ce", [0.9, 0.91, 0.9]),
        standing("high", [0.95, 0.951, 0.952]),
    ]
    judged = evidence.judge(rows, "ce")
    assert [j.standing.key for j in judged] == ["high", "ce", "low", "dead"]
    assert [j.verdict for j in judged] == ["better", "reference", "worse", "failed: diverged"]
    assert judged[1].gap is None
    assert judged[3].p_holm is None


def test_where_the_reference_fails_nothing_is_judged():
    judged = evidence.judge([standing("ce", [], Status.TIMEOUT), standing("a", [0.5, 0.6])], "ce")
    assert {j.standing.key: j.verdict for j in judged} == {"ce": "failed: timeout", "a": "the reference failed"}
    assert evidence.noise_ceiling(judged, 2, 2) is None
    with pytest.raises(ValueError, match="no standing of the reference"):
        evidence.judge([standing("a", [0.5, 0.6])], "ce")


# 1/sqrt(pi), 3/(2 sqrt(pi)), then Tippett (1925), Biometrika 17, table II: half of the mean range of two tails
@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, 0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (10, 1.53875), (100, 2.50759)],
)
def test_the_expected_maximum_of_normals(count, expected):
    assert evidence.expected_maximum(count) == pytest.approx(expected, abs=1e-5)


def test_the_noise_ceiling_is_what_luck_shows():
    """Twenty losses equal to the reference, with a noise of .002 and a share of each seed's luck in common."""
    rng = random.Random(4)
    leads, ceilings = [], []
    for _ in range(60):
        common = noisy(rng, 0.9, 0.003)
        draws = [[value + rng.gauss(0, 0.002) for value in common] for _ in range(21)]
        judged = evidence.judge([standing(str(n), draw) for n, draw in enumerate(draws)], "0")
        leads.append(max(j.gap.mean for j in judged if j.gap))
        ceilings.append(evidence.noise_ceiling(judged, 20, SEEDS))
    assert statistics.fmean(ceilings) == pytest.approx(statistics.fmean(leads), rel=0.15)


def test_a_loss_compared_with_itself_is_seldom_called_different():
    """The whole of a contest, 200 times, same formula and disjoint seeds: the error rate is the 5 % that is promised.

    More than 7 % of 200 would be 1.3 standard deviations above.
    """

    def pool(jobs):
        for job in jobs:
            if job.task == "screen":
                yield Evaluation(job, Status.OK, scale=1.0)
            else:
                score = 0.9 + 0.002 * random.Random(stubs.number(job.seed)).gauss(0, 1)
                yield Evaluation(job, Status.OK, score=score, test_score=score)

    def scores(seed):
        rung = Rung(samples=100, epochs=1, rates=(1e-3, 2e-3))
        contest = Contest("adam", DataSpec("digits"), "mlp", rung, (Contender(REFERENCE, "ce"),), SEEDS, seed)
        (only,) = contest.standings(lambda jobs: {answer.job: answer for answer in pool(jobs)})
        return only.test

    verdicts = [evidence.verdict(evidence.difference(scores(2 * n), scores(2 * n + 1))) for n in range(200)]
    wrong = sum(word != "not distinguishable" for word in verdicts)
    assert 0 < wrong <= 0.07 * len(verdicts)


def rounded(rng, count, ties):
    """Numbers with ties where `ties`."""
    values = rng.normal(size=count)
    return values.round(0) if ties else values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [3, 12, 67])
def test_rank_correlations_are_those_of_scipy_on_the_sample_and_on_every_resample(count, ties):
    rng = np.random.default_rng(count)
    first = rounded(rng, count, ties)
    second = first + rounded(rng, count, ties)
    spearman, kendall = evidence.rank_correlations(first, second)
    weights = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), evidence.RESAMPLES)
    assert len(spearman) == len(kendall) == 1 + evidence.RESAMPLES
    for number, drawn in enumerate([np.ones(count, int), *weights[:20]]):
        places = np.repeat(np.arange(count), drawn)
        if len(set(first[places])) > 1 and len(set(second[places])) > 1:
            assert spearman[number] == pytest.approx(stats.spearmanr(first[places], second[places])[0])
            assert kendall[number] == pytest.approx(stats.kendalltau(first[places], second[places])[0])
        else:
            assert math.isnan(spearman[number])
            assert math.isnan(kendall[number])


def test_the_interval_of_a_correlation_has_the_length_that_theory_gives():
    """Fisher's z of a normal sample has the standard error 1 / sqrt(n - 3), times 1.03 for ranks (Fieller 1957)."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=100)
    spearman, _ = evidence.rank_correlations(first, first + rng.normal(size=100))
    rho = evidence.bootstrapped(spearman)
    expected = 1.96 * math.sqrt(1.06 / 97)
    assert (math.atanh(rho.high) - math.atanh(rho.low)) / 2 == pytest.approx(expected, rel=0.25)
    assert rho.low < rho.value < rho.high


def test_correlations_with_a_constant_are_not_defined():
    spearman, _ = evidence.rank_correlations([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    estimate = evidence.bootstrapped(spearman)
    assert all(map(math.isnan, (estimate.value, estimate.low, estimate.high)))
