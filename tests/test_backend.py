import contextlib
import json
import math
from contextlib import closing
from importlib.metadata import version

import pytest
import stubs

from evoloss import control, run
from evoloss.archive import Archive
from evoloss.backend import HERE, Backend
from evoloss.config import load_run
from evoloss.control import Control

TABLES = ("hall_of_fame.csv", "pareto.csv", "baselines.csv")


class Workers:
    """Stands for the worker processes: how often they were started, and what they were asked."""

    def __init__(self):
        self.started, self.arguments, self.jobs, self.limit = 0, (), [], math.inf

    @contextlib.contextmanager
    def open_pool(self, *arguments):
        self.started += 1
        self.arguments = arguments
        yield self.answer

    def answer(self, batches):
        for batch in batches:
            if len(self.jobs) + len(batch) > self.limit:
                raise KeyboardInterrupt
            self.jobs += batch
            yield [stubs.stub_evaluation(job) for job in batch]


@pytest.fixture
def workers(monkeypatch):
    stub = Workers()
    monkeypatch.setattr("evoloss.workers.open_pool", stub.open_pool)
    return stub


@pytest.fixture
def searched(tmp_path):
    """Search in a new directory, or go on in one; gives it and how the search stood at its end."""

    def search(name, backend=HERE, **changes):
        directory = tmp_path / name
        if not directory.exists():
            values = {"version": version("evoloss"), "generations": 2, "playoff": False}
            run.create(directory, stubs.config(**values | changes))
        seen = []
        run.carry_on(directory, seen.append, backend)
        return directory, seen[-1] if seen else None

    return search


def tables(directory):
    return [(directory / name).read_bytes() for name in TABLES]


def archived(directory):
    with closing(Archive(directory / "archive.sqlite", load_run(directory).data())) as archive:
        return archive.candidates(), archive.population(), archive.spent()


def test_a_backend_passes_on_what_it_is_told(workers):
    with Backend(3, "auto", gpus=0.1).open({None: "data"}, "cuda") as pool:
        assert pool == workers.answer
    assert workers.arguments == ({None: "data"}, 3, "auto", "cuda", 0.1)


def test_with_a_cache_that_knows_everything_nothing_is_started_and_the_end_is_the_same(workers, searched, tmp_path):
    shared = Backend(cache=tmp_path / "cache.sqlite")
    plain, _ = searched("plain")
    first, cold = searched("first", shared)
    assert (cold.shared, cold.trained > 0, workers.started) == (0, True, 2)
    second, warm = searched("second", shared)
    assert (warm.shared, warm.trained, workers.started) == (cold.trained, 0, 2)
    assert tables(plain) == tables(first) == tables(second)
    assert archived(first) == archived(second)


def test_a_run_is_complete_without_its_cache(workers, searched, tmp_path):
    shared = Backend(cache=tmp_path / "cache.sqlite")
    searched("first", shared)
    directory, _ = searched("second", shared)
    shared.cache.unlink()
    before = tables(directory), archived(directory)
    workers.jobs.clear()
    searched("second")
    assert not workers.jobs
    assert (tables(directory), archived(directory)) == before


def test_an_interrupted_run_leaves_its_evaluations_to_another(workers, searched, tmp_path):
    shared = Backend(cache=tmp_path / "cache.sqlite")
    plain, _ = searched("plain")
    total = len(workers.jobs)
    workers.jobs.clear()
    workers.limit = total // 2
    with pytest.raises(KeyboardInterrupt):
        searched("cut", shared)
    workers.limit = math.inf
    other, _ = searched("other", shared)
    again, _ = searched("cut", shared)
    assert len(workers.jobs) == len(set(workers.jobs)) == total
    assert tables(plain) == tables(other) == tables(again)


def test_runs_that_differ_share_what_they_have_in_common(workers, searched, tmp_path):
    """Generation 0 is that of the seed; what comes after it is not."""
    shared = Backend(cache=tmp_path / "cache.sqlite")
    plain, _ = searched("plain", selection="nsga2")
    searched("rank", shared)
    directory, progress = searched("nsga2", shared, selection="nsga2")
    assert progress.shared > 0
    assert progress.trained > 0
    assert tables(directory) == tables(plain)


def test_a_playoff_from_the_cache_is_a_look_at_the_test_split_all_the_same(workers, searched, tmp_path):
    shared = Backend(cache=tmp_path / "cache.sqlite")
    looks = []
    for name in ("first", "second"):
        directory, progress = searched(name, shared, playoff=True)
        looks.append(json.loads((directory / "environment.json").read_text())["looks"])
    assert [len(found) for found in looks] == [1, 1]
    tested = [job for job in workers.jobs if "test" in job.roles]
    assert len(tested) == len(set(tested)) > 0
    assert len(workers.jobs) == len(set(workers.jobs))
    assert progress.shared == sum(job.task == "train" for job in workers.jobs)


def test_a_control_on_a_cache_ends_as_one_without_and_the_next_trains_nothing(workers, tmp_path):
    settings = Control(repeats=1, run=stubs.config(version=version("evoloss"), generations=1))

    @contextlib.contextmanager
    def unwatched(title):
        yield lambda progress: None

    outcomes, trained = [], []
    cached = Backend(cache=tmp_path / "cache.sqlite")
    for name, backend in (("plain", HERE), ("first", cached), ("second", cached)):
        control.create(tmp_path / name, settings)
        outcomes.append(control.carry_on(tmp_path / name, unwatched, backend))
        trained.append(len(workers.jobs))
        workers.jobs.clear()
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert trained[0] == trained[1] > trained[2] == 0
