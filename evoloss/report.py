"""The CSV files of a run, from its archive alone; each is replaced whole, so that a reader never sees half of one."""

import csv
import itertools
import math
import statistics
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from evoloss.archive import Archive
from evoloss.baselines import family
from evoloss.config import RunConfig
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.evidence import Judgement, judge
from evoloss.expression import Expression
from evoloss.files import replace_file, write_csv
from evoloss.niches import cleared
from evoloss.playoff import SEARCHED
from evoloss.ranking import pareto_front, ranked
from evoloss.records import Candidate, Generation, Standing

# From `test_acc` to `verdict`, and of unseen regimes: empty until the playoff has been held.
UNSEEN = ("optimizer", "proxy", "data")
COLUMNS = (
    *("rank", "name", "expression", "latex", "family", "complexity", "scale", "fitness", "fitness_sd", "n_seeds"),
    *("select_acc", "test_acc", "test_acc_sd", "test_n", "delta_ce", "delta_ce_low", "delta_ce_high", "p_holm"),
    *("verdict", "lr", "generation", "parents", "status", "seconds", "key"),
    *(f"{regime}_{column}" for regime in UNSEEN for column in ("delta_ce", "delta_ce_low", "delta_ce_high", "verdict")),
    "token",
)
COMPARED = (
    *("regime", "rank", "name", "expression", "family", "scale", "select_acc", "test_acc", "test_acc_sd", "test_n"),
    *("delta_ce", "delta_ce_low", "delta_ce_high", "p", "p_holm", "verdict", "lr", "lr_at_edge", "detail", "key"),
)
CROWD = 10  # times as many losses of one seed are read as there are rows to fill: most share a niche with a better one
TEXTS = {"name", "expression", "best_expression", "latex", "family", "verdict", "parents", "status", "key", "token"}
SCORED = ("regime", "loss", "seed", "select_acc", "test_acc")

Row = dict[str, Any]  # by the names of COLUMNS
Tokens = Callable[[Candidate], str]  # gives a candidate its replay token, or nothing


def write_tables(directory: Path, archive: Archive, config: RunConfig, token: Tokens = lambda _: "") -> None:
    """Rewrite `hall_of_fame.csv`, `baselines.csv` and `generations.csv`."""
    best, baselines = hall_of_fame(archive, config, token)
    write_csv(directory / "hall_of_fame.csv", COLUMNS, best)
    write_csv(directory / "baselines.csv", COLUMNS, baselines)
    names = [item.name for item in fields(Generation)]
    write_csv(directory / "generations.csv", names, [_cells(asdict(row)) for row in archive.generations()])


def hall_of_fame(archive: Archive, config: RunConfig, token: Tokens = lambda _: "") -> tuple[list[Row], list[Row]]:
    """The rows of the hall of fame, and those of the hand-written losses.

    The hall of fame has the best `config.top` losses, each the best of its niche, and below them those that took part
    in the playoff. While a search goes on it may have fewer: of all losses not all are read. Of a search in
    several regimes `fitness` is the mean gain over cross-entropy, what the playoff measured are means as well, and
    `select_acc`, `scale` and `lr` are those of the first.
    """
    judged = _judged_by_key(archive)
    # A finalist may have any place.
    candidates = archive.candidates() if judged else archive.leaders(CROWD * config.top)
    order = ranked(candidates)
    finalists = judged.get(SEARCHED, {})
    winners = _winners(order, config, finalists)
    best = list(itertools.islice(winners, config.top))
    if finalists:
        best += [(place, c) for place, c in winners if c.key in finalists and not c.name]
    baselines = [c for c in order if c.name] + [c for c in candidates if c.name and c.fitness is None]
    return (
        [_row(place, candidate, judged, token) for place, candidate in best],
        [_row(place, candidate, judged, token) for place, candidate in enumerate(baselines, 1)],
    )


def write_pareto_front(directory: Path, archive: Archive, config: RunConfig, token: Tokens = lambda _: "") -> None:
    """Rewrite `pareto.csv`: the losses that no formula as small equals, the smallest first."""
    write_csv(directory / "pareto.csv", COLUMNS, front(archive, config, token))


