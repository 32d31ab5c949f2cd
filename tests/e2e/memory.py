"""How much memory processes have in use, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.harness import LbprocServer


def private_bytes(pid: int) -> int:
    """Bytes of private memory that a process has in use; shared pages of the table do not count."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(found) * 1024 for found in re.findall(r"^Private_\w+:\s+(\d+) kB", rollup, re.MULTILINE))


class Growth:
    """How much each worker has grown since the beginning, as seen at so many looks.

    Attributes:
        most: bytes that one worker had grown at most at any look.
        most_of_all: bytes that all workers together had grown at most at any look.
        looks: how many there were.
    """

    def __init__(self, server: LbprocServer) -> None:
        self._before = {pid: private_bytes(pid) for pid in server.worker_pids()}
        self.most = 0
        self.most_of_all = 0
        self.looks = 0

    def look(self) -> list[int]:
        """Looks at every worker; returns how much each has grown."""
        self.looks += 1
        growths = [private_bytes(pid) - before for pid, before in self._before.items()]
        self.most = max(self.most, *growths)
        self.most_of_all = max(self.most_of_all, sum(growths))
        return growths
