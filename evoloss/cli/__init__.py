"""The command line: parses, wires, prints. What is heavy is imported inside the command that needs it."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any

import typer

from evoloss.cli import compare, explain, export, listings, replay, report, reproduce, search, simplify, stress
from evoloss.errors import EvolossError
from evoloss.tables import plain

app = typer.Typer(
    help="Discover loss functions for classifiers by genetic programming, and compare them honestly.",
    pretty_exceptions_enable=False,
    add_completion=True,
    no_args_is_help=True,
)


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        print(version("evoloss"))
        raise typer.Exit


# By the heading under which `--help` lists them.
_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Search": (search.search, search.resume, report.watch, report.report),
    "Judge": (compare.compare, compare.evaluate, stress.stress, replay.replay, reproduce.reproduce),
    "Understand and use": (explain.explain, simplify.simplify, export.export),
    "What there is": (listings.baselines, listings.spaces, listings.datasets),
}

# Whose arguments are formulas: one such as `-y*log(p)` begins as an option does.
_OF_FORMULAS = ("explain", "export", "simplify", "stress")

for _heading, _commands in _COMMANDS.items():
    for _command in _commands:
        _settings = {"ignore_unknown_options": _command.__name__ in _OF_FORMULAS}
        app.command(rich_help_panel=_heading, context_settings=_settings)(_command)

# click's; newer versions of typer bring their own click, and export no other name of it.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """The `evoloss` command: errors are one line on standard error."""
    try:
        sys.exit(app(standalone_mode=False))
    except EvolossError as error:
        print(f"evoloss: {plain(str(error))}", file=sys.stderr)
        sys.exit(1)
    except _UsageError as error:
        print(f"evoloss: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        print("evoloss: interrupted", file=sys.stderr)
        sys.exit(130)
