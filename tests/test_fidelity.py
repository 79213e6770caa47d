"""What the benchmarks of fidelity compute, without their trainings."""

import math

import numpy as np
import pytest
import stubs

from benchmarks import fidelity, fidelity_report
from benchmarks.fidelity import FAILED, STUDIES, Cost, Reading, Trained
from evoloss.baselines import BASELINES, family
from evoloss.config import Rung, load_space
from evoloss.duplicates import Fingerprints
from evoloss.expression import Expression
from evoloss.records import Evaluation, Status, derive_seed
from evoloss.regimes import regimes_of, with_optimizer
from evoloss.screen import screen

SWEEP = Rung(samples=100, epochs=1, rates=(0.001, 0.002, 0.004))
NAN = math.nan


def results(*tables):
    """Of the sweep: accuracies [seeds][losses] for each rate."""
    budgets = SWEEP.budgets()
    return {b: Trained(np.array(t), np.full((len(t), len(t[0])), 2.0)) for b, t in zip(budgets, tables, strict=True)}


def test_a_loss_counts_with_the_best_rate_that_finished_on_every_seed():
    swept = results([[0.5, NAN, NAN], [0.7, 0.1, NAN]], [[0.9, 0.3, NAN], [0.1, 0.4, NAN]], [[NAN] * 3, [0.9] * 3])
    assert fidelity.best(SWEEP, swept, [0, 1]) == pytest.approx([0.6, 0.35, FAILED])
    assert fidelity.best(SWEEP, swept, [0]) == pytest.approx([0.9, 0.3, FAILED])
    assert fidelity.best(SWEEP, swept, [1]) == pytest.approx([0.9, 0.9, 0.9])


def test_a_reading_is_repeated_on_as_many_groups_of_seeds_as_there_are():
    swept = results(*[[[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]] * 3)
    assert np.concatenate(Reading(SWEEP, 1).scores(swept)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert np.concatenate(Reading(SWEEP, 2).scores(swept)) == pytest.approx([0.2, 0.3])
    assert np.concatenate(Reading(SWEEP, 3).scores(swept)) == pytest.approx([0.3, 0.4])
    assert Reading(SWEEP, 2).title == "100 x 1 at 0.001, 0.002, 0.004; 2 seeds"


def test_a_reading_costs_its_trainings_and_their_steps():
    rung = SWEEP.model_copy(update={"samples": 300, "epochs": 2})  # 3 batches of at most 128
    assert Cost(training=1.0, step=0.1).of(Reading(rung, 2)) == pytest.approx(2 * 3 * (1 + 0.6))


def test_a_step_on_whole_images_is_clocked_apart_from_one_on_pooled_ones(monkeypatch):
    """Simulated: a training takes 2 s, and a step 0.3 s on whole images, 0.1 s on pooled ones."""
    study = STUDIES["cifar10"]
    monkeypatch.setattr(fidelity, "_seconds", lambda _, b, __: 2 + (0.1 if b.pooled > 1 else 0.3) * fidelity.steps(b))
    costs = fidelity.clocked(study, "adam", {})
    assert {place: (cost.training, cost.step) for place, cost in costs.items()} == {
        ("adam", 2): pytest.approx((2, 0.1)),
        ("adam", 1): pytest.approx((2, 0.3)),
    }


def test_the_top_of_the_long_training_is_looked_for_in_the_best_third():
    target = np.arange(30.0)
    assert fidelity.kept(target, target) == fidelity.TOP
    assert fidelity.kept(-target, target) == 0
    # The last five places hold 17 to 21 after this, and the best third is 20 to 29.
    assert fidelity.kept(np.roll(target, 8), target) == 2


def test_a_table_of_scores_stands_for_a_lost_archive(tmp_path):
    losses = [
        fidelity.Entry("ce", Expression.parse("-y*log(p)"), 1.0),
        fidelity.Entry("found", Expression.parse("-cls(p**cos(y))"), 2.0),  # its text begins with a space in a table
    ]
    plan = fidelity.plan_of(STUDIES["fashion-mnist"], "sgd", 2, 1)
    trainings = {rung: fidelity.trained("mlp", losses, rung, seeds, _trained) for rung, seeds in plan}
    results = {budget: table for tables in trainings.values() for budget, table in tables.items()}
    fidelity_report.write_scores(tmp_path, losses, {"sgd": results})
    found = {e.job: e for e in fidelity.recalled(tmp_path / "scores.csv", "mlp", losses, plan)}
    assert found == _trained(found)
    assert fidelity.known_optimizers(tmp_path / "scores.csv") == ["sgd"]
    assert fidelity.known_optimizers(tmp_path / "none.csv") == []
    assert len(found) == 2 * sum(len(seeds) * len(rung.budgets()) for rung, seeds in plan)


def _trained(jobs):
    """Simulated; every third training fails."""
    fates = {job: derive_seed(job.key, job.seed, job.budget) % 9999 for job in jobs}
    return {
        job: Evaluation(job, Status.OK, score=fate / 9999, seconds=0.5)
        if fate % 3
        else Evaluation(job, Status.DIVERGED, seconds=0.5)
        for job, fate in fates.items()
    }


def test_a_perfect_reading_agrees_perfectly():
    target = np.random.default_rng(0).permutation(30) / 30
    *estimates, kept = fidelity.agreement([target**3, 2 * target], target)
    assert [(e.value, e.low, e.high) for e in estimates] == [pytest.approx((1, 1, 1))] * 3
    assert kept == fidelity.TOP


@pytest.mark.parametrize("name", STUDIES)
def test_the_long_training_is_fifteen_times_the_last_rung_and_the_rungs_grow(name):
    study = STUDIES[name]
    examples = [rung.samples * rung.epochs for rung in study.rungs]
    assert study.long.samples * study.long.epochs >= 15 * examples[-1]
    assert examples == sorted(examples)
    for optimizer in ("adam", "sgd"):
        readings = fidelity.readings(study, optimizer, 3)
        sweeps = sum(len(rung.rates) > 1 for rung in study.rungs)
        assert len(readings) == len(set(readings)) == 2 * (len(study.rungs) + 3 * sweeps)
        trained = {budget for rung in study.rungs for budget in with_optimizer(rung, optimizer).budgets()}
        assert {budget for reading in readings for budget in reading.rung.budgets()} == trained


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", STUDIES)
def test_every_rung_of_a_search_has_a_reading(name, optimizer):
    study = STUDIES[name]
    known = {(reading.rung.length, reading.rung.rates) for reading in fidelity.readings(study, optimizer, 3)}
    config = stubs.config(dataset=name, proxy=study.proxy, space=load_space("hybrid"), regimes=(optimizer,))
    (regime,) = regimes_of(config)
    for index, rung in enumerate(regime.rungs):
        assert (rung.length, tuple(budget.learning_rate for budget in regime.budgets(index))) in known


def test_the_evolved_losses_are_forty_that_pass_the_screens_and_no_copies():
    losses = fidelity.evolved()
    assert len(losses) == 40
    known = Fingerprints()
    everyone = losses | {name: Expression.parse(row.expression) for name, row in BASELINES.items()}
    for name, expression in everyone.items():
        assert Expression.parse(expression.text) == expression
        (verdict,) = screen([expression], 10)
        if name in losses or not BASELINES[name].classes:
            assert not verdict.problem
            assert not verdict.negate
            assert known.find(verdict.fingerprint) is None, name
            known.add(name, verdict.fingerprint)
    assert len({family(expression.variables) for expression in losses.values()}) == 7
