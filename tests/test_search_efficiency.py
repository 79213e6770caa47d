"""What the benchmark of search efficiency computes, on stubs."""

import itertools
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest
import stubs

from benchmarks import loops, search_efficiency, stream
from evoloss.archive import Archive
from evoloss.config import load_space
from evoloss.records import Candidate, Status
from evoloss.tree import Grammar

SMOKE = load_space("smoke")
LAST = SMOKE.rungs["mlp"][-1]
FURTHER = LAST.model_copy(update={"rates": (0.001,), "keep": 0.5})  # a rung of the same length, at a further rate
SPACE = SMOKE.model_copy(update={"rungs": {"mlp": (*SMOKE.rungs["mlp"], FURTHER)}})
CONFIG = stubs.config(generations=2, space=SPACE)


@stubs.pooled
def clocked(jobs):
    """The stub pool: a screen takes 1 second, a training 10; formulas whose keys end alike have the same gradients."""
    for job in jobs:
        evaluation = stubs.stub_evaluation(job)
        if evaluation.fingerprint:
            evaluation = replace(evaluation, fingerprint=(float(int(job.key[-1], 16) % 12), 0.5))
        yield replace(evaluation, seconds=1.0 if job.task == "screen" else 10.0)


def evaluate(_, jobs):
    (evaluations,) = clocked([tuple(dict.fromkeys(jobs))])
    return {evaluation.job: evaluation for evaluation in evaluations}


def drawn(count):
    return list(search_efficiency.cut(stream.generations(CONFIG, evaluate), count))


@pytest.fixture
def race(tmp_path):
    with (
        closing(Archive(tmp_path / "n", CONFIG.data())) as naive,
        closing(Archive(tmp_path / "e", CONFIG.data())) as own,
    ):
        quality = partial(loops.full_select, CONFIG, evaluate=evaluate)
        race = search_efficiency.Race(CONFIG, naive, own, (clocked, clocked), quality)
        race.run(iter(drawn(60)))
        yield race


def test_a_stream_follows_from_its_seed():
    dump = Grammar(CONFIG.space).dump
    first, again = ([[dump(tree) for tree in trees] for trees in drawn(40)] for _ in range(2))
    assert first == again
    assert sum(map(len, first)) == 40
    assert len(first) > 2
    other = CONFIG.model_copy(update={"seed": 1})
    assert [dump(tree) for tree in next(stream.generations(other, evaluate))] != first[0]


def test_the_naive_loop_pays_for_every_tree(race):
    formulas = sum(seen.times for seen in race.naive.seen.values())
    assert 0 < len(race.naive.seen) <= formulas <= 60
    ledger, rates = race.ledgers["naive"], len(race.naive.budgets)
    assert ledger.trainings == rates * formulas
    assert ledger.workers == 10.0 * ledger.trainings
    assert race.naive.leader == max(seen.score for seen in race.naive.seen.values() if seen.score is not None)


def test_a_formula_that_comes_again_is_paid_again_and_trained_once(tmp_path):
    trees = drawn(8)[0]
    ledger = loops.Ledger()
    with closing(Archive(tmp_path / "archive.sqlite", CONFIG.data())) as archive:
        naive = loops.Naive(CONFIG, ledger.evaluate(archive, clocked), ledger)
        naive.judge(0, trees + trees)
        naive.judge(1, trees)
        once = archive.spent()[0]
    assert ledger.trainings == len(naive.budgets) * sum(seen.times for seen in naive.seen.values())
    assert all(seen.times == 3 for seen in naive.seen.values())
    assert once == len(naive.budgets) * len(naive.seen)
    assert {seen.generation for seen in naive.seen.values()} == {0}


def test_evoloss_has_a_verdict_on_every_formula(race):
    verdicts = {key: race.evoloss.verdict(key) for key in race.naive.seen}
    assert None not in verdicts.values()
    assert Status.DUPLICATE not in {verdict.status for verdict in verdicts.values()}
    merged = [key for key in verdicts if race.identity(key) != key]
    assert merged
    assert race.distinct == len({race.identity(key) for key in verdicts}) < len(verdicts)
    ledger = race.ledgers["evoloss"]
    candidates = race.evoloss.census.candidates.values()
    assert ledger.workers == pytest.approx(sum(candidate.seconds for candidate in candidates))


