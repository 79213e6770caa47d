"""How often a loss is called better or worse than itself: `python -m benchmarks.false_verdicts`.

Cross-entropy against cross-entropy, the MLP on digits, disjoint seeds, 200 times; by the 95 % interval of a verdict one
in twenty should be called different. `--sweep` lets each side choose its learning rate with tuning seeds of its own, as
in `evoloss compare`: then two sides may train at different rates, and differ for that reason. Five minutes on two
cores, fifteen with `--sweep`.
"""

import argparse
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

from scipy.stats import binomtest

from evoloss import data, evidence, playoff
from evoloss.archive import Archive
from evoloss.config import load_space
from evoloss.contest import REFERENCE, Contender, Contest
from evoloss.records import DataSpec
from evoloss.workers import open_pool

COMPARISONS = 200
SEEDS = 5
BOUND = 0.07
DATA = DataSpec("digits")


def sides(sweep: bool) -> list[Contest]:
    """Each comparison's two sides, one after the other: the same formula, all seeds its own."""
    rung = playoff.full_rung(load_space("hybrid"), "mlp")
    if not sweep:
        rung = rung.model_copy(update={"rates": (0.003,)})
    loss = (Contender(REFERENCE, "ce"),)
    return [Contest("itself", DATA, "mlp", rung, loss, SEEDS, seed) for seed in range(2 * COMPARISONS)]


def main() -> None:
    """Train both sides of all comparisons, judge each, and print how the verdicts are spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", action="store_true", help="each side chooses its learning rate")
    sweep = parser.parse_args().sweep
    with closing(Archive(Path(":memory:"), DATA)) as archive, open_pool({None: data.load(DATA, data.ROLES)}) as pool:
        standings = [contest.standings(partial(archive.answers, pool=pool))[0] for contest in sides(sweep)]
    pairs = list(zip(standings[::2], standings[1::2], strict=True))
    verdicts = Counter(evidence.verdict(evidence.difference(a.test, b.test)) for a, b in pairs)
    wrong = COMPARISONS - verdicts["not distinguishable"]
    interval = binomtest(wrong, COMPARISONS).proportion_ci()
    unlike = sum(a.rate != b.rate for a, b in pairs)
    rates = f"swept by each side, {unlike} times with different outcomes" if sweep else "fixed"
    print(f"{COMPARISONS} comparisons of cross-entropy with itself, digits, mlp, {SEEDS} seeds a side, rates {rates}")
    print(", ".join(f"{word}: {count}" for word, count in sorted(verdicts.items())))
    share = f"{wrong / COMPARISONS:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
    print(f"called different: {share} (bound {BOUND:.0%}, promised {evidence.LEVEL:.0%})")


if __name__ == "__main__":
    main()
