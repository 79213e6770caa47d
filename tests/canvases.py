"""Small sets of images with masks, made of the items of a data set on canvases, as files."""

import os

import numpy as np
from PIL import Image

from evoloss import data
from evoloss.records import DataSpec

KINDS = 2  # classes of items; 0 is the background
INSIDE, FAINT = 48, 16  # brightness from which a pixel belongs to an item, and below which to the background


def items():
    """Images [N, h, w] and labels [N] of the first two classes of Fashion-MNIST or, where it is not, of digits."""
    name = "fashion-mnist" if os.environ.get("EVOLOSS_DATA") else "digits"
    split = data.load(DataSpec(name), ("select",)).splits["select"]
    chosen = split.labels < KINDS
    return split.images[chosen][:, 0], split.labels[chosen]


def scatter(folder, count, side=32, seed=0):
    """`count` pairs in folder/images and folder/masks: an item somewhere on a canvas, its edge ignored (255)."""
    rng = np.random.default_rng(seed)
    images, labels = items()
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        drawn = int(rng.integers(len(images)))
        canvas, mask = np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint8)
        height, width = images[drawn].shape
        top, left = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        place = slice(top, top + height), slice(left, left + width)
        canvas[place] = images[drawn]
        mask[place] = np.where(images[drawn] >= INSIDE, labels[drawn] + 1, np.where(images[drawn] < FAINT, 0, 255))
        Image.fromarray(canvas).save(folder / "images" / f"{number:04}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:04}.png")
    return folder
