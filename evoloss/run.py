"""A search as a run directory: checked, made once, carried on from where it stands, ended with a playoff."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evoloss import contest, data, directory, playoff, report, tokens
from evoloss.archive import Archive
from evoloss.backend import HERE, Backend
from evoloss.baselines import BASELINES
from evoloss.config import RunConfig, load_run
from evoloss.errors import EvolossError
from evoloss.evidence import Judgement
from evoloss.interrupts import held
from evoloss.page import facts, render
from evoloss.records import DataSpec, Evaluation
from evoloss.regimes import regimes_of
from evoloss.search import Progress, Search, TimeIsUpError, Watch
from evoloss.workers import Datasets, Pool


@dataclass(frozen=True)
class Outcome:
    """How a run stands: complete or cut by its time limit; its playoff by regime; how many losses it chose from."""

    complete: bool
    judged: dict[str, list[Judgement]]
    searched: int


def default_directory(config: RunConfig) -> Path:
    """`runs/<date>-<dataset>-<space>-<seed>`."""
    return directory.dated(config.dataset, Path(config.space_name).stem, str(config.seed))


def check(config: RunConfig) -> None:
    """Raise `EvolossError` for what is wrong with the data or does not fit it, before a directory is made."""
    for dataset in load_data(config).values():
        for name in config.space.seeds:
            if BASELINES[name].classes not in (None, dataset.num_classes):
                only = f"the seed `{name}` is a loss for {BASELINES[name].classes} classes"
                count = f"{dataset.name} has {dataset.num_classes}"
                raise EvolossError(f"{only}, {count}: leave it out of the search space")


def load_data(config: RunConfig) -> Datasets:
    """The data of the run, under None, and those of its regimes: what workers have to be given. Raises `EvolossError`.

    They may differ in their number of classes: a formula names it as K.
    """
    specs = dict.fromkeys([None, *(regime.data for regime in regimes_of(config))])
    return {spec: data.load(spec or config.data()) for spec in specs}


def digests(datasets: Datasets) -> dict[str, str]:
    """What tells these data from others, by their name."""
    return {dataset.name: data.fingerprint(dataset) for dataset in datasets.values()}


def create(path: Path, config: RunConfig) -> None:
    """Make the directory with `run.toml` and `environment.json`. Raises `EvolossError` where it exists."""
    directory.create(path, "run.toml", config.toml(), config.device)


def carry_on(path: Path, watch: Watch, backend: Backend = HERE, pool: Pool | None = None) -> Outcome:
    """Search from where the run stands to its end, then hold the playoff, unless the time limit comes first.

    The search is on a pool of its own, or on one that is open and has its data.
    """
    config = load_run(path)
    directory.check_resumable(path, config.version, "hall_of_fame.csv")
    searching = _own_pool(path, config, backend) if pool is None else contextlib.nullcontext(pool)
    with (
        directory.in_use(path),
        contextlib.closing(Archive(path / "archive.sqlite", config.data())) as archive,
    ):

        def watch_and_write(progress: Progress) -> None:
            if progress.finished is not None:
                report.write_tables(path, archive, config, token)
                logging.getLogger("evoloss").info("%s", progress.finished)
            watch(progress)

        with searching as opened:
            token = tokens.writer(config, directory.read_environment(path))
            search = Search(config, archive, opened, watch_and_write)
            try:
                search.run()
            except TimeIsUpError:
                if archive.generations():
                    render.write(facts.of(path, config, archive))
                return Outcome(False, {}, 0)
            finally:
                if search.restored:
                    _write_all(path, archive, config, token)
        if config.playoff:
            _hold_playoff(path, config, archive, search.progress, watch, backend)
            _write_all(path, archive, config, token)
        render.write(facts.of(path, config, archive))
        finished = sum(candidate.fitness is not None for candidate in archive.candidates())
        return Outcome(True, report.judgements(archive), finished)


def _write_all(path: Path, archive: Archive, config: RunConfig, token: report.Tokens) -> None:
    with held():
        report.write_tables(path, archive, config, token)
        report.write_pareto_front(path, archive, config, token)


@contextlib.contextmanager
def _own_pool(path: Path, config: RunConfig, backend: Backend) -> Iterator[Pool]:
    loaded = load_data(config)
    directory.record_data(path, digests(loaded))
    with backend.open(loaded, config.device) as pool:
        yield pool


def _hold_playoff(
    path: Path, config: RunConfig, archive: Archive, progress: Progress, watch: Watch, backend: Backend
) -> None:
    """The one part of a run that opens the test split, on a pool of its own: a search's workers do not have it."""
    contests = playoff.contests(config, archive.candidates())
    progress.phase, progress.done, progress.due = "playoff", 0, sum(c.trainings for c in contests)

    @contextlib.contextmanager
    def open_pool(spec: DataSpec) -> Iterator[Pool]:
        losses = max(len(c.contenders) for c in contests if c.data == spec)
        directory.record_look(path, spec.name, losses)
        with backend.open({None: data.load(spec, data.ROLES)}, config.device) as pool:
            yield pool

    def heard(evaluation: Evaluation) -> None:
        training = evaluation.job.task == "train"
        progress.done += training
        progress.due = max(progress.due, progress.done)  # a sweep may go on
        progress.shared += training and evaluation.shared
        watch(progress)

    standings = contest.hold(contests, path / "archive.sqlite", open_pool, heard)
    if config.gains:
        archive.set_standings(playoff.overall(s for s in standings if s.regime in config.regimes))
