"""`evoloss stress` as a directory: the same losses where labels are wrong, classes rare or samples few.

Each condition is a contest of its own: every loss gets the same sweep of learning rates there, then the same fresh
seeds. Only the train role is spoiled: select, which chooses the rate, and test stay as they are.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from evoloss import comparison, directory, report
from evoloss.backend import HERE, Backend
from evoloss.config import Count, Rung, Settings, read_toml, validated
from evoloss.contest import REFERENCE, Contender, Contest
from evoloss.data import Dataset
from evoloss.errors import EvolossError, suggest
from evoloss.evidence import Difference, Estimate, Judgement, difference, holm, judge, verdict
from evoloss.expression import Expression
from evoloss.forest import Panel, draw_forest
from evoloss.records import DataSpec, Evaluation, Standing

SETTINGS = "stress.toml"
BESIDE = "ce,focal,gce,ngl"  # focal is made for rare classes and calibration, gce for wrong labels
LONGEST_LABEL = 60  # characters of a formula in the legend of the picture


@dataclass(frozen=True)
class Condition:
    """What is done to the train role. `share` of the samples are drawn, and passed over as often as makes up for it."""

    description: str
    label_noise: float = 0.0
    imbalance: float = 1.0
    share: float = 1.0


class Stress(Settings):
    """All that a stress test depends on, as `stress.toml` has it: formulas by name, a rung for each condition."""

    version: str
    dataset: str
    proxy: str
    losses: Annotated[dict[str, str], Field(min_length=1)]
    rungs: Annotated[dict[str, Rung], Field(min_length=1)]
    seeds: Count
    seed: int = 0
    device: str = "cpu"
    data_dir: str | None = None

    def contests(self) -> list[Contest]:
        """One for each condition, on the same seeds."""
        contenders = tuple(
            Contender(Expression(text), "" if name == text else name) for name, text in self.losses.items()
        )
        return [
            Contest(name, self.data(name), self.proxy, rung, contenders, self.seeds, self.seed, "stress ")
            for name, rung in self.rungs.items()
        ]

    def data(self, name: str) -> DataSpec:
        """The data under a condition."""
        condition = CONDITIONS[name]
        return DataSpec(self.dataset, self.data_dir, None, condition.label_noise, condition.imbalance, seed=self.seed)


@dataclass(frozen=True)
class Stressed:
    """A loss under a condition: its accuracy judged beside cross-entropy's, and the gap of the calibration errors.

    `calibration` is None where the loss has no probabilities, or cross-entropy failed.
    """

    judgement: Judgement
    calibration: Difference | None

    @property
    def standing(self) -> Standing:
        """How the loss came out."""
        return self.judgement.standing


def chosen(names: str) -> list[str]:
    """The conditions of a list such as `plain,noise-40`, or `all`. Raises `EvolossError`."""
    wanted = list(CONDITIONS) if names == "all" else list(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in wanted:
        if name not in CONDITIONS:
            known = ", ".join(CONDITIONS)
            raise EvolossError(f"unknown condition `{name}`{suggest(name, CONDITIONS)}: expected {known}, or all")
    return wanted


def configured(
    spec: DataSpec,
    loaded: Dataset,
    proxy: str,
    losses: dict[str, str],
    rung: Rung,
    conditions: Sequence[str],
    seeds: int,
    device: str,
) -> Stress:
    """A stress test of formulas by name, each once and cross-entropy among them. Raises `EvolossError`."""
    count = len(loaded.splits["train"].labels)
    values = {
        "version": version("evoloss"),
        "dataset": spec.name,
        "proxy": proxy,
        "losses": comparison.each_once(losses),
        "rungs": {name: _shared_out(rung, CONDITIONS[name].share, count, loaded.num_classes) for name in conditions},
        "seeds": seeds,
        "seed": spec.seed,
        "device": device,
        "data_dir": spec.data_dir,
    }
    return validated(Stress, values, "the options")


def _shared_out(rung: Rung, share: float, available: int, classes: int) -> Rung:
    """The rung with that share of the samples that it finds, and as many steps."""
    if share == 1:
        return rung
    samples = max(round(share * min(rung.samples, available)), classes)
    steps = rung.epochs * -(-rung.samples // rung.batch_size)
    epochs = -(-steps // -(-samples // rung.batch_size))
    return rung.model_copy(update={"samples": samples, "epochs": epochs})


def create(path: Path, config: Stress) -> None:
    """Make the directory of a stress test. Raises `EvolossError` where it exists."""
    directory.create(path, SETTINGS, config.toml(), config.device)


def load(path: Path) -> Stress:
    """The settings of a stress test's directory. Raises `EvolossError`."""
    return validated(Stress, read_toml(path / SETTINGS), str(path / SETTINGS))


def carry_on(path: Path, tick: Callable[[Evaluation], None], backend: Backend = HERE) -> dict[str, list[Stressed]]:
    """Train what is left to train, write tables and picture, and return what came out by condition."""
    config = load(path)
    directory.check_resumable(path, config.version, "stress.csv")
    with directory.in_use(path):
        standings = comparison.held(path, config.contests(), config.device, tick, backend)
        stressed = judged({name: [s for s in standings if s.regime == name] for name in config.rungs})
        report.write_rows(path / "stress.csv", _rows(stressed))
        report.write_rows(path / "scores.csv", _scores(standings))
        _draw(path / "stress.png", config, stressed)
    return stressed


