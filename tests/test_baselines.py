import math
import re

import pytest
import torch
from rows import sized
from torch.nn import functional

from evoloss.baselines import BASELINES, UNWRITABLE, family
from evoloss.expression import Expression
from evoloss.lower import Loss

torch.set_num_threads(1)


# --- Independent references, from the formulas in the papers and in the authors' code ---------------------------------
# Each takes logits [N, K], labels [N], embeddings [N, E], centers [K, E]. Those of `SOFT` take probabilities [N, K] as
# labels too.


def _target(z, t):
    return t if t.is_floating_point() else functional.one_hot(t, z.shape[1]).to(z)


def _of_right_class(z, t):
    return torch.softmax(z, dim=1).gather(1, t[:, None]).squeeze(1)


def cross_entropy(z, t, x, c):
    return functional.cross_entropy(z, t)


def label_smoothing(z, t, x, c):
    return functional.cross_entropy(z, t, label_smoothing=0.1)


def sparse_label_smoothing(z, t, x, c):
    """Raymond et al., redistributed label smoothing 0.25: minus both logarithms."""
    classes = z.shape[1]
    p = _of_right_class(z, t)
    others = ((1 - p).clamp(min=1e-7) / (classes - 1)).log()
    return -((1 - 0.25 + 0.25 / classes) * p.log() + 0.25 * (classes - 1) / classes * others).mean()


def focal(z, t, x, c):
    p = _of_right_class(z, t)
    return -((1 - p) ** 2 * p.log()).mean()


def poly1(z, t, x, c):
    """Leng et al.: cross-entropy + epsilon (1 - Pt), Pt the sum of labels times probabilities."""
    right = (_target(z, t) * torch.softmax(z, dim=1)).sum(dim=1)
    return functional.cross_entropy(z, t) + 2 * (1 - right).mean()


def generalized_cross_entropy(z, t, x, c):
    return ((1 - _of_right_class(z, t) ** 0.7) / 0.7).mean()


def symmetric_cross_entropy(z, t, x, c):
    """Wang et al.: 0.1 CE + 1.0 RCE, the labels clamped to [1e-4, 1] in the logarithm."""
    reverse = -(torch.softmax(z, dim=1) * _target(z, t).clamp(1e-4, 1.0).log()).sum(dim=1)
    return 0.1 * functional.cross_entropy(z, t) + 1.0 * reverse.mean()


def brier(z, t, x, c):
    return functional.mse_loss(torch.softmax(z, dim=1), _target(z, t), reduction="sum") / len(z)


def squared_logits(z, t, x, c):
    return functional.mse_loss(z, _target(z, t), reduction="sum") / len(z)


def mean_absolute_error(z, t, x, c):
    return functional.l1_loss(torch.softmax(z, dim=1), _target(z, t), reduction="sum") / len(z)


def hinge(z, t, x, c):
    """One machine a class, labels -1 and 1: max(0, 1 - label * output)."""
    signs = 2 * functional.one_hot(t, z.shape[1]) - 1
    return (1 - signs * z).clamp(min=0).sum() / len(z)


def binary_cross_entropy(z, t, x, c):
    return functional.binary_cross_entropy_with_logits(z, _target(z, t), reduction="sum") / len(z)


def squentropy(z, t, x, c):
    """Hui et al.: cross-entropy + 1/(K - 1) times the sum of the squares of the other logits."""
    others = (z**2).sum() - (z.gather(1, t[:, None]) ** 2).sum()
    return functional.cross_entropy(z, t) + others / (z.shape[1] - 1) / len(z)


def rooted_logistic(z, t, x, c):
    return (3 * (1 - _of_right_class(z, t) ** (1 / 3))).mean()


def alternate_m(z, t, x, c):
    return (1 / _of_right_class(z, t) - 1).mean()


def alternate_l(z, t, x, c):
    return (1 / torch.sqrt(1 - (_of_right_class(z, t) - 1) ** 2)).mean()


