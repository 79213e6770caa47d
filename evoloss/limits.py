"""How much of the machine a piece of work may take: processor time, memory."""

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from evoloss.errors import EvolossError
from evoloss.machine import cores
from evoloss.machine import memory as total_memory

GIB = 2**30
LEAST_SHARE = 8 * GIB  # a large data set in float32 takes 3


@contextlib.contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` inside after so many seconds of the processor, however busy the machine is.

    Only in the main thread, which signals go to: elsewhere there is no limit. One call of a C function is not cut.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def memory(share: int) -> None:
    """Let this process take so many bytes more than it has; beyond them, Python and torch raise an error.

    Without a limit the kernel would kill whom it likes, the driver too. Counts what is private and can be written to
    (RLIMIT_DATA of Linux; elsewhere nothing is limited).
    """
    with contextlib.suppress(OSError, ValueError):  # no Linux, or a limit set by the user that is lower
        status = Path("/proc/self/status").read_text()
        has = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (has + share, most))


def worker_share() -> int:
    """The bytes that a worker may take: `EVOLOSS_MEMORY` in GiB, else a core's part of the machine's memory.

    That is 8 GiB at least, or half of the machine's. Raises `EvolossError`.
    """
    text = os.environ.get("EVOLOSS_MEMORY")
    if text is None:
        return max(total_memory() // cores(), min(total_memory() // 2, LEAST_SHARE))
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1e6:
        raise EvolossError(f"EVOLOSS_MEMORY should be the GiB that a worker may take, such as 4, not `{text}`")
    return int(share * GIB)
