import math
from typing import get_args

import pytest
import stubs
from hypothesis import given
from hypothesis import strategies as st

from evoloss.config import Evolution, RunConfig
from evoloss.expression import Expression
from evoloss.ranking import pareto_front
from evoloss.records import Candidate, Status
from evoloss.selection import SELECTIONS, by_mean
from evoloss.tree import Individual


def candidate(place, score, complexity=1, rung=1, seeds=1, status=Status.OK):
    text = f"cls({place}*p*y)"
    scores = dict.fromkeys(range(seeds), score)
    return Candidate(Expression(text).key, text, complexity, "", rung=rung, scores=scores, status=status)


def tree(of):
    grown = Individual([])
    grown.expression = Expression(of.expression)
    return grown


def surviving(name, old, new, size):
    """Whom a selection keeps of two lists of candidates."""
    config = stubs.config(population=size)
    candidates = {c.key: c for c in [*old, *new]}
    kept = SELECTIONS[name].survivors(config, [tree(c) for c in old], [tree(c) for c in new], candidates)
    return [candidates[individual.expression.key] for individual in kept]


MANY = [candidate(place, 0.5 + stubs.number(place) / 2, 1 + place % 7, place % 2) for place in range(30)]
DEAD = [candidate(30, 0.9, status=Status.DIVERGED), candidate(31, 0.0, seeds=0)]


def test_a_run_may_name_every_row():
    assert get_args(RunConfig.model_fields["selection"].annotation) == tuple(SELECTIONS)


@pytest.mark.parametrize("name", SELECTIONS)
def test_survivors_are_alive_distinct_and_as_many_as_the_population_holds(name):
    kept = surviving(name, MANY[:15], [*MANY[15:], *DEAD], 12)
    assert len({c.key for c in kept}) == len(kept) == 12
    assert all(c.fitness is not None for c in kept)
    assert len(surviving(name, MANY[:3], DEAD, 12)) == 3


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_best_always_survives(name):
    best = by_mean(MANY)[0]
    assert best in surviving(name, MANY, [], 2)
    assert best in surviving(name, [best], [c for c in MANY if c is not best], 2)


@pytest.mark.parametrize("name", SELECTIONS)
def test_who_reached_a_later_rung_is_rated_above_who_did_not(name):
    ratings = SELECTIONS[name].rate([*MANY, *DEAD])
    assert set(ratings) == {c.key for c in MANY}
    low, high = ([ratings[c.key] for c in MANY if c.rung == rung] for rung in (0, 1))
    assert max(low) < min(high)


@pytest.mark.parametrize("name", SELECTIONS)
def test_parents_are_rated_and_the_dead_come_last(name):
    candidates = {c.key: c for c in [*MANY, *DEAD]}
    population = [tree(c) for c in candidates.values()]
    SELECTIONS[name].rate_parents(population, candidates)
    fitness = {individual.expression.key: individual.fitness for individual in population}
    assert max(fitness[c.key] for c in DEAD) < min(fitness[c.key] for c in MANY)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("places", [1, 2, 4, 100])
def test_leaders_are_distinct_and_the_best_by_the_mean_is_among_them(name, places):
    leaders = SELECTIONS[name].leaders(Evolution(population=100, elites=places), [*DEAD, *MANY])
    assert len({c.key for c in leaders}) == len(leaders) == min(places, len(MANY))
    assert leaders[0] == by_mean(MANY)[0]


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_order_of_candidates_does_not_matter(name):
    assert SELECTIONS[name].rate(MANY) == SELECTIONS[name].rate(MANY[::-1])
    assert surviving(name, MANY, [], 9) == surviving(name, MANY[::-1], [], 9)
    five = Evolution(elites=5)
    assert SELECTIONS[name].leaders(five, MANY) == SELECTIONS[name].leaders(five, MANY[::-1])


def test_rank_prefers_newcomers_to_the_old_that_are_no_elites():
    old, new = MANY[1:21:2], MANY[21::2]
    elites = stubs.config().space.evolution.elites
    kept = surviving("rank", old, new, elites + len(new))
    assert {c.key for c in new} <= {c.key for c in kept}
    assert kept[:elites] == by_mean([*old, *new])[:elites]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(0, 1)), min_size=1, max_size=20))
