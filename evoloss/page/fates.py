"""Where the formulas of a search ended, and of what: from the first check to the playoff."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from evoloss.records import Candidate, Generation, Status

SCREENS = {
    "finite": "value or gradient not finite",
    "flat": "no gradient",
    "learns": "no model learns from it",
    "sign": "wrong sign, takes part negated",
}


@dataclass(frozen=True)
class Fate:
    """One way to end: at which stage, of what, how many; `alive` for losses that have a score."""

    stage: str
    cause: str
    count: int
    alive: bool = False


def fates(candidates: Sequence[Candidate], generations: Iterable[Generation]) -> list[Fate]:
    """All ways in which formulas ended, in the order of the stages; hand-written losses count as well.

    What has no canonical form, or sees no prediction or no target, is not kept: its number is what the generations
    have rejected less what was kept of it.
    """
    last = max((candidate.rung for candidate in candidates), default=-1)
    ended = Counter(_fate(candidate, last) for candidate in candidates)
    kept = sum(count for (stage, cause), count in ended.items() if stage == "screens" and cause != SCREENS["sign"])
    lost = sum(row.rejected for row in generations) - kept
    if lost > 0:
        ended["grammar", "no canonical form, no prediction or no target"] = lost
    ordered = sorted(
        ended.items(), key=lambda item: (_STAGES.index(item[0][0].partition(" ")[0]), item[0][0], -item[1])
    )
    return [Fate(stage, cause, count, cause in _ALIVE) for (stage, cause), count in ordered]


def _fate(candidate: Candidate, last: int) -> tuple[str, str]:
    if candidate.status is Status.OK:
        end = _ALIVE[candidate.rung == last]
        return (f"rung {candidate.rung + 1}", end) if candidate.rung >= 0 else ("screens", "not trained")
    if candidate.status is Status.DUPLICATE:
        same = "the same scores as a known loss" if candidate.scores else "the same gradients as a known loss"
        return "duplicates", same
    if candidate.rung < 0:
        cause = candidate.detail.partition(":")[0]
        return "screens", SCREENS.get(cause, cause or str(candidate.status))
    return f"rung {candidate.rung + 1}", str(candidate.status)


_STAGES = ("grammar", "screens", "duplicates", "rung")
_ALIVE = ("went no further", "was trained at the last rung")
