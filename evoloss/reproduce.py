"""An experiment of the literature run anew: every contender of a recipe trained, scored, tabled and drawn."""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from evoloss import data, pictures, proxies
from evoloss import directory as folder
from evoloss.data import Dataset
from evoloss.files import replace_file, write_csv
from evoloss.fitting import SHOWN, Fit, Setting, fit
from evoloss.metrics import FIGURES, class_means, fit_threshold, nearest, pair_figures
from evoloss.pictures import Distances, Points
from evoloss.recipe import Recipe
from evoloss.records import DataSpec, Role

ROLES: tuple[Role, ...] = ("train", "select", "test")
REFERENCES = 10_000  # training images whose embeddings make the class means, the first ones

Tick = Callable[[float, float], None]  # epochs that are done, epochs that are due


@dataclass(frozen=True)
class Plan:
    """What is asked for beside the recipe: data sets, at most `samples` training images, how many seeds from which."""

    datasets: tuple[str, ...]
    samples: int | None = None
    seeds: int = 1
    seed: int = 0
    data_dir: str | None = None
    draw: bool = True


@dataclass(frozen=True)
class Row:
    """One training and its figures by name; none where it `diverged`."""

    dataset: str
    network: str
    contender: str
    expression: str
    embedding: int
    samples: int
    epochs: int
    seed: int
    seconds: float
    diverged: str
    figures: dict[str, float]


def datasets_for(recipe: Recipe, data_dir: str | None = None) -> tuple[str, ...]:
    """The recipe's data sets that are at hand: the first, or every one. Where none is, the first, to be downloaded."""
    at_hand = {row.name for row in data.status(data_dir) if row.where}
    found = tuple(name for name in recipe.datasets if name in at_hand) or recipe.datasets[:1]
    return found if recipe.every else found[:1]


def default_directory(name: str) -> Path:
    """`runs/<date>-reproduce-<name>`."""
    return folder.dated("reproduce", Path(name).stem)


def open_data(plan: Plan) -> list[Dataset]:
    """The data sets of a plan. Raises `EvolossError`."""
    return [_load(name, plan) for name in plan.datasets]


def _load(name: str, plan: Plan) -> Dataset:
    spec = DataSpec(name, plan.data_dir, seed=plan.seed)
    whole = data.load(spec, ROLES)
    if plan.samples is None or plan.samples >= len(whole.splits["train"].labels):
        return whole
    return data.load(replace(spec, samples=plan.samples), ROLES)


def create(directory: Path, recipe: Recipe, plan: Plan) -> None:
    """Make the directory with `recipe.toml`, all that the run depends on, and `environment.json`, its looks at test.

    Raises `EvolossError` where it exists.
    """
    if recipe.network:
        proxies.check(recipe.network)
    settings = {name: value for name, value in asdict(plan).items() if value is not None}
    resolved = {"version": version("evoloss"), **settings, "recipe": recipe.model_dump(mode="json", exclude_none=True)}
    folder.create(directory, "recipe.toml", tomli_w.dumps(resolved), "cpu", resumable=False)
    for name in plan.datasets:
        folder.record_look(directory, name, len(recipe.contenders))


def reproduce(recipe: Recipe, plan: Plan, loaded: Sequence[Dataset], directory: Path, tick: Tick) -> list[Row]:
    """Train and score every contender at every embedding on every data set with every seed; draw the first seed's.

    `results.csv`, `results.json` and `history.csv` are written anew after every training.
    """
    rows: list[Row] = []
    history: list[dict[str, Any]] = []
    groups = [(dataset, embedding) for dataset in loaded for embedding in recipe.embeddings]
    due = len(groups) * len(recipe.contenders) * plan.seeds * recipe.epochs
    for dataset, embedding in groups:
        drawn: list[tuple[Fit, Row]] = []
        for setting in _settings(recipe, plan, dataset, embedding):
            before = len(rows) * recipe.epochs
            start = time.perf_counter()
            done = fit(setting, lambda epochs, before=before: tick(before + epochs, due))
            row = _row(done, time.perf_counter() - start)
            rows.append(row)
            history += [{**_labels(row), **asdict(epoch)} for epoch in done.history]
            _write_tables(directory, rows, history)
            if setting.seed == plan.seed and not done.diverged:
                drawn.append((done, row))
        if plan.draw and drawn:
            _draw(directory, dataset, embedding, drawn)
    return rows


