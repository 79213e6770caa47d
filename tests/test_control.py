import contextlib
import itertools
import math
from contextlib import closing
from importlib.metadata import version

import pandas as pd
import pytest
import stubs

from evoloss import control, run
from evoloss.archive import Archive
from evoloss.config import load_run, validated
from evoloss.control import Control, Repeat, Winner
from evoloss.errors import EvolossError
from evoloss.records import DataSpec, Evaluation, Status, derive_seed


def configured(repeats=2, **changes):
    return Control(repeats=repeats, run=stubs.config(version=version("evoloss"), **changes))


@contextlib.contextmanager
def unwatched(title):
    yield lambda progress: None


def scoring(quality):
    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            answer = stubs.stub_evaluation(job)
            noise = stubs.number(job.key, job.seed) / 100
            score = quality(job.expression) + noise
            yield Evaluation(job, Status.OK, score=score) if job.task == "train" else answer

    return pool


@pytest.fixture
def on(monkeypatch):
    """Carry a control on with this pool instead of workers; gives the repeats and how many pools were opened."""

    def carry_on(directory, pool=stubs.stub_pool):
        opened = []

        @contextlib.contextmanager
        def open_pool(*arguments):
            opened.append(arguments)
            yield pool

        monkeypatch.setattr("evoloss.workers.open_pool", open_pool)
        repeats = control.carry_on(directory, unwatched)
        return repeats, len(opened)

    return carry_on


@pytest.fixture
def finished(tmp_path, on):
    directory = tmp_path / "control"
    control.create(directory, configured())
    repeats, pools = on(directory)
    assert pools == 1
    return directory, repeats


def archived(directory):
    config = load_run(directory)
    with closing(Archive(directory / "archive.sqlite", config.data())) as archive:
        return archive.candidates(), archive.generations(), archive.spent()


def test_a_control_is_a_directory_of_run_directories(finished):
    directory, repeats = finished
    assert [repeat.seed for repeat in repeats] == [0, 1]
    for seed, strategy in itertools.product(range(2), ("evolve", "random")):
        config = load_run(directory / f"{strategy}-{seed}")
        assert (config.seed, config.strategy, config.playoff) == (seed, strategy, False)
        assert (directory / f"{strategy}-{seed}" / "hall_of_fame.csv").is_file()


def test_both_searches_of_a_repeat_start_alike_and_train_as_many_newcomers(finished):
    directory, repeats = finished
    for repeat in repeats:
        evolve, random = (archived(directory / f"{strategy}-{repeat.seed}") for strategy in ("evolve", "random"))
        assert [c.key for c in evolve[0] if c.generation == 0] == [c.key for c in random[0] if c.generation == 0]
        assert [row.evaluated for row in evolve[1]] == [row.evaluated for row in random[1]]
        assert (repeat.evolve.trainings, repeat.random.trainings) == (evolve[2][0], random[2][0])
        assert any(c.parents for c in evolve[0])
        assert not any(c.parents for c in random[0])


def test_what_evolution_has_trained_random_search_does_not_train_again(tmp_path, on):
    asked = []

    def pool(batches):
        asked.extend(job for batch in batches for job in batch)
        return stubs.stub_pool(batches)

    control.create(tmp_path / "control", configured(repeats=1))
    on(tmp_path / "control", pool)
    assert len(asked) == len(set(asked))
    evolve, random = (archived(tmp_path / "control" / f"{strategy}-0") for strategy in ("evolve", "random"))
    trained = [job for job in asked if job.task == "train"]
    assert len(trained) < evolve[2][0] + random[2][0]


