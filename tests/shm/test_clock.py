from __future__ import annotations

import os
import time

from lbproc.shm.clock import monotonic_ns


def test_the_clock_is_that_of_the_machine() -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now = monotonic_ns()
    assert before <= now <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert now < 1 << 62


def test_a_child_reads_the_same_clock() -> None:
    reader, writer = os.pipe()
    before = monotonic_ns()
    child = os.fork()
    if child == 0:
        os.write(writer, str(monotonic_ns()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert before <= int(os.read(reader, 100)) <= monotonic_ns()
    os.close(reader)
    os.close(writer)
