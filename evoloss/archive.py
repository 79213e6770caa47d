"""The run's SQLite file, the truth of a run: each evaluation as it finishes, the population per generation.

Results are stored as they come, one transaction each. Candidates and population are stored together when a generation
ends, so that a run cut off inside a generation starts that generation again and finds its finished evaluations here.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evoloss import evaluations
from evoloss.batches import batched
from evoloss.evaluations import finite
from evoloss.records import (
    Batch,
    Candidate,
    Cost,
    DataSpec,
    Evaluation,
    Generation,
    Job,
    Standing,
    Status,
    described,
    protocol,
)

_SCHEMA = f"""
{evaluations.SCHEMA}
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
ARCHIVE = evaluations.Kind("the archive of a run", 0, 3, _SCHEMA, "use the evoloss that made it")

_COLUMNS = [f'"{item.name}"' for item in fields(Candidate)]  # quoted: "select" is a word of SQL
# Not INSERT OR REPLACE, which would move the row to the end of the order in which candidates came.
_UPSERT = (
    f"INSERT INTO candidates ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))}) "
    f"ON CONFLICT (key) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COLUMNS[1:])}"
)


class Archive:
    """All evaluations, candidates, generations and contests of one run."""

    def __init__(self, path: Path, data: DataSpec, read_only: bool = False) -> None:
        """Open the archive of a run, or create it unless `read_only`.

        Raises `EvolossError` where the file is not such an archive; and whatever reads from it, where a value is not as
        evoloss writes it.
        """
        self.data = data
        self.path = path
        self._connection = evaluations.connect(path, ARCHIVE, read_only)

    def close(self) -> None:
        """Close the file; the write-ahead log is folded into it."""
        self._connection.close()

    # Evaluations

    def find(self, job: Job) -> Evaluation | None:
        """The finished evaluation of this job, or None."""
        with evaluations.as_written(self.path):
            return evaluations.find(self._connection, job, self._protocol(job))

    def add(self, finished: Iterable[Evaluation]) -> None:
        """Store what a batch came to, in one transaction."""
        evaluations.add(self._connection, [(evaluation, self._protocol(evaluation.job)) for evaluation in finished])

    def _protocol(self, job: Job) -> str:
        return protocol(job, {"data": described(job.data or self.data)})

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
        for finished in pool(missing) if missing else ():
            self.add(finished)
            for evaluation in finished:
                answers[evaluation.job] = evaluation
                heard(evaluation)
        return answers

    def forget(self, status: Status) -> None:
        """Take out the evaluations that ended in this way."""
        self._connection.execute("DELETE FROM evaluations WHERE status = ?", (status,))

    def spent(self) -> tuple[int, float]:
        """How many trainings there were, and their seconds in all."""
        query = "SELECT COUNT(*), TOTAL(seconds) FROM evaluations WHERE task = 'train'"
        count, seconds = self._connection.execute(query).fetchone()
        return count, seconds

    def costs(self) -> list[Cost]:
        """What was done and what it took: screens, trainings, and trainings that opened the test split."""
        query = """
            SELECT task, test_score IS NOT NULL, COUNT(*), TOTAL(seconds) FROM evaluations GROUP BY 1, 2 ORDER BY 1, 2
        """
        return [Cost(task, bool(test), *spent) for task, test, *spent in self._connection.execute(query)]

    # Generations

    def end_generation(self, row: Generation, changed: Iterable[Candidate], population: list[list[Any]]) -> None:
        """Store what a generation changed, its row, and the population that the next one breeds from."""
        values = [_candidate_row(candidate) for candidate in changed]
        stored = (row.generation, json.dumps(asdict(row)), json.dumps(population))
        with evaluations.transaction(self._connection) as cursor:
            cursor.executemany(_UPSERT, values)
            cursor.execute("INSERT OR REPLACE INTO generations VALUES (?, ?, ?)", stored)

    def generations(self) -> list[Generation]:
        """All finished generations, in order."""
        with evaluations.as_written(self.path):
            rows = self._connection.execute("SELECT row FROM generations ORDER BY generation")
            return [Generation(**_numbers(json.loads(row), "best_expression")) for (row,) in rows]

    def population(self) -> list[list[Any]]:
        """What the last finished generation left: (key, tree) pairs."""
        query = "SELECT population FROM generations ORDER BY generation DESC LIMIT 1"
        with evaluations.as_written(self.path):
            row = self._connection.execute(query).fetchone()
            return [[key, names] for key, names in json.loads(row[0])] if row else []

    def candidates(self) -> list[Candidate]:
        """All candidates of the finished generations, in the order in which they came."""
        return self._candidates("ORDER BY rowid")

    def leaders(self, count: int) -> list[Candidate]:
        """All that decide who is among the best `count`, in the order in which they came.

        Those are the named losses, those of several seeds, by which `ranking` knows the noise, and the best `count` of
        one seed, which it ranks by their scores.
        """
        return self._candidates(f"WHERE rowid IN ({_LEADERS}) ORDER BY rowid", count)

    def _candidates(self, which: str, *values: int) -> list[Candidate]:
        query = f"SELECT {', '.join(_COLUMNS)} FROM candidates {which}"
        with evaluations.as_written(self.path):
            rows = self._connection.execute(query, values)
            return [_candidate(row) for row in rows]

    def rejections(self) -> Counter[str]:
        """How many candidates each screen has refused."""
        query = "SELECT detail FROM candidates WHERE status = 'rejected'"
        with evaluations.as_written(self.path):
            return Counter(detail.partition(":")[0] for (detail,) in self._connection.execute(query))

    # Contests

    def set_standings(self, standings: Iterable[Standing]) -> None:
        """Store how the losses of a contest came out."""
        rows = [(standing.regime, standing.key, json.dumps(asdict(standing))) for standing in standings]
        with evaluations.transaction(self._connection) as cursor:
            cursor.executemany("INSERT OR REPLACE INTO standings VALUES (?, ?, ?)", rows)

    def standings(self) -> dict[str, list[Standing]]:
        """By regime, in the order in which they were stored."""
        by_regime: dict[str, list[Standing]] = {}
        with evaluations.as_written(self.path):
            for regime, text in self._connection.execute("SELECT regime, row FROM standings ORDER BY rowid"):
                by_regime.setdefault(regime, []).append(_standing(json.loads(text)))
        return by_regime


