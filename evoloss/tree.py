"""Loss formulas as typed trees that DEAP breeds. The only file that knows DEAP's trees.

Every layout has a type of its own, so that crossover can put no distance where a probability belongs; reductions lead
from the layouts to the scalar type. DEAP draws from Python's global `random`: `seeded` fences it in.
"""

import contextlib
import itertools
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from deap import base, gp, tools

from evoloss.config import Evolution, SearchSpace
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.operators import OPERATORS, REDUCTIONS, VARIABLES
from evoloss.syntax import Node, read_macro

KNOWN = 4_096  # syntax trees whose expressions are kept: of those that are bred, half were there before
ATTEMPTS = 200  # draws until a tree has a prediction and a target and keeps the limits; half of random trees do
REDUCE_EARLY = 0.7  # share of scalar nodes, above the last level, that are reductions rather than sums of terms


class _Type(type):
    """Types whose hash is the same in every process: DEAP draws from sets of types, ordered by hash."""

    def __hash__(cls) -> int:
        return zlib.crc32(cls.__name__.encode())


class Scalar(metaclass=_Type):
    """A loss, or a term of one."""


class Weight(metaclass=_Type):
    """A constant that multiplies a term."""


FIELDS: dict[str, type] = {
    layout: _Type(f"{layout.title()}Field", (), {}) for layout in dict.fromkeys(r.layout for r in REDUCTIONS.values())
}


class Fitness(base.Fitness):
    """The rating by which parents are chosen: two numbers, compared in this order, higher is better."""

    weights = (1.0, 1.0)


class Objectives(base.Fitness):
    """A score, which should be high, and a size, which should be low: neither comes first."""

    weights = (1.0, -1.0)


class Individual(gp.PrimitiveTree):
    """A tree with its fitness, its formula and the keys of its parents."""

    expression: Expression

    def __init__(self, nodes: list[Any], parents: tuple[str, ...] = ()) -> None:
        super().__init__(nodes)
        self.fitness = Fitness()
        self.parents = parents


Choose = Callable[[list[Individual], Evolution], list[Individual]]  # two parents out of a population


def tournament_with_parsimony(population: list[Individual], evolution: Evolution) -> list[Individual]:
    """Two parents: of two winners of a tournament by fitness, the smaller one more often (Luke and Panait 2002)."""
    return tools.selDoubleTournament(population, 2, evolution.tournament, evolution.parsimony, fitness_first=True)


def binary_tournament(population: list[Individual], _: Evolution) -> list[Individual]:
    """Two parents, each the better of two, as NSGA-II has it."""
    return tools.selTournament(population, 2, 2)


def fronts(points: Sequence[tuple[float, float]]) -> list[dict[int, float]]:
    """The fronts of nondominated sorting, best first: the crowding distance of each member, by its place in `points`.

    A point is (score, size); it dominates another where it is better in one and not worse in the other. The distance is
    that of Deb et al. 2002, infinite at the ends of a front.
    """
    marked = [SimpleNamespace(place=place, fitness=Objectives(point)) for place, point in enumerate(points)]
    # Not sortNondominated, whose time grows with the square: 3.6 s for 2,000 points, where this one takes 33 ms.
    found = tools.sortLogNondominated(marked, len(marked))
    for front in found:
        tools.emo.assignCrowdingDist(front)
    return [{member.place: member.fitness.crowding_dist for member in front} for front in found]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's global generator, seeded inside and as it was outside."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


