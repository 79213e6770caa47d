"""The tables of a run's page, as plain data: what a cell shows, and what it sorts by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evoloss.page import lineage
from evoloss.page.facts import Facts
from evoloss.page.fates import fates
from evoloss.page.figures import name_of
from evoloss.records import Candidate, Cost
from evoloss.report import UNSEEN, Row
from evoloss.view import duration


@dataclass(frozen=True)
class Cell:
    """What a table shows, and what it sorts by (None: always last). `formula` has a formula to typeset instead."""

    text: str = ""
    sort: float | str | None = None
    formula: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows; `numeric` are the columns to align right."""

    columns: list[str]
    rows: list[list[Cell]]
    numeric: list[bool]
    caption: str = ""


@dataclass(frozen=True)
class Column:
    """A column over rows of the hall of fame."""

    title: str
    cell: Callable[[Row], Cell]
    numeric: bool = True


def _standing(facts: Facts) -> Table | None:
    """The best loss beside cross-entropy and NGL."""
    chosen = [("best loss", facts.winner), ("cross-entropy", facts.named("ce")), ("NGL", facts.named("ngl"))]
    rows = [(name, row) for name, row in chosen if row is not None]
    return _table(_STANDING, [row for _, row in rows], lead=("", [Cell(name, name) for name, _ in rows]))


def _hall_of_fame(facts: Facts) -> Table | None:
    return _table(_HALL, facts.hall)


def _baselines(facts: Facts) -> Table | None:
    return _table(_HALL, facts.baselines)


def _front(facts: Facts) -> Table | None:
    return _table(_FRONT, facts.front)


def _playoff(facts: Facts) -> Table | None:
    return _table(_PLAYOFF, facts.finalists)


def _regimes(facts: Facts) -> Table | None:
    rows = [row for row in facts.finalists if any(row[f"{name}_verdict"] for name in UNSEEN)]
    shown = [name for name in UNSEEN if any(row[f"{name}_verdict"] for row in rows)]
    places = [("", "as searched"), *((f"{name}_", f"other {name}") for name in shown)]
    pairs = [(_gap(prefix, title), _text("verdict", f"{prefix}verdict")) for prefix, title in places]
    columns = [_LOSS[0], *(column for pair in pairs for column in pair), _LOSS[1]]
    return _table(columns, [row for row in rows if row["verdict"] != "reference"])


def _generations(facts: Facts) -> Table | None:
    titles = (
        "generation",
        "trained",
        "known already",
        "duplicates",
        "rejected",
        "diverged",
        "best",
        "seconds",
        "best loss",
    )
    rows = [
        [
            *(Cell(str(number), number) for number in (row.generation, row.evaluated, row.cached, row.duplicates)),
            *(Cell(str(number), number) for number in (row.rejected, row.diverged)),
            Cell(_four(row.best_fitness), row.best_fitness),
            Cell(f"{row.seconds:.0f}", row.seconds),
            Cell(row.best_expression, row.best_expression),
        ]
        for row in facts.generations
    ]
    return Table(list(titles), rows, [True] * 8 + [False])


def _ancestors(facts: Facts) -> Table | None:
    tree = lineage.ancestors(facts.candidates, facts.winner["key"]) if facts.winner else {}
    rows = [_ancestor(candidate, tree) for candidate in tree.values()]
    return (
        Table(["generation", "name", "loss", "score", "parents"], rows, [True, False, False, True, False])
        if rows
        else None
    )


def _ancestor(candidate: Candidate, tree: dict[str, Candidate]) -> list[Cell]:
    parents = " and ".join(tree[key].name or tree[key].expression for key in candidate.parents if key in tree)
    return [
        Cell(str(candidate.generation), candidate.generation),
        Cell(candidate.name, candidate.name),
        Cell(formula=candidate.expression, sort=candidate.complexity),
        Cell(_four(candidate.fitness), candidate.fitness),
        Cell(parents, parents),
    ]


def _ends(facts: Facts) -> Table | None:
    found = fates(facts.candidates, facts.generations) if facts.candidates else []
    rows = [
        [Cell(fate.stage, fate.stage), Cell(fate.cause, fate.cause), Cell(f"{fate.count:,}", fate.count)]
        for fate in found
    ]
    return Table(["stage", "of what", "formulas"], rows, [False, False, True]) if rows else None


