"""Who may enter a generation: hand-written seeds, and as many new trees as the budget has room for."""

import logging
from dataclasses import dataclass

from evoloss.baselines import BASELINES, family
from evoloss.config import RunConfig
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import Candidate
from evoloss.tree import Grammar, Individual

log = logging.getLogger("evoloss")


@dataclass
class Member:
    """A candidate and its tree; baselines that the grammar cannot express have none and do not breed."""

    candidate: Candidate
    tree: Individual | None


def new_candidate(expression: Expression, generation: int, parents: tuple[str, ...] = (), name: str = "") -> Candidate:
    """The candidate of a formula, before anything is known of it."""
    kind = family(expression.variables)
    return Candidate(expression.key, expression.text, expression.complexity, kind, name, generation, parents)


def seeds(config: RunConfig, grammar: Grammar) -> list[Member]:
    """Cross-entropy, NGL, the other baselines that the space names, and the user's own."""
    names = dict.fromkeys(("ce", "ngl", *config.space.seeds))
    own = {f"seed-{number}": text for number, text in enumerate(config.seed_expressions, 1)}
    texts = {name: BASELINES[name].expression for name in names} | own
    return [_seed(grammar, name, Expression.parse(text)) for name, text in texts.items()]


def _seed(grammar: Grammar, name: str, expression: Expression) -> Member:
    tree = None
    try:
        tree = grammar.individual(expression)
    except EvolossError as error:
        level = logging.INFO if name in BASELINES else logging.WARNING
        log.log(level, "%s (%s) is scored but does not breed: %s", name, expression, error)
    return Member(new_candidate(expression, 0, name=name), tree)


def due(config: RunConfig, number: int) -> int:
    """How many new trees generation `number`, after the first, is to have.

    Evolution breeds so many and trains those that the screens leave. Random search, which they leave far fewer, draws
    until so many are left: it pays for trainings, not for screens.
    """
    if config.newcomers is not None:
        return config.newcomers[number - 1]
    elites = config.space.evolution.elites
    return config.population - min(elites, config.population - 1)
