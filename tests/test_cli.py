import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from evoloss.baselines import BASELINES, UNWRITABLE
from evoloss.config import load_space, space_names, spaces_dir
from evoloss.contest import WIDER
from evoloss.data import DATASETS

PLAYED = ("--space", "smoke", "--workers", "0", "--generations", "1", "--population", "8")
SMALL = (*PLAYED, "--no-playoff")


def column(path, name):
    return pd.read_csv(path)[name].tolist()


@pytest.fixture
def run_directory(run_cli, tmp_path):
    code, out, err = run_cli("search", *SMALL, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert f"hall of fame: {tmp_path / 'run' / 'hall_of_fame.csv'}" in out
    return tmp_path / "run"


def test_search_writes_a_run_directory(run_directory):
    names = {path.name for path in run_directory.iterdir()}
    assert names >= {"run.toml", "environment.json", "archive.sqlite", "log.txt"}
    assert names >= {"generations.csv", "hall_of_fame.csv", "pareto.csv", "baselines.csv", "report.html"}
    best = pd.read_csv(run_directory / "hall_of_fame.csv")
    assert 0 < len(best) <= 20
    assert set(column(run_directory / "baselines.csv", "name")) == set(load_space("smoke").seeds)
    environment = json.loads((run_directory / "environment.json").read_text())
    assert environment["looks"] == []
    assert environment["versions"]["torch"]


def test_the_same_command_gives_the_same_hall_of_fame(run_cli, run_directory, tmp_path):
    run_cli("search", *SMALL, "--out", tmp_path / "again", "--quiet")
    tables = [
        pd.read_csv(path / "hall_of_fame.csv").drop(columns="seconds") for path in (run_directory, tmp_path / "again")
    ]
    pd.testing.assert_frame_equal(*tables)


def test_resume_of_a_finished_run_changes_nothing(run_cli, run_directory):
    before = (run_directory / "hall_of_fame.csv").read_bytes()
    code, _, _ = run_cli("resume", run_directory, "--workers", "0", "--quiet")
    assert code == 0
    assert (run_directory / "hall_of_fame.csv").read_bytes() == before


def test_a_time_limit_says_how_to_go_on(run_cli, tmp_path):
    path = tmp_path / "run"
    code, out, _ = run_cli("search", *SMALL, "--out", path, "--time-limit", "0.001s")
    assert code == 0
    assert f"evoloss resume {path}" in out
    text = (path / "run.toml").read_text()
    (path / "run.toml").write_text(text.replace("time_limit = 0.001", "time_limit = 1000.0"))
    code, out, _ = run_cli("resume", path, "--workers", "0")
    assert code == 0
    assert "time limit" not in out
    assert len(pd.read_csv(path / "generations.csv")) == 2


def test_every_option_of_search_is_in_run_toml(run_cli, tmp_path):
    import tomllib

    run_cli(
        *("search", *SMALL, "--out", tmp_path / "run", "--quiet", "--seed", "3", "--top", "2", "--samples", "300"),
        *(
            "--label-noise",
            "0.2",
            "--imbalance",
            "5",
            "--seed-expr",
            "(p-y)**2",
            "--strategy",
            "random",
            "--selection",
            "nsga2",
            "--regimes",
            "adam, sgd",
            "--time-limit",
            "10m",
            "--device",
            "cpu",
        ),
    )
    stored = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert stored["seed_expressions"] == ["cls((p - y)**2)"]
    expected = {"seed": 3, "top": 2, "samples": 300, "label_noise": 0.2, "imbalance": 5.0, "time_limit": 600.0}
    assert {name: stored[name] for name in expected} == expected
    assert (stored["population"], stored["generations"], stored["space_name"]) == (8, 1, "smoke")
    assert (stored["strategy"], stored["selection"], stored["regimes"]) == ("random", "nsga2", ["adam", "sgd"])
    assert stored["space"]["rungs"]["mlp"][0]["samples"] == 512
    assert len(pd.read_csv(tmp_path / "run" / "hall_of_fame.csv")) == 2


def test_a_seed_for_another_number_of_classes_is_refused(run_cli, tmp_path):
    text = (spaces_dir() / "smoke.toml").read_text().replace('"standalone-center"]', '"xtreme-margin"]')
    (tmp_path / "own.toml").write_text(text)
    code, _, err = run_cli("search", "--space", tmp_path / "own.toml", "--out", tmp_path / "run")
    assert code == 1
    assert err == (
        "evoloss: the seed `xtreme-margin` is a loss for 2 classes, digits has 10: leave it out of the search space\n"
    )
    assert not (tmp_path / "run").exists()
    pair = ("--dataset", f"folder:{two_classes(tmp_path / 'images')}", "--proxy", "mlp", "--regimes", "mlp,digits")
    assert run_cli("search", "--space", tmp_path / "own.toml", *pair, "--out", tmp_path / "run") == (1, "", err)
    assert not (tmp_path / "run").exists()


def test_a_refused_seed_says_why(run_cli, tmp_path):
    seeds = ("--seed-expr", "cls(tanh(p - y))", "--seed-expr", "cls(y + p**2)", "--seed-expr", "-2*y*log(p)")
    code, _, err = run_cli("search", *SMALL, *seeds, "--out", tmp_path / "run", "--quiet")
    assert code == 0
    assert err.splitlines() == [
        "evoloss: seed-1 (cls(tanh(p - y))) is scored but does not breed: "
        "the operator `tanh` is not in this search space",
        "evoloss: seed-2 (cls(p**2 + y)) is refused: learns: neither sign fits free logits or embeddings",
        "evoloss: seed-3 (cls(-2*y*log(p))) is refused: it has the gradients of the loss 838b746f698b78b1",
    ]


def test_nsga2_ends_with_the_pareto_front(run_cli, tmp_path):
    path = tmp_path / "run"
    code, out, err = run_cli("search", *SMALL, "--selection", "nsga2", "--out", path)
    assert (code, err) == (0, "")
    front = pd.read_csv(path / "pareto.csv")
    shown = out.partition("Pareto front: ")[2].splitlines()[2 : 2 + len(front)]
    assert [line.split()[0] for line in shown] == [str(complexity) for complexity in front["complexity"]]
    assert [line.endswith(text) for line, text in zip(shown, front["expression"], strict=True)] == [True] * len(front)


def test_a_warm_cache_gives_the_same_hall_of_fame_without_training(run_cli, monkeypatch, tmp_path):
    """On the real workers' code: a search, and evaluations and comparisons of one loss."""
    from evoloss import workers

    shared = ("--cache", tmp_path / "cache.sqlite", "--workers", "0")
    budget = ("--space", "smoke", "--seeds", "2", *shared)
    commands = {
        "search": ("search", *SMALL, *shared, "--out"),
        "compare": ("compare", "--losses", "ce,ngl", *budget, "--out"),
        "evaluate": ("evaluate", "--expr", BASELINES["ngl"].expression, *budget),
    }
    first = {name: run_cli(*command, *[tmp_path / name][: name != "evaluate"]) for name, command in commands.items()}
    monkeypatch.setattr(workers, "open_pool", lambda *_: pytest.fail("a worker was started"))
    again = {
        name: run_cli(*command, *[tmp_path / f"{name}-2"][: name != "evaluate"]) for name, command in commands.items()
    }
    assert [code for code, _, _ in [*first.values(), *again.values()]] == [0] * 6
    for table in ("search/hall_of_fame.csv", "search/pareto.csv", "compare/comparison.csv", "compare/scores.csv"):
        directory, name = table.split("/")
        assert (tmp_path / table).read_bytes() == (tmp_path / f"{directory}-2" / name).read_bytes()
    assert again["evaluate"][1] == first["evaluate"][1]
    assert "trainings so far from the cache" in again["search"][1]
    assert first["evaluate"][2] == again["compare"][2]
    tried = re.fullmatch(r"(\d+) of \1 trainings came from the cache\n", again["compare"][2])
    assert tried
    assert int(tried[1]) - 12 in range(0, 2 * 2 * WIDER + 1, 2)  # two rates, then a further one at a time, a loss


def test_resume_takes_a_cache(run_cli, run_directory, tmp_path):
    assert run_cli("resume", run_directory, "--cache", tmp_path / "cache.sqlite", "--workers", "0", "--quiet")[0] == 0
    assert (tmp_path / "cache.sqlite").is_file()


@pytest.mark.parametrize("command", ["search", "compare", "evaluate", "resume"])
def test_a_file_that_is_no_cache_is_refused_before_anything_is_made(run_cli, run_directory, tmp_path, command):
    (tmp_path / "notes.txt").write_text("precious")
    given = {"compare": ["--losses", "ce"], "evaluate": ["--expr", "-y*log(p)"], "resume": [run_directory]}
    out = ["--out", tmp_path / "new"] if command in ("search", "compare") else []
    code, _, err = run_cli(command, *given.get(command, []), *out, "--cache", tmp_path / "notes.txt")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "notes.txt cannot be opened as a cache of evoloss: file is not a database" in err
    assert (tmp_path / "notes.txt").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "run"}


