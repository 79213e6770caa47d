"""Trees as a search meets them, without a training: drawn, then bred generation by generation.

Parents are those that pass the screens and equal no earlier one, the youngest first, as many as a population has; the
hand-written losses of the space are among the first. Which of them breed is left to chance and parsimony, in the place
of a fitness. So a stream follows from a space, the screens and a seed alone.
"""

import itertools
import random
from collections.abc import Iterable, Iterator

from evoloss.census import Census
from evoloss.config import RunConfig
from evoloss.newcomers import INITIAL_ROUNDS, Evaluate, Member, Newcomers, due, seeds
from evoloss.records import derive_seed
from evoloss.tree import Grammar, Individual, seeded


def generations(config: RunConfig, evaluate: Evaluate) -> Iterator[list[Individual]]:
    """Generations of trees, without end. The first one is as large as it takes to fill a population."""
    grammar = Grammar(config.space)
    newcomers = Newcomers(config, grammar, Census(), evaluate)
    parents = _trees(newcomers.screened(seeds(config, grammar), 0))
    drawn: list[Individual] = []
    for turn in range(INITIAL_ROUNDS):
        with seeded(derive_seed(config.seed, "stream, drawn", turn)):
            trees = [grammar.draw(place) for place in range(config.population)]
        drawn += trees
        parents += _sound(newcomers, trees)
        if len(parents) >= config.population:
            break
    yield drawn
    for number in itertools.count(1):
        with seeded(derive_seed(config.seed, "stream, bred", number)):
            for tree in parents:
                tree.fitness.values = (0.0, random.random())
            brood = [grammar.vary(parents) for _ in range(due(config, 1))]
        yield brood
        parents = [*_sound(newcomers, brood), *parents][: config.population]


def _sound(newcomers: Newcomers, trees: Iterable[Individual]) -> list[Individual]:
    """Those that may breed; one that learns with the other sign is negated."""
    members = [member for tree in trees if (member := newcomers.member(tree, 0)) and newcomers.is_new(member)]
    return _trees(newcomers.screened(members, 0))


def _trees(members: Iterable[Member]) -> list[Individual]:
    return [member.tree for member in members if member.tree is not None]
