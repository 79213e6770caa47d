"""What the tests of an exported loss carry along: their source is copied beside the loss, so they know torch alone."""

import shutil
import unittest
import warnings
from typing import Any

import torch
from torch import Tensor, nn

# What the file that is written says; here, what the linters need.
function: Any = None
Module: Any = None
CASES: list[dict[str, Any]] = []
SIZES: dict[str, int] = {}


def tensors(case: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The inputs of a case, of this floating type, those that have a gradient as leaves."""
    inputs = {}
    for name, values in case["inputs"].items():
        tensor = torch.tensor(values, dtype=torch.float64)
        whole = name == "triplets" or (name == "target" and tensor.ndim == 1)
        inputs[name] = tensor.long() if whole else tensor.to(dtype).requires_grad_(name in case["gradients"])
    return inputs


def module(case: dict[str, Any], inputs: dict[str, Any]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module of a case, and what it is called with."""
    options = case["options"] | {name: inputs[name].detach() for name in ("weight",) if name in inputs}
    made = Module(**SIZES, **options)
    if "centers" in inputs:
        made.centers = nn.Parameter(inputs["centers"].detach())
    return made, tuple(tensor for name, tensor in inputs.items() if name not in ("weight", "centers"))


def sizes() -> dict[str, int]:
    """What the function is told of sizes: the number of classes, where no tensor has it."""
    return {name: size for name, size in SIZES.items() if name == "num_classes" and "embedding_dim" not in SIZES}


class Parity(unittest.TestCase):
    """The function and the module beside the values and gradients that evoloss computed in double precision."""

    def check(self, case: dict[str, Any], dtype: torch.dtype, rtol: float) -> None:
        """Compare one case; `rtol` is relative to the largest magnitude."""
        inputs = tensors(case, dtype)
        value = function(**inputs, **sizes(), **case["options"])
        self.near(value, case["value"], rtol)
        leaves = [inputs[name] for name in case["gradients"]]
        gradients = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
        for expected, gradient, leaf in zip(case["gradients"].values(), gradients, leaves, strict=True):
            self.near(torch.zeros_like(leaf) if gradient is None else gradient, expected, rtol)

    def near(self, found: Tensor, expected: Any, rtol: float) -> None:
        """Fail where two tensors differ by more than `rtol` times the largest magnitude that is expected."""
        wanted = torch.as_tensor(expected, dtype=torch.float64).detach()
        largest = float(wanted.abs().max()) if wanted.numel() else 0.0
        torch.testing.assert_close(found.detach().double(), wanted, rtol=0, atol=rtol * max(largest, 1e-6))

    def test_double_precision(self) -> None:
        """Values and gradients, to ten digits."""
        for case in CASES:
            with self.subTest(case["name"]):
                self.check(case, torch.float64, 1e-10)

    def test_single_precision(self) -> None:
        """Values and gradients of logits of ordinary size, to three digits."""
        for case in CASES:
            if case["name"] != "certain":
                with self.subTest(case["name"]):
                    self.check(case, torch.float32, 1e-3)

    def test_module(self) -> None:
        """The module says what the function says."""
        for case in CASES:
            with self.subTest(case["name"]):
                made, arguments = module(case, tensors(case, torch.float64))
                self.near(made(*arguments), case["value"], 1e-10)

    def test_trailing_dimensions(self) -> None:
        """[2, C, 3] is as good as [6, C]."""
        case = CASES[0]
        inputs = tensors(case, torch.float64)
        for name, tensor in inputs.items():
            if name == "target":
                inputs[name] = tensor.reshape(2, 3)
            elif name in ("logits", "embeddings"):
                inputs[name] = tensor.reshape(2, 3, -1).movedim(2, 1)
        self.near(function(**inputs, **sizes(), **case["options"]), case["value"], 1e-10)

    def test_bfloat16_autocast(self) -> None:
        """Under autocast the loss is computed in single precision, from inputs in half of it."""
        inputs = {name: tensor.detach() for name, tensor in tensors(CASES[0], torch.float32).items()}
        half = {
            name: tensor.bfloat16().requires_grad_() if name in ("logits", "embeddings") else tensor
            for name, tensor in inputs.items()
        }
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = function(**half, **sizes())
        assert value.dtype == torch.float32
        single = {name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor for name, tensor in half.items()}
        self.near(value, function(**single, **sizes()), 1e-6)
        value.backward()
        assert all(tensor.grad.isfinite().all() for tensor in half.values() if tensor.grad is not None)

    def test_torch_export(self) -> None:
        """`torch.export` sees one graph."""
        made, arguments = module(CASES[0], tensors(CASES[0], torch.float64))
        program = torch.export.export(made, tuple(tensor.detach() for tensor in arguments))
        self.near(program.module()(*(tensor.detach() for tensor in arguments)), CASES[0]["value"], 1e-10)

    def test_torch_jit_script(self) -> None:
        """`torch.jit.script`, which newer versions of torch call deprecated."""
        made, arguments = module(CASES[0], tensors(CASES[0], torch.float64))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scripted = torch.jit.script(made)
        self.near(scripted(*arguments), CASES[0]["value"], 1e-10)

    def test_torch_compile(self) -> None:
        """`torch.compile`, as one graph, forward and backward."""
        if not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))):
            self.skipTest("torch.compile needs a C++ compiler, and there is none")
        inputs = tensors(CASES[0], torch.float32)
        value = torch.compile(function, fullgraph=True)(**inputs, **sizes(), **CASES[0]["options"])
        self.near(value, CASES[0]["value"], 1e-3)
        name, expected = next(iter(CASES[0]["gradients"].items()))
        self.near(torch.autograd.grad(value, inputs[name])[0], expected, 1e-3)
