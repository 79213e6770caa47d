import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.ranking import Ranking, pareto_front, ranked
from evoloss.records import Candidate, Status


def candidate(key, *scores, rung=1, complexity=5, status=Status.OK):
    return Candidate(key, key, complexity, "classification", status=status, rung=rung, scores=dict(enumerate(scores)))


def keys(candidates):
    return [c.key for c in ranked(candidates)]


def test_golden_bounds():
    """By hand: means 2, 4 and 6; effects -1/3, 0 and 1/3 of what the seeds differ in; residuals +-1/3, 0, 2/3.

    a - effects - mean:  1 + 1/3 - 2 = -2/3, 2 - 2 = 0, 3 - 1/3 - 2 = 2/3
    b:                   4 + 1/3 - 4 = 1/3, 0, -1/3
    c:                   6 + 1/3 - 6 = 1/3, 0, -1/3
    Squares: 8/9 + 2/9 + 2/9 = 4/3, over (3 - 1)(3 - 1) = 4 degrees of freedom: the noise is sqrt(1/3).
    """
    a, b, c = candidate("a", 1, 2, 3), candidate("b", 4, 4, 4), candidate("c", 6, 6, 6)
    ranking = Ranking([a, b, c])
    assert ranking.effects == pytest.approx({0: -1 / 3, 1: 0, 2: 1 / 3})
    assert ranking.noise == pytest.approx(math.sqrt(1 / 3))
    assert ranking.bound(b) == pytest.approx(4 - math.sqrt(1 / 3) / math.sqrt(3))
    new = candidate("new", 4)
    assert ranking.bound(new) == pytest.approx(4 + 1 / 3 - math.sqrt(1 / 3))


def test_a_loss_that_met_an_easy_seed_is_not_better_for_it():
    """Seed 0 adds .1 for everybody: a single score of .95 is worth less than a mean of .90."""
    leaders = [candidate(f"l{n}", 1.0 + n / 1000, 0.9 + n / 1000, 0.8 + n / 1000) for n in range(3)]
    lucky = candidate("lucky", 0.95)
    assert keys([lucky, *leaders]) == ["l2", "l1", "l0", "lucky"]


NOISE = 0.003  # of each score, around the means of the leaders below
LEADERS = [
    candidate("leader", 0.880 + NOISE, 0.880 - NOISE, 0.880 + NOISE, 0.880 - NOISE, 0.880),
    candidate("second", 0.870 - NOISE, 0.870 + NOISE, 0.870 - NOISE, 0.870 + NOISE, 0.870),
]


def test_a_newcomer_outranks_a_leader_of_five_seeds_only_by_more_than_the_noise_allows():
    """Squares: 8 * NOISE**2, over (2 - 1)(5 - 1) degrees of freedom. The lead has to exceed noise * (1 - 1/sqrt(5))."""
    noise = NOISE * math.sqrt(2)
    assert Ranking(LEADERS).noise == pytest.approx(noise)
    needed = noise * (1 - 1 / math.sqrt(5))
    for lead, first in ((0.0001, "leader"), (0.95 * needed, "leader"), (1.05 * needed, "newcomer")):
        assert keys([candidate("newcomer", 0.880 + lead), *LEADERS])[0] == first


SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=5)


@given(st.lists(SCORES, min_size=1, max_size=8), st.integers(0, 4), st.floats(-1, 1))
def test_what_a_seed_adds_for_all_changes_no_difference(rows, seed, added):
    def bounds(lists):
        candidates = [candidate(str(number), *scores) for number, scores in enumerate(lists)]
        ranking = Ranking(candidates)
        return [ranking.bound(c) for c in candidates], ranking.noise

    moved = [[score + added * (place == seed) for place, score in enumerate(scores)] for scores in rows]
    (before, noise), (after, same) = bounds(rows), bounds(moved)
    if seed == 0 or any(len(scores) > seed for scores in rows):
        assert same == pytest.approx(noise, abs=1e-6)
        assert [b - before[0] for b in before] == pytest.approx([a - after[0] for a in after], abs=1e-6)


