"""Pictures of what a loss does with samples: distances of pairs, t-SNE, two-dimensional embeddings epoch by epoch; and
of losses as curves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from PIL import Image

if TYPE_CHECKING:
    from evoloss.analysis.curves import Curve

BINS = 100
TSNE_POINTS = 1000
PANELS = 9  # epochs of a grid, evenly spaced, the first and the last among them
FRAME_SECONDS, LAST_SECONDS = 0.6, 3.0
DPI = 150
GIF_COLORS = 256
CENTER: dict[str, Any] = {"marker": "X", "s": 60, "edgecolors": "black", "linewidths": 0.9}


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances [P] of pairs under one loss, whether their classes agree [P], a threshold, and what the legend says."""

    caption: str
    distances: np.ndarray
    same: np.ndarray
    threshold: float


@dataclass(frozen=True, eq=False)
class Points:
    """Embeddings [N, E] under a caption, with centers [K, E] where there are any."""

    caption: str
    embeddings: np.ndarray
    centers: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Curves:
    """Losses against one thing: its name, those of the two heights, and where the pictures of them are cut off."""

    places: str
    loss: str
    slope: str
    curves: "Sequence[Curve]"
    cut: tuple[float, float] = (-np.inf, np.inf)


def draw_curves(path: Path, title: str, rows: Sequence[Curves]) -> None:
    """Losses left, their derivatives right, a row a thing; dots where losses are least."""
    figure, axes = plt.subplots(len(rows), 2, figsize=(10, 4.2 * len(rows) + 0.6), layout="constrained", squeeze=False)
    for (left, right), row in zip(axes, rows, strict=True):
        for axis, name, heights in (
            (left, row.loss, [line.loss for line in row.curves]),
            (right, row.slope, [line.slope for line in row.curves]),
        ):
            axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
            _draw_lines(axis, row.curves, heights)
            shown = np.clip(np.concatenate(heights), *row.cut)
            # Of a constant the picture shows the size, not the last bits.
            margin = max(0.05 * float(np.ptp(shown)), 1e-3 * float(np.abs(shown).max()), 1e-9)
            axis.set(xlabel=row.places, ylabel=name, ylim=(shown.min() - margin, shown.max() + margin))
            axis.ticklabel_format(useOffset=False)
        left.legend(frameon=False)
    figure.suptitle(title)
    _save(figure, path)


def _draw_lines(axis: Axes, curves: "Sequence[Curve]", heights: Sequence[np.ndarray]) -> None:
    """The last one solid and broad, the others over it: one that hides it can still be seen to be the same."""
    for place, (line, values) in enumerate(zip(curves, heights, strict=True)):
        last = place == len(curves) - 1
        color = LOSS_COLORS[place]
        width, style = (3.2, "-") if last else (1.5, CURVE_LINES[place])
        axis.plot(line.places, values, style, color=color, linewidth=width, label=line.label, zorder=2 if last else 3)
        axis.plot(line.places[line.least], values[line.least], "o", color=color, markersize=8 if last else 5, zorder=4)


def draw_distances(path: Path, title: str, rows: Sequence[Distances]) -> None:
    """Histograms of 100 bins, the losses overlaid: pairs of one class above, of two below; counts on a log scale."""
    figure, axes = plt.subplots(2, 1, figsize=(8, 6.5), sharex=True, layout="constrained")
    bins = np.linspace(0, max(float(np.quantile(row.distances, 0.9995)) for row in rows), BINS + 1)
    for axis, same, kind in zip(axes, (True, False), ("one class", "two classes"), strict=True):
        for row, color in zip(rows, LOSS_COLORS, strict=False):
            chosen = row.distances[row.same == same]
            weights = np.full(len(chosen), 100 / max(len(chosen), 1))
            shared = {"bins": bins, "weights": weights, "color": color}
            axis.hist(chosen, histtype="stepfilled", alpha=0.15, **shared)
            axis.hist(chosen, histtype="step", linewidth=1.4, label=row.caption, **shared)
            axis.axvline(row.threshold, color=color, linestyle=":", linewidth=1.4)
        axis.axvline(0.5, color="0.35", linestyle="--", linewidth=1)
        axis.set(yscale="log", ylabel=f"% of pairs of {kind}", xlim=(0, bins[-1]))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes[0].legend(frameon=False, loc="upper right")
    axes[1].set_xlabel("distance of the pair's embeddings (dashed: threshold 0.5; dotted: fitted on training pairs)")
    figure.suptitle(title)
    _save(figure, path)


