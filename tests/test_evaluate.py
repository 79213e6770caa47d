import dataclasses
import os
import subprocess
import sys

import pytest
import torch
from rows import sized

from evoloss import data
from evoloss import evaluate as worker
from evoloss.baselines import BASELINES
from evoloss.data import Split
from evoloss.evaluate import decoder, matching_scale
from evoloss.expression import Expression
from evoloss.records import Budget, DataSpec, Job, Status

SHORT = Budget(512, 2, 6e-3)
LONG = Budget(10_000, 3, 3e-3)
REAL = os.environ.get("EVOLOSS_DATA")


def prepare(dataset):
    return worker.prepare({None: dataset})


def evaluate(job, workbenches):
    (answer,) = worker.evaluate((job,), workbenches)
    return answer


@pytest.fixture(scope="module")
def workbench(digits):
    return prepare(digits)


def job(text, task="train", **changes):
    expression = Expression.parse(text)
    budget = SHORT if task == "train" else None
    return dataclasses.replace(Job(task, expression.key, expression.text, "mlp", 0, budget), **changes)


@pytest.fixture(scope="module")
def two_digits(digits):
    """Zeros and ones only."""
    splits = {
        role: Split(split.images[split.labels < 2], split.labels[split.labels < 2])
        for role, split in digits.splits.items()
    }
    return prepare(dataclasses.replace(digits, classes=digits.classes[:2], splits=splits))


@pytest.mark.parametrize("proxy", ["mlp", "inception"])
def test_a_rung_may_see_images_pooled(workbench, proxy):
    budget = dataclasses.replace(SHORT, samples=256, batch_size=64, pooled=2)
    answer = evaluate(job("-y*log(p)", proxy=proxy, budget=budget), workbench)
    assert answer.status is Status.OK, answer.detail
    whole = evaluate(job("-y*log(p)", proxy=proxy, budget=dataclasses.replace(budget, pooled=1)), workbench)
    assert answer.score != whole.score


def test_pooled_samples_are_means_of_squares(workbench):
    bench = workbench[None]
    whole, pooled = bench.samples("train", 50, 1), bench.samples("train", 50, 1, pooled=2)
    assert torch.equal(whole.labels, pooled.labels)
    squares = whole.images.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    torch.testing.assert_close(pooled.images, squares.mean((3, 5)))


SLOW = {"mae": 0.8}  # .88 measured: its gradient vanishes where the right class is improbable (Zhang & Sabuncu 2018)


@pytest.mark.parametrize(("name", "num_classes"), sized(10))
def test_every_baseline_learns_digits_at_its_matched_scale(workbench, two_digits, name, num_classes):
    workbench = {10: workbench, 2: two_digits}[num_classes]
    screened = evaluate(job(BASELINES[name].expression, "screen"), workbench)
    assert screened.status is Status.OK, screened.detail
    trained = evaluate(job(BASELINES[name].expression, scale=screened.scale, budget=LONG), workbench)
    assert trained.score > SLOW.get(name, 0.95)


def test_the_same_job_gives_the_same_score_after_other_jobs(workbench, digits):
    first = evaluate(job("-y*log(p)"), workbench)
    evaluate(job(BASELINES["triplet"].expression, seed=3), workbench)
    evaluate(job("y*d**2"), workbench)
    assert evaluate(job("-y*log(p)"), workbench).score == first.score
    assert evaluate(job("-y*log(p)"), prepare(digits)).score == first.score


def test_seeds_differ_and_roles_are_scored_as_asked(workbench):
    scores = {evaluate(job("-y*log(p)", seed=seed), workbench).score for seed in range(4)}
    assert len(scores) > 1
    both = evaluate(job("-y*log(p)", roles=("select", "test")), workbench)
    assert both.test_score is not None
    assert evaluate(job("-y*log(p)"), workbench).test_score is None


@pytest.mark.parametrize("factor", [1e-3, 0.5, 40.0])
def test_a_factor_changes_nothing_but_the_scale(workbench, factor):
    plain = evaluate(job("-y*log(p)", "screen"), workbench)
    scaled = evaluate(job(f"-{factor}*y*log(p)", "screen"), workbench)
    assert plain.scale == pytest.approx(1.0, abs=1e-5)
    assert scaled.scale == pytest.approx(1 / factor, rel=1e-5)
    assert scaled.fingerprint == pytest.approx(plain.fingerprint, abs=1e-8)
    one = evaluate(job("-y*log(p)", scale=plain.scale), workbench)
    other = evaluate(job(f"-{factor}*y*log(p)", scale=scaled.scale), workbench)
    assert other.score == pytest.approx(one.score, abs=0.01)


