"""`evoloss report` and `evoloss watch`: what a run has found, and what it is doing."""

from pathlib import Path
from typing import Annotated

import typer

from evoloss.cli.printing import interruptible

Run = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]


def report(
    directory: Run,
    to: Annotated[Path | None, typer.Option(help="The file; default report.html in the run directory.")] = None,
) -> None:
    """Write a run as one HTML page that opens without a network."""
    from evoloss.page import facts, render

    path = render.write(facts.read(directory), to)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def watch(directory: Run) -> None:
    """Follow a search from another terminal until it ends; a finished one is shown as it is."""
    from rich.console import Console

    from evoloss import view
    from evoloss.follow import follow
    from evoloss.page import facts
    from evoloss.page.verdict import verdict

    style = view.style_for(quiet=False, as_json=False)
    with interruptible("the search goes on"), view.watching(style, Console()) as show:
        follow(directory, show)
    found = facts.read(directory)
    for line in verdict(found).sentences if found.generations else ():
        print(line)
    print(f"hall of fame: {directory / 'hall_of_fame.csv'}; as a page: evoloss report {directory}")