def front(archive: Archive, config: RunConfig, token: Tokens = lambda _: "") -> list[Row]:
    """The rows of the Pareto front of accuracy and complexity, the smallest first.

    Their ranks are those of the hall of fame, however long that were; who is in the niche of a better one has none.
    """
    order = ranked(archive.candidates())
    judged = _judged_by_key(archive)
    ranks = {candidate.key: place for place, candidate in _winners(order, config, judged.get(SEARCHED, {}))}
    return [_row(ranks.get(candidate.key), candidate, judged, token) for candidate in pareto_front(order)]


def _winners(order: list[Candidate], config: RunConfig, finalists: Container[str]) -> Iterator[tuple[int, Candidate]]:
    """The losses of the hall of fame with their ranks; finalists of the playoff (keys) have one in any case."""
    return enumerate(cleared(order, config.space.evolution.niche, lambda c: c.name or c.key in finalists), 1)


def _judged_by_key(archive: Archive) -> dict[str, dict[str, Judgement]]:
    return {regime: {j.standing.key: j for j in rows} for regime, rows in judgements(archive).items()}


def judgements(archive: Archive) -> dict[str, list[Judgement]]:
    """What the playoff of a run says, by regime; empty before it was held."""
    return {regime: judge(standings, REFERENCE.key) for regime, standings in archive.standings().items()}


def _row(
    rank: int | None, candidate: Candidate, judged: dict[str, dict[str, Judgement]], token: Tokens
) -> dict[str, Any]:
    scores = list(candidate.scores.values())
    found = {regime: rows[candidate.key] for regime, rows in judged.items() if candidate.key in rows}
    return _cells(
        dict.fromkeys(COLUMNS)
        | {
            "rank": rank,
            "name": candidate.name,
            "expression": candidate.expression,
            "latex": Expression(candidate.expression).latex,
            "family": candidate.family,
            "complexity": candidate.complexity,
            "scale": candidate.scale,
            "fitness": candidate.fitness,
            "fitness_sd": statistics.stdev(scores) if len(scores) > 1 else None,
            "n_seeds": len(scores),
            "select_acc": statistics.fmean(candidate.select.values()) if candidate.select else None,
            "lr": candidate.rates[0] if candidate.rates else None,
            "generation": candidate.generation,
            "parents": " ".join(candidate.parents),
            "status": candidate.status,
            "seconds": round(candidate.seconds, 2),
            "key": candidate.key,
            "token": token(candidate),
        }
        | (_judged(found[SEARCHED]) if SEARCHED in found else {})
        | {
            f"{regime}_{column}": value
            for regime in UNSEEN
            if regime in found
            for column, value in _judged(found[regime]).items()
            if f"{regime}_{column}" in COLUMNS
        }
    )


def _judged(judgement: Judgement) -> dict[str, Any]:
    """The columns of a contest; `lr` is the rate that it chose."""
    standing, gap = judgement.standing, judgement.gap
    return {
        "test_acc": statistics.fmean(standing.test) if standing.test else None,
        "test_acc_sd": statistics.stdev(standing.test) if len(standing.test) > 1 else None,
        "test_n": len(standing.test),
        "delta_ce": gap.mean if gap else None,
        "delta_ce_low": gap.low if gap else None,
        "delta_ce_high": gap.high if gap else None,
        "p_holm": judgement.p_holm,
        "verdict": judgement.verdict,
        "lr": standing.rate,
    }


def write_comparison(directory: Path, judged: dict[str, list[Judgement]]) -> None:
    """Write `comparison.csv` (a row a regime and loss), `scores.csv` (a row a training) and `comparison.tex`."""
    rows = [compared(place, j) for group in judged.values() for place, j in enumerate(group, 1)]
    write_csv(directory / "comparison.csv", COMPARED, rows)
    scores = [_scores(j.standing) for group in judged.values() for j in group]
    write_csv(directory / "scores.csv", SCORED, [row for group in scores for row in group])
    replace_file(directory / "comparison.tex", "\n".join(latex_table(name, group) for name, group in judged.items()))