def test_json_is_a_line_a_generation(run_cli, tmp_path):
    code, out, _ = run_cli("search", *SMALL, "--out", tmp_path / "run", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["generation"] for line in lines[:-1]] == [0, 1]
    assert lines[-1] == {"complete": True, "hall_of_fame": str(tmp_path / "run" / "hall_of_fame.csv")}


def test_evaluate_stands_beside_cross_entropy(run_cli):
    arguments = ("evaluate", "--expr", "(p - y)**2", "--space", "smoke", "--seeds", "2", "--workers", "0")
    code, out, err = run_cli(*arguments)
    assert (code, err) == (0, "")
    assert "cls((p - y)**2)" in out
    assert "minus cross-entropy" in out
    assert "reference" in out
    code, out, _ = run_cli(*arguments, "--json")
    answer = json.loads(out)
    assert [len(row["standing"]["test"]) for row in answer["standings"]] == [2, 2]


def test_evaluate_of_a_loss_that_fails_says_why(run_cli):
    code, out, err = run_cli("evaluate", "--expr", "y*p", "--space", "smoke", "--workers", "0")
    assert (code, out) == (1, "")
    assert err == ("evoloss: `cls(p*y)` is rejected: teaches the opposite: it learns when negated, try `-cls(p*y)`\n")


