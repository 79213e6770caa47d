import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
import stubs

from evoloss import cache as caches
from evoloss.cache import LASTING, Cache
from evoloss.data import Dataset
from evoloss.errors import EvolossError
from evoloss.images import Split
from evoloss.records import Budget, DataSpec, Evaluation, Job, Status

TRAIN = Job("train", "k", "cls(-y*log(p))", "mlp", 1, Budget(100, 1, 1e-3))
TEST = replace(TRAIN, roles=("select", "test"))
SCREEN = Job("screen", "k", "cls(-y*log(p))", "mlp", 1)
OTHER = DataSpec("other")


def dataset(name="made", classes=("a", "b"), **changes):
    """Three roles of four images; `changes` are other labels for a role."""
    splits = {}
    for place, role in enumerate(("train", "select", "test")):
        images = np.full((4, 1, 2, 2), place, dtype=np.uint8)
        splits[role] = Split(images, np.array(changes.get(role, [0, 1, 0, 1])))
    return Dataset(name, classes, splits)


@pytest.fixture
def opened(tmp_path):
    """Open the same cache, for other data or another device if so asked."""
    caches = []

    def open_cache(data=None, device="cpu", **others):
        datasets = {None: data or dataset(), OTHER: dataset(train=[1, 1, 0, 0])} | others
        caches.append(Cache(tmp_path / "cache.sqlite", datasets, device))
        return caches[-1]

    yield open_cache
    for cache in caches:
        cache.close()


@pytest.mark.parametrize(
    "evaluation",
    [
        Evaluation(SCREEN, Status.OK, scale=1.25, fingerprint=(0.1, -2e-9), seconds=0.5),
        Evaluation(SCREEN, Status.OK, negate=True),
        Evaluation(SCREEN, Status.REJECTED, "flat: no gradient"),
        Evaluation(TRAIN, Status.OK, score=0.1 + 0.2, seconds=7.0),
        Evaluation(TEST, Status.OK, score=0.1, test_score=0.3),
        Evaluation(TRAIN, Status.DIVERGED, "loss nan at step 10"),
    ],
)
def test_what_one_run_adds_another_finds_and_knows_as_shared(opened, evaluation):
    opened().add([evaluation])
    assert opened().find(evaluation.job) == replace(evaluation, shared=True)


@pytest.mark.parametrize("status", Status)
def test_what_says_nothing_about_the_loss_is_not_kept(opened, status):
    opened().add([Evaluation(TRAIN, status, "stub")])
    assert (opened().find(TRAIN) is not None) == (status in LASTING)


def test_timeouts_and_lost_workers_are_the_machines():
    assert {Status.TIMEOUT, Status.LOST, Status.INVALID}.isdisjoint(LASTING)


APART = {
    "another loss": {"key": "other"},
    "another seed": {"seed": 2},
    "another proxy": {"proxy": "inception"},
    "another scale": {"scale": 2.0},
    "another task": {"task": "screen"},
    "other data": {"data": OTHER},
    "the test split as well": {"roles": ("select", "test")},
    "more epochs": {"budget": replace(TRAIN.budget, epochs=2)},
    "another optimizer": {"budget": replace(TRAIN.budget, optimizer="sgd")},
}


@pytest.mark.parametrize("difference", APART)
def test_what_a_result_depends_on_tells_jobs_apart(opened, difference):
    other = replace(TRAIN, **APART[difference])
    opened().add([Evaluation(TRAIN, Status.OK, score=0.5)])
    assert opened().find(other) is None
    opened().add([Evaluation(other, Status.OK, score=0.4)])
    assert [opened().find(job).score for job in (TRAIN, other)] == [0.5, 0.4]


def test_a_test_score_answers_no_search_and_a_search_no_playoff(opened):
    opened().add([Evaluation(TEST, Status.OK, score=0.5, test_score=0.4)])
    assert opened().find(TRAIN) is None
    opened().add([Evaluation(TRAIN, Status.OK, score=0.5)])
    assert opened().find(TRAIN).test_score is None
    assert opened().find(TEST).test_score == 0.4


def test_data_are_known_by_what_they_are(opened):
    opened().add([Evaluation(TRAIN, Status.OK, score=0.5), Evaluation(TEST, Status.OK, score=0.5, test_score=0.4)])
    assert opened(dataset(name="folder:/elsewhere")).find(TRAIN) is not None
    for other in (dataset(train=[0, 0, 1, 1]), dataset(select=[0, 0, 1, 1]), dataset(classes=("a", "b", "c"))):
        assert opened(other).find(TRAIN) is None
    other_test = dataset(test=[0, 0, 1, 1])
    assert opened(other_test).find(TRAIN) is not None
    assert opened(other_test).find(TEST) is None


def test_another_seed_of_a_run_matters_only_where_it_shapes_the_data(opened, digits):
    from evoloss import data

    opened(digits).add([Evaluation(TRAIN, Status.OK, score=0.5)])
    assert opened(data.load(DataSpec("digits", seed=1))).find(TRAIN) is not None
    noisy = [data.load(DataSpec("digits", label_noise=0.2, seed=seed)) for seed in (0, 1)]
    opened(noisy[0]).add([Evaluation(TRAIN, Status.OK, score=0.4)])
    assert opened(noisy[1]).find(TRAIN) is None


