"""Ports of loopback for servers that tests start: each process of tests takes its own.

Some servers cannot be asked to take any port, so one is looked for before they start. Several processes of
tests may run on one machine, and what one has just found free must not be found by another. Invariants: a
process of tests owns a block of ports from its start to its end, by an abstract Unix socket named after the
block, which the kernel forgets with its last process; no port is one that Linux takes for outgoing
connections, which would take ours at any moment.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

_FIRST, _BLOCK, _BLOCKS = 12_000, 400, 50


def _own_block() -> tuple[socket.socket, range]:
    """A block that no other process has, and the socket that says so."""
    for number in range(_BLOCKS):
        first = _FIRST + (os.getpid() + number) % _BLOCKS * _BLOCK
        sign = socket.socket(socket.AF_UNIX)
        try:
            sign.bind(f"\0lbproc-tests-{first}")
        except OSError:
            sign.close()
            continue
        return sign, range(first, first + _BLOCK)
    raise RuntimeError(f"{_BLOCKS} processes of tests have taken all ports for tests")


_sign, _block = _own_block()
_candidates: Iterator[int] = itertools.cycle(_block)


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of this process's block that nobody listens on; the one that was given out longest ago."""
    for port in itertools.islice(_candidates, _BLOCK):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"every port from {_block.start} to {_block.stop - 1} is taken")
