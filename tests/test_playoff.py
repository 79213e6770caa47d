from dataclasses import replace

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
    chosen = [c.expression for c in playoff.finalists(ALL, 2, 0.99)]
    assert chosen == [EVOLVED[0].expression, EVOLVED[1].expression, "pair(D*Y)"]
    assert len(playoff.finalists(ALL, 100, 0.99)) == 6


def test_no_two_finalists_share_a_niche():
    fields = [(1.0, 0.0), (1.0, 0.01), (0.0, 1.0), (0.5, 0.5), (1.0, 0.02), (-1.0, 0.0), ()]
    scores = [(0.84, 0.86), (0.83, 0.85), (0.86,), (0.81, 0.83), (0.5,), (0.4,), ()]
    alike = [
        replace(c, fingerprint=field, scores=dict(enumerate(seeds)))
        for c, field, seeds in zip(EVOLVED, fields, scores, strict=True)
    ]
    first, second, _, third, metric, *_ = alike
    noisy = [replace(first, scores={0: 0.85, 1: 0.83}), replace(second, scores={0: 0.81, 1: 0.85})]
    assert playoff.finalists(alike, 2, 0.99) == [first, second, metric]  # twins, but for their scores
    assert playoff.finalists([*noisy, *alike[2:]], 2, 0.99) == [noisy[0], third, metric]
    assert playoff.finalists([*noisy, *alike[2:]], 2, 1.01) == [*noisy, metric]
    named = replace(noisy[0], name="ce")
    assert playoff.finalists([named, *noisy[1:], *alike[2:]], 1, 0.99) == [third, metric]


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


def test_a_search_may_meet_in_longer_trainings_than_its_own(regimes):
    space = load_space("hybrid")
    assert regimes()["search"].rung == space.playoff.rungs["mlp"]
    assert regimes()["optimizer"].rung.samples == space.playoff.rungs["mlp"].samples
    assert regimes(proxy="inception")["search"].rung == space.playoff.rungs["inception"]
    several = regimes(regimes=("adam", "sgd"))
    assert several["sgd"].rung.optimizer == "sgd"
    assert several["sgd"].rung.extent == several["adam"].rung.extent == space.playoff.rungs["mlp"].extent


def test_a_search_on_pooled_images_is_tried_at_full_size(regimes):
    made = regimes(dataset="cifar10", proxy="inception")
    home, away = made["search"], made["data"]
    assert home.rung.pooled > 1
    assert away == replace(home, regime="data", contenders=away.contenders, rung=away.rung)
    assert away.rung == home.rung.model_copy(update={"pooled": 1})


def test_without_other_data_at_hand_that_regime_is_left_out(regimes):
    assert "data" not in regimes(dataset="fashion-mnist")


@pytest.mark.parametrize(
    ("named", "homes", "unseen"),
    [
        (("adam", "sgd"), ["adam", "sgd"], ["proxy", "data"]),
        (("mlp", "inception"), ["mlp", "inception"], ["optimizer", "data"]),
        (("digits", "fashion-mnist"), ["digits", "fashion-mnist"], ["optimizer", "proxy", "data"]),
        (("adam", "sgd", "inception"), ["adam", "sgd", "inception"], ["data"]),
        (("adam",), ["search"], ["optimizer", "proxy", "data"]),
    ],
)
def test_what_the_fitness_contained_is_not_unseen(regimes, monkeypatch, named, homes, unseen):
    places = [At("fashion-mnist", "here"), At("cifar10", ""), At("mnist", "here")]
    monkeypatch.setattr(playoff.data, "status", lambda _: places)
    made = regimes(regimes=named)
    assert list(made) == [*homes, *unseen]
    seen = [made[name] for name in homes]
    assert len({contest.contenders for contest in seen}) == 1
    if "data" in unseen:
        assert made["data"].data.name == ("mnist" if "fashion-mnist" in named else "fashion-mnist")
    assert len({(c.data, c.proxy, c.rung.optimizer) for c in made.values()}) == len(made)


def test_a_search_in_one_named_regime_is_at_home_there(regimes):
    made = regimes(regimes=("sgd",))
    assert list(made) == ["search", "optimizer", "proxy", "data"]
    assert (made["search"].rung.optimizer, made["search"].rung.rates) == ("sgd", (0.045, 0.09, 0.18, 0.36))
    assert (made["optimizer"].rung.optimizer, made["optimizer"].rung.rates) == ("adam", (1.5e-3, 3e-3, 6e-3, 1.2e-2))
    assert {c.rung.optimizer for name, c in made.items() if name != "optimizer"} == {"sgd"}


