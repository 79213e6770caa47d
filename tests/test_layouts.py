import math
from collections import Counter

import pytest
import torch

from evoloss.expression import Expression
from evoloss.layouts import FLOOR, Batch, distances
from evoloss.lower import Loss

torch.set_num_threads(1)


def batch(labels: list[int], embeddings: torch.Tensor, centers: torch.Tensor | None = None, step: int = 0) -> Batch:
    return Batch(None, torch.tensor(labels), None, embeddings, centers, 5, step=step)


def points(count: int, seed: int = 0, dimension: int = 3) -> torch.Tensor:
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.sqrt(max(sum((u - v) ** 2 for u, v in zip(a.tolist(), b.tolist(), strict=True)), 1e-7))


LABELS = {
    "mixed": [0, 1, 1, 4, 0, 1],
    "no agreeing pair": [0, 1, 2, 3, 4],
    "all agreeing": [2, 2, 2, 2],
    "one sample": [3],
    "two samples": [0, 1],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_pairs_are_each_sample_with_every_other(labels):
    x = points(len(labels))
    made = batch(labels, x)
    others = [[j for j in range(len(labels)) if j != i] for i in range(len(labels))]
    distance = [[apart(x[i], x[j]) for j in row] for i, row in enumerate(others)]
    agree = [[float(labels[i] == labels[j]) for j in row] for i, row in enumerate(others)]
    shape = (len(labels), len(labels) - 1)
    torch.testing.assert_close(made.D, torch.tensor(distance, dtype=torch.float64).reshape(shape), rtol=1e-10, atol=0)
    assert torch.equal(made.Y, torch.tensor(agree, dtype=torch.float64).reshape(shape))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_center_distances(labels):
    x, centers = points(len(labels)), points(5, seed=1)
    expected = [[apart(a, c) for c in centers] for a in x]
    torch.testing.assert_close(
        batch(labels, x, centers).d, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0
    )


def elementwise(distance: float, agree: bool) -> float:
    return distance**2 if agree else math.exp(-distance)


def naive_pair(x: torch.Tensor, labels: list[int]) -> float:
    kinds = {True: [], False: []}
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i != j:
                agree = labels[i] == labels[j]
                kinds[agree].append(elementwise(apart(x[i], x[j]), agree))
    return sum(0.5 * sum(values) / len(values) for values in kinds.values() if values)


def naive_partner(x: torch.Tensor, labels: list[int]) -> float:
    total = 0.0
    for i in range(len(labels)):
        for j in range(len(labels)):
            if i != j:
                total += elementwise(apart(x[i], x[j]), labels[i] == labels[j])
    return total / len(labels)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize(("reduction", "naive"), [("pair", naive_pair), ("partner", naive_partner)])
def test_pair_reductions_against_loops(labels, reduction, naive):
    x = points(len(labels), seed=2).requires_grad_()
    value = Loss(Expression.parse(f"{reduction}(Y*D**2 + (1 - Y)*exp(-D))"), 5)(None, torch.tensor(labels), x)
    assert value.item() == pytest.approx(naive(x.detach(), labels), rel=1e-10, abs=1e-14)
    value.backward()
    assert x.grad.isfinite().all()
    assert bool(x.grad.any()) == (len(labels) > 1)


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_triplet_reduction_against_loops(labels):
    """A term of Dp alone does not depend on the draw: the mean over ordered agreeing pairs that have a negative."""
    x = points(len(labels), seed=3).requires_grad_()
    value = Loss(Expression.parse("trip(Dp**3)"), 5)(None, torch.tensor(labels), x)
    anchors = [i for i in range(len(labels)) if any(label != labels[i] for label in labels)]
    terms = [
        apart(x[i].detach(), x[j].detach()) ** 3
        for i in anchors
        for j in range(len(labels))
        if i != j and labels[i] == labels[j]
    ]
    assert value.item() == pytest.approx(sum(terms) / max(len(terms), 1), rel=1e-10, abs=1e-14)
    value.backward()
    assert x.grad.isfinite().all()


def identified(labels: list[int], step: int) -> list[tuple[int, int, int]]:
    """(anchor, positive, negative) of a step's triplets, told from distances that no two pairs of points share."""
    x = torch.tensor([[2.0**i] for i in range(len(labels))], dtype=torch.float64)
    pairs = {abs(2**i - 2**j): {i, j} for i in range(len(labels)) for j in range(i)}
    assert len(pairs) == len(labels) * (len(labels) - 1) // 2
    made = batch(labels, x, step=step)
    triplets = []
    for near, far in zip(made.Dp.tolist(), made.Dn.tolist(), strict=True):
        with_positive, with_negative = pairs[round(near)], pairs[round(far)]
        (anchor,) = with_positive & with_negative
        triplets.append((anchor, *(with_positive - {anchor}), *(with_negative - {anchor})))
    return triplets


TRIPLET_LABELS = [0, 1, 1, 4, 0, 1, 2, 2]


@pytest.mark.parametrize("step", [0, 1, 17])
def test_every_agreeing_pair_is_one_triplet(step):
    triplets = identified(TRIPLET_LABELS, step)
    size = len(TRIPLET_LABELS)
    agreeing = [(i, j) for i in range(size) for j in range(size) if i != j and TRIPLET_LABELS[i] == TRIPLET_LABELS[j]]
    assert sorted((anchor, positive) for anchor, positive, _ in triplets) == agreeing
    assert all(TRIPLET_LABELS[negative] != TRIPLET_LABELS[anchor] for anchor, _, negative in triplets)


def test_negatives_depend_on_the_step_alone():
    torch.manual_seed(1)
    first = identified(TRIPLET_LABELS, 5)
    torch.manual_seed(2)
    assert identified(TRIPLET_LABELS, 5) == first
    assert identified(TRIPLET_LABELS, 6) != first


def test_drawing_negatives_leaves_the_global_generator():
    before = torch.get_rng_state()
    identified(TRIPLET_LABELS, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_negatives_are_equally_likely():
    labels = [0, 0, 1, 1, 2, 2, 2]
    steps = 600
    drawn = Counter((anchor, negative) for step in range(steps) for anchor, _, negative in identified(labels, step))
    for anchor, label in enumerate(labels):
        negatives = [i for i, other in enumerate(labels) if other != label]
        draws = steps * (labels.count(label) - 1)
        share = 1 / len(negatives)
        bound = 4.5 * math.sqrt(draws * share * (1 - share))  # 4.5 standard deviations, 31 counts
        for negative in negatives:
            assert abs(drawn[anchor, negative] - draws * share) < bound, (anchor, negative)


def test_every_training_batch_draws_anew():
    """The steps of a loss seed its negatives: two batches of the same content differ, two losses do not."""
    labels, x = torch.tensor(TRIPLET_LABELS), points(8, seed=4).requires_grad_()
    first, second = (Loss(Expression.parse("trip(Dn)"), 5) for _ in range(2))
    values = [first(None, labels, x).item() for _ in range(3)]
    assert len(set(values)) == 3
    assert [second(None, labels, x).item() for _ in range(3)] == values


def unit(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, 64, generator=generator))


@pytest.mark.parametrize("norm", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize(
    ("spread", "scale", "tolerance"),
    # In single precision the Gram form of points that are `spread` apart loses (spread / distance)^2 * 1e-7.
    [(0.01, 0.01, 1e-3), (0.1, 0.1, 1e-3), (1.0, 1.0, 1e-3), (1.0, 0.1, 1e-3), (0.1, 0.01, 1e-3), (1.0, 0.01, 6e-3)],
)
def test_distances_are_exact_far_from_the_origin(norm, spread, scale, tolerance):
    generator = torch.Generator().manual_seed(5)
    sites = unit(1, generator) * norm + unit(20, generator) * spread
    x = torch.cat([sites, sites + scale * unit(20, generator)])
    true = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")  # of the float32 points
    off_diagonal = ~torch.eye(40, dtype=torch.bool)
    assert true[off_diagonal].min() == pytest.approx(scale, rel=0.1)
    measured = distances(x, x).double()
    assert ((measured - true).abs() / true)[off_diagonal].max() < tolerance


def test_distances_of_coincident_points_are_floored_without_gradient():
    assert FLOOR == 1e-7  # Keras' epsilon, as in M. F. Motta's experiment (seeds.md, section 1)
    x = torch.ones(3, 2, dtype=torch.float64, requires_grad=True)
    distance = distances(x, x)
    assert distance.flatten().tolist() == pytest.approx([3.16228e-4] * 9, rel=1e-5)
    distance.sum().backward()
    assert not x.grad.any()


def test_distances_just_above_the_floor_have_their_gradient():
    x = torch.tensor([[0.0], [0.001]], dtype=torch.float64, requires_grad=True)
    distances(x, x)[0, 1].backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-1.0], [1.0]], dtype=torch.float64), rtol=1e-6, atol=0)


def test_distances_to_centers_move_both():
    x = torch.tensor([[3.0, 0.0]], dtype=torch.float64, requires_grad=True)
    c = torch.tensor([[0.0, 4.0]], dtype=torch.float64, requires_grad=True)
    distance = distances(x, c)
    assert distance.item() == pytest.approx(5, rel=1e-12)
    distance.backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.6, -0.8]], dtype=torch.float64))
    torch.testing.assert_close(c.grad, -x.grad)
