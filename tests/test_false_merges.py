import pytest

from benchmarks.false_merges import apart, formulas, take_census
from evoloss.duplicates import TOLERANCE
from evoloss.expression import Expression

parse = Expression.parse


def test_no_two_of_many_random_losses_are_taken_for_one():
    """The benchmark does the same with 5,000."""
    census = take_census(60, formulas(seed=1))
    assert census.distinct == 60
    assert census.passed < census.screened
    assert census.merges  # some were met twice, in other words
    assert census.false == []


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("-y*log(p)", "3 - 0.001*y*log(p)", True),
        ("-y*log(p)", "y*log(p)", False),
        ("-y*log(p)", "-y*log(p) + 0.001*y*p", False),
        ("trip(relu(Dp - Dn + 0.2))", "trip(relu(Dp - Dn + 0.201))", False),
        ("y*sin(p)**2", "y*(1 - cos(2*p))/2", True),
        ("-y*log(p)", "cls(-y*log(p)) + pair(Y*D)", False),
    ],
)
def test_unseen_probes_tell_losses_apart(first, second, same):
    assert (apart(parse(first), parse(second)) <= TOLERANCE) is same
