import pytest
import stubs

from evoloss.climb import Climb, promoted
from evoloss.config import Rung, load_space
from evoloss.errors import EvolossError
from evoloss.records import Candidate, Evaluation, Status, derive_seed

LOW, HIGH = 3e-3, 6e-3  # of Adam; SGD's are 30 times as high
RUNGS = (Rung(samples=100, epochs=1, rates=[LOW, HIGH]), Rung(samples=200, epochs=1, rates=[LOW, HIGH], keep=0.5))
SWEEPS = (Rung(samples=100, epochs=1, rates=[HIGH]), Rung(samples=100, epochs=1, rates=[LOW]))  # one length
LOW_SGD, HIGH_SGD = 0.09, 0.18


class Bench:
    """Answers trainings by `accuracies`: (key, optimizer) to the scores of the low and the high rate, or one for both.

    A score is a number, one for each seed, or None for a training that diverges. Each takes a second.
    """

    def __init__(self, accuracies, regimes=("adam", "sgd"), rungs=RUNGS, series="training"):
        self.accuracies = accuracies
        self.calls = []
        smoke = load_space("smoke")
        space = smoke.model_copy(
            update={
                "rungs": {"mlp": rungs},
                "evolution": smoke.evolution.model_copy(update={"max_seeds": 3}),
            }
        )
        self.seeds = {derive_seed(0, series, number): number for number in range(5)}
        self.climb = Climb(stubs.config(space=space, regimes=regimes), self.evaluate, series)
        self.reference = candidate("ce", name="ce")

    def evaluate(self, phase, jobs):
        self.calls.append((phase, list(jobs)))
        return {job: self.answer(job) for job in self.calls[-1][1]}

    def answer(self, job):
        scores = self.accuracies[job.key, job.budget.optimizer]
        if isinstance(scores, dict):
            scores = scores[job.budget.learning_rate]
        score = scores[self.seeds[job.seed]] if isinstance(scores, tuple) else scores
        if score is None:
            return Evaluation(job, Status.DIVERGED, "loss nan", seconds=1.0)
        return Evaluation(job, Status.OK, score=score, seconds=1.0)

    def trained(self):
        """What the last call trained: key, optimizer, rate and number of the seed."""
        jobs = self.calls[-1][1]
        return sorted((job.key, job.budget.optimizer, job.budget.learning_rate, self.seeds[job.seed]) for job in jobs)


def candidate(key, name="", **values):
    return Candidate(key, key, 5, "metric", name, scale=1.0, **values)


def leader(key, scores, name="", rates=(HIGH, LOW_SGD)):
    return candidate(key, name, rung=1, rates=rates, scores=dict(enumerate(scores)), select=dict(enumerate(scores)))


def test_in_one_regime_a_score_is_the_accuracy_at_the_best_rate():
    bench = Bench({("a", "adam"): {LOW: 0.5, HIGH: 0.7}, ("b", "adam"): {LOW: 0.6, HIGH: None}}, regimes=())
    a, b = candidate("a"), candidate("b", "b")
    bench.climb.climb([a, b], bench.reference)
    assert (a.rung, a.scores, a.select, a.rates) == (1, {0: 0.7}, {0: 0.7}, (HIGH,))
    assert (b.rung, b.scores, b.select, b.rates) == (1, {0: 0.6}, {0: 0.6}, (LOW,))
    assert bench.trained() == [(key, "adam", rate, 0) for key in "ab" for rate in (LOW, HIGH)]


GAINS = {
    ("ce", "adam"): {LOW: 0.80, HIGH: 0.82},
    ("ce", "sgd"): {LOW_SGD: 0.72, HIGH_SGD: 0.70},
    ("a", "adam"): {LOW: 0.85, HIGH: 0.83},
    ("a", "sgd"): {LOW_SGD: 0.71, HIGH_SGD: 0.60},
    ("b", "adam"): {LOW: 0.70, HIGH: 0.75},
    ("b", "sgd"): {LOW_SGD: 0.73, HIGH_SGD: 0.76},
}


