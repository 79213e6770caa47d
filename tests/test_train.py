import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn
from torch.nn import functional

from evoloss import train as training
from evoloss.expression import Expression
from evoloss.lower import Loss
from evoloss.proxies import EMBEDDING_DIM, build
from evoloss.records import Budget, Status
from evoloss.train import Samples, nearest, train

torch.set_num_threads(1)

BUDGET = Budget(samples=120, epochs=6, learning_rate=3e-3, batch_size=32)
SHAPE = (1, 8, 8)


def blobs(count: int = 120, classes: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> Samples:
    """Images of a class are its pattern with noise; the patterns are the same for every seed."""
    patterns = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(99))
    labels = torch.tensor(classes)[torch.arange(count) % len(classes)]
    noise = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))
    return Samples(patterns[labels] + 0.7 * noise, labels)


def lowered(text: str = "-y*log(p)") -> Loss:
    return Loss(Expression.parse(text), 3, EMBEDDING_DIM, generator=torch.Generator().manual_seed(4))


def run(
    loss: nn.Module | None = None,
    budget: Budget = BUDGET,
    seed: int = 1,
    decoder: str = "argmax",
    samples=None,
    scored=None,
):
    model = build("mlp", SHAPE, 3, seed=7)
    scored = scored or {"select": blobs(300, seed=1)}
    result = train(model, loss or lowered(), samples or blobs(), scored, budget, seed, decoder)
    return result, model


DECODED = {
    "argmax": "-y*log(p)",
    "centers": "cls(y*d**2) - 0.1*partner((1 - Y)*log(1 + D**2))",
    "means": "pair(Y*D**2 + (1 - Y)*relu(1 - D)**2)",
}


@pytest.mark.parametrize("decoder", DECODED)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_it_learns(decoder, optimizer):
    budget = replace(BUDGET, optimizer=optimizer, learning_rate={"adam": 3e-3, "sgd": 1e-2}[optimizer])
    result, _ = run(lowered(DECODED[decoder]), budget, decoder=decoder)
    assert result.status is Status.OK
    assert result.accuracy["select"] > 0.9
    assert result.steps == 6 * math.ceil(120 / 32)


@pytest.mark.parametrize("decoder", DECODED)
def test_untrained_it_is_at_chance(decoder):
    """So that the test above shows learning: patterns with their labels moved on cannot be guessed."""
    held_out = blobs(300, seed=1)
    result, _ = run(
        lowered(DECODED[decoder]), decoder=decoder, scored={"test": Samples(held_out.images, (held_out.labels + 1) % 3)}
    )
    assert result.accuracy["test"] < 0.1


def test_the_same_seed_gives_the_same_weights_bit_for_bit():
    (first, model), (second, again), (_, other) = run(seed=1), run(seed=1), run(seed=2)
    assert first == second
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not torch.equal(model.head.weight, other.head.weight)


@pytest.mark.parametrize("before", ["-y*log(p)", DECODED["centers"], "trip(relu(Dp**2 - Dn**2 + 0.85))"])
def test_one_training_does_not_leak_into_the_next(before):
    text, decoder = DECODED["centers"], "centers"
    torch.manual_seed(1)
    alone, model = run(lowered(text), decoder=decoder)
    torch.manual_seed(2)
    run(lowered(before))
    after, again = run(lowered(text), decoder=decoder)
    assert after == alone
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_training_leaves_the_global_generator_and_the_data_alone():
    samples = blobs()
    images = samples.images.clone()
    before = torch.get_rng_state()
    run(budget=replace(BUDGET, flips=True, shifts=True), samples=samples)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(samples.images, images)


class Spoiled(nn.Module):
    """Cross-entropy that is multiplied by `factor` from one step on; counts its calls."""

    def __init__(self, at: int = 10**9, factor: float = 1.0):
        super().__init__()
        self.at, self.factor, self.calls, self.sizes = at, factor, 0, []

    def forward(self, logits, target, embeddings):
        factor = self.factor if self.calls >= self.at else 1.0
        self.calls += 1
        self.sizes.append(len(target))
        return factor * functional.cross_entropy(logits, target)


@pytest.mark.parametrize("factor", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, 3, 11, 22, 23])
def test_a_loss_that_is_not_finite_is_diverged(factor, at):
    result, _ = run(Spoiled(at, factor))
    assert result.status is Status.DIVERGED
    assert result.accuracy == {}
    assert result.steps >= at
    assert "step" in result.detail


def test_a_spoiled_loss_stops_the_training_soon():
    loss = Spoiled(3, math.nan)
    result, _ = run(loss, replace(BUDGET, epochs=100))
    assert result.steps == 10
    assert loss.calls == 11


