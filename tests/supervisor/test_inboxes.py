"""The inboxes of the slots: what is in them belongs to the slot, and each child has its own ends only."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from lbproc.errors import StartError
from lbproc.net.inbox import hand_over
from lbproc.supervisor.inboxes import Inboxes
from lbproc.types import Slot
from tests.supervisor.scarcity import no_descriptor_left

PEER = ("192.0.2.7", 40000)


@pytest.fixture
def inboxes() -> Iterator[Inboxes]:
    inboxes = Inboxes(3)
    yield inboxes
    inboxes.close()


def give(outbox: socket.socket) -> bool:
    client, accepted = socket.socketpair()
    with client, accepted:
        return hand_over(outbox, 7, accepted, PEER)


def test_what_is_sent_to_a_slot_waits_in_its_inbox(inboxes: Inboxes) -> None:
    assert set(inboxes.outboxes(Slot(1))) == {Slot(0), Slot(2)}
    assert give(inboxes.outboxes(Slot(1))[Slot(2)])
    assert give(inboxes.outboxes(Slot(0))[Slot(2)])
    for _ in range(2):
        assert inboxes.of_slot(Slot(2)).recv(1000)
    for slot in range(3):
        with pytest.raises(BlockingIOError):
            inboxes.of_slot(Slot(slot)).recv(1000)


def test_after_refuse_nobody_sends_and_what_waits_is_there(inboxes: Inboxes) -> None:
    outbox = inboxes.outboxes(Slot(0))[Slot(1)]
    assert give(outbox)
    inboxes.refuse()
    inboxes.refuse()
    assert not give(outbox)
    assert inboxes.of_slot(Slot(1)).recv(1000)
    assert inboxes.of_slot(Slot(1)).recv(1000) == b""


def test_inboxes_of_new_slots_are_nobodys_until_they_are_in_force(inboxes: Inboxes) -> None:
    inboxes.prepare(5)
    assert set(inboxes.next_outboxes()) == {Slot(3), Slot(4)}
    assert set(inboxes.outboxes(Slot(0))) == {Slot(1), Slot(2)}
    inboxes.undo()
    assert inboxes.next_outboxes() == {}
    inboxes.prepare(4)
    assert give(inboxes.next_outboxes()[Slot(3)])
    inboxes.commit(4)
    assert inboxes.next_outboxes() == {}
    assert set(inboxes.outboxes(Slot(0))) == {Slot(1), Slot(2), Slot(3)}
    assert inboxes.of_slot(Slot(3)).recv(1000)


def test_what_waits_in_the_inbox_of_a_slot_that_is_given_up_is_there_until_it_is_closed(
    inboxes: Inboxes,
) -> None:
    outbox = inboxes.outboxes(Slot(0))[Slot(2)]
    assert give(outbox)
    inboxes.commit(2)
    inboxes.retire_from(Slot(2))
    assert not give(outbox)
    assert give(inboxes.outboxes(Slot(0))[Slot(1)])
    assert set(inboxes.outboxes(Slot(0))) == {Slot(1)}
    inbox = inboxes.of_slot(Slot(2))
    assert inbox.recv(1000)
    inboxes.close_slots_from(Slot(2))
    assert inbox.fileno() == outbox.fileno() == -1
    inboxes.prepare(3)
    inboxes.commit(3)
    assert give(inboxes.outboxes(Slot(0))[Slot(2)])


def in_child(act: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if act() else 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def is_open(sock: socket.socket) -> bool:
    return sock.fileno() >= 0


def test_a_worker_keeps_its_inbox_and_the_ways_to_the_others(inboxes: Inboxes) -> None:
    def keep() -> bool:
        slot = Slot(1)
        inbox, outboxes = inboxes.of_slot(slot), inboxes.outboxes(slot)
        theirs = [inboxes.of_slot(Slot(other)) for other in (0, 2)]
        way_here = inboxes.outboxes(Slot(0))[slot]
        inboxes.close_in_child(slot)
        kept = [inbox, *outboxes.values()]
        return all(map(is_open, kept)) and not any(map(is_open, [*theirs, way_here]))

    assert in_child(keep)


def test_the_controller_keeps_nothing_and_the_supervisor_everything(inboxes: Inboxes) -> None:
    ends = [inboxes.of_slot(Slot(slot)) for slot in range(3)]
    ends += [*inboxes.outboxes(Slot(0)).values(), *inboxes.outboxes(Slot(1)).values()]

    def keep() -> bool:
        inboxes.close_in_child(None)
        return not any(map(is_open, ends))

    assert in_child(keep)
    assert all(map(is_open, ends))


def test_too_few_descriptors_are_a_failed_start() -> None:
    with no_descriptor_left(), pytest.raises(StartError, match="inboxes of 3 workers"):
        Inboxes(3)
