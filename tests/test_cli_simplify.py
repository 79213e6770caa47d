import json

import pandas as pd
import pytest

SMALL = ("--space", "smoke", "--workers", "0", "--seeds", "2", "--scouts", "1")


def test_simplify_prints_the_smallest_and_resumes(run_cli, tmp_path):
    path = tmp_path / "s"
    code, out, err = run_cli("simplify", "-2*y*log(p)*(1 - p)", *SMALL, "--margin", "0.4", "--out", path)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].endswith("digits, mlp, 512 samples x 2 epochs, adam at 0.003, 0.006, margin 0.4")
    assert "round 1: " in out
    assert "confirmation: " in out
    rows = pd.read_csv(path / "simplify.csv")
    assert rows["verdict"][0] == "the loss"
    smallest = rows[rows["verdict"] == "tied"]["expression"].iloc[-1]
    assert f"smallest tied formula: `{smallest}` (complexity " in out
    assert "tables: " in out
    assert len(json.loads((path / "environment.json").read_text())["looks"]) == 1
    assert run_cli("resume", path, "--workers", "0")[:2] == (0, out)
    code, answer, _ = run_cli("resume", path, "--workers", "0", "--json")
    assert json.loads(answer)["smallest"] == smallest


def test_a_formula_without_a_smaller_one_says_so(run_cli, tmp_path):
    code, out, _ = run_cli("simplify", "ce", *SMALL, "--margin", "0.001", "--out", tmp_path / "s")
    assert code == 0
    assert "no smaller formula kept within 0.001 on the 1 scouting seeds" in out
    assert pd.read_csv(tmp_path / "s" / "scouts.csv")["expression"][0] == "cls(-y*log(p))"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y*q",), "unknown name `q`"),
        (("nowhere#1",), "cannot read"),
        (("-log(p)",), "has no target"),
        (("y*p", "--out", "{tmp}"), "cannot be simplified, it fails the screens: teaches the opposite"),
    ],
)
def test_what_cannot_be_is_an_error_in_a_line(run_cli, tmp_path, arguments, message):
    words = [word.format(tmp=tmp_path / "s") for word in arguments]
    code, _, err = run_cli("simplify", *words, "--space", "smoke", "--workers", "0")
    assert code == 1
    assert message in err
