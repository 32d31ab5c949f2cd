"""What tests of reloads look at: descriptors of all processes, and what no refused reload changes."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lbproc.boot import WorkerBoot
from lbproc.worker import run_worker
from tests.supervisor.running import PATIENCE, RunningSupervisor, run_small_worker, wait_for


def links(pid: int) -> list[str]:
    try:
        return sorted(str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # closed, or the process has ended, while we look
        return []


def pids(running: RunningSupervisor) -> set[int]:
    return set(running.descendants())


def control_connections(running: RunningSupervisor) -> set[str]:
    """Of clients who may have left a moment ago."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    return {f"socket:[{row[6]}]" for row in rows if row[-1] == str(running.control) and row[5] == "03"}


def descriptors(running: RunningSupervisor) -> dict[int, list[str]]:
    """Of all processes, once no helper of a reload is left, and nobody is connected any more."""
    looks: list[dict[int, list[str]]] = []

    def settled() -> dict[int, list[str]] | None:
        running.say("who")
        passing = control_connections(running)
        look = {pid: links(pid) for pid in (running.pid, *running.descendants())}
        passing |= control_connections(running)
        looks.append({pid: [link for link in found if link not in passing] for pid, found in look.items()})
        return looks[-1] if looks[-4:].count(looks[-1]) == 4 else None

    found: dict[int, list[str]] = wait_for(settled, "descriptors that stay")
    return found


def counts(running: RunningSupervisor) -> list[int]:
    return sorted(map(len, descriptors(running).values()))


def assert_soon(look: Callable[[], object], expected: object) -> None:
    """What is closed here is closed a moment later there."""
    deadline = time.perf_counter() + PATIENCE / 4
    while look() != expected and time.perf_counter() < deadline:
        time.sleep(0.02)
    found = look()
    assert found == expected, f"this is not what was expected:\n{found}\n{expected}"


class Snapshot:
    """What may not change when a reload fails."""

    def __init__(self, running: RunningSupervisor) -> None:
        self.running = running
        self.seen = self.look()

    def look(self) -> dict[str, Any]:
        state = self.running.state()
        return {
            "backends": [
                (backend["address"], backend["health"], backend["requests"])
                for backend in state["pools"]["web"]["backends"]
            ],
            "config": state["config"],
            "generation": state["generation"],
            "workers": [(worker["slot"], worker["pid"], worker["generation"]) for worker in state["workers"]],
            "descriptors": descriptors(self.running),
        }

    def unchanged(self) -> bool:
        assert_soon(self.look, self.seen)
        return True


def backends(*addresses: str) -> dict[str, Any]:
    return {"pools": {"web": {"backends": list(addresses)}}}


NEW = backends("127.0.0.1:9", "127.0.0.1:10")
CHANGES = ["pools.web.backends: removed name.test:80", "pools.web.backends: added 127.0.0.1:10"]


def addresses(running: RunningSupervisor) -> list[str]:
    return [backend["address"] for backend in running.state()["pools"]["web"]["backends"]]


def generations(running: RunningSupervisor) -> set[int | None]:
    return {worker["generation"] for worker in running.workers()}


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def refused(port: int) -> bool:
    try:
        connect(port).close()
    except ConnectionRefusedError:
        return True
    return False


def slots(running: RunningSupervisor) -> list[tuple[int, str]]:
    return [(worker["slot"], worker["state"]) for worker in running.workers()]


def run_worker_beside_a_small_one(trouble: Path, boot: WorkerBoot) -> int:
    """A real one in slot 0."""
    return run_small_worker(trouble, boot) if boot.slot else run_worker(boot)