def _ngl(p, y):
    return (torch.exp(2.4092 - p - p * y) - torch.cos(torch.cos(torch.sin(p)))).mean() * p.shape[1]


def ngl(z, t, x, c):
    """Akhmedova & Körber: mean over samples and classes in their torch code; here the sum over classes."""
    return _ngl(torch.softmax(z, dim=1), _target(z, t))


def ngl_sigmoid(z, t, x, c):
    return _ngl(torch.sigmoid(torch.softmax(z, dim=1)), _target(z, t))


def ganetic(z, t, x, c):
    """Akhmedova & Körber, TensorFlow: p^3 + sqrt(|3.985 t / (p + eps)| + eps)."""
    p = torch.softmax(z, dim=1)
    return (p**3 + torch.sqrt(torch.abs(3.985 * _target(z, t) / (p + 1e-8)) + 1e-8)).sum(dim=1).mean()


def baikal(z, t, x, c):
    """Gonzalez & Miikkulainen: -1/n sum of log(p) - t/p; here not divided by the number of classes."""
    p = torch.softmax(z, dim=1)
    return -(torch.log(p) - _target(z, t) / p).mean() * z.shape[1]


def baikal_cma(z, t, x, c):
    p = torch.softmax(z, dim=1)
    logarithm = 2.7278 * 0.9863 * torch.log(1.5352 * p)
    fraction = 1.1135 * 1.3716 / 0.8411 * _target(z, t) / p
    return -(logarithm - fraction).mean() * z.shape[1]


def taylor_glo(z, t, x, c):
    """Gonzalez & Miikkulainen: minus a third-order polynomial in label and probability around (theta0, theta1)."""
    theta = [-10.9408, 7.5216, 8.2896, 0.2415, 7.8726, 8.9666, 2.0184, 7.0513]
    dx, dy = _target(z, t) - theta[0], torch.softmax(z, dim=1) - theta[1]
    powers = [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)]
    total = sum(weight * dx**i * dy**j for weight, (i, j) in zip(theta[2:], powers, strict=True))
    return -total.sum(dim=1).mean()


def xtreme_margin(z, t, x, c):
    """Wali: 1/(1 + sigma + gamma) of the probability of class 1, both lambdas 1."""
    terms = []
    for score, truth in zip(torch.softmax(z, dim=1)[:, 1], t.tolist(), strict=True):
        wrong = (score - truth).abs()
        if wrong < 0.5:
            sigma, gamma = 0.0, 1.0 * (2 * score - 1) ** 2
        else:
            sigma, gamma = 1 / (math.e * wrong) - 1, 0.0
        terms.append(1 / (1 + sigma + gamma))
    return torch.stack(terms).mean()


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
    "ls": label_smoothing,
    "sparse-ls": sparse_label_smoothing,
    "focal": focal,
    "poly1": poly1,
    "gce": generalized_cross_entropy,
    "sce": symmetric_cross_entropy,
    "brier": brier,
    "squared-logits": squared_logits,
    "mae": mean_absolute_error,
    "hinge": hinge,
    "bce": binary_cross_entropy,
    "squentropy": squentropy,
    "rooted-logistic": rooted_logistic,
    "alternate-m": alternate_m,
    "alternate-l": alternate_l,
    "ngl": ngl,
    "ngl-sigmoid": ngl_sigmoid,
    "ganetic": ganetic,
    "baikal": baikal,
    "baikal-cma": baikal_cma,
    "taylor-glo": taylor_glo,
    "xtreme-margin": xtreme_margin,
    "contrastive": contrastive,
    "yukawa": yukawa,
    "triplet": triplet,
    "center": center,
    "standalone-center": standalone_center,
}

# Their references are defined for soft targets. The others are gathered at the right class, and their rows are linear
# in the target.
SOFT = {"ce", "ls", "poly1", "sce", "brier", "squared-logits", "mae", "bce"}
SOFT |= {"ngl", "ngl-sigmoid", "ganetic", "baikal", "baikal-cma", "taylor-glo"}
LINEAR = {"sparse-ls", "focal", "gce", "hinge", "squentropy", "rooted-logistic", "alternate-m", "alternate-l"}
LINEAR |= {"xtreme-margin"}

