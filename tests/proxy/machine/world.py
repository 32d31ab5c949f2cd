"""The machine's world: one worker in a rig, clients and backends around it, and the judges.

Owns who is there, and the steps: peers do something, then the proxy runs until it has nothing left to do,
then the judges look. What is done is the business of ``actions`` and ``endings``. Time moves only by
`World.advance`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from lbproc.net.connect import ConnectFailed
from lbproc.proxy.connection import ClientConnection
from lbproc.types import Row
from tests.proxy.machine.account import Account, require
from tests.proxy.machine.actions import act
from tests.proxy.machine.audit import audit
from tests.proxy.machine.backend_view import BackendView
from tests.proxy.machine.client_view import ClientView
from tests.proxy.machine.endings import end
from tests.proxy.machine.patience import check_progress
from tests.proxy.machine.peers import Client, Conn
from tests.proxy.machine.requests import render_request
from tests.proxy.machine.setting import ADDRESSES, STEP, configuration
from tests.proxy.machine.tap import Journal, Tap, joined
from tests.proxy.rig import Rig

if TYPE_CHECKING:
    from lbproc.net.transport import Transport
    from lbproc.types import Address
    from tests.proxy.machine.script import Script

SLOW_CONNECT = 0.4


class MachineRig(Rig):
    """A rig whose connections are tapped."""

    def __init__(self, path: Path, script: Script) -> None:
        self.script = script
        self.account = Account(orderly=script.orderly)
        self.journal: Journal = []
        self.conns: list[Conn] = []
        super().__init__(path, configuration(script.backends, script.cap))

    async def _connect(self, address: Address, deadline: float) -> Transport:
        name = str(address)
        self.dialled.append(name)
        kind = self.refusing.get(name)
        if kind == "timeout":
            await trio.sleep_until(deadline)
        elif kind is not None:
            await trio.sleep(SLOW_CONNECT)
        if kind not in {None, "slow"}:
            raise ConnectFailed(kind, kind)  # type: ignore[arg-type]
        _, _, inward, outward = self.script.capacities
        view = BackendView(self.account, name)
        tap = Tap("127.0.0.1", outward, self.script.fragment, view, self.journal)
        self.conns.append(Conn(tap, joined(tap, inward), view))
        return tap

    def in_flights(self) -> list[int]:
        """Places taken at each address."""
        return [self.reader.in_flight(Row(number)) for number in range(len(ADDRESSES))]

    def close(self) -> None:
        self.runtime.retire()
        self.access_log.close()
        self.context.log.close()
        self.table.close()


class World:
    """One run of a script."""

    def __init__(self, script: Script, path: Path, clock: MockClock) -> None:
        self.script = script
        self.rig = MachineRig(path, script)
        self.account = self.rig.account
        self.clients: list[Client] = []
        self.connections: list[ClientConnection] = []
        self._clock = clock

    async def run(self) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                for action in self.script.actions:
                    await act(self, action)
                await self.settle()
                await end(self)
                require(self.account.stopped or not self.nursery.child_tasks, "a task that is left")
                self.nursery.cancel_scope.cancel()
            self.digest()
            audit(self)
        finally:
            self.rig.close()

    # Who is there -------------------------------------------------------------------------------------------

    def client(self, who: int) -> Client:
        """A client; it connects when it is first heard of."""
        number = who % len(self.script.clients)
        while len(self.clients) <= number:
            self._open(len(self.clients))
        return self.clients[number]

    def _open(self, number: int) -> None:
        ip = f"192.0.2.{number + 1}"
        exchanges = self.script.clients[number]
        requests = [render_request(e.request, number, index) for index, e in enumerate(exchanges)]
        view = ClientView(self.account, ip.encode(), exchanges, requests)
        view.opened_at = trio.current_time()
        self.account.clients[view.ip] = view
        inward, outward, _, _ = self.script.capacities
        tap = Tap(ip, outward, self.script.fragment, view, self.rig.journal)
        client = Client(tap, joined(tap, inward), view)
        connection = ClientConnection(tap, self.rig.http(), self.rig.context)
        self.clients.append(client)
        self.connections.append(connection)
        self.nursery.start_soon(self._serve, connection, client)

    @staticmethod
    async def _serve(connection: ClientConnection, client: Client) -> None:
        try:
            await connection.serve()
        finally:
            client.is_served = False

    def conn(self, who: int) -> Conn | None:
        """A backend connection of which the backend has not let go, the newest first."""
        there = [conn for conn in self.rig.conns if conn.is_there]
        return there[-1 - who % len(there)] if there else None

    def taps(self) -> list[Tap]:
        return [peer.tap for peer in (*self.clients, *self.rig.conns)]

    # Steps --------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Lets the proxy do all it can, and looks at it."""
        for tap in self.taps():
            tap.in_vain = 0
        await wait_all_tasks_blocked()
        self.digest()
        served = [client.view for client in self.clients if client.is_served]
        taken = self.rig.in_flights()
        require(sum(taken) <= len(served), "more requests in flight than clients", taken)
        require(sum(taken) == len(self.rig.view.ledger), "places that nobody holds", taken)
        require(max(taken) <= (self.script.cap or sum(taken)), "more in flight than allowed", taken)
        for view in served:
            if not view.proxy_ended:
                check_progress(view)
                busy = view.is_answering or view.has_begun(len(view.finals))
                require(busy or not self.account.leaving, "an idle connection when the worker leaves")

    def digest(self) -> None:
        """Tells the judges what the proxy has done since the last time."""
        self.account.now = trio.current_time()
        while self.rig.journal:
            entries = self.rig.journal[:]
            self.rig.journal.clear()
            for tell in entries:
                tell()

    async def advance(self, seconds: float) -> None:
        """Lets time pass, and the sweeper look as often as it does."""
        deadline = trio.current_time() + seconds
        while (rest := deadline - trio.current_time()) > 0:
            self._clock.jump(min(STEP, rest))
            self.rig.deadlines.sweep(trio.current_time())
            await self.settle()

    async def flow(self, rounds: int) -> bool:
        """Everybody does what is to be done, some times over. Returns whether it came to rest."""
        sends, reads, takes, answers = self.script.pace
        for _ in range(rounds):
            moved = 0
            for client in self.clients:
                moved += client.send_on(sends, polite=self.script.polite) + client.take(reads)
            await self.settle()
            for conn in self.rig.conns:
                moved += conn.take(takes) + conn.think() + conn.send(answers)
            await self.settle()
            if not moved:
                return True
        return False


def play(script: Script) -> None:
    """Runs a script from its beginning to its end.

    Raises:
        Violation: something was seen that must not be.
    """
    clock = MockClock()
    clock.jump(1000.0)  # instants are never 0, which stands for "not yet"
    with TemporaryDirectory(prefix="lbproc-machine-") as name:

        async def main() -> None:
            await World(script, Path(name), clock).run()

        trio.run(main, clock=clock)
