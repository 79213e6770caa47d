"""A forest plot: figures with their intervals, group by group, side by side in panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from evoloss.evidence import Estimate

DPI = 150
ROW = 0.17  # inches a mark
# Okabe and Ito (2008), to be told apart with any color vision; beyond them the marker tells.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")


@dataclass(frozen=True)
class Panel:
    """What is measured, and the figures by label and group; a figure may be missing."""

    title: str
    figures: Mapping[str, Mapping[str, Estimate]]


def draw_forest(path: Path, title: str, groups: Sequence[str], panels: Sequence[Panel]) -> None:
    """Write the picture: groups from the top down, in each a mark a label; a label looks the same in all panels."""
    labels = list(dict.fromkeys(label for panel in panels for label in panel.figures))
    height = 1.6 + 0.22 * len(labels) + ROW * len(groups) * (len(labels) + 1)
    figure, axes = plt.subplots(1, len(panels), figsize=(9, height), sharey=True, layout="constrained", squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        _draw(axis, panel, groups, labels)
    marks = {label: mark for axis in axes[0] for mark, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if marks:
        figure.legend([marks[label] for label in labels], labels, loc="outside lower left", frameon=False, fontsize=9)
    figure.suptitle(title)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)


def _draw(axis: Axes, panel: Panel, groups: Sequence[str], labels: Sequence[str]) -> None:
    step = 1 / (len(labels) + 1)
    for number, label in enumerate(labels):
        figures = panel.figures.get(label, {})
        known = [(place, figures[group]) for place, group in enumerate(groups) if group in figures]
        if not known:
            continue
        axis.errorbar(
            [estimate.value for _, estimate in known],
            [place + (number + 1) * step - 0.5 for place, _ in known],
            xerr=[
                [estimate.value - estimate.low for _, estimate in known],
                [estimate.high - estimate.value for _, estimate in known],
            ],
            fmt=MARKERS[number // len(COLORS) % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=4,
            linewidth=1.2,
            label=label,
        )
    for place in range(1, len(groups)):
        axis.axhline(place - 0.5, color="0.85", linewidth=0.8)
    axis.axvline(0, color="0.35", linewidth=0.8, linestyle="--")
    axis.set(xlabel=panel.title, yticks=range(len(groups)), yticklabels=groups, ylim=(len(groups) - 0.5, -0.5))
    axis.spines[["top", "right"]].set_visible(False)
