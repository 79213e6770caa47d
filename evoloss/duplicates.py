"""Is this loss known? Two losses are the same if their gradient fields agree up to a positive factor.

Fields are compared on probes, before a training. Formulas that differ there and nowhere that a training goes, as
`tanh(max(y, y*d))` and `y` do once all distances are large, are found out by their scores: they are echoes.
"""

import math
from collections.abc import Iterable, Iterator

from evoloss.records import Candidate

TOLERANCE = (
    1e-6  # in any number of two fingerprints; equal losses differ by 1e-9, `ce + 0.001*y*p**2` from `ce` by 1e-4
)

ECHO_SEEDS = 3  # that two losses must score the same on; by chance two good ones tie on a seed in one case of a hundred

Fingerprint = tuple[float, ...]


class Fingerprints:
    """The fingerprints of all losses met so far, each with its key.

    They are filed by their sums: those of two equal losses differ by at most the tolerance times the count of numbers,
    so that they lie in the same cell or in neighboring ones, and a loss is compared with few of those that are known.
    """

    def __init__(self) -> None:
        self._cells: dict[int, list[tuple[int, str, Fingerprint]]] = {}
        self._count = 0

    def add(self, key: str, fingerprint: Fingerprint) -> None:
        """Remember a loss."""
        self._cells.setdefault(_cell(fingerprint), []).append((self._count, key, fingerprint))
        self._count += 1

    def find(self, fingerprint: Fingerprint) -> str | None:
        """The key of the nearest known loss with this gradient field, of equally near ones the first."""
        known = ((_apart(numbers, fingerprint), place, key) for place, key, numbers in self._near(fingerprint))
        apart, _, key = min(known, default=(math.inf, 0, ""))
        return key if apart <= TOLERANCE else None

    def _near(self, fingerprint: Fingerprint) -> Iterator[tuple[int, str, Fingerprint]]:
        cell = _cell(fingerprint)
        for neighbor in (cell - 1, cell, cell + 1):
            yield from self._cells.get(neighbor, ())


def _cell(fingerprint: Fingerprint) -> int:
    """Cells are twice as wide as the sums of equal losses lie apart: rounding can not carry one past a neighbor."""
    return math.floor(math.fsum(fingerprint) / (2 * TOLERANCE * len(fingerprint)))


def _apart(one: Fingerprint, other: Fingerprint) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def echoes(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Losses that score as another does on the first three seeds, at the same rung: key to key.

    The other is a hand-written loss if there is one, else the smallest formula. Hand-written losses are never echoes.
    """
    # A long search has some dozens of several seeds among 100,000: those alone are sorted.
    seeded = [c for c in candidates if len(c.scores) >= ECHO_SEEDS and c.fitness is not None]
    originals: dict[tuple[float, ...], Candidate] = {}
    found: dict[str, str] = {}
    for candidate in sorted(seeded, key=lambda c: (not c.name, c.complexity, c.key)):
        scores = (candidate.rung, *(candidate.scores[seed] for seed in range(ECHO_SEEDS)))
        original = originals.setdefault(scores, candidate)
        if original is not candidate and not candidate.name:
            found[candidate.key] = original.key
    return found
