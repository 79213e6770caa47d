"""What stacked training gains over separate trainings: `python -m benchmarks.stacked`.

The MLP on random images of 28x28 at batch 128, with the losses of the library for ten classes, in turn: the same
members train one by one (`evoloss.train`) and as one stacked model (`evoloss.stack`), alternating in this process, one
thread. Processor time, medians; scoring is left out. Prints a table and writes a CSV; two minutes.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from evoloss.baselines import BASELINES
from evoloss.evaluate import decoder
from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.lower import Loss
from evoloss.proxies import build
from evoloss.records import Budget
from evoloss.stack import Member, train_stack
from evoloss.tables import print_table
from evoloss.train import Samples, train

SIZES = (2, 4, 8, 16, 32)
TURNS = 5
BUDGET = Budget(6_400, 1, 3e-3)  # 50 steps
COLUMNS = ("members", "ms a step, separate", "ms a step and member, stacked", "ratio")


def members(count: int) -> list[Member]:
    """The library's losses in turn, each with centers of its own."""
    texts = [row.expression for row in BASELINES.values() if row.classes in (None, 10)]
    expressions = [Expression.parse(text) for text in itertools.islice(itertools.cycle(texts), count)]
    return [Member(Loss(e, 10, 64), BUDGET.learning_rate, decoder(e)) for e in expressions]


def processor_seconds(action: Callable[[], object]) -> float:
    """Of one call, in this process."""
    start = time.process_time()
    action()
    return time.process_time() - start


def measured(count: int) -> dict[str, float]:
    """A row of the table."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BUDGET.samples, 1, 28, 28, generator=generator)
    samples = Samples(images, torch.arange(BUDGET.samples) % 10)
    budget = replace(BUDGET, time_limit=3600.0)

    def separate() -> None:
        for member in members(count):
            train(build("mlp", (1, 28, 28), 10, 0, 64), member.loss, samples, {}, budget, 0, member.decoder)

    def stacked() -> None:
        train_stack(build("mlp", (1, 28, 28), 10, 0, 64), members(count), samples, {}, budget, 0)

    times = [(processor_seconds(separate), processor_seconds(stacked)) for _ in range(1 + TURNS)][1:]
    steps = count * (BUDGET.samples // BUDGET.batch_size)
    alone, together = (1e3 * statistics.median(column) / steps for column in zip(*times, strict=True))
    ratio = statistics.median(first / second for first, second in times)
    return dict(zip(COLUMNS, (count, round(alone, 2), round(together, 2), round(ratio, 2)), strict=True))


def main() -> None:
    """Measure all sizes and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("stacked.csv"), help="where the CSV goes")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rows = [measured(count) for count in SIZES]
    write_csv(out, COLUMNS, rows)
    print_table(COLUMNS, [[str(value) for value in row.values()] for row in rows])


if __name__ == "__main__":
    main()
