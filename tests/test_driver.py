"""What the benchmark of the driver simulates and computes."""

import itertools

from benchmarks import driver
from evoloss.batches import batched
from evoloss.records import Budget, Job, Status


def jobs(task, count=400):
    budget = Budget(100, 1, 1e-3) if task == "train" else None
    return [Job(task, f"{place:016x}", "cls(-y*log(p))", "mlp", 1, budget) for place in range(count)]


def test_simulated_workers_answer_every_batch_once_and_out_of_order():
    batches = list(batched(jobs("train")))
    sent = []
    workers = driver.Workers(10)
    answers = []
    for group in workers(sent.append(batch) or batch for batch in batches):
        answers.append(tuple(evaluation.job for evaluation in group))
        assert len(sent) <= len(answers) + 10
    assert sorted(answers, key=batches.index) == batches
    assert answers != batches
    assert workers.answered == 400


def test_simulated_answers_are_of_every_kind_and_follow_from_the_job():
    screens = [driver.answer(job) for job in jobs("screen")]
    assert screens == [driver.answer(job) for job in jobs("screen")]
    assert any(answer.negate for answer in screens)
    fields = [answer.fingerprint for answer in screens if answer.fingerprint]
    assert 0 < len(fields) - len(set(fields)) < len(fields) / 4
    assert {answer.status for answer in screens} == {Status.OK, Status.REJECTED}
    trained = [driver.answer(job) for job in jobs("train")]
    assert {answer.status for answer in trained} == {Status.OK, Status.DIVERGED}
    assert all((answer.score is not None) == (answer.status is Status.OK) for answer in trained)


def test_a_measurement_goes_through_a_whole_search():
    readings = driver.measure(evaluations=150, workers=20, population=8)
    for before, after in itertools.pairwise(readings):
        assert after.generation == before.generation + 1
        assert after.candidates > before.candidates
        assert after.seconds - before.seconds > after.canonical - before.canonical > 0
    assert readings[-1].evaluations >= 150 > readings[-2].evaluations
    shown = [driver.line(before, after) for before, after in driver.windows(readings, 150)]
    assert shown[-1][0] == f"{readings[-1].evaluations:,}"
    assert "times as long" in driver.growth(readings)


def test_growth_tells_canonical_forms_from_the_rest():
    seconds = [(0.0, 0.0), (1.0, 1.0), (3.0, 2.0), (7.0, 5.0)]  # after 0, 10, 20 and 30 candidates
    readings = [driver.Reading(n - 1, 20 * n, 10 * n, *pair, 100.0 + n, n) for n, pair in enumerate(seconds)]
    words = driver.growth(readings)
    assert words.startswith("a candidate takes 2.00 times as long")
    assert "its canonical form 3.00 times, all else 1.00 times; memory grows by 100.0 kB a candidate" in words
