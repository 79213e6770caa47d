"""An exported loss as a Python file that knows torch alone: a function, its `nn.Module` twin, and what they carry."""

import ast
import inspect
from collections.abc import Iterable
from dataclasses import dataclass

from evoloss import portable
from evoloss.expression import Expression
from evoloss.lower import is_linear
from evoloss.operators import REDUCTIONS
from evoloss.source import LIKE, TORCH, is_number, stable, statements, subtrees
from evoloss.syntax import Node


@dataclass(frozen=True)
class Signature:
    """What an exported loss is called with: tensors in order, and of those what the module keeps as its own.

    `logits`, `embeddings`: [B, K, ...] and [B, E, ...], where the formula sees them; `centers` [K, E]; `num_classes`
    where no tensor tells it; `weight` where there is a term of classes; `triplets` where there is one of them.
    """

    node: Node
    logits: bool
    embeddings: bool
    centers: bool
    num_classes: bool
    weight: bool
    triplets: bool
    linear: bool

    @property
    def predictions(self) -> list[str]:
        """The tensors that a model makes, and the target."""
        first, *rest = [name for name in ("logits", "embeddings") if getattr(self, name)]
        return [first, "target", *rest]

    @property
    def sizes(self) -> list[str]:
        """The sizes that the module is made with."""
        return ["num_classes"] * (self.centers or self.num_classes) + ["embedding_dim"] * self.centers


def signature(expression: Expression) -> Signature:
    """The signature that a formula needs."""
    node = stable(expression.node)
    used = names_used(node)
    sees_classes = bool(used & {"K", "y"})
    return Signature(
        node,
        logits=expression.sees_logits,
        embeddings=expression.sees_embeddings,
        centers="d" in used,
        num_classes=sees_classes and not (expression.sees_logits or "d" in used),
        weight="class" in expression.layouts,
        triplets=bool(used & {"Dp", "Dn"}),
        linear=is_linear(expression.node),
    )


def names_used(node: Node) -> frozenset[str]:
    """The variables that the code of a tree reads: its own, and the one that gives a reduced number its shape."""
    parts = list(subtrees(node))
    filled = {
        LIKE[REDUCTIONS[part[0]].layout]
        for part in parts
        if isinstance(part, tuple) and part[0] in REDUCTIONS and is_number(part[1])
    }
    names = {part for part in parts if isinstance(part, str)} | filled
    return frozenset(names | ({"y"} if "d" in names else set()))


def torch_file(expression: Expression, function: str, module: str, head: str, scale: float) -> str:
    """The text of the file; `head` is its docstring."""
    shape = signature(expression)
    body = _function(shape, function)
    carried = _carried(body)
    imports = ["import math", ""] if "math." in body else []
    imports += ["import torch", "from torch import Tensor, nn"]
    imports += ["from torch.nn import functional"] if "functional." in body + carried else []
    texts = [
        _docstring(head) + "\n\n" + "\n".join(imports),
        f'FORMULA = "{expression.text}"{_LONG * (len(expression.text) > 107)}\nSCALE = {scale!r}',
        body,
        _module(shape, function, module),
        carried.rstrip("\n"),
    ]
    first, second, *rest = texts
    return first + "\n\n" + second + "".join(f"\n\n\n{text}" for text in rest) + "\n"


