"""Random flips, rotations, zooms and shifts of images, all of them one affine map an image."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from evoloss.recipe import Augmentation

_EDGES = {"black": "zeros", "nearest": "border"}


def augmented(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    """Square images [B, C, S, S], each changed at random within the bounds of `how`, bilinearly.

    Flips and crops fall on whole pixels, up to rounding.
    """
    if how == Augmentation():
        return images
    count, side = len(images), images.shape[-1]

    def uniform(bound: float) -> Tensor:
        return (2 * torch.rand(count, generator=generator) - 1) * bound

    angle = uniform(math.radians(how.rotate))
    width, height = 1 + uniform(how.zoom), 1 + uniform(how.zoom)
    if how.flip:
        width = width * torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    pixels = torch.randint(-how.crop, how.crop + 1, (2, count), generator=generator)
    right, down = (2 * moved / side + 2 * uniform(how.shift) for moved in pixels)
    rows = (
        torch.stack([angle.cos() * width, -angle.sin() * height, right], 1),
        torch.stack([angle.sin() * width, angle.cos() * height, down], 1),
    )
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode=_EDGES[how.edge], align_corners=False)
