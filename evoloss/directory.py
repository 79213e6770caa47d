"""A directory of results: made once, never overwritten; locked and logged while in use; its looks at test recorded."""

import contextlib
import fcntl
import json
import logging
import os
import platform
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

from evoloss import machine
from evoloss.errors import EvolossError
from evoloss.files import replace_file

LOCK_TRIES, LOCK_PAUSE = 3, 0.05  # seconds between them
_VERSIONS = ("evoloss", "torch", "ray", "deap", "sympy", "numpy", "scipy")


def create(directory: Path, settings: str, text: str, device: str, resumable: bool = True) -> None:
    """Make the directory with its settings, a TOML file, and `environment.json`. Raises `EvolossError` if it exists.

    It is there with both or not at all: one without them could neither be continued nor made again.
    """
    making = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        if directory.exists():
            raise FileExistsError
        shutil.rmtree(making, ignore_errors=True)  # of a process that was killed, and had this number
        making.mkdir(parents=True)
        (making / settings).write_text(text, encoding="utf-8")
        _write_environment(making, _environment(device))
        making.rename(directory)
    except FileExistsError:
        hint = f", or continue it with `evoloss resume {directory}`" if resumable else ""
        raise EvolossError(f"{directory} exists: choose another --out{hint}") from None
    except OSError as error:
        shutil.rmtree(making, ignore_errors=True)
        raise EvolossError(f"cannot make the directory {directory}: {error.strerror or error}") from None


@contextlib.contextmanager
def in_use(directory: Path) -> Iterator[None]:
    """While one process works on it: locked, logged, and a full disk or a damaged archive told in one line."""
    with _locked(directory), _explained(directory), _logged(directory):
        yield


def is_in_use(directory: Path) -> bool:
    """Whether a process of this machine is working on it."""
    try:
        with (directory / ".lock").open() as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock was ever made, or the file system has none
        return False
    return False


def dated(*names: str) -> Path:
    """`runs/<date>-<names>`, where nobody says where; of data in a folder the folder's name."""
    short = [Path(name.partition(":")[2]).name or name for name in names]
    return Path("runs") / "-".join([f"{datetime.now():%Y%m%d-%H%M%S}", *short])


def check_version(directory: Path, made_by: str) -> None:
    """Raise `EvolossError` unless this is the evoloss that made the directory."""
    if made_by != version("evoloss"):
        raise EvolossError(
            f"{directory} was made by evoloss {made_by}, this is {version('evoloss')}: "
            f"results would not be comparable; install that version to continue it"
        )


def check_resumable(directory: Path, made_by: str, table: str) -> None:
    """Raise `EvolossError` of another version, or where `table` is there and the archive that it was made from is not.

    To carry on without it would be to begin anew, and to overwrite the table: archives are not in version control,
    tables often are.
    """
    check_version(directory, made_by)
    archive = directory / "archive.sqlite"
    if (directory / table).exists() and not (archive.exists() and (archive.is_dir() or archive.stat().st_size)):
        raise EvolossError(
            f"{archive} is gone, of which {table} was made: restore it, or begin anew with another --out"
        )


def record_look(directory: Path, dataset: str, losses: int) -> None:
    """Note in `environment.json` a look at a test split: when, which command, which data set, how many losses."""
    try:
        environment = read_environment(directory)
        command = " ".join(["evoloss", *sys.argv[1:]])
        environment.setdefault("looks", []).append(
            {"when": _now(), "command": command, "dataset": dataset, "losses": losses}
        )
        _write_environment(directory, environment)
    except (OSError, AttributeError, EvolossError) as error:
        raise EvolossError(f"cannot record the look at the test split: {error}") from None


def record_data(directory: Path, digests: dict[str, str]) -> None:
    """Note in `environment.json` which data these are: hashes by the name of the data."""
    environment = read_environment(directory)
    if environment.get("data") != digests:
        _write_environment(directory, environment | {"data": digests})


def read_environment(directory: Path) -> dict[str, Any]:
    """What `environment.json` says. Raises `EvolossError`."""
    path = directory / "environment.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise EvolossError(f"cannot read {path}: {error}") from None


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
        if not _taken(handle):
            raise EvolossError(f"another process is working on {directory}: wait for it, or stop it")
        yield


def _taken(handle: TextIO) -> bool:
    """Whether the lock could be taken; tried more than once, since a watcher that looks holds it for an instant."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(LOCK_PAUSE)
    return False


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
        "machine": f"{machine.kind()}, {machine.cores()} cores",
        "device": device,
        "looks": [],
    }
