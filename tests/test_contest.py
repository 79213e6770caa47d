import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import stubs

from evoloss import contest
from evoloss.config import Rung
from evoloss.contest import REFERENCE, Contender, Contest
from evoloss.expression import Expression
from evoloss.records import DataSpec, Evaluation, Standing, Status

RUNG = Rung(samples=100, epochs=1, rates=(1e-3, 2e-3, 4e-3))
SQUARED = Expression.parse("(p - y)**2")
DATA = DataSpec("digits")


def meeting(contenders=(SQUARED, REFERENCE), rung=RUNG, seeds=3, data=DATA, regime="adam"):
    return Contest(regime, data, "mlp", rung, tuple(Contender(e) for e in contenders), seeds, 0)


def answering(score, seen=None):
    """An `evaluate` of a contest in which `score(job)` is both accuracies; None diverges."""

    def evaluate(jobs):
        answers = {}
        for job in jobs:
            if seen is not None:
                seen.append(job)
            if job.task == "screen":
                answers[job] = Evaluation(job, Status.OK, scale=2.0)
            elif (value := score(job)) is None:
                answers[job] = Evaluation(job, Status.DIVERGED, "loss nan")
            else:
                answers[job] = Evaluation(
                    job, Status.OK, score=value, test_score=value if "test" in job.roles else None
                )
        return answers

    return evaluate


def test_rates_are_chosen_on_select_and_fresh_seeds_scored_on_test():
    seen = []

    def score(job):
        return {1e-3: 0.5, 2e-3: 0.7, 4e-3: 0.6}[job.budget.learning_rate] + stubs.number(job.key, job.seed) / 100

    standings = meeting().standings(answering(score, seen))
    assert [s.expression for s in standings] == [SQUARED.text, REFERENCE.text]
    assert [s.rate for s in standings] == [2e-3, 2e-3]
    assert all(not s.at_edge and len(s.test) == len(s.select) == 3 for s in standings)
    tuning = [job for job in seen if job.task == "train" and "test" not in job.roles]
    final = [job for job in seen if "test" in job.roles]
    assert {job.seed for job in tuning}.isdisjoint(job.seed for job in final)
    assert len({job.seed for job in tuning}) == contest.TUNING_SEEDS
    places = {(e.key, r, n) for e in (REFERENCE, SQUARED) for r in RUNG.rates for n in range(contest.TUNING_SEEDS)}
    assert len(tuning) == len(places)
    assert {(job.key, job.budget.learning_rate) for job in tuning} == {(key, rate) for key, rate, _ in places}
    by_loss = {e.key: {job.seed for job in final if job.key == e.key} for e in (REFERENCE, SQUARED)}
    assert by_loss[REFERENCE.key] == by_loss[SQUARED.key]
    assert all(job.scale == 2.0 for job in seen if job.task == "train")
    assert len(tuning) + len(final) == meeting().trainings


def test_the_best_mean_of_the_tuning_seeds_wins_and_a_single_lucky_one_does_not():
    def score(job):
        lucky = job.budget.learning_rate == 1e-3 and stubs.number(job.seed) > 0.5
        return 0.99 if lucky else {1e-3: 0.1, 2e-3: 0.6, 4e-3: 0.5}[job.budget.learning_rate]

    (only,) = meeting([REFERENCE]).standings(answering(score))
    assert only.rate == 2e-3
    assert not only.at_edge


def test_a_rate_at_which_a_tuning_seed_fails_is_not_chosen():
    seen = []
    fails_high = answering(lambda job: None if job.budget.learning_rate > 2e-3 else 0.5, seen)
    (only,) = meeting([REFERENCE]).standings(fails_high)
    assert only.rate == 1e-3  # the smallest of equal ones: that it is the lowest, too, promises nothing beyond
    assert {job.budget.learning_rate for job in seen if job.budget} == set(RUNG.rates)
    assert only.status is Status.OK


