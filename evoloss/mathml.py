"""A formula as MathML, which browsers set without any library: for pages that open without a network.

All markup stems from the tables here and in `operators.py`; of a formula come names of the language and digits alone.
"""

from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import Node, Style, typeset

_APPLY = "<mo>&#x2061;</mo>"  # an invisible "function of", for readers who listen


def to_mathml(node: Node) -> str:
    """The formula as a `<math>` element, in the order of the text."""
    return f"<math>{typeset(node, _MATHML)}</math>"


def _row(content: str) -> str:
    return f"<mrow>{content}</mrow>"


def _fence(left: str, content: str, right: str) -> str:
    return _row(f'<mo fence="true">{left}</mo>{content}<mo fence="true">{right}</mo>')


def _called(name: str, arity: int) -> str:
    """What a function looks like that has no sign of its own: name(a, b)."""
    return _row(f"<mi>{name}</mi>{_APPLY}{_fence('(', '<mo>,</mo>'.join(['{}'] * arity), ')')}")


def _symbol(latex: str) -> str:
    """A variable, whose LaTeX is a letter with or without an index: `D_p`."""
    letter, _, index = latex.partition("_")
    return f"<msub><mi>{letter}</mi><mi>{index}</mi></msub>" if index else f"<mi>{letter}</mi>"


def _number(digits: str, power: str) -> str:
    sign, unsigned = ("<mo>\u2212</mo>", digits[1:]) if digits.startswith("-") else ("", digits)
    times = f"<mo>\u22c5</mo><msup><mn>10</mn><mn>{power.replace('-', chr(0x2212))}</mn></msup>" if power else ""
    return _row(f"{sign}<mn>{unsigned}</mn>{times}") if sign or times else f"<mn>{unsigned}</mn>"


_MEAN = "<mi mathvariant=\"normal\">\U0001d53c</mi>"

_SIGNS = {
    "add": _row("{}<mo>+</mo>{}"),
    "sub": _row("{}<mo>\u2212</mo>{}"),
    "mul": _row('{}<mspace width="0.17em"/>{}'),
    "div": f"<mfrac>{_row('{}')}{_row('{}')}</mfrac>",
    "pow": f"<msup>{_row('{}')}{_row('{}')}</msup>",
    "neg": _row('<mo form="prefix">\u2212</mo>{}'),
    "sqrt": "<msqrt>{}</msqrt>",
    "abs": _fence("|", "{}", "|"),
    "relu": f"<msub>{_fence('[', '{}', ']')}<mo>+</mo></msub>",
    "sigmoid": _called("\u03c3", 1),
    "cls": _row(
        f"<msub>{_MEAN}<mi>i</mi></msub><munder><mo>\u2211</mo><mi>k</mi></munder>{_fence('[', '{}', ']')}",
    ),
    "pair": _row(f"<msubsup>{_MEAN}<mrow><mi>i</mi><mi>j</mi></mrow><mo>\u00b1</mo></msubsup>{_fence('[', '{}', ']')}"),
    "partner": _row(
        f"<msub>{_MEAN}<mi>i</mi></msub>"
        "<munder><mo>\u2211</mo><mrow><mi>j</mi><mo>\u2260</mo><mi>i</mi></mrow></munder>"
        f"{_fence('[', '{}', ']')}"
    ),
    "trip": _row(f"<msub>{_MEAN}<mrow><mi>a</mi><mi>p</mi><mi>n</mi></mrow></msub>{_fence('[', '{}', ']')}"),
}

# A function or reduction that has no row above is written by its name.
_MATHML = Style(
    {name: _called(name, row.arity) for name, row in OPERATORS.items()}
    | {name: _called(name, 1) for name in REDUCTIONS}
    | {name: _symbol(row.latex) for name, row in VARIABLES.items()}
    | _SIGNS,
    _number,
    _fence("(", "{}", ")"),
)
