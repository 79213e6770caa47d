from dataclasses import replace

import pytest
import stubs

from evoloss.evidence import difference
from evoloss.page import facts
from evoloss.page.verdict import verdict
from evoloss.report import UNSEEN


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    return facts.read(stubs.run_directory(tmp_path_factory.mktemp("verdict") / "run"))


def judged(found, **changes):
    """The same facts, with another outcome for the winner."""
    key = found.winner["key"]
    return replace(found, hall=[row | changes if row["key"] == key else row for row in found.hall])


@pytest.mark.parametrize(
    ("word", "headline", "tone"),
    [
        ("better", "Better than cross-entropy", "good"),
        ("worse", "Worse than cross-entropy", "bad"),
        ("not distinguishable", "Not distinguishable from cross-entropy", "even"),
    ],
)
def test_the_verdict_is_that_of_the_playoff(played, word, headline, tone):
    changes = {f"{name}_verdict": "" for name in UNSEEN}
    changes |= {"verdict": word, "delta_ce": 0.0123, "delta_ce_low": -0.001, "delta_ce_high": 0.0256, "p_holm": 0.0321}
    said = verdict(judged(played, **changes))
    assert (said.headline, said.tone) == (headline, tone)
    assert "+0.0123 [-0.0010, +0.0256] (95 % interval, paired by seed), p = 0.032" in said.sentences[0]
    assert f": {word}. That is so in trainings of 512 samples x 2 epochs;" in said.sentences[0]
    compared = sum(j.p_holm is not None for j in played.home())
    assert f"Holm's correction for {compared} losses" in said.sentences[0]
    assert f"the best of {sum(not row['name'] for row in played.finalists)} evolved losses" in said.sentences[0]


@pytest.mark.parametrize(
    ("elsewhere", "headline", "tone"),
    [
        (["", "", ""], "Better than cross-entropy", "good"),
        (["worse", "better", ""], "Better than cross-entropy", "good"),
        (["worse", "not distinguishable", ""], "Better than cross-entropy, but only where it was searched", "even"),
    ],
)
def test_a_gain_that_survives_nowhere_else_is_told_at_once(played, elsewhere, headline, tone):
    words = {f"{name}_verdict": word for name, word in zip(UNSEEN, elsewhere, strict=True)}
    said = verdict(judged(played, verdict="better", **words))
    assert (said.headline, said.tone) == (headline, tone)


def test_ngl_is_compared_by_the_same_seeds(played):
    by_name = {j.standing.name or j.standing.key: j.standing.test for j in played.home()}
    gap = difference(by_name[played.winner["key"]], by_name["ngl"])
    assert any(line.startswith(f"Minus NGL it is {gap.mean:+.4f} [") for line in verdict(played).sentences)


def test_tables_alone_say_that_ngl_needs_the_archive(played):
    said = verdict(replace(played, judged={}, without="the run directory has no archive"))
    assert "The comparison with NGL needs the archive: the run directory has no archive." in said.sentences


def test_without_a_playoff_there_is_no_verdict(tmp_path):
    found = facts.read(stubs.run_directory(tmp_path / "run", play=False, playoff=False))
    said = verdict(found)
    assert (said.headline, said.tone) == ("No verdict yet", "even")
    assert f"the best loss {found.winner['fitness']:.4f}" in said.sentences[0]
    assert "flatter its winners" in said.sentences[0]
    assert "better than cross-entropy" not in " ".join(said.sentences).lower()
    assert f"--run {found.directory}" in said.sentences[1]
    wanted = replace(found, config=found.config.model_copy(update={"playoff": True}))
    assert verdict(wanted).sentences[1] == f"To hold the playoff: evoloss resume {found.directory}"


def test_one_seed_or_a_failed_reference_is_no_verdict(played):
    said = verdict(judged(played, delta_ce=None, verdict="the reference failed"))
    assert said.headline == "No verdict"
    assert "the reference failed" in said.sentences[0]


def test_a_search_that_goes_on_is_told(played):
    said = verdict(replace(played, generations=played.generations[:2]))
    assert said.sentences[-1].startswith("The search has not ended: 2 of 4 generations are finished.")


def test_nothing_found(played):
    named = [row for row in played.hall if row["name"]]
    assert verdict(replace(played, hall=named)).headline == "Nothing was found"
