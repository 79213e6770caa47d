import random

import pytest

from evoloss.duplicates import TOLERANCE, Fingerprints


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
