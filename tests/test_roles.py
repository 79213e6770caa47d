import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evoloss.data import ROLES
from evoloss.roles import apportion, assign


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(3, 60), min_size=2, max_size=12), st.booleans())
def test_roles_are_a_stratified_partition(counts, own_test):
    labels = np.repeat(np.arange(len(counts)), counts)
    roles = assign(labels, len(counts), own_test)
    assert set(roles) == ({"train", "select"} if own_test else set(ROLES))
    assert sorted(np.concatenate(list(roles.values()))) == list(range(len(labels)))
    for role in roles:
        per_class = np.bincount(labels[roles[role]], minlength=len(counts))
        assert per_class.min() >= 1
        if role != "train" and min(counts) >= 5:
            assert np.abs(per_class - np.array(counts) / 5).max() < 1


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=20), st.floats(0, 1))
def test_shares_are_exact_and_in_bounds(counts, share):
    counts = np.array(counts)
    total = round(len(counts) + share * (counts.sum() - len(counts)))
    quota = apportion(counts, total)
    assert quota.sum() == total
    assert (quota >= 1).all()
    assert (quota <= counts).all()
