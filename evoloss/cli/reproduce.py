"""`evoloss reproduce`: an experiment of the literature beside its published figures."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evoloss.cli.options import AsJson, DataDir, about_data, about_training
from evoloss.cli.printing import interruptible, progress_bar
from evoloss.tables import print_table

if TYPE_CHECKING:
    from evoloss.recipe import Published, Recipe
    from evoloss.reproduce import Row


def reproduce(
    name: Annotated[str | None, typer.Argument(help="A recipe, or the path of a TOML file; none lists them.")] = None,
    dataset: Annotated[str | None, about_data(help="Default: of the recipe's, what is at hand.")] = None,
    epochs: Annotated[int | None, about_training(min=1, help="Default: the original's.")] = None,
    samples: Annotated[int | None, about_data(min=1, help="Train on no more than that many samples.")] = None,
    seeds: Annotated[int, about_training(min=1, help="Trainings of each loss.")] = 1,
    seed: Annotated[int, about_training(help="The first seed; the others follow it.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Default runs/<date>-reproduce-<name>.")] = None,
    data_dir: DataDir = None,
    pictures: Annotated[bool, typer.Option(help="Draw distances, t-SNE and embeddings.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run an experiment of the literature and print its published figures beside ours."""
    from evoloss.recipe import load_recipe

    if name is None:
        _list_recipes()
        return
    recipe = load_recipe(name)
    if epochs is not None:
        recipe = recipe.model_copy(update={"epochs": epochs})
    import torch

    from evoloss import reproduce

    torch.set_num_threads(1)  # two made a step up to 13 times slower
    datasets = (dataset,) if dataset else reproduce.datasets_for(recipe, data_dir)
    plan = reproduce.Plan(datasets, samples, seeds, seed, data_dir, pictures)
    loaded = reproduce.open_data(plan)
    directory = out or reproduce.default_directory(name)
    reproduce.create(directory, recipe, plan)
    with interruptible(f"what was finished is in {directory / 'results.csv'}"), progress_bar(as_json) as tick:
        rows = reproduce.reproduce(recipe, plan, loaded, directory, tick)
    _print(recipe, rows, seeds, directory, as_json)


def _list_recipes() -> None:
    from evoloss.recipe import load_recipe, recipe_names

    loaded = {name: load_recipe(name) for name in recipe_names()}
    print_table(
        ("name", "what", "source"), [[name, recipe.description, recipe.source] for name, recipe in loaded.items()]
    )


def _print(recipe: "Recipe", rows: "Sequence[Row]", seeds: int, directory: Path, as_json: bool) -> None:
    from evoloss.recipe import conditions
    from evoloss.reproduce import finite

    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.embedding, row.contender), []).append(row)
    beside = {
        (dataset, embedding, contender): recipe.beside(contender, embedding, dataset, recipe.epochs)
        for dataset, embedding, contender in groups
    }
    printed = {figure for table in recipe.tables for figure in table}
    used = [(figure, row) for rows in beside.values() for figure, row in rows.items() if figure in printed]
    ours = dict.fromkeys(f"{r.dataset}, {r.network}, {r.samples:,} samples x {r.epochs} epochs" for r in rows)
    told = conditions(recipe, used, list(ours), seeds)
    if as_json:
        trainings = [finite(vars(row)) for row in rows]
        published = [row.model_dump() for row in recipe.published]
        print(json.dumps({"directory": str(directory), "rows": trainings, "published": published, "conditions": told}))
        return
    print(f"{recipe.description} ({recipe.source})")
    for table in recipe.tables:
        print()
        _print_figures(table, groups, beside)
    print("\nconditions:")
    for line in told:
        print(f"- {line}")
    print(f"tables and pictures: {directory}")


def _print_figures(
    table: Sequence[str],
    groups: "dict[tuple[str, int, str], list[Row]]",
    beside: "dict[tuple[str, int, str], dict[str, Published]]",
) -> None:
    """One line a contender; a figure that was published of any of them is followed by the published value."""
    from evoloss.metrics import FIGURES

    places = {figure: {rows[figure].dataset for rows in beside.values() if figure in rows} for figure in table}
    varied = [len({key[place] for key in groups}) > 1 for place in (0, 1)]
    columns = [*(name for name, kept in zip(("data set", "embedding"), varied, strict=True) if kept), "loss"]
    for figure in table:
        columns.append(FIGURES[figure][0])
        if places[figure]:
            columns.append(f"published ({', '.join(places[figure])})" if len(places[figure]) == 1 else "published")
    lines = []
    for key, rows in groups.items():
        line = [*(str(part) for part, kept in zip(key[:2], varied, strict=True) if kept), key[2]]
        for figure in table:
            line.append(_mean_sd(figure, rows))
            if places[figure]:
                line.append(_published(figure, beside[key].get(figure), name_place=len(places[figure]) > 1))
        lines.append(line)
    print_table(columns, lines)


def _published(figure: str, row: "Published | None", name_place: bool) -> str:
    from evoloss.metrics import FIGURES

    if row is None:
        return "-"
    return FIGURES[figure][1](row.figures[figure]) + (f" ({row.dataset})" if name_place else "")


def _mean_sd(figure: str, rows: "Sequence[Row]") -> str:
    """The mean over seeds, with its standard deviation; how many diverged, if any."""
    from evoloss.metrics import FIGURES

    form = FIGURES[figure][1]
    values = [row.figures[figure] for row in rows if not row.diverged]
    lost = len(rows) - len(values)
    if not values:
        return "diverged"
    deviation = f" +- {form(statistics.stdev(values))}" if len(values) > 1 else ""
    return f"{form(statistics.fmean(values))}{deviation}" + (f" ({lost} diverged)" if lost else "")
