"""One tree for all ways to write a formula: sympy's automatic evaluation, rounding, and a fixed order of terms.

The only file that imports sympy but those of proofs, `proofs.py` and `intervals.py`. It never sees text: trees go in
and come out. Numbers are folded here in float64 with bounds, because sympy's own arithmetic on numbers can hang
(`9**9**9`) or explode.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import sympy

from evoloss.limits import processor_time
from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import MAX_EXPONENT, MAX_NUMBER, ExpressionError, Node, write

DIGITS = 6  # significant digits of a constant
MAX_NODES = 120  # the largest hand-written loss has 56, a tree of a search 40
MAX_LEVELS = 16  # sympy's time grows with the square of them, and more: 75 ms for so many absolute values
PATIENCE = 5.0  # seconds of processor time; 40 nodes take some 10 ms, the worst formula known half a second
MAX_PASSES = 6  # one pass reaches the fixpoint for nearly all trees, two for the rest
SHORT_NUMBER = 10**9  # fractions of such numbers are raised exactly to powers with denominators up to
SHORT_ROOT = 100  # this
SUBTREES = 4_096  # kept with their sympy forms, some 10 MB: a child shares most of its subtrees with its parents


def canonical(node: Node) -> Node:
    """The canonical form of a tree: the fixpoint of sympy's automatic evaluation and of rounding.

    Raises `ExpressionError` where a part is infinite, undefined, imaginary or out of bounds, where the tree has more
    than 120 nodes or 16 levels, and in the main thread where sympy takes 5 seconds of processor time.
    """
    levels = [level for _, level in itertools.islice(_nodes(node), MAX_NODES + 1)]
    if len(levels) > MAX_NODES:
        raise ExpressionError(f"a formula has at most {MAX_NODES} operations, variables and numbers, this one more")
    if max(levels) > MAX_LEVELS:
        raise ExpressionError(f"functions, powers and quotients nest at most {MAX_LEVELS} deep, these deeper")
    try:
        with processor_time(PATIENCE):
            return _fixpoint(node)
    except TimeoutError:
        _to_sympy.cache_clear()  # what was cut short may have left half an answer there
        sympy.core.cache.clear_cache()
        raise ExpressionError(f"the formula has no canonical form that is found within {PATIENCE:g} s") from None


def _nodes(node: Node, level: int = 0) -> Iterator[tuple[Node, int]]:
    """All nodes, and how many functions, powers and quotients they lie in.

    One after the other: a tree of macros may have more of them than memory has room for.
    """
    yield node, level
    if isinstance(node, tuple):
        name, *children = node
        for child in children:
            yield from _nodes(child, level + (name not in _FLAT))


def _fixpoint(node: Node) -> Node:
    try:
        expression = _to_sympy(node)
        for _ in range(MAX_PASSES):
            node = _to_node(expression)
            if (again := _to_sympy(node)) == expression:
                return node
            expression = again
    except ExpressionError:
        raise
    except (OverflowError, RecursionError, ZeroDivisionError):
        raise ExpressionError("a constant part of the formula is too large") from None
    except (ArithmeticError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise ExpressionError(f"sympy fails at this formula ({type(error).__name__})") from None
    raise ExpressionError("the formula has no stable canonical form")


class _Opaque(sympy.Function):
    """A function of the language that sympy lacks, or has in a slow form."""

    is_real = True

    def _eval_is_extended_real(self) -> bool:
        return True


class sigmoid(_Opaque):
    """1/(1 + exp(-x))."""

    is_positive = True


class softplus(_Opaque):
    """log(1 + exp(x))."""

    is_positive = True


class relu(_Opaque):
    """The positive part."""

    is_nonnegative = True

    @classmethod
    def eval(cls, argument: Any) -> Any:
        """A part that is never negative is itself."""
        return argument if argument.is_nonnegative else None


class tanh(sympy.tanh):
    """sympy's, real and finite without its search for imaginary arguments, which divides polynomials for seconds."""

    def _eval_is_real(self) -> bool | None:
        return self.args[0].is_extended_real or None

    _eval_is_finite = _eval_is_real