def _docstring(text: str) -> str:
    return '"""' + text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').rstrip("\n") + '\n"""'


def _function(shape: Signature, name: str) -> str:
    arguments = [f"{tensor}: Tensor" for tensor in shape.predictions]
    arguments += ["centers: Tensor"] * shape.centers + ["num_classes: int"] * shape.num_classes
    arguments += _options(shape, last=["triplets: Tensor | None = None"] * shape.triplets)
    weight = "weight" if shape.weight else "None"

    def reduce(reduction: str, code: str) -> str:
        return _REDUCED[reduction].format(code, weight)

    lines = [f"def {name}(", *(f"    {argument}," for argument in arguments), ") -> Tensor:"]
    lines += ['    """' + _SHAPES[shape.linear], *(f"    {line}" if line else "" for line in _told(shape)), '    """']
    if not shape.linear:
        lines += ['    if reduction != "mean":']
        lines += ['        raise ValueError(f\'this loss has only reduction="mean", not "{reduction}"\')']
    lines += [f"    {line}" for line in _variables(shape)]
    lines += [f"    {line}" for line in statements(shape.node, TORCH, reduce)]
    if shape.linear:
        lines += ['    if reduction == "mean":', "        return scale * value"]
        lines += ["    return _per_sample(scale * value, target, kept, reduction)"]
    else:
        lines += ["    return scale * value"]
    return "\n".join(lines)


def _options(shape: Signature, last: Iterable[str] = ()) -> list[str]:
    weight = ["weight: Tensor | None = None"] * shape.weight
    return [*weight, "ignore_index: int = -100", 'reduction: str = "mean"', "scale: float = SCALE", *last]


def _told(shape: Signature) -> list[str]:
    """What the docstring says of the arguments."""
    lines = [""]
    for word, told in _ARGUMENTS.items():
        if getattr(shape, word, True):
            lines += told
    return lines


def _variables(shape: Signature) -> list[str]:
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
    if "p" in used:
        lines += ["p = z.softmax(1).clamp(1e-7, 1.0)"]
    if "log_p" in used:
        lines += ["log_p = z.log_softmax(1)"]
    if "d" in used:
        lines += ["d = _center_distances(x, centers, y)"]
    if used & {"D", "Y", "Dp", "Dn"}:
        lines += [f"D, {'Y' if _needs_agree(shape) else '_'}, counted = _pairs(x, labels, kept)"]
    if shape.triplets:
        lines += ["if triplets is None:", "    triplets = _triplets(labels, counted)"]
        lines += ["Dp, Dn = D[triplets[0], triplets[1]], D[triplets[0], triplets[2]]"]
    return lines


def _needs_agree(shape: Signature) -> bool:
    heads = {part[0] for part in subtrees(shape.node) if isinstance(part, tuple)}
    return "Y" in names_used(shape.node) or "pair" in heads


def _module(shape: Signature, function: str, module: str) -> str:
    own = (["centers"] if shape.centers else []) + (["num_classes"] if shape.num_classes else [])
    options = [name for name, *_ in (option.split(":") for option in _options(shape))]
    arguments = ["self", *(f"{size}: int" for size in shape.sizes), *_options(shape)]
    lines = [f"class {module}(nn.Module):", f'    """`{function}` as a module{_TWIN[shape.centers]}', ""]
    lines += ["    weight: Tensor | None", ""] if shape.weight else []
    lines += ["    def __init__(", *(f"        {argument}," for argument in arguments), "    ) -> None:"]
    lines += ["        super().__init__()"]
    lines += ["        self.centers = nn.Parameter(torch.randn(num_classes, embedding_dim))"] * shape.centers
    lines += ["        self.num_classes = num_classes"] * shape.num_classes
    lines += ['        self.register_buffer("weight", weight)'] * shape.weight
    lines += [f"        self.{name} = {name}" for name in options if name != "weight"]
    forward = ["self", *(f"{tensor}: Tensor" for tensor in shape.predictions)]
    forward += ["triplets: Tensor | None = None"] * shape.triplets
    lines += ["", f"    def forward({', '.join(forward)}) -> Tensor:"]
    lines += [f'        """The loss of a batch; see `{function}`."""', f"        return {function}("]
    passed = [*shape.predictions, *(f"self.{name}" for name in (*own, *options))]
    passed += ["triplets"] * shape.triplets
    return "\n".join([*lines, *(f"            {argument}," for argument in passed), "        )"])


def _carried(body: str) -> str:
    """The source of the portable functions that the body calls, and of those that they call."""
    sources = {name: inspect.getsource(part) for name, part in vars(portable).items() if inspect.isfunction(part)}
    wanted: dict[str, None] = {}

    def want(text: str) -> None:
        for name in _called(text):
            if name in sources and name not in wanted:
                wanted[name] = None
                want(sources[name])

    want(body)
    return "\n\n\n".join(sources[name].rstrip("\n") for name in sources if name in wanted)


def _called(text: str) -> list[str]:
    return [node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)]


_LONG = "  # noqa: E501"

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

_TWIN = {
    False: '."""',
    True: ', with its centers.\n\n    Give `loss.parameters()` to an optimizer, such as SGD at 0.5.\n    """',
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
        "triplets: [3, T], indices of anchors, positives and negatives; by default all ordered pairs of one class,",
        "    with one negative each, drawn by torch's generator.",
    ],
}
