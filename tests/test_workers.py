import dataclasses
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@dataclasses.dataclass(eq=False)
class _Reference:
    """To what a call will have come: the batch that it evaluates, if any, and how it ends."""

    outcome: object
    batch: tuple = ()


class _FakeRay:
    """Ray as the pool sees it: `outcomes` says what each call of a job ends in, `greetings` what workers say in turn.

    After those, workers greet as they should. `nodes_up` are the nodes that live, one with two cores at first.
    """

    class exceptions:  # noqa: N801
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

        class ActorDiedError(RayError):
            actor_init_failed = True

    def __init__(self, outcomes, greetings=()):
        self.outcomes, self.greetings = outcomes, list(greetings)
        self.killed = self.started = 0
        self.nodes_up = ["node"]
        self.resources = {"CPU": 2.0}

    def remote(self, **options):
        self.options = options
        fake = self

        def method(answer):
            return type("Method", (), {"remote": staticmethod(answer)})()

        class Actor:
            @staticmethod
            def remote():
                fake.started += 1
                greeting = fake.greetings.pop(0) if fake.greetings else {}
                handle = {
                    "hello": method(lambda: _Reference(greeting)),
                    "prepare": method(lambda *_: _Reference(greeting)),
                    "evaluate": method(lambda batch: _Reference(fake.outcome(batch), batch)),
                }
                return type("Handle", (), handle)()

        return lambda _: Actor

    def outcome(self, batch):
        found = self.outcomes["".join(job.key for job in batch)].pop(0)
        return found() if callable(found) else found

    def wait(self, references, num_returns, timeout):
        assert references
        ready = [reference for reference in references if reference.outcome not in ("hangs", "never")]
        return ready[:num_returns], []

    def get(self, reference):
        batch, outcome = reference.batch, reference.outcome
        if outcome == "dies":
            raise self.exceptions.RayError("the worker died")
        if outcome == "cannot be imported":
            raise self.exceptions.ActorDiedError("failed to import\n\nModuleNotFoundError: No module named 'evoloss'")
        if outcome == "cannot prepare":
            raise self.exceptions.RayTaskError("ray::_Worker.prepare()\nEvolossError: torch finds no GPU")
        if not batch:
            return workers.versions() | {"host": "10.0.0.2", "node": "node"} | outcome
        return [Evaluation(job, Status.OK, score=0.5) for job in batch]

    def nodes(self):
        return [{"NodeID": node, "Alive": node in self.nodes_up} for node in ("node", "other")]

    def cluster_resources(self):
        return self.resources

    def kill(self, _):
        self.killed += 1


def fake_pool(ray, count=1, **options):
    return workers._RayPool(ray, None, lambda: count, "cpu", **options)


def fake_job(key, limit=60.0):
    return Job("train", key, "cls(-y*log(p))", "mlp", 0, time_limit=limit)


def run(pool, batches):
    return [answer for answered in pool.run(batches) for answer in answered]


def test_a_worker_that_dies_is_replaced_and_the_job_done_again():
    ray = _FakeRay({"a": ["dies", "dies", "works"], "b": ["works"]})
    pool = fake_pool(ray)
    answered = run(pool, alone([fake_job("a"), fake_job("b")]))
    assert {answer.job.key: answer.status for answer in answered} == dict.fromkeys("ab", Status.OK)
    assert ray.killed == 2


def test_the_third_death_blames_the_job():
    ray = _FakeRay({"a": ["dies", "dies", "dies"], "b": ["works"]})
    pool = fake_pool(ray)
    statuses = {answer.job.key: answer for answer in run(pool, alone([fake_job("a"), fake_job("b")]))}
    assert statuses["a"].status is Status.LOST
    assert "3 workers died of it" in statuses["a"].detail
    assert statuses["b"].status is Status.OK


def test_a_job_that_hangs_is_killed_at_its_limit():
    ray = _FakeRay({"a": ["hangs"], "b": ["works", "hangs"]})
    pool = fake_pool(ray)
    answered = run(pool, alone([fake_job("a", -workers.GRACE), fake_job("b"), fake_job("b", -workers.GRACE)]))
    assert [(a.job.key, a.status) for a in answered] == [
        ("a", Status.TIMEOUT),
        ("b", Status.OK),
        ("b", Status.TIMEOUT),
    ]


@pytest.mark.parametrize("fate", ["dies", "hangs"])
def test_of_a_batch_that_fails_each_job_answers_for_itself(fate):
    ray = _FakeRay({"ab": [fate] * 3, "a": ["works"], "b": ["dies"] * 3})
    pool = fake_pool(ray)
    limit = -workers.GRACE / 2 if fate == "hangs" else 60.0
    answered = run(pool, [(fake_job("a", limit), fake_job("b", limit))])
    assert {answer.job.key: answer.status for answer in answered} == {"a": Status.OK, "b": Status.LOST}


def test_a_batch_whose_worker_died_is_done_again_as_it_was():
    """The last bit of a training may depend on what is stacked with it."""
    ray = _FakeRay({"ab": ["dies", "dies", "works"]})
    assert [answer.status for answer in run(fake_pool(ray), [(fake_job("a"), fake_job("b"))])] == [Status.OK] * 2


