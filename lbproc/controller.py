"""The controller: one trio event loop for what concerns lbproc as a whole and no client.

Wires host name resolution, active checks and the admin listener, and owns their lifetimes; decides nothing.
It says that it is ready when the first round of names is resolved and told, so that workers are born with
addresses, and when new backends had their first checks, or a second has passed.
Traffic does not need it: when it dies, workers go on with what is published. When the supervisor is gone it
leaves at once.
"""

from __future__ import annotations

from contextlib import suppress

import msgpack
import trio

from lbproc.admin.endpoints import Endpoints
from lbproc.admin.metrics import BackendRow, TableMetrics
from lbproc.admin.server import AdminServer
from lbproc.boot import ControllerBoot
from lbproc.config.certified import certified
from lbproc.config.model import Config
from lbproc.config.sealed import unseal
from lbproc.core.control.membership import host_names, published_names
from lbproc.core.control.messages import (
    Abandon,
    Follow,
    Following,
    Prepare,
    Prepared,
    Ready,
    Refused,
    ReopenLogs,
    Resolved,
    Stop,
    SupervisorBound,
    descriptor_count,
)
from lbproc.discovery.resolve import Lookup, Resolver, look_up
from lbproc.errors import ControlError, LbprocError
from lbproc.health.checking import Checking
from lbproc.net.channel import ChildChannel, close_all
from lbproc.shm.views import ControllerView, ProcessState
from lbproc.telemetry.events import Event
from lbproc.telemetry.sink import Sink
from lbproc.types import Seconds, TcpAddress

BEAT: Seconds = 1.0

LOOK: Seconds = 0.1
"""From one look at whether the membership changed to the next."""


def run_controller(boot: ControllerBoot) -> int:
    """Runs the controller in this process, which was just forked, to its end.

    Returns:
        The exit status.
    """
    return trio.run(Controller(boot).main)


class _Succession:
    """A configuration that may come into force."""

    config: Config

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.error_log: Sink | None = None

    async def take(self, message: Prepare, descriptors: tuple[int, ...]) -> None:
        """Reads what came along.

        Raises:
            ControlError: it cannot be read.
        """
        if len(descriptors) < descriptor_count(message):
            raise ControlError("no descriptor is left; raise the limit on open files")
        try:
            self.config = await trio.to_thread.run_sync(unseal, descriptors[0])
        finally:
            close_all(descriptors[: len(descriptors) - message.error_log])
        if message.error_log:
            self.error_log = Sink(self.config.log.error, descriptor=descriptors[-1])

    def close(self) -> None:
        """Closes what came along."""
        if self.error_log is not None:
            self.error_log.close()
            self.error_log = None


def _limited_listeners(config: Config) -> tuple[str, ...]:
    """Those that count their connections."""
    return tuple(
        name
        for name, listener in config.listeners.items()
        if listener.limits or listener.max_connections is not None
    )


