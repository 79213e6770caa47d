"""`evoloss search` and `evoloss resume`."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli import compare, control, simplify, stress
from evoloss.cli.options import (
    Address,
    AsJson,
    Cache,
    DataDir,
    Dataset,
    Device,
    Gpus,
    Imbalance,
    LabelNoise,
    Mlflow,
    Proxy,
    Quiet,
    Samples,
    Space,
    Tensorboard,
    Wandb,
    Workers,
    canonical,
    full_path,
    read_backend,
    read_device,
    read_regimes,
    read_seconds,
    read_sinks,
)
from evoloss.cli.printing import interruptible, print_fitness, print_judged
from evoloss.errors import EvolossError
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.backend import Backend
    from evoloss.config import RunConfig
    from evoloss.run import Outcome

SeedExpr = Annotated[list[str] | None, typer.Option(help="A formula of yours for generation 0; repeatable.")]
Regimes = Annotated[
    str | None,
    typer.Option(
        help="Optimizers, proxies or data sets, such as adam,sgd: the fitness is the mean gain over cross-entropy in "
        "them. Each changes one thing of the run."
    ),
]
Playoff = Annotated[bool, typer.Option(help="Finalists against the seeds, on fresh seeds and the test split.")]


def search(
    dataset: Dataset = "digits",
    generations: Annotated[int | None, typer.Option(min=1, help="After the first; default from the space.")] = None,
    population: Annotated[int | None, typer.Option(min=2, help="Losses in a generation.")] = None,
    space: Space = "hybrid",
    seed: Annotated[int, typer.Option(help="Same seed, same hall of fame.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The run directory; default runs/<date>-<dataset>-....")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the hall of fame.")] = 20,
    seed_expr: SeedExpr = None,
    playoff: Playoff = True,
    playoff_seeds: Annotated[int | None, typer.Option(min=2, help="Default from the space.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Stop after, for instance, 90s, 45m or 2h.")] = None,
    strategy: Annotated[str, typer.Option(help="evolve, or random: draw new losses instead of breeding.")] = "evolve",
    selection: Annotated[str, typer.Option(help="rank, or nsga2: accuracy and complexity as two goals.")] = "rank",
    with_control: Annotated[bool, typer.Option("--with-control", help="Run both: did evolution beat chance?")] = False,
    repeats: Annotated[int | None, typer.Option(min=1, help="Of a control, at further seeds; default 5.")] = None,
    proxy: Proxy = None,
    regimes: Regimes = None,
    samples: Samples = None,
    label_noise: LabelNoise = 0.0,
    imbalance: Imbalance = 1.0,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: Gpus = None,
    cache: Cache = None,
    device: Device = "auto",
    tensorboard: Tensorboard = False,
    mlflow: Mlflow = False,
    wandb: Wandb = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Evolve losses on a data set and write a hall of fame."""
    from evoloss import data, run
    from evoloss.config import RunConfig, load_space, validated

    sinks = read_sinks(tensorboard=tensorboard, mlflow=mlflow, wandb=wandb)
    control.check(with_control, strategy, repeats, time_limit)
    if with_control and sinks:
        raise EvolossError(f"--{sinks[0]} follows one search: leave it out with --with-control")
    grammar = load_space(space).with_playoff_seeds(playoff_seeds)
    values = {
        "version": version("evoloss"),
        "dataset": full_path(dataset),
        "proxy": proxy or data.default_proxy(dataset),
        "space": grammar,
        "space_name": space,
        "strategy": strategy,
        "selection": selection,
        "seed": seed,
        "generations": generations or grammar.evolution.generations,
        "population": population or grammar.evolution.population,
        "top": top,
        "samples": samples,
        "label_noise": label_noise,
        "imbalance": imbalance,
        "seed_expressions": [canonical(text) for text in seed_expr or []],
        "regimes": read_regimes(regimes),
        "time_limit": read_seconds(time_limit),
        "playoff": playoff,
        "data_dir": data_dir,
        "device": read_device(device, gpus_per_worker),
    }
    config = validated(RunConfig, values, "search")
    run.check(config)
    backend = read_backend(workers, address, cache, gpus_per_worker)
    directory = out or run.default_directory(config)
    if with_control:
        control.begin(directory, config, repeats, backend, quiet, as_json)
    else:
        run.create(directory, config)
        _carry_on(directory, backend, sinks, quiet, as_json)


