"""The figures of a run's page, as plain data for plotly.js. Colors are names of CSS variables, for light and dark.

Formulas may come from strangers: plotly reads markup in texts, so every text from outside goes through `shown`.
"""

import html
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from evoloss.expression import Expression
from evoloss.page import curves, lineage
from evoloss.page.facts import Facts
from evoloss.page.fates import fates
from evoloss.playoff import SEARCHED
from evoloss.ranking import Ranking
from evoloss.records import Candidate
from evoloss.report import UNSEEN, Row
from evoloss.syntax import ExpressionError

Figure: TypeAlias = dict[str, Any]

BEST, CE, NGL, OTHER, GOOD, BAD, EVEN = (
    f"--color-{name}" for name in ("best", "ce", "ngl", "other", "good", "bad", "even")
)
TONES = {"better": GOOD, "worse": BAD}
PROBABILITIES = [0.002, 0.005, *(place / 100 for place in range(1, 100)), 0.995, 0.998]
DISTANCES = [place / 10 for place in range(1, 201)]
HOVER_WIDTH = 44  # characters: a hover has to fit on a phone
AXIS_WIDTH = 24  # and beside an axis there is less room


def shown(text: str, width: int = HOVER_WIDTH) -> str:
    """A text as plotly shows it literally, folded."""
    return "<br>".join(html.escape(part, quote=False) for part in textwrap.wrap(text, width) or [""])


def name_of(row: Row) -> str:
    """A loss in a few characters: its name, or its rank in the hall of fame if it has one."""
    return str(row["name"] or ("" if row["rank"] is None else f"#{row['rank']}"))


def measure(facts: Facts) -> str:
    """What a fitness is."""
    return "mean gain over cross-entropy" if facts.config.gains else "select accuracy"


def pareto(facts: Facts) -> Figure | None:
    """Accuracy against complexity: the front, the losses of the last rung, the hand-written ones."""
    if not facts.hall:
        return None
    known = {row["key"] for row in [*facts.front, *facts.baselines]}
    cloud = _cloud(facts.candidates, known) or [_dot(row) for row in facts.hall if row["key"] not in known]
    traces = [
        _dots("evolved, last rung", cloud, OTHER, 6, opacity=0.55),
        _dots("hand-written", [_dot(row) for row in facts.baselines], CE, 10, symbol="diamond"),
    ]
    if facts.front:
        dots = [_dot(row) for row in facts.front]
        traces.append(
            _dots("Pareto front", dots, BEST, 10) | {"mode": "lines+markers", "line": _line(BEST, shape="hv")}
        )
    known_losses = [row for row in facts.baselines if row["name"] in ("ce", "ngl")]
    best = [row for row in facts.hall if row["rank"] <= facts.config.top]
    scores = [row["fitness"] for row in [*facts.front, *best, *known_losses] if row["fitness"] is not None]
    y = {"range": _around(min(scores), max(scores))} if scores else {}
    return _figure(traces, "complexity (cost of all nodes)", measure(facts), y=y)


def _cloud(candidates: Sequence[Candidate], known: set[str]) -> list[tuple[float, float | None, str]]:
    living = [c for c in candidates if c.fitness is not None]
    last = max((c.rung for c in living), default=0)
    ranking = Ranking(living)
    best = sorted((c for c in living if c.rung == last and c.key not in known), key=ranking.place)
    return [(c.complexity, c.fitness or 0.0, _hover(c.expression, c.fitness, len(c.scores))) for c in best]


def _dot(row: Row) -> tuple[float, float | None, str]:
    name = f"{row['name']}: " if row["name"] else ""
    return row["complexity"], row["fitness"], _hover(name + row["expression"], row["fitness"], row["n_seeds"])


def _hover(formula: str, fitness: float | None, seeds: int = 0) -> str:
    count = f" on {seeds} seed{'s' * (seeds != 1)}" if seeds else ""
    return f"{shown(formula)}<br><b>{'no score' if fitness is None else f'{fitness:.4f}{count}'}</b>"


