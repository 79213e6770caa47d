"""What a formula's derivatives cost with autograd and without: `python -m benchmarks.gradient [FILE.csv]`.

Float32, batch 128, 10 classes, one thread, by the variables (the network is left out); each formula alternates between
the two in one process. Prints a table of microseconds and ratios, and writes it as CSV.
"""

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from benchmarks.basics import bred_trees
from evoloss.baselines import BASELINES
from evoloss.config import load_space
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.gradient import DIFFERENTIABLE, compile_gradient
from evoloss.layouts import Batch
from evoloss.lower import compile_node
from evoloss.syntax import Node
from evoloss.tree import Grammar

NAMED = ("ce", "ngl", "focal", "ls", "yukawa", "triplet", "center")
BRED = 50
ROUNDS, REPEATS = 30, 20  # alternations of this many calls
SIZE, CLASSES, WIDTH = 128, 10, 64


def make_batch(variables: Mapping[str, torch.Tensor] | None = None) -> Batch:
    """A batch whose differentiable variables are computed, or these."""
    generator = torch.Generator().manual_seed(0)
    logits, embeddings, centers = (
        torch.randn(*shape, generator=generator) for shape in ((SIZE, CLASSES), (SIZE, WIDTH), (CLASSES, WIDTH))
    )
    batch = Batch(logits, torch.arange(SIZE) % CLASSES, None, embeddings / 8, centers / 8, CLASSES)
    if variables:
        vars(batch).update(variables)
    for name in (*DIFFERENTIABLE, "y", "Y", "pair_weights"):
        getattr(batch, name)
    return batch


def by_autograd(node: Node, used: list[str]) -> Callable[[], object]:
    leaves = {name: getattr(make_batch(), name).clone().requires_grad_() for name in used}
    batch, program = make_batch(leaves), compile_node(node, CLASSES)
    return lambda: torch.autograd.grad(program(batch), list(leaves.values()))


def without(node: Node) -> Callable[[], object]:
    batch, program = make_batch(), compile_gradient(node, CLASSES)
    return lambda: program(batch)


def microseconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    for _ in range(REPEATS):
        action()
    return 1e6 * (time.perf_counter() - start) / REPEATS


def compare(formula: Expression) -> tuple[float, float, float]:
    """Median microseconds of a value with its derivatives, by autograd and without, and the median ratio."""
    used = list(compile_gradient(formula.node, CLASSES)(make_batch())[1])
    autograd, plain = by_autograd(formula.node, used), without(formula.node)
    pairs = [(microseconds(autograd), microseconds(plain)) for _ in range(ROUNDS)][ROUNDS // 5 :]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return first, second, statistics.median(a / b for a, b in pairs)


def bred_formulas() -> list[Expression]:
    """Different formulas of at most 40 nodes, as a run meets them."""
    grammar, found = Grammar(load_space("hybrid")), {}
    for tree in bred_trees(1000):
        try:
            formula = grammar.expression(tree)
        except EvolossError:
            continue
        if len(tree) <= 40:
            found[formula.key] = formula
    return list(found.values())[-BRED:]


def main() -> None:
    torch.set_num_threads(1)
    rows = [(name, compare(Expression.parse(BASELINES[name].expression))) for name in NAMED]
    bred = [compare(formula) for formula in bred_formulas()]
    columns = list(zip(*bred, strict=True))
    rows.append((f"{BRED} bred, median", tuple(statistics.median(column) for column in columns)))
    rows.append((f"{BRED} bred, least ratio", min(bred, key=lambda row: row[2])))
    lines = ["formula,autograd_us,program_us,ratio"]
    print(f"{'formula':24}{'autograd':>10}{'program':>10}{'ratio':>8}")
    for name, (autograd, plain, ratio) in rows:
        print(f"{name:24}{autograd:8.0f}us{plain:8.0f}us{ratio:8.2f}")
        lines.append(f'"{name}",{autograd:.1f},{plain:.1f},{ratio:.3f}')
    Path(sys.argv[1] if len(sys.argv) > 1 else "gradient.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
