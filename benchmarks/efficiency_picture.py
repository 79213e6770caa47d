"""The picture of `benchmarks.search_efficiency`: best accuracy against core-seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

COLORS = ("#D55E00", "#0072B2")  # told apart with any color vision: Okabe and Ito (2008)
SHOWN = 0.03  # of accuracy, below the best

Curve = Sequence[tuple[float, float]]  # core-seconds, accuracy of who leads


def draw(path: Path, panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """A panel for each title: its curves by name, as steps that are held to the end."""
    figure, axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 4.6), squeeze=False, layout="constrained")
    for axis, (title, curves) in zip(axes.flat, panels.items(), strict=True):
        _draw_panel(axis, curves)
        axis.set_title(title, fontsize=11)
    figure.supxlabel("core-seconds")
    axes[0, 0].set_ylabel("select accuracy of who leads, trained in full")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_panel(axis: Axes, curves: Mapping[str, Curve]) -> None:
    for (name, curve), color in zip(curves.items(), COLORS, strict=False):
        seconds, accuracy = zip(*curve, strict=True)
        axis.step(seconds, accuracy, where="post", color=color, linewidth=1.8, label=name)
        axis.plot(seconds[-1], accuracy[-1], marker="o", markersize=5, color=color)
    points = [point for curve in curves.values() for point in curve]
    top = max(accuracy for _, accuracy in points)
    seen = [seconds for seconds, accuracy in points if accuracy >= top - SHOWN]
    axis.set(xscale="log", xlim=(0.8 * min(seen), 1.25 * max(seen)), ylim=(top - SHOWN, top + SHOWN / 10))
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:,g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)  # where it covers least
