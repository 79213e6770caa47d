"""The words of the loss language: functions, variables, reductions. Plain data; the only place that lists them.

A new row is picked up by the parser, the trees, the lowering and the tests.
"""

from dataclasses import dataclass
from typing import Literal

Layout = Literal["class", "pair", "triplet"]


@dataclass(frozen=True)
class Operator:
    """A function of the language.

    `sympy` and `torch` name the function in those libraries (`canonical.py` and `lower.py` look there first among their
    own), so that this table imports neither. `cost` is what a node adds to the complexity of a formula. `latex` is a
    format string over the arguments.
    """

    name: str
    arity: int
    sympy: str
    torch: str
    cost: int
    latex: str
    symbol: str = ""
    associative: bool = False


@dataclass(frozen=True)
class Variable:
    """An input of a loss. `target` and `prediction` tell what a formula knows when it sees this variable."""

    name: str
    layout: Layout | None
    meaning: str
    latex: str
    prediction: bool = False
    target: bool = False
    sign: Literal["positive", "nonnegative", "real"] = "real"


@dataclass(frozen=True)
class Reduction:
    """Turns an elementwise formula of one layout into a scalar."""

    name: str
    layout: Layout
    meaning: str
    latex: str


_OPERATORS = (
    Operator("add", 2, "Add", "add", 1, "{} + {}", symbol="+"),
    Operator("sub", 2, "Add", "sub", 1, "{} - {}", symbol="-"),
    Operator("mul", 2, "Mul", "mul", 1, r"{} \, {}", symbol="*"),
    Operator("div", 2, "Mul", "div", 1, r"\frac{{{}}}{{{}}}", symbol="/"),
    Operator("pow", 2, "Pow", "pow", 1, "{}^{{{}}}", symbol="**"),
    Operator("neg", 1, "Mul", "neg", 1, "-{}", symbol="-"),
    Operator("exp", 1, "exp", "exp", 2, r"\exp\left({}\right)"),
    Operator("log", 1, "log", "log", 2, r"\log\left({}\right)"),
    Operator("sqrt", 1, "sqrt", "sqrt", 2, r"\sqrt{{{}}}"),
    Operator("abs", 1, "Abs", "abs", 1, r"\left|{}\right|"),
    Operator("sign", 1, "sign", "sign", 1, r"\operatorname{{sign}}\left({}\right)"),
    Operator("sin", 1, "sin", "sin", 2, r"\sin\left({}\right)"),
    Operator("cos", 1, "cos", "cos", 2, r"\cos\left({}\right)"),
    Operator("tan", 1, "tan", "tan", 2, r"\tan\left({}\right)"),
    Operator("tanh", 1, "tanh", "tanh", 2, r"\tanh\left({}\right)"),
    Operator("sigmoid", 1, "sigmoid", "sigmoid", 2, r"\sigma\left({}\right)"),
    Operator("softplus", 1, "softplus", "softplus", 2, r"\operatorname{{softplus}}\left({}\right)"),
    Operator("relu", 1, "relu", "relu", 1, r"\left[{}\right]_+"),
    Operator("erf", 1, "erf", "erf", 2, r"\operatorname{{erf}}\left({}\right)"),
    Operator("min", 2, "minimum", "minimum", 1, r"\min\left({}, {}\right)", associative=True),
    Operator("max", 2, "maximum", "maximum", 1, r"\max\left({}, {}\right)", associative=True),
)

_VARIABLES = (
    Variable("p", "class", "softmax probability of the class", "p", prediction=True, sign="positive"),
    Variable("y", "class", "target, one-hot or soft", "y", target=True, sign="nonnegative"),
    Variable("z", "class", "logit of the class", "z", prediction=True),
    Variable("d", "class", "distance from the embedding to the class's learned center", "d", True, sign="positive"),
    Variable("D", "pair", "distance between two embeddings", "D", prediction=True, sign="positive"),
    Variable("Y", "pair", "1 where the classes of the pair agree, else 0", "Y", target=True, sign="nonnegative"),
    # Which sample is the positive one is what the target says: a triplet distance knows both.
    Variable("Dp", "triplet", "distance from the anchor to the positive sample", "D_p", True, True, "positive"),
    Variable("Dn", "triplet", "distance from the anchor to the negative sample", "D_n", True, True, "positive"),
    Variable("K", None, "number of classes", "K", sign="positive"),
)

_REDUCTIONS = (
    Reduction("cls", "class", "sum over classes, mean over samples", r"\mathbb{{E}}_i \sum_k \left[{}\right]"),
    Reduction(
        "pair",
        "pair",
        "half the mean over agreeing pairs plus half the mean over the others",
        r"\mathbb{{E}}_{{ij}}^{{\pm}} \left[{}\right]",
    ),
    Reduction(
        "partner", "pair", "sum over partners, mean over samples", r"\mathbb{{E}}_i \sum_{{j \neq i}} \left[{}\right]"
    ),
    Reduction("trip", "triplet", "mean over mined triplets", r"\mathbb{{E}}_{{apn}} \left[{}\right]"),
)

OPERATORS = {operator.name: operator for operator in _OPERATORS}
FUNCTIONS = {operator.name: operator for operator in _OPERATORS if not operator.symbol}
VARIABLES = {variable.name: variable for variable in _VARIABLES}
REDUCTIONS = {reduction.name: reduction for reduction in _REDUCTIONS}
FIRST_REDUCTION: dict[str, str] = {r.layout: r.name for r in reversed(_REDUCTIONS)}