def test_other_data_of_a_regime_are_those_of_its_contest(regimes):
    made = regimes(regimes=("digits", "fashion-mnist"), label_noise=0.2, seed=3)
    assert made["fashion-mnist"].data == replace(made["digits"].data, name="fashion-mnist")
    assert (made["digits"].data.label_noise, made["digits"].data.seed) == (0.2, 3)


def test_cross_entropy_takes_part_even_where_the_search_lost_it(regimes):
    contests = playoff.contests(stubs.config(), EVOLVED)
    assert all(REFERENCE.key in {c.expression.key for c in contest.contenders} for contest in contests)


def test_another_network_trains_as_its_first_rung_at_all_rates(regimes):
    rates = (1.5e-3, 3e-3, 6e-3, 1.2e-2)
    for home, length in (("mlp", (4000, 1, 2)), ("inception", (5000, 1, 1))):
        rung = regimes(proxy=home)["proxy"].rung
        assert (rung.length, rung.rates, rung.keep, rung.scored) == (length, rates, 1.0, None)


def test_the_inception_of_a_space_meets_at_the_length_of_its_last_rung():
    rung = playoff.full_rung(load_space("hybrid"), "inception")
    assert (rung.length, rung.rates) == ((5000, 2, 2), (1.5e-3, 3e-3, 6e-3, 1.2e-2))
    assert (rung.keep, rung.scored) == (1.0, None)


def test_without_a_training_of_its_own_a_playoff_has_all_rates_of_the_last_budget():
    rung = playoff.full_rung(load_space("memorize"), "mlp")
    assert (rung.samples, rung.epochs, rung.rates) == (5000, 30, (1.5e-3, 3e-3, 6e-3, 1.2e-2))
    assert (rung.keep, rung.scored) == (1.0, None)


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


def standings(regime, **tests):
    return [j.standing for j in judged(regime, **tests)]


def test_of_several_regimes_the_mean_is_judged():
    by_regime = {"adam": {"ce": BASE, "found": AHEAD}, "sgd": {"ce": BASE, "found": LEVEL}}
    together = playoff.overall(s for name, tests in by_regime.items() for s in standings(name, **tests))
    assert {s.regime for s in together} == {"search"}
    mean = tuple((a + b) / 2 for a, b in zip(AHEAD, LEVEL, strict=True))
    assert {s.key: s.test for s in together}["found"] == pytest.approx(mean)
    told = {name: judged(name, **tests) for name, tests in by_regime.items()}
    told |= {"search": evidence.judge(together, REFERENCE.key), "data": judged("data", ce=BASE, found=AHEAD)}
    assert playoff.together(told) == ["adam", "sgd"]
    (line,) = playoff.conclusion(told, 1)
    assert "`found` is better than cross-entropy by +0.0100 [" in line
    assert "] in the mean (adam: better (+0.0200), sgd: not distinguishable (+0.0000)); the gain" in line
    assert line.endswith("survives in 1 of 1 regimes that the search did not see (other data: better (+0.0200))")


def test_a_regime_in_which_cross_entropy_failed_is_not_part_of_the_mean():
    failed = Standing("sgd", REFERENCE.key, "ce", "ce", Status.DIVERGED)
    found = Standing("sgd", "found", "found", select=LEVEL, test=LEVEL)
    adam = standings("adam", ce=BASE, found=AHEAD)
    assert {s.key: s.test for s in playoff.overall([*adam, failed, found])}["found"] == AHEAD
    told = {"adam": evidence.judge(adam, REFERENCE.key), "sgd": evidence.judge([failed, found], REFERENCE.key)}
    assert playoff.together(told) == ["adam"]
    (line,) = playoff.conclusion(told | {"search": told["adam"]}, 1)
    assert "in the mean (adam: better (+0.0200), sgd: the reference failed); not tried in other regimes" in line
    alone = playoff.overall([failed, found])
    assert [s.status for s in alone] == [Status.DIVERGED, Status.OK]


def test_a_null_result_is_printed():
    lines = playoff.conclusion({"search": judged(ce=BASE, found=LEVEL)}, 500)
    assert lines[-1] == "verdict: no evolved loss is better than cross-entropy on fresh seeds"
    assert playoff.conclusion({"search": judged(ce=BASE)}, 1) == [lines[-1]]


def test_a_failed_finalist_is_not_called_better():
    rows = judged(ce=BASE)
    failed = evidence.Judgement(Standing("search", "x", "x", status=Status.DIVERGED), None, None, "failed: diverged")
    assert "no evolved loss" in playoff.conclusion({"search": [*rows, failed]}, 3)[-1]