@pytest.mark.parametrize("peak", [6.25e-5, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 3.2e-2, 6.4e-2])
def test_a_sweep_goes_on_beyond_the_end_at_which_a_loss_is_best(peak):
    """For that loss alone: the other one is best inside."""
    seen = []

    def score(job):
        best = peak if job.key == SQUARED.key else 2e-3
        return 0.9 - abs(math.log2(job.budget.learning_rate / best)) / 100

    squared, ce = meeting().standings(answering(score, seen))
    tried = {key: {j.budget.learning_rate for j in seen if j.key == key and j.budget} for key in (squared.key, ce.key)}
    assert (squared.rate, ce.rate) == (peak, 2e-3)
    assert tried[ce.key] == set(RUNG.rates)
    grid = [1e-3 * 2.0**step for step in range(-contest.WIDER, len(RUNG.rates) + contest.WIDER)]
    assert tried[squared.key] == {r for r in grid if min(1e-3, peak / 2) <= r <= max(4e-3, 2 * peak)}
    assert squared.at_edge == (peak in (grid[0], grid[-1]))
    assert not ce.at_edge


def test_a_sweep_with_two_peaks_goes_on_at_both_ends():
    """As cross-entropy's has where labels are wrong: too high a rate to memorize them, or too low a one."""
    scores = {2.5e-4: 0.7, 5e-4: 0.8, 1e-3: 0.7, 2e-3: 0.6, 4e-3: 0.71, 8e-3: 0.72, 1.6e-2: 0.1}
    seen = []
    (only,) = meeting([REFERENCE]).standings(answering(lambda job: scores[job.budget.learning_rate], seen))
    assert {job.budget.learning_rate for job in seen if job.budget} == set(scores)
    assert (only.rate, only.at_edge) == (5e-4, False)


def test_the_rates_of_a_longer_sweep_are_met_on_the_same_tuning_seeds():
    seen = []
    meeting([REFERENCE]).standings(answering(lambda job: job.budget.learning_rate, seen))
    tuning = [job for job in seen if job.budget and "test" not in job.roles]
    by_rate = {rate: {j.seed for j in tuning if j.budget.learning_rate == rate} for rate in (1e-3, 6.4e-2)}
    assert len(tuning) == contest.TUNING_SEEDS * (len(RUNG.rates) + contest.WIDER)
    assert by_rate[1e-3] == by_rate[6.4e-2]
    assert len(by_rate[1e-3]) == contest.TUNING_SEEDS


def test_another_series_has_seeds_of_its_own_and_the_same_screens():
    first, other = _jobs(meeting()), _jobs(replace(meeting(), series="playoff "))
    trained = [{job.seed for job in jobs if job.task == "train"} for jobs in (first, other)]
    assert trained[0].isdisjoint(trained[1])
    assert [j for j in first if j.task == "screen"] == [j for j in other if j.task == "screen"]


def test_one_rate_needs_no_tuning():
    rung = RUNG.model_copy(update={"rates": (1e-3,)})
    seen = []
    (only,) = meeting([REFERENCE], rung).standings(answering(lambda job: 0.5, seen))
    assert only.rate == 1e-3
    assert sum(job.task == "train" for job in seen) == 3 == meeting([REFERENCE], rung).trainings


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ({"status": Status.OK, "negate": True}, "learns when negated"),
        ({"status": Status.REJECTED, "detail": "flat: no gradient"}, "flat: no gradient"),
    ],
)
def test_a_loss_that_fails_the_screens_stands_there_with_the_reason(answer, detail):
    (only,) = meeting([SQUARED]).standings(lambda jobs: {job: Evaluation(job, **answer) for job in jobs})
    assert only.status is Status.REJECTED
    assert detail in only.detail
    assert only.test == ()


