import numpy as np
import pytest
from canvases import FAINT, INSIDE, scatter
from PIL import Image

from evoloss.data import ROLES
from evoloss.errors import EvolossError
from evoloss.records import DataSpec
from evoloss.vision import masks
from evoloss.vision.masks import IGNORE, VOC


def pair(folder, name, numbers, color=(10, 20, 30), suffix="png", mode=None):
    """An image of one color and the mask of these numbers [H, W]."""
    numbers = np.asarray(numbers)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", numbers.shape[::-1], color).save(folder / "images" / f"{name}.png")
    mask = Image.fromarray(numbers.astype(np.uint8))
    if mode:
        mask = mask.convert(mode)
    mask.save(folder / "masks" / f"{name}.{suffix}")


def load(folder, roles=ROLES, side=8):
    return masks.load(DataSpec(f"folder:{folder}"), roles, side)


@pytest.fixture
def four(tmp_path):
    for name in "abcd":
        pair(tmp_path, name, [[0, 1], [2, 255]])
    return tmp_path


def test_pairs_are_read_into_three_roles(tmp_path):
    data = load(scatter(tmp_path, 10), side=32)
    assert {role: len(split.labels) for role, split in data.splits.items()} == {"train": 6, "select": 2, "test": 2}
    assert data.classes == ("0", "1", "2")
    assert data.shape == (3, 32, 32)
    for split in data.splits.values():
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert split.labels.shape == (len(split.images), 32, 32)
        assert set(np.unique(split.labels)) <= {0, 1, 2, IGNORE}
        bright = (split.labels == 1) | (split.labels == 2)
        assert split.images[:, 0][bright].min() >= INSIDE  # images and masks belong together, as `scatter` draws them
        assert split.images[:, 0][split.labels == 0].max() < FAINT


def test_a_role_does_not_depend_on_what_else_is_asked(tmp_path):
    scatter(tmp_path, 10)
    everything = load(tmp_path)
    for role in ROLES:
        alone = load(tmp_path, (role,))
        assert list(alone.splits) == [role]
        np.testing.assert_array_equal(alone.splits[role].labels, everything.splits[role].labels)


def test_the_longer_side_is_scaled_and_the_rest_ignored(tmp_path):
    for name in "abc":
        pair(tmp_path, name, [[0, 0, 1, 1], [0, 0, 1, 1]])  # twice as wide as high
    split = load(tmp_path).splits["train"]
    expected = np.full((8, 8), IGNORE)
    expected[2:6, :4], expected[2:6, 4:] = 0, 1
    np.testing.assert_array_equal(split.labels[0], expected)
    np.testing.assert_array_equal(split.images[0, :, 3, 0], [10, 20, 30])
    np.testing.assert_array_equal(split.images[0, :, 0, 0], [0, 0, 0])


def test_a_test_part_of_its_own_is_kept_and_not_opened_unless_asked(tmp_path):
    for part in ("train", "test"):
        for name in "abcd":
            pair(tmp_path / part, name, [[0, 1]], color=(200, 0, 0) if part == "test" else (10, 0, 0))
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    data = load(tmp_path)
    assert data.classes == ("sky", "road")
    assert [len(data.splits[role].labels) for role in ROLES] == [3, 1, 4]
    assert {role: split.images.max() for role, split in data.splits.items()} == {"train": 10, "select": 10, "test": 200}
    (tmp_path / "test" / "images" / "a.png").write_bytes(b"no image")
    assert set(load(tmp_path, ("train", "select")).splits) == {"train", "select"}
    with pytest.raises(EvolossError, match="corrupt file"):
        load(tmp_path)


def test_voc_as_torchvision_reads_it(tmp_path, monkeypatch):
    """The same files and numbers as torchvision.datasets.VOCSegmentation: its train part shared out, val for test."""
    from torchvision.datasets import VOCSegmentation

    root = tmp_path / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abcdefg":
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = Image.fromarray(rng.choice([0, 3, 20, 255], (16, 16)).astype(np.uint8)).convert("P")
        mask.putpalette(list(range(256)) * 3)
        mask.save(root / "SegmentationClass" / f"{name}.png")
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\nc\nd\ne\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("f\ng\n")
    monkeypatch.setenv("EVOLOSS_DATA", str(tmp_path))
    data = masks.load(DataSpec("voc2012"), ROLES, 16)
    assert (data.num_classes, len(VOC.classes)) == (21, 21)
    for part, roles in (("train", ("train", "select")), ("val", ("test",))):
        theirs = VOCSegmentation(tmp_path, year="2012", image_set=part)
        expected = {(np.asarray(i).transpose(2, 0, 1).tobytes(), np.asarray(m).tobytes()) for i, m in theirs}
        ours = [data.splits[role] for role in roles]
        pairs = [(i.tobytes(), m.tobytes()) for split in ours for i, m in zip(split.images, split.labels, strict=True)]
        assert set(pairs) == expected
        assert len(pairs) == len(theirs)


def write(path, text):
    path.write_text(text)


BAD = {
    "sizes": (
        lambda root: Image.new("L", (3, 2)).save(root / "masks" / "b.png"),
        ["one size", "2 x 2 in ", "3 x 2 in ", "b.png"],
    ),
    "a label too many": (
        lambda root: write(root / "classes.txt", "sky\nroad\n"),
        ["class numbers from 0 to 1 (or 255: ignored)", "got 2"],
    ),
    "a mask in color": (lambda root: pair(root, "b", [[0, 1]], mode="RGB"), ["one channel", "got RGB", "b.png"]),
    "a mask without an image": (lambda root: (root / "images" / "b.png").unlink(), ["`b` lacks an image"]),
    "an image without a mask": (lambda root: (root / "masks" / "b.png").unlink(), ["`b` lacks a mask"]),
    "a corrupt mask": (lambda root: write(root / "masks" / "b.png", "?"), ["corrupt file", "masks/b.png"]),
    "0 and 255 alone": (
        lambda root: [pair(root, name, [[0, 255], [255, 0]]) for name in "abcd"],
        ["at least two classes", "255, which is ignored"],
    ),
    "one class": (lambda root: write(root / "classes.txt", "sky\n"), ["expected 2 to 255 names", "got 1"]),
    "too few": (
        lambda root: [(root / part / f"{name}.png").unlink() for name in "cd" for part in ("images", "masks")],
        ["at least 3 images", "got 2"],
    ),
    "no masks": (lambda root: [path.unlink() for path in (root / "masks").iterdir()], ["expected files", "masks"]),
    "no folder of masks": (lambda root: (root / "masks").rename(root / "labels"), ["make images/ and masks/"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_clear_line(four, name):
    spoil, words = BAD[name]
    spoil(four)
    with pytest.raises(EvolossError) as caught:
        load(four)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


def test_data_without_masks_are_refused(tmp_path):
    with pytest.raises(EvolossError, match=r"voc2012, folder:PATH\), got `digits`"):
        masks.load(DataSpec("digits"), ROLES, 8)
    with pytest.raises(EvolossError, match="got `/nowhere`"):
        load("/nowhere")
    with pytest.raises(EvolossError, match="--label-noise"):
        masks.load(DataSpec(f"folder:{tmp_path}", label_noise=0.1), ROLES, 8)
