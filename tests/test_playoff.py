import pytest
import stubs

from evoloss import evidence, playoff
from evoloss.config import load_space
from evoloss.contest import REFERENCE
from evoloss.expression import Expression
from evoloss.records import Candidate, Standing, Status


def candidate(text, fitness, name="", family="classification", rung=1):
    expression = Expression.parse(text)
    scores = {} if fitness is None else {0: fitness}
    return Candidate(
        expression.key, expression.text, expression.complexity, family, name, rung=rung, rates=(1e-3,), scores=scores
    )


CE = candidate("-y*log(p)", 0.80, "ce")
NGL = candidate("exp(2.4092 - p*(1+y)) - cos(cos(sin(p)))", 0.81, "ngl")
EVOLVED = [
    candidate("(p - y)**2", 0.84),
    candidate("y*(1 - p)", 0.83),
    candidate("y/p", 0.86, rung=0),
    candidate("abs(p - y)", 0.82),
    candidate("pair(Y*D)", 0.5, family="metric", rung=0),
    candidate("pair(Y*D**2)", 0.4, family="metric", rung=0),
    candidate("y*p", None),
]
ALL = [*EVOLVED, CE, NGL]


def test_finalists_are_the_best_and_the_best_of_each_family():
    chosen = [c.expression for c in playoff.finalists(ALL, 2)]
    assert chosen == [EVOLVED[0].expression, EVOLVED[1].expression, "pair(D*Y)"]
    assert len(playoff.finalists(ALL, 100)) == 6


@pytest.fixture
def regimes(monkeypatch):
    monkeypatch.setattr(playoff.data, "status", lambda _: [At("fashion-mnist", "here"), At("cifar10", "")])

    def made(**changes):
        config = stubs.config(space=load_space("hybrid"), **changes)
        return {c.regime: c for c in playoff.contests(config, ALL)}

    return made


class At:
    def __init__(self, name, where):
        self.name, self.where = name, where


def test_each_regime_changes_one_thing(regimes):
    made = regimes()
    assert list(made) == ["search", "optimizer", "proxy", "data"]
    home = made["search"]
    assert {c.name for c in home.contenders} == {"", "ce", "ngl"}
    assert made["optimizer"].rung.optimizer == "sgd"
    assert made["proxy"].proxy == "inception"
    assert made["data"].data.name == "fashion-mnist"
    for name, contest in made.items():
        changed = {
            "optimizer": contest.rung.optimizer != home.rung.optimizer,
            "proxy": contest.proxy != home.proxy,
            "data": contest.data != home.data,
        }
        assert [key for key, value in changed.items() if value] == ([name] if name != "search" else [])
        if name != "search":
            assert [c.name for c in contest.contenders][-1] == "ce"


def test_without_other_data_at_hand_that_regime_is_left_out(regimes):
    assert "data" not in regimes(dataset="fashion-mnist")


def test_cross_entropy_takes_part_even_where_the_search_lost_it(regimes):
    contests = playoff.contests(stubs.config(), EVOLVED)
    assert all(REFERENCE.key in {c.expression.key for c in contest.contenders} for contest in contests)


def test_the_sweep_of_a_space_has_all_rates_of_its_last_budget():
    rung = playoff.sweep_of(load_space("hybrid"), "inception")
    rates = (1.5e-3, 3e-3, 6e-3, 1.2e-2)
    assert (rung.samples, rung.epochs, rung.rates, rung.keep, rung.scored) == (5000, 3, rates, 1.0, None)
    first = playoff.sweep_of(load_space("hybrid"), "inception", 0)
    assert (first.samples, first.epochs, first.rates, first.scored) == (2500, 1, rates, None)


def judged(regime="search", **tests):
    names = {"ce": REFERENCE.key}
    rows = [
        Standing(regime, names.get(name, name), name, "" if name == "found" else name, select=test, test=test)
        for name, test in tests.items()
    ]
    return evidence.judge(rows, REFERENCE.key)


BASE = (0.80, 0.81, 0.79, 0.80, 0.805)
AHEAD = tuple(value + 0.02 + step for value, step in zip(BASE, (0, 0.001, 0, -0.001, 0), strict=True))
LEVEL = tuple(value + step for value, step in zip(BASE, (0.01, -0.01, 0.002, 0, -0.002), strict=True))


def test_a_gain_that_survives_some_regimes_is_told():
    home = judged(ce=BASE, found=AHEAD, ngl=tuple(value + 0.001 for value in LEVEL))
    regimes = {"search": home, "optimizer": judged(ce=BASE, found=AHEAD), "data": judged(ce=BASE, found=LEVEL)}
    lines = playoff.conclusion(regimes, 500)
    assert lines[0].startswith("luck: the best of 500 losses")
    assert "`found` is better than cross-entropy by +0.0200" in lines[1]
    assert "survives in 1 of 2 regimes" in lines[1]
    assert "other optimizer: better (+0.0200), other data: not distinguishable (+0.0000)" in lines[1]
    assert lines[2].startswith("beside ngl, the best of the seeds: `found` +0.0190")


def test_a_regime_in_which_cross_entropy_failed_counts_for_nothing():
    failed = Standing("optimizer", REFERENCE.key, "ce", "ce", Status.DIVERGED)
    found = Standing("optimizer", "found", "found", select=AHEAD, test=AHEAD)
    elsewhere = evidence.judge([failed, found], REFERENCE.key)
    lines = playoff.conclusion({"search": judged(ce=BASE, found=AHEAD), "optimizer": elsewhere}, 2)
    assert "survives in 0 of 0 regimes" in lines[-1]
    assert "other optimizer: the reference failed" in lines[-1]


def test_a_null_result_is_printed():
    lines = playoff.conclusion({"search": judged(ce=BASE, found=LEVEL)}, 500)
    assert lines[-1] == "verdict: no evolved loss is better than cross-entropy on fresh seeds"
    assert playoff.conclusion({"search": judged(ce=BASE)}, 1) == [lines[-1]]


def test_a_failed_finalist_is_not_called_better():
    rows = judged(ce=BASE)
    failed = evidence.Judgement(Standing("search", "x", "x", status=Status.DIVERGED), None, None, "failed: diverged")
    assert "no evolved loss" in playoff.conclusion({"search": [*rows, failed]}, 3)[-1]