def resume(
    directory: Annotated[Path, typer.Argument(help="A directory of a search, control, comparison, ...", metavar="RUN")],
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: Gpus = None,
    cache: Cache = None,
    tensorboard: Tensorboard = False,
    mlflow: Mlflow = False,
    wandb: Wandb = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Continue an interrupted directory of any command; it ends as one that was never interrupted."""
    backend = read_backend(workers, address, cache, gpus_per_worker)
    sinks = read_sinks(tensorboard=tensorboard, mlflow=mlflow, wandb=wandb)
    settings = next((name for name in (*_OTHERS, "run.toml") if (directory / name).is_file()), None)
    if settings is None:
        raise EvolossError(f"{directory} cannot be continued: it has none of run.toml, {', '.join(_OTHERS)}")
    if settings in _OTHERS:
        if sinks:
            raise EvolossError(f"--{sinks[0]} follows a search, and {directory} has no run.toml: leave it out")
        _OTHERS[settings](directory, backend, quiet, as_json)
        return
    _carry_on(directory, backend, sinks, quiet, as_json)


def _carry_on(directory: Path, backend: "Backend", sinks: list[str], quiet: bool, as_json: bool) -> None:
    from rich.console import Console

    from evoloss import run, view
    from evoloss.config import load_run
    from evoloss.sinks import feeding, of_playoff, opened

    config = load_run(directory)
    style = view.style_for(quiet, as_json)
    if style not in ("json", "quiet"):
        print_fitness(config)
    hint = f"nothing finished is lost; continue: evoloss resume {directory}"
    with (
        interruptible(hint),
        opened(sinks, directory, config) as logs,
        view.watching(style, Console()) as watch,
    ):
        outcome = run.carry_on(directory, feeding(watch, logs), backend)
        for log in logs:
            log(config.generations + 1, *of_playoff(outcome.judged))
    if style == "json":
        print(json.dumps({"complete": outcome.complete, "hall_of_fame": str(directory / "hall_of_fame.csv")}))
        return
    if style != "quiet":
        _print_hall_of_fame(directory, config)
        if config.selection == "nsga2":
            _print_pareto_front(directory, config)
        _print_playoff(outcome)
    if not outcome.complete:
        print(f"time limit reached; continue: evoloss resume {directory}")
    print(f"hall of fame: {directory / 'hall_of_fame.csv'}")
    if (directory / "report.html").is_file():
        print(f"report: {directory / 'report.html'}")


def _print_hall_of_fame(directory: Path, config: "RunConfig", rows: int = 5) -> None:
    from evoloss.report import read_table
    from evoloss.view import measure, score

    best = read_table(directory / "hall_of_fame.csv")[:rows]
    shown = {row["key"]: row for row in best}
    for row in read_table(directory / "baselines.csv"):
        if row["name"] in ("ce", "ngl"):
            shown.setdefault(row["key"], row | {"rank": ""})
    table = [
        [row["rank"], row["name"], score(float(row["fitness"]), config.gains), row["n_seeds"], row["expression"]]
        for row in shown.values()
        if row["fitness"]
    ]
    print_table(("rank", "name", measure(config.gains), "seeds", "formula"), table)
    print(f"{'Gains' if config.gains else 'Select accuracies'} guided the search and flatter its winners.")


def _print_pareto_front(directory: Path, config: "RunConfig") -> None:
    from evoloss.report import read_table
    from evoloss.view import measure

    print("\nPareto front: no formula as small does as well")
    columns = ("complexity", "name", measure(config.gains), "seeds", "formula")
    table = [
        [row["complexity"], row["name"], f"{float(row['fitness']):.4f}", row["n_seeds"], row["expression"]]
        for row in read_table(directory / "pareto.csv")
    ]
    print_table(columns, table)


def _print_playoff(outcome: "Outcome") -> None:
    from evoloss.playoff import SEARCHED, conclusion, together

    if SEARCHED not in outcome.judged:
        return
    regimes = ", ".join(together(outcome.judged))
    print("\nplayoff: equal sweeps, fresh seeds, test split" + (f", means over {regimes}" if regimes else ""))
    print_judged(outcome.judged[SEARCHED])
    for line in conclusion(outcome.judged, outcome.searched):
        print(line)


# How a directory that is not of a search is continued, by the file of its settings.
_OTHERS: dict[str, Callable[[Path, "Backend", bool, bool], None]] = {
    "compare.toml": lambda directory, backend, quiet, as_json: compare.carry_on(directory, backend, as_json),
    "stress.toml": lambda directory, backend, quiet, as_json: stress.carry_on(directory, backend, as_json),
    "simplify.toml": lambda directory, backend, quiet, as_json: simplify.carry_on(directory, backend, as_json),
    "control.toml": control.carry_on,
}