def generations(facts: Facts) -> Figure | None:
    """Best and mean fitness over the generations; the hand-written losses as lines across."""
    rows = facts.generations
    if not rows:
        return None
    x = [row.generation for row in rows]
    best = _curve_of("best", x, [row.best_fitness for row in rows], BEST, width=3)
    best |= {"hovertext": [_hover(row.best_expression, row.best_fitness) for row in rows], "hoverinfo": "text"}
    traces = [best, _curve_of("mean of the population", x, [row.mean_fitness for row in rows], OTHER)]
    traces += [_curve_of("cross-entropy", x, [row.ce_fitness for row in rows], CE)]
    traces += [_curve_of("NGL", x, [row.ngl_fitness for row in rows], NGL)]
    others = [row for row in facts.baselines if row["name"] not in ("ce", "ngl") and row["fitness"] is not None]
    dashes = ("dot", "dash", "dashdot", "longdash", "longdashdot")
    for place, row in enumerate(others):
        line = _curve_of(shown(row["name"]), [x[0], x[-1]], [row["fitness"]] * 2, EVEN)
        traces.append(line | {"line": _line(EVEN, dash=dashes[place % len(dashes)])})
    seen = [value for row in rows for value in (row.best_fitness, row.ce_fitness, row.ngl_fitness) if value is not None]
    y = {"range": _around(min(seen), max(seen))} if seen else {}
    return _figure(traces, "generation", measure(facts), x=_whole(len(rows)), y=y)


def loss_curve(facts: Facts) -> Figure | None:
    """The loss against the true class's probability, beside cross-entropy and NGL."""
    return _over_probability(facts, "loss", "loss at the matched scale")


def gradient_curve(facts: Facts) -> Figure | None:
    """Its gradient by the true class's logit."""
    return _over_probability(facts, "gradient", "gradient by the true class's logit")


def _over_probability(facts: Facts, part: str, title: str) -> Figure | None:
    traces = [
        _curve_of(name, curve.x, getattr(curve, part), color, width=3 if color == BEST else 2, dash=dash)
        for name, row, color, dash in _compared(facts)
        if (expression := _expression(row)) and expression.sees_logits
        if (curve := curves.over_probability(expression, row["scale"] or 1.0, _classes(facts), PROBABILITIES))
    ]
    return _figure(traces, "probability of the true class", title, x={"range": [0, 1]}) if traces else None


def distance_curve(facts: Facts) -> Figure | None:
    """The loss against a distance, where the best loss sees any."""
    row = facts.winner
    expression = _expression(row) if row else None
    if row is None or expression is None or not expression.sees_embeddings:
        return None
    whose = (("to its own class", True, BEST), ("to another class", False, OTHER))
    found = [
        (name, curves.over_distance(expression, row["scale"] or 1.0, _classes(facts), DISTANCES, own), color)
        for name, own, color in whose
    ]
    traces = [_curve_of(name, curve.x, curve.loss, color, width=3) for name, curve, color in found]
    return _figure(traces, "distance", "loss at the matched scale")


def _compared(facts: Facts) -> list[tuple[str, Row, str, str]]:
    rows = [("cross-entropy", facts.named("ce"), CE, "dash"), ("NGL", facts.named("ngl"), NGL, "dot")]
    best = [("best loss", facts.winner, BEST, "solid")]
    return [(name, row, color, dash) for name, row, color, dash in [*best, *rows] if row is not None]


def _expression(row: Row) -> Expression | None:
    try:
        expression = Expression(row["expression"])
        return expression if expression.node else None
    except ExpressionError:  # a table that someone has edited
        return None


def _classes(facts: Facts) -> int:
    from evoloss.data import DATASETS

    known = DATASETS.get(facts.config.dataset)
    return known.num_classes if known else 10


