"""An exported loss as a Python file that knows torch alone: a function, its `nn.Module` twin, and what they carry."""

from evoloss.export.function import carried, file_text, function_text, options
from evoloss.export.signature import Signature, signature
from evoloss.export.source import TORCH
from evoloss.expression import Expression


def torch_file(expression: Expression, function: str, module: str, head: str, scale: float) -> str:
    """The text of the file; `head` is its docstring."""
    shape = signature(expression)
    body = function_text(shape, function, TORCH)
    helpers = carried(body, "portable.py")
    imports = ["import math", ""] if "math." in body else []
    imports += ["import torch", "from torch import Tensor, nn"]
    imports += ["from torch.nn import functional"] if "functional." in body + helpers else []
    return file_text(head, imports, expression, scale, [body, _module(shape, function, module), helpers])


def _module(shape: Signature, function: str, module: str) -> str:
    own = (["centers"] if shape.centers else []) + (["num_classes"] if shape.num_classes else [])
    names = [name for name, *_ in (option.split(":") for option in options(shape, TORCH))]
    arguments = ["self", *(f"{size}: int" for size in shape.sizes), *options(shape, TORCH)]
    lines = [f"class {module}(nn.Module):", f'    """`{function}` as a module{_TWIN[shape.centers]}', ""]
    lines += ["    weight: Tensor | None", ""] if shape.weight else []
    lines += ["    def __init__(", *(f"        {argument}," for argument in arguments), "    ) -> None:"]
    lines += ["        super().__init__()"]
    lines += ["        self.centers = nn.Parameter(torch.randn(num_classes, embedding_dim))"] * shape.centers
    lines += ["        self.num_classes = num_classes"] * shape.num_classes
    lines += ['        self.register_buffer("weight", weight)'] * shape.weight
    lines += [f"        self.{name} = {name}" for name in names if name != "weight"]
    forward = ["self", *(f"{tensor}: Tensor" for tensor in shape.predictions)]
    forward += ["triplets: Tensor | None = None"] * shape.triplets
    lines += ["", f"    def forward({', '.join(forward)}) -> Tensor:"]
    lines += [f'        """The loss of a batch; see `{function}`."""', f"        return {function}("]
    passed = [*shape.predictions, *(f"self.{name}" for name in (*own, *names))]
    passed += ["triplets"] * shape.triplets
    return "\n".join([*lines, *(f"            {argument}," for argument in passed), "        )"])


_TWIN = {
    False: '."""',
    True: ', with its centers.\n\n    Give `loss.parameters()` to an optimizer, such as SGD at 0.5.\n    """',
}
