import json
import tomllib

import pandas as pd
import pytest

from evoloss import reproduce
from evoloss.config import validated
from evoloss.metrics import FIGURES
from evoloss.recipe import Recipe, load_recipe, recipe_names

SHORT = ("--dataset", "digits", "--epochs", "1", "--samples", "60")


def pictures_of(name):
    """What a recipe draws on digits."""
    recipe = load_recipe(name)
    expected = {"distances-digits-128.png"} if recipe.pairs else set()
    for width in recipe.embeddings:
        if width == 2:
            stems = [f"embeddings-digits-2-{contender.name}" for contender in recipe.contenders]
            expected |= {f"{stem}.{kind}" for stem in stems for kind in ("png", "gif")}
        else:
            expected.add(f"tsne-digits-{width}.png")
    return expected


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_runs(run_cli, tmp_path, name):
    recipe = load_recipe(name)
    code, out, err = run_cli("reproduce", name, *SHORT, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    files = {path.name for path in (tmp_path / "run").iterdir()}
    tables = {"results.csv", "results.json", "history.csv"}
    assert files == tables | {"recipe.toml", "environment.json"} | pictures_of(name)
    results = pd.read_csv(tmp_path / "run" / "results.csv")
    assert len(results) == len(recipe.contenders) * len(recipe.embeddings)
    printed = {figure for table in recipe.tables for figure in table}
    assert printed <= set(results.columns)
    assert results["diverged"].isna().all()
    for contender in recipe.contenders:
        assert contender.name in out
    for figure in printed:
        assert FIGURES[figure][0] in out
    assert "ours: digits" in out
    assert "60 samples x 1 epochs, 1 seed" in out
    for line in recipe.differs:
        assert f"- {line}" in out


def test_published_figures_stand_beside_ours(run_cli, tmp_path):
    arguments = ("reproduce", "ngl", *SHORT[2:], "--dataset", "digits", "--no-pictures", "--seeds", "2")
    code, out, _ = run_cli(*arguments, "--out", tmp_path / "run")
    assert code == 0
    lines = out.splitlines()
    assert lines[2].split() == ["loss", "accuracy", "published", "(fashion-mnist)"]
    accuracies = pd.read_csv(tmp_path / "run" / "results.csv").groupby("contender", sort=False)["accuracy"]
    for line, (name, values) in zip(lines[3:8], accuracies, strict=True):
        published = {"CE": "0.9400", "NGL": "0.9407", "SCE": "0.9158", "focal": "0.9398", "CE+L2": "0.9409"}[name]
        assert line.split() == [name, f"{values.mean():.4f}", "+-", f"{values.std():.4f}", published]


def test_several_data_sets_say_which_each_published_figure_is_of(run_cli, monkeypatch, tmp_path, digits):
    """`digits` stands in for CIFAR-10."""
    monkeypatch.setattr(reproduce, "datasets_for", lambda recipe, data_dir: ("digits", "cifar10"))
    named = {name: reproduce.replace(digits, name=name) for name in ("digits", "cifar10")}
    monkeypatch.setattr(reproduce, "open_data", lambda plan: [named[name] for name in plan.datasets])
    monkeypatch.setattr(reproduce.data, "default_proxy", lambda name: "mlp")
    _, out, _ = run_cli("reproduce", "ngl", "--epochs", "1", "--no-pictures", "--out", tmp_path / "run")
    lines = [line.split() for line in out.splitlines()[2:13]]
    assert lines[0] == ["data", "set", "loss", "accuracy", "published"]
    assert lines[1][:2] == ["digits", "CE"]
    assert lines[1][-2:] == ["0.9400", "(fashion-mnist)"]
    assert lines[6][:2] == ["cifar10", "CE"]
    assert lines[6][-2:] == ["0.9280", "(cifar10)"]


def test_the_same_command_gives_the_same_figures(run_cli, tmp_path):
    for run in ("first", "again"):
        run_cli("reproduce", "yukawa", *SHORT, "--no-pictures", "--out", tmp_path / run)
    tables = [pd.read_csv(tmp_path / run / "results.csv").drop(columns="seconds") for run in ("first", "again")]
    pd.testing.assert_frame_equal(*tables)
    assert (tmp_path / "first" / "history.csv").read_bytes() == (tmp_path / "again" / "history.csv").read_bytes()


def test_json(run_cli, tmp_path):
    _, out, _ = run_cli("reproduce", "yukawa", *SHORT, "--no-pictures", "--json", "--out", tmp_path / "run")
    told = json.loads(out)
    assert told["directory"] == str(tmp_path / "run")
    assert [row["contender"] for row in told["rows"]] == ["contrastive", "yukawa", "triplet"]
    assert told["rows"][0]["figures"]["auc"] > 0.5
    assert told["published"][1]["figures"]["pair_accuracy"] == 0.981
    assert told["conditions"][-1] == load_recipe("yukawa").differs[-1]
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == told["rows"]


def test_the_resolved_recipe_is_kept(run_cli, tmp_path):
    run_cli("reproduce", "ngl", *SHORT, "--no-pictures", "--seed", "4", "--out", tmp_path / "run")
    stored = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())
    expected = {"datasets": ["digits"], "samples": 60, "seeds": 1, "seed": 4}
    assert {name: stored[name] for name in expected} == expected
    expected = load_recipe("ngl").model_copy(update={"epochs": 1})
    assert validated(Recipe, stored["recipe"], "stored") == expected


