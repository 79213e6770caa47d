"""Who may enter a generation: seeds, offspring or random trees that pass the screens and equal no known loss."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from evoloss.baselines import BASELINES, family
from evoloss.census import Census
from evoloss.config import RunConfig
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import Candidate, Evaluation, Job, Status, derive_seed
from evoloss.tree import Choose, Grammar, Individual, seeded

VARY_ATTEMPTS = 10  # tries for a child whose formula is new, before a known one is accepted
INITIAL_ROUNDS = 20  # of drawing and screening until the first population is full
RANDOM_ROUNDS = 100  # of the same in random search, where a round draws only what is still missing
SCREEN_LIMIT = 60.0  # seconds, for formulas that hang

Evaluate = Callable[[str, Iterable[Job]], dict[Job, Evaluation]]  # a phase's name and its jobs

log = logging.getLogger("evoloss")


@dataclass
class Member:
    """A candidate and its tree; baselines that the grammar cannot express have none and do not breed."""

    candidate: Candidate
    tree: Individual | None


class Newcomers:
    """The members of each generation, drawn from its own random numbers and entered into the census."""

    def __init__(self, config: RunConfig, grammar: Grammar, census: Census, evaluate: Evaluate) -> None:
        self.config = config
        self.grammar = grammar
        self.census = census
        self.evaluate = evaluate

    def initial(self) -> list[Member]:
        """The baselines, the user's seeds, and random trees until the population is full of losses worth training."""
        members = self.screened(seeds(self.config, self.grammar), 0)
        for turn in range(INITIAL_ROUNDS):
            if sum(member.tree is not None for member in members) >= self.config.population:
                break
            members += self._drawn(0, range(self.config.population), "initial", turn)
        return members

    def strangers(self, number: int) -> list[Member]:
        """Random trees, as in generation 0, until so many are worth training as the budget has room for."""
        members: list[Member] = []
        drawn, wanted = 0, due(self.config, number)
        for turn in range(RANDOM_ROUNDS):
            missing = wanted - len(members)
            if not missing:
                break
            members += self._drawn(number, range(drawn, drawn + missing), "random", number, turn)
            drawn += missing
        return members

    def offspring(self, number: int, population: list[Individual], choose: Choose) -> list[Member]:
        """New formulas bred from the population, screened. A known one is looked up, not evaluated again."""
        children: dict[str, Member] = {}
        with seeded(derive_seed(self.config.seed, "generation", number)):
            for _ in range(due(self.config, number)):
                for _ in range(VARY_ATTEMPTS):
                    child = self.member(self.grammar.vary(population, choose), number)
                    if child is None:
                        continue
                    if child.candidate.key not in children and self.is_new(child):
                        children[child.candidate.key] = child
                        break
                    self.census.tally["cached"] += 1
        return self.screened(list(children.values()), number)

    def _drawn(self, number: int, places: range, *purpose: object) -> list[Member]:
        """The trees at these places of a ramped initialization that are new and pass the screens."""
        with seeded(derive_seed(self.config.seed, *purpose)):
            trees = [self.grammar.draw(place) for place in places]
        drawn = [member for tree in trees if (member := self.member(tree, number)) and self.is_new(member)]
        return self.screened(drawn, number)

    def member(self, tree: Individual, number: int) -> Member | None:
        """The candidate of a tree, or None where its formula has no canonical form or sees too little."""
        try:
            tree.expression = self.grammar.expression(tree)
        except EvolossError:
            self.census.reject("no canonical form")
            return None
        if missing := tree.expression.missing:
            self.census.reject(missing)
            return None
        return Member(new_candidate(tree.expression, number, tree.parents), tree)

    def is_new(self, member: Member) -> bool:
        """Whether no generation has met this formula."""
        return member.candidate.key not in self.census.candidates

    def screened(self, members: Iterable[Member], number: int) -> list[Member]:
        """Those worth training. A loss that learns with the other sign takes part negated, as a formula of its own."""
        distinct: dict[str, Member] = {}
        for member in members:
            distinct.setdefault(member.candidate.key, member)
        jobs = {key: self._screen(member.candidate) for key, member in distinct.items()}
        answers = self.evaluate("screening", jobs.values())
        kept: list[Member] = []
        negated: list[Member] = []
        for key, member in distinct.items():
            answer = answers[jobs[key]]
            if answer.negate:
                self._enter(member.candidate, answer, Status.REJECTED, "sign: learns when negated")
                negated += self._negated(member, number)
            elif self._passes(member.candidate, answer):
                kept.append(member)
            candidate = member.candidate
            if candidate.name and candidate.status is not Status.OK:
                log.warning("%s (%s) is refused: %s", candidate.name, candidate.expression, _reason(candidate))
        return kept + self.screened(negated, number) if negated else kept

    def tried(self, candidates: list[Candidate]) -> list[Candidate]:
        """These candidates, screened but not entered: those worth training have a scale, the others a status."""
        jobs = [self._screen(candidate) for candidate in candidates]
        answers = self.evaluate("screening", jobs)
        for candidate, job in zip(candidates, jobs, strict=True):
            answer = answers[job]
            candidate.status = Status.REJECTED if answer.negate else answer.status
            candidate.scale = answer.scale
        return candidates

    def _screen(self, candidate: Candidate) -> Job:
        seed = derive_seed(self.config.seed, "training", 0)
        return Job("screen", candidate.key, candidate.expression, self.config.proxy, seed, time_limit=SCREEN_LIMIT)

    def _passes(self, candidate: Candidate, answer: Evaluation) -> bool:
        """Whether a loss with the right sign is sound and new; entered into the census either way."""
        if answer.status is not Status.OK:
            self._enter(candidate, answer, answer.status, answer.detail)
            self.census.reject(answer.detail.partition(":")[0] or answer.status)
            return False
        if twin := self.census.fingerprints.find(answer.fingerprint):
            self._enter(candidate, answer, Status.DUPLICATE, twin)
            self.census.tally["duplicates"] += 1
            return False
        self._enter(candidate, answer)
        self.census.fingerprints.add(candidate.key, answer.fingerprint)
        return True

    def _enter(self, candidate: Candidate, answer: Evaluation, status: Status = Status.OK, detail: str = "") -> None:
        candidate.status, candidate.detail = status, detail
        candidate.scale, candidate.fingerprint = answer.scale, answer.fingerprint
        candidate.seconds += answer.seconds
        self.census.change(candidate)

    def _negated(self, member: Member, number: int) -> list[Member]:
        if member.tree is None or member.candidate.name:
            self.census.reject("sign")
            return []
        tree = self.grammar.negated(member.tree)
        negated = self.member(tree, number) if tree is not None else None
        if negated is None or not self.is_new(negated):
            self.census.tally["cached"] += 1
            return []
        return [negated]