# Rows whose constants canonicalization rounds to six significant digits, which leaves an error of up to 5e-6. All
# others are exact.
ROUNDED = {"gce", "rooted-logistic", "baikal-cma", "taylor-glo", "xtreme-margin"}


def tolerance(name: str) -> float:
    return 5e-6 if name in ROUNDED else 1e-9


def lowered(name: str, num_classes: int, embedding_dim: int = 4) -> Loss:
    expression = Expression.parse(BASELINES[name].expression)
    return Loss(expression, num_classes, embedding_dim, generator=torch.Generator().manual_seed(0)).double()


def test_every_row_has_a_reference():
    assert set(REFERENCES) == set(BASELINES)


def labels_for(name: str, num_classes: int, generator: torch.Generator) -> torch.Tensor:
    if name == "triplet":
        return torch.tensor([0, 0, 1, 0, 0, 0, 0, 0])
    return torch.randint(num_classes, (8,), generator=generator)


@pytest.mark.parametrize(("name", "num_classes"), sized(2, 3, 10))
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
        torch.testing.assert_close(ours, theirs, rtol=tolerance(name), atol=tolerance(name))
    assert any(gradient.any() for gradient in results[0][1:])


def soft_batch(num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    z, q = (torch.randn(8, num_classes, generator=generator, dtype=torch.float64) for _ in range(2))
    return (2 * z).requires_grad_(), q.softmax(1)


def value_and_gradient(value: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return value.detach(), torch.autograd.grad(value, z)[0]


@pytest.mark.parametrize("name", sorted(SOFT))
@pytest.mark.parametrize("num_classes", [2, 10])
def test_soft_targets(name, num_classes):
    z, target = soft_batch(num_classes)
    ours = value_and_gradient(lowered(name, num_classes)(z, target), z)
    theirs = value_and_gradient(REFERENCES[name](z, target, None, None), z)
    torch.testing.assert_close(ours, theirs, rtol=tolerance(name), atol=tolerance(name))


@pytest.mark.parametrize(("name", "num_classes"), [row for row in sized(2, 10) if row[0] in LINEAR])
def test_soft_targets_weigh_the_losses_of_the_classes(name, num_classes):
    z, target = soft_batch(num_classes)
    expected = sum(
        weight * REFERENCES[name](row[None], torch.tensor([place]), None, None)
        for row, weights in zip(z, target, strict=True)
        for place, weight in enumerate(weights)
    ) / len(z)
    ours = value_and_gradient(lowered(name, num_classes)(z, target), z)
    torch.testing.assert_close(ours, value_and_gradient(expected, z), rtol=tolerance(name), atol=tolerance(name))


def test_every_classification_row_is_tried_on_soft_targets():
    assert SOFT.isdisjoint(LINEAR)
    assert {name for name, row in BASELINES.items() if row.family == "classification"} == SOFT | LINEAR


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


def of_quarter(name: str, label: int) -> float:
    """The loss of the probabilities 1/4 and 3/4."""
    z = torch.tensor([[0.25, 0.75]], dtype=torch.float64).log()
    return lowered(name, 2)(z, torch.tensor([label])).item()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ce", 1.3862943611),  # ln 4
        ("ls", 1.3313637467),  # .95 ln 4 + .05 ln(4/3)
        ("sparse-ls", 1.2489678251),  # .875 ln 4 + .125 ln(4/3)
        ("focal", 0.7797905781),  # 9/16 ln 4
        ("poly1", 2.8862943611),  # ln 4 + 2 * 3/4
        ("gce", 0.8872440831),  # (1 - 2**-1.4)/.7
        ("sce", 7.0463847151),  # .1 ln 4 + 3/4 * 4 ln 10
        ("brier", 1.125),  # 2 * 9/16
        ("mae", 1.5),  # 2 * 3/4
        ("rooted-logistic", 1.1101184251),  # 3 - 3 * 2**(-2/3)
        ("alternate-m", 3.0),  # 4 - 1
        ("alternate-l", 1.5118578920),  # 4/sqrt(7)
        ("baikal", 5.6739764336),  # 4 + ln 4 + ln(4/3)
        ("baikal-cma", 9.4603870),  # 4 w2 + w0 (ln(16/3) - 2 ln 1.5352)
        ("ganetic", 4.430093),  # (1 + 27)/64 + sqrt(4 * 3.985) + sqrt(1e-8)
        ("xtreme-margin", 2.0387113713),  # e * 3/4
    ],
)
def test_two_classes_by_hand(name, expected):
    assert of_quarter(name, 0) == pytest.approx(expected, rel=max(tolerance(name), 1e-7))


