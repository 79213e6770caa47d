import pytest
import torch

from evoloss.baselines import BASELINES
from evoloss.expression import Expression
from evoloss.gradient import compile_gradient
from evoloss.lower import Loss, compile_node
from evoloss.operators import OPERATORS
from evoloss.probes import DIMENSION, Chain, Labels, Scales, View, probes
from evoloss.screen import EXAMINED, TOLD_APART
from evoloss.syntax import write

parse = Expression.parse

BY_WORD = {
    "z": "y*z**2 + abs(z)",
    "p": "(p - y)**2 + exp(p)/K",
    "log_p": "-y*log(p)",
    "d": "y*d**2 - log(d)",
    "D": "pair(Y*D + exp(-D)) - 0.3*partner((1 - Y)*log(1 + D))",
    "Dp, Dn": "trip(relu(Dp**2 - Dn**2 + 0.85))",
    "constants": "cls(y) + 2*cls(3) + pair(2) + pair(Y) + partner(0.5) + trip(K) + cls(p**2)",
    "reductions in functions": "exp(cls(-y*log(p)))*trip(Dn - Dp) + pair(D)**2",
}
FORMULAS = BY_WORD | {row.name: row.expression for row in BASELINES.values() if row.classes is None}


def normal_inputs(labels: Labels, *batches: int, seed: int = 0) -> dict[str, torch.Tensor]:
    shapes = {
        "logits": (labels.num_classes, labels.size),
        "embeddings": (labels.size, DIMENSION),
        "centers": (labels.num_classes, DIMENSION),
    }
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(*batches, *shape, generator=generator, dtype=labels.y.dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def in_training(text: str, labels: Labels, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The value and the gradients of the loss as a training computes it."""
    loss = Loss(parse(text), labels.num_classes, DIMENSION).double()
    logits, embeddings, centers = (tensor.detach().clone().requires_grad_() for tensor in inputs.values())
    if loss.centers is not None:
        del loss.centers
        loss.centers = centers
    value = loss(logits.T, labels.labels, embeddings)
    gradients = torch.autograd.grad(value, [logits, embeddings, centers], allow_unused=True, materialize_grads=True)
    return value, list(gradients)


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS)
@pytest.mark.parametrize("num_classes", [2, 10])
def test_formulas_mean_here_what_they_mean_in_a_training(text, num_classes):
    labels = Labels(num_classes, 4, dtype=torch.float64)
    inputs = normal_inputs(labels)
    words = Chain(parse(text).variables, inputs, labels).words
    value = compile_node(parse(text).node, num_classes)(View(labels, words)).squeeze()
    gradients = torch.autograd.grad(value, list(inputs.values()), allow_unused=True, materialize_grads=True)
    torch.testing.assert_close((value, list(gradients)), in_training(text, labels, inputs), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS)
@pytest.mark.parametrize("paired", [4, 2])
def test_derivatives_without_autograd(text, paired):
    """Of two batches, one with samples in one place and at their center, and a logit at which p is clamped."""
    labels = Labels(5, 4, paired=paired, dtype=torch.float64)
    inputs = normal_inputs(labels, 2)
    with torch.no_grad():
        inputs["embeddings"][0, :7] = inputs["centers"][0, 0]
        inputs["logits"][0, 0] = 40
    chain = Chain(parse(text).variables, inputs, labels, step=3)
    values = compile_node(parse(text).node, 5)(View(labels, chain.words))
    expected = torch.autograd.grad(
        values.sum(), list(inputs.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    ours, derivatives = compile_gradient(parse(text).node, 5, stacked=True)(View(labels, chain.words))
    slopes = {name: derivatives.get(name, word.new_zeros(())).expand_as(word) for name, word in chain.words.items()}
    torch.testing.assert_close(ours.expand_as(values), values.detach(), rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        pulled = chain.pull(slopes)
    torch.testing.assert_close(list(pulled.values()), list(expected), rtol=1e-8, atol=1e-10)


def test_the_clamp_of_probabilities_lets_no_derivative_through_at_its_ends():
    """In single precision, where a probability can be 1."""
    labels = Labels(3, 1)
    logits = torch.tensor([[16.1, 17.5, 0.0], [0.0, 0.0, 0.0], [-3.0, -80.0, 0.0]]).requires_grad_()
    chain = Chain({"p"}, {"logits": logits}, labels)
    assert chain.words["p"].detach()[:, :2].unique().numel() == 4
    slopes = {name: torch.arange(1.0, 10).view(3, 3) * (name == "p") for name in chain.words}
    (expected,) = torch.autograd.grad(chain.words["p"], logits, slopes["p"], retain_graph=True)
    with torch.no_grad():
        torch.testing.assert_close(chain.pull(slopes)["logits"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("text", FORMULAS.values(), ids=FORMULAS)
def test_a_batch_has_the_same_bits_in_any_stack(text):
    labels = Labels(7, 6)
    everything = normal_inputs(labels, 5, 2)
    program = compile_gradient(parse(text).node, 7, stacked=True)

    def outcome(chosen: list[int]) -> list[torch.Tensor]:
        inputs = {name: tensor.detach()[chosen].clone() for name, tensor in everything.items()}
        chain = Chain(parse(text).variables, inputs, labels)
        slopes = {name: torch.zeros_like(word) for name, word in chain.words.items()}
        losses = []
        for row in range(len(chosen)):
            value, derivatives = program(View(labels, {name: word[row] for name, word in chain.words.items()}))
            losses.append(value)
            for name, derivative in derivatives.items():
                slopes[name][row] = derivative
        return [torch.stack(losses), *chain.pull(slopes).values()]

    whole = outcome([0, 1, 2, 3, 4])
    for chosen in ([3], [4, 3], [3, 0, 1], [2, 3, 4, 1, 0]):
        for part, full in zip(outcome(chosen), whole, strict=True):
            assert torch.equal(part, full[chosen])


def test_labels_of_some_classes_and_pairs_of_some_samples():
    labels = Labels(9, 5, present=3, paired=2)
    assert labels.labels.bincount().tolist() == [5, 5, 5]
    assert labels.y.shape == (9, 15)
    assert torch.equal(labels.y.argmax(0), labels.labels)
    pairs = [divmod(place, 6) for place in labels.pairs.tolist()]
    assert pairs == [(i, j) for i in range(6) for j in range(i + 1, 6)]
    assert labels.Y.tolist() == [[float(i % 3 == j % 3) for i, j in pairs]]
    assert (labels.weights * labels.Y).sum().item() == pytest.approx(0.5)
    assert labels.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("negatives", [1, 3])
def test_triplets_have_negatives_of_their_own_at_every_step(negatives):
    labels = Labels(3, 4, negatives=negatives)
    drawn = [labels.triplets(step) for step in range(3)]
    for positives, others in drawn:
        assert len(positives) == 12 * 3 * negatives
        for to_positive, to_negative in zip(positives.tolist(), others.tolist(), strict=True):
            anchor, positive = divmod(to_positive, 12)
            assert divmod(to_negative, 12)[0] == anchor != positive
            assert anchor % 3 == positive % 3 != to_negative % 12 % 3
    assert not torch.equal(drawn[0][1], drawn[1][1])
    assert labels.triplets(1)[1] is drawn[1][1]


@pytest.mark.parametrize("scales", [EXAMINED, TOLD_APART], ids=["examined", "told apart"])
@pytest.mark.parametrize("num_classes", [2, 3, 10, 1000])
def test_probes_cover_their_scales(num_classes, scales):
    made = probes(num_classes, scales)
    assert made.inputs["logits"].shape == (len(scales.logits), num_classes, made.labels.size)
    for name, wanted in (("logits", scales.logits), ("embeddings", scales.embeddings)):
        for tensor, scale in zip(made.inputs[name], wanted, strict=True):
            assert tensor.dtype == scales.dtype
            assert scale / 5 < tensor.abs().median() < 2 * scale
    if not scales.trained:
        return
    probabilities = (made.words["p"] * made.labels.y).sum(1).unflatten(1, (-1, 2, made.labels.present))
    trained = probabilities[1, :, 1].flatten().sort().values
    assert trained.diff().max() < 0.02
    assert trained[0] < 0.02
    assert trained[-1] > 0.98


def test_probes_are_the_same_every_time_and_others_for_another_seed():
    again = probes.__wrapped__(10, EXAMINED)
    other = probes.__wrapped__(10, EXAMINED, seed=7)
    for name, tensor in probes(10, EXAMINED).inputs.items():
        assert torch.equal(tensor, again.inputs[name])
        assert not torch.equal(tensor, other.inputs[name])


@pytest.mark.parametrize("name", OPERATORS)
def test_every_function_of_the_language_has_a_gradient(name):
    arguments = [parse("y*p + 0.5").node[1], "p"][: OPERATORS[name].arity]
    expression = Expression(write(("cls", (name, *arguments))))
    values, gradients = probes(10, Scales((1.0,), (1.0,), torch.float64)).gradients(expression)
    assert values.isfinite().all()
    assert set(gradients) == {"logits"}
    assert gradients["logits"].isfinite().all()