def _settings(recipe: Recipe, plan: Plan, dataset: Dataset, embedding: int) -> Iterator[Setting]:
    network = recipe.network or data.default_proxy(dataset.name)
    for contender in recipe.contenders:
        for seed in range(plan.seed, plan.seed + plan.seeds):
            yield Setting(recipe, contender, embedding, dataset, network, seed)


def _row(done: Fit, seconds: float) -> Row:
    setting = done.setting
    return Row(
        setting.dataset.name,
        setting.network,
        setting.contender.name,
        setting.contender.expression.text,
        setting.embedding,
        len(setting.dataset.splits["train"].labels),
        setting.recipe.epochs,
        setting.seed,
        round(seconds, 1),
        done.diverged,
        {} if done.diverged else score(done),
    )


def score(done: Fit) -> dict[str, float]:
    """The figures of a training on the test role, by their names in `metrics.FIGURES`.

    Thresholds are fitted on the training pairs, class means are of the first 10,000 training images.
    """
    setting = done.setting
    images, labels = (part[:REFERENCES] for part in setting.samples("train"))
    references = class_means(done.embed(images)[0], labels.numpy(), setting.dataset.num_classes)
    images, labels = setting.samples("test")
    embeddings, logits = done.embed(images)
    figures = {"nearest_mean_accuracy": float((nearest(embeddings, references) == labels.numpy()).mean())}
    if setting.recipe.pairs:
        return figures | pair_figures(*done.pairs("test"), fit_threshold(*done.pairs("train")))
    return {"accuracy": done.accuracy(embeddings, logits, labels), **figures}


# Tables


def _labels(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ("dataset", "contender", "embedding", "seed")}


def _write_tables(directory: Path, rows: Sequence[Row], history: Sequence[dict[str, Any]]) -> None:
    plain = [asdict(row) for row in rows]
    named = [name for name in FIGURES if any(name in row.figures for row in rows)]
    flat = [row | {name: row["figures"].get(name, "") for name in named} for row in plain]
    tables = {"results": [{k: v for k, v in row.items() if k != "figures"} for row in flat], "history": history}
    for name, table in tables.items():
        write_csv(directory / f"{name}.csv", table[0] if table else (), table)
    replace_file(directory / "results.json", json.dumps(finite(plain), indent=2) + "\n")


def finite(value: Any) -> Any:
    """`value` with None for numbers that JSON cannot say."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Pictures


def _draw(directory: Path, dataset: Dataset, embedding: int, drawn: Sequence[tuple[Fit, Row]]) -> None:
    """The pictures of one data set and one embedding, after a training of every contender."""
    stem = f"{dataset.name.replace('/', '_')}-{embedding}"
    labels = dataset.splits["test"].labels[:SHOWN]
    first = drawn[0][1]
    trained = f"{dataset.name}, {first.network}, {first.samples:,} samples x {first.epochs} epochs"
    if drawn[0][0].setting.recipe.pairs:
        pictures.draw_distances(
            directory / f"distances-{stem}.png", f"Pairs of test images: {trained}", [_distances(*row) for row in drawn]
        )
    if embedding == 2:
        for done, row in drawn:
            frames = [
                Points(f"epoch {s.epoch}: select {s.select:.3f}", s.embeddings, s.centers) for s in done.snapshots
            ]
            title = f"{row.contender}, {_headline(row)} on test\n{trained}"
            name = f"embeddings-{stem}-{row.contender}"
            pictures.draw_epochs(directory / f"{name}.png", title, frames, labels, dataset.classes)
            pictures.animate_epochs(directory / f"{name}.gif", title, frames, labels, dataset.classes)
        return
    before = Points("before training", drawn[0][0].snapshots[0].embeddings)
    after = [Points(f"{row.contender}: {_headline(row)}", done.snapshots[-1].embeddings) for done, row in drawn]
    title = f"t-SNE of test images: {trained}"
    pictures.draw_tsne(directory / f"tsne-{stem}.png", title, [before, *after], labels, dataset.classes)


def _distances(done: Fit, row: Row) -> Distances:
    threshold = row.figures["threshold"]
    at_given, at_fitted = row.figures["pair_accuracy"], row.figures["fitted_accuracy"]
    caption = f"{row.contender}: {at_given:.3f} right at 0.5, {at_fitted:.3f} at {threshold:.2f}"
    return Distances(caption, *done.pairs("test"), threshold)


def _headline(row: Row) -> str:
    if "accuracy" in row.figures:
        return f"accuracy {row.figures['accuracy']:.3f}"
    return f"{row.figures['fitted_accuracy']:.3f} of pairs right"
