import math
from contextlib import contextmanager

import pandas as pd
import pytest
import stubs

from evoloss import comparison, simplify, workers
from evoloss.config import load_space, validated
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import DataSpec, Evaluation, Standing, Status
from evoloss.simplify import FINALISTS, Scouted, Simplification

LOSS = Expression.parse("cls(-y*log(p)*tanh(d)) + 0.1*cls(sin(z)*y)")
NEEDED = Expression.parse("cls(-y*log(p)*tanh(d))")


def configured(digits, loss=LOSS, margin=0.01, seeds=4):
    rungs = comparison.rungs_of(load_space("smoke"), "mlp", {}, ["adam"], {})
    base = comparison.configured(DataSpec("digits", seed=3), digits, "mlp", {loss.text: loss.text}, rungs, seeds, "cpu")
    values = {"expression": loss.text, "margin": margin, "scouts": 3, "base": base}
    return validated(Simplification, values, "test")


class Pools:
    """Training without training: `worth` of a formula, and noise that a seed gives to all; tells fields by the key."""

    def __init__(self, worth, limit=None):
        self.worth, self.limit, self.trained, self.roles, self.seeds = worth, limit, 0, [], {}

    @contextmanager
    def open(self, datasets, *_):
        self.roles.append(set(datasets[None].splits))
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
            fingerprint = tuple(round(stubs.number(job.key, place), 9) for place in range(4))
            return Evaluation(job, Status.OK, scale=1.0, fingerprint=fingerprint)
        self.seeds.setdefault(job.roles, set()).add(job.seed)
        score = self.worth(Expression(job.expression)) + 0.002 * stubs.number(job.seed)
        score += 0.0005 * stubs.number(job.key, job.seed)
        return Evaluation(job, Status.OK, score=score, test_score=score if "test" in job.roles else None)


def worth(formula):
    """What the loss needs is `log(p)` beside `y`, and `d`; the rest does nothing."""
    return 0.5 + 0.3 * ("log(p)" in formula.text) + 0.1 * ("tanh(d)" in formula.text)


@pytest.fixture
def simplified(tmp_path, digits, monkeypatch):
    def run(name="s", pools=None, **changes):
        pools = pools or Pools(worth)
        monkeypatch.setattr(workers, "open_pool", pools.open)
        if not (tmp_path / name).exists():
            simplify.create(tmp_path / name, configured(digits, **changes))
        said = []
        return simplify.carry_on(tmp_path / name, said.append), pools, said

    return run


def test_what_is_not_needed_goes_and_what_is_needed_stays(simplified, tmp_path):
    outcome, pools, said = simplified()
    smallest = outcome.smallest
    assert "log(p)" in smallest.standing.expression
    assert "tanh(d)" in smallest.standing.expression
    assert smallest.complexity <= NEEDED.complexity < LOSS.complexity
    assert smallest.gap.low > -0.01
    verdicts = [one.verdict for one in outcome.finalists]
    assert (verdicts[0], verdicts[-1]) == ("the loss", "cross-entropy")
    assert said[0].startswith("the loss: complexity")
    scouts = pd.read_csv(tmp_path / "s" / "scouts.csv")
    rows = pd.read_csv(tmp_path / "s" / "simplify.csv")
    assert len(scouts) == len(outcome.scouted)
    assert list(rows["verdict"]) == [one.verdict for one in outcome.finalists]
    assert (rows["test_n"] == 4).all()


def test_tables_without_their_archive_are_not_overwritten(simplified, tmp_path):
    simplified()
    (tmp_path / "s" / "archive.sqlite").unlink()
    scouts = (tmp_path / "s" / "scouts.csv").read_bytes()
    with pytest.raises(EvolossError, match=r"archive\.sqlite is gone, of which scouts\.csv was made"):
        simplified()
    assert (tmp_path / "s" / "scouts.csv").read_bytes() == scouts


def test_scouts_never_see_the_test_split_and_the_confirmation_has_seeds_of_its_own(simplified):
    _, pools, _ = simplified()
    assert pools.roles == [{"train", "select"}, {"train", "select", "test"}]
    assert pools.seeds[("select", "test")].isdisjoint(pools.seeds[("select",)])


def test_a_loss_that_needs_everything_stays(simplified):
    outcome, _, _ = simplified(pools=Pools(lambda formula: 0.9 if formula == LOSS else 0.5))
    assert outcome.finalists == []
    assert outcome.smallest is None
    assert any(one.detail == "far behind on the first seed" for one in outcome.scouted)


def test_a_loss_that_fails_is_an_error(simplified):
    class Failing(Pools):
        def answer(self, job):
            return Evaluation(job, Status.REJECTED, "flat: stub")

    with pytest.raises(EvolossError, match="cannot be simplified, it fails the screens: rejected: flat: stub"):
        simplified(pools=Failing(worth))


