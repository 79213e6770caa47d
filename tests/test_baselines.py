import math

import pytest
import torch
from torch.nn import functional

from evoloss.baselines import BASELINES, family
from evoloss.expression import Expression
from evoloss.lower import Loss

torch.set_num_threads(1)


# --- Independent references, from the formulas in the papers and in the authors' code ---------------------------------
# Each takes logits [N, K], labels [N], embeddings [N, E], centers [K, E].


def cross_entropy(z, t, x, c):
    return functional.cross_entropy(z, t)


def ngl(z, t, x, c):
    """Akhmedova & Körber: mean over samples and classes in their torch code; here the sum over classes."""
    p = torch.softmax(z, dim=1)
    y = functional.one_hot(t, z.shape[1]).to(p)
    return (torch.exp(2.4092 - p - p * y) - torch.cos(torch.cos(torch.sin(p)))).mean() * z.shape[1]


def _unordered_pairs(t, x):
    """Distances of agreeing and of other pairs, each unordered pair once."""
    kinds = [], []
    for i in range(len(x)):
        for j in range(i):
            kinds[int(t[i] != t[j])].append(((x[i] - x[j]) ** 2).sum().clamp(min=1e-7).sqrt())
    return tuple(torch.stack(kind) if kind else x.new_zeros(0) for kind in kinds)


def _balanced(positive, negative):
    """Motta draws exactly as many positive pairs as negative ones and takes the mean over all."""
    return sum(0.5 * values.mean() for values in (positive, negative) if len(values))


def contrastive(z, t, x, c):
    """Motta's functions.py: Y D^2 + (1-Y) max(1-D, 0)^2."""
    same, other = _unordered_pairs(t, x)
    return _balanced(same**2, (1 - other).clamp(min=0) ** 2)


def yukawa(z, t, x, c):
    """Motta's functions.py: (1-Y) exp(-10 (1-Y) D) / max(1e-7, D) + Y D^3."""
    same, other = _unordered_pairs(t, x)
    return _balanced(same**3, torch.exp(-10 * other) / other.clamp(min=1e-7))


def triplet(z, t, x, c):
    """Motta's functions.py: max(dp^2 - dn^2 + 0.85, 0). For batches in which an anchor has one possible negative."""
    terms = []
    for i in range(len(x)):
        negatives = [n for n in range(len(x)) if t[n] != t[i]]
        for j in range(len(x)):
            if i != j and t[i] == t[j] and negatives:
                (n,) = negatives
                terms.append((((x[i] - x[j]) ** 2).sum() - ((x[i] - x[n]) ** 2).sum() + 0.85).clamp(min=0))
    return torch.stack(terms).mean()


def center(z, t, x, c):
    """K. Zhou's pytorch-center-loss: cross-entropy + weight * (1/m) sum of squared distances, no 1/2."""
    return functional.cross_entropy(z, t) + 0.01 * ((x - c[t]) ** 2).sum() / len(x)


def standalone_center(z, t, x, c):
    """mo-vic's code: (1/m) sum |x-c|^2 - 0.1 (1/m) sum over ordered pairs of other classes of log(1 + |x-x'|^2)."""
    intra = ((x - c[t]) ** 2).sum() / len(x)
    inter = sum(
        (1 + ((x[i] - x[j]) ** 2).sum()).log() for i in range(len(x)) for j in range(len(x)) if t[i] != t[j]
    ) / len(x)
    return 1.0 * intra - 0.1 * inter


REFERENCES = {
    "ce": cross_entropy,
    "ngl": ngl,
    "contrastive": contrastive,
    "yukawa": yukawa,
    "triplet": triplet,
    "center": center,
    "standalone-center": standalone_center,
}


def lowered(name: str, num_classes: int, embedding_dim: int = 4) -> Loss:
    expression = Expression.parse(BASELINES[name].expression)
    return Loss(expression, num_classes, embedding_dim, generator=torch.Generator().manual_seed(0)).double()