def test_in_several_it_is_the_mean_gain_over_cross_entropy():
    """a: (.85 - .82 + .71 - .72) / 2 = .01; b: (.75 - .82 + .76 - .72) / 2 = -.015."""
    bench = Bench(GAINS)
    a, b = candidate("a"), candidate("b", "b")
    bench.climb.climb([a, b, bench.reference], bench.reference)
    assert (a.scores, a.select, a.rates) == ({0: pytest.approx(0.01)}, {0: 0.85}, (LOW, LOW_SGD))
    assert (b.scores, b.select, b.rates) == ({0: pytest.approx(-0.015)}, {0: 0.75}, (HIGH, HIGH_SGD))
    assert (bench.reference.scores, bench.reference.rates) == ({0: 0.0}, (HIGH, LOW_SGD))


def test_the_reference_is_trained_beside_them_where_gains_are_measured():
    for regimes, keys in ((("adam", "sgd"), {"a", "ce"}), (("sgd",), {"a"}), ((), {"a"})):
        bench = Bench(GAINS, regimes)
        bench.climb.climb([candidate("a")], bench.reference)
        assert {job.key for _, jobs in bench.calls for job in jobs} == keys
        assert bench.reference.scores == {}


def test_the_best_share_goes_on():
    bench = Bench({(key, "adam"): 0.5 + place / 10 for place, key in enumerate("abcd")}, regimes=())
    members = [candidate(key) for key in "abcd"]
    bench.climb.climb(members, bench.reference)
    assert [c.rung for c in members] == [0, 0, 1, 1]
    assert [phase for phase, _ in bench.calls] == ["rung 1 of 2", "rung 2 of 2"]


def test_a_candidate_that_fails_in_one_regime_has_failed():
    bench = Bench(GAINS | {("b", "sgd"): None})
    a, b = candidate("a"), candidate("b")
    bench.climb.climb([a, b], bench.reference)
    assert (b.status, b.detail, b.fitness, b.rung) == (Status.DIVERGED, "rung 1, sgd: loss nan", None, 0)
    assert a.fitness == pytest.approx(0.01)


def test_in_one_regime_a_failure_names_none():
    bench = Bench({("a", "adam"): None}, regimes=())
    a = candidate("a")
    bench.climb.climb([a], bench.reference)
    assert (a.status, a.detail) == (Status.DIVERGED, "rung 1: loss nan")


def test_a_regime_in_which_cross_entropy_fails_is_a_clear_error():
    bench = Bench(GAINS | {("ce", "sgd"): None})
    with pytest.raises(
        EvolossError, match=r"cross-entropy fails in the regime sgd: loss nan; .* leave that regime out"
    ):
        bench.climb.climb([candidate("a")], bench.reference)


def test_without_cross_entropy_there_is_no_gain():
    bench = Bench(GAINS)
    bench.reference.status, bench.reference.detail = Status.LOST, "3 workers died of it"
    with pytest.raises(EvolossError, match="it is lost: 3 workers died of it; search in one regime"):
        bench.climb.climb([candidate("a")], bench.reference)
    alone = Bench({("a", "adam"): 0.5}, regimes=())
    alone.reference.status = Status.LOST
    alone.climb.climb([candidate("a")], alone.reference)


@pytest.mark.parametrize(
    ("rungs", "regimes", "trainings"),
    [(RUNGS, (), 4), (SWEEPS, (), 2), (RUNGS, ("adam", "sgd"), 8), (SWEEPS, ("adam", "sgd"), 4)],
)
def test_the_seconds_of_a_training_count_once(rungs, regimes, trainings):
    bench = Bench(GAINS, regimes, rungs)
    a = candidate("a")
    bench.climb.climb([a], bench.reference)
    assert a.seconds == trainings
    bench.climb.reseed([a], leader("ce", [0.0], "ce"))
    assert a.seconds == trainings + max(len(regimes), 1)


def test_a_regime_of_fewer_rungs_waits_at_its_last():
    smoke = load_space("smoke")
    rungs = {"mlp": RUNGS, "inception": RUNGS[:1]}
    config = stubs.config(space=smoke.model_copy(update={"rungs": rungs}), regimes=("mlp", "inception"))
    seen = []

    def evaluate(phase, jobs):
        seen.append({(job.proxy, job.budget.samples) for job in jobs})
        return {job: Evaluation(job, Status.OK, score=0.5) for job in jobs}

    Climb(config, evaluate).climb([candidate("a")], candidate("ce", name="ce"))
    assert seen == [{("mlp", 100), ("inception", 100)}, {("mlp", 200), ("inception", 100)}]


