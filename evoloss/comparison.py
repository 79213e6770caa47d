"""`evoloss compare` as a directory: who meets whom, at which budgets, made once and carried on like a run."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from evoloss import contest, data, directory, report
from evoloss.backend import HERE, Backend
from evoloss.baselines import BASELINES
from evoloss.config import Count, Rung, SearchSpace, Settings, read_toml, readable, validated
from evoloss.contest import REFERENCE, Contender, Contest
from evoloss.errors import EvolossError, suggest
from evoloss.evidence import Judgement, judge
from evoloss.expression import Expression
from evoloss.playoff import full_rung
from evoloss.records import DataSpec, Evaluation, Standing
from evoloss.regimes import with_optimizer
from evoloss.workers import Pool

SETTINGS = "compare.toml"


class Comparison(Settings):
    """All that a comparison depends on, as `compare.toml` has it. `losses` are formulas by name, or by their text."""

    version: str
    dataset: str
    proxy: str
    losses: Annotated[dict[str, str], Field(min_length=1)]
    rungs: Annotated[dict[str, Rung], Field(min_length=1)]
    seeds: Count
    seed: int = 0
    samples: Count | None = None
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    imbalance: Annotated[float, Field(ge=1)] = 1.0
    device: str = "cpu"
    data_dir: str | None = None

    @field_validator("losses")
    @classmethod
    def _formulas(cls, losses: dict[str, str]) -> dict[str, str]:
        if stray := [name for name, text in losses.items() if name != text and name not in BASELINES]:
            raise ValueError(f"`{stray[0]}` should be a name of `evoloss baselines`, or the formula itself")
        return dict(zip(losses, map(readable, losses.values()), strict=True))

    @field_validator("rungs")
    @classmethod
    def _optimizers(cls, rungs: dict[str, Rung]) -> dict[str, Rung]:
        if stray := [name for name, rung in rungs.items() if name != rung.optimizer]:
            raise ValueError(f"`{stray[0]}` should be the name of the optimizer of the rung")
        return rungs

    def data(self) -> DataSpec:
        """The data, from whose train role each training draws the samples of its rung with its own seed."""
        return DataSpec(self.dataset, self.data_dir, self.samples, self.label_noise, self.imbalance, self.seed)

    def contests(self) -> list[Contest]:
        """One for each rung."""
        contenders = tuple(
            Contender(Expression(text), "" if name == text else name) for name, text in self.losses.items()
        )
        return [
            Contest(regime, self.data(), self.proxy, rung, contenders, self.seeds, self.seed)
            for regime, rung in self.rungs.items()
        ]


def configured(
    spec: DataSpec,
    loaded: data.Dataset,
    proxy: str,
    losses: dict[str, str],
    rungs: dict[str, Rung],
    seeds: int,
    device: str,
) -> Comparison:
    """A comparison of formulas by name, each once and cross-entropy among them. Raises `EvolossError`."""
    values = {
        "version": version("evoloss"),
        "dataset": spec.name,
        "proxy": proxy,
        "losses": each_once(losses),
        "rungs": rungs,
        "seeds": seeds,
        "seed": spec.seed,
        "samples": spec.samples,
        "label_noise": spec.label_noise,
        "imbalance": spec.imbalance,
        "device": device,
        "data_dir": spec.data_dir,
    }
    return validated(Comparison, values, "the options")


def each_once(losses: dict[str, str]) -> dict[str, str]:
    """These formulas by name, cross-entropy first; of the names of one formula the first."""
    named = {"ce": REFERENCE.text} | losses
    first = {text: name for name, text in reversed(named.items())}
    return {name: text for name, text in named.items() if first[text] == name}


def named_losses(names: str, num_classes: int) -> dict[str, str]:
    """Canonical formulas of baselines by name, from a list such as `ce,ngl`, or all that are for so many classes.

    Raises `EvolossError`.
    """
    if names == "all":
        wanted = [name for name, row in BASELINES.items() if row.classes in (None, num_classes)]
    else:
        wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in BASELINES:
            raise EvolossError(f"unknown loss `{name}`{suggest(name, BASELINES)}: see `evoloss baselines`")
        if BASELINES[name].classes not in (None, num_classes):
            raise EvolossError(f"`{name}` is a loss for {BASELINES[name].classes} classes, the data has {num_classes}")
    return {name: Expression.parse(BASELINES[name].expression).text for name in wanted}


def found_losses(run: Path, top: int) -> dict[str, str]:
    """The best `top` evolved losses of a run, under their text. Raises `EvolossError`."""
    table = run / "hall_of_fame.csv"
    found = [row["expression"] for row in report.read_table(table, ("name", "expression")) if not row["name"]][:top]
    if not found:
        raise EvolossError(f"{table} has no evolved loss")
    try:
        texts = [Expression.parse(text).text for text in found]
    except EvolossError as error:
        raise EvolossError(f"{table} has a formula that is none: {error}") from None
    return {text: text for text in texts}


def check_samples(samples: int | None, loaded: data.Dataset) -> None:
    """Raise `EvolossError` where more training samples are asked for than there are."""
    available = len(loaded.splits["train"].labels)
    if samples is not None and not loaded.num_classes <= samples <= available:
        bounds = f"between {loaded.num_classes} and the {available} that there are to train on"
        raise EvolossError(f"--samples should be {bounds}, not {samples}")


def check_formula(text: str) -> None:
    """Raise `EvolossError` for a formula that no training can learn from."""
    if missing := Expression(text).missing:
        raise EvolossError(f"`{text}` has {missing}: no training can learn from it")


def rungs_of(
    space: SearchSpace,
    proxy: str,
    changes: dict[str, int | None],
    optimizers: list[str],
    rates: dict[str, list[float]],
) -> dict[str, Rung]:
    """A rung for each optimizer: that of the space's playoff, on whole images, with what is not None changed."""
    return changed(full_rung(space, proxy).model_copy(update={"pooled": 1}), changes, optimizers, rates)


