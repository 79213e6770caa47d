"""A formula and its derivatives by its variables as one program of torch calls, without autograd.

Where many small models train at once, the tensors of a formula are so small ([128, 10]) that autograd's bookkeeping
costs more than the arithmetic. Here the chain rule is applied once, in reverse, when the formula is compiled: adjoints
are values of the same program, so that what value and derivatives share is computed once (exp is its own derivative).

The rules are those of torch's autograd, corner cases included: a non-finite gradient here is one there.
"""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from evoloss.layouts import Batch
from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import Node

Gradient: TypeAlias = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]
Value: TypeAlias = "Term | float"
Functions: TypeAlias = dict[str, Callable[..., Tensor]]
Tape: TypeAlias = "list[tuple[str, tuple[Value, ...], Term]]"  # name, inputs, output: in order of computation

DIFFERENTIABLE = {row.name for row in VARIABLES.values() if row.prediction} | {"log_p"}


@dataclass(frozen=True, eq=False)
class Term:
    """A tensor that the program computes, or (`given`) reads from the batch.

    `elementwise` tells a tensor of a layout's shape from a 0-dimensional one; `active` terms depend on a
    differentiable variable. Arithmetic on terms adds terms to the program, except times 1 and plus 0.
    """

    program: dict[Any, "Term"]
    name: str
    inputs: "tuple[Value | str, ...]"
    elementwise: bool
    active: bool
    given: bool = False

    def __neg__(self) -> Value:
        return call("neg", self)

    def __add__(self, other: Value) -> Value:
        return self if other == 0.0 else call("add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Value) -> Value:
        return self if other == 0.0 else call("sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return call("sub", other, self)

    def __mul__(self, other: Value) -> Value:
        if other in (1.0, -1.0):
            return self if other == 1.0 else -self
        return call("mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value) -> Value:
        return self if other == 1.0 else call("div", self, other)


def call(name: str, *inputs: Value) -> Value:
    """The term of a function of terms and numbers, the same for the same inputs; a number where all are numbers."""
    terms = [value for value in inputs if isinstance(value, Term)]
    if not terms:
        return _FUNCTIONS[name](*(torch.tensor(value, dtype=torch.float64) for value in inputs)).item()
    program = terms[0].program
    key = (name, *inputs)
    if key not in program:
        elementwise = name != "sum" and any(term.elementwise for term in terms)
        program[key] = Term(program, name, inputs, elementwise, any(term.active for term in terms))
    return program[key]


def read(program: dict[Any, Term], name: str, *arguments: float | str) -> Term:
    """A property of the batch, or a method of it applied to these: a reduction to a number, `share` to a reduction."""
    key = (name, *arguments)
    if key not in program:
        program[key] = Term(program, name, arguments, not arguments, name in DIFFERENTIABLE, given=True)
    return program[key]


def compile_gradient(node: Node, num_classes: int, *, stacked: bool = False) -> Gradient:
    """A function from a batch to the loss, a scalar, and its derivative by each differentiable variable in the formula.

    The derivatives have the names and shapes of `p`, `z`, `d`, `D`, `Dp`, `Dn`, and `log_p` where the formula says
    log(p): a variable of its own. They end there: the chain from the variables to the network is the caller's. They
    may share memory with each other and with the batch: do not change them in place. A variable that the batch has not
    computed yet is computed here, without a graph.

    For the mean over samples with index targets: class weights and `Batch.reduction` are not looked at.

    A `stacked` program is for a `probes.View`: variables are [..., rows, columns], the loss is [..., 1, 1], and a
    derivative broadcasts to the shape of its variable.
    """
    tape, value = _record(node, num_classes)
    return _link(value, _differentiate(tape, value), _STACKED if stacked else _FUNCTIONS)


def _record(node: Node, num_classes: int) -> tuple[Tape, Term]:
    """The operations of a formula, each distinct subtree once, and the term of its value."""
    program: dict[Any, Term] = {}
    tape: Tape = []
    values: dict[Node, Value] = {}

    def value_of(node: Node) -> Value:
        if isinstance(node, float):
            return node
        if node == "K":
            return float(num_classes)
        if node not in values:
            values[node] = evaluate(node)
        return values[node]

    def evaluate(node: str | tuple[Any, ...]) -> Value:
        if isinstance(node, str):
            return read(program, node)
        if node == ("log", "p"):
            return read(program, "log_p")
        name, *children = node
        inputs = tuple(value_of(child) for child in children)
        if name in REDUCTIONS and isinstance(inputs[0], float):
            return read(program, name, inputs[0])
        value = _FORWARD[name](*inputs) if name in _FORWARD else call(name, *inputs)
        if isinstance(value, Term):
            tape.append((name, inputs, value))
        return value

    result = value_of(node)
    assert isinstance(result, Term)
    return tape, result


def _differentiate(tape: Tape, value: Term) -> dict[str, Value]:
    """The adjoints of the differentiable variables: d value / d variable."""
    adjoints: dict[Term, Value] = {value: 1.0}
    for name, inputs, output in reversed(tape):
        if output not in adjoints:
            continue
        adjoint = adjoints.pop(output)  # removed first: the output of x*1 is x
        for place, rule in zip(inputs, DERIVATIVES[name], strict=True):
            if isinstance(place, Term) and place.active:
                part = rule(adjoint, output, *inputs)
                adjoints[place] = adjoints[place] + part if place in adjoints else part
    return {term.name: adjoint for term, adjoint in adjoints.items() if term.name in DIFFERENTIABLE}


def _link(value: Term, gradients: dict[str, Value], functions: Functions) -> Gradient:
    """The program as lists: numbers, what is read from the batch, steps; a tensor's number is its place in them."""
    kept: list[Value] = [value, *gradients.values()]
    used: set[Value] = set()
    pending = list(kept)
    while pending:
        item = pending.pop()
        if item not in used:
            used.add(item)
            pending += item.inputs if isinstance(item, Term) and not item.given else ()
    numbers = [item for item in used if isinstance(item, float)]
    terms = [term for term in value.program.values() if term in used]
    reads = [term for term in terms if term.given]
    computed = [term for term in terms if not term.given]
    places = {item: place for place, item in enumerate([*numbers, *reads, *computed])}
    loads = [_reader(term) for term in reads]
    last_use = {item: term for term in computed for item in term.inputs} | dict.fromkeys(kept)
    steps = [_step(term, places, last_use, functions) for term in computed]
    outputs = [(name, places[term], isinstance(term, Term) and term.elementwise) for name, term in gradients.items()]
    result = places[value]

    @functools.cache
    def constants(dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """As tensors [], with which torch computes twice as fast as with Python's numbers."""
        return list(torch.tensor(numbers, dtype=dtype, device=device).unbind())

    def program(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            values = [*constants(batch.floats.dtype, batch.floats.device), *[load(batch) for load in loads]]
            for function, inputs in steps:
                values.append(function(*[values[place] for place in inputs]))
        return values[result], {
            name: values[place] if whole else values[place].expand_as(getattr(batch, name))
            for name, place, whole in outputs
        }

    return program


def _reader(term: Term) -> Callable[[Batch], Tensor]:
    return operator.methodcaller(term.name, *term.inputs) if term.inputs else operator.attrgetter(term.name)


def _step(
    term: Term, places: dict[Any, int], last_use: dict[Any, Any], functions: Functions
) -> tuple[Callable[..., Tensor], list[int]]:
    """The torch function of a term and where its inputs lie; it writes into an input that nobody reads later."""
    name, inputs = term.name, term.inputs
    if name == "pow" and isinstance(inputs[1], float):  # torch has faster and more exact ways for a number
        return _power_function(inputs[1]), [places[inputs[0]]]

    def is_free(value: Value) -> bool:
        own = isinstance(value, Term) and not value.given and last_use[value] is term
        return own and (value.elementwise, value.active) == (term.elementwise, term.active)  # of one shape

    if name in ("add", "mul") and not is_free(inputs[0]):
        inputs = inputs[::-1]
    in_place = name in _IN_PLACE and is_free(inputs[0])
    return (_IN_PLACE if in_place else functions)[name], [places[value] for value in inputs]


def _power_function(exponent: float) -> Callable[[Tensor], Tensor]:
    return lambda base: torch.pow(base, exponent)


def _power(base: Value, exponent: Value) -> Value:
    if exponent == 1.0:
        return base
    return base * base if exponent == 2.0 else call("pow", base, exponent)


def _quotient(a: Value, b: Value) -> Value:
    """A number over a tensor is the number times the reciprocal, as in torch, which matters where that overflows."""
    return a * call("reciprocal", b) if isinstance(a, float) and isinstance(b, Term) else call("div", a, b)


# Derivatives that are more than arithmetic: `g` is the adjoint of the output `f` of the inputs `a` and `b`.


def _by_denominator(g: Value, f: Value, a: Value, b: Value) -> Value:
    if isinstance(a, float):
        inverse = call("reciprocal", b)
        return -(g * a) * (inverse * inverse)
    return -g * call("div", f, b)


def _by_base(g: Value, f: Value, a: Value, b: Value) -> Value:
    if not isinstance(b, float):
        return call("pow_by_base", g, a, b)
    if b in (0.0, 1.0):
        return g if b else 0.0
    return g * (b * _power(a, b - 1))


def _by_exponent(g: Value, f: Value, a: Value, b: Value) -> Value:
    return g * (f * call("log", a)) if isinstance(a, float) and a != 0 else call("pow_by_exponent", g, f, a, b)


def _by_choice(name: str, g: Value, mine: Value, other: Value) -> Value:
    """Of max or min by its argument `mine`: a tie of tensors is shared, a tie with a number goes to the number."""
    return call(f"{name}_by_{'number' if isinstance(other, float) else 'tensor'}", g, mine, other)


def _pow_by_base(g: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return (g * (b * a.pow(b - 1))).masked_fill_(b == 0, 0.0)


def _pow_by_exponent(g: Tensor, f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return g * (f * a.log()).masked_fill_((a == 0) & (b >= 0), 0.0)


def _max_by_tensor(g: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    return torch.where(mine == other, g / 2, g).masked_fill_(mine < other, 0.0)


def _min_by_tensor(g: Tensor, mine: Tensor, other: Tensor) -> Tensor:
    return torch.where(mine == other, g / 2, g).masked_fill_(mine > other, 0.0)


def _sum_each(values: Tensor) -> Tensor:
    return values.sum((-2, -1), keepdim=True)


def _mean(reduction: str) -> Callable[[Term], Value]:
    return lambda a: call("sum", a) * read(a.program, "share", reduction)


# How the value is computed, where it is not one call.
_FORWARD: dict[str, Callable[..., Value]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _quotient,
    "pow": _power,
    **{name: _mean(name) for name in ("cls", "partner", "trip")},
    "pair": lambda a: call("sum", a * read(a.program, "pair_weights")),
}

_ATEN = torch.ops.aten

# Functions of tensors alone.
_FUNCTIONS: Functions = {
    **{name: getattr(torch, row.torch, None) or getattr(functional, row.torch) for name, row in OPERATORS.items()},
    "reciprocal": torch.reciprocal,
    "sgn": torch.sgn,
    "sum": torch.sum,
    "pow_by_base": _pow_by_base,
    "pow_by_exponent": _pow_by_exponent,
    "max_by_tensor": _max_by_tensor,
    "min_by_tensor": _min_by_tensor,
    "max_by_number": lambda g, a, bound: torch.where(a <= bound, 0.0, g),  # a nan, which is neither, shows
    "min_by_number": lambda g, a, bound: torch.where(a >= bound, 0.0, g),
    "tanh_by_input": _ATEN.tanh_backward.default,
    "sigmoid_by_input": _ATEN.sigmoid_backward.default,
    "softplus_by_input": lambda g, a: _ATEN.softplus_backward.default(g, a, 1.0, 20.0),  # linear above 20
    "relu_by_input": lambda g, f: _ATEN.threshold_backward.default(g, f, 0.0),
}

_STACKED = _FUNCTIONS | {"sum": _sum_each}

_IN_PLACE: Functions = {
    name: getattr(Tensor, f"{name}_")
    for name in ("add", "sub", "mul", "div", "neg", "exp", "log", "sqrt", "abs", "sin", "cos", "tan", "reciprocal")
}

# The chain rule: for each argument, what the adjoint `g` of the output `f` adds to the adjoint of that argument.
DERIVATIVES: dict[str, tuple[Callable[..., Value], ...]] = {
    "add": (lambda g, f, a, b: g, lambda g, f, a, b: g),
    "sub": (lambda g, f, a, b: g, lambda g, f, a, b: -g),
    "mul": (lambda g, f, a, b: g * b, lambda g, f, a, b: g * a),
    "div": (lambda g, f, a, b: call("div", g, b), _by_denominator),
    "pow": (_by_base, _by_exponent),
    "neg": (lambda g, f, a: -g,),
    "exp": (lambda g, f, a: g * f,),
    "log": (lambda g, f, a: call("div", g, a),),
    "sqrt": (lambda g, f, a: call("div", g, 2.0 * f),),
    "abs": (lambda g, f, a: g * call("sgn", a),),
    "sign": (lambda g, f, a: 0.0,),
    "sin": (lambda g, f, a: g * call("cos", a),),
    "cos": (lambda g, f, a: -g * call("sin", a),),
    "tan": (lambda g, f, a: g * (1.0 + f * f),),
    "tanh": (lambda g, f, a: call("tanh_by_input", g, f),),
    "sigmoid": (lambda g, f, a: call("sigmoid_by_input", g, f),),
    "softplus": (lambda g, f, a: call("softplus_by_input", g, a),),
    "relu": (lambda g, f, a: call("relu_by_input", g, f),),
    "erf": (lambda g, f, a: g * (2 / math.sqrt(math.pi) * call("exp", -(a * a))),),
    "min": (lambda g, f, a, b: _by_choice("min", g, a, b), lambda g, f, a, b: _by_choice("min", g, b, a)),
    "max": (lambda g, f, a, b: _by_choice("max", g, a, b), lambda g, f, a, b: _by_choice("max", g, b, a)),
    "cls": (lambda g, f, a: g * read(a.program, "share", "cls"),),
    "partner": (lambda g, f, a: g * read(a.program, "share", "partner"),),
    "trip": (lambda g, f, a: g * read(a.program, "share", "trip"),),
    "pair": (lambda g, f, a: g * read(a.program, "pair_weights"),),
}
