"""A worker's data path over memory: a real table and runtime, transports without a kernel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from lbproc.config.model import Config
from lbproc.config.pem_file import read_pem
from lbproc.config.place import Surroundings
from lbproc.core.control.membership import Membership
from lbproc.net.connect import ConnectFailed
from lbproc.net.memory import MemoryTransport, memory_pair
from lbproc.net.readiness import Deadlines, park
from lbproc.net.transport import ConnectionLost
from lbproc.proxy.context import WorkerContext
from lbproc.proxy.http_listener import HttpListener
from lbproc.proxy.listener import StreamListener
from lbproc.proxy.runtime import Runtime
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import Reader, Role, SupervisorView, WorkerView
from lbproc.telemetry.access_log import AccessLog
from lbproc.telemetry.events import Level
from lbproc.telemetry.log import ErrorLog
from lbproc.telemetry.sink import Sink
from lbproc.telemetry.stamp import UtcClock
from lbproc.types import Row, Slot

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.types import Address


def validated(config: dict[str, Any]) -> Config:
    """A configuration, which may name files of certificates."""
    return Config.model_validate(config, context=Surroundings(base=Path("/"), read_pem=read_pem))


END = b"\r\n\r\n"


class Wire:
    """The far end of one of the proxy's connections, in the hands of the test."""

    def __init__(self, transport: MemoryTransport, deadlines: Deadlines) -> None:
        self.transport = transport
        self._deadlines = deadlines
        self.received = b""

    async def send(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.transport.send(rest) :]
            if rest:
                await park(self.transport.until_writable, self._deadlines, trio.current_time() + 3600)

    async def receive(self) -> bytes:
        """Some bytes, or b"" at the end."""
        while (data := self.transport.recv(65536)) is None:
            if not await park(self.transport.until_readable, self._deadlines, trio.current_time() + 3600):
                raise AssertionError("nothing came in an hour")
        self.received += data
        return data

    async def read_until(self, mark: bytes) -> bytes:
        """All up to and with the mark, taken off what was received."""
        while mark not in self.received:
            if not await self.receive():
                raise AssertionError(f"ended before {mark!r}: {self.received!r}")
        head, _, self.received = self.received.partition(mark)
        return head + mark

    async def read_exactly(self, count: int) -> bytes:
        while len(self.received) < count:
            if not await self.receive():
                raise AssertionError(f"ended after {self.received!r}")
        taken, self.received = self.received[:count], self.received[count:]
        return taken

    async def read_all(self) -> bytes:
        """Everything up to the end of the connection."""
        while await self.receive():
            pass
        taken, self.received = self.received, b""
        return taken

    async def is_reset(self) -> bool:
        """Whether the connection ends with a reset; reads it to its end."""
        try:
            await self.read_all()
        except ConnectionLost:
            return True
        return False


class Rig:
    """One worker: its runtime, its client connections, and the backend connections that it opens."""

    def __init__(self, path: Path, config: dict[str, Any], capacity: int = 65536) -> None:
        self.config = validated(config)
        self._listeners = config["listeners"]
        self.table = Table.create(Capacities(columns=8, backends=64, pools=8, keys=1024, ledger=256))
        supervisor = SupervisorView(self.table)
        self.supervisor = supervisor
        supervisor.set_generation(1)
        self._publish(self.config)
        self.reader = Reader(self.table)
        self.view = self._new_view()
        self.deadlines = Deadlines()
        self.log_path = path / "error.log"
        self.access_path = path / "access.log"
        self.access_log = AccessLog(self.access_path)
        self.context = WorkerContext(
            view=self.view,
            deadlines=self.deadlines,
            connect=self._connect,
            access_log=self.access_log,
            log=ErrorLog(Sink(self.log_path), Level.DEBUG, "worker-0"),
            wall_clock=UtcClock(),
            random=Random(1),
        )
        try:
            self.runtime = Runtime.begin(self.config, self.context)
        except BaseException:
            self.close()
            raise
        self.refusing: dict[str, str] = {}
        """Addresses whose connects fail, with the kind of failure."""
        self.dialled: list[str] = []
        self._capacity = capacity
        self._send_dialled, self._receive_dialled = trio.open_memory_channel[Wire](100)

    def _new_view(self) -> WorkerView:
        return WorkerView(self.table, self.supervisor.allocate_column(Slot(0), Role.WORKER))

    def _publish(self, config: Config) -> None:
        membership = Membership(config, self.supervisor.ensure_row, self.supervisor.ensure_pool)
        self.supervisor.publish_membership(membership.encode())

    def publish(self, *, pool: dict[str, Any]) -> None:
        """Publishes the membership of another pool ``web``."""
        self._publish(validated({"pools": {"web": pool}, "listeners": self._listeners}))

    def prepare(self, config: dict[str, Any]) -> Runtime:
        """Builds the runtime of the next generation, which `commit` puts in force."""
        self._next = Runtime(validated(config), self.context, self.view.generation() + 1)
        self.context.move = self._move
        return self._next

    def commit(self) -> None:
        """Puts what was prepared in force. Nobody has moved then."""
        config, generation = self._next.config, self._next.generation
        membership = Membership(
            config, self.supervisor.ensure_row, self.supervisor.ensure_pool, generation=generation
        )
        self.supervisor.set_generation(generation)
        self.supervisor.publish_membership(membership.encode())
        self.config, self._listeners = config, config.model_dump()["listeners"]

    def reload(self, config: dict[str, Any]) -> None:
        """Prepares and commits."""
        self.prepare(config)
        self.commit()

    def _move(self) -> None:
        if self._next is not self.runtime and self._next.generation == self.view.generation():
            assert self._next.succeed(self.runtime)
            self.runtime = self._next

    def sibling(self) -> Runtime:
        """The runtime of another worker, with a column of its own."""
        return Runtime.begin(self.config, replace(self.context, view=self._new_view()))

    async def _connect(self, address: Address, deadline: float) -> Transport:
        self.dialled.append(str(address))
        kind = self.refusing.get(str(address))
        if kind == "timeout":
            await trio.sleep_until(deadline)
        if kind is not None:
            raise ConnectFailed(kind, kind)  # type: ignore[arg-type]
        ours, theirs = memory_pair(self._capacity)
        self._send_dialled.send_nowait(Wire(theirs, self.deadlines))
        return ours

    async def backend(self) -> Wire:
        """The next connection that the worker opens to a backend."""
        return await self._receive_dialled.receive()

    def close(self) -> None:
        """Closes its logs and its table."""
        self.access_log.close()
        self.context.log.close()
        self.table.close()

    def http(self, name: str = "web") -> HttpListener:
        """A listener that speaks HTTP."""
        listener = self.runtime.listeners[name]
        assert isinstance(listener, HttpListener)
        return listener

    def client(self, nursery: trio.Nursery, listener: str = "web", peer_ip: str = "192.0.2.1") -> Wire:
        """A new client connection, served in the nursery."""
        theirs, ours = memory_pair(self._capacity)
        ours.peer_ip = peer_ip
        form = self.runtime.listeners[listener]
        assert isinstance(form, StreamListener)
        connection = form.open(ours, self.context)
        nursery.start_soon(connection.serve)
        self.last_connection = connection
        return Wire(theirs, self.deadlines)

    def in_flight(self) -> int:
        """Places taken at all backends."""
        return sum(
            self.reader.in_flight(Row(row))
            for row in range(sum(len(p.backends) for p in self.config.pools.values()))
        )

    def log_lines(self) -> list[str]:
        self.access_log.close()
        return self.access_path.read_text().splitlines()