def draw_tsne(path: Path, title: str, panels: Sequence[Points], labels: np.ndarray, classes: Sequence[str]) -> None:
    """t-SNE (van der Maaten and Hinton 2008) of up to 1,000 points of each panel, side by side; random state 0."""
    from sklearn.manifold import TSNE

    labels = labels[:TSNE_POINTS]
    figure, axes = _grid(len(panels), columns=2 if len(panels) == 4 else min(len(panels), 3))
    for axis, panel in zip(axes, panels, strict=True):
        points = panel.embeddings[:TSNE_POINTS].astype(np.float64)
        perplexity = min(30.0, (len(points) - 1) / 3)
        flat = TSNE(perplexity=perplexity, init="random", random_state=0).fit_transform(points)
        _scatter(axis, flat, labels, len(classes))
        axis.set(xticks=[], yticks=[], title=panel.caption)
    _legend(figure, classes)
    figure.suptitle(title)
    _save(figure, path)


def draw_epochs(path: Path, title: str, frames: Sequence[Points], labels: np.ndarray, classes: Sequence[str]) -> None:
    """Two-dimensional embeddings after up to nine epochs, evenly spaced, with the learned centers."""
    shown = sorted({round(place) for place in np.linspace(0, len(frames) - 1, min(PANELS, len(frames)))})
    figure, axes = _grid(len(shown), columns=3)
    for axis, number in zip(axes, shown, strict=True):
        _draw_frame(axis, frames[number], labels, len(classes))
    _legend(figure, classes, frames[0].centers is not None)
    figure.suptitle(title)
    _save(figure, path)


def animate_epochs(
    path: Path, title: str, frames: Sequence[Points], labels: np.ndarray, classes: Sequence[str]
) -> None:
    """The same as an animated GIF of every epoch, which rests on the last."""
    images = []
    for frame in frames:
        figure, axis = plt.subplots(figsize=(6.4, 5.8), dpi=DPI * 2 / 3, layout="constrained")
        _draw_frame(axis, frame, labels, len(classes))
        _legend(figure, classes, frame.centers is not None)
        figure.suptitle(title)
        figure.canvas.draw()
        images.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3]).quantize(GIF_COLORS))
        plt.close(figure)
    seconds = [FRAME_SECONDS] * (len(images) - 1) + [LAST_SECONDS]
    milliseconds = [round(1000 * duration) for duration in seconds]
    images[0].save(path, save_all=True, append_images=images[1:], duration=milliseconds, loop=0, disposal=2)


def _draw_frame(axis: Axes, frame: Points, labels: np.ndarray, num_classes: int) -> None:
    """The limits follow the embeddings, outliers aside: the ticks tell how far they have spread."""
    _scatter(axis, frame.embeddings, labels, num_classes)
    if frame.centers is not None:
        axis.scatter(*frame.centers.T, c=_colors(num_classes), **CENTER, zorder=3)
    seen = np.concatenate([frame.embeddings, *([] if frame.centers is None else [frame.centers])])
    low, high = np.quantile(seen, 0.002, axis=0), np.quantile(seen, 0.998, axis=0)
    margin = np.maximum(0.06 * (high - low), 1e-6)
    axis.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
    axis.set(xlabel="embedding 1", ylabel="embedding 2", title=frame.caption)


def _scatter(axis: Axes, points: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
    axis.scatter(*points.T, s=5, c=[_colors(num_classes)[label] for label in labels], alpha=0.7, linewidths=0)
    axis.title.set_fontsize(10)


def _colors(num_classes: int) -> list[Any]:
    if num_classes <= len(CLASS_COLORS):
        return list(CLASS_COLORS[:num_classes])
    return list(plt.get_cmap("turbo")(np.linspace(0, 1, num_classes)))


def _grid(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 3.2 * rows + 1), layout="constrained", squeeze=False
    )
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def _legend(figure: Figure, classes: Sequence[str], centers: bool = False) -> None:
    """Below all axes; of classes only where there are no more than can be told apart."""
    named = zip(classes, CLASS_COLORS, strict=False) if len(classes) <= len(CLASS_COLORS) else ()
    axis = figure.axes[0]
    marks = [axis.scatter([], [], s=30, color=color, label=name) for name, color in named]
    marks += [axis.scatter([], [], color="white", **CENTER, label="class center")] if centers else []
    if marks:
        figure.legend(handles=marks, loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


# Both can be told apart with any color vision: Okabe and Ito (2008), and Petroff (2021, arXiv:2107.02270).
CURVE_LINES = ("--", "-.", ":")
LOSS_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
CLASS_COLORS = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
