import itertools
import json
import os
import random
import subprocess
import sys
from types import SimpleNamespace

import pytest
from deap import tools
from hypothesis import given
from hypothesis import strategies as st

from evoloss import tree as trees
from evoloss.baselines import BASELINES
from evoloss.config import SearchSpace, Tree, load_space, space_names, validated
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import ExpressionError, write
from evoloss.tree import CROSSOVERS, FIELDS, MUTATIONS, Grammar, Individual, Scalar, binary_tournament, fronts, seeded

CROSS_ENTROPY = Expression.parse("-y*log(p)")


@pytest.fixture(scope="module")
def grammar():
    return Grammar(load_space("hybrid"))


def changed(name="hybrid", **changes):
    return load_space(name).model_copy(update=changes)


def population(grammar, size, seed=0):
    """Random trees with made-up fitness, as `vary` expects them."""
    with seeded(seed):
        drawn = [grammar.draw(index) for index in range(size)]
        for individual in drawn:
            individual.fitness.values = (float(random.randrange(3)), random.random())
            individual.expression = CROSS_ENTROPY
    return drawn


def check_types(tree):
    """Every node returns what its parent takes, and the tree ends where it should."""

    def walk(place, kind):
        node = tree[place]
        assert node.ret is kind
        place += 1
        for argument in node.args if node.arity else []:
            place = walk(place, argument)
        return place

    assert walk(0, Scalar) == len(tree)


def words(grammar, tree):
    return [grammar.names.get(node.name, "constant") for node in tree]


def check_sensible(grammar, tree):
    limits = grammar.space.tree
    assert len(tree) <= limits.max_nodes
    assert tree.height <= limits.max_height
    rows = [VARIABLES[word] for word in words(grammar, tree) if word in VARIABLES]
    assert any(row.prediction for row in rows)
    assert any(row.target for row in rows)


def drawn_text(grammar, tree):
    try:
        return grammar.expression(tree).text
    except ExpressionError as error:
        return error.problem


# Formulas and trees


REFUSED = {  # by the hybrid space
    "xtreme-margin": "the operator `sign` is not in this search space",
    "taylor-glo": "the tree has height 10 and 56 nodes, the space allows 12 and 40",
}
BRED = {name: row for name, row in BASELINES.items() if name not in REFUSED}


@pytest.mark.parametrize("row", BASELINES.values(), ids=BASELINES)
def test_every_baseline_goes_there_and_back_in_the_whole_language(row):
    space = load_space("hybrid").model_copy(update={"operators": tuple(OPERATORS), "tree": Tree(max_nodes=100)})
    grammar = Grammar(space)
    expression = Expression.parse(row.expression)
    assert grammar.expression(grammar.individual(expression)) == expression


@pytest.mark.parametrize("name", REFUSED)
def test_baselines_outside_the_space_are_refused_with_the_reason(grammar, name):
    with pytest.raises(EvolossError) as caught:
        grammar.individual(Expression.parse(BASELINES[name].expression))
    assert str(caught.value) == REFUSED[name]


@pytest.mark.parametrize("row", BRED.values(), ids=BRED)
def test_baselines_go_there_and_back(grammar, row):
    expression = Expression.parse(row.expression)
    tree = grammar.individual(expression)
    check_types(tree)
    check_sensible(grammar, tree)
    assert tree.expression == expression
    assert grammar.expression(tree) == expression


@pytest.mark.parametrize("name", space_names())
def test_seeds_fit_their_space(name):
    grammar = Grammar(load_space(name))
    lacking = {"ngl": {"ce": "-"}, "center": {"ngl": "cos"}}.get(name, {})  # scored there, but not bred
    for seed in grammar.space.seeds:
        expression = Expression.parse(BASELINES[seed].expression)
        if seed in lacking:
            with pytest.raises(EvolossError, match=f"the operator `{lacking[seed]}` is not in this search space"):
                grammar.individual(expression)
        else:
            assert grammar.expression(grammar.individual(expression)) == expression


