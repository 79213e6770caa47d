"""`evoloss search --with-control`: evolution beside random search."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evoloss.cli.printing import interruptible, print_fitness
from evoloss.errors import EvolossError
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.backend import Backend
    from evoloss.config import RunConfig
    from evoloss.control import Repeat, Winner
    from evoloss.evidence import Difference
    from evoloss.search import Watch


def check(wanted: bool, strategy: str, repeats: int | None, time_limit: str | None) -> None:
    """Raise `EvolossError` for options that do not go together."""
    if repeats is not None and not wanted:
        raise EvolossError("--repeats are those of a control: add --with-control")
    if wanted and strategy == "random":
        raise EvolossError("--with-control runs both strategies: leave out --strategy")
    if wanted and time_limit:
        raise EvolossError("--with-control compares whole searches: leave out --time-limit, Ctrl-C and resume instead")


def begin(
    directory: Path,
    config: "RunConfig",
    repeats: int | None,
    backend: "Backend",
    quiet: bool,
    as_json: bool,
) -> None:
    """Make the directory of a control and run it."""
    from evoloss.control import Control, create

    create(directory, Control(run=config) if repeats is None else Control(run=config, repeats=repeats))
    carry_on(directory, backend, quiet, as_json)


def carry_on(directory: Path, backend: "Backend", quiet: bool, as_json: bool) -> None:
    """Run a control to its end and print what came of it."""
    from rich.console import Console

    from evoloss import control, view

    config = control.load(directory).run
    style = view.style_for(quiet, as_json)
    if style not in ("json", "quiet"):
        print_fitness(config)

    @contextlib.contextmanager
    def watching(title: str) -> Iterator["Watch"]:
        if style == "json":
            print(json.dumps({"now": title}), flush=True)
        elif style != "quiet":
            print(f"{title}:", flush=True)
        with view.watching(style, Console()) as watch:
            yield watch

    with interruptible(f"nothing finished is lost; continue: evoloss resume {directory}"):
        repeats = control.carry_on(directory, watching, backend)
    if as_json:
        _print_json(directory, repeats)
        return
    if not quiet:
        _print_repeats(repeats, config.gains)
        _print_gaps(repeats, config.gains)
    print(f"control: {directory / 'control.csv'}")


def _print_json(directory: Path, repeats: "Sequence[Repeat]") -> None:
    from dataclasses import asdict

    from evoloss import control

    fresh, scored = (asdict(gap) if gap else None for gap in control.gaps(repeats))
    verdict = control.conclusion(repeats)
    path = str(directory / "control.csv")
    print(json.dumps({"control": path, "difference": fresh, "as_scored": scored, "verdict": verdict}))


def _print_repeats(repeats: "Sequence[Repeat]", gains: bool) -> None:
    from evoloss.view import duration, score

    def line(seed: str, side: str, winner: "Winner") -> list[str]:
        scores = [score(winner.fitness, gains), score(winner.fresh, gains)]
        origin = winner.name or f"generation {winner.generation}"
        return [seed, side, *scores, str(winner.trainings), duration(winner.seconds), origin, winner.expression]

    rows: list[list[str]] = []
    for repeat in repeats:
        rows.append(line(str(repeat.seed), "evolve", repeat.evolve))
        rows.append(line("", "random", repeat.random))
        rows.append(["", "ce", score(repeat.ce_fitness, gains), score(repeat.ce_fresh, gains), "", "", "", ""])
    columns = ("seed", "strategy", "in the search", "fresh seeds", "trainings", "core time", "winner from", "formula")
    print_table(columns, rows)


def _print_gaps(repeats: "Sequence[Repeat]", gains: bool) -> None:
    from evoloss import control
    from evoloss.view import measure

    def shown(gap: "Difference | None") -> str:
        return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.2g}" if gap else "no interval"

    fresh, scored = control.gaps(repeats)
    count = f"{len(repeats)} repeat{'s' * (len(repeats) != 1)}"
    print(f"as the searches scored their winners, which flatters both: {shown(scored)}")
    print(
        f"evolution minus random, {measure(gains)} on fresh seeds, paired over {count}, 95 % interval: "
        f"{shown(fresh)}: {control.conclusion(repeats)}"
    )
