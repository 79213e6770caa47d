"""Finished evaluations in SQLite, by loss, protocol and seed: a table of a run's archive, and of a shared cache."""

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evoloss.errors import EvolossError
from evoloss.interrupts import held
from evoloss.records import Evaluation, Job, Status

PATIENCE = 60.0  # seconds to wait for another process that writes; it takes milliseconds

SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (
    key TEXT, protocol TEXT, seed INTEGER, task TEXT, learning_rate REAL, status TEXT, detail TEXT, score REAL,
    test_score REAL, scale REAL, negate INTEGER, fingerprint TEXT, seconds REAL, PRIMARY KEY (key, protocol, seed)
);
"""
# A table of its own, which a file of this format may lack and another evoloss may pass over: no new format.
_ADDED = """TABLE IF NOT EXISTS calibration (
    key TEXT, protocol TEXT, seed INTEGER, test_ece REAL, PRIMARY KEY (key, protocol, seed)
)"""

_FIND = (
    "SELECT status, detail, score, test_score, scale, negate, fingerprint, seconds, test_ece "
    "FROM evaluations LEFT JOIN calibration USING (key, protocol, seed) WHERE key = ? AND protocol = ? AND seed = ?"
)
_ADD = f"INSERT OR IGNORE INTO evaluations VALUES ({', '.join('?' * 13)})"
_CALIBRATE = "INSERT OR IGNORE INTO calibration VALUES (?, ?, ?, ?)"


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

    Read-only it is neither made nor written to, and another process may go on writing. Raises `EvolossError` where the
    file is something else, and leaves it as it is.
    """
    try:
        connection = sqlite3.connect(_uri(path) if read_only else path, PATIENCE, isolation_level=None, uri=read_only)
        try:
            _check(connection, path, kind, read_only)
            _complete(connection, read_only)
            if not read_only:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise EvolossError(f"{path} cannot be opened as {kind.name}: {error}") from None
    return connection


def _uri(path: Path) -> str:
    """To read a file. Without a write-ahead log nobody is writing: then no new log is left beside it."""
    written = path.with_name(f"{path.name}-wal").exists()
    return f"{path.absolute().as_uri()}?mode=ro" + ("" if written else "&immutable=1")


def _check(connection: sqlite3.Connection, path: Path, kind: Kind, read_only: bool) -> None:
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


def _complete(connection: sqlite3.Connection, read_only: bool) -> None:
    """Add the table that an older file lacks; to one that is only read, an empty one that ends with the connection."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'calibration'").fetchone() is None:
        connection.execute(f"CREATE {'TEMP ' if read_only else ''}{_ADDED}")


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
    status, detail, score, test_score, scale, negate, fingerprint, seconds, ece = row
    known = tuple(map(finite, json.loads(fingerprint)))
    score, test_score, scale, seconds, ece = map(finite, (score, test_score, scale, seconds, ece))
    told = str(detail)
    return Evaluation(job, Status(status), told, score, test_score, scale, bool(negate), known, seconds, test_ece=ece)


def add(connection: sqlite3.Connection, evaluations: Iterable[tuple[Evaluation, str]]) -> None:
    """Store evaluations, each with its protocol, in one transaction; what is there already stays."""
    pairs = list(evaluations)
    rows = [_row(*pair) for pair in pairs]
    calibrated = [(e.job.key, protocol, e.job.seed, e.test_ece) for e, protocol in pairs if e.test_ece is not None]
    with transaction(connection) as cursor:
        cursor.executemany(_ADD, rows)
        cursor.executemany(_CALIBRATE, calibrated)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Cursor]:
    """All of it or, where the process is killed, nothing; Ctrl-C waits for its end."""
    with held(), closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")  # waits its turn; a transaction that first reads could not
        yield cursor
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
