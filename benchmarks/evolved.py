"""Forty losses that a search met: `evolved.csv`, and how it was made from the run.

`python -m benchmarks.evolved runs/fashion-mnist-hybrid-0` writes the file again. It takes the same number of every
family, as far as there are so many: the best of the family and, at even steps down its ranks, losses worse and worse.
All have passed the screens, and none has the gradients of another or of a hand-written loss. They stand in a file so
that what is measured on them does not change with the search.
"""

import argparse
import csv
import itertools
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from evoloss.archive import Archive
from evoloss.baselines import BASELINES
from evoloss.config import load_run
from evoloss.duplicates import Fingerprints
from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.records import Candidate

COUNT = 40
FILE = Path(__file__).with_suffix(".csv")
COLUMNS = ("name", "family", "generation", "expression")


def load() -> dict[str, Expression]:
    """The losses by name."""
    with FILE.open(encoding="utf-8", newline="") as lines:
        return {row["name"]: Expression(row["expression"]) for row in csv.DictReader(lines)}


def sample(candidates: Iterable[Candidate], count: int) -> list[Candidate]:
    """`count` of them, the families in turn; of each family its best and, evenly down its ranks, others."""
    families: dict[str, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: c.rank):
        families.setdefault(candidate.family, []).append(candidate)
    turns = itertools.zip_longest(*families.values())
    shares = [c.family for turn in turns for c in turn if c is not None][:count]
    return [c for family, members in sorted(families.items()) for c in _spread(members, shares.count(family))]


def _spread(members: list[Candidate], count: int) -> list[Candidate]:
    return [members[number * len(members) // count] for number in range(count)]


def _trained(run: Path, known: Fingerprints) -> Iterator[Candidate]:
    """The run's evolved losses that came to a training, without those whose gradients are known."""
    with closing(Archive(run / "archive.sqlite", load_run(run).data())) as archive:
        for candidate in archive.candidates():
            if candidate.rung >= 0 and not candidate.name and not known.find(candidate.fingerprint):
                known.add(candidate.key, candidate.fingerprint)
                yield candidate


def main() -> None:
    """Choose from the run that is given, and write the file."""
    from evoloss.screen import fingerprint

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="directory of a search, with its archive")
    run = parser.parse_args().run
    known = Fingerprints()
    for row in BASELINES.values():
        known.add(row.name, fingerprint(Expression.parse(row.expression), 10))
    chosen = sample(_trained(run, known), COUNT)
    named = [replace(c, name=f"evolved-{number:02}") for number, c in enumerate(chosen, 1)]
    write_csv(FILE, COLUMNS, [{column: getattr(c, column) for column in COLUMNS} for c in named])


if __name__ == "__main__":
    main()
