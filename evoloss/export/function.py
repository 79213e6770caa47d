"""An exported loss as the text of a function, and of the portable functions that it carries along."""

import ast
from pathlib import Path

from evoloss.export.signature import Signature, names_used
from evoloss.export.source import Dialect, statements, subtrees
from evoloss.expression import Expression
from evoloss.tables import plain


def function_text(shape: Signature, name: str, dialect: Dialect) -> str:
    """The definition of the function."""
    weight = "weight" if shape.weight else "None"

    def reduce(reduction: str, code: str) -> str:
        return _REDUCED[reduction].format(code, weight)

    arguments = [f"    {argument}," for argument in _arguments(shape, dialect)]
    lines = [f"def {name}(", *arguments, f") -> {dialect.array}:"]
    lines += [
        '    """' + _SHAPES[shape.linear],
        *(f"    {line}" if line else "" for line in _told(shape, dialect)),
        '    """',
    ]
    if not shape.linear:
        lines += ['    if reduction != "mean":']
        lines += ['        raise ValueError(f\'this loss has only reduction="mean", not "{reduction}"\')']
    lines += [f"    {line}" for line in _variables(shape, dialect)]
    lines += [f"    {line}" for line in statements(shape.node, dialect, reduce)]
    if shape.linear:
        lines += ['    if reduction == "mean":', "        return scale * value"]
        lines += ["    return _per_sample(scale * value, target, kept, reduction)"]
    else:
        lines += ["    return scale * value"]
    return "\n".join(lines)


def _arguments(shape: Signature, dialect: Dialect) -> list[str]:
    needed = [*shape.predictions, *["centers"] * shape.centers]
    arguments = [f"{name}: {dialect.array}" for name in needed] + ["num_classes: int"] * shape.num_classes
    if shape.triplets and not dialect.mines:
        return [*arguments, f"triplets: {dialect.array}", *options(shape, dialect)]
    last = [f"triplets: {dialect.array} | None = None"] * shape.triplets
    return [*arguments, *options(shape, dialect), *last]


def options(shape: Signature, dialect: Dialect) -> list[str]:
    """The arguments that have a default, as they are declared."""
    weight = [f"weight: {dialect.array} | None = None"] * shape.weight
    return [*weight, "ignore_index: int = -100", 'reduction: str = "mean"', "scale: float = SCALE"]


def _told(shape: Signature, dialect: Dialect) -> list[str]:
    """What the docstring says of the arguments."""
    lines = [""]
    for word, told in _ARGUMENTS.items():
        if getattr(shape, word, True):
            lines += told
    return lines + (_MINED if shape.triplets and dialect.mines else [])


def _variables(shape: Signature, dialect: Dialect) -> list[str]:
    """The lines that compute what the formula sees."""
    used = names_used(shape.node)
    lines = ["labels, kept = _labels(target, ignore_index)"]
    if shape.logits:
        lines += ["z = _kept(_rows(logits), kept)"]
    if shape.embeddings:
        lines += ["x = _kept(_rows(embeddings), kept)"]
    if used & {"K", "y"} and not shape.num_classes:
        lines += ["num_classes = " + ("z.shape[1]" if shape.logits else "centers.shape[0]")]
    if "K" in used:
        lines += ["K = float(num_classes)"]
    if "y" in used:
        lines += [f"y = _targets(target, labels, num_classes, {'z' if shape.logits else 'x'})"]
    lines += [f"{name} = {code}" for name, code in dialect.variables.items() if name in used]
    if "d" in used:
        lines += ["d = _center_distances(x, centers, y)"]
    if used & {"D", "Y", "Dp", "Dn"}:
        lines += [f"D, {'Y' if _needs_agree(shape) else '_'}, counted = _pairs(x, labels, kept)"]
    if shape.triplets and dialect.mines:
        lines += ["if triplets is None:", "    triplets = _triplets(labels, counted)"]
    if shape.triplets:
        lines += ["Dp, Dn = D[triplets[0], triplets[1]], D[triplets[0], triplets[2]]"]
    return lines


def _needs_agree(shape: Signature) -> bool:
    heads = {part[0] for part in subtrees(shape.node) if isinstance(part, tuple)}
    return "Y" in names_used(shape.node) or "pair" in heads


def carried(body: str, portable: str) -> str:
    """The functions of `portable.py`, or of its like, that the body calls, and those that these call: their source.

    The file is read and not imported: it may be of a library that is not installed.
    """
    text = Path(__file__).with_name(portable).read_text(encoding="utf-8")
    parts = {part.name: part for part in ast.parse(text).body if isinstance(part, ast.FunctionDef)}
    wanted: set[str] = set()

    def want(tree: ast.AST) -> None:
        called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        for name in (called & set(parts)) - wanted:
            wanted.add(name)
            want(parts[name])

    want(ast.parse(body))
    sources = [ast.get_source_segment(text, part) or "" for name, part in parts.items() if name in wanted]
    return "\n\n\n".join(sources)


def file_text(head: str, imports: list[str], expression: Expression, scale: float, parts: list[str]) -> str:
    """The text of a file: its docstring, its imports, the formula and its scale, and then the parts."""
    docstring = plain(head).replace("\\", "\\\\").replace('"""', '\\"\\"\\"').rstrip("\n")
    long = "  # noqa: E501" if len(expression.text) > 107 else ""
    constants = f'FORMULA = "{expression.text}"{long}\nSCALE = {scale!r}'
    return "\n\n\n".join([f'"""{docstring}\n"""\n\n' + "\n".join(imports) + f"\n\n{constants}", *parts]) + "\n"


_REDUCED = {
    "cls": "_cls({}, target, labels, kept, {}, reduction)",
    "pair": "_pair({}, Y, counted)",
    "partner": "_partner({}, kept, counted, reduction)",
    "trip": "_trip({})",
}

_SHAPES = {
    True: 'The loss of a batch: a scalar, or [B, ...] with `reduction` "none".',
    False: "The loss of a batch: a scalar.",
}

# By the field of a signature; what is no field is always told.
_ARGUMENTS = {
    "logits": ["logits: [B, K, ...], before any softmax."],
    "target": ["target: [B, ...] of class indices, or [B, K, ...] of probabilities."],
    "embeddings": ["embeddings: [B, E, ...], what the last layer of the model sees."],
    "centers": ["centers: [K, E], learned, one a class."],
    "weight": [
        "weight: [K]; counts a sample by its class (and the mean is weighted), or each class's term where the target",
        "    is probabilities, as `nn.CrossEntropyLoss` does.",
    ],
    "samples": [
        "Trailing dimensions are samples. Those of `ignore_index` count for nothing; `scale` multiplies the result."
    ],
    "triplets": [
        "triplets: [3, T], indices of anchors, positives and negatives.",
    ],
}

_MINED = ["    By default all ordered pairs of one class, each with one negative drawn by torch's generator."]
