"""Backends that die, hang, answer errors, break off or trickle under a real supervisor: what clients get.

The backends of the first test are processes of their own, so that one can be killed; the others play their
part in the test's own loop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from lbproc.core.retry import has_credit, withdrawn
from tests.e2e.harness import Program, wait_until
from tests.e2e.harness_backend import BackendConnection, serve_requests, text_response
from tests.e2e.harness_client import RawClient, fetch, render_request
from tests.e2e.load import Load
from tests.e2e.scrape import Admin
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Connect, StartWeb
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow


class MortalBackend(Program):
    """A backend in a process of its own, which can be killed and started again at the same address."""

    def __init__(self, directory: Path, name: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        script = Path(__file__).with_name("mortal_backend.py")
        super().__init__(name, [sys.executable, str(script), self.address, name], directory)

    def is_ready(self) -> bool:
        try:
            RawClient(self.address).close()
        except OSError:
            return False
        return True


# Kill one of three under load ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kills", [pytest.param(2, id="short"), pytest.param(20, id="soak", marks=pytest.mark.soak)]
)
def test_killing_one_of_three_backends_under_load_loses_no_idempotent_request(
    tmp_path: Path, programs: Callable[[Program], None], start_web: StartWeb, kills: int
) -> None:
    admin = Admin()
    backends = [MortalBackend(tmp_path, name) for name in "abc"]
    for backend in backends:
        programs(backend)
        backend.start()
    server, address = start_web(
        [backend.address for backend in backends],
        workers=3,
        pool='retries = { attempts = 2, on = ["reset"], budget = 1.0 }',
        rest=admin.table,
    )
    with Load(address, clients=16) as load:
        wait_until(lambda: load.answered > 200, "the load runs")
        for number in range(kills):
            victim = backends[number % 3]
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            answered = load.answered
            wait_until(lambda answered=answered: load.answered > answered + 200, "the load goes on")  # type: ignore[misc]
            victim.start()
            answered = load.answered
            wait_until(lambda answered=answered: load.answered > answered + 100, "the load goes on")  # type: ignore[misc]
    assert (load.lost, load.refused, load.wrong) == (0, 0, [])
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
    assert admin.total("lbproc_retries_denied_total") == 0
    log = server.access_log(load.answered)
    assert {line["status"] for line in log} == {200}
    assert any(line["retries"] for line in log)  # somebody was saved


# Ways to fail -------------------------------------------------------------------------------------------


async def never_answers(connection: BackendConnection) -> None:
    await connection.read_request()
    while await connection.receive():
        pass


async def resets_at_once(connection: BackendConnection) -> None:
    if await connection.read_request() is not None:
        await connection.reset()


async def resets_in_mid_head(connection: BackendConnection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-")
    await connection.reset()


async def stalls_in_mid_body(connection: BackendConnection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    while await connection.receive():
        pass


async def resets_in_mid_body(connection: BackendConnection) -> None:
    backend = connection.backend
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    await backend.released.wait()  # the client has what was sent
    await connection.reset()


async def speaks_nonsense(connection: BackendConnection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok")


async def trickles_its_head(connection: BackendConnection) -> None:
    await connection.read_request()
    for octet in text_response("late"):
        if connection.is_closed_by_peer:
            return
        await connection.send(bytes([octet]))
        await trio.sleep(0.05)


async def trickles_its_body(connection: BackendConnection) -> None:
    await connection.read_request()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
    for octet in b"trickled":
        await trio.sleep(0.1)
        await connection.send(bytes([octet]))


def answers(status: str) -> Callable[[BackendConnection], Any]:
    async def script(connection: BackendConnection) -> None:
        connection.backend.response = text_response("sorry", status)
        await serve_requests(connection)

    return script


FAILING = [
    # script, status without retries, cause, counts as a failure of the backend
    pytest.param(never_answers, 504, "http_response_timeout", 1, id="never answers"),
    pytest.param(resets_at_once, 502, "connection_terminated", 1, id="resets"),
    pytest.param(resets_in_mid_head, 502, "connection_terminated", 1, id="resets in mid-head"),
    pytest.param(speaks_nonsense, 502, "http_protocol_error", 1, id="speaks nonsense"),
    pytest.param(trickles_its_head, 504, "http_response_timeout", 1, id="trickles its head"),
    pytest.param(answers("500 Oops"), 500, None, 0, id="answers 500"),
    pytest.param(answers("503 Busy"), 503, None, 0, id="answers 503"),
    pytest.param(answers("429 Slow Down"), 429, None, 0, id="answers 429"),
]
TIMEOUTS = 'timeouts = { response = "0.4s", read = "0.4s" }'
EVERYTHING = 'on = ["reset", "timeout", "malformed", "429", "500", "503"]'


@pytest.mark.parametrize(("script", "status", "cause", "failures"), FAILING)
def test_without_retries_each_failure_ends_as_documented(
    stage: Stage, start_web: StartWeb, script: Any, status: int, cause: str | None, failures: int
) -> None:
    admin = Admin()
    server, address = start_web([stage.open("bad", script)], pool=TIMEOUTS, rest=admin.table)
    answer = fetch(address)
    assert answer.status == status
    if cause is not None:
        assert f"error={cause};" in (answer.get("Proxy-Status") or "")
    (line,) = server.access_log(1)
    assert (line["status"], line["cause"], line["retries"]) == (status, cause, 0)
    assert admin.total("lbproc_failures_total") == failures
    assert admin.total("lbproc_retries_total") == 0


@pytest.mark.parametrize(("script", "status", "cause", "failures"), FAILING)
def test_with_retries_another_backend_answers_and_the_first_is_blamed(
    stage: Stage, start_web: StartWeb, script: Any, status: int, cause: str | None, failures: int
) -> None:
    admin = Admin()
    bad, good = stage.open("bad", script), stage.open("good")
    server, address = start_web(
        [bad, good],
        pool=f'policy = "first_available"\nretries = {{ {EVERYTHING} }}\n{TIMEOUTS}',
        rest=admin.table,
    )
    answer = fetch(address, method="PUT", body=b"x" * 20_000)
    assert (answer.status, answer.body) == (200, b"good")
    assert good.requests[0].body == b"x" * 20_000
    (line,) = server.access_log(1)
    assert (line["status"], line["backend"], line["retries"]) == (200, good.address, 1)
    assert admin.total("lbproc_failures_total", backend=bad.address) == failures
    assert admin.total("lbproc_failures_total", backend=good.address) == 0
    assert admin.total("lbproc_retries_total", backend=bad.address) == 1
    answered = admin.total("lbproc_responses_total", backend=bad.address, code_class=f"{status // 100}xx")
    assert answered == (0 if cause else 1)


@pytest.mark.parametrize("retries", ["", f"retries = {{ {EVERYTHING} }}"], ids=["no retries", "retries"])
@pytest.mark.parametrize(
    ("script", "cause"),
    [
        pytest.param(stalls_in_mid_body, "connection_read_timeout", id="stalls"),
        pytest.param(resets_in_mid_body, "http_response_incomplete", id="resets"),
    ],
)
def test_a_response_that_breaks_off_is_cut_counted_and_never_tried_again(
    stage: Stage, start_web: StartWeb, script: Any, cause: str, retries: str
) -> None:
    admin = Admin()
    bad, good = stage.open("bad", script), stage.open("good")
    server, address = start_web(
        [bad, good], pool=f'policy = "first_available"\n{retries}\n{TIMEOUTS}', rest=admin.table
    )
    with RawClient(address) as client:
        client.send(render_request())
        received = b""
        while not received.endswith(b"half"):
            received += client.socket.recv(65536)
        bad.release()
        with pytest.raises(ConnectionResetError):
            client.socket.recv(65536)
    (line,) = server.access_log(1)
    assert (line["status"], line["cause"], line["retries"]) == (200, cause, 0)
    assert admin.total("lbproc_failures_total", backend=bad.address) == 1
    assert not good.requests


def test_a_body_that_trickles_is_passed_on(stage: Stage, start_web: StartWeb) -> None:
    server, address = start_web([stage.open("slow", trickles_its_body)], pool=TIMEOUTS)
    assert fetch(address).body == b"trickled"
    (line,) = server.access_log(1)
    assert (line["status"], line["cause"]) == (200, None)


# The budget ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [resets_at_once, answers("503 Busy")], ids=["resets", "503"])
def test_one_request_after_the_other_to_a_dead_pool_spends_exactly_the_budget(
    stage: Stage, start_web: StartWeb, script: Any
) -> None:
    """Whichever of three workers serves a request, the bucket is the same; so the number is known exactly."""
    admin = Admin()
    backends = [stage.open(name, script) for name in "abc"]
    server, address = start_web(
        backends,
        workers=3,
        pool='retries = { attempts = 2, on = ["reset", "503"], budget = 0.2 }',
        rest=admin.table,
    )
    count = 100
    for _ in range(count):
        assert fetch(address).status in {502, 503}
    word = expected = denied = 0
    for _ in range(count):
        word = (word + 200) % 2**64
        for _ in range(2):
            if not has_credit(word):
                denied += 1
                break
            word = withdrawn(word)
            expected += 1
    tries = sum(len(backend.requests) for backend in backends)
    assert tries == count + expected
    assert expected <= 10 + 0.2 * count
    assert admin.total("lbproc_retries_total") == expected
    assert admin.total("lbproc_retries_denied_total") == denied
    causes = [line["cause"] for line in server.access_log(count)]
    assert causes.count("retry_budget_spent") == denied


def test_many_clients_at_once_never_exceed_the_budget(stage: Stage, start_web: StartWeb) -> None:
    admin = Admin()
    backends = [stage.open(name, resets_at_once) for name in "abc"]
    _, address = start_web(
        backends,
        workers=3,
        pool='retries = { attempts = 10, on = ["reset"], budget = 0.1 }',
        rest=admin.table,
    )
    threads = [threading.Thread(target=lambda: [fetch(address) for _ in range(40)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tries = sum(len(backend.requests) for backend in backends)
    retries = tries - 480
    assert retries == admin.total("lbproc_retries_total")
    # What is left in the bucket is less than a retry, and only the first few can have flowed over the brim.
    assert 0.1 * 480 < retries <= 10 + 0.1 * 480


# Backends that go out of use ----------------------------------------------------------------------------


@pytest.mark.parametrize("on_down", ["keep", "cut"])
def test_maintenance_keeps_or_cuts_what_is_under_way(
    stage: Stage, start_web: StartWeb, connect: Connect, on_down: str
) -> None:
    first, second = stage.open("first"), stage.open("second")
    server, address = start_web(
        [first, second],
        workers=3,
        pool=f'policy = "first_available"\nretries = {{ on = ["reset"] }}\non_down = "{on_down}"',
    )
    first.hold()
    clients = [connect(address) for _ in range(9)]  # a few for each worker
    for client in clients:
        client.send(render_request())
    post = connect(address)
    post.send(render_request(method="POST", body=b"x"))
    first.wait_in_flight(10)
    assert server.run_command("maintenance", f"web/{first.address}").returncode == 0
    if on_down == "cut":
        assert [client.read_response().body for client in clients] == [b"second"] * 9
        answer = post.read_response()
        assert answer.status == 502
        assert "error=destination_unavailable" in (answer.get("Proxy-Status") or "")
        assert "connections_cut" in server.events()
    else:
        assert fetch(address).body == b"second"
        assert first.in_flight == 10
        first.release()
        assert [client.read_response().body for client in [*clients, post]] == [b"first"] * 10
        wait_until(lambda: all(c.is_closed_by_peer for c in first.connections), "nothing idles there")
        assert "connections_cut" not in server.events()
    wait_until(lambda: set(server.in_flight().values()) == {0}, "nothing is in flight")
