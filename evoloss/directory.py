"""A directory of results: made once, never overwritten; locked and logged while in use; its looks at test recorded."""

import contextlib
import fcntl
import json
import logging
import os
import platform
import sqlite3
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from evoloss import machine
from evoloss.errors import EvolossError
from evoloss.files import replace_file

_VERSIONS = ("evoloss", "torch", "ray", "deap", "sympy", "numpy", "scipy")


def create(directory: Path, settings: str, text: str, device: str, resumable: bool = True) -> None:
    """Make the directory with its settings, a TOML file, and `environment.json`. Raises `EvolossError` if it exists."""
    try:
        directory.mkdir(parents=True)
        (directory / settings).write_text(text, encoding="utf-8")
        _write_environment(directory, _environment(device))
    except FileExistsError:
        hint = f", or continue it with `evoloss resume {directory}`" if resumable else ""
        raise EvolossError(f"{directory} exists: choose another --out{hint}") from None
    except OSError as error:
        raise EvolossError(f"cannot make the directory {directory}: {error.strerror or error}") from None


def check_archive(directory: Path, table: str) -> None:
    """Raise `EvolossError` where a table is there and the archive that it was made from is not.

    To carry on would be to begin anew, and to overwrite it: archives are not in version control, tables often are.
    """
    archive = directory / "archive.sqlite"
    if (directory / table).exists() and not (archive.exists() and (archive.is_dir() or archive.stat().st_size)):
        raise EvolossError(
            f"{archive} is gone, of which {table} was made: restore it, or begin anew with another --out"
        )


@contextlib.contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """While one process works on it: locked, logged, and a full disk or a damaged archive told in one line."""
    with _locked(directory), _explained(directory), _logged(directory):
        yield


def check_version(directory: Path, made_by: str) -> None:
    """Raise `EvolossError` unless this is the evoloss that made the directory."""
    if made_by != version("evoloss"):
        raise EvolossError(
            f"{directory} was made by evoloss {made_by}, this is {version('evoloss')}: "
            f"results would not be comparable; install that version to continue it"
        )


def record_look(directory: Path, dataset: str, losses: int) -> None:
    """Note in `environment.json` a look at a test split: when, which command, which data set, how many losses."""
    path = directory / "environment.json"
    try:
        environment = json.loads(path.read_text(encoding="utf-8"))
        command = " ".join(["evoloss", *sys.argv[1:]])
        environment.setdefault("looks", []).append(
            {"when": _now(), "command": command, "dataset": dataset, "losses": losses}
        )
        _write_environment(directory, environment)
    except (OSError, ValueError, AttributeError) as error:
        raise EvolossError(f"cannot record the look at the test split in {path}: {error}") from None


def _write_environment(directory: Path, environment: dict[str, Any]) -> None:
    replace_file(directory / "environment.json", json.dumps(environment, indent=2) + "\n")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


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


class _LogFile(logging.FileHandler):
    """A log that cannot be written ends the run, as any other file of it does, and prints no traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Raise what was caught."""
        error = sys.exc_info()[1]
        if error is not None:
            raise error


@contextlib.contextmanager
def _logged(directory: Path) -> Iterator[None]:
    """Everything into `log.txt`; what the user should know on standard error as well."""
    logger = logging.getLogger("evoloss")
    logger.setLevel(logging.INFO)
    file = _LogFile(directory / "log.txt", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    terminal = logging.StreamHandler()
    terminal.setLevel(logging.WARNING)
    terminal.setFormatter(logging.Formatter("evoloss: %(message)s"))
    handlers = (file, terminal)
    for handler in handlers:
        logger.addHandler(handler)
    logger.info("one torch thread a worker; %s cores; pid %s", machine.cores(), os.getpid())
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _environment(device: str) -> dict[str, Any]:
    """What a reader needs to judge or repeat a run, and the looks at its test split (none by a search)."""
    return {
        "started": _now(),
        "commit": machine.commit(),
        "versions": {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()},
        "machine": f"{platform.system()} {platform.machine()}, {machine.processor()}, {machine.cores()} cores",
        "device": device,
        "looks": [],
    }
