"""`evoloss explain`: the properties of a loss, proved, checked or refuted, and the known loss that it is most like."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli.options import AsJson
from evoloss.errors import EvolossError
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.analysis.explain import Explanation

MOST_CLASSES = 1000


def explain(
    loss: Annotated[str, typer.Argument(help="A formula, a name of `evoloss baselines`, or RUN#rank.", metavar="LOSS")],
    classes: Annotated[int, typer.Option(min=2, max=MOST_CLASSES, help="The number of classes.")] = 10,
    plot: Annotated[Path | None, typer.Option(help="Draw loss and gradient to this file (.png, .svg or .pdf).")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="For one proof; what takes longer stays open.")] = 10.0,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the properties as a LaTeX table.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a loss does: optimum, properties with proofs or counter-examples, the nearest known loss."""
    from evoloss.analysis.prover import Prover
    from evoloss.formula import find

    if as_latex and as_json:
        raise EvolossError("--latex and --json exclude each other: choose one")
    _check_file(plot)
    formula = find(loss)
    row = formula.baseline
    if row is not None and row.classes not in (None, classes):
        raise EvolossError(
            f"`{row.name}` is a loss for {row.classes} classes, not {classes}: add --classes {row.classes}"
        )
    if not (formula.expression.sees_logits or formula.expression.sees_embeddings):
        raise EvolossError(f"`{formula.expression}` has no prediction (p, z, d, D, Dp or Dn): nothing depends on it")
    with Prover(seconds) as prover:
        import torch

        from evoloss.analysis import explain as explaining

        torch.set_num_threads(1)
        explanation = explaining.explain(formula.expression, classes, prover)
        if plot:
            explaining.draw(plot, formula.expression, classes, prover)
    if as_json:
        print(json.dumps(explanation.as_json()))
    elif as_latex:
        print(explaining.latex_table(explanation), end="")
    else:
        _print(explanation)
        if plot:
            print(f"plot: {plot}")


def _check_file(plot: Path | None) -> None:
    """Raise `EvolossError` for a picture that could not be written at the end."""
    if plot is None:
        return
    if plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise EvolossError(f"--plot should name a .png, .svg or .pdf file, not `{plot}`")
    if plot.exists():
        raise EvolossError(f"{plot} exists: choose another file, or remove it")
    if not plot.absolute().parent.is_dir():
        raise EvolossError(f"--plot: there is no directory {plot.parent}")


def _print(explanation: "Explanation") -> None:
    from evoloss.analysis.explain import share_of

    print(f"{explanation.expression}, {explanation.num_classes} classes")
    if list(explanation.parts.values()) != [explanation.expression.text]:
        for kind, text in explanation.parts.items():
            print(f"its part that sees {kind}: {text}")
        for text in explanation.mixed:
            print(f"distances meet p or z in {text}, of which nothing is said here but what it is like")
    if explanation.places:
        print()
        logits = " (logits of mean 0)" if "z" in explanation.expression.variables else ""
        print_table(
            (
                f"prediction{logits}",
                "p of the right class",
                "loss",
                "derivative by the right logit",
                "length of the gradient",
            ),
            [
                [
                    row.name,
                    share_of(row, explanation.num_classes),
                    *(f"{x:.4g}" for x in (row.loss, row.slope, row.length)),
                ]
                for row in explanation.places
            ],
        )
    if explanation.initial_length:
        length = explanation.initial_length
        print(
            f"at uniform p the gradient is {length:.4g} times as long as cross-entropy's: "
            f"scale {1 / length:.4g} makes them equal"
        )
    print()
    said = [row for row in explanation.findings if row.verdict != "does not apply"]
    several = list(explanation.parts.values()) != [explanation.expression.text] and bool(explanation.parts)
    columns = ("property", *(["part"] if several else []), "verdict", "evidence")
    print_table(columns, [[row.property, *([row.part] if several else []), row.verdict, row.evidence] for row in said])
    reasons: dict[str, list[str]] = {}
    for row in explanation.findings:
        if row.verdict == "does not apply":
            reasons.setdefault(row.evidence, []).append(row.property)
    for reason, names in reasons.items():
        print(f"does not apply ({reason}): {', '.join(names)}")
    print()
    if not explanation.likenesses:
        print("like no known loss")
        return
    print_table(
        ("gradient by", "explained", "by", "formula"),
        [[row.input, f"{_percent(row.explained)}", row.name, row.formula] for row in explanation.likenesses],
    )


def _percent(share: float) -> str:
    """Never rounded up to all of it."""
    return "all" if share >= 1 - 1e-9 else f"{min(100 * share, 99.99):.2f} %"
