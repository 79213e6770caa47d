"""The tests of an exported loss: cases with values and gradients of `lower.Loss`, in a file that knows torch alone."""

import json
import pprint
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evoloss.errors import EvolossError
from evoloss.export.signature import Signature, signature
from evoloss.expression import Expression
from evoloss.layouts import triplets
from evoloss.lower import Loss

SAMPLES, CLASSES, DIMENSIONS = 6, 4, 3
IGNORED = -100
DIGITS = 14  # significant, of the numbers in the file


@dataclass(frozen=True)
class Case:
    """Inputs of a loss by name, its options, and what comes out."""

    name: str
    inputs: dict[str, Tensor]
    value: Tensor
    gradients: dict[str, Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def literal(self) -> dict[str, Any]:
        """The case in plain numbers."""
        return {
            "name": self.name,
            "inputs": {name: _numbers(tensor) for name, tensor in self.inputs.items()},
            "options": self.options,
            "value": _numbers(self.value),
            "gradients": {name: _numbers(tensor) for name, tensor in self.gradients.items()},
        }


def cases(expression: Expression, scale: float, classes: int = CLASSES) -> list[Case]:
    """What the exported file is tested with, in double precision; the first case is the plain one.

    Raises `EvolossError` where the loss of an ordinary batch, or its gradient, is not finite.
    """
    shape = signature(expression)
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).mul(1000).round().div(1000)

    logits, embeddings, centers = drawn(SAMPLES, classes), drawn(SAMPLES, DIMENSIONS), drawn(classes, DIMENSIONS)
    weight = drawn(classes).abs() + 0.5
    target = torch.arange(SAMPLES) % min(classes, SAMPLES - 2)  # some agree
    soft = drawn(SAMPLES, classes).abs() + 0.1
    soft = (soft / soft.sum(1, keepdim=True)).mul(1000).round().div(1000)
    base = {"logits": logits, "target": target, "embeddings": embeddings, "centers": centers}

    def case(name: str, changes: dict[str, Tensor] | None = None, **options: Any) -> Case:
        return _case(name, expression, shape, base | (changes or {}), options, scale, classes)

    found = [case("plain")]
    if not all(bool(tensor.isfinite().all()) for tensor in (found[0].value, *found[0].gradients.values())):
        raise EvolossError(f"`{expression}`, or its gradient, is not finite on an ordinary batch: nothing to export")
    found += [case("ignored", {"target": target.index_fill(0, torch.tensor([0, 2]), IGNORED)})]
    found += [case("soft targets", {"target": soft})]
    if shape.weight:
        found += [case("weighted", {"weight": weight}), case("soft, weighted", {"target": soft, "weight": weight})]
    if shape.linear:
        found += [case("a number a sample", reduction="none"), case("summed", reduction="sum")]
    if shape.logits:
        found += [case("certain", {"logits": 40 * logits})]
    return [each for each in found if bool(each.value.isfinite().all())]


def _case(
    name: str,
    expression: Expression,
    shape: Signature,
    tensors: dict[str, Tensor],
    options: dict[str, Any],
    scale: float,
    classes: int,
) -> Case:
    reduction = options.get("reduction", "mean")
    loss = Loss(expression, classes, DIMENSIONS, reduction, weight=tensors.get("weight"), scale=scale).double()
    names = [*shape.predictions, *["centers"] * shape.centers, *["weight"] * ("weight" in tensors)]
    inputs = {word: tensors[word].clone() for word in names}
    leaves = {word: inputs[word].requires_grad_() for word in ("logits", "embeddings", "centers") if word in inputs}
    if shape.centers:
        loss.centers = torch.nn.Parameter(inputs["centers"].detach().clone())
        leaves["centers"] = loss.centers
    value = loss(inputs.get("logits"), inputs["target"], inputs.get("embeddings"))
    gradients = torch.autograd.grad(value.sum(), list(leaves.values()), allow_unused=True)
    if shape.triplets:
        inputs["triplets"] = _mined(inputs["target"])
    filled = {
        word: torch.zeros_like(leaf) if gradient is None else gradient
        for (word, leaf), gradient in zip(leaves.items(), gradients, strict=True)
    }
    return Case(name, {word: tensor.detach() for word, tensor in inputs.items()}, value.detach(), filled, options)


def _mined(target: Tensor) -> Tensor:
    """The triplets [3, T] that a `Loss` takes in its first step, as places among all samples, ignored ones included."""
    labels = target.argmax(1) if target.is_floating_point() else target
    places = (labels != IGNORED).nonzero().squeeze(1)
    return places[torch.stack(triplets(labels[places], 0))]


def check(text: str, function: str, expression: Expression, found: list[Case], classes: int = CLASSES) -> None:
    """Raise `EvolossError` where the text of a file does not compute what the cases say."""
    sizes = {"num_classes": classes} if signature(expression).num_classes else {}
    namespace: dict[str, Any] = {}
    exec(compile(text, f"{function}.py", "exec"), namespace)
    for case in found:
        try:
            value = namespace[function](**case.inputs, **sizes, **case.options)
        except (ArithmeticError, ValueError) as error:
            raise EvolossError(f"`{expression}` does not compute outside evoloss: {error}") from None
        if not torch.allclose(value, case.value, rtol=1e-9, atol=1e-12):
            both = f"{value.tolist()} outside evoloss and {case.value.tolist()} inside"
            raise EvolossError(f"`{expression}` is {both} in the case {case.name}: please report it")


def torch_tests(stem: str, module: str, expression: Expression, found: list[Case], classes: int = CLASSES) -> str:
    """The text of `test_<stem>.py` for torch."""
    available = {"num_classes": classes, "embedding_dim": DIMENSIONS}
    sizes = {name: available[name] for name in signature(expression).sizes}
    imports = f"from {stem} import {module} as Module\nfrom {stem} import {stem} as function"
    return _tests(stem, "portable_test.py", imports, sizes, found)


def jax_tests(stem: str, function: str, expression: Expression, found: list[Case], classes: int = CLASSES) -> str:
    """The text of `test_<stem>.py` for JAX."""
    sizes = {"num_classes": classes} if signature(expression).num_classes else {}
    return _tests(stem, "portable_jax_test.py", f"from {stem} import {function} as function", sizes, found)


def _tests(stem: str, portable: str, imports: str, sizes: dict[str, int], found: list[Case]) -> str:
    """The source of a file of portable tests, with what it tests in the place of what it says there for the linters."""
    text = Path(__file__).with_name(portable).read_text(encoding="utf-8")
    head, _, rest = text.partition("\n\n# What the file")
    return _TESTS.format(
        stem=stem,
        head=head.partition('"""\n')[2].strip("\n"),
        imports=imports,
        sizes=json.dumps(sizes),
        cases=pprint.pformat([case.literal() for case in found], width=110, compact=True, sort_dicts=False)[1:-1],
        tests=rest.partition("\n\n\n")[2].strip("\n"),
    ).lstrip("\n")


_TESTS = '''
"""`{stem}.py` beside what evoloss computed when it was exported: run `python test_{stem}.py`, or pytest."""

{head}

{imports}

SIZES: dict[str, int] = {sizes}
# fmt: off
CASES: list[dict[str, Any]] = [
 {cases},
]
# fmt: on


{tests}


if __name__ == "__main__":
    unittest.main()
'''


def _numbers(tensor: Tensor) -> Any:
    return _rounded(tensor.tolist())


def _rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [_rounded(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if isinstance(values, float) else values
