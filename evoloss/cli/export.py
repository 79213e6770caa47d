"""`evoloss export`: a loss to take along."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    loss: Annotated[str, typer.Argument(help="A formula, a name of `evoloss baselines`, or RUN#rank.")],
    to: Annotated[
        Path, typer.Option(help="loss.py for torch or loss_jax.py for JAX, with tests beside it; or loss.tex.")
    ],
) -> None:
    """Write a loss as a file that does not need evoloss, with tests that do not either."""
    from evoloss import comparison, export, formula

    found = formula.find(loss)
    comparison.check_formula(found.expression.text)
    texts = export.files(found, to)
    export.save(texts)
    print(found.expression.text)
    print(f"written: {', '.join(map(str, texts))}")
    tests = [path.name for path in texts if path.name.startswith("test_")]
    for name in tests:
        print(f"try it: python {to.with_name(name)}")
