"""The constants of formulas, refined by CMA-ES (Hansen and Ostermeier 2001) under a budget of trainings.

Breeding finds the shape of a formula; its constants it only perturbs, one at a time. Here all constants of one formula
move together, at a shape that stands, and only their order of scores decides.

Hazard: scores are of one training seed, and the best of forty tries is in part a fit to that seed. What comes out is a
proposal: it enters the search as a new candidate without a score, climbs the rungs like any other and gets further
seeds, so that a lucky fit is found out.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from deap import cma
from numpy.typing import NDArray

from evoloss.config import Refinement
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.operators import REDUCTIONS
from evoloss.records import derive_seed
from evoloss.syntax import Node

DIGITS = 3  # significant digits of a refined constant: formulas are for people
LARGEST = 20.0  # of the logarithm of a factor: numbers of the language span no more

Score = Callable[[list[Expression]], Sequence[float | None]]
Floats = NDArray[np.floating]


def constants(expression: Expression) -> tuple[float, ...]:
    """The constants of a formula that are free to move, in the order of its text.

    Fixed are 0, 1 and -1 and whole exponents, which are shape (`1 - p`, `1/K`, `z**2`, where `z**2.1` is undefined for
    negative z), and what no training can feel: a factor of the whole loss, which the matched scale takes back, and a
    constant that is added to it.
    """
    found: list[float] = []

    def keep(value: float) -> float:
        found.append(value)
        return value

    _replaced(expression.node, keep)
    return tuple(found)


def with_constants(expression: Expression, values: Sequence[float]) -> Expression:
    """The formula with other free constants. Raises `EvolossError` where it has no canonical form."""
    following = iter(values)
    return Expression.from_node(_replaced(expression.node, lambda _: float(next(following))))


def _replaced(node: Node, new: Callable[[float], float], scaled: bool = True, shifted: bool = True) -> Node:
    """The tree with every free constant c as new(c).

    `scaled`: a factor of this node is a factor of the whole loss; `shifted`: what is added to it is added to the loss.
    """
    if not isinstance(node, tuple):
        return node
    name, *children = node
    beside_number = any(isinstance(child, float) for child in children)
    if name in ("mul", "div"):
        free, shifted = not scaled, shifted and beside_number and name == "mul"
    elif name in ("add", "sub"):
        free, scaled = not shifted, scaled and shifted and beside_number
    elif name in REDUCTIONS or name == "neg":
        free = not shifted
    else:
        free, scaled, shifted = True, False, False

    def replaced(child: Node, exponent: bool) -> Node:
        if not isinstance(child, float):
            return _replaced(child, new, scaled, shifted)
        shape = abs(child) in (0, 1) or (exponent and child.is_integer())
        return new(child) if free and not shape else child

    return (name, *(replaced(child, name == "pow" and place == 1) for place, child in enumerate(children)))


def refine(starts: Sequence[Expression], score: Score, settings: Refinement, seed: int) -> list[Expression | None]:
    """Each formula with constants that score higher, None where none were found or none are free.

    `score` gives a higher number to a better formula, None to one that fails. It is called once a generation, with the
    new formulas of all starts together so that they train as one batch, and once more with the starts and what became
    of them. No formula is scored twice: at most `population * generations + 2` for each start with free constants.
    What a start becomes follows from its text, its scores and `seed`, not from the others.

    It becomes the mean of the last distribution, not the best formula that was tried: that one is the luckiest of
    forty. On fresh seeds of Fashion-MNIST the two could not be told apart; on the seed that chose it, the best promised
    twice as much as it kept.
    """
    ascents = {start: _Ascent(start, settings, seed) for start in starts if constants(start)}
    scores: dict[Expression, float | None] = {}

    def learn(formulas: Iterable[Expression]) -> None:
        due = [formula for formula in dict.fromkeys(formulas) if formula not in scores]
        scores.update(zip(due, score(due) if due else (), strict=True))

    for generation in range(settings.generations):
        learn(formula for ascent in ascents.values() for formula in ascent.ask(generation))
        for ascent in ascents.values():
            ascent.tell(scores)
    refined = {start: mean for start, ascent in ascents.items() if (mean := ascent.mean()) is not None}
    learn([*refined, *refined.values()])
    better = {start: mean for start, mean in refined.items() if _worth(scores[mean]) > _worth(scores[start])}
    return [better.get(start) for start in starts]


class _Point(np.ndarray[Any, Any]):
    """Logarithms of the factors by which constants differ from the start's, with what DEAP sorts them by."""

    fitness: float


class _Ascent:
    """CMA-ES on the constants of one formula.

    It moves the logarithm of each constant's factor: constants of 0.001 and of 100 are treated alike, and signs stay.
    A constant of the other sign makes another shape; that is what mutation is for.
    """

    def __init__(self, start: Expression, settings: Refinement, seed: int) -> None:
        self.start = start
        self.constants = constants(start)
        self.seed = derive_seed(seed, "constants", start.key)
        self.strategy = cma.Strategy([0.0] * len(self.constants), settings.sigma, lambda_=settings.population)
        self.points: list[tuple[_Point, Expression | None]] = []

    def ask(self, generation: int) -> list[Expression]:
        """The valid formulas of the next generation."""
        with _seeded(derive_seed(self.seed, generation)):
            points = self.strategy.generate(lambda point: point.view(_Point))
        self.points = [(point, self._formula(point)) for point in points]
        return [formula for _, formula in self.points if formula is not None]

    def tell(self, scores: Mapping[Expression, float | None]) -> None:
        """Move to where the scores are high; what has none is the worst."""
        for point, formula in self.points:
            point.fitness = -math.inf if formula is None else _worth(scores[formula])
        self.strategy.update([point for point, _ in self.points])

    def mean(self) -> Expression | None:
        """The formula at the mean of the distribution, None where it is none."""
        return self._formula(self.strategy.centroid)

    def _formula(self, logarithms: Floats) -> Expression | None:
        factors = np.exp(np.clip(logarithms, -LARGEST, LARGEST))
        values = [float(f"{value:.{DIGITS}g}") for value in factors * self.constants]
        try:
            return with_constants(self.start, values)
        except EvolossError:
            return None


def _worth(score: float | None) -> float:
    return -math.inf if score is None else score


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """numpy's global generator, from which DEAP draws, seeded inside and as it was outside."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)
