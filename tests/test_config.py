import copy
import tomllib

import pytest

from evoloss import config
from evoloss.config import (
    Evolution,
    RunConfig,
    Rung,
    SearchSpace,
    Tree,
    load_run,
    load_space,
    read_toml,
    space_names,
    spaces_dir,
    validated,
)
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.playoff import full_rung, sweep_of
from evoloss.records import DataSpec
from evoloss.tree import CROSSOVERS, MUTATIONS, Grammar, seeded

NAN, INFINITY = float("nan"), float("inf")


def smoke():
    return tomllib.loads((spaces_dir() / "smoke.toml").read_text(encoding="utf-8"))


def at(values, place):
    for part in place:
        values = values[part]
    return values


def refusal(model, values):
    """The message of an `EvolossError`, which is one line and names the file."""
    with pytest.raises(EvolossError) as caught:
        validated(model, values, "space.toml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("space.toml: ")
    assert caught.value.__cause__ is None
    return message


# The spaces that evoloss brings


def test_names_of_spaces():
    assert space_names() == ["center", "classification", "hybrid", "memorize", "metric", "ngl", "smoke"]


@pytest.mark.parametrize("name", space_names())
def test_a_space_is_a_page_that_explains_itself(name):
    lines = (spaces_dir() / f"{name}.toml").read_text(encoding="utf-8").splitlines()
    assert 10 <= len(lines) <= 40
    assert lines[0].startswith("# ")
    assert load_space(name).description


@pytest.mark.parametrize("name", space_names())
def test_a_space_makes_trees(name):
    grammar = Grammar(load_space(name))
    with seeded(0):
        drawn = [grammar.draw(index) for index in range(20)]
    limits = grammar.space.tree
    assert all(len(tree) <= limits.max_nodes and tree.height <= limits.max_height for tree in drawn)
    formulas = []
    for tree in drawn:
        try:
            formulas.append(grammar.expression(tree))
        except EvolossError:
            continue
    assert len(set(formulas)) >= 10
    assert all(isinstance(formula, Expression) for formula in formulas)


@pytest.mark.parametrize("name", space_names())
def test_a_space_has_rungs_for_the_mlp(name):
    space = load_space(name)
    rungs = space.rungs_for("mlp")
    assert rungs == space.rungs["mlp"]
    assert rungs[0].keep == 1
    assert len(sweep_of(rungs).rates) > 1, "the last rungs sweep the learning rate"
    assert set(sweep_of(rungs).rates) <= set(full_rung(space, "mlp").rates)
    with pytest.raises(EvolossError, match="rungs for mlp, inception, not for the proxy `lenet`"):
        space.rungs_for("lenet")


def test_a_space_by_its_path(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text((spaces_dir() / "ngl.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load_space(str(path)) == load_space("ngl")


def test_budgets_of_a_rung():
    rung = Rung(samples=500, epochs=2, rates=(1e-3, 2e-3), keep=0.5, batch_size=64, flips=True, time_limit=9)
    budgets = rung.budgets()
    assert [budget.learning_rate for budget in budgets] == [1e-3, 2e-3]
    assert {(b.samples, b.epochs, b.batch_size, b.flips, b.optimizer, b.time_limit) for b in budgets} == {
        (500, 2, 64, True, "adam", 9)
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "5,000 samples x 2 epochs"),
        ({"epochs": 1, "pooled": 2, "keep": 0.5, "rates": (0.1,)}, "5,000 samples x 1 epoch, images pooled 2x2"),
    ],
)
def test_the_extent_of_a_rung_is_what_makes_trainings_comparable(changes, words):
    assert Rung(**{"samples": 5000, "epochs": 2, "rates": (1e-3,)} | changes).extent == words


def test_the_operators_of_evolution_are_those_of_the_trees():
    evolution = Evolution()
    assert set(evolution.crossover) == set(CROSSOVERS)
    assert set(evolution.mutation) == set(MUTATIONS)
    assert sum([*evolution.crossover.values(), *evolution.mutation.values()]) == pytest.approx(1)


# Errors


@pytest.mark.parametrize(
    ("place", "key", "nearest"),
    [
        ((), "varables", "did you mean `variables`?"),
        ((), "operator", "did you mean `operators`?"),
        ((), "Seeds", "did you mean `seeds`?"),
        ((), "evolutoin", "did you mean `evolution`?"),
        (("tree",), "max_heigth", "did you mean `max_height`?"),
        (("tree",), "nodes", "did you mean `max_nodes`?"),
        (("evolution",), "populaton", "did you mean `population`?"),
        (("evolution",), "tournement", "did you mean `tournament`?"),
        (("rungs", "mlp", 0), "epoch", "did you mean `epochs`?"),
        (("rungs", "mlp", 1), "learning_rates", "did you mean `rates`?"),
        (("rungs", "inception", 0), "batchsize", "did you mean `batch_size`?"),
    ],
)
def test_unknown_keys_name_the_nearest(place, key, nearest):
    values = smoke()
    at(values, place)[key] = 1
    message = refusal(SearchSpace, values)
    assert nearest in message
    assert message.startswith(f"space.toml: {'.'.join(map(str, (*place, key)))}: unknown key")


def test_unknown_keys_unlike_any_other_list_what_is_known():
    values = smoke()
    values["tree"]["zzz"] = 1
    message = refusal(SearchSpace, values)
    assert message == "space.toml: tree.zzz: unknown key; known are init_height, max_height, max_nodes"


@pytest.mark.parametrize(
    ("kind", "key", "known"), [("crossover", "onepoint", "one_point"), ("mutation", "subtre", "subtree")]
)
def test_unknown_operators_of_evolution(kind, key, known):
    values = smoke()
    values["evolution"][kind] = {key: 1.0}
    message = refusal(SearchSpace, values)
    assert key in message
    assert f"'{known}'" in message


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("variables",), ["P", "y"], "variables: `P` is none of p, y, z, d, D, Y, Dp, Dn, K, did you mean `p`?"),
        (("operators",), ["ad"], "did you mean `add`?"),
        (("operators",), ["+"], "operators: `+` is none of add, sub"),
        (("reductions",), ["cla"], "did you mean `cls`?"),
        (("seeds",), ["nlg"], "did you mean `ngl`?"),
        (("variables",), "p", "variables: "),
        (("reductions",), [], "no reduction of this space takes the variables p, y, z"),
        (("reductions",), ["cls"], "no reduction of this space takes the variables D, Y, Dp, Dn"),
        (("variables",), ["y", "Y"], "needs a prediction"),
        (("variables",), ["p", "z", "D"], "a target"),
        (("constants",), [3.0, -3.0], "low <= high"),
        (("constants",), [1.0], "constants.1: "),
        (("constants",), ["a", "b"], "constants.0: "),
        (("macros",), {"m": 3}, "macros.m: "),
        (("macros",), "a", "macros: "),
        (("description",), 3, "description: "),
        (("tree",), 3, "tree: "),
        (("tree", "init_height"), [5, 2], "low <= high <= max_height"),
        (("tree", "init_height"), [2, 50], "low <= high <= max_height"),
        (("tree", "init_height"), [0, 2], "greater than or equal to 1, got 0"),
        (("tree", "max_nodes"), 0, "greater than or equal to 1, got 0"),
        (("tree", "max_nodes"), "many", "got 'many'"),
        (("tree", "max_nodes"), 10.5, "got 10.5"),
        (("evolution", "population"), -1, "got -1"),
        (("evolution", "elites"), 11, "elites should not outnumber the population"),
        (("evolution", "tournament"), 1, "greater than or equal to 2, got 1"),
        (("evolution", "parsimony"), 2.5, "less than or equal to 2, got 2.5"),
        (("evolution", "parsimony"), NAN, "evolution.parsimony: "),
        (("evolution", "crossover"), {"one_point": -1.0}, "should not be negative"),
        (("evolution", "crossover"), {"one_point": INFINITY}, "evolution.crossover.one_point: "),
        (("evolution", "mutation"), {"node": NAN}, "evolution.mutation.node: "),
        (("rungs",), [1], "rungs: "),
        (("rungs", "mlp"), [], "rungs.mlp: "),
        (("rungs", "mlp", 0), 3, "rungs.mlp.0: "),
        (("rungs", "mlp", 0, "rates"), [], "rungs.mlp.0.rates: "),
        (("rungs", "mlp", 0, "rates"), [0.0], "rungs.mlp.0.rates.0: "),
        (("rungs", "mlp", 0, "rates"), [-1e-3], "rungs.mlp.0.rates.0: "),
        (("rungs", "mlp", 0, "rates"), [NAN], "rungs.mlp.0.rates.0: "),
        (("rungs", "mlp", 0, "keep"), 0, "rungs.mlp.0.keep: "),
        (("rungs", "mlp", 0, "keep"), 1.5, "rungs.mlp.0.keep: "),
        (("rungs", "mlp", 0, "samples"), 0, "rungs.mlp.0.samples: "),
        (("rungs", "mlp", 0, "epochs"), "two", "rungs.mlp.0.epochs: "),
        (("rungs", "mlp", 0, "optimizer"), "rmsprop", "'adam' or 'sgd', got 'rmsprop'"),
        (("rungs", "mlp", 0, "time_limit"), 0, "rungs.mlp.0.time_limit: "),
        (("rungs", "mlp", 0, "flips"), "perhaps", "rungs.mlp.0.flips: "),
        (("constants",), [NAN, NAN], "constants.0: "),
        (("constants",), [0.0, INFINITY], "constants.1: "),
        (("variables",), ["p", "p", "y"], "variables: "),
    ],
)
def test_bad_values_are_one_line(place, value, problem):
    values = smoke()
    at(values, place[:-1])[place[-1]] = value
    assert problem in refusal(SearchSpace, values)


