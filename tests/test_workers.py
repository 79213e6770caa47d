import dataclasses
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from evoloss import data, workers
from evoloss.batches import batched
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import Budget, DataSpec, Evaluation, Job, Status

TEXTS = ["-y*log(p)", "(p - y)**2", "pair(Y*D**2 + (1 - Y)*relu(1 - D)**2)", "y*d**2"]


def jobs():
    expressions = [Expression.parse(text) for text in TEXTS]
    screens = [Job("screen", e.key, e.text, "mlp", 0) for e in expressions]
    budget = Budget(256, 1, 3e-3)
    return screens + [Job("train", e.key, e.text, "mlp", 5, budget) for e in expressions]


def answers(pool, wanted):
    evaluations = [answer for batch in pool(list(batched(wanted))) for answer in batch]
    found = {answer.job: dataclasses.replace(answer, seconds=0.0) for answer in evaluations}
    assert set(found) == set(wanted)
    assert len(found) == len(evaluations)
    return found


def alone(jobs):
    return [(job,) for job in jobs]


FEW = DataSpec("digits", samples=200)


@pytest.fixture(scope="module")
def ray_pool(digits):
    with workers.open_pool({None: digits, FEW: data.load(FEW)}, 2) as pool:
        yield pool


def test_ray_workers_and_this_process_agree_to_the_last_bit(digits, ray_pool):
    with workers.open_pool({None: digits}, 0) as local:
        assert answers(ray_pool, jobs()) == answers(local, jobs())


def test_a_job_is_done_on_its_own_data(digits, ray_pool):
    own = [job for job in jobs() if job.task == "train"]
    few = [dataclasses.replace(job, data=FEW) for job in own]
    here, there = answers(ray_pool, own), answers(ray_pool, few)
    with workers.open_pool({None: digits, FEW: data.load(FEW)}, 0) as local:
        assert answers(local, own + few) == here | there
    assert [here[job].score for job in own] != [there[job].score for job in few]


def test_a_pool_can_be_used_again_after_the_caller_stopped_early(ray_pool):
    for answered in ray_pool(alone(jobs())):
        assert answered[0].status is Status.OK
        break
    assert len(answers(ray_pool, jobs())) == 8


class _FakeRay:
    """Ray as the pool sees it: `outcomes` says what each call of a job ends in."""

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

    def __init__(self, outcomes):
        self.outcomes = outcomes
        self.killed = 0

    def remote(self, **_):
        fake = self

        class Actor:
            @staticmethod
            def remote(*_):
                class Method:
                    @staticmethod
                    def remote(batch):
                        return batch, fake.outcomes["".join(job.key for job in batch)].pop(0)

                return type("Handle", (), {"evaluate": Method})()

        return lambda _: Actor

    def wait(self, references, num_returns, timeout):
        ready = [reference for reference in references if reference[1] != "hangs"]
        return ready[:num_returns], []

    def get(self, reference):
        batch, outcome = reference
        if outcome == "dies":
            raise self.exceptions.RayError("the worker died")
        return [Evaluation(job, Status.OK, score=0.5) for job in batch]

    def kill(self, _):
        self.killed += 1


def fake_job(key, limit=60.0):
    return Job("train", key, "cls(-y*log(p))", "mlp", 0, time_limit=limit)


def run(pool, batches):
    return [answer for answered in pool.run(batches) for answer in answered]


def test_a_worker_that_dies_is_replaced_and_the_job_done_again():
    ray = _FakeRay({"a": ["dies", "dies", "works"], "b": ["works"]})
    pool = workers._RayPool(ray, None, 1, "cpu")
    answered = run(pool, alone([fake_job("a"), fake_job("b")]))
    assert {answer.job.key: answer.status for answer in answered} == dict.fromkeys("ab", Status.OK)
    assert ray.killed == 2