def test_xtreme_margin_of_a_right_prediction_by_hand():
    assert of_quarter("xtreme-margin", 1) == pytest.approx(1 / (1 + 0.5**2), rel=1e-12)
    even = lowered("xtreme-margin", 2)(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]))
    assert even.item() == pytest.approx(math.e / 2, rel=5e-6)  # |score - truth| < .5 is strict: a tie is wrong


@pytest.mark.parametrize(
    ("name", "label", "expected"),
    [
        ("squared-logits", 0, 2.0),  # (2 - 1)^2 + (-1)^2
        ("squared-logits", 1, 8.0),  # 2^2 + (-1 - 1)^2
        ("hinge", 0, 0.0),  # both on the margin or beyond
        ("hinge", 1, 5.0),  # (1 + 2) + (1 + 1)
        ("bce", 0, 0.4401896986),  # ln(1 + e^-2) + ln(1 + e^-1)
        ("bce", 1, 3.4401896986),  # ln(1 + e^2) + ln(1 + e)
        ("squentropy", 0, 1.0485873516),  # ln(1 + e^-3) + 1
        ("squentropy", 1, 7.0485873516),  # ln(1 + e^3) + 4
    ],
)
def test_two_logits_by_hand(name, label, expected):
    """Logits 2 and -1."""
    z = torch.tensor([[2.0, -1.0]], dtype=torch.float64)
    assert lowered(name, 2)(z, torch.tensor([label])).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("margin", [-3.0, 0.5, 0.9, 1.5])
def test_the_hinge_of_two_opposite_logits_is_the_one_that_compares_them(margin):
    """torch's multi_margin_loss compares a logit with the right one and takes the mean over classes."""
    z = torch.tensor([[margin, -margin]], dtype=torch.float64)
    theirs = functional.multi_margin_loss(z / 2, torch.tensor([0])).item()
    assert lowered("hinge", 2)(z, torch.tensor([0])).item() == pytest.approx(4 * theirs, abs=1e-12)


def test_sparse_label_smoothing_of_two_classes_is_label_smoothing():
    z, target = soft_batch(2)[0], torch.arange(8) % 2
    ours = lowered("sparse-ls", 2)(z, target)
    torch.testing.assert_close(ours, functional.cross_entropy(z, target, label_smoothing=0.25))


# --- Shape: losses.md, section 6.3 (and 5.4 for sparse-ls), K = 10, the rest of the mass spread evenly ----------------
# The best probability of the right class; the length of the gradient at zero logits, in units of cross-entropy's; the
# slope on the right logit at p = .9; that length for K = 100. As printed there, so correct to half a unit of the last
# digit. The figures of MEANS are for means over classes.

