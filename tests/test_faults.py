"""What goes wrong with the files of a run: each fault is one clear line, and nothing is overwritten."""

import json
import os
import resource
import sqlite3
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import stubs

from evoloss import comparison, run
from evoloss.config import Rung

RUN_FILES = ("hall_of_fame.csv", "baselines.csv", "generations.csv", "pareto.csv", "run.toml", "environment.json")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A search of stubs, as files."""
    path = tmp_path_factory.mktemp("faults") / "run"
    run.create(path, stubs.config(version=version("evoloss"), generations=1, playoff=False))
    run.carry_on(path, lambda _: None, pool=stubs.steady_pool)
    return path


@pytest.fixture
def damaged(finished_run, tmp_path):
    """A copy to be damaged."""
    copy = tmp_path / "run"
    copy.mkdir()
    for file in finished_run.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name not in ("log.txt", ".lock")}


def sql(*statements):
    def damage(path):
        with closing(sqlite3.connect(path / "archive.sqlite")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    return damage


def candidate(**values):
    """Every candidate with these columns, as an editor of SQLite would write them."""
    indexes = ("DROP INDEX exempt", "DROP INDEX by_score")  # they would refuse what is no JSON
    return sql(*indexes, *(f"UPDATE candidates SET \"{name}\" = '{value}'" for name, value in values.items()))


def written(name, text):
    return lambda path: (path / name).write_text(text)


def cut(name, size):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:size])


def replaced(name, old, new):
    def damage(path):
        text = (path / name).read_text()
        assert old in text
        (path / name).write_text(text.replace(old, new, 1))

    return damage


def overwritten_page(path):
    content = bytearray((path / "archive.sqlite").read_bytes())
    content[4096 : len(content) - 4096] = b"\xa5" * (len(content) - 8192)
    (path / "archive.sqlite").write_bytes(content)


# What was done to a finished run, and what `evoloss resume` then says.
RESUMED = {
    "an archive cut in half": (cut("archive.sqlite", 20_000), "malformed"),
    "an archive of noise": (overwritten_page, "malformed"),
    "an archive that is no archive": (written("archive.sqlite", "precious" * 999), "file is not a database"),
    "another program's database": (
        lambda path: [(path / "archive.sqlite").unlink(), sql("CREATE TABLE mine (a)")(path)],
        "got another SQLite file",
    ),
    "an archive of a later format": (sql("PRAGMA user_version = 99"), "format 99"),
    "an archive without a table": (sql("DROP TABLE candidates"), "no such table"),
    "an archive without its rows": (sql("DELETE FROM candidates"), "is damaged"),
    "an archive that is gone": (lambda path: (path / "archive.sqlite").unlink(), "archive.sqlite is gone"),
    "an empty archive": (cut("archive.sqlite", 0), "archive.sqlite is gone"),
    "an archive that is a folder": (
        lambda path: [(path / "archive.sqlite").unlink(), (path / "archive.sqlite").mkdir()],
        "unable to open",
    ),
    "a status that is none": (candidate(status="fine"), "'fine' is not a valid Status"),
    "scores cut short": (candidate(scores='{"0": 0.5'), "is damaged"),
    "scores of another type": (candidate(scores="[1]"), "is damaged"),
    "a score that is text": (candidate(scores='{"0": "best"}'), "is damaged"),
    "a score that is not a number": (candidate(scores='{"0": NaN}'), "is damaged"),
    "a score without end": (candidate(scores='{"0": 1e999}'), "is damaged"),
    "a scale that is text": (candidate(scale="large"), "is damaged"),
    "a fingerprint that is text": (candidate(fingerprint='["a"]'), "is damaged"),
    "a fingerprint of another length": (
        sql("UPDATE candidates SET fingerprint = '[1.0]' WHERE name = 'ce'"),
        "fingerprints have different lengths",
    ),
    "a rung that is text": (candidate(rung="high"), "is damaged"),
    "a name with a command for the terminal": (candidate(name="\x1b[2J"), "is damaged"),
    "a formula that is code": (candidate(expression="__import__(''os'').system(''true'')"), "is damaged"),
    "a formula of another key": (candidate(expression="cls(y*p)"), "is damaged"),
    "a formula of a blob": (sql("UPDATE candidates SET expression = x'00ff'"), "is damaged"),
    "a generation that is no row": (sql("UPDATE generations SET row = '{}'"), "is damaged"),
    "a generation that is no text": (sql("UPDATE generations SET row = x'00'"), "is damaged"),
    "a population of strangers": (sql("UPDATE generations SET population = '[[\"k\", [\"ce\"]]]'"), "is damaged"),
    "a population of no trees": (sql("UPDATE generations SET population = '{\"a\": 1}'"), "is damaged"),
    "a run.toml cut short": (cut("run.toml", 200), "run.toml"),
    "a run.toml that is empty": (written("run.toml", ""), "run.toml: version: Field required"),
    "a run.toml of another version": (replaced("run.toml", 'version = "', 'version = "9.'), "was made by evoloss 9."),
    "a run.toml with an unknown key": (replaced("run.toml", "seed = ", "sead = "), "did you mean `seed`?"),
    "a macro that is code": (replaced("run.toml", "macros]", 'macros]\nevil = "exit(a)"'), "`exit(a)`: unknown function `exit`"),
    "a macro that is endless": (replaced("run.toml", "macros]", 'macros]\nevil = "a*"'), "`a*`: not a formula"),
    "a seed that is code": (
        replaced("run.toml", "seed_expressions = []", 'seed_expressions = ["exit(p)"]'),
        "`exit(p)`: unknown function `exit`",
    ),
    "tables that are folders": (
        lambda path: [(path / "hall_of_fame.csv").unlink(), (path / "hall_of_fame.csv").mkdir()],
        "cannot go on with",
    ),
}


@pytest.mark.parametrize("fault", RESUMED)
def test_a_damaged_run_is_one_clear_line(fault, damaged, run_cli):
    damage, message = RESUMED[fault]
    damage(damaged)
    before = contents_of_files(damaged)
    code, out, err = run_cli("resume", damaged, "--workers", "0")
    assert (code, out) == (1, "")
    assert message in err
    assert err.startswith("evoloss: ")
    assert len(err.splitlines()) == 1
    assert err.removesuffix("\n").isprintable()
    assert contents_of_files(damaged) == before


def contents_of_files(directory):
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.is_file() and path.name not in ("log.txt", ".lock") and not path.name.endswith(("-shm", "-wal"))
    }