@pytest.mark.parametrize(
    ("space", "formula", "problem"),
    [
        ("ngl", "y*log(p)", "the operator `log` is not in this search space"),
        ("ngl", "-y*exp(p)", "the operator `-` is not in this search space"),
        ("ngl", "y/p", "the operator `/` is not in this search space"),
        ("ngl", "y*z", "the variable `z` is not in this search space"),
        ("classification", "y*d", "the variable `d` is not in this search space"),
        ("classification", "Y*D", "the operator `pair` is not in this search space"),
        ("metric", "-y*log(p)", "the operator `cls` is not in this search space"),
        ("metric", "trip(Dp*sin(Dn))", "the operator `sin` is not in this search space"),
        ("hybrid", "cls(p*y)*pair(D)", "the operator `*` between reductions is not in this search space"),
        ("hybrid", "exp(cls(p*y))", "the operator `exp` between reductions is not in this search space"),
        ("hybrid", "cls(y*tan(p))", "the operator `tan` is not in this search space"),
    ],
)
def test_a_seed_outside_a_space_is_refused_by_the_word_it_lacks(space, formula, problem):
    with pytest.raises(EvolossError) as caught:
        Grammar(load_space(space)).individual(Expression.parse(formula))
    assert str(caught.value) == problem


def test_a_seed_larger_than_a_space_allows_is_refused():
    small = Grammar(changed(tree=load_space("hybrid").tree.model_copy(update={"max_nodes": 10})))
    with pytest.raises(EvolossError, match="height 6 and 14 nodes, the space allows 12 and 10"):
        small.individual(Expression.parse(BASELINES["ngl"].expression))
    flat = Grammar(changed(tree=load_space("hybrid").tree.model_copy(update={"max_height": 5})))
    with pytest.raises(EvolossError, match="height 6 and 14 nodes, the space allows 5 and 40"):
        flat.individual(Expression.parse(BASELINES["ngl"].expression))


def test_random_trees_go_there_and_back(grammar):
    checked = 0
    for individual in population(grammar, 200):
        try:
            expression = grammar.expression(individual)
            tree = grammar.individual(expression)
        except EvolossError:  # no canonical form, or one that is larger than the limits
            continue
        check_types(tree)
        assert grammar.expression(tree) == expression
        checked += 1
    assert checked >= 100


def test_negated(grammar):
    tree = grammar.individual(CROSS_ENTROPY)
    turned = grammar.negated(tree)
    check_types(turned)
    assert grammar.expression(turned) == CROSS_ENTROPY.negated
    back = grammar.negated(turned)
    assert [node.name for node in back] == [node.name for node in tree]


def test_negated_within_limits():
    size = len(Grammar(load_space("hybrid")).individual(CROSS_ENTROPY))
    tight = Grammar(changed(tree=load_space("hybrid").tree.model_copy(update={"max_nodes": size})))
    assert tight.negated(tight.individual(CROSS_ENTROPY)) is None


# Macros


@pytest.mark.parametrize(
    ("macro", "arguments", "formula"),
    [
        ("aq", ["p_ClassField", "y_ClassField"], "p/sqrt(1 + y**2)"),
        ("logabs", ["z_ClassField"], "log(abs(z) + 0.001)"),
    ],
)
def test_macros_expand_to_pure_formulas(grammar, macro, arguments, formula):
    tree = grammar.load(["cls", f"{macro}_class", *arguments])
    check_types(tree)
    assert grammar.expression(tree) == Expression.parse(formula)


def test_nested_macros_expand(grammar):
    names = ["pair", "aq_pair", "logabs_pair", "Y_PairField", "aq_pair", "D_PairField", "2.0 PairField"]
    tree = grammar.load(names)
    check_types(tree)
    assert grammar.expression(tree) == Expression.parse("log(abs(Y) + 0.001)/sqrt(1 + (D/sqrt(1 + 2**2))**2)")


def test_a_macro_may_use_its_parameters_in_any_order():
    grammar = Grammar(changed(macros={"swap": "b - 2*a"}))
    assert grammar.expression(grammar.load(["cls", "swap_class", "p_ClassField", "y_ClassField"])) == Expression.parse(
        "y - 2*p"
    )


def test_random_trees_hold_macros(grammar):
    used = {name for individual in population(grammar, 100) for name in words(grammar, individual)}
    assert {"aq", "logabs"} <= used


