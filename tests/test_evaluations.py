import sqlite3
from contextlib import closing

import pytest

from evoloss.archive import ARCHIVE
from evoloss.cache import CACHE
from evoloss.errors import EvolossError
from evoloss.evaluations import connect

KINDS = {"archive": ARCHIVE, "cache": CACHE}


def other_database(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


STRANGERS = {
    "text": lambda path: path.write_text("my notes, which are precious\n" * 100),
    "a short text": lambda path: path.write_text("precious"),
    "somebody's database": lambda path: other_database(path, "CREATE TABLE mine (a)"),
    "a database of another application": lambda path: other_database(path, "PRAGMA application_id = 7"),
    "another format": lambda path: other_database(path, "PRAGMA user_version = 99"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_file_that_is_something_else_is_refused_in_one_line_and_left_as_it_is(tmp_path, kind, stranger):
    path = tmp_path / "file"
    STRANGERS[stranger](path)
    before = path.read_bytes()
    with pytest.raises(EvolossError, match=KINDS[kind].name) as error:
        connect(path, KINDS[kind])
    assert len(str(error.value).splitlines()) == 1
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_one_kind_is_not_taken_for_the_other(tmp_path):
    for name, kind in KINDS.items():
        connect(tmp_path / name, kind).close()
        connect(tmp_path / name, kind).close()
    with pytest.raises(
        EvolossError, match=r"expected a cache of evoloss, format 1, in .*archive, got another SQLite file"
    ):
        connect(tmp_path / "archive", CACHE)
    with pytest.raises(EvolossError, match="got another SQLite file; use the evoloss that made it"):
        connect(tmp_path / "cache", ARCHIVE)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_becomes_one_and_a_place_that_is_not_there_is_an_error(tmp_path, kind):
    (tmp_path / "empty").touch()
    connect(tmp_path / "empty", KINDS[kind]).close()
    assert (tmp_path / "empty").stat().st_size > 0
    for path in (tmp_path / "nowhere" / "file", tmp_path):
        with pytest.raises(EvolossError, match="unable to open database file"):
            connect(path, KINDS[kind])
