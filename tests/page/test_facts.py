import json
import shutil
from contextlib import closing

import pytest
import stubs

from evoloss import report
from evoloss.archive import Archive
from evoloss.errors import EvolossError
from evoloss.page import facts


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return stubs.run_directory(tmp_path_factory.mktemp("facts") / "run")


def without_archive(played, tmp_path):
    return shutil.copytree(played, tmp_path / "run", ignore=shutil.ignore_patterns("*.sqlite*"))


def test_the_archive_is_read_and_left_as_it_is(played):
    before = {path.name: path.read_bytes() for path in played.iterdir()}
    found = facts.read(played)
    assert {path.name: path.read_bytes() for path in played.iterdir()} == before
    assert found.complete
    assert not found.without
    assert found.searched == sum(candidate.fitness is not None for candidate in found.candidates) > 0
    assert {cost.task for cost in found.costs} == {"screen", "train"}


def test_an_archive_that_is_written_to_is_read(played, tmp_path):
    shutil.copytree(played, tmp_path / "run")
    with closing(Archive(tmp_path / "run" / "archive.sqlite", stubs.config().data())):
        assert len(facts.read(tmp_path / "run").generations) == 4


def test_tables_tell_what_the_archive_tells(played, tmp_path):
    whole, tables = facts.read(played), facts.read(without_archive(played, tmp_path))
    assert tables.without == "the run directory has no archive"
    assert (tables.candidates, tables.judged, tables.costs) == ([], {}, [])
    assert tables.winner["key"] == whole.winner["key"]
    assert [row["key"] for row in tables.front] == [row["key"] for row in whole.front]
    for row, same in zip(tables.hall + tables.baselines, whole.hall + whole.baselines, strict=True):
        assert row == {
            name: "" if value is None and name in report.TEXTS else value for name, value in same.items()
        } | {name: same[name] or "" for name in same if name.endswith("_verdict")}
    assert [row.best_expression for row in tables.generations] == [row.best_expression for row in whole.generations]


def test_the_winner_is_the_evolved_loss_with_the_best_fresh_seeds(played):
    found = facts.read(played)
    evolved = [j for j in found.home() if not j.standing.name and j.standing.test]
    assert found.winner["key"] == evolved[0].standing.key
    assert [row["test_acc"] for row in found.finalists] == sorted(
        (r["test_acc"] for r in found.finalists), reverse=True
    )


def test_without_a_playoff_the_winner_leads_the_hall_of_fame(tmp_path):
    found = facts.read(stubs.run_directory(tmp_path / "run", play=False))
    assert found.finalists == []
    assert found.winner == next(row for row in found.hall if not row["name"])


def test_an_archive_of_another_version_leaves_the_tables(played, tmp_path):
    run = without_archive(played, tmp_path)
    (run / "archive.sqlite").write_bytes(b"no archive at all, but longer than a header of SQLite")
    assert "cannot be opened" in facts.read(run).without
    (run / "hall_of_fame.csv").unlink()
    with pytest.raises(EvolossError, match="cannot be opened"):
        facts.read(run)


def test_a_column_of_a_later_version_is_missing_and_a_broken_number_is_told(played, tmp_path):
    run = without_archive(played, tmp_path)
    lines = [line.rsplit(",", 12)[0] for line in (run / "baselines.csv").read_text().splitlines()]
    (run / "baselines.csv").write_text("\n".join(lines))
    (run / "pareto.csv").unlink()
    (run / "environment.json").write_text("{")
    found = facts.read(run)
    assert found.front == []
    assert found.environment == {}
    assert found.named("ce")["data_delta_ce"] is None
    table = (run / "generations.csv").read_text()
    (run / "generations.csv").write_text(table.replace("\n0,", "\nzero,"))
    with pytest.raises(EvolossError, match="expected a number under `generation`, got `zero`"):
        facts.read(run)
    (run / "generations.csv").write_text(table.replace("\n0,", "\nnan,"))
    with pytest.raises(EvolossError, match="expected a number under `generation`, got `nan`"):
        facts.read(run)


@pytest.mark.parametrize(
    ("file", "hint"), [(None, "it has no run.toml"), ("control.toml", "a control has runs inside")]
)
def test_what_is_no_run_directory(tmp_path, file, hint):
    if file:
        (tmp_path / file).write_text("")
    with pytest.raises(EvolossError, match=hint):
        facts.read(tmp_path)


def test_the_environment_is_read(played):
    assert facts.read(played).environment == json.loads((played / "environment.json").read_text())
