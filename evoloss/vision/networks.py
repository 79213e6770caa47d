"""torchvision's networks by name, as a loss meets them: bytes in, embeddings and logits out."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from evoloss.errors import EvolossError

Task = Literal["classification", "segmentation"]
Moments = tuple[Tensor, Tensor]  # mean and standard deviation of pixels in 0..1, [1, C, 1, 1] each

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # what pretrained weights were trained on
IMAGENET_CLASSES = 1000
SHOWN = 8  # names in an error


@dataclass(frozen=True)
class Design:
    """A network by its name in torchvision, for images of `side` pixels; `amp` computes it in bfloat16 (autocast)."""

    name: str
    task: Task
    num_classes: int
    side: int
    amp: bool = False
    pretrained: bool = False


@dataclass(frozen=True)
class Traits:
    """The width of a network's embedding, and the least momentum of its batch norms; None where it has none."""

    width: int | None
    momentum: float | None

    def unsettled(self, steps: int) -> float:
        """The share of their initial values in the running statistics of its batch norms after so many steps."""
        return 0.0 if self.momentum is None else (1 - self.momentum) ** steps


class Network(nn.Module):
    """A torchvision model on bytes: images uint8 [B, C, h, w] to embeddings [B, E] and logits [B, K, ...], in float32.

    Grey images are repeated to three channels, other sizes scaled to `side` (bilinear, antialiased). The embedding is
    what the last linear layer sees; where `head` is None there is none, and the logits stand in its place. Outside
    training, a batch is computed in parts of `chunk` images.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: nn.Module, head: nn.Linear | None, design: Design, moments: Moments, chunk: int) -> None:
        super().__init__()
        self.model = model.to(memory_format=torch.channels_last)
        self.head = nn.Identity() if head is None else head
        self.design, self.chunk = design, chunk
        self.register_buffer("mean", moments[0])
        self.register_buffer("deviation", moments[1])
        self._seen: Tensor | None = None
        if head is not None:
            head.register_forward_pre_hook(self._see)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, C, h, w] in bytes to embeddings and logits."""
        if self.training or len(images) <= self.chunk:
            return self._forward(images)
        embeddings, logits = zip(*map(self._forward, images.split(self.chunk)), strict=True)
        return torch.cat(embeddings), torch.cat(logits)

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        pixels = self._pixels(images)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.design.amp):
            logits = _logits(self.model(pixels)).float()
        seen, self._seen = self._seen, None
        return (logits if seen is None else seen.float()), logits

    def _pixels(self, images: Tensor) -> Tensor:
        pixels = images.to(self.mean.device).float() / 255
        side = self.design.side
        if pixels.shape[2:] != (side, side):
            pixels = functional.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
        pixels = (pixels.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        return pixels.contiguous(memory_format=torch.channels_last)

    def _see(self, _head: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (self._seen,) = inputs


def check(name: str, task: Task) -> None:
    """Raise `EvolossError` unless torchvision has a network of this name for the task."""
    known = names(task)
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, 5, 0.5) if len(known) > SHOWN else []
        shown = near or known[:SHOWN]
        others = f" and others, {len(known)} in all" if len(shown) < len(known) else ""
        raise EvolossError(f"torchvision has no network `{name}` for {task}: there are {', '.join(shown)}{others}")


def names(task: Task) -> list[str]:
    """The networks that torchvision has for a task."""
    from torchvision import models

    modules = {"classification": models, "segmentation": models.segmentation}
    return models.list_models(module=modules[task])


def build(design: Design, seed: int, moments: Moments, chunk: int) -> Network:
    """The network with weights drawn from `seed` (pretrained: but for its last layer), torch's generator left alone.

    `moments` normalize the pixels of networks that are not pretrained. Raises `EvolossError`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _pretrained(design) if design.pretrained else _untrained(design)
    if design.pretrained:
        moments = tuple(torch.tensor(row).view(1, 3, 1, 1) for row in IMAGENET)  # type: ignore[assignment]
    return Network(model, _head(model, design), design, moments, chunk)


def tried(design: Design) -> Traits:
    """What the network turns out to be on two black images.

    Raises `EvolossError` where it does not take images of this size.
    """
    nothing, one = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    black = torch.zeros(2, 3, design.side, design.side, dtype=torch.uint8)
    try:
        network = build(design, 0, (nothing, one), len(black)).train()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            embeddings, logits = network(black)
    except EvolossError:
        raise
    except Exception as error:  # a layer that does not fit raises what it likes
        reason = " ".join(str(error).split()).rstrip(".!") or type(error).__name__
        size = f"{design.side} x {design.side}"
        raise EvolossError(
            f"`{design.name}` does not take images of {size} ({reason}): give another --image-size, such as 224"
        ) from None
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momentum = min((layer.momentum for layer in norms if layer.momentum is not None), default=None)
    return Traits(_width(network, embeddings, logits), momentum)


@torch.no_grad()
def _width(network: Network, embeddings: Tensor, logits: Tensor) -> int | None:
    head = network.head
    if not isinstance(head, nn.Linear) or embeddings.ndim != 2:
        return None
    return head.in_features if torch.allclose(head(embeddings), logits, rtol=1e-2, atol=1e-2) else None


def _untrained(design: Design) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {"weights_backbone": None} if design.task == "segmentation" else {}
    for prefix, more in _OPTIONS.items():
        if design.name.startswith(prefix):
            options |= more(design.side)
    return models.get_model(design.name, weights=None, num_classes=design.num_classes, **options)


def _pretrained(design: Design) -> nn.Module:
    """Classifiers with ImageNet's weights and a new last layer, segmentation networks with those of their backbone."""
    from torchvision import models

    try:
        if design.task == "segmentation":
            return models.get_model(
                design.name, weights=None, weights_backbone="DEFAULT", num_classes=design.num_classes
            )
        model = models.get_model(design.name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # no network, or a file that is not what it should be
        raise EvolossError(
            f"cannot fetch the weights of `{design.name}` ({error}): put them into {torch.hub.get_dir()}/checkpoints, "
            "or leave out --pretrained"
        ) from None
    _renew_head(model, design.num_classes)
    return model


def _renew_head(model: nn.Module, num_classes: int) -> None:
    """A new last layer, linear or a convolution of one pixel (SqueezeNet), in the place of ImageNet's."""
    for name, layer in reversed(list(model.named_modules())):
        new: nn.Module
        if isinstance(layer, nn.Linear) and layer.out_features == IMAGENET_CLASSES:
            new = nn.Linear(layer.in_features, num_classes, layer.bias is not None)
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == IMAGENET_CLASSES:
            new = nn.Conv2d(layer.in_channels, num_classes, 1)
        else:
            continue
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, new)
        return


def _head(model: nn.Module, design: Design) -> nn.Linear | None:
    """The last linear layer, if it gives as many numbers as there are classes."""
    if design.task == "segmentation":
        return None
    linear = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    return linear[-1] if linear and linear[-1].out_features == design.num_classes else None


def _logits(answer: Any) -> Tensor:
    """Without what auxiliary heads say."""
    if isinstance(answer, Mapping):
        return answer["out"]
    return answer[0] if isinstance(answer, tuple) else answer


# What builders of untrained networks have to be told, by the beginning of the name: auxiliary heads are for the loss of
# their papers alone, and networks of patches are made for one size of images.
_OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "googlenet": lambda side: {"aux_logits": False, "init_weights": True},
    "inception_v3": lambda side: {"aux_logits": False, "init_weights": True},
    "vit_": lambda side: {"image_size": side},
    "maxvit": lambda side: {"input_size": (side, side)},
}
