"""The best losses of a population with refined constants, as newcomers."""

from collections.abc import Sequence

from evoloss.climb import Climb
from evoloss.constants import refine
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.newcomers import Member, Newcomers, new_candidate
from evoloss.records import Candidate

RUNG = 1  # that scores the tries, counted from 0; the first is too short to tell neighbors apart


def refined(
    number: int, leaders: Sequence[Candidate], newcomers: Newcomers, climb: Climb, reference: Candidate
) -> list[Member]:
    """What CMA-ES makes of the constants of the leaders, where generation `number` is to refine them: new losses.

    Every formula that was tried counts as evaluated, so that random search gets as many newcomers. A leader that was
    refined before costs nothing: its tries are in the archive.
    """
    settings = newcomers.config.space.evolution.refinement
    if settings is None or number % settings.every:
        return []

    def score(formulas: list[Expression]) -> list[float | None]:
        newcomers.census.tally["evaluated"] += len(formulas)
        tried = newcomers.tried([new_candidate(formula, number) for formula in formulas])
        climb.glance([candidate for candidate in tried if candidate.scale is not None], reference, RUNG)
        return [candidate.fitness for candidate in tried]

    best = [candidate for candidate in leaders if candidate.rung == climb.height - 1][: settings.top]
    starts = [Expression(candidate.expression) for candidate in best]
    found = refine(starts, score, settings, newcomers.config.seed)
    members = [_member(number, start, after, newcomers) for start, after in zip(starts, found, strict=True) if after]
    return newcomers.screened([member for member in members if member and newcomers.is_new(member)], number)


def _member(number: int, start: Expression, after: Expression, newcomers: Newcomers) -> Member | None:
    try:
        tree = newcomers.grammar.individual(after)
    except EvolossError:  # the formula of a baseline need not fit the grammar
        return None
    return Member(new_candidate(after, number, (start.key,)), tree)
