"""`portable_test.py` in JAX: what the tests of a loss exported to JAX carry along. Their source is copied."""

import unittest
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# What the file that is written says; here, what the linters need.
function: Any = None
CASES: list[dict[str, Any]] = []
SIZES: dict[str, int] = {}


def arrays(case: dict[str, Any], dtype: Any) -> dict[str, jax.Array]:
    """The inputs of a case, of this floating type."""
    whole = {"triplets"} | ({"target"} if np.ndim(case["inputs"]["target"]) == 1 else set())
    return {
        name: jnp.asarray(values, dtype=jnp.int32 if name in whole else dtype)
        for name, values in case["inputs"].items()
    }


class Parity(unittest.TestCase):
    """The function beside the values and gradients that evoloss computed in double precision."""

    def check(self, case: dict[str, Any], dtype: Any, rtol: float, jit: bool = False) -> None:
        """Compare one case; `rtol` is relative to the largest magnitude."""
        inputs = arrays(case, dtype)

        def value(leaves: dict[str, jax.Array]) -> jax.Array:
            return function(**(inputs | leaves), **SIZES, **case["options"])

        def total(leaves: dict[str, jax.Array]) -> jax.Array:
            return value(leaves).sum()

        leaves = {name: inputs[name] for name in case["gradients"]}
        gradient = jax.grad(total)
        found, gradients = (jax.jit(value), jax.jit(gradient)) if jit else (value, gradient)
        self.near(found(leaves), case["value"], rtol)
        for name, array in gradients(leaves).items():
            self.near(array, case["gradients"][name], rtol)

    def near(self, found: jax.Array, expected: Any, rtol: float) -> None:
        """Fail where two arrays differ by more than `rtol` times the largest magnitude that is expected."""
        wanted = np.asarray(expected, dtype=float)
        largest = max(np.abs(wanted).max(initial=0.0), 1e-6)
        np.testing.assert_allclose(np.asarray(found, dtype=float), wanted, rtol=0, atol=rtol * largest)

    def test_double_precision(self) -> None:
        """Values and gradients, to eight digits: torch's softplus is a line beyond 20, which is off by 2e-9."""
        with jax.enable_x64(True):
            for case in CASES:
                with self.subTest(case["name"]):
                    self.check(case, jnp.float64, 1e-8)

    def test_single_precision(self) -> None:
        """Values and gradients of logits of ordinary size, to three digits."""
        for case in CASES:
            if case["name"] != "certain":
                with self.subTest(case["name"]):
                    self.check(case, jnp.float32, 1e-3)

    def test_jit(self) -> None:
        """`jax.jit`, forward and backward."""
        self.check(CASES[0], jnp.float32, 1e-3, jit=True)

    def test_trailing_dimensions(self) -> None:
        """[2, C, 3] is as good as [6, C]."""
        inputs = arrays(CASES[0], jnp.float32)
        for name, array in inputs.items():
            if name == "target":
                inputs[name] = array.reshape(2, 3)
            elif name in ("logits", "embeddings"):
                inputs[name] = jnp.moveaxis(array.reshape(2, 3, -1), 2, 1)
        self.near(function(**inputs, **SIZES, **CASES[0]["options"]), CASES[0]["value"], 1e-3)

    def test_bfloat16(self) -> None:
        """The loss of inputs in half precision is computed in single precision."""
        inputs = arrays(CASES[0], jnp.float32)
        half = {
            name: array.astype(jnp.bfloat16) if name in ("logits", "embeddings") else array
            for name, array in inputs.items()
        }
        single = {name: array.astype(inputs[name].dtype) for name, array in half.items()}
        value = function(**half, **SIZES)
        assert value.dtype == jnp.float32
        self.near(value, function(**single, **SIZES), 1e-6)
