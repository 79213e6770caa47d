import stubs

from evoloss.expression import Expression
from evoloss.records import Candidate, Status
from evoloss.selection import rate_parents, survivors
from evoloss.tree import Individual


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


def surviving(known, old, new, size):
    """Of the smoke space, which has two elites."""
    return names(survivors(stubs.config(population=size), old, new, known))


def test_elites_then_newcomers_then_the_old():
    known = Known()
    old = [known.enter(f"old{n}", 0.9 - n / 100) for n in range(4)]
    new = [known.enter("new0", 0.5), known.enter("new1", 0.885), known.enter("new2", 0.6)]
    assert surviving(known, old, new, 6) == ["old0", "old1", "new1", "new2", "new0", "old2"]
    assert surviving(known, old, new, 3) == ["old0", "old1", "new1"]


def test_a_newcomer_can_be_an_elite_and_stands_once():
    known = Known()
    assert surviving(known, [known.enter("old", 0.5)], [known.enter("new", 0.6)], 5) == ["new", "old"]


def test_the_dead_do_not_live_on():
    known = Known()
    old = [known.enter("diverged", 0.9, 0.9, status=Status.DIVERGED), known.enter("alive", 0.1)]
    assert surviving(known, old, [known.enter("untrained")], 5) == ["alive"]


def test_a_lucky_seed_makes_no_elite():
    """Seed 0 was an easy one: `lucky` has .88 on it, where the others, who have met a hard one too, had .90."""
    known = Known()
    old = [known.enter("a", 0.90, 0.80), known.enter("b", 0.904, 0.794)]
    assert surviving(known, old, [known.enter("lucky", 0.88)], 2) == ["a", "b"]


def test_parents_are_rated_by_rung_and_then_by_the_bound():
    known = Known()
    population = [
        known.enter("dead", 0.99, status=Status.DIVERGED),
        known.enter("low", 0.99, rung=0),
        known.enter("new", 0.885),
        known.enter("second", 0.88, 0.88, 0.88),
        known.enter("leader", 0.90, 0.88, 0.89),
    ]
    rate_parents(population, known)
    order = sorted(population, key=lambda tree: tree.fitness, reverse=True)
    assert names(order) == ["leader", "second", "new", "low", "dead"]
    assert order[-1].fitness.values == (-1, 0)
