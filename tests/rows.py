"""Which hand-written losses are tried with how many classes."""

from evoloss.baselines import BASELINES


def sized(*counts):
    """(name, number of classes) of every row: each of `counts`, or the one that the row is defined for."""
    return [
        (name, count) for name, row in BASELINES.items() for count in ([row.classes] if row.classes else list(counts))
    ]
