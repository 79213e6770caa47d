import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from evoloss import forest
from evoloss.evidence import Estimate
from evoloss.forest import Panel, draw_forest


def figures(labels, groups, shift=0.0):
    return {
        f"loss {n}": {group: Estimate(n + place + shift, n - 1, n + 9) for place, group in enumerate(groups)}
        for n in labels
    }


@pytest.mark.parametrize("count", [1, 7, 12])
def test_every_label_has_its_color(tmp_path, count):
    groups = ["plain", "noise", "tail"]
    full, partly = figures(range(count), groups), figures(range(1, count), groups[:1], 5.0)
    draw_forest(tmp_path / "forest.png", "title", groups, [Panel("gap", full), Panel("error", partly)])
    assert not plt.get_fignums()
    with Image.open(tmp_path / "forest.png") as image:
        seen = {color for _, color in image.convert("RGB").getcolors(maxcolors=1 << 24)}
    for color in forest.COLORS[: min(count, len(forest.COLORS))]:
        assert tuple(bytes.fromhex(color[1:])) in seen


def test_a_picture_of_nothing_is_still_one(tmp_path):
    draw_forest(tmp_path / "forest.png", "title", ["plain"], [Panel("gap", {}), Panel("error", {})])
    with Image.open(tmp_path / "forest.png") as image:
        assert np.asarray(image).std() > 0


@pytest.mark.parametrize("shared", [False, True])
def test_a_mark_is_where_its_figure_is_with_its_interval(tmp_path, monkeypatch, shared):
    drawn = []
    monkeypatch.setattr(forest.plt, "close", lambda figure: drawn.append(figure))
    marks = {"a": {"top": Estimate(1.0, 0.5, 2.5)}, "b": {"below": Estimate(-3.0, -4.0, -1.0)}}
    draw_forest(tmp_path / "forest.png", "title", ["top", "below"], [Panel("gap", marks, shared)])
    first, second = ([bars.get_label() for bars in axis.containers] for axis in drawn[0].axes)
    assert (first, second) == (["a"], ["b"])
    marks = [axis.containers[0] for axis in drawn[0].axes]
    assert [bars.lines[0].get_xdata().tolist() for bars in marks] == [[1.0], [-3.0]]
    assert [bars.lines[2][0].get_segments()[0][:, 0].tolist() for bars in marks] == [[0.5, 2.5], [-4.0, -1.0]]
    assert [axis.get_ylabel() for axis in drawn[0].axes] == ["top", "below"]
    limits = [axis.get_xlim() for axis in drawn[0].axes]
    assert (limits[0] == limits[1]) == shared
    for (low, high), bars in zip(limits, marks, strict=True):
        assert low < min(bars.lines[2][0].get_segments()[0][:, 0])
        assert high > max(bars.lines[2][0].get_segments()[0][:, 0])
    monkeypatch.undo()
    plt.close(drawn[0])
