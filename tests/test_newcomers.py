import logging

import pytest
import stubs

from evoloss.census import Census
from evoloss.expression import Expression
from evoloss.newcomers import Newcomers, due, new_candidate, seeds
from evoloss.records import Evaluation, Status
from evoloss.tree import Grammar, tournament_with_parsimony

CE = "cls(-y*log(p))"
OK = {"scale": 1.0}


def answering(fates, otherwise=stubs.stub_evaluation):
    """Screens by formula; `otherwise` answers for formulas without a fate."""

    def evaluate(phase, jobs):
        assert phase == "screening"
        return {
            job: Evaluation(job, **fates[job.expression]) if job.expression in fates else otherwise(job) for job in jobs
        }

    return evaluate


def newcomers(evaluate=None, **changes):
    config = stubs.config(**changes)
    return Newcomers(config, Grammar(config.space), Census(), evaluate or answering({}))


def passing(*numbers):
    return {"status": Status.OK, "fingerprint": numbers} | OK


def texts(members):
    return [member.candidate.expression for member in members]


def known(made, member):
    return made.census.candidates[member.candidate.key]


def member(made, text, generation=1, name=""):
    tree = made.grammar.individual(Expression.parse(text))
    found = made.member(tree, generation)
    found.candidate.name = name
    return found


def test_generation_0_is_the_seeds_and_then_random_trees_until_the_population_is_full():
    made = newcomers(population=12)
    members = made.initial()
    names = [m.candidate.name for m in members]
    wanted = [name for name in made.config.space.seeds if name in names]
    assert [name for name in names if name] == names[: len(wanted)] == wanted
    breeding = [m for m in members if m.tree is not None]
    assert 12 <= len(breeding) < 12 + made.config.population
    assert len(set(texts(members))) == len(members)
    assert all(m.candidate.generation == 0 and known(made, m) is m.candidate for m in members)


def test_drawing_ends_where_nothing_is_worth_training():
    def refuse(job):
        return Evaluation(job, Status.REJECTED, "flat: stub")

    made = newcomers(answering({CE: passing(1.0)}, refuse))
    assert texts(made.initial()) == [CE]
    assert set(made.census.rejected) >= {"flat"}


def test_offspring_are_new_and_follow_from_the_number_of_the_generation():
    made, again, later = newcomers(), newcomers(), newcomers()
    for each in (made, again, later):
        population = [m.tree for m in each.initial() if m.tree is not None]
        for number, tree in enumerate(population):
            tree.fitness.values = (1, number)
        before = set(each.census.candidates)
        each.children = each.offspring(2 if each is later else 1, population, tournament_with_parsimony)
        assert before.isdisjoint(m.candidate.key for m in each.children)
        assert all(set(m.candidate.parents) <= before and m.candidate.parents for m in each.children)
    assert texts(made.children) == texts(again.children)
    assert texts(made.children) != texts(later.children)


@pytest.mark.parametrize("wanted", [0, 1, 9])
def test_random_search_draws_until_so_many_are_worth_training(wanted):
    made = newcomers(strategy="random", generations=1, newcomers=(wanted,))
    strangers = made.strangers(1)
    assert len(strangers) == wanted
    assert {m.candidate.status for m in strangers} <= {Status.OK}
    assert not any(m.candidate.parents for m in strangers)


@pytest.mark.parametrize(
    ("changes", "number", "expected"),
    [
        ({"population": 8}, 1, 6),
        ({"population": 2}, 1, 1),
        ({"population": 8, "newcomers": (3, 0, 5)}, 1, 3),
        ({"population": 8, "newcomers": (3, 0, 5)}, 3, 5),
    ],
)
def test_how_many_are_due(changes, number, expected):
    """Two elites live on in the smoke space."""
    assert due(stubs.config(**changes), number) == expected


