"""Where a formula's values lie over an interval: interval arithmetic on sympy's trees, rounded outward.

An enclosure proves what no number of points can: if [low, high] of each of finitely many boxes is below 0, the formula
is below 0 everywhere in them. Where a formula may be undefined inside a box (a pole, the logarithm of a negative), its
enclosure is NaN, which proves nothing. Moore 1966, "Interval Analysis".
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import sympy
from scipy import special

Interval: TypeAlias = tuple[np.ndarray, np.ndarray]  # lows and highs [N] of N boxes
Domain: TypeAlias = Mapping[Any, tuple[float, float]]  # open intervals by symbol

ROUNDS = 12  # of halving boxes that decide nothing
MOST_BOXES = 20_000
ULPS = 16  # by which a library's elementary function is trusted; their makers state at most 4
TINY = 5e-324


class UndecidedError(Exception):
    """What cannot be enclosed or decided."""


class sigmoid(sympy.Function):  # noqa: N801
    """1/(1 + exp(-x)), as one function: written out, its enclosure over large x would be far too wide."""

    is_real = True
    is_positive = True

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative."""
        return self * (1 - self)


class softplus(sympy.Function):  # noqa: N801
    """log(1 + exp(x)), likewise."""

    is_real = True
    is_positive = True

    def fdiff(self, argindex: int = 1) -> Any:
        """The derivative."""
        return sigmoid(self.args[0])


def holds(test: Callable[[np.ndarray, np.ndarray], np.ndarray], formula: Any, domain: Domain) -> bool:
    """Whether `test(lows, highs)` is true of the enclosures of a formula over boxes that cover a domain.

    Boxes of which it is not are halved, a few times. True is a proof, false is not a refutation.
    """
    boxes = _cover(domain)
    for _ in range(ROUNDS):
        low, high = enclosure(formula, boxes)
        open_ = ~test(low, high)
        if not open_.any():
            return True
        boxes = _halved({symbol: (a[open_], b[open_]) for symbol, (a, b) in boxes.items()})
        if len(next(iter(boxes.values()))[0]) > MOST_BOXES:
            return False
    return False


def hull(formula: Any, domain: Domain) -> tuple[float, float]:
    """One enclosure [low, high] of a formula over a domain; NaN where the formula may be undefined."""
    low, high = enclosure(formula, _cover(domain))
    return float(low.min()), float(high.max())


def enclosure(formula: Any, boxes: Mapping[Any, Interval]) -> Interval:
    """The enclosure of a formula over each of N boxes. Raises `UndecidedError` for a function without a row here."""
    known: dict[Any, Interval] = dict(boxes)
    size = len(next(iter(boxes.values()))[0])

    def of(part: Any) -> Interval:
        if part not in known:
            known[part] = _number(part, size) if part.is_number else _applied(part, of)
        return known[part]

    with np.errstate(all="ignore"):
        low, high = of(sympy.sympify(formula, strict=True))
    broken = np.isnan(low) | np.isnan(high)
    return np.where(broken, np.nan, low), np.where(broken, np.nan, high)


def has_one_sign(formula: Any) -> bool:
    """Whether a formula is known to be positive, or negative, and never 0, inside its domain."""
    return is_positive(formula) or is_positive(-formula)


@functools.lru_cache(maxsize=4096)
def is_positive(formula: Any) -> bool:
    """By sympy's assumptions, with p in (0, 1): 1 - p is u/(1 + u) with the odds u = 1/p - 1, which are positive."""
    if formula.is_positive:
        return True
    odds = sympy.Symbol("odds", positive=True)
    return sympy.together(formula.subs(PROBABILITY, 1 / (1 + odds))).is_positive is True


PROBABILITY = sympy.Symbol("p", positive=True)


def _cover(domain: Domain) -> dict[Any, Interval]:
    edges = [_edges(*bounds, 240 if len(domain) == 1 else 40) for bounds in domain.values()]
    lows = np.meshgrid(*(e[:-1] for e in edges), indexing="ij")
    highs = np.meshgrid(*(e[1:] for e in edges), indexing="ij")
    return {symbol: (a.ravel(), b.ravel()) for symbol, a, b in zip(domain, lows, highs, strict=True)}


def _edges(low: float, high: float, count: int) -> np.ndarray:
    """From low to high, densely near a finite end, where functions such as the logarithm are steep."""
    if math.isinf(low):
        positive = _edges(0.0, math.inf, count)
        return np.concatenate([-positive[::-1], positive[1:]])
    if math.isinf(high):
        return np.concatenate([[low], low + np.geomspace(1e-9, 1e9, count), [math.inf]])
    near = (high - low) * np.geomspace(1e-12, 0.5, count)
    return np.unique(np.concatenate([[low, high], low + near, high - near]))


def _halved(boxes: Mapping[Any, Interval]) -> dict[Any, Interval]:
    """Each box cut in the middle of every side: 2, or 4 of two symbols."""
    halves = []
    for low, high in boxes.values():
        with np.errstate(all="ignore"):
            middle = np.where(np.isinf(high), np.maximum(2 * low, 1), low / 2 + high / 2)
            middle = np.where(np.isinf(low), np.minimum(2 * high, -1), middle)
        halves.append(((low, middle), (middle, high)))
    chosen = list(itertools.product(*halves))
    return {
        symbol: tuple(np.concatenate([choice[place][side] for choice in chosen]) for side in (0, 1))  # type: ignore[misc]
        for place, symbol in enumerate(boxes)
    }


