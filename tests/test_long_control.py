"""What the benchmark of long trainings makes of a control, without its trainings."""

import sys

import pandas as pd
import pytest
import stubs

from benchmarks import long_control
from evoloss import comparison, control, evidence
from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.records import Standing, Status

CE, NGL, BRIER = (Expression.parse(text).text for text in ("-y*log(p)", "exp(2.4 - p*(1 + y))", "(p - y)**2"))


@pytest.fixture
def finished(tmp_path):
    """A control of three repeats: evolution found NGL, NGL and Brier, random search Brier each time."""
    path = tmp_path / "control"
    control.create(path, control.Control(repeats=3, run=stubs.config()))
    rows = [
        {"seed": n, "evolve_expression": text, "random_expression": BRIER} for n, text in enumerate([NGL, NGL, BRIER])
    ]
    write_csv(path / "control.csv", rows[0], rows)
    return path


def run(monkeypatch, path, *options):
    monkeypatch.setattr(sys, "argv", ["long_control", str(path), *options])
    long_control.main()


def test_winners_meet_once_each_and_are_paired_by_repeat(finished, monkeypatch, capsys):
    seen = []

    def carry_on(path, tick):
        seen.append(comparison.load(path))
        scores = {CE: (0.80, 0.82), NGL: (0.90, 0.92), BRIER: (0.85, 0.87)}
        rows = [Standing("adam", Expression(t).key, t, select=s, test=s) for t, s in scores.items()]
        return {"adam": evidence.judge(rows, Expression(CE).key)}

    monkeypatch.setattr(comparison, "carry_on", carry_on)
    run(monkeypatch, finished, "--samples", "100", "--epochs", "2", "--seeds", "2")
    (config,) = seen
    assert set(config.losses.values()) == {CE, NGL, BRIER}
    assert (config.rungs["adam"].samples, config.rungs["adam"].epochs, config.seeds) == (100, 2, 2)
    table = pd.read_csv(finished / "long.csv")
    assert list(table["evolve_test"]) == pytest.approx([0.91, 0.91, 0.86])
    assert list(table["random_test"]) == pytest.approx([0.86] * 3)
    assert list(table["ce_test"]) == pytest.approx([0.81] * 3)
    assert "paired over 3 repeats: +0.0333 [-0.0384, +0.1050]" in capsys.readouterr().out  # (.05, .05, 0): t of 2


def test_a_winner_that_fails_counts_as_nothing():
    failed = Standing("adam", "k", NGL, status=Status.DIVERGED)
    fine = Standing("adam", "l", CE, select=(0.8,), test=(0.7,))
    assert long_control.accuracies(evidence.judge([fine, failed], "l")) == {CE: 0.7, NGL: 0.0}


def test_a_real_one_on_digits(finished, monkeypatch, capsys):
    run(monkeypatch, finished, "--samples", "64", "--epochs", "1", "--seeds", "2")
    again = capsys.readouterr().out
    run(monkeypatch, finished)
    assert capsys.readouterr().out == again