def changed(
    sweep: Rung, changes: dict[str, int | None], optimizers: list[str], rates: dict[str, list[float]]
) -> dict[str, Rung]:
    """A rung for each optimizer: the sweep with what is not None changed.

    `rates` are by optimizer; those under "" are of the first optimizer, and moved to where the others work. Raises
    `EvolossError`.
    """
    if stray := set(rates) - {"", *optimizers}:
        raise EvolossError(f"--lr names `{min(stray)}`, --optimizer does not: expected {', '.join(optimizers)}")
    base = sweep.model_dump() | {k: v for k, v in changes.items() if v is not None}
    if "" in rates:
        base |= {"rates": rates[""], "optimizer": optimizers[0]}
    rungs: dict[str, Rung] = {}
    for name in optimizers:
        validated(Rung, base | {"optimizer": name}, "--optimizer")
        moved = with_optimizer(validated(Rung, base, "the options"), name)
        rungs[name] = moved.model_copy(update={"rates": tuple(rates[name])}) if name in rates else moved
    return rungs


def create(path: Path, config: Comparison) -> None:
    """Make the directory of a comparison. Raises `EvolossError` where it exists."""
    directory.create(path, SETTINGS, config.toml(), config.device)


def load(path: Path) -> Comparison:
    """The settings of a comparison's directory. Raises `EvolossError`."""
    return validated(Comparison, read_toml(path / SETTINGS), str(path / SETTINGS))


def carry_on(path: Path, tick: Callable[[Evaluation], None], backend: Backend = HERE) -> dict[str, list[Judgement]]:
    """Train what is left to train, write the tables, and return the judgements by regime."""
    config = load(path)
    directory.check_resumable(path, config.version, "comparison.csv")
    with directory.in_use(path):
        standings = held(path, config.contests(), config.device, tick, backend)
        regimes = dict.fromkeys(standing.regime for standing in standings)
        judged = {name: judge([s for s in standings if s.regime == name], REFERENCE.key) for name in regimes}
        report.write_comparison(path, judged)
    return judged


def answered(config: Comparison, evaluate: contest.Evaluate) -> list[Judgement]:
    """The judgements of a comparison at one rung whose jobs `evaluate` does; nothing is kept."""
    return judge(config.contests()[0].standings(evaluate), REFERENCE.key)


def held(
    path: Path, contests: Sequence[Contest], device: str, tick: Callable[[Evaluation], None], backend: Backend = HERE
) -> list[Standing]:
    """All contests of a directory, where it stands; each look at a test split is noted there."""

    @contextlib.contextmanager
    def open_pool(spec: DataSpec) -> Iterator[Pool]:
        loaded = data.load(spec, data.ROLES)
        directory.record_look(path, spec.name, max(len(c.contenders) for c in contests if c.data == spec))
        with backend.open({None: loaded}, device) as pool:
            yield pool

    return contest.hold(contests, path / "archive.sqlite", open_pool, tick)


def once(
    config: Comparison, loaded: data.Dataset, tick: Callable[[Evaluation], None], backend: Backend = HERE
) -> list[Judgement]:
    """The judgements of a comparison at one rung, of which nothing is kept."""
    standings = contest.hold(
        config.contests(), Path(":memory:"), lambda _: backend.open({None: loaded}, config.device), tick
    )
    return judge(standings, REFERENCE.key)
