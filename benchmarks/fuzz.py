"""Strange formulas, as strangers might send them: `python -m benchmarks.fuzz [--inputs 100000] [--seed 0]`.

The corpus of `benchmarks.attacks`, then inputs of four kinds in turn: random characters, random words of the language,
formulas of the language, and mutations of all these. Each has to become a formula, or to end in `ExpressionError`, in
100 ms of the processor. Prints how many did what and the slowest; three minutes a hundred thousand. Ends with 1 where
one raised anything else, or one that was refused took longer. A formula of the language may take as long as the
driver allows.
"""

import argparse
import gc
import random
import string
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from benchmarks.attacks import ATTACKS, HEAVY, HUGE
from evoloss.baselines import BASELINES
from evoloss.config import load_space
from evoloss.expression import Expression
from evoloss.operators import FUNCTIONS, OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import ExpressionError, Node, write
from evoloss.tables import plain, print_table
from evoloss.tree import Grammar

BOUND = 0.1  # seconds of the processor, for what is refused
SHOWN = 90  # characters of a formula
COLLECT_EVERY = 500  # inputs
STRANGE = "\x00\x1b\t\n\u0440\uff50\u2212\u200b\ud800\U0001d429é²"
WORDS = (
    *FUNCTIONS,
    *REDUCTIONS,
    *VARIABLES,
    *"()()(),,+-*/ **.",
    *("log(", "-y*", "1e9", "0.3719", "999999", "1e-9", "1e999", "nan", "inf", "1j", "__class__", "lambda:", "[", "{"),
)


@dataclass
class Tally:
    """What became of the inputs: how many, and the slowest of each end in seconds."""

    ends: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, tuple[float, str]] = field(default_factory=dict)
    late: int = 0

    def count(self, text: str) -> None:
        """Parse one."""
        start = time.thread_time()
        try:
            Expression.parse(text)
            end = "a formula"
        except ExpressionError:
            end = "refused"
        except Exception as error:
            end = f"raised {type(error).__name__}"
        seconds = time.thread_time() - start
        self.ends[end] += 1
        self.slowest[end] = max(self.slowest.get(end, (0.0, "")), (seconds, text))
        self.late += end == "refused" and seconds > BOUND


def inputs(draw: random.Random) -> Iterator[str]:
    """Texts without end, four kinds in turn."""
    grammar = Grammar(load_space("hybrid"))
    known = [*ATTACKS, *HEAVY.values(), *(row.expression for row in BASELINES.values())]
    while True:
        yield "".join(draw.choices(string.printable + STRANGE, k=draw.randint(0, 60)))
        yield "".join(draw.choices(WORDS, k=draw.randint(1, 60)))
        text = write(_tree(draw, draw.choice(list(REDUCTIONS)), draw.randint(1, 6)))
        yield text
        yield _mutated(draw, draw.choice([*known, text, write(grammar._node(iter(grammar.draw(draw.randrange(999)))))]))


def _tree(draw: random.Random, reduction: str, height: int) -> Node:
    """A formula of any word of the language below a reduction."""
    names = [row.name for row in VARIABLES.values() if row.layout in (REDUCTIONS[reduction].layout, None)]

    def grow(height: int) -> Node:
        if height == 0 or draw.random() < 0.1:
            digits = draw.choice((1, 2, 2, 3, 6))
            number = float(f"{draw.uniform(-3, 3) * 10 ** draw.choice((0, 0, 0, -2, 5)):.{digits}g}")
            return number if draw.random() < 0.3 else draw.choice(names)
        row = draw.choice(list(OPERATORS.values()))
        return (row.name, *(grow(height - 1) for _ in range(row.arity)))

    return (reduction, grow(height))


def _mutated(draw: random.Random, text: str) -> str:
    """The text with a part taken out, doubled, wrapped or replaced, one to four times."""
    for _ in range(draw.randint(1, 4)):
        start = draw.randint(0, len(text))
        stop = min(len(text), start + draw.randint(0, 12))
        part = text[start:stop]
        word = draw.choice((*WORDS, *STRANGE))
        new = draw.choice(("", part * 2, word, part + word, f"({part})", f"{word}({part})"))
        text = text[:start] + new + text[stop:]
    return text


def main() -> None:
    """Parse them all, and print what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many, after the corpus")
    parser.add_argument("--seed", type=int, default=0, help="of the random ones")
    options = parser.parse_args()
    Expression.parse(BASELINES["ngl"].expression)  # imports sympy
    gc.disable()  # a pass over sympy's caches takes 0.1 s, and falls on whoever is next
    corpus, fuzzed = Tally(), Tally()
    for text in (*ATTACKS, *HUGE.values(), *HEAVY.values()):
        corpus.count(text)
    for number, text in enumerate(islice(inputs(random.Random(options.seed)), options.inputs)):
        if number % COLLECT_EVERY == 0:
            gc.collect()
        fuzzed.count(text)
    rows = [
        (name, f"{count:,}", end, f"{1000 * tally.slowest[end][0]:.0f}", plain(tally.slowest[end][1][:SHOWN]))
        for name, tally in (("corpus", corpus), ("fuzzed", fuzzed))
        for end, count in tally.ends.most_common()
    ]
    print_table(("inputs", "", "became", "slowest, ms", "of"), rows)
    escaped = sum(n for tally in (corpus, fuzzed) for end, n in tally.ends.items() if end.startswith("raised"))
    late = corpus.late + fuzzed.late
    print(f"{escaped} escaped the error class, {late} were refused after more than {1000 * BOUND:.0f} ms")
    sys.exit(bool(escaped or late))


if __name__ == "__main__":
    main()