class Controller:
    """The wiring of the controller.

    Args:
        boot: what it was born with.
        lookup: resolves one host name.
    """

    def __init__(self, boot: ControllerBoot, lookup: Lookup = look_up) -> None:
        self._boot = boot
        self._view = ControllerView(boot.table, boot.column)
        self._log = boot.error_log
        self._channel_end = boot.channel
        self._checking = Checking(self._view, boot.config, boot.generation, self._log)
        self._backends: tuple[BackendRow, ...] = ()
        self._certificates = tuple(certified(boot.config))
        self._limited = _limited_listeners(boot.config)
        self._epoch = -1
        self._names_epoch = 0
        self._resolver = Resolver((), self._tell_resolved, self._log, lookup)
        self._endpoints: Endpoints | None = None
        self._next: _Succession | None = None

    async def main(self) -> int:
        """Works until told to leave, or until the supervisor is gone."""
        self._channel = ChildChannel(self._channel_end)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                nursery.start_soon(self._work, nursery)
                await self._follow_supervisor(nursery)
                nursery.cancel_scope.cancel()
        finally:
            if self._boot.admin_socket is not None:
                self._boot.admin_socket.close()
            self._channel.close()
        return 0

    async def _work(self, nursery: trio.Nursery) -> None:
        self._resolver.follow(self._published_names())
        await nursery.start(self._resolver.run)
        nursery.start_soon(self._keep_resolving)
        await nursery.start(self._checking.run)
        if self._boot.admin_socket is not None:
            nursery.start_soon(self._open_admin().run)
        self._view.follow(self._boot.generation)
        self._view.set_state(ProcessState.READY)
        await self._tell(Ready())

    def _open_admin(self) -> AdminServer:
        boot = self._boot
        assert boot.admin_socket is not None
        assert boot.config.admin is not None
        metrics = TableMetrics(
            self._view.reader,
            self._current_backends,
            checks=self._checking.counts,
            certificates=lambda: self._certificates,
            listeners=lambda: self._limited,
        )
        endpoints = self._endpoints = Endpoints(self._view.reader, metrics.render, boot.config.admin.token)
        boot.admin_socket.setblocking(False)
        listening = trio.socket.from_stdlib_socket(boot.admin_socket)
        return AdminServer(listening, endpoints.answer, self._log)

    def _current_backends(self) -> tuple[BackendRow, ...]:
        """The published backends, of whatever generation; decoded anew only when they changed.

        What is shown of them is all in the table, nothing in the configuration. So a membership that is just
        being put in force is shown already: rows of backends that it left out are soon another's.
        """
        if self._view.membership_epoch() != self._epoch:
            self._epoch, blob = self._view.read_membership()
            pools = msgpack.unpackb(blob)["pools"] if blob else {}
            self._backends = tuple(
                BackendRow(pool, backend[0], backend[5], published["ticket"])
                for pool, published in pools.items()
                for backend in published["backends"]
            )
        return self._backends

    async def _beat(self) -> None:
        while True:
            self._view.beat()
            await trio.sleep(BEAT)

    def _published_names(self) -> dict[TcpAddress, bool]:
        """The host names among the published backends, each with whether its addresses are published.

        Of whatever generation: the supervisor believes addresses of the names that it published last, and a
        name stands for the same with every configuration.
        """
        self._names_epoch, blob = self._view.read_membership()
        return published_names(msgpack.unpackb(blob)["pools"]) if blob else {}

    async def _keep_resolving(self) -> None:
        """Sees to it that names are resolved that come while lbproc runs: by a reload, or by an operator."""
        while True:
            await trio.sleep(LOOK)
            if self._view.membership_epoch() != self._names_epoch:
                self._resolver.follow(self._published_names())

    async def _tell_resolved(self, addresses: dict[str, list[str]]) -> None:
        await self._tell(Resolved(addresses))

    async def _tell(self, message: SupervisorBound) -> None:
        with suppress(ControlError):  # a supervisor that is gone is noticed by whoever listens to it
            await self._channel.send(message)

    async def _follow_supervisor(self, nursery: trio.Nursery) -> None:
        """Does what the supervisor says, until it says stop or is gone."""
        while (received := await self._channel.receive()) is not None:
            message, descriptors = received
            match message:
                case Stop():
                    return
                case Prepare():
                    nursery.start_soon(self._prepare, message, descriptors)
                case Follow(generation=generation):
                    await self._follow(generation)
                case Abandon(generation=generation):
                    self._abandon(generation)
                case ReopenLogs():
                    self._log.reopen()
                case _:
                    raise AssertionError(f"{type(message).__name__} is not for the controller")
        self._log.write(Event.SUPERVISOR_LOST)

    # Reloads ------------------------------------------------------------------------------------------------

    async def _prepare(self, message: Prepare, descriptors: tuple[int, ...]) -> None:
        """Learns what a configuration that may come needs: addresses of its names, first checks.

        Names that cannot be resolved refuse nothing: at the start they would not, either.
        """
        succession = self._next = _Succession(message.generation)
        try:
            await succession.take(message, descriptors)
            resolved = await self._resolver.learn(host_names(succession.config))
            if self._next is succession:
                await self._checking.rehearse(succession.config, message.generation, resolved)
        except Exception as error:
            self._abandon(message.generation)
            if not isinstance(error, LbprocError):
                self._log.write_crash(Event.RELOAD_CRASHED, error, generation=message.generation)
            reason = str(error) if isinstance(error, LbprocError) else f"{type(error).__name__}: {error}"
            await self._tell(Refused(message.generation, reason))
            return
        if self._next is succession:
            await self._tell(Prepared(message.generation))
        else:  # abandoned meanwhile; the next one may be under way
            succession.close()
            self._checking.forget(message.generation)

    async def _follow(self, generation: int) -> None:
        succession = self._next
        if succession is None or succession.generation != generation:
            return  # the supervisor sees that this controller does not follow
        self._next = None
        config = succession.config
        self._certificates = tuple(certified(config))
        self._limited = _limited_listeners(config)
        self._checking.move(config, generation)
        if self._endpoints is not None and config.admin is not None:
            self._endpoints.change_token(config.admin.token)
        self._log.change(config.log.level, succession.error_log)
        self._view.follow(generation)
        await self._tell(Following(generation))

    def _abandon(self, generation: int) -> None:
        if self._next is not None and self._next.generation == generation:
            self._next.close()
            self._next = None
            self._checking.forget(generation)
