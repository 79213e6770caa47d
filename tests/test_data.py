import errno
import gzip
import hashlib
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from evoloss import data, images
from evoloss.data import DATASETS, ROLES, Dataset, default_proxy, load, status
from evoloss.errors import EvolossError
from evoloss.images import read_idx
from evoloss.records import DataSpec

REAL = os.environ.get("EVOLOSS_DATA")  # read before the fixture below hides it
IDX_ROWS = [name for name, info in DATASETS.items() if info.layouts == (data._idx_files,)]
real = pytest.mark.skipif(not REAL, reason="EVOLOSS_DATA names no folder with the real data")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, and nothing of the machine's own data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("EVOLOSS_DATA", raising=False)
    monkeypatch.setattr(data, "SYSTEM_DIR", tmp_path / "system")
    return tmp_path / "cache" / "evoloss"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_args, **_options):
        print("torchvision talks")
        raise URLError(OSError(errno.ENETUNREACH, "no network"))

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)


def picture(path: Path, shade: int, mode: str = "L", size: tuple[int, int] = (28, 28)) -> None:
    """An image that no other shade of the same mode and size gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    color = {"L": shade, "LA": (shade, 9), "P": shade, "1": shade % 2, "I;16": shade * 256}
    Image.new(mode, size, color.get(mode, (shade, 255 - shade, 7, 9)[: len(mode)])).save(path)


def folder(root: Path, counts: dict[str, int], **options) -> Path:
    for label, (name, count) in enumerate(counts.items()):
        for index in range(count):
            picture(root / name / f"{index}.png", label * 60 + index, **options)
    return root


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def idx_files(root: Path, per_class: int = 6, packed: bool = True) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for part, count in (("train", per_class * 10), ("t10k", 20)):
        files = {
            f"{part}-images-idx3-ubyte": rng.integers(0, 256, (count, 28, 28)),
            f"{part}-labels-idx1-ubyte": np.arange(count) % 10,
        }
        for name, array in files.items():
            raw = idx_bytes(array)
            (root / f"{name}.gz" if packed else root / name).write_bytes(gzip.compress(raw) if packed else raw)
    return root


def spec_of(path: Path, **options) -> DataSpec:
    return DataSpec(f"folder:{path}", **options)


def hashes(dataset: Dataset) -> dict[str, set[bytes]]:
    return {
        role: {hashlib.sha256(image.tobytes()).digest() for image in split.images}
        for role, split in dataset.splits.items()
    }


def assert_disjoint(dataset: Dataset) -> None:
    found = hashes(dataset)
    assert len(set.union(*found.values())) == sum(map(len, found.values()))


def assert_same(one: Dataset, other: Dataset, *roles: str) -> None:
    for role in roles:
        np.testing.assert_array_equal(one.splits[role].images, other.splits[role].images)
        np.testing.assert_array_equal(one.splits[role].labels, other.splits[role].labels)


def mistake(spec: DataSpec, *words: object, roles=("train", "select")) -> str:
    with pytest.raises(EvolossError) as caught:
        load(spec, roles)
    message = str(caught.value)
    assert "\n" not in message
    assert "got" in message
    for word in words:
        assert str(word) in message
    return message


# The table


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_is_complete(name):
    info = DATASETS[name]
    assert info.description
    assert len(info.shape) == 3
    assert default_proxy(name) == info.proxy == ("inception" if info.shape[0] == 3 else "mlp")
    assert not info.classes or len(info.classes) == info.num_classes
    assert name == "digits" or (info.needs and info.torchvision)


def test_unknown_names_are_answered_with_the_known_ones():
    mistake(DataSpec("cifar-10"), "did you mean `cifar10`?", "folder:PATH", *DATASETS)
    with pytest.raises(EvolossError, match="fashion-mnist"):
        default_proxy("fashion")
    assert default_proxy("folder:anything") == "inception"


def test_status_says_where_data_is_and_reads_nothing(tmp_path):
    (tmp_path / "data" / "cifar10" / "train").mkdir(parents=True)
    (tmp_path / "data" / "cifar10" / "test").mkdir()
    rows = {row.name: row for row in status(str(tmp_path / "data"))}
    assert list(rows) == list(DATASETS)
    assert rows["digits"].where == "scikit-learn"
    assert rows["cifar10"].where == str(tmp_path / "data" / "cifar10")
    assert rows["mnist"].where == ""
    assert "train-images-idx3-ubyte" in rows["mnist"].needs


def test_importing_the_module_imports_neither_torch_nor_scikit_learn():
    code = "import sys, evoloss.data; print({'torch', 'torchvision', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Roles


def test_digits():
    digits = load(DataSpec("digits"), ROLES)
    assert (digits.shape, digits.num_classes, digits.classes[3]) == ((1, 8, 8), 10, "3")
    assert {role: len(split.labels) for role, split in digits.splits.items()} == {
        "train": 1079,
        "select": 359,
        "test": 359,
    }
    assert_disjoint(digits)
    for split in digits.splits.values():
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
        assert split.images.flags.writeable
        assert split.images.flags.c_contiguous
        assert (split.images.min(), split.images.max()) == (0, 255)
        shares = np.bincount(split.labels) / len(split.labels)
        assert shares == pytest.approx(np.full(10, 0.1), abs=0.01)


def test_roles_do_not_depend_on_seed_process_or_what_else_is_asked():
    everything = load(DataSpec("digits"), ROLES)
    for role in ROLES:
        alone = load(DataSpec("digits", seed=7), (role,))
        assert list(alone.splits) == [role]
        assert_same(alone, everything, role)
    code = (
        "import hashlib; from evoloss.data import load; from evoloss.records import DataSpec;"
        "print(hashlib.sha256(load(DataSpec('digits')).splits['select'].images.tobytes()).hexdigest())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == hashlib.sha256(everything.splits["select"].images.tobytes()).hexdigest()


def test_roles_are_checked():
    mistake(DataSpec("digits"), "train, select, test", roles=("valid",))
    mistake(DataSpec("digits"), roles=())


# Shaping


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(10, 800), st.floats(0, 0.99), st.floats(1, 50))
def test_shaping_leaves_select_and_test_alone(seed, samples, noise, imbalance):
    plain = load(DataSpec("digits"), ROLES)
    left = data._long_tail(np.bincount(plain.splits["train"].labels), imbalance).sum()
    samples = min(samples, int(left))
    shaped = load(DataSpec("digits", None, samples, noise, imbalance, seed), ROLES)
    assert_same(shaped, plain, "select", "test")
    assert len(shaped.splits["train"].labels) == samples
    assert hashes(shaped)["train"] <= hashes(plain)["train"]
    assert_disjoint(shaped)


@given(st.integers(0, 2**31), st.integers(1, 400), st.integers(2, 10), st.floats(0, 1, exclude_max=True))
def test_label_noise_changes_exactly_its_share(seed, count, num_classes, share):
    labels = np.arange(count) % num_classes
    noisy = data._add_noise(labels, share, num_classes, np.random.default_rng(seed))
    assert (noisy != labels).sum() == round(share * count)
    assert ((noisy >= 0) & (noisy < num_classes)).all()


def test_label_noise_is_uniform_over_the_other_classes():
    noisy = data._add_noise(np.zeros(9000, np.int64), 0.5, 4, np.random.default_rng(0))
    assert np.bincount(noisy) == pytest.approx([4500, 1500, 1500, 1500], abs=150)


def test_label_noise_keeps_the_images_and_depends_on_the_seed():
    plain, noisy, again, other = (
        load(DataSpec("digits", label_noise=share, seed=seed), ("train",)).splits["train"]
        for share, seed in ((0, 1), (0.4, 1), (0.4, 1), (0.4, 2))
    )
    np.testing.assert_array_equal(plain.images, noisy.images)
    np.testing.assert_array_equal(noisy.labels, again.labels)
    assert (noisy.labels != plain.labels).sum() == round(0.4 * 1079)
    assert (noisy.labels != other.labels).any()


def test_imbalance_is_a_long_tail():
    np.testing.assert_array_equal(data._long_tail(np.full(3, 5000), 100), [5000, 500, 50])
    np.testing.assert_array_equal(data._long_tail(np.array([10, 3, 9]), 1000), [10, 1, 1])
    np.testing.assert_array_equal(data._long_tail(np.array([7, 10]), 1), [7, 10])
    counts = np.bincount(load(DataSpec("digits", imbalance=10)).splits["train"].labels)
    assert (counts[0], counts[9]) == (106, 11)
    assert (np.diff(counts[1:]) < 0).all()


def test_fewer_samples_are_part_of_more():
    less, more = (load(DataSpec("digits", samples=samples), ("train",)) for samples in (100, 500))
    assert hashes(less)["train"] < hashes(more)["train"]
    np.testing.assert_array_equal(
        np.bincount(less.splits["train"].labels).clip(9, 11), np.bincount(less.splits["train"].labels)
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 1080}, ("1079", "1080")),
        ({"samples": 9}, ("10", "9")),
        ({"samples": 1000, "imbalance": 10}, ("samples that there are", "1000")),
        ({"label_noise": 1.0}, ("label noise", "1.0")),
        ({"label_noise": -0.1}, ("label noise",)),
        ({"label_noise": float("nan")}, ("label noise",)),
        ({"imbalance": 0.5}, ("imbalance", "0.5")),
        ({"imbalance": float("inf")}, ("imbalance",)),
    ],
)
def test_shaping_out_of_bounds(options, words):
    mistake(DataSpec("digits", **options), *words)


# IDX files


@pytest.mark.parametrize("name", IDX_ROWS)
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_found_in_every_folder_of_every_base(name, packed, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("EVOLOSS_DATA", str(tmp_path / "env"))
    for base in (tmp_path / "system", cache / "data", tmp_path / "env", tmp_path / "option"):
        for place in reversed(DATASETS[name].folders):
            root = idx_files(base / place, packed=packed)
            assert next(s for s in status(str(tmp_path / "option")) if s.name == name).where == str(root)
    found = load(DataSpec(name, data_dir=str(tmp_path / "option")), ROLES)
    assert found.shape == DATASETS[name].shape
    assert {role: len(split.labels) for role, split in found.splits.items()} == {"train": 48, "select": 12, "test": 20}
    assert_disjoint(found)


def test_the_test_files_are_not_opened_unless_asked_for(tmp_path):
    root = idx_files(tmp_path / "mnist")
    (root / "t10k-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    spec = DataSpec("mnist", data_dir=str(tmp_path))
    assert set(load(spec).splits) == {"train", "select"}
    mistake(spec, root / "t10k-images-idx3-ubyte.gz", roles=("test",))


RAW = idx_bytes(np.zeros((20, 28, 28)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        RAW[:10],
        RAW[:-1],
        RAW + b"\0",
        b"\0\0\x0d" + RAW[3:],
        b"\1" + RAW[1:],
        gzip.compress(RAW),
        idx_bytes(np.zeros((20, 27, 28))),
        idx_bytes(np.zeros((19, 28, 28))),
        idx_bytes(np.zeros(20)),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_damaged_idx_files_are_named(content, packed, tmp_path):
    root = idx_files(tmp_path / "mnist", packed=packed)
    file = root / ("t10k-images-idx3-ubyte.gz" if packed else "t10k-images-idx3-ubyte")
    file.write_bytes(gzip.compress(content) if packed else content)
    assert str(root) in mistake(DataSpec("mnist", data_dir=str(tmp_path)), "idx", roles=("test",))


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_damaged_gzip_files_are_named(cut, tmp_path):
    file = tmp_path / "x.gz"
    packed = gzip.compress(RAW + bytes(range(256)))
    for content in (packed[:-cut], packed[:12] + b"\xff" * 40, b"\x1f\x8b" + b"\xff" * 40):
        file.write_bytes(content)
        with pytest.raises(EvolossError, match=r"x\.gz"):
            read_idx(file)


def test_labels_out_of_range_and_missing_classes(tmp_path):
    root = idx_files(tmp_path / "mnist")
    labels = root / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx_bytes(np.full(60, 10))))
    mistake(DataSpec("mnist", data_dir=str(tmp_path)), labels, "below 10")
    labels.write_bytes(gzip.compress(idx_bytes(np.arange(60) % 9)))
    mistake(DataSpec("mnist", data_dir=str(tmp_path)), "class `9`", "got 0")


# Downloading and torchvision's own formats


@pytest.mark.parametrize("name", [name for name, info in DATASETS.items() if info.torchvision])
def test_data_that_is_nowhere(name, tmp_path, cache, offline, monkeypatch, capfd):
    monkeypatch.setenv("EVOLOSS_DATA", str(tmp_path / "env"))
    spec = DataSpec(name, data_dir=str(tmp_path / "option"))
    bases = [tmp_path / "option", tmp_path / "env", cache / "data", tmp_path / "system"]
    mistake(spec, *bases, *DATASETS[name].folders, DATASETS[name].needs, "no network", "EVOLOSS_DATA")
    assert capfd.readouterr() == ("", "")
    assert list((cache / "data").iterdir()) == []


def test_a_download_is_kept(cache, monkeypatch):
    def fetch(_url, download_root, filename, **_options):
        source = idx_files(cache / "remote", packed=False)
        content = (source / Path(filename).stem).read_bytes()
        (Path(download_root) / Path(filename).stem).write_bytes(content)

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", fetch)
    first = load(DataSpec("mnist"))
    assert [path.name for path in (cache / "data").iterdir()] == ["MNIST"]
    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", None)
    assert_same(load(DataSpec("mnist")), first, "train", "select")


def cifar_batches(root: Path, monkeypatch) -> Path:
    """Torchvision's files with few images, and their checksums in place of the real ones."""
    from torchvision.datasets import CIFAR10

    root.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(name: str, content: object) -> str:
        raw = pickle.dumps(content)
        (root / name).write_bytes(raw)
        return hashlib.md5(raw).hexdigest()

    def batch(name: str) -> list[str]:
        pixels = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10)] * 2}
        return [name, write(name, pixels)]

    monkeypatch.setattr(CIFAR10, "train_list", [batch(name) for name, _ in CIFAR10.train_list])
    monkeypatch.setattr(CIFAR10, "test_list", [batch(name) for name, _ in CIFAR10.test_list])
    names = write("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": names})
    return root


