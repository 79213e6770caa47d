"""The wheel, as a user installs it: it carries search spaces and recipes, and works away from the checkout."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent


def run(*command, cwd):
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Python in a fresh environment with the wheel, which sees the dependencies of this one but not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    run(folder / "venv/bin/python", "-m", "pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A path file is read for its directories only: the editable install of the checkout stays out of sight.
    (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "venv/bin/python"


def test_the_wheel_is_what_runs(python, tmp_path):
    where = run(python, "-c", "import evoloss; print(evoloss.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(python.parent.parent)


def test_the_wheel_has_every_search_space(python, tmp_path):
    listed = run(python.parent / "evoloss", "spaces", cwd=tmp_path).splitlines()[1:]
    assert {line.split()[0] for line in listed} == {path.stem for path in (ROOT / "search_spaces").glob("*.toml")}


def test_the_wheel_has_every_recipe(python, tmp_path):
    listed = run(python.parent / "evoloss", "reproduce", cwd=tmp_path).splitlines()[1:]
    assert {line.split()[0] for line in listed} == {path.stem for path in (ROOT / "recipes").glob("*.toml")}


def test_a_search_from_an_empty_folder(python, tmp_path):
    run(
        *(python.parent / "evoloss", "search", "--dataset", "digits", "--space", "smoke", "--workers", "0"),
        cwd=tmp_path,
    )
    (directory,) = (tmp_path / "runs").iterdir()
    assert len(pd.read_csv(directory / "hall_of_fame.csv"))
