"""How often two losses are taken for one: `python -m benchmarks.false_merges`.

Draws and breeds losses, screens them, and files the fingerprints of those that pass, until 5,000 distinct ones have
been met. Where a loss has the fingerprint of a known one, the gradient fields of both are compared on probes that the
fingerprints have not seen: there they differ by more than the tolerance (a false merge), or they are one loss. Prints
the counts and writes the false merges as CSV (`--out`). Five core-minutes.
"""

import argparse
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from evoloss.baselines import BASELINES
from evoloss.config import load_space
from evoloss.duplicates import TOLERANCE, Fingerprints
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.probes import probes
from evoloss.screen import TOLD_APART, screen
from evoloss.tables import print_table
from evoloss.tree import Grammar, seeded

CLASSES = 10
BATCH = 32  # formulas in a call of the screens
UNSEEN = range(100, 104)  # seeds of probes; those of the fingerprints have 1
NEGLIGIBLE = 1e-9  # share of the length of a gradient field, below which a probe's direction is rounding


@dataclass(frozen=True)
class Merge:
    """Two losses with one fingerprint, and how far apart they are on unseen probes."""

    first: str
    second: str
    apart: float


@dataclass
class Census:
    """What was met."""

    screened: int = 0
    passed: int = 0
    merges: list[Merge] = field(default_factory=list)

    @property
    def false(self) -> list[Merge]:
        """Those that should not have been."""
        return [merge for merge in self.merges if merge.apart > TOLERANCE]

    @property
    def distinct(self) -> int:
        """Losses that passed, less those that are another in truth."""
        return self.passed - len(self.merges) + len(self.false)


def formulas(seed: int = 0) -> Iterator[Expression]:
    """Different formulas without end: random ones, and children of those and of the seeds of the space."""
    grammar = Grammar(load_space("hybrid"))
    known: set[str] = set()
    with seeded(seed):
        parents = [grammar.individual(Expression.parse(BASELINES[name].expression)) for name in grammar.space.seeds]
        while True:
            parents += [grammar.draw(random.randrange(1000)) for _ in range(20)]
            for tree in parents:
                tree.fitness.values = (0, random.random())
                tree.expression = Expression.parse("-y*log(p)")  # for the pedigree, which nobody reads
            children = [grammar.vary(parents) for _ in range(40)]
            for tree in parents[-20:] + children:
                try:
                    expression = grammar.expression(tree)
                except EvolossError:
                    continue
                if not expression.missing and expression.text not in known:
                    known.add(expression.text)
                    yield expression
            parents = random.sample(children, 30)


def take_census(losses: int, stream: Iterator[Expression]) -> Census:
    """Screen formulas and merge duplicates until so many distinct losses are known."""
    census, table = Census(), Fingerprints()
    while census.distinct < losses:
        batch = list(islice(stream, BATCH))
        census.screened += len(batch)
        for expression, verdict in zip(batch, screen(batch, CLASSES), strict=True):
            if verdict.fingerprint and census.distinct < losses:
                census.passed += 1
                if twin := table.find(verdict.fingerprint):
                    census.merges.append(Merge(twin, expression.text, apart(Expression(twin), expression)))
                else:
                    table.add(expression.text, verdict.fingerprint)
    return census


def apart(first: Expression, second: Expression) -> float:
    """The largest distance, over unseen probes, of the directions of two gradient fields or of their shares."""
    worst = 0.0
    for seed in UNSEEN:
        (one, one_shares), (other, other_shares) = (directions(loss, seed) for loss in (first, second))
        matters = torch.maximum(one_shares, other_shares) > NEGLIGIBLE
        worst = max(worst, ((one - other).norm(dim=1) * matters).max().item())
        worst = max(worst, (one_shares - other_shares).abs().max().item())
    return worst


def directions(expression: Expression, seed: int) -> tuple[Tensor, Tensor]:
    """The gradient on each probe, of length 1 [S, L], and the share [S] of its length in the length of all."""
    made = probes(CLASSES, TOLD_APART, seed)
    _, gradients = made.gradients(expression)
    parts = [gradients.get(name, torch.zeros_like(tensor)).flatten(1) for name, tensor in made.inputs.items()]
    fields = torch.cat(parts, 1).nan_to_num(0, 0, 0)
    lengths = fields.norm(dim=1)
    return fields / lengths.clamp_min(1e-300).unsqueeze(1), lengths / lengths.norm()


def main() -> None:
    """Print the counts and the false merges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=5_000, help="distinct losses to meet")
    parser.add_argument("--out", type=Path, default=Path("false_merges.csv"), help="the CSV file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    census = take_census(options.losses, formulas())
    counts = {
        "formulas screened": census.screened,
        "passed": census.passed,
        "distinct": census.distinct,
        "merged": len(census.merges),
        "falsely": len(census.false),
    }
    print_table(("", "losses"), [(name, f"{count:,}") for name, count in counts.items()])
    for merge in census.false:
        print(f"{merge.apart:.1e}  {merge.first}  |  {merge.second}")
    write_csv(options.out, ["first", "second", "apart"], [asdict(merge) for merge in census.false])


if __name__ == "__main__":
    main()
