"""Hypothesis strategies for formulas, and an evaluator of trees in numpy that knows nothing of evoloss's own."""

import numpy as np
from hypothesis import strategies as st
from scipy import special

from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import MAX_LENGTH, write

LAYOUTS = sorted({row.layout for row in REDUCTIONS.values()})

any_number = st.one_of(
    st.just(0.0),
    st.integers(-1000, 1000).map(float),
    st.floats(1e-9, 1e9).flatmap(lambda value: st.sampled_from([value, -value])),
)
short_number = st.integers(-400, 400).map(lambda n: n / 100)  # at most three digits: nothing to round
grammatical_text = st.lists(
    st.sampled_from([*OPERATORS, *REDUCTIONS, *VARIABLES, *"()()(),,+-*/ **.0123456789e", "**", "log(", "cls(", "-y*"]),
    max_size=30,
).map("".join)


def fields(layout, numbers=any_number, max_leaves=10):
    """Elementwise trees of one layout, as `read` returns them."""
    names = [row.name for row in VARIABLES.values() if row.layout in (layout, None)]
    leaves = st.one_of(st.sampled_from(names), st.sampled_from(names), numbers)
    return st.recursive(leaves, _calls, max_leaves=max_leaves).filter(_within_limits)


def scalars(numbers=any_number, max_leaves=10):
    """Trees of losses: sums, products and functions of reductions of every layout."""
    reduced = st.sampled_from(list(REDUCTIONS.values())).flatmap(
        lambda row: st.tuples(st.just(row.name), fields(row.layout, numbers, max_leaves))
    )
    leaves = st.one_of(reduced, reduced, numbers, st.just("K"))
    return st.one_of(
        reduced,
        st.recursive(leaves, _calls, max_leaves=4).filter(lambda node: _has_reduction(node)).filter(_within_limits),
    )


def _calls(children):
    by_arity = {
        arity: st.sampled_from([row.name for row in OPERATORS.values() if row.arity == arity])
        for arity in {row.arity for row in OPERATORS.values()}
    }
    calls = [st.tuples(names, *[children] * arity) for arity, names in by_arity.items()]
    # `-2` is read as a number, not as the negation of one.
    return st.one_of(calls).filter(lambda node: not (node[0] == "neg" and isinstance(node[1], float)))


def _within_limits(node):
    return height(node) <= 40 and len(write(node)) < MAX_LENGTH


def _has_reduction(node):
    return isinstance(node, tuple) and (node[0] in REDUCTIONS or any(_has_reduction(child) for child in node[1:]))


def height(node):
    return 1 + max(height(child) for child in node[1:]) if isinstance(node, tuple) else 0


def _grid(points=96):
    rng = np.random.default_rng(0)
    values = {}
    for name, row in VARIABLES.items():
        if row.layout is None:
            values[name] = rng.integers(2, 12, points).astype(float)
        elif row.target and not row.prediction:
            values[name] = rng.choice([0.0, 1.0, 0.0, 1.0, 0.037, 0.91], points)
        elif name == "p":
            values[name] = rng.uniform(0.003, 0.999, points)
        elif row.sign == "positive":
            values[name] = rng.uniform(0.02, 3, points)
        else:
            values[name] = rng.normal(0, 2, points)
    return values


GRID = _grid()

_NUMPY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "neg": np.negative,
    "sigmoid": special.expit,
    "softplus": lambda x: np.logaddexp(0.0, x),
    "relu": lambda x: np.where(x > 0, x, 0.0),
    "erf": special.erf,
    "min": np.minimum,
    "max": np.maximum,
} | dict.fromkeys(REDUCTIONS, lambda x: x)  # any real function would do: canonical forms know nothing of reductions


def evaluate(node, values=GRID, rng=None):
    """The value of a tree at points, and the largest magnitude that any part of it has there.

    With `rng`, the result of every operation is off by about one in a million.
    """
    if isinstance(node, str):
        return values[node], np.abs(values[node])
    if isinstance(node, float):
        return np.full_like(values["p"], node), np.full_like(values["p"], abs(node))
    name, *children = node
    parts = [evaluate(child, values, rng) for child in children]
    with np.errstate(all="ignore"):
        value = _NUMPY.get(name, getattr(np, name, None))(*(part for part, _ in parts))
        if rng is not None and name not in REDUCTIONS:
            value = value * (1 + 1e-6 * rng.choice([-1.0, 1.0], value.shape))
        largest = np.abs(value)
        for _, part in parts:
            largest = np.where(np.isfinite(part) & np.isfinite(largest), np.maximum(largest, part), np.inf)
    return value, largest


def well_conditioned(node, limit=1e6, draws=3):
    """Values, their magnitudes, and where they are moderate and little moved by rounding."""
    value, largest = evaluate(node)
    good = largest < limit
    for seed in range(draws):
        moved, size = evaluate(node, rng=np.random.default_rng(seed))
        with np.errstate(all="ignore"):
            good &= (size < limit) & (np.abs(moved - value) <= 2e-5 * np.maximum(np.abs(value), 1e-3))
    return value, largest, good
