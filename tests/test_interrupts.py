"""Ctrl-C with real signals to real processes; a terminal sends it to the driver and to all that it has started."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmarks import chaos, nodes
from evoloss import interrupts

HINT = "nothing finished is lost; continue: evoloss resume run"


def started(command, cwd):
    return subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        start_new_session=True,
        # A shell in the background ignores interrupts, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ctrl_c(process):
    os.killpg(process.pid, signal.SIGINT)


PROGRAM = """
import time
from evoloss import interrupts

def lasting(what):
    print(what, flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and not interrupts._state.asked:
        pass

with interrupts.listening("farewell"):
    try:
        {body}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        {after}
print("ended", flush=True)
"""

BODIES = {
    "not held": ("lasting('going')", "pass", ["going", "interrupted", "ended"]),
    "held": (
        "with interrupts.held():\n            lasting('going')\n            print('whole', flush=True)",
        "pass",
        ["going", "whole", "interrupted", "ended"],
    ),
    "held twice": (
        "with interrupts.held():\n            with interrupts.held():\n                lasting('going')\n"
        "            print('whole', flush=True)",
        "pass",
        ["going", "whole", "interrupted", "ended"],
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_the_first_ends_when_nothing_is_half_done(tmp_path, name):
    body, after, lines = BODIES[name]
    with started(["-c", PROGRAM.format(body=body, after=after)], tmp_path) as process:
        assert process.stdout.readline() == "going\n"
        ctrl_c(process)
        out, err = process.communicate(timeout=60)
    assert (["going", *out.splitlines()], err, process.returncode) == (lines, "", 0)


def test_the_second_ends_at_once(tmp_path):
    """Even what is held, or is cleaning up."""
    body = "with interrupts.held():\n            lasting('going')\n            print('more', flush=True)\n"
    body += "            time.sleep(60)"
    with started(["-c", PROGRAM.format(body=body, after="pass")], tmp_path) as process:
        for line in ("going\n", "more\n"):
            assert process.stdout.readline() == line
            ctrl_c(process)
        out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("", "farewell\n", 130)


def test_the_handler_of_the_caller_comes_back():
    """What runs in the background of a shell ignores the signal: so this one sets a handler of its own."""
    outside = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupts.listening("farewell"):
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outside)


def test_a_thread_and_an_ignored_signal_change_nothing(monkeypatch):
    seen = []

    def listens():
        with interrupts.listening("farewell"):
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=listens)
    thread.start()
    thread.join()
    assert seen == [before]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        listens()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen[1] is signal.SIG_IGN


def test_what_is_held_fails_as_it_fails():
    with pytest.raises(ZeroDivisionError), interrupts.held():
        raise ZeroDivisionError
    assert interrupts._state == interrupts._State()


@pytest.mark.timeout(900)
def test_ctrl_c_once_and_twice_lose_nothing(tmp_path):
    """A search over two Ray workers: once, resumed and twice, resumed; it ends as one that was left alone."""
    command = ["-m", "evoloss", "search", *chaos.SMALL, "--no-playoff", "--json"]
    with started([*command, "--workers", "2", "--out", "run"], tmp_path) as process:
        process.stdout.readline()  # the first generation is there
        ctrl_c(process)
        _, err = process.communicate(timeout=120)
    assert (err, process.returncode) == (f"evoloss: interrupted, {HINT}\n", 130)
    stored = chaos.stored(tmp_path / "run")
    with started(["-m", "evoloss", "resume", "run", "--workers", "2", "--json"], tmp_path) as process:
        process.stdout.readline()
        below = {pid: line for pid, line in nodes.descendants(process.pid).items() if line.startswith("ray::_Worker")}
        while process.poll() is None:  # two at the same moment are one
            ctrl_c(process)
            time.sleep(0.1)
        _, err = process.communicate(timeout=120)
    assert (err, process.returncode) == (f"evoloss: stopped at once, {HINT}\n", 130)
    assert len(below) == 2
    assert chaos.left_behind(below) == ""
    again = chaos.stored(tmp_path / "run")
    assert not chaos.lost(stored, again)
    for arguments in (["resume", "run"], ["search", *chaos.SMALL, "--no-playoff", "--out", "whole"]):
        words = [sys.executable, "-m", "evoloss", *arguments, "--workers", "0", "--quiet"]
        subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    assert not chaos.lost(again, chaos.stored(tmp_path / "run"))
    assert not chaos.differences(chaos.ending(tmp_path / "whole"), chaos.ending(tmp_path / "run"))
