"""Messages know how many descriptors travel with them."""

from __future__ import annotations

from lbproc.core.control.messages import MESSAGES, Adopt, Ready, descriptor_count


def test_adopt_comes_with_a_descriptor_for_each_listener_and_one_for_the_inbox() -> None:
    listeners = (("web", "127.0.0.1:80"), ("web", "[::1]:80"))
    assert descriptor_count(Adopt(1, listeners)) == 2
    assert descriptor_count(Adopt(1, listeners, inbox=True)) == 3
    assert descriptor_count(Adopt(1, (), inbox=True)) == 1
    assert descriptor_count(Ready()) == 0


def test_messages_are_registered_by_their_name() -> None:
    assert all(name == kind.__name__ for name, kind in MESSAGES.items())
