"""`evoloss evaluate`."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli.options import (
    Address,
    AsJson,
    DataDir,
    Dataset,
    Device,
    Imbalance,
    LabelNoise,
    Proxy,
    Samples,
    Space,
    Workers,
    read_device,
    read_rates,
)
from evoloss.cli.progress import progress_bar
from evoloss.errors import EvolossError
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.playoff import Standing


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
    rates = read_rates(lr) or sorted({rate for rung in last if rung.epochs == last[-1].epochs for rate in rung.rates})
    changes = {"samples": samples, "epochs": epochs, "optimizer": optimizer, "batch_size": batch_size}
    values = last[-1].model_dump() | {"rates": rates} | {k: v for k, v in changes.items() if v is not None}
    rung = validated(Rung, values, "evaluate")
    spec = DataSpec(dataset, data_dir, samples, label_noise, imbalance, seed)
    contenders = list(dict.fromkeys([expression, Expression.parse(BASELINES["ce"].expression)]))
    loaded = data.load(spec, ("train", "select", "test"))
    try:
        with open_pool(loaded, workers, address, read_device(device)) as pool, progress_bar(as_json) as tick:
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
