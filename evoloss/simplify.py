"""`evoloss simplify` as a directory: the smallest formula that does as well as a loss, as far as numbers can show.

Scouting: the smaller formulas that cuts make of the loss (`ablation.py`) are screened and trained at its best rate, on
a few seeds and the select role; from the smallest that keep up, cuts go on. What is found there was chosen by its
scores, so that it proves nothing.

Confirmation: finalists from the largest to the smallest, each with a sweep of its own, meet the loss on fresh seeds
and the test split. A formula is tied where it is not inferior: the lower end of the 95 % interval of its paired
difference to the loss lies above minus the margin. The order is fixed before, and the first that is not tied ends the
sequence: so the chance that any formula is called tied that is worse by the margin is 2.5 %, however many are looked
at (Maurer, Hothorn and Lehmacher 1995).
"""

import logging
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from evoloss import comparison, data, directory, report
from evoloss.ablation import ablations
from evoloss.archive import Archive
from evoloss.backend import HERE, Backend
from evoloss.comparison import Comparison
from evoloss.config import Count, Rung, Settings, read_toml, validated
from evoloss.contest import REFERENCE, SCREEN_LIMIT, Contender, Contest, Evaluate
from evoloss.duplicates import Fingerprints
from evoloss.errors import EvolossError
from evoloss.evidence import Difference, difference
from evoloss.expression import Expression
from evoloss.records import Evaluation, Job, Standing, Status, derive_seed
from evoloss.workers import opened_when_needed

SETTINGS = "simplify.toml"
BREADTH = 3  # formulas of a round that are cut further
FINALISTS = 4  # each costs a sweep and all fresh seeds
HOPELESS = 5.0  # margins: who is so far behind on the first seed gets no other

log = logging.getLogger("evoloss")


class Simplification(Settings):
    """All that a simplification depends on. `base` is a comparison at one rung, of the loss and cross-entropy."""

    expression: str
    margin: Annotated[float, Field(gt=0, lt=1)]
    scouts: Count
    base: Comparison

    @property
    def rung(self) -> Rung:
        """The budget and the sweep of every training."""
        (rung,) = self.base.rungs.values()
        return rung

    def confirmation(self, finalists: Sequence[Expression]) -> Contest:
        """The loss, the finalists and cross-entropy on seeds that nothing else has used."""
        everyone = {e.key: e for e in (Expression(self.expression), *finalists, REFERENCE)}
        contenders = tuple(Contender(e, "ce" if e.key == REFERENCE.key else "") for e in everyone.values())
        base = self.base
        return Contest(
            "confirmation", base.data(), base.proxy, self.rung, contenders, base.seeds, base.seed, "simplify "
        )


@dataclass(frozen=True)
class Scouted:
    """A formula on the scouting seeds: select accuracies, and their mean difference to those of the loss.

    `detail` says why a formula was not trained, or on how many seeds it was.
    """

    expression: Expression
    parent: str = ""
    scale: float | None = None
    scores: tuple[float, ...] = ()
    gap: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Finalist:
    """A formula in the confirmation. `verdict` is the loss, tied, not tied, not tried (after one that was not tied)."""

    standing: Standing
    complexity: int
    gap: Difference | None
    verdict: str


@dataclass(frozen=True)
class Outcome:
    """All that was scouted, and the confirmation: the loss, the finalists from the largest on, cross-entropy."""

    scouted: list[Scouted]
    finalists: list[Finalist]

    @property
    def smallest(self) -> Finalist | None:
        """The smallest formula that is tied with the loss."""
        return next((f for f in reversed(self.finalists) if f.verdict == "tied"), None)


def create(path: Path, config: Simplification) -> None:
    """Make the directory of a simplification. Raises `EvolossError` where it exists."""
    directory.create(path, SETTINGS, config.toml(), config.base.device)


def load(path: Path) -> Simplification:
    """The settings of a simplification's directory. Raises `EvolossError`."""
    return validated(Simplification, read_toml(path / SETTINGS), str(path / SETTINGS))


def carry_on(path: Path, told: Callable[[str], None], backend: Backend = HERE) -> Outcome:
    """Do what is left to do, write the tables, and return what came out. `told` hears of each round."""
    config = load(path)
    directory.check_resumable(path, config.base.version, "scouts.csv")
    spec = config.base.data()
    with directory.in_use(path):
        with closing(Archive(path / "archive.sqlite", spec)) as archive, ExitStack() as stack:
            pool = opened_when_needed(stack, lambda: backend.open({None: data.load(spec)}, config.base.device))
            scouted = _Scouting(config, partial(archive.answers, pool=pool), told).all()
        chosen = finalists(scouted, config.margin)
        judged: list[Finalist] = []
        if chosen:
            contest = config.confirmation(chosen)
            told(f"confirmation: {len(chosen)} finalists, {contest.trainings} trainings")
            standings = comparison.held(path, [contest], config.base.device, lambda _: None, backend)
            judged = confirmed(standings, {e.key for e in chosen}, config.margin)
        report.write_rows(path / "scouts.csv", [_scout_row(one) for one in scouted])
        if judged:
            report.write_rows(path / "simplify.csv", [_row(one) for one in judged])
    return Outcome(scouted, judged)


