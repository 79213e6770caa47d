"""What `benchmarks.fidelity` found: the table, the CSV files, and the picture of rank correlation against cost."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from evoloss.baselines import family
from evoloss.files import write_csv
from evoloss.tables import print_table

if TYPE_CHECKING:
    from benchmarks.fidelity import Entry, Prediction, Results

COLORS = ("#0072B2", "#D55E00")  # told apart with any color vision: Okabe and Ito (2008)
NAMES = 0.35  # of a correlation: the room for the rungs' names below the intervals
NEAR = 1.08  # ratio of costs below which two names would overlap


def write(out: Path, losses: "Sequence[Entry]", results: "dict[str, Results]", lines: "Sequence[Prediction]") -> None:
    """Both CSV files and the picture."""
    write_scores(out, losses, results)
    correlations = [_flat(line) for line in lines]
    write_csv(out / "correlations.csv", correlations[0], correlations)
    draw(out / "fidelity.png", lines)


def write_scores(out: Path, losses: "Sequence[Entry]", results: "dict[str, Results]") -> None:
    """Every training, a row each."""
    scores = [
        {"loss": e.name, "family": family(e.expression.variables), "optimizer": b.optimizer, "samples": b.samples}
        | {
            "epochs": b.epochs,
            "pooled": b.pooled,
            "rate": b.learning_rate,
            "seed": seed,
            "select_acc": t.accuracy[seed, place],
        }
        | {"seconds": round(t.seconds[seed, place], 2), "expression": e.expression.text}
        for table in results.values()
        for b, t in table.items()
        for seed in range(len(t.accuracy))
        for place, e in enumerate(losses)
    ]
    write_csv(out / "scores.csv", scores[0], scores)


def _flat(line: "Prediction") -> dict[str, Any]:
    """A line of the CSV file: an estimate takes three columns."""
    rung, flat = line.reading.rung, {"optimizer": line.optimizer, "long": line.long}
    flat |= {
        "samples": rung.samples,
        "epochs": rung.epochs,
        "pooled": rung.pooled,
        "rates": " ".join(f"{rate:g}" for rate in rung.rates),
        "seeds": line.reading.seeds,
    }
    flat |= {"cost": f"{line.cost:.4g}"}
    for name in ("spearman", "kendall", "half"):
        flat |= {f"{name}_{part}".removesuffix("_value"): f"{v:.4f}" for part, v in vars(getattr(line, name)).items()}
    return flat | {"kept": f"{line.kept:.2f}"}


def show(lines: "Sequence[Prediction]") -> None:
    """The table."""
    columns = ("optimizer", "long", "rung", "cost", "Spearman", "Kendall", "of the better half", "top 5 kept")

    def cells(line: "Prediction") -> list[str]:
        figures = [f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in (line.spearman, line.kendall, line.half)]
        return [line.optimizer, line.long, line.reading.title, f"{line.cost:.1%}", *figures, f"{line.kept:.1f}"]

    print_table(columns, [cells(line) for line in lines])


def draw(path: Path, lines: "Sequence[Prediction]") -> None:
    """A panel for each optimizer of the rungs and each of the long training; 95 % intervals of a bootstrap."""
    pairs = list(dict.fromkeys((line.optimizer, line.long) for line in lines))
    columns = min(len(pairs), 2)
    rows = -(-len(pairs) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(6.6 * columns, 5 * rows), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, pair in zip(axes.flat, pairs, strict=True):
        _draw_panel(axis, [line for line in lines if (line.optimizer, line.long) == pair])
        axis.set_title(f"rungs under {pair[0]}, long training under {pair[1]}", fontsize=11)
    axes[0, 0].set_ylim(min(line.spearman.low for line in lines) - NAMES, 1.04)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2 * columns, frameon=False)
    figure.supxlabel("core-seconds of one loss, as a share of its long training")
    figure.supylabel("Spearman's correlation with the long training")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_panel(axis: Axes, lines: "Sequence[Prediction]") -> None:
    """A color for each number of seeds; round at one learning rate, square at the best of several."""
    curves: dict[tuple[int, bool], list[Prediction]] = {}
    for line in sorted(lines, key=lambda line: line.cost):
        curves.setdefault((line.reading.seeds, len(line.reading.rung.rates) > 1), []).append(line)
    colors = dict(zip(sorted({seeds for seeds, _ in curves}), COLORS, strict=False))
    for (seeds, sweep), curve in sorted(curves.items()):
        words = (f"mean of {seeds} seeds" if seeds > 1 else "1 seed") + (", best rate" if sweep else "")
        rho = [line.spearman for line in curve]
        spread = [[e.value - e.low for e in rho], [e.high - e.value for e in rho]]
        look = {"color": colors[seeds], "fmt": "s" if sweep else "o", "capsize": 2, "elinewidth": 1, "label": words}
        axis.errorbar([line.cost for line in curve], [e.value for e in rho], spread, **look)
        if seeds == 1:
            _name(axis, curve, colors[seeds])
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3)


def _name(axis: Axes, lines: "Sequence[Prediction]", color: str) -> None:
    """The rungs' names at the foot of the panel; those of nearly the same cost, in their order, in one text."""
    names: dict[float, list[str]] = {}
    for line in lines:
        rung = line.reading.rung
        words = f"{rung.samples:,} x {rung.epochs}" + (f", {len(rung.rates)} rates" if len(rung.rates) > 1 else "")
        place = next((cost for cost in names if cost <= line.cost < NEAR * cost), line.cost)
        if words not in names.setdefault(place, []):
            names[place].append(words)
    for cost, words in names.items():
        look = {"rotation": 90, "fontsize": 8, "ha": "center", "va": "bottom", "color": color}
        axis.text(cost, 0.02, "; ".join(words), transform=axis.get_xaxis_transform(), **look)
