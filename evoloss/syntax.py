"""Formula text to and from a syntax tree of plain tuples, safely: an allow-list over Python's `ast`, never `eval`.

A `Node` is a variable's name, a number, or a tuple of a function's or reduction's name and its arguments. `write` is
the inverse of `read` on every tree that `read` can return.
"""

import ast
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from evoloss.errors import EvolossError, suggest
from evoloss.operators import FIRST_REDUCTION, FUNCTIONS, OPERATORS, REDUCTIONS, VARIABLES

Node: TypeAlias = "str | float | tuple[str, *tuple[Node, ...]]"

MAX_LENGTH = 2_000  # characters
MAX_DEPTH = 60  # nested operations
MAX_NUMBER = 1e9  # largest magnitude of a number, and the inverse of the smallest
MAX_EXPONENT = 16.0
MACRO_PARAMETERS = ("a", "b", "c")

_BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow"}
_PRECEDENCE = {"add": 1, "sub": 1, "mul": 2, "div": 2, "neg": 3, "pow": 4}
_ATOM = 5


class ExpressionError(EvolossError):
    """A formula that is not in the language; shows the formula with a caret under the offending place."""

    def __init__(self, problem: str, text: str = "", offset: int | None = None) -> None:
        self.problem = problem
        where = "" if offset is None else f"\n    {_window(text, offset)}"
        super().__init__(problem + where)