@pytest.mark.parametrize("word", ["log", "scale", "cls"])
def test_a_macro_cannot_take_a_word_of_the_language(word):
    """Else it would silently change the seeds: with `log = "a"`, cross-entropy would become cls(-p*y)."""
    formula = Expression.parse("2*cls(-y*log(p))")
    try:
        values = load_space("hybrid").model_dump() | {"macros": {word: "a + 1"}}
        grammar = Grammar(validated(SearchSpace, values, "space.toml"))
    except EvolossError:
        return
    assert grammar.expression(grammar.individual(formula)) == formula


# Drawing


@pytest.mark.parametrize("name", space_names())
def test_ramped_half_and_half(name):
    grammar = Grammar(load_space(name))
    low, high = grammar.space.tree.init_height
    drawn = population(grammar, 60)
    for individual in drawn:
        check_types(individual)
        check_sensible(grammar, individual)
    heights = [individual.height for individual in drawn]
    assert len(set(heights)) >= high - low + 1
    assert min(heights) <= low
    assert high <= max(heights)
    assert len({tuple(grammar.dump(individual)) for individual in drawn}) >= 50


@pytest.mark.parametrize("kind", [*FIELDS.values()], ids=FIELDS)
@pytest.mark.parametrize("height", [0, 1, 3])
def test_full_trees_of_a_field_have_the_height(grammar, kind, height):
    with seeded(0):
        for _ in range(20):
            assert Individual(grammar.generate(kind, height, full=True)).height == height
            assert Individual(grammar.generate(kind, height, full=False)).height <= height


def test_every_word_of_a_space_is_drawn(grammar):
    used = {name for individual in population(grammar, 300) for name in words(grammar, individual)}
    space = grammar.space
    assert used >= {*space.variables, *space.reductions, *space.operators, *space.macros}
    assert used <= {*VARIABLES, *REDUCTIONS, *OPERATORS, *space.macros, "scale", "constant"}


def test_constants_are_in_range_with_few_digits(grammar):
    low, high = grammar.space.constants
    values = [
        node.value for tree in population(grammar, 100) for node in tree if hasattr(node, "value") and node.arity == 0
    ]
    numbers = [value for value in values if isinstance(value, float)]
    assert len(numbers) >= 50
    assert all(low <= number <= high and number == round(number, 2) for number in numbers)
    assert len(set(numbers)) >= 40


def test_a_space_that_cannot_draw_says_so():
    grammar = Grammar(changed(tree=load_space("hybrid").tree.model_copy(update={"max_nodes": 1})))
    with pytest.raises(EvolossError, match="no prediction and target within its limits"), seeded(0):
        grammar.draw(0)


# Breeding


@pytest.mark.parametrize("name", CROSSOVERS)
def test_crossovers_keep_types(grammar, name):
    parents = population(grammar, 60)
    with seeded(1):
        for _ in range(1_500):
            first, second = random.sample(parents, 2)
            check_types(CROSSOVERS[name](grammar, Individual(list(first)), Individual(list(second))))


@pytest.mark.parametrize("name", MUTATIONS)
def test_mutations_keep_types(grammar, name):
    parents = population(grammar, 60)
    different = 0
    with seeded(1):
        for _ in range(1_000):
            parent = random.choice(parents)
            before = grammar.dump(parent)
            child = MUTATIONS[name](grammar, Individual(list(parent)))
            check_types(child)
            assert grammar.dump(parent) == before, "a mutation of a copy changed its parent"
            different += grammar.dump(child) != before
            if name in ("hoist", "shrink"):
                assert len(child) <= len(parent)
                assert child.height <= parent.height
    assert different >= 300


@pytest.mark.parametrize("space", space_names())
def test_vary_keeps_types_limits_and_what_can_be_learned(space):
    grammar = Grammar(load_space(space))
    parents = population(grammar, 40)
    before = [grammar.dump(parent) for parent in parents]
    children = []
    with seeded(2):
        for _ in range(350):
            child = grammar.vary(parents)
            check_types(child)
            check_sensible(grammar, child)
            assert not child.fitness.valid
            children.append(tuple(grammar.dump(child)))
    assert [grammar.dump(parent) for parent in parents] == before
    assert len(set(children)) >= 120


def test_generations_keep_types_and_limits():
    """Errors that add up would show after breeding children of children."""
    grammar = Grammar(load_space("hybrid"))
    living = population(grammar, 50)
    with seeded(3):
        for _ in range(20):
            living = [grammar.vary(living) for _ in range(50)]
            for child in living:
                check_types(child)
                check_sensible(grammar, child)
                child.fitness.values = (0.0, random.random())
                child.expression = CROSS_ENTROPY


