"""A formula as MathML, which browsers set without any library: for pages that open without a network.

All markup stems from the tables here and in `operators.py`; of a formula come names of the language and digits alone.
"""

from collections.abc import Callable

from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import Node, Style, typeset

_APPLY = "<mo>&#x2061;</mo>"  # an invisible "function of", for readers who listen
_MINUS = "\u2212"
_MEAN = '<mi mathvariant="normal">\U0001d53c</mi>'
_TALL = ("<mfrac>", "<msqrt>")  # what brackets grow around; fonts without mathematics stretch them beyond a mere letter


def to_mathml(node: Node) -> str:
    """The formula as a `<math>` element, in the order of the text."""
    return f"<math>{typeset(node, _MATHML)}</math>"


def _row(*parts: str) -> str:
    return f"<mrow>{''.join(parts)}</mrow>"


def _fence(left: str, content: str, right: str) -> str:
    stretchy = "true" if any(part in content for part in _TALL) else "false"
    marks = (f'<mo fence="true" stretchy="{stretchy}">{mark}</mo>' for mark in (left, right))
    return _row(next(marks), content, next(marks))


def _bracket(content: str) -> str:
    return _fence("(", content, ")")


def _called(name: str) -> Callable[..., str]:
    """How a function is written that has no sign of its own: name(a, b)."""
    return lambda *arguments: _row(f"<mi>{name}</mi>", _APPLY, _bracket("<mo>,</mo>".join(arguments)))


def _between(sign: str) -> Callable[..., str]:
    return lambda left, right: _row(left, sign, right)


def _reduced(*signs: str) -> Callable[..., str]:
    return lambda content: _row(*signs, _fence("[", content, "]"))


def _symbol(latex: str) -> Callable[..., str]:
    """A variable, whose LaTeX is a letter with or without an index: `D_p`."""
    letter, _, index = latex.partition("_")
    text = f"<msub><mi>{letter}</mi><mi>{index}</mi></msub>" if index else f"<mi>{letter}</mi>"
    return lambda: text


def _number(digits: str, power: str) -> str:
    parts = [f"<mo>{_MINUS}</mo>"] if digits.startswith("-") else []
    parts.append(f"<mn>{digits.lstrip('-')}</mn>")
    if power:
        parts.append(f"<mo>\u22c5</mo><msup><mn>10</mn><mn>{power.replace('-', _MINUS)}</mn></msup>")
    return _row(*parts) if len(parts) > 1 else parts[0]


_SIGNS: dict[str, Callable[..., str]] = {
    "add": _between("<mo>+</mo>"),
    "sub": _between(f"<mo>{_MINUS}</mo>"),
    "mul": _between('<mspace width="0.17em"/>'),
    "div": lambda above, below: f"<mfrac>{_row(above)}{_row(below)}</mfrac>",
    "pow": lambda base, exponent: f"<msup>{_row(base)}{_row(exponent)}</msup>",
    "neg": lambda content: _row(f'<mo form="prefix">{_MINUS}</mo>', content),
    "sqrt": lambda content: f"<msqrt>{content}</msqrt>",
    "abs": lambda content: _fence("|", content, "|"),
    "relu": lambda content: f"<msub>{_fence('[', content, ']')}<mo>+</mo></msub>",
    "sigmoid": _called("\u03c3"),
    "cls": _reduced(f"<msub>{_MEAN}<mi>i</mi></msub>", "<munder><mo>\u2211</mo><mi>k</mi></munder>"),
    "pair": _reduced(f"<msubsup>{_MEAN}<mrow><mi>i</mi><mi>j</mi></mrow><mo>\u00b1</mo></msubsup>"),
    "partner": _reduced(
        f"<msub>{_MEAN}<mi>i</mi></msub>",
        "<munder><mo>\u2211</mo><mrow><mi>j</mi><mo>\u2260</mo><mi>i</mi></mrow></munder>",
    ),
    "trip": _reduced(f"<msub>{_MEAN}<mrow><mi>a</mi><mi>p</mi><mi>n</mi></mrow></msub>"),
}

# A function or reduction that has no row above is written by its name.
_MATHML = Style(
    {name: _called(name) for name in (*OPERATORS, *REDUCTIONS)}
    | {name: _symbol(row.latex) for name, row in VARIABLES.items()}
    | _SIGNS,
    _number,
    _bracket,
)