SHAPES = {
    "ce": ("1", "1.0", "-.100", "1.0"),
    "ls": (".910", ".90", "-.010", ".90"),
    "focal": ("1", "1.22", "-.003", "1.07"),
    "gce": ("1", ".20", "-.093", ".040"),
    "sce": ("1", "1.02", "-.839", ".19"),
    "poly1": ("1", "1.20", "-.280", "1.02"),
    "rooted-logistic": ("1", ".46", "-.097", ".22"),
    "alternate-m": ("1", "10.0", "-.111", "100.0"),
    "alternate-l": ("1", "1.09", "-.009", "3.5"),
    "baikal": (".316", "1.0", ".79", "1.0"),
    "baikal-cma": (".277", "1.82", "2.13", "1.82"),
    "ngl": (".391", ".082", ".063", ".0011"),
    "ngl-sigmoid": (".363", ".003", ".005", ".00004"),
    "ganetic": (".731", ".32", ".011", ".10"),  # the table has .730; the optimum is .7306
}
MEANS = {"baikal", "baikal-cma", "ngl", "ngl-sigmoid", "ganetic"}


def printed(text: str):
    return pytest.approx(float(text), abs=0.501 * 10.0 ** -len(text.partition(".")[2]))


def best_probability(name: str, num_classes: int) -> float:
    """Of the right class, among 10,000; 1 where the loss still falls at the last."""
    p = torch.arange(1, 10_000, dtype=torch.float64) / 10_000
    z = torch.cat([p[:, None], ((1 - p) / (num_classes - 1))[:, None].expand(-1, num_classes - 1)], 1).log()
    expression = Expression.parse(BASELINES[name].expression)
    values = Loss(expression, num_classes, reduction="none")(z, torch.zeros(len(p), dtype=torch.long))
    best = int(values.argmin())
    return 1.0 if best == len(p) - 1 else p[best].item()


def gradient_at(name: str, p: float, num_classes: int) -> torch.Tensor:
    """The gradient on the logits; the right class is the first and has probability p."""
    z = torch.tensor([[p, *[(1 - p) / (num_classes - 1)] * (num_classes - 1)]], dtype=torch.float64).log()
    value = lowered(name, num_classes)(z.requires_grad_(), torch.tensor([0]))
    return torch.autograd.grad(value, z)[0] / (num_classes if name in MEANS else 1)


@pytest.mark.parametrize("name", SHAPES)
def test_shape(name):
    best, ratio, slope, ratio_of_100 = SHAPES[name]
    assert best_probability(name, 10) == (1.0 if best == "1" else printed(best))
    assert gradient_at(name, 0.9, 10)[0, 0].item() == printed(slope)
    for num_classes, expected in ((10, ratio), (100, ratio_of_100)):
        own, reference = (gradient_at(row, 1 / num_classes, num_classes).norm() for row in (name, "ce"))
        assert (own / reference).item() == printed(expected)


@pytest.mark.parametrize(
    ("name", "num_classes", "best"),
    [
        ("baikal", 2, 0.7071),  # 1/sqrt(K)
        ("baikal", 100, 0.1),
        ("baikal-cma", 2, 0.668),
        ("baikal-cma", 100, 0.084),
        ("ngl-sigmoid", 2, 0.558),
        ("ngl-sigmoid", 100, 0.338),
        ("sparse-ls", 10, 0.775),  # 1 - .25 + .25/K, as for label smoothing
        ("sparse-ls", 100, 0.7525),
        ("ls", 100, 0.901),
        ("brier", 10, 1.0),
        ("mae", 10, 1.0),
    ],
)
def test_best_probabilities(name, num_classes, best):
    """losses.md, sections 1.5, 2.1 and 5.4; a proper score has its best at 1."""
    assert best_probability(name, num_classes) == pytest.approx(best, abs=6e-4)


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