def _outward(low: np.ndarray, high: np.ndarray, ulps: int = 1) -> Interval:
    """Wider by so many roundings. A computed 0 is exact here: sums underflow gradually, products are looked after."""
    spare = [np.where(np.isfinite(side) & (side != 0), ulps * np.spacing(np.abs(side)), 0.0) for side in (low, high)]
    return low - spare[0], high + spare[1]


def _number(value: Any, size: int) -> Interval:
    exact = float(value)
    if not math.isfinite(exact):
        raise UndecidedError(f"the constant {value}")
    low, high = np.full(size, exact), np.full(size, exact)
    return (low, high) if value.is_Integer and abs(exact) < 2**53 else _outward(low, high, ULPS)


def _applied(part: Any, of: Callable[[Any], Interval]) -> Interval:
    if part.is_Add:
        low, high = of(part.args[0])
        for term in part.args[1:]:
            a, b = of(term)
            low, high = _outward(low + a, high + b)
        return low, high
    if part.is_Mul:
        return _product(part, of)
    if part.is_Pow:
        return _power(part, of)
    rule = RULES.get(part.func)
    if rule is None:
        raise UndecidedError(f"the function {part.func}")
    if part.func is sympy.log and has_one_sign(part.args[0]):
        low, high = of(part.args[0])
        return rule(np.maximum(low, 0.0), high)
    return rule(
        *itertools.chain(*(of(argument) for argument in part.args[: 1 if part.func is sympy.Heaviside else None]))
    )


def _product(part: Any, of: Callable[[Any], Interval]) -> Interval:
    """The product of all factors, where x**a*log(x) counts as one factor: apart, they are 0 times infinity at 0."""
    factors = list(part.args)
    intervals = []
    for logarithm in [factor for factor in factors if isinstance(factor, sympy.log) and factor.args[0].is_Symbol]:
        base = logarithm.args[0]
        for other in factors:
            exponent = other.as_base_exp()[1] if other.as_base_exp()[0] == base else None
            if exponent is not None and exponent.is_number and exponent > 0:
                factors = [factor for factor in factors if factor not in (logarithm, other)]
                intervals.append(_power_log(*of(base), float(exponent)))
                break
    intervals += [of(factor) for factor in factors]
    low, high = intervals[0]
    for a, b in intervals[1:]:
        low, high = _times(low, high, a, b)
    return low, high


def _power_log(low: np.ndarray, high: np.ndarray, exponent: float) -> Interval:
    """x**a*log(x), 0 at 0, with its one minimum -1/(e*a) at exp(-1/a)."""
    ends = [np.where(x == 0, 0.0, x**exponent * np.log(x)) for x in (low, high)]
    lowest, highest = np.minimum(*ends), np.maximum(*ends)
    where = math.exp(-1 / exponent)
    inside = (low <= where * (1 + 1e-12)) & (high >= where * (1 - 1e-12))
    lowest = np.where(inside, -1 / (math.e * exponent), lowest)
    return _outward(np.where(low < 0, np.nan, lowest), highest, ULPS)