def test_weights_that_overflow_in_the_last_step_are_diverged():
    """The loss is finite whenever it is looked at, its gradient is not."""

    class Cliff(Spoiled):
        def forward(self, logits, target, embeddings):
            value = super().forward(logits, target, embeddings)
            return value + (0 * logits.sum()).abs().sqrt() if self.calls == 24 else value

    result, _ = run(Cliff())
    assert result.status is Status.DIVERGED
    assert "weights are not finite" in result.detail


@pytest.mark.parametrize("limit", [1e-9, -1.0])
def test_a_training_over_its_time_is_a_timeout(limit):
    loss = Spoiled()
    result, _ = run(loss, replace(BUDGET, time_limit=limit))
    assert result.status is Status.TIMEOUT
    assert result.accuracy == {}
    assert loss.calls == 1


@pytest.mark.parametrize(
    ("samples", "available", "batch_size", "epochs"),
    [
        (120, 120, 32, 3),
        (120, 120, 40, 2),
        (120, 30, 32, 2),
        (300, 7, 32, 1),
        (33, 33, 32, 4),
        (65, 200, 32, 1),
        (5, 5, 8, 3),
    ],
)
def test_steps_are_those_of_the_budget_however_few_samples(samples, available, batch_size, epochs):
    loss = Spoiled()
    budget = replace(BUDGET, samples=samples, epochs=epochs, batch_size=batch_size)
    result, _ = run(loss, budget, samples=blobs(available))
    assert result.steps == loss.calls == epochs * math.ceil(samples / batch_size)
    assert max(loss.sizes) <= batch_size
    assert min(loss.sizes) > 1  # batch norm cannot train on one sample


