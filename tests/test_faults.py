"""What goes wrong with the files of a run: each fault is one clear line, and nothing is overwritten."""

import csv
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
import stubs

from benchmarks.attacks import ATTACKS, HUGE
from evoloss import comparison, formula, report, run
from evoloss.archive import Archive
from evoloss.backend import Backend
from evoloss.config import RunConfig, validated
from evoloss.errors import EvolossError
from evoloss.files import write_csv
from evoloss.search import Search


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A search of stubs, as files."""
    path = tmp_path_factory.mktemp("faults") / "run"
    run.create(path, stubs.config(version=version("evoloss"), generations=1, playoff=False))
    run.carry_on(path, lambda _: None, pool=stubs.steady_pool)
    run.carry_on(path, lambda _: None, Backend(workers=0))  # which notes the data
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
    """All files but the log, the lock, and what SQLite puts beside a database that it has open."""
    apart = (".txt", ".lock", "-shm", "-wal")
    return {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file() and not p.name.endswith(apart)}


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
    "a population of strangers": (sql('UPDATE generations SET population = \'[["k", ["ce"]]]\''), "is damaged"),
    "a population of no trees": (sql("UPDATE generations SET population = '{\"a\": 1}'"), "is damaged"),
    "a run.toml cut short": (cut("run.toml", 200), "run.toml"),
    "a run.toml that is empty": (written("run.toml", ""), "run.toml: version: Field required"),
    "a run.toml of another version": (replaced("run.toml", 'version = "', 'version = "9.'), "was made by evoloss 9."),
    "a run.toml with an unknown key": (replaced("run.toml", "seed = ", "sead = "), "did you mean `seed`?"),
    "a macro that is code": (
        replaced("run.toml", "macros]", 'macros]\nevil = "exit(a)"'),
        "`exit(a)`: unknown function `exit`",
    ),
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
    before = contents(damaged)
    result = run_cli("resume", damaged, "--workers", "0")
    assert is_one_line(result, message)
    assert result[2].removesuffix("\n").isprintable()
    assert contents(damaged) == before


def is_one_line(result, message):
    code, out, err = result
    assert (code, out) == (1, "")
    assert err.startswith("evoloss: ")
    assert message in err
    assert len(err.splitlines()) == 1
    return True


@pytest.fixture
def settings():
    """What a run.toml and a compare.toml say."""
    values = stubs.config(version=version("evoloss")).model_dump(mode="json", exclude_none=True)
    rung = values["space"]["rungs"]["mlp"][0]
    kept = {name: values[name] for name in ("version", "dataset", "proxy")}
    return values, kept | {"losses": {"ce": "cls(-y*log(p))"}, "rungs": {"adam": rung}, "seeds": 2}


STRANGERS = [*ATTACKS, *HUGE.values()]


@pytest.mark.parametrize("text", STRANGERS, ids=range(len(STRANGERS)))
def test_formulas_of_strangers_in_files(text, settings, tmp_path):
    """In a run.toml as a seed or a macro, in a compare.toml, in a hall of fame."""
    searched, compared = settings
    tries = [
        (RunConfig, searched | {"seed_expressions": [text]}),
        (RunConfig, searched | {"space": searched["space"] | {"macros": {"m": text}}}),
        (comparison.Comparison, compared | {"losses": {"ce": text}}),
    ]
    for model, values in tries:
        with pytest.raises(EvolossError) as caught:
            validated(model, values, "a.toml")
        assert str(caught.value).startswith("a.toml: ")
        assert "\n" not in str(caught.value)
    if "\ud800" not in text:  # no file can have it
        with (tmp_path / "hall_of_fame.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("rank", "name", "expression"), (1, "", text)])
        with pytest.raises(EvolossError, match=r"hall_of_fame\.csv"):
            comparison.found_losses(tmp_path, 5)


@pytest.mark.parametrize("name", ['=HYPERLINK("x")', "\x1b[2J", "\\input{/etc/passwd}", "Ce", "cls(p)"])
def test_a_comparison_has_no_names_of_strangers(name, settings):
    _, compared = settings
    validated(comparison.Comparison, compared, "compare.toml")
    with pytest.raises(EvolossError, match="should be a name of `evoloss baselines`, or the formula itself"):
        validated(comparison.Comparison, compared | {"losses": {name: "cls(-y*log(p))"}}, "compare.toml")
    with pytest.raises(EvolossError, match="should be the name of the optimizer"):
        validated(comparison.Comparison, compared | {"rungs": {name: compared["rungs"]["adam"]}}, "compare.toml")


TABLES = {
    "a table without its columns": (b"rank,name\n1,\n", "has no column `expression`"),
    "a row cut short": (b"rank,name,expression,key\n1,,cls(-y*log(p)),k\n2,,cls(", "is cut short: row 2 of 2"),
    "a table cut inside quotes": (b'rank,name,expression\n1,,"cls(max(p, y', "is no table"),
    "an empty table": (b"", "has no column `name`"),
    "a table of noise": (b"\xff\xfe\x00rank", "is no table"),
    "a table with null bytes": (b"rank,name,expression\n1,,cls(y*p)\x00\n", "is no table|none: only printable"),
    "a table with a huge cell": (b"rank,name,expression\n1,," + b"p" * 200_000, "is no table"),
    "a table of seeds alone": (b"rank,name,expression\n1,ce,cls(-y*log(p))\n", "has no evolved loss"),
}


@pytest.mark.parametrize("fault", TABLES)
def test_a_damaged_table_is_one_clear_line(fault, tmp_path):
    content, message = TABLES[fault]
    (tmp_path / "hall_of_fame.csv").write_bytes(content)
    with pytest.raises(EvolossError, match=message) as caught:
        comparison.found_losses(tmp_path, 5)
    assert str(tmp_path / "hall_of_fame.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("rank", "first"),
        ("scale", "large"),
        ("scale", "nan"),
        ("scale", ""),
        ("lr", "1e999"),
        ("expression", "exit(p)"),
    ],
)
def test_a_row_that_someone_edited_is_no_loss(column, text, damaged):
    table = damaged / "hall_of_fame.csv"
    rows = report.read_table(table)
    write_csv(table, tuple(rows[0]), [rows[0] | {column: text}])
    with pytest.raises(EvolossError, match=r"hall_of_fame\.csv"):
        formula.find(f"{damaged}#1")


def test_no_cell_is_computed_by_a_spreadsheet(tmp_path):
    texts = ["=1+1", "+1", "-cls(p*y)", "@SUM(1)", "\t=1", "\r=1", "cls(p)", ""]
    write_csv(tmp_path / "t.csv", ["text", "number"], [{"text": text, "number": -0.5} for text in texts])
    content = (tmp_path / "t.csv").read_bytes().decode()
    assert not any(line.lstrip('"').startswith(tuple("=+-@\t\r")) for line in content.split("\n"))
    rows = report.read_table(tmp_path / "t.csv")
    assert [row["text"] for row in rows] == [text.strip() for text in texts]
    assert {row["number"] for row in rows} == {"-0.5"}


def test_an_archive_that_is_only_read_is_not_changed_and_not_made(damaged, tmp_path):
    data = stubs.config().data()
    with pytest.raises(EvolossError, match="unable to open database file"):
        Archive(tmp_path / "none.sqlite", data, read_only=True)
    assert not (tmp_path / "none.sqlite").exists()
    (tmp_path / "empty.sqlite").write_bytes(b"")
    with pytest.raises(EvolossError, match="expected the archive of a run"):
        Archive(tmp_path / "empty.sqlite", data, read_only=True)
    before = contents(damaged)
    with closing(Archive(damaged / "archive.sqlite", data, read_only=True)) as archive:
        candidates = archive.candidates()
        assert "ce" in {candidate.name for candidate in candidates}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            archive.end_generation(archive.generations()[-1], candidates, [])
    assert contents(damaged) == before


def test_a_reader_sees_what_a_search_has_not_closed_yet(tmp_path):
    data = stubs.config().data()
    with closing(Archive(tmp_path / "archive.sqlite", data)) as writing:
        Search(stubs.config(generations=1), writing, stubs.stub_pool).run()
        with closing(Archive(tmp_path / "archive.sqlite", data, read_only=True)) as reading:
            assert reading.candidates() == writing.candidates()


@pytest.mark.parametrize(
    "act",
    [
        "CREATE TRIGGER t AFTER INSERT ON evaluations BEGIN DELETE FROM evaluations; END",
        "CREATE VIEW v AS SELECT * FROM candidates",
    ],
)
def test_an_archive_that_acts_is_no_archive(act, damaged):
    sql(act)(damaged)
    with pytest.raises(EvolossError, match="got another SQLite file"):
        Archive(damaged / "archive.sqlite", stubs.config().data())


@contextmanager
def full_disk(size):
    """No file of this process may grow beyond so many bytes: it is told so as it would be of a full disk."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("size", [0, 100, 5_000, 40_000])
