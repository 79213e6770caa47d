import copy
import tomllib

import pytest
import tomli_w

from evoloss.config import shipped, validated
from evoloss.data import DATASETS
from evoloss.errors import EvolossError
from evoloss.metrics import FIGURES
from evoloss.proxies import PROXIES
from evoloss.recipe import Recipe, conditions, load_recipe, recipe_names

NAMES = recipe_names()


def raw(name):
    return tomllib.loads((shipped("recipes") / f"{name}.toml").read_text(encoding="utf-8"))


def problem(values):
    with pytest.raises(EvolossError) as error:
        validated(Recipe, values, "own.toml")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_the_four_experiments_are_there():
    assert NAMES == ["center", "ngl", "standalone-center", "yukawa"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_names_what_exists(name):
    recipe = load_recipe(name)
    assert recipe.network is None or recipe.network in PROXIES
    assert {*recipe.datasets, *recipe.augmentation} <= set(DATASETS)
    assert "digits" in recipe.datasets  # runs on any machine
    assert not any(contender.expression.missing for contender in recipe.contenders)
    for row in recipe.published:
        assert row.embedding in (None, *recipe.embeddings)
        assert row.dataset in DATASETS


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_survives_being_written(name):
    recipe = load_recipe(name)
    written = tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
    assert validated(Recipe, tomllib.loads(written), name) == recipe


@pytest.mark.parametrize(
    ("place", "key", "hint"),
    [
        ((), "epoch", "unknown key, did you mean `epochs`?"),
        (("optimizer",), "momentun", "unknown key, did you mean `momentum`?"),
        (("contenders", 0), "los", "unknown key, did you mean `loss`?"),
        (("augmentation", "mnist"), "rotat", "unknown key, did you mean `rotate`?"),
        (("published", 0), "figure", "unknown key, did you mean `figures`?"),
        (("published", 0, "figures"), "acuracy", "unknown figure `acuracy`, did you mean `accuracy`?"),
    ],
)
def test_an_unknown_key_names_the_nearest(place, key, hint):
    values = raw("standalone-center")
    node = values
    for step in place:
        node = node[step]
    node[key] = 1
    assert hint in problem(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "contrastve"}, "unknown baseline `contrastve`, did you mean `contrastive`?"),
        ({"loss": "pair(D*q)"}, "unknown name `q`"),
        ({"loss": "ce"}, "mined pairs have no classes: contrastive"),
        ({"loss": "center"}, "centers belong to a loss with `d`"),
        ({"centers": {"rule": "wen"}}, "centers belong to a loss with `d`"),
        ({"centers": {"rule": "wenn"}}, "contenders.0.centers.rule"),
        ({"decision": "nearest center"}, "only a loss with `d` has centers"),
        ({"name": "yukawa"}, "two contenders have one name"),
        ({"name": "contrasive"}, "published figures of `contrastive`, did you mean `contrasive`?"),
    ],
)
def test_a_contender_that_cannot_be_is_refused(change, message):
    values = copy.deepcopy(raw("yukawa"))
    values["contenders"][0] |= change
    assert message in problem(values)


def test_an_unknown_figure_in_a_table():
    assert "unknown figure `acc`" in problem(raw("ngl") | {"tables": [["acc"]]})


def test_an_unknown_recipe():
    with pytest.raises(EvolossError, match=r"unknown recipe `yukwa`, did you mean `yukawa`\?: expected center, ngl"):
        load_recipe("yukwa")


def test_a_recipe_of_ones_own(tmp_path):
    (tmp_path / "own.toml").write_text(tomli_w.dumps(raw("ngl") | {"epochs": 7}))
    assert load_recipe(str(tmp_path / "own.toml")).epochs == 7


# As published: seeds.md sections 1 to 5 name the sources.
@pytest.mark.parametrize(
    ("name", "contender", "embedding", "dataset", "epochs", "figure", "value"),
    [
        ("yukawa", "contrastive", 128, "mnist", 20, "pair_accuracy", 0.9737),
        ("yukawa", "yukawa", 128, "mnist", 20, "pair_accuracy", 0.9810),
        ("yukawa", "yukawa", 128, "fashion-mnist", 5, "pair_accuracy", 0.9810),
        ("yukawa", "yukawa", 128, "mnist", 40, "pair_accuracy", 0.9780),
        ("yukawa", "yukawa", 128, "mnist", 20, "auc", 0.9912),  # in the re-measurement at 40 epochs alone
        ("standalone-center", "standalone", 2, "fashion-mnist", 100, "accuracy", 0.921),
        ("standalone-center", "standalone", 128, "cifar10", 3, "accuracy", 0.806),
        ("center", "center-gradient", 2, "fashion-mnist", 2, "accuracy", 0.1032),
        ("center", "center-gradient", 2, "mnist", 100, "accuracy", 0.9851),
        ("ngl", "NGL", 64, "fashion-mnist", 200, "accuracy", 0.9407),
        ("ngl", "SCE", 64, "cifar10", 200, "accuracy", 0.8914),
    ],
)
def test_published_figures(name, contender, embedding, dataset, epochs, figure, value):
    beside = load_recipe(name).beside(contender, embedding, dataset, epochs)
    assert beside[figure].figures[figure] == value


def test_what_was_never_published_has_no_figure():
    assert load_recipe("yukawa").beside("triplet", 128, "mnist", 20) == {}


def test_conditions_say_where_each_figure_holds():
    recipe = load_recipe("yukawa")
    beside = recipe.beside("yukawa", 128, "fashion-mnist", 20)
    used = [(figure, beside[figure]) for figure in ("pair_accuracy", "auc")]
    lines = conditions(recipe, used, ["fashion-mnist, siamese-mlp, 50,000 samples x 20 epochs"], 3)
    assert lines[:3] == [
        f"published ({FIGURES['pair_accuracy'][0]}): mnist, 20 epochs, the author's README",
        "published (AUC): mnist, 40 epochs, re-measured with the author's own weights",
        "ours: fashion-mnist, siamese-mlp, 50,000 samples x 20 epochs, mean +- sd of 3 seeds",
    ]
    assert "train role" in lines[3]
    assert lines[4:] == list(recipe.differs)
