"""A formula as a torch module that drops in for `nn.CrossEntropyLoss`.

The numeric care that is taken, all of it: `p` is clamped to [1e-7, 1]; `log(p)` is log-softmax; a distance is
sqrt(max(squared, 1e-7)). Whatever else is non-finite stays non-finite.
"""

import math
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook

from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.layouts import Batch, Reduce
from evoloss.operators import OPERATORS, REDUCTIONS
from evoloss.syntax import Node


class Loss(nn.Module):
    """A formula as a module: `loss(logits, target)`, or `loss(logits, target, embeddings)` for losses of distances.

    Shapes: logits [B, K, ...]; target [B, ...] of class indices or [B, K, ...] of probabilities; embeddings
    [B, E, ...]. `logits` may be None where the formula sees neither `p` nor `z`. Trailing dimensions are samples.

    `weight` [K] weights classes as `nn.CrossEntropyLoss` does: with index targets a sample by its class (and the mean
    is weighted), with probability targets each class's term. Samples of `ignore_index` count for nothing; where none
    is left, all sums are empty. `reduction` "none" and "sum" need a formula that is linear in `cls` and `partner`.
    `scale` multiplies the result.

    A formula with `d` has `centers` [K, E], drawn from N(0, 1), as a parameter: give `loss.parameters()` to an
    optimizer. Centers of classes that are not in the batch get no gradient.

    Raises `EvolossError` (a `ValueError`) where an argument is missing or does not fit.
    """

    centers: nn.Parameter | None
    weight: Tensor | None

    def __init__(
        self,
        expression: Expression,
        num_classes: int,
        embedding_dim: int | None = None,
        reduction: Reduce = "mean",
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.expression = expression
        self.num_classes = num_classes
        self.reduction: Reduce = reduction
        self.ignore_index = ignore_index
        self.scale = scale
        self.steps = 0  # forward passes in training; seeds the negatives of triplets
        _check(expression, num_classes, reduction, weight)
        self.register_buffer("weight", weight)
        self._program = compile_node(expression.node, num_classes)
        self.centers = None
        if "d" in expression.variables:
            if embedding_dim is None:
                raise EvolossError(f"`{expression}` has learned centers (`d`): give embedding_dim=")
            self.centers = nn.Parameter(torch.randn(num_classes, embedding_dim, generator=generator))
            self.missed_steps = 0
            _watch_optimizers(self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_program"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Copies and pickles: the program is made anew, and the centers are watched here too."""
        super().__setstate__(state)
        self._program = compile_node(self.expression.node, self.num_classes)
        if self.centers is not None:
            _watch_optimizers(self)

    def forward(self, logits: Tensor | None, target: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """The loss of a batch: a scalar, or [B, ...] with `reduction="none"`."""
        batch, kept = self._batch(logits, target, embeddings)
        if self.training and torch.is_grad_enabled():
            self.steps += 1
            if self.centers is not None:
                _warn_unclaimed(self)
        with torch.autocast(target.device.type, enabled=False):  # a Gram matrix in half precision is off by percents
            result = self._program(batch)
        if self.scale != 1:
            result = self.scale * result
        if self.reduction == "mean":
            return result
        if self.reduction == "sum":
            return result.sum()
        if kept is not None:
            result = torch.zeros(kept.shape, dtype=result.dtype, device=result.device).masked_scatter(kept, result)
        return result.reshape(target.shape if batch.soft is None else (target.shape[0], *target.shape[2:]))

    def _batch(self, logits: Tensor | None, target: Tensor, embeddings: Tensor | None) -> tuple[Batch, Tensor | None]:
        """The batch without ignored samples, and the mask [N] of those kept (None where all are)."""
        z = self._rows("logits", logits, self.num_classes) if self.expression.sees_logits else None
        width = None if self.centers is None else self.centers.shape[1]
        x = self._rows("embeddings", embeddings, width) if self.expression.sees_embeddings else None
        soft = kept = None
        if target.is_floating_point():
            soft = self._rows("target", target, self.num_classes)
            labels = soft.argmax(1)
        else:
            labels = target.reshape(-1)
            ignored = labels == self.ignore_index
            if ignored.any():
                kept = ~ignored
                labels, z, x = (None if rows is None else rows[kept] for rows in (labels, z, x))
        samples = {len(rows) for rows in (z, x, labels) if rows is not None}
        if len(samples) > 1:
            raise EvolossError(f"logits, target and embeddings should have the same samples, not {sorted(samples)}")
        assert labels is not None
        return Batch(z, labels, soft, x, self.centers, self.num_classes, self.weight, self.reduction, self.steps), kept

    def _rows(self, name: str, tensor: Tensor | None, width: int | None) -> Tensor:
        """[B, C, ...] as [N, C], in at least single precision."""
        if tensor is None:
            raise EvolossError(f"`{self.expression}` needs {name}: call loss(logits, target, embeddings)")
        if tensor.ndim < 2 or (width is not None and tensor.shape[1] != width):
            raise EvolossError(f"{name} should have the shape [B, {width or 'E'}, ...], not {list(tensor.shape)}")
        rows = tensor if tensor.ndim == 2 else tensor.movedim(1, -1).reshape(-1, tensor.shape[1])
        return rows.float() if rows.dtype in (torch.float16, torch.bfloat16) else rows

    def extra_repr(self) -> str:
        """What `print(loss)` shows."""
        return f"{self.expression}, num_classes={self.num_classes}, reduction={self.reduction!r}, scale={self.scale:g}"


def _check(expression: Expression, num_classes: int, reduction: str, weight: Tensor | None) -> None:
    if not (expression.sees_logits or expression.sees_embeddings):
        raise EvolossError(f"a loss needs a prediction (p, z, d, D, Dp or Dn); `{expression}` sees none")
    if num_classes < 2:
        raise EvolossError(f"num_classes should be 2 or more, not {num_classes}")
    if reduction not in ("mean", "sum", "none"):
        raise EvolossError(f'reduction should be "mean", "sum" or "none", not {reduction!r}')
    if reduction != "mean" and _degree(expression.node) is None:
        raise EvolossError(
            f'reduction="{reduction}" needs a loss of single samples, linear in cls(...) and partner(...); '
            f'`{expression}` has only reduction="mean"'
        )
    if weight is not None:
        if weight.shape != (num_classes,):
            raise EvolossError(f"weight should have the shape [{num_classes}], not {list(weight.shape)}")
        if "class" not in expression.layouts:
            raise EvolossError(f"class weights apply to cls(...), which `{expression}` has not")


def _degree(node: Node) -> int | None:
    """0 for a constant, 1 for a formula linear in reductions over single samples, None for any other."""
    if isinstance(node, str | float):
        return 0
    name, *children = node
    if name in REDUCTIONS:
        return 1 if name in ("cls", "partner") else None
    degrees = [_degree(child) for child in children]
    if None in degrees:
        return None
    if not any(degrees):
        return 0
    if name in ("add", "sub", "neg") or (name == "div" and degrees[1] == 0):
        return 1
    return 1 if name == "mul" and 0 in degrees else None


# Losses whose centers no optimizer has stepped yet.
_unclaimed: "weakref.WeakSet[Loss]" = weakref.WeakSet()
_hooks: list[Any] = []


def _watch_optimizers(loss: Loss) -> None:
    _unclaimed.add(loss)
    if not _hooks:
        _hooks.append(register_optimizer_step_post_hook(_after_step))


def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    if _unclaimed:
        stepped = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        for loss in list(_unclaimed):
            if id(loss.centers) in stepped:
                _unclaimed.discard(loss)
            else:
                loss.missed_steps += 1


def _warn_unclaimed(loss: Loss) -> None:
    """Warn, once, when optimizers have stepped between two training batches and none of them had the centers."""
    if loss in _unclaimed and loss.steps > 1 and loss.missed_steps:
        _unclaimed.discard(loss)
        warnings.warn(
            "the centers of this loss do not move: give loss.parameters() to an optimizer, "
            "such as torch.optim.SGD(loss.parameters(), lr=0.5)",
            stacklevel=5,
        )
    loss.missed_steps = 0


def compile_node(node: Node, num_classes: int) -> Callable[[Batch], Tensor]:
    """A function from a batch to the loss: a list of torch calls, each distinct subtree computed once."""
    steps: list[tuple[Callable[..., Any] | str, tuple[int | float, ...]]] = []
    places: dict[Node, int | float] = {}

    def place(node: Node) -> int | float:
        """Where the value of a subtree lies: the number of its step, or the (float) constant itself."""
        if isinstance(node, float):
            return node
        if node == "K":
            return float(num_classes)
        if node not in places:
            places[node] = add_step(node)
        return places[node]

    def add_step(node: str | tuple[Any, ...]) -> int | float:
        if isinstance(node, str) or node == ("log", "p"):
            steps.append(("log_p" if isinstance(node, tuple) else node, ()))
        else:
            name, *children = node
            arguments = tuple(place(child) for child in children)
            if name in REDUCTIONS:
                steps.append((name, arguments))
            elif all(isinstance(argument, float) for argument in arguments):
                return _constant(name, arguments)
            else:
                steps.append((_function(name), arguments))
        return len(steps) - 1

    result = place(node)
    assert isinstance(result, int)

    def program(batch: Batch) -> Tensor:
        values: list[Any] = []
        for function, arguments in steps:
            inputs = [argument if isinstance(argument, float) else values[argument] for argument in arguments]
            if isinstance(function, str):
                word = getattr(batch, function)
                values.append(word(*inputs) if inputs else word)
            else:
                values.append(function(*inputs))
        return values[-1]

    return program


def _function(name: str) -> Callable[..., Any]:
    return _OWN.get(name) or getattr(torch, OPERATORS[name].torch)


def _constant(name: str, arguments: tuple[Any, ...]) -> float:
    """A function of numbers, such as log(K)."""
    return _function(name)(*(torch.tensor(argument, dtype=torch.float64) for argument in arguments)).item()


def _clamped(least: bool) -> Callable[..., Tensor]:
    """`torch.maximum` and `torch.minimum` refuse Python numbers.

    A tie with a number goes to the number, as in relu: what `clamp` does there changed with torch 2.14.
    """

    def function(a: Tensor | float, b: Tensor | float) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return torch.maximum(a, b) if least else torch.minimum(a, b)
        tensor, number = (a, b) if isinstance(a, Tensor) else (b, a)
        assert isinstance(tensor, Tensor)
        if math.isnan(number):  # as of log(K - 5) for four classes; a threshold would hide it
            return tensor + number
        if least:
            return functional.threshold(tensor, number, number)
        return -functional.threshold(-tensor, -number, -number)

    return function


# Where torch's function of that name takes no Python number, or lives elsewhere.
_OWN: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "softplus": functional.softplus,
    "max": _clamped(least=True),
    "min": _clamped(least=False),
}
