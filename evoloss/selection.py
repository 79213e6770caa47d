"""Who lives on, how parents are chosen, and who is trained on further seeds: a row of `SELECTIONS` a way to select.

`rank` sorts by lower bounds: elites, then newcomers, then the old population, of each niche the best; formulas are kept
short by a tournament with parsimony. `nsga2` keeps whole Pareto fronts of bound against complexity (Deb et al. 2002,
NSGA-II). In both, who reached a later rung ranks above who did not, whatever the scores: those of different rungs
cannot be compared.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from evoloss.config import Evolution, RunConfig
from evoloss.niches import cleared
from evoloss.ranking import Ranking, pareto_front, ranked
from evoloss.records import Candidate
from evoloss.tree import Choose, Individual, binary_tournament, fronts, tournament_with_parsimony

Candidates = Mapping[str, Candidate]
Rating = tuple[float, float]  # higher is better, compared in this order
LAST: Rating = (float("-inf"), 0.0)  # of a loss without a fitness
NEAR = 10  # times as many losses as there are elites: who is not among them by the bound is no leader by the mean


@dataclass(frozen=True)
class Selection:
    """One way to select.

    `survivors` makes the next population of the old one and the newcomers, `rate` gives each candidate the rating by
    which `choose` picks parents, and `leaders` names those whose further seeds tell the most: not more than there are
    elites, which bounds the cost.
    """

    survivors: Callable[[RunConfig, list[Individual], list[Individual], Candidates], list[Individual]]
    rate: Callable[[list[Candidate]], dict[str, Rating]]
    choose: Choose
    leaders: Callable[[Evolution, Iterable[Candidate]], list[Candidate]]

    def rate_parents(self, population: list[Individual], candidates: Candidates) -> None:
        """Give each tree the fitness by which parents are chosen."""
        ratings = self.rate([candidates[tree.expression.key] for tree in population])
        for tree in population:
            tree.fitness.values = ratings.get(tree.expression.key, LAST)


def by_mean(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those with a fitness, the later rung and then the higher mean first."""
    living = [candidate for candidate in candidates if candidate.fitness is not None]
    return sorted(living, key=lambda c: (-c.rung, -(c.fitness or 0.0), c.complexity, c.key))


# rank


def _elites_and_newcomers(
    config: RunConfig, population: list[Individual], newcomers: list[Individual], candidates: Candidates
) -> list[Individual]:
    """Elites by rank, then newcomers, best first; the old ones fill what they leave. Each is the best of its niche."""
    evolution = config.space.evolution
    keys = dict.fromkeys(tree.expression.key for tree in [*population, *newcomers])  # a set would differ in its order
    winners = cleared(ranked(candidates[key] for key in keys), evolution.niche)
    places = {winner.key: place for place, winner in enumerate(winners)}

    def best_first(trees: Iterable[Individual]) -> list[Individual]:
        living = [tree for tree in trees if tree.expression.key in places]
        return sorted(living, key=lambda tree: places[tree.expression.key])

    elites = best_first([*population, *newcomers])[: evolution.elites]
    chosen = {tree.expression.key: tree for tree in [*elites, *best_first(newcomers), *best_first(population)]}
    return list(chosen.values())[: config.population]


def _rate_by_bound(candidates: list[Candidate]) -> dict[str, Rating]:
    """The rung reached, then the lower bound."""
    ranking = Ranking(candidates)
    return {c.key: (c.rung, ranking.bound(c)) for c in candidates if c.fitness is not None}


def _best_by_mean(evolution: Evolution, candidates: Iterable[Candidate]) -> list[Candidate]:
    """The best by their means, each of a niche of its own; lucky ones among them, whom a further seed finds out."""
    distinct = cleared(ranked(candidates), evolution.niche)
    return by_mean(itertools.islice(distinct, NEAR * evolution.elites))[: evolution.elites]


# nsga2


def _best_fronts(
    config: RunConfig, population: list[Individual], newcomers: list[Individual], candidates: Candidates
) -> list[Individual]:
    """Old and new alike, front by front; of the front that does not fit as a whole, the least crowded."""
    trees = {tree.expression.key: tree for tree in [*population, *newcomers]}
    ratings = _rate_by_front([candidates[key] for key in trees])
    best = sorted(ratings, key=lambda key: ratings[key], reverse=True)
    return [trees[key] for key in best[: config.population]]


def _rate_by_front(candidates: list[Candidate]) -> dict[str, Rating]:
    """The number of the front, negated, then the crowding distance; the fronts of later rungs come first."""
    ranking = Ranking(candidates)
    living = [candidate for candidate in candidates if candidate.fitness is not None]
    ordered: list[dict[str, float]] = []
    for rung in sorted({candidate.rung for candidate in living}, reverse=True):
        level = [candidate for candidate in living if candidate.rung == rung]
        found = fronts([(ranking.bound(candidate), candidate.complexity) for candidate in level])
        ordered += [{level[place].key: distance for place, distance in front.items()} for front in found]
    return {key: (-number, distance) for number, front in enumerate(ordered) for key, distance in front.items()}


def _mean_and_front(evolution: Evolution, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Half of them, rounded up, the best by their means; then members of the Pareto front, fewest seeds first.

    So the places go round on the front, however long it is. What it leaves falls to the next by their means.
    """
    best = by_mean(candidates)
    front = sorted(pareto_front(best), key=lambda candidate: len(candidate.scores))
    chosen = {candidate.key: candidate for candidate in [*best[: -(-evolution.elites // 2)], *front, *best]}
    return list(chosen.values())[: evolution.elites]


SELECTIONS: dict[str, Selection] = {
    "rank": Selection(_elites_and_newcomers, _rate_by_bound, tournament_with_parsimony, _best_by_mean),
    "nsga2": Selection(_best_fronts, _rate_by_front, binary_tournament, _mean_and_front),
}