def family_tree(facts: Facts) -> Figure | None:
    """The best loss's ancestors by generation, back to the losses that it began with."""
    winner = facts.winner
    tree = lineage.ancestors(facts.candidates, winner["key"]) if winner else {}
    if winner is None or len(tree) < 2:
        return None
    lanes = lineage.lanes(tree, winner["key"])
    x: list[int | None] = []
    y: list[int | None] = []
    for child in tree.values():
        for parent in child.parents:
            if parent in tree:
                x += [tree[parent].generation, child.generation, None]
                y += [lanes[parent], lanes[child.key], None]
    edges = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": _line(EVEN, width=1), "hoverinfo": "skip"}
    bred = [c for c in tree.values() if not c.name and c.key != winner["key"]]
    groups = [("seed", [c for c in tree.values() if c.name], CE, "diamond"), ("ancestor", bred, OTHER, "circle")]
    groups.append(("best loss", [tree[winner["key"]]], BEST, "star"))
    traces = [edges | {"showlegend": False}] + [
        _dots(name, [_ancestor(c, lanes) for c in members], color, 12, symbol=symbol)
        | {"mode": "markers+text", "text": [shown(c.name) for c in members], "textposition": "top right"}
        for name, members, color, symbol in groups
        if members
    ]
    return _figure(traces, "generation", "", x=_whole(tree[winner["key"]].generation), y={"visible": False})


def _ancestor(candidate: Candidate, lanes: dict[str, int]) -> tuple[float, float, str]:
    text = _hover(candidate.expression, candidate.fitness, len(candidate.scores))
    return candidate.generation, lanes[candidate.key], f"generation {candidate.generation}<br>{text}"


def ends(facts: Facts) -> Figure | None:
    """Where candidates ended and of what."""
    if not facts.candidates:
        return None
    found = fates(facts.candidates, facts.generations)[::-1]
    colors = [BEST if fate.alive else EVEN if fate.stage == "duplicates" else BAD for fate in found]
    names = [shown(f"{fate.stage}: {fate.cause}", AXIS_WIDTH) for fate in found]
    bar = {"type": "bar", "orientation": "h", "x": [fate.count for fate in found], "y": names, "showlegend": False}
    bar |= {"text": [f"{fate.count:,}" for fate in found], "textposition": "auto", "marker": {"color": colors}}
    return _figure([bar | {"hoverinfo": "x"}], "formulas", "", height=60 + 34 * len(found))


def work(facts: Facts) -> Figure | None:
    """What each generation did with its formulas: trained, known already, duplicates, rejected."""
    rows = facts.generations
    if not rows:
        return None
    parts = (("trained", "evaluated", BEST), ("known already", "cached", EVEN), ("duplicates", "duplicates", NGL))
    traces = [
        {"type": "bar", "name": name, "x": [row.generation for row in rows], "y": [getattr(row, part) for row in rows]}
        | {"marker": {"color": color}}
        for name, part, color in (*parts, ("rejected", "rejected", BAD))
    ]
    figure = _figure(traces, "generation", "formulas", x=_whole(len(rows)))
    figure["layout"]["barmode"] = "stack"
    return figure


def forest(facts: Facts) -> Figure | None:
    """The playoff: each loss minus cross-entropy on fresh seeds."""
    rows = [row for row in facts.finalists if row["delta_ce"] is not None]
    return _forest([(shown(name_of(row)), row, "") for row in rows]) if rows else None


def regimes(facts: Facts) -> Figure | None:
    """The best evolved losses in the conditions of the search and in those that it did not see."""
    rows = [row for row in facts.finalists if not row["name"]]
    places = [
        (f"{shown(name_of(row))}, {'as searched' if regime == SEARCHED else f'other {regime}'}", row, prefix)
        for row in rows
        if any(row[f"{name}_delta_ce"] is not None for name in UNSEEN)
        for regime, prefix in ((SEARCHED, ""), *((name, f"{name}_") for name in UNSEEN))
        if row[f"{prefix}delta_ce"] is not None
    ]
    return _forest(places) if places else None


