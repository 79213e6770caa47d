"""An exported loss as a Python file that knows JAX alone: a function, and what it carries."""

from evoloss.export.function import carried, file_text, function_text
from evoloss.export.signature import signature
from evoloss.export.source import JAX
from evoloss.expression import Expression


def jax_file(expression: Expression, function: str, head: str, scale: float) -> str:
    """The text of the file; `head` is its docstring."""
    body = function_text(signature(expression), function, JAX)
    imports = ["import math", ""] if "math." in body else []
    imports += ["import jax", "import jax.numpy as jnp"]
    return file_text(head, imports, expression, scale, [body, carried(body, "portable_jax.py")])
