import dataclasses

import pytest
import stubs

from evoloss.config import Refinement, load_space
from evoloss.constants import constants
from evoloss.expression import Expression
from evoloss.records import Evaluation, Status


def refining(**changes):
    """The smoke space, refining the constants of its best loss every other generation."""
    space = load_space("smoke")
    settings = Refinement(every=2, top=2, population=4, generations=2) if not changes else Refinement(**changes)
    evolution = space.evolution.model_copy(update={"refinement": settings})
    return stubs.config(space=space.model_copy(update={"evolution": evolution}), generations=4)


@stubs.pooled
def peaked(jobs):
    """Scores that grow as the first constant of a formula falls: there is something to refine."""
    for job in jobs:
        answer = stubs.stub_evaluation(dataclasses.replace(job, key=shape(job.expression)))
        free = constants(Expression(job.expression))
        if job.task == "screen":
            fingerprint = tuple(round(stubs.number(job.key, place), 9) for place in range(4))
            yield dataclasses.replace(answer, job=job, fingerprint=fingerprint)
        elif answer.score is None:
            yield dataclasses.replace(answer, job=job)
        else:
            bonus = 0.01 / (1 + abs(free[0])) if free else 0.0
            yield Evaluation(job, Status.OK, score=answer.score + bonus)


def shape(text):
    expression = Expression(text)
    return text if not constants(expression) else str(len(text) // 8)


def by_refinement(candidates):
    """Children of one parent that differ from it by their constants alone."""
    by_key = {c.key: c for c in candidates}
    pairs = [(c, by_key[c.parents[0]]) for c in candidates if len(c.parents) == 1]
    return [(c, parent) for c, parent in pairs if same_words(c.expression, parent.expression)]


def same_words(one, other):
    def words(node):
        return "number" if isinstance(node, float) else node if isinstance(node, str) else tuple(map(words, node))

    return words(Expression(one).node) == words(Expression(other).node)


def test_refined_formulas_enter_as_newcomers(tmp_path):
    with_it, generations, _ = stubs.search(tmp_path / "with.sqlite", refining(), peaked)
    plain = refining().model_copy(update={"space": load_space("smoke")})
    without, before, _ = stubs.search(tmp_path / "without.sqlite", plain, peaked)
    refined = [c for c, _ in by_refinement(with_it) if c.generation in (2, 4) and c.key not in {o.key for o in without}]
    assert refined
    assert all(c.rung >= 0 for c in refined if c.status is Status.OK)
    assert generations[1].evaluated == before[1].evaluated
    assert generations[2].evaluated > before[2].evaluated + 4  # every try counts


def test_a_search_that_refines_can_be_interrupted(tmp_path):
    whole = stubs.search(tmp_path / "whole.sqlite", refining(), peaked)
    for stop in (10, 40, 80, 120):
        path = tmp_path / f"{stop}.sqlite"
        with pytest.raises(KeyboardInterrupt):
            stubs.search(path, refining(), stopping(peaked, stop))
        again = stubs.search(path, refining(), peaked)
        assert [c.key for c in again[0]] == [c.key for c in whole[0]]
        assert [c.scores for c in again[0]] == [c.scores for c in whole[0]]
        assert again[2] == whole[2]


def stopping(pool, count):
    answered = []

    def stopped(batches):
        for batch in batches:
            if len(answered) + len(batch) > count:
                raise KeyboardInterrupt
            answered.extend(batch)
            yield from pool([batch])

    return stopped
