"""`evoloss report` and `evoloss watch`: what a run has found, and what it is doing."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")]


def report(
    directory: Run,
    to: Annotated[Path | None, typer.Option(help="The file; default report.html in the run directory.")] = None,
) -> None:
    """Write a run as one HTML page that opens without a network."""
    from evoloss import facts, page

    path = page.write(facts.read(directory), to)
    print(f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)")
