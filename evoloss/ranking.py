"""Who is better, as far as the noise between seeds allows to say: by a lower bound, not by the mean of lucky seeds."""

import math
import statistics
from collections.abc import Iterable

from evoloss.records import Candidate

CAUTION = 1.0  # standard errors between a mean and the bound that ranks it


class Ranking:
    """Ranks candidates by `mean - noise / sqrt(n)` of their n scores, each freed of what its seed adds for all losses.

    Seeds differ in their samples and initial weights, which moves the scores of all losses alike: a loss that has only
    met an easy seed would outrank one that has met five. Both the effect of a seed and the noise (the standard
    deviation that is left) are estimated from the candidates with several seeds.
    """

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        known = [c for c in candidates if c.fitness is not None and len(c.scores) > 1]
        self.effects = _effects(known)
        self.noise = _noise(known, self.effects)

    def bound(self, candidate: Candidate) -> float:
        """The lower confidence bound of a candidate's fitness; minus infinity without one."""
        if candidate.fitness is None:
            return -math.inf
        mean = statistics.fmean(_freed(candidate, self.effects))
        return mean - CAUTION * self.noise / math.sqrt(len(candidate.scores))

    def place(self, candidate: Candidate) -> tuple[int, float, int, str]:
        """Sorts the best first: later rung, higher bound, smaller formula; the key breaks ties."""
        return -candidate.rung, -self.bound(candidate), candidate.complexity, candidate.key


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that have a fitness, best first."""
    living = [candidate for candidate in candidates if candidate.fitness is not None]
    return sorted(living, key=Ranking(living).place)


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those of the last rung that no other dominates, by a higher bound or a smaller formula, the smallest first."""
    living = [candidate for candidate in candidates if candidate.fitness is not None]
    ranking = Ranking(living)
    last = max((candidate.rung for candidate in living), default=0)
    points = {c.key: (-c.complexity, ranking.bound(c)) for c in living}
    front: list[Candidate] = []
    for candidate in sorted(living, key=lambda c: (points[c.key], c.key), reverse=True):
        point = points[candidate.key]
        best = points[front[-1].key] if front else None
        if candidate.rung == last and (best is None or point[1] > best[1] or point == best):
            front.append(candidate)
    return front


def _effects(candidates: list[Candidate]) -> dict[int, float]:
    """What each seed adds: its mean difference to the losses' own means, over those that have met the most seeds."""
    most = max((len(c.scores) for c in candidates), default=0)
    full = [c for c in candidates if len(c.scores) == most]
    return {seed: statistics.fmean(c.scores[seed] - (c.fitness or 0.0) for c in full) for seed in range(most)}


def _noise(candidates: list[Candidate], effects: dict[int, float]) -> float:
    squares, freedom = 0.0, -max(len(effects) - 1, 0)  # the effects were fitted to the same scores
    for candidate in candidates:
        scores = _freed(candidate, effects)
        squares += statistics.variance(scores) * (len(scores) - 1)
        freedom += len(scores) - 1
    return math.sqrt(squares / freedom) if freedom > 0 else 0.0


def _freed(candidate: Candidate, effects: dict[int, float]) -> list[float]:
    return [score - effects.get(seed, 0.0) for seed, score in candidate.scores.items()]