def _window(text: str, offset: int, width: int = 90) -> str:
    """At most `width` characters of the text around the offset, and a line with the caret."""
    start = max(0, min(offset - width // 2, len(text) - width))
    return f"{text[start : start + width]}\n    {' ' * (offset - start)}^"


def read(text: str) -> Node:
    """Parse a formula. The result is scalar: a bare elementwise formula gets its layout's first reduction.

    Raises `ExpressionError` on text outside the language or its limits: names, functions and reductions of
    `operators.py`, at most 2,000 characters, 60 nested operations, numbers between 1e-9 and 1e9.
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError(f"a formula has at most {MAX_LENGTH:,} characters, this one has {len(text):,}")
    text = text.strip()
    for offset, character in enumerate(text):
        if not (" " <= character <= "~"):
            raise ExpressionError(f"only printable ASCII is allowed, not {character!a}", _printable(text), offset)
        if character == "#":
            raise ExpressionError("a formula has no comments", text, offset)
    if not text:
        raise ExpressionError("the formula is empty; cross-entropy, for instance, is `-y*log(p)`")
    reader = _Reader(text)
    tree = _python_tree(text)
    node, layout = reader.visit(tree.body, 0)
    if layout is None:
        raise ExpressionError("a loss needs a prediction (p, z, d, D, Dp or Dn); this formula is a constant", text, 0)
    return node if layout == "scalar" else (FIRST_REDUCTION[layout], node)


def read_macro(text: str) -> tuple[Node, tuple[str, ...]]:
    """Parse the body of a macro, a formula of parameters `a`, `b`, `c`; returns it and those that it uses.

    Raises `ExpressionError`; variables and reductions have no place in a macro.
    """
    reader = _Reader(text, MACRO_PARAMETERS)
    node, layout = reader.visit(_python_tree(text).body, 0)
    used = tuple(name for name in MACRO_PARAMETERS if name in reader.seen)
    if layout is not None or not used:
        raise ExpressionError("a macro is an elementwise formula of its parameters a, b, c alone", text, 0)
    return node, used


def _printable(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _python_tree(text: str) -> ast.Expression:
    try:
        with warnings.catch_warnings():  # Python warns of things like `1if`, which are errors here anyway.
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval")
    except SyntaxError as error:
        offset = min(max((error.offset or 1) - 1, 0), len(text))
        raise ExpressionError("not a formula: the text cannot be parsed here", text, offset) from None
    except (RecursionError, MemoryError, ValueError):
        raise ExpressionError(f"a formula nests at most {MAX_DEPTH} operations, this one more") from None


class _Reader:
    """Walks Python's tree; each visit returns the node and its layout (None for constants, "scalar" if reduced)."""

    def __init__(self, text: str, parameters: tuple[str, ...] = ()) -> None:
        self.text = text
        self.parameters = parameters
        self.seen: set[str] = set()
        self.owner: dict[str, str] = {}  # the first variable of each layout, for messages

    def error(self, problem: str, at: ast.AST) -> ExpressionError:
        return ExpressionError(problem, self.text, getattr(at, "col_offset", 0))

    def visit(self, tree: ast.expr, depth: int) -> tuple[Node, str | None]:
        if depth > MAX_DEPTH:
            raise self.error(f"a formula nests at most {MAX_DEPTH} operations, this one more", tree)
        match tree:
            case ast.Constant():
                return self.number(tree), None
            case ast.Name():
                return self.name(tree)
            case ast.UnaryOp(op=ast.UAdd()):
                return self.visit(tree.operand, depth + 1)
            case ast.UnaryOp(op=ast.USub()):
                node, layout = self.visit(tree.operand, depth + 1)
                return (-node if isinstance(node, float) else ("neg", node)), layout
            case ast.BinOp() if type(tree.op) in _BINARY:
                parts = [self.visit(side, depth + 1) for side in (tree.left, tree.right)]
                node = (_BINARY[type(tree.op)], *(part for part, _ in parts))
                return node, self.common_layout([layout for _, layout in parts], tree.right)
            case ast.Call(func=ast.Name()):
                return self.call(tree, depth)
            case ast.BinOp(op=ast.BitXor()):
                raise self.error("a power is written `**`, not `^`", tree.right)
            case _:
                what = type(tree).__name__.lower()
                raise self.error(f"only numbers, names, + - * / ** and function calls are allowed, not {what}", tree)

    def number(self, tree: ast.Constant) -> float:
        value = tree.value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(f"only real numbers are allowed, not {type(value).__name__}", tree)
        if value != 0 and not 1 / MAX_NUMBER <= value <= MAX_NUMBER:
            raise self.error(f"a number is 0 or between {1 / MAX_NUMBER:g} and {MAX_NUMBER:g} in magnitude", tree)
        return float(value)

    def name(self, tree: ast.Name) -> tuple[Node, str | None]:
        self.seen.add(tree.id)
        if tree.id in self.parameters:
            return tree.id, None
        if tree.id in VARIABLES:
            layout = VARIABLES[tree.id].layout
            if layout:
                self.owner.setdefault(layout, tree.id)
            return tree.id, layout
        if tree.id in FUNCTIONS or tree.id in REDUCTIONS:
            raise self.error(f"`{tree.id}` is a function and needs arguments: `{tree.id}(...)`", tree)
        raise self.error(f"unknown name `{_short(tree.id)}`{suggest(tree.id, VARIABLES)}", tree)

    def call(self, tree: ast.Call, depth: int) -> tuple[Node, str | None]:
        assert isinstance(tree.func, ast.Name)
        name = tree.func.id
        if name not in FUNCTIONS and name not in REDUCTIONS:
            known = [*FUNCTIONS, *REDUCTIONS]
            raise self.error(f"unknown function `{_short(name)}`{suggest(name, known)}", tree)
        if tree.keywords or any(isinstance(argument, ast.Starred) for argument in tree.args):
            raise self.error(f"`{name}` takes plain arguments only", tree)
        if name in REDUCTIONS:
            return self.reduction(name, tree, depth)
        operator = FUNCTIONS[name]
        fits = len(tree.args) >= 2 if operator.associative else len(tree.args) == operator.arity
        if not fits:
            expected = "two or more arguments" if operator.associative else f"{operator.arity} argument"
            raise self.error(f"`{name}` takes {expected}, not {len(tree.args)}", tree)
        parts = [self.visit(argument, depth + 1) for argument in tree.args]
        layout = self.common_layout([layout for _, layout in parts], tree)
        node: Node = (name, *(part for part, _ in parts[: operator.arity]))
        for part, _ in parts[operator.arity :]:
            node = (name, node, part)
        return node, layout

    def reduction(self, name: str, tree: ast.Call, depth: int) -> tuple[Node, str]:
        if len(tree.args) != 1:
            raise self.error(f"`{name}` takes 1 argument, not {len(tree.args)}", tree)
        outside, self.owner = self.owner, {}
        node, layout = self.visit(tree.args[0], depth + 1)
        inside, self.owner = self.owner, outside
        if layout == "scalar":
            raise self.error(f"reductions do not nest: the argument of `{name}` is already a scalar", tree.args[0])
        expected = REDUCTIONS[name].layout
        if layout not in (None, expected):
            right = FIRST_REDUCTION[layout]
            problem = f"`{name}` reduces the {expected} layout, but `{inside[layout]}` belongs to the {layout} layout"
            raise self.error(f"{problem}: use `{right}(...)`", tree.args[0])
        return (name, node), "scalar"

    def common_layout(self, layouts: list[str | None], at: ast.AST) -> str | None:
        found = list(dict.fromkeys(layout for layout in layouts if layout))
        if len(found) < 2:
            return found[0] if found else None
        if "scalar" in found:
            bare = next(layout for layout in found if layout != "scalar")
            name = self.owner[bare]
            raise self.error(f"`{name}` stands outside a reduction: write `{FIRST_REDUCTION[bare]}(...)` around it", at)
        first, second = (self.owner[layout] for layout in found[:2])
        problem = f"`{first}` ({found[0]} layout) and `{second}` ({found[1]} layout) cannot meet inside one reduction"
        split = " + ".join(f"{FIRST_REDUCTION[layout]}(...)" for layout in found[:2])
        raise self.error(f"{problem}: write {split}", at)


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:37] + "..."


def write(node: Node) -> str:
    """The text of a tree, with the fewest parentheses: `read(write(node)) == node`."""
    return _write(node)[0]


def _write(node: Node) -> tuple[str, int]:
    if isinstance(node, str):
        return node, _ATOM
    if isinstance(node, float):
        return _number(node), _ATOM if node >= 0 and math.copysign(1, node) > 0 else _PRECEDENCE["neg"]
    name, *arguments = node
    if name not in _PRECEDENCE:
        return f"{name}({', '.join(write(argument) for argument in _flat(node))})", _ATOM
    mine = _PRECEDENCE[name]
    if name == "neg":
        # A negated number would be read back as a negative number: keep the tree by parentheses.
        return "-" + _bracket(arguments[0], mine if not isinstance(arguments[0], float) else _ATOM + 1), mine
    left, right = arguments
    if name == "pow":
        return f"{_bracket(left, _ATOM)}**{_bracket(right, _ATOM)}", mine
    symbol = OPERATORS[name].symbol
    spaced = f" {symbol} " if mine == 1 else symbol
    return f"{_bracket(left, mine)}{spaced}{_bracket(right, mine + 1)}", mine


def _bracket(node: Node, at_least: int) -> str:
    text, precedence = _write(node)
    return text if precedence >= at_least else f"({text})"


def _flat(node: tuple[str, *tuple[Node, ...]]) -> list[Node]:
    """Arguments of a call, with `max(max(a, b), c)` as `max(a, b, c)`."""
    name, *arguments = node
    if name in OPERATORS and OPERATORS[name].associative:
        first = arguments[0]
        if isinstance(first, tuple) and first[0] == name:
            return [*_flat(first), *arguments[1:]]
    return arguments


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e6 else repr(value)


@dataclass(frozen=True)
class Style:
    """How formulas are set: each function and reduction from its arguments, a variable from none.

    `number` sets a number from its digits and its power of ten, which is empty for most.
    """

    words: Mapping[str, Callable[..., str]]
    number: Callable[[str, str], str]
    bracket: Callable[[str], str]


def typeset(node: Node, style: Style) -> str:
    """The formula in a style, in the order of the text, with the fewest brackets."""
    return _set(node, style)[0]


def _set(node: Node, style: Style) -> tuple[str, int]:
    if isinstance(node, str):
        return style.words[node](), _ATOM
    if isinstance(node, float):
        digits, _, power = _number(node).partition("e")
        return style.number(digits, str(int(power)) if power else ""), _ATOM if node >= 0 else _PRECEDENCE["neg"]
    name, *arguments = node
    word = style.words[name]
    if name not in _PRECEDENCE:
        return word(*(typeset(argument, style) for argument in arguments)), _ATOM
    mine = _PRECEDENCE[name]
    if name == "div":
        return word(*(typeset(argument, style) for argument in arguments)), _PRECEDENCE["mul"]
    if name == "pow":
        return word(_set_bracket(arguments[0], _ATOM, style), typeset(arguments[1], style)), mine
    sides = [_set_bracket(argument, mine + place, style) for place, argument in enumerate(arguments)]
    return word(*sides), mine


def _set_bracket(node: Node, at_least: int, style: Style) -> str:
    text, precedence = _set(node, style)
    return text if precedence >= at_least else style.bracket(text)


def to_latex(node: Node) -> str:
    """The formula in LaTeX, in the order of the text."""
    return typeset(node, _LATEX)


_LATEX = Style(
    {name: row.latex.format for table in (OPERATORS, VARIABLES, REDUCTIONS) for name, row in table.items()},
    lambda digits, power: rf"{digits} \cdot 10^{{{power}}}" if power else digits,
    r"\left({}\right)".format,
)