def test_a_contender_that_diverges_is_printed_as_such(run_cli, tmp_path):
    text = """
description = "one that explodes"
source = "nobody"
datasets = ["digits"]
network = "mlp"
embeddings = [8]
epochs = 1
optimizer = { name = "sgd", rate = 1.0 }
contenders = [{ name = "wild", loss = "cls(y*exp(exp(exp(z**2 + 3))))" }, { name = "tame", loss = "ce" }]
tables = [["accuracy"]]
"""
    (tmp_path / "own.toml").write_text(text)
    code, out, err = run_cli("reproduce", tmp_path / "own.toml", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert "wild  diverged" in out
    assert (tmp_path / "run" / "tsne-digits-8.png").is_file()
    results = pd.read_csv(tmp_path / "run" / "results.csv")
    assert results["accuracy"].isna().tolist() == [True, False]
    assert results["diverged"][0].startswith("loss ")


def test_without_a_name_the_recipes_are_listed(run_cli):
    code, out, _ = run_cli("reproduce")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == recipe_names()


BAD = {
    "unknown recipe": (["yukwa"], "did you mean `yukawa`?: expected center, ngl, standalone-center, yukawa"),
    "unknown data set": (["yukawa", "--dataset", "minst"], "did you mean `mnist`?"),
    "no epochs": (["yukawa", "--epochs", "0"], "--epochs"),
    "too few samples": (["yukawa", "--dataset", "digits", "--samples", "3"], "one per class"),
    "no file": (["own.toml"], "cannot read own.toml"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(run_cli, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[name]
    code, out, err = run_cli("reproduce", *arguments)
    assert code in (1, 2)
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_directory_is_never_overwritten(run_cli, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    code, _, err = run_cli("reproduce", "ngl", *SHORT, "--out", tmp_path)
    assert (code, err) == (1, f"evoloss: {tmp_path} exists: choose another --out\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupt_is_one_line_and_keeps_what_was_finished(run_cli, monkeypatch, tmp_path):
    fit, calls = reproduce.fit, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*arguments)

    monkeypatch.setattr(reproduce, "fit", interrupted)
    code, out, err = run_cli("reproduce", "ngl", *SHORT, "--out", tmp_path / "run")
    assert (code, out) == (130, "")
    assert err == f"evoloss: interrupted, what was finished is in {tmp_path / 'run' / 'results.csv'}\n"
    assert pd.read_csv(tmp_path / "run" / "results.csv")["contender"].tolist() == ["CE"]


def test_data_at_hand_is_taken_first(monkeypatch):
    found = {"digits", "fashion-mnist"}
    rows = [row for row in reproduce.data.status() if row.name not in found]
    rows = [reproduce.replace(row, where="") for row in rows]
    rows += [reproduce.replace(row, where="here") for row in reproduce.data.status() if row.name in found]
    monkeypatch.setattr(reproduce.data, "status", lambda data_dir: rows)
    assert reproduce.datasets_for(load_recipe("yukawa")) == ("fashion-mnist",)
    assert reproduce.datasets_for(load_recipe("ngl")) == ("fashion-mnist", "digits")
    rows.clear()
    assert reproduce.datasets_for(load_recipe("yukawa")) == ("mnist",)  # will be downloaded
