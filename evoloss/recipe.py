"""A recipe: an experiment of the literature as one TOML file, with the figures that were published."""

import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from evoloss.baselines import BASELINES
from evoloss.config import Count, Settings, read_toml, shipped, validated
from evoloss.errors import EvolossError, suggest
from evoloss.expression import Expression
from evoloss.metrics import FIGURES

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Optimizer(Settings):
    """Of the network. RMSprop is Keras's: rho 0.9, epsilon 1e-7."""

    name: Literal["adam", "rmsprop", "sgd"]
    rate: Positive
    momentum: Share = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Schedule(Settings):
    """When the network's learning rate is multiplied by `factor`, down to `least_rate`.

    "step": every `epochs` epochs. "plateau": after more than `epochs` epochs in which the select accuracy has not grown
    by `threshold`, of itself if `relative`.
    """

    name: Literal["plateau", "step"]
    factor: Positive
    epochs: Count
    threshold: float = 1e-4
    relative: bool = False
    least_rate: float = 0.0


class Augmentation(Settings):
    """Random changes of a training image, uniform up to these bounds.

    `flip` half of them; `rotate` by degrees; `zoom` and `shift` by shares of the side; `crop` moves by whole pixels.
    What comes in from outside is black, or the nearest pixel if `edge` is "nearest".
    """

    flip: bool = False
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    zoom: Annotated[float, Field(ge=0, lt=1)] = 0.0
    shift: Share = 0.0
    crop: Annotated[int, Field(ge=0)] = 0
    edge: Literal["black", "nearest"] = "black"


class Centers(Settings):
    """Who moves the learned centers.

    "network": the network's own optimizer. "gradient": SGD of their own. "wen": c_j -= rate * sum of (c_j - x_i) over
    the n_j samples of class j in the batch / (1 + n_j) (Wen et al. 2016), whatever the loss weighs.
    """

    rule: Literal["network", "gradient", "wen"]
    rate: Positive = 0.5


class Contender(Settings):
    """A loss of the comparison: a baseline's name or a formula, and what it has of its own."""

    name: str
    loss: str
    decision: Literal["argmax", "nearest center"] = "argmax"
    centers: Centers | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None

    @functools.cached_property
    def expression(self) -> Expression:
        """The formula."""
        return Expression.parse(BASELINES[self.loss].expression if self.loss in BASELINES else self.loss)

    @model_validator(mode="after")
    def _readable(self) -> "Contender":
        if self.loss not in BASELINES and self.loss.replace("-", "_").isidentifier():
            raise ValueError(f"unknown baseline `{self.loss}`{suggest(self.loss, BASELINES)}")
        try:
            learned = "d" in self.expression.variables
        except EvolossError as error:
            raise ValueError(str(error).splitlines()[0]) from None
        if learned != (self.centers is not None):
            raise ValueError("centers belong to a loss with `d`, and to no other")
        if self.decision == "nearest center" and not learned:
            raise ValueError("only a loss with `d` has centers to decide by")
        return self


class Published(Settings):
    """Figures of the original by their names in `metrics.FIGURES`, and where they hold."""

    contender: str
    dataset: str
    epochs: Count
    source: str
    figures: dict[str, float]
    embedding: int | None = None

    @field_validator("figures")
    @classmethod
    def _named(cls, figures: dict[str, float]) -> dict[str, float]:
        return dict(zip(_known_figures(figures), figures.values(), strict=True))


class Recipe(Settings):
    """An experiment: networks, data, training, contenders, what is printed and what was published.

    `datasets` is in order of preference: the first that is at hand, or `every` one of them. `network` None is the data
    set's own proxy. `pairs` mines pairs (and triplets) as Motta (2020) does; otherwise batches are of single images.
    `tables` are lists of figures to print; `differs` says in words what is not as in the original.
    """

    description: str
    source: str
    datasets: Annotated[tuple[str, ...], Field(min_length=1)]
    every: bool = False
    network: str | None = None
    embeddings: Annotated[tuple[Count, ...], Field(min_length=1)]
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)] = 128
    drop_last: bool = False
    pairs: bool = False
    pixels: tuple[float, Positive] = (0.0, 1.0)
    optimizer: Optimizer
    schedule: Schedule | None = None
    augmentation: dict[str, Augmentation] = Field(default_factory=dict)
    contenders: Annotated[tuple[Contender, ...], Field(min_length=1)]
    tables: Annotated[tuple[tuple[str, ...], ...], Field(min_length=1)]
    differs: tuple[str, ...] = ()
    published: tuple[Published, ...] = ()

    @field_validator("tables")
    @classmethod
    def _printable(cls, tables: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        return tuple(_known_figures(table) for table in tables)

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        names = [contender.name for contender in self.contenders]
        if len(set(names)) < len(names):
            raise ValueError("two contenders have one name")
        for row in self.published:
            if row.contender not in names:
                raise ValueError(f"published figures of `{row.contender}`{suggest(row.contender, names)}")
        if self.pairs and (other := [c.name for c in self.contenders if c.expression.layouts - {"pair", "triplet"}]):
            raise ValueError(
                f"mined pairs have no classes: {', '.join(other)} should be losses of D and Y, or Dp and Dn"
            )
        return self

    def beside(self, contender: str, embedding: int, dataset: str, epochs: int) -> dict[str, Published]:
        """By figure, the published row that is nearest to these conditions: the same data set, then the epochs."""
        rows = [row for row in self.published if row.contender == contender and row.embedding in (None, embedding)]
        rows.sort(key=lambda row: (row.dataset != dataset, abs(math.log(row.epochs / epochs))))
        return {name: row for row in reversed(rows) for name in row.figures}


def conditions(recipe: Recipe, used: Iterable[tuple[str, Published]], ours: Sequence[str], seeds: int) -> list[str]:
    """In plain words, where the `used` published figures hold and where ours do (`ours` has a line a data set)."""
    sources: dict[str, dict[str, None]] = {}
    for figure, row in used:
        place = f"{row.dataset}, {row.epochs} epoch{'s' * (row.epochs > 1)}, {row.source}"
        sources.setdefault(place, {})[FIGURES[figure][0]] = None
    lines = [f"published ({'; '.join(headings)}): {place}" for place, headings in sources.items()]
    lines += [f"ours: {line}, {'1 seed' if seeds == 1 else f'mean +- sd of {seeds} seeds'}" for line in ours]
    return [*lines, _OTHER_ROLES, *recipe.differs]


_OTHER_ROLES = (
    "ours trains on the train role and scores on the test role; "
    "the originals have no select role: they train on the whole train part"
)


def recipe_names() -> list[str]:
    """The recipes that evoloss brings."""
    return sorted(path.stem for path in shipped("recipes").glob("*.toml"))


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or by the path of a TOML file. Raises `EvolossError`."""
    path = Path(name)
    if path.suffix != ".toml":
        path = shipped("recipes") / f"{name}.toml"
        if name not in recipe_names():
            known = ", ".join(recipe_names())
            hint = suggest(name, recipe_names())
            raise EvolossError(f"unknown recipe `{name}`{hint}: expected {known}, or the path of a .toml file")
    return validated(Recipe, read_toml(path), str(path))


def _known_figures(names: Iterable[str]) -> tuple[str, ...]:
    for name in names:
        if name not in FIGURES:
            raise ValueError(f"unknown figure `{name}`{suggest(name, FIGURES)}; known are {', '.join(FIGURES)}")
    return tuple(names)
