"""`evoloss simplify`: how much of a formula is needed?"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    ImbalanceOfRun,
    LabelNoiseOfRun,
    Optimizer,
    Proxy,
    Rates,
    Seed,
    Space,
    Workers,
    about_training,
    full_path,
    read_backend,
    read_device,
    read_rates,
)
from evoloss.cli.printing import AT_EDGE, interruptible, mean_sd, rate_of
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.backend import Backend
    from evoloss.simplify import Finalist, Outcome, Simplification

COLUMNS = ("formula", "complexity", "test accuracy", "minus the loss", "rate", "verdict")


def simplify(
    expr: Annotated[str, typer.Argument(help="A formula, a name of `evoloss baselines`, or RUN#rank.")],
    margin: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="The accuracy that a smaller formula may lose, as a fraction.")
    ] = 0.002,
    dataset: DatasetOfRun = None,
    seeds: Annotated[int, about_training(min=2, help="Fresh seeds of the confirmation.")] = 20,
    scouts: Annotated[int, about_training(min=1, help="Seeds on which smaller formulas are tried.")] = 3,
    seed: Seed = 0,
    proxy: Proxy = None,
    space: Space = "hybrid",
    samples: DrawnSamples = None,
    epochs: Epochs = None,
    lr: Rates = None,
    optimizer: Optimizer = "adam",
    batch_size: Batch = None,
    label_noise: LabelNoiseOfRun = None,
    imbalance: ImbalanceOfRun = None,
    out: Annotated[Path | None, typer.Option(help="The directory; default runs/<date>-simplify-<dataset>.")] = None,
    data_dir: DataDir = None,
    workers: Workers = None,
    address: Address = None,
    gpus_per_worker: Gpus = None,
    cache: Cache = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Leave out what a formula does not need: the smallest one that is statistically tied with it, by a margin."""
    from evoloss import comparison, data, simplify
    from evoloss.config import load_space, validated
    from evoloss.directory import dated, record_look
    from evoloss.formula import find
    from evoloss.records import DataSpec

    formula = find(expr)
    text, found = formula.expression.text, formula.found
    comparison.check_formula(text)
    given: dict[str, Any] = {"name": full_path(dataset) if dataset else None, "data_dir": data_dir}
    given |= {"label_noise": label_noise, "imbalance": imbalance}
    base = found.config.data() if found else DataSpec("digits")
    spec = replace(base, seed=seed, **{name: value for name, value in given.items() if value is not None})
    proxy = proxy or (found.config.proxy if found and not dataset else data.default_proxy(spec.name))
    loaded = data.load(spec)
    comparison.check_samples(samples, loaded)
    changes = {"samples": samples, "epochs": epochs, "batch_size": batch_size}
    grammar = found.config.space if found else load_space(space)
    rungs = comparison.rungs_of(grammar, proxy, changes, [optimizer], read_rates(lr))
    meeting = comparison.configured(
        spec, loaded, proxy, {text: text}, rungs, seeds, read_device(device, gpus_per_worker)
    )
    values = {"expression": text, "margin": margin, "scouts": scouts, "base": meeting}
    config = validated(simplify.Simplification, values, "the options")
    backend = read_backend(workers, address, cache, gpus_per_worker)
    path = out or dated("simplify", spec.name)
    simplify.create(path, config)
    if found:
        record_look(found.run, spec.name, simplify.FINALISTS + 2)
    carry_on(path, backend, as_json)


def carry_on(path: Path, backend: "Backend", as_json: bool) -> None:
    """Do what is left of the simplification in a directory, and print what came out."""
    from evoloss import simplify

    config = simplify.load(path)
    if not as_json:
        print(f"{config.expression}: {_protocol(config)}", flush=True)
    with interruptible(f"nothing finished is lost; continue: evoloss resume {path}"):
        outcome = simplify.carry_on(path, (lambda _: None) if as_json else _say, backend)
    if as_json:
        smallest = outcome.smallest.standing.expression if outcome.smallest else None
        finalists = [asdict(one) for one in outcome.finalists]
        print(json.dumps({"directory": str(path), "smallest": smallest, "finalists": finalists}))
        return
    if outcome.finalists:
        print_table(COLUMNS, [_row(one) for one in outcome.finalists])
        for one in outcome.finalists:
            if one.standing.detail:
                print(f"{one.standing.expression}: {one.standing.detail}")
    for line in _conclusion(config, outcome):
        print(line)
    tables = f"{path / 'simplify.csv'}, " if outcome.finalists else ""
    print(f"tables: {tables}{path / 'scouts.csv'}")


def _say(line: str) -> None:
    print(line, flush=True)


def _protocol(config: "Simplification") -> str:
    rung, base = config.rung, config.base
    rates = ", ".join(f"{rate:g}" for rate in rung.rates)
    return f"{base.dataset}, {base.proxy}, {rung.extent}, {rung.optimizer} at {rates}, margin {config.margin:g}"


def _row(one: "Finalist") -> list[str]:
    standing, gap = one.standing, one.gap
    return [
        standing.name or standing.expression,
        str(one.complexity),
        mean_sd(standing.test),
        f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]" if gap else "",
        rate_of(standing),
        one.verdict,
    ]


def _conclusion(config: "Simplification", outcome: "Outcome") -> list[str]:
    if not outcome.finalists:
        return [f"no smaller formula kept within {config.margin:g} on the {config.scouts} scouting seeds"]
    lines: list[str] = []
    if any(one.standing.at_edge for one in outcome.finalists):
        lines.append(AT_EDGE)
    lines.append(
        f"tied: the lower end of the 95 % interval is above -{config.margin:g}, on {config.base.seeds} fresh seeds and "
        "the test split; from the largest on, to the first that is not"
    )
    loss, smallest = outcome.finalists[0], outcome.smallest
    if smallest is None:
        return [*lines, "no smaller formula is tied with the loss: more seeds or a wider margin might show one"]
    size = f"complexity {smallest.complexity}, that of the loss is {loss.complexity}"
    lines.append(f"smallest tied formula: `{smallest.standing.expression}` ({size})")
    ce = next((one for one in outcome.finalists if one.verdict == "cross-entropy"), None)
    if ce is not None and ce.gap is not None and ce.gap.low > -config.margin:
        lines.append("mind that cross-entropy lies within the margin too: at this margin a tie says little")
    return lines
