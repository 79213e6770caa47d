"""What can be proved of a formula of one or two variables: identities and limits by sympy, signs by enclosures.

A claim is true where its function says so, and open otherwise: nothing here refutes but `bounded`, by a limit. None of
it is bounded in time; `prover.py` runs it in a process that can be ended.

`Question` names the formula's variables, their open intervals and, as a tree of `syntax.py`, the formula itself.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from evoloss.analysis import intervals
from evoloss.analysis.intervals import PROBABILITY, UndecidedError
from evoloss.operators import OPERATORS
from evoloss.syntax import Node

NEAR = (1e-3, 1e-6, 1e-12, 1e-24, 1e-48)  # how near to an end of its domain a divergent formula is shown
FAR = (10.0, 100.0, 1000.0)
DIGITS = 60  # of the numbers shown there


# What sympy raises where it does not know.
OPEN = (UndecidedError, ArithmeticError, AttributeError, NotImplementedError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Question:
    """A formula and its domain: an open interval by variable, infinite ends allowed."""

    formula: Node
    domain: Mapping[str, tuple[float, float]]


def ask(claim: str, question: Question, *arguments: Any) -> Any:
    """The answer to one of `CLAIMS`, None where it stays open."""
    try:
        symbols = {name: _symbol(name) for name in question.domain}
        formula = to_sympy(question.formula, symbols)
        if formula.has(sympy.zoo, sympy.nan, sympy.I):
            return None
        domain = {symbols[name]: (float(low), float(high)) for name, (low, high) in question.domain.items()}
        return CLAIMS[claim](formula, domain, *arguments)
    except OPEN:
        return None


def tree(value: Any) -> Any:
    """A tree again, after JSON."""
    return tuple(map(tree, value)) if isinstance(value, list) else value


def to_sympy(node: Node, symbols: Mapping[str, Any]) -> Any:
    """A tree as sympy's own functions, its numbers as fractions. What cannot have two signs loses its `abs`."""
    if isinstance(node, str):
        return symbols[node]
    if isinstance(node, float):
        return sympy.Rational(repr(node))
    name, *children = node
    function = _OWN.get(name) or getattr(sympy, OPERATORS[name].sympy, None)
    if function is None:
        raise UndecidedError(f"the function {name}")
    return function(*(to_sympy(child, symbols) for child in children))


def _symbol(name: str) -> Any:
    return PROBABILITY if name == "p" else sympy.Symbol(name, real=True, **({} if name in "zs" else {"positive": True}))


def _forms(formula: Any) -> Sequence[Any]:
    """Ways to write it: interval arithmetic answers for one what it cannot for the other."""
    return list(dict.fromkeys([formula, sympy.expand(formula)]))


def _holds(test: Callable[..., Any], formula: Any, domain: intervals.Domain) -> bool:
    for form in _forms(formula):
        try:
            if intervals.holds(test, form, domain):
                return True
        except UndecidedError:
            continue
    return False


def _is_negative(formula: Any, domain: intervals.Domain, strictly: bool) -> bool:
    """By sympy's assumptions or by enclosures, which cannot see that exp(-z) is not 0 at infinity."""
    test = (lambda low, high: high < 0) if strictly else (lambda low, high: high <= 0)
    return intervals.is_positive(-formula) or _holds(test, formula, domain)


def _is_continuous(formula: Any, domain: intervals.Domain) -> bool:
    """No jump, no pole: a derivative of one sign then means what it says."""
    return not formula.has(sympy.sign, sympy.Heaviside) and _holds(lambda low, high: low <= high, formula, domain)


def _is_smooth(formula: Any, domain: intervals.Domain) -> bool:
    """Without a kink too."""
    return _is_continuous(formula, domain) and not formula.has(sympy.Abs, sympy.Max, sympy.Min)


def constant(formula: Any, domain: intervals.Domain) -> float | None:
    """The value of a formula that does not depend on its variable."""
    for symbol in domain:
        slope = sympy.diff(formula, symbol)
        if sympy.expand(slope) != 0 and sympy.simplify(slope) != 0:
            return None
    middle = {symbol: sympy.Rational(1, 3) for symbol in domain}
    return float(formula.subs(middle))


