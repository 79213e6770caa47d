from contextlib import closing
from types import SimpleNamespace

import stubs

from evoloss.archive import Archive
from evoloss.census import Census
from evoloss.records import Candidate, Status


def candidate(key, name="", status=Status.OK, scores=(0.5,), fingerprint=()):
    return Candidate(
        key, key, 3, "metric", name, status=status, rung=1, scores=dict(enumerate(scores)), fingerprint=fingerprint
    )


def test_what_changes_is_of_the_generation_that_is_under_way():
    census = Census()
    first = candidate("a")
    census.change(first)
    census.tally["evaluated"] += 1
    census.begin()
    assert (census.changed, census.tally["evaluated"]) == ({}, 0)
    assert census.candidates == {"a": first}
    census.change(first)
    assert census.changed == {"a": first}


def test_causes_are_counted_for_as_long_as_the_process_lives():
    census = Census()
    for cause in ("flat", "flat", "sign"):
        census.reject(cause)
    assert census.tally["rejected"] == 3
    census.begin()
    assert census.tally["rejected"] == 0
    assert census.rejected == {"flat": 2, "sign": 1}


def test_the_named_and_the_living():
    census = Census()
    everyone = [
        candidate("a", "ce"),
        candidate("b"),
        candidate("c", "ngl", Status.DIVERGED),
        candidate("d", scores=()),
    ]
    for each in everyone:
        census.change(each)
    assert [c.key for c in census.named("ce", "ngl")] == ["a", "c"]
    assert [c.key for c in census.living()] == ["a", "b"]


def test_a_census_is_restored_from_what_the_finished_generations_left(tmp_path):
    candidates, _, _ = stubs.search(tmp_path / "archive.sqlite")
    census = Census()
    with closing(Archive(tmp_path / "archive.sqlite", stubs.config().data())) as archive:
        census.restore(archive)
    assert list(census.candidates.values()) == candidates
    assert census.changed == {}
    for known in candidates:
        if known.fingerprint:
            assert census.fingerprints.find(known.fingerprint) == known.key


def test_a_duplicate_does_not_take_the_place_of_the_loss_that_it_equals():
    """It carries the same fingerprint, and may have been met earlier in its first generation."""

    class Stored:
        def candidates(self):
            twin = candidate("twin", status=Status.DUPLICATE, fingerprint=(1.0, 0.0), scores={})
            return [twin, candidate("first", fingerprint=(1.0, 0.0))]

    census = Census()
    census.restore(Stored())
    assert census.fingerprints.find((1.0, 0.0)) == "first"


def test_an_echo_is_a_duplicate_whose_gradients_stay_known():
    """A child with its gradients would train as it did, and is to be turned down after a resume as before it."""

    class Stored:
        def candidates(self):
            return [candidate("echo", status=Status.OK, fingerprint=(1.0, 0.0), scores={0: 0.5})]

    census = Census()
    census.restore(Stored())
    census.echo("echo", "original")
    assert (census.candidates["echo"].status, census.candidates["echo"].detail) == (Status.DUPLICATE, "original")
    assert census.changed == {"echo": census.candidates["echo"]}
    again = Census()
    again.restore(SimpleNamespace(candidates=census.candidates.values))
    assert again.fingerprints.find((1.0, 0.0)) == "echo"
