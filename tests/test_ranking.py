from hypothesis import given
from hypothesis import strategies as st

from evoloss.ranking import Ranking, pareto_front
from evoloss.records import Candidate, Status


def candidate(key, scores, complexity=1, rung=1, **changes):
    return Candidate(key, key, complexity, "classification", rung=rung, scores=scores, **changes)


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
            {0: score, 1: score + 0.01} if more else {0: score},
            complexity,
            rung,
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