def test_versions_and_the_kind_of_device_tell_results_apart(opened, monkeypatch):
    opened(device="cuda:0").add([Evaluation(TRAIN, Status.OK, score=0.5)])
    assert opened(device="cuda:1").find(TRAIN) is not None
    assert opened(device="cpu").find(TRAIN) is None
    for name in ("torch", "evoloss"):
        with monkeypatch.context() as patch:
            patch.setattr(caches, "version", lambda package, name=name: "9" if package == name else "0")
            assert opened(device="cuda").find(TRAIN) is None
    monkeypatch.setattr("evoloss.records.PROTOCOL", 99)
    assert opened(device="cuda").find(TRAIN) is None


def test_how_long_a_worker_may_take_is_no_part_of_it(opened):
    opened().add([Evaluation(TRAIN, Status.OK, score=0.5)])
    patient = replace(TRAIN, time_limit=9.0, budget=replace(TRAIN.budget, time_limit=9.0))
    assert opened().find(patient).job == patient


JOBS = [replace(TRAIN, key=f"k{number}") for number in range(5)]


def answered(pool, *batches):
    return [[evaluation.job for evaluation in finished] for finished in pool(batches)]


def test_a_pool_is_asked_only_for_what_is_missing(opened):
    asked = []

    @stubs.pooled
    def pool(batch):
        asked.append(batch)
        return map(stubs.stub_evaluation, batch)

    first, second = opened(), opened()
    assert answered(first.ahead_of(pool), tuple(JOBS[:2]), (JOBS[2],)) == [JOBS[:2], [JOBS[2]]]
    assert (first.taken, first.added) == (0, 3)
    asked.clear()
    batches = (JOBS[0], JOBS[3]), (JOBS[1], JOBS[2]), (JOBS[4],)
    assert answered(second.ahead_of(pool), *batches) == [[JOBS[0]], JOBS[1:3], [JOBS[3]], [JOBS[4]]]
    assert asked == [(JOBS[3],), (JOBS[4],)]
    assert (second.taken, second.added) == (3, 2)


def test_a_pool_is_not_called_where_nothing_is_missing(opened):
    opened().add([Evaluation(TRAIN, Status.OK, score=0.5)])

    def pool(batches):
        raise AssertionError

    assert answered(opened().ahead_of(pool), (TRAIN,)) == [[TRAIN]]


def test_an_interruption_leaves_what_was_answered_before(opened):
    dying = stubs.Dying(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        answered(opened().ahead_of(dying), *[(job,) for job in JOBS])
    assert [opened().find(job) is not None for job in JOBS] == [True, True, False, False, False]


def test_nothing_is_locked_while_the_pool_trains(opened, tmp_path):
    with closing(sqlite3.connect(tmp_path / "cache.sqlite", timeout=0, isolation_level=None)) as other:

        @stubs.pooled
        def pool(batch):
            other.execute("BEGIN EXCLUSIVE")
            other.execute("COMMIT")
            return map(stubs.stub_evaluation, batch)

        opened().add([stubs.stub_evaluation(JOBS[0])])
        assert len(answered(opened().ahead_of(pool), *[(job,) for job in JOBS])) == len(JOBS)


def test_a_failing_disk_is_one_line(opened):
    cache = opened()
    cache._connection.execute("DROP TABLE evaluations")
    with pytest.raises(EvolossError, match=r"cannot go on with the cache .*; go on without --cache"):
        cache.find(TRAIN)


PROCESS = """
import sys
from contextlib import closing
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_cache import TRAIN, dataset, replace
from evoloss.cache import Cache
from evoloss.records import Evaluation, Status
sys.stdin.read(1)
with closing(Cache(Path(sys.argv[1]), {None: dataset()}, "cpu")) as cache:
    for number in range(100):
        job = replace(TRAIN, key=str(number))
        found = cache.find(job)
        cache.add([Evaluation(job, Status.OK, score=0.5, seconds=float(sys.argv[2]))])
        assert cache.find(job).seconds in ((found.seconds,) if found else (1.0, 2.0))
"""


def test_two_processes_make_and_fill_a_cache_at_once(opened, tmp_path, request):
    """Who comes second changes nothing; both have everything in the end."""
    path, tests = tmp_path / "cache.sqlite", str(request.path.parent)
    command = [sys.executable, "-c", PROCESS, str(path)]
    both = [
        subprocess.Popen([*command, number, tests], stdin=subprocess.PIPE, stderr=subprocess.PIPE) for number in "12"
    ]
    for process in both:
        process.stdin.write(b"go")
        process.stdin.flush()
    assert [process.communicate(timeout=200)[1] for process in both] == [b"", b""]
    assert [process.returncode for process in both] == [0, 0]
    found = [opened().find(replace(TRAIN, key=str(number))) for number in range(100)]
    assert {evaluation.seconds for evaluation in found} <= {1.0, 2.0}
