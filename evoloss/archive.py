"""The run's SQLite file, the truth of a run: each evaluation as it finishes, the population per generation.

Results are stored as they come, one transaction each. Candidates and population are stored together when a generation
ends, so that a run cut off inside a generation starts that generation again and finds its finished evaluations here.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evoloss.batches import batched
from evoloss.errors import EvolossError
from evoloss.records import Batch, Candidate, DataSpec, Evaluation, Generation, Job, Standing, Status, protocol

FORMAT = 3

_SCHEMA = """
CREATE TABLE evaluations (
    key TEXT, protocol TEXT, seed INTEGER, task TEXT, learning_rate REAL, status TEXT, detail TEXT, score REAL,
    test_score REAL, scale REAL, negate INTEGER, fingerprint TEXT, seconds REAL, PRIMARY KEY (key, protocol, seed)
);
CREATE TABLE candidates (
    key TEXT PRIMARY KEY, expression TEXT, complexity INTEGER, family TEXT, name TEXT, generation INTEGER, parents TEXT,
    status TEXT, detail TEXT, scale REAL, fingerprint TEXT, rung INTEGER, rates TEXT, scores TEXT, "select" TEXT,
    seconds REAL
);
CREATE TABLE generations (generation INTEGER PRIMARY KEY, row TEXT, population TEXT);
CREATE TABLE standings (regime TEXT, key TEXT, row TEXT, PRIMARY KEY (regime, key));
CREATE INDEX exempt ON candidates (key) WHERE name != '' OR json_extract(scores, '$.1') IS NOT NULL;
CREATE INDEX by_score ON candidates (rung DESC, json_extract(scores, '$.0') DESC, complexity, key) WHERE status = 'ok';
"""

# What `leaders` asks for: by the indexes, so that it takes no longer the more candidates there are.
_LEADERS = """
    SELECT rowid FROM candidates WHERE name != '' OR json_extract(scores, '$.1') IS NOT NULL
    UNION SELECT * FROM (
        SELECT rowid FROM candidates WHERE status = 'ok' AND json_extract(scores, '$.1') IS NULL
        ORDER BY rung DESC, json_extract(scores, '$.0') DESC, complexity, key LIMIT ?
    )
