"""Files written whole: a reader never sees half of one, and an interruption leaves the old one."""

import csv
import io
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def replace_file(path: Path, text: str) -> None:
    """Put `text` in the place of the file."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def shielded(cell: Any) -> Any:
    """A space before a text that a spreadsheet would compute, such as `-cls(p*y)`; the parser ignores it."""
    if not isinstance(cell, str):
        return cell
    cell = cell.replace("\r", " ")  # Python's writer leaves it bare, and its reader ends the row there
    return f" {cell}" if cell.startswith(("=", "+", "-", "@", "\t")) else cell


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file with a header; without columns it is empty."""
    names = list(columns)
    text = io.StringIO()
    if names:
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: shielded(value) for name, value in row.items()} for row in rows)
    replace_file(path, text.getvalue())
