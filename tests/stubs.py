"""A pool without training: scores follow from the formula and the seed, so that a search is exact and takes seconds."""

import hashlib
from contextlib import closing, nullcontext

from evoloss import playoff, report, run
from evoloss.archive import Archive
from evoloss.config import RunConfig, load_space
from evoloss.contest import REFERENCE, hold
from evoloss.records import Evaluation, Status
from evoloss.search import Search


def number(*parts):
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def stub_evaluation(job):
    """One formula in ten is rejected, one learns negated, one in ten diverges; the fingerprint tells formulas apart."""
    fate = number(job.task, job.key)
    if job.task == "screen":
        if fate < 0.1:
            return Evaluation(job, Status.REJECTED, "flat: stub")
        if fate < 0.2:
            return Evaluation(job, Status.OK, negate=True)
        fingerprint = tuple(round(number(job.key, place), 9) for place in range(4))
        return Evaluation(job, Status.OK, scale=1.0, fingerprint=fingerprint)
    if fate < 0.1:
        return Evaluation(job, Status.DIVERGED, "stub")
    quality = 0.8 + 0.1 * number(job.key) + 0.01 * number(job.key, job.seed, job.budget.learning_rate)
    test_score = quality if "test" in job.roles else None
    return Evaluation(job, Status.OK, score=quality, test_score=test_score, seconds=0.001)


def pooled(answers):
    """The pool of a function from the jobs of a batch to their evaluations."""
    return lambda batches: (list(answers(batch)) for batch in batches)


def steady_evaluation(job):
    """The stub's, but cross-entropy does not fail."""
    if job.key != REFERENCE.key:
        return stub_evaluation(job)
    if job.task == "screen":
        return Evaluation(job, Status.OK, scale=1.0, fingerprint=(0.0, 0.0, 0.0, 0.0))
    score = 0.85 + 0.01 * number(job.seed)
    return Evaluation(job, Status.OK, score=score, test_score=score if "test" in job.roles else None, seconds=0.001)


stub_pool = pooled(lambda jobs: map(stub_evaluation, jobs))
steady_pool = pooled(lambda jobs: map(steady_evaluation, jobs))


class Dying:
    """A stub pool, ending with `error` before the batch with which it would have given more than `count` answers."""

    def __init__(self, count, error, answer=stub_evaluation):
        self.count, self.error, self.answer, self.answered = count, error, answer, 0

    def __call__(self, batches):
        for batch in batches:
            if self.answered + len(batch) > self.count:
                raise self.error
            self.answered += len(batch)
            yield [self.answer(job) for job in batch]


def config(**changes):
    values = {
        "version": "0",
        "dataset": "digits",
        "proxy": "mlp",
        "space_name": "smoke",
        "generations": 3,
        "population": 8,
        "space": load_space("smoke"),
    }
    return RunConfig.model_validate(values | changes)


def search(path, run_config=None, pool=stub_pool):
    """A finished search on stubs: (candidates, generations, population)."""
    run_config = run_config or config()
    with closing(Archive(path, run_config.data())) as archive:
        Search(run_config, archive, pool).run()
        return archive.candidates(), archive.generations(), archive.population()


def run_directory(path, play=True, **changes):
    """A finished run on stubs as `evoloss search` leaves it, but for the page; with its playoff if `play`."""
    run_config = config(**changes)
    run.create(path, run_config)
    search(path / "archive.sqlite", run_config, steady_pool)
    with closing(Archive(path / "archive.sqlite", run_config.data())) as archive:
        if play:
            contests = playoff.contests(run_config, archive.candidates())
            hold(contests, path / "archive.sqlite", lambda _: nullcontext(steady_pool))
        report.write_tables(path, archive, run_config)
        report.write_pareto_front(path, archive, run_config)
    return path
