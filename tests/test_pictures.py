import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from evoloss import pictures
from evoloss.pictures import Distances, Points

CLASSES = tuple(f"class {number}" for number in range(10))
LABELS = np.arange(120) % 10


def points(width=2, seed=0, centers=True):
    generator = np.random.default_rng(seed)
    middles = generator.normal(size=(10, width)) * 4
    return Points(f"epoch {seed}", middles[LABELS] + generator.normal(size=(120, width)), middles if centers else None)


def colors(path):
    with Image.open(path) as image:
        assert min(image.size) > 400  # readable in print
        return {color for _, color in image.convert("RGB").getcolors(maxcolors=1 << 24)}


@pytest.fixture(autouse=True)
def _nothing_stays_open():
    yield
    assert not plt.get_fignums()


def test_every_loss_has_its_color_in_the_histograms(tmp_path):
    generator = np.random.default_rng(0)
    rows = [Distances(f"loss {n}", generator.gamma(n + 1, 0.2, 400), np.arange(400) % 2 == 0, 0.5) for n in range(5)]
    pictures.draw_distances(tmp_path / "distances.png", "title", rows)
    seen = colors(tmp_path / "distances.png")
    for color in pictures.LOSS_COLORS[:5]:
        assert tuple(bytes.fromhex(color[1:])) in seen


@pytest.mark.parametrize("count", [2, 4, 6])
def test_tsne_of_every_panel(tmp_path, count):
    panels = [points(8, seed) for seed in range(count)]
    pictures.draw_tsne(tmp_path / "tsne.png", "title", panels, LABELS, CLASSES)
    assert len(colors(tmp_path / "tsne.png")) > 50


def test_tsne_of_fewer_points_than_its_perplexity(tmp_path):
    panel = Points("few", np.random.default_rng(0).normal(size=(12, 5)))
    pictures.draw_tsne(tmp_path / "tsne.png", "title", [panel], np.arange(12) % 3, CLASSES[:3])
    assert (tmp_path / "tsne.png").is_file()


@pytest.mark.parametrize("count", [1, 4, 30])
def test_a_grid_of_epochs(tmp_path, count):
    frames = [points(seed=seed, centers=seed % 2 == 0) for seed in range(count)]
    pictures.draw_epochs(tmp_path / "grid.png", "title", frames, LABELS, CLASSES)
    assert len(colors(tmp_path / "grid.png")) > 50


def test_an_animation_has_a_frame_an_epoch_and_rests_on_the_last(tmp_path):
    pictures.animate_epochs(tmp_path / "epochs.gif", "title", [points(seed=n) for n in range(3)], LABELS, CLASSES)
    with Image.open(tmp_path / "epochs.gif") as image:
        durations = []
        for frame in range(image.n_frames):
            image.seek(frame)
            durations.append(image.info["duration"])
        assert image.info["loop"] == 0
    assert len(durations) >= 3
    seconds = 3 * pictures.FRAME_SECONDS + pictures.LAST_SECONDS - pictures.FRAME_SECONDS
    assert sum(durations) == pytest.approx(1000 * seconds, rel=0.1)


def test_points_that_all_coincide(tmp_path):
    still = Points("epoch 0", np.zeros((120, 2)))
    pictures.draw_epochs(tmp_path / "grid.png", "title", [still], LABELS, CLASSES)


def test_more_classes_than_named_colors(tmp_path):
    labels = np.arange(120) % 100
    pictures.draw_epochs(tmp_path / "grid.png", "title", [points(centers=False)], labels, [str(n) for n in range(100)])
    assert len(colors(tmp_path / "grid.png")) > 100
