"""A formula as lines of Python: what is long or comes twice gets a name, what can be said more stably is."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from evoloss.operators import OPERATORS, REDUCTIONS
from evoloss.syntax import Node

WIDTH = 88  # characters of an expression before a part of it gets a name

_ATOM = 5
_INFIX = {"add": ("+", 1), "sub": ("-", 1), "mul": ("*", 2), "div": ("/", 2), "pow": ("**", 4)}


@dataclass(frozen=True)
class Dialect:
    """How a library spells the language.

    `functions` are format strings over arguments that are arrays, `numbers` over Python numbers. `clamps` are those of
    max and min over an array and a number, `fill` makes an array like the first argument of the number in the second.
    `variables` are those of the language that come from the logits `z`, `array` is the type of all of them, and
    `mines` tells whether triplets can be chosen where none are given.
    """

    functions: dict[str, str]
    numbers: dict[str, str]
    clamps: dict[str, str]
    fill: str
    variables: dict[str, str]
    array: str
    mines: bool


def stable(node: Node) -> Node:
    """The tree with each part that loses digits or overflows said by a function that does not; equal where finite.

    `log(p)` becomes the variable `log_p` (log-softmax), log(sigmoid(a)) `logsigmoid`, log(1 + exp(a)) `softplus`.
    """
    if not isinstance(node, tuple):
        return node
    match node:
        case ("log", "p"):
            return "log_p"
        case ("log", ("sigmoid", inner)):
            return ("logsigmoid", stable(inner))
        case ("log", ("add", ("exp", inner), 1.0) | ("add", 1.0, ("exp", inner))):
            return ("softplus", stable(inner))
    name, *children = node
    return (name, *map(stable, children))


def subtrees(node: Node) -> Iterator[Node]:
    """All parts of a tree, itself among them."""
    yield node
    if isinstance(node, tuple):
        for child in node[1:]:
            yield from subtrees(child)


def is_number(node: Node) -> bool:
    """Whether a part is the same for every sample: built of numbers and K alone."""
    if isinstance(node, tuple):
        return node[0] not in REDUCTIONS and all(map(is_number, node[1:]))
    return isinstance(node, float) or node == "K"


def statements(node: Node, dialect: Dialect, reduce: Callable[[str, str], str]) -> list[str]:
    """Assignments that end in one to `value`. `reduce(name, argument)` is how a reduction of an array is called."""
    writer = _Writer(dialect, reduce, {part for part, count in Counter(subtrees(node)).items() if count > 1})
    text = writer.text(node, 0)
    return [*writer.lines, f"value = {text}"]


@dataclass
class _Writer:
    dialect: Dialect
    reduce: Callable[[str, str], str]
    repeated: set[Node]
    lines: list[str] = field(default_factory=list)
    names: dict[Node, str] = field(default_factory=dict)
    codes: dict[Node, tuple[str, int]] = field(default_factory=dict)

    def text(self, node: Node, at_least: int) -> str:
        """The code of a part, in parentheses where it binds less than that."""
        code, precedence = self.write(node)
        return code if precedence >= at_least else f"({code})"

    def write(self, node: Node) -> tuple[str, int]:
        if node in self.names:
            return self.names[node], _ATOM
        if isinstance(node, str):
            return node, _ATOM
        if isinstance(node, float):
            return _number(node), _ATOM if node >= 0 else 3
        if node not in self.codes:
            self.codes[node] = self.compose(node)
            while len(self.codes[node][0]) > WIDTH and (part := self.longest(node)):
                self.name(part)
                self.codes[node] = self.compose(node)
            if node in self.repeated and not is_number(node):
                self.name(node)
                return self.names[node], _ATOM
        return self.codes[node]

    def longest(self, node: Node) -> "Node | None":
        """The child with the longest code, if it is worth a name."""
        assert isinstance(node, tuple)
        parts = [
            part for part in node[1:] if isinstance(part, tuple) and part not in self.names and not is_number(part)
        ]
        best = max(parts, key=lambda part: len(self.write(part)[0]), default=None)
        return best if best is not None and len(self.write(best)[0]) > WIDTH // 4 else None

    def name(self, node: Node) -> None:
        self.names[node] = f"t{len(self.names) + 1}"
        self.lines.append(f"{self.names[node]} = {self.codes[node][0]}")

    def compose(self, node: Node) -> tuple[str, int]:
        assert isinstance(node, tuple)
        name, *children = node
        if name == "neg":
            return "-" + self.text(children[0], 3), 3
        if name in _INFIX:
            symbol, mine = _INFIX[name]
            sides = (_ATOM, 3) if name == "pow" else (mine, mine + 1)
            left, right = (self.text(child, least) for child, least in zip(children, sides, strict=True))
            tight = name == "pow" and all(re.fullmatch(r"-?[\w.]+", side) for side in (left, right))
            return (f"{left}{symbol}{right}" if tight else f"{left} {symbol} {right}"), mine
        if name in REDUCTIONS:
            return self.reduction(name, children[0]), _ATOM
        if is_number(node):
            return self.dialect.numbers[name].format(*(self.text(child, _ATOM) for child in children)), _ATOM
        if name in self.dialect.clamps and any(map(is_number, children)):
            array, number = sorted(children, key=is_number)
            return self.dialect.clamps[name].format(self.text(array, 0), self.text(number, 0)), _ATOM
        return self.dialect.functions[name].format(*(self.text(child, 0) for child in children)), _ATOM

    def reduction(self, name: str, argument: Node) -> str:
        code = self.text(argument, 0)
        if is_number(argument):
            code = self.dialect.fill.format(LIKE[REDUCTIONS[name].layout], code)
        return self.reduce(name, code)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else repr(value)


LIKE = {"class": "y", "pair": "D", "triplet": "Dp"}  # an array of each layout

_PLAIN = ("exp", "log", "sqrt", "abs", "sign", "sin", "cos", "tan", "tanh")

NUMBERS = {name: f"math.{name}({{}})" for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "tanh", "erf")} | {
    "abs": "abs({})",
    "sign": "(float({0} > 0) - float({0} < 0))",
    "sigmoid": "(1 / (1 + math.exp(-{})))",
    "softplus": "math.log1p(math.exp({}))",
    "logsigmoid": "(-math.log1p(math.exp(-{})))",
    "relu": "max({}, 0.0)",
    "min": "min({}, {})",
    "max": "max({}, {})",
}

TORCH = Dialect(
    functions={name: f"torch.{OPERATORS[name].torch}({{}})" for name in (*_PLAIN, "sigmoid", "relu", "erf")}
    | {
        "softplus": "functional.softplus({})",
        "logsigmoid": "functional.logsigmoid({})",
        "max": "torch.maximum({}, {})",
        "min": "torch.minimum({}, {})",
    },
    numbers=NUMBERS,
    clamps={"max": "torch.clamp({}, min={})", "min": "torch.clamp({}, max={})"},
    fill="torch.full_like({}, {})",
    variables={"p": "z.softmax(1).clamp(1e-7, 1.0)", "log_p": "z.log_softmax(1)"},
    array="Tensor",
    mines=True,
)

JAX = Dialect(
    functions={name: f"jnp.{name}({{}})" for name in _PLAIN}
    | {name: f"jax.nn.{name}({{}})" for name in ("sigmoid", "softplus", "relu")}
    | {
        "erf": "jax.lax.erf({})",
        "logsigmoid": "jax.nn.log_sigmoid({})",
        "max": "jnp.maximum({}, {})",
        "min": "jnp.minimum({}, {})",
    },
    numbers=NUMBERS,
    clamps={"max": "jnp.maximum({}, {})", "min": "jnp.minimum({}, {})"},
    fill="jnp.full_like({}, {})",
    variables={"p": "jnp.clip(jax.nn.softmax(z, 1), 1e-7, 1.0)", "log_p": "jax.nn.log_softmax(z, 1)"},
    array="jax.Array",
    mines=False,
)
