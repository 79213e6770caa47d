import json

import pandas as pd
import pytest

SMALL = ("--space", "smoke", "--workers", "0", "--seeds", "2", "--losses", "ce,gce")


def test_stress_writes_tables_and_a_picture_and_resumes(run_cli, tmp_path):
    path = tmp_path / "s"
    code, out, err = run_cli(
        "stress", "(p - y)**2", "triplet", "y*p", *SMALL, "--conditions", "plain,noise-40", "--out", path
    )
    assert (code, err) == (0, "")
    assert (
        "plain: the data as they are; digits, mlp, 512 samples x 2 epochs, adam at 0.003, 0.006, 2 fresh seeds" in out
    )
    assert "noise-40: cls(p*y): teaches the opposite" in out
    assert "`cls((p - y)**2)`, of 2 conditions: better than cross-entropy under " in out
    rows = pd.read_csv(path / "stress.csv")
    assert list(rows["condition"]) == ["plain"] * 5 + ["noise-40"] * 5
    by_name = rows[rows["condition"] == "plain"].set_index("name")
    assert by_name.loc["gce", "ece"] > 0
    assert by_name.loc["triplet", "test_acc"] > 0.5
    assert pd.isna(by_name.loc["triplet", "ece"])  # it has no probabilities
    assert {p.name for p in path.iterdir()} >= {"stress.toml", "stress.png", "scores.csv", "archive.sqlite"}
    assert len(json.loads((path / "environment.json").read_text())["looks"]) == 2
    assert run_cli("resume", path, "--workers", "0")[:2] == (0, out)
    code, answer, _ = run_cli("resume", path, "--workers", "0", "--json")
    assert set(json.loads(answer)["conditions"]) == {"plain", "noise-40"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("y*q",), "unknown name `q`"),
        (("nowhere#1",), "cannot read"),
        (("-log(p)",), "has no target"),
        (("-y*log(p)", "--sedes", "3"), "unknown name `sedes`"),
        (("ngl", "--conditions", "snow"), "unknown condition `snow`"),
        (("ngl", "--losses", "crossentropy"), "unknown loss"),
        (("ngl", "--samples", "5"), "--samples should be between"),
    ],
)
def test_what_cannot_be_is_an_error_in_a_line_and_makes_nothing(run_cli, tmp_path, arguments, message):
    code, out, err = run_cli("stress", *arguments, "--space", "smoke", "--out", tmp_path / "s")
    assert (code, out) == (1, "")
    assert message in err
    assert not (tmp_path / "s").exists()
