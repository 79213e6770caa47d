"""Data sets: found on disk, split into the same train, select and test roles in every process, train role shaped.

`select` guides the search, `test` is read only when it is asked for.
"""

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import get_args

import numpy as np

from evoloss import images as files
from evoloss.errors import EvolossError, suggest
from evoloss.images import Shape, Split, cache_dir, class_names
from evoloss.records import DataSpec, Role, derive_seed
from evoloss.roles import apportion, assign, take

ROLES: tuple[Role, ...] = get_args(Role)
FOLDER = "folder:"
SYSTEM_DIR = Path("/usr/share/datasets")


@dataclass(frozen=True, eq=False)
class Dataset:
    """The roles that were asked for, under the name that the user gave."""

    name: str
    classes: tuple[str, ...]
    splits: dict[str, Split]

    @property
    def num_classes(self) -> int:
        """The number of classes, at least 2."""
        return len(self.classes)

    @property
    def shape(self) -> Shape:
        """(channels, height, width) of every image."""
        _, channels, height, width = next(iter(self.splits.values())).images.shape
        return channels, height, width


@dataclass(frozen=True)
class DatasetStatus:
    """A line of `evoloss datasets`: `where` it was found, or "" and what it `needs`."""

    name: str
    description: str
    shape: Shape
    num_classes: int
    proxy: str
    where: str
    needs: str


@dataclass(frozen=True, eq=False)
class Parts:
    """What the files hold: a train part and, where it has one and it was asked for, a test part."""

    classes: tuple[str, ...]
    train: Split
    test: Split | None


@dataclass(frozen=True)
class Source:
    """Data that was found but not read yet; `read(want_test)` opens the test part's files only if it is True."""

    where: str
    own_test: bool
    read: Callable[[bool], Parts]


@dataclass(frozen=True)
class DatasetInfo:
    """A row of `DATASETS`: what it is, the `folders` that may hold it, the `layouts` that they may have.

    A layout takes the row and a folder and returns a Source, or None where the folder is not laid out like that.
    `torchvision` is the class that downloads it and `batches` that class's own folder, where its format is its own.
    `classes` are the names where the files have none; `needs` says what to put into one of the folders.
    """

    description: str
    shape: Shape
    num_classes: int
    proxy: str
    folders: tuple[str, ...]
    layouts: tuple[Callable[["DatasetInfo", Path], Source | None], ...]
    needs: str = ""
    torchvision: str = ""
    batches: str = ""
    classes: tuple[str, ...] = ()


def load(spec: DataSpec, roles: Sequence[Role] = ("train", "select"), side: int | None = None) -> Dataset:
    """The data set's `roles`; the train role is shaped by `spec` (imbalance, then samples, then label noise).

    Data with a test part of its own keeps it, and a fifth of its train part (at most 10,000) is select; other data is
    split 60/20/20. Splits are stratified. The images of folder:PATH come in color and scaled to `side` pixels, where
    that is given. Whatever the user can mend raises EvolossError.
    """
    _check_spec(spec, roles)
    source = _source(spec, side)
    parts = source.read("test" in roles)
    classes, labels = parts.classes, parts.train.labels
    _check_counts(spec.name, labels, classes, ("train", "select") if source.own_test else ROLES)
    indices = assign(labels, len(classes), source.own_test)
    splits = {role: _pick(parts.train, indices[role]) for role in roles if role in indices and role != "train"}
    if "train" in roles:
        keep, shaped = _shape_train(spec, labels[indices["train"]], len(classes))
        splits["train"] = Split(_pick(parts.train, indices["train"][keep]).images, shaped)
    if parts.test is not None:
        _check_counts(spec.name, parts.test.labels, classes, ("test",))
        splits["test"] = _pick(parts.test, np.arange(len(parts.test.labels)))
    return Dataset(spec.name, classes, {role: splits[role] for role in roles})


def fingerprint(dataset: Dataset) -> str:
    """16 hexadecimal digits that tell the train and select roles from those of other data."""
    parts = "".join(dataset.splits[role].digest for role in ("train", "select"))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def status(data_dir: str | None = None) -> list[DatasetStatus]:
    """Every named data set and where it is; nothing is read or downloaded."""
    found = {name: _find(info, _bases(data_dir)) for name, info in DATASETS.items()}
    where = {name: source.where if source else "" for name, source in found.items()}
    return [
        DatasetStatus(name, row.description, row.shape, row.num_classes, row.proxy, where[name], row.needs)
        for name, row in DATASETS.items()
    ]


def default_proxy(name: str) -> str:
    """The proxy network that suits the data set; "inception" for folder:PATH. An unknown name raises EvolossError."""
    return "inception" if name.startswith(FOLDER) else _info(name).proxy


# Finding


def _info(name: str) -> DatasetInfo:
    if name not in DATASETS:
        known = ", ".join([*DATASETS, f"{FOLDER}PATH"])
        raise EvolossError(f"expected a data set ({known}), got `{name}`{suggest(name, DATASETS)}")
    return DATASETS[name]