def test_batches_are_permutations_one_after_the_other():
    batches = training.batches(10, 4, torch.Generator().manual_seed(0))
    epochs = [torch.cat(list(islice(batches, 3))).tolist() for _ in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_rest_of_one_sample_is_skipped_and_a_single_sample_is_not():
    assert [len(b) for b in islice(training.batches(9, 4, torch.Generator()), 4)] == [4, 4, 4, 4]
    assert [b.tolist() for b in islice(training.batches(1, 4, torch.Generator()), 2)] == [[0], [0]]


def test_a_batch_size_of_one_does_not_hang(monkeypatch):
    """A run's TOML may say batch_size = 1."""
    permutations, permute = [], torch.randperm

    def counted(*arguments, **options):
        permutations.append(arguments)
        assert len(permutations) < 20, "no batch in 20 permutations: this would go on for ever"
        return permute(*arguments, **options)

    monkeypatch.setattr(torch, "randperm", counted)
    assert [len(b) for b in islice(training.batches(6, 1, torch.Generator()), 6)] == [1] * 6


def test_the_learning_rate_falls_to_zero():
    rates = []

    class Watched(Spoiled):
        def forward(self, *inputs):
            rates.extend(group["lr"] for group in optimizers[0].param_groups)
            return super().forward(*inputs)

    optimizers = []
    make = training.OPTIMIZERS["adam"]

    def kept(model, rate):
        optimizers.append(make(model, rate))
        return optimizers[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(training.OPTIMIZERS, "adam", kept)
        run(Watched())
    assert rates == pytest.approx([3e-3 * (1 - step / 24) for step in range(24)])


def test_flattened_weights_compute_what_they_did_and_take_their_layout_along():
    model = build("inception", (3, 16, 16), 10, seed=0)
    images = torch.randn(4, 3, 16, 16)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    strides = [parameter.stride() for parameter in model.parameters()]
    whole = training.flattened(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert len(whole) == sum(parameter.numel() for parameter in model.parameters())
    model(images)[1].sum().backward()
    assert whole.grad.norm() == pytest.approx(math.hypot(*(p.grad.norm().item() for p in model.parameters())), rel=1e-5)
    with torch.no_grad():
        whole.zero_()
    assert not any(parameter.any() for parameter in model.parameters())


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_a_step_on_flattened_weights_is_one_on_each(optimizer):
    models = [build("inception", (3, 16, 16), 10, seed=0) for _ in range(2)]
    weights = [list(models[0].parameters()), [training.flattened(models[1])]]
    optimizers = [training.OPTIMIZERS[optimizer](each, 1e-2) for each in weights]
    images = torch.randn(8, 3, 16, 16)
    for _ in range(3):
        for model, each in zip(models, optimizers, strict=True):
            each.zero_grad(set_to_none=False)
            model(images)[1].square().mean().backward()
            each.step()
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, other)


# --- Augmentation -----------------------------------------------------------------------------------------------------


def numbered(count: int = 40, channels: int = 2, height: int = 16, width: int = 16) -> torch.Tensor:
    """Images whose pixels all differ."""
    return torch.arange(count * channels * height * width, dtype=torch.float32).reshape(count, channels, height, width)


@pytest.mark.parametrize("most", [0, 1, 2, 5])
@pytest.mark.parametrize("size", [(16, 16), (8, 20)])
def test_shifts_move_whole_images_and_repeat_the_edge(most, size):
    images = numbered(30, 2, *size)
    shifted = training._shifted(images, most, torch.Generator().manual_seed(0))
    assert shifted.shape == images.shape
    seen = set()
    for before, after in zip(images, shifted, strict=True):
        found = [
            (down, right)
            for down in range(-most, most + 1)
            for right in range(-most, most + 1)
            if torch.equal(after, before[:, clipped(size[0], down)][:, :, clipped(size[1], right)])
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 1 or most == 0


def clipped(size: int, by: int) -> torch.Tensor:
    return (torch.arange(size) + by).clamp(0, size - 1)


def test_shifts_reach_every_offset():
    images = numbered(400, 1, 4, 4)
    shifted = training._shifted(images, 1, torch.Generator().manual_seed(0))
    differences = {int((after - before)[0, 1, 1]) for before, after in zip(images, shifted, strict=True)}
    assert differences == {4 * down + right for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_flips_mirror_about_half_of_the_images():
    images = numbered(200)
    flipped = training.augmented(images, replace(BUDGET, flips=True), torch.Generator().manual_seed(0))
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(images, flipped, strict=True)]
    same = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 70 < sum(mirrored) < 130


def test_without_augmentation_images_are_as_they_were():
    images = numbered(3)
    assert training.augmented(images, BUDGET, torch.Generator()) is images


@pytest.mark.parametrize("size", [8, 28, 32])
def test_shifts_are_an_eighth_of_the_width_at_most(size):
    images = numbered(300, 1, size, size)
    shifted = training.augmented(images, replace(BUDGET, shifts=True), torch.Generator().manual_seed(0))
    middle = size // 2
    columns = [int(image[0, middle, middle]) % size - middle for image in shifted]
    assert {min(columns), max(columns)} == {-(size // 8), size // 8}


# --- Decoders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", ["means"])
def test_a_class_absent_from_training_is_never_predicted(decoder):
    scored = {"select": blobs(100, (0, 1), seed=1), "test": blobs(100, (2,), seed=1)}
    result, _ = run(lowered(DECODED[decoder]), decoder=decoder, samples=blobs(classes=(0, 1)), scored=scored)
    assert result.status is Status.OK
    assert result.accuracy["select"] > 0.9
    assert result.accuracy["test"] == 0


def test_the_means_decoder_is_the_nearest_class_mean():
    scored = blobs(90, seed=1)
    result, model = run(lowered(DECODED["means"]), decoder="means", scored={"select": scored})
    model.eval()
    with torch.no_grad():
        trained, embeddings = model(blobs().images)[0], model(scored.images)[0]
    means = torch.stack([trained[blobs().labels == k].mean(0) for k in range(3)])
    guess = (embeddings.unsqueeze(1) - means).norm(dim=2).argmin(1)
    assert result.accuracy["select"] == (guess == scored.labels).float().mean().item()


def test_centers_move_and_decide():
    loss = lowered(DECODED["centers"])
    before = loss.centers.detach().clone()
    scored = blobs(90, seed=1)
    result, model = run(loss, decoder="centers", scored={"select": scored})
    assert (loss.centers != before).any(1).all()
    model.eval()
    with torch.no_grad():
        guess = (model(scored.images)[0].unsqueeze(1) - loss.centers).norm(dim=2).argmin(1)
    assert result.accuracy["select"] == (guess == scored.labels).float().mean().item()


def test_nearest_never_names_what_is_not_finite():
    references = torch.tensor([[math.inf, math.inf], [5.0, 5.0], [math.nan, 0.0], [0.0, 1.0]])
    assert nearest(torch.tensor([[4.0, 4.0], [0.0, 0.0], [1e6, 1e6]]), references).tolist() == [1, 3, 1]


def test_every_scored_role_is_reported_over_many_parts(monkeypatch):
    scored = {"select": blobs(103, seed=1), "test": blobs(31, seed=2)}
    whole, _ = run(scored=scored)
    monkeypatch.setattr(training, "SCORING_BATCH", 10)
    monkeypatch.setattr(training, "SCORING_PIXELS", 0)
    assert [len(labels) for _, labels in scored["test"].parts()] == [10, 10, 10, 1]
    assert run(scored=scored)[0].accuracy == whole.accuracy
    assert set(whole.accuracy) == {"select", "test"}


@pytest.mark.parametrize(("side", "together"), [(8, 2000), (16, 500), (28, 163), (32, 125), (64, 125), (224, 125)])
def test_few_images_are_never_scored_alone_for_their_size(side, together):
    images = torch.zeros(1).expand(2500, 1, side, side)
    sizes = [len(labels) for _, labels in Samples(images, torch.zeros(2500)).parts()]
    assert sizes[0] == together
    assert sum(sizes) == 2500
