"""The small networks that score a loss. Each gives an embedding and logits: `embedding, logits = model(images)`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from evoloss.errors import EvolossError, suggest

EMBEDDING_DIM = 64

Shape = tuple[int, int, int]  # channels, height, width


class Proxy(nn.Module):
    """Features, a linear embedding (64 wide unless said otherwise), its activation and a linear head.

    The embedding of the search's proxies has no ReLU: with one, losses of distances lose 2 to 3 points, since half of
    the space is closed to them (measured on Fashion-MNIST: Yukawa .838 against .864).
    """

    def __init__(
        self,
        features: nn.Module,
        width: int,
        num_classes: int,
        embedding_dim: int = EMBEDDING_DIM,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.embedding = nn.Linear(width, embedding_dim)
        self.activation = activation or nn.Identity()
        self.head = nn.Linear(embedding_dim, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] to embeddings [B, E] and logits [B, K]."""
        embedding = self.activation(self.embedding(self.features(images)))
        return embedding, self.head(embedding)


def mlp(shape: Shape, num_classes: int, embedding_dim: int = EMBEDDING_DIM) -> Proxy:
    """Two ReLU layers of 128, for any input size; 125,898 parameters on 28x28 grey images with 10 classes."""
    channels, height, width = shape
    layers = [
        nn.Flatten(),
        nn.Linear(channels * height * width, 128),
        nn.ReLU(inplace=True),
        nn.Linear(128, 128),
        nn.ReLU(inplace=True),
    ]
    return Proxy(nn.Sequential(*layers), 128, num_classes, embedding_dim)


def inception(shape: Shape, num_classes: int, embedding_dim: int = EMBEDDING_DIM) -> Proxy:
    """A small Inception (after Zhang et al. 2017, arXiv:1611.03530) for images of 28 or 32 pixels.

    182,826 parameters on 32x32 color images with 10 classes: blocks of 1x1 and 3x3 branches, reductions of a strided
    3x3 branch and a max-pool, global average pooling. The stem strides at once, for speed.
    """
    # torch.compile does not pay here: three quarters of a step are convolutions, which it leaves as they are, and its
    # code for what lies between them, above all the backward of the max-pool, makes a step 9 % slower (torch 2.14).
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
    return Proxy(nn.Sequential(*layers), 96, num_classes, embedding_dim).to(memory_format=torch.channels_last)


def siamese_mlp(shape: Shape, num_classes: int, embedding_dim: int = 128) -> Proxy:
    """The shared half of the Siamese network of Keras's mnist_siamese example, as Motta (2020) runs it.

    134,794 parameters on 28x28 grey images with 10 classes; 133,504 without the head, which the original has not. ReLU
    and dropout 0.1 twice, then a ReLU embedding; Glorot-uniform weights, zero biases.
    """
    channels, height, width = shape
    layers = [
        nn.Flatten(),
        nn.Linear(channels * height * width, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Linear(128, 128),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
    ]
    proxy = Proxy(nn.Sequential(*layers), 128, num_classes, embedding_dim, nn.ReLU())
    return _initialized(proxy, nn.init.xavier_uniform_)


def lenet_plus(shape: Shape, num_classes: int, embedding_dim: int = 2) -> Proxy:
    """LeNet++ (Wen et al. 2016) with a bias in the head and torch's initial weights, as in K. Zhou's port.

    797,191 parameters on 28x28 grey images with 10 classes: three pairs of 5x5 convolutions (32, 64, 128 wide), each
    with a PReLU and each pair with a 2x2 max-pool, then an embedding with a PReLU. Images of at least 8x8.
    """
    channels, height, width = shape
    layers: list[nn.Module] = []
    for before, after in ((channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 5, padding=2), nn.PReLU()]
        layers += [nn.Conv2d(after, after, 5, padding=2), nn.PReLU(), nn.MaxPool2d(2)]
    features = nn.Sequential(*layers, nn.Flatten())
    return Proxy(features, 128 * (height // 8) * (width // 8), num_classes, embedding_dim, nn.PReLU())


def resnet(shape: Shape, num_classes: int, embedding_dim: int = 128) -> Proxy:
    """The pre-activation ResNet of mo-vic's standalone-center-loss (2019), widened once, one block a group.

    418,570 parameters on grey images with 10 classes: a 3x3 convolution without padding, blocks 32, 32, 64, 64, 128
    wide of which the second and the fourth stride, global average pooling. He-normal weights, zero biases.
    """
    widths, strides = (16, 32, 32, 64, 64, 128), (1, 2, 1, 2, 1)
    blocks = [_Residual(*row) for row in zip(widths, widths[1:], strides, strict=False)]
    layers = [
        nn.Conv2d(shape[0], 16, 3),
        *blocks,
        nn.BatchNorm2d(128),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    proxy = Proxy(nn.Sequential(*layers), 128, num_classes, embedding_dim)
    return _initialized(proxy, nn.init.kaiming_normal_).to(memory_format=torch.channels_last)


class _Convolution3x3(nn.Conv2d):
    """A 3x3 convolution, of images of four pixels as one matrix product, which takes half the time.

    There every output pixel sees all four of the input, through four of the nine taps.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, C, H, W] to [B, out, H, W]."""
        if x.shape[2:] != (2, 2):
            return super().forward(x)
        taps = self.weight.permute(0, 2, 3, 1)  # [out, 3, 3, C], their order in memory
        seen = [taps[:, 1 - i : 3 - i, 1 - j : 3 - j].flatten(1) for i in (0, 1) for j in (0, 1)]
        pixels = x.permute(0, 2, 3, 1).flatten(1) @ torch.cat(seen).t()  # [B, 4C] by [4C, 4 out]
        return pixels.view(-1, 2, 2, self.out_channels).permute(0, 3, 1, 2)


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Module:
    if (size, stride) == (3, 1):
        convolution: nn.Conv2d = _Convolution3x3(before, after)
    else:
        convolution = nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


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


class _Residual(nn.Module):
    """BN, ReLU, 3x3, BN, ReLU, 3x3, beside the input, or beside a 1x1 of the first ReLU where the shape changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.convolutions = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1),
        )
        self.shortcut = nn.Conv2d(before, after, 1, stride) if before != after or stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.before(x)
        return self.convolutions(active) + (x if self.shortcut is None else self.shortcut(active))


def _initialized(proxy: Proxy, draw: Callable[[Tensor], Tensor]) -> Proxy:
    """The proxy with all weights of convolutions and linear layers drawn so, and zero biases."""
    for module in proxy.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw(module.weight)
            nn.init.zeros_(module.bias)
    return proxy


def build(name: str, shape: Shape, num_classes: int, seed: int, embedding_dim: int | None = None) -> Proxy:
    """The proxy `name` with initial weights drawn from `seed`, leaving torch's global generator as it was.

    `embedding_dim` is the width of the embedding; without it, the proxy's own.
    """
    check(name)
    width = () if embedding_dim is None else (embedding_dim,)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PROXIES[name](shape, num_classes, *width)


def check(name: str) -> None:
    """Raise `EvolossError` unless there is a proxy of this name."""
    if name not in PROXIES:
        raise EvolossError(f"unknown proxy `{name}`{suggest(name, PROXIES)}: expected {', '.join(PROXIES)}")


PROXIES: dict[str, Callable[..., Proxy]] = {
    "mlp": mlp,
    "inception": inception,
    "siamese-mlp": siamese_mlp,
    "lenet++": lenet_plus,
    "resnet": resnet,
}
