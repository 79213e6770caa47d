import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import grammatical_text, scalars

from benchmarks.attacks import ATTACKS, HUGE
from evoloss.errors import EvolossError, suggest
from evoloss.expression import Expression
from evoloss.operators import FIRST_REDUCTION, FUNCTIONS, REDUCTIONS, VARIABLES
from evoloss.syntax import ExpressionError, read, read_macro, to_latex, write

LATEX_WORDS = re.compile(r"\\[a-zA-Z]+")


def refusal(text):
    with pytest.raises(ExpressionError) as caught:
        read(text)
    return str(caught.value)


def caret(message):
    """The column of the caret and the character above it."""
    lines = message.split("\n")
    assert len(lines) == 3, message
    assert lines[2].strip() == "^", message
    column = lines[2].index("^")
    assert lines[1].startswith("    ")
    return column - 4, lines[1][column : column + 1]


@settings(max_examples=150, deadline=None)
@given(scalars())
def test_read_is_the_inverse_of_write(node):
    assert read(write(node)) == node


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("p", ("cls", "p")),
        ("D", ("pair", "D")),
        ("Dp - Dn", ("trip", ("sub", "Dp", "Dn"))),
        ("-y*log(p)", ("cls", ("mul", ("neg", "y"), ("log", "p")))),
        ("-p**2", ("cls", ("neg", ("pow", "p", 2.0)))),
        ("(-p)**2", ("cls", ("pow", ("neg", "p"), 2.0))),
        ("p**-y", ("cls", ("pow", "p", ("neg", "y")))),
        ("p**y**z", ("cls", ("pow", "p", ("pow", "y", "z")))),
        ("p - y - z", ("cls", ("sub", ("sub", "p", "y"), "z"))),
        ("p - (y - z)", ("cls", ("sub", "p", ("sub", "y", "z")))),
        ("p/y/z", ("cls", ("div", ("div", "p", "y"), "z"))),
        ("+p", ("cls", "p")),
        ("--p", ("cls", ("neg", ("neg", "p")))),
        ("-2*p", ("cls", ("mul", -2.0, "p"))),
        ("--2*p", ("cls", ("mul", 2.0, "p"))),
        ("1e-3*p", ("cls", ("mul", 0.001, "p"))),
        (".5*p", ("cls", ("mul", 0.5, "p"))),
        ("max(p, y, z)", ("cls", ("max", ("max", "p", "y"), "z"))),
        ("max(p, max(y, z))", ("cls", ("max", "p", ("max", "y", "z")))),
        ("min(p, 1)", ("cls", ("min", "p", 1.0))),
        ("  p  +  y  ", ("cls", ("add", "p", "y"))),
        ("p*K", ("cls", ("mul", "p", "K"))),
        ("K*cls(p)", ("mul", "K", ("cls", "p"))),
        ("cls(p) + 0.01*pair(D)", ("add", ("cls", "p"), ("mul", 0.01, ("pair", "D")))),
        ("log(partner(D))", ("log", ("partner", "D"))),
        ("cls(3)", ("cls", 3.0)),
    ],
)
def test_read_literally(text, node):
    assert read(text) == node


@pytest.mark.parametrize(
    ("node", "text"),
    [
        (("cls", ("sub", "p", ("sub", "y", "z"))), "cls(p - (y - z))"),
        (("cls", ("mul", ("add", "p", "y"), "z")), "cls((p + y)*z)"),
        (("cls", ("pow", ("pow", "p", 2.0), 3.0)), "cls((p**2)**3)"),
        (("cls", ("pow", "p", ("pow", "y", 3.0))), "cls(p**(y**3))"),
        (("cls", ("pow", -2.0, "p")), "cls((-2)**p)"),
        (("cls", ("pow", 2.0, -3.5)), "cls(2**(-3.5))"),
        (("cls", ("neg", ("add", "p", "y"))), "cls(-(p + y))"),
        (("cls", ("mul", "p", ("div", "y", "z"))), "cls(p*(y/z))"),
        (("cls", ("max", ("max", "p", "y"), "z")), "cls(max(p, y, z))"),
        (("cls", ("max", "p", ("max", "y", "z"))), "cls(max(p, max(y, z)))"),
        (("cls", ("mul", 1e-09, "p")), "cls(1e-09*p)"),
        (("cls", ("mul", 1e9, "p")), "cls(1000000000.0*p)"),
        (("cls", ("add", "p", 2.0)), "cls(p + 2)"),
    ],
)
def test_write_literally(node, text):
    assert write(node) == text
    assert read(text) == node


