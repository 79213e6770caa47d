"""Who lives on: elites, then newcomers, then the old population."""

from collections.abc import Iterable, Mapping

from evoloss.config import RunConfig
from evoloss.ranking import Ranking
from evoloss.records import Candidate
from evoloss.tree import Individual


def survivors(
    config: RunConfig, population: list[Individual], newcomers: list[Individual], candidates: Mapping[str, Candidate]
) -> list[Individual]:
    """The next population: elites by rank, then the newcomers, best first; the old ones fill what they leave."""

    def candidate(tree: Individual) -> Candidate:
        return candidates[tree.expression.key]

    alive = [tree for tree in [*population, *newcomers] if candidate(tree).fitness is not None]
    ranking = Ranking(map(candidate, alive))

    def best_first(trees: Iterable[Individual]) -> list[Individual]:
        living = [tree for tree in trees if candidate(tree).fitness is not None]
        return sorted(living, key=lambda tree: ranking.place(candidate(tree)))

    elites = best_first(alive)[: config.space.evolution.elites]
    chosen = {tree.expression.key: tree for tree in [*elites, *best_first(newcomers), *best_first(population)]}
    return list(chosen.values())[: config.population]


def rate_parents(population: list[Individual], candidates: Mapping[str, Candidate]) -> None:
    """Give each tree the fitness by which parents are chosen: the rung that it reached, then its lower bound."""
    ranking = Ranking(candidates[tree.expression.key] for tree in population)
    for tree in population:
        candidate = candidates[tree.expression.key]
        bound = ranking.bound(candidate)
        tree.fitness.values = (-1, 0) if candidate.fitness is None else (candidate.rung, bound)
