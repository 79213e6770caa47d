from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import stubs

from evoloss import comparison, data, stress, workers
from evoloss.baselines import BASELINES
from evoloss.config import load_space
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.evidence import difference, holm
from evoloss.expression import Expression
from evoloss.records import DataSpec, Evaluation, Standing, Status
from evoloss.stress import CONDITIONS

SPACE = load_space("smoke")
SPEC = DataSpec("digits", seed=3)
SQUARED = Expression.parse("(p - y)**2").text
RUNG = comparison.rungs_of(SPACE, "mlp", {}, ["adam"], {})["adam"]


def configured(digits, conditions=tuple(CONDITIONS), rung=RUNG, seeds=3):
    losses = {SQUARED: SQUARED} | comparison.named_losses(stress.BESIDE, 10)
    return stress.configured(SPEC, digits, "mlp", losses, rung, conditions, seeds, "cpu")


def test_every_condition_is_a_contest_of_all_losses_on_the_same_seeds(digits):
    config = configured(digits)
    contests = config.contests()
    assert [c.regime for c in contests] == list(CONDITIONS)
    assert {c.contenders for c in contests} == {contests[0].contenders}
    assert [c.name for c in contests[0].contenders] == ["ce", "", "focal", "gce", "ngl"]
    assert len({(c.seeds, c.seed, c.series) for c in contests}) == 1
    assert {c.rung.rates for c in contests} == {RUNG.rates}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_spoils_the_train_role_and_no_other(digits, name):
    condition = CONDITIONS[name]
    plain = data.load(SPEC, data.ROLES)
    spoiled = data.load(configured(digits).data(name), data.ROLES)
    for role in ("select", "test"):
        assert spoiled.splits[role].digest == plain.splits[role].digest
    labels, before = spoiled.splits["train"].labels, plain.splits["train"].labels
    counts = np.bincount(labels, minlength=10)
    if condition.label_noise:
        assert (labels != before).mean() == pytest.approx(condition.label_noise, abs=1e-3)
    elif condition.imbalance > 1:
        assert (counts.argmax(), counts.argmin()) == (0, 9)
        assert len(labels) < len(before) / 3
    else:
        assert spoiled.splits["train"].digest == plain.splits["train"].digest


@pytest.mark.parametrize("samples", [512, 1000, 100_000])
def test_a_tenth_is_of_the_samples_that_there_are_in_as_many_steps(digits, samples):
    rung = RUNG.model_copy(update={"samples": samples, "epochs": 3})
    few = configured(digits, rung=rung).rungs["tenth"]
    there = min(samples, len(digits.splits["train"].labels))
    assert few.samples == round(there / 10)
    steps = [r.epochs * -(-r.samples // r.batch_size) for r in (rung, few)]
    assert 0 <= steps[1] - steps[0] < -(-few.samples // few.batch_size)


def test_conditions_are_chosen_by_name():
    assert stress.chosen("all") == list(CONDITIONS)
    assert stress.chosen("noise-40, plain") == ["noise-40", "plain"]
    with pytest.raises(EvolossError, match="did you mean `noise-40`"):
        stress.chosen("plain,noise40")


def standing(name, test, calibration=(), text=SQUARED):
    return Standing("", Expression(text).key, text, name, select=test, test=test, calibration=calibration)


CE = standing("ce", (0.5, 0.6, 0.55, 0.58), (0.1, 0.2, 0.15, 0.12), REFERENCE.text)
OTHER = standing("", (0.6, 0.69, 0.66, 0.7), (0.05, 0.1, 0.1, 0.06))


def test_p_values_are_corrected_over_all_conditions():
    groups = {"one": [CE, OTHER], "two": [CE, standing("", (0.51, 0.6, 0.56, 0.57))]}
    stressed = stress.judged(groups)
    gaps = [difference(group[1].test, CE.test) for group in groups.values()]
    expected = holm([gap.p for gap in gaps])
    found = [next(s for s in group if s.judgement.gap) for group in stressed.values()]
    assert [s.judgement.p_holm for s in found] == expected
    assert expected[0] == 2 * gaps[0].p
    assert [s.judgement.verdict for s in found] == ["better", "not distinguishable"]


def test_calibration_is_paired_with_that_of_cross_entropy():
    (other,) = [s for s in stress.judged({"one": [CE, OTHER]})["one"] if s.standing.key != CE.key]
    assert other.calibration == difference(OTHER.calibration, CE.calibration)
    blind = stress.judged({"one": [CE, standing("", OTHER.test)]})["one"]
    assert [s.calibration for s in blind] == [None, None]


def test_the_conclusion_counts():
    words = stress.conclusion(stress.judged({"one": [CE, OTHER], "two": [CE, OTHER]}), OTHER.key)
    assert words.startswith(
        f"`{SQUARED}`, of 2 conditions: better than cross-entropy under 2 (one +0.1050, two +0.1050)"
    )
    assert "worse than cross-entropy under 0; a smaller calibration error under 2, a larger one under 0" in words


class Pools:
    """A pool without training, which knows the data that it was opened on; Ctrl-C after `limit` trainings."""

    limit, trained = None, 0

    def __init__(self):
        self.opened = []

    @contextmanager
    def open(self, datasets, *_):
        assert "test" in datasets[None].splits
        self.opened.append(datasets[None].splits["train"].digest)
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
        test = (score, stubs.number(job.seed)) if "test" in job.roles else (None, None)
        return Evaluation(job, Status.OK, score=score, test_score=test[0], test_ece=test[1])


def test_an_interrupted_stress_test_ends_as_one_that_was_not(tmp_path, digits, monkeypatch):
    config = configured(digits)
    due = sum(contest.trainings for contest in config.contests())
    for name, limits in (("whole", [None]), ("cut", [17, due - 1, None])):
        pools = Pools()
        monkeypatch.setattr(workers, "open_pool", pools.open)
        stress.create(tmp_path / name, config)
        for pools.limit in limits:
            if pools.limit is None:
                stressed = stress.carry_on(tmp_path / name, lambda _: None)
            else:
                with pytest.raises(KeyboardInterrupt):
                    stress.carry_on(tmp_path / name, lambda _: None)
        assert pools.trained == due
        assert len(set(pools.opened)) == 4  # plain and tenth are the same data, and meet on one pool
    for table in ("stress.csv", "scores.csv"):
        assert (tmp_path / "cut" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()
    rows, scores = (pd.read_csv(tmp_path / "whole" / name) for name in ("stress.csv", "scores.csv"))
    assert list(rows["condition"].unique()) == list(stressed) == list(CONDITIONS)
    assert len(rows) == 5 * len(CONDITIONS)
    assert len(scores) == 3 * len(rows)
    assert scores["test_ece"].mean() == pytest.approx(rows["ece"].mean(), abs=1e-5)
    assert (tmp_path / "whole" / "stress.png").stat().st_size > 10_000
    assert BASELINES.keys() >= set(rows["name"].dropna())


def test_tables_without_their_archive_are_not_overwritten(tmp_path, digits):
    stress.create(tmp_path / "s", configured(digits))
    (tmp_path / "s" / "stress.csv").write_text("precious")
    with pytest.raises(EvolossError, match=r"archive\.sqlite is gone, of which stress\.csv was made"):
        stress.carry_on(tmp_path / "s", lambda _: None)
    assert (tmp_path / "s" / "stress.csv").read_text() == "precious"