@pytest.mark.parametrize(
    ("text", "problem", "column", "above"),
    [
        ("P*y", "unknown name `P`, did you mean `p`?", 0, "P"),
        ("y*P", "unknown name `P`, did you mean `p`?", 2, "P"),
        ("  y*P", "unknown name `P`, did you mean `p`?", 2, "P"),
        ("y*log(P)", "unknown name `P`, did you mean `p`?", 6, "P"),
        ("pair(dp)", "unknown name `dp`, did you mean `Dp`?", 5, "d"),
        ("y*sofplus(p)", "unknown function `sofplus`, did you mean `softplus`?", 2, "s"),
        ("y*Log(p)", "unknown function `Log`, did you mean `log`?", 2, "L"),
        ("y*lgo(p)", "unknown function `lgo`, did you mean `log`?", 2, "l"),
        ("qqq(p)", "unknown function `qqq`", 0, "q"),
        ("p^2", "a power is written `**`, not `^`", 2, "2"),
        ("y*log", "`log` is a function and needs arguments: `log(...)`", 2, "l"),
        ("2*cls", "`cls` is a function and needs arguments: `cls(...)`", 2, "c"),
        ("y + log(p, y)", "`log` takes 1 argument, not 2", 4, "l"),
        ("y + exp()", "`exp` takes 1 argument, not 0", 4, "e"),
        ("y + max(p)", "`max` takes two or more arguments, not 1", 4, "m"),
        ("min()", "`min` takes two or more arguments, not 0", 0, "m"),
        ("1 + cls(p, y)", "`cls` takes 1 argument, not 2", 4, "c"),
        ("y*exp(*p)", "`exp` takes plain arguments only", 2, "e"),
        ("y*exp(x=p)", "`exp` takes plain arguments only", 2, "e"),
        ("p*D", "`p` (class layout) and `D` (pair layout) cannot meet inside one reduction", 2, "D"),
        ("log(y + Dn)", "`y` (class layout) and `Dn` (triplet layout) cannot meet inside one reduction", 8, "D"),
        ("2*max(z, D)", "`z` (class layout) and `D` (pair layout) cannot meet", 2, "m"),
        ("cls(D)", "`cls` reduces the class layout, but `D` belongs to the pair layout: use `pair(...)`", 4, "D"),
        ("1 + trip(p)", "`trip` reduces the triplet layout, but `p` belongs to the class layout", 9, "p"),
        ("cls(p)*y", "stands outside a reduction: write `cls(...)` around it", 7, "y"),
        ("cls(p) + D", "`D` stands outside a reduction: write `pair(...)` around it", 9, "D"),
        ("D + cls(p)", "`D` stands outside a reduction: write `pair(...)` around it", 4, "c"),
        ("cls(cls(p))", "reductions do not nest: the argument of `cls` is already a scalar", 4, "c"),
        ("pair(2*partner(D))", "reductions do not nest: the argument of `pair` is already a scalar", 5, "2"),
        ("p*1e10", "a number is 0 or between 1e-09 and 1e+09 in magnitude", 2, "1"),
        ("p*1e-10", "a number is 0 or between 1e-09 and 1e+09 in magnitude", 2, "1"),
        ("K", "a loss needs a prediction (p, z, d, D, Dp or Dn); this formula is a constant", 0, "K"),
        ("p y", "the text cannot be parsed here", 2, "y"),
        ("p.real", "are allowed, not attribute", 0, "p"),
        ("y*'a'", "only real numbers are allowed, not str", 2, "'"),
        ("p\ty", "only printable ASCII is allowed, not '\\t'", 1, "?"),
        ("y*\u0440", "only printable ASCII is allowed, not '\\u0440'", 2, "?"),
    ],
)
def test_errors_point_at_the_place(text, problem, column, above):
    message = refusal(text)
    assert problem in message.split("\n")[0]
    assert caret(message) == (column, above)


