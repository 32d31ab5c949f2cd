"""The five ways in which a body ends."""

from __future__ import annotations

import pytest

from lbproc.core.http.body import (
    Body,
    ChunkedBody,
    DechunkedBody,
    LengthBody,
    NoBody,
    UntilCloseBody,
    make_request_body,
    make_response_body,
)
from lbproc.core.http.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, FramingKind
from tests.core.http.messages import refused

FIVE = Framing(FramingKind.LENGTH, 5)


def test_no_body_is_complete_and_takes_nothing() -> None:
    body = NoBody()
    assert (body.complete, body.at_eof()) == (True, True)
    assert body.take(b"GET /") == (b"", b"GET /")


def test_a_length_takes_what_is_missing_without_copying() -> None:
    body = LengthBody(5)
    piece = bytes([1, 2, 3])
    assert body.take(piece)[0] is piece
    assert (body.complete, body.at_eof()) == (False, False)
    last = bytes([4, 5])
    taken, excess = body.take(last)
    assert taken is last
    assert excess == b""
    assert (body.complete, body.at_eof()) == (True, True)
    assert body.take(b"x") == (b"", b"x")


def test_a_length_leaves_the_excess() -> None:
    body = LengthBody(2)
    assert body.take(b"abGET") == (b"ab", b"GET")
    assert LengthBody(0).complete


def test_a_chunked_body_is_relayed_as_it_came() -> None:
    body = ChunkedBody(10)
    piece = b"3\r\nab"
    assert body.take(piece)[0] is piece
    assert (body.complete, body.at_eof()) == (False, False)
    assert body.take(b"c\r\n0\r\n\r\nGET") == (b"c\r\n0\r\n\r\n", b"GET")
    assert (body.complete, body.at_eof()) == (True, True)
    assert body.take(b"x") == (b"", b"x")
    with refused(413):
        ChunkedBody(2).take(b"3\r\n")


def test_a_dechunked_body_is_relayed_as_payload() -> None:
    body = DechunkedBody()
    assert body.take(b"3\r\nab") == (b"ab", b"")
    assert (body.complete, body.at_eof()) == (False, False)
    assert body.take(b"c\r\n1\r\nd\r\n0\r\nA: b\r\n\r\nX") == (b"cd", b"X")
    assert (body.complete, body.at_eof()) == (True, True)


def test_until_close_takes_all_and_ends_with_the_connection() -> None:
    body = UntilCloseBody()
    piece = b"abc"
    assert body.take(piece)[0] is piece
    assert not body.complete
    assert body.at_eof()
    assert body.complete


def test_until_close_is_cut_short_when_somebody_else_may_have_closed() -> None:
    body = UntilCloseBody()
    assert (body.at_eof(is_truncated=True), body.complete) == (False, False)


@pytest.mark.parametrize("body", [LengthBody(0), LengthBody(1), ChunkedBody(None), DechunkedBody()])
def test_other_bodies_have_their_own_ends(body: Body) -> None:
    assert body.at_eof(is_truncated=True) == body.complete


@pytest.mark.parametrize("body", [ChunkedBody(None), DechunkedBody()])
def test_lines_of_framing_are_counted_once_they_are_whole(body: Body) -> None:
    counts = []
    for piece in (b"1\r", b"\na\r\n2;x\r\nbc", b"\r\n0", b"\r\n", b"A: b\r\n\r\nX: y\r\n"):
        body.take(piece)
        counts.append(body.lines)
    assert counts == [0, 2, 2, 3, 3]
    assert body.complete


@pytest.mark.parametrize("body", [NoBody(), LengthBody(9), UntilCloseBody()])
def test_a_body_without_framing_has_no_lines(body: Body) -> None:
    body.take(b"1\r\na\r\n0\r\n\r\n")
    assert body.lines == 0


@pytest.mark.parametrize(
    ("body", "sent", "relayed"),
    [
        (NoBody(), b"NEXT", b""),
        (LengthBody(3), b"abcNEXT", b"abc"),
        (ChunkedBody(None), b"3\r\nabc\r\n0\r\n\r\nNEXT", b"3\r\nabc\r\n0\r\n\r\n"),
        (DechunkedBody(), b"3\r\nabc\r\n0\r\n\r\nNEXT", b"abc"),
    ],
)
def test_of_a_view_only_what_is_relayed_may_be_a_view(body: Body, sent: bytes, relayed: bytes) -> None:
    buffer = bytearray(sent)
    taken, excess = body.take(memoryview(buffer))
    assert (bytes(taken), body.complete) == (relayed, True)
    buffer[:] = b"?" * len(buffer)
    assert excess == b"NEXT"


def test_views_are_passed_on_without_copying() -> None:
    for body in (LengthBody(10), ChunkedBody(None), UntilCloseBody()):
        buffer = memoryview(bytearray(b"5\r\nabc"))
        taken, _ = body.take(buffer)
        assert taken.obj is buffer.obj


@pytest.mark.parametrize(("framing", "kind"), [(NO_BODY, NoBody), (FIVE, LengthBody), (CHUNKED, ChunkedBody)])
def test_the_body_of_a_request_follows_its_framing(framing: Framing, kind: type[Body]) -> None:
    assert isinstance(make_request_body(framing, 5), kind)


def test_a_request_that_announces_too_much_is_refused_at_once() -> None:
    with refused(413):
        make_request_body(FIVE, 4)
    with refused(413):
        make_request_body(CHUNKED, 4).take(b"5\r\n")


@pytest.mark.parametrize(
    ("framing", "dechunk", "kind"),
    [
        (NO_BODY, False, NoBody),
        (FIVE, True, LengthBody),
        (CHUNKED, False, ChunkedBody),
        (CHUNKED, True, DechunkedBody),
        (UNTIL_CLOSE, False, UntilCloseBody),
    ],
)
def test_the_body_of_a_response_follows_its_framing(
    framing: Framing, dechunk: bool, kind: type[Body]
) -> None:
    assert isinstance(make_response_body(framing, dechunk), kind)
