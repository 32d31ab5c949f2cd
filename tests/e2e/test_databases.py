"""Real databases behind TCP listeners: nothing of theirs is lost but what hung on what was killed.

PostgreSQL speaks second and keeps state in each connection, so one lost or doubled byte is an error; its
tables say afterwards whether everything arrived. Redis is asked by many at once.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from lbproc.cli.client import ask
from lbproc.core.control.messages import ReloadRequest
from tests.certificates import Authority
from tests.e2e.harness import wait_until
from tests.e2e.harness_client import RawClient
from tests.e2e.harness_databases import (
    PgBench,
    Postgres,
    Redis,
    ask_redis,
    postgres_programs,
    redis_benchmark,
)
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.conftest import RequireProgram
    from tests.e2e.conftest import StartLbproc
    from tests.e2e.harness import LbprocServer, Program

pytestmark = pytest.mark.slow

WORKERS = 3
CLIENTS = 12

short_and_long = pytest.mark.parametrize("seconds", [1, pytest.param(20, marks=pytest.mark.soak)])


def config(address: str, backends: Sequence[str]) -> str:
    rows = ", ".join(f'"{backend}"' for backend in backends)
    return (
        f'[listeners.db]\nbind = "{address}"\nprotocol = "tcp"\npool = "db"\n'
        '[listeners.db.timeouts]\ntunnel = "1h"\n'
        f'[pools.db]\npolicy = "round_robin"\nbackends = [{rows}]\n'
    )


def reload_while(server: LbprocServer, goes_on: Callable[[], bool]) -> int:
    """Reloads again and again, each time with a change of the very listener; returns how often."""
    reloads = 0
    while goes_on():
        text = server.config_path.read_text()
        one, other = 'tunnel = "1h"', 'tunnel = "2h"'
        server.config_path.write_text(text.replace(one, other) if one in text else text.replace(other, one))
        answer = ask(server.control_socket, ReloadRequest("", dry_run=False), timeout=60)
        assert answer["outcome"] == "done", answer
        reloads += 1
    return reloads


def wait_for_connections(server: LbprocServer, count: int) -> None:
    wait_until(
        lambda: sum(server.in_flight().values()) == count, f"there are {count} connections to backends"
    )


def kill_busiest(server: LbprocServer) -> int:
    """Kills the worker with most connections; returns how many it had."""
    victim = max(server.status()["workers"], key=lambda worker: worker["connections"])
    os.kill(victim["pid"], signal.SIGKILL)
    held = int(victim["connections"])
    assert held > 0
    return held


@short_and_long
def test_postgresql_keeps_every_transaction_through_reloads_and_loses_only_what_hung_on_a_killed_process(
    seconds: int, tmp_path: Path, programs: Callable[[Program], None], start_lbproc: StartLbproc
) -> None:
    binaries = postgres_programs()
    databases = [Postgres(name, binaries) for name in ("pg-a", "pg-b")]
    for database in databases:
        programs(database)
        database.start()
    first, second = databases
    address = f"127.0.0.1:{free_port()}"
    server = start_lbproc(config(address, [first.address, second.address]), workers=WORKERS)

    def load(
        name: str, *, reconnects: bool = False, clients: int = CLIENTS, seconds: int = seconds
    ) -> PgBench:
        bench = PgBench(binaries, tmp_path, address, seconds, clients, reconnects=reconnects, name=name)
        programs(bench)
        bench.spawn()
        return bench

    # Reloads: connections that stand, and new ones all the time.
    benches = [load("standing"), load("connecting", reconnects=True, clients=4)]
    reloads = reload_while(server, lambda: any(bench.is_running() for bench in benches))
    assert reloads > 1
    for bench in benches:
        assert bench.assert_untroubled() > 0
    wait_for_connections(server, 0)

    def load_that_goes_on(name: str) -> PgBench:
        before = rows()
        bench = load(name, seconds=600)
        wait_until(lambda: rows() > before, "transactions are made, on connections that all stand")
        wait_for_connections(server, CLIENTS)
        return bench

    def see_the_others_go_on(bench: PgBench, lost: int) -> None:
        wait_until(lambda: bench.lost_clients() >= lost, "clients have seen their connections end")
        wait_for_connections(server, CLIENTS - lost)
        before = rows()
        wait_until(lambda: rows() > before, "the others go on")
        assert bench.lost_clients() == lost
        bench.stop()
        wait_for_connections(server, 0)

    def rows() -> int:
        return sum(
            int(database.ask("select count(*) from pgbench_history"))
            for database in databases
            if database.is_running()
        )

    # A killed worker: its connections, and no other.
    bench = load_that_goes_on("worker-killed")
    held = kill_busiest(server)
    see_the_others_go_on(bench, held)
    wait_until(server.is_ready, "there is another worker")

    for database in databases:
        changed, told = database.ask(
            "select (select sum(abalance) from pgbench_accounts), (select sum(delta) from pgbench_history)"
        ).split("|")
        assert changed == told

    # A killed backend: its connections, and nobody else notices.
    bench = load_that_goes_on("backend-killed")
    held = server.in_flight()[f"db/{second.address}"]
    assert held == CLIENTS // 2
    second.send_signal(signal.SIGKILL)
    see_the_others_go_on(bench, held)
    assert load("connecting-later", reconnects=True, clients=4).assert_untroubled(seconds + 20) > 0
    wait_for_connections(server, 0)


@short_and_long
def test_redis_answers_through_reloads_and_only_what_hung_on_a_killed_process_is_lost(
    seconds: int,
    tmp_path: Path,
    programs: Callable[[Program], None],
    start_lbproc: StartLbproc,
    require_program: RequireProgram,
) -> None:
    binary, bench_binary = require_program("redis-server"), require_program("redis-benchmark")
    servers = [Redis(binary, tmp_path, name) for name in ("redis-a", "redis-b")]
    for redis in servers:
        programs(redis)
        redis.start()
    first, second = servers
    address = f"127.0.0.1:{free_port()}"
    server = start_lbproc(config(address, [first.address, second.address]), workers=WORKERS)

    def load(name: str, *options: str) -> Program:
        bench = redis_benchmark(bench_binary, tmp_path, address, 2_000 * seconds, *options, name=name)
        programs(bench)
        bench.spawn()
        return bench

    # Each client asks for what it has stored, at its own server: binary, small and large.
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(address)) for _ in range(CLIENTS)]
        for number, client in enumerate(clients):
            assert ask_redis(client, "SET", f"key-{number}", payload(number)) == b"OK"
        benches = [
            load("standing"),
            load("pipelined", "-P", "16"),
            load("connecting", "-k", "0", "-n", str(400 * seconds)),
        ]
        assert reload_while(server, lambda: any(bench.is_running() for bench in benches)) > 1
        for bench in benches:
            assert bench.wait() == 0, bench.stderr()
        for number, client in enumerate(clients):
            assert ask_redis(client, "GET", f"key-{number}") == payload(number)
        wait_for_connections(server, CLIENTS)

        held = kill_busiest(server)
        assert sum(not is_alive(client) for client in clients) == held
        wait_until(server.is_ready, "there is another worker")
        wait_for_connections(server, CLIENTS - held)

        held_by_second = server.in_flight()[f"db/{second.address}"]
        alive = CLIENTS - held - held_by_second
        second.send_signal(signal.SIGKILL)
        second.wait()
        assert sum(is_alive(client) for client in clients) == alive
    bench = load("connecting-later", "-k", "0", "-n", str(400 * seconds))
    assert bench.wait(seconds + 20) == 0, bench.stderr()
    wait_for_connections(server, 0)


def test_redis_clients_by_tls_are_served_by_a_redis_that_has_none(
    tmp_path: Path,
    programs: Callable[[Program], None],
    start_lbproc: StartLbproc,
    require_program: RequireProgram,
) -> None:
    redis = Redis(require_program("redis-server"), tmp_path, "redis")
    programs(redis)
    redis.start()
    authority = Authority()
    pair = authority.issue("127.0.0.1").toml(tmp_path, "redis-tls")
    address = f"127.0.0.1:{free_port()}"
    tls = f"[listeners.db.tls]\ncertificates = [{pair}]\n"
    server = start_lbproc(config(address, [redis.address]) + tls, workers=2)
    options = ["--tls", "--cacert", str(authority.write(tmp_path))]
    benches = [
        redis_benchmark(
            require_program("redis-benchmark"), tmp_path, address, 1_000, *options, *more, name=name
        )
        for name, more in [
            ("standing", []),
            ("pipelined", ["-P", "16"]),
            ("connecting", ["-k", "0", "-n", "50"]),
        ]
    ]
    for bench in benches:
        programs(bench)
        bench.spawn()
    assert reload_while(server, lambda: any(bench.is_running() for bench in benches)) > 1
    for bench in benches:
        assert bench.wait() == 0, bench.stderr()
    with RawClient(redis.address) as client:
        assert int(ask_redis(client, "DBSIZE")) > 0
    wait_for_connections(server, 0)
    assert {entry["tls"] for entry in server.access_log(1)} == {"TLSv1.3"}


def payload(number: int) -> bytes:
    return bytes(range(256)) * (1 + 997 * number % 4000)


def is_alive(client: RawClient) -> bool:
    try:
        return ask_redis(client, "PING") == b"PONG"
    except (OSError, AssertionError):
        return False
