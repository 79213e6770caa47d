"""Searches are killed and carried on: the short form of `benchmarks.chaos`, and what it could not overlook."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import chaos, nodes
from evoloss.archive import Archive
from evoloss.config import load_run


def killed(tmp_path, kills, kind):
    """In a process of its own: forks of this one would have its threads."""
    command = [sys.executable, "-m", "benchmarks.chaos", "--kills", str(kills), "--kinds", kind]
    environment = os.environ | {"PYTHONPATH": str(Path(chaos.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", tmp_path / "chaos.csv"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = chaos.read(tmp_path / "chaos.csv")
    assert sum(outcome.kills for outcome in outcomes) == kills
    assert all(outcome.survived for outcome in outcomes)
    assert done.stdout.splitlines()[-1].endswith(f"{kills} of {kills}")


@pytest.mark.timeout(900)  # half a minute of a core, on a machine that may be busy
def test_thirty_kills_at_random_moments_leave_no_trace(tmp_path):
    killed(tmp_path, 30, "moment")


@pytest.mark.timeout(900)
def test_kills_before_a_write_leave_no_trace(tmp_path):
    killed(tmp_path, 15, "write")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A search that nobody killed, once more."""
    path = tmp_path_factory.mktemp("chaos") / "run"
    command = [sys.executable, "-m", "evoloss", "search", *chaos.SMALL, "--no-playoff", "--workers", "0"]
    subprocess.run([*command, "--out", path, "--quiet"], check=True, capture_output=True)
    return path


TRACES = {
    "a score": (lambda archive, _: archive.execute("UPDATE evaluations SET score = 0.5"), "evaluations"),
    "a candidate": (lambda archive, _: archive.execute("UPDATE candidates SET rung = 0"), "candidates"),
    "a table": (lambda _, path: (path / "pareto.csv").write_text("rank,seconds\n1,2\n"), "pareto.csv"),
    "a population": (lambda archive, _: archive.execute("UPDATE generations SET population = '[]'"), "population"),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_seen(alone, tmp_path, name):
    trace, what = TRACES[name]
    copy = tmp_path / "run"
    copy.mkdir()
    with contextlib.closing(Archive(alone / "archive.sqlite", load_run(alone).data())):
        pass  # folds the write-ahead log into the file
    for path in alone.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    before, evaluations = chaos.ending(alone), chaos.stored(alone)
    assert not chaos.differences(before, chaos.ending(copy))
    with contextlib.closing(sqlite3.connect(copy / "archive.sqlite")) as archive:
        trace(archive, copy)
        archive.commit()
    assert chaos.differences(before, chaos.ending(copy)) == [what]
    assert bool(chaos.lost(evaluations, chaos.stored(copy))) == (what == "evaluations")


def test_an_evaluation_that_was_done_again_was_lost(alone):
    """Its time tells."""
    before = chaos.stored(alone)
    key, row = next(iter(before.items()))
    assert len(before) > 20
    assert chaos.lost(before, before) == 0
    assert chaos.lost(before, before | {key: (*row[:-1], row[-1] + 1e-9)}) == 1
    assert chaos.lost(before, {other: value for other, value in before.items() if other != key}) == 1


def test_a_process_that_is_left_behind_is_found(monkeypatch):
    monkeypatch.setattr(chaos, "PATIENCE", 0.1)
    program = "import subprocess, sys; print(subprocess.Popen(['sleep', '100']).pid, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        child = int(parent.stdout.readline())
        below = nodes.descendants(parent.pid)
        while not all(below.values()):  # a process that has just begun has no command line for a moment
            below = nodes.descendants(parent.pid)
        parent.kill()
    assert list(below) == [child]
    assert chaos.left_behind(below) == "left running: sleep"
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and chaos._lives(child):
        assert time.monotonic() < deadline
    assert chaos.left_behind(below) == ""


def test_every_kind_has_its_share_of_the_kills():
    given = chaos.shares(200, list(chaos.KINDS))
    assert sum(given.values()) == 200
    assert min(given.values()) > 0
    assert chaos.shares(30, ["moment"]) == {"moment": 30}
    assert sum(kind.share for kind in chaos.KINDS.values()) == pytest.approx(1)


def test_a_kill_before_a_write_is_one_by_sigkill(tmp_path):
    program = """
import sys
from pathlib import Path
from benchmarks import chaos
chaos.mine(3, Path(sys.argv[1]))
for name in "abcd":
    (Path(sys.argv[1]) / name).write_text(name)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(chaos.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program, tmp_path], env=environment)
    assert done.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_trial_begins_a_search_and_then_carries_it_on(tmp_path):
    trial = chaos.Trial(tmp_path / "run", random.Random(0), 1.0, 1)
    assert trial.command[0] == "search"
    (tmp_path / "run").mkdir()
    assert trial.command[:2] == ["resume", str(tmp_path / "run")]
