"""What becomes of a search's finalists on fresh seeds, on the test split, and in regimes that it did not see."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from evoloss import data
from evoloss.config import RunConfig, Rung, SearchSpace
from evoloss.contest import REFERENCE, Contender, Contest, averaged
from evoloss.evidence import Judgement, difference, noise_ceiling, verdict
from evoloss.expression import Expression
from evoloss.niches import cleared
from evoloss.ranking import ranked
from evoloss.records import Candidate, Standing, Status
from evoloss.regimes import OPTIMIZERS, Regime, regimes_of, with_optimizer

SEARCHED = "search"  # the regime of the search itself, or all of its regimes taken together
OTHER_DATA = ("fashion-mnist", "cifar10", "mnist", "cifar100")  # by preference; digits has 360 test images: too few


def finalists(candidates: Iterable[Candidate], top: int, niche: float) -> list[Candidate]:
    """The evolved losses that meet the seeds: the best `top`, and the best of each family, each of its own niche."""
    order = ranked(candidates)
    families = {candidate.family for candidate in order if not candidate.name}  # that have no finalist yet
    chosen: list[Candidate] = []
    for candidate in cleared(order, niche):
        if not families and len(chosen) >= top:
            break
        if not candidate.name and (len(chosen) < top or candidate.family in families):
            chosen.append(candidate)
            families.discard(candidate.family)
    return chosen


def contests(config: RunConfig, candidates: Sequence[Candidate]) -> list[Contest]:
    """The finalists against the seeds as the search trained; the best of them against cross-entropy elsewhere.

    A search in several regimes has a contest in each of them, named as there; what it did not see is named after what
    it changes in the first.
    """
    playoff = config.space.playoff
    seeds = [c for c in candidates if c.name and c.fitness is not None]
    chosen = finalists(candidates, playoff.top, config.space.evolution.niche)
    everyone, best = _contenders([*chosen, *seeds]), _contenders(chosen[: playoff.top])
    homes = [_home(config, regime, everyone) for regime in regimes_of(config)]
    away = {name: _UNSEEN[name](config, homes) for name in playoff.unseen}
    return [*homes, *(replace(c, regime=name, contenders=best) for name, c in away.items() if c is not None)]


def _home(config: RunConfig, regime: Regime, contenders: tuple[Contender, ...]) -> Contest:
    name = regime.name if config.gains else SEARCHED
    where, seeds = regime.data or config.data(), config.space.playoff.seeds
    rung = with_optimizer(full_rung(config.space, regime.proxy), regime.rungs[-1].optimizer)
    return Contest(name, where, regime.proxy, rung, contenders, seeds, config.seed, "playoff ")


def overall(standings: Iterable[Standing]) -> list[Standing]:
    """The regimes of a search taken together, but for those in which cross-entropy failed: no gain is known there."""
    groups: dict[str, list[Standing]] = {}
    for standing in standings:
        groups.setdefault(standing.regime, []).append(standing)
    sound = [g for g in groups.values() if any(s.key == REFERENCE.key and s.status is Status.OK for s in g)]
    return averaged(SEARCHED, sound or list(groups.values()))


def together(judged: dict[str, list[Judgement]]) -> list[str]:
    """The regimes over which `overall` takes the mean; none where the search had but one."""
    several = _several(judged)
    return [name for name in several if any(j.verdict == "reference" for j in judged[name])] or several


def _several(judged: dict[str, list[Judgement]]) -> list[str]:
    return [name for name in judged if name not in (SEARCHED, *_UNSEEN)]


def conclusion(judged: dict[str, list[Judgement]], searched: int) -> list[str]:
    """In words: what luck would have shown, whether a found loss is better, and whether its gain survives elsewhere.

    `searched` is the number of losses that the search chose its finalists from.
    """
    home = judged[SEARCHED]
    lines = [f"luck: {line}" for line in luck(home, searched)]
    better = [j for j in home if not j.standing.name and j.verdict == "better"]
    if not better:
        return [*lines, "verdict: no evolved loss is better than cross-entropy on fresh seeds"]
    lines += [f"verdict: {_in_words(j, judged)}; {elsewhere(j, judged)}" for j in better]
    return [*lines, *beside_seeds(better[0], home)]


def luck(home: list[Judgement], searched: int) -> list[str]:
    """What the best of so many losses would have shown by luck; nothing where no spread is known."""
    ceiling = noise_ceiling(home, searched, 1)
    if not ceiling:
        return []
    many = f"the best of {searched:,} losses no better than cross-entropy"
    return [f"{many} would have led it by {ceiling:.4f} on a single seed"]


def beside_seeds(best: Judgement, home: list[Judgement]) -> list[str]:
    """The best found loss beside the best hand-written one: both were chosen by these very scores."""
    known = next((j for j in home if j.standing.name and j.standing.test), None)
    if known is None or known.verdict == "reference":
        return []
    gap = difference(best.standing.test, known.standing.test)
    shown = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]: " if gap else ""
    name = known.standing.name
    return [f"beside {name}, the best of the seeds: `{best.standing.expression}` {shown}{verdict(gap)}"]


def _in_words(judgement: Judgement, judged: dict[str, list[Judgement]]) -> str:
    gap = judgement.gap
    assert gap is not None
    interval = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    regimes = _in(_several(judged), judged, judgement.standing.key)
    mean = f" in the mean ({_each(regimes)})" if regimes else ""
    return f"`{judgement.standing.expression}` is better than cross-entropy by {interval}{mean}"


def elsewhere(judgement: Judgement, judged: dict[str, list[Judgement]]) -> str:
    """What became of the gain in the regimes that the search did not see."""
    unseen = _in(_UNSEEN, judged, judgement.standing.key)
    if not unseen:
        return "not tried in other regimes"
    judged_there = [j for j in unseen.values() if j.gap is not None]
    survived = sum(j.verdict == "better" for j in judged_there)
    each = _each({f"other {name}": j for name, j in unseen.items()})
    return f"the gain survives in {survived} of {len(judged_there)} regimes that the search did not see ({each})"


def _in(names: Iterable[str], judged: dict[str, list[Judgement]], key: str) -> dict[str, Judgement]:
    """The judgements of one loss in these regimes, as far as it took part."""
    return {name: j for name in names for j in judged.get(name, ()) if j.standing.key == key}


def _each(judgements: dict[str, Judgement]) -> str:
    gaps = {name: f" ({j.gap.mean:+.4f})" if j.gap else "" for name, j in judgements.items()}
    return ", ".join(f"{name}: {j.verdict}{gaps[name]}" for name, j in judgements.items())


def _contenders(candidates: Iterable[Candidate]) -> tuple[Contender, ...]:
    chosen = {c.key: Contender(Expression(c.expression), c.name) for c in candidates}
    chosen.setdefault(REFERENCE.key, Contender(REFERENCE, "ce"))
    return tuple(chosen.values())


def full_rung(space: SearchSpace, proxy: str) -> Rung:
    """The training in which losses meet: the playoff's own for this proxy, or the sweep of the last rung."""
    return space.playoff.rungs.get(proxy) or sweep_of(space.rungs_for(proxy))