def test_evaluate_notes_the_look_in_the_run(run_cli, run_directory):
    arguments = ("--space", "smoke", "--seeds", "2", "--workers", "0", "--run", run_directory)
    assert run_cli("evaluate", "--expr", "(p - y)**2", *arguments)[0] == 0
    (look,) = json.loads((run_directory / "environment.json").read_text())["looks"]
    assert (look["dataset"], look["losses"]) == ("digits", 1)
    assert look["command"].startswith("evoloss evaluate --expr")


def test_a_search_ends_with_a_playoff(run_cli, tmp_path):
    path = tmp_path / "run"
    code, out, err = run_cli("search", *PLAYED, "--out", path, "--playoff-seeds", "3")
    assert (code, err) == (0, "")
    assert "playoff: equal sweeps, fresh seeds, test split" in out
    assert "\nverdict: " in out
    best, baselines = (pd.read_csv(path / name) for name in ("hall_of_fame.csv", "baselines.csv"))
    assert (best["verdict"].notna() & best["name"].isna()).sum() >= 2
    assert baselines.set_index("name").loc["ce", ["verdict", "test_n"]].tolist() == ["reference", 3]
    assert best["optimizer_verdict"].notna().sum() >= 2
    looks = json.loads((path / "environment.json").read_text())["looks"]
    assert [look["dataset"] for look in looks] == ["digits"]
    before = (path / "hall_of_fame.csv").read_bytes()
    code, again, _ = run_cli("resume", path, "--workers", "0")
    assert code == 0
    assert again.partition("playoff")[2] == out.partition("playoff")[2]
    assert (path / "hall_of_fame.csv").read_bytes() == before
    assert json.loads((path / "environment.json").read_text())["looks"] == looks


