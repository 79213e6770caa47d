"""Does evolution beat chance in long trainings? `python -m benchmarks.long_control CONTROL`.

CONTROL is a directory that `evoloss search --with-control` made: repeats of evolution and of random search under one
budget, each with a winner. All winners train long (by default 50,000 samples x 10 epochs), every one at its best of the
same learning rates and on the same fresh seeds, and are scored on the test split. Prints the table of `evoloss compare`
and the difference, paired by repeat. The comparison is a directory inside CONTROL: the same command carries on.
"""

import argparse
import statistics
from pathlib import Path

from evoloss import comparison, control, data
from evoloss.cli.printing import print_judged
from evoloss.config import Rung
from evoloss.evidence import Judgement, difference, verdict
from evoloss.files import write_csv
from evoloss.report import read_table
from evoloss.tables import print_table

LONG = Rung(samples=50_000, epochs=10, rates=(1e-3, 2e-3, 4e-3), time_limit=3600)
SIDES = ("evolve", "random")


def winners(path: Path) -> list[tuple[str, ...]]:
    """The formulas that evolution and random search ended with, a pair a repeat."""
    return [tuple(row[f"{side}_expression"] for side in SIDES) for row in read_table(path, ("evolve_expression",))]


def accuracies(judged: list[Judgement]) -> dict[str, float]:
    """The mean test accuracy of each formula; one that failed on a seed counts as 0."""
    return {j.standing.expression: statistics.fmean(j.standing.test or (0.0,)) for j in judged}


def rows(pairs: list[tuple[str, ...]], known: dict[str, float], ce: float) -> list[dict[str, object]]:
    """A row a repeat."""
    return [
        {"repeat": number}
        | {f"{side}_test": known[text] for side, text in zip(SIDES, pair, strict=True)}
        | {"ce_test": ce}
        | {f"{side}_expression": text for side, text in zip(SIDES, pair, strict=True)}
        for number, pair in enumerate(pairs)
    ]


def main() -> None:
    """Train the winners long, print and write what they come to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("control", type=Path)
    parser.add_argument("--samples", type=int, default=LONG.samples)
    parser.add_argument("--epochs", type=int, default=LONG.epochs)
    parser.add_argument("--seeds", type=int, default=3, help="fresh ones")
    options = parser.parse_args()
    run = control.load(options.control).run
    pairs = winners(options.control / "control.csv")
    out = options.control / "long"
    if not (out / comparison.SETTINGS).exists():
        rung = LONG.model_copy(update={"samples": options.samples, "epochs": options.epochs})
        formulas = {text: text for pair in pairs for text in pair}
        loaded = data.load(run.data())
        config = comparison.configured(
            run.data(), loaded, run.proxy, formulas, {"adam": rung}, options.seeds, run.device
        )
        comparison.create(out, config)
    judged = comparison.carry_on(out, lambda _: None)["adam"]
    print_judged(judged)
    known = accuracies(judged)
    table = rows(pairs, known, known[comparison.REFERENCE.text])
    write_csv(options.control / "long.csv", table[0], table)
    print_table(list(table[0]), [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in r.values()] for r in table])
    gap = difference(*([known[pair[place]] for pair in pairs] for place in range(2)))
    shown = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.2g}: " if gap else ""
    print(f"evolution minus random search, mean test accuracy, paired over {len(pairs)} repeats: {shown}{verdict(gap)}")


if __name__ == "__main__":
    main()
