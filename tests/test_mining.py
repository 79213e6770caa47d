import itertools
import math

import numpy as np
import pytest
import torch

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.lower import compile_node
from evoloss.mining import MinedPairs, MinedTriplets, mine_pairs, mine_triplets, pair_distances

MNIST = {  # images of each class, and the pairs that the original mined
    "train": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 108_400),
    "test": ([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 17_820),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shuffled(counts):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=generator())]


def program(text):
    return compile_node(Expression.parse(text).node, 10)


@pytest.mark.parametrize("part", MNIST)
def test_as_many_pairs_as_the_original(part):
    counts, expected = MNIST[part]
    labels = shuffled(counts)
    pairs, same = mine_pairs(labels, generator())
    assert pairs.shape == (expected, 2)
    assert same.sum() == expected // 2
    assert torch.equal(labels[pairs[:, 0]] == labels[pairs[:, 1]], same)
    assert not torch.equal(same, same.sort(descending=True, stable=True).values)  # shuffled


def test_positives_are_neighbors_within_their_class():
    labels = shuffled([4, 5, 6])
    pairs, same = mine_pairs(labels, generator())
    expected = set()
    for label in range(3):
        members = (labels == label).nonzero().squeeze(1).tolist()
        expected |= set(itertools.pairwise(members[:4]))
    assert {tuple(pair) for pair in pairs[same].tolist()} == expected
    assert set(pairs[~same][:, 0].tolist()) == set(pairs[same][:, 0].tolist())


def test_negatives_come_from_all_other_classes():
    labels = shuffled([200] * 10)
    pairs, same = mine_pairs(labels, generator())
    seen = torch.bincount(labels[pairs[~same]][:, 0] * 10 + labels[pairs[~same]][:, 1], minlength=100).view(10, 10)
    assert not seen.diagonal().any()
    assert (seen + torch.eye(10) > 0).all()


def test_triplets_are_all_there_are():
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    every = itertools.product(range(6), repeat=3)
    expected = {(a, p, n) for a, p, n in every if a < p and labels[a] == labels[p] != labels[n]}
    assert {tuple(row) for row in mine_triplets(labels).tolist()} == expected


def test_a_batch_of_128_has_about_87_000_triplets():
    labels = torch.randint(0, 10, (128,), generator=generator())
    assert 80_000 < len(mine_triplets(labels)) < 95_000


def test_distances_are_floored():
    pairs = torch.tensor([[[0.0, 0.0], [3.0, 4.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert pair_distances(pairs).tolist() == pytest.approx([5, 3.16228e-4])


def test_the_losses_of_pairs_are_the_originals():
    """contrastive: mean(Y D^2 + (1 - Y) max(1 - D, 0)^2); Yukawa: mean((1 - Y) exp(-10 D)/D + Y D^3)."""
    distances, same = torch.tensor([0.2, 0.9, 0.3, 1.4]), torch.tensor([True, True, False, False])
    batch = MinedPairs(distances, same.float())
    assert program(BASELINES["contrastive"].expression)(batch).item() == pytest.approx((0.04 + 0.81 + 0.49) / 4)
    expected = (0.008 + 0.729 + math.exp(-3) / 0.3 + math.exp(-14) / 1.4) / 4
    assert program(BASELINES["yukawa"].expression)(batch).item() == pytest.approx(expected)


def test_a_pair_that_coincides_costs_3152():
    batch = MinedPairs.of(torch.ones(1, 2, 5), torch.tensor([False]))
    assert program(BASELINES["yukawa"].expression)(batch).item() == pytest.approx(3152.29, abs=0.01)


def test_the_loss_of_triplets_is_the_original():
    generator_ = np.random.default_rng(0)
    embeddings, labels = generator_.normal(size=(9, 3)), np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    squared = ((embeddings[:, None] - embeddings[None]) ** 2).sum(2)
    rows = mine_triplets(torch.from_numpy(labels)).numpy()
    expected = np.maximum(squared[rows[:, 0], rows[:, 1]] - squared[rows[:, 0], rows[:, 2]] + 0.85, 0).mean()
    batch = MinedTriplets.of(torch.from_numpy(embeddings), torch.from_numpy(labels))
    assert program(BASELINES["triplet"].expression)(batch).item() == pytest.approx(expected)


def test_a_batch_of_one_class_has_no_triplet_and_no_loss():
    embeddings = torch.randn(4, 3, requires_grad=True)
    value = program(BASELINES["triplet"].expression)(MinedTriplets.of(embeddings, torch.zeros(4, dtype=torch.long)))
    value.backward()
    assert value == 0
    assert not embeddings.grad.any()


def test_a_constant_stands_for_itself():
    assert program("pair(D) + pair(2)")(MinedPairs(torch.ones(3), torch.ones(3))) == 3
    assert program("trip(Dp - Dn) + trip(2)")(MinedTriplets(torch.ones(3), torch.ones(3))) == 2