class _Scouting:
    """Rounds of cuts, each from the smallest formulas of the round before that kept up."""

    def __init__(self, config: Simplification, evaluate: Evaluate, told: Callable[[str], None]) -> None:
        self.config = config
        self.evaluate = evaluate
        self.told = told
        self.rate = 0.0
        self.known: dict[str, Scouted] = {}
        self.fields = Fingerprints()
        self.sizes: dict[str, int] = {}  # of the formulas whose gradient fields are known

    def all(self) -> list[Scouted]:
        """The loss and all that was scouted, in the order in which it was. Raises `EvolossError` where it fails."""
        parents = [self._loss()]
        number = 0
        while parents:
            number += 1
            cuts = {e.key: (e, p.expression.key) for p in parents for e in ablations(p.expression)}
            fresh = [Scouted(e, parent) for key, (e, parent) in cuts.items() if key not in self.known]
            done = self._scout(sorted(fresh, key=lambda one: (one.expression.complexity, one.expression.text)))
            kept = [one for one in done if keeps_up(one, self.config.margin)]
            trained = sum(bool(one.scores) for one in done)
            self._tell(f"round {number}: {len(done)} smaller formulas, {trained} trained, {len(kept)} keep up")
            parents = sorted(kept, key=lambda one: (one.expression.complexity, -(one.gap or 0.0)))[:BREADTH]
        return list(self.known.values())

    def _loss(self) -> Scouted:
        """The loss itself, at the rate of its best mean over the scouting seeds."""
        (loss,) = self._screened([Scouted(Expression(self.config.expression))])
        if loss.scale is None:
            raise EvolossError(f"`{loss.expression}` cannot be simplified, it fails the screens: {loss.detail}")
        scores: dict[float, tuple[float, ...]] = {}
        for budget in self.config.rung.budgets():
            self.rate = budget.learning_rate
            results = self._trained([loss], range(self.config.scouts))[loss.expression.key]
            if None not in results:
                scores[self.rate] = tuple(score for score in results if score is not None)
        if not scores:
            raise EvolossError(f"`{loss.expression}` cannot be simplified, it fails to train at every rate")
        self.rate = max(scores, key=lambda rate: statistics.fmean(scores[rate]))
        loss = replace(loss, scores=scores[self.rate], gap=0.0)
        self.known[loss.expression.key] = loss
        mean = statistics.fmean(loss.scores)
        self._tell(f"the loss: complexity {loss.expression.complexity}, select accuracy {mean:.4f} at {self.rate:g}")
        return loss

    def _tell(self, line: str) -> None:
        log.info("%s", line)
        self.told(line)

    def _scout(self, fresh: list[Scouted]) -> list[Scouted]:
        """Screen and train; on the first seed those who are hopeless fall away."""
        loss = next(iter(self.known.values()))
        screened = self._screened(fresh)
        living = [one for one in screened if one.scale is not None]
        first = self._trained(living, range(1))
        bound = loss.scores[0] - HOPELESS * self.config.margin
        hopeful = [one for one in living if (first[one.expression.key][0] or 0.0) >= bound]
        rest = self._trained(hopeful, range(1, self.config.scouts))
        done = [_scored(one, first, rest, loss) for one in screened]
        self.known |= {one.expression.key: one for one in done}
        return done

    def _screened(self, fresh: Iterable[Scouted]) -> list[Scouted]:
        """Each with its scale, or with the reason why it has none."""
        base = self.config.base
        seed = derive_seed(base.seed, "training", 0)  # that of a search: a loss keeps the scale that its run gave it
        jobs = {
            one: Job("screen", one.expression.key, one.expression.text, base.proxy, seed, time_limit=SCREEN_LIMIT)
            for one in fresh
        }
        answers = self.evaluate(jobs.values())
        return [self._admitted(one, answers[job]) for one, job in jobs.items()]

    def _admitted(self, one: Scouted, answer: Evaluation) -> Scouted:
        if answer.status is not Status.OK or answer.scale is None:
            why = "teaches the opposite" if answer.negate else f"{answer.status}: {answer.detail}"
            return replace(one, detail=why)
        key, size = one.expression.key, one.expression.complexity
        twin = self.fields.find(answer.fingerprint)
        if twin is not None and self.sizes[twin] <= size:  # an equal loss that is smaller is what is looked for
            return replace(one, detail=f"has the gradients of {twin}")
        self.fields.add(key, answer.fingerprint)
        self.sizes[key] = size
        return replace(one, scale=answer.scale)

    def _trained(self, ones: Sequence[Scouted], numbers: Iterable[int]) -> dict[str, list[float | None]]:
        """Select accuracies by key, one a scouting seed; None for a training that failed."""
        base = self.config.base
        (budget,) = [b for b in self.config.rung.budgets() if b.learning_rate == self.rate]
        jobs = {
            (one.expression.key, number): Job(
                "train",
                one.expression.key,
                one.expression.text,
                base.proxy,
                derive_seed(base.seed, "simplify scouting", number),
                budget,
                1.0 if one.scale is None else one.scale,
                time_limit=budget.time_limit,
            )
            for one in ones
            for number in numbers
        }
        answers = self.evaluate(jobs.values())
        results: dict[str, list[float | None]] = {one.expression.key: [] for one in ones}
        for (key, _), job in jobs.items():
            results[key].append(answers[job].score)
        return results