@pytest.mark.parametrize("regimes", [("adam", "sgd"), ("sgd", "adam")])
def test_the_regime_with_most_rungs_tells_how_many_go_on(regimes):
    """Of SGD's the rung at the higher rate is left out, and with it nobody."""
    rungs = (*SWEEPS[:1], SWEEPS[0].model_copy(update={"rates": (2 * HIGH,), "keep": 0.5}), SWEEPS[1])
    bench = Bench(dict.fromkeys([(key, name) for key in ("ce", *"abcd") for name in regimes], 0.5), regimes, rungs)
    bench.climb.climb([candidate(key) for key in "abcd"], bench.reference)
    assert [len({job.key for job in jobs} - {"ce"}) for _, jobs in bench.calls] == [4, 2, 2]


# Further seeds


AGAIN = {
    ("ce", "adam"): (0.80, 0.81, 0.82),
    ("ce", "sgd"): (0.70, 0.71, 0.72),
    ("a", "adam"): (0.80, 0.85, 0.90),
    ("a", "sgd"): (0.70, 0.75, 0.80),
    ("b", "adam"): (0.80, 0.80, 0.83),
    ("b", "sgd"): (0.70, 0.72, 0.70),
}


def test_a_further_seed_is_paired_with_cross_entropy_on_the_same():
    """Seed 1, a: (.85 - .81 + .75 - .71) / 2 = .04; seed 2, b: (.83 - .82 + .70 - .72) / 2 = -.005."""
    bench = Bench(AGAIN)
    a, b, ce = leader("a", [0.5]), leader("b", [0.5, 0.5]), leader("ce", [0.0], "ce")
    assert bench.climb.reseed([a, b], ce) == [a, b]
    assert a.scores == {0: 0.5, 1: pytest.approx(0.04)}
    assert a.select == {0: 0.5, 1: 0.85}
    assert b.scores == {0: 0.5, 1: 0.5, 2: pytest.approx(-0.005)}
    assert a.rates == b.rates == (HIGH, LOW_SGD)
    assert ce.scores == {0: 0.0}
    ours = [("a", "adam", HIGH, 1), ("a", "sgd", LOW_SGD, 1), ("b", "adam", HIGH, 2), ("b", "sgd", LOW_SGD, 2)]
    assert [row for row in bench.trained() if row[0] != "ce"] == ours
    assert {seed for key, _, _, seed in bench.trained() if key == "ce"} == {1, 2}
    assert len(bench.calls) == 1


def test_each_gets_one_further_seed_however_often_it_is_named():
    bench = Bench(AGAIN, regimes=())
    a, b = leader("a", [0.5]), leader("b", [0.5, 0.5])
    assert bench.climb.reseed([a, b, a], bench.reference) == [a, b]
    assert (len(a.scores), len(b.scores)) == (2, 3)
    assert bench.trained() == [("a", "adam", HIGH, 1), ("b", "adam", HIGH, 2)]


def test_those_with_all_seeds_and_those_on_a_lower_rung_get_none():
    bench = Bench(AGAIN)
    below, full, dead = leader("a", [0.5]), leader("b", [0.5] * 3), leader("a", [0.5])
    below.rung, dead.status = 0, Status.DIVERGED
    assert bench.climb.reseed([below, full, dead], leader("ce", [0.0], "ce")) == []
    assert bench.calls == [("further seeds", [])]


def test_a_leader_that_fails_on_a_further_seed_falls():
    bench = Bench(AGAIN | {("a", "sgd"): (0.7, None, 0.7)})
    a = leader("a", [0.5])
    bench.climb.reseed([a], leader("ce", [0.0], "ce"))
    assert (a.status, a.detail, a.fitness) == (Status.DIVERGED, "seed 1, sgd: loss nan", None)