class _Variable(sympy.Symbol):
    """A symbol for which sympy seeks no sign by the roots of polynomials: those of high degree take it hours."""

    def _eval_is_polynomial(self, _: Any) -> bool:
        return False


class power(sympy.Function):
    """A root of a product that sympy would split: `sqrt(y*z)` is 0 where y is 0, `sqrt(y)*sqrt(z)` may be undefined."""


class _Lattice(_Opaque):
    """`max` and `min`: flat, sorted, without repetition. sympy's own compare their arguments, 5 to 50 ms each."""

    def __new__(cls, *arguments: Any, **options: Any) -> Any:
        flat = [part for argument in arguments for part in (argument.args if type(argument) is cls else (argument,))]
        distinct = sorted(set(flat), key=sympy.default_sort_key)
        numbers = [part for part in distinct if part.is_Number]
        if len(numbers) > 1:
            best = (max if cls is maximum else min)(numbers)
            distinct = [part for part in distinct if not part.is_Number or part is best]
        return distinct[0] if len(distinct) == 1 else super().__new__(cls, *distinct, **options)


class maximum(_Lattice):
    """The larger one."""


class minimum(_Lattice):
    """The smaller one."""


_SYMBOLS = {
    name: _Variable(name, **{row.sign: True}, **({"integer": True} if row.layout is None else {}))
    for name, row in VARIABLES.items()
}
_REDUCED = {name: type(name, (_Opaque,), {}) for name in REDUCTIONS}
_OWN: dict[str, Any] = {head.__name__: head for head in (sigmoid, softplus, relu, tanh, maximum, minimum)}
_HEADS = {name: _OWN.get(row.sympy) or getattr(sympy, row.sympy) for name, row in OPERATORS.items()} | _REDUCED
_NAMES = {head: name for name, head in _HEADS.items() if not (name in OPERATORS and OPERATORS[name].symbol)}
_UNDEFINED = frozenset((sympy.zoo, sympy.nan, sympy.oo, -sympy.oo))
_FLAT = {"add", "sub", "mul", "neg", "max", "min"}  # long sums, products and maxima nest in text only

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
}

_NUMERIC: dict[str, Callable[..., float]] = _ARITHMETIC | {
    "pow": math.pow,
    "abs": abs,
    "sign": lambda a: float((a > 0) - (a < 0)),
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)) if a >= 0 else math.exp(a) / (1 + math.exp(a)),
    "softplus": lambda a: max(a, 0.0) + math.log1p(math.exp(-abs(a))),
    "relu": lambda a: max(a, 0.0),
    "min": min,
    "max": max,
}


