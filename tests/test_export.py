import ast
import csv
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evoloss import export, formula
from evoloss.baselines import BASELINES
from evoloss.errors import EvolossError
from evoloss.export import portable
from evoloss.export.signature import signature
from evoloss.layouts import triplets
from evoloss.lower import Loss

RUN = Path(__file__).parent.parent / "runs" / "fashion-mnist-hybrid-0"
OTHERS = {
    "found_3": f"{RUN}#3",
    "found_4": f"{RUN}#4",
    "found_143": f"{RUN}#143",
    "cifar_1": f"{RUN.parent / 'cifar10-hybrid-0'}#1",
    "everything": "exp(cls((p - y)**2))*pair(Y*D) + partner(min(Y, D, log(K))) - cls(2.5) - trip(sin(Dn)/Dp)",
    "no_logits": "pair(Y*D - K) + cls(y)",
}
LIBRARY = {name.replace("-", "_"): name for name in BASELINES}
ALL = LIBRARY | OTHERS
TRACED = ("ngl", "center", "standalone_center", "triplet", "everything")  # every layout, alone and together
SLOW = ("test_torch_export", "test_torch_jit_script", "test_torch_compile")

# Runs the tests of exported files as a user would who has torch and no evoloss; prints what failed, by file.
ALONE = """
import importlib, json, sys, unittest
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "evoloss":
            raise ImportError("there is no evoloss here")
sys.meta_path.insert(0, Blocked())
found = {}
for name, skipped in json.loads(sys.argv[1]).items():
    (suite,) = unittest.TestLoader().loadTestsFromModule(importlib.import_module(f"test_{name}"))
    result = unittest.TestResult()
    ran = [case for case in suite if not case.id().endswith(tuple(skipped))]
    unittest.TestSuite(ran).run(result)
    bad = [[case.id().rpartition(".")[2], text] for case, text in result.failures + result.errors]
    found[name] = {"ran": len(ran), "bad": bad}
print(json.dumps(found))
"""


def written(folder, name):
    path = folder / f"{name}.py"
    if not path.exists():
        export.save(export.files(formula.find(ALL[name]), path))
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def alone(folder):
    """What the tests of all exported files say where there is no evoloss; those of `broken`, too, which was altered."""
    for name in ALL:
        written(folder, name)
    text = (folder / "ce.py").read_text().replace("ce(", "broken(").replace("class Ce", "class Broken")
    (folder / "broken.py").write_text(text.replace("-y * log_p", "-y * log_p * 1.00001"))
    test = (folder / "test_ce.py").read_text()
    (folder / "test_broken.py").write_text(
        test.replace("from ce import", "from broken import")
        .replace("import Ce as", "import Broken as")
        .replace("import ce as", "import broken as")
    )
    wanted = {name: () if name == "ngl" else SLOW[2:] if name in TRACED else SLOW for name in (*ALL, "broken")}
    return run_alone(folder, wanted)


