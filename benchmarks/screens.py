"""What the screens cost, by how many formulas are looked at together: `python -m benchmarks.screens [FILE.csv]`.

Bred formulas as a search meets them, ten classes, one thread; processor time, milliseconds a formula, of all screens
and of the descent of free logits and embeddings alone. The sizes take turns in one process; the medians of several
rounds are printed as a table and written as CSV.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from benchmarks.false_merges import CLASSES, formulas
from evoloss.descent import learning_signs
from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.screen import screen
from evoloss.tables import print_table

FORMULAS, ROUNDS = 320, 7
SIZES = (1, 8, 16, 32)
COLUMNS = ("together", "screens_ms", "descent_ms")


def seconds(batch: Sequence[Expression]) -> tuple[float, float]:
    """Processor time of all screens, and of the descent of those that come so far."""
    start = time.process_time()
    verdicts = screen(batch, CLASSES)
    between = time.process_time()
    far = [f for f, v in zip(batch, verdicts, strict=True) if not v.problem or v.problem.startswith("learns")]
    learning_signs(far, CLASSES)
    return between - start, time.process_time() - between


def milliseconds(bred: Sequence[Expression], size: int) -> list[float]:
    """The same a formula, in batches of this size."""
    batches = [bred[first : first + size] for first in range(0, len(bred), size)]
    return [1e3 * sum(column) / len(bred) for column in zip(*map(seconds, batches), strict=True)]


def main() -> None:
    torch.set_num_threads(1)
    bred = list(islice(formulas(), FORMULAS))
    milliseconds(bred, max(SIZES))  # fills caches
    rounds = [[milliseconds(bred, size) for size in SIZES] for _ in range(ROUNDS)]
    medians = [map(statistics.median, zip(*of_size, strict=True)) for of_size in zip(*rounds, strict=True)]
    rows = [(str(size), *(f"{number:.2f}" for number in row)) for size, row in zip(SIZES, medians, strict=True)]
    print_table(COLUMNS, rows)
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "screens.csv")
    write_csv(path, COLUMNS, [dict(zip(COLUMNS, row, strict=True)) for row in rows])


if __name__ == "__main__":
    main()
