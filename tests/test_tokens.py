import base64
import contextlib
import json
import zlib
from dataclasses import replace

import pytest
import stubs
from hypothesis import given
from hypothesis import strategies as st

from evoloss import tokens
from evoloss.config import Rung
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.records import Candidate, DataSpec, derive_seed
from evoloss.tokens import FORMAT, Token

TOKEN = Token(
    version="0.3.0",
    protocol=1,
    torch="2.14.1",
    machine="Linux x86_64, AMD EPYC",
    dataset="digits",
    proxy="mlp",
    rung=Rung(samples=512, epochs=2, rates=(0.006,)),
    seed=7,
    scale=0.123457,
    expression="cls(-y*log(p))",
    scores=(0.1 + 0.2, 8613 / 10000),
)
ENVIRONMENT = {"versions": {"torch": "2"}, "machine": "Linux x86_64, AMD EPYC, 2 cores", "device": "cpu"}


def packed(values):
    """A token that holds these values, whatever they are."""
    return FORMAT + base64.urlsafe_b64encode(zlib.compress(json.dumps(values).encode())).decode().rstrip("=")


def values(**changes):
    return TOKEN.model_dump(mode="json", exclude_defaults=True) | changes


def test_a_token_comes_back_as_it_was_even_from_broken_lines():
    text = tokens.write(TOKEN)
    assert tokens.read(text) == TOKEN
    assert tokens.read(f"  {text[:60]}\n    {text[60:]}\n") == TOKEN
    assert set(text.removeprefix(FORMAT)) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_its_trainings_are_those_of_a_search():
    first, second = TOKEN.jobs()
    assert [job.seed for job in (first, second)] == [derive_seed(7, "training", number) for number in range(2)]
    assert (first.budget.learning_rate, first.budget.samples, first.roles) == (0.006, 512, ("select",))
    assert (first.expression, first.scale) == (TOKEN.expression, TOKEN.scale)


def test_the_seed_is_part_of_the_data_where_it_shapes_them():
    assert TOKEN.data() == DataSpec("digits")
    noisy = TOKEN.model_copy(update={"label_noise": 0.2})
    assert noisy.data("there") == DataSpec("digits", "there", None, 0.2, 1.0, 7)


@given(st.text(max_size=60), st.sampled_from(["", FORMAT]))
def test_nonsense_is_refused_in_a_line(text, prefix):
    with pytest.raises(EvolossError) as error:
        tokens.read(prefix + text)
    assert len(str(error.value).splitlines()) == 1


@given(st.integers(len(FORMAT), len(tokens.write(TOKEN)) - 1), st.characters(codec="ascii", categories=["L", "N"]))
def test_a_changed_character_never_passes_unseen(place, character):
    text = tokens.write(TOKEN)
    changed = text[:place] + character + text[place + 1 :]
    with contextlib.suppress(EvolossError):
        assert tokens.read(changed) == TOKEN  # the last character may hold bits that count for nothing


@given(st.integers(1, len(tokens.write(TOKEN)) - 1))
def test_a_part_of_a_token_is_refused(length):
    with pytest.raises(EvolossError, match="token"):
        tokens.read(tokens.write(TOKEN)[:length])


WRONG = {
    "not a table": [1, 2],
    "nested without end": None,
    "a key too many": values(command="rm"),
    "a key too few": {name: value for name, value in values().items() if name != "rung"},
    "no scores": values(scores=[]),
    "no accuracy": values(scores=[1.5]),
    "two rates": values(rung={"samples": 10, "epochs": 1, "rates": [0.1, 0.2]}),
    "an expression that is none": values(expression="__import__('os').system('true')"),
    "an expression in other words": values(expression="-log(p)*y"),
    "not finite": values(scale=float("inf")),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_token_inside_is_refused(name):
    text = packed(WRONG[name])
    if name == "nested without end":
        text = FORMAT + base64.urlsafe_b64encode(zlib.compress(b"[" * 90_000)).decode().rstrip("=")
    with pytest.raises(EvolossError):
        tokens.read(text)


def test_a_bomb_is_not_unpacked():
    bomb = zlib.compress(b'{"version": "' + b"0" * 10_000_000 + b'"}')
    with pytest.raises(EvolossError, match="damaged"):
        tokens.read(FORMAT + base64.urlsafe_b64encode(bomb).decode())


def candidate(**changes):
    known = {"rung": 1, "rates": (0.003,), "scores": {0: 0.5, 1: 0.25}, "select": {0: 0.5, 1: 0.25}, "scale": 2.0}
    return Candidate(REFERENCE.key, REFERENCE.text, 7, "classification", **known | changes)


def test_a_candidate_is_told_as_its_run_trained_it():
    config = stubs.config(label_noise=0.2, seed=3)
    token = tokens.read(tokens.writer(config, ENVIRONMENT | {"data": {"digits": "0" * 16}})(candidate()))
    assert (token.scores, token.scale, token.expression) == ((0.5, 0.25), 2.0, REFERENCE.text)
    assert (token.machine, token.torch, token.digest) == ("Linux x86_64, AMD EPYC", "2", "0" * 16)
    assert token.data() == config.data()
    (budget,) = token.rung.budgets()
    (same,) = [b for b in config.space.rungs["mlp"][1].budgets() if b.learning_rate == 0.003]
    assert budget == same


def test_where_several_regimes_are_searched_it_is_the_first():
    config = stubs.config(regimes=("sgd", "adam"))
    write = tokens.writer(config, ENVIRONMENT)
    other = replace(candidate(rates=(0.18, 0.006)), key="other")
    token = tokens.read(write(other))
    assert (token.rung.optimizer, token.rung.rates) == ("sgd", (0.18,))
    assert write(candidate()) == ""  # the yardstick, whose rate may change


def test_a_loss_without_a_score_has_none():
    write = tokens.writer(stubs.config(), ENVIRONMENT)
    assert write(candidate(scores={}, select={}, rung=-1, rates=())) == ""