@pytest.mark.parametrize("name", [*CROSSOVERS, *MUTATIONS])
def test_vary_uses_the_weights(grammar, name, monkeypatch):
    table = CROSSOVERS if name in CROSSOVERS else MUTATIONS
    calls = []
    operation = table[name]
    monkeypatch.setitem(table, name, lambda *arguments: calls.append(name) or operation(*arguments))
    kinds = {"crossover": {}, "mutation": {}} | {"crossover" if table is CROSSOVERS else "mutation": {name: 1.0}}
    evolution = grammar.space.evolution.model_copy(update=kinds)
    only = Grammar(changed(evolution=evolution))
    parents = population(only, 20)
    for index, parent in enumerate(parents):
        parent.expression = Expression(f"cls({index}*p*y)")
    keys = {parent.expression.key for parent in parents}
    with seeded(4):
        children = [only.vary(parents) for _ in range(50)]
    assert len(calls) >= 50
    sizes = {len(child.parents) for child in children}
    assert sizes <= ({1, 2} if table is CROSSOVERS else {1})
    assert max(sizes) == (2 if table is CROSSOVERS else 1)
    assert {key for child in children for key in child.parents} <= keys


def test_tournaments_prefer_the_fit(grammar):
    parents = population(grammar, 40)
    for index, parent in enumerate(parents):
        parent.fitness.values = (1.0, float(index))
        parent.expression = Expression(f"cls({index}*p*y)")
    rank = {parent.expression.key: index for index, parent in enumerate(parents)}
    with seeded(5):
        used = [rank[key] for _ in range(200) for key in grammar.vary(parents).parents]
    assert sum(used) / len(used) > 25  # 19.5 without selection


def test_binary_tournaments_prefer_the_fit_less(grammar):
    """The mean of the better of two of 40 is 26.3, of the best of four 31.4."""
    parents = population(grammar, 40)
    for index, parent in enumerate(parents):
        parent.fitness.values = (0.0, float(index))
    with seeded(6):
        used = [parent.fitness.values[1] for _ in range(500) for parent in binary_tournament(parents, None)]
    assert 25 < sum(used) / len(used) < 28


points = st.lists(st.tuples(st.integers(-3, 3).map(float), st.integers(1, 5)), max_size=20)


@given(points)
def test_fronts_are_those_of_nondominated_sorting(points):
    def dominates(a, b):
        return a != b and a[0] >= b[0] and a[1] <= b[1]

    left = dict(enumerate(points))
    for front in fronts(points):
        best = {place for place, point in left.items() if not any(dominates(o, point) for o in left.values())}
        assert set(front) == best
        for place in best:
            del left[place]
    assert not left


@given(points, st.integers(1, 20))
def test_fronts_and_crowding_select_as_deap_does(points, count):
    marked = [SimpleNamespace(place=place, fitness=trees.Objectives(point)) for place, point in enumerate(points)]
    rated = [(number, -distance) for number, front in enumerate(fronts(points)) for distance in front.values()]
    chosen = tools.selNSGA2(marked, count, nd="log") if marked else []
    numbers = {place: number for number, front in enumerate(fronts(points)) for place in front}
    assert sorted((numbers[c.place], -c.fitness.crowding_dist) for c in chosen) == sorted(rated)[:count]


def test_a_perturbed_constant(grammar):
    tree = grammar.individual(Expression.parse("exp(2.4092 - 1.5*p*y) + 0.1"))
    before = grammar.dump(tree)
    moved = 0
    with seeded(6):
        for _ in range(300):
            after = grammar.dump(MUTATIONS["constant"](grammar, Individual(list(tree))))
            places = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
            assert len(places) <= 1
            for place in places:
                assert before[place] in ("2.4092 ClassField", "1.5 ClassField", "0.1 ClassField")
                assert after[place].endswith(" ClassField")
            moved += len(places)
    assert moved >= 290


def test_a_tree_without_constants_is_not_perturbed(grammar):
    tree = grammar.individual(CROSS_ENTROPY)
    assert grammar.dump(MUTATIONS["constant"](grammar, Individual(list(tree)))) == grammar.dump(tree)