def judged(groups: Mapping[str, Sequence[Standing]]) -> dict[str, list[Stressed]]:
    """The losses by condition, the best first. The p values are corrected for all conditions together.

    Five conditions are five chances: a verdict holds among all that the table says.
    """
    alone = {name: judge(group, REFERENCE.key) for name, group in groups.items()}
    known = [(name, j.standing.key, j.gap.p) for name, group in alone.items() for j in group if j.gap is not None]
    corrected = holm([p for *_, p in known])
    p_of = {(name, key): p for (name, key, _), p in zip(known, corrected, strict=True)}
    return {
        name: [_stressed(j, p_of.get((name, j.standing.key)), group) for j in group] for name, group in alone.items()
    }


def _stressed(judgement: Judgement, p: float | None, group: Sequence[Judgement]) -> Stressed:
    if judgement.gap is not None:
        judgement = replace(judgement, p_holm=p, verdict=verdict(judgement.gap, p))
    base = next(j.standing.calibration for j in group if j.standing.key == REFERENCE.key)
    own = judgement.standing.calibration
    comparable = own and base and judgement.standing.key != REFERENCE.key
    return Stressed(judgement, difference(own, base) if comparable else None)


def conclusion(stressed: Mapping[str, Sequence[Stressed]], key: str) -> str:
    """In words: under how many conditions a loss is better or worse than cross-entropy, and how it is calibrated."""
    found = {name: next(s for s in group if s.standing.key == key) for name, group in stressed.items()}
    expression = next(iter(found.values())).standing.expression
    parts = []
    for word in ("better", "worse"):
        gaps = {name: s.judgement.gap for name, s in found.items() if s.judgement.verdict == word}
        named = ", ".join(f"{name} {gap.mean:+.4f}" for name, gap in gaps.items() if gap)
        parts.append(f"{word} than cross-entropy under {len(gaps)}{f' ({named})' if named else ''}")
    lower = [name for name, s in found.items() if s.calibration and s.calibration.high < 0]
    higher = [name for name, s in found.items() if s.calibration and s.calibration.low > 0]
    errors = f"a smaller calibration error under {len(lower)}, a larger one under {len(higher)}"
    return f"`{expression}`, of {len(found)} conditions: {', '.join(parts)}; {errors}"


def _rows(stressed: Mapping[str, Sequence[Stressed]]) -> list[dict[str, Any]]:
    rows = []
    for name, group in stressed.items():
        for place, one in enumerate(group, 1):
            errors, gap = one.standing.calibration, one.calibration
            compared = report.compared(place, one.judgement)
            rows.append(
                {"condition": name}
                | {column: compared.get(column) for column in report.COMPARED if column != "regime"}
                | {
                    "ece": statistics.fmean(errors) if errors else None,
                    "ece_sd": statistics.stdev(errors) if len(errors) > 1 else None,
                    "delta_ece": gap.mean if gap else None,
                    "delta_ece_low": gap.low if gap else None,
                    "delta_ece_high": gap.high if gap else None,
                }
            )
    return rows


def _scores(standings: Sequence[Standing]) -> list[dict[str, Any]]:
    return [
        {
            "condition": s.regime,
            "loss": s.name or s.expression,
            "seed": seed,
            "select_acc": select,
            "test_acc": test,
            "test_ece": s.calibration[seed] if s.calibration else None,
        }
        for s in standings
        for seed, (select, test) in enumerate(zip(s.select, s.test, strict=True))
    ]


def _draw(path: Path, config: Stress, stressed: Mapping[str, Sequence[Stressed]]) -> None:
    gaps: dict[str, dict[str, Estimate]] = {}
    errors: dict[str, dict[str, Estimate]] = {}
    for name, group in stressed.items():
        by_text = {one.standing.expression: one for one in group}
        for label, text in config.losses.items():
            one = by_text[text]
            short = label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 3]}..."
            for table, gap in ((gaps, one.judgement.gap), (errors, _mean(one.standing.calibration))):
                if gap is not None:
                    table.setdefault(short, {})[name] = Estimate(*(100 * x for x in (gap.mean, gap.low, gap.high)))
    panels = [
        Panel("test accuracy minus cross-entropy, points", gaps),
        Panel("calibration error (ECE), points", errors, shared=True),
    ]
    draw_forest(
        path, f"{config.dataset}, {config.proxy}, {config.seeds} seeds, 95 % intervals", list(config.rungs), panels
    )


def _mean(values: Sequence[float]) -> Difference | None:
    """The mean of values with its interval: their difference to 0."""
    return difference(values, [0.0] * len(values)) if values else None


# What a loss is tried under. A long tail of 100 and these shares of wrong labels are those of the literature
# (Cui et al. 2019, arXiv:1901.05555; Zhang and Sabuncu 2018, arXiv:1805.07836).
CONDITIONS: dict[str, Condition] = {
    "plain": Condition("the data as they are"),
    "noise-20": Condition("20 % of the training labels made wrong", label_noise=0.2),
    "noise-40": Condition("40 % of the training labels made wrong", label_noise=0.4),
    "long-tail": Condition("the largest training class 100 times the smallest", imbalance=100.0),
    "tenth": Condition("a tenth of the training samples, for as many steps", share=0.1),
}
