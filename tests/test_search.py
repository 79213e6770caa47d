import dataclasses
import math
from contextlib import closing

import pytest
import stubs

from evoloss.archive import Archive
from evoloss.baselines import BASELINES
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.ranking import pareto_front, ranked
from evoloss.records import Evaluation, Status
from evoloss.search import Search, TimeIsUpError
from evoloss.selection import SELECTIONS


def without_times(rows):
    return [dataclasses.replace(row, seconds=0.0) for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return stubs.search(tmp_path_factory.mktemp("search") / "archive.sqlite")


def test_golden_three_generations(finished):
    """Fixed seed, stub fitness: the same texts in the same order on every machine."""
    candidates, generations, _ = finished
    assert [row.generation for row in generations] == [0, 1, 2, 3]
    assert [c.expression for c in candidates if not c.name and c.generation in (0, 1)] == GOLDEN_FIRST
    assert [c.expression for c in ranked(candidates)][:10] == GOLDEN_BEST


def test_the_same_seed_gives_the_same_archive(finished, tmp_path):
    again = stubs.search(tmp_path / "archive.sqlite")
    assert without_times(again[0]) == without_times(finished[0])
    assert without_times(again[1]) == without_times(finished[1])
    assert again[2] == finished[2]


def test_another_seed_gives_another_search(finished, tmp_path):
    candidates, _, _ = stubs.search(tmp_path / "archive.sqlite", stubs.config(seed=1))
    assert {c.key for c in candidates} != {c.key for c in finished[0]}


def test_the_order_of_answers_changes_nothing(finished, tmp_path):
    def backwards(batches):
        return iter([[stubs.stub_evaluation(job) for job in batch][::-1] for batch in batches][::-1])

    candidates, generations, population = stubs.search(tmp_path / "archive.sqlite", pool=backwards)
    assert without_times(candidates) == without_times(finished[0])
    assert without_times(generations) == without_times(finished[1])
    assert population == finished[2]


class KilledError(Exception):
    pass


def dying_after(count):
    return stubs.Dying(count, KilledError)


def total_answers(tmp_path):
    calls = []

    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            calls.append(job)
            yield stubs.stub_evaluation(job)

    stubs.search(tmp_path / "count.sqlite", pool=pool)
    assert len(calls) == len(set(calls))
    return len(calls)


def test_resume_after_any_interruption_equals_an_uninterrupted_run(finished, tmp_path):
    total = total_answers(tmp_path)
    for stop in range(0, total, max(total // 12, 1)):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(KilledError):
            stubs.search(path, pool=dying_after(stop))
        candidates, generations, population = stubs.search(path)
        assert without_times(candidates) == without_times(finished[0])
        assert without_times(generations) == without_times(finished[1])
        assert population == finished[2]


def test_resume_evaluates_nothing_twice(tmp_path):
    total = total_answers(tmp_path)
    path = tmp_path / "archive.sqlite"
    first = dying_after(total // 2)
    with pytest.raises(KilledError):
        stubs.search(path, pool=first)
    assert first.answered > 0
    stubs.search(path, pool=dying_after(total - first.answered))


def test_seeds_are_in_generation_0_and_go_all_the_way(finished):
    candidates, _, _ = finished
    seeds = {c.name: c for c in candidates if c.name}
    assert set(seeds) == set(stubs.config().space.seeds)
    for seed in seeds.values():
        assert seed.generation == 0
        assert seed.status is not Status.OK or seed.rung == 1


def test_every_candidate_ends_with_a_status_and_only_ok_has_a_fitness(finished):
    candidates, _, _ = finished
    assert {c.status for c in candidates} == {Status.OK, Status.REJECTED, Status.DIVERGED}
    for candidate in candidates:
        if candidate.status is Status.OK:
            assert candidate.fitness is not None
        else:
            assert candidate.fitness is None
            assert candidate.detail


def test_elites_survive_and_get_more_seeds(finished):
    candidates, generations, population = finished
    best = ranked(candidates)[0]
    assert len(best.scores) == stubs.config().space.evolution.max_seeds
    assert best.key in [key for key, _ in population]
    assert len(population) == 8
    assert generations[-1].best_fitness is not None


def test_parents_are_earlier_candidates(finished):
    by_key = {c.key: c for c in finished[0]}
    children = [c for c in finished[0] if c.parents]
    assert children
    for child in children:
        assert all(by_key[parent].generation < child.generation for parent in child.parents)


def test_a_loss_with_the_wrong_sign_takes_part_negated(finished):
    flipped = [c for c in finished[0] if c.detail == "sign: learns when negated"]
    by_key = {c.key: c for c in finished[0]}
    turned = [by_key[Expression(c.expression).negated.key] for c in flipped if not c.name]
    assert turned


def test_duplicates_take_no_training(tmp_path):
    trained = set()

    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            if job.task == "train":
                trained.add(job.key)
                yield Evaluation(job, Status.OK, score=0.5)
            else:
                yield Evaluation(job, Status.OK, scale=1.0, fingerprint=(1.0, 2.0))

    candidates, generations, _ = stubs.search(tmp_path / "archive.sqlite", pool=pool)
    duplicates = [c for c in candidates if c.status is Status.DUPLICATE]
    assert duplicates
    assert len(trained) == 1
    assert {c.detail for c in duplicates} == trained
    assert generations[0].duplicates == sum(c.generation == 0 for c in duplicates)


def coarse_evaluation(job):
    """The stub's, but scores fall into four classes: many losses score alike on every seed."""
    answer = stubs.stub_evaluation(job)
    if answer.score is None:
        return answer
    return dataclasses.replace(answer, score=0.8 + 0.02 * stubs.number(int(4 * stubs.number(job.key)), job.seed))


def many_seeds():
    """The stub's search, with seeds enough to find echoes."""
    space = stubs.config().space
    evolution = space.evolution.model_copy(update={"max_seeds": 4})
    return stubs.config(space=space.model_copy(update={"evolution": evolution}))


def test_echoes_neither_breed_nor_win(tmp_path):
    pool = stubs.pooled(lambda jobs: map(coarse_evaluation, jobs))
    candidates, _, population = stubs.search(tmp_path / "archive.sqlite", many_seeds(), pool)
    by_key = {c.key: c for c in candidates}
    found = [c for c in candidates if c.status is Status.DUPLICATE and c.scores]
    assert found
    for echo in found:
        original = by_key[echo.detail]
        assert original.status is Status.OK
        assert [original.scores[seed] for seed in range(3)] == [echo.scores[seed] for seed in range(3)]
    assert not {key for key, _ in population} & {c.key for c in found}
    assert not any(c.name for c in found)


def test_resume_is_the_same_with_echoes(tmp_path):
    pool = stubs.pooled(lambda jobs: map(coarse_evaluation, jobs))
    expected = stubs.search(tmp_path / "whole.sqlite", many_seeds(), pool)
    for stop in (40, 60, 80):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(KilledError):
            stubs.search(path, many_seeds(), stubs.Dying(stop, KilledError, coarse_evaluation))
        candidates, generations, population = stubs.search(path, many_seeds(), pool)
        assert candidates == expected[0]
        assert without_times(generations) == without_times(expected[1])
        assert population == expected[2]


def test_own_seeds_are_scored(tmp_path):
    own = stubs.config(seed_expressions=("cls(-y*log(p))", "cls((p - y)**2)", "cls(tanh(p - y))"))
    candidates, _, population = stubs.search(tmp_path / "archive.sqlite", own)
    by_text = {c.expression: c for c in candidates}
    assert by_text["cls(-y*log(p))"].name == "ce"
    assert by_text["cls((p - y)**2)"].name == "seed-2"
    outside = by_text["cls(tanh(p - y))"]  # tanh is not in the smoke space: scored, but it cannot breed
    assert outside.name == "seed-3"
    assert outside.key not in [key for key, _ in population]


def test_a_generation_in_which_all_die_ends_clearly(tmp_path):
    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            yield stubs.stub_evaluation(job) if job.task == "screen" else Evaluation(job, Status.DIVERGED, "stub")

    with pytest.raises(EvolossError, match="no loss of this search space survived"):
        stubs.search(tmp_path / "archive.sqlite", pool=pool)


def failing_from(generation, status, spared=()):
    """The steady stub, in which all trainings of later generations end like that, but for those of the spared."""

    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            answer = stubs.steady_evaluation(job)
            fails = job.task == "train" and pool.generation >= generation and job.key not in spared
            yield Evaluation(job, status, "stub") if fails else answer

    pool.generation = 0
    return pool


def run_through(path, pool, **changes):
    """A search whose pool knows the generation."""

    def watch(progress):
        pool.generation = progress.generation + (progress.finished is not None)

    config = stubs.config(**changes)
    with closing(Archive(path, config.data())) as archive:
        try:
            Search(config, archive, pool, watch).run()
        finally:
            pool.left = archive.candidates(), archive.generations()
    return pool.left


def test_a_generation_in_which_all_new_losses_die_is_told_and_the_others_live_on(tmp_path, caplog):
    candidates, _ = run_through(tmp_path / "first.sqlite", failing_from(math.inf, Status.OK), generations=1)
    spared = {c.key for c in candidates if c.generation == 0}
    pool = failing_from(1, Status.TIMEOUT, spared)
    candidates, generations = run_through(tmp_path / "archive.sqlite", pool)
    assert [row.generation for row in generations] == [0, 1, 2, 3]
    assert {c.generation for c in ranked(candidates)} == {0}
    assert {"ce", "ngl"} <= {c.name for c in ranked(candidates)}
    told = [record.message for record in caplog.records if "the others live on" in record.message]
    assert [message.partition(":")[0] for message in told] == [f"generation {number}" for number in (1, 2, 3)]
    assert "timeout (`" in told[0]


SPACE = stubs.config().space
# So few that all are trained on a further seed in each generation.
FEW = {
    "population": 2,
    "space": SPACE.model_copy(update={"evolution": SPACE.evolution.model_copy(update={"max_seeds": 5})}),
}


def test_a_generation_that_leaves_nothing_ends_clearly_and_the_hall_of_fame_stays(tmp_path):
    """As when the machine fails under all workers; a resume on one that works ends as if nothing had happened."""
    pool = failing_from(1, Status.LOST)
    with pytest.raises(
        EvolossError, match=r"no loss survived generation 1: of \d+ losses \d+ lost .*stub.*tries again"
    ):
        run_through(tmp_path / "archive.sqlite", pool, **FEW)
    candidates, generations = pool.left
    assert [row.generation for row in generations] == [0]
    assert {"ce", "ngl"} <= {c.name for c in ranked(candidates)}
    resumed = run_through(tmp_path / "archive.sqlite", failing_from(math.inf, Status.OK), **FEW)
    whole = run_through(tmp_path / "whole.sqlite", failing_from(math.inf, Status.OK), **FEW)
    assert without_times(resumed[0]) == without_times(whole[0])


def test_the_time_limit_stops_and_run_continues(finished, tmp_path):
    path = tmp_path / "archive.sqlite"
    limited = stubs.config(time_limit=1e-6)
    with pytest.raises(TimeIsUpError), closing(Archive(path, limited.data())) as archive:
        Search(limited, archive, stubs.stub_pool).run()
    candidates, _, _ = stubs.search(path)
    assert without_times(candidates) == without_times(finished[0])


def trained_newcomers(candidates, number):
    return [c for c in candidates if c.generation == number and c.rung >= 0]


def test_random_search_starts_as_evolution_does_and_then_draws(finished, tmp_path):
    random = stubs.config(strategy="random")
    candidates, generations, _ = stubs.search(tmp_path / "archive.sqlite", random)
    assert generations[0] == dataclasses.replace(finished[1][0], seconds=generations[0].seconds)
    assert not any(c.parents for c in candidates)
    assert [c.expression for c in trained_newcomers(candidates, 1)] == GOLDEN_RANDOM


def test_random_search_trains_as_many_as_evolution_breeds(tmp_path):
    """Population less elites, however many the screens turn down."""
    candidates, generations, _ = stubs.search(tmp_path / "archive.sqlite", stubs.config(strategy="random"))
    assert [row.evaluated for row in generations[1:]] == [6, 6, 6]
    assert [len(trained_newcomers(candidates, number)) for number in (1, 2, 3)] == [6, 6, 6]
    assert sum(row.rejected for row in generations[1:]) > 0


def test_random_search_trains_as_many_as_it_is_given(tmp_path):
    given = stubs.config(strategy="random", newcomers=(5, 0, 11))
    candidates, generations, _ = stubs.search(tmp_path / "archive.sqlite", given)
    assert [row.evaluated for row in generations[1:]] == [5, 0, 11]
    assert [len(trained_newcomers(candidates, number)) for number in (1, 2, 3)] == [5, 0, 11]


def test_random_search_ends_where_the_screens_leave_nothing(tmp_path):
    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            known = job.key in seeds or job.task == "train"
            yield stubs.stub_evaluation(job) if known else Evaluation(job, Status.REJECTED, "flat: stub")

    seeds = {Expression.parse(BASELINES[name].expression).key for name in stubs.config().space.seeds}
    one = stubs.config(strategy="random", generations=1)
    _, generations, _ = stubs.search(tmp_path / "archive.sqlite", one, pool)
    assert generations[1].evaluated == 0


def test_random_search_after_an_interruption_equals_an_uninterrupted_one(tmp_path):
    random = stubs.config(strategy="random")
    whole = stubs.search(tmp_path / "whole.sqlite", random)
    for stop in range(20, 120, 20):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(KilledError):
            stubs.search(path, random, dying_after(stop))
        candidates, generations, population = stubs.search(path, random)
        assert without_times(candidates) == without_times(whole[0])
        assert without_times(generations) == without_times(whole[1])
        assert population == whole[2]


@pytest.fixture(scope="module", params=SELECTIONS)
def selected(request, tmp_path_factory):
    """A run's settings with each selection, and how it ended."""
    run_config = stubs.config(selection=request.param)
    return run_config, stubs.search(tmp_path_factory.mktemp(request.param) / "archive.sqlite", run_config)


def test_each_selection_after_an_interruption_equals_an_uninterrupted_run(selected, tmp_path):
    run_config, (candidates, generations, population) = selected
    for stop in (20, 50, 80):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(KilledError):
            stubs.search(path, run_config, dying_after(stop))
        again = stubs.search(path, run_config)
        assert without_times(again[0]) == without_times(candidates)
        assert without_times(again[1]) == without_times(generations)
        assert again[2] == population


def test_each_selection_trains_nothing_more_in_a_finished_run(selected, tmp_path):
    run_config, finished = selected
    path = tmp_path / "archive.sqlite"
    stubs.search(path, run_config)
    again = stubs.search(path, run_config, dying_after(0))
    assert without_times(again[0]) == without_times(finished[0])


def test_nsga2_golden_three_generations(tmp_path):
    candidates, _, population = stubs.search(tmp_path / "archive.sqlite", stubs.config(selection="nsga2"))
    assert [c.expression for c in candidates if not c.name and c.generation in (0, 1)] == GOLDEN_NSGA2
    front = pareto_front(candidates)
    assert [(c.complexity, c.expression) for c in front] == GOLDEN_FRONT
    assert all(len(c.scores) == stubs.config().space.evolution.max_seeds for c in front)
    assert {c.key for c in front} <= {key for key, _ in population}


def test_random_search_with_nsga2_starts_alike_and_gives_further_seeds_alike(tmp_path):
    run_config = stubs.config(selection="nsga2", strategy="random")
    candidates, generations, _ = stubs.search(tmp_path / "archive.sqlite", run_config)
    assert [row.evaluated for row in generations[1:]] == [6, 6, 6]
    assert all(len(c.scores) == run_config.space.evolution.max_seeds for c in pareto_front(candidates))


@pytest.fixture(scope="module")
def in_two_regimes(tmp_path_factory):
    run = stubs.config(regimes=("adam", "sgd"))
    return run, stubs.search(tmp_path_factory.mktemp("regimes") / "archive.sqlite", run, stubs.steady_pool)


def test_in_several_regimes_fitnesses_are_gains(in_two_regimes):
    _, (candidates, generations, _) = in_two_regimes
    ce = next(c for c in candidates if c.name == "ce")
    assert set(ce.scores.values()) == {0.0}
    assert all(row.ce_fitness == 0.0 for row in generations)
    living = [c for c in candidates if c.fitness is not None]
    assert {len(c.rates) for c in living} == {2}
    assert all(-0.1 < c.fitness < 0.1 and min(c.select.values()) > 0.8 for c in living)
    assert len({len(c.select) - len(c.scores) for c in living}) == 1


def test_a_search_in_two_regimes_resumed_equals_an_uninterrupted_one(in_two_regimes, tmp_path):
    run, whole = in_two_regimes
    endless = stubs.Dying(math.inf, KilledError, stubs.steady_evaluation)
    stubs.search(tmp_path / "counted.sqlite", run, endless)
    for stop in range(0, endless.answered, endless.answered // 7):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(KilledError):
            stubs.search(path, run, stubs.Dying(stop, KilledError, stubs.steady_evaluation))
        candidates, generations, population = stubs.search(path, run, stubs.steady_pool)
        assert without_times(candidates) == without_times(whole[0])
        assert without_times(generations) == without_times(whole[1])
        assert population == whole[2]


def test_a_search_in_a_regime_without_cross_entropy_ends_clearly(tmp_path):
    """The stub pool lets it diverge."""
    with pytest.raises(EvolossError, match="cross-entropy fails in the regime adam: stub"):
        stubs.search(tmp_path / "archive.sqlite", stubs.config(regimes=("adam", "sgd")))


GOLDEN_FIRST = [
    "-trip(1.98*Dp)",
    "trip(Dn + Dp)",
    "partner(Y) + trip(Dp) - partner(-1.77)",
    "partner(Y**2) + trip(Dp)",
    "trip(sin(cos(Dn))**(Dp/Dn - log(Dp)))",
    "-0.98*trip(0.980838*Dn**0.02)",
    "cls((0.07/d + 0.8927)/(d*p + p/y))",
    "trip(sin(Dn))",
    "trip(log(Dn + Dp))",
    "cls((z/d + 0.8927)/(d*p + p/y))",
    "-1.1*trip(0.980838*Dn**0.02)",
    "trip(Dn)",
    "-0.98*trip(0.946066*Dn**0.0573)",
    "0.57*trip(0.980838*Dn**0.02)",
    "-cls((z/d + 0.8927)/(d*p + p/y))",
    "-0.57*trip(0.980838*Dn**0.02)",
]

GOLDEN_BEST = [
    "trip(log(Dn + Dp))",
    "-0.98*trip(0.980838*Dn**0.02)",
    "trip(Dn + Dp)",
    "cls((0.07/d + 0.8927)/(d*p + p/y))",
    "cls(y*d**2) - 0.1*partner(log(D**2 + 1)*(1 - Y))",
    "-trip(1.98*Dp)",
    "trip(relu(Dp**2 + 0.85 - Dn**2))",
    "trip(log(2*Dn))",
    "-0.98*trip(Dn**(2*Dn + 2*Dp))",
    "-0.98*trip((0.38*Dn)**(Dn + Dp))",
]

GOLDEN_RANDOM = [
    "trip(sin(Dn)**(1.44*Dn))",
    "-0.38*pair(Y) - 0.38*partner(D)",
    "cls(sin(exp(d)) - d**(-0.397879*y))",
    "trip(0.89*Dn**0.25 + 0.56*Dn**2/Dp)",
    "trip(Dp**Dp)",
    "-cls(p) - partner(Y)",
]

GOLDEN_NSGA2 = [
    *GOLDEN_FIRST[:8],
    "-0.98*trip(1.01954*Dn**0.02)",
    "-trip(0.980838*Dn**0.02)",
    "-0.98*trip(1.01396*Dn**0.02)",
    "trip(relu(0.85 - Dn**2))",
    "-0.98*trip(0.986697*Dn**0.02)",
    "-0.98*trip(0.989128*Dn**0.02)",
]

GOLDEN_FRONT = [
    (2, "trip(Dp)"),
    (4, "trip(Dn + Dp)"),
    (6, "-0.98*trip(Dn + Dp)"),
    (8, "-0.98*trip(1.01396*Dn**0.02)"),
    (12, "-0.98*trip(1.0143*Dn**0.02*Dp**0.02)"),
]
