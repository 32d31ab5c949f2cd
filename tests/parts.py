"""Runs all tests in two processes at the same time: ``python -m tests.parts``, which ``scripts/test`` does.

The end-to-end tests mostly wait for the programs they start, and all others mostly compute, so that together
they take about half as long. Each part is a pytest of its own that knows nothing of the other one: no thread
talks to this process, which tests that fork, hold signals back or count descriptors would feel. Owns the
parts and their output: a line is shown as soon as it is whole, with the name of its part before it.
Invariants: every test is in exactly one part; the parts have the signal handlers of a program that was
started from a shell; the exit status is not 0 if that of any part is not.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

E2E = "tests/e2e"
PARTS = {"e2e": [E2E], "rest": [f"--ignore={E2E}"]}
"""What pytest is told for each."""

_showing = threading.Lock()


class Part:
    """A pytest that runs, and the thread that shows what it says."""

    def __init__(self, name: str, arguments: Sequence[str]) -> None:
        self._name = name
        color = "yes" if sys.stdout.isatty() else "no"
        self._took = 0.0
        self._began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", f"--color={color}", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._reading = threading.Thread(target=self._show, daemon=True)

    def follow(self) -> None:
        """Shows its output from now on."""
        self._reading.start()

    def _show(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            with _showing:
                print(f"{self._name:>4} | {text}", flush=True)  # noqa: T201
        self._took = time.perf_counter() - self._began

    def send_signal(self, number: int) -> None:
        """Passes a signal on."""
        self._process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Waits for its end. Returns its exit status and what to say of it."""
        status = self._process.wait()
        self._reading.join(30)  # what a test left behind, if anything, may hold the pipe for ever
        end = "passed" if status == 0 else f"FAILED with exit status {status}"
        return status, f"{self._name}: {end} in {self._took:.0f} s"


def main(wanted: Mapping[str, Sequence[str]] = PARTS) -> int:
    """Runs the parts. Returns the exit status."""
    # A shell lets its background jobs ignore SIGINT, and they their children; tests that send one would wait.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parts = [Part(name, arguments) for name, arguments in wanted.items()]

    def pass_on(number: int, _: FrameType | None) -> None:
        for part in parts:
            part.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C on a terminal reaches the parts by itself
    for part in parts:
        part.follow()
    ends = [part.wait() for part in parts]
    print(*(text for _, text in ends), sep="\n")  # noqa: T201
    return max(abs(status) for status, _ in ends)


if __name__ == "__main__":
    sys.exit(main())