def test_winners_meet_on_seeds_that_no_search_has_used(tmp_path, on):
    jobs = []
    scores = scoring(lambda text: stubs.number(text) / 2)

    def pool(batches):
        jobs.append([job for batch in batches for job in batch])
        return scores([jobs[-1]])

    control.create(tmp_path / "control", configured(repeats=1))
    (repeat,), _ = on(tmp_path / "control", pool)
    searched, fresh = [job for batch in jobs[:-1] for job in batch], jobs[-1]
    assert {job.seed for job in fresh}.isdisjoint(job.seed for job in searched)
    assert {job.seed for job in fresh} == {derive_seed(0, "control", number) for number in range(5)}
    winners = {repeat.evolve.expression, repeat.random.expression, "cls(-y*log(p))"}
    assert {job.expression for job in fresh} == winners
    assert len(fresh) == 5 * len(winners)
    assert {job.roles for job in fresh} == {("select",)}
    assert {(job.budget.samples, job.budget.epochs) for job in fresh} == {(512, 2)}
    expected = [answer.score for answer in next(scores([fresh])) if answer.job.expression == repeat.evolve.expression]
    assert repeat.evolve.fresh == pytest.approx(sum(expected) / 5)
    assert repeat.ce_fresh is not None


def test_the_table_has_a_row_a_repeat(finished):
    directory, repeats = finished
    table = pd.read_csv(directory / "control.csv")
    assert list(table["seed"]) == [0, 1]
    for name in ("fitness", "fresh", "trainings", "expression", "generation"):
        for side in ("evolve", "random"):
            expected = [getattr(getattr(repeat, side), name) for repeat in repeats]
            found = list(table[f"{side}_{name}"])
            assert found == (expected if isinstance(expected[0], str) else pytest.approx(expected, abs=1e-6))


def test_after_any_interruption_it_ends_as_an_uninterrupted_one(finished, tmp_path, on):
    """Inside each kind of phase: evolution, random search, and the winners' fresh trainings, the last of which is 1."""
    expected = (finished[0] / "control.csv").read_bytes()
    endless = stubs.Dying(math.inf, KeyboardInterrupt)
    control.create(tmp_path / "counted", configured())
    on(tmp_path / "counted", endless)
    total = endless.answered
    for stop in (0, total // 10, total // 4, total // 2, total - 30, total - 1):
        directory = tmp_path / f"{stop}"
        control.create(directory, configured())
        with pytest.raises(KeyboardInterrupt):
            on(directory, stubs.Dying(stop, KeyboardInterrupt))
        on(directory)
        assert (directory / "control.csv").read_bytes() == expected


def test_a_finished_control_evaluates_nothing_again(finished, on):
    directory, repeats = finished

    def nothing(jobs):
        assert not list(jobs)
        return iter(())

    assert on(directory, nothing)[0] == repeats


def test_each_run_of_a_control_can_be_resumed_alone(finished):
    directory, _ = finished
    before = (directory / "random-1" / "hall_of_fame.csv").read_bytes()
    assert run.carry_on(directory / "random-1", lambda progress: None, pool=lambda batches: iter(()))
    assert (directory / "random-1" / "hall_of_fame.csv").read_bytes() == before


def test_repeats_on_data_shaped_by_their_seed_have_pools_of_their_own(tmp_path, on):
    control.create(tmp_path / "control", configured(repeats=2, label_noise=0.2))
    assert on(tmp_path / "control")[1] == 2


def test_a_fresh_training_that_fails_counts_as_nothing(tmp_path, on, caplog):
    fresh = {derive_seed(0, "control", number) for number in range(5)}

    @stubs.pooled
    def pool(jobs):
        for job in jobs:
            yield Evaluation(job, Status.DIVERGED, "stub") if job.seed in fresh else stubs.stub_evaluation(job)

    control.create(tmp_path / "control", configured(repeats=1))
    (repeat,), _ = on(tmp_path / "control", pool)
    assert repeat.evolve.fresh == 0
    assert repeat.evolve.fitness > 0
    assert "failed a fresh training: diverged, stub" in caplog.text


def test_in_several_regimes_winners_are_compared_by_their_gains(tmp_path, on):
    jobs = []

    def pool(batches):
        jobs.append([job for batch in batches for job in batch])
        return stubs.steady_pool([tuple(jobs[-1])])

    control.create(tmp_path / "control", configured(repeats=1, regimes=("adam", "sgd")))
    (repeat,), _ = on(tmp_path / "control", pool)
    fresh = {job: stubs.steady_evaluation(job).score for job in jobs[-1]}
    assert {job.seed for job in fresh} == {derive_seed(0, "control", number) for number in range(5)}

    def accuracy(text, optimizer, seed):
        rates = {
            job.budget.learning_rate: score
            for job, score in fresh.items()
            if (job.expression, job.budget.optimizer, job.seed) == (text, optimizer, seed)
        }
        return rates[max(rates)]  # cross-entropy's lower rates are there in case that its best fails

    def gain(text):
        pairs = itertools.product(("adam", "sgd"), {job.seed for job in fresh})
        gains = [accuracy(text, *pair) - accuracy("cls(-y*log(p))", *pair) for pair in pairs]
        return sum(gains) / len(gains)

    assert repeat.evolve.fresh == pytest.approx(gain(repeat.evolve.expression))
    assert repeat.random.fresh == pytest.approx(gain(repeat.random.expression))
    assert (repeat.ce_fitness, repeat.ce_fresh) == (0.0, 0.0)


def test_repeats_find_the_data_of_their_regimes(tmp_path, monkeypatch):
    """In one pool: the seed of a repeat is no part of data that it does not shape."""
    opened = []

    @contextlib.contextmanager
    def open_pool(datasets, *rest):
        @stubs.pooled
        def pool(jobs):
            for job in jobs:
                assert job.data in datasets
                yield stubs.steady_evaluation(job)

        opened.append(set(datasets))
        yield pool

    monkeypatch.setattr("evoloss.data.load", lambda spec, *roles: spec)
    monkeypatch.setattr("evoloss.data.fingerprint", lambda spec: "0" * 16)
    monkeypatch.setattr("evoloss.workers.open_pool", open_pool)
    control.create(tmp_path / "control", configured(repeats=2, regimes=("digits", "mnist")))
    control.carry_on(tmp_path / "control", unwatched)
    assert opened == [{None, DataSpec("mnist")}]


def test_an_unknown_key_of_a_control_names_the_nearest():
    values = configured().model_dump(mode="json", exclude_none=True)
    values["run"]["strateg"] = "evolve"
    with pytest.raises(EvolossError, match="did you mean `strategy`"):
        validated(Control, values, "control.toml")


def test_an_existing_directory_is_not_touched(tmp_path):
    with pytest.raises(EvolossError, match="exists: choose another --out"):
        control.create(tmp_path, configured())
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EvolossError, match="cannot make the directory"):
        control.create(tmp_path / "file" / "control", configured())


