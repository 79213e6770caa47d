"""The command line: parses, wires, prints. What is heavy is imported inside the command that needs it."""

import json
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.errors import EvolossError
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.playoff import Standing

app = typer.Typer(
    help="Discover loss functions for classifiers by genetic programming, and compare them honestly.",
    pretty_exceptions_enable=False,
    add_completion=True,
    no_args_is_help=True,
)

Dataset = Annotated[str, typer.Option(help="A name of `evoloss datasets`, or folder:PATH for your own images.")]
DataDir = Annotated[str | None, typer.Option(help="Where to look for data first.")]
Proxy = Annotated[str | None, typer.Option(help="mlp or inception; the default depends on the data set.")]
Space = Annotated[str, typer.Option(help="A name of `evoloss spaces`, or the path of a TOML file.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes; default one a core; 0 runs in this process.")]
Address = Annotated[str | None, typer.Option(help="Join a running Ray cluster, for instance auto.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Samples = Annotated[int | None, typer.Option(min=1, help="Keep that many training samples.")]
LabelNoise = Annotated[float, typer.Option(min=0, max=0.99, help="Share of training labels made wrong.")]
Imbalance = Annotated[float, typer.Option(min=1, help="Ratio of the largest to the smallest training class.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing while searching.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@app.callback(invoke_without_command=True)
def _root(show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if show_version:
        print(version("evoloss"))
        raise typer.Exit


@app.command()
def search(
    dataset: Dataset = "digits",
    generations: Annotated[int | None, typer.Option(min=1, help="After the first; default from the space.")] = None,
    population: Annotated[int | None, typer.Option(min=2, help="Losses in a generation.")] = None,
    space: Space = "hybrid",
    seed: Annotated[int, typer.Option(help="Same seed, same hall of fame.")] = 0,
    out: Annotated[Path | None, typer.Option(help="The run directory; default runs/<date>-<dataset>-....")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the hall of fame.")] = 20,
    seed_expr: Annotated[
        list[str] | None, typer.Option(help="A formula of yours for generation 0; repeatable.")
    ] = None,
    time_limit: Annotated[str | None, typer.Option(help="Stop after, for instance, 90s, 45m or 2h.")] = None,
    proxy: Proxy = None,
    samples: Samples = None,
    label_noise: LabelNoise = 0.0,
    imbalance: Imbalance = 1.0,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    device: Device = "auto",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Evolve losses on a data set and write a hall of fame."""
    from evoloss import data, run
    from evoloss.config import RunConfig, load_space, validated

    grammar = load_space(space)
    values = {
        "version": version("evoloss"),
        "dataset": _absolute(dataset),
        "proxy": proxy or data.default_proxy(dataset),
        "space_name": space,
        "seed": seed,
        "generations": generations or grammar.evolution.generations,
        "population": population or grammar.evolution.population,
        "top": top,
        "samples": samples,
        "label_noise": label_noise,
        "imbalance": imbalance,
        "seed_expressions": [_canonical(text) for text in seed_expr or []],
        "time_limit": _seconds(time_limit),
        "device": _device(device),
        "data_dir": data_dir,
        "space": grammar,
    }
    config = validated(RunConfig, values, "search")
    run.check(config)
    directory = out or run.default_directory(config)
    run.create(directory, config)
    _carry_on(directory, workers, address, quiet, as_json)


@app.command()
def resume(
    directory: Annotated[Path, typer.Argument(help="A run directory.", metavar="RUN")],
    workers: Workers = None,
    address: Address = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Continue an interrupted search; it ends in the same hall of fame as one that was never interrupted."""
    if not (directory / "run.toml").is_file():
        raise EvolossError(f"{directory} is no run directory: it has no run.toml")
    _carry_on(directory, workers, address, quiet, as_json)


def _carry_on(directory: Path, workers: int | None, address: str | None, quiet: bool, as_json: bool) -> None:
    from rich.console import Console

    from evoloss import run, view

    style = view.style_for(quiet, as_json)
    try:
        with view.watching(style, Console()) as watch:
            complete = run.carry_on(directory, watch, workers, address)
    except KeyboardInterrupt:
        print(f"evoloss: interrupted, nothing finished is lost; continue: evoloss resume {directory}", file=sys.stderr)
        raise typer.Exit(130) from None
    if style == "json":
        print(json.dumps({"complete": complete, "hall_of_fame": str(directory / "hall_of_fame.csv")}))
        return
    if style != "quiet":
        _print_hall_of_fame(directory)
    if not complete:
        print(f"time limit reached; continue: evoloss resume {directory}")
    print(f"hall of fame: {directory / 'hall_of_fame.csv'}")


def _read_table(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _print_hall_of_fame(directory: Path, rows: int = 5) -> None:
    best = _read_table(directory / "hall_of_fame.csv")[:rows]
    shown = {row["key"]: row for row in best}
    for row in _read_table(directory / "baselines.csv"):
        if row["name"] in ("ce", "ngl"):
            shown.setdefault(row["key"], row | {"rank": ""})
    table = [
        [row["rank"], row["name"], f"{float(row['fitness']):.4f}", row["n_seeds"], row["expression"]]
        for row in shown.values()
        if row["fitness"]
    ]
    print_table(("rank", "name", "select accuracy", "seeds", "formula"), table)
    print("Select accuracies guided the search and flatter its winners; `evoloss evaluate` judges a formula afresh.")


@app.command()
def evaluate(
    expr: Annotated[str, typer.Option(help="The formula, such as '-y*log(p)'.")],
    dataset: Dataset = "digits",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each loss.")] = 5,
    seed: Annotated[int, typer.Option(help="Draws the training seeds.")] = 0,
    proxy: Proxy = None,
    space: Space = "hybrid",
    samples: Samples = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default from the last rung of the space.")] = None,
    lr: Annotated[str | None, typer.Option(help="Learning rates to choose from, such as 1e-3,3e-3.")] = None,
    optimizer: Annotated[str | None, typer.Option(help="adam or sgd.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2)] = None,
    label_noise: LabelNoise = 0.0,
    imbalance: Imbalance = 1.0,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train with a formula on fresh seeds and score it on the test split, beside cross-entropy."""
    from evoloss import data, playoff
    from evoloss.baselines import BASELINES
    from evoloss.config import Rung, load_space, validated
    from evoloss.expression import Expression
    from evoloss.records import DataSpec
    from evoloss.workers import open_pool

    expression = Expression.parse(expr)
    if expression.missing:
        raise EvolossError(f"`{expression}` has {expression.missing}: no training can learn from it")
    proxy = proxy or data.default_proxy(dataset)
    last = load_space(space).rungs_for(proxy)
    rates = _rates(lr) or sorted({rate for rung in last if rung.epochs == last[-1].epochs for rate in rung.rates})
    changes = {"samples": samples, "epochs": epochs, "optimizer": optimizer, "batch_size": batch_size}
    values = last[-1].model_dump() | {"rates": rates} | {k: v for k, v in changes.items() if v is not None}
    rung = validated(Rung, values, "evaluate")
    spec = DataSpec(dataset, data_dir, samples, label_noise, imbalance, seed)
    contenders = list(dict.fromkeys([expression, Expression.parse(BASELINES["ce"].expression)]))
    loaded = data.load(spec, ("train", "select", "test"))
    try:
        with open_pool(loaded, workers, address, _device(device)) as pool, _bar(as_json) as tick:
            standings = playoff.contest(contenders, proxy, rung, seeds, seed, pool, tick)
    except KeyboardInterrupt:
        print("evoloss: interrupted", file=sys.stderr)
        raise typer.Exit(130) from None
    protocol = f"{dataset}, {proxy}, {rung.samples:,} samples x {rung.epochs} epochs, {rung.optimizer}, {seeds} seeds"
    _print_standings(standings, protocol, as_json)


def _print_standings(standings: "Sequence[Standing]", protocol: str, as_json: bool) -> None:
    from dataclasses import asdict

    from evoloss.playoff import difference, verdict

    first, reference = standings[0], standings[-1]
    gap = difference(first.test, reference.test) if first is not reference else None
    if as_json:
        rows = [asdict(standing) | {"expression": standing.expression.text} for standing in standings]
        print(json.dumps({"protocol": protocol, "standings": rows, "difference": asdict(gap) if gap else None}))
        return
    print(protocol)
    table = [
        [s.expression.text, _mean_sd(s.select), _mean_sd(s.test), str(len(s.test)), f"{s.rate:g}", f"{s.scale:g}"]
        for s in standings
    ]
    print_table(("loss", "select accuracy", "test accuracy", "n", "learning rate", "scale"), table)
    if first is not reference:
        shown = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.3g}: " if gap else ""
        print(f"test accuracy, formula minus cross-entropy, paired, 95 % interval: {shown}{verdict(gap)}")


def _mean_sd(values: Sequence[float]) -> str:
    import statistics

    deviation = f" +- {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.4f}{deviation}"


@app.command()
def baselines(as_json: AsJson = False) -> None:
    """List the hand-written losses, and those that no formula of the language says."""
    from dataclasses import asdict

    from evoloss.baselines import BASELINES, UNWRITABLE

    if as_json:
        written, unwritable = ([asdict(row) for row in table] for table in (BASELINES.values(), UNWRITABLE.values()))
        print(json.dumps({"baselines": written, "unwritable": unwritable}))
        return
    rows = [
        [row.name, row.expression, row.family + (f", {row.classes} classes" if row.classes else ""), row.paper]
        for row in BASELINES.values()
    ]
    print_table(("name", "formula", "family", "paper"), rows)
    print("\nnot in the language:")
    print_table(
        ("name", "family", "paper", "why"),
        [[row.name, row.family, row.paper, row.reason] for row in UNWRITABLE.values()],
    )


@app.command()
def spaces(as_json: AsJson = False) -> None:
    """List the search spaces and what each contains."""
    from evoloss.config import load_space, space_names

    loaded = {name: load_space(name) for name in space_names()}
    if as_json:
        print(json.dumps({name: space.model_dump(mode="json") for name, space in loaded.items()}))
        return
    rows = [
        [
            name,
            space.description,
            " ".join(space.variables),
            " ".join((*space.operators, *space.macros)),
            " ".join(space.seeds),
            " ".join(space.rungs),
        ]
        for name, space in loaded.items()
    ]
    print_table(("name", "what", "variables", "operators and macros", "seeds", "proxies"), rows)


@app.command()
def datasets(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets: what is known, what is on this machine and where, what each would need."""
    from dataclasses import asdict

    from evoloss import data

    known = data.status(data_dir)
    if as_json:
        print(json.dumps([asdict(row) for row in known]))
        return
    rows = [
        [
            row.name,
            row.description,
            "x".join(map(str, row.shape)),
            str(row.num_classes),
            row.proxy,
            row.where or row.needs,
        ]
        for row in known
    ]
    print_table(("name", "what", "shape", "classes", "proxy", "where, or what it needs"), rows)


def _bar(silent: bool) -> Any:
    """A progress bar on standard error, as a context that gives `tick(done, due)`."""
    import contextlib

    from rich.console import Console
    from rich.progress import Progress

    @contextlib.contextmanager
    def shown() -> Any:
        with Progress(console=Console(stderr=True), transient=True, disable=silent or not sys.stderr.isatty()) as bar:
            task = bar.add_task("training")
            yield lambda done, due: bar.update(task, completed=done, total=due)

    return shown()


def _absolute(dataset: str) -> str:
    """A folder of images by its full path: a run can be resumed from anywhere."""
    kind, colon, path = dataset.partition(":")
    return f"{kind}:{Path(path).expanduser().resolve()}" if colon and path else dataset


def _canonical(text: str) -> str:
    from evoloss.expression import Expression

    return Expression.parse(text).text


def _seconds(text: str | None) -> float | None:
    """`90`, `90s`, `45m` or `2h` in seconds."""
    if text is None:
        return None
    factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:])
    try:
        seconds = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise EvolossError(f"--time-limit should be a positive time such as 90s, 45m or 2h, not `{text}`")
    return seconds


def _rates(text: str | None) -> list[float]:
    try:
        rates = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        rates = [0.0]
    if any(not 0 < rate < float("inf") for rate in rates):
        raise EvolossError(f"--lr should be positive numbers such as 1e-3,3e-3, not `{text}`")
    return rates


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise EvolossError(f"--device should be auto, cpu or cuda, not `{name}`")
    if name == "auto":  # asking torch would import it
        return "cuda" if shutil.which("nvidia-smi") else "cpu"
    return name


# click's; newer versions of typer bring their own click, and export no other name of it.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """The `evoloss` command: errors are one line on standard error."""
    try:
        sys.exit(app(standalone_mode=False))
    except EvolossError as error:
        print(f"evoloss: {error}", file=sys.stderr)
        sys.exit(1)
    except _UsageError as error:
        print(f"evoloss: {error.format_message()}", file=sys.stderr)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        print("evoloss: interrupted", file=sys.stderr)
        sys.exit(130)
