"""A loss as a user names it: a formula, a name of the library, or `RUN#rank`, a row of a run's hall of fame."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evoloss.baselines import BASELINES, Baseline
from evoloss.config import RunConfig, load_run
from evoloss.errors import EvolossError, suggest
from evoloss.expression import Expression
from evoloss.report import read_rows, read_table
from evoloss.syntax import ExpressionError

HALL_OF_FAME = "hall_of_fame.csv"


@dataclass(frozen=True)
class Found:
    """A loss of a run: its directory and settings, and its row of the hall of fame, every cell as text."""

    run: Path
    config: RunConfig
    row: Mapping[str, str]


@dataclass(frozen=True)
class Formula:
    """A loss and where it is from: `baseline` for one of the library, `found` for one of a run, neither for a text."""

    expression: Expression
    baseline: Baseline | None = None
    found: Found | None = None

    @property
    def name(self) -> str:
        """The name in the library, or nothing."""
        return self.baseline.name if self.baseline else ""

    @property
    def scale(self) -> float:
        """The factor that the loss was found with; 1 for any other."""
        return float(self.found.row["scale"]) if self.found else 1.0


def find(text: str) -> Formula:
    """The loss that a text names: `ngl`, `runs/fashion-mnist-hybrid-0#1` or `-y*log(p)`. Raises `EvolossError`."""
    text = text.strip()
    if "#" in text:
        return _of_run(text)
    if text in BASELINES:
        return Formula(Expression.parse(BASELINES[text].expression), BASELINES[text])
    if (Path(text) / HALL_OF_FAME).is_file():
        raise EvolossError(f"`{text}` is a run: say which of its losses, for instance `{text}#1` for the first")
    try:
        return Formula(Expression.parse(text))
    except ExpressionError:
        hint = suggest(text, BASELINES)
        if hint and re.fullmatch(r"[A-Za-z][\w-]{2,}", text):
            raise EvolossError(f"unknown loss `{text}`{hint}: see `evoloss baselines`") from None
        raise


def _of_run(text: str) -> Formula:
    directory, _, rank = text.rpartition("#")
    if not directory or not re.fullmatch("[0-9]{1,9}", rank):
        raise EvolossError(f"expected RUN#rank, such as runs/fashion-mnist-hybrid-0#1, not `{text}`")
    run = Path(directory).expanduser()
    table = run / HALL_OF_FAME
    read_rows(table)  # where a number is none, it says so
    rows = {row["rank"]: row for row in read_table(table, ("rank", "expression", "scale"))}
    row = rows.get(str(int(rank)))
    if row is None:
        raise EvolossError(f"{table} has no rank {rank}; it has {', '.join(rows) or 'no row'}")
    if not row["scale"]:
        raise EvolossError(f"{table} has no scale at rank {rank}: expected a table that evoloss wrote")
    try:
        expression = Expression.parse(row["expression"])
    except ExpressionError as error:
        raise EvolossError(f"{table} has a formula that is none at rank {rank}: {error.problem}") from None
    return Formula(expression, found=Found(run, load_run(run), row))