def test_where_cross_entropy_fails_on_a_further_seed_its_next_lower_rate_counts():
    """At SGD's high rate it diverges on seed 1. The level is .60: a gains (.85 - .81 + .75 - .60) / 2 = .095."""
    sgd = {LOW_SGD: (0.6, 0.6, 0.6), HIGH_SGD: (0.7, None, 0.7)}
    bench = Bench(AGAIN | {("ce", "sgd"): sgd})
    a, ce = leader("a", [0.5]), leader("ce", [0.0], "ce", rates=(HIGH, HIGH_SGD))
    bench.climb.reseed([a, ce], ce)
    assert a.scores[1] == pytest.approx(0.095)
    assert (ce.scores, ce.rates) == ({0: 0.0, 1: 0.0}, (HIGH, HIGH_SGD))
    bench.accuracies["ce", "sgd"] = None
    with pytest.raises(EvolossError, match="fails in the regime sgd"):
        bench.climb.reseed([a], ce)


def test_fresh_scores_are_means_over_the_seeds_of_another_series():
    """a: mean of .0, .04 and .08; b: mean of .0, .0 and -.005."""
    bench = Bench(AGAIN, series="control")
    ce = leader("ce", [0.0], "ce")
    fresh = bench.climb.fresh([leader("a", [0.5]), leader("b", [0.5]), ce], ce, 3)
    assert fresh == {"a": pytest.approx(0.04), "b": pytest.approx(-0.005 / 3), "ce": 0.0}
    assert len(bench.calls) == 1


def test_a_fresh_training_that_fails_counts_as_an_accuracy_of_0(caplog):
    """Gains over cross-entropy in one of three seeds: (.85 - .81 + 0 - .71) / 2 = -.335 instead of .04."""
    bench = Bench(AGAIN | {("a", "sgd"): (0.70, None, 0.80)}, series="control")
    ce = leader("ce", [0.0], "ce")
    assert bench.climb.fresh([leader("a", [0.5])], ce, 3) == {"a": pytest.approx((0.0 - 0.335 + 0.08) / 3)}
    assert "`a` failed a fresh training: diverged, loss nan" in caplog.text
    alone = Bench({("a", "adam"): (0.6, None, 0.9)}, (), series="control")
    assert alone.climb.fresh([leader("a", [0.5])], alone.reference, 3) == {"a": pytest.approx(0.5)}


def test_the_best_of_each_family_is_promoted_with_the_best_share():
    def contender(key, family, score, name=""):
        return Candidate(key, key, 1, family, name, rung=0, scores={0: score})

    fast = [contender(f"c{n}", "classification", 0.8 - n / 100) for n in range(8)]
    slow = [contender("m0", "metric", 0.30), contender("m1", "metric", 0.31)]
    named = contender("b", "center", 0.1, "center")
    chosen = promoted([*fast, *slow, named], 0.3, of_families=True)
    assert [candidate.key for candidate in chosen] == ["c0", "c1", "c2", "m1", "b"]
    chosen = promoted([*fast, *slow, named], 0.3, of_families=False)
    assert [candidate.key for candidate in chosen] == ["c0", "c1", "c2", "b"]


PEAKS = (Rung(samples=100, epochs=1, rates=[2, 4]), Rung(samples=100, epochs=1, rates=[1, 8]))


@pytest.mark.parametrize(
    ("scores", "further"),
    [({2: 0.5, 4: 0.6, 8: 0.7}, {8}), ({1: 0.7, 2: 0.6, 4: 0.5}, {1}), ({1: 0.1, 2: 0.5, 4: 0.5}, {1})],
)
def test_a_rate_beyond_a_worse_one_is_not_trained(scores, further):
    bench = Bench({("a", "adam"): scores}, regimes=(), rungs=PEAKS)
    one = candidate("a")
    bench.climb.climb([one], bench.reference)
    assert {job.budget.learning_rate for job in bench.calls[-1][1]} - {2, 4} == further
    assert one.rates == (max(scores, key=scores.get),)


def test_a_rung_of_another_length_says_nothing_of_a_rate():
    """That the middle rate won a short sweep leaves none out of a longer one."""
    short, long = (Rung(samples=samples, epochs=1, rates=[1, 2, 4]) for samples in (100, 200))
    bench = Bench({("a", "adam"): {1: 0.5, 2: 0.6, 4: 0.5}}, regimes=(), rungs=(short, long))
    bench.climb.climb([candidate("a")], bench.reference)
    assert {job.budget.learning_rate for job in bench.calls[-1][1]} == {1, 2, 4}