def _source(spec: DataSpec, side: int | None) -> Source:
    if spec.name.startswith(FOLDER):
        return _user_folder(spec.name.removeprefix(FOLDER), side and (3, side, side))
    return located(spec, _info(spec.name))


def located(spec: DataSpec, info: DatasetInfo) -> Source:
    """Where the files of a data set lie, downloaded if they are nowhere. Raises EvolossError."""
    bases = _bases(spec.data_dir)
    return _find(info, bases) or _download(spec.name, info, bases)


def _bases(data_dir: str | None) -> list[Path]:
    named = [Path(path).expanduser() for path in (data_dir, os.environ.get("EVOLOSS_DATA")) if path]
    return [*named, cache_dir() / "data", SYSTEM_DIR]


def _find(info: DatasetInfo, bases: Sequence[Path]) -> Source | None:
    tries = (layout(info, base / folder) for base in bases for folder in info.folders for layout in info.layouts)
    return next((source for source in tries if source), None)


def _download(name: str, info: DatasetInfo, bases: Sequence[Path]) -> Source:
    """Download into the user's cache; what is there is whole, for it is moved there only once it is."""
    cache, reason = cache_dir() / "data", "files are missing"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            files.download(info.torchvision, Path(scratch))
            for folder in filter(Path.is_dir, Path(scratch).iterdir()):
                with suppress(OSError):  # another process was first
                    folder.replace(cache / folder.name)
    except Exception as error:  # of urllib, http, tarfile, the file system or torchvision
        reason = shorten(str(error), 160, placeholder=" ...") or type(error).__name__
    if source := _find(info, [cache]):
        return source
    tried = ", ".join(f"{base}/{{{','.join(info.folders)}}}" for base in bases)
    raise EvolossError(
        f"expected {name} in one of {tried}, got nothing there and the download failed ({reason}); put {info.needs} "
        "there, or set --data-dir or EVOLOSS_DATA to the folder above it"
    )


# Layouts


def _digits(info: DatasetInfo, _folder: Path) -> Source | None:
    def read(_want_test: bool) -> Parts:
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        images = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8).reshape(-1, *info.shape)
        return Parts(info.classes, Split(images, np.asarray(labels, dtype=np.int64)), None)

    return Source("scikit-learn", False, read)


def _idx_files(info: DatasetInfo, folder: Path) -> Source | None:
    paths = [files.raw_or_gzip(folder / name) for name in IDX_FILES]
    if not all(path.is_file() for path in paths):
        return None

    def read(want_test: bool) -> Parts:
        train = files.read_idx_pair(paths[0], paths[1], info.shape, info.num_classes)
        test = files.read_idx_pair(paths[2], paths[3], info.shape, info.num_classes) if want_test else None
        return Parts(info.classes, train, test)

    return Source(str(folder), True, read)


def _torchvision_batches(info: DatasetInfo, folder: Path) -> Source | None:
    """Torchvision checks the files' MD5 before it unpickles them (so it does hash the test batch in any case)."""
    root = next((root for root in (folder, folder.parent) if (root / info.batches).is_dir()), None)
    if root is None:
        return None

    def read(want_test: bool) -> Parts:
        classes, train = files.read_torchvision(info.torchvision, root, True)
        test = files.read_torchvision(info.torchvision, root, False)[1] if want_test else None
        return Parts(classes, train, test)

    return Source(str(root / info.batches), True, read)


def _class_folders(info: DatasetInfo, folder: Path) -> Source | None:
    if not ((folder / "train").is_dir() and (folder / "test").is_dir()):
        return None

    def read(want_test: bool) -> Parts:
        if (came := len(class_names(folder / "train"))) != info.num_classes:
            raise EvolossError(
                f"expected {info.num_classes} class folders in {folder / 'train'}, got {came}; "
                f"for images of your own use {FOLDER}PATH"
            )
        return _read_folders(folder / "train", folder / "test", info.shape, False, want_test)

    return Source(str(folder), True, read)


def _user_folder(path: str, shape: Shape | None) -> Source:
    """PATH/CLASS/*, or PATH/train/CLASS/* and perhaps PATH/test/CLASS/*; other folders next to train/ are ignored."""
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise EvolossError(f"expected a folder of class folders after `{FOLDER}`, got `{path}`; give the path of one")
    split = (root / "train").is_dir() and bool(class_names(root / "train"))  # a class may be called train, too
    train, test = (root / "train", root / "test") if split else (root, None)
    test = test if test and test.is_dir() else None
    return Source(str(root), test is not None, partial(_read_folders, train, test, shape, True))


def _read_folders(train: Path, test: Path | None, shape: Shape | None, resize: bool, want_test: bool) -> Parts:
    """Without a shape the train part's is found and the test part is resized to it, so test images decide nothing."""
    classes = class_names(train)
    if len(classes) < 2:
        raise EvolossError(f"expected at least 2 class folders in {train}, got {len(classes)}; put one per class there")
    if test and (odd := sorted(set(classes) ^ set(class_names(test)))):
        raise EvolossError(
            f"expected the same classes in {train} and {test}, got only in one: {', '.join(odd)}; add them"
        )
    split = files.read_classes(train, shape, resize)
    _, channels, height, width = split.images.shape
    held_out = files.read_classes(test, (channels, height, width), resize) if test and want_test else None
    return Parts(classes, split, held_out)


