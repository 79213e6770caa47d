"""Files written whole: a reader never sees half of one, and an interruption leaves the old one."""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def replace_file(path: Path, text: str) -> None:
    """Put `text` in the place of the file."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A CSV file with a header; without columns it is empty."""
    names = list(columns)
    text = io.StringIO()
    if names:
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    replace_file(path, text.getvalue())
