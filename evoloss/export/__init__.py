"""`evoloss export`: a loss as files that know nothing of evoloss, with where it is from and how it was trained."""

import keyword
import re
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from evoloss.errors import EvolossError
from evoloss.export.jaxfile import jax_file
from evoloss.export.parity import CLASSES, cases, check, jax_tests, torch_tests
from evoloss.export.source import subtrees
from evoloss.export.torchfile import torch_file
from evoloss.expression import Expression
from evoloss.formula import Formula, Found
from evoloss.operators import REDUCTIONS, VARIABLES
from evoloss.playoff import full_rung
from evoloss.regimes import regimes_of
from evoloss.syntax import Node
from evoloss.train import CENTERS_RATE

WIDTH = 118

# Names that an exported file gives a meaning of its own, or that would hide a module that it imports.
_TAKEN = {"torch", "nn", "functional", "tensor", "jax", "jnp"} | sys.stdlib_module_names


def files(formula: Formula, path: Path) -> dict[Path, str]:
    """The files that an export to `path` makes, and their texts. Raises `EvolossError`."""
    for suffix, write in FORMATS.items():
        if path.name.endswith(suffix):
            return write(formula, path)
    raise EvolossError(f"--to should end in {', '.join(FORMATS)}, such as loss.py, not `{path.name}`")


def save(texts: dict[Path, str]) -> None:
    """Write files, none of which may exist. Raises `EvolossError`."""
    for path in texts:
        if path.exists():
            raise EvolossError(f"{path} exists: export to another name, or move it away")
    try:
        for path, text in texts.items():
            with path.open("x", encoding="utf-8") as handle:
                handle.write(text)
    except OSError as error:
        raise EvolossError(f"cannot write {error.filename}: {error.strerror}") from None


def _torch(formula: Formula, path: Path) -> dict[Path, str]:
    function = _function_name(path, path.stem)
    module = "".join(part.capitalize() for part in function.split("_"))
    classes = _classes(formula)
    found = cases(formula.expression, formula.scale, classes)
    text = torch_file(formula.expression, function, module, _head(formula, "torch"), formula.scale)
    check(text, function, formula.expression, found, classes)
    return {path: text, _beside(path): torch_tests(function, module, formula.expression, found, classes)}


def _jax(formula: Formula, path: Path) -> dict[Path, str]:
    function = _function_name(path, path.stem.removesuffix("_jax"))
    classes = _classes(formula)
    found = cases(formula.expression, formula.scale, classes)
    text = jax_file(formula.expression, function, _head(formula, "JAX"), formula.scale)
    return {path: text, _beside(path): jax_tests(path.stem, function, formula.expression, found, classes)}


def _function_name(path: Path, name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name) or {name, path.stem} & _TAKEN:
        wanted = "a name for a Python function of your own in lower case"
        raise EvolossError(f"--to should be {wanted}, such as loss.py or my_loss.py, not `{path.name}`")
    return name


def _classes(formula: Formula) -> int:
    return (formula.baseline and formula.baseline.classes) or CLASSES


def _beside(path: Path) -> Path:
    return path.with_name(f"test_{path.name}")


def _latex(formula: Formula, path: Path) -> dict[Path, str]:
    symbols = [f"    \\item[{{${latex}$}}] {_escaped(meaning)}" for _, latex, meaning in _legend(formula.expression)]
    lines = [
        *(f"% {line}".rstrip() for line in _paragraphs(formula)),
        r"\begin{equation}",
        rf"    \mathcal{{L}} = {formula.expression.latex}",
        r"\end{equation}",
        r"\begin{description}",
        *symbols,
        r"\end{description}",
    ]
    return {path: "\n".join(lines) + "\n"}


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def _head(formula: Formula, library: str) -> str:
    """The docstring of an exported file."""
    legend = _legend(formula.expression)
    widest = max(len(name) for name, *_ in legend)
    lines = _paragraphs(formula)
    end = lines.index("", 2)  # of the formula
    told = [f"    {name:<{widest}}  {meaning}" for name, _, meaning in legend]
    return "\n".join([*lines[:end], "", *told, *lines[end:-1], f"{lines[-1]} Needs {library} alone."])


