"""A worker's memory stays what it is, however many requests it has served and whatever they were."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness import LbprocServer, wait_until
from tests.e2e.memory import Growth, private_bytes
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness_nginx import Nginx

pytestmark = pytest.mark.slow

MEBIBYTE = 1 << 20

ALLOWED_GROWTH = 4 * MEBIBYTE
"""Of one worker, after the warm-up. Of a million requests on two workers a leak of 9 bytes each shows."""

ALLOWED_MEMORY = 64 * MEBIBYTE
"""Of one worker from its first request on, with every cache filled by an attacker."""

CONFIG = """
[listeners.web]
bind = "{address}"
pool = "web"
[[listeners.web.routes]]
match = {{ path = "/dead" }}
pool = "dead"
[pools.web]
backends = ["{nginx}"]
[pools.dead]
backends = ["127.0.0.1:{unused}"]
"""

ORDINARY = """
local same = "GET / HTTP/1.1\\r\\nHost: a\\r\\nUser-Agent: wrk\\r\\nAccept: */*\\r\\n\\r\\n"
local kinds = {
  function() return "GET / HTTP/1.1\\r\\nHost: a\\r\\nX-Number: " .. number .. "\\r\\n\\r\\n" end,
  function() return "GET /echo?" .. number .. " HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" end,
  function() return "POST / HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: 9\\r\\n\\r\\n{\\"a\\": 12}" end,
  function()
    return "POST / HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
      .. "2\\r\\nhi\\r\\n0\\r\\n\\r\\n"
  end,
  function() return "GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n" end,
  function() return "GET / HTTP/1.0\\r\\n\\r\\n" end,
  function() return "GET /files/missing HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" end,
  function() return "GET /dead HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" end,
  function() return "GET / HTTP/1.1\\r\\nHost: a\\r\\nBad Name: 1\\r\\n\\r\\n" end,
}
function make()
  local kind = kinds[number % 20 + 1]
  return kind and kind() or same
end
"""
"""Half of the requests are alike; the others differ, have bodies, end their connections, or fail."""

ATTACK = """
local filling = string.rep("x", %(filling)d)
function make()
  local n = math.floor(number / %(times)d)
  return "GET /echo/" .. n .. " HTTP/1.1\\r\\nHost: h" .. n .. ".example\\r\\nX-" .. n .. ": " .. filling .. n
    .. "\\r\\nUser-Agent: a" .. n .. "\\r\\nCookie: c=" .. n .. "\\r\\n\\r\\n"
end
"""
"""Every head, every line of it, and every head of a response comes so many times and never again."""

WRK = """
number = {first}
{make}
function request()
  number = number + 1
  return make()
end
"""


class Traffic:
    """Requests from wrk, in pieces between which no connection is open, until there were so many."""

    def __init__(self, wrk: str, address: str, server: LbprocServer, script: Path, make: str) -> None:
        self._command = [wrk, "-t1", "-c32", "--timeout", "10s", "-s", str(script)]
        self._url = f"http://{address}/"
        self._server = server
        self._script = script
        self._make = make
        self._first = 0

    def served(self) -> int:
        """Requests that the workers have counted."""
        return sum(worker["requests"] for worker in self._server.status()["workers"])

    def run_until(self, total: int, seconds: int) -> Iterator[int]:
        """Loads for pieces of so many seconds until so many were served in all; tells after each how many."""
        while self.served() < total:
            self._script.write_text(WRK.format(first=self._first, make=self._make))
            self._first += 100_000_000
            subprocess.run([*self._command, f"-d{seconds}s", self._url], check=True, capture_output=True)
            wait_until(self._is_quiet, "no connection is open")
            yield self.served()

    def _is_quiet(self) -> bool:
        return not any(worker["connections"] for worker in self._server.status()["workers"])


@pytest.fixture
def start_traffic(
    start_nginx: Callable[[str], Nginx],
    start_lbproc: StartLbproc,
    require_program: RequireProgram,
    tmp_path: Path,
) -> Callable[[str], tuple[LbprocServer, Traffic]]:
    """Starts nginx and lbproc with every default on; the access log goes where it takes no room."""
    wrk = require_program("wrk")

    def start(make: str) -> tuple[LbprocServer, Traffic]:
        nginx = start_nginx("a")
        address = f"127.0.0.1:{free_port()}"
        config = CONFIG.format(address=address, nginx=nginx.address, unused=free_port())
        server = start_lbproc(config, access="/dev/null")
        return server, Traffic(wrk, address, server, tmp_path / "wrk.lua", make)

    return start


Start = Callable[[str], tuple[LbprocServer, Traffic]]


def grow(server: LbprocServer, traffic: Traffic, warm: int, total: int, seconds: int) -> Growth:
    """How much the workers grow from a warm-up to a total."""
    for _ in traffic.run_until(warm, seconds):
        pass
    growth = Growth(server)
    for served in traffic.run_until(total, seconds):
        looks = ", ".join(f"{grown / 1024:.0f}" for grown in growth.look())
        print(f"{served} requests; grown by {looks} KiB")  # noqa: T201  shown with --soak -rP
    print(", ".join(f"{private_bytes(pid) / MEBIBYTE:.1f} MiB" for pid in server.worker_pids()))  # noqa: T201
    return growth


@pytest.mark.parametrize(
    ("warm", "total", "seconds"),
    [
        pytest.param(2_000, 6_000, 1, id="short"),
        pytest.param(100_000, 1_100_000, 10, id="soak", marks=pytest.mark.soak),
    ],
)
def test_worker_is_as_large_after_a_million_requests_as_after_its_warm_up(
    start_traffic: Start, warm: int, total: int, seconds: int
) -> None:
    server, traffic = start_traffic(ORDINARY)
    assert grow(server, traffic, warm, total, seconds).most < ALLOWED_GROWTH
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")


@pytest.mark.soak
@pytest.mark.parametrize(("times", "filling"), [(1, 100), (4, 1000)], ids=["once", "four times"])
def test_heads_that_are_not_seen_again_leave_nothing_behind(
    start_traffic: Start, times: int, filling: int
) -> None:
    server, traffic = start_traffic(ATTACK % {"times": times, "filling": filling})
    first = Growth(server)
    assert grow(server, traffic, warm=60_000, total=300_000, seconds=5).most < ALLOWED_GROWTH
    assert max(first.look()) < ALLOWED_MEMORY
