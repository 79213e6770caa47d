"""A search watched from outside: its archive is read over and over, and never written to."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from evoloss import directory
from evoloss.archive import Archive
from evoloss.config import RunConfig, load_run
from evoloss.errors import EvolossError
from evoloss.ranking import ranked
from evoloss.records import Generation
from evoloss.search import Progress, Watch

ARCHIVE = "archive.sqlite"
PAUSE = 1.0  # seconds between two looks
PATIENCE = 60.0  # seconds that a search may take to begin: its data are loaded first


def follow(path: Path, watch: Watch, pause: float = PAUSE) -> None:
    """Tell `watch` of all generations of a run, those that are finished at once, until no process works on it.

    Raises `EvolossError` where the directory is none of a run, or has no archive to read.
    """
    config = load_run(path)
    told = 0
    for progress, rows in _looks(path, config, pause):
        for row in rows[told:]:
            progress.finished = row
            watch(progress)
        told = len(rows)
        progress.finished = None
        watch(progress)


def _looks(path: Path, config: RunConfig, pause: float) -> Iterator[tuple[Progress, list[Generation]]]:
    """What the archive says, now and after each pause."""
    _wait(path, pause)
    progress = Progress(config.generations, time.monotonic(), gains=config.gains)
    known = -1
    while not progress.ended:
        progress.ended = not directory.is_in_use(path)  # asked first: what is stored until then is still read
        with closing(Archive(path / ARCHIVE, config.data(), read_only=True)) as archive:
            rows = archive.generations()
            progress.trained, _ = archive.spent()
            if progress.ended or len(rows) != known:
                known = len(rows)
                _note(progress, archive)
        progress.generation = max(len(rows) - 1, 0) if progress.ended else min(len(rows), config.generations)
        progress.phase = _phase(progress, len(rows), config)
        progress.started = time.monotonic() - _elapsed(path, progress, rows)
        progress.cached = sum(row.cached for row in rows)
        yield progress, rows
        if not progress.ended:
            time.sleep(pause)


def _wait(path: Path, pause: float) -> None:
    """Until the search has begun to store what it finds."""
    archive = path / ARCHIVE
    patience = 0.0 if (path / "generations.csv").exists() else PATIENCE
    until = time.monotonic() + patience
    while not archive.is_file() or not archive.stat().st_size:
        if time.monotonic() >= until:
            raise EvolossError(f"nothing to watch: {path} has no archive; `evoloss report` tells what its tables have")
        time.sleep(pause)


def _note(progress: Progress, archive: Archive) -> None:
    """What changes with a generation."""
    leaders = archive.leaders(1)
    progress.best = next(iter(ranked(leaders)), None)
    progress.references = {candidate.name: candidate for candidate in leaders if candidate.name in ("ce", "ngl")}
    progress.rejected = archive.rejections()


def _phase(progress: Progress, count: int, config: RunConfig) -> str:
    complete = count > config.generations
    if progress.ended:
        return "ended" if complete else "stopped: nobody works on it"
    if complete:
        return "further seeds, playoff" if config.playoff else "further seeds"
    return "training"


def _elapsed(path: Path, progress: Progress, rows: list[Generation]) -> float:
    """The seconds of the finished generations, and those since the last one was written down."""
    seconds = sum(row.seconds for row in rows)
    written = path / ("generations.csv" if rows else "run.toml")
    if progress.ended or not written.exists():
        return seconds
    return seconds + max(time.time() - written.stat().st_mtime, 0.0)
