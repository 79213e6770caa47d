"""`evoloss baselines`, `spaces` and `datasets`: what there is to choose from."""

import json

from evoloss.cli.options import AsJson, DataDir
from evoloss.tables import print_table


def baselines(as_json: AsJson = False) -> None:
    """List the hand-written losses, and those that no formula of the language says."""
    from dataclasses import asdict

    from evoloss.baselines import BASELINES, UNWRITABLE

    if as_json:
        written, unwritable = ([asdict(row) for row in table] for table in (BASELINES.values(), UNWRITABLE.values()))
        print(json.dumps({"baselines": written, "unwritable": unwritable}))
        return
    rows = [
        [row.name, row.expression, row.family + (f", {row.classes} classes" if row.classes else ""), row.paper]
        for row in BASELINES.values()
    ]
    print_table(("name", "formula", "family", "paper"), rows)
    print("\nnot in the language:")
    print_table(
        ("name", "family", "paper", "why"),
        [[row.name, row.family, row.paper, row.reason] for row in UNWRITABLE.values()],
    )


def spaces(as_json: AsJson = False) -> None:
    """List the search spaces and what each contains."""
    from evoloss.config import load_space, space_names

    loaded = {name: load_space(name) for name in space_names()}
    if as_json:
        print(json.dumps({name: space.model_dump(mode="json") for name, space in loaded.items()}))
        return
    rows = [
        [
            name,
            space.description,
            " ".join(space.variables),
            " ".join((*space.operators, *space.macros)),
            " ".join(space.seeds),
            " ".join(space.rungs),
        ]
        for name, space in loaded.items()
    ]
    print_table(("name", "what", "variables", "operators and macros", "seeds", "proxies"), rows)


def datasets(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the data sets: what is known, what is on this machine and where, what each would need."""
    from dataclasses import asdict

    from evoloss import data

    known = data.status(data_dir)
    if as_json:
        print(json.dumps([asdict(row) for row in known]))
        return
    rows = [
        [
            row.name,
            row.description,
            "x".join(map(str, row.shape)),
            str(row.num_classes),
            row.proxy,
            row.where or row.needs,
        ]
        for row in known
    ]
    print_table(("name", "what", "shape", "classes", "proxy", "where, or what it needs"), rows)
