"""Samples the Python stacks of a program by its CPU time; Python imports this when it starts.

A directory to write to in LBPROC_BENCH_SAMPLES switches it on, for this process and those that it forks. It
counts time in which the process computes, also in the kernel. A sampler that looks from outside by the clock
on the wall counts a process that waits for a CPU like one that has it, and on a full machine that is most of
the time, above all in calls that wake somebody else.

A sample is a line: the frames from the outermost in, joined by semicolons, and a 1. The timer is one that
Python's own signal module does not know, because lbproc itself uses those.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

EVERY_NS = 4_000_000
"""Of CPU time; most kernels do not look more often."""

KEPT = 25
"""Samples that are written at once."""

SIGNAL = signal.SIGRTMIN + 5
CLOCK_PROCESS_CPUTIME_ID = 2
SIGEV_SIGNAL = 0

_DIRECTORY = os.environ.get("LBPROC_BENCH_SAMPLES")
_kept: list[str] = []


def _sample(number: int, frame: FrameType | None) -> None:
    del number
    frames = []
    while frame is not None:
        code = frame.f_code
        frames.append(f"{code.co_qualname} ({code.co_filename}:{frame.f_lineno})")
        frame = frame.f_back
    _kept.append(";".join(reversed(frames)).replace("\n", " ") + " 1\n")
    if len(_kept) >= KEPT:
        lines = "".join(_kept)
        _kept.clear()
        fd = os.open(
            f"{_DIRECTORY}/{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        os.write(fd, lines.encode())
        os.close(fd)


def _begin() -> None:
    _kept.clear()
    signal.signal(SIGNAL, _sample)
    libc = ctypes.CDLL(None, use_errno=True)
    timer = ctypes.c_void_p()
    event = struct.pack("Pii48x", 0, SIGNAL, SIGEV_SIGNAL)  # struct sigevent
    if libc.timer_create(CLOCK_PROCESS_CPUTIME_ID, event, ctypes.byref(timer)) != 0:
        raise OSError(ctypes.get_errno(), "timer_create")
    times = (ctypes.c_long * 4)(0, EVERY_NS, 0, EVERY_NS)
    if libc.timer_settime(timer, 0, ctypes.byref(times), None) != 0:
        raise OSError(ctypes.get_errno(), "timer_settime")


if _DIRECTORY is not None:
    os.register_at_fork(after_in_child=_begin)
    _begin()