def _paragraphs(formula: Formula) -> list[str]:
    """The formula, its origin, its scale and its recipe, in lines."""
    title = f"The loss `{formula.name}`" if formula.name else "A loss that evoloss found" if formula.found else "A loss"
    told = [
        f"Origin: {_origin(formula)}",
        f"Scale: {_scale(formula)}",
        f"Recipe: {_recipe(formula)}",
        f"Written by evoloss {version('evoloss')}.",
    ]
    lines = [f"{title}.", "", *textwrap.wrap(formula.expression.text, WIDTH - 4, break_long_words=False)]
    lines[2:] = [f"    {line}" for line in lines[2:]]
    for paragraph in told:
        lines += ["", *textwrap.wrap(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)]
    return lines


def _legend(expression: Expression) -> list[tuple[str, str, str]]:
    """Name, LaTeX and meaning of each variable and reduction of a formula."""
    seen: set[Node] = {part[0] if isinstance(part, tuple) else part for part in subtrees(expression.node)}
    variables = [(name, row.latex, row.meaning) for name, row in VARIABLES.items() if name in seen]
    reductions = [
        (f"{name}(.)", row.latex.format(r"\,\cdot\,"), row.meaning) for name, row in REDUCTIONS.items() if name in seen
    ]
    return variables + reductions


def _origin(formula: Formula) -> str:
    if formula.baseline:
        note = f" ({formula.baseline.note})" if formula.baseline.note else ""
        return f"{formula.baseline.paper}{note}."
    return _of_run(formula.found) if formula.found else "a formula that was given to evoloss."


def _of_run(found: Found) -> str:
    row, config = found.row, found.config
    name = Path(config.dataset.partition(":")[2]).name or config.dataset
    where = f"rank {row['rank']} of the evoloss run {found.run.resolve().name} ({name}, {config.proxy})."
    if not row["test_acc"]:
        return f"{where} It was in no playoff: its accuracy guided the search, and flatters it."
    seeds = f"On {row['test_n']} fresh seeds and the test split, accuracy {float(row['test_acc']):.4f}"
    if not row["delta_ce"]:
        return f"{where} {seeds}."
    low, mean, high = (float(row[name]) for name in ("delta_ce_low", "delta_ce", "delta_ce_high"))
    return f"{where} {seeds}, {mean:+.4f} [{low:+.4f}, {high:+.4f}] to cross-entropy's: {row['verdict']}."


def _scale(formula: Formula) -> str:
    if formula.found:
        return f"{formula.scale:g}; with it, the gradient at the start is as long as cross-entropy's, as in the search."
    return "1, the formula as it stands; a rate for it may differ from cross-entropy's by a large factor."


def _recipe(formula: Formula) -> str:
    if formula.found is None:
        return "none; sweep the learning rate."
    config, row = formula.found.config, formula.found.row
    regime = regimes_of(config)[0]
    searched = regime.rungs[-1]
    rung = full_rung(config.space, regime.proxy) if row["test_acc"] else searched  # `lr` is of the last training
    lines = [
        f"{searched.optimizer} at {row['lr']}, falling linearly to 0" if row["lr"] else searched.optimizer,
        f"batches of {rung.batch_size}",
        rung.extent,
    ]
    lines += [f"images {' and '.join(done)}" for done in [_augmented(rung.flips, rung.shifts)] if done]
    if "d" in formula.expression.variables:
        lines.append(f"centers: SGD at {CENTERS_RATE:g}, falling as well")
    return f"{', '.join(lines)}. Elsewhere, sweep the learning rate."


def _augmented(flips: bool, shifts: bool) -> list[str]:
    return [word for word, done in (("flipped", flips), ("shifted", shifts)) if done]


# By how the name of the file ends.
FORMATS: dict[str, Callable[[Formula, Path], dict[Path, str]]] = {"_jax.py": _jax, ".py": _torch, ".tex": _latex}
