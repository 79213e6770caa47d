import fcntl
import shutil
import threading
from contextlib import closing

import pytest
import stubs

from evoloss import directory, follow
from evoloss.archive import Archive
from evoloss.errors import EvolossError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return stubs.run_directory(tmp_path_factory.mktemp("follow") / "run", play=False)


def seen(path, **options):
    """What a watcher is told: the finished generations, and the last state."""
    told, states = [], []

    def watch(progress):
        if progress.finished is not None:
            told.append(progress.finished)
        states.append((progress.phase, progress.ended, progress.generation))

    follow.follow(path, watch, pause=0.01, **options)
    return told, states


def test_a_finished_run_is_told_as_it_is(finished):
    told, states = seen(finished)
    with closing(Archive(finished / "archive.sqlite", stubs.config().data(), read_only=True)) as archive:
        assert told == archive.generations()
    assert states[-1] == ("ended", True, 3)


def test_the_state_is_that_of_the_archive(finished):
    last = []
    follow.follow(finished, last.append)
    with closing(Archive(finished / "archive.sqlite", stubs.config().data(), read_only=True)) as archive:
        assert last[-1].trained == archive.spent()[0]
        assert last[-1].cached == sum(row.cached for row in archive.generations())
        assert last[-1].best.fitness == archive.generations()[-1].best_fitness
        assert sum(last[-1].rejected.values()) == sum(c.status == "rejected" for c in archive.candidates())
    assert last[-1].references["ngl"].name == "ngl"


def test_a_running_search_is_followed_to_its_end(finished, tmp_path):
    """The one generation that is there is told at once, the others as they come, until the lock is free."""
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("archive.sqlite*"))
    config = stubs.config()
    pool = stubs.Dying(10**9, KeyboardInterrupt, stubs.steady_evaluation)
    first_told, phases = threading.Event(), set()
    ended, told = threading.Event(), []

    def search():
        with directory.in_use(run):
            started.set()
            assert first_told.wait(60)
            stubs.search(run / "archive.sqlite", config, pool)
            ended.set()

    def watch(progress):
        phases.add(progress.phase)
        first_told.set()
        if progress.finished is not None:
            told.append(progress.finished.generation)

    stubs.search(run / "archive.sqlite", stubs.config(generations=1), stubs.steady_pool)
    started = threading.Event()
    worker = threading.Thread(target=search)
    worker.start()
    assert started.wait(60)
    follow.follow(run, watch, pause=0.01)
    worker.join()
    assert told == [0, 1, 2, 3]
    assert ended.is_set()
    assert {"training", "ended"} <= phases


def test_a_search_that_was_stopped_ends_the_watch(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("archive.sqlite*"))
    stubs.search(run / "archive.sqlite", stubs.config(generations=1), stubs.steady_pool)
    told, states = seen(run)
    assert [row.generation for row in told] == [0, 1]
    assert states[-1] == ("stopped: nobody works on it", True, 1)


def test_nothing_to_watch(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("archive.sqlite*"))
    with pytest.raises(EvolossError, match="has no archive"):
        seen(run)
    with pytest.raises(EvolossError, match="cannot read"):
        seen(tmp_path)


def test_a_lock_is_seen_and_not_taken(finished):
    assert not directory.is_in_use(finished)
    with directory.in_use(finished):
        assert directory.is_in_use(finished)
    with (finished / ".lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not directory.is_in_use(finished)
    assert not directory.is_in_use(finished / "nowhere")


def test_the_command_shows_generations_and_the_verdict(run_cli, finished):
    code, out, err = run_cli("watch", finished)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("generation 0/3: ")
    assert lines[3].startswith("generation 3/3: ")
    assert lines[4].startswith("No playoff was held")
    assert lines[-1].endswith(f"evoloss report {finished}")


def test_ctrl_c_leaves_the_search_alone(run_cli, finished, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("evoloss.follow.follow", interrupted)
    assert run_cli("watch", finished) == (130, "", "evoloss: interrupted, the search goes on\n")