def test_the_workers_of_a_search_have_no_test_split(run_cli, monkeypatch, tmp_path):
    from evoloss import workers

    seen = []
    open_pool = workers.open_pool
    monkeypatch.setattr(
        workers,
        "open_pool",
        lambda datasets, *rest: seen.append(set(datasets[None].splits)) or open_pool(datasets, *rest),
    )
    assert run_cli("search", *PLAYED, "--out", tmp_path / "run", "--quiet")[0] == 0
    assert seen == [{"train", "select"}, {"train", "select", "test"}]


COMPARE = ("compare", "--space", "smoke", "--workers", "0", "--seeds", "2")


def test_compare_writes_its_tables(run_cli, tmp_path):
    path = tmp_path / "c"
    options = ("--losses", "ce,ngl,yukawa", "--expr", "y*p", "--lr", "1e-3,3e-3", "--optimizer", "adam,sgd")
    code, out, err = run_cli(*COMPARE, *options, "--out", path)
    assert (code, err) == (0, "")
    assert "digits, mlp, 512 samples x 2 epochs, adam at 0.001, 0.003, 2 fresh seeds" in out
    assert "sgd at 0.03, 0.09, 2 fresh seeds" in out
    assert out.count("cls(p*y): teaches the opposite") == 2
    rows = pd.read_csv(path / "comparison.csv")
    assert list(rows["regime"]) == ["adam"] * 4 + ["sgd"] * 4
    assert set(rows["name"].dropna()) == {"ce", "ngl", "yukawa"}
    assert len(pd.read_csv(path / "scores.csv")) == 2 * 3 * 2
    assert len(json.loads((path / "environment.json").read_text())["looks"]) == 1
    code, again, _ = run_cli("resume", path, "--workers", "0")
    assert (code, again) == (0, out)
    code, answer, _ = run_cli("resume", path, "--workers", "0", "--json")
    assert set(json.loads(answer)["regimes"]) == {"adam", "sgd"}


def test_compare_takes_the_best_of_a_run(run_cli, run_directory, tmp_path):
    path = tmp_path / "c"
    code, out, _ = run_cli(*COMPARE, "--run", run_directory, "--top", "2", "--out", path)
    assert code == 0
    rows = pd.read_csv(path / "comparison.csv")
    assert len(rows) == 3
    best = pd.read_csv(run_directory / "hall_of_fame.csv")
    assert set(rows["expression"]) >= set(best[best["name"].isna()]["expression"][:2])
    for place in (path, run_directory):
        assert len(json.loads((place / "environment.json").read_text())["looks"]) == 1


def test_an_interrupted_comparison_says_how_to_go_on(run_cli, monkeypatch, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("evoloss.comparison.carry_on", interrupted)
    code, _, err = run_cli(*COMPARE, "--losses", "ce,ngl", "--out", tmp_path / "c")
    assert code == 130
    go_on = f"evoloss resume {tmp_path / 'c'}"
    assert err == f"evoloss: interrupted, nothing finished is lost; continue: {go_on}\n"


def test_evaluate_cross_entropy_itself(run_cli):
    code, out, _ = run_cli("evaluate", "--expr", "-y*log(p)", "--space", "smoke", "--seeds", "2", "--workers", "0")
    assert code == 0
    assert out.splitlines()[2].split()[0] == "ce"
    assert out.count("reference") == 1


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("baselines", [*BASELINES, "", "not", "name", *UNWRITABLE]),
        ("spaces", space_names()),
        ("datasets", DATASETS),
    ],
)
def test_lists(run_cli, command, names):
    code, out, _ = run_cli(command)
    assert code == 0
    first_words = [line.partition(" ")[0] for line in out.splitlines()[1:]]
    assert first_words == list(names)
    assert json.loads(run_cli(command, "--json")[1])


def test_the_list_of_baselines_says_what_the_language_lacks(run_cli):
    _, out, _ = run_cli("baselines")
    assert out.count("classification, 2 classes") == 1  # xtreme-margin
    tables = json.loads(run_cli("baselines", "--json")[1])
    assert {row["name"]: row["expression"] for row in tables["baselines"]} == {
        name: row.expression for name, row in BASELINES.items()
    }
    assert [row["name"] for row in tables["unwritable"]] == list(UNWRITABLE)
    for row in tables["unwritable"]:
        assert row["reason"] == UNWRITABLE[row["name"]].reason
        assert row["reason"] in out