def compared(rank: int, judgement: Judgement) -> dict[str, Any]:
    """A row of a comparison, by the names of `COMPARED`; unrounded numbers have six digits."""
    standing = judgement.standing
    return _cells(
        {
            "regime": standing.regime,
            "rank": rank,
            "name": standing.name,
            "expression": standing.expression,
            "family": family(Expression(standing.expression).variables),
            "scale": standing.scale,
            "select_acc": statistics.fmean(standing.select) if standing.select else None,
            "p": judgement.gap.p if judgement.gap else None,
            "lr_at_edge": standing.at_edge,
            "detail": standing.detail,
            "key": standing.key,
        }
        | _judged(judgement)
    )


def _scores(standing: Standing) -> list[dict[str, Any]]:
    label = standing.name or standing.expression
    pairs = enumerate(zip(standing.select, standing.test, strict=True))
    return [
        {"regime": standing.regime, "loss": label, "seed": seed, "select_acc": select, "test_acc": test}
        for seed, (select, test) in pairs
    ]


def latex_table(regime: str, judged: list[Judgement]) -> str:
    """One regime as a `tabular` for the booktabs package; accuracies and differences in percent."""
    head = r"loss & accuracy & $n$ & difference to CE & $p_\mathrm{Holm}$ & rate & verdict \\"
    lines = [_latex_row(j) for j in judged]
    table = [rf"% {regime}", r"\begin{tabular}{lrrrrrl}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule"]
    return "\n".join([*table, r"\end{tabular}", ""])


def _latex_row(judgement: Judgement) -> str:
    standing, gap = judgement.standing, judgement.gap
    name = standing.name or f"${Expression(standing.expression).latex}$"
    accuracy = difference = p = "--"
    if standing.test:
        deviation = rf" \pm {100 * statistics.stdev(standing.test):.2f}" if len(standing.test) > 1 else ""
        accuracy = f"${100 * statistics.fmean(standing.test):.2f}{deviation}$"
    if gap is not None:
        difference = f"${100 * gap.mean:+.2f}$ $[{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]$"
    if judgement.p_holm is not None:
        p = f"${judgement.p_holm:.2g}$"
    rate = "--" if standing.rate is None else f"{standing.rate:g}"
    return f"{name} & {accuracy} & {len(standing.test)} & {difference} & {p} & {rate} & {judgement.verdict} \\\\"


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """Six significant digits are more than any accuracy has, and all that a scale or a small p needs."""
    return {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in row.items()}


def read_table(path: Path, columns: Iterable[str] = ()) -> list[dict[str, str]]:
    """The rows of one of these files. Raises `EvolossError` where one is cut short, or one of these columns lacks."""
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, strict=True)
            names = reader.fieldnames or ()
            rows = [{name: value and value.strip() for name, value in row.items() if name} for row in reader]
    except OSError as error:
        raise EvolossError(f"cannot read {path}: {error.strerror or error}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise EvolossError(f"{path} is no table: {error}") from None
    if lacking := [name for name in columns if name not in names]:
        raise EvolossError(f"{path} has no column `{lacking[0]}`: expected a table that evoloss wrote")
    for place, row in enumerate(rows, 1):
        if None in row.values():
            raise EvolossError(f"{path} is cut short: row {place} of {len(rows)} lacks its last columns")
    return rows


def read_rows(path: Path) -> list[Row]:
    """The rows of `hall_of_fame.csv`, `baselines.csv` or `pareto.csv`; a column that an older version lacks is None.

    Raises `EvolossError`.
    """
    return [{name: _parsed(path, name, row.get(name)) for name in COLUMNS} for row in read_table(path)]


def read_generations(path: Path) -> list[Generation]:
    """The rows of `generations.csv`. Raises `EvolossError`."""
    names = [item.name for item in fields(Generation)]
    return [Generation(**{name: _parsed(path, name, row.get(name)) for name in names}) for row in read_table(path)]


def _parsed(path: Path, name: str, text: str | None) -> Any:
    if name in TEXTS or name.endswith("_verdict"):
        return text or ""
    try:
        value = None if not text else int(text) if text.isdigit() else float(text)
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        raise EvolossError(f"{path}: expected a number under `{name}`, got `{text}`")
    return value


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a CSV file by these rows; their keys are its columns."""
    write_csv(path, list(rows[0]), [_cells(row) for row in rows])