def fold(name: str, *arguments: float) -> float:
    """The value of a function on numbers, in float64. Raises `ExpressionError` where it is not a finite real."""
    try:
        value = float((_NUMERIC.get(name) or getattr(math, name))(*arguments))
    except (ValueError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not abs(value) < math.inf:
        raise ExpressionError(f"`{write((name, *arguments))}` is not a finite real number")
    return value


@functools.lru_cache(maxsize=SUBTREES)
def _to_sympy(node: Node) -> Any:
    if isinstance(node, str):
        return _SYMBOLS[node]
    if isinstance(node, float):
        return _number(node)
    name, *children = node
    arguments = [_to_sympy(child) for child in children]
    if name not in REDUCTIONS and all(argument.is_Number for argument in arguments):
        return _number(fold(name, *map(float, arguments)))
    if name in ("pow", "sqrt"):
        exponent = arguments[1] if name == "pow" else sympy.Rational(1, 2)
        _check_exponent(exponent)
        splits = exponent.is_Rational and not exponent.is_Integer and _may_vanish(arguments[0])
        result = power(arguments[0], exponent) if splits else _raised(arguments[0], exponent)
    elif name == "exp":
        result = _exponential(arguments[0])
    else:
        result = _ARITHMETIC.get(name, _HEADS[name])(*arguments)
    _check(result)
    return result


def _raised(base: Any, exponent: Any) -> Any:
    """A power; that of a number in the base in float64, unless both are short.

    sympy factors exact ones: of `(99.992*p)**0.3719` it takes a root of a number of 60,000 bits, for minutes.
    """
    if exponent.is_Rational and not exponent.is_Integer:
        factors = sympy.Mul.make_args(base)
        numbers = [factor for factor in factors if all(part.is_Number for part in factor.as_base_exp())]
        if numbers and not (exponent.q <= SHORT_ROOT and all(map(_is_short, numbers))):
            value = float(sympy.Mul(*numbers))
            rest = sympy.Mul(*(factor for factor in factors if factor not in numbers))
            raised = sympy.Rational(repr(fold("pow", abs(value), float(exponent))))
            return raised * (rest if value > 0 else -rest) ** exponent
    return base**exponent


def _is_short(number: Any) -> bool:
    return number.is_Rational and max(abs(number.p), number.q) <= SHORT_NUMBER


def _exponential(argument: Any) -> Any:
    """exp(argument), with `exp(c*log(x))` as a power here, where sympy would make it one of its own."""
    powers, rest = [], []
    for term in sympy.Add.make_args(argument):
        factor, logarithm = term.as_coeff_Mul()
        if isinstance(logarithm, sympy.log):
            _check_exponent(factor)
            powers.append(_raised(logarithm.args[0], factor))
        else:
            rest.append(term)
    return sympy.Mul(*powers, sympy.exp(sympy.Add(*rest)))


def _may_vanish(base: Any) -> bool:
    """Whether a product of unknown sign has a factor that is never negative and can be 0, such as `y`."""
    vanishes = any(factor.is_nonnegative and not factor.is_positive for factor in base.args)
    return base.is_Mul and vanishes and not base.is_nonnegative and not base.is_nonpositive


def _number(value: float) -> Any:
    if value == 0:
        return sympy.S.Zero
    if not 1 / MAX_NUMBER <= abs(value) <= MAX_NUMBER:
        raise ExpressionError(f"the constant {value:g} is not between {1 / MAX_NUMBER:g} and {MAX_NUMBER:g}")
    # A fraction, not a Float: sympy pulls floats out of functions and would print exp(2.4092 - p) as 11.1251*exp(-p).
    return sympy.Rational(f"{value:.{DIGITS}g}")


def _check_exponent(exponent: Any) -> None:
    if exponent.is_Number and abs(exponent) > MAX_EXPONENT:
        raise ExpressionError(f"the exponent {float(exponent):g} is larger than {MAX_EXPONENT:g}")


def _check(result: Any) -> None:
    """Refuse what is undefined, and what would make the next step of sympy's arithmetic explode."""
    for part in (result, *result.args):
        if part in _UNDEFINED:
            raise ExpressionError("the formula is infinite or undefined everywhere, such as `1/(p - p)`")
        root = part.is_Pow and not part.exp.is_Integer  # a whole power of what is real is real
        if part is sympy.I or ((root or isinstance(part, sympy.log)) and part.is_extended_real is False):
            raise ExpressionError("the formula is imaginary, such as `sqrt(-p)`")
        if part.is_Number and part != 0 and not 1 / MAX_NUMBER <= abs(part) <= MAX_NUMBER:
            raise ExpressionError(f"a constant of the formula leaves {1 / MAX_NUMBER:g} to {MAX_NUMBER:g}")
        if part.is_Pow:
            _check_exponent(part.exp)


def _to_node(expression: Any) -> Node:
    if expression.is_Symbol:
        return expression.name
    if expression.is_Number:
        return _rounded(float(expression))
    if expression.is_Add:
        return _sum([_to_node(term) for term in expression.args])
    if expression.is_Mul:
        return _product(expression.args)
    if expression.is_Pow or expression.func in (sympy.exp, power):
        return _power(expression)
    arguments = [_to_node(argument) for argument in expression.args]
    name = _NAMES.get(expression.func)
    if name is None:  # sympy turned a function into one that the language does not have
        raise ExpressionError(f"the formula simplifies to `{expression.func.__name__}`, which the language lacks")
    if isinstance(expression, _Lattice):
        return functools.reduce(lambda left, right: (name, left, right), sorted(arguments, key=_rank))
    return _folded(name, *arguments)


def _folded(name: str, *arguments: Node) -> Node:
    numbers = [argument for argument in arguments if isinstance(argument, float)]
    if name not in REDUCTIONS and len(numbers) == len(arguments):
        return _rounded(fold(name, *numbers))
    return (name, *arguments)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}") + 0.0  # + 0.0: no negative zero