def _scored(
    one: Scouted, first: dict[str, list[float | None]], rest: dict[str, list[float | None]], loss: Scouted
) -> Scouted:
    key = one.expression.key
    if key not in first:
        return one
    results = first[key] + rest.get(key, [])
    scores = tuple(score for score in results if score is not None)
    if len(scores) < len(results):
        return replace(one, detail="fails to train")
    gap = statistics.fmean(a - b for a, b in zip(scores, loss.scores, strict=False))
    detail = "" if len(scores) == len(loss.scores) else "far behind on the first seed"
    return replace(one, scores=scores, gap=gap, detail=detail)


def keeps_up(one: Scouted, margin: float) -> bool:
    """Whether a formula is worth more: on all scouting seeds, its mean within the margin."""
    return one.gap is not None and not one.detail and one.gap >= -margin


def finalists(scouted: Sequence[Scouted], margin: float) -> list[Expression]:
    """Of those that keep up, at most four that no other is as small as and better, from the largest to the smallest."""
    loss = scouted[0]
    kept = [one for one in scouted[1:] if keeps_up(one, margin)]
    front: list[Scouted] = []
    for one in sorted(kept, key=lambda one: (-(one.gap or 0.0), one.expression.complexity, one.expression.text)):
        smallest = front[-1] if front else loss
        if one.expression.complexity < smallest.expression.complexity:
            front.append(one)
    count = min(FINALISTS, len(front))
    places = [round(number * (len(front) - 1) / max(count - 1, 1)) for number in range(count)]
    return [front[place].expression for place in places]


def confirmed(standings: Sequence[Standing], finalists: Collection[str], margin: float) -> list[Finalist]:
    """The confirmation's verdicts: the loss first, then the finalists (keys) in their order.

    Cross-entropy, where it is neither, stands there to be seen: no verdict is passed on it.
    """
    loss, *others = standings
    judged = [_finalist(loss, None, "the loss" if loss.test else f"failed: {loss.status}")]
    open_ = bool(loss.test)
    for standing in others:
        gap = difference(standing.test, loss.test) if standing.test and loss.test else None
        if standing.key not in finalists:
            judged.append(_finalist(standing, gap, "cross-entropy"))
            continue
        tied = gap is not None and gap.low > -margin
        word = f"failed: {standing.status}" if standing.status is not Status.OK else "tied" if tied else "not tied"
        judged.append(_finalist(standing, gap, word if open_ else "not tried"))
        open_ = open_ and tied
    return judged


def _finalist(standing: Standing, gap: Difference | None, verdict: str) -> Finalist:
    return Finalist(standing, Expression(standing.expression).complexity, gap, verdict)


def _scout_row(one: Scouted) -> dict[str, Any]:
    return {
        "expression": one.expression.text,
        "complexity": one.expression.complexity,
        "scale": one.scale,
        "select_acc": statistics.fmean(one.scores) if one.scores else None,
        "n_seeds": len(one.scores),
        "minus_loss": one.gap,
        "detail": one.detail,
        "parent": one.parent,
        "key": one.expression.key,
    }


def _row(one: Finalist) -> dict[str, Any]:
    standing, gap = one.standing, asdict(one.gap) if one.gap else {}
    return {
        "expression": standing.expression,
        "complexity": one.complexity,
        "verdict": one.verdict,
        "scale": standing.scale,
        "lr": standing.rate,
        "test_acc": statistics.fmean(standing.test) if standing.test else None,
        "test_acc_sd": statistics.stdev(standing.test) if len(standing.test) > 1 else None,
        "test_n": len(standing.test),
        **{f"minus_loss{end}": gap.get(name) for end, name in (("", "mean"), ("_low", "low"), ("_high", "high"))},
        "detail": standing.detail,
        "key": standing.key,
    }