def test_a_loss_that_learns_with_the_other_sign_takes_part_negated():
    made = newcomers(answering({"cls(p*y)": {"status": Status.OK, "negate": True}, "-cls(p*y)": passing(1.0)}))
    (kept,) = made.screened([member(made, "p*y")], 1)
    assert (kept.candidate.expression, kept.candidate.generation) == ("-cls(p*y)", 1)
    refused = made.census.candidates[Expression.parse("p*y").key]
    assert (refused.status, refused.detail) == (Status.REJECTED, "sign: learns when negated")
    assert made.census.tally["rejected"] == 0


def test_a_negated_formula_that_is_known_is_not_trained_again():
    made = newcomers(answering({"cls(p*y)": {"status": Status.OK, "negate": True}, "-cls(p*y)": passing(1.0)}))
    assert made.screened([member(made, "-cls(p*y)")], 0)
    assert made.screened([member(made, "p*y")], 1) == []
    assert made.census.tally["cached"] == 1


def test_a_named_loss_is_refused_not_negated(caplog):
    made = newcomers(answering({"cls(p*y)": {"status": Status.OK, "negate": True}}))
    with caplog.at_level(logging.WARNING, "evoloss"):
        assert made.screened([member(made, "p*y", name="mine")], 0) == []
    assert made.census.rejected == {"sign": 1}
    assert "mine (cls(p*y)) is refused: sign: learns when negated" in caplog.text


def test_of_losses_with_one_gradient_field_the_first_is_kept():
    made = newcomers(
        answering({CE: passing(1.0, 0.0), "cls(-2*y*log(p))": passing(1.0, 0.0), "cls((p - y)**2)": passing(0.0, 1.0)})
    )
    kept = made.screened([member(made, text) for text in ("-y*log(p)", "-2*y*log(p)", "(p - y)**2")], 1)
    assert texts(kept) == [CE, "cls((p - y)**2)"]
    twin = made.census.candidates[Expression.parse("-2*y*log(p)").key]
    assert (twin.status, twin.detail) == (Status.DUPLICATE, kept[0].candidate.key)
    assert made.census.tally == {"duplicates": 1}


def test_a_formula_that_fails_the_screens_says_why():
    made = newcomers(answering({CE: {"status": Status.REJECTED, "detail": "learns: neither sign", "seconds": 0.5}}))
    one = member(made, "-y*log(p)")
    assert made.screened([one, one], 1) == []
    assert (one.candidate.status, one.candidate.detail) == (Status.REJECTED, "learns: neither sign")
    assert one.candidate.seconds == 0.5
    assert made.census.rejected == {"learns": 1}


def test_a_formula_that_sees_too_little_is_no_member():
    made = newcomers()
    tree = made.grammar.individual(Expression.parse("-y*log(p)"))
    tree.expression = None
    assert made.member(tree, 3).candidate.generation == 3
    blind = made.grammar.individual(Expression("cls(p)"))
    assert made.member(blind, 3) is None
    assert sum(made.census.rejected.values()) == 1


def test_seeds_are_cross_entropy_ngl_the_space_s_and_the_user_s():
    config = stubs.config(seed_expressions=("cls(tanh(p - y))", "cls(p - y)"))
    found = seeds(config, Grammar(config.space))
    assert [m.candidate.name for m in found] == [*config.space.seeds, "seed-1", "seed-2"]
    assert [m.candidate.name for m in found[:2]] == ["ce", "ngl"]
    trees = {m.candidate.name: m.tree for m in found}
    assert trees["seed-1"] is None  # tanh is not in the smoke space: it is scored but does not breed
    assert trees["seed-2"] is not None


def test_a_new_candidate_knows_its_family():
    candidate = new_candidate(Expression.parse("-y*log(p) + 0.1*y*d**2"), 4, ("a", "b"))
    assert (candidate.family, candidate.generation, candidate.parents) == ("classification+center", 4, ("a", "b"))
    assert (candidate.rung, candidate.fitness) == (-1, None)