def run_alone(folder, wanted):
    """Run the tests of these files, without some, in a process that has no evoloss."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    paths = [str(folder), *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(wanted)],
        cwd=folder,
        env=environment | {"PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def alone_in_jax(tmp_path_factory):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed: pip install evoloss[jax]")
    folder = tmp_path_factory.mktemp("jax")
    for name in TRACED:
        export.save(export.files(formula.find(ALL[name]), folder / f"{name}_jax.py"))
    return run_alone(folder, {f"{name}_jax": () for name in TRACED})


@pytest.mark.parametrize("name", TRACED)
def test_the_tests_pass_in_jax_where_there_is_no_evoloss(name, alone_in_jax):
    assert alone_in_jax[f"{name}_jax"] == {"ran": 5, "bad": []}


def loaded(folder, name):
    path = written(folder, name)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name), getattr(module, "".join(part.capitalize() for part in name.split("_")))


@pytest.mark.parametrize("name", ALL)
def test_the_tests_pass_where_there_is_no_evoloss(name, alone):
    assert alone[name]["bad"] == []
    assert alone[name]["ran"] == (8 if name == "ngl" else 7 if name in TRACED else 5)


def test_the_tests_fail_for_another_loss(alone):
    assert {test.split()[0] for test, _ in alone["broken"]["bad"]} == {
        "test_double_precision",
        "test_module",
        "test_trailing_dimensions",
    }


@pytest.mark.parametrize("name", ALL)
def test_the_file_knows_torch_alone(name, folder):
    imported = set()
    for node in ast.walk(ast.parse(written(folder, name).read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert imported <= {"math", "torch", "torch.nn"}


def batches(classes):
    """What parity vectors do not have: one sample, none that counts, one class alone, many, in single precision."""
    generator = torch.Generator().manual_seed(1)
    for target in ([1], [-100, -100], [0, 0, 0], [1, -100, 0, 1, 1], list(range(classes)) * 3):
        size = len(target)
        logits = torch.randn(size, classes, generator=generator)
        embeddings, centers = (torch.randn(count, 5, generator=generator) for count in (size, classes))
        yield logits, torch.tensor(target), embeddings, centers


@pytest.mark.parametrize("name", ALL)
def test_odd_batches_are_as_inside(name, folder):
    found = formula.find(ALL[name])
    expression = found.expression
    classes = (found.baseline and found.baseline.classes) or 3
    function, _ = loaded(folder, name)
    shape = signature(expression)
    for logits, target, embeddings, centers in batches(classes):
        loss = Loss(expression, classes, 5, scale=found.scale)
        tensors = {"logits": logits, "embeddings": embeddings, "centers": centers}
        arguments = {name: tensors[name].clone().requires_grad_() for name in tensors if getattr(shape, name)}
        if shape.centers:
            loss.centers = torch.nn.Parameter(arguments["centers"].detach().clone())
        own = {name: tensor.detach().clone().requires_grad_() for name, tensor in arguments.items()}
        expected = loss(own.get("logits"), target, own.get("embeddings"))
        if shape.triplets:
            places = (target != -100).nonzero().squeeze(1)
            arguments["triplets"] = places[torch.stack(triplets(target[places], 0))]
        if shape.num_classes:
            arguments["num_classes"] = classes
        value = function(target=target, **arguments)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
        own["centers"] = loss.centers
        for name in tensors:
            if getattr(shape, name):
                ours, theirs = (
                    torch.autograd.grad(loss, leaf, retain_graph=True, allow_unused=True)[0]
                    if loss.requires_grad
                    else None
                    for loss, leaf in ((value, arguments[name]), (expected, own[name]))
                )
                ours, theirs = (torch.zeros_like(tensors[name]) if g is None else g for g in (ours, theirs))
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * max(1.0, theirs.abs().max().item()))


@pytest.mark.parametrize("name", TRACED)
def test_compile_sees_one_graph(name, folder):
    """With negatives that are drawn, too; forward and backward, without the code generator, which takes a compiler."""
    function, module = loaded(folder, name)
    shape = signature(formula.find(ALL[name]).expression)
    loss = module(**{size: {"num_classes": 3, "embedding_dim": 5}[size] for size in shape.sizes})
    tensors = {"logits": torch.randn(6, 3), "target": torch.arange(6) % 3, "embeddings": torch.randn(6, 5)}
    arguments = [tensors[name].requires_grad_(name != "target") for name in shape.predictions]
    torch.manual_seed(0)
    expected = loss(*arguments)
    torch.manual_seed(0)
    value = torch.compile(loss, backend="aot_eager", fullgraph=True)(*arguments)
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(loss, arguments[0])[0] for loss in (value, expected))
    torch.testing.assert_close(ours, theirs)


def test_negatives_are_drawn_among_what_counts():
    labels = torch.tensor([0, 1, 0, 2, 1, 2, 0])
    kept = torch.tensor([True, True, True, True, True, False, False])
    counted = kept & kept.unsqueeze(1) & ~torch.eye(7, dtype=torch.bool)
    drawn = set()
    for seed in range(50):
        torch.manual_seed(seed)
        anchor, positive, negative = portable._triplets(labels, counted)
        assert list(zip(anchor.tolist(), positive.tolist(), strict=True)) == [(0, 2), (1, 4), (2, 0), (4, 1)]
        drawn |= set(zip(anchor.tolist(), negative.tolist(), strict=True))
    others = {0: (1, 3, 4), 1: (0, 2, 3), 2: (1, 3, 4), 4: (0, 2, 3)}
    assert drawn == {(anchor, negative) for anchor, all_ in others.items() for negative in all_}


def test_what_a_found_loss_says_of_itself(folder):
    text = " ".join(ast.get_docstring(ast.parse(written(folder, "found_3").read_text())).split())
    assert "cls(-y*log(p)) + 0.0417*cls(d)" in text
    assert "d distance from the embedding to the class's learned center" in text
    assert (
        "Origin: rank 3 of the evoloss run fashion-mnist-hybrid-0 (fashion-mnist, mlp). On 10 fresh seeds and" in text
    )
    assert "accuracy 0.8492, +0.0033 [+0.0020, +0.0047] to cross-entropy's: better." in text
    assert "Scale: 1; with it" in text
    assert (
        "Recipe: adam at 0.003, falling linearly to 0, batches of 128, 10,000 samples x 3 epochs, centers: SGD" in text
    )


@pytest.mark.parametrize(
    ("rank", "recipe"),
    [
        (1, "adam at 0.006, falling linearly to 0, batches of 128, 10,000 samples x 3 epochs"),
        (4, "adam at 0.003, falling linearly to 0, batches of 128, 5,000 samples x 2 epochs"),
    ],
)
def test_a_recipe_is_that_of_the_training_whose_rate_it_names(rank, recipe):
    """A finalist's rate is the playoff's, which trains longer than the search."""
    found = formula.find(f"{RUN.with_name('fashion-mnist-50')}#{rank}")
    assert f"{recipe}, centers: SGD" in export._recipe(found)


def test_what_others_say_of_themselves(folder):
    text = " ".join(ast.get_docstring(ast.parse(written(folder, "ngl").read_text())).split())
    assert "The loss `ngl`." in text
    assert "Origin: Akhmedova & Körber 2024, arXiv:2404.12948 (found by genetic programming" in text
    assert "Scale: 1, the formula as it stands" in text


def test_the_scale_of_a_run_is_the_default(folder):
    assert f"SCALE = {formula.find(OTHERS['found_143']).scale!r}\n" in written(folder, "found_143").read_text()


def test_the_files_are_tidy(folder):
    paths = [str(written(folder, name)) for name in ALL]
    for command in (("check", "--select", "E,F,W,I,B,UP", "--isolated"), ("format", "--check", "--isolated")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--line-length", "120", "--target-version", "py311", *paths],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["ce", "found_3", "everything"])
def test_latex(name, tmp_path):
    found = formula.find(ALL[name])
    ((path, text),) = export.files(found, tmp_path / "loss.tex").items()
    assert path == tmp_path / "loss.tex"
    assert rf"\mathcal{{L}} = {found.expression.latex}" in text
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert body.count("{") == body.count("}")
    assert body.count(r"\begin") == body.count(r"\end")
    assert body.count(r"\item") == len(found.expression.variables) + sum(
        f"{reduction}(" in found.expression.text for reduction in ("cls", "pair", "partner", "trip")
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("_jax.py", "--to should be a name"),
        ("loss.txt", "--to should end in _jax.py, .py, .tex, such as loss.py, not `loss.txt`"),
        ("my-loss.py", "--to should be a name for a Python function of your own in lower case"),
        ("Loss.py", "--to should be a name"),
        ("class.py", "--to should be a name"),
        ("torch.py", "--to should be a name"),
        ("random.py", "--to should be a name"),
        ("_cls.py", "--to should be a name"),
    ],
)
def test_names_that_make_no_file(name, message, tmp_path):
    with pytest.raises(EvolossError) as error:
        export.files(formula.find("ce"), tmp_path / name)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("text", ["y*log(z)*p", "y/(p - p*y)"])
def test_a_loss_that_is_not_finite_is_refused(text, tmp_path):
    with pytest.raises(EvolossError, match="not finite on an ordinary batch: nothing to export"):
        export.files(formula.find(text), tmp_path / "loss.py")


def test_what_python_cannot_compute_is_refused(tmp_path):
    with pytest.raises(EvolossError, match="does not compute outside evoloss: math range error"):
        export.files(formula.find("-y*log(p) + max(y, -exp(K**5))"), tmp_path / "loss.py")


def test_the_command(run_cli, tmp_path):
    path = tmp_path / "loss.py"
    code, out, err = run_cli("export", "log(p)*(-y)", "--to", path)
    assert (code, err) == (0, "")
    test = tmp_path / "test_loss.py"
    assert out == f"cls(-y*log(p))\nwritten: {path}, {test}\ntry it: python {test}\n"
    assert path.exists()


@pytest.mark.parametrize("there", ["loss.py", "test_loss.py"])
def test_nothing_is_overwritten(there, run_cli, tmp_path):
    (tmp_path / there).write_text("mine")
    code, out, err = run_cli("export", "ce", "--to", tmp_path / "loss.py")
    assert (code, out) == (1, "")
    assert err == f"evoloss: {tmp_path / there} exists: export to another name, or move it away\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


@pytest.mark.parametrize(
    ("loss", "to", "message"),
    [
        ("p", "loss.py", "evoloss: `cls(p)` has no target: no training can learn from it"),
        ("focl", "loss.py", "evoloss: unknown loss `focl`, did you mean `focal`?: see `evoloss baselines`"),
        ("ce", "nowhere/loss.py", "evoloss: cannot write "),
    ],
)
def test_errors_are_one_line(loss, to, message, run_cli, tmp_path):
    code, out, err = run_cli("export", loss, "--to", tmp_path / to)
    assert (code, out) == (1, "")
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_what_a_stranger_wrote_into_a_table_stays_text(tmp_path):
    """A verdict that would end the docstring: an export is run before it is written, and by its user."""
    hostile = 'better\\"""\nraise SystemExit("out") #'
    run = tmp_path / 'a """ run'
    run.mkdir()
    for name in ("run.toml", "hall_of_fame.csv"):
        text = (RUN / name).read_text(encoding="utf-8")
        if name.endswith(".csv"):
            rows = list(csv.DictReader(text.splitlines()))
            table = io.StringIO()
            writer = csv.DictWriter(table, rows[0])
            writer.writeheader()
            writer.writerows(row | {"verdict": hostile} for row in rows)
            text = table.getvalue()
        (run / name).write_text(text, encoding="utf-8")
    (text, _) = export.files(formula.find(f"{run}#3"), tmp_path / "loss.py").values()
    tree = ast.parse(text)
    assert 'raise SystemExit("out") #' in (ast.get_docstring(tree) or "")
    assert not any(isinstance(node, ast.Raise) and "out" in ast.unparse(node) for node in ast.walk(tree))