def affine(formula: Any, domain: intervals.Domain) -> list[float] | None:
    """[a, b] of a formula that is a + b*x."""
    (symbol,) = domain
    slope = constant(sympy.diff(formula, symbol), domain)
    if slope is None:
        return None
    return [float(formula.subs(symbol, sympy.Rational(1, 3)) - sympy.diff(formula, symbol) / 3), slope]


def falls(formula: Any, domain: intervals.Domain, by: str, strictly: bool = False) -> bool | None:
    """Whether it never rises with the variable `by`; strictly: its derivative is below 0 everywhere."""
    slope = sympy.diff(formula, _symbol(by))
    return True if _is_continuous(formula, domain) and _is_negative(slope, domain, strictly) else None


def convex(formula: Any, domain: intervals.Domain, strictly: bool = False) -> bool | None:
    """Whether its second derivative is never below 0; strictly: always above."""
    (symbol,) = domain
    curvature = sympy.diff(formula, symbol, 2)
    return True if _is_smooth(formula, domain) and _is_negative(-curvature, domain, strictly) else None


def ordered(formula: Any, domain: intervals.Domain) -> bool | None:
    """Whether g(a) > g(b) for all a < b with a + b <= 1, and its derivative is below 0 up to 1/2, for g(p) on (0, 1).

    So it is if g falls up to some c > 1/2, and g(1 - b) > g(b) from there: a <= 1 - b < 1/2, where g falls.
    """
    (symbol,) = domain
    slope, mirrored = sympy.diff(formula, symbol), formula - formula.subs(symbol, 1 - symbol)
    cuts = (0.9, 0.75, 0.625, 0.55) if _is_smooth(formula, domain) else ()
    for cut in cuts:
        begins, ends = {symbol: (0.0, cut)}, {symbol: (cut, 1.0)}
        if _is_negative(slope, begins, True) and _is_negative(mirrored, ends, True):
            return True
    return None


def stationary(right: Any, domain: intervals.Domain, other: Node, two: bool) -> bool | None:
    """Whether p*f1'(p) + (1 - p)*f0'(p) is one number for all p, of `two` classes the same for p and 1 - p.

    Then the expected loss sum_k q_k*f1(p_k) + (1 - q_k)*f0(p_k) is stationary on the simplex at p = q, for every q.
    """
    (symbol,) = domain
    wrong = to_sympy(tree(other), {symbol.name: symbol})
    slope = symbol * sympy.diff(right, symbol) + (1 - symbol) * sympy.diff(wrong, symbol)
    return True if constant(slope - slope.subs(symbol, 1 - symbol) if two else slope, domain) is not None else None


def brackets(formula: Any, domain: intervals.Domain, low: float, high: float) -> bool | None:
    """Whether the derivative is below 0 at `low` and above 0 at `high`."""
    (symbol,) = domain
    slope = sympy.diff(formula, symbol)
    ends = [slope.subs(symbol, sympy.Rational(repr(end))).evalf(30) for end in (low, high)]
    return True if ends[0] < -1e-20 and ends[1] > 1e-20 else None


def bounded(formula: Any, domain: intervals.Domain) -> dict[str, Any] | None:
    """{"bounded": True, "low", "high"} by an enclosure, or {"bounded": False, "end", "points": [[x, value], ...]}.

    The latter by a limit at an end of the domain, with values on the way there.
    """
    for form in _forms(formula):
        try:
            low, high = intervals.hull(form, domain)
        except UndecidedError:
            continue
        if math.isfinite(low) and math.isfinite(high):
            return {"bounded": True, "low": low, "high": high}
    if len(domain) > 1:
        return None
    ((symbol, ends),) = domain.items()
    for end, inward in zip(ends, (1, -1), strict=True):
        written = _near(formula, symbol, end, inward)
        at = sympy.oo * -inward if math.isinf(end) else sympy.Rational(repr(end))
        if sympy.limit(written, symbol, at, "+" if inward > 0 else "-") in (sympy.oo, -sympy.oo):
            way = (
                [-inward * x for x in FAR]
                if math.isinf(end)
                else [end + inward * x for x in NEAR[: None if end == 0 else 3]]
            )
            points = [[x, float(written.subs(symbol, sympy.Rational(repr(x))).evalf(DIGITS))] for x in way]
            return {"bounded": False, "end": end, "points": points}
    return None


