"""The trainings of a token done again: does each end on the same number of images, to the last one?"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from evoloss import machine
from evoloss.backend import HERE, Backend
from evoloss.batches import batched
from evoloss.data import Dataset, fingerprint
from evoloss.records import PROTOCOL, Evaluation
from evoloss.tokens import Token


@dataclass(frozen=True)
class Repeat:
    """One training then and now: select accuracies, `now` None where it failed for the reason in `detail`."""

    number: int
    then: float
    now: float | None
    detail: str = ""

    @property
    def same(self) -> bool:
        """Whether both got the same number of images right. Equal counts of equal totals are equal floats."""
        return self.then == self.now


def replay(
    token: Token,
    loaded: Dataset,
    device: str,
    heard: Callable[[Evaluation], None] = lambda _: None,
    backend: Backend = HERE,
) -> list[Repeat]:
    """Train as the token says, on its data.

    The trainings of a search share their steps with others (`stack.py`), but what becomes of one does not depend on
    who trains beside it: it can be repeated alone.
    """
    answers: dict[int, Evaluation] = {}
    with backend.open({None: loaded}, device) as pool:
        for finished in pool(batched(token.jobs())):
            for evaluation in finished:
                answers[evaluation.job.seed] = evaluation
                heard(evaluation)
    found = [answers[job.seed] for job in token.jobs()]
    return [
        Repeat(number, then, evaluation.score, "" if evaluation.score is not None else _reason(evaluation))
        for number, (then, evaluation) in enumerate(zip(token.scores, found, strict=True))
    ]


def _reason(evaluation: Evaluation) -> str:
    return f"{evaluation.status}: {evaluation.detail}"


def changed(token: Token, loaded: Dataset, device: str) -> list[str]:
    """What differs from where the token was made, of all that a result may depend on."""
    pairs = {
        "evoloss": (token.version, version("evoloss")),
        "the protocol of evoloss": (token.protocol, PROTOCOL),
        "torch": (token.torch, version("torch")),
        "the machine": (token.machine, machine.kind()),
        "the device": (token.device.partition(":")[0], device.partition(":")[0]),
        "the data": (token.digest or fingerprint(loaded), fingerprint(loaded)),
    }
    return [f"{what}: {then} then, {now} now" for what, (then, now) in pairs.items() if then != now]


def scored(token: Token, loaded: Dataset) -> int:
    """The number of select images that the accuracies are shares of."""
    images = len(loaded.splits["select"].labels)
    return images if token.rung.scored is None else min(images, token.rung.scored)
