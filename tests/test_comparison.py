from contextlib import contextmanager

import pandas as pd
import pytest
import stubs

from evoloss import comparison, data, workers
from evoloss.backend import Backend
from evoloss.baselines import BASELINES
from evoloss.config import load_space
from evoloss.contest import REFERENCE, TUNING_SEEDS
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import DataSpec, Evaluation, Status

SPACE = load_space("smoke")
SPEC = DataSpec("digits", seed=3)


def rungs(optimizers=("adam",), rates=None, **changes):
    return comparison.rungs_of(SPACE, "mlp", changes, list(optimizers), rates or {})


@pytest.fixture
def configured(digits):
    def make(losses, seeds=2, **changes):
        return comparison.configured(SPEC, digits, "mlp", losses, rungs(**changes), seeds, "cpu")

    return make


def test_all_losses_are_those_for_so_many_classes():
    assert set(comparison.named_losses("all", 2)) == set(BASELINES)
    ten = comparison.named_losses("all", 10)
    assert set(ten) == {name for name, row in BASELINES.items() if row.classes is None}
    assert all(Expression.parse(text).text == text for text in ten.values())


@pytest.mark.parametrize(
    ("names", "message"), [("ce,nlg", "did you mean `ngl`"), ("xtreme-margin", "is a loss for 2 classes")]
)
def test_a_loss_that_is_unknown_or_does_not_fit_is_named(names, message):
    with pytest.raises(EvolossError, match=message):
        comparison.named_losses(names, 10)


def test_each_formula_takes_part_once_and_cross_entropy_always(configured):
    squared = Expression.parse("(p - y)**2").text
    config = configured({"brier": squared, squared: squared})
    assert dict(config.losses) == {"ce": REFERENCE.text, "brier": squared}
    (contest,) = config.contests()
    assert [c.name for c in contest.contenders] == ["ce", "brier"]
    unnamed = configured({squared: squared})
    assert [c.name for c in unnamed.contests()[0].contenders] == ["ce", ""]


def test_the_sweep_comes_from_the_space_and_from_the_options():
    assert rungs()["adam"].rates == (3e-3, 6e-3)
    assert rungs()["adam"].samples == 512
    changed = rungs(samples=100, epochs=5, batch_size=None)["adam"]
    assert (changed.samples, changed.epochs, changed.batch_size) == (100, 5, 128)


def test_rates_belong_to_the_first_optimizer_and_are_moved_for_the_others():
    both = rungs(("adam", "sgd"), {"": [1e-3, 2e-3]})
    assert (both["adam"].rates, both["sgd"].rates) == ((1e-3, 2e-3), (0.03, 0.06))
    assert both["sgd"].optimizer == "sgd"
    alone = rungs(("sgd",), {"": [0.1]})
    assert alone["sgd"].rates == (0.1,)
    own = rungs(("adam", "sgd"), {"": [1e-3], "sgd": [0.5, 0.7]})
    assert (own["adam"].rates, own["sgd"].rates) == ((1e-3,), (0.5, 0.7))


@pytest.mark.parametrize(
    ("optimizers", "rates", "message"),
    [(("adamw",), {}, "optimizer"), (("adam",), {"sgd": [0.1]}, "--lr names `sgd`")],
)
def test_an_optimizer_that_is_unknown_or_not_asked_for_is_an_error(optimizers, rates, message):
    with pytest.raises(EvolossError, match=message):
        rungs(optimizers, rates)


def test_more_samples_than_there_are_is_an_error(digits):
    comparison.check_samples(None, digits)
    comparison.check_samples(1000, digits)
    with pytest.raises(EvolossError, match="between 10 and the"):
        comparison.check_samples(5000, digits)


def test_a_comparison_is_written_and_read(tmp_path, configured):
    config = configured(comparison.named_losses("ce,ngl,yukawa", 10), optimizers=("adam", "sgd"))
    comparison.create(tmp_path / "c", config)
    assert comparison.load(tmp_path / "c") == config
    with pytest.raises(EvolossError, match="exists: choose another --out"):
        comparison.create(tmp_path / "c", config)