def test_a_folder_of_images(run_cli, monkeypatch, tmp_path):
    two_classes(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    code, _, err = run_cli(
        *("search", *SMALL, "--dataset", "folder:images", "--proxy", "mlp", "--out", tmp_path / "run")
    )
    assert (code, err) == (0, "")
    assert max(column(tmp_path / "run" / "hall_of_fame.csv", "fitness")) > 0.9
    assert f'dataset = "folder:{tmp_path / "images"}"' in (tmp_path / "run" / "run.toml").read_text()


def test_a_search_in_two_regimes(run_cli, tmp_path):
    path = tmp_path / "run"
    code, out, err = run_cli("search", *PLAYED, "--regimes", "adam,sgd", "--out", path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "fitness: mean gain over cross-entropy in adam, sgd"
    assert lines[1].startswith("generation 0/1: ")
    assert "best gain +" in lines[1]
    assert "(cross-entropy +0.0000, NGL " in lines[1]
    assert "rank  name" in lines[3]
    assert "mean gain" in lines[3]
    assert "Gains guided the search and flatter its winners." in lines
    assert "playoff: equal sweeps, fresh seeds, test split, means over adam, sgd" in lines
    best, baselines = (pd.read_csv(path / name) for name in ("hall_of_fame.csv", "baselines.csv"))
    assert baselines.set_index("name").loc["ce", "fitness"] == 0
    assert (best["select_acc"] > 0.1).all()
    wider = {float(f"{3e-3 * 2.0**step:.4g}") for step in range(-WIDER, 2 + WIDER)}  # of two rates a best one is an end
    assert set(best["lr"]) <= wider
    assert column(path / "generations.csv", "ce_fitness") == [0, 0]
    assert best["optimizer_verdict"].isna().all()
    before = (path / "hall_of_fame.csv").read_bytes()
    code, again, _ = run_cli("resume", path, "--workers", "0")
    assert (code, again.splitlines()[0]) == (0, lines[0])
    assert again.partition("rank  name")[2] == out.partition("rank  name")[2]
    assert (path / "hall_of_fame.csv").read_bytes() == before


def two_classes(folder):
    for number in range(60):
        for place, name in enumerate(("dark", "light")):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.new("L", (28, 28), 40 + 120 * place + number).save(folder / name / f"{number}.png")
    return folder


def test_regimes_on_other_data_of_other_classes(run_cli, monkeypatch, tmp_path):
    """The images' size and the number of classes may differ; workers have all data and no test split."""
    from evoloss import workers

    seen = []
    open_pool = workers.open_pool
    monkeypatch.setattr(workers, "open_pool", lambda data, *rest: seen.append(data) or open_pool(data, *rest))
    folder = two_classes(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    code, out, err = run_cli("search", *SMALL, "--regimes", "digits,folder:images", "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert out.startswith(f"fitness: mean gain over cross-entropy in digits, folder:{folder}\n")
    (datasets,) = seen
    assert {spec and spec.name: data.num_classes for spec, data in datasets.items()} == {
        None: 10,
        f"folder:{folder}": 2,
    }
    assert {role for data in datasets.values() for role in data.splits} == {"train", "select"}


def test_a_control_in_two_regimes_compares_gains(run_cli, tmp_path):
    arguments = ("--with-control", "--repeats", "1", "--regimes", "adam,sgd", "--out", tmp_path / "control")
    code, out, err = run_cli("search", *SMALL, *arguments)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "fitness: mean gain over cross-entropy in adam, sgd"
    assert next(line.split()[:3] for line in lines if line.lstrip().startswith("ce ")) == ["ce", "+0.0000", "+0.0000"]
    assert "evolution minus random, mean gain on fresh seeds" in lines[-2]


def test_a_control_says_whether_evolution_beat_chance(run_cli, tmp_path):
    path = tmp_path / "control"
    arguments = ("search", *SMALL, "--seed", "4", "--with-control", "--repeats", "2", "--out", path)
    code, out, err = run_cli(*arguments)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    titles = [f"seed {seed}, {what}:" for seed in (4, 5) for what in ("evolve", "random", "winners on fresh seeds")]
    assert [line for line in lines if line.startswith("seed ") and line.endswith(":")] == titles
    assert lines[-2].startswith("evolution minus random, select accuracy on fresh seeds, paired over 2 repeats, ")
    assert lines[-2].endswith(("evolution beat chance", "chance beat evolution", "not distinguishable from chance"))
    assert lines[-1] == f"control: {path / 'control.csv'}"
    before = (path / "control.csv").read_bytes()
    for name in ("evolve-4", "random-5"):
        assert json.loads((path / name / "environment.json").read_text())["looks"] == []
        assert run_cli("resume", path / name, "--workers", "0", "--quiet")[0] == 0
    code, out, _ = run_cli("resume", path, "--workers", "0", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["verdict"] == lines[-2].rpartition(": ")[2]
    assert (path / "control.csv").read_bytes() == before


def test_ctrl_c_in_a_control_says_how_to_go_on(run_cli, monkeypatch, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("evoloss.run.carry_on", interrupted)
    code, _, err = run_cli("search", *SMALL, "--with-control", "--out", tmp_path / "control", "--quiet")
    assert code == 130
    go_on = f"evoloss resume {tmp_path / 'control'}"
    assert err == f"evoloss: interrupted, nothing finished is lost; continue: {go_on}\n"


BAD = {
    "malformed formula": (["evaluate", "--expr", "-y*log(P)"], "did you mean `p`?"),
    "formula without a target": (["evaluate", "--expr", "log(p)"], "no target"),
    "malformed seed": (["search", "--seed-expr", "p +* y"], "not a formula"),
    "unknown data set": (["search", "--dataset", "fasion-mnist"], "did you mean `fashion-mnist`?"),
    "unknown space": (["search", "--space", "hybird"], "did you mean `hybrid`?"),
    "unknown proxy": (["search", "--proxy", "mlpp"], "rungs for mlp, inception"),
    "zero generations": (["search", "--generations", "0"], "--generations"),
    "negative population": (["search", "--population", "-4"], "--population"),
    "time limit": (["search", "--time-limit", "soon"], "90s, 45m or 2h"),
    "device": (["search", "--device", "tpu"], "auto, cpu or cuda"),
    "GPUs of this process": (["search", "--gpus-per-worker", "0.1", "--workers", "0"], "leave out --workers 0"),
    "GPUs of a CPU": (["evaluate", "--expr", "-y*log(p)", "--gpus-per-worker", "1", "--device", "cpu"], "leave it out"),
    "no GPU at all": (["compare", "--gpus-per-worker", "0"], "--gpus-per-worker"),
    "learning rates": (["evaluate", "--expr", "-y*log(p)", "--lr", "fast"], "1e-3,3e-3"),
    "optimizer": (["evaluate", "--expr", "-y*log(p)", "--optimizer", "adamw"], "optimizer"),
    "rates of another optimizer": (["compare", "--lr", "sgd:0.1"], "--lr names `sgd`"),
    "the same rate twice": (["compare", "--lr", "0.1,0.1"], "different positive numbers"),
    "unknown loss": (["compare", "--losses", "ce,ngk"], "did you mean `ngl`?"),
    "no loss": (["compare", "--losses", ""], "unknown loss ``"),
    "a loss for two classes": (["compare", "--losses", "xtreme-margin"], "is a loss for 2 classes"),
    "too many samples": (["compare", "--samples", "5000"], "--samples should be between 10 and the"),
    "a run that is none": (["compare", "--run", "nowhere"], "nowhere/run.toml"),
    "playoff seeds": (["search", "--playoff-seeds", "1"], "--playoff-seeds"),
    "strategy": (["search", "--strategy", "chance"], "'evolve' or 'random', got 'chance'"),
    "selection": (["search", "--selection", "spea2"], "'rank' or 'nsga2', got 'spea2'"),
    "unknown regime": (["search", "--regimes", "adam,sdg"], "unknown regime `sdg`, did you mean `sgd`?"),
    "a regime of data that are not there": (["search", "--regimes", "adam,folder:/nowhere"], "/nowhere"),
    "the same regime twice": (["search", "--regimes", "sgd,sgd"], "`sgd` and `sgd` are one and the same"),
    "one regime by two names": (["search", "--regimes", "adam,digits"], "`adam` and `digits` are one and the same"),
    "regimes of a control": (["search", "--with-control", "--regimes", "mpl,inception"], "did you mean `mlp`?"),
    "repeats without a control": (["search", "--repeats", "3"], "add --with-control"),
    "no repeats": (["search", "--with-control", "--repeats", "0"], "--repeats"),
    "a control of random search": (["search", "--with-control", "--strategy", "random"], "leave out --strategy"),
    "a control with a time limit": (["search", "--with-control", "--time-limit", "9s"], "leave out --time-limit"),
    "no run directory": (
        ["resume", "nowhere"],
        "nowhere cannot be continued: it has none of run.toml, compare.toml, stress.toml, simplify.toml, control.toml",
    ),
    "missing folder": (["search", "--dataset", "folder:/nowhere"], "/nowhere"),
    "unknown command": (["serch"], "search"),
    "unknown option": (["search", "--generation", "3"], "--generation"),
    "no formula": (["evaluate"], "--expr"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_line(run_cli, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[name]
    code, out, err = run_cli(*arguments)
    assert code in (1, 2)
    assert message in err
    assert err.startswith("evoloss: ")
    assert "Traceback" not in err
    # A formula that cannot be read is shown, with a caret under the place.
    assert len(err.splitlines()) == (3 if name in ("malformed formula", "malformed seed") else 1)
    assert not out
    assert not list(tmp_path.iterdir())


def test_an_existing_run_directory_is_not_touched(run_cli, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    code, _, err = run_cli("search", *SMALL, "--out", tmp_path)
    assert code == 1
    assert "exists: choose another --out" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written_to(run_cli, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run_cli("search", *SMALL, "--out", tmp_path / "file" / "run")
    assert code == 1
    assert "cannot make the directory" in err


def test_a_corrupt_image_is_named(run_cli, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(5):
            Image.new("L", (28, 28)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "3.png").write_bytes(b"no image")
    code, _, err = run_cli("search", *SMALL, "--dataset", f"folder:{tmp_path}", "--proxy", "mlp")
    assert code == 1
    assert "3.png" in err
    assert len(err.strip().splitlines()) == 1


def test_two_processes_do_not_share_a_run(run_cli, run_directory):
    import fcntl

    with (run_directory / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        code, _, err = run_cli("resume", run_directory, "--workers", "0")
    assert code == 1
    assert "another process is working" in err


def test_a_run_of_another_version_is_refused(run_cli, run_directory):
    text = (run_directory / "run.toml").read_text()
    (run_directory / "run.toml").write_text(text.replace('version = "', 'version = "9.', 1))
    code, _, err = run_cli("resume", run_directory, "--workers", "0")
    assert code == 1
    assert "was made by evoloss 9." in err


def test_a_damaged_archive_is_one_clear_line(run_cli, run_directory):
    archive = run_directory / "archive.sqlite"
    archive.write_bytes(archive.read_bytes()[:20_000])
    code, _, err = run_cli("resume", run_directory, "--workers", "0", "--quiet")
    assert code == 1
    assert len(err.splitlines()) == 1
    assert "malformed" in err


def test_version(run_cli):
    from importlib.metadata import version

    assert run_cli("--version")[:2] == (0, version("evoloss") + "\n")


def test_help_imports_nothing_heavy():
    program = """
import sys
from evoloss.cli import main
sys.argv = ["evoloss", "--help"]
try:
    main()
except SystemExit:
    print({"torch", "ray", "sympy", "sklearn", "deap", "pandas", "scipy", "numpy", "matplotlib"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.skipif(not os.environ.get("EVOLOSS_DATA"), reason="needs EVOLOSS_DATA")
@pytest.mark.parametrize("dataset", ["fashion-mnist", "cifar10"])
def test_search_on_real_images(run_cli, tmp_path, dataset):
    code, _, err = run_cli("search", "--dataset", dataset, *SMALL, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    assert Path(tmp_path / "run" / "hall_of_fame.csv").is_file()
    assert max(column(tmp_path / "run" / "hall_of_fame.csv", "fitness")) > 0.15