def test_a_loss_of_embeddings_is_matched_on_the_embeddings(workbench):
    """By hand: gradients of cross-entropy and of the loss at the embeddings of the same untrained net."""
    from evoloss.evaluate import SCALE_BATCH
    from evoloss.layouts import Batch

    text = BASELINES["contrastive"].expression
    workbench = workbench[None]
    scale = matching_scale(Expression.parse(text), workbench, "mlp", 0)
    samples = workbench.samples("train", SCALE_BATCH, 0)
    model = workbench.proxy("mlp", 0)
    with torch.no_grad():
        values, _ = model(samples.images)
    x = values.clone().requires_grad_()
    cross_entropy = torch.nn.functional.cross_entropy(model.head(x), samples.labels)
    (expected,) = torch.autograd.grad(cross_entropy, x)
    x = values.clone().requires_grad_()
    batch = Batch(None, samples.labels, None, x, None, 10)
    contrastive = batch.pair(batch.Y * batch.D**2 + (1 - batch.Y) * (1 - batch.D).relu() ** 2)
    (own,) = torch.autograd.grad(contrastive, x)
    assert scale == pytest.approx((expected.norm() / own.norm()).item(), rel=1e-4)


@pytest.mark.parametrize(
    ("text", "status", "word"),
    [
        ("cls(p)", Status.REJECTED, "no target"),
        ("cls(log(p - 2) + y)", Status.REJECTED, "finite"),
        ("cls(y + relu(-p))", Status.REJECTED, "flat"),
        ("cls(y + p**2)", Status.REJECTED, "learns"),
    ],
)
def test_the_screen_says_why(workbench, text, status, word):
    answer = evaluate(job(text, "screen"), workbench)
    assert (answer.status, answer.score, answer.scale) == (status, None, None)
    assert answer.detail.startswith(word)


def test_a_loss_that_explodes_diverges_without_a_score(workbench):
    answer = evaluate(job("-y*log(p)", scale=1e30, budget=dataclasses.replace(SHORT, optimizer="sgd")), workbench)
    assert (answer.status, answer.score) == (Status.DIVERGED, None)


def test_a_training_that_takes_too_long_times_out(workbench):
    answer = evaluate(job("-y*log(p)", budget=dataclasses.replace(SHORT, time_limit=1e-9)), workbench)
    assert (answer.status, answer.score) == (Status.TIMEOUT, None)


def test_what_goes_wrong_becomes_a_status(workbench):
    unknown = dataclasses.replace(job("-y*log(p)"), proxy="none")
    assert evaluate(unknown, workbench).status is Status.INVALID
    garbage = dataclasses.replace(job("-y*log(p)"), expression="import os")
    answer = evaluate(garbage, workbench)
    assert answer.status is Status.INVALID
    assert "ExpressionError" in answer.detail
    assert "\n" not in answer.detail


def test_a_training_that_needs_too_much_memory_is_refused_and_the_next_one_goes_on():
    """In a process of its own: the limit is one of the process."""
    program = """
import sys
from evoloss import data, limits
from evoloss.evaluate import evaluate, prepare
from evoloss.expression import Expression
from evoloss.records import Budget, DataSpec, Job

workbenches = prepare({None: data.load(DataSpec("digits"))})
large = Expression.parse("pair(sin(D) + cos(D)*Y + exp(-D)*sin(Y + D) + tanh(D)*erf(D + Y))")
small = Expression.parse("-y*log(p)")
budgets = ((large, Budget(1000, 1, 1e-3, batch_size=1000)), (small, Budget(1000, 1, 1e-3, batch_size=50)))
jobs = [Job("train", e.key, e.text, "mlp", 0, budget) for e, budget in budgets]
evaluate((jobs[1],), workbenches)  # what torch keeps for itself, it has now
limits.memory(64 * 2**20)
for job in jobs:
    (answer,) = evaluate((job,), workbenches)
    print(answer.status, answer.detail)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("invalid RuntimeError: ")
    assert "memory" in first
    assert second == "ok "


def test_decoders_follow_what_a_loss_sees():
    kinds = {
        "-y*log(p)": "argmax",
        "y*z*d": "argmax",
        "y*d**2": "centers",
        "pair(Y*D)": "means",
        "trip(Dp - Dn)": "means",
    }
    assert {text: decoder(Expression.parse(text)) for text in kinds} == kinds


@pytest.mark.skipif(not REAL, reason="needs EVOLOSS_DATA")
@pytest.mark.parametrize(
    ("name", "at_least"),
    # One seed at one rate of the last rung; cross-entropy reaches .85, and chance is .10. The bounds are 2.5 points
    # below what was measured.
    [("ce", 0.82), ("ngl", 0.83), ("contrastive", 0.79), ("yukawa", 0.82), ("triplet", 0.81), ("center", 0.83),
     ("standalone-center", 0.82)],
)  # fmt: skip
def test_fashion_mnist_at_the_last_rung(fashion, name, at_least):
    screened = evaluate(job(BASELINES[name].expression, "screen"), fashion)
    answer = evaluate(job(BASELINES[name].expression, scale=screened.scale, budget=LONG), fashion)
    assert answer.score > at_least


@pytest.fixture(scope="module")
def fashion():
    return prepare(data.load(DataSpec("fashion-mnist")))


@pytest.mark.skipif(not REAL, reason="needs EVOLOSS_DATA")
def test_cifar10_with_the_small_inception():
    workbench = prepare(data.load(DataSpec("cifar10")))
    budget = Budget(2_500, 2, 3e-3, batch_size=64, flips=True)
    answer = evaluate(job("-y*log(p)", proxy="inception", budget=budget), workbench)
    assert answer.score > 0.35