def _costs(facts: Facts) -> Table | None:
    rows = [_cost(cost) for cost in facts.costs]
    seconds = sum(row.seconds for row in facts.generations)
    count = len(facts.generations)
    rows.append(
        [Cell("generations, by the clock"), Cell(f"{count:,}", count), Cell(duration(seconds), seconds), Cell()]
    )
    return Table(["what", "how many", "time", "each"], rows, [False, True, True, True])


def _cost(cost: Cost) -> list[Cell]:
    each = cost.seconds / max(cost.count, 1)
    what = _WORK[cost.task, cost.test]
    return [
        Cell(what, what),
        Cell(f"{cost.count:,}", cost.count),
        Cell(duration(cost.seconds), cost.seconds),
        Cell(f"{1000 * each:,.0f} ms", each),
    ]


def _table(columns: Sequence[Column], rows: Sequence[Row], lead: tuple[str, list[Cell]] | None = None) -> Table | None:
    if not rows:
        return None
    cells = [[column.cell(row) for column in columns] for row in rows]
    titles, numeric = [column.title for column in columns], [column.numeric for column in columns]
    if lead:
        return Table(
            [lead[0], *titles], [[first, *rest] for first, rest in zip(lead[1], cells, strict=True)], [False, *numeric]
        )
    return Table(titles, cells, numeric)


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _number(title: str, name: str, form: str = "{:.4f}") -> Column:
    return Column(title, lambda row: Cell("" if row[name] is None else form.format(row[name]), row[name]))


def _text(title: str, name: str) -> Column:
    return Column(title, lambda row: Cell(str(row[name] or ""), str(row[name] or "") or None), numeric=False)


def _gap(prefix: str, title: str) -> Column:
    """A difference to cross-entropy with its interval."""

    def cell(row: Row) -> Cell:
        mean, low, high = (row[f"{prefix}delta_ce{end}"] for end in ("", "_low", "_high"))
        return Cell() if mean is None else Cell(f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]", mean)

    return Column(title, cell)


def _tested() -> Column:
    def cell(row: Row) -> Cell:
        if row["test_acc"] is None:
            return Cell()
        deviation = "" if row["test_acc_sd"] is None else f" ± {row['test_acc_sd']:.4f}"
        return Cell(f"{row['test_acc']:.4f}{deviation}", row["test_acc"])

    return Column("test accuracy", cell)


_LOSS = (
    Column("loss", lambda row: Cell(name_of(row), row["rank"] if not row["name"] else 1e6), numeric=False),
    Column("formula", lambda row: Cell(formula=row["expression"], sort=row["complexity"]), numeric=False),
)
_RESULT = (
    _tested(),
    _gap("", "minus cross-entropy"),
    _number("p (Holm)", "p_holm", "{:.2g}"),
    _text("verdict", "verdict"),
)
_STANDING = (*_RESULT, _number("fitness", "fitness"), _LOSS[1])
_HALL = (
    _number("rank", "rank", "{}"),
    _text("name", "name"),
    _LOSS[1],
    _number("fitness", "fitness"),
    _number("seeds", "n_seeds", "{}"),
    *_RESULT,
    _text("family", "family"),
    _number("complexity", "complexity", "{}"),
    _number("rate", "lr", "{:g}"),
    _number("scale", "scale", "{:.3g}"),
    _number("generation", "generation", "{}"),
)
_FRONT = (
    _number("complexity", "complexity", "{}"),
    *_LOSS,
    _number("fitness", "fitness"),
    _number("seeds", "n_seeds", "{}"),
)
_PLAYOFF = (_LOSS[0], *_RESULT, _number("seeds", "test_n", "{}"), _number("rate", "lr", "{:g}"), _LOSS[1])
_WORK = {
    ("screen", False): "screens, without a training (core time)",
    ("train", False): "trainings: the search, and the sweeps of the playoff (core time)",
    ("train", True): "trainings of the playoff that opened the test split (core time)",
}

TABLES: dict[str, Callable[[Facts], Table | None]] = {
    "standing": _standing,
    "hall": _hall_of_fame,
    "baselines": _baselines,
    "front": _front,
    "playoff": _playoff,
    "regimes": _regimes,
    "generations": _generations,
    "ancestors": _ancestors,
    "ends": _ends,
    "costs": _costs,
}
