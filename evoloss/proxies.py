"""The small networks that score a loss. Each gives an embedding and logits: `embedding, logits = model(images)`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evoloss.errors import EvolossError, suggest

EMBEDDING_DIM = 64


class Proxy(nn.Module):
    """Features, a linear embedding of 64 and a linear head.

    The embedding has no ReLU: with one, losses of distances lose 2 to 3 points, since half of the space is closed to
    them (measured on Fashion-MNIST: Yukawa .838 against .864).
    """

    def __init__(self, features: nn.Module, width: int, num_classes: int) -> None:
        super().__init__()
        self.features = features
        self.embedding = nn.Linear(width, EMBEDDING_DIM)
        self.head = nn.Linear(EMBEDDING_DIM, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] to embeddings [B, 64] and logits [B, K]."""
        embedding = self.embedding(self.features(images))
        return embedding, self.head(embedding)


def mlp(shape: tuple[int, int, int], num_classes: int) -> Proxy:
    """Two ReLU layers of 128, for any input size; 125,898 parameters on 28x28 grey images with 10 classes."""
    channels, height, width = shape
    layers = [
        nn.Flatten(),
        nn.Linear(channels * height * width, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, 128),
        nn.ReLU(inplace=True),
    ]
    return Proxy(nn.Sequential(*layers), 128, num_classes)


def inception(shape: tuple[int, int, int], num_classes: int) -> Proxy:
    """A small Inception (after Zhang et al. 2017, arXiv:1611.03530) for images of 28 or 32 pixels.

    182,826 parameters on 32x32 color images with 10 classes: blocks of 1x1 and 3x3 branches, reductions of a strided
    3x3 branch and a max-pool, global average pooling. The stem strides at once, for speed.
    """
    layers = [
        _convolution(shape[0], 16, 3, stride=2),
        _Block(16, 16, 32),
        _Reduction(48, 32),
        _Block(80, 40, 48),
        _Block(88, 40, 48),
        _Reduction(88, 40),
        _Block(128, 64, 32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    return Proxy(nn.Sequential(*layers), 96, num_classes).to(memory_format=torch.channels_last)


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class _Block(nn.Module):
    def __init__(self, before: int, narrow: int, wide: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_convolution(before, narrow, 1), _convolution(before, wide, 3)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class _Reduction(nn.Module):
    def __init__(self, before: int, strided: int) -> None:
        super().__init__()
        self.convolution = _convolution(before, strided, 3, stride=2)
        self.pool = nn.MaxPool2d(3, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.convolution(x), self.pool(x)], 1)


def build(name: str, shape: tuple[int, int, int], num_classes: int, seed: int) -> Proxy:
    """The proxy `name` with initial weights drawn from `seed`, leaving torch's global generator as it was."""
    check(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PROXIES[name](shape, num_classes)


def check(name: str) -> None:
    """Raise `EvolossError` unless there is a proxy of this name."""
    if name not in PROXIES:
        raise EvolossError(f"unknown proxy `{name}`{suggest(name, PROXIES)}: expected {', '.join(PROXIES)}")


PROXIES: dict[str, Callable[[tuple[int, int, int], int], Proxy]] = {"mlp": mlp, "inception": inception}
