"""The family tree of a loss: who it descends from, back to the first generation."""

from collections.abc import Iterable, Mapping

from evoloss.records import Candidate


def ancestors(candidates: Iterable[Candidate], key: str) -> dict[str, Candidate]:
    """A loss and all that it descends from, by key, the oldest first."""
    known = {candidate.key: candidate for candidate in candidates}
    found: dict[str, Candidate] = {}
    waiting = [key]
    while waiting:
        current = known.get(waiting.pop())
        if current is not None and current.key not in found:
            found[current.key] = current
            waiting += current.parents
    return dict(sorted(found.items(), key=lambda item: (item[1].generation, not item[1].name, item[0])))


def lanes(tree: Mapping[str, Candidate], key: str) -> dict[str, int]:
    """Where to draw each ancestor across the generations: lines of first parents run straight, the loss's own in 0.

    The line of a second parent lies in the nearest lane that is free from its beginning to the child that it leads to.
    """
    placed: dict[str, int] = {}
    taken: dict[int, list[tuple[int, int]]] = {}
    waiting = [(key, 0, tree[key].generation)] if key in tree else []
    while waiting:
        start, near, until = waiting.pop(0)
        line = _first_parents(tree, start, placed)
        if not line:
            continue
        since = tree[line[-1]].generation
        lane = min(
            (
                lane
                for lane in range(near - len(tree), near + len(tree) + 1)
                if _free(taken.get(lane, []), since, until)
            ),
            key=lambda lane: (abs(lane - near), -lane),
        )
        taken.setdefault(lane, []).append((since, until))
        for member in line:
            placed[member] = lane
            waiting += [(parent, lane, tree[member].generation) for parent in tree[member].parents[1:]]
    return placed


def _first_parents(tree: Mapping[str, Candidate], key: str, placed: Mapping[str, int]) -> list[str]:
    line: list[str] = []
    while key in tree and key not in placed and key not in line:
        line.append(key)
        key = next(iter(tree[key].parents), "")
    return line


def _free(spans: Iterable[tuple[int, int]], since: int, until: int) -> bool:
    return all(until < start or end < since for start, end in spans)
