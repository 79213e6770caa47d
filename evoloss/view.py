"""What a person, or a program, sees of a running search."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evoloss.records import Candidate, Generation
from evoloss.search import Progress, Watch

REFRESH = 4  # a second


@contextlib.contextmanager
def watching(style: str, console: Console) -> Iterator[Watch]:
    """How progress is shown: "live" in a terminal, "lines" elsewhere, "json" for machines, "quiet"."""
    if style == "live":
        with Live(console=console, refresh_per_second=REFRESH, transient=False) as live:
            # The picture is made when it is shown, not at every evaluation.
            yield lambda progress: live.update(_Picture(progress))
    else:
        show = _STYLES[style]
        yield lambda progress: show(progress, progress.finished) if progress.finished else None


def _json(progress: Progress, row: Generation) -> None:
    record = asdict(row) | {
        "trained": progress.trained,
        "shared": progress.shared,
        "rejected_by": dict(progress.rejected),
    }
    print(json.dumps(record), flush=True)


def _line(progress: Progress, row: Generation) -> None:
    best, ce, ngl = (score(value, progress.gains) for value in (row.best_fitness, row.ce_fitness, row.ngl_fitness))
    shared = f", {progress.shared} trainings so far from the cache" if progress.shared else ""
    print(
        f"generation {row.generation}/{progress.generations}: {row.evaluated} evaluated, {row.rejected} rejected, "
        f"{row.duplicates} duplicates{shared}, {'best gain' if progress.gains else 'best'} {best} "
        f"(cross-entropy {ce}, NGL {ngl}) {row.best_expression}",
        flush=True,
    )


_STYLES: dict[str, Callable[[Progress, Generation], None]] = {
    "lines": _line,
    "json": _json,
    "quiet": lambda progress, row: None,
}


def style_for(quiet: bool, as_json: bool) -> str:
    """The style that fits the options and the terminal."""
    if quiet or as_json:
        return "json" if as_json else "quiet"
    return "live" if sys.stdout.isatty() else "lines"


def score(value: float | None, gain: bool = False) -> str:
    """An accuracy to four digits, a gain with its sign, or a dash."""
    return "-" if value is None else f"{value:+.4f}" if gain else f"{value:.4f}"


def measure(gains: bool) -> str:
    """What a score is."""
    return "mean gain" if gains else "select accuracy"


class _Picture:
    """The state of a search as a few calm lines."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def __rich__(self) -> Group:
        progress = self.progress
        elapsed = time.monotonic() - progress.started
        finished = progress.generation + (1.0 if progress.ended else 0.5 * progress.done / max(progress.due, 1))
        share = finished / (progress.generations + 1)
        here = finished - progress.first  # what this session did; a resumed one did not do it all
        left = (
            duration(elapsed * (progress.generations + 1 - finished) / here)
            if here > 0.5 and not progress.ended
            else ""
        )
        head = Table.grid(padding=(0, 1))
        head.add_row(
            f"generation {progress.generation} of {progress.generations}",
            ProgressBar(total=1.0, completed=share, width=30),
            duration(elapsed) + (f", about {left} left" if left else ""),
        )
        rate = f"{60 * progress.trained / elapsed:.0f} a minute" if elapsed > 1 and not progress.ended else ""
        rejected = ", ".join(f"{cause} {count}" for cause, count in progress.rejected.most_common(5))
        facts = Table.grid(padding=(0, 2))
        facts.add_row("now", progress.phase + (f": {progress.done} of {progress.due}" if progress.due else ""))
        facts.add_row("trained", f"{progress.trained}  {rate}")
        if progress.shared:
            facts.add_row("from the cache", str(progress.shared))
        facts.add_row("known already", str(progress.cached))
        facts.add_row("rejected", rejected or "none")
        return Group(head, facts, _standing(progress))


def _standing(progress: Progress) -> Table:
    table = Table.grid(padding=(0, 2))
    rows: list[tuple[str, Candidate | None]] = [("best", progress.best)]
    rows += [(name, progress.references.get(name)) for name in ("ce", "ngl")]
    for name, candidate in rows:
        if candidate is not None:
            seeds = f"{len(candidate.scores)} seed{'s' * (len(candidate.scores) != 1)}"
            formula = Text(candidate.expression, overflow="ellipsis", no_wrap=True)
            table.add_row(name, score(candidate.fitness, progress.gains), seeds, formula)
    return table


def duration(seconds: float) -> str:
    """`1 h 05 min`, `3 min 20 s` or `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