def test_every_row_has_a_reference():
    assert set(REFERENCES) == set(BASELINES)


def labels_for(name: str, num_classes: int, generator: torch.Generator) -> torch.Tensor:
    if name == "triplet":
        return torch.tensor([0, 0, 1, 0, 0, 0, 0, 0])
    return torch.randint(num_classes, (8,), generator=generator)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("num_classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(3))
def test_every_baseline_is_its_reference(name, num_classes, seed):
    generator = torch.Generator().manual_seed(seed)
    loss = lowered(name, num_classes)
    target = labels_for(name, num_classes, generator)
    centers = loss.centers if loss.centers is not None else torch.zeros(num_classes, 4, dtype=torch.float64)
    results = []
    for function in (loss, lambda z, t, x: REFERENCES[name](z, t, x, centers)):
        g = torch.Generator().manual_seed(100 + seed)
        z = (2 * torch.randn(8, num_classes, generator=g, dtype=torch.float64)).requires_grad_()
        x = (0.4 * torch.randn(8, 4, generator=g, dtype=torch.float64)).requires_grad_()
        value = function(z, target, x)
        leaves = [z, x, *loss.parameters()]
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        results.append(
            [value, *(torch.zeros_like(a) if g is None else g for g, a in zip(gradients, leaves, strict=True))]
        )
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert any(gradient.any() for gradient in results[0][1:])


# --- Numbers from the literature and by hand --------------------------------------------------------------------------


def of_pair(name: str, distance: float, agree: bool) -> float:
    """The term of one pair; two samples make one kind of pair, which counts half."""
    x = torch.tensor([[0.0], [distance]], dtype=torch.float64)
    return 2 * lowered(name, 2)(None, torch.tensor([0, 0 if agree else 1]), x).item()


@pytest.mark.parametrize(
    ("name", "distance", "agree", "expected"),
    [
        ("contrastive", 0.5, True, 0.25),
        ("contrastive", 0.5, False, 0.25),
        ("contrastive", 1.5, True, 2.25),
        ("contrastive", 1.5, False, 0.0),
        ("yukawa", 0.5, True, 0.125),
        ("yukawa", 0.5, False, 0.013475893998170934),  # 2 exp(-5)
        ("yukawa", 0.0, False, 3152.29),  # seeds.md, section 1: the largest possible negative term
        ("yukawa", 0.0, True, 3.16228e-11),
    ],
)
def test_pair_terms_by_hand(name, distance, agree, expected):
    assert of_pair(name, distance, agree) == pytest.approx(expected, rel=1e-5)


def both(name: str, distance: float) -> float:
    return of_pair(name, distance, True) + of_pair(name, distance, False)


@pytest.mark.parametrize(
    ("name", "at", "minimum"), [("contrastive", 0.5, 0.5), ("yukawa", 0.40983, 0.109342)]
)  # seeds.md, section 1, shape facts
def test_attraction_and_repulsion_balance(name, at, minimum):
    grid = [round(0.3 + 0.001 * i, 3) for i in range(300)]
    assert min(grid, key=lambda distance: both(name, distance)) == pytest.approx(at, abs=1e-3)
    assert both(name, at) == pytest.approx(minimum, rel=5e-6)


def test_yukawa_repels_more_than_contrastive_only_when_near():
    """seeds.md, section 1: below D = .20448."""
    assert of_pair("yukawa", 0.2044, False) > of_pair("contrastive", 0.2044, False)
    assert of_pair("yukawa", 0.2046, False) < of_pair("contrastive", 0.2046, False)
    assert of_pair("yukawa", 0.38344, True) == pytest.approx(of_pair("yukawa", 0.38344, False), rel=2e-4)


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        (0.5, 1.0, 0.25 - 1 + 0.85),
        (1.0, 0.5, 1 - 0.25 + 0.85),
        (0.1, 0.8, 0.01 - 0.64 + 0.85),
        (0.0, 1.0, 0.0),
        (1.0, 5.0, 0.0),
    ],
)
def test_triplet_margin(positive, negative, expected):
    """One anchor between its positive and its negative sample; the positive as anchor sees the negative at the sum."""
    x = torch.tensor([[0.0], [positive], [-negative]], dtype=torch.float64)
    other = max(positive**2 - (positive + negative) ** 2 + 0.85, 0)
    value = lowered("triplet", 2)(None, torch.tensor([0, 0, 1]), x).item()
    assert value == pytest.approx((expected + other) / 2, abs=2e-7)


