import math

import pytest
import torch
from hypothesis import assume, given, settings
from strategies import scalars, short_number

from evoloss.errors import EvolossError
from evoloss.export.signature import signature
from evoloss.export.source import NUMBERS, TORCH, stable, statements
from evoloss.export.torchfile import torch_file
from evoloss.expression import Expression
from evoloss.layouts import triplets
from evoloss.lower import Loss
from evoloss.operators import OPERATORS
from evoloss.syntax import read


def lines(text):
    return statements(stable(read(text)), TORCH, lambda name, code: f"{name}({code})")


def test_every_function_is_spelled():
    infix = {"add", "sub", "mul", "div", "pow", "neg"}
    assert set(TORCH.functions) == {*OPERATORS, "logsigmoid"} - infix
    assert set(NUMBERS) == set(TORCH.functions)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-y*log(p)", ["value = cls(-y * log_p)"]),
        ("y*log(sigmoid(z))", ["value = cls(y * functional.logsigmoid(z))"]),
        ("y*log(1 + exp(-z))", ["value = cls(y * functional.softplus(-z))"]),
        ("(1 - p)**2*y", ["value = cls((1 - p) ** 2 * y)"]),
        ("y*d**2", ["value = cls(y * d**2)"]),
        ("(-2)**(p*y)", ["value = cls((-2) ** (p * y))"]),
        ("-(p**y)**-2", ["value = cls(-(p**y) ** -2)"]),
        ("y - (p - z) - p/(y/z)", ["value = cls(y - (p - z) - p / (y / z))"]),
        ("max(p, 0.1, y)", ["value = cls(torch.maximum(torch.clamp(p, min=0.1), y))"]),
        ("min(log(K), p*y)", ["value = cls(torch.clamp(p * y, max=math.log(K)))"]),
        ("cls(y*p) + cls(2)", ["value = cls(y * p) + cls(torch.full_like(y, 2))"]),
        ("sin(p*y) + cos(p*y)", ["t1 = p * y", "value = cls(torch.sin(t1) + torch.cos(t1))"]),
    ],
)
def test_how_it_is_written(text, expected):
    assert lines(text) == expected


def test_long_formulas_are_cut_into_lines():
    text = " + ".join(f"sin(y*p + {n})*exp(-{n}*p)" for n in range(1, 20))
    assert all(len(line) < 120 for line in lines(text))
    assert len(lines(text)) > 5


@settings(max_examples=40, deadline=None)
@given(node=scalars(short_number))
def test_the_code_of_any_formula_computes_what_the_loss_does(node):
    """Where rounding, in the thirteenth digit of what goes in, does not decide."""
    try:
        expression = Expression.from_node(node)
        assume(expression.sees_logits or expression.sees_embeddings)
        shape = signature(expression)
        values = [_loss(expression, wobble) for wobble in (0.0, 1e-12, -1e-12)]
    except (EvolossError, OverflowError):
        assume(False)
    assume(all(map(math.isfinite, values)))
    namespace = {}
    exec(torch_file(expression, "found", "Found", "A loss.", 1.0), namespace)
    tensors = _batch(0.0)
    wanted = [*shape.predictions, *["centers"] * shape.centers, *["triplets"] * shape.triplets]
    sizes = {"num_classes": 4} if shape.num_classes else {}
    try:
        found = namespace["found"](**{name: tensors[name] for name in wanted}, **sizes).item()
    except (ArithmeticError, ValueError):
        assume(False)  # a part of K alone that Python's math refuses: such an export is refused as well
    spread = max(values) - min(values)
    assert abs(found - values[0]) <= 100 * spread + 1e-9 * max(abs(values[0]), 1.0)


def _batch(wobble):
    generator = torch.Generator().manual_seed(3)

    def drawn(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64) * (1 + wobble)

    target = torch.tensor([0, 1, 2, 0, 1])
    tensors = {"logits": drawn(5, 4), "embeddings": drawn(5, 3), "centers": drawn(4, 3)}
    return tensors | {"target": target, "triplets": torch.stack(triplets(target, 0))}


def _loss(expression, wobble):
    tensors = _batch(wobble)
    loss = Loss(expression, 4, 3).double()
    if loss.centers is not None:
        loss.centers.data = tensors["centers"]
    return loss(tensors["logits"], tensors["target"], tensors["embeddings"]).item()
