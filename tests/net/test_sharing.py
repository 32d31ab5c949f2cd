"""Giving connections away: table, decision and inbox together, with the real ones of each."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from lbproc.net.inbox import open_inbox
from lbproc.net.sharing import Sharing
from lbproc.shm.cells import ProcessState, Role, WorkerCounter
from lbproc.shm.layout import Capacities
from lbproc.shm.siblings import Siblings
from lbproc.shm.supervisor_view import SupervisorView
from lbproc.shm.table import Table
from lbproc.shm.worker_view import WorkerView
from lbproc.types import Slot

PEER = ("192.0.2.7", 40000)


class Office:
    """Three workers in a table of their own, seen from the first."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        table = Table.create(Capacities(columns=6, backends=1, pools=1, keys=1, ledger=1, membership_bytes=8))
        stack.callback(table.close)
        supervisor = SupervisorView(table)
        columns = [supervisor.allocate_column(Slot(slot), Role.WORKER) for slot in range(3)]
        self.workers = [WorkerView(table, column) for column in columns]
        for worker in self.workers:
            worker.set_state(ProcessState.READY)
        self.inboxes: dict[Slot, socket.socket] = {}
        outboxes = {}
        for slot in (Slot(1), Slot(2)):
            self.inboxes[slot], outboxes[slot] = (stack.enter_context(end) for end in open_inbox())
        self.siblings = Siblings(table, Slot(0), 3)
        self.sharing = Sharing(Slot(0), self.siblings, outboxes)

    def accept(self) -> tuple[bool, socket.socket]:
        """A connection comes to the first worker; whether it was given away, and the socket."""
        client, accepted = socket.socketpair()
        self._stack.enter_context(client)
        self._stack.enter_context(accepted)
        return self.sharing.give_away(7, accepted, PEER), accepted

    def hold(self, slot: int, connections: int) -> None:
        self.workers[slot].count(WorkerCounter.CONNECTIONS, connections)

    def waiting(self) -> list[int]:
        return [self.siblings.waiting(Slot(slot)) for slot in range(3)]


@pytest.fixture
def office() -> Iterator[Office]:
    with ExitStack() as stack:
        yield Office(stack)


def test_while_loads_are_even_everything_is_kept(office: Office) -> None:
    for slot in range(3):
        office.hold(slot, 100)
    for _ in range(5):
        given, sock = office.accept()
        assert not given
        assert sock.fileno() >= 0
        office.hold(0, 1)
    assert office.waiting() == [0, 0, 0]


def test_what_is_too_much_goes_to_the_siblings_in_turn_and_is_counted_as_theirs(office: Office) -> None:
    office.hold(0, 10)
    for _ in range(6):
        given, sock = office.accept()
        assert given
        assert sock.fileno() < 0
    assert office.waiting() == [0, 3, 3]
    assert len(office.inboxes[Slot(1)].recv(1000)) > 0


def test_a_sibling_that_is_not_ready_gets_nothing(office: Office) -> None:
    office.hold(0, 10)
    office.workers[1].set_state(ProcessState.DRAINING)
    assert office.accept()[0]
    assert office.waiting() == [0, 0, 1]
    office.workers[2].set_state(ProcessState.STARTING)
    assert not office.accept()[0]


def test_what_cannot_be_sent_is_kept_and_not_counted(office: Office) -> None:
    office.hold(0, 10)
    for inbox in office.inboxes.values():
        inbox.shutdown(socket.SHUT_RD)
    given, sock = office.accept()
    assert not given
    assert sock.fileno() >= 0
    assert office.waiting() == [0, 0, 0]


def test_connections_that_come_and_go_are_kept_and_long_ones_shared_again(office: Office) -> None:
    office.hold(0, 10)
    office.sharing.follow(ended=1000, held=10, seconds=1.0)
    assert not office.accept()[0]
    office.sharing.follow(ended=0, held=10, seconds=1.0)
    assert office.accept()[0]


def test_other_numbers_of_workers_are_shared_with_from_then_on(office: Office) -> None:
    office.hold(0, 10)
    inbox, outbox = open_inbox()
    with inbox:
        office.sharing.resize(4, {Slot(3): outbox})
        office.sharing.resize(2, {})
        assert outbox.fileno() < 0, "the way to a slot that went is closed"
    for _ in range(3):
        assert office.accept()[0]
    assert office.waiting() == [0, 3, 0]


def test_a_worker_whose_own_slot_goes_keeps_everything(office: Office) -> None:
    office.hold(0, 10)
    office.sharing.resize(0, {})
    assert not office.accept()[0]


def test_what_cannot_be_served_here_goes_to_any_sibling(office: Office) -> None:
    client, accepted = socket.socketpair()
    with client, accepted:
        assert office.sharing.pass_on(9, accepted, PEER)
        assert office.waiting() == [0, 1, 0]
        office.sharing.close()
        again = client.dup()
        with again:
            assert not office.sharing.pass_on(9, again, PEER)
