"""Kill searches, carry them on, and compare how they end: `python -m benchmarks.chaos --kills 200`.

A short search on digits is left alone once. Then it is run again and again; each time something is killed by SIGKILL
until the search is through: its driver at random moments, or right before one of its writes (a file opened for writing,
a directory made, a rename, the begin and the end of a transaction); Ray under it; one of its workers; a machine of its
cluster. A driver that was killed is carried on by `evoloss resume`. At its end a search has to have the tables of the
one that was left alone, byte for byte but for the column `seconds`, the same candidates and population, and every
evaluation that was there before a kill, as it was. Nothing may be left running.

Trainings and screens are real, in the driver's process (`--workers 0`) where no worker is to be killed. A driver is a
process of its own, forked from this one so that it need not import torch again. Prints a table and writes a row for
each search as CSV (`--out`); a second call carries on with that file.
"""

import argparse
import contextlib
import csv
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import nodes
from evoloss import evaluations
from evoloss.archive import Archive
from evoloss.config import load_run
from evoloss.files import write_csv
from evoloss.report import read_table
from evoloss.tables import print_table

SMALL = ("--space", str(Path(__file__).with_suffix(".toml")))
TABLES = ("hall_of_fame.csv", "pareto.csv", "baselines.csv", "generations.csv")
MOST = 8  # kills of one search
MOST_WORKERS = 3  # less than it takes to blame a candidate: a batch has to be killed as often as one of its jobs
WRITES = 40  # a driver is killed before one of its next writes
POLL = 0.01  # seconds
PATIENCE = 180.0  # seconds for what a driver has started to be gone as well: Ray's agents seek the dead head for 60


class Strike(NamedTuple):
    """How a session came out: its exit code (negative: the signal), how often it was struck, what went wrong."""

    code: int
    kills: int
    problem: str = ""


@dataclass
class Trial:
    """One search that is being killed, and how long one takes that is left alone."""

    directory: Path
    chance: random.Random
    seconds: float
    left: int  # kills that may still be
    cluster: nodes.Cluster | None = None

    @property
    def command(self) -> list[str]:
        """What a user would enter next."""
        if self.directory.exists():
            return ["resume", str(self.directory), "--quiet"]
        return ["search", *SMALL, "--out", str(self.directory), "--quiet"]

    @property
    def log(self) -> Path:
        """What its sessions print."""
        return self.directory.with_suffix(".txt")


@dataclass(frozen=True)
class Outcome:
    """A row of the CSV: one search, what it went through and how it ended."""

    kind: str
    number: int
    kills: int
    sessions: int
    lost: int  # evaluations that were stored before a kill and were not there, or not the same, at the end
    identical: bool
    problem: str
    seconds: float

    @property
    def survived(self) -> bool:
        """Whether nobody could tell it from one that was left alone."""
        return self.identical and not self.lost and not self.problem


# Sessions of a search: started, struck, waited for


def driver_at_a_moment(trial: Trial, workers: str = "0") -> Strike:
    """SIGKILL the driver at a moment that is as likely as any other of the first half of a search's time."""
    pid = start([*trial.command, "--workers", workers], trial.log)
    code = wait(pid, trial.chance.uniform(0, trial.seconds / 2) if trial.left else None)
    if code is not None:
        return Strike(code, 0)
    below = nodes.descendants(pid)
    os.kill(pid, signal.SIGKILL)
    return Strike(wait(pid) or 0, 1, left_behind(below))


def driver_at_a_write(trial: Trial) -> Strike:
    """The driver sends itself SIGKILL before one of its next writes."""
    number = trial.chance.randint(1, WRITES) if trial.left else 0
    pid = start([*trial.command, "--workers", "0"], trial.log, lambda: mine(number, trial.directory.parent))
    code = wait(pid) or 0
    return Strike(code, int(code == -signal.SIGKILL))


def driver_over_ray(trial: Trial) -> Strike:
    """The driver of two Ray workers; these, and Ray itself, have to go with it."""
    return driver_at_a_moment(trial, "2")


def ray_under_the_driver(trial: Trial) -> Strike:
    """SIGKILL Ray on this machine, all of it but the driver, which has to end by itself."""
    pid = start([*trial.command, "--workers", "2"], trial.log)
    code = wait(pid, trial.chance.uniform(0, trial.seconds / 2)) if trial.left else wait(pid)
    if code is not None:
        return Strike(code, 0)
    below = nodes.descendants(pid)
    for child in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    code = wait(pid, PATIENCE)
    if code is None:
        os.kill(pid, signal.SIGKILL)
        return Strike(wait(pid) or 0, 1, "the driver did not notice that Ray is gone")
    return Strike(code, int(bool(below)), left_behind(below))


def ray_worker(trial: Trial) -> Strike:
    """SIGKILL workers of a search that goes on."""
    pid = start([*trial.command, "--workers", "2"], trial.log)
    kills = 0
    while kills < min(MOST_WORKERS, trial.left):
        code = wait(pid, trial.chance.uniform(0, trial.seconds / 4))
        if code is not None:
            return Strike(code, kills)
        workers = [child for child, line in nodes.descendants(pid).items() if line.startswith("ray::_Worker")]
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(trial.chance.choice(workers), signal.SIGKILL)
                kills += 1
    return Strike(wait(pid) or 0, kills)


