"""The conditions under which a fitness is measured: an optimizer, a proxy and data, each with its rungs."""

from dataclasses import dataclass, replace

from evoloss.config import RunConfig, Rung
from evoloss.data import DATASETS
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
        reached = [rung for rung in self.rungs[: index + 1] if (rung.samples, rung.epochs) == (top.samples, top.epochs)]
        return sorted({b for rung in reached for b in rung.budgets()}, key=lambda budget: budget.learning_rate)

    def longest(self, rate: float) -> Budget:
        """The training of the last rung, at this rate."""
        return next(b for b in self.budgets(len(self.rungs) - 1) if b.learning_rate == rate)


def regimes_of(config: RunConfig) -> tuple[Regime, ...]:
    """The regimes of a search: what `config.regimes` names, or the run's own. Raises `EvolossError`."""
    own = Regime(config.dataset, config.proxy, config.space.rungs_for(config.proxy))
    return tuple(_regime(config, own, word) for word in config.regimes) or (own,)


def _regime(config: RunConfig, own: Regime, word: str) -> Regime:
    """The run's own regime with the one thing changed that the word names."""
    if word in OPTIMIZERS:
        return replace(own, name=word, rungs=tuple(with_optimizer(rung, word) for rung in own.rungs))
    if word in config.space.rungs:
        return replace(own, name=word, proxy=word, rungs=config.space.rungs_for(word))
    if word in DATASETS:
        other = replace(config.data(), name=word)
        return replace(own, name=word, data=None if word == config.dataset else other)
    known = [*OPTIMIZERS, *config.space.rungs, *DATASETS]
    hint = suggest(word, known)
    raise EvolossError(f"unknown regime `{word}`{hint}: expected optimizers, proxies or data sets: {', '.join(known)}")


def with_optimizer(rung: Rung, optimizer: str) -> Rung:
    """The rung with another optimizer, its rates moved to where that one works."""
    if optimizer == rung.optimizer:
        return rung
    factor = SGD_FACTOR if optimizer == "sgd" else 1 / SGD_FACTOR
    rates = tuple(float(f"{factor * rate:.4g}") for rate in rung.rates)
    return rung.model_copy(update={"optimizer": optimizer, "rates": rates})
