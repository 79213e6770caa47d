"""Losses that are one in disguise: of each niche only the best breeds and is shown.

Formulas that differ in a constant, or in a term that does nothing where a training goes, would fill a population and a
hall of fame: of the first 20 losses that a search on Fashion-MNIST found, 19 were one, with other tails.

Two losses share a niche if they teach nearly the same, by their gradient fields on the probes, and the same comes of
it. Neither is enough alone: cross-entropy and label smoothing, or cross-entropy plus a hundredth of the mean distance
of pairs, have fields with a cosine of .999 and accuracies that lie .006 apart.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from evoloss.ranking import Ranking
from evoloss.records import Candidate


def cleared(
    candidates: Sequence[Candidate], niche: float, spared: Callable[[Candidate], object] = lambda c: c.name
) -> Iterator[Candidate]:
    """Of candidates, the best first, those that share no niche with a better one.

    Clearing (Pétrowski 1996): the best of a niche takes it all. Fields are close from a cosine of `niche` on; scores,
    if their mean difference on the seeds that both have met is within the noise of one seed. Who is `spared`, as by
    default hand-written losses are, is let through in any case, and takes its niche from those that follow.
    """
    noise = Ranking(candidates).noise
    winners: list[Candidate] = []
    fields = np.empty((0, 0))  # [winners, and room for more; numbers], each of length 1
    for candidate in candidates:
        if candidate.fingerprint:
            field = np.array(candidate.fingerprint)
            field /= np.linalg.norm(field) or 1.0
            if winners and not spared(candidate):
                close = np.flatnonzero(fields[: len(winners)] @ field >= niche)
                if any(_ends_alike(candidate, winners[place], noise) for place in close):
                    continue
            if len(winners) == len(fields):
                fields = np.concatenate([fields.reshape(-1, len(field)), np.zeros((len(fields) + 64, len(field)))])
            fields[len(winners)] = field
            winners.append(candidate)
        yield candidate


def _ends_alike(one: Candidate, other: Candidate, noise: float) -> bool:
    shared = one.scores.keys() & other.scores.keys()
    if one.rung != other.rung or not shared:
        return False
    return abs(sum(one.scores[seed] - other.scores[seed] for seed in shared)) <= noise * len(shared)
