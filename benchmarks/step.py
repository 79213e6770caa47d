"""What an evolved loss costs beside `F.cross_entropy`, a whole training step: `python -m benchmarks.step [--out FILE]`.

The two proxies of the search at their batch sizes, one thread; three minutes. In every round each loss takes one step,
in random order, on the same model, and the ratio is the median over the rounds of its time to that of
`F.cross_entropy`: what else the machine does falls on all alike. Times are of the processor, not of the wall clock. The
learning rate is 0, so that the weights stay and every step does the same work.

The last column is the work of the network (its matrix products and convolutions, forward and backward) over the time of
the step, as a share of the fastest matrix product that torch has for this processor. Writes the table as CSV.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from evoloss.expression import Expression
from evoloss.files import write_csv
from evoloss.lower import Loss
from evoloss.machine import processor
from evoloss.proxies import EMBEDDING_DIM, build
from evoloss.syntax import Node
from evoloss.tables import print_table
from evoloss.train import OPTIMIZERS, flattened

CLASSES = 10
SIDE = 1024  # of the square matrices that are multiplied for the peak
PRODUCTS = 20
COLUMNS = ("proxy", "loss", "nodes", "ms", "ratio", "peak_share")
REFERENCE = "F.cross_entropy"

# Three of logits, four of embeddings. Searches found all but the third, which is the sum of two that they found.
LOSSES = (
    "-cls(p**cos(y))",
    "-cls(-cos(cos(p)) - sin(p*(y + 1) - 2.4092))",
    "cls(exp(3.35 - p*(y + 1)) - cos(cos(sin(cos(sin(z))*tanh(K/p))))) + 0.01*cls(p*softplus(y))",
    "pair(D + Y*D**3)",
    "trip(relu(Dp**2 + 0.91 - Dn**2))",
    "pair(D) - 0.1*partner(log(D**2 + 1)*(1 - Y))",
    "cls(-y*log(p)) + 0.00888*cls(d**1.52*sigmoid(d*y)/sqrt(cos(sigmoid(z)**log(d))**2 + 1))",
)


class Setting(NamedTuple):
    """A proxy, the shape of its images and the batch size at which the search trains it."""

    proxy: str
    shape: tuple[int, int, int]
    batch_size: int
    rounds: int


MLP = Setting("mlp", (1, 28, 28), 128, 1000)
INCEPTION = Setting("inception", (3, 32, 32), 64, 200)


def cross_entropy(logits: Tensor, target: Tensor, _embeddings: Tensor) -> Tensor:
    """The reference, called as every loss is."""
    return functional.cross_entropy(logits, target)


def nodes(node: Node) -> int:
    """The size of a syntax tree."""
    return 1 + sum(map(nodes, node[1:])) if isinstance(node, tuple) else 1


def steps(setting: Setting, formulas: Iterable[str]) -> dict[str, Callable[[], None]]:
    """For the reference and each formula a training step on one batch, as in `evoloss.train`; the model is the same."""
    model = build(setting.proxy, setting.shape, CLASSES, seed=0)
    optimizer = OPTIMIZERS["adam"]([flattened(model)], 0.0)
    images = torch.randn(setting.batch_size, *setting.shape).contiguous(memory_format=torch.channels_last)
    target = torch.arange(setting.batch_size) % CLASSES

    def step_of(loss: Callable[..., Tensor]) -> Callable[[], None]:
        centers = list(loss.parameters()) if isinstance(loss, nn.Module) else []
        optimizers = [optimizer, torch.optim.SGD(centers, lr=0.0)] if centers else [optimizer]

        def step() -> None:
            for each in optimizers:
                each.zero_grad(set_to_none=False)
            embeddings, logits = model(images)
            loss(logits, target, embeddings).backward()
            for each in optimizers:
                each.step()

        return step

    losses = {text: Loss(Expression(text), CLASSES, EMBEDDING_DIM) for text in formulas}
    return {name: step_of(loss) for name, loss in {REFERENCE: cross_entropy, **losses}.items()}


def seconds(action: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def times(actions: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each action by round, the actions of a round in random order."""
    order, taken = list(actions), {name: [] for name in actions}
    for action in actions.values():
        action()
    for _ in range(rounds):
        random.shuffle(order)
        for name in order:
            taken[name].append(seconds(actions[name]))
    return taken


def peak() -> float:
    """Multiplications and additions a second of the fastest float32 product of large matrices.

    Torch multiplies by two libraries, of which on some processors one reaches half of what the other does: one does
    `mm`, the other 1x1 convolutions, here of 16 images of 64 pixels.
    """
    a, b = torch.randn(2, SIDE, SIDE)
    images = a.view(16, SIDE, 8, 8).contiguous(memory_format=torch.channels_last)
    kernels = b.view(SIDE, SIDE, 1, 1).contiguous(memory_format=torch.channels_last)
    products = {"mm": lambda: torch.mm(a, b), "convolution": lambda: torch.conv2d(images, kernels)}
    return 2 * SIDE**3 / min(min(taken) for taken in times(products, PRODUCTS).values())


def rows(setting: Setting, formulas: Iterable[str], fastest: float) -> Iterator[dict[str, Any]]:
    """A row of the table for the reference and each formula; `fastest` is the peak, in operations a second."""
    actions = steps(setting, formulas)
    with FlopCounterMode(display=False) as counter:
        actions[REFERENCE]()
    operations = counter.get_total_flops()
    taken = times(actions, setting.rounds)
    for name, column in taken.items():
        took = statistics.median(column)
        pairs = zip(column, taken[REFERENCE], strict=True)
        yield {
            "proxy": setting.proxy,
            "loss": name,
            "nodes": "" if name == REFERENCE else nodes(Expression(name).node),
            "ms": round(1e3 * took, 3),
            "ratio": round(statistics.median(own / reference for own, reference in pairs), 3),
            "peak_share": round(operations / took / fastest, 3),
        }


def main() -> None:
    """Measure, print the table, and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("step.csv"), help="the CSV file; by default step.csv")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    fastest = peak()
    table = [row for setting in (MLP, INCEPTION) for row in rows(setting, LOSSES, fastest)]
    print(f"{processor()}, one thread, matrix products at {fastest / 1e9:.0f} GFLOP/s")
    print_table(COLUMNS, [[str(row[column]) for column in COLUMNS] for row in table])
    write_csv(out, COLUMNS, table)


if __name__ == "__main__":
    main()
