"""What commands print: progress, standings, and what to do after Ctrl-C."""

import contextlib
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from evoloss import interrupts
from evoloss.tables import plain, print_table

if TYPE_CHECKING:
    from evoloss.config import RunConfig
    from evoloss.evidence import Judgement
    from evoloss.records import Evaluation, Standing

AT_EDGE = "* the best rate is the sweep's lowest or highest: a wider sweep might do better"


@contextlib.contextmanager
def interruptible(hint: str) -> Iterator[None]:
    """Ctrl-C ends in one line, with what becomes of the work; a second one does not wait for workers to go."""
    with interrupts.listening(f"evoloss: stopped at once, {hint}"):
        try:
            yield
        except KeyboardInterrupt:
            print(f"evoloss: interrupted, {hint}", file=sys.stderr)
            raise typer.Exit(interrupts.CODE) from None


def print_fitness(config: "RunConfig") -> None:
    """What a search climbs, where its regimes were named."""
    if config.regimes:
        names = ", ".join(config.regimes)
        print(
            f"fitness: {'mean gain over cross-entropy' if config.gains else 'select accuracy'} in {names}", flush=True
        )


@contextlib.contextmanager
def progress_bar(silent: bool) -> Iterator[Callable[[float, float], None]]:
    """Gives `tick(done, due)`; shows nothing where standard error is no terminal, or if `silent`."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=silent or not sys.stderr.isatty()) as bar:
        task = bar.add_task("training")
        yield lambda done, due: bar.update(task, completed=done, total=due)


@contextlib.contextmanager
def counting(due: int, silent: bool) -> "Iterator[Callable[[Evaluation], None]]":
    """A progress bar of `due` trainings, as a function that takes each evaluation; then how many a cache has spared."""
    done = shared = 0

    def heard(evaluation: "Evaluation") -> None:
        nonlocal done, shared
        if evaluation.job.task == "train":
            done += 1
            shared += evaluation.shared
            tick(done, max(done, due))  # a sweep may go on

    with progress_bar(silent) as tick:
        yield heard
    if shared and not silent:
        print(f"{shared} of {done} trainings came from the cache", file=sys.stderr)


def rate_of(standing: "Standing") -> str:
    """The rate at which a loss was best, with the mark that `AT_EDGE` explains."""
    return "" if standing.rate is None else f"{standing.rate:g}" + "*" * standing.at_edge


def print_judged(judged: "Sequence[Judgement]", score: str = "accuracy") -> None:
    """The table of one regime and what there is to know about it."""
    from evoloss.evidence import noise_ceiling

    columns = ("loss", f"test {score}", "n", "minus cross-entropy", "p (Holm)", "rate", "verdict")
    print_table(columns, [_row(judgement) for judgement in judged])
    seeds = max(len(j.standing.test) for j in judged)
    ceiling = noise_ceiling(judged, len(judged) - 1, seeds) if seeds else None
    if ceiling is not None:
        many = f"the best of {len(judged) - 1} losses no better than cross-entropy"
        print(f"noise ceiling: {many} would show {ceiling:+.4f} by luck")
    if any(j.standing.at_edge for j in judged):
        print(AT_EDGE)
    for judgement in judged:
        if judgement.standing.detail:
            print(plain(f"{judgement.standing.name or judgement.standing.expression}: {judgement.standing.detail}"))


def _row(judgement: "Judgement") -> list[str]:
    standing, gap = judgement.standing, judgement.gap
    return [
        standing.name or standing.expression,
        mean_sd(standing.test),
        str(len(standing.test)),
        f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" if gap else "",
        "" if judgement.p_holm is None else f"{judgement.p_holm:.2g}",
        rate_of(standing),
        judgement.verdict,
    ]


def mean_sd(values: Sequence[float]) -> str:
    """`0.8934 +- 0.0012`; empty for no values."""
    if not values:
        return ""
    deviation = f" +- {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"