def _forest(places: Sequence[tuple[str, Row, str]]) -> Figure:
    """Differences with their 95 % intervals, one a line, the first at the top."""
    traces = []
    for words, color in (("better", GOOD), ("worse", BAD), ("not distinguishable", EVEN)):
        chosen = [
            (name, row, prefix) for name, row, prefix in places if TONES.get(row[f"{prefix}verdict"], EVEN) == color
        ]
        gaps = [tuple(row[f"{prefix}delta_ce{end}"] for end in ("", "_low", "_high")) for _, row, prefix in chosen]
        hover = [
            f"{shown(row['expression'])}<br><b>{mean:+.4f} [{low:+.4f}, {high:+.4f}]: {words}</b>"
            for (_, row, _), (mean, low, high) in zip(chosen, gaps, strict=True)
        ]
        dots = [(mean, name, text) for (name, _, _), (mean, _, _), text in zip(chosen, gaps, hover, strict=True)]
        error = {"type": "data", "symmetric": False, "array": [high - mean for mean, _, high in gaps], "color": color}
        error |= {"arrayminus": [mean - low for mean, low, _ in gaps], "thickness": 2, "width": 5}
        if chosen:
            traces.append(_dots(words, dots, color, 10, symbol="square") | {"error_x": error})
    order = [name for name, _, _ in places][::-1]
    y = {"categoryorder": "array", "categoryarray": order, "type": "category"}
    ends = [(row[f"{prefix}delta_ce_low"], row[f"{prefix}delta_ce_high"]) for _, row, prefix in places]
    high = max(0.002, *(high for _, high in ends))
    low = max(min(low for low, _ in ends), -3 * high)  # the far worse ones would press the others together
    line = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": _line(CE, dash="dash")}
    x = {"range": [low - 0.1 * (high - low), high + 0.1 * (high - low)]}
    figure = _figure(traces, "minus cross-entropy", "", x=x, y=y, height=130 + 30 * len(order))
    figure["layout"]["shapes"] = [line]
    return figure


# Parts of a figure


def _figure(
    traces: Iterable[Figure],
    x_title: str,
    y_title: str,
    x: Figure | None = None,
    y: Figure | None = None,
    height: int = 380,
) -> Figure:
    layout = {"xaxis": {"title": {"text": x_title}, **(x or {})}, "yaxis": {"title": {"text": y_title}, **(y or {})}}
    return {"data": list(traces), "layout": layout | {"height": height}}


def _line(color: str, **changes: Any) -> Figure:
    return {"color": color, "width": 2} | changes


def _curve_of(name: str, x: Sequence[float], y: Sequence[float | None], color: str, **line: Any) -> Figure:
    drawn = {"type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": list(y)}
    return drawn | {"line": _line(color, **line)}


def _dots(
    name: str, dots: Sequence[tuple[Any, Any, str]], color: str, size: int, symbol: str = "circle", opacity: float = 1.0
) -> Figure:
    x, y, text = ([dot[place] for dot in dots] for place in range(3))
    marker = {"color": color, "size": size, "symbol": symbol, "opacity": opacity}
    drawn = {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}
    return drawn | {"hovertext": text, "hoverinfo": "text"}


def _whole(count: int) -> Figure:
    """Ticks at whole generations, some eight of them."""
    return {"dtick": max(1, round(count / 8))}


def _around(low: float, high: float) -> list[float]:
    """A range with air; what lies below it is a double click away."""
    air = 0.1 * (high - low) or 0.01
    return [low - 3 * air, high + air]


FIGURES: dict[str, Callable[[Facts], Figure | None]] = {
    "pareto": pareto,
    "generations": generations,
    "loss": loss_curve,
    "gradient": gradient_curve,
    "distance": distance_curve,
    "tree": family_tree,
    "ends": ends,
    "work": work,
    "forest": forest,
    "regimes": regimes,
}