def test_the_third_death_blames_the_job():
    ray = _FakeRay({"a": ["dies", "dies", "dies"], "b": ["works"]})
    pool = workers._RayPool(ray, None, 1, "cpu")
    statuses = {answer.job.key: answer for answer in run(pool, alone([fake_job("a"), fake_job("b")]))}
    assert statuses["a"].status is Status.LOST
    assert "3 workers died of it" in statuses["a"].detail
    assert statuses["b"].status is Status.OK


def test_a_job_that_hangs_is_killed_at_its_limit():
    """And a worker that has just been started, on a machine that may be busy, is given time to come up."""
    ray = _FakeRay({"a": ["hangs"], "b": ["works", "hangs"]})
    pool = workers._RayPool(ray, None, 1, "cpu")
    starting = fake_job("a", limit=-workers.GRACE - workers.START)
    answered = run(pool, alone([starting, fake_job("b"), fake_job("b", -workers.GRACE)]))
    assert [(a.job.key, a.status) for a in answered] == [
        ("a", Status.TIMEOUT),
        ("b", Status.OK),
        ("b", Status.TIMEOUT),
    ]


@pytest.mark.parametrize("fate", ["dies", "hangs"])
def test_of_a_batch_that_fails_each_job_answers_for_itself(fate):
    ray = _FakeRay({"ab": [fate], "a": ["works"], "b": ["dies"] * 3})
    pool = workers._RayPool(ray, None, 1, "cpu")
    limit = -(workers.GRACE + workers.START) / 2 if fate == "hangs" else 60.0
    answered = run(pool, [(fake_job("a", limit), fake_job("b", limit))])
    assert {answer.job.key: answer.status for answer in answered} == {"a": Status.OK, "b": Status.LOST}


def test_a_worker_killed_while_it_works_costs_nothing(ray_pool):
    import ray

    seats = ray_pool.__self__.idle
    pids = ray.get([seat.actor.__ray_call__.remote(lambda _: os.getpid()) for seat in seats])
    answered = []
    for (answer,) in ray_pool(alone(jobs())):
        if not answered:
            os.kill(pids[0], signal.SIGKILL)
        answered.append(answer)
    assert {answer.job for answer in answered} == set(jobs())
    assert {answer.status for answer in answered} == {Status.OK}
    assert len(set(pids)) == len(seats) == 2


def test_an_address_without_a_cluster_is_one_clear_line(digits):
    message = r"cannot join the Ray cluster at 127\.0\.0\.1:1"
    with pytest.raises(EvolossError, match=message), workers.open_pool({None: digits}, 1, address="127.0.0.1:1"):
        pass


def test_a_search_on_a_running_cluster_with_its_token(digits, tmp_path):
    """`ray start` in a process of its own; the answers are those of this process."""
    ray = Path(sys.executable).with_name("ray")
    program = f"""
import dataclasses, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_workers
from evoloss import data, workers
from evoloss.records import DataSpec
with workers.open_pool({{None: data.load(DataSpec("digits"))}}, 1, address=sys.argv[1]) as pool:
    for (answer,) in pool(test_workers.alone(test_workers.jobs())):
        print(answer.job.task, answer.job.key, answer.score)
"""
    port = free_port()
    start = [ray, "start", "--head", "--block", "--port", str(port), "--num-cpus", "1", "--include-dashboard=false"]
    with subprocess.Popen([*start, "--disable-usage-stats"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as head:
        try:
            next(line for line in head.stdout if b"Ray runtime started" in line)
            command = [sys.executable, "-c", program, f"127.0.0.1:{port}"]
            done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        finally:
            head.terminate()
            head.stdout.close()
    assert done.returncode == 0, done.stderr
    with workers.open_pool({None: digits}, 0) as local:
        here = [answer for (answer,) in local(alone(jobs()))]
    assert sorted(done.stdout.splitlines()) == sorted(f"{a.job.task} {a.job.key} {a.score}" for a in here)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