@pytest.mark.parametrize("key", ["description", "variables", "reductions", "operators", "rungs"])
def test_what_a_space_cannot_do_without(key):
    values = smoke()
    del values[key]
    assert refusal(SearchSpace, values) == f"space.toml: {key}: Field required"


def test_weights_that_are_all_zero():
    values = smoke()
    values["evolution"] |= {"crossover": {"one_point": 0.0}, "mutation": {}}
    assert "nor all zero" in refusal(SearchSpace, values)


@pytest.mark.parametrize("macro", ["a + p", "a +", "2", "__import__('os')", "cls(a)"])
def test_a_bad_macro_is_the_error_of_a_user(macro):
    with pytest.raises(EvolossError):
        Grammar(validated(SearchSpace, smoke() | {"macros": {"m": macro}}, "space.toml"))


@pytest.mark.parametrize("text", ["description = ", "a = 1\na = 2", "[tree", "variables = [p]", "\x00"])
def test_errors_of_toml_syntax(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvolossError, match="is not valid TOML: ") as caught:
        load_space(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EvolossError, match="is not valid TOML"):
        read_toml(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(EvolossError, match=r"cannot read .*none\.toml: No such file or directory"):
        load_space(str(tmp_path / "none.toml"))
    with pytest.raises(EvolossError, match=r"cannot read .*: Is a directory"):
        read_toml(tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("hybird", ", did you mean `hybrid`?"),
        ("NGL", ", did you mean `ngl`?"),
        ("zzz", ""),
        ("../search_spaces/ngl", ""),
    ],
)
def test_unknown_spaces(name, hint):
    with pytest.raises(EvolossError) as caught:
        load_space(name)
    message = str(caught.value)
    assert message.startswith(f"unknown search space `{name}`")
    assert hint in message
    known = "center, classification, hybrid, memorize, metric, ngl, smoke"
    assert f"expected {known}, or the path of a .toml file" in message


