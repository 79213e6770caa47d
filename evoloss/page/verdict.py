"""The verdict on the best loss of a run, in words: what its playoff allows to say, and no more."""

from dataclasses import dataclass, field

from evoloss.evidence import difference
from evoloss.evidence import verdict as judged_by
from evoloss.page.facts import Facts
from evoloss.playoff import beside_seeds, elsewhere, full_rung, luck
from evoloss.report import UNSEEN, Row


@dataclass(frozen=True)
class Verdict:
    """A headline, a tone for it (good, bad or even) and sentences in the order of their weight."""

    headline: str
    tone: str
    sentences: list[str] = field(default_factory=list)


def verdict(facts: Facts) -> Verdict:
    """What can be said of the winner of a run beside cross-entropy, NGL and the best hand-written loss."""
    winner = facts.winner
    if winner is None:
        return Verdict("Nothing was found", "even", ["No evolved loss has come through its trainings.", *_open(facts)])
    if winner["test_acc"] is None:
        return _without_playoff(facts, winner)
    if winner["delta_ce"] is None:
        why = f"the playoff says of it: {winner['verdict'] or 'nothing'}"
        return Verdict("No verdict", "even", [f"The best loss cannot be compared with cross-entropy: {why}."])
    return Verdict(*_headline(winner), [_beside_ce(facts, winner), *_from_archive(facts, winner), *_open(facts)])


def _headline(winner: Row) -> tuple[str, str]:
    """The headline and its tone. A gain that survives nowhere else is none to shout about."""
    unseen = [word for name in UNSEEN if (word := winner[f"{name}_verdict"])]
    if winner["verdict"] == "better" and unseen and "better" not in unseen:
        return "Better than cross-entropy, but only where it was searched", "even"
    return _HEADLINES.get(winner["verdict"], ("No verdict", "even"))


def _without_playoff(facts: Facts, winner: Row) -> Verdict:
    seen = [f"the best loss {_score(facts, winner)}"]
    seen += [f"{words} {_score(facts, row)}" for name, words in _KNOWN.items() if (row := facts.named(name))]
    measure = "mean gains over cross-entropy" if facts.config.gains else "select accuracies"
    sentence = (
        f"No playoff was held, so nothing is known of fresh seeds or of the test split. What the search saw, in "
        f"{measure}: {', '.join(seen)}. Those scores guided the search and flatter its winners: by them alone no loss "
        f"is better than another."
    )
    hint = f"For a verdict: evoloss compare --run {facts.directory} --losses ce,ngl"
    if facts.config.playoff and facts.complete:
        hint = f"To hold the playoff: evoloss resume {facts.directory}"
    return Verdict("No verdict yet", "even", [sentence, hint, *_open(facts)])


def _score(facts: Facts, row: Row) -> str:
    if row["fitness"] is None:
        return f"failed ({row['status']})"
    count = f"{row['n_seeds']} seed{'s' * (row['n_seeds'] != 1)}"
    return f"{row['fitness']:+.4f} ({count})" if facts.config.gains else f"{row['fitness']:.4f} ({count})"


def _beside_ce(facts: Facts, winner: Row) -> str:
    compared = sum(row["p_holm"] is not None for row in facts.finalists)
    evolved = sum(not row["name"] for row in facts.finalists)
    rung = full_rung(facts.config.space, facts.config.proxy)
    where = "over the regimes of the search" if facts.config.gains else "on the test split"
    count = f"{winner['test_n']} fresh seeds, after an equal sweep of learning rates, {where}"
    gap = f"{winner['delta_ce']:+.4f} [{winner['delta_ce_low']:+.4f}, {winner['delta_ce_high']:+.4f}]"
    p = (
        ""
        if winner["p_holm"] is None
        else f", p = {winner['p_holm']:.2g} after Holm's correction for {compared} losses"
    )
    best = f"the best of {evolved} evolved losses" if evolved > 1 else "the evolved loss"
    return (
        f"On {count}, {best} has an accuracy of {winner['test_acc']:.4f}. Minus cross-entropy that is {gap} "
        f"(95 % interval, paired by seed){p}: {winner['verdict']}. That is so in trainings of {rung.extent}; "
        f"a longer training may tell otherwise."
    )


def _from_archive(facts: Facts, winner: Row) -> list[str]:
    """What needs the scores of each seed: NGL, the regimes, the best of the seeds, luck."""
    home = facts.home()
    own = next((j for j in home if j.standing.key == winner["key"]), None)
    if own is None:
        return [f"The comparison with NGL needs the archive: {facts.without}."] if facts.without else []
    sentences: list[str] = []
    ngl = next((j for j in home if j.standing.name == "ngl" and j.standing.test), None)
    gap = difference(own.standing.test, ngl.standing.test) if ngl else None
    if gap:
        shown = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}], p = {gap.p:.2g} (of this one comparison)"
        sentences.append(f"Minus NGL it is {shown}: {judged_by(gap)}.")
    if any(name in facts.judged for name in UNSEEN) and own.verdict == "better":
        sentences.append(_sentence(elsewhere(own, facts.judged)))
    sentences += [_sentence(line) for line in beside_seeds(own, home)]
    return sentences + [_sentence(f"luck: {line}") for line in luck(home, facts.searched)]


def _open(facts: Facts) -> list[str]:
    if facts.complete:
        return []
    count = f"{len(facts.generations)} of {facts.config.generations + 1}"
    return [f"The search has not ended: {count} generations are finished. Go on: evoloss resume {facts.directory}"]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


_KNOWN = {"ce": "cross-entropy", "ngl": "NGL"}
_HEADLINES = {
    "better": ("Better than cross-entropy", "good"),
    "worse": ("Worse than cross-entropy", "bad"),
    "not distinguishable": ("Not distinguishable from cross-entropy", "even"),
}
