"""A run directory: made once, never overwritten, and carried on from where it stands."""

import contextlib
import fcntl
import json
import logging
import os
import platform
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evoloss import data, report, workers
from evoloss.archive import Archive
from evoloss.baselines import BASELINES
from evoloss.config import RunConfig, load_run
from evoloss.errors import EvolossError
from evoloss.search import Progress, Search, TimeIsUpError, Watch

_VERSIONS = ("evoloss", "torch", "ray", "deap", "sympy", "numpy")


def default_directory(config: RunConfig) -> Path:
    """`runs/<date>-<dataset>-<space>-<seed>`."""
    dataset = Path(config.dataset.partition(":")[2]).name or config.dataset
    space = Path(config.space_name).stem
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{dataset}-{space}-{config.seed}"


def check(config: RunConfig) -> None:
    """Raise `EvolossError` for what is wrong with the data or does not fit it, before a directory is made."""
    config.space.rungs_for(config.proxy)
    count = data.load(config.data()).num_classes
    for name in config.space.seeds:
        if BASELINES[name].classes not in (None, count):
            only = f"the seed `{name}` is a loss for {BASELINES[name].classes} classes"
            raise EvolossError(f"{only}, {config.dataset} has {count}: leave it out of the search space")


def create(directory: Path, config: RunConfig) -> None:
    """Make the directory with `run.toml` and `environment.json`. Raises `EvolossError` where it exists."""
    try:
        directory.mkdir(parents=True)
        config.write(directory / "run.toml")
        environment = json.dumps(_environment(config.device), indent=2)
        (directory / "environment.json").write_text(environment + "\n", encoding="utf-8")
    except FileExistsError:
        raise EvolossError(
            f"{directory} exists: choose another --out, or continue it with `evoloss resume {directory}`"
        ) from None
    except OSError as error:
        raise EvolossError(f"cannot make the run directory {directory}: {error.strerror or error}") from None


def carry_on(directory: Path, watch: Watch, count: int | None = None, address: str | None = None) -> bool:
    """Search from where the run stands to its end; False where its time limit came first."""
    config = load_run(directory)
    if config.version != version("evoloss"):
        raise EvolossError(
            f"{directory} was made by evoloss {config.version}, this is {version('evoloss')}: "
            f"results would not be comparable; install that version to continue it"
        )
    dataset = data.load(config.data())
    with (
        _locked(directory),
        _logged(directory),
        _explained(directory),
        contextlib.closing(Archive(directory / "archive.sqlite", config.data())) as archive,
    ):

        def watch_and_write(progress: Progress) -> None:
            if progress.finished is not None:
                report.write_tables(directory, archive, config.top)
                logging.getLogger("evoloss").info("%s", progress.finished)
            watch(progress)

        with workers.open_pool(dataset, count, address, config.device) as pool:
            search = Search(config, archive, pool, watch_and_write)
            try:
                search.run()
            except TimeIsUpError:
                return False
            finally:
                report.write_tables(directory, archive, config.top)
    return True


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """A full disk or a damaged archive as one line."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise EvolossError(f"cannot go on with {directory}: {error}; what is stored was left as it is") from None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process a run: two would both breed, and each overwrite the other's tables."""
    try:
        handle = (directory / ".lock").open("w")
    except OSError as error:
        raise EvolossError(f"cannot write to {directory}: {error.strerror or error}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise EvolossError(f"another process is working on {directory}: wait for it, or stop it") from None
        yield


@contextlib.contextmanager
def _logged(directory: Path) -> Iterator[None]:
    """Everything into `log.txt`; what the user should know on standard error as well."""
    logger = logging.getLogger("evoloss")
    logger.setLevel(logging.INFO)
    file = logging.FileHandler(directory / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("evoloss: %(message)s"))
    handlers = (file, terminal)
    for handler in handlers:
        logger.addHandler(handler)
    logger.info("one torch thread a worker; %s cores; pid %s", workers.cores(), os.getpid())
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _environment(device: str) -> dict[str, Any]:
    """What a reader needs to judge or repeat a run, and the looks at its test split (none by a search)."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "commit": _commit(),
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, {processor()}, {workers.cores()} cores",
        "device": device,
        "looks": [],
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