def test_an_interrupted_simplification_ends_as_one_that_was_not(simplified, tmp_path):
    whole, _, _ = simplified("whole")
    again, idle, _ = simplified("whole")
    assert (again, idle.trained, idle.roles) == (whole, 0, [])
    for limit in (4, 40, 60):
        with pytest.raises(KeyboardInterrupt):
            simplified("cut", Pools(worth, limit))
    assert simplified("cut")[0] == whole
    for table in ("scouts.csv", "simplify.csv"):
        assert (tmp_path / "cut" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()


def scouted(*pairs):
    """The loss, then formulas of a complexity and a gap: `p + p + ...`, which only its length matters of."""
    return [
        Scouted(
            Expression.parse(f"cls(y*({' + '.join(['sin(' * n + 'p' + ')' * n for n in range(1, size)])}))"), gap=gap
        )
        for size, gap in pairs
    ]


def test_finalists_are_on_the_front_of_size_and_score():
    loss, *others = scouted((9, 0.0), (8, 0.001), (7, 0.002), (6, -0.001), (5, -0.02), (4, -0.005), (3, -0.006))
    chosen = simplify.finalists([loss, *others], 0.01)
    assert chosen == [others[place].expression for place in (1, 2, 4, 5)]  # (8) is beaten by (7), (5) is too bad
    assert len(chosen) <= FINALISTS
    assert simplify.finalists([loss, others[3]], 0.01) == []


def test_more_than_four_are_thinned_out_and_the_smallest_stays():
    loss, *others = scouted((9, 0.0), *((size, -0.001 * (9 - size)) for size in range(8, 1, -1)))
    chosen = simplify.finalists([loss, *others], 0.01)
    assert [chosen[0], chosen[-1]] == [others[0].expression, others[-1].expression]
    assert len(chosen) == FINALISTS


def standing(formula, gap, spread=0.001, status=Status.OK):
    test = tuple(0.8 + gap + spread * (-1) ** seed for seed in range(6)) if status is Status.OK else ()
    return Standing("c", formula.key, formula.text, status=status, select=test, test=test)


BASE = Standing("c", LOSS.key, LOSS.text, test=(0.8, 0.81, 0.79, 0.8, 0.805, 0.795), select=(0.8,) * 6)
MANY = [Expression.parse(text) for text in ("cls(y*sin(p))", "cls(y*cos(p))", "cls(y*exp(p))")]


def shifted(formula, shift):
    return Standing("c", formula.key, formula.text, test=tuple(x + shift for x in BASE.test), select=BASE.select)


def verdicts(*others, finalists=MANY):
    judged = simplify.confirmed([BASE, *others], {e.key for e in finalists}, 0.002)
    return [one.verdict for one in judged]


def test_the_sequence_ends_with_the_first_that_is_not_tied():
    a, b, c = MANY
    ce = shifted(REFERENCE, -0.05)
    assert verdicts(shifted(a, 0), shifted(b, -0.001), shifted(c, 0.01), ce) == [
        *("the loss", "tied", "tied", "tied", "cross-entropy")
    ]
    assert verdicts(shifted(a, 0), shifted(b, -0.003), shifted(c, 0.01), ce) == [
        *("the loss", "tied", "not tied", "not tried", "cross-entropy")
    ]
    failed = Standing("c", b.key, b.text, status=Status.DIVERGED)
    assert verdicts(shifted(a, 0), failed, shifted(c, 0), ce)[2:4] == ["failed: diverged", "not tried"]


def test_a_mean_within_the_margin_is_no_tie_where_the_interval_is_wide():
    (a, *_) = MANY
    assert verdicts(standing(a, -0.0005, spread=0.02))[1] == "not tied"


def test_cross_entropy_as_a_finalist_is_judged():
    assert verdicts(shifted(REFERENCE, 0.0), finalists=[REFERENCE]) == ["the loss", "tied"]


def test_the_promise_holds_for_formulas_that_are_worse_by_the_margin():
    """2,000 confirmations of four formulas that all are worse by just the margin: 2.5 % may call one tied, no more."""
    import numpy as np

    rng = np.random.default_rng(0)
    formulas = [Expression.parse(f"cls(y*{name}(p))") for name in ("sin", "cos", "exp", "tanh")]
    keys, wrong, count = {e.key for e in formulas}, 0, 2000
    for _ in range(count):
        noise = rng.normal(0, 0.003, (5, 8))
        tests = [tuple(0.8 - (0.002 if place else 0.0) + row) for place, row in enumerate(noise)]
        everyone = [
            Standing("c", e.key, e.text, test=test, select=test)
            for e, test in zip([LOSS, *formulas], tests, strict=True)
        ]
        judged = simplify.confirmed(everyone, keys, 0.002)
        wrong += any(one.verdict == "tied" for one in judged)
    assert wrong / count < 0.025 + 3 * math.sqrt(0.025 * 0.975 / count)
    assert wrong > 0
