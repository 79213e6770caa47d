import stubs

from evoloss.page.fates import Fate, fates
from evoloss.records import Candidate, Generation, Status


def ended(key, status=Status.OK, detail="", rung=-1, scores=None):
    candidate = Candidate(key, "cls(p)", 1, "classification", status=status, detail=detail, rung=rung)
    candidate.scores = scores or {}
    return candidate


def test_every_way_to_end_is_counted():
    candidates = [
        ended("a", Status.REJECTED, "finite: the loss is inf on a probe"),
        ended("b", Status.REJECTED, "sign: learns when negated"),
        ended("c", Status.TIMEOUT, "after 60 s"),
        ended("d", Status.DUPLICATE, "z"),
        ended("e", Status.DUPLICATE, "z", 1, {0: 0.5}),
        ended("f", Status.DIVERGED, "rung 1: loss nan at step 10", 0),
        ended("g", rung=0, scores={0: 0.5}),
        ended("h", rung=1, scores={0: 0.6}),
        ended("i", rung=1, scores={0: 0.6}),
    ]
    generation = Generation(0, 4, 0, 2, 5, 1, 0.6, 0.5, "cls(p)", None, None, 1.0)
    assert fates(candidates, [generation]) == [
        Fate("grammar", "no canonical form, no prediction or no target", 3),
        Fate("screens", "value or gradient not finite", 1),
        Fate("screens", "wrong sign, takes part negated", 1),
        Fate("screens", "after 60 s", 1),
        Fate("duplicates", "the same gradients as a known loss", 1),
        Fate("duplicates", "the same scores as a known loss", 1),
        Fate("rung 1", "diverged", 1),
        Fate("rung 1", "went no further", 1, True),
        Fate("rung 2", "was trained at the last rung", 2, True),
    ]


def test_nobody_is_lost(tmp_path):
    candidates, generations, _ = stubs.search(tmp_path / "archive.sqlite")
    found = fates(candidates, generations)
    assert sum(fate.count for fate in found if fate.stage != "grammar") == len(candidates)
    assert fates([], []) == []
