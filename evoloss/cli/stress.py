"""`evoloss stress`: losses under wrong labels, rare classes and few samples, beside the hand-written ones."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli.options import (
    Address,
    AsJson,
    Batch,
    Cache,
    DataDir,
    DatasetOfRun,
    Device,
    DrawnSamples,
    Epochs,
    Gpus,
    Optimizer,
    Proxy,
    Rates,
    Seed,
    Seeds,
    Space,
    Workers,
    full_path,
    read_backend,
    read_device,
    read_rates,
)
from evoloss.cli.printing import AT_EDGE, counting, interruptible, mean_sd, rate_of
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.backend import Backend
    from evoloss.evidence import Difference
    from evoloss.stress import Stress, Stressed

COLUMNS = ("loss", "test accuracy", "minus cross-entropy", "p (Holm)", "verdict", "ECE", "minus cross-entropy", "rate")


def stress(
    expr: Annotated[list[str], typer.Argument(help="Formulas, names of `evoloss baselines`, or RUN#rank.")],
    losses: Annotated[str, typer.Option(help="Beside which of `evoloss baselines`; ce always.")] = "ce,focal,gce,ngl",
    conditions: Annotated[str, typer.Option(help="plain, noise-20, noise-40, long-tail, tenth; or all.")] = "all",
    dataset: DatasetOfRun = None,
    seeds: Seeds = 10,
    seed: Seed = 0,
    proxy: Proxy = None,
    space: Space = "hybrid",
    samples: DrawnSamples = None,
    epochs: Epochs = None,
    lr: Rates = None,
    optimizer: Optimizer = "adam",
    batch_size: Batch = None,
    out: Annotated[Path | None, typer.Option(help="The directory; default runs/<date>-stress-<dataset>.")] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: Gpus = None,
    cache: Cache = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Train losses under wrong labels, rare classes and few samples: accuracy and calibration on the test split."""
    from evoloss import comparison, data, stress
    from evoloss.config import load_space
    from evoloss.directory import dated, record_look
    from evoloss.formula import find
    from evoloss.records import DataSpec

    formulas = [find(text) for text in expr]
    for formula in formulas:
        comparison.check_formula(formula.expression.text)
    found = next((formula.found for formula in formulas if formula.found), None)
    base = DataSpec(found.config.dataset, found.config.data_dir) if found else DataSpec("digits")
    spec = DataSpec(full_path(dataset) if dataset else base.name, data_dir or base.data_dir, seed=seed)
    proxy = proxy or (found.config.proxy if found and not dataset else data.default_proxy(spec.name))
    loaded = data.load(spec)
    comparison.check_samples(samples, loaded)
    own = {formula.name or formula.expression.text: formula.expression.text for formula in formulas}
    wanted = own | comparison.named_losses(losses, loaded.num_classes)
    changes = {"samples": samples, "epochs": epochs, "batch_size": batch_size}
    grammar = found.config.space if found else load_space(space)
    rung = comparison.rungs_of(grammar, proxy, changes, [optimizer], read_rates(lr))[optimizer]
    names = stress.chosen(conditions)
    config = stress.configured(spec, loaded, proxy, wanted, rung, names, seeds, read_device(device, gpus_per_worker))
    backend = read_backend(workers, address, cache, gpus_per_worker)
    path = out or dated("stress", spec.name)
    stress.create(path, config)
    for run in {formula.found.run for formula in formulas if formula.found}:
        record_look(run, spec.name, len(config.losses))
    carry_on(path, backend, as_json)


def carry_on(path: Path, backend: "Backend", as_json: bool) -> None:
    """Train what is left of the stress test in a directory, and print its tables."""
    from evoloss import stress

    config = stress.load(path)
    due = sum(contest.trainings for contest in config.contests())
    with interruptible(f"nothing finished is lost; continue: evoloss resume {path}"), counting(due, as_json) as tick:
        stressed = stress.carry_on(path, tick, backend)
    if as_json:
        conditions = {name: [asdict(one) for one in group] for name, group in stressed.items()}
        print(json.dumps({"directory": str(path), "conditions": conditions}))
        return
    for name, group in stressed.items():
        print(f"{name}: {stress.CONDITIONS[name].description}; {_protocol(config, name)}")
        print_table(COLUMNS, [_row(one) for one in group])
    _print_notes(config, stressed)
    print(f"tables: {path / 'stress.csv'}; every training: scores.csv; picture: stress.png")


def _protocol(config: "Stress", name: str) -> str:
    rung = config.rungs[name]
    rates = ", ".join(f"{rate:g}" for rate in rung.rates)
    return f"{config.dataset}, {config.proxy}, {rung.extent}, {rung.optimizer} at {rates}, {config.seeds} fresh seeds"


def _row(one: "Stressed") -> list[str]:
    standing, judgement = one.standing, one.judgement
    return [
        standing.name or standing.expression,
        mean_sd(standing.test),
        _interval(judgement.gap),
        "" if judgement.p_holm is None else f"{judgement.p_holm:.2g}",
        judgement.verdict,
        mean_sd(standing.calibration),
        _interval(one.calibration),
        rate_of(standing),
    ]


def _interval(gap: "Difference | None") -> str:
    return f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" if gap else ""


def _print_notes(config: "Stress", stressed: "dict[str, list[Stressed]]") -> None:
    from evoloss.contest import REFERENCE
    from evoloss.stress import conclusion

    everyone = [one for group in stressed.values() for one in group]
    compared = sum(one.judgement.gap is not None for one in everyone)
    print(f"p is corrected for all {compared} comparisons of these tables; intervals are of pairs of one seed, 95 %")
    print("ECE: expected calibration error of the softmax, 15 bins, test split; none where embeddings decide")
    if any(one.standing.at_edge for one in everyone):
        print(AT_EDGE)
    for name, group in stressed.items():
        for one in group:
            if one.standing.detail:
                print(f"{name}: {one.standing.name or one.standing.expression}: {one.standing.detail}")
    for standing in [one.standing for one in next(iter(stressed.values()))]:
        if standing.key != REFERENCE.key and not standing.name:
            print(conclusion(stressed, standing.key))