def ngl_at(rows: list[list[float]], labels: list[int]) -> float:
    """NGL of probabilities."""
    logits = torch.tensor(rows, dtype=torch.float64).log().clamp_min(-1e3)
    return lowered("ngl", len(rows[0]))(logits, torch.tensor(labels)).item()


def test_ngl_of_a_small_batch_by_hand():
    """p = (.5, .5), right class first: exp(2.4092 - 1) + exp(2.4092 - .5) - 2 cos(cos(sin .5)), and the same twice."""
    one = math.exp(1.4092) + math.exp(1.9092) - 2 * math.cos(math.cos(math.sin(0.5)))
    assert one == pytest.approx(9.577291, rel=1e-6)
    assert ngl_at([[0.5, 0.5]], [0]) == pytest.approx(one, rel=1e-12)
    assert ngl_at([[0.5, 0.5], [0.5, 0.5]], [1, 0]) == pytest.approx(one, rel=1e-12)
    two = math.exp(2.4092 - 0.5) + math.exp(2.4092 - 0.75) - sum(math.cos(math.cos(math.sin(p))) for p in (0.25, 0.75))
    assert ngl_at([[0.25, 0.75], [0.5, 0.5]], [0, 1]) == pytest.approx((one + two) / 2, rel=1e-12)


def test_ngl_of_perfect_and_of_uniform_predictions():
    """seeds.md, section 5; its figures are means over the 10 classes, the row is a sum."""
    assert ngl_at([[1.0, *[0.0] * 9]], [0]) == pytest.approx(10 * 9.59823, rel=1e-6)
    assert ngl_at([[0.1] * 10], [3]) == pytest.approx(10 * 9.42609, rel=1e-6)
    assert ngl_at([[0.391, *[0.609 / 9] * 9]], [0]) == pytest.approx(10 * 9.31849, rel=1e-6)


@pytest.mark.parametrize(("num_classes", "best"), [(2, 0.5659), (3, 0.4823), (10, 0.3910), (100, 0.3615)])
def test_the_optimum_of_ngl_is_interior(num_classes, best):
    """seeds.md, section 5: the probability of the right class at NGL's minimum."""

    def value(p: float) -> float:
        return ngl_at([[p, *[(1 - p) / (num_classes - 1)] * (num_classes - 1)]], [0])

    low, high = 0.05, 0.999
    for _ in range(40):  # ternary search: one minimum
        third = (high - low) / 3
        low, high = (low, high - third) if value(low + third) < value(high - third) else (low + third, high)
    assert low == pytest.approx(best, abs=1e-4)


def test_gradient_of_ngl_at_uniform_output():
    """seeds.md, section 5: -.0734 on the true logit for K = 10 as a mean over classes; ours is the sum."""
    z = torch.zeros(1, 10, dtype=torch.float64, requires_grad=True)
    lowered("ngl", 10)(z, torch.tensor([4])).backward()
    assert z.grad[0, 4].item() == pytest.approx(10 * -0.0734, abs=1e-3)


def test_standalone_center_by_hand():
    """Two samples on the axis at 0 and 2 with centers at 1 and 1: 1 + 1 squared to the centers, log 5 twice between."""
    loss = lowered("standalone-center", 2, 1)
    with torch.no_grad():
        loss.centers.fill_(1.0)
    value = loss(None, torch.tensor([0, 1]), torch.tensor([[0.0], [2.0]], dtype=torch.float64))
    assert value.item() == pytest.approx((1 + 1) / 2 - 0.1 * 2 * math.log(5) / 2, rel=1e-9)