# Runs


def run_config(**changes):
    values = {
        "version": "0.1.0",
        "dataset": "digits",
        "proxy": "mlp",
        "space_name": "smoke",
        "generations": 2,
        "population": 10,
        "space": load_space("smoke"),
    }
    return RunConfig(**(values | changes))


@pytest.mark.parametrize("name", space_names())
def test_a_run_is_written_and_read(tmp_path, name):
    run = run_config(space_name=name, space=load_space(name))
    (tmp_path / "run.toml").write_text(run.toml(), encoding="utf-8")
    assert load_run(tmp_path) == run


def test_a_run_with_everything_set(tmp_path):
    run = run_config(
        seed=7,
        top=3,
        samples=1000,
        label_noise=0.4,
        imbalance=100.0,
        seed_expressions=("cls(-y*log(p))", "cls((p - y)**2)"),
        regimes=("adam", "sgd"),
        time_limit=3600.5,
        device="cuda:0",
        data_dir="/data/\u00fcber uns",
    )
    (tmp_path / "run.toml").write_text(run.toml(), encoding="utf-8")
    assert load_run(tmp_path) == run
    assert run.data() == DataSpec(
        "digits", data_dir="/data/\u00fcber uns", samples=1000, label_noise=0.4, imbalance=100.0, seed=7
    )


