"""Do the best losses of a search stay the best on fresh seeds? `python -m benchmarks.fresh_seeds`.

Searches, then trains the leading losses again, each the best of its niche, on seeds that no search uses, at their best
rates. Prints how many of the first five are among the first five of the re-run, when the search ranks them by the lower
bound (as evoloss does), by their means, and by the one seed that all have met; and the mean fresh score of these five.
`--regimes adam,sgd` ranks by gains over cross-entropy. Three searches on digits take some ten minutes on two cores.
`--run DIR` takes a run that is complete, and searches nothing.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from evoloss import data, report, run
from evoloss.archive import Archive
from evoloss.climb import Climb
from evoloss.config import RunConfig, load_run, load_space
from evoloss.niches import cleared
from evoloss.ranking import ranked
from evoloss.records import Candidate
from evoloss.search import Search
from evoloss.selection import by_mean
from evoloss.tables import print_table
from evoloss.workers import Pool, open_pool

FIRST = 5
LEADING = 15  # losses by each order that are trained again
FRESH = 5  # seeds
PROMISED = 3  # of the first five


def by_first_seed(candidates: list[Candidate]) -> list[Candidate]:
    """As a search without further seeds would rank them."""
    return sorted((c for c in candidates if c.fitness is not None), key=lambda c: (-c.rung, -c.scores[0]))


ORDERS: dict[str, Callable[[list[Candidate]], list[Candidate]]] = {
    "lower bound": ranked,
    "mean": by_mean,
    "first seed": by_first_seed,
}


def measured(config: RunConfig, pool: Pool, path: Path) -> list[dict[str, object]]:
    """One search and its re-run: a row an order."""
    with closing(Archive(path, config.data())) as archive:
        Search(config, archive, pool).run()
        candidates = archive.candidates()
        distinct = cleared(ranked(candidates), config.space.evolution.niche)
        evolved = [c for c in distinct if not c.name]
        leading = {c.key: c for order in ORDERS.values() for c in order(evolved)[:LEADING]}
        ce = next(c for c in candidates if c.name == "ce")
        climb = Climb(config, lambda _, jobs: archive.answers(jobs, pool), "fresh")
        fresh = climb.fresh(list(leading.values()), ce, FRESH)
    best = set(sorted(fresh, key=lambda key: -fresh[key])[:FIRST])
    rows: list[dict[str, object]] = []
    for name, order in ORDERS.items():
        first = [c.key for c in order(evolved)[:FIRST]]
        score = statistics.fmean(fresh[key] for key in first)
        rows.append({"seed": config.seed, "order": name, "kept": len(best & set(first)), "fresh": score})
    return rows


def main() -> None:
    """Search at several seeds, re-run the leaders of each, print a table and write a CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--searches", type=int, default=3)
    parser.add_argument("--run", type=Path, help="a complete run, in the place of searches")
    parser.add_argument("--regimes", default="", help="such as adam,sgd")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path, default=Path("fresh_seeds.csv"))
    options = parser.parse_args()
    base = RunConfig(
        version=version("evoloss"),
        dataset=options.dataset,
        proxy=data.default_proxy(options.dataset),
        space_name="hybrid",
        generations=options.generations,
        population=load_space("hybrid").evolution.population,
        regimes=tuple(filter(None, options.regimes.split(","))),
        space=load_space("hybrid"),
    )
    if options.run:
        configs = [load_run(options.run)]
    else:
        configs = [base.model_copy(update={"seed": seed}) for seed in range(options.searches)]
    rows: list[dict[str, object]] = []
    with open_pool(run.load_data(configs[0]), options.workers) as pool, tempfile.TemporaryDirectory() as folder:
        for config in configs:
            path = Path(folder) / f"{config.seed}.sqlite"
            if options.run:
                shutil.copy(options.run / "archive.sqlite", path)
            rows += measured(config, pool, path)
            report.write_rows(options.out, rows)
    print(f"of the first {FIRST} in {len(configs)} searches ({configs[0].dataset}), by {FRESH} fresh seeds")
    table = []
    for name in ORDERS:
        kept = [row["kept"] for row in rows if row["order"] == name]
        fresh = statistics.fmean(row["fresh"] for row in rows if row["order"] == name)
        table.append([name, f"{statistics.fmean(kept):.1f} ({', '.join(map(str, kept))})", f"{fresh:.4f}"])
    print_table(("ranked by", f"still among the first {FIRST} (promised {PROMISED})", "mean fresh score"), table)
    print(f"rows: {options.out}")


if __name__ == "__main__":
    main()
