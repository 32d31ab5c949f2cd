"""Backends are drained, weighed, added and removed under load: at once everywhere, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import (
    AdminRequest,
    BackendAddRequest,
    BackendRemoveRequest,
    ReloadRequest,
    WeightRequest,
)
from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient, render_request
from tests.e2e.load import Load

if TYPE_CHECKING:
    from tests.e2e.conftest import StartWeb
    from tests.e2e.harness import LbprocServer
    from tests.e2e.harness_backend import Backend, Stage

pytestmark = pytest.mark.slow

CLIENTS = 8


def start_command(server: LbprocServer, *arguments: str) -> subprocess.Popen[str]:
    """Runs ``lbproc ARGUMENTS`` beside the test."""
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "lbproc", *arguments],
        env={**os.environ, "PYTHONPATH": root, "LBPROC_SOCKET": str(server.control_socket)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def described(server: LbprocServer) -> dict[str, Any]:
    return {backend["address"]: backend for backend in server.status()["pools"]["web"]["backends"]}


def assert_nothing_lost(load: Load) -> None:
    for client in load.clients:
        assert (client.refused, client.lost, client.wrong) == (0, 0, [])
    assert sum(client.answered for client in load.clients) > 0


def wait_more(backend: Backend, count: int) -> None:
    backend.wait_requests(len(backend.requests) + count)


def test_drain_waits_for_the_last_request_under_load_and_none_fails(
    stage: Stage, start_web: StartWeb
) -> None:
    a, b = stage.open("a"), stage.open("b")
    server, address = start_web([a, b], workers=3)
    with Load(address, CLIENTS) as load:
        wait_more(b, 50)
        b.hold()
        wait_until(lambda: b.in_flight > 0, "requests are under way to b")
        draining = start_command(server, "drain", f"web/{b.address}", "--wait", "--timeout", "60s")
        wait_until(lambda: described(server)[b.address]["admin"] == "drain", "b is drained")
        seen = len(b.requests)
        wait_more(a, 200)
        assert len(b.requests) <= seen + 3, "each worker may have had one pick under way"
        seen = len(b.requests)
        assert draining.poll() is None, "what b has is not answered yet"
        assert described(server)[b.address]["in_flight"] > 0
        b.release()
        output, errors = draining.communicate(timeout=20)
        assert (draining.returncode, output, errors) == (0, f"web/{b.address}: drain, 0 in flight\n", "")
        assert described(server)[b.address]["in_flight"] == 0
        wait_more(a, 200)
        assert len(b.requests) == seen
        b.refuse()  # as drained as it can be
        wait_more(a, 200)
    assert_nothing_lost(load)


def test_a_wait_ends_in_its_time_with_a_reason(stage: Stage, start_web: StartWeb) -> None:
    a, b = stage.open("a"), stage.open("b")
    b.hold()
    server, address = start_web([a, b], pool='policy = "round_robin"')
    with RawClient(address) as one, RawClient(address) as other:
        one.send(render_request())
        other.send(render_request())
        b.wait_in_flight(1)
        done = server.run_command("drain", f"web/{b.address}", "--wait", "--timeout", "300ms")
        assert done.returncode == 1
        assert done.stderr.startswith(f'lbproc: "web/{b.address}" still has 1 request in flight after 0.')
        assert described(server)[b.address]["admin"] == "drain", "it stays drained"
        b.release()
        assert server.run_command("drain", f"web/{b.address}", "--wait").returncode == 0
    ready = server.run_command("ready", f"web/{b.address}", "--wait", "--json")
    assert ready.returncode == 0
    assert '"admin": "ready"' in ready.stdout


def test_changes_outlive_a_worker_and_the_controller(stage: Stage, start_web: StartWeb) -> None:
    a, b, c = (stage.open(name) for name in "abc")
    server, address = start_web([a, b], workers=2, clean=False, pool='policy = "round_robin"')
    ask(server.control_socket, BackendAddRequest("web", {"address": c.address, "weight": 2}))
    ask(server.control_socket, WeightRequest("web", a.address, 3))
    ask(server.control_socket, AdminRequest("web", b.address, "maintenance", wait=False, timeout=0.0))
    before = server.worker_pids()
    controllers = {process.pid for process in server.processes()} - {*before, server.pid}
    for pid in (*before, *controllers):
        os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: server.is_ready() and not set(before) & set(server.worker_pids()), "there are new workers"
    )
    marks = {address: backend["overridden"] for address, backend in described(server).items()}
    assert marks == {a.address: ["weight"], b.address: ["admin"], c.address: ["added"]}
    stage.journal.clear()
    with RawClient(address) as client:
        for _ in range(50):
            assert client.request().status == 200
    assert Counter(stage.journal) == {"a": 30, "c": 20}


def test_a_worker_that_dies_meanwhile_does_not_hold_up_a_drain(stage: Stage, start_web: StartWeb) -> None:
    a, b = stage.open("a"), stage.open("b")
    b.hold()
    server, address = start_web([a, b], workers=2, clean=False, pool='policy = "round_robin"')
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(RawClient(address)).send(render_request())
        b.wait_in_flight(4)
        draining = start_command(server, "drain", f"web/{b.address}", "--wait", "--timeout", "60s")
        wait_until(lambda: described(server)[b.address]["admin"] == "drain", "b is drained")
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        _, errors = draining.communicate(timeout=20)
        assert (draining.returncode, errors) == (0, "")
        assert described(server)[b.address]["in_flight"] == 0
    wait_until(server.is_ready, "there are new workers")
    with RawClient(address) as client:
        assert [client.request().body for _ in range(4)] == [b"a"] * 4


def test_changes_outlive_a_reload_that_does_not_touch_them(stage: Stage, start_web: StartWeb) -> None:
    a, b, c = (stage.open(name) for name in "abc")
    server, address = start_web([a, b], workers=2, pool='policy = "round_robin"')
    with Load(address, CLIENTS) as load:
        ask(server.control_socket, BackendAddRequest("web", {"address": c.address, "weight": 2}))
        ask(server.control_socket, WeightRequest("web", a.address, 3))
        ask(server.control_socket, AdminRequest("web", b.address, "drain", wait=True, timeout=20.0))
        text = server.config_path.read_text()
        for header_size in ("16KiB", "24KiB"):  # a change elsewhere
            changed = text.replace("[pools.web]", f'max_header_size = "{header_size}"\n[pools.web]')
            server.config_path.write_text(changed)
            ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
        marks = {address: backend["overridden"] for address, backend in described(server).items()}
        assert marks == {a.address: ["weight"], b.address: ["admin"], c.address: ["added"]}
        seen = len(b.requests)
        wait_more(c, 50)
        assert len(b.requests) == seen
        # now the file says something of a and c itself
        changed = text.replace(
            f'{{ address = "{a.address}" }}',
            f'{{ address = "{a.address}", weight = 2 }}, {{ address = "{c.address}", weight = 5 }}',
        )
        assert changed != text
        server.config_path.write_text(changed)
        ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
        found = described(server)
        assert {address: backend["weight"] for address, backend in found.items()} == {
            a.address: 2,
            b.address: 1,
            c.address: 5,
        }
        marks = {address: backend["overridden"] for address, backend in found.items()}
        assert marks == {a.address: [], b.address: ["admin"], c.address: []}
        seen = len(b.requests)
        wait_more(c, 50)
        assert len(b.requests) == seen
    assert_nothing_lost(load)


def test_weights_take_effect_exactly_in_all_workers(stage: Stage, start_web: StartWeb) -> None:
    a, b, c = (stage.open(name) for name in "abc")
    server, address = start_web([a, b], workers=4, pool='policy = "round_robin"')
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(address)) for _ in range(20)]

        def shares(requests: int) -> Counter[str]:
            stage.journal.clear()
            for _ in range(requests // len(clients)):
                for client in clients:
                    client.send(render_request())
                for client in clients:
                    assert client.read_response().status == 200
            return Counter(stage.journal)

        assert shares(200) == {"a": 100, "b": 100}
        for weight, a_share, b_share in ((3, 50, 150), (0, 200, 0), (9, 20, 180)):
            ask(server.control_socket, WeightRequest("web", b.address, weight))
            assert shares(200) == Counter({"a": a_share, "b": b_share})
        ask(server.control_socket, BackendAddRequest("web", {"address": c.address, "weight": 10}))
        assert shares(200) == {"a": 10, "b": 90, "c": 100}
        ask(server.control_socket, WeightRequest("web", b.address, None))
        assert shares(240) == {"a": 20, "b": 20, "c": 200}
        ask(server.control_socket, BackendRemoveRequest("web", a.address, wait=False, timeout=0.0))
        assert shares(220) == {"b": 20, "c": 200}


def test_backends_come_and_go_under_load_and_nothing_is_lost(stage: Stage, start_web: StartWeb) -> None:
    names = "abcd"
    backends = [stage.open(name) for name in names]
    # room for one more than there ever are: rows are given back in time, or an addition is refused
    server, address = start_web([backends[0], backends[1]], workers=3, runtime="max_backends = 4")
    with Load(address, CLIENTS) as load:
        for turn in range(12):
            come, go = backends[(turn + 2) % 4], backends[turn % 4]
            ask(server.control_socket, BackendAddRequest("web", {"address": come.address}))
            wait_more(come, 20)
            ask(server.control_socket, BackendRemoveRequest("web", go.address, wait=True, timeout=20.0))
            seen = len(go.requests)
            wait_more(come, 20)
            assert len(go.requests) == seen
    assert_nothing_lost(load)
    assert set(described(server)) == {backends[0].address, backends[1].address}
    assert all(not backend["overridden"] for backend in described(server).values())


def test_rows_of_backends_that_are_gone_are_given_to_others(stage: Stage, start_web: StartWeb) -> None:
    a, b = stage.open("a"), stage.open("b")
    server, address = start_web([a, b], runtime="max_backends = 3")
    for number in range(1, 6):
        text = f"127.0.0.9:{number}"

        def add(text: str = text) -> bool:
            done = server.run_command("backends", "add", "web", text, "--weight", "0", "--name", "new")
            assert done.returncode == 0 or "room for 3 backends" in done.stderr
            return done.returncode == 0

        wait_until(add, "there is room for one more")
        assert server.run_command("backends", "remove", "web/new").returncode == 0
    with RawClient(address) as client:
        assert client.request().status == 200


def test_host_names_that_are_added_are_resolved(stage: Stage, start_web: StartWeb) -> None:
    a, b = stage.open("a"), stage.open("b")
    server, address = start_web([a])
    port = b.address.rpartition(":")[2]
    done = server.run_command("backends", "add", "web", f"localhost:{port}", "--name", "local")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: described(server)[f"localhost:{port}"]["resolved"], "the name is resolved")
    assert server.run_command("drain", f"web/{a.address}").returncode == 0
    with RawClient(address) as client:
        assert client.request().body == b"b"


def test_refusals_have_status_1_and_a_reason(stage: Stage, start_web: StartWeb) -> None:
    a = stage.open("a")
    server, _ = start_web([a])
    for arguments, says in (
        (("drain", f"wbe/{a.address}"), 'no pool named "wbe"; there is "web"'),
        (("weight", "web/x", "1"), 'no backend named "x" in pool "web"'),
        (("weight", f"web/{a.address}", "5000"), "weight: "),
        (("backends", "add", "web", "nonsense"), "address: "),
        (("backends", "remove", f"web/{a.address}"), "is the only backend"),
    ):
        done = server.run_command(*arguments)
        assert done.returncode == 1
        assert says in done.stderr
        assert done.stdout == ""
    done = server.run_command("maintenance", f"web/{a.address}")
    assert done.returncode == 0
    assert "its requests get 503" in done.stderr
