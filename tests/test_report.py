import dataclasses
from contextlib import closing

import pandas as pd
import pytest
import stubs

from evoloss import report
from evoloss.archive import Archive
from evoloss.records import Generation

DESIGN = [
    *("rank", "name", "expression", "latex", "family", "complexity", "scale", "fitness", "fitness_sd", "n_seeds"),
    *("select_acc", "test_acc", "test_acc_sd", "test_n", "delta_ce", "delta_ce_low", "delta_ce_high", "p_holm"),
    *("verdict", "lr", "generation", "parents", "status", "seconds", "key"),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    stubs.search(directory / "archive.sqlite")
    with closing(Archive(directory / "archive.sqlite", stubs.config().data())) as archive:
        report.write_tables(directory, archive, top=5)
    return {name: pd.read_csv(directory / f"{name}.csv") for name in ("hall_of_fame", "baselines", "generations")}


def test_the_hall_of_fame_has_the_columns_of_the_design(tables):
    assert list(tables["hall_of_fame"].columns) == DESIGN
    assert list(tables["baselines"].columns) == DESIGN


def test_the_hall_of_fame_is_ranked_and_as_long_as_asked(tables):
    best = tables["hall_of_fame"]
    assert list(best["rank"]) == [1, 2, 3, 4, 5]
    assert best["fitness"].is_monotonic_decreasing
    assert set(best["status"]) == {"ok"}
    assert best["key"].is_unique
    assert (best["fitness"] == best["select_acc"]).all()
    assert best.loc[best["n_seeds"] > 1, "fitness_sd"].notna().all()


def test_what_only_a_playoff_knows_is_empty(tables):
    between = DESIGN[DESIGN.index("test_acc") : DESIGN.index("verdict") + 1]
    assert tables["hall_of_fame"][between].isna().all(axis=None)


def test_every_seed_has_a_row(tables):
    assert set(tables["baselines"]["name"]) == set(stubs.config().space.seeds)


def test_generations_have_the_columns_of_the_design(tables):
    assert list(tables["generations"].columns) == [item.name for item in dataclasses.fields(Generation)]
    assert list(tables["generations"]["generation"]) == [0, 1, 2, 3]


def test_a_table_is_replaced_whole(tmp_path):
    (tmp_path / "table.csv").write_text("old")
    report._write(tmp_path / "table.csv", ["a"], [{"a": 'x, "y"\nz'}])
    assert pd.read_csv(tmp_path / "table.csv")["a"].tolist() == ['x, "y"\nz']
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
