"""The CSV files of a run, from its archive alone; each is replaced whole, so that a reader never sees half of one."""

import csv
import io
import statistics
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evoloss.archive import Archive
from evoloss.expression import Expression
from evoloss.records import Candidate, Generation

# The columns after `select_acc` up to `verdict` belong to the playoff and are empty until it has run.
COLUMNS = (
    *("rank", "name", "expression", "latex", "family", "complexity", "scale", "fitness", "fitness_sd", "n_seeds"),
    *("select_acc", "test_acc", "test_acc_sd", "test_n", "delta_ce", "delta_ce_low", "delta_ce_high", "p_holm"),
    *("verdict", "lr", "generation", "parents", "status", "seconds", "key"),
)


def write_tables(directory: Path, archive: Archive, top: int) -> None:
    """Rewrite `hall_of_fame.csv`, `baselines.csv` and `generations.csv`."""
    candidates = archive.candidates()
    best = ranked(candidates)[:top]
    baselines = sorted((c for c in candidates if c.name), key=lambda c: (c.fitness is None, c.rank))
    _write(directory / "hall_of_fame.csv", COLUMNS, [_row(place, c) for place, c in enumerate(best, 1)])
    _write(directory / "baselines.csv", COLUMNS, [_row(place, c) for place, c in enumerate(baselines, 1)])
    names = [item.name for item in fields(Generation)]
    _write(directory / "generations.csv", names, [_cells(asdict(row)) for row in archive.generations()])


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """All that have a fitness, best first."""
    return sorted((c for c in candidates if c.fitness is not None), key=lambda candidate: candidate.rank)


def _row(rank: int, candidate: Candidate) -> dict[str, Any]:
    scores = list(candidate.scores.values())
    return _cells(
        dict.fromkeys(COLUMNS)
        | {
            "rank": rank,
            "name": candidate.name,
            "expression": candidate.expression,
            "latex": Expression(candidate.expression).latex,
            "family": candidate.family,
            "complexity": candidate.complexity,
            "scale": candidate.scale,
            "fitness": candidate.fitness,
            "fitness_sd": statistics.stdev(scores) if len(scores) > 1 else None,
            "n_seeds": len(scores),
            "select_acc": candidate.fitness,
            "lr": candidate.rate,
            "generation": candidate.generation,
            "parents": " ".join(candidate.parents),
            "status": candidate.status,
            "seconds": round(candidate.seconds, 2),
            "key": candidate.key,
        }
    )


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """Six decimals are more than any accuracy has, and hide no difference."""
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}


def _write(path: Path, columns: Iterable[str], rows: list[dict[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    temporary.replace(path)