@pytest.mark.parametrize("place", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py"])
def test_torchvision_batches(place, tmp_path, monkeypatch):
    root = cifar_batches(tmp_path / place, monkeypatch)
    spec = DataSpec("cifar10", data_dir=str(tmp_path))
    found = load(spec, ROLES)
    assert (found.shape, found.classes) == ((3, 32, 32), tuple("abcdefghij"))
    assert {role: len(split.labels) for role, split in found.splits.items()} == {"train": 80, "select": 20, "test": 20}
    with (root / "test_batch").open("rb") as file:
        raw = pickle.load(file)
    np.testing.assert_array_equal(found.splits["test"].images.reshape(20, 3072), raw["data"])
    assert found.splits["train"].images.flags.c_contiguous
    (root / "data_batch_3").write_bytes(b"tampered with")
    mistake(spec, root.parent, "corrupted")


# Class folders


def test_a_folder_is_split_in_three(tmp_path):
    found = load(spec_of(folder(tmp_path / "x", {"b": 10, "a": 20, "c": 5})), ROLES)
    assert (found.classes, found.shape) == (("a", "b", "c"), (1, 28, 28))
    counts = {role: np.bincount(split.labels).tolist() for role, split in found.splits.items()}
    assert counts == {"train": [12, 6, 3], "select": [4, 2, 1], "test": [4, 2, 1]}
    assert_disjoint(found)
    shades = found.splits["test"].images[:, 0, 0, 0]
    assert set(shades[found.splits["test"].labels == 1]) <= set(range(10))  # b was drawn first


def test_a_folder_with_its_own_test_images(tmp_path):
    folder(tmp_path / "x" / "train", {"a": 10, "b": 10})
    folder(tmp_path / "x" / "test", {"a": 1, "b": 2}, mode="RGB", size=(50, 40))
    (tmp_path / "x" / "val").mkdir()
    found = load(spec_of(tmp_path / "x"), ROLES)
    assert {role: len(split.labels) for role, split in found.splits.items()} == {"train": 16, "select": 4, "test": 3}
    assert found.shape == (1, 28, 28)  # the train part's, whatever the test part is
    assert found.splits["test"].images.shape == (3, 1, 28, 28)


def test_a_folder_with_train_only_is_split_in_three(tmp_path):
    folder(tmp_path / "x" / "train", {"a": 10, "b": 10})
    assert len(load(spec_of(tmp_path / "x"), ROLES).splits["test"].labels) == 4


def test_classes_may_be_called_train_and_test(tmp_path):
    assert load(spec_of(folder(tmp_path / "x", {"train": 5, "test": 5, "bus": 5}))).classes == ("bus", "test", "train")


@pytest.mark.parametrize(
    ("mode", "suffix", "channels"),
    [
        *(("L", "PNG", 1), ("1", "png", 1), ("LA", "png", 1), ("I;16", "png", 1), ("L", "jpg", 1), ("L", "PgM", 1)),
        *(("RGB", "webp", 3), ("RGB", "JPEG", 3), ("RGB", "bmp", 3), ("RGBA", "png", 3), ("P", "gif", 3)),
        ("RGB", "ppm", 3),
    ],
)
def test_modes_and_formats(mode, suffix, channels, tmp_path):
    for name in "ab":
        for index in range(4):
            picture(tmp_path / "x" / name / f"{index}.{suffix}", 100 + index, mode)
    found = load(spec_of(tmp_path / "x"))
    assert found.shape == (channels, 28, 28)
    if mode in ("L", "LA", "I;16"):
        assert set(np.unique(found.splits["train"].images)) <= {100, 101, 102, 103}


def test_mixed_modes_and_sizes_and_a_palette_with_transparency(tmp_path):
    root = folder(tmp_path / "x", {"a": 5, "b": 5}, size=(64, 40))
    picture(root / "a" / "color.png", 200, "RGB", (10, 20))
    Image.new("P", (28, 28), 3).save(root / "b" / "palette.png", transparency=bytes([0, 9, 9, 9]))
    found = load(spec_of(root), ROLES)
    assert found.shape == (3, 32, 32)
    grey = [image for image in found.splits["train"].images if (image[0] == image[1]).all()]
    assert len(grey) >= 3


def test_the_shorter_side_is_scaled_and_the_center_kept(tmp_path):
    root = folder(tmp_path / "x", {"a": 3, "b": 3})
    wide = np.zeros((64, 192), np.uint8)
    wide[:, 64:128] = 250
    for name in "ab":
        for index in range(3):
            Image.fromarray(wide).save(root / name / f"{index}.png")
    assert (load(spec_of(root)).splits["train"].images[..., 1:-1] == 250).all()


def test_other_files_are_ignored(tmp_path):
    root = folder(tmp_path / "x", {"a": 5, "b": 5})
    (root / "a" / ".hidden.png").write_bytes(b"no image")
    (root / "a" / "notes.txt").write_text("no image")
    (root / "a" / "folder.png").mkdir()
    (root / "README").write_text("no class")
    (root / ".thumbnails").mkdir()
    assert len(load(spec_of(root), ("train",)).splits["train"].labels) == 6


def test_broken_images_are_named(tmp_path):
    root = folder(tmp_path / "x", {"a": 5, "b": 5}, mode="RGB")
    whole = (root / "b" / "2.png").read_bytes()
    for content in (b"", b"no image", whole[:-30], whole[:40]):
        (root / "b" / "2.png").write_bytes(content)
        mistake(spec_of(root), root / "b" / "2.png")


def test_images_that_are_bombs_are_named(tmp_path, monkeypatch):
    """One that unpacks to more than twice PIL's limit of pixels, and one that is a megabyte of text."""
    root = folder(tmp_path / "x", {"a": 5, "b": 5})
    text = PngInfo()
    text.add_text("x", "y" * 2_000_000, zip=True)
    images.Image.new("L", (28, 28)).save(root / "b" / "2.png", pnginfo=text)
    mistake(spec_of(root), root / "b" / "2.png", "too large")
    picture(root / "b" / "2.png", 1, size=(200, 200))
    monkeypatch.setattr(images.Image, "MAX_IMAGE_PIXELS", 15_000)
    mistake(spec_of(root), root / "b" / "2.png", "decompression bomb")


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    """To open a pipe would wait for ever."""
    root = folder(tmp_path / "x", {"a": 5, "b": 5})
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "dangling.png").symlink_to("/nowhere.png")
    (root / "loop").symlink_to(root / "loop")
    loaded = load(spec_of(root), ROLES)
    assert sum(len(split.labels) for split in loaded.splits.values()) == 10
    assert loaded.classes == ("a", "b")
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    mistake(spec_of(root), root / "a", "symbolic links")


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1)])
def test_images_of_any_size_are_resized(size, tmp_path):
    root = folder(tmp_path / "x", {"a": 5, "b": 5})
    picture(root / "a" / "odd.png", 100, size=size)
    assert load(spec_of(root)).shape == (1, 32, 32)