def _candidate_row(candidate: Candidate) -> list[Any]:
    values = ((item.name, getattr(candidate, item.name)) for item in fields(Candidate))
    return [json.dumps(value) if name in _PACKED else value for name, value in values]


def _candidate(row: tuple[Any, ...]) -> Candidate:
    values = {item.name: value for item, value in zip(fields(Candidate), row, strict=True)}
    values |= {name: unpack(json.loads(values[name])) for name, unpack in _PACKED.items()}
    values |= {"status": Status(values["status"]), "name": _word(values["name"])}
    return Candidate(**_numbers(values, *_PACKED, "status", *_TEXTS))


def _standing(row: dict[str, Any]) -> Standing:
    row |= {name: _series(row.get(name, ())) for name in _SERIES}
    row |= {"status": Status(row["status"]), "name": _word(row["name"])}
    return Standing(**_numbers(row, "status", *_SERIES, *_TEXTS))


def _numbers(values: dict[str, Any], *others: str) -> dict[str, Any]:
    """The values, of which all but the `others` have to be numbers or None."""
    return {name: value if name in others else finite(value) for name, value in values.items()}


def _word(name: Any) -> str:
    """The name of a loss, which is printed as it is."""
    if isinstance(name, str) and re.fullmatch(r"[\w-]*", name, re.ASCII):
        return name
    raise ValueError(f"expected the name of a loss, got {name!r}")


def _series(values: Iterable[Any]) -> tuple[float, ...]:
    return tuple(map(finite, values))


def _by_seed(values: dict[str, Any]) -> dict[int, float]:
    return {int(seed): finite(value) for seed, value in values.items()}


_SERIES = ("select", "test", "calibration")
_TEXTS = ("regime", "key", "expression", "family", "name", "detail")

# Fields of a candidate that are kept as JSON, and what turns that into the field again.
_PACKED: dict[str, Callable[[Any], Any]] = {
    "parents": lambda keys: tuple(map(str, keys)),
    "fingerprint": _series,
    "rates": _series,
    "scores": _by_seed,
    "select": _by_seed,
}
