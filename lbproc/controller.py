"""The controller: one trio event loop for what concerns lbproc as a whole and no client.

Wires host name resolution and the admin listener, and owns their lifetimes; decides nothing. It says that
it is ready when the first round of names is resolved and told, so that workers are born with addresses.
Traffic does not need it: when it dies, workers go on with what is published. When the supervisor is gone it
leaves at once.
"""

from __future__ import annotations

import msgpack
import trio

from lbproc.admin.endpoints import Endpoints
from lbproc.admin.metrics import BackendRow, TableMetrics
from lbproc.admin.server import AdminServer
from lbproc.boot import ControllerBoot
from lbproc.core.control.membership import host_names
from lbproc.core.control.messages import Ready, ReopenLogs, Resolved, Stop
from lbproc.discovery.resolve import Lookup, Resolver, look_up
from lbproc.errors import ControlError
from lbproc.net.channel import ChildChannel
from lbproc.shm.views import ControllerView, ProcessState
from lbproc.telemetry.events import Event
from lbproc.types import Seconds

BEAT: Seconds = 1.0


def run_controller(boot: ControllerBoot) -> int:
    """Runs the controller in this process, which was just forked, to its end.

    Returns:
        The exit status.
    """
    return trio.run(Controller(boot).main)


class Controller:
    """The wiring of the controller.

    Args:
        boot: what it was born with.
        lookup: resolves one host name.
    """

    def __init__(self, boot: ControllerBoot, lookup: Lookup = look_up) -> None:
        self._boot = boot
        self._lookup = lookup
        self._view = ControllerView(boot.table, boot.column)
        self._log = boot.error_log
        self._channel_end = boot.channel
        self._backends: tuple[BackendRow, ...] = ()
        self._epoch = -1

    async def main(self) -> int:
        """Works until told to leave, or until the supervisor is gone."""
        self._channel = ChildChannel(self._channel_end)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._beat)
                nursery.start_soon(self._work, nursery)
                await self._follow_supervisor()
                nursery.cancel_scope.cancel()
        finally:
            if self._boot.admin_socket is not None:
                self._boot.admin_socket.close()
            self._channel.close()
        return 0

    async def _work(self, nursery: trio.Nursery) -> None:
        resolver = Resolver(host_names(self._boot.config), self._tell_resolved, self._log, self._lookup)
        await nursery.start(resolver.run)
        if self._boot.admin_socket is not None:
            nursery.start_soon(self._open_admin().run)
        self._view.set_state(ProcessState.READY)
        # A supervisor that is gone is noticed by whoever listens to it.
        try:
            await self._channel.send(Ready())
        except ControlError:
            return

    def _open_admin(self) -> AdminServer:
        boot = self._boot
        assert boot.admin_socket is not None
        assert boot.config.admin is not None
        metrics = TableMetrics(self._view.reader, self._current_backends)
        endpoints = Endpoints(self._view.reader, metrics.render, boot.config.admin.token)
        boot.admin_socket.setblocking(False)
        listening = trio.socket.from_stdlib_socket(boot.admin_socket)
        return AdminServer(listening, endpoints.answer, self._log)

    def _current_backends(self) -> tuple[BackendRow, ...]:
        """The published backends; decoded anew only when they changed."""
        if self._view.membership_epoch() != self._epoch:
            self._epoch, blob = self._view.read_membership()
            pools = msgpack.unpackb(blob)["pools"] if blob else {}
            self._backends = tuple(
                BackendRow(pool, backend[0], backend[5])
                for pool, published in pools.items()
                for backend in published["backends"]
            )
        return self._backends

    async def _beat(self) -> None:
        while True:
            self._view.beat()
            await trio.sleep(BEAT)

    async def _tell_resolved(self, addresses: dict[str, list[str]]) -> None:
        try:
            await self._channel.send(Resolved(addresses))
        except ControlError:
            return  # noticed by whoever listens to it

    async def _follow_supervisor(self) -> None:
        """Does what the supervisor says, until it says stop or is gone."""
        while (received := await self._channel.receive()) is not None:
            message, _ = received
            match message:
                case Stop():
                    return
                case ReopenLogs():
                    self._log.reopen()
                case _:
                    raise AssertionError(f"{type(message).__name__} is not for the controller")
        self._log.write(Event.SUPERVISOR_LOST)
