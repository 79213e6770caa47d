"""Machines of a Ray cluster on one machine: each has its own network, processes and /tmp/ray, as if it stood alone.

A machine is a process in Linux namespaces of its own, wired to the others by a bridge. When it dies the kernel kills
all that runs on it, at once. Needs root.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PATIENCE = 300.0  # seconds for a node to come up, on a machine that may be busy
POLL = 0.1
NETWORK = "10.77.0"
PORT = 6379

_ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_BOOT = 'mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && ip link set lo up && echo up && read wired && "$@"'


class Node:
    """A machine that runs `ray start`: the first of a cluster, or one that joins it."""

    def __init__(self, cluster: "Cluster", number: int, cpus: int, environment: Mapping[str, str]) -> None:
        self.address = f"{NETWORK}.{number}"
        self.log = cluster.folder / f"node-{number}.txt"
        ray = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats"]
        role = ["--head", f"--port={PORT}", "--include-dashboard=false"]
        if number > 1:
            role = [f"--address={cluster.address}"]
        sizes = [f"--num-cpus={cpus}", "--object-store-memory=100000000", f"--node-ip-address={self.address}"]
        command = [*_ALONE, "sh", "-c", _BOOT, "sh", *ray, *role, *sizes]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=dict(environment)
            )
        try:
            self.wait_for("up")
            self.init = children(self.process.pid)[0]
            cluster.wire(self, number)
            assert self.process.stdin
            self.process.stdin.write(b"wired\n")
            self.process.stdin.flush()
        except BaseException:
            self.kill()
            raise

    def wait_for(self, text: str) -> None:
        """Wait until it has said so. Raises `RuntimeError` where it ends instead."""
        wait_for(self.log, text, self.process)

    def ready(self) -> "Node":
        """This node, once Ray runs on it."""
        self.wait_for("Ray runtime started")
        return self

    def inside(self, *command: str) -> list[str]:
        """The command as one to be run on this machine."""
        return ["nsenter", "--target", str(self.init), "--net", "--mount", "--pid", f"--wd={Path.cwd()}", *command]

    def kill(self) -> None:
        """Switch it off: every process on it is killed by SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(getattr(self, "init", self.process.pid), signal.SIGKILL)
        self.process.wait()
        if self.process.stdin:
            self.process.stdin.close()


class Cluster:
    """A head without workers of its own, for the driver, and the nodes that have joined; with a token of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.address = f"{NETWORK}.1:{PORT}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**environment, **token, "OMP_NUM_THREADS": "1"}
        self.nodes: list[Node] = []
        self.nodes.append(Node(self, 1, 0, self.environment))
        self.head = self.nodes[0].ready()

    def join(self, cpus: int = 1, environment: Mapping[str, str] | None = None) -> Node:
        """One more machine; it is there before Ray runs on it."""
        node = Node(self, len(self.nodes) + 1, cpus, self.environment | dict(environment or {}))
        self.nodes.append(node)
        return node

    def living(self) -> list[Node]:
        """The nodes that have joined and were not switched off."""
        return [node for node in self.nodes[1:] if node.process.poll() is None]

    def wire(self, node: Node, number: int) -> None:
        """Connect a machine to the bridge, which is on the first."""
        own = ("nsenter", "--target", str(node.init), "--net")
        if number == 1:
            _run(*own, "ip", "link", "add", "eth0", "type", "bridge")
        else:
            head = ("nsenter", "--target", str(self.nodes[0].init), "--net")
            peer = ("peer", "name", "eth0", "netns", str(node.init))
            _run(*head, "ip", "link", "add", f"port{number}", "type", "veth", *peer)
            _run(*head, "ip", "link", "set", f"port{number}", "master", "eth0", "up")
        _run(*own, "ip", "address", "add", f"{node.address}/24", "dev", "eth0")
        _run(*own, "ip", "link", "set", "eth0", "up")

    def close(self) -> None:
        """Switch everything off."""
        for node in reversed(self.nodes):
            node.kill()


@contextlib.contextmanager
def cluster(environment: Mapping[str, str]) -> Iterator[Cluster]:
    """A cluster that is switched off at the end."""
    with tempfile.TemporaryDirectory() as folder:
        machines = Cluster(Path(folder), environment)
        try:
            yield machines
        finally:
            machines.close()


def possible() -> bool:
    """Whether this machine lets us make others."""
    trial = [*_ALONE, "sh", "-c", "ip link add eth0 type bridge && mount -t tmpfs tmpfs /tmp"]
    try:
        return subprocess.run(trial, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def wait_for(path: Path, text: str, process: subprocess.Popen[Any]) -> None:
    """Wait until a file has this text. Raises `RuntimeError` where the process that writes it ends before."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() or text not in path.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            found = path.read_text() if path.exists() else "nothing"
            raise RuntimeError(f"expected `{text}` in {path}, got:\n{found}")
        time.sleep(POLL)


def children(pid: int) -> list[int]:
    """The processes that the threads of a process have started and that are still there."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, thread.read_text().split())
    return found


def descendants(pid: int) -> dict[int, str]:
    """All processes below a process, with their command lines."""
    found: dict[int, str] = {}
    for child in children(pid):
        with contextlib.suppress(OSError):
            found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ")
        found |= descendants(child)
    return found


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
