"""What no module of evoloss does: run text as code, unpickle, or open a shell."""

import ast
from pathlib import Path

import pytest

import evoloss

MODULES = sorted(Path(evoloss.__file__).parent.rglob("*.py"))
RUN_TEXT = {"eval", "exec", "compile", "__import__", "breakpoint"}  # builtins
NAMES = {"sympify", "parse_expr", "lambdify", "import_module", "run_path"}
SHELLS = {"os.system", "os.popen"}
UNPICKLING = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "yaml", "code", "codeop", "runpy"}
LOADERS = {"torch.load": "weights_only=True", "np.load": "", "numpy.load": ""}  # and the option that each needs
# An export is run before it is written: made of parsed trees and a docstring out of which test_export tries to get.
EXEMPT = {"parity": ["exec()", "compile()"]}
UNSAFE = ("shell=True", "allow_pickle=True", "weights_only=False")


def forbidden(source):
    """What a program has that it should not have."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in RUN_TEXT | NAMES:
                yield f"{name}()"
            case ast.Call(func=ast.Attribute(attr="sympify")) if "strict=True" in map(ast.unparse, node.keywords):
                pass  # takes no text
            case ast.Call(func=ast.Attribute(attr=name)) if name in NAMES or ast.unparse(node.func) in SHELLS:
                yield ast.unparse(node.func)
            case ast.Import(names=names) if UNPICKLING & {alias.name.partition(".")[0] for alias in names}:
                yield f"import {names[0].name}"
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in UNPICKLING or NAMES & {alias.name for alias in names}:
                    yield f"from {module} import"
            case ast.Call(func=ast.Attribute(), keywords=keywords):
                options = [ast.unparse(keyword) for keyword in keywords]
                if set(UNSAFE) & set(options) or LOADERS.get(ast.unparse(node.func), "") not in ("", *options):
                    yield ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_runs_text_or_unpickles(path):
    assert list(forbidden(path.read_text(encoding="utf-8"))) == EXEMPT.get(path.stem, [])


@pytest.mark.parametrize(
    "source",
    [
        "eval(text)",
        "exec(text)",
        "compile(text, '', 'eval')",
        "__import__(name)",
        "sympy.sympify(text)",
        "sympify(text)",
        "from sympy import lambdify",
        "from sympy.parsing.sympy_parser import parse_expr",
        "import pickle",
        "import joblib",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
    ],
)
def test_the_check_sees_what_it_looks_for(source):
    assert list(forbidden(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "model.eval()",
        "re.compile(text)",
        "sympy.sympify(x, strict=True)",
    ],
)
def test_the_check_lets_the_rest_be(source):
    assert not list(forbidden(source))


def test_the_parser_reaches_nothing_but_its_table():
    """No other module of the standard library, no sympy, no attribute of what is parsed."""
    path = next(path for path in MODULES if path.name == "syntax.py")
    found = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    imported = {node.module for node in found if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in found if isinstance(node, ast.Import) for alias in node.names}
    plain = {"ast", "collections.abc", "dataclasses", "math", "typing", "warnings"}
    assert imported == plain | {"evoloss.errors", "evoloss.operators"}
    calls = [ast.unparse(node) for node in found if isinstance(node, ast.Call)]
    assert [call for call in calls if call.startswith(("getattr", "setattr"))] == ["getattr(at, 'col_offset', 0)"]


@pytest.mark.parametrize("name", ["load", "sympify", "os", "__class__", "factorial", "save"])
def test_trees_of_strangers_reach_no_attribute_of_a_library(name):
    """`canonical`, `lower` and `gradient` look functions up in tables alone."""
    from evoloss.canonical import canonical
    from evoloss.gradient import compile_gradient
    from evoloss.lower import compile_node

    for build in (canonical, lambda node: compile_node(node, 10), lambda node: compile_gradient(node, 10)):
        with pytest.raises(KeyError):
            build(("cls", (name, "p")))