def test_weights_between_reductions_are_perturbed(grammar):
    tree = grammar.individual(Expression.parse(BASELINES["center"].expression))
    with seeded(7):
        kinds = {
            entry.split()[1]
            for _ in range(50)
            for entry in grammar.dump(MUTATIONS["constant"](grammar, Individual(list(tree))))
            if " " in entry
        }
        values = {
            entry
            for _ in range(50)
            for entry in grammar.dump(MUTATIONS["constant"](grammar, Individual(list(tree))))
            if entry.endswith("Weight")
        }
    assert kinds == {"Weight", "ClassField"}
    assert len(values) >= 10


def test_terms_of_different_layouts_are_bred_together():
    grammar = Grammar(load_space("hybrid"))
    parents = [grammar.individual(Expression.parse(BASELINES[name].expression)) for name in ("ce", "yukawa", "center")]
    for parent in parents:
        parent.fitness.values = (0.0, 1.0)
    with seeded(8):
        texts = [drawn_text(grammar, grammar.vary(parents)) for _ in range(300)]
    assert any("cls(" in text and "pair(" in text for text in texts)


# The same in every process


@pytest.mark.parametrize("name", space_names())
def test_dump_and_load(name):
    grammar = Grammar(load_space(name))
    for individual in population(grammar, 50):
        names = json.loads(json.dumps(grammar.dump(individual)))
        loaded = grammar.load(names)
        check_types(loaded)
        assert grammar.dump(loaded) == names
        assert write(grammar._node(iter(loaded))) == write(grammar._node(iter(individual)))
        assert loaded.height == individual.height


@pytest.mark.parametrize("row", BRED.values(), ids=BRED)
def test_dump_and_load_baselines(grammar, row):
    tree = grammar.individual(Expression.parse(row.expression))
    assert grammar.expression(grammar.load(json.loads(json.dumps(grammar.dump(tree))))) == tree.expression


@pytest.mark.parametrize("number", [0.1 + 0.2, 1e-9, -1.0, 1e9, 0.0, 1 / 3])
def test_constants_are_dumped_exactly(grammar, number):
    node = grammar.constant(number, FIELDS["class"])
    loaded = grammar.load([*grammar.dump([node])])
    assert loaded[0].value == number
    assert loaded[0].ret is FIELDS["class"]


def test_seeded_leaves_random_as_it_was():
    state = random.getstate()
    with seeded(1):
        first = random.random()
        assert random.getstate() != state
    assert random.getstate() == state
    with seeded(1):
        assert random.random() == first
    with pytest.raises(IndexError), seeded(2):
        random.choice([])
    assert random.getstate() == state
    with seeded(3):
        outer = random.getstate()
        with seeded(4):
            random.random()
        assert random.getstate() == outer


def test_drawing_depends_on_random_alone(grammar):
    first, second = (
        [drawn_text(grammar, individual) for individual in population(Grammar(load_space("hybrid")), 30)]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) >= 20


BREED = """
import random
from evoloss.config import load_space
from evoloss.expression import Expression
from evoloss.tree import Grammar, seeded

grammar = Grammar(load_space("hybrid"))
with seeded(11):
    parents = [grammar.draw(index) for index in range(30)]
    for parent in parents:
        parent.fitness.values = (0.0, random.random())
        parent.expression = Expression("cls(-y*log(p))")
    for _ in range(50):
        child = grammar.vary(parents)
        print(" ".join(map(str, grammar.dump(child))))
        try:
            print(grammar.expression(child))
        except ValueError as error:
            print(error)
"""


def test_breeding_is_the_same_in_every_process():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", BREED],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "22")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) >= 100


def test_types_hash_alike_in_every_process():
    hashes = [hash(kind) for kind in (Scalar, trees.Weight, *FIELDS.values())]
    assert len(set(hashes)) == len(hashes)
    assert hash(Scalar) == 3857727155  # crc32(b"Scalar")


def test_a_loaded_tree_is_a_tree_of_its_own(grammar):
    tree = grammar.individual(Expression.parse("exp(2.5*p)*y"))
    copies = [grammar.load(grammar.dump(tree)) for _ in range(2)]
    with seeded(9):
        MUTATIONS["constant"](grammar, copies[0])
    assert grammar.dump(copies[1]) == grammar.dump(tree)
    assert list(itertools.chain(*[copy.parents for copy in copies])) == []
