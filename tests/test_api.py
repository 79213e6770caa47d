import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import evoloss
from evoloss.baselines import BASELINES

torch.set_num_threads(1)

HEAVY = ("torch", "torchvision", "ray", "sympy", "sklearn", "deap", "pandas", "scipy")


@pytest.mark.parametrize("code", ["import evoloss", "import evoloss; evoloss.baselines()", "import evoloss.config"])
def test_importing_is_cheap(code):
    program = f"import sys; {code}; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def batch(size: int = 12):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, 10, generator=generator, requires_grad=True)
    embeddings = torch.randn(size, 64, generator=generator, requires_grad=True)
    return logits, torch.arange(size) % 10, embeddings


def test_readme_loss_with_centers():
    logits, target, embeddings = batch()
    loss = evoloss.loss("-y*log(p) + 0.01*y*d**2", num_classes=10, embedding_dim=64)
    value = loss(logits, target, embeddings)
    value.backward()
    expected = functional.cross_entropy(logits, target) + 0.01 * (embeddings - loss.centers[target]).square().sum() / 12
    torch.testing.assert_close(value, expected)
    assert logits.grad.any()
    assert embeddings.grad.any()
    assert loss.centers.grad.any()


def test_readme_baseline_by_name():
    logits, target, _ = batch()
    value = evoloss.loss(evoloss.baselines()["ngl"].expression, num_classes=10)(logits, target)
    p, y = logits.softmax(1), functional.one_hot(target, 10)
    torch.testing.assert_close(value, (torch.exp(2.4092 - p * (1 + y)) - p.sin().cos().cos()).sum(1).mean())


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_can_be_called(name):
    logits, target, embeddings = batch()
    value = evoloss.loss(BASELINES[name].expression, 10, 64)(logits, target, embeddings)
    value.backward()
    assert value.isfinite()


def test_options_are_passed_on():
    logits, target, _ = batch()
    weight = torch.rand(10)
    ours = evoloss.loss("-y*log(p)", 10, reduction="none", weight=weight, ignore_index=3, scale=2.0)(logits, target)
    theirs = functional.cross_entropy(logits, target, weight=weight, ignore_index=3, reduction="none")
    torch.testing.assert_close(ours, 2 * theirs)


@pytest.mark.parametrize(
    ("text", "words"),
    [("-y*log(q)", "unknown name `q`"), ("", "is empty"), ("import os", "not a formula"), ("p + D", "cannot meet")],
)
def test_a_formula_outside_the_language_is_a_value_error(text, words):
    with pytest.raises(ValueError, match=words):
        evoloss.loss(text, num_classes=10)


def test_baselines_are_the_table_however_often_asked():
    """The function has the name of its module: importing that must not replace it."""
    rows = evoloss.baselines()
    assert evoloss.baselines() is rows is BASELINES
    assert {row.name for row in rows.values()} == set(rows)
    assert rows["ce"].expression == "-y*log(p)"


def test_the_public_names():
    assert set(evoloss.__all__) == {"loss", "baselines"}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        embedding = self.embedding(x)
        return self.head(embedding), embedding


@pytest.mark.parametrize("text", ["-y*log(p) + 0.01*y*d**2", "cls(y*d**2) - 0.1*partner((1 - Y)*log(1 + D**2))"])
def test_training_with_centers_lowers_the_loss(text):
    torch.manual_seed(0)
    target = torch.arange(60) % 3
    inputs = 2 * functional.one_hot(target, 5) + 0.5 * torch.randn(60, 5)
    net, loss = Net(), evoloss.loss(text, num_classes=3, embedding_dim=4)
    start = loss.centers.detach().clone()
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.01), torch.optim.SGD(loss.parameters(), lr=0.5)]
    values = []
    for _ in range(80):
        logits, embeddings = net(inputs)
        value = loss(logits, target, embeddings)
        for optimizer in optimizers:
            optimizer.zero_grad()
        value.backward()
        for optimizer in optimizers:
            optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] - 0.4
    assert not torch.equal(loss.centers, start)
    logits, embeddings = net(inputs)
    guess = logits.argmax(1) if "p" in loss.expression.variables else torch.cdist(embeddings, loss.centers).argmin(1)
    assert (guess == target).float().mean() > 0.95