def test_a_loss_that_fails_everywhere_or_once_has_no_scores():
    def score(job):
        return None if job.key == SQUARED.key else 0.5

    seen = []
    squared, ce = meeting().standings(answering(score, seen))
    rates = {job.budget.learning_rate for job in seen if job.key == SQUARED.key and job.budget}
    assert rates == {1e-3 / 2**step for step in range(contest.WIDER + 1)} | set(RUNG.rates)
    assert (squared.status, squared.test) == (Status.DIVERGED, ())
    assert squared.detail == "at every rate: loss nan"
    assert len(ce.test) == 3
    last = max(job.seed for job in _jobs(meeting([SQUARED])) if "test" in job.roles)
    (once,) = meeting([SQUARED]).standings(answering(lambda job: None if job.seed == last else 0.5))
    assert (once.status, once.test) == (Status.DIVERGED, ())
    assert once.detail.startswith("1 of 3 fresh seeds")


def test_contests_on_the_same_data_share_a_pool(tmp_path):
    opened = []

    @contextmanager
    def open_pool(data):
        opened.append(data.name)
        yield stubs.pooled(lambda jobs: answering(lambda job: 0.5)(jobs).values())

    mnist = meeting(data=DataSpec("mnist"), regime="mnist")
    contests = [meeting(), mnist, meeting(rung=RUNG.model_copy(update={"samples": 50}), regime="short")]
    held = contest.hold(contests, tmp_path / "archive.sqlite", open_pool)
    assert opened == ["digits", "mnist"]
    assert {s.regime for s in held} == {"adam", "mnist", "short"}


def standing(regime, key, *test, status=Status.OK, rate=1e-3, at_edge=False):
    detail = "" if status is Status.OK else "loss nan"
    select = tuple(score + 0.1 for score in test)
    return Standing(regime, key, key, "", status, detail, 2.0, rate, at_edge, select, test)


def test_contests_taken_together_are_their_means_by_seed():
    adam = [standing("adam", "ce", 0.5, 0.7), standing("adam", "a", 0.6, 0.6)]
    sgd = [standing("sgd", "a", 0.2, 0.4, rate=3e-2, at_edge=True), standing("sgd", "ce", 0.1, 0.1)]
    ce, a = contest.averaged("both", [adam, sgd])
    assert (ce.key, ce.test, ce.select) == ("ce", pytest.approx((0.3, 0.4)), pytest.approx((0.4, 0.5)))
    assert (a.key, a.test, a.regime) == ("a", pytest.approx((0.4, 0.5)), "both")
    assert (a.scale, a.rate, a.at_edge, ce.at_edge) == (2.0, 1e-3, True, False)


def test_a_loss_that_failed_in_one_contest_has_failed_in_them_together():
    adam = [standing("adam", "a", 0.6, 0.6)]
    sgd = [standing("sgd", "a", status=Status.DIVERGED)]
    for groups in ([adam, sgd], [sgd, adam]):
        (both,) = contest.averaged("both", groups)
        assert (both.regime, both.status, both.detail) == ("both", Status.DIVERGED, "sgd: loss nan")
        assert both.test == both.select == ()


def _jobs(match):
    seen = []
    match.standings(answering(lambda job: 0.5, seen))
    return seen


def test_holding_contests_stores_everything_and_trains_nothing_twice(tmp_path):
    opened, trained = [], []

    @contextmanager
    def open_pool(data):
        opened.append(data.name)

        @stubs.pooled
        def pool(jobs):
            for job in jobs:
                trained.append(job)
                yield answering(lambda job: stubs.number(job.key, job.seed, job.budget.samples))([job])[job]

        yield pool

    other = meeting(data=DataSpec("mnist"), regime="data")
    contests = [meeting(), meeting(rung=RUNG.model_copy(update={"samples": 50}), regime="short"), other]
    first = contest.hold(contests, tmp_path / "archive.sqlite", open_pool)
    count = len(trained)
    assert opened == ["digits", "mnist"]
    again = contest.hold(contests, tmp_path / "archive.sqlite", open_pool)
    assert again == first
    assert opened == ["digits", "mnist"]
    assert len(trained) == count
    assert [s.regime for s in first] == ["adam", "adam", "short", "short", "data", "data"]
    assert all(isinstance(s, Standing) and s.status is Status.OK for s in first)