class Grammar:
    """A search space as DEAP's primitive set: draws trees, breeds them, and turns them into formulas and back."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.macros = {name: read_macro(text) for name, text in space.macros.items()}
        self.pset = gp.PrimitiveSetTyped("loss", [], Scalar)
        self.names: dict[str, str] = {}  # of a primitive, which DEAP wants unique, to the word of the language
        for name in space.reductions:
            self._primitive(name, "", [FIELDS[REDUCTIONS[name].layout]], Scalar)
        for name, types in _SCALAR_PRIMITIVES.items():
            self._primitive(name, "scalar", types, Scalar)
        self._terminals(Weight, ["K"] if "K" in space.variables else [])
        arities = {name: OPERATORS[name].arity for name in space.operators}
        arities |= {name: len(parameters) for name, (_, parameters) in self.macros.items()}
        for layout in dict.fromkeys(REDUCTIONS[name].layout for name in space.reductions):
            for name, arity in arities.items():
                self._primitive(name, layout, [FIELDS[layout]] * arity, FIELDS[layout])
            self._terminals(FIELDS[layout], [v for v in space.variables if VARIABLES[v].layout in (layout, None)])

    def _primitive(self, name: str, suffix: str, arguments: list[type], result: type) -> None:
        unique = f"{name}_{suffix}" if suffix else name
        self.names[unique] = name
        self.pset.addPrimitive(None, arguments, result, name=unique)

    def _terminals(self, kind: type, variables: list[str]) -> None:
        for name in variables:
            unique = f"{name}_{kind.__name__}"
            self.names[unique] = name
            self.pset.addTerminal(None, kind, name=unique)
        self.pset.addEphemeralConstant(f"constant_{kind.__name__}", partial(_draw, *self.space.constants), kind)

    # Trees and formulas

    def expression(self, tree: Individual) -> Expression:
        """The formula of a tree, macros expanded. Raises `ExpressionError` where it has no canonical form."""
        return _expression(self._node(iter(tree)))

    def _node(self, nodes: Iterator[Any]) -> Node:
        node = next(nodes)
        if _is_constant(node):
            return node.value
        name = self.names[node.name]
        if node.arity == 0:
            return name
        children = [self._node(nodes) for _ in range(node.arity)]
        if name in self.macros:
            body, parameters = self.macros[name]
            return _substitute(body, dict(zip(parameters, children, strict=True)))
        return ("mul" if name == "scale" else name, *children)

    def individual(self, expression: Expression) -> Individual:
        """A tree of this formula. Raises `EvolossError` saying which word the search space lacks."""
        nodes: list[Any] = []
        self._build(expression.node, Scalar, nodes)
        tree = Individual(nodes)
        tree.expression = expression
        if not self._fits(tree):
            limits = self.space.tree
            size = f"height {tree.height} and {len(tree)} nodes"
            raise EvolossError(f"the tree has {size}, the space allows {limits.max_height} and {limits.max_nodes}")
        return tree

    def _build(self, node: Node, kind: type, nodes: list[Any]) -> None:
        if isinstance(node, float):
            nodes.append(self.constant(node, kind))
        elif isinstance(node, str):
            terminal = self.pset.mapping.get(f"{node}_{kind.__name__}")
            if terminal is None:
                raise EvolossError(f"the variable `{node}` is not in this search space")
            nodes.append(terminal)
        else:
            name, *children = node
            if kind is Scalar and name == "mul" and not isinstance(children[0], tuple):
                name = "scale"
            primitive = self._find(name, kind)
            nodes.append(primitive)
            for child, argument in zip(children, primitive.args, strict=True):
                self._build(child, argument, nodes)

    def _find(self, name: str, kind: type) -> Any:
        for primitive in self.pset.primitives[kind]:
            if self.names[primitive.name] == name:
                return primitive
        where = " between reductions" if kind is Scalar and name not in REDUCTIONS else ""
        shown = OPERATORS[name].symbol or name if name in OPERATORS else name
        raise EvolossError(f"the operator `{shown}`{where} is not in this search space")

    def constant(self, value: float, kind: type) -> Any:
        """A constant node of a given value."""
        ephemeral: Any = self.pset.mapping[f"constant_{kind.__name__}"]
        node = ephemeral.__new__(ephemeral)
        node.value = value
        return node

    def dump(self, tree: Individual) -> list[str | float]:
        """The tree as a list for JSON: names of primitives and terminals in prefix order, constants with their kind."""
        return [f"{node.value!r} {node.ret.__name__}" if _is_constant(node) else node.name for node in tree]

    def load(self, names: list[str]) -> Individual:
        """The inverse of `dump`."""
        kinds = {kind.__name__: kind for kind in (Weight, *FIELDS.values())}
        nodes: list[Any] = []
        for name in names:
            value, _, kind = name.partition(" ")
            nodes.append(self.constant(float(value), kinds[kind]) if kind else self.pset.mapping[name])
        return Individual(nodes)

    def negated(self, tree: Individual) -> Individual | None:
        """The tree of the loss with the other sign, None where it would outgrow the limits."""
        if self.names[tree.root.name] == "neg":
            turned = Individual(list(tree[1:]), tree.parents)
        else:
            turned = Individual([self._find("neg", Scalar), *tree], tree.parents)
        return turned if self._fits(turned) else None

    # Drawing and breeding

    def draw(self, index: int) -> Individual:
        """The `index`th tree of a ramped half-and-half initialization (Koza 1992): heights in turn, full and grown."""
        low, high = self.space.tree.init_height
        for attempt in range(ATTEMPTS):
            turn = index + attempt
            tree = Individual(self.generate(Scalar, low + turn // 2 % (high - low + 1), full=turn % 2 == 0))
            if self._sensible(tree):
                return tree
        raise EvolossError("random trees of this search space have no prediction and target within its limits")

    def generate(self, kind: type, height: int, full: bool) -> list[Any]:
        """Nodes of a random tree of a type: of this height where `full`, else up to it. Scalars need one level more."""
        terminals = self.pset.terminals[kind]
        stop = height <= 0 or (not full and random.random() < self.pset.terminalRatio)
        if terminals and (stop or not self.pset.primitives[kind]):
            terminal = random.choice(terminals)
            return [terminal() if isinstance(terminal, gp.MetaEphemeral) else terminal]
        primitives = self.pset.primitives[kind]
        if kind is Scalar:
            reduce = height <= 1 or random.random() < REDUCE_EARLY
            primitives = [p for p in primitives if (self.names[p.name] in REDUCTIONS) == reduce]
        primitive = random.choice(primitives)
        parts = [self.generate(argument, height - 1, full) for argument in primitive.args]
        return [primitive, *itertools.chain.from_iterable(parts)]

    def vary(self, population: list[Individual], choose: Choose = tournament_with_parsimony) -> Individual:
        """A child of parents that `choose` picks, within the limits, with prediction and target."""
        evolution = self.space.evolution
        weights = evolution.crossover | evolution.mutation
        for _ in range(ATTEMPTS):
            name = random.choices(list(weights), list(weights.values()))[0]
            parents = choose(population, evolution)
            copies = [Individual(list(parent)) for parent in parents]
            if name in evolution.crossover:
                child, used = CROSSOVERS[name](self, *copies), parents
            else:
                child, used = MUTATIONS[name](self, copies[0]), parents[:1]
            if self._sensible(child):
                child.parents = tuple(dict.fromkeys(parent.expression.key for parent in used))
                return child
        return self.draw(random.randrange(1000))

    def _fits(self, tree: Individual) -> bool:
        return len(tree) <= self.space.tree.max_nodes and tree.height <= self.space.tree.max_height

    def _sensible(self, tree: Individual) -> bool:
        words = [self.names[node.name] for node in tree if node.arity == 0 and not _is_constant(node)]
        rows = [VARIABLES[word] for word in words]
        return self._fits(tree) and any(row.prediction for row in rows) and any(row.target for row in rows)


@lru_cache(maxsize=KNOWN)
def _expression(node: Node) -> Expression:
    return Expression.from_node(node)


def _draw(low: float, high: float) -> float:
    """A constant with few digits: formulas are for people."""
    return round(random.uniform(low, high), 2)


def _is_constant(node: Any) -> bool:
    return isinstance(type(node), gp.MetaEphemeral)


def _substitute(node: Node, values: dict[str, Node]) -> Node:
    if isinstance(node, tuple):
        return (node[0], *(_substitute(child, values) for child in node[1:]))
    return values.get(node, node) if isinstance(node, str) else node


def _one_point(grammar: Grammar, first: Individual, second: Individual) -> Individual:
    return gp.cxOnePoint(first, second)[0]


def _leaf_biased(grammar: Grammar, first: Individual, second: Individual) -> Individual:
    return gp.cxOnePointLeafBiased(first, second, termpb=0.3)[0]


def _subtree(grammar: Grammar, tree: Individual) -> Individual:
    def grow(pset: Any, type_: type) -> list[Any]:
        return grammar.generate(type_, random.randint(1, 3), full=False)

    return gp.mutUniform(tree, expr=grow, pset=grammar.pset)[0]


def _node_replacement(grammar: Grammar, tree: Individual) -> Individual:
    return gp.mutNodeReplacement(tree, pset=grammar.pset)[0]


def _perturb_constant(grammar: Grammar, tree: Individual) -> Individual:
    """One constant times a lognormal factor, plus a little: small constants can change sign."""
    places = [place for place, node in enumerate(tree) if _is_constant(node)]
    if places:
        place = random.choice(places)
        value = tree[place].value * random.lognormvariate(0, 0.4) + random.gauss(0, 0.05)
        tree[place] = grammar.constant(float(f"{value:.3g}"), tree[place].ret)
    return tree


def _hoist(grammar: Grammar, tree: Individual) -> Individual:
    """A subtree takes the place of a node above it of the same type (Kinnear 1994)."""
    inner = random.randrange(len(tree))
    kind, stop = tree[inner].ret, tree.searchSubtree(inner).stop
    above = [i for i in range(inner) if tree[i].ret is kind and tree.searchSubtree(i).stop >= stop]
    if above:
        subtree = tree[tree.searchSubtree(inner)]
        tree[tree.searchSubtree(random.choice(above))] = subtree
    return tree


def _shrink(grammar: Grammar, tree: Individual) -> Individual:
    return gp.mutShrink(tree)[0]


# Between reductions only sums and weights: that is how terms of different layouts are bred.
_SCALAR_PRIMITIVES: dict[str, list[type]] = {
    "add": [Scalar, Scalar],
    "sub": [Scalar, Scalar],
    "neg": [Scalar],
    "scale": [Weight, Scalar],
}

CROSSOVERS: dict[str, Callable[[Grammar, Individual, Individual], Individual]] = {
    "one_point": _one_point,
    "leaf_biased": _leaf_biased,
}

MUTATIONS: dict[str, Callable[[Grammar, Individual], Individual]] = {
    "subtree": _subtree,
    "node": _node_replacement,
    "constant": _perturb_constant,
    "hoist": _hoist,
    "shrink": _shrink,
}