@pytest.fixture
def stub_workers(monkeypatch):
    """Pools without training; a run of them ends with Ctrl-C after `stub_workers.limit` trainings."""

    class Pools:
        limit, trained, opened = None, 0, 0

        @contextmanager
        def open(self, datasets, *_):
            assert "test" in datasets[None].splits
            self.opened += 1
            yield self.run

        def run(self, batches):
            for batch in batches:
                if batch[0].task == "train":
                    if self.limit is not None and self.trained + len(batch) > self.limit:
                        raise KeyboardInterrupt
                    self.trained += len(batch)
                yield [self.answer(job) for job in batch]

        def answer(self, job):
            if job.task == "screen":
                return Evaluation(job, Status.OK, scale=1.0)
            score = 0.8 + 0.1 * stubs.number(job.key) + 0.01 * stubs.number(job.key, job.seed)
            return Evaluation(job, Status.OK, score=score, test_score=score if "test" in job.roles else None)

    pools = Pools()
    monkeypatch.setattr(workers, "open_pool", pools.open)
    return pools


def test_an_interrupted_comparison_ends_as_one_that_was_not(tmp_path, configured, stub_workers):
    config = configured(comparison.named_losses("ce,ngl,focal", 10), seeds=3, optimizers=("adam", "sgd"))
    due = sum(contest.trainings for contest in config.contests())
    for name, limits in (("whole", [None]), ("cut", [5, 17, due - 1, None])):
        comparison.create(tmp_path / name, config)
        stub_workers.trained = 0
        for limit in limits:
            stub_workers.limit = limit
            if limit is None:
                comparison.carry_on(tmp_path / name, lambda _: None)
            else:
                with pytest.raises(KeyboardInterrupt):
                    comparison.carry_on(tmp_path / name, lambda _: None)
        assert stub_workers.trained == due
    for table in ("comparison.csv", "scores.csv", "comparison.tex"):
        assert (tmp_path / "cut" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()
    rows = pd.read_csv(tmp_path / "whole" / "comparison.csv")
    assert list(rows.groupby("regime").size()) == [3, 3]


def test_a_finished_comparison_opens_no_workers_again(tmp_path, configured, stub_workers):
    comparison.create(tmp_path / "c", configured({"ngl": Expression.parse(BASELINES["ngl"].expression).text}))
    first = comparison.carry_on(tmp_path / "c", lambda _: None)
    assert comparison.carry_on(tmp_path / "c", lambda _: None) == first
    assert stub_workers.opened == 1


def test_found_losses_are_the_best_without_a_name(tmp_path):
    header = "rank,name,expression\n"
    (tmp_path / "hall_of_fame.csv").write_text(header + "1,ngl,cls(p)\n2,, -cls(d)\n3,,cls(z)\n4,,cls(y)\n")
    assert list(comparison.found_losses(tmp_path, 2)) == ["-cls(d)", "cls(z)"]
    (tmp_path / "hall_of_fame.csv").write_text(header + "1,ngl,cls(p)\n")
    with pytest.raises(EvolossError, match="no evolved loss"):
        comparison.found_losses(tmp_path, 2)


def test_an_evaluation_keeps_nothing(configured, digits):
    """On the real workers' code, in this process."""
    config = configured({"ngl": Expression.parse(BASELINES["ngl"].expression).text})
    ticks = []
    judged = comparison.once(config, digits, ticks.append, Backend(0))
    assert {j.standing.name for j in judged} == {"ce", "ngl"}
    assert all(len(j.standing.test) == 2 for j in judged)
    trained = [e.job for e in ticks if e.job.task == "train"]
    tuned = [job for job in trained if "test" not in job.roles]
    rates = {(job.key, job.budget.learning_rate) for job in tuned}
    swept = {(j.standing.key, rate) for j in judged for rate in config.rungs["adam"].rates}
    assert rates >= swept
    assert len(tuned) == TUNING_SEEDS * len(rates)
    assert len(trained) == config.contests()[0].trainings + TUNING_SEEDS * len(rates - swept)
    assert data.ROLES == ("train", "select", "test")
