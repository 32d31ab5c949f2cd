"""A worker with a real table, real sockets and a real channel, and the test as its supervisor."""

from __future__ import annotations

import itertools
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from lbproc.boot import InheritedListener, WorkerBoot
from lbproc.config.model import Config
from lbproc.config.sealed import open_memory, seal
from lbproc.core.control.membership import Membership
from lbproc.core.control.messages import (
    Abandon,
    Follow,
    Following,
    Lend,
    Message,
    Prepare,
    Prepared,
    Ready,
    Refused,
    Relinquished,
)
from lbproc.errors import ControlError
from lbproc.net.channel import SupervisorChannel, open_pair
from lbproc.net.inbox import open_inbox
from lbproc.net.sockaddr import bound_address
from lbproc.shm.layout import Capacities
from lbproc.shm.table import Table
from lbproc.shm.views import Role, SupervisorView
from lbproc.telemetry.log import open_error_log
from lbproc.telemetry.sink import Sink
from lbproc.types import Slot, TcpAddress
from lbproc.worker.main import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

T = TypeVar("T")

END = b"\r\n\r\n"


class Client:
    """A connection to the worker, in plain requests."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, target: str = "/") -> None:
        await self.stream.send_all(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    async def receive(self) -> tuple[bytes, bytes]:
        """Head and body of the next response."""
        while END not in self.received:
            octets = await self.stream.receive_some()
            assert octets, f"ended with {self.received!r}"
            self.received += octets
        head, _, rest = self.received.partition(END)
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        while len(rest) < size:
            rest += await self.stream.receive_some()
        self.received = rest[size:]
        return head, rest[:size]

    async def get(self, target: str = "/") -> bytes:
        """The body of the response."""
        await self.send(target)
        return (await self.receive())[1]


class Backend:
    """Answers with its name; what is asked of ``/slow`` waits for ``released``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = ""
        self.asked = trio.Event()
        self.released = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        buffer = b""
        while octets := await stream.receive_some():
            buffer += octets
            while END in buffer:
                head, _, buffer = buffer.partition(END)
                if head.startswith(b"GET /slow"):
                    self.asked.set()
                    await self.released.wait()
                body = self.name.encode()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


