"""Messages know how many descriptors travel with them."""

from __future__ import annotations

from lbproc.core.control.messages import MESSAGES, Adopt, Lend, Prepare, Ready, descriptor_count


def test_adopt_comes_with_a_descriptor_for_each_listener_and_one_for_the_inbox() -> None:
    listeners = ((1, "web", "127.0.0.1:80"), (2, "web", "[::1]:80"))
    assert descriptor_count(Adopt(1, listeners)) == 2
    assert descriptor_count(Adopt(1, listeners, inbox=True)) == 3
    assert descriptor_count(Adopt(1, (), inbox=True)) == 1
    assert descriptor_count(Lend(2, 1, listeners)) == 2
    assert descriptor_count(Ready()) == 0


def test_prepare_comes_with_the_configuration_and_with_outboxes_and_logs_that_are_new() -> None:
    names = ((1, "web"),)
    assert descriptor_count(Prepare(2, 4, names, (), access_log=False, error_log=False)) == 1
    assert descriptor_count(Prepare(2, 4, names, (2, 3), access_log=True, error_log=False)) == 4
    assert descriptor_count(Prepare(2, 4, names, (2, 3), access_log=True, error_log=True)) == 5


def test_messages_are_registered_by_their_name() -> None:
    assert all(name == kind.__name__ for name, kind in MESSAGES.items())