def test_nsga2_keeps_whole_fronts(rows):
    """A survivor is never dominated by one of its rung that was not kept."""
    candidates = [candidate(place, score / 10, size, rung) for place, (score, size, rung) in enumerate(rows)]
    kept = surviving("nsga2", candidates, [], 5)
    lost = [c for c in candidates if c not in kept]
    for survivor in kept:
        for other in lost:
            better = other.fitness >= survivor.fitness and other.complexity <= survivor.complexity
            same = (other.fitness, other.complexity) == (survivor.fitness, survivor.complexity)
            assert other.rung <= survivor.rung
            assert other.rung < survivor.rung or same or not better


def test_nsga2_keeps_the_front_where_there_is_room():
    kept = surviving("nsga2", MANY, [], 12)
    front = pareto_front(MANY)
    assert 1 < len(front) < 12
    assert {c.key for c in front} <= {c.key for c in kept}


def test_further_seeds_go_round_on_the_front():
    """However long the front, each member is met before any is met twice; the best has a place of its own."""
    candidates = [candidate(place, 0.5 + place / 100, place) for place in range(1, 8)]
    for _ in range(6):
        best, other = SELECTIONS["nsga2"].leaders(Evolution(elites=2), candidates)
        assert best is candidates[-1]
        other.scores[len(other.scores)] = other.scores[0]
    assert [len(c.scores) for c in candidates] == [2] * 6 + [1]


# rank


class Known(dict):
    """Candidates by key; `enter` adds one with its scores by seed and gives its tree."""

    def enter(self, name, *scores, rung=1, status=Status.OK):
        tree = Individual([])
        tree.expression = Expression(name)
        scores = dict(enumerate(scores))
        self[tree.expression.key] = Candidate(tree.expression.key, name, 5, "", status=status, rung=rung, scores=scores)
        return tree


def names(trees):
    return [tree.expression.text for tree in trees]


def surviving_trees(known, old, new, size):
    """Of the smoke space, which has two elites."""
    return names(SELECTIONS["rank"].survivors(stubs.config(population=size), old, new, known))


def test_elites_then_newcomers_then_the_old():
    known = Known()
    old = [known.enter(f"old{n}", 0.9 - n / 100) for n in range(4)]
    new = [known.enter("new0", 0.5), known.enter("new1", 0.885), known.enter("new2", 0.6)]
    assert surviving_trees(known, old, new, 6) == ["old0", "old1", "new1", "new2", "new0", "old2"]
    assert surviving_trees(known, old, new, 3) == ["old0", "old1", "new1"]


def test_a_newcomer_can_be_an_elite_and_stands_once():
    known = Known()
    assert surviving_trees(known, [known.enter("old", 0.5)], [known.enter("new", 0.6)], 5) == ["new", "old"]


def test_the_dead_do_not_live_on():
    known = Known()
    old = [known.enter("diverged", 0.9, 0.9, status=Status.DIVERGED), known.enter("alive", 0.1)]
    assert surviving_trees(known, old, [known.enter("untrained")], 5) == ["alive"]


def test_a_lucky_seed_makes_no_elite():
    """Seed 0 was an easy one: `lucky` has .88 on it, where the others, who have met a hard one too, had .90."""
    known = Known()
    old = [known.enter("a", 0.90, 0.80), known.enter("b", 0.904, 0.794)]
    assert surviving_trees(known, old, [known.enter("lucky", 0.88)], 2) == ["a", "b"]


def test_of_a_niche_the_best_lives_on_and_gets_further_seeds():
    known = Known()
    trees = [known.enter("twin", 0.89, 0.91), known.enter("best", 0.92, 0.9), known.enter("other", 0.7)]
    for tree, field in zip(trees, [(1.0, 0.1), (2.0, 0.0), (0.0, 1.0)], strict=True):
        known[tree.expression.key].fingerprint = field
    assert surviving_trees(known, trees[:2], trees[2:], 5) == ["best", "other"]
    assert surviving_trees(known, trees[1:], trees[:1], 5) == ["best", "other"]
    leaders = SELECTIONS["rank"].leaders(Evolution(elites=2), known.values())
    assert [candidate.expression for candidate in leaders] == ["best", "other"]


def test_parents_are_rated_by_rung_and_then_by_the_bound():
    known = Known()
    population = [
        known.enter("dead", 0.99, status=Status.DIVERGED),
        known.enter("low", 0.99, rung=0),
        known.enter("new", 0.885),
        known.enter("second", 0.88, 0.88, 0.88),
        known.enter("leader", 0.90, 0.88, 0.89),
    ]
    SELECTIONS["rank"].rate_parents(population, known)
    order = sorted(population, key=lambda tree: tree.fitness, reverse=True)
    assert names(order) == ["leader", "second", "new", "low", "dead"]
    assert order[-1].fitness.values[0] == -math.inf
