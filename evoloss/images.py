"""The files that images lie in: class folders (decoded once, kept as a memory-mapped cache), IDX, torchvision's own."""

import gzip
import hashlib
import io
import math
import os
import socket
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, ImageOps
from platformdirs import user_cache_dir

from evoloss.errors import EvolossError

T = TypeVar("T")
Shape = tuple[int, int, int]  # channels, height, width

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"})
GREY_MODES = frozenset({"1", "L", "LA", "I", "F"})
MODES = {1: "L", 3: "RGB"}
SMALL_SIDE, SIDE = 28, 32
CHUNK = 256  # images
THUMBNAIL = 10_000  # bytes
MOST_IDX = 10**9  # bytes; the largest file of a known data set has 47 million
DOWNLOAD_TIMEOUT = 10.0  # seconds without an answer
CACHE_VERSION = 1  # raise it whenever the conversion below changes, or old caches would be taken for new ones


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N, C, H, W] in 0..255 and their labels, int64 [N], as indices of the classes."""

    images: np.ndarray
    labels: np.ndarray

    @cached_property
    def digest(self) -> str:
        """A hash of the images and labels: equal for equal data, whatever file they are from."""
        hashed = hashlib.sha256(repr(self.images.shape).encode())
        for part in (self.images, self.labels):
            hashed.update(np.ascontiguousarray(part))
        return hashed.hexdigest()


@dataclass(frozen=True)
class Listing:
    """The images of a folder of class folders, in the order of class and name; `stats` are (bytes, mtime in ns)."""

    root: Path
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    stats: tuple[tuple[int, int], ...]


def cache_dir() -> Path:
    """The user's cache of this package; `XDG_CACHE_HOME` moves it."""
    return Path(user_cache_dir("evoloss"))


def class_names(root: Path) -> tuple[str, ...]:
    """The sorted names of the folders in `root`, hidden ones left out; EvolossError where it cannot be listed."""
    try:
        return tuple(sorted(path.name for path in root.iterdir() if _visible(path.name) and path.is_dir()))
    except OSError as error:
        raise EvolossError(
            f"expected a folder of class folders at {root}, got: {error.strerror}; check the path"
        ) from None


def read_classes(root: Path, shape: Shape | None, resize: bool) -> Split:
    """The images (perhaps a read-only memory map) of the class folders in `root`, decoded once and then cached.

    Labels follow the sorted folder names. Hidden files and files that are no images are ignored; of an animation the
    first frame counts; alpha is dropped. Where `shape` is (C, H, W), every image is converted to C channels and, with
    `resize`, scaled (shorter side, bilinear) and center-cropped to H x W, while without it any other size is an error.
    Where `shape` is None it is found: one channel if every image is grey, else three; 28 x 28 if every image is that,
    else 32 x 32. A corrupt image, or a class folder without any image, raises EvolossError.
    """
    listing = _list(root)
    path = cache_dir() / "decoded" / f"{_key(listing, shape, resize)}.npy"
    images = _cached(path, len(listing.files))
    if images is None:
        found = shape or _common_shape(listing)
        images = np.concatenate(_in_threads(lambda file: _decode(file, found, resize)[None], listing))
        _store(path, images)
    return Split(images, np.asarray(listing.labels, dtype=np.int64))


def _visible(name: str) -> bool:
    return not name.startswith(".")


def _list(root: Path) -> Listing:
    files: list[Path] = []
    labels: list[int] = []
    stats: list[tuple[int, int]] = []
    for label, name in enumerate(class_names(root)):
        found = _images_in(root / name)
        files += [file for file, _ in found]
        stats += [(stat.st_size, stat.st_mtime_ns) for _, stat in found]
        labels += [label] * len(found)
    if not files:
        raise EvolossError(f"expected class folders with images in {root}, got none; put one folder per class there")
    return Listing(root, tuple(files), tuple(labels), tuple(stats))


def _images_in(folder: Path) -> list[tuple[Path, os.stat_result]]:
    try:
        with os.scandir(folder) as entries:
            images = [
                e for e in entries if _visible(e.name) and Path(e.name).suffix.lower() in EXTENSIONS and e.is_file()
            ]
        found = [(folder / entry.name, entry.stat()) for entry in sorted(images, key=lambda entry: entry.name)]
    except OSError as error:
        raise EvolossError(f"expected a readable class folder {folder}, got: {error.strerror}; check it") from None
    if not found:
        kinds = " ".join(sorted(EXTENSIONS))
        raise EvolossError(
            f"expected images ({kinds}) in class folder {folder}, got none; add some or remove the folder"
        )
    return found


def _key(listing: Listing, shape: Shape | None, resize: bool) -> str:
    digest = hashlib.sha256(repr((CACHE_VERSION, shape, resize)).encode())
    digest.update(os.fsencode(listing.root.resolve()))
    for file, stat in zip(listing.files, listing.stats, strict=True):
        digest.update(b"\0" + os.fsencode(file.relative_to(listing.root)) + repr(stat).encode())
    return digest.hexdigest()[:32]


def _cached(path: Path, count: int) -> np.ndarray | None:
    """The cached array, or None where there is none or where it is damaged (it is then decoded anew)."""
    try:
        images = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return images if images.dtype == np.uint8 and images.ndim == 4 and len(images) == count else None


