"""Two ways to make a rung cheaper: `python -m benchmarks.shortcuts --out DIR`, DIR from `benchmarks.fidelity`.

Scoring on fewer select images, and interim scores: a longer training looked at after as many steps as a shorter one
has. The shorter one lets its learning rate fall to 0 and starts from nothing; the longer one can be continued. Both are
correlated (Spearman) with the same long trainings as the rungs are, at the rung's middle rate, and compared with what
they would replace on the same bootstrap resamples of the losses. Trains in this process, some ten seconds a loss, and
writes `shortcuts.csv` beside the other files.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import fidelity
from benchmarks.fidelity import FAILED, STUDIES, Entry
from evoloss import data, train
from evoloss.archive import Archive
from evoloss.config import Rung
from evoloss.evaluate import Workbench, decoder, prepare
from evoloss.evidence import Estimate, bootstrapped, rank_correlations
from evoloss.files import write_csv
from evoloss.lower import Loss
from evoloss.proxies import EMBEDDING_DIM
from evoloss.records import Budget, DataSpec, derive_seed
from evoloss.regimes import with_optimizer
from evoloss.tables import print_table
from evoloss.workers import open_pool

IMAGES = (500, 1_000, 2_000, 5_000, 10_000)  # of the select role; the last are all
INTERIM = "interim of the last rung"


class Observed(nn.Module):
    """A loss that looks at the clock of its training: before each of the `steps` it takes the model's score."""

    def __init__(self, loss: Loss, steps: Sequence[int], score: Callable[[], float]) -> None:
        super().__init__()
        self.loss = loss
        self.score = score
        self.scores = dict.fromkeys(steps, FAILED)
        self.step = 0

    def forward(self, logits: Tensor, labels: Tensor, embeddings: Tensor) -> Tensor:
        """The loss."""
        if self.step in self.scores:
            self.scores[self.step] = self.score()
        self.step += 1
        return self.loss(logits, labels, embeddings)


@dataclass(frozen=True)
class Observation:
    """Accuracies of one training: at its end by number of select images, and before that by step, on all of them."""

    final: dict[int, float]
    interim: dict[int, float]


def observe(
    workbench: Workbench, proxy: str, entry: Entry, budget: Budget, seed: int, steps: Sequence[int]
) -> Observation:
    """Train as `evoloss.evaluate` does, and look at the model before the `steps`."""
    samples = workbench.samples("train", budget.samples, derive_seed(seed, "samples"))
    select = workbench.samples("select")
    scored = {count: train.Samples(select.images[:count], select.labels[:count]) for count in IMAGES}
    model = workbench.proxy(proxy, derive_seed(seed, "weights"))
    generator = torch.Generator().manual_seed(derive_seed(seed, "centers"))
    classes = workbench.dataset.num_classes
    decode = decoder(entry.expression)

    def interim() -> float:
        right, _ = train._answers(model, select, train._references(model, loss, samples, decode))
        accuracy = int(right.sum()) / len(right)
        model.train()
        return accuracy

    formula = Loss(entry.expression, classes, EMBEDDING_DIM, scale=entry.scale, generator=generator)
    loss = Observed(formula, steps, interim)
    result = train.train(model, loss, samples, scored, budget, derive_seed(seed, "batches"), decode)
    return Observation({count: result.accuracy.get(count, FAILED) for count in IMAGES}, loss.scores)


def measured(
    workbench: Workbench, proxy: str, rungs: Sequence[Rung], losses: Sequence[Entry], seeds: Sequence[int]
) -> dict[tuple[Rung, str], np.ndarray]:
    """Scores [seeds, losses] of each rung by the way it is scored: so many images, or an interim of the last rung."""
    budgets = {rung: rung.budgets()[0] for rung in rungs}
    steps = {rung: fidelity.steps(budget) for rung, budget in budgets.items()}
    *shorter, last = rungs
    scores: dict[tuple[Rung, str], np.ndarray] = {}
    for rung in rungs:
        fidelity.say(f"{rung.optimizer}, {rung.samples:,} x {rung.epochs}")
        looks = [steps[other] for other in shorter] if rung is last else []
        table = [[observe(workbench, proxy, e, budgets[rung], seed, looks) for e in losses] for seed in seeds]
        scores |= {(rung, f"{n:,} images"): np.array([[o.final[n] for o in row] for row in table]) for n in IMAGES}
    for rung in shorter:
        scores[rung, INTERIM] = np.array([[o.interim[steps[rung]] for o in row] for row in table])
    return scores


def compared(scores: dict[tuple[Rung, str], np.ndarray], target: np.ndarray) -> list[dict[str, Any]]:
    """A row for each way of scoring: its correlation with the long training, and that less the rung's own."""
    curves = {
        place: np.mean([rank_correlations(line, target)[0] for line in table], axis=0)
        for place, table in scores.items()
    }
    rows = []
    for (rung, way), curve in curves.items():
        rho, gain = bootstrapped(curve), bootstrapped(curve - curves[rung, f"{IMAGES[-1]:,} images"])
        place = {"optimizer": rung.optimizer, "samples": rung.samples, "epochs": rung.epochs, "scored": way}
        rows.append(place | {"spearman": rho, "gain": gain})
    return rows


def main() -> None:
    """Train, compare, print the table and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=STUDIES, default="fashion-mnist")
    parser.add_argument(
        "--optimizer", type=fidelity.optimizers, default="adam,sgd", help="one or both, comma-separated"
    )
    parser.add_argument("--losses", type=int, help="as in benchmarks.fidelity")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of every training")
    parser.add_argument("--out", type=Path, help="the directory of benchmarks.fidelity; by default fidelity-DATASET")
    options = parser.parse_args()
    out = options.out or Path(f"fidelity-{options.dataset}")
    study, spec = STUDIES[options.dataset], DataSpec(options.dataset)
    dataset = data.load(spec)
    rows: list[dict[str, Any]] = []
    with closing(Archive(out / "archive.sqlite", spec)) as archive, open_pool({None: dataset}, 0) as pool:
        evaluate = partial(archive.answers, pool=pool)
        losses = fidelity.entries(study.proxy, options.losses, evaluate)
        for optimizer in options.optimizer:
            long = with_optimizer(study.long, optimizer)
            known = fidelity.trained(study.proxy, losses, long, fidelity.seeds_of("long", 1), evaluate)
            rungs = [with_optimizer(fidelity.middle(rung), optimizer) for rung in study.rungs]
            seeds = fidelity.seeds_of("rung", options.seeds)
            scores = measured(prepare({None: dataset})[None], study.proxy, rungs, losses, seeds)
            rows += compared(scores, fidelity.best(long, known, [0]))
    write(out / "shortcuts.csv", rows)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The table, on standard output and as CSV."""
    flat = [
        {key: value for key, value in row.items() if not isinstance(value, Estimate)}
        | {
            f"{key}_{part}".removesuffix("_value"): f"{value:.4f}"
            for key in ("spearman", "gain")
            for part, value in vars(row[key]).items()
        }
        for row in rows
    ]
    write_csv(path, flat[0], flat)
    cells = [
        [row["optimizer"], f"{row['samples']:,} x {row['epochs']}", row["scored"]]
        + [f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]" for e in (row["spearman"], row["gain"])]
        for row in rows
    ]
    print_table(("optimizer", "rung", "scored", "Spearman", "less the rung's own"), cells)


if __name__ == "__main__":
    main()
