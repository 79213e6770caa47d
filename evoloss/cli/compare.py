"""`evoloss compare` and `evoloss evaluate`: the commands that open the test split on demand."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evoloss.cli import vision
from evoloss.cli.options import (
    Address,
    AsJson,
    Asked,
    Batch,
    Cache,
    DataDir,
    Dataset,
    DatasetOfRun,
    Device,
    DrawnSamples,
    Epochs,
    Gpus,
    Imbalance,
    ImbalanceOfRun,
    LabelNoise,
    LabelNoiseOfRun,
    Optimizer,
    Proxy,
    Rates,
    Seed,
    Seeds,
    Space,
    Workers,
    about_training,
    canonical,
    full_path,
    read_backend,
    read_device,
    read_optimizers,
    read_rates,
)
from evoloss.cli.printing import counting, interruptible, print_judged
from evoloss.errors import EvolossError

if TYPE_CHECKING:
    from evoloss.backend import Backend
    from evoloss.comparison import Comparison
    from evoloss.evidence import Judgement

RatesOfBoth = Annotated[
    list[str] | None,
    about_training(
        help="Learning rates to begin with, such as 3e-4,1e-3,3e-3; a loss that gets better at an end meets more. "
        "They are the first optimizer's: the other's are 30 times as high (sgd) or low (adam), unless it has its own: "
        "--lr sgd:0.01,0.03,0.1."
    ),
]


def compare(
    losses: Annotated[str | None, typer.Option(help="Names of `evoloss baselines`, such as ce,ngl; or all.")] = None,
    expr: Annotated[list[str] | None, typer.Option(help="A formula; repeatable.")] = None,
    run: Annotated[Path | None, typer.Option(help="A run directory: its best losses, on its data and proxy.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many losses of the run.")] = 5,
    dataset: DatasetOfRun = None,
    seeds: Seeds = 10,
    seed: Seed = 0,
    proxy: Proxy = None,
    space: Space = "hybrid",
    samples: DrawnSamples = None,
    epochs: Epochs = None,
    lr: RatesOfBoth = None,
    optimizer: Annotated[str, about_training(help="adam, sgd, or adam,sgd for both.")] = "adam",
    batch_size: Batch = None,
    label_noise: LabelNoiseOfRun = None,
    imbalance: ImbalanceOfRun = None,
    out: Annotated[Path | None, typer.Option(help="The directory; default runs/<date>-compare-<dataset>.")] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: Gpus = None,
    cache: Cache = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare losses on the test split: equal sweeps of the learning rate, equal fresh seeds, corrected verdicts."""
    from evoloss import comparison, data
    from evoloss.config import load_run, load_space
    from evoloss.directory import dated, record_look
    from evoloss.records import DataSpec

    searched = load_run(run) if run else None
    base = searched.data() if searched else DataSpec("digits")
    given: dict[str, Any] = {"name": full_path(dataset) if dataset else None, "data_dir": data_dir}
    given |= {"label_noise": label_noise, "imbalance": imbalance}
    spec = replace(base, seed=seed, **{name: value for name, value in given.items() if value is not None})
    proxy = proxy or (searched.proxy if searched and not dataset else data.default_proxy(spec.name))
    loaded = data.load(spec)
    named = comparison.named_losses(("ce" if expr or run else "all") if losses is None else losses, loaded.num_classes)
    found = comparison.found_losses(run, top) if run else {}
    wanted = named | {text: text for text in map(canonical, expr or [])} | found
    comparison.check_samples(samples, loaded)
    changes = {"samples": samples, "epochs": epochs, "batch_size": batch_size}
    grammar = searched.space if searched else load_space(space)
    rungs = comparison.rungs_of(grammar, proxy, changes, read_optimizers(optimizer), read_rates(lr))
    config = comparison.configured(spec, loaded, proxy, wanted, rungs, seeds, read_device(device, gpus_per_worker))
    backend = read_backend(workers, address, cache, gpus_per_worker)
    path = out or dated("compare", spec.name)
    comparison.create(path, config)
    if run:
        record_look(run, spec.name, len(config.losses))
    carry_on(path, backend, as_json)


