"""Proofs in a process of their own, which is ended when time is up: sympy can take for ever, and cannot be interrupted.

A line of JSON a question, a line an answer: a fork would copy torch's threads, and `multiprocessing` would import the
user's script again.
"""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from evoloss.syntax import Node

SECONDS = 10.0  # for one question
MOST_LATE = 3  # questions that take longer; then nothing more is asked
START_SECONDS = 120.0  # to import sympy, on a busy machine
_SERVE = "from evoloss.analysis.prover import serve; serve()"

Domain = Mapping[str, tuple[float, float]]


class Prover:
    """Asks for proofs of `proofs.CLAIMS`; a context manager, since it holds a process."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._known: dict[str, Any] = {}
        self.late = 0
        self._starting = False

    def __enter__(self) -> "Prover":
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def ask(self, claim: str, formula: Node, domain: Domain, *arguments: Any) -> Any:
        """The answer of `proofs.ask`; None where it stays open, or open for too long. Asked once, known for good."""
        question = json.dumps([claim, formula, {name: list(ends) for name, ends in domain.items()}, arguments])
        if question not in self._known:
            self._known[question] = self._answer(question)
        return self._known[question]

    def _answer(self, question: str) -> Any:
        if self.late >= MOST_LATE:
            return None
        process = self._process or self._start()
        assert process.stdin is not None
        try:
            if self._starting:
                self._lines.get(timeout=START_SECONDS)
                self._starting = False
            process.stdin.write(question + "\n")
            process.stdin.flush()
            line = self._lines.get(timeout=self.seconds)
            if line:
                return json.loads(line)
        except (queue.Empty, BrokenPipeError):
            pass
        self.late += 1
        self._end()
        return None

    def _start(self) -> "subprocess.Popen[str]":
        """Begins before the first question: importing sympy takes a second, in which others can import torch."""
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_forward, args=(process, lines), daemon=True).start()
        self._process, self._lines, self._starting = process, lines, True
        return process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process = None


def _forward(process: "subprocess.Popen[str]", lines: "queue.SimpleQueue[str]") -> None:
    """Lines of the process as they come, and an empty one at its end."""
    assert process.stdout is not None
    with process.stdout as stream:
        for line in stream:
            lines.put(line)
    lines.put("")


def serve() -> None:
    """Answer questions from standard input, to its end."""
    from evoloss.analysis import proofs

    print("ready", flush=True)
    for line in sys.stdin:
        claim, formula, domain, arguments = json.loads(line)
        question = proofs.Question(proofs.tree(formula), {name: (low, high) for name, (low, high) in domain.items()})
        print(json.dumps(proofs.ask(claim, question, *arguments)), flush=True)