def _store(path: Path, images: np.ndarray) -> None:
    """Write the cache or, where it cannot be written, leave it.

    The array is written under another name and then renamed, so that neither an interrupted run nor two runs at once
    leave half a file. It is not decoded into a memory map: that would end in SIGBUS where the disk is full.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, ignore_cleanup_errors=True) as scratch:
            part = Path(scratch) / path.name
            np.save(part, images)
            part.replace(path)


def _in_threads(function: Callable[[Path], T], listing: Listing) -> list[T]:
    """The function of every file, in order.

    PIL lets go of the GIL while it decodes, which pays for photographs; for thumbnails handing it over costs more.
    """
    files, size = listing.files, sum(size for size, _ in listing.stats)
    chunks = [files[start : start + CHUNK] for start in range(0, len(files), CHUNK)]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1) if size > THUMBNAIL * len(files) else 1) as pool:
        done = pool.map(lambda chunk: [function(file) for file in chunk], chunks)
        return [value for values in done for value in values]


def _common_shape(listing: Listing) -> Shape:
    headers = set(_in_threads(_header, listing))
    channels = 1 if all(grey for grey, _ in headers) else 3
    side = SMALL_SIDE if {size for _, size in headers} == {(SMALL_SIDE, SMALL_SIDE)} else SIDE
    return channels, side, side


def _header(file: Path) -> tuple[bool, tuple[int, int]]:
    """Whether the image is grey, and its width and height; nothing is decoded."""
    try:
        with Image.open(file) as image:
            return image.mode in GREY_MODES or image.mode.startswith("I;16"), image.size
    except Exception as error:  # PIL raises nearly anything on a broken file
        raise _corrupt(file, error) from error


def _decode(file: Path, shape: Shape, resize: bool) -> np.ndarray:
    """One image as uint8 [C, H, W]."""
    channels, height, width = shape
    pixels = opened(file, MODES[channels])
    if pixels.size != (width, height):
        if not resize:
            came = f"{pixels.width} x {pixels.height}"
            raise EvolossError(
                f"expected an image of {width} x {height}, got {came} in {file}; use folder:PATH to resize"
            )
        pixels = ImageOps.fit(pixels, (width, height), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(pixels).reshape(height, width, channels).transpose(2, 0, 1))


def opened(file: Path, mode: str | None = None) -> Image.Image:
    """The decoded image, 8 bits a channel in `mode` where one is given. A corrupt file raises EvolossError."""
    try:
        with Image.open(file) as image:
            if mode is None:
                image.load()
                return image
            return _convert(image, mode)
    except Exception as error:  # PIL raises nearly anything on a broken file
        raise _corrupt(file, error) from error


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """8 bits a channel in `mode`; 16 bits are scaled (PIL would clip), palettes go through RGBA (PIL would warn)."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    return image.convert(mode)


def _corrupt(file: Path, error: Exception) -> EvolossError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return EvolossError(f"expected an image, got a corrupt file {file} ({reason}); replace it or remove it")


# IDX files


def raw_or_gzip(path: Path) -> Path:
    """The file or, where there is none, its .gz (which need not be there either)."""
    return path if path.is_file() else path.with_name(f"{path.name}.gz")


def read_idx_pair(image_path: Path, label_path: Path, shape: Shape, num_classes: int) -> Split:
    """One part of a data set of the MNIST kind; files that do not fit together raise EvolossError."""
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.shape[1:] != shape[1:]:
        raise EvolossError(f"expected images of {shape[1:]} in {image_path}, got {images.shape[1:]}; replace it")
    if labels.shape != images.shape[:1]:
        came = f"{len(images)} images and labels of shape {labels.shape}"
        raise EvolossError(f"expected a label for every image in {label_path}, got {came}; replace both files")
    if labels.size and labels.max() >= num_classes:
        raise EvolossError(f"expected labels below {num_classes} in {label_path}, got {labels.max()}; replace it")
    return Split(images[:, None], labels.astype(np.int64))


def read_idx(path: Path) -> np.ndarray:
    """The bytes of an IDX file, raw or gzip: a read-only uint8 array of its shape (LeCun, Cortes and Burges, 1998).

    A header of 0, 0, type (8: unsigned byte), number of axes, then each axis's length (big-endian 32 bit). A file that
    is truncated, too long (a small .gz may be terabytes), or something else raises EvolossError.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw = file.read(MOST_IDX + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise EvolossError(f"expected an IDX file, got a corrupt {path} ({error}); replace it") from error
    if len(raw) > MOST_IDX:
        raise EvolossError(f"expected an IDX file of at most {MOST_IDX:,} bytes, got more in {path}; replace it")
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or raw[3] == 0 or len(raw) < 4 + 4 * raw[3]:
        raise EvolossError(f"expected an IDX file of bytes, got {path} that starts with {raw[:4].hex()!r}; replace it")
    shape = tuple(int(length) for length in np.frombuffer(raw, ">u4", raw[3], 4))
    start = 4 + 4 * raw[3]
    if len(raw) - start != math.prod(shape):
        raise EvolossError(f"expected {math.prod(shape)} bytes of data in {path}, got {len(raw) - start}; replace it")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


# Torchvision


@contextmanager
def _quiet() -> Iterator[None]:
    """Torchvision without its prints, its progress bars, its warnings, and its endless wait for a silent server."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        socket.setdefaulttimeout(timeout)


def _torchvision(name: str, root: Path, **options: bool) -> Any:
    import torchvision.datasets

    with _quiet():
        return getattr(torchvision.datasets, name)(str(root), **options)


def download(name: str, root: Path) -> None:
    """Have torchvision's data set class `name` download to `root`; raises whatever it, urllib or tarfile raise."""
    _torchvision(name, root, download=True)


def read_torchvision(name: str, root: Path, train: bool) -> tuple[tuple[str, ...], Split]:
    """The classes and one part of data in torchvision's own format, which is pickled: it checks the MD5 first."""
    try:
        data = _torchvision(name, root, train=train, download=False)
    except (RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise EvolossError(f"expected torchvision's {name} in {root}, got: {reason}; replace or remove it") from error
    return tuple(data.classes), Split(data.data.transpose(0, 3, 1, 2), np.asarray(data.targets, dtype=np.int64))
