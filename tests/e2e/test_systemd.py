"""lbproc as a service: started, reloaded, stopped and crashed under a stand-in for systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.harness import Program, wait_until, web_config
from tests.e2e.harness_client import RawClient, fetch
from tests.e2e.harness_systemd import ManagedLbproc, listening_socket, listening_unix_socket
from tests.e2e.load import Load
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.e2e.harness_backend import Stage

pytestmark = pytest.mark.slow

StartManaged = Callable[..., ManagedLbproc]


@pytest.fixture
def start_managed(tmp_path: Path, programs: Callable[[Program], None]) -> StartManaged:
    """Starts lbproc as a service, and waits for its READY."""

    def start(config: str, **options: Any) -> ManagedLbproc:
        server = ManagedLbproc(tmp_path, config, **options)
        programs(server)
        server.start()
        return server

    return start


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def test_ready_means_that_requests_are_served(stage: Stage, start_managed: StartManaged) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = start_managed(web_config(address, [stage.open("a").address]))
    (ready,) = server.said("READY")
    assert ready.values["STATUS"] == "serving with 2 workers"
    assert fetch(address).status == 200
    assert not server.said("WATCHDOG")


def test_a_reload_is_announced_and_its_end_too(stage: Stage, start_managed: StartManaged) -> None:
    address, second = (f"127.0.0.1:{free_port()}" for _ in range(2))
    backend = stage.open("a").address
    server = start_managed(web_config(address, [backend]))
    text = server.config_path.read_text()
    server.config_path.write_text(text.replace(json.dumps(address), json.dumps([address, second])))
    server.reload()
    assert fetch(second).status == 200
    server.config_path.write_text("nonsense")
    server.reload(refused=True)
    assert fetch(second).status == 200
    assert len(server.said("RELOADING")) == 2
    assert len(server.said("READY")) == 3


def test_a_reload_by_command_is_announced_as_well(stage: Stage, start_managed: StartManaged) -> None:
    server = start_managed(web_config(f"127.0.0.1:{free_port()}", [stage.open("a").address]))
    assert server.run_command("reload").returncode == 0
    assert len(server.said("RELOADING")) == 1
    wait_until(lambda: len(server.said("READY")) == 2, "READY=1 after it")


def test_a_stop_says_how_long_the_drain_may_take(stage: Stage, start_managed: StartManaged) -> None:
    config = web_config(f"127.0.0.1:{free_port()}", [stage.open("a").address])
    server = start_managed(config, runtime='drain_timeout = "7m"')
    assert server.stop() == 0
    (stopping,) = server.said("STOPPING")
    assert 420 <= int(stopping.values["EXTEND_TIMEOUT_USEC"]) / 1e6 <= 450


def test_the_watchdog_hears_the_loop_and_bites_when_it_stands(
    stage: Stage, start_managed: StartManaged
) -> None:
    address = f"127.0.0.1:{free_port()}"
    server = start_managed(web_config(address, [stage.open("a").address]), watchdog=1.2)
    wait_until(lambda: len(server.said("WATCHDOG")) >= 8, "eight beats")
    assert not server.fell_silent()
    children = {process.pid for process in server.processes()} - {server.pid}
    server.send_signal(signal.SIGSTOP)
    wait_until(server.fell_silent, "silence")
    server.send_signal(signal.SIGABRT)
    server.send_signal(signal.SIGCONT)
    server.restart_after_failure()
    assert not children & {process.pid for process in server.processes()}
    assert fetch(address).status == 200


def test_a_supervisor_that_is_killed_is_started_again_and_its_children_are_gone(
    stage: Stage, start_managed: StartManaged
) -> None:
    sock = listening_socket()
    server = start_managed(web_config(address_of(sock), [stage.open("a").address]), sockets=(sock,))
    children = {process.pid for process in server.processes()}
    server.send_signal(signal.SIGKILL)
    server.restart_after_failure()
    assert not children & {process.pid for process in server.processes()}
    assert fetch(address_of(sock)).status == 200
    assert server.stop() == 0


def test_passed_sockets_are_served_by_all_workers_beside_those_of_our_own(
    stage: Stage, start_managed: StartManaged, tmp_path: Path
) -> None:
    tcp, unix = listening_socket(), listening_unix_socket(tmp_path / "web.sock")
    own = f"127.0.0.1:{free_port()}"
    binds = [address_of(tcp), f"unix:{tmp_path / 'web.sock'}", own]
    config = web_config("@", [stage.open("a").address]).replace('"@"', json.dumps(binds))
    server = start_managed(config, sockets=(tcp, unix), names="web:local", workers=2)
    for address in binds:
        with RawClient(address) as client:
            assert client.request().status == 200
    clients = [RawClient(address_of(tcp)) for _ in range(32)]
    assert all(client.request().status == 200 for client in clients)
    connections = [worker["connections"] for worker in server.status()["workers"]]
    assert min(connections) >= 4
    for client in clients:
        client.close()
    assert server.stop() == 0
    assert (tmp_path / "web.sock").exists()


def test_what_comes_while_lbproc_is_away_is_served_when_it_is_back(
    stage: Stage, start_managed: StartManaged, tmp_path: Path
) -> None:
    tcp, unix = listening_socket(), listening_unix_socket(tmp_path / "web.sock")
    addresses = [address_of(tcp), f"unix:{tmp_path / 'web.sock'}"]
    config = web_config("@", [stage.open("a").address]).replace('"@"', json.dumps(addresses))
    server = start_managed(config, sockets=(tcp, unix))
    assert server.stop() == 0
    waiting = [RawClient(address) for address in addresses for _ in range(20)]
    for client in waiting:
        client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
    server.start()
    for client in waiting:
        assert client.read_response().status == 200
        client.close()


def test_restarts_under_load_lose_no_connection(stage: Stage, start_managed: StartManaged) -> None:
    sock = listening_socket()
    server = start_managed(web_config(address_of(sock), [stage.open("a").address]), sockets=(sock,))
    with Load(address_of(sock), clients=8) as load:
        for _ in range(3):
            answered = load.answered
            wait_until(lambda: load.answered > answered + 200, "the load runs")  # noqa: B023
            assert server.stop() == 0
            server.start()
    assert (load.refused, load.wrong) == (0, [])
    # Half of the clients keep connections, whose idle ends a request may cross.
    assert all(client.lost == 0 for client in load.clients[::2])


def test_ipv4_clients_of_a_socket_for_both_families_keep_their_address(
    stage: Stage, start_managed: StartManaged
) -> None:
    sock = listening_socket("::", both_families=True)
    server = start_managed(web_config(address_of(sock), [stage.open("a").address]), sockets=(sock,))
    assert fetch(f"127.0.0.1:{sock.getsockname()[1]}").status == 200
    assert fetch(f"[::1]:{sock.getsockname()[1]}").status == 200
    assert {line["client_ip"] for line in server.access_log(2)} == {"127.0.0.1", "::1"}


def test_a_socket_that_no_listener_names_ends_the_start(
    stage: Stage, tmp_path: Path, programs: Callable[[Program], None]
) -> None:
    sock = listening_socket()
    config = web_config(f"127.0.0.1:{free_port()}", [stage.open("a").address])
    server = ManagedLbproc(tmp_path, config, sockets=(sock,), names="web.socket")
    programs(server)
    server.spawn()
    assert server.wait() == 1
    assert f"{address_of(sock)} (web.socket) was passed to lbproc and no listener binds it" in server.stderr()
    assert server.said("READY") == []


def test_a_reload_may_drop_a_passed_socket_and_take_it_up_again(
    stage: Stage, start_managed: StartManaged
) -> None:
    sock = listening_socket()
    own = f"127.0.0.1:{free_port()}"
    config = web_config("@", [stage.open("a").address]).replace('"@"', json.dumps([own, address_of(sock)]))
    server = start_managed(config, sockets=(sock,))
    both = server.config_path.read_text()
    server.config_path.write_text(both.replace(json.dumps([own, address_of(sock)]), json.dumps([own])))
    server.reload()
    with RawClient(address_of(sock)) as client:  # it is systemd's, and lets clients wait
        client.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert fetch(own).status == 200
        server.config_path.write_text(both)
        server.reload()
        assert client.read_response().status == 200


def test_the_pid_file_is_there_while_lbproc_serves(
    stage: Stage, start_managed: StartManaged, tmp_path: Path
) -> None:
    path = tmp_path / "lbproc.pid"
    path.write_text("1\n")
    config = web_config(f"127.0.0.1:{free_port()}", [stage.open("a").address])
    server = start_managed(config, runtime=f"pid_file = {json.dumps(str(path))}")
    assert path.read_text() == f"{server.pid}\n"
    assert server.stop() == 0
    assert not path.exists()


@pytest.mark.soak
def test_a_day_in_the_life_of_a_service(stage: Stage, start_managed: StartManaged) -> None:
    sock = listening_socket()
    server = start_managed(
        web_config(address_of(sock), [stage.open(name).address for name in "ab"]),
        sockets=(sock,), watchdog=3.0, runtime="max_requests = 500",
    )  # fmt: skip
    text = server.config_path.read_text()
    with Load(address_of(sock), clients=8) as load:
        for number in range(40):
            answered = load.answered
            wait_until(lambda: load.answered > answered + 100, "the load runs")  # noqa: B023
            if number % 4 == 3:
                os.kill(server.worker_pids()[0], signal.SIGKILL)
            elif number % 10 == 9:
                server.send_signal(signal.SIGKILL)
                server.restart_after_failure()
            else:
                server.config_path.write_text(
                    text.replace("[log]", f'[log]\nlevel = "{"debug" if number % 2 else "info"}"')
                )
                server.reload()
            assert not server.fell_silent()
    assert (load.refused, load.wrong) == (0, [])
    assert server.stop() == 0