def carry_on(path: Path, backend: "Backend", as_json: bool) -> None:
    """Train what is left of the comparison in a directory, and print its tables."""
    from evoloss import comparison

    config = comparison.load(path)
    due = sum(contest.trainings for contest in config.contests())
    with interruptible(f"nothing finished is lost; continue: evoloss resume {path}"), counting(due, as_json) as tick:
        judged = comparison.carry_on(path, tick, backend)
    if as_json:
        print(json.dumps({"directory": str(path), "regimes": _as_json(judged)}))
        return
    for regime, group in judged.items():
        print(_protocol(config, regime))
        print_judged(group)
    print(f"tables: {path / 'comparison.csv'}, comparison.tex; every training: scores.csv")


def evaluate(
    expr: Annotated[str, typer.Option(help="The formula, such as '-y*log(p)'.")],
    dataset: Dataset = "digits",
    seeds: Seeds = 5,
    seed: Seed = 0,
    proxy: Proxy = None,
    task: vision.Task = "classification",
    model: vision.Model = None,
    image_size: vision.ImageSize = None,
    amp: vision.Amp = False,
    pretrained: vision.Pretrained = False,
    space: Space = "hybrid",
    samples: DrawnSamples = None,
    epochs: Epochs = None,
    lr: Rates = None,
    optimizer: Optimizer = "adam",
    batch_size: Batch = None,
    label_noise: LabelNoise = 0.0,
    imbalance: Imbalance = 1.0,
    run: Annotated[Path | None, typer.Option(help="The run that the formula is from, to note the look there.")] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: Gpus = None,
    cache: Cache = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train with a formula on fresh seeds and score it on the test split, beside cross-entropy."""
    from evoloss import comparison
    from evoloss.config import load_space
    from evoloss.records import DataSpec

    text = canonical(expr)
    comparison.check_formula(text)
    spec = DataSpec(full_path(dataset), data_dir, None, label_noise, imbalance, seed)
    changes = {"samples": samples, "epochs": epochs, "batch_size": batch_size}
    rates, where = read_rates(lr), read_device(device, gpus_per_worker)
    asked = Asked(text, spec, load_space(space), changes, optimizer, rates, seeds, where, run, as_json)
    network = vision.read_network(task, model, image_size, amp, pretrained)
    if network is None:
        config, judged = _by_proxy(asked, proxy, read_backend(workers, address, cache, gpus_per_worker))
        conditions, score = "", "accuracy"
    else:
        vision.refuse(
            {
                "--proxy": proxy,
                "--workers": workers or None,
                "--address": address,
                "--cache": cache,
                "--gpus-per-worker": gpus_per_worker,
            }
        )
        config, judged, conditions = vision.judged(asked, network)
        score = network.score
    _print_evaluation(_protocol(config, optimizer) + conditions, score, judged, as_json)


def _by_proxy(asked: Asked, proxy: str | None, backend: "Backend") -> "tuple[Comparison, list[Judgement]]":
    """The formula beside cross-entropy on a small network of our own, in worker processes."""
    from evoloss import comparison, data
    from evoloss.directory import record_look

    proxy = proxy or data.default_proxy(asked.spec.name)
    loaded = data.load(asked.spec, data.ROLES)
    comparison.check_samples(asked.changes["samples"], loaded)
    rungs = comparison.rungs_of(asked.space, proxy, asked.changes, [asked.optimizer], asked.rates)
    config = comparison.configured(asked.spec, loaded, proxy, asked.losses, rungs, asked.seeds, asked.device)
    if asked.run:
        record_look(asked.run, asked.spec.name, 1)
    with interruptible("nothing was kept"), counting(config.contests()[0].trainings, asked.as_json) as tick:
        return config, comparison.once(config, loaded, tick, backend)


def _print_evaluation(protocol: str, score: str, judged: "list[Judgement]", as_json: bool) -> None:
    failed = next((j.standing for j in judged if j.standing.status != "ok"), None)
    if failed:
        raise EvolossError(f"`{failed.expression}` is {failed.status}: {failed.detail}")
    if as_json:
        standings = _as_json({"": judged})[""]
        print(json.dumps({"protocol": protocol, "score": score, "standings": standings}))
        return
    print(protocol)
    print_judged(judged, score)


def _protocol(config: "Comparison", regime: str) -> str:
    rung = config.rungs[regime]
    rates = ", ".join(f"{rate:g}" for rate in rung.rates)
    return f"{config.dataset}, {config.proxy}, {rung.extent}, {rung.optimizer} at {rates}, {config.seeds} fresh seeds"


def _as_json(judged: "dict[str, list[Judgement]]") -> dict[str, Any]:
    from dataclasses import asdict

    return {regime: [asdict(judgement) for judgement in group] for regime, group in judged.items()}