class StandIn:
    """The supervisor of one worker, which has slot 0.

    Args:
        directory: for logs.
        config: that the worker is born with; every listener gets a port of its own.
        slots: how many workers there seem to be.
    """

    def __init__(self, directory: Path, config: dict[str, Any], slots: int = 2) -> None:
        self.directory = directory
        self.config = Config.model_validate(config)
        self.slots = slots
        self.generation = 1
        self.table = Table.create(
            Capacities(columns=16, backends=64, pools=64, keys=8, ledger=64, membership_bytes=65536)
        )
        self.view = SupervisorView(self.table)
        self.view.set_generation(1)
        self.column = self.view.allocate_column(Slot(0), Role.WORKER)
        self._publish(self.config, 1)
        self._keys = itertools.count(7)
        self.sockets: dict[int, socket.socket] = {}
        self.names: dict[int, str] = {}
        for name in self.config.listeners:
            self.bind(name)
        self.inboxes = {Slot(slot): open_inbox() for slot in range(8)}
        ours, self._theirs = open_pair()
        self.channel = SupervisorChannel(ours)
        self.log = open_error_log(directory / "error.log", "info", "worker-0")
        self.heard: list[Message] = []
        self.status: int | None = None
        self.removed: dict[int, str] = {}
        """Addresses that went before the worker is born, and the names that their listeners had."""
        self.former: Config | None = None
        self._news = trio.Event()

    def bind(self, name: str) -> int:
        """A new address of a listener; returns its key."""
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        key = next(self._keys)
        self.sockets[key], self.names[key] = sock, name
        return key

    def key_of(self, name: str) -> int:
        """The newest address of a listener."""
        return max(key for key, found in self.names.items() if found == name)

    def _publish(self, config: Config, generation: int) -> None:
        membership = Membership(config, self.view.ensure_row, self.view.ensure_pool, generation=generation)
        self.view.publish_membership(membership.encode())

    def make_worker(self) -> Worker:
        self.worker = Worker(
            WorkerBoot(
                Slot(0),
                self.column,
                self.table,
                self.config,
                tuple(
                    InheritedListener(key, name, bound_address(self.sockets[key]), self._copy(key), False)
                    for key, name in self.names.items()
                ),
                self.inboxes[Slot(0)][0].dup(),
                {slot: self.inboxes[slot][1].dup() for slot in list(self.inboxes)[1 : self.slots]},
                self._theirs,
                os.getpid(),
                self.log,
                Sink(self.directory / "access.log"),
                1,
                removed=tuple(
                    InheritedListener(key, name, bound_address(self.sockets[key]), self._copy(key), False)
                    for key, name in self.removed.items()
                ),
                former=self.former,
            )
        )
        return self.worker

    def _copy(self, key: int) -> socket.socket:
        """What a fork or a message gives: another descriptor of the same socket."""
        return self.sockets[key].dup()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs the worker, which is told to leave at the end."""
        worker = self.make_worker()

        async def run() -> None:
            self.status = await worker.main()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            nursery.start_soon(self._listen)
            await self.hear(Ready)
            yield
            self.channel.close()
            nursery.cancel_scope.cancel()

    async def _listen(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.channel.socket)
            try:
                self.heard += self.channel.receive()
            except ControlError:  # the worker has left
                return
            self._news.set()
            self._news = trio.Event()

    async def hear(self, *kinds: type[T]) -> T:
        """The next message of one of these kinds, taken off what was heard."""
        with trio.fail_after(10):
            while True:
                for message in self.heard:
                    if isinstance(message, kinds):
                        self.heard.remove(message)
                        return message
                await self._news.wait()

    # Reloads

    async def prepare(
        self,
        config: dict[str, Any],
        *,
        new: Iterable[str] = (),
        slots: int | None = None,
        logs: tuple[Sink, ...] = (),
        memory: int | None = None,
    ) -> Prepared | Refused:
        """Lends and prepares; returns the answer."""
        following = Config.model_validate(config)
        lent = [self.bind(name) for name in new]
        names = tuple((key, name) for key, name in self.names.items() if name in following.listeners)
        if lent:
            listeners = tuple(
                (key, self.names[key], str(TcpAddress(*self.sockets[key].getsockname()))) for key in lent
            )
            message = Lend(self.generation + 1, 0, listeners)
            self.channel.send(message, [self.sockets[key].fileno() for key in lent])
        if memory is None:
            memory = open_memory()
            seal(memory, following)
        slots = self.slots if slots is None else slots
        fresh = tuple(range(self.slots, slots))
        has_logs = len(logs) == 2
        prepare = Prepare(self.generation + 1, slots, names, fresh, access_log=has_logs, error_log=has_logs)
        ends = [self.inboxes[Slot(slot)][1].fileno() for slot in fresh]
        self.channel.send(prepare, [memory, *ends, *(log.fileno() for log in logs)])
        os.close(memory)
        self._next = following, slots
        return await self.hear(Prepared, Refused)

    def commit(self) -> None:
        """Puts what was prepared in force."""
        self.generation += 1
        self.config, self.slots = self._next
        self._publish(self.config, self.generation)
        self.view.set_generation(self.generation)
        for key in [key for key, name in self.names.items() if name not in self.config.listeners]:
            del self.names[key]

    async def follow(self) -> None:
        """Commits, says so, and waits until the worker follows."""
        self.commit()
        self.channel.send(Follow(self.generation))
        assert await self.hear(Following) == Following(self.generation)

    async def reload(self, config: dict[str, Any], **options: Any) -> None:
        """All of a reload."""
        assert await self.prepare(config, **options) == Prepared(self.generation + 1)
        await self.follow()
        assert await self.hear(Relinquished) == Relinquished(self.generation)

    def abandon(self) -> None:
        self.channel.send(Abandon(self.generation + 1))

    # Clients

    @asynccontextmanager
    async def client(self, key: int) -> AsyncIterator[Client]:
        """A connection to an address."""
        host, port = self.sockets[key].getsockname()
        async with await trio.open_tcp_stream(host, port) as stream:
            yield Client(stream)

    async def get(self, key: int, target: str = "/") -> bytes:
        """What a request on a connection of its own gets."""
        async with self.client(key) as client:
            return await client.get(target)

    def close(self) -> None:
        self.channel.close()
        self._theirs.close()
        for sock in self.sockets.values():
            sock.close()
        for pair in self.inboxes.values():
            for end in pair:
                end.close()
        self.table.close()
        self.log.close()
