"""What machine this is, and which code."""

import contextlib
import os
import platform
import subprocess
from pathlib import Path


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of memory: the machine's, or those that its container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no limit is "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return total


def processor() -> str:
    """The name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def kind() -> str:
    """What a training may depend on: the system and the processor."""
    return f"{platform.system()} {platform.machine()}, {processor()}"


def commit() -> str | None:
    """The commit of the checkout that this code lies in, with `-dirty` for changes; None where it is installed."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
