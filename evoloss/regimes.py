"""The conditions under which a fitness is measured: an optimizer, a proxy and data, each with its rungs."""

import itertools
from dataclasses import dataclass, replace

from evoloss.config import RunConfig, Rung
from evoloss.data import DATASETS, FOLDER
from evoloss.errors import EvolossError, suggest
from evoloss.records import Budget, DataSpec

SGD_FACTOR = 30  # measured: cross-entropy, 10,000 x 3 on Fashion-MNIST, is best at 3e-3 with Adam, at 1e-1 with SGD
OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True)
class Regime:
    """One of the conditions that make up a fitness. `data` is None for the data of the run."""

    name: str
    proxy: str
    rungs: tuple[Rung, ...]
    data: DataSpec | None = None

    def rung(self, index: int) -> Rung:
        """The rung that is trained at this height of a search; the last one where a regime has fewer."""
        return self.rungs[min(index, len(self.rungs) - 1)]

    def budgets(self, index: int) -> list[Budget]:
        """The trainings of a rung, one a rate: also those of lower rungs, where they are of the same length."""
        top = self.rung(index)
        reached = [rung for rung in self.rungs[: index + 1] if rung.length == top.length]
        rates = sorted({rate for rung in reached for rate in rung.rates})
        return top.model_copy(update={"rates": tuple(rates)}).budgets()

    def reached(self, index: int) -> set[Budget]:
        """All trainings of the rungs up to this one; none for -1."""
        return {budget for lower in range(index + 1) for budget in self.budgets(lower)}

    def longest(self) -> list[Budget]:
        """The trainings of the last rung, one a rate, the lowest first."""
        return self.budgets(len(self.rungs) - 1)


def regimes_of(config: RunConfig) -> tuple[Regime, ...]:
    """The regimes of a search: what `config.regimes` names, or the run's own. Raises `EvolossError`."""
    own = Regime(config.dataset, config.proxy, config.space.rungs_for(config.proxy))
    regimes = tuple(_regime(config, own, word) for word in config.regimes) or (own,)
    for first, second in itertools.combinations(regimes, 2):
        if replace(first, name=second.name) == second:
            both = f"`{first.name}` and `{second.name}`"
            raise EvolossError(f"the regimes {both} are one and the same, which would count twice: leave one out")
    return regimes


def _regime(config: RunConfig, own: Regime, word: str) -> Regime:
    """The run's own regime with the one thing changed that the word names."""
    if word in OPTIMIZERS:
        rungs = tuple(with_optimizer(rung, word) for rung in own.rungs)
        if word == "sgd" and rungs != own.rungs:
            rungs = _no_faster(rungs)
        return replace(own, name=word, rungs=rungs)
    if word in config.space.rungs:
        return replace(own, name=word, proxy=word, rungs=config.space.rungs_for(word))
    if word in DATASETS or word.startswith(FOLDER):
        other = replace(config.data(), name=word)
        return replace(own, name=word, data=None if word == config.dataset else other)
    known = [*OPTIMIZERS, *config.space.rungs, *DATASETS]
    hint = suggest(word, known)
    raise EvolossError(f"unknown regime `{word}`{hint}: expected optimizers, proxies or data sets: {', '.join(known)}")


def _no_faster(rungs: tuple[Rung, ...]) -> tuple[Rung, ...]:
    """With rates above the first rung's turned into rates as far below it.

    Under SGD the higher ones see less far: of 67 losses on Fashion-MNIST, 5,000 x 2, the scores at .045 and .09 have a
    rank correlation of .86 with a long training, those at .09 and .18 one of .81, at up to .36 of .70
    (`benchmarks.fidelity`).
    """
    top = max(rungs[0].rates)
    lower = [{min(rate, rounded(top * top / rate)) for rate in rung.rates} for rung in rungs]
    return tuple(r.model_copy(update={"rates": tuple(sorted(rates))}) for r, rates in zip(rungs, lower, strict=True))


def with_optimizer(rung: Rung, optimizer: str) -> Rung:
    """The rung with another optimizer, its rates moved to where that one works."""
    if optimizer == rung.optimizer:
        return rung
    factor = SGD_FACTOR if optimizer == "sgd" else 1 / SGD_FACTOR
    rates = tuple(rounded(factor * rate) for rate in rung.rates)
    return rung.model_copy(update={"optimizer": optimizer, "rates": rates})


def rounded(rate: float) -> float:
    """A computed learning rate, with as many digits as are fit to be read."""
    return float(f"{rate:.4g}")