def sweep_of(rungs: Sequence[Rung]) -> Rung:
    """The last of the rungs with all the rates that its budget is tried at: rungs of the same length are one sweep."""
    last = rungs[-1]
    return _alone(last, {rate for r in rungs if r.length == last.length for rate in r.rates})


def _alone(rung: Rung, rates: Iterable[float]) -> Rung:
    """A rung at these rates for all who take part, scored on all images."""
    return rung.model_copy(update={"rates": tuple(sorted(rates)), "keep": 1.0, "scored": None})


def _other_optimizer(config: RunConfig, homes: Sequence[Contest]) -> Contest | None:
    seen = {home.rung.optimizer for home in homes}
    other = next((name for name in OPTIMIZERS if name not in seen), None)
    return None if other is None else replace(homes[0], rung=with_optimizer(homes[0].rung, other))


def _other_proxy(config: RunConfig, homes: Sequence[Contest]) -> Contest | None:
    """At the first rung of that proxy and all its rates: the Inception is some thirty times as slow as the MLP."""
    seen = {home.proxy for home in homes}
    other = next((name for name in config.space.rungs if name not in seen), None)
    if other is None:
        return None
    rung = _alone(config.space.rungs_for(other)[0], full_rung(config.space, other).rates)
    return replace(homes[0], proxy=other, rung=with_optimizer(rung, homes[0].rung.optimizer))


def _other_data(config: RunConfig, homes: Sequence[Contest]) -> Contest | None:
    """Another data set; for a search on pooled images, its own at full size, which is what its losses are for."""
    if homes[0].rung.pooled > 1:
        return replace(homes[0], rung=homes[0].rung.model_copy(update={"pooled": 1}))
    at_hand = {row.name for row in data.status(config.data_dir) if row.where} - {home.data.name for home in homes}
    other = next((name for name in OTHER_DATA if name in at_hand), None)
    return None if other is None else replace(homes[0], data=replace(homes[0].data, name=other))


# What the playoff changes to see whether a gain survives; None where the search has seen all that there is.
_UNSEEN = {"optimizer": _other_optimizer, "proxy": _other_proxy, "data": _other_data}