def _power(expression: Any) -> Node:
    if expression.func is sympy.exp:
        return _folded("exp", _to_node(expression.exp))
    base, exponent = expression.args
    if exponent == sympy.Rational(1, 2):
        return _folded("sqrt", _to_node(base))
    if expression.is_Pow and exponent.is_Number and exponent < 0:
        return _folded("div", 1.0, _to_node(base**-exponent))
    return _folded("pow", _to_node(base), _to_node(exponent))


def _rank(node: Node) -> tuple[int, str]:
    """Variables first, then powers, calls and sums, numbers last; ties by text."""
    if isinstance(node, float):
        return 4, write(node)
    if isinstance(node, str):
        return 0, node
    return {"pow": 1, "add": 3, "sub": 3}.get(node[0], 2), write(node)


def _sum(terms: list[Node]) -> Node:
    """Positive terms before negative ones, so that few sums begin with a minus; coefficients do not sort."""
    constant = _rounded(math.fsum(term for term in terms if isinstance(term, float)))
    signed = [_sign(term) for term in terms if not isinstance(term, float)]
    signed += [(constant < 0, abs(constant))] if constant else []
    texts = [write(term) for _, term in signed]
    order = [
        (negative, isinstance(term, float), text.lstrip("-.0123456789*"), text)
        for (negative, term), text in zip(signed, texts, strict=True)
    ]
    signed = [item for _, item in sorted(zip(order, signed, strict=True), key=lambda pair: pair[0])]
    if not signed:
        return 0.0
    negative, first = signed[0]
    total = _negated(first) if negative else first
    for negative, term in signed[1:]:
        total = ("sub" if negative else "add", total, term)
    return total


def _sign(term: Node) -> tuple[bool, Node]:
    """(True, t) for a term that prints as -t, else (False, term)."""
    if isinstance(term, tuple):
        head, *arguments = term
        if head == "neg":
            return True, arguments[0]
        if head in ("mul", "div"):
            negative, left = _sign(arguments[0])
            if negative:
                return True, (head, left, arguments[1])
    if isinstance(term, float) and term < 0:
        return True, -term
    return False, term


def _negated(term: Node) -> Node:
    """-term, with the sign on the first factor, where a reader and Python's grammar put it."""
    if isinstance(term, float):
        return -term
    if isinstance(term, tuple) and len(term) == 3 and term[0] in ("mul", "div"):
        return (term[0], _negated(term[1]), term[2])
    return ("neg", term)


def _product(factors: tuple[Any, ...]) -> Node:
    coefficient = 1.0
    above: list[Node] = []
    below: list[Node] = []
    for factor in factors:
        inverse = factor.is_Pow and factor.exp.is_Number and factor.exp < 0
        node = _to_node(factor.base**-factor.exp if inverse else factor)
        if isinstance(node, float):
            coefficient = fold("div" if inverse else "mul", coefficient, node)
        else:
            (below if inverse else above).append(node)
    coefficient = _rounded(coefficient)
    if coefficient == 0 or not (above or below):
        return coefficient
    above.sort(key=_rank)
    if abs(coefficient) != 1 or not above:
        above.insert(0, abs(coefficient))
    result = functools.reduce(lambda left, right: ("mul", left, right), above)
    if below:
        below.sort(key=_rank)
        result = ("div", result, functools.reduce(lambda left, right: ("mul", left, right), below))
    return _negated(result) if coefficient < 0 else result