def test_center_by_hand():
    loss = lowered("center", 2, 2)
    with torch.no_grad():
        loss.centers.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    x = torch.tensor([[4.0, 4.0], [0.0, 0.0]], dtype=torch.float64)  # squared distances 25 and 4
    value = loss(torch.zeros(2, 2, dtype=torch.float64), torch.tensor([0, 1]), x)
    assert value.item() == pytest.approx(math.log(2) + 0.01 * 14.5, rel=1e-9)


# --- Nothing becomes infinite -----------------------------------------------------------------------------------------

PERFECT = 1e4 * functional.one_hot(torch.arange(6) % 3, 3).float()
AXES = functional.one_hot(torch.arange(6) % 3, 4).float()
WILD = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
BATCHES = {
    "perfect": (PERFECT, torch.arange(6) % 3, AXES),
    "all wrong": (-PERFECT, torch.arange(6) % 3, AXES),
    "extreme": (1e4 * WILD[:, :3].sign(), torch.arange(6) % 3, 1e4 * WILD),
    "tiny": (1e-6 * WILD[:, :3], torch.arange(6) % 3, 1e-6 * WILD),
    "all embeddings equal": (WILD[:, :3], torch.arange(6) % 3, torch.ones(6, 4)),
    "one class": (WILD[:, :3], torch.ones(6, dtype=torch.long), WILD),
    "absent class": (WILD[:, :3], torch.arange(6) % 2, WILD),
    "no two agree": (WILD[:3, :3], torch.arange(3), WILD[:3]),
    "one sample": (WILD[:1, :3], torch.tensor([2]), WILD[:1]),
}


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("case", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_baseline_is_finite_on_every_batch(name, case, dtype):
    logits, target, embeddings = BATCHES[case]
    z, x = (tensor.to(dtype, copy=True).requires_grad_() for tensor in (logits, embeddings))
    loss = lowered(name, 3).to(dtype)
    value = loss(z, target, x)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    for tensor in (z, x, *loss.parameters()):
        assert tensor.grad is None or tensor.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "case", "expected"),
    [
        ("ce", "perfect", 0.0),
        ("ce", "all wrong", 1e4 + math.log(2)),
        ("contrastive", "perfect", 0.0),  # agreeing samples coincide, others are sqrt(2) apart
        ("triplet", "perfect", 0.0),
        ("triplet", "one sample", 0.0),
        ("triplet", "one class", 0.0),
        ("triplet", "no two agree", 0.0),
        ("triplet", "all embeddings equal", 0.85),
        ("contrastive", "one sample", 0.0),
        ("yukawa", "one sample", 0.0),
    ],
)
def test_values_on_those_batches(name, case, expected):
    logits, target, embeddings = BATCHES[case]
    value = lowered(name, 3)(logits.double(), target, embeddings.double()).item()
    assert value == pytest.approx(expected, rel=1e-6, abs=2e-7)


# --- The table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BASELINES)
def test_a_row_says_what_it_is(name):
    row = BASELINES[name]
    expression = Expression.parse(row.expression)
    assert row.name == name
    assert row.family == family(expression.variables) or (row.family == "center" and "d" in expression.variables)
    assert row.paper
    assert not expression.missing


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"p", "y"}, "classification"),
        ({"z", "y", "K"}, "classification"),
        ({"D", "Y"}, "metric"),
        ({"Dp", "Dn"}, "metric"),
        ({"d", "y"}, "center"),
        ({"p", "y", "d"}, "classification+center"),
        ({"d", "D", "y"}, "metric+center"),
        ({"p", "Dn", "d"}, "classification+metric+center"),
        ({"y", "K"}, "none"),
        (set(), "none"),
    ],
)
def test_the_family_is_what_a_formula_sees(variables, expected):
    assert family(frozenset(variables)) == expected