def _times(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> Interval:
    """0 times infinity is 0: an end that is infinite is not attained."""
    corners = np.stack([_multiplied(x, y) for x in (a, b) for y in (c, d)])
    exact = ((a == b) & (abs(a) == 1)) | ((c == d) & (abs(c) == 1))  # a sign; 1 - p would else fall below 0 at p = 1
    low, high = _outward(corners.min(0), corners.max(0))
    return np.where(exact, corners.min(0), low), np.where(exact, corners.max(0), high)


def _multiplied(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    product = np.where(((x == 0) & ~np.isnan(y)) | ((y == 0) & ~np.isnan(x)), 0.0, x * y)
    return np.where((product == 0) & (x != 0) & (y != 0), np.sign(x) * np.sign(y) * TINY, product)


def _power(part: Any, of: Callable[[Any], Interval]) -> Interval:
    base, exponent = part.args
    if not exponent.is_number:
        return of(sympy.exp(exponent * sympy.log(base), evaluate=False))
    low, high = of(base)
    if exponent.is_negative and has_one_sign(base):
        low, high = (np.maximum(low, 0.0), high) if is_positive(base) else (low, np.minimum(high, 0.0))
    size = abs(exponent)
    if size.is_Integer:
        ends = (low ** int(size), high ** int(size))
        if int(size) % 2 == 0:
            straddles = (low < 0) & (high > 0)
            ends = (np.where(straddles, 0.0, np.minimum(*ends)), np.maximum(*ends))
    else:
        ends = tuple(np.where(low < 0, np.nan, side ** float(size)) for side in (low, high))  # type: ignore[assignment]
    underflown = (ends[1] == 0) & (low != 0) & (high != 0)
    nearest, farthest = np.minimum(abs(low), abs(high)), np.maximum(abs(low), abs(high))
    low, high = _outward(ends[0], np.where(underflown, TINY, ends[1]), ULPS)
    # 1 to any power is 1: 1 - tanh(x)**2 would else fall below 0 for large x.
    low, high = (
        np.where((nearest == 1) & (ends[0] == 1), 1.0, low),
        np.where((farthest == 1) & (ends[1] == 1), 1.0, high),
    )
    return _reciprocal(low, high, has_one_sign(base)) if exponent.is_negative else (low, high)


def _reciprocal(low: np.ndarray, high: np.ndarray, touches: bool) -> Interval:
    """NaN where 0 lies inside; where it is an end that is never attained, the other side is infinite."""
    safe = (low > 0) | (high < 0)
    if touches:
        safe |= (low == 0) | (high == 0)
    above = np.where(low == 0, np.inf, 1 / low)
    below = np.where(high == 0, -np.inf, 1 / high)
    return _outward(np.where(safe, below, np.nan), np.where(safe, above, np.nan))


def _rising(
    function: Callable[[np.ndarray], np.ndarray], least: float = -math.inf, most: float = math.inf
) -> Callable[..., Interval]:
    """A function that rises from `least` to `most`. One that is above 0 is so where its value underflows too."""

    def rule(low: np.ndarray, high: np.ndarray) -> Interval:
        a, b = _outward(function(low), function(high), ULPS)
        b = np.where(np.isneginf(high), b, np.maximum(b, TINY if least == 0 else -np.inf))
        return np.maximum(a, least), np.minimum(b, most)

    return rule


def _steps(low_at_zero: float, high_at_zero: float, bottom: float) -> Callable[..., Interval]:
    def rule(low: np.ndarray, high: np.ndarray) -> Interval:
        below = np.where(low > 0, 1.0, np.where(low < 0, bottom, low_at_zero))
        above = np.where(high > 0, 1.0, np.where(high < 0, bottom, high_at_zero))
        return np.where(np.isnan(low), np.nan, below), np.where(np.isnan(high), np.nan, above)

    return rule


def _abs(low: np.ndarray, high: np.ndarray) -> Interval:
    straddles = (low < 0) & (high > 0)
    return np.where(straddles, 0.0, np.minimum(abs(low), abs(high))), np.maximum(abs(low), abs(high))


def _wave(shift: float) -> Callable[..., Interval]:
    """The sine of x + shift; a maximum or minimum that rounding puts near an end counts as inside."""

    def rule(low: np.ndarray, high: np.ndarray) -> Interval:
        function = np.cos if shift else np.sin
        bottom, top = np.fmin(function(low), function(high)), np.fmax(function(low), function(high))
        far = ~(np.maximum(abs(low), abs(high)) < 1e6)  # where the position of a crest is not known to 1e-9
        for crest in (1, -1):
            turn = (crest * math.pi / 2 - shift) / (2 * math.pi)
            first = np.ceil(low / (2 * math.pi) - turn - 1e-9) + turn
            inside = far | (first <= high / (2 * math.pi) + 1e-9)
            top = np.where(inside, 1.0, top) if crest > 0 else top
            bottom = np.where(inside, -1.0, bottom) if crest < 0 else bottom
        lost = np.isnan(low) | np.isnan(high)
        a, b = _outward(bottom, top, ULPS)
        return np.where(lost, np.nan, np.maximum(a, -1.0)), np.where(lost, np.nan, np.minimum(b, 1.0))

    return rule


def _tangent(low: np.ndarray, high: np.ndarray) -> Interval:
    turns = [np.floor(x / math.pi + 0.5 + nudge) for x, nudge in ((low, -1e-9), (high, 1e-9))]
    a, b = _outward(np.tan(low), np.tan(high), ULPS)
    one_branch = (turns[0] == turns[1]) & (np.maximum(abs(low), abs(high)) < 1e6)
    return np.where(one_branch, a, np.nan), np.where(one_branch, b, np.nan)


def _extreme(choose: Callable[..., np.ndarray]) -> Callable[..., Interval]:
    def rule(*sides: np.ndarray) -> Interval:
        return choose.reduce(sides[::2]), choose.reduce(sides[1::2])  # type: ignore[attr-defined]

    return rule


RULES: dict[Any, Callable[..., Interval]] = {
    sympy.exp: _rising(np.exp, 0.0),
    sympy.log: _rising(np.log),
    sympy.sin: _wave(0.0),
    sympy.cos: _wave(math.pi / 2),
    sympy.tan: _tangent,
    sympy.tanh: _rising(np.tanh, -1.0, 1.0),
    sympy.erf: _rising(special.erf, -1.0, 1.0),
    sigmoid: _rising(special.expit, 0.0, 1.0),
    softplus: _rising(lambda x: np.logaddexp(0.0, x), 0.0),
    sympy.Abs: _abs,
    sympy.sign: _steps(0.0, 0.0, -1.0),
    sympy.Heaviside: _steps(0.0, 1.0, 0.0),
    sympy.Max: _extreme(np.maximum),
    sympy.Min: _extreme(np.minimum),
}
