from __future__ import annotations

import os

import pytest

from lbproc.errors import CapacityError
from lbproc.shm.layout import Capacities
from lbproc.shm.membership import Membership
from lbproc.shm.table import Table


def whole(epoch: int) -> bytes:
    return bytes([epoch % 251]) * (1000 + epoch % 3000)


def test_before_the_first_publication_there_is_nothing(table: Table) -> None:
    membership = Membership(table)
    assert membership.epoch() == 0
    assert membership.read() == (0, b"")


def test_the_newest_is_read_with_its_epoch(table: Table) -> None:
    publisher, reader = Membership(table), Membership(table)
    for epoch, content in enumerate([b"first", b"the second is longer", b"3", b"", b"x" * 64], start=1):
        assert publisher.publish(content) == epoch
        assert reader.epoch() == epoch
        assert reader.read() == (epoch, content)


def test_what_does_not_fit_is_refused_and_the_last_one_stays(table: Table) -> None:
    membership = Membership(table)
    membership.publish(b"small")
    with pytest.raises(CapacityError, match="65 bytes, the shared table has room for 64"):
        membership.publish(b"x" * 65)
    assert membership.read() == (1, b"small")


def test_a_copy_that_a_publication_came_into_is_made_again(table: Table) -> None:
    class Interrupted(Table):
        """Two publications come in during the first copy, the second into the copied buffer."""

        to_publish = (b"two", b"three")

        def read_bytes(self, word: int, length: int) -> bytes:
            copied = super().read_bytes(word, length)
            for content in self.to_publish:
                Membership(table).publish(content)
            Interrupted.to_publish = ()  # type: ignore[assignment]
            return copied

    Membership(table).publish(b"one")
    assert Membership(Interrupted(table.fd, table.layout)).read() == (3, b"three")


@pytest.mark.slow
def test_a_reader_in_another_process_never_sees_a_mixture() -> None:
    table = Table.create(Capacities(columns=3, backends=1, pools=1, keys=1, ledger=1, membership_bytes=4096))
    membership = Membership(table)
    membership.publish(whole(1))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            last = 0
            while last < 3000:
                epoch, content = membership.read()
                assert epoch >= last
                assert content == whole(epoch)
                last = epoch
            status = 0
        finally:
            os._exit(status)
    for epoch in range(2, 3001):
        assert membership.publish(whole(epoch)) == epoch
    assert os.waitpid(child, 0)[1] == 0
    table.close()
