"""Servers of datagrams in a worker without processes: real sockets on loopback, a real table, virtual time.

A datagram on loopback is in the receiver's queue when the send returns, so nothing here waits for the kernel.
"""

from __future__ import annotations

import json
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from lbproc.config.model import Config
from lbproc.core.control.membership import Membership
from lbproc.net.connect import open_transport
from lbproc.net.readiness import Deadlines, Dispatcher
from lbproc.net.sockaddr import bound_address
from lbproc.net.udp_listeners import open_first
from lbproc.proxy.context import WorkerContext
from lbproc.proxy.runtime import Runtime
from lbproc.proxy.udp_server import UdpServer
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import (
    ControllerView,
    Reader,
    Refusal,
    Role,
    SupervisorView,
    WorkerCounter,
    WorkerView,
)
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.events import Level
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.sink import Sink
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Admin, Health, Row, Slot, TcpAddress

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from lbproc.types import Column


class End:
    """A socket in the hands of the test."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((host, port))
        self.sock.setblocking(False)
        self.address = str(bound_address(self.sock))
        self.port: int = self.sock.getsockname()[1]

    def received(self) -> list[tuple[bytes, Any]]:
        """Everything that has come, with its senders."""
        found = []
        while True:
            try:
                found.append(self.sock.recvfrom(65536))
            except BlockingIOError:
                return found

    def datagrams(self) -> list[bytes]:
        """The same, without the senders."""
        return [datagram for datagram, _ in self.received()]

    def close(self) -> None:
        self.sock.close()


class Worker:
    """One worker: a column, a runtime, and servers."""

    def __init__(self, rig: UdpRig, config: Config) -> None:
        self._rig = rig
        self.column: Column = rig.supervisor.allocate_column(Slot(0), Role.WORKER)
        self.view = WorkerView(rig.table, self.column)
        self.context = rig.make_context(self.view)
        self.dispatcher = Dispatcher()
        self.runtime = Runtime.begin(config, self.context, rig.generation)
        self.scope = trio.CancelScope()
        self.ended: list[UdpServer] = []

    def serve(self, sock: socket.socket) -> UdpServer:
        """Serves a socket until its server is over, or this worker dies."""
        server = UdpServer(
            sock, self.dispatcher, self.context, lambda: self.context.runtime.listeners.get("dns")
        )

        async def run() -> None:
            with self.scope:
                await server.run()
                self.ended.append(server)

        self._rig.nursery.start_soon(run)
        return server

    def counted(self, counter: WorkerCounter) -> int:
        return self.view.counted(counter)


class UdpRig:
    """A listener ``dns`` in front of a pool ``dns``, and the workers that serve it."""

    def __init__(self, path: Path, nursery: trio.Nursery, chance: Random) -> None:
        self.nursery = nursery
        self.now = 1000.0
        self.table = Table.create(
            Capacities(columns=8, backends=64, pools=8, keys=1024, ledger=256, flows=1024)
        )
        self.supervisor = SupervisorView(self.table)
        self.supervisor.ensure_listener("dns")
        self.reader = Reader(self.table)
        self._controller: ControllerView | None = None
        self.generation = 1
        self.supervisor.set_generation(1)
        self.backends = [End(), End()]
        self._clients: list[End] = []
        (self.sock,) = open_first(TcpAddress("127.0.0.1", 0), 1)
        self.address = self.sock.getsockname()
        self.log_path, self.access_path = path / "error.log", path / "access.log"
        self.workers: list[Worker] = []
        self.deadlines = Deadlines()
        self._chance = chance
        self.access_log = AccessLog(self.access_path)
        self.log = ErrorLog(Sink(self.log_path), Level.DEBUG, "worker-0")

    def make_context(self, view: WorkerView) -> WorkerContext:
        """What a worker's sessions share. Nothing here connects."""
        return WorkerContext(
            view=view,
            deadlines=self.deadlines,
            connect=partial(open_transport, dispatcher=None, deadlines=self.deadlines),  # type: ignore[arg-type]
            access_log=self.access_log,
            log=self.log,
            wall_clock=UtcClock(),
            random=self._chance,
            now=lambda: self.now,
            stamp=lambda: int(self.now * 1e9),
        )

    def config(
        self,
        listener: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        **pool: Any,
    ) -> Config:
        """What is configured, with changes."""
        backends = pool.pop("backends", [{"address": end.address} for end in self.backends])
        return Config.model_validate(
            {
                "listeners": {
                    "dns": {
                        "bind": "127.0.0.1:53",
                        "protocol": "udp",
                        "pool": "dns",
                        "timeouts": {"idle": "10s"},
                        **(listener or {}),
                    }
                },
                "pools": {"dns": {"backends": backends, **pool}},
                "limits": limits or {},
            }
        )

    def publish(self, config: Config) -> None:
        membership = Membership(
            config, self.supervisor.ensure_row, self.supervisor.ensure_pool, generation=self.generation
        )
        self.supervisor.publish_membership(membership.encode())

    def start(self, config: Config | None = None) -> Worker:
        """One more worker, which follows a configuration."""
        config = config or self.config()
        self.publish(config)
        worker = Worker(self, config)
        self.workers.append(worker)
        self.nursery.start_soon(worker.dispatcher.run)
        return worker

    def reload(self, worker: Worker, config: Config) -> None:
        """Puts another configuration in force; the worker moves when it meets it."""
        self.generation += 1
        before, following = worker.context.runtime, Runtime(config, worker.context, self.generation)
        self.publish(config)
        self.supervisor.set_generation(self.generation)

        def move() -> None:
            if worker.context.runtime is before:
                assert following.succeed(before)

        worker.context.move = move

    def kill(self, worker: Worker) -> None:
        """Ends a worker as a death does: what it holds is found and given back by repair."""
        worker.scope.cancel()

    def client(self, host: str = "127.0.0.1") -> End:
        end = End(host)
        self._clients.append(end)
        return end

    async def say(self, client: End, datagram: bytes = b"?") -> None:
        """Has a client send, and all others have done what follows."""
        client.sock.sendto(datagram, self.address)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked(0.002)

    async def pass_time(self, seconds: float) -> None:
        """Lets time pass, with a look at deadlines at its end."""
        self.now += seconds
        self.deadlines.sweep(self.now)
        await self.settle()

    def owner(self) -> int:
        """The backend that has got something; all is read there."""
        (owner,) = [place for place, end in enumerate(self.backends) if end.received()]
        return owner

    def in_flight(self) -> list[int]:
        return [self.reader.in_flight(Row(place)) for place in range(len(self.backends))]

    def open(self) -> int:
        """Sessions as the listener counts them, over all workers."""
        return self.reader.listeners(["dns"])["dns"].open

    def refused(self, refusal: Refusal) -> int:
        return self.reader.listeners(["dns"])["dns"].refused[refusal]

    def set_health(self, place: int, health: Health) -> None:
        if self._controller is None:
            self._controller = ControllerView(
                self.table, self.supervisor.allocate_column(None, Role.CONTROLLER)
            )
        self._controller.set_health(Row(place), health)

    def set_admin(self, place: int, admin: Admin) -> None:
        self.supervisor.set_admin(Row(place), admin)

    def events(self) -> list[str]:
        """The names of all events so far."""
        return [line.split()[3] for line in self.log_path.read_text().splitlines()]

    def lines(self) -> list[dict[str, Any]]:
        """The access log, which ends with this."""
        self.access_log.close()
        return [json.loads(line) for line in self.access_path.read_text().splitlines()]

    def close(self) -> None:
        for worker in self.workers:
            worker.dispatcher.close()
        for end in [*self.backends, *self._clients]:
            end.close()
        self.sock.close()
        self.access_log.close()
        self.log.close()
        self.table.close()
