"""A replay token: all that it takes to train a row of a hall of fame again, as one word of text.

    evoloss1.<URL-safe base64 of zlib of JSON>

A token is data. What is read is limited in size and checked field by field, its formula by the parser of the language;
nothing in it is unpickled or evaluated.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field

from evoloss.config import Count, RunConfig, Rung, Settings, validated
from evoloss.contest import REFERENCE
from evoloss.errors import EvolossError
from evoloss.expression import Expression
from evoloss.records import PROTOCOL, Candidate, DataSpec, Job, derive_seed
from evoloss.regimes import regimes_of

FORMAT = "evoloss1."
LONGEST = 20_000  # characters of a token; one of five seeds has some 500
LARGEST = 100_000  # bytes of what it holds

Share = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class Token(Settings):
    """A loss, how it was trained, and the select accuracies that it came to: one a seed, the first seed first.

    `version` to `device` are what the result may depend on besides; `digest` is a hash of the data, where it is known.
    """

    version: str
    protocol: int
    torch: str
    machine: str
    device: str = "cpu"
    dataset: str
    digest: Digest | None = None
    samples: Count | None = None
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    imbalance: Annotated[float, Field(ge=1)] = 1.0
    proxy: str
    rung: Rung
    seed: int
    scale: Annotated[float, Field(gt=0)] = 1.0
    expression: str
    scores: Annotated[tuple[Share, ...], Field(min_length=1, max_length=1000)]

    def data(self, data_dir: str | None = None) -> DataSpec:
        """The data. As in a run, its seed is a part of them only where it shapes them."""
        shaped = DataSpec(self.dataset, data_dir, self.samples, self.label_noise, self.imbalance, self.seed)
        return shaped if shaped.shaped else DataSpec(self.dataset, data_dir)

    def jobs(self) -> list[Job]:
        """The trainings, in the order of `scores`."""
        (budget,) = self.rung.budgets()
        expression = Expression(self.expression)
        return [
            Job(
                "train",
                expression.key,
                expression.text,
                self.proxy,
                derive_seed(self.seed, "training", number),
                budget,
                self.scale,
                time_limit=budget.time_limit,
            )
            for number in range(len(self.scores))
        ]


def write(token: Token) -> str:
    """The token as text."""
    values = json.dumps(token.model_dump(mode="json", exclude_defaults=True), separators=(",", ":"), sort_keys=True)
    packed = base64.urlsafe_b64encode(zlib.compress(values.encode(), 9))
    return FORMAT + packed.decode().rstrip("=")


def read(text: str) -> Token:
    """The token that a text holds; white space in it, as of a broken line, is passed over. Raises `EvolossError`."""
    text = "".join(text.split())
    if not text.startswith(FORMAT) or len(text) > LONGEST:
        raise EvolossError(
            f"expected a token, which begins with `{FORMAT}`, got `{_shown(text)}`; copy one from the column `token` "
            "of a hall of fame, or name the row as RUN#rank"
        )
    token = validated(Token, _unpacked(text.removeprefix(FORMAT)), "the token")
    if len(token.rung.rates) != 1:
        raise EvolossError(f"the token: rung.rates: expected one learning rate, got {len(token.rung.rates)}")
    canonical = Expression.parse(token.expression).text
    if canonical != token.expression:
        raise EvolossError(f"the token: expression: expected the canonical `{canonical}`, got `{token.expression}`")
    return token


def _unpacked(payload: str) -> dict[str, Any]:
    damaged = "the token is damaged, a part of it is missing or changed: copy it whole"
    try:
        packed = base64.b64decode(payload + "=" * (-len(payload) % 4), b"-_", validate=True)
        unzip = zlib.decompressobj()
        values = json.loads(unzip.decompress(packed, LARGEST))
    except (binascii.Error, zlib.error, ValueError, RecursionError):
        raise EvolossError(damaged) from None
    if not unzip.eof or unzip.unused_data or not isinstance(values, dict):
        raise EvolossError(damaged)
    return values


def _shown(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


def writer(config: RunConfig, environment: Mapping[str, Any]) -> Callable[[Candidate], str]:
    """What gives the candidates of a run their tokens; `environment` is that of the run.

    In a search of several regimes it is the training in the first that a token repeats. Nothing for a loss that has no
    score, and for the yardstick of gains, whose rate may fall from seed to seed.
    """
    regime = regimes_of(config)[0]
    spec = regime.data or config.data()
    shared = {
        "version": config.version,
        "protocol": PROTOCOL,
        "torch": environment["versions"]["torch"],
        "machine": environment["machine"].rpartition(", ")[0],  # without the number of cores: a training takes one
        "device": environment["device"],
        "dataset": spec.name,
        "digest": environment.get("data", {}).get(spec.name),
        "samples": spec.samples,
        "label_noise": spec.label_noise,
        "imbalance": spec.imbalance,
        "proxy": regime.proxy,
        "seed": config.seed,
    }

    def token(candidate: Candidate) -> str:
        if candidate.fitness is None or not candidate.rates or (config.gains and candidate.key == REFERENCE.key):
            return ""
        rung = regime.rung(candidate.rung).model_copy(update={"rates": candidate.rates[:1], "keep": 1.0})
        own = {
            "rung": rung.model_dump(),
            "scale": 1.0 if candidate.scale is None else candidate.scale,
            "expression": candidate.expression,
            "scores": tuple(candidate.select.values()),
        }
        return write(validated(Token, shared | own, "the run"))

    return token
