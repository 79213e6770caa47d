import dataclasses
from contextlib import closing, nullcontext

import pandas as pd
import pytest
import stubs

from evoloss import files, playoff, report
from evoloss.archive import Archive
from evoloss.contest import REFERENCE, hold
from evoloss.errors import EvolossError
from evoloss.evidence import judge
from evoloss.expression import Expression
from evoloss.records import Generation, Standing, Status

DESIGN = [
    *("rank", "name", "expression", "latex", "family", "complexity", "scale", "fitness", "fitness_sd", "n_seeds"),
    *("select_acc", "test_acc", "test_acc_sd", "test_n", "delta_ce", "delta_ce_low", "delta_ce_high", "p_holm"),
    *("verdict", "lr", "generation", "parents", "status", "seconds", "key"),
]
AFTER = [
    f"{regime}_{column}"
    for regime in ("optimizer", "proxy", "data")
    for column in ("delta_ce", "delta_ce_low", "delta_ce_high", "verdict")
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    stubs.search(directory / "archive.sqlite")
    with closing(Archive(directory / "archive.sqlite", stubs.config().data())) as archive:
        report.write_tables(directory, archive, stubs.config(top=5))
        report.write_pareto_front(directory, archive, stubs.config(top=5))
    names = ("hall_of_fame", "pareto", "baselines", "generations")
    return {name: pd.read_csv(directory / f"{name}.csv") for name in names}


def test_the_hall_of_fame_has_the_columns_of_the_design(tables):
    assert list(tables["hall_of_fame"].columns) == [*DESIGN, *AFTER, "token"]
    assert list(tables["baselines"].columns) == [*DESIGN, *AFTER, "token"]


def test_the_hall_of_fame_is_ranked_and_as_long_as_asked(tables):
    best = tables["hall_of_fame"]
    assert list(best["rank"]) == [1, 2, 3, 4, 5]
    assert best["fitness"].is_monotonic_decreasing
    assert set(best["status"]) == {"ok"}
    assert best["key"].is_unique
    assert (best["fitness"] == best["select_acc"]).all()
    assert best.loc[best["n_seeds"] > 1, "fitness_sd"].notna().all()


def test_the_pareto_front_goes_from_small_to_good(tables):
    best, front = tables["hall_of_fame"], tables["pareto"]
    assert list(front.columns) == [*DESIGN, *AFTER, "token"]
    assert front["complexity"].is_monotonic_increasing
    assert front["rank"].is_monotonic_decreasing
    assert len(front) > 1
    assert front.iloc[-1].equals(best.iloc[0])


def test_the_tables_are_those_of_all_candidates(tmp_path, monkeypatch):
    stubs.search(tmp_path / "archive.sqlite")
    with closing(Archive(tmp_path / "archive.sqlite", stubs.config().data())) as archive:
        for top in (1, 5, 1000):
            config = stubs.config(top=top)
            report.write_tables(tmp_path, archive, config)
            tables = [path.read_text() for path in sorted(tmp_path.glob("*.csv"))]
            with monkeypatch.context() as patch:
                patch.setattr(Archive, "leaders", lambda archive, count: archive.candidates())
                report.write_tables(tmp_path, archive, config)
            assert [path.read_text() for path in sorted(tmp_path.glob("*.csv"))] == tables


def test_what_only_a_playoff_knows_is_empty(tables):
    between = DESIGN[DESIGN.index("test_acc") : DESIGN.index("verdict") + 1]
    assert tables["hall_of_fame"][between + AFTER].isna().all(axis=None)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A run's tables after a playoff on stubs, and its best candidates."""
    directory = tmp_path_factory.mktemp("played")
    stubs.search(directory / "archive.sqlite")
    config = stubs.config()
    with closing(Archive(directory / "archive.sqlite", config.data())) as archive:
        contests = playoff.contests(config, archive.candidates())
        hold(contests, directory / "archive.sqlite", lambda _: nullcontext(stubs.steady_pool))
        report.write_tables(directory, archive, stubs.config(top=2))
        judged = report.judgements(archive)
    return {name: pd.read_csv(directory / f"{name}.csv") for name in ("hall_of_fame", "baselines")}, judged


def test_a_playoff_fills_its_columns(played):
    tables, judged = played
    best, baselines = tables["hall_of_fame"], tables["baselines"]
    together = pd.concat([best, baselines]).drop_duplicates("key")
    by_key = {j.standing.key: j for j in judged["search"]}
    for row in together[together["verdict"].notna()].itertuples():
        judgement = by_key[row.key]
        assert row.verdict == judgement.verdict
        if judgement.standing.test:
            assert row.test_n == len(judgement.standing.test) == 2
            assert row.test_acc == pytest.approx(sum(judgement.standing.test) / 2, rel=1e-5)
    assert (baselines.loc[baselines["name"] == "ce", "verdict"] == "reference").all()
    assert best["optimizer_verdict"].notna().any()
    assert best["data_verdict"].isna().all()


def test_finalists_stand_in_the_hall_of_fame_even_below_its_last_row(played):
    tables, judged = played
    best = tables["hall_of_fame"]
    assert {j.standing.key for j in judged["search"] if not j.standing.name} <= set(best["key"])
    assert best["rank"].is_monotonic_increasing
    assert list(best["rank"])[:2] == [1, 2]


def test_every_seed_has_a_row(tables):
    assert set(tables["baselines"]["name"]) == set(stubs.config().space.seeds)


def test_generations_have_the_columns_of_the_design(tables):
    assert list(tables["generations"].columns) == [item.name for item in dataclasses.fields(Generation)]
    assert list(tables["generations"]["generation"]) == [0, 1, 2, 3]


def test_a_table_is_replaced_whole(tmp_path):
    (tmp_path / "table.csv").write_text("old")
    files.write_csv(tmp_path / "table.csv", ["a"], [{"a": 'x, "y"\nz'}])
    assert pd.read_csv(tmp_path / "table.csv")["a"].tolist() == ['x, "y"\nz']
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def standings(regime):
    ce = Standing(
        regime, REFERENCE.key, REFERENCE.text, "ce", scale=1.0, rate=1e-3, select=(0.8, 0.81), test=(0.8, 0.81)
    )
    found = Expression.parse("(p - y)**2")
    other = Standing(regime, found.key, found.text, "", Status.OK, "", 0.25, 2e-3, True, (0.9, 0.92), (0.85, 0.87))
    dead = Standing(regime, "k", "cls(y/p)", "dead", Status.DIVERGED, "at every rate: loss nan")
    return [ce, other, dead]


def test_a_comparison_is_written_as_csv_scores_and_latex(tmp_path):
    judged = {regime: judge(standings(regime), REFERENCE.key) for regime in ("adam", "sgd")}
    report.write_comparison(tmp_path, judged)
    rows = pd.read_csv(tmp_path / "comparison.csv")
    assert list(rows["regime"]) == ["adam"] * 3 + ["sgd"] * 3
    assert list(rows["rank"]) == [1, 2, 3] * 2
    first = rows.iloc[0]
    assert (first["lr"], first["lr_at_edge"], first["scale"], first["test_n"]) == (2e-3, True, 0.25, 2)
    assert first["delta_ce"] == pytest.approx(0.055)
    assert rows.iloc[2]["detail"] == "at every rate: loss nan"
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert len(scores) == 8
    assert scores.groupby(["regime", "loss"])["test_acc"].mean()["adam", "ce"] == pytest.approx(0.805)
    latex = (tmp_path / "comparison.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"ce & $80.50 \pm 0.71$ & 2 & -- & -- & 0.001 & reference \\" in latex
    assert "dead & -- & 0 & -- & -- & -- & failed: diverged" in latex


def test_numbers_keep_six_significant_digits():
    assert report._cells({"scale": 4.31234567e-5, "name": "x", "n": 3}) == {"scale": 4.31235e-5, "name": "x", "n": 3}


def test_a_missing_table_is_one_line(tmp_path):
    with pytest.raises(EvolossError, match="cannot read"):
        report.read_table(tmp_path / "hall_of_fame.csv")
