"""What there is to tell of a run: all that its archive has, or as much as its tables do."""

import json
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evoloss import report
from evoloss.archive import Archive
from evoloss.config import RunConfig, load_run
from evoloss.errors import EvolossError
from evoloss.evidence import Judgement
from evoloss.playoff import SEARCHED
from evoloss.records import Candidate, Cost, Generation
from evoloss.report import Row

ARCHIVE = "archive.sqlite"


@dataclass(frozen=True)
class Facts:
    """A run as a reader wants to know it; rows have the columns of `hall_of_fame.csv`.

    `without` says why candidates, judgements and costs are missing, where they are: only an archive has them.
    """

    directory: Path
    config: RunConfig
    environment: dict[str, Any]
    generations: list[Generation]
    hall: list[Row]
    baselines: list[Row]
    front: list[Row]
    candidates: list[Candidate] = field(default_factory=list)
    judged: dict[str, list[Judgement]] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    without: str = ""

    @property
    def complete(self) -> bool:
        """Whether all generations are finished."""
        return len(self.generations) > self.config.generations

    @property
    def finalists(self) -> list[Row]:
        """All losses of the playoff, the best test accuracy first; those that failed there are left out."""
        rows = {row["key"]: row for row in [*self.baselines, *self.hall] if row["test_acc"] is not None}
        return sorted(rows.values(), key=lambda row: -float(row["test_acc"]))

    @property
    def winner(self) -> Row | None:
        """The evolved loss that came out best in the playoff, else the first of the hall of fame."""
        evolved = [row for row in [*self.finalists, *self.hall] if not row["name"]]
        return evolved[0] if evolved else None

    @property
    def searched(self) -> int:
        """How many losses the search chose its finalists from."""
        return sum(candidate.fitness is not None for candidate in self.candidates)

    def named(self, name: str) -> Row | None:
        """The row of a hand-written loss, if it took part."""
        return next((row for row in self.baselines if row["name"] == name), None)

    def home(self) -> list[Judgement]:
        """The playoff under the conditions of the search; empty where only its tables are left."""
        return self.judged.get(SEARCHED, [])


def read(directory: Path) -> Facts:
    """The facts of a run directory, whose archive is left as it is. Raises `EvolossError`."""
    if not (directory / "run.toml").is_file():
        raise EvolossError(f"{directory} is no run directory: it has no run.toml{_hint(directory)}")
    config = load_run(directory)
    path = directory / ARCHIVE
    if not path.is_file():
        return _of_tables(directory, config, "the run directory has no archive")
    try:
        with closing(Archive(path, config.data(), read_only=True)) as archive:
            return of(directory, config, archive)
    except EvolossError as error:
        if not (directory / "hall_of_fame.csv").is_file():
            raise
        return _of_tables(directory, config, str(error))


def _hint(directory: Path) -> str:
    if (directory / "control.toml").is_file():
        return "; a control has runs inside it, such as evolve-0: name one of them"
    if (directory / "compare.toml").is_file():
        return "; the tables of a comparison are comparison.csv and comparison.tex"
    return ""


def of(directory: Path, config: RunConfig, archive: Archive) -> Facts:
    """The facts of a run whose archive is open."""
    best, baselines = report.hall_of_fame(archive, config)
    return Facts(
        directory,
        config,
        _environment(directory),
        archive.generations(),
        best,
        baselines,
        report.front(archive, config),
        archive.candidates(),
        report.judgements(archive),
        archive.costs(),
    )


def _of_tables(directory: Path, config: RunConfig, why: str) -> Facts:
    front = directory / "pareto.csv"  # not written by evoloss 0.1
    return Facts(
        directory,
        config,
        _environment(directory),
        report.read_generations(directory / "generations.csv"),
        report.read_rows(directory / "hall_of_fame.csv"),
        report.read_rows(directory / "baselines.csv"),
        report.read_rows(front) if front.is_file() else [],
        without=why,
    )


def _environment(directory: Path) -> dict[str, Any]:
    try:
        found = json.loads((directory / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a page without it is better than none
        return {}
    return found if isinstance(found, dict) else {}