def repeat(seed, evolve, random):
    winners = (Winner(fresh + 0.01, fresh, 100, 10.0, 1, "", "cls(-y*log(p))") for fresh in (evolve, random))
    return Repeat(seed, *winners, 0.5, 0.5)


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ((0.01, 0.011, 0.009), "evolution beat chance"),
        ((-0.01, -0.011, -0.009), "chance beat evolution"),
        ((0.01, -0.02, 0.01), "not distinguishable from chance"),
        ((0.0, 0.0, 0.0), "not distinguishable from chance"),
        ((0.01,), "one repeat shows nothing"),
    ],
)
def test_the_conclusion_follows_the_interval_over_repeats(differences, words):
    repeats = [repeat(seed, 0.9 + gap, 0.9) for seed, gap in enumerate(differences)]
    assert control.conclusion(repeats) == words
    fresh, scored = control.gaps(repeats)
    if fresh is not None:
        assert fresh.mean == pytest.approx(sum(differences) / len(differences))
        assert scored.mean == pytest.approx(fresh.mean)


def test_evolution_beats_chance_where_good_losses_have_good_children(tmp_path, on):
    """Each sine more is better: what breeding can climb, and drawing cannot."""
    control.create(tmp_path / "control", configured(repeats=5, generations=8, population=16))
    repeats, _ = on(tmp_path / "control", scoring(lambda text: min(text.count("sin"), 9) / 10))
    assert control.conclusion(repeats) == "evolution beat chance"


def test_evolution_does_not_beat_chance_where_children_tell_nothing(tmp_path, on):
    """Each formula's quality is a number of its own: there is nothing to inherit."""
    control.create(tmp_path / "control", configured(repeats=5, generations=4))
    repeats, _ = on(tmp_path / "control", scoring(lambda text: stubs.number(text) / 2))
    assert control.conclusion(repeats) == "not distinguishable from chance"
