"""A forest plot: figures with their intervals, group by group, side by side in panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from evoloss.evidence import Estimate

DPI = 150
ROW = 0.17  # inches a mark
# Okabe and Ito (2008), to be told apart with any color vision; beyond them the marker tells.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Panel:
    """What is measured, and the figures by label and group; a figure may be missing.

    All groups have one scale if `shared`; else each has its own, so that a figure far off in one squeezes no other.
    """

    title: str
    figures: Mapping[str, Mapping[str, Estimate]]
    shared: bool = False


def draw_forest(path: Path, title: str, groups: Sequence[str], panels: Sequence[Panel]) -> None:
    """Write the picture: groups from the top down, in each a mark a label; a label looks the same in all panels."""
    labels = list(dict.fromkeys(label for panel in panels for label in panel.figures))
    height = 1.2 + 0.22 * len(labels) + len(groups) * (0.45 + ROW * len(labels))
    shape = len(groups), len(panels)
    figure, axes = plt.subplots(*shape, figsize=(9, height), layout="constrained", squeeze=False)
    for column, panel in enumerate(panels):
        for row, group in enumerate(groups):
            if panel.shared and row:  # before anything is drawn: an axis that joins later takes the limits as they are
                axes[row, column].sharex(axes[0, column])
            _draw(axes[row, column], panel, group, labels)
        axes[-1, column].set_xlabel(panel.title)
    for row, group in enumerate(groups):
        axes[row, 0].set_ylabel(group, rotation=0, ha="right", va="center")
    handles = [Line2D([], [], linewidth=1.2, markersize=4, **_style(number)) for number in range(len(labels))]
    if handles:
        figure.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=9)
    figure.suptitle(title)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _draw(axis: Axes, panel: Panel, group: str, labels: Sequence[str]) -> None:
    for number, label in enumerate(labels):
        if (estimate := panel.figures.get(label, {}).get(group)) is not None:
            reach = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
            axis.errorbar(
                estimate.value, number, xerr=reach, markersize=4, linewidth=1.2, label=label, **_style(number)
            )
    axis.axvline(0, color="0.35", linewidth=0.8, linestyle="--")
    axis.set(yticks=[], ylim=(len(labels) - 0.5, -0.5) if labels else (0.5, -0.5))
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _style(number: int) -> dict[str, Any]:
    """How a label looks."""
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number // len(COLORS) % len(MARKERS)]}