def machine(trial: Trial) -> Strike:
    """Switch off a machine of the cluster, which had two, while another joins."""
    cluster = trial.cluster
    assert cluster is not None
    for node in cluster.living():
        node.ready()
    command = [sys.executable, "-m", "evoloss", *trial.command, "--address", cluster.address]
    pid = start(cluster.head.inside(*command), trial.log, within=cluster.environment)
    if not trial.left:
        return Strike(wait(pid) or 0, 0)
    code = wait(pid, trial.chance.uniform(0, trial.seconds / 2))
    if code is not None:
        return Strike(code, 0)
    trial.chance.choice(cluster.living()).kill()
    cluster.join()
    return Strike(wait(pid) or 0, 1)


@dataclass(frozen=True)
class Kind:
    """What is killed, in words; its share of all kills; how one session of a search is struck."""

    what: str
    share: float
    session: Callable[[Trial], Strike]
    over_ray: bool = True
    cluster: bool = False


KINDS = {
    "moment": Kind("the driver, at a random moment", 0.4, driver_at_a_moment, over_ray=False),
    "write": Kind("the driver, before a write", 0.35, driver_at_a_write, over_ray=False),
    "driver": Kind("the driver of two Ray workers", 0.07, driver_over_ray),
    "ray": Kind("Ray under the driver", 0.03, ray_under_the_driver),
    "worker": Kind("a Ray worker", 0.1, ray_worker),
    "machine": Kind("a machine of a cluster, while one joins", 0.05, machine, cluster=True),
}


# Processes


def start(command: list[str], log: Path, before: Callable[[], None] = lambda: None, within: Any = None) -> int:
    """A process that runs `evoloss` with these arguments, or, in an environment of its own, this command."""
    pid = os.fork()
    if pid:
        return pid
    code: Any = 70
    try:
        with log.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        if within is not None:
            os.execvpe(command[0], command, within)
        before()
        from evoloss import cli

        sys.argv = ["evoloss", *command]
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float | None = None) -> int | None:
    """The exit code of a process (negative: the signal that killed it), or None where it is not over by then."""
    if seconds is None:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL)
    return None


def left_behind(below: dict[int, str]) -> str:
    """What of a dead driver's processes lives on; it is ended then."""
    deadline = time.monotonic() + PATIENCE
    alive = below
    while alive and time.monotonic() < deadline:
        alive = {pid: line for pid, line in alive.items() if _lives(pid)}
        time.sleep(POLL)
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return f"left running: {'; '.join(line.split(' ')[0] for line in alive.values())}" if alive else ""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def mine(number: int, place: Path) -> None:
    """Have this process killed before the write of that number in the place, from now on; 0: never."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in ("os.rename", "os.mkdir", "os.remove") or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes and str(arguments[0]).startswith(str(place)):
            step()

    connect = evaluations.connect

    def connected(*arguments: Any) -> sqlite3.Connection:
        step()
        connection = connect(*arguments)
        connection.set_trace_callback(lambda line: step() if line.startswith(("BEGIN", "COMMIT")) else None)
        return connection

    sys.addaudithook(heard)
    evaluations.connect = connected  # of the whole process, which is a fork for this one session


# What a search has stored, and how it ended


def stored(directory: Path) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Every finished evaluation, with its time: one that was done twice has another."""
    path = directory / "archive.sqlite"
    if not path.exists():
        return {}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        rows = connection.execute("SELECT * FROM evaluations") if "evaluations" in tables else []
        return {row[:3]: row[3:] for row in rows}


def lost(before: dict[tuple[Any, ...], tuple[Any, ...]], after: dict[tuple[Any, ...], tuple[Any, ...]]) -> int:
    """How many evaluations are not there any more as they were."""
    return sum(after.get(key) != row for key, row in before.items())


def ending(directory: Path) -> dict[str, Any]:
    """All that a search came to, without times."""
    found: dict[str, Any] = {name: without_seconds(directory / name) for name in TABLES}
    with contextlib.closing(Archive(directory / "archive.sqlite", load_run(directory).data())) as archive:
        found["candidates"] = [replace(candidate, seconds=0.0) for candidate in archive.candidates()]
        found["population"] = archive.population()
        found["standings"] = archive.standings()
    found["evaluations"] = {key: row[:-1] for key, row in stored(directory).items()}
    return found