def new_candidate(expression: Expression, generation: int, parents: tuple[str, ...] = (), name: str = "") -> Candidate:
    """The candidate of a formula, before anything is known of it."""
    kind = family(expression.variables)
    return Candidate(expression.key, expression.text, expression.complexity, kind, name, generation, parents)


def seeds(config: RunConfig, grammar: Grammar) -> list[Member]:
    """Cross-entropy, NGL, the other baselines that the space names, and the user's own."""
    names = dict.fromkeys(("ce", "ngl", *config.space.seeds))
    own = {f"seed-{number}": text for number, text in enumerate(config.seed_expressions, 1)}
    texts = {name: BASELINES[name].expression for name in names} | own
    return [_seed(grammar, name, Expression.parse(text)) for name, text in texts.items()]


def _seed(grammar: Grammar, name: str, expression: Expression) -> Member:
    tree = None
    try:
        tree = grammar.individual(expression)
    except EvolossError as error:
        level = logging.INFO if name in BASELINES else logging.WARNING
        log.log(level, "%s (%s) is scored but does not breed: %s", name, expression, error)
    return Member(new_candidate(expression, 0, name=name), tree)


def due(config: RunConfig, number: int) -> int:
    """How many new trees generation `number`, after the first, is to have.

    Evolution breeds so many and trains those that the screens leave. Random search, which they leave far fewer, draws
    until so many are left: it pays for trainings, not for screens.
    """
    if config.newcomers is not None:
        return config.newcomers[number - 1]
    elites = config.space.evolution.elites
    return config.population - min(elites, config.population - 1)


def _reason(candidate: Candidate) -> str:
    if candidate.status is Status.DUPLICATE:
        return f"it has the gradients of the loss {candidate.detail}"
    return candidate.detail
