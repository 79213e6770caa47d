"""Finished evaluations in SQLite, by loss, protocol and seed: a table of a run's archive, and of a shared cache."""

import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evoloss.errors import EvolossError
from evoloss.records import Evaluation, Job, Status

PATIENCE = 60.0  # seconds to wait for another process that writes; it takes milliseconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (
    key TEXT, protocol TEXT, seed INTEGER, task TEXT, learning_rate REAL, status TEXT, detail TEXT, score REAL,
    test_score REAL, scale REAL, negate INTEGER, fingerprint TEXT, seconds REAL, PRIMARY KEY (key, protocol, seed)
);
"""

_FIND = (
    "SELECT status, detail, score, test_score, scale, negate, fingerprint, seconds FROM evaluations "
    "WHERE key = ? AND protocol = ? AND seed = ?"
)
_ADD = f"INSERT OR IGNORE INTO evaluations VALUES ({', '.join('?' * 13)})"


@dataclass(frozen=True)
class Kind:
    """What an SQLite file is for, told by its `application_id` and `user_version`; `schema` is that of a new one.

    `mend` is what to do about a file that is something else.
    """

    name: str
    application: int
    version: int
    schema: str
    mend: str


def connect(path: Path, kind: Kind, read_only: bool = False) -> sqlite3.Connection:
    """Open the file, or make it where there is none; every statement commits by itself, unless a transaction is begun.

    `read_only` makes nothing, changes nothing, and needs no right to. Raises `EvolossError` where the file is something
    else, and leaves it as it is.
    """
    try:
        place: str | Path = _read_only(path) if read_only else path
        connection = sqlite3.connect(place, PATIENCE, isolation_level=None, uri=read_only)
        try:
            _prepare(connection, path, kind, read_only)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise EvolossError(f"{path} cannot be opened as {kind.name}: {error}") from None
    return connection


def _read_only(path: Path) -> str:
    """The URI to open a file with that is only read.

    SQLite would have to make two files beside it, for other processes that may write to it, even to read it. Where it
    may not make them nobody writes.
    """
    shared = path.with_name(f"{path.name}-wal").exists() or os.access(path.parent, os.W_OK, effective_ids=True)
    return f"{path.resolve().as_uri()}?mode=ro{'' if shared else '&immutable=1'}"


def _prepare(connection: sqlite3.Connection, path: Path, kind: Kind, read_only: bool) -> None:
    def first(statement: str) -> Any:
        return connection.execute(statement).fetchone()[0]

    connection.execute("BEGIN")  # all of this from one moment: another process may be making the file
    application, version = first("PRAGMA application_id"), first("PRAGMA user_version")
    tables = first("SELECT COUNT(*) FROM sqlite_master")
    strange = first("SELECT COUNT(*) FROM sqlite_master WHERE type IN ('trigger', 'view')")  # they act on what is read
    connection.execute("COMMIT")
    if application == version == tables == 0 and not read_only:
        marks = f"PRAGMA application_id = {kind.application}; PRAGMA user_version = {kind.version};"
        connection.executescript(f"BEGIN IMMEDIATE; {kind.schema} {marks} COMMIT;")
    elif (application, version) != (kind.application, kind.version) or strange:
        same = application == kind.application and (version or not tables) and not strange
        found = f"format {version}" if same else "another SQLite file"
        raise EvolossError(f"expected {kind.name}, format {kind.version}, in {path}, got {found}; {kind.mend}")
    if not read_only:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")


@contextmanager
def as_written(path: Path) -> Iterator[None]:
    """Raise `EvolossError` where a value that is read inside is not as evoloss writes it."""
    try:
        yield
    except EvolossError:
        raise
    except (sqlite3.Error, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
        raise EvolossError(f"{path} is damaged ({problem}): restore it from a copy, or begin anew") from None


def finite(value: Any) -> Any:
    """A number, or None. Raises `ValueError` for anything else: SQLite keeps whatever it is given, and so does JSON."""
    if value is None or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    raise ValueError(f"expected a number, got {value!r}")


def find(connection: sqlite3.Connection, job: Job, protocol: str) -> Evaluation | None:
    """The finished evaluation of this job under this protocol, or None. Raises `ValueError` where it is damaged."""
    row = connection.execute(_FIND, (job.key, protocol, job.seed)).fetchone()
    if row is None:
        return None
    status, detail, score, test_score, scale, negate, fingerprint, seconds = row
    known = tuple(map(finite, json.loads(fingerprint)))
    score, test_score, scale, seconds = map(finite, (score, test_score, scale, seconds))
    return Evaluation(job, Status(status), str(detail), score, test_score, scale, bool(negate), known, seconds)


def add(connection: sqlite3.Connection, evaluations: Iterable[tuple[Evaluation, str]]) -> None:
    """Store evaluations, each with its protocol, in one transaction; what is there already stays."""
    rows = [_row(*pair) for pair in evaluations]
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")  # waits its turn; a transaction that first reads could not
        cursor.executemany(_ADD, rows)
        cursor.execute("COMMIT")


def _row(evaluation: Evaluation, protocol: str) -> tuple[Any, ...]:
    job = evaluation.job
    return (
        job.key,
        protocol,
        job.seed,
        job.task,
        job.budget.learning_rate if job.budget else None,
        evaluation.status,
        evaluation.detail,
        evaluation.score,
        evaluation.test_score,
        evaluation.scale,
        evaluation.negate,
        json.dumps(evaluation.fingerprint),
        evaluation.seconds,
    )
