"""What a search space file and the command line may say, validated; an unknown key names the nearest known one."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any, Literal, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from evoloss.baselines import BASELINES
from evoloss.errors import EvolossError, suggest
from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.records import Budget, DataSpec
from evoloss.syntax import ExpressionError, read, read_macro

T = TypeVar("T", bound=BaseModel)
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """What a TOML file may say; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def toml(self) -> str:
        """As the text of a TOML file; what is not set is left out."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


class Rung(Settings):
    """One step of successive halving: who trains, for how long, at which learning rates.

    `keep` is the share of the candidates of the rung below that train here. `scored` is how many select images the
    score is taken on (all, where it is not given). Images are averaged over squares of `pooled` pixels. Rungs of the
    same length are one budget at further rates: a candidate's score is its best rate.
    """

    samples: Count
    epochs: Count
    rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    keep: Annotated[float, Field(gt=0, le=1)] = 1.0
    optimizer: Literal["adam", "sgd"] = "adam"
    batch_size: Annotated[int, Field(ge=2)] = 128
    flips: bool = False
    shifts: bool = False
    pooled: Annotated[int, Field(ge=1, le=8)] = 1
    scored: Count | None = None
    time_limit: Annotated[float, Field(gt=0)] = 600.0

    @property
    def length(self) -> tuple[int, int, int]:
        """What makes trainings at different rates comparable: samples, epochs, and how far images are pooled."""
        return self.samples, self.epochs, self.pooled

    @property
    def extent(self) -> str:
        """The length in words."""
        pooled = f", images pooled {self.pooled}x{self.pooled}" if self.pooled > 1 else ""
        return f"{self.samples:,} samples x {self.epochs} epoch{'s' * (self.epochs != 1)}{pooled}"

    def budgets(self) -> list[Budget]:
        """One budget a learning rate."""
        shared = self.model_dump(exclude={"rates", "keep"})
        return [Budget(learning_rate=rate, **shared) for rate in self.rates]


class Tree(Settings):
    """Limits that every operator of variation keeps. Heights count edges, below the reductions included."""

    init_height: tuple[Count, Count] = (2, 5)
    max_height: Count = 12
    max_nodes: Count = 40

    @model_validator(mode="after")
    def _ordered(self) -> "Tree":
        low, high = self.init_height
        if not low <= high <= self.max_height:
            raise ValueError("needs init_height = [low, high] with low <= high <= max_height")
        return self


class Refinement(Settings):
    """How the constants of the best losses are refined by CMA-ES: every so many generations, of the best `top`.

    A refinement costs up to `1 + population * generations` short trainings a loss. `sigma` is the first standard
    deviation of the logarithm of a constant: at 0.3, two thirds of the first tries lie between 0.74 and 1.35 times it.
    """

    every: Count = 10
    top: Count = 3
    population: Annotated[int, Field(ge=4)] = 8
    generations: Count = 5
    sigma: Annotated[float, Field(gt=0, le=3)] = 0.3


class Evolution(Settings):
    """The parameters of the genetic programming. The weights of crossovers and mutations are relative.

    Of losses that score alike and whose gradient fields have a cosine of `niche` or more, the best lives; above 1, all.
    """

    population: Count = 40
    generations: Count = 6
    elites: Count = 4
    max_seeds: Count = 5
    tournament: Annotated[int, Field(ge=2)] = 4
    parsimony: Annotated[float, Field(ge=1, le=2)] = 1.3
    niche: Annotated[float, Field(gt=0, le=2)] = 0.99
    refinement: Refinement | None = None
    crossover: dict[Literal["one_point", "leaf_biased"], float] = {"one_point": 0.35, "leaf_biased": 0.15}
    mutation: dict[Literal["subtree", "node", "constant", "hoist", "shrink"], float] = {
        "subtree": 0.15,
        "node": 0.12,
        "constant": 0.13,
        "hoist": 0.05,
        "shrink": 0.05,
    }

    @model_validator(mode="after")
    def _sensible(self) -> "Evolution":
        if self.elites > self.population:
            raise ValueError("elites should not outnumber the population")
        weights = [*self.crossover.values(), *self.mutation.values()]
        if not weights or min(weights) < 0 or sum(weights) <= 0:
            raise ValueError("weights of crossover and mutation should not be negative, nor all zero")
        return self


class Playoff(Settings):
    """Who meets the seeds at the end of a search, on how many fresh seeds, and in which regimes it did not see.

    `rungs` are the trainings in which they meet, by proxy; where a proxy has none, those of its last rung.
    """

    top: Count = 3
    seeds: Annotated[int, Field(ge=2)] = 5
    unseen: tuple[Literal["optimizer", "proxy", "data"], ...] = ("optimizer", "proxy", "data")
    rungs: dict[str, Rung] = {}


class SearchSpace(Settings):
    """A grammar of losses and how it is searched: one TOML file."""

    description: str
    variables: tuple[str, ...]
    reductions: tuple[str, ...]
    operators: tuple[str, ...]
    macros: dict[str, str] = {}
    constants: tuple[float, float] = (-3.0, 3.0)
    seeds: tuple[str, ...] = ("ce", "ngl")
    tree: Tree = Tree()
    evolution: Evolution = Evolution()
    playoff: Playoff = Playoff()
    rungs: dict[str, Annotated[tuple[Rung, ...], Field(min_length=1)]]

    @field_validator("variables", "reductions", "operators", "seeds")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: Any) -> tuple[str, ...]:
        known: dict[str, Mapping[str, object]] = {
            "variables": VARIABLES,
            "reductions": REDUCTIONS,
            "operators": OPERATORS,
            "seeds": BASELINES,
        }
        table = known[info.field_name]
        for name in names:
            if name not in table:
                raise ValueError(f"`{name}` is none of {', '.join(table)}{suggest(name, table)}")
        if len(set(names)) < len(names):
            raise ValueError("a name stands here twice")
        return names

    @field_validator("macros")
    @classmethod
    def _new_words(cls, macros: dict[str, str]) -> dict[str, str]:
        for name, text in macros.items():
            if name in {*OPERATORS, *REDUCTIONS, *VARIABLES, "scale"} or not name.isidentifier():
                raise ValueError(
                    f"`{name}` is no name for a macro: choose an identifier that is no word of the language"
                )
            readable(text, read_macro)
        return macros

    @model_validator(mode="after")
    def _can_learn(self) -> "SearchSpace":
        layouts = {REDUCTIONS[name].layout for name in self.reductions}
        if idle := [name for name in self.variables if VARIABLES[name].layout not in {None, *layouts}]:
            raise ValueError(f"no reduction of this space takes the variables {', '.join(idle)}")
        rows = [VARIABLES[name] for name in self.variables]
        if not any(row.prediction for row in rows) or not any(row.target for row in rows):
            raise ValueError("a space needs a prediction (p, z, d, D, Dp, Dn) and a target (y, Y, Dp, Dn)")
        if self.constants[0] > self.constants[1]:
            raise ValueError("constants = [low, high] with low <= high")
        return self

    def rungs_for(self, proxy: str) -> tuple[Rung, ...]:
        """The rungs of a proxy. Raises `EvolossError` where the space has none."""
        if proxy not in self.rungs:
            raise EvolossError(f"this search space has rungs for {', '.join(self.rungs)}, not for the proxy `{proxy}`")
        return self.rungs[proxy]

    def with_playoff_seeds(self, seeds: int | None) -> "SearchSpace":
        """The space with that many fresh seeds in its playoff; None leaves it as it is."""
        if seeds is None:
            return self
        return self.model_copy(update={"playoff": self.playoff.model_copy(update={"seeds": seeds})})


class RunConfig(Settings):
    """All that a search depends on, as `run.toml` has it: enough to repeat the run.

    `newcomers` are the trees of each generation after the first; where none are given, as many as are no elites.
    `regimes` are optimizers, proxies and data sets over which a fitness is the mean; none: the run's own alone.
    """

    version: str
    dataset: str
    proxy: str
    space_name: str
    strategy: Literal["evolve", "random"] = "evolve"
    selection: Literal["rank", "nsga2"] = "rank"
    seed: int = 0
    generations: Count
    population: Annotated[int, Field(ge=2)]
    newcomers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    top: Count = 20
    samples: Count | None = None
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    imbalance: Annotated[float, Field(ge=1)] = 1.0
    seed_expressions: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    time_limit: Annotated[float, Field(gt=0)] | None = None
    playoff: bool = True
    device: str = "cpu"
    data_dir: str | None = None
    space: SearchSpace

    @field_validator("seed_expressions")
    @classmethod
    def _formulas(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(readable, texts))

    @model_validator(mode="after")
    def _complete(self) -> "RunConfig":
        if self.newcomers is not None and len(self.newcomers) != self.generations:
            raise ValueError("newcomers should be one number for each generation after the first")
        return self

    @property
    def gains(self) -> bool:
        """Whether a fitness is the mean gain over cross-entropy in several regimes, not the select accuracy in one."""
        return len(self.regimes) > 1

    def data(self) -> DataSpec:
        """The data of the run. The run's seed is a part of them only where it shapes them: else repeats share them."""
        shape = {name: getattr(self, name) for name in ("data_dir", "samples", "label_noise", "imbalance")}
        spec = DataSpec(self.dataset, **shape)
        return replace(spec, seed=self.seed) if spec.shaped else spec


