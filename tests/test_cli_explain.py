import json
from pathlib import Path

import pytest

RUN = Path(__file__).parent.parent / "runs" / "fashion-mnist-hybrid-0"


def test_a_formula_that_begins_with_a_minus(run_cli, tmp_path):
    code, out, err = run_cli("explain", "-y*log(p)", "--classes", "3", "--plot", tmp_path / "ce.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "cls(-y*log(p)), 3 classes"
    rows = {line.split("  ")[0]: line.split(None, 1)[1] for line in lines if "  " in line}
    assert rows["uniform"].split() == ["0.3333", "1.099", "-0.6667", "0.8165"]  # log(3), 1/3 - 1, sqrt(2/3)
    assert rows["proper"].startswith("proved")
    assert "refuted" in rows["bounded"]
    assert "at uniform p the gradient is 1 times as long as cross-entropy's: scale 1 makes them equal" in lines
    assert lines[-1] == f"plot: {tmp_path / 'ce.png'}"
    assert (tmp_path / "ce.png").stat().st_size > 10_000


def test_a_row_of_a_run_as_json(run_cli):
    code, out, _ = run_cli("explain", f"{RUN}#3", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["parts"] == {"logits": "cls(-y*log(p))", "centers": "cls(0.0417*d)"}
    verdicts = {(row["property"], row["part"]): row["verdict"] for row in told["findings"]}
    assert verdicts["pushes", "cls(0.0417*d)"] == "refuted"


def test_a_name_as_latex(run_cli):
    code, out, _ = run_cli("explain", "yukawa", "--latex")
    assert code == 0
    assert out.splitlines()[-1] == r"\end{tabular}"
    assert "pulls & proved" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("nglo",), 1, "unknown loss `nglo`, did you mean `ngl`?: see `evoloss baselines`"),
        (("y*log(q)",), 1, "unknown name `q`"),
        (("K + 1",), 1, "a loss needs a prediction"),
        (("cls(y)",), 1, "has no prediction"),
        (("xtreme-margin",), 1, "`xtreme-margin` is a loss for 2 classes, not 10: add --classes 2"),
        (("ngl", "--json", "--latex"), 1, "--latex and --json exclude each other"),
        (("ngl", "--plot", "loss.txt"), 1, "--plot should name a .png, .svg or .pdf file, not `loss.txt`"),
        (("ngl", "--plot", "nowhere/loss.png"), 1, "there is no directory nowhere"),
        (("ngl", "--classes", "1"), 2, "--classes"),
        (("ngl", "--clases", "3"), 2, "unexpected extra argument"),
    ],
)
def test_mistakes_are_one_line(run_cli, monkeypatch, arguments, code, message):
    monkeypatch.setattr("evoloss.analysis.prover.Prover.__enter__", lambda _: pytest.fail("began to prove"))
    found, out, err = run_cli("explain", *arguments)
    assert (found, out) == (code, "")
    assert message in err


def test_no_picture_is_overwritten(run_cli, tmp_path):
    path = tmp_path / "loss.png"
    path.write_text("mine")
    code, _, err = run_cli("explain", "ngl", "--plot", path)
    assert code == 1
    assert err == f"evoloss: {path} exists: choose another file, or remove it\n"
    assert path.read_text() == "mine"