def test_the_noise_is_that_of_the_scores_after_the_effects():
    """Simulated once: 400 losses, 5 seeds, noise .01 under effects of .1."""
    draw = random.Random(0)
    effects = [draw.gauss(0, 0.1) for _ in range(5)]
    losses = [candidate(str(n), *(n / 1000 + e + draw.gauss(0, 0.01) for e in effects)) for n in range(400)]
    assert Ranking(losses).noise == pytest.approx(0.01, rel=0.05)
    few = [Ranking(losses[start : start + 2]).noise ** 2 for start in range(0, 400, 2)]
    assert sum(few) / len(few) == pytest.approx(1e-4, rel=0.1)  # also where two losses have to tell both


def test_one_loss_alone_tells_no_effect_from_noise():
    assert Ranking([candidate("a", 0.5, 0.7, 0.9), candidate("b", 0.6)]).noise == 0


def test_without_further_seeds_the_scores_decide():
    assert keys([candidate("a", 0.1), candidate("b", 0.3), candidate("c", 0.2)]) == ["b", "c", "a"]


def test_rungs_come_first_and_small_formulas_before_equal_ones():
    candidates = [
        candidate("long", 0.5, complexity=9),
        candidate("short", 0.5, complexity=3),
        candidate("best of the lowest", 0.9, rung=0),
        candidate("failed", 0.9, status=Status.DIVERGED),
        candidate("untrained"),
        candidate("b", 0.4),
        candidate("a", 0.4),
    ]
    assert keys(candidates) == ["short", "long", "a", "b", "best of the lowest"]
    assert Ranking(candidates).bound(candidates[3]) == -math.inf


def test_gains_are_ranked_as_accuracies_are():
    """The reference's is 0 on every seed."""
    reference = candidate("ce", 0.0, 0.0, 0.0)
    found = [candidate("better", 0.014, 0.006, 0.010), candidate("worse", -0.011, -0.010, -0.009)]
    assert keys([found[1], reference, found[0]]) == ["better", "ce", "worse"]


crowds = st.lists(
    st.builds(
        lambda score, more, complexity, rung, dead: (score, more, complexity, rung, dead),
        st.sampled_from([0.5, 0.6, 0.7]),
        st.booleans(),
        st.integers(1, 4),
        st.integers(0, 1),
        st.integers(0, 9).map(lambda number: number == 0),
    ),
    max_size=12,
)


def crowd(rows):
    """Candidates with scores that tie often, some of two seeds, on two rungs, some without a fitness."""
    return [
        candidate(
            f"k{place}",
            *([score, score + 0.01] if more else [score]),
            complexity=complexity,
            rung=rung,
            status=Status.DIVERGED if dead else Status.OK,
        )
        for place, (score, more, complexity, rung, dead) in enumerate(rows)
    ]


@given(crowds)
def test_the_front_is_what_no_other_dominates(rows):
    candidates = crowd(rows)
    living = [c for c in candidates if c.fitness is not None]
    ranking = Ranking(living)
    last = max((c.rung for c in living), default=0)
    finished = [c for c in living if c.rung == last]

    def dominates(a, b):
        first, second = (ranking.bound(a), -a.complexity), (ranking.bound(b), -b.complexity)
        return first != second and all(x >= y for x, y in zip(first, second, strict=True))

    front = pareto_front(candidates)
    assert {c.key for c in front} == {c.key for c in finished if not any(dominates(o, c) for o in finished)}
    assert [c.complexity for c in front] == sorted(c.complexity for c in front)
    assert [ranking.bound(c) for c in front] == sorted(ranking.bound(c) for c in front)


def test_the_front_of_nothing_is_empty():
    assert pareto_front([]) == []