@pytest.mark.parametrize("shape", [{"samples": 1000}, {"label_noise": 0.1}, {"imbalance": 2.0}])
def test_the_seed_is_a_part_of_the_data_where_it_shapes_them(shape):
    assert run_config(seed=7).data() == run_config(seed=8).data() == DataSpec("digits")
    assert run_config(seed=7, **shape).data() == DataSpec("digits", seed=7, **shape)


def test_what_is_not_set_is_not_written():
    written = tomllib.loads(run_config().toml())
    assert {"samples", "time_limit", "data_dir"}.isdisjoint(written)
    assert written["space"]["tree"]["max_nodes"] == 30
    assert written["space"]["rungs"]["mlp"][0]["rates"] == [3e-3]


@pytest.mark.parametrize(
    ("place", "key", "nearest"),
    [
        ((), "datset", "did you mean `dataset`?"),
        (("space",), "varables", "did you mean `variables`?"),
        (("space", "tree"), "max_heigth", "did you mean `max_height`?"),
        (("space", "evolution"), "elite", "did you mean `elites`?"),
        (("space", "rungs", "mlp", 0), "epoch", "did you mean `epochs`?"),
    ],
)
def test_unknown_keys_of_a_run(place, key, nearest):
    values = copy.deepcopy(run_config().model_dump(mode="json", exclude_none=True))
    at(values, place)[key] = 1
    assert nearest in refusal(RunConfig, values)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("population", 1),
        ("generations", 0),
        ("top", 0),
        ("samples", 0),
        ("label_noise", 1.0),
        ("label_noise", -0.1),
        ("imbalance", 0.5),
        ("imbalance", INFINITY),
        ("time_limit", 0),
        ("time_limit", NAN),
        ("seed", "one"),
        ("space", "smoke"),
        ("strategy", "chance"),
        ("newcomers", "many"),
    ],
)
def test_bad_values_of_a_run(key, value):
    values = run_config().model_dump(mode="json", exclude_none=True) | {key: value}
    assert refusal(RunConfig, values).startswith(f"space.toml: {key}: ")


@pytest.mark.parametrize("newcomers", [[], [3], [3, 4, 5]])
def test_newcomers_are_a_number_a_generation(newcomers):
    values = run_config().model_dump(mode="json", exclude_none=True) | {"newcomers": newcomers}
    assert "one number for each generation after the first" in refusal(RunConfig, values)


def test_a_directory_without_a_run(tmp_path):
    with pytest.raises(EvolossError, match=r"cannot read .*run\.toml"):
        load_run(tmp_path)


@pytest.mark.parametrize("model", [Tree, Evolution, Rung, SearchSpace, RunConfig])
def test_no_model_takes_unknown_keys_or_changes(model):
    assert model.model_config["extra"] == "forbid"
    assert model.model_config["frozen"] is True


def test_spaces_inside_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "evoloss"
    (package / "search_spaces").mkdir(parents=True)
    (package / "search_spaces" / "one.toml").touch()
    monkeypatch.setattr(config, "__file__", str(package / "config.py"))
    assert space_names() == ["one"]