def shipped(folder: str) -> Path:
    """Where a folder of TOML files lies: beside the package in a checkout, inside it when installed."""
    inside = Path(__file__).parent / folder
    return inside if inside.is_dir() else Path(__file__).parent.parent / folder


def spaces_dir() -> Path:
    """Where the search spaces lie."""
    return shipped("search_spaces")


def space_names() -> list[str]:
    """The search spaces that evoloss brings."""
    return sorted(path.stem for path in spaces_dir().glob("*.toml"))


def load_space(name: str) -> SearchSpace:
    """A search space by name, or by the path of a TOML file. Raises `EvolossError`."""
    path = Path(name)
    if path.suffix != ".toml":
        path = spaces_dir() / f"{name}.toml"
        if name not in space_names():
            known = ", ".join(space_names())
            hint = suggest(name, space_names())
            raise EvolossError(f"unknown search space `{name}`{hint}: expected {known}, or the path of a .toml file")
    return validated(SearchSpace, read_toml(path), str(path))


def load_run(directory: Path) -> RunConfig:
    """The `run.toml` of a run directory. Raises `EvolossError`."""
    path = directory / "run.toml"
    return validated(RunConfig, read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary. Raises `EvolossError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvolossError(f"cannot read {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise EvolossError(f"{path} is not valid TOML: {error}") from None


def readable(text: str, parse: Callable[[str], object] = read) -> str:
    """The text of a formula. Raises `ValueError`, one line, where it is outside the language."""
    try:
        parse(text)
    except ExpressionError as error:
        shown = shorten(text.encode("ascii", "replace").decode(), 60)
        raise ValueError(f"`{shown}`: {error.problem}") from None
    return text


def validated(model: type[T], values: dict[str, Any], source: str) -> T:
    """`values` as a model. Raises `EvolossError`, one line for the first thing that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as errors:
        error = errors.errors()[0]
        place = ".".join(str(part) for part in error["loc"]) or "the whole"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            known = _keys_at(model, error["loc"][:-1])
            message = f"unknown key{suggest(str(error['loc'][-1]), known)}" + (
                f"; known are {', '.join(known)}" if known else ""
            )
        elif error["type"] != "value_error":
            message += f", got {error['input']!r}" if not isinstance(error["input"], dict) else ""
        raise EvolossError(f"{source}: {place}: {message}") from None


def _keys_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where an unknown one was found."""
    for part in place:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a type such as `dict[str, tuple[Rung, ...]]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