def test_a_class_of_one_image_is_named(tmp_path):
    mistake(spec_of(folder(tmp_path / "x", {"a": 5, "b": 1})), "class `b`", "at least 3", "got 1")
    folder(tmp_path / "y" / "train", {"a": 5, "b": 5})
    folder(tmp_path / "y" / "test", {"a": 1, "b": 1})
    assert len(load(spec_of(tmp_path / "y"), ROLES).splits["test"].labels) == 2


def test_an_idx_file_that_unpacks_to_more_than_any_data_set_is_not_read(tmp_path, monkeypatch):
    idx_files(tmp_path / "fashion-mnist")
    monkeypatch.setattr(images, "MOST_IDX", 1_000)
    mistake(DataSpec("fashion-mnist", data_dir=str(tmp_path)), "at most 1,000 bytes", "train-images")


def test_folders_that_cannot_be_used(tmp_path):
    mistake(DataSpec("folder:"), "folder:")
    mistake(spec_of(tmp_path / "nowhere"), tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    mistake(spec_of(tmp_path / "file"), tmp_path / "file")
    (tmp_path / "empty").mkdir()
    mistake(spec_of(tmp_path / "empty"), tmp_path / "empty", "2 class folders")
    mistake(spec_of(folder(tmp_path / "one", {"a": 5})), "got 1")
    mistake(spec_of(folder(tmp_path / "small", {"a": 5, "b": 2})), "class `b`", "at least 3", "got 2")
    bare = folder(tmp_path / "bare", {"a": 5, "b": 5})
    (bare / "c").mkdir()
    mistake(spec_of(bare), bare / "c", ".png")


def test_the_classes_of_train_and_test_must_agree(tmp_path):
    folder(tmp_path / "x" / "train", {"a": 5, "b": 5, "cat": 5})
    folder(tmp_path / "x" / "test", {"a": 5, "b": 5, "dog": 5})
    mistake(spec_of(tmp_path / "x"), "cat, dog")


def test_named_data_in_class_folders_keeps_its_shape(tmp_path):
    names = dict.fromkeys("abcdefghij", 3)
    spec = DataSpec("cifar10", data_dir=str(tmp_path))
    folder(tmp_path / "cifar10" / "train", names, mode="RGB", size=(32, 32))
    folder(tmp_path / "cifar10" / "test", names, size=(32, 32))
    assert load(spec, ROLES).shape == (3, 32, 32)
    picture(tmp_path / "cifar10" / "train" / "c" / "0.png", 1, "RGB", (32, 31))
    mistake(spec, tmp_path / "cifar10" / "train" / "c" / "0.png", "32 x 31", "folder:PATH")
    folder(tmp_path / "cifar10" / "train", {"k": 3}, mode="RGB", size=(32, 32))
    mistake(spec, "10 class folders", "got 11")


# The cache of decoded images


def cached(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (cache / "decoded").iterdir()}


def test_images_are_decoded_once(tmp_path, cache, monkeypatch):
    spec = spec_of(folder(tmp_path / "x", {"a": 5, "b": 5}))
    first = load(spec, ROLES)
    before = cached(cache)
    assert len(before) == 1
    monkeypatch.setattr(images.Image, "open", None)
    assert_same(load(spec, ROLES), first, *ROLES)
    assert cached(cache) == before


def test_a_changed_folder_is_decoded_anew(tmp_path, cache):
    root = folder(tmp_path / "x", {"a": 5, "b": 5})
    load(spec_of(root))
    picture(root / "a" / "new.png", 200)
    assert sum(len(split.labels) for split in load(spec_of(root), ROLES).splits.values()) == 11
    os.utime(root / "a" / "new.png", ns=(1, 1))
    load(spec_of(root))
    assert len(cached(cache)) == 3


@pytest.mark.parametrize("damage", [b"", b"half", "half", "other"])
def test_a_damaged_cache_is_decoded_anew(damage, tmp_path, cache):
    spec = spec_of(folder(tmp_path / "x", {"a": 5, "b": 5}))
    first = load(spec, ROLES)
    (file,) = (cache / "decoded").iterdir()
    if damage == "other":
        np.save(file, np.zeros((3, 1, 28, 28), np.uint8))
    else:
        file.write_bytes(file.read_bytes()[:500] if damage == "half" else damage)
    assert_same(load(spec, ROLES), first, *ROLES)
    np.load(file)


def test_an_interrupted_decode_leaves_nothing(tmp_path, cache, monkeypatch):
    spec = spec_of(folder(tmp_path / "x", {"a": 5, "b": 5}))

    def interrupt(file, array):
        Path(file).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(images.np, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(spec)
    assert cached(cache) == {}
    load(spec)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    spec = spec_of(folder(tmp_path / "x", {"a": 5, "b": 5}))
    first = load(spec, ROLES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert_same(load(spec, ROLES), first, *ROLES)


# The real data


@real
@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10"])
def test_real_data(name, cache):
    spec = DataSpec(name, data_dir=REAL)
    found = load(spec, ROLES)
    sizes = (
        {"train": 5000, "select": 1000, "test": 1000}
        if name != "cifar10"
        else {"train": 4000, "select": 1000, "test": 1000}
    )
    for role, per_class in sizes.items():
        assert found.splits[role].images.shape == (10 * per_class, *DATASETS[name].shape)
        np.testing.assert_array_equal(np.bincount(found.splits[role].labels), np.full(10, per_class))
    assert_disjoint(found)
    if name == "cifar10" and (cache / "decoded").is_dir():
        before = cached(cache)
        assert_same(load(spec, ("select",)), found, "select")
        assert cached(cache) == before


def test_the_fingerprint_is_of_what_a_search_sees(digits):
    fingerprint = data.fingerprint(digits)
    assert len(fingerprint) == 16
    assert data.fingerprint(data.load(DataSpec("digits"))) == fingerprint  # without the test role
    assert data.fingerprint(data.load(DataSpec("digits", label_noise=0.1))) != fingerprint
