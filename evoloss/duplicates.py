"""Is this loss known? Two losses are the same if their gradient fields agree up to a positive factor."""

import math
from collections.abc import Iterator

TOLERANCE = (
    1e-6  # in any number of two fingerprints; equal losses differ by 1e-9, `ce + 0.001*y*p**2` from `ce` by 1e-4
)

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
