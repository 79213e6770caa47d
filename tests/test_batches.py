import pytest
from hypothesis import given
from hypothesis import strategies as st

from evoloss.batches import LARGEST, batched
from evoloss.records import Budget, DataSpec, Job

BUDGETS = [Budget(100, 1, 1e-3), Budget(100, 1, 3e-3), Budget(200, 1, 1e-3)]
JOBS = st.builds(
    Job,
    task=st.just("train"),
    key=st.sampled_from([f"k{number}" for number in range(40)]),
    expression=st.just(""),
    proxy=st.sampled_from(["mlp", "inception"]),
    seed=st.sampled_from([0, 1]),
    budget=st.sampled_from(BUDGETS),
    data=st.sampled_from([None, DataSpec("digits")]),
)


@given(st.lists(JOBS, unique=True))
def test_every_job_is_in_one_batch_of_its_kind(jobs):
    batches = list(batched(jobs))
    assert sorted(map(str, jobs)) == sorted(str(job) for batch in batches for job in batch)
    for batch in batches:
        first = batch[0]
        assert len(batch) <= (LARGEST["train"] if first.proxy == "mlp" else 1)
        assert {(job.proxy, job.seed, job.budget.samples, job.data) for job in batch} == {
            (first.proxy, first.seed, first.budget.samples, first.data)
        }


@pytest.mark.parametrize(
    ("count", "sizes"), [(1, [1]), (3, [3]), (4, [2, 2]), (8, [4, 4]), (9, [5, 4]), (17, [5, 4, 4, 4])]
)
def test_batches_are_even_in_number_and_size_and_rates_share_one(count, sizes):
    jobs = [Job("train", f"k{n}", "", "mlp", 0, BUDGETS[n % 2]) for n in range(count)]
    assert [len(batch) for batch in batched(jobs)] == sizes
    assert [job for batch in batched(jobs) for job in batch] == jobs


def test_screens_go_together():
    jobs = [Job("screen", f"k{n}", "", "inception", 0) for n in range(100)]
    assert list(batched(jobs[:3])) == [tuple(jobs[:3])]
    assert [len(batch) for batch in batched(jobs)] == [25, 25, 25, 25]