def test_a_bare_variable_beside_a_reduction_names_the_bare_one():
    # In `cls(p)*y` it is `y` that stands outside: `p` is where it belongs.
    assert "`y` stands outside a reduction" in refusal("cls(p)*y")
    assert "`y` stands outside a reduction" in refusal("y*cls(p)")
    assert "`z` stands outside a reduction" in refusal("cls(p) + pair(D)*z")


def test_the_mend_of_mixed_layouts_can_be_followed():
    assert "write cls(...) + pair(...)" in refusal("p*D")
    assert read("cls(p) + pair(D)") == ("add", ("cls", "p"), ("pair", "D"))


@pytest.mark.parametrize("place", [0, 1, 20, 21, 22, 23, 300, 576, 577, 598, 599])
def test_the_caret_of_a_long_formula(place):
    message = refusal("max(" + ",".join(["P" if number == place else "p" for number in range(600)]) + ")")
    assert caret(message)[1] == "P"
    assert max(len(line) for line in message.split("\n")) <= 94


@pytest.mark.parametrize("row", VARIABLES.values(), ids=VARIABLES)
def test_every_variable_can_be_read(row):
    if row.layout is None:
        assert read(f"cls({row.name})") == ("cls", row.name)
    else:
        assert read(row.name) == (FIRST_REDUCTION[row.layout], row.name)


@pytest.mark.parametrize("row", FUNCTIONS.values(), ids=FUNCTIONS)
def test_every_function_can_be_read_and_checks_its_arguments(row):
    arguments = ["p", "y"][: row.arity]
    assert read(f"{row.name}({', '.join(arguments)})") == ("cls", (row.name, *arguments))
    assert f"`{row.name}` takes" in refusal(f"{row.name}()")
    if row.associative:
        assert read(f"{row.name}(p, y, z)") == ("cls", (row.name, (row.name, "p", "y"), "z"))
    else:
        assert f"`{row.name}` takes {row.arity} argument" in refusal(f"{row.name}({', '.join('pyz'[: row.arity + 1])})")


@pytest.mark.parametrize("row", REDUCTIONS.values(), ids=REDUCTIONS)
def test_every_reduction_takes_its_layout_alone(row):
    for variable in VARIABLES.values():
        if variable.layout in (row.layout, None):
            assert read(f"{row.name}({variable.name})") == (row.name, variable.name)
        else:
            assert f"`{row.name}` reduces the {row.layout} layout" in refusal(f"{row.name}({variable.name})")


def test_the_longest_formula():
    longest = "p" + " " * 1997 + "*y"
    assert len(longest) == 2000
    assert read(longest) == ("cls", ("mul", "p", "y"))
    assert "at most 2,000 characters, this one has 2,001" in refusal(longest + "y")


def test_white_space_around_a_formula_is_nothing():
    assert read("\n \t p \r\n") == read("p")


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "p" + "+p" * n,
        lambda n: "-" * n + "p",
        lambda n: "+" * n + "p",
        lambda n: "p**" * n + "p",
        lambda n: "abs(" * n + "p" + ")" * n,
    ],
)
def test_the_deepest_formula(make):
    read(make(60))
    assert "nests at most 60 operations" in refusal(make(61))


@pytest.mark.parametrize(("text", "value"), [("1e-9", 1e-9), ("1e9", 1e9), ("0", 0.0), ("0.0", 0.0)])
def test_the_largest_and_smallest_numbers(text, value):
    assert read(f"{text}*p") == ("cls", ("mul", value, "p"))