def test_a_full_disk_is_one_clear_line_and_the_run_goes_on_when_there_is_room(size, finished_run, tmp_path):
    path = tmp_path / "run"
    run.create(path, stubs.config(version=version("evoloss"), generations=1, playoff=False))
    with full_disk(size), pytest.raises(EvolossError, match=r"cannot (go on with|write to|be opened)") as caught:
        run.carry_on(path, lambda _: None, pool=stubs.steady_pool)
    assert "\n" not in str(caught.value)
    assert not list(path.glob("*.tmp"))
    run.carry_on(path, lambda _: None, pool=stubs.steady_pool)
    whole, cut = (report.read_table(place / "hall_of_fame.csv") for place in (finished_run, path))
    assert [row["key"] for row in cut] == [row["key"] for row in whole]


@pytest.fixture
def as_nobody():
    """A folder that everybody may read, and the rights of a user who may not write to it."""
    place = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0

    @contextmanager
    def nobody():
        place.chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)
            place.chmod(0o755)

    yield place, nobody
    shutil.rmtree(place)


def test_a_folder_that_may_not_be_written_to(as_nobody, finished_run, run_cli, digits):
    """The data are loaded already: their library may lie where that user may not read."""
    place, nobody = as_nobody
    for file in finished_run.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    (place / "log.txt").unlink()
    before = contents(place)
    small = ("--space", "smoke", "--workers", "0")
    with nobody():
        resumed = run_cli("resume", place, "--workers", "0")
        made = run_cli("search", *small, "--generations", "1", "--out", place / "new")
        noted = run_cli("evaluate", *small, "--expr", "-y*log(p)", "--run", place)
        with closing(Archive(place / "archive.sqlite", stubs.config().data(), read_only=True)) as archive:
            assert archive.generations()
    assert is_one_line(resumed, "Permission denied")
    assert is_one_line(made, "cannot make the directory")
    assert is_one_line(noted, "cannot record the look at the test split")
    assert contents(place) == before