"""

_COLUMNS = [f'"{item.name}"' for item in fields(Candidate)]  # quoted: "select" is a word of SQL
# Not INSERT OR REPLACE, which would move the row to the end of the order in which candidates came.
_UPSERT = (
    f"INSERT INTO candidates ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)


class Archive:
    """All evaluations, candidates, generations and contests of one run."""

    def __init__(self, path: Path, data: DataSpec) -> None:
        """Open the archive of a run, or create it. Raises `EvolossError` where the file is not such an archive."""
        self.data = data
        self.path = path
        try:
            self._connection = sqlite3.connect(path, isolation_level=None)
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not self._tables():
                self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
            elif version != FORMAT:
                raise EvolossError(
                    f"{path} has the format {version}, this evoloss reads {FORMAT}: use the one of the run"
                )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            raise EvolossError(f"{path} cannot be opened as the archive of a run: {error}") from None

    def _tables(self) -> list[Any]:
        return self._connection.execute("SELECT name FROM sqlite_master").fetchall()

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self._connection.close()

    # Evaluations

    def find(self, job: Job) -> Evaluation | None:
        """The finished evaluation of this job, or None."""
        query = (
            "SELECT status, detail, score, test_score, scale, negate, fingerprint, seconds FROM evaluations "
            "WHERE key = ? AND protocol = ? AND seed = ?"
        )
        row = self._connection.execute(query, (job.key, self._protocol(job), job.seed)).fetchone()
        if row is None:
            return None
        status, detail, score, test_score, scale, negate, fingerprint, seconds = row
        known = tuple(json.loads(fingerprint))
        return Evaluation(job, Status(status), detail, score, test_score, scale, bool(negate), known, seconds)

    def add(self, evaluations: Iterable[Evaluation]) -> None:
        """Store what a batch came to, in one transaction."""
        rows = [self._evaluation_row(evaluation) for evaluation in evaluations]
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.executemany(f"INSERT OR IGNORE INTO evaluations VALUES ({', '.join('?' * len(rows[0]))})", rows)
            cursor.execute("COMMIT")

    def _evaluation_row(self, evaluation: Evaluation) -> tuple[Any, ...]:
        job = evaluation.job
        return (
            job.key,
            self._protocol(job),
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

    def _protocol(self, job: Job) -> str:
        return protocol(job, job.data or self.data)

    def answers(
        self,
        jobs: Iterable[Job],
        pool: Callable[[list[Batch]], Iterable[list[Evaluation]]],
        heard: Callable[[Evaluation], None] = lambda _: None,
    ) -> dict[Job, Evaluation]:
        """The evaluations of all jobs: those that are here, and those of the pool, stored batch by batch.

        Jobs are put together before they are looked up: where a run was cut off, the rest goes on in the same batches.
        """
        found = {job: self.find(job) for job in jobs}
        answers = {job: evaluation for job, evaluation in found.items() if evaluation is not None}
        missing = [tuple(job for job in batch if job not in answers) for batch in batched(found)]
        missing = [batch for batch in missing if batch]
        for evaluation in answers.values():
            heard(evaluation)
        for evaluations in pool(missing) if missing else ():
            self.add(evaluations)
            for evaluation in evaluations:
                answers[evaluation.job] = evaluation
                heard(evaluation)
        return answers

    def spent(self) -> tuple[int, float]:
        """How many trainings there were, and their seconds in all."""
        query = "SELECT COUNT(*), TOTAL(seconds) FROM evaluations WHERE task = 'train'"
        count, seconds = self._connection.execute(query).fetchone()
        return count, seconds

    # Generations

    def end_generation(self, row: Generation, changed: Iterable[Candidate], population: list[list[Any]]) -> None:
        """Store what a generation changed, its row, and the population that the next one breeds from."""
        values = [_candidate_row(candidate) for candidate in changed]
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.executemany(_UPSERT, values)
            stored = (row.generation, json.dumps(asdict(row)), json.dumps(population))
            cursor.execute("INSERT OR REPLACE INTO generations VALUES (?, ?, ?)", stored)
            cursor.execute("COMMIT")

    def generations(self) -> list[Generation]:
        """All finished generations, in order."""
        rows = self._connection.execute("SELECT row FROM generations ORDER BY generation")
        return [Generation(**json.loads(row)) for (row,) in rows]

    def population(self) -> list[list[Any]]:
        """What the last finished generation left: (key, tree) pairs."""
        query = "SELECT population FROM generations ORDER BY generation DESC LIMIT 1"
        row = self._connection.execute(query).fetchone()
        return json.loads(row[0]) if row else []

    def candidates(self) -> list[Candidate]:
        """All candidates of the finished generations, in the order in which they came."""
        query = f"SELECT {', '.join(_COLUMNS)} FROM candidates ORDER BY rowid"
        return [_candidate(row) for row in self._connection.execute(query)]

    def leaders(self, count: int) -> list[Candidate]:
        """All that decide who is among the best `count`, in the order in which they came.

        Those are the named losses, those of several seeds, by which `ranking` knows the noise, and the best `count` of
        one seed, which it ranks by their scores.
        """
        query = f"SELECT {', '.join(_COLUMNS)} FROM candidates WHERE rowid IN ({_LEADERS}) ORDER BY rowid"
        return [_candidate(row) for row in self._connection.execute(query, (count,))]

    # Contests

    def set_standings(self, standings: Iterable[Standing]) -> None:
        """Store how the losses of a contest came out."""
        rows = [(standing.regime, standing.key, json.dumps(asdict(standing))) for standing in standings]
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.executemany("INSERT OR REPLACE INTO standings VALUES (?, ?, ?)", rows)
            cursor.execute("COMMIT")

    def standings(self) -> dict[str, list[Standing]]:
        """By regime, in the order in which they were stored."""
        by_regime: dict[str, list[Standing]] = {}
        for regime, text in self._connection.execute("SELECT regime, row FROM standings ORDER BY rowid"):
            row = json.loads(text)
            row |= {"status": Status(row["status"]), "select": tuple(row["select"]), "test": tuple(row["test"])}
            by_regime.setdefault(regime, []).append(Standing(**row))
        return by_regime


def _candidate_row(candidate: Candidate) -> list[Any]:
    values = ((item.name, getattr(candidate, item.name)) for item in fields(Candidate))
    return [json.dumps(value) if name in _PACKED else value for name, value in values]


def _candidate(row: tuple[Any, ...]) -> Candidate:
    values = {item.name: value for item, value in zip(fields(Candidate), row, strict=True)}
    values |= {name: unpack(json.loads(values[name])) for name, unpack in _PACKED.items()}
    return Candidate(**values | {"status": Status(values["status"])})


def _by_seed(values: dict[str, float]) -> dict[int, float]:
    return {int(seed): value for seed, value in values.items()}


# Fields of a candidate that are kept as JSON, and what turns that into the field again.
_PACKED: dict[str, Callable[[Any], Any]] = {
    "parents": tuple,
    "fingerprint": tuple,
    "rates": tuple,
    "scores": _by_seed,
    "select": _by_seed,
}