WILD = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def batches(classes: int) -> dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Logits, labels and embeddings of extreme batches."""
    labels = torch.arange(6) % classes
    perfect = 1e4 * functional.one_hot(labels, classes).float()
    axes = functional.one_hot(labels, 4).float()
    wild = WILD[:, :classes]
    return {
        "perfect": (perfect, labels, axes),
        "all wrong": (-perfect, labels, axes),
        "extreme": (1e4 * wild.sign(), labels, 1e4 * WILD),
        "tiny": (1e-6 * wild, labels, 1e-6 * WILD),
        "all embeddings equal": (wild, labels, torch.ones(6, 4)),
        "one class": (wild, torch.ones(6, dtype=torch.long), WILD),
        "absent class": (wild, torch.arange(6) % (classes - 1), WILD),
        "no two agree": (wild[:classes], torch.arange(classes), WILD[:classes]),
        "one sample": (wild[:1], torch.tensor([classes - 1]), WILD[:1]),
    }


@pytest.mark.parametrize(("name", "num_classes"), sized(3))
@pytest.mark.parametrize("case", batches(3))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_baseline_is_finite_on_every_batch(name, num_classes, case, dtype):
    logits, target, embeddings = batches(num_classes)[case]
    z, x = (tensor.to(dtype, copy=True).requires_grad_() for tensor in (logits, embeddings))
    loss = lowered(name, num_classes).to(dtype)
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
        ("focal", "perfect", 0.0),
        ("gce", "perfect", 0.0),
        ("gce", "all wrong", (1 - 1e-7**0.7) / 0.7),  # the floor under p
        ("sce", "all wrong", 1e3 + 0.1 * math.log(2) + 4 * math.log(10)),
        ("brier", "perfect", 0.0),
        ("brier", "all wrong", 1.5),
        ("mae", "all wrong", 2.0),
        ("squared-logits", "perfect", 9999.0**2),
        ("hinge", "perfect", 2.0),  # the other logits are 0, inside their margin
        ("bce", "perfect", 2 * math.log(2)),
        ("bce", "all wrong", 1e4 + 2 * math.log(2)),
        ("sparse-ls", "perfect", -0.5 / 3 * math.log(1e-7 / 2)),  # the floor under 1 - p
        ("ls", "perfect", 1e4 * 0.2 / 3),
        ("alternate-m", "all wrong", 1e7 - 1),  # the floor under p
        ("baikal", "all wrong", 1e7 + 1e4 + 3 * math.log(2)),
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
    logits, target, embeddings = batches(3)[case]
    value = lowered(name, 3)(logits.double(), target, embeddings.double()).item()
    assert value == pytest.approx(expected, rel=max(tolerance(name), 1e-6), abs=2e-7)


# --- The table --------------------------------------------------------------------------------------------------------

LINK = r".+ \d{4}, (arXiv:\d{4}\.\d{4,5}|doi:10\.\d{4,}/\S+|github\.com/\S+|jmlr\.org/\S+|CSD-TR-98-04, Royal Holloway)"


@pytest.mark.parametrize("name", BASELINES)
def test_a_row_says_what_it_is(name):
    row = BASELINES[name]
    expression = Expression.parse(row.expression)
    assert row.name == name
    assert row.family == family(expression.variables) or (row.family == "center" and "d" in expression.variables)
    assert re.fullmatch(LINK, row.paper)
    assert row.note
    assert not expression.missing
    assert Expression.parse(expression.text) == expression


@pytest.mark.parametrize("name", UNWRITABLE)
def test_an_unwritable_row_says_why(name):
    row = UNWRITABLE[name]
    assert row.name == name
    assert name not in BASELINES
    assert row.family in {other.family for other in BASELINES.values()}
    assert re.fullmatch(LINK, row.paper)
    assert row.reason


def test_the_ratio_of_means_is_not_contrastive_center_loss():
    """What the language can say is a ratio of sums over the batch: Qi & Su's is one of each sample."""
    formula = "cls(y*d**2)/(2*(1 + cls((1 - y)*d**2)))"
    loss = Loss(Expression.parse(formula), 3, 4, generator=torch.Generator().manual_seed(0)).double()
    _, labels, x = batches(3)["one class"]

    def paper(rows):
        squared = ((rows[:, None].double() - loss.centers) ** 2).sum(2)
        own = squared[:, 1]
        return (own / (squared.sum(1) - own + 1) / 2).mean()

    torch.testing.assert_close(loss(None, labels[:1], x[:1].double()), paper(x[:1]))
    assert abs(loss(None, labels, x.double()) / paper(x) - 1) > 0.01


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