def test_a_node_is_one_death_however_many_of_its_workers_go():
    """Workers that were idle when it died are found out one by one, at times with the same batch."""
    ray = _FakeRay({"a": ["dies"] * 20 + ["works"]})
    ray.nodes_up = []
    (answer,) = run(fake_pool(ray), alone([fake_job("a")]))
    assert answer.status is Status.OK


def test_a_loss_that_takes_three_nodes_with_it_is_blamed():
    ray = _FakeRay({"a": ["dies"] * 4}, [{"node": node} for node in ("first", "first", "second", "third")])
    ray.nodes_up = []
    (answer,) = run(fake_pool(ray), alone([fake_job("a")]))
    assert (answer.status, ray.outcomes) == (Status.LOST, {"a": []})


def test_workers_placed_on_a_node_that_is_gone_are_no_reason_to_give_up():
    """Ray takes half a minute to notice, and starts one after the other there."""
    ray = _FakeRay({"a": ["works"]}, ["dies"] * 20)
    (answer,) = run(fake_pool(ray), alone([fake_job("a")]))
    assert (answer.status, ray.killed) == (Status.OK, 20)


def test_a_cluster_that_grows_gets_more_workers(monkeypatch):
    monkeypatch.setattr(workers, "CENSUS", 0.0)
    ray = _FakeRay({})
    pool = workers._RayPool(ray, None, lambda: workers._room(ray, 0.0), "cpu")
    assert ray.started == 2

    def join():
        ray.resources = {"CPU": 5.0}
        return "works"

    ray.outcomes = {"a": [join], "b": ["works"]}
    run(pool, alone([fake_job("a"), fake_job("b")]))
    assert ray.started == 5
    ray.outcomes, ray.resources = {"a": ["works"]}, {"CPU": 1.0}
    run(pool, alone([fake_job("a")]))
    assert ray.started == 5


def test_a_worker_of_another_version_is_left_out(caplog):
    """The others do its work; it is not killed, or Ray would put the next one there."""
    ray = _FakeRay({"a": ["works"], "b": ["works"]}, [{"evoloss": "0.0.1"}])
    pool = fake_pool(ray, 2)
    assert len(run(pool, alone([fake_job("a"), fake_job("b")]))) == 2
    assert (ray.started, ray.killed) == (2, 0)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("left out: the worker on 10.0.0.2 has evoloss 0.0.1, this is evoloss ")
    assert "results would not be comparable; install evoloss" in warning


REFUSED = {
    "another version": ({"evoloss": "0.0.1"}, "has evoloss 0.0.1, this is evoloss"),
    "another torch": ({"torch": "1.0"}, "has torch 1.0, this is torch"),
    "no version": ({"torch": None}, "has torch None"),
    "no evoloss": ("cannot be imported", "a worker cannot start: ModuleNotFoundError: No module named 'evoloss'"),
    "no device": ("cannot prepare", "a worker cannot start: EvolossError: torch finds no GPU; every machine needs"),
    "early deaths": ("dies", "workers die before they are ready: the worker died"),
    "no room": ("never", "no worker came up within 600 s"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_cluster_without_a_worker_of_use_is_one_clear_line(monkeypatch, name):
    greeting, message = REFUSED[name]
    ray = _FakeRay({}, [greeting] * 20)
    pool = fake_pool(ray, 2)
    monkeypatch.setattr(workers.time, "monotonic", iter(range(0, 1_000_000, 10)).__next__)
    with pytest.raises(EvolossError, match=message):
        run(pool, alone([fake_job("a")]))
    assert not pool.running


def test_the_build_of_torch_makes_no_difference(monkeypatch):
    monkeypatch.setattr(workers, "version", {"evoloss": "1", "torch": "2.6.0+cu124"}.__getitem__)
    assert workers.versions() == {"evoloss": "1", "torch": "2.6.0"}


@pytest.mark.parametrize(
    ("there", "count", "given", "share", "room"),
    [
        ({"CPU": 8.0, "GPU": 1.0}, 8, None, 0.125, 8),
        ({"CPU": 6.0, "GPU": 1.0}, 6, None, 0.1666, 6),
        ({"CPU": 64.0, "GPU": 3.0}, None, 0.1, 0.1, 30),
        ({"CPU": 4.0, "GPU": 8.0}, None, None, 1.0, 4),
    ],
)
def test_workers_share_gpus(there, count, given, share, room):
    ray = _FakeRay({})
    ray.resources = there
    assert workers._share(ray, count, given) == share
    assert workers._room(ray, share) == room
    workers._RayPool(ray, None, lambda: 1, "cuda", share)
    assert ray.options == {"num_cpus": 1, "num_gpus": share}


def test_what_has_no_gpu_says_so(digits):
    with pytest.raises(EvolossError, match="Ray finds no GPU: --device cpu does without"):
        workers._share(_FakeRay({}), None, 0.1)
    with (
        pytest.raises(EvolossError, match="--gpus-per-worker is for the device cuda, this is on cpu"),
        workers.open_pool({None: digits}, 1, gpus=0.1),
    ):
        pass
    if not torch.cuda.is_available():
        with pytest.raises(EvolossError, match="finds no GPU"), workers.open_pool({None: digits}, 0, device="cuda"):
            pass


def test_a_worker_killed_while_it_works_costs_nothing(ray_pool):
    import ray

    pool = ray_pool.__self__
    seats = [*pool.idle, *pool.coming.values()]
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