def _near(formula: Any, symbol: Any, end: float, inward: int) -> Any:
    """A formula as sympy finds its limit: near that end it is known which side of a maximum is the larger one."""
    inner = -inward * FAR[0] if math.isinf(end) else end + inward * NEAR[0]
    domain = {symbol: (min(end, inner), max(end, inner))}

    def chosen(*arguments: Any) -> Any:
        for best in arguments:
            if all(best == other or _holds(lambda low, high: low >= 0, best - other, domain) for other in arguments):
                return best
        return sympy.Max(*arguments)

    def stepped(x: Any, *_: Any) -> Any:
        if _holds(lambda low, high: high < 0, x, domain):
            return sympy.S.Zero
        return sympy.S.One if _holds(lambda low, high: low > 0, x, domain) else sympy.Heaviside(x)

    return (
        formula.replace(sympy.Min, lambda *arguments: -sympy.Max(*(-argument for argument in arguments)))
        .replace(sympy.Max, chosen)
        .replace(sympy.Abs, lambda x: chosen(x, -x))
        .replace(sympy.Heaviside, stepped)
        .replace(intervals.sigmoid, lambda x: 1 / (1 + sympy.exp(-x)))
        .replace(intervals.softplus, lambda x: sympy.log(1 + sympy.exp(x)))
    )


def bounded_below(formula: Any, domain: intervals.Domain) -> bool | None:
    """Whether an enclosure has a lower end."""
    for form in _forms(formula):
        low, high = intervals.hull(form, domain)
        if low > -math.inf and not math.isnan(high):
            return True
    return None


def bounded_slope(formula: Any, domain: intervals.Domain, by: str, times: str) -> dict[str, Any] | None:
    """`bounded`, of the derivative by a variable times one of "1", "p" and "p*(1 - p)"."""
    symbol = _symbol(by)
    factor = {"1": sympy.S.One, "p": PROBABILITY, "p*(1 - p)": PROBABILITY * (1 - PROBABILITY)}[times]
    if not _is_continuous(formula, domain):
        return None
    return bounded(factor * sympy.diff(formula, symbol), domain)


def _abs(x: Any) -> Any:
    if intervals.is_positive(x):
        return x
    return -x if intervals.is_positive(-x) else sympy.Abs(x)


def _extreme(larger: bool) -> Callable[[Any, Any], Any]:
    def choose(a: Any, b: Any) -> Any:
        for x, y in ((a, b), (b, a)):
            if x == y or intervals.is_positive(x - y):
                return x if larger else y
        return (sympy.Max if larger else sympy.Min)(a, b)

    return choose


def _sign(x: Any) -> Any:
    if intervals.has_one_sign(x):
        return sympy.S.One if intervals.is_positive(x) else -sympy.S.One
    return sympy.sign(x)


CLAIMS: dict[str, Callable[..., Any]] = {
    "constant": constant,
    "affine": affine,
    "falls": falls,
    "convex": convex,
    "ordered": ordered,
    "stationary": stationary,
    "brackets": brackets,
    "bounded": bounded,
    "bounded below": bounded_below,
    "bounded slope": bounded_slope,
}

# Where sympy's function of that name is none of intervals', or knows too little of signs.
_OWN: dict[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "abs": _abs,
    "sign": _sign,
    "sigmoid": intervals.sigmoid,
    "softplus": intervals.softplus,
    "relu": lambda a: _extreme(larger=True)(a, sympy.S.Zero),
    "min": _extreme(larger=False),
    "max": _extreme(larger=True),
}
