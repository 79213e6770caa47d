"""Ctrl-C: the first ends a command when nothing is half written, a second one at once."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

CODE = 130  # of a process that Ctrl-C ended: 128 and the number of the signal
SHOW_CURSOR = "\x1b[?25h"  # a live view hides it


@dataclass
class _State:
    """Whether Ctrl-C was pressed, and how many blocks it has to wait for."""

    asked: bool = False
    held: int = 0


_state = _State()


@contextlib.contextmanager
def listening(farewell: str) -> Iterator[None]:
    """While this lasts, Ctrl-C raises `KeyboardInterrupt` as soon as nothing is `held`.

    A second Ctrl-C prints the farewell and ends the process there and then, whatever it does: all that is stored is
    stored whole. Where Ctrl-C is ignored, as in the background of a shell, or in a thread, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is signal.SIG_IGN:
        yield
        return

    def interrupted(number: int, frame: FrameType | None) -> None:
        if _state.asked:
            # Not `print`: it may be what was interrupted.
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_cursor()}{farewell}\n".encode())
            os._exit(CODE)
        _state.asked = True
        if not _state.held:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        if not _state.asked:  # else the process is ending, and may still be stopped at once
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """What must not be cut in two: Ctrl-C takes effect at its end."""
    _state.held += 1
    try:
        yield
    finally:
        _state.held -= 1
    if _state.asked and not _state.held:
        raise KeyboardInterrupt


def _cursor() -> str:
    return SHOW_CURSOR if os.isatty(2) else ""
