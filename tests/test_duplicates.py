import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.duplicates import ECHO_SEEDS, TOLERANCE, Fingerprints, echoes
from evoloss.records import Candidate, Status


def numbers(seed: int, length: int = 5) -> tuple[float, ...]:
    generator = random.Random(seed)
    return tuple(round(generator.uniform(-1, 1), 9) for _ in range(length))


def moved(fingerprint: tuple[float, ...], by: float, place: int = 2) -> tuple[float, ...]:
    return tuple(number + by * (index == place) for index, number in enumerate(fingerprint))


def test_an_empty_table_knows_nothing():
    assert Fingerprints().find((1.0, 2.0)) is None


@pytest.mark.parametrize("count", [1, 63, 64, 65, 128, 129, 300])
def test_all_are_found_however_many_there_are(count):
    table = Fingerprints()
    for seed in range(count):
        table.add(f"key {seed}", numbers(seed))
    assert [table.find(numbers(seed)) for seed in range(count)] == [f"key {seed}" for seed in range(count)]
    assert table.find(numbers(count)) is None


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("sign", [-1, 1])
def test_any_one_number_can_tell_two_losses_apart(place, sign):
    table = Fingerprints()
    table.add("first", numbers(1))
    assert table.find(moved(numbers(1), sign * 0.9 * TOLERANCE, place)) == "first"
    assert table.find(moved(numbers(1), sign * 1.1 * TOLERANCE, place)) is None


def test_the_nearest_is_found():
    table = Fingerprints()
    for key, by in (("far", 0.8), ("near", 0.3), ("other side", -0.6)):
        table.add(key, moved(numbers(1), by * TOLERANCE))
    assert table.find(numbers(1)) == "near"


def test_of_equals_the_first_is_found():
    table = Fingerprints()
    table.add("first", numbers(1))
    table.add("second", numbers(1))
    assert table.find(numbers(1)) == "first"


def test_unfilled_rows_are_never_found():
    table = Fingerprints()
    table.add("only", (5.0, 5.0))
    assert table.find((0.0, 0.0)) is None


# Steps of a fifth of the tolerance, off the border itself, where rounding decides; sums far from 0 and near it.
STEPS = st.integers(-6, 6).map(lambda step: (step + 0.3 * (step > 0)) * TOLERANCE / 5)
NEIGHBORS = st.tuples(st.sampled_from([(0.0, 0.0, 0.0), (0.5, -0.5, 1e-6), (-3.25, 0.125, 7.0)]), *[STEPS] * 3).map(
    lambda drawn: tuple(number + step for number, step in zip(drawn[0], drawn[1:], strict=True))
)


@given(st.lists(NEIGHBORS, max_size=12), NEIGHBORS)
def test_what_is_found_is_what_comparing_with_all_would_find(known, wanted):
    table = Fingerprints()
    for place, fingerprint in enumerate(known):
        table.add(f"key {place}", fingerprint)
    apart = [max(abs(a - b) for a, b in zip(fingerprint, wanted, strict=True)) for fingerprint in known]
    nearest = min(apart, default=1.0)
    assert table.find(wanted) == (f"key {apart.index(nearest)}" if nearest <= TOLERANCE else None)


def trained(key: str, *scores: float, complexity: int = 5, **fields) -> Candidate:
    seeds = dict(enumerate(scores))
    return Candidate(key, key, complexity, "classification", status=Status.OK, rung=3, scores=seeds, **fields)


def test_a_loss_that_scores_as_another_on_three_seeds_is_its_echo():
    original = trained("original", 0.8, 0.7, 0.9)
    larger = trained("larger", 0.8, 0.7, 0.9, 0.85, complexity=9)  # its fourth seed says nothing of the other
    assert echoes([larger, original]) == {"larger": "original"}


@pytest.mark.parametrize(
    "other",
    [
        trained("other", *(0.8, 0.7, 0.9)[: ECHO_SEEDS - 1]),
        trained("other", 0.8, 0.7, 0.9001),
        trained("other", 0.7, 0.8, 0.9),
        Candidate("other", "other", 5, "classification", rung=2, scores={0: 0.8, 1: 0.7, 2: 0.9}),
        Candidate(
            "other", "other", 5, "classification", status=Status.DIVERGED, rung=3, scores={0: 0.8, 1: 0.7, 2: 0.9}
        ),
    ],
    ids=["two seeds", "other score", "other seeds", "other rung", "failed"],
)
def test_no_other_loss_is(other):
    assert echoes([trained("original", 0.8, 0.7, 0.9), other]) == {}


def test_hand_written_losses_are_originals_even_of_each_other():
    named = [trained(name, 0.8, 0.7, 0.9, complexity=30, name=name) for name in ("ce", "twin")]
    found = trained("found", 0.8, 0.7, 0.9, complexity=3)
    assert echoes([found, *named]) == {"found": "ce"}
