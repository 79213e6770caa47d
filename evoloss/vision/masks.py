"""Images with masks of class numbers: VOC 2012 or a folder of pairs, read into memory in the three roles."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from evoloss.data import FOLDER, ROLES, Dataset, DatasetInfo, Parts, Source, located
from evoloss.errors import EvolossError
from evoloss.images import EXTENSIONS, Split, opened
from evoloss.records import DataSpec, Role
from evoloss.roles import assign

IGNORE = 255  # in a mask: of no class. VOC has it on borders, and what pads an image to a square gets it
LOSSLESS = EXTENSIONS - {".jpg", ".jpeg", ".webp"}  # those would blur the numbers of a mask
MASK_MODES = frozenset({"1", "L", "P", "I", "I;16"})
CLASSES = "classes.txt"


@dataclass(frozen=True)
class Pair:
    """The files of an image and of its mask."""

    image: Path
    mask: Path


def load(spec: DataSpec, roles: Sequence[Role], side: int) -> Dataset:
    """The roles of `voc2012` or `folder:PATH`: images uint8 [N, 3, S, S] and, in place of labels, masks [N, S, S].

    Each pair is scaled so that its longer side is `side` pixels (the image bilinear, the mask nearest) and padded to a
    square with 255, which is of no class. Data with a test part of its own keeps it (VOC: val), and a fifth of its
    train part is select; other data is split 60/20/20. Whatever the user can mend raises EvolossError.

    A folder has PATH/images and PATH/masks with files of the same names, or PATH/train and perhaps PATH/test that have;
    and perhaps PATH/classes.txt, a name a line. Without it there are as many classes as the numbers of the train part
    need.
    """
    if spec.label_noise or spec.imbalance > 1:
        raise EvolossError("--label-noise and --imbalance are for classification: leave them out with masks")
    source = _source(spec, side)
    parts = source.read("test" in roles)
    indices = assign(np.zeros(len(parts.train.labels), dtype=np.int64), 1, source.own_test)
    splits = {role: _pick(parts.train, indices[role]) for role in roles if role in indices}
    if parts.test is not None:
        splits["test"] = parts.test
    return Dataset(spec.name, parts.classes, {role: splits[role] for role in roles})


def _pick(part: Split, index: np.ndarray) -> Split:
    return Split(part.images[index], part.labels[index])


def _source(spec: DataSpec, side: int) -> Source:
    if spec.name.startswith(FOLDER):
        return _user_folder(spec.name.removeprefix(FOLDER), side)
    if spec.name != "voc2012":
        raise EvolossError(f"expected data with masks (voc2012, {FOLDER}PATH), got `{spec.name}`; name one of them")
    return located(spec, replace(VOC, layouts=(partial(_voc, side),)))


def _voc(side: int, info: DatasetInfo, folder: Path) -> Source | None:
    """The layout of torchvision.datasets.VOCSegmentation; its val part is our test part."""
    lists = {part: folder / "ImageSets" / "Segmentation" / f"{part}.txt" for part in ("train", "val")}
    if not all(path.is_file() for path in lists.values()):
        return None

    def pairs(part: str) -> list[Pair]:
        stems = lists[part].read_text(encoding="utf-8").split()
        return [Pair(folder / "JPEGImages" / f"{s}.jpg", folder / "SegmentationClass" / f"{s}.png") for s in stems]

    def read(want_test: bool) -> Parts:
        train = _read(_enough(pairs("train"), folder, ("train", "select")), side, len(info.classes))
        return Parts(info.classes, train, _read(pairs("val"), side, len(info.classes)) if want_test else None)

    return Source(str(folder), True, read)


def _user_folder(path: str, side: int) -> Source:
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise EvolossError(f"expected a folder of images/ and masks/ after `{FOLDER}`, got `{path}`; give such a path")
    split = (root / "train" / "images").is_dir()
    train, test = (root / "train", root / "test") if split else (root, root)
    own_test = split and test.is_dir()
    roles = ("train", "select") if own_test else ROLES

    def read(want_test: bool) -> Parts:
        names = _class_names(root / CLASSES)
        part = _read(_enough(_pairs(train), train, roles), side, len(names) or None)
        names = names or tuple(map(str, range(_count_classes(part.labels, train))))
        return Parts(names, part, _read(_pairs(test), side, len(names)) if own_test and want_test else None)

    return Source(str(root), own_test, read)


def _class_names(path: Path) -> tuple[str, ...]:
    """The names in the file, which need not be there."""
    if not path.is_file():
        return ()
    names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    if not 2 <= len(names) <= IGNORE:
        raise EvolossError(f"expected 2 to {IGNORE} names in {path}, a line each, got {len(names)}; mend it")
    return names


def _count_classes(masks: np.ndarray, folder: Path) -> int:
    known = masks[masks != IGNORE]
    if (count := int(known.max(initial=0)) + 1) < 2:
        raise EvolossError(
            f"expected at least two classes in the masks of {folder}, got only 0 and perhaps {IGNORE}, which is "
            "ignored; number the classes 0, 1, 2, ..."
        )
    return count


def _pairs(folder: Path) -> list[Pair]:
    """The images and masks of equal names, in the order of the names."""
    images, masks = _files(folder / "images", EXTENSIONS), _files(folder / "masks", LOSSLESS)
    if odd := sorted(set(images) ^ set(masks)):
        lacks = "a mask" if odd[0] in images else "an image"
        raise EvolossError(
            f"expected a mask in {folder / 'masks'} for each image in {folder / 'images'}, got none with "
            f"{len(odd)} of the names: `{odd[0]}` lacks {lacks}; add or remove files"
        )
    return [Pair(images[name], masks[name]) for name in sorted(images)]


def _files(folder: Path, extensions: frozenset[str]) -> dict[str, Path]:
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in extensions and path.name[0] != "."]
    except OSError as error:
        raise EvolossError(f"expected files in {folder}, got: {error.strerror}; make images/ and masks/") from None
    if not found:
        raise EvolossError(f"expected files ({' '.join(sorted(extensions))}) in {folder}, got none; add some")
    return {path.stem: path for path in found}


def _enough(pairs: list[Pair], folder: Path, roles: Sequence[Role]) -> list[Pair]:
    if len(pairs) < len(roles):
        wanted = f"at least {len(roles)} images with masks in {folder} (one for each of {', '.join(roles)})"
        raise EvolossError(f"expected {wanted}, got {len(pairs)}; add some")
    return pairs


def _read(pairs: list[Pair], side: int, num_classes: int | None) -> Split:
    images = np.zeros((len(pairs), 3, side, side), dtype=np.uint8)
    masks = np.full((len(pairs), side, side), IGNORE, dtype=np.uint8)

    def fill(place: int) -> None:
        image, mask = _decode(pairs[place], num_classes)
        width, height = (max(1, round(side * length / max(image.size))) for length in image.size)
        left, top = (side - width) // 2, (side - height) // 2
        inside = (slice(top, top + height), slice(left, left + width))
        scaled = image.resize((width, height), Image.Resampling.BILINEAR)
        images[place][:, *inside] = np.asarray(scaled).transpose(2, 0, 1)
        masks[place][inside] = np.asarray(mask.resize((width, height), Image.Resampling.NEAREST))

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # PIL lets go of the GIL while it decodes
        for _ in pool.map(fill, range(len(pairs))):
            pass
    return Split(images, masks)


def _decode(pair: Pair, num_classes: int | None) -> tuple[Image.Image, Image.Image]:
    """The image in color and its mask in bytes, of one size, its numbers those of classes or 255."""
    image, mask = opened(pair.image, "RGB"), opened(pair.mask)
    if mask.mode not in MASK_MODES:
        raise EvolossError(
            f"expected a mask of one channel (grey or palette) whose numbers are classes, got {mask.mode} in "
            f"{pair.mask}; convert it"
        )
    if image.size != mask.size:
        sizes = f"{image.width} x {image.height} in {pair.image} and {mask.width} x {mask.height} in {pair.mask}"
        raise EvolossError(f"expected an image and a mask of one size, got {sizes}; scale one of them")
    numbers = np.asarray(mask).astype(np.int64)
    most = (IGNORE if num_classes is None else num_classes) - 1
    if len(strange := numbers[(numbers != IGNORE) & ((numbers < 0) | (numbers > most))]):
        raise EvolossError(
            f"expected class numbers from 0 to {most} (or {IGNORE}: ignored) in {pair.mask}, got {strange[0]}; mend it"
        )
    return image, Image.fromarray(numbers.astype(np.uint8))


VOC_CLASSES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
VOC = DatasetInfo(
    "2,913 photographs with masks of 20 kinds of things and the background (Everingham et al., 2010)",
    (3, 500, 500),
    21,
    "",
    folders=("VOCdevkit/VOC2012", "VOC2012", "voc2012"),
    layouts=(),
    classes=tuple(VOC_CLASSES.split()),
    torchvision="VOCSegmentation",
    needs="JPEGImages/, SegmentationClass/ and ImageSets/Segmentation/ of the VOC 2012 trainval archive",
)
