import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.config import Evolution
from evoloss.expression import Expression
from evoloss.niches import cleared
from evoloss.ranking import Ranking
from evoloss.records import Candidate
from evoloss.screen import fingerprint

NICHE = Evolution().niche


def candidate(place, field, *scores, name="", rung=1):
    return Candidate(str(place), "", 1, "", name, fingerprint=tuple(field), rung=rung, scores=dict(enumerate(scores)))


def cosine(one, other):
    a, b = (np.array(c.fingerprint) for c in (one, other))
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


NUMBERS = st.integers(-3, 3).map(float)
SCORES = st.lists(st.integers(0, 9).map(lambda n: n / 100), min_size=1, max_size=3)
ROWS = st.lists(st.tuples(st.lists(NUMBERS, min_size=3, max_size=3).filter(any), SCORES, st.booleans()), max_size=150)


@given(ROWS)
def test_who_is_cleared_is_one_with_a_better_one_that_is_not(rows):
    candidates = [
        candidate(place, field, *scores, name="seed" if named else "")
        for place, (field, scores, named) in enumerate(rows)
    ]
    noise = Ranking(candidates).noise

    def alike(one, other, slack):
        shared = one.scores.keys() & other.scores.keys()
        apart = abs(np.mean([one.scores[seed] - other.scores[seed] for seed in shared]))
        return cosine(one, other) >= 0.9 - slack and apart <= noise + slack

    kept = list(cleared(candidates, 0.9))
    assert kept == [c for c in candidates if c in kept]
    for place, one in enumerate(candidates):
        better = [other for other in candidates[:place] if other in kept]
        if one not in kept:
            assert any(alike(one, other, 1e-9) for other in better)
        elif not one.name:
            assert not any(alike(one, other, -1e-9) for other in better)


def test_a_niche_above_one_is_none():
    candidates = [candidate(place, (1.0, 2.0), 0.5) for place in range(3)]
    assert list(cleared(candidates, 1.01)) == candidates


def test_who_has_no_field_or_is_spared_is_let_through():
    fields = [(), (0.0, 2.0), (), (0.0, 1.0)]
    candidates = [candidate(place, field, 0.5) for place, field in enumerate(fields)]
    assert list(cleared(candidates, NICHE)) == candidates[:3]
    assert list(cleared(candidates, NICHE, lambda c: c.key == "3")) == candidates


def test_who_scores_otherwise_is_another_loss():
    """If by more than the noise of a seed, on the seeds that both have met; at another rung scores tell nothing."""
    best = candidate(0, (1.0, 0.0), 0.80, 0.82)
    noisy = candidate(1, (0.0, 1.0), 0.72, 0.70)
    same, worse = candidate(2, (1.0, 0.01), 0.79), candidate(3, (1.0, 0.01), 0.7)
    lower = candidate(4, (1.0, 0.01), 0.79, rung=0)
    candidates = [best, noisy, same, worse, lower]
    assert 0.01 < Ranking(candidates).noise < 0.03
    assert list(cleared(candidates, NICHE)) == [best, noisy, worse, lower]


# From the first 20 of a search on Fashion-MNIST (evoloss 0.5.0, 50 generations), and losses that must stay apart.
PAIRS = {
    "another tail": ("exp(5.77 - p*(y + 1.85)) - cos(0.99*d)", "exp(5.77 - p*(y + 1.85)) - cos(max(d, p) - 0.1)", True),
    "another constant": ("exp(5.77 - p*(y + 1.4)) - cos(max(d, p))", "exp(5.77 - p*(y + 1.24)) - cos(max(d, p))", True),
    "a factor": ("-y*log(p)", "-0.3*y*log(p)", True),
    "a center term": ("-y*log(p)", "-y*log(p) + 0.01*y*d**2", False),
    "another power of d": ("-y*log(p) + 0.01*y*d**1.72", "-y*log(p) + 0.01*y*d**2", False),
    "cross-entropy and NGL": ("-y*log(p)", "exp(2.4092 - p*(y + 1)) - cos(cos(sin(p)))", False),
    "the other sign": ("-y*log(p)", "y*log(p)", False),
}


@pytest.mark.parametrize("name", PAIRS)
def test_formulas_that_teach_nearly_the_same_have_close_fields(name):
    better, other, together = PAIRS[name]
    fields = [fingerprint(Expression.parse(text), 10) for text in (better, other)]
    candidates = [candidate(place, field, 0.5) for place, field in enumerate(fields)]
    assert list(cleared(candidates, NICHE)) == (candidates[:1] if together else candidates)
