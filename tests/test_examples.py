"""Each example trains on digits, as a user would run it: in a process of its own, where evoloss is not needed."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from evoloss import export, formula

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
RUNS = {"fashion_loss": "runs/fashion-mnist-hybrid-0#3", "cifar_loss": "runs/cifar10-hybrid-0#1"}
# By script: the package that it needs, its arguments, and an accuracy (measured: .982, .956, .949) far above chance.
SCRIPTS = {
    "plain_loop": ("torch", (), 0.95),
    "lightning_module": ("lightning", ("--epochs", "5"), 0.9),
    "timm_style": ("timm", ("--epochs", "4", "--amp"), 0.9),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_example_learns_digits(name, tmp_path):
    package, arguments, least = SCRIPTS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install evoloss[examples]")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        cwd=tmp_path,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"^test accuracy ([0-9.]+)$", done.stdout, re.MULTILINE)[1])
    assert accuracy > least
    assert list(tmp_path.iterdir()) == []


def test_every_script_is_tested():
    written = {f"{prefix}{name}" for name in RUNS for prefix in ("", "test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*SCRIPTS, *written}


@pytest.mark.parametrize("name", RUNS)
def test_the_losses_are_what_export_writes(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for path, text in export.files(formula.find(RUNS[name]), tmp_path / f"{name}.py").items():
        shipped = (EXAMPLES / path.name).read_text(encoding="utf-8")
        versions = r"Written by evoloss [0-9.]+"
        assert re.sub(versions, "", shipped) == re.sub(versions, "", text)
