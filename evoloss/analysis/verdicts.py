"""What can be said of a property: a verdict, and the evidence in words with numbers."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeAlias

Verdict = Literal["proved", "checked", "refuted", "does not apply"]
Answer: TypeAlias = tuple[Verdict, str]

RELATIVE = 1e-7  # differences of losses that are no rounding


def shown(value: Any, digits: int = 4) -> str:
    """A number for people."""
    return f"{float(value):.{digits}g}"


def vector(numbers: Iterable[Any], most: int = 4) -> str:
    """The first of many numbers."""
    values: Sequence[float] = [float(number) for number in numbers]
    begin = ", ".join(f"{value:.3g}" for value in values[:most])
    return f"({begin}{', ...' if len(values) > most else ''})"


def is_bounded(answer: Any) -> bool:
    """Of an answer to the claims "bounded" and "bounded slope"."""
    return bool(answer and answer["bounded"])
