"""How much of the machine a piece of work may take: processor time, memory."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


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
