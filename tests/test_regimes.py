import dataclasses

import pytest
import stubs
from hypothesis import given
from hypothesis import strategies as st

from evoloss.config import Rung, load_space
from evoloss.errors import EvolossError
from evoloss.records import DataSpec
from evoloss.regimes import OPTIMIZERS, Regime, regimes_of, with_optimizer

HYBRID = load_space("hybrid")


def regimes(*words, **changes):
    return regimes_of(stubs.config(space=HYBRID, regimes=words, **changes))


def regime(*rungs):
    made = [Rung(samples=samples, epochs=epochs, rates=rates) for samples, epochs, rates in rungs]
    return Regime("r", "mlp", tuple(made))


def rates(budgets):
    return [budget.learning_rate for budget in budgets]


def test_without_names_the_regime_is_the_run_s_own():
    (own,) = regimes()
    assert (own.name, own.proxy, own.data, own.rungs) == ("digits", "mlp", None, HYBRID.rungs["mlp"])


@pytest.mark.parametrize(
    ("word", "changed"),
    [
        ("adam", set()),
        ("mlp", set()),
        ("digits", set()),
        ("sgd", {"rungs"}),
        ("inception", {"proxy", "rungs"}),
        ("fashion-mnist", {"data"}),
        ("folder:/images", {"data"}),
    ],
)
def test_a_name_changes_one_thing(word, changed):
    (own,), (named,) = regimes(), regimes(word)
    assert named.name == word
    names = {field.name for field in dataclasses.fields(Regime)} - {"name"}
    assert {name for name in names if getattr(named, name) != getattr(own, name)} == changed


def test_what_a_name_changes_it_to():
    sgd, inception, other = regimes("sgd", "inception", "fashion-mnist")
    assert {rung.optimizer for rung in sgd.rungs} == {"sgd"}
    assert [rung.rates for rung in sgd.rungs] == [(0.09,), (0.09,), (0.045,)]
    assert [rung.keep for rung in sgd.rungs] == [1.0, 0.34, 0.5]
    assert (inception.proxy, inception.rungs) == ("inception", HYBRID.rungs["inception"])
    assert other.data == DataSpec("fashion-mnist")


def test_under_sgd_no_rate_lies_above_the_first_rung_s():
    (sgd,) = regimes_of(stubs.config(space=load_space("memorize"), regimes=("sgd",)))
    assert [rung.rates for rung in sgd.rungs] == [(0.09,), (0.09,), (0.045, 0.09), (0.0225, 0.045)]


def test_other_data_are_shaped_as_the_run_s():
    (other,) = regimes("fashion-mnist", samples=300, label_noise=0.2, data_dir="/data", seed=4)
    assert other.data == DataSpec("fashion-mnist", "/data", 300, 0.2, seed=4)


def test_the_run_s_data_by_name_are_those_that_workers_know_as_none():
    assert [r.data for r in regimes("folder:/images", "digits", dataset="folder:/images")] == [None, DataSpec("digits")]


@pytest.mark.parametrize("words", [("adam", "adam"), ("adam", "mlp"), ("sgd", "digits", "adam"), ("digits", "mlp")])
def test_a_regime_does_not_count_twice(words):
    with pytest.raises(EvolossError, match=f"the regimes `.*` and `{words[-1]}` are one and the same"):
        regimes(*words)


@pytest.mark.parametrize(
    ("word", "message"),
    [("adm", "did you mean `adam`"), ("fasion-mnist", "`fashion-mnist`"), ("", "unknown regime ``")],
)
def test_an_unknown_regime_is_one_clear_line(word, message):
    with pytest.raises(EvolossError, match=message):
        regimes("sgd", word)


def test_a_proxy_without_rungs_is_refused():
    with pytest.raises(EvolossError, match="rungs for mlp, inception, not for the proxy `cnn`"):
        regimes(proxy="cnn")


def test_rungs_of_one_length_are_one_sweep():
    inception = Regime("inception", "inception", HYBRID.rungs["inception"])
    assert [rates(inception.budgets(index)) for index in range(3)] == [[3e-3], [3e-3], [3e-3, 6e-3]]
    assert {(b.samples, b.epochs, b.pooled) for b in inception.budgets(2)} == {(5000, 2, 2)}
    assert inception.longest() == inception.budgets(2)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([(10, 1, [1]), (20, 1, [2])], [[1], [2]]),
        ([(10, 1, [2]), (10, 1, [1, 3])], [[2], [1, 2, 3]]),
        ([(10, 1, [2]), (10, 1, [2, 3])], [[2], [2, 3]]),
        ([(10, 1, [1]), (20, 1, [2]), (10, 1, [3])], [[1], [2], [1, 3]]),
        ([(10, 1, [1]), (10, 2, [2])], [[1], [2]]),
    ],
)
def test_the_rates_of_a_rung(lengths, expected):
    made = regime(*lengths)
    assert [rates(made.budgets(index)) for index in range(len(lengths))] == expected


def test_rungs_of_one_sweep_are_trained_as_the_highest_asks():
    """Whatever else differs: scores on 100 and on all images are not of one sweep."""
    low = Rung(samples=10, epochs=1, rates=[1], scored=100)
    made = Regime("r", "mlp", (low, Rung(samples=10, epochs=1, rates=[1, 2])))
    assert [(budget.learning_rate, budget.scored) for budget in made.budgets(1)] == [(1, None), (2, None)]


def test_above_its_last_rung_a_regime_repeats_it():
    made = regime((10, 1, [1]), (20, 1, [2]))
    assert made.rung(5) is made.rungs[1]
    assert made.budgets(5) == made.budgets(1)


def test_what_was_reached_is_all_that_was_trained():
    made = regime((10, 1, [1]), (20, 1, [2]), (20, 1, [3]))
    assert made.reached(-1) == set()
    assert {(b.samples, b.learning_rate) for b in made.reached(1)} == {(10, 1), (20, 2)}
    assert {(b.samples, b.learning_rate) for b in made.reached(7)} == {(10, 1), (20, 2), (20, 3)}


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=4, unique=True).map(
        lambda rates: tuple(float(f"{rate:.3g}") for rate in rates)
    ),
    st.sampled_from(OPTIMIZERS),
)
def test_an_optimizer_there_and_back_is_the_same_sweep(sweep, optimizer):
    rung = Rung(samples=10, epochs=1, rates=sweep)
    there = with_optimizer(rung, optimizer)
    assert there.optimizer == optimizer
    assert with_optimizer(there, "adam").rates == pytest.approx(sweep, rel=1e-3)
