"""What becomes of a search's finalists on fresh seeds, on the test split, and in regimes that it did not see."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from evoloss import data
from evoloss.config import RunConfig, Rung, SearchSpace
from evoloss.contest import REFERENCE, Contender, Contest
from evoloss.evidence import Judgement, difference, noise_ceiling, verdict
from evoloss.expression import Expression
from evoloss.ranking import ranked
from evoloss.records import Candidate
from evoloss.regimes import with_optimizer

SEARCHED = "search"  # the regime of the search itself; the others are named after what they change
OTHER_DATA = ("fashion-mnist", "cifar10", "mnist", "cifar100")  # by preference; digits has 360 test images: too few


def finalists(candidates: Iterable[Candidate], top: int) -> list[Candidate]:
    """The evolved losses that meet the seeds: the best `top`, and the best of each family."""
    evolved = [candidate for candidate in ranked(candidates) if not candidate.name]
    first_of_family = {candidate.family: candidate.key for candidate in reversed(evolved)}
    chosen = {*first_of_family.values(), *(candidate.key for candidate in evolved[:top])}
    return [candidate for candidate in evolved if candidate.key in chosen]


def contests(config: RunConfig, candidates: Sequence[Candidate]) -> list[Contest]:
    """The finalists against the seeds as the search trained; the best of them against cross-entropy elsewhere."""
    playoff = config.space.playoff
    seeds = [c for c in candidates if c.name and c.fitness is not None]
    everyone = _contenders([*finalists(candidates, playoff.top), *seeds])
    best = _contenders(finalists(candidates, playoff.top)[: playoff.top])
    sweep = sweep_of(config.space, config.proxy)
    home = Contest(SEARCHED, config.data(), config.proxy, sweep, everyone, playoff.seeds, config.seed, "playoff ")
    away = {name: _REGIMES[name](config, home) for name in playoff.unseen}
    return [home, *(replace(c, regime=name, contenders=best) for name, c in away.items() if c is not None)]


def conclusion(judged: dict[str, list[Judgement]], searched: int) -> list[str]:
    """In words: what luck would have shown, whether a found loss is better, and whether its gain survives elsewhere.

    `searched` is the number of losses that the search chose its finalists from.
    """
    home = judged[SEARCHED]
    lines: list[str] = []
    if ceiling := noise_ceiling(home, searched, 1):
        many = f"the best of {searched:,} losses no better than cross-entropy"
        lines.append(f"luck: {many} would have led it by {ceiling:.4f} on the one seed that a search looks at first")
    better = [j for j in home if not j.standing.name and j.verdict == "better"]
    if not better:
        return [*lines, "verdict: no evolved loss is better than cross-entropy on fresh seeds"]
    lines += [f"verdict: {_in_words(j)}; {_elsewhere(j, judged)}" for j in better]
    return [*lines, *_beside_seeds(better[0], home)]


def _beside_seeds(best: Judgement, home: list[Judgement]) -> list[str]:
    """The best found loss beside the best hand-written one: both were chosen by these very scores."""
    known = next((j for j in home if j.standing.name and j.standing.test), None)
    if known is None or known.verdict == "reference":
        return []
    gap = difference(best.standing.test, known.standing.test)
    shown = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]: " if gap else ""
    name = known.standing.name
    return [f"beside {name}, the best of the seeds: `{best.standing.expression}` {shown}{verdict(gap)}"]


def _in_words(judgement: Judgement) -> str:
    gap = judgement.gap
    assert gap is not None
    interval = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    return f"`{judgement.standing.expression}` is better than cross-entropy by {interval}"


def _elsewhere(judgement: Judgement, judged: dict[str, list[Judgement]]) -> str:
    """What became of the gain in the regimes that the search did not see."""
    key = judgement.standing.key
    seen = {name: j for name, group in judged.items() if name != SEARCHED for j in group if j.standing.key == key}
    if not seen:
        return "not tried in other regimes"
    judged_there = [j for j in seen.values() if j.gap is not None]
    survived = sum(j.verdict == "better" for j in judged_there)
    each = ", ".join(
        f"other {name}: {j.verdict}" + (f" ({j.gap.mean:+.4f})" if j.gap else "") for name, j in seen.items()
    )
    return f"the gain survives in {survived} of {len(judged_there)} regimes that the search did not see ({each})"


def _contenders(candidates: Iterable[Candidate]) -> tuple[Contender, ...]:
    chosen = {c.key: Contender(Expression(c.expression), c.name) for c in candidates}
    chosen.setdefault(REFERENCE.key, Contender(REFERENCE, "ce"))
    return tuple(chosen.values())


def sweep_of(space: SearchSpace, proxy: str, rung: int = -1) -> Rung:
    """A rung of the space (the last) with all the rates that its budget is tried at.

    Rungs of the same budget at further rates are one sweep.
    """
    rungs = space.rungs_for(proxy)
    last = rungs[-1]
    rates = {rate for r in rungs if (r.samples, r.epochs) == (last.samples, last.epochs) for rate in r.rates}
    return rungs[rung].model_copy(update={"rates": tuple(sorted(rates)), "keep": 1.0, "scored": None})


def _other_optimizer(config: RunConfig, home: Contest) -> Contest | None:
    optimizer = "adam" if home.rung.optimizer == "sgd" else "sgd"
    return replace(home, rung=with_optimizer(home.rung, optimizer))


def _other_proxy(config: RunConfig, home: Contest) -> Contest | None:
    """At a cheap rung of that proxy, the second: the Inception is some thirty times as slow as the MLP."""
    other = next((name for name in config.space.rungs if name != config.proxy), None)
    if other is None:
        return None
    second = min(1, len(config.space.rungs[other]) - 1)
    return replace(home, proxy=other, rung=sweep_of(config.space, other, second))


def _other_data(config: RunConfig, home: Contest) -> Contest | None:
    at_hand = {row.name for row in data.status(config.data_dir) if row.where}
    other = next((name for name in OTHER_DATA if name in at_hand and name != config.dataset), None)
    return None if other is None else replace(home, data=replace(home.data, name=other))


_REGIMES = {"optimizer": _other_optimizer, "proxy": _other_proxy, "data": _other_data}