@pytest.mark.parametrize("text", [*ATTACKS, *(pytest.param(text, id=name) for name, text in HUGE.items())])
def test_attacks_are_refused_and_never_run(text, tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    text = text.replace("{marker}", str(marker)) if "marker" in text else text
    monkeypatch.setattr(os, "system", lambda command: marker.touch())
    for parse in (read, Expression.parse):
        with pytest.raises(ExpressionError) as caught:
            parse(text)
        assert len(str(caught.value)) < 400
    assert not marker.exists()


def test_the_message_of_a_refused_unicode_formula_is_ascii():
    assert refusal("\u0440*y\u0440").isascii()


@settings(max_examples=4_500, deadline=None)
@given(st.one_of(st.text(max_size=60), grammatical_text))
@example("p" + "'" * 3)
@example("\\")
@example("p\\\n")
def test_random_text_raises_nothing_else(text):
    try:
        node = read(text)
    except ExpressionError:
        return
    assert read(write(node)) == node


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=40), grammatical_text, grammatical_text, scalars(max_leaves=6).map(write)))
def test_random_text_raises_nothing_else_when_parsed(text):
    try:
        expression = Expression.parse(text)
    except ExpressionError:
        return
    assert Expression.parse(expression.text) == expression


@pytest.mark.parametrize("count", [2, 50, 200, 330, 480, 900])
def test_a_maximum_of_many_is_read_or_refused(count):
    text = "max(" + ",".join(["p", *(["y"] * (count - 1))]) + ")"
    try:
        assert Expression.parse(text).text == "cls(max(p, y))"
    except ExpressionError:
        assert count > 60


@pytest.mark.parametrize(
    ("text", "node", "used"),
    [
        ("a/sqrt(1 + b**2)", ("div", "a", ("sqrt", ("add", 1.0, ("pow", "b", 2.0)))), ("a", "b")),
        ("log(abs(a) + 0.001)", ("log", ("add", ("abs", "a"), 0.001)), ("a",)),
        ("c*b + a", ("add", ("mul", "c", "b"), "a"), ("a", "b", "c")),
        ("c*2", ("mul", "c", 2.0), ("c",)),
    ],
)
def test_macros(text, node, used):
    assert read_macro(text) == (node, used)


@pytest.mark.parametrize("text", ["p", "a*p", "cls(a)", "2", "e", "a +", "", "a.b", "print(a)", "K*2", "-" * 99 + "a"])
def test_bad_macros(text):
    with pytest.raises(ExpressionError):
        read_macro(text)


@settings(max_examples=60, deadline=None)
@given(scalars())
def test_latex_is_balanced(node):
    latex = to_latex(node)
    assert latex.count("{") == latex.count("}")
    words = LATEX_WORDS.findall(latex)
    assert words.count(r"\left") == words.count(r"\right")


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("-y*log(p)", r"\mathbb{E}_i \sum_k \left[-y \, \log\left(p\right)\right]"),
        ("pair(D/Y)", r"\mathbb{E}_{ij}^{\pm} \left[\frac{D}{Y}\right]"),
        ("(p + 1)**2", r"\mathbb{E}_i \sum_k \left[\left(p + 1\right)^{2}\right]"),
        ("1e-7*p", r"\mathbb{E}_i \sum_k \left[1 \cdot 10^{-7} \, p\right]"),
        ("p - (y - 1)", r"\mathbb{E}_i \sum_k \left[p - \left(y - 1\right)\right]"),
        ("Dp**-2", r"\mathbb{E}_{apn} \left[D_p^{-2}\right]"),
    ],
)
def test_latex_literally(text, latex):
    assert to_latex(read(text)) == latex


def test_an_expression_error_is_the_error_of_a_user():
    error = ExpressionError("problem", "abc", 1)
    assert isinstance(error, EvolossError)
    assert isinstance(error, ValueError)
    assert error.problem == "problem"
    assert str(error) == "problem\n    abc\n     ^"


def test_suggestions():
    assert suggest("P", VARIABLES) == ", did you mean `p`?"
    assert suggest("LOG", FUNCTIONS) == ", did you mean `log`?"
    assert suggest("xyzzy", FUNCTIONS) == ""
    assert suggest("a", []) == ""
