import pytest
import stubs
from test_tokens import TOKEN

from evoloss import replay
from evoloss.backend import Backend
from evoloss.data import fingerprint
from evoloss.records import Evaluation, Status
from evoloss.replay import Repeat

HERE = Backend(0)


@pytest.fixture(scope="module")
def true_token(digits):
    """A token of what the trainings really come to, in this process."""
    repeats = replay.replay(TOKEN, digits, "cpu", backend=HERE)
    return TOKEN.model_copy(update={"scores": tuple(repeat.now for repeat in repeats)})


def test_a_replay_ends_on_the_same_image(digits, true_token):
    repeats = replay.replay(true_token, digits, "cpu", backend=HERE)
    assert [repeat.same for repeat in repeats] == [True, True]
    assert true_token.scores[0] != true_token.scores[1]
    images = replay.scored(true_token, digits)
    assert images == len(digits.splits["select"].labels)
    assert all(round(score * images) / images == score > 0.5 for score in true_token.scores)


def test_one_image_more_is_not_the_same(digits, true_token):
    first, second = true_token.scores
    images = replay.scored(true_token, digits)
    flattered = true_token.model_copy(update={"scores": (first, (round(second * images) + 1) / images)})
    assert [r.same for r in replay.replay(flattered, digits, "cpu", backend=HERE)] == [True, False]


def test_it_is_the_training_that_a_search_did_among_others(digits):
    """Seven other losses beside it in the stack, as in a search: the last digit stays."""
    from dataclasses import replace

    from evoloss.baselines import BASELINES
    from evoloss.evaluate import evaluate, prepare
    from evoloss.expression import Expression

    (job, _) = TOKEN.jobs()
    others = [Expression.parse(BASELINES[name].expression) for name in list(BASELINES)[1:8]]
    batch = (*(replace(job, key=other.key, expression=other.text) for other in others), job)
    among = evaluate(batch, prepare({None: digits}))[-1]
    token = TOKEN.model_copy(update={"scores": (among.score,)})
    assert [r.same for r in replay.replay(token, digits, "cpu", backend=HERE)] == [True]


def test_a_training_that_fails_is_told(digits, monkeypatch):
    def failing(job):
        return Evaluation(job, Status.DIVERGED, "loss nan at step 10")

    pool = stubs.pooled(lambda jobs: map(failing, jobs))
    monkeypatch.setattr(Backend, "open", lambda *_: _opened(pool))
    assert replay.replay(TOKEN, digits, "cpu")[0] == Repeat(0, TOKEN.scores[0], None, "diverged: loss nan at step 10")


def _opened(pool):
    from contextlib import nullcontext

    return nullcontext(pool)


def test_what_differs_is_named(digits, monkeypatch):
    from importlib.metadata import version

    from evoloss import machine

    here = {"version": version("evoloss"), "torch": version("torch"), "machine": machine.kind()}
    same = TOKEN.model_copy(update=here | {"digest": fingerprint(digits)})
    assert replay.changed(same, digits, "cpu") == []
    other = same.model_copy(update={"torch": "1.0", "machine": "an abacus", "digest": "0" * 16, "protocol": 99})
    told = replay.changed(other, digits, "cuda:0")
    assert [line.partition(":")[0] for line in told] == [
        "the protocol of evoloss",
        "torch",
        "the machine",
        "the device",
        "the data",
    ]
    assert "torch: 1.0 then, " in told[1]