def without_seconds(path: Path) -> list[list[str]]:
    """The cells of a table as they are written, but for the column `seconds`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("seconds")
    return [row[:place] + row[place + 1 :] for row in rows]


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """In what two searches ended differently."""
    return [name for name in one if one[name] != other[name]]


# Trials


def ended(kind: str, number: int, trial: Trial, alone: dict[str, Any]) -> Outcome:
    """The outcome of one search that is killed until it is through, or until no kill is left."""
    begun = time.monotonic()
    kills = sessions = missing = 0
    problem = ""
    before: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    struck = -1
    while struck and not problem:
        strike = KINDS[kind].session(trial)
        sessions, kills, trial.left = sessions + 1, kills + strike.kills, trial.left - strike.kills
        after = stored(trial.directory)
        missing += lost(before, after)
        before = after
        problem = strike.problem
        if strike.code and not strike.kills:
            problem = f"exit {strike.code}: {trial.log.read_text()[-300:]}"
        struck = strike.code
    other = [] if problem else differences(alone, ending(trial.directory))
    if other:
        problem = f"other {', '.join(other)}"
    seconds = round(time.monotonic() - begun, 1)
    return Outcome(kind, number, kills, sessions, missing, not problem, problem, seconds)


def trials(kills: dict[str, int], done: list[Outcome], seed: int, folder: Path) -> Iterator[Outcome]:
    """Searches that are killed, until each kind has its kills."""
    alone, seconds = left_alone(folder, "0")
    over_ray = left_alone(folder, "2")[1] if any(KINDS[kind].over_ray for kind in kills) else 0.0
    for kind, wanted in kills.items():
        number = sum(outcome.kind == kind for outcome in done)
        count = sum(outcome.kills for outcome in done if outcome.kind == kind)
        with _cluster(KINDS[kind].cluster and count < wanted) as cluster:
            while count < wanted:
                chance = random.Random(f"{seed}/{kind}/{number}")
                length = over_ray if KINDS[kind].over_ray else seconds
                left = min(MOST, wanted - count)
                trial = Trial(folder / f"{kind}-{number}", chance, length, left, cluster)
                outcome = ended(kind, number, trial, alone)
                yield outcome
                count, number = count + outcome.kills, number + 1


@contextlib.contextmanager
def _cluster(wanted: bool) -> Iterator[nodes.Cluster | None]:
    if not wanted:
        yield None
        return
    with nodes.cluster(os.environ) as cluster:
        cluster.join(), cluster.join()
        yield cluster


def left_alone(folder: Path, workers: str) -> tuple[dict[str, Any], float]:
    """How a search ends that nobody kills, and its seconds."""
    trial = Trial(folder / f"alone-{workers}", random.Random(), 0.0, 0)
    begun = time.monotonic()
    code = wait(start([*trial.command, "--workers", workers], trial.log))
    if code:
        raise RuntimeError(f"the search that was left alone ended with {code}: {trial.log.read_text()}")
    return ending(trial.directory), time.monotonic() - begun


def shares(kills: int, kinds: list[str]) -> dict[str, int]:
    """How many kills each kind gets; the first one what is over."""
    whole = sum(KINDS[kind].share for kind in kinds)
    given = {kind: int(kills * KINDS[kind].share / whole) for kind in kinds}
    given[kinds[0]] += kills - sum(given.values())
    return given


def summary(outcomes: list[Outcome]) -> list[list[str]]:
    """A row a kind, and one for all."""
    groups = [(KINDS[kind].what, [o for o in outcomes if o.kind == kind]) for kind in KINDS]
    rows = []
    for what, group in [*groups, ("all", outcomes)]:
        if group:
            kills, survived = sum(o.kills for o in group), sum(o.kills for o in group if o.survived)
            missing = sum(o.lost for o in group)
            rows.append([what, str(kills), str(len(group)), str(missing), f"{survived} of {kills}"])
    return rows


def read(path: Path) -> list[Outcome]:
    """The outcomes of an earlier call."""
    if not path.exists():
        return []
    kinds = {"number": int, "kills": int, "sessions": int, "lost": int, "seconds": float}
    readers: dict[str, Callable[[str], Any]] = kinds | {"identical": lambda text: text == "True"}
    return [Outcome(**{k: readers.get(k, str)(value) for k, value in row.items()}) for row in read_table(path)]


def warm() -> None:
    """Import what every driver needs, so that a fork has it; what torch's optimizers import takes two seconds alone."""
    import plotly.offline  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import torch

    from evoloss import cli, evaluate, run, view  # noqa: F401

    torch.optim.Adam([torch.zeros(1, requires_grad=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of them; those of Ray take ten times as long")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--out", type=Path, default=Path("chaos.csv"), help="the CSV file")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    if "machine" in kinds and not nodes.possible():
        print("no machines of a cluster are killed: this needs root and the namespaces of Linux")
        kinds.remove("machine")
    warm()
    outcomes = read(options.out)
    with tempfile.TemporaryDirectory() as folder:
        for outcome in trials(shares(options.kills, kinds), outcomes, options.seed, Path(folder)):
            outcomes.append(outcome)
            write_csv(options.out, [item.name for item in fields(Outcome)], map(asdict, outcomes))
            if not outcome.survived:
                print(f"{outcome.kind} {outcome.number}: lost {outcome.lost}, {outcome.problem}", flush=True)
    columns = ("killed by SIGKILL", "kills", "searches", "evaluations lost", "identical end")
    print_table(columns, summary(outcomes))
    sys.exit(0 if all(outcome.survived for outcome in outcomes) else 1)


if __name__ == "__main__":
    main()