# Roles


def _check_counts(name: str, labels: np.ndarray, classes: Sequence[str], roles: Sequence[Role]) -> None:
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < len(roles):
        small = classes[int(counts.argmin())]
        raise EvolossError(
            f"expected at least {len(roles)} images of each class of {name} (one for each of {', '.join(roles)}), "
            f"got {counts.min()} of class `{small}`; add some or remove the class"
        )


def _pick(part: Split, index: np.ndarray) -> Split:
    return Split(np.ascontiguousarray(part.images[index]), part.labels[index])


# Shaping the train role


def _check_spec(spec: DataSpec, roles: Sequence[Role]) -> None:
    if not roles or set(roles) - set(ROLES):
        raise EvolossError(
            f"expected roles among {', '.join(ROLES)}, got `{', '.join(roles)}`; name at least one of them"
        )
    if not 0 <= spec.label_noise < 1:
        raise EvolossError(f"expected label noise of at least 0 and below 1, got {spec.label_noise}; give such a share")
    if not (math.isfinite(spec.imbalance) and spec.imbalance >= 1):
        raise EvolossError(f"expected an imbalance of at least 1, got {spec.imbalance}; give largest / smallest class")


def _shape_train(spec: DataSpec, labels: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Which samples of the train role are kept (indices), and the labels that they get."""

    def rng(purpose: str) -> np.random.Generator:
        return np.random.default_rng(derive_seed(spec.seed, purpose))

    keep = np.arange(len(labels))
    if spec.imbalance > 1:
        keep = take(labels, _long_tail(np.bincount(labels, minlength=num_classes), spec.imbalance), rng("imbalance"))
    if spec.samples is not None:
        if not num_classes <= spec.samples <= len(keep):
            bounds = f"between {num_classes} (one per class) and the {len(keep)} samples that there are to train on"
            raise EvolossError(f"expected {bounds}, got {spec.samples}; ask for a number in between")
        quota = apportion(np.bincount(labels[keep], minlength=num_classes), spec.samples)
        keep = keep[take(labels[keep], quota, rng("samples"))]
    return keep, _add_noise(labels[keep], spec.label_noise, num_classes, rng("label-noise"))


def _long_tail(counts: np.ndarray, imbalance: float) -> np.ndarray:
    """Class k keeps n_max * F ** (-k / (K - 1)), at least 1, at most all it has (Cui et al., 2019)."""
    ranks = np.arange(len(counts)) / (len(counts) - 1)
    return np.clip(np.rint(counts.max() * imbalance**-ranks).astype(np.int64), 1, counts)


def _add_noise(labels: np.ndarray, share: float, num_classes: int, rng: np.random.Generator) -> np.ndarray:
    """A copy in which exactly round(share * N) labels are redrawn uniformly among the other classes."""
    noisy = labels.copy()
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    noisy[wrong] = (noisy[wrong] + rng.integers(1, num_classes, len(wrong))) % num_classes
    return noisy


# Tables

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
IDX_NEEDS = ", ".join(IDX_FILES) + " (each as it is or .gz)"
FOLDER_NEEDS = "train/CLASS/*.png and test/CLASS/*.png (or .jpg, ...), or torchvision's {}/"
NUMERALS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

# fmt: off
DATASETS: dict[str, DatasetInfo] = {
    "digits": DatasetInfo(
        "1,797 handwritten digits, part of scikit-learn, no download", (1, 8, 8), 10, "mlp",
        folders=("",), layouts=(_digits,), classes=NUMERALS),
    "fashion-mnist": DatasetInfo(
        "70,000 grey images of clothes (Xiao et al., 2017)", (1, 28, 28), 10, "mlp",
        folders=("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"), layouts=(_idx_files,), classes=CLOTHES,
        torchvision="FashionMNIST", needs=f"{IDX_NEEDS}, or Debian's package dataset-fashion-mnist"),
    "mnist": DatasetInfo(
        "70,000 handwritten digits (LeCun et al., 1998)", (1, 28, 28), 10, "mlp",
        folders=("mnist", "MNIST/raw"), layouts=(_idx_files,), classes=NUMERALS,
        torchvision="MNIST", needs=IDX_NEEDS),
    "cifar10": DatasetInfo(
        "60,000 color images of animals and vehicles (Krizhevsky, 2009)", (3, 32, 32), 10, "inception",
        folders=("cifar10", "cifar-10"), layouts=(_torchvision_batches, _class_folders),
        torchvision="CIFAR10", batches="cifar-10-batches-py", needs=FOLDER_NEEDS.format("cifar-10-batches-py")),
    "cifar100": DatasetInfo(
        "60,000 color images of 100 classes (Krizhevsky, 2009)", (3, 32, 32), 100, "inception",
        folders=("cifar100", "cifar-100"), layouts=(_torchvision_batches, _class_folders),
        torchvision="CIFAR100", batches="cifar-100-python", needs=FOLDER_NEEDS.format("cifar-100-python")),
}
# fmt: on