def test_the_best_of_the_naive_loop_are_different_losses(race):
    top = race.top()
    assert len({key for key, _ in top}) == len(top) == search_efficiency.TOP
    scores = [seen.score for _, seen in top]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == race.naive.leader
    rows = search_efficiency.top_rows(race)
    assert all(row["rung"] == race.evoloss.verdict(key).rung + 1 for row, (key, _) in zip(rows, top, strict=True))


def test_curves_show_who_leads_after_each_generation(race):
    for name, curve in race.curves.items():
        assert len(curve) == len(race.curves["naive"]) > 2
        assert curve[-1][0] == pytest.approx(race.ledgers[name].seconds)
        assert all(earlier < later for (earlier, _), (later, _) in itertools.pairwise(curve))
    best = [accuracy for _, accuracy in race.curves["naive"]]
    assert best == sorted(best)
    assert race.curves["evoloss"][-1][1] == race.quality(race.evoloss.leader)


def test_a_full_training_is_at_the_matched_scale_and_the_best_rate():
    asked = []

    def answers(_, jobs):
        asked.extend(jobs)
        return evaluate(_, jobs)

    candidate = Candidate("a", "cls(-y*p)", 5, "", scale=0.25)
    found = loops.full_select(CONFIG, candidate, answers)
    assert {job.scale for job in asked} == {0.25}
    assert [job.budget for job in asked] == loops.full(CONFIG)
    assert found == max(e.score for e in evaluate("", asked).values())


def test_the_curve_of_a_search_counts_all_and_shows_the_last_rung():
    def candidate(key, generation, seconds, rung, score, status=Status.OK):
        known = {0: score, 1: 0.99}
        where = {"generation": generation, "seconds": seconds, "rung": rung, "status": status}
        return Candidate(key, "cls(-y*p)", 5, "", scores=known, select=known, **where)

    candidates = [
        candidate("a", 0, 1.0, 2, 0.5),
        candidate("b", 1, 2.0, 1, 0.9),
        candidate("c", 1, 4.0, 2, 0.8, Status.DIVERGED),
        candidate("d", 2, 8.0, 2, 0.7),
        candidate("e", 0, 16.0, -1, 0.9, Status.REJECTED),
        candidate("f", 3, 32.0, 2, 0.6),
    ]
    curve = search_efficiency.search_curve(candidates, 3, lambda leader: leader.select[0] / 2)
    assert curve == [(17.0, 0.25), (23.0, 0.25), (31.0, 0.35), (63.0, 0.35)]


def test_random_search_trains_as_many_as_evolution_and_both_can_be_carried_on(race, tmp_path):
    def archives(name):
        return {s: Archive(tmp_path / f"{name}-{s}.sqlite", CONFIG.data()) for s in search_efficiency.STRATEGIES}

    whole, parts = archives("whole"), archives("parts")
    search_efficiency.search_in_turns(CONFIG, whole, clocked)
    search_efficiency.search_in_turns(CONFIG.model_copy(update={"generations": 1}), parts, clocked)
    search_efficiency.search_in_turns(CONFIG, parts, clocked)
    for strategy in search_efficiency.STRATEGIES:
        assert whole[strategy].candidates() == parts[strategy].candidates()
    evolve, random = ([row.evaluated for row in whole[s].generations()] for s in search_efficiency.STRATEGIES)
    assert evolve == random
    search_efficiency.report(tmp_path, race, whole)
    assert {path.name for path in tmp_path.glob("*.*v")} == {
        f"{name}.csv" for name in ("loops", "top", "candidates", "searches", "curves")
    }
    assert (tmp_path / "efficiency.png").stat().st_size > 10_000
    for archive in (*whole.values(), *parts.values()):
        archive.close()


def test_a_directory_of_other_options_is_refused(tmp_path):
    search_efficiency.check(tmp_path, CONFIG)
    search_efficiency.check(tmp_path, CONFIG)
    with pytest.raises(SystemExit, match="other options"):
        search_efficiency.check(tmp_path, CONFIG.model_copy(update={"population": 9}))
