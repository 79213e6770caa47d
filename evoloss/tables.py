"""Tables for people, wherever standard output goes."""

import sys
from collections.abc import Sequence


def plain(text: str) -> str:
    """The text without what a terminal would obey: a file of a stranger may have it."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table that folds long cells in a terminal; aligned lines, however long, elsewhere."""
    rows = [[plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)
