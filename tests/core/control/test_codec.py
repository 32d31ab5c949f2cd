"""Control messages survive the way through bytes, in any portions; nothing else gets through."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.control.codec import MAX_MESSAGE_BYTES, Decoder, encode
from lbproc.core.control.messages import (
    MESSAGES,
    Abandon,
    AdminRequest,
    Adopt,
    BackendAddRequest,
    BackendRemoveRequest,
    Disown,
    Drained,
    DrainSlot,
    FailedToBoot,
    Follow,
    Following,
    Leave,
    Lend,
    Message,
    Prepare,
    Prepared,
    Progress,
    Ready,
    Refused,
    Relinquished,
    ReloadRequest,
    ReopenLogs,
    Reply,
    Resolved,
    StatusRequest,
    Stop,
    StopRequest,
    WeightRequest,
    Worn,
)
from lbproc.errors import ControlError

EXAMPLES: tuple[Message, ...] = (
    Adopt(3, ((1, "web", "127.0.0.1:80"), (2, "api", "[::1]:81"))),
    Adopt(0, (), inbox=True),
    Disown(3),
    Stop(now=True),
    Stop(now=False, retires=True),
    DrainSlot(2),
    Lend(7, 1, ((4, "web", "127.0.0.1:80"),)),
    Prepare(7, 4, ((4, "web"), (5, "api")), (2, 3), access_log=True, error_log=False),
    Follow(7),
    Abandon(7),
    ReopenLogs(),
    Leave(),
    Worn(),
    Ready(),
    FailedToBoot("no\nroom"),
    Resolved({"db:80": ["10.0.0.1:80", "10.0.0.2:80"], "x:1": []}),
    Drained(2),
    Prepared(7),
    Refused(7, "no room"),
    Following(7),
    Relinquished(7),
    StatusRequest(),
    StopRequest(now=False, wait=True),
    ReloadRequest("/etc/lbproc.toml", dry_run=True),
    AdminRequest("web", "10.0.0.1:80", "drain", wait=True, timeout=30.0),
    WeightRequest("web", "b", 3),
    WeightRequest("web", "b", None),
    BackendAddRequest("web", {"address": "10.0.0.1:80", "weight": 2, "backup": True}),
    BackendRemoveRequest("web", "unix:/run/a/b.sock", wait=False, timeout=0.0),
    Progress({"in_flight": 3}),
    Reply(ok=True, body={"pools": {"web": [1, 2.5, None, "x", True]}}),
    Reply(ok=False, body="no"),
)


def framed(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def decode_all(octets: bytes, portion: int) -> list[Message]:
    decoder, found = Decoder(), []
    for start in range(0, len(octets), portion):
        decoder.feed(octets[start : start + portion])
        while (message := decoder.next_message()) is not None:
            found.append(message)
    assert decoder.is_empty
    return found


def test_there_is_an_example_of_every_message() -> None:
    assert {type(message) for message in EXAMPLES} == set(MESSAGES.values())


@pytest.mark.parametrize("portion", [1, 2, 3, 5, 7, 64, 100_000])
def test_messages_come_out_as_they_went_in_whatever_the_portions(portion: int) -> None:
    octets = b"".join(encode(message) for message in EXAMPLES)
    assert decode_all(octets, portion) == list(EXAMPLES)


def test_an_incomplete_message_is_waited_for() -> None:
    decoder = Decoder()
    octets = encode(Disown(7))
    for octet in octets[:-1]:
        decoder.feed(bytes([octet]))
        assert decoder.next_message() is None
        assert not decoder.is_empty
    decoder.feed(octets[-1:])
    assert decoder.next_message() == Disown(7)


@given(
    st.builds(Resolved, st.dictionaries(st.text(), st.lists(st.text()))) | st.builds(FailedToBoot, st.text())
)
def test_any_text_comes_through(message: Message) -> None:
    assert decode_all(encode(message), 1000) == [message]


def test_text_that_is_no_unicode_is_sent_all_the_same() -> None:
    assert decode_all(encode(FailedToBoot("/tmp/\udcff")), 1000) == [FailedToBoot("/tmp/?")]


@pytest.mark.parametrize(
    "content",
    [
        None,
        7,
        [],
        ["Ready"],
        ["Ready", {}, 1],
        ["Unknown", {}],
        [1, {}],
        ["Ready", []],
        {"Ready": {}},
        ["Ready", {"surplus": 1}],
        ["Disown", {}],
        ["Disown", {"slot": "3"}],
        ["Disown", {"slot": True}],
        ["Disown", {"slot": 1.0}],
        ["Stop", {"now": 1, "retires": False}],
        ["Stop", {"now": True, "retires": 1}],
        ["FailedToBoot", {"reason": b"bytes"}],
        ["Resolved", {"addresses": []}],
        ["Resolved", {"addresses": {"a": "b"}}],
        ["Resolved", {"addresses": {b"a": ["b"]}}],
        ["Resolved", {"addresses": {"a": [1]}}],
        ["Adopt", {"slot": 1, "listeners": [["a"]], "inbox": False}],
        ["Adopt", {"slot": 1, "listeners": [["a", "b", "c"]], "inbox": False}],
        ["Adopt", {"slot": 1, "listeners": [["a", 1]], "inbox": False}],
        ["Adopt", {"slot": 1, "listeners": "ab", "inbox": False}],
        ["Adopt", {"slot": 1, "listeners": [], "inbox": 1}],
        ["WeightRequest", {"pool": "a", "backend": "b", "weight": "3"}],
        ["WeightRequest", {"pool": "a", "backend": "b", "weight": True}],
        ["BackendAddRequest", {"pool": "a", "backend": {1: 2}}],
        ["BackendAddRequest", {"pool": "a", "backend": None}],
    ],
)
def test_what_is_not_a_message_is_refused(content: object) -> None:
    decoder = Decoder()
    decoder.feed(framed(msgpack.packb(content)))
    with pytest.raises(ControlError):
        decoder.next_message()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91" * 5000,
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x92\xa5Ready\x80\x00",
        b"\x81\x80\x80",
        b"\x92\xa1\xff\x80",
    ],
    ids=["empty", "reserved", "deep", "endless list", "endless bytes", "rest", "map as key", "not utf-8"],
)
def test_bytes_that_are_not_msgpack_are_refused(payload: bytes) -> None:
    decoder = Decoder()
    decoder.feed(framed(payload))
    with pytest.raises(ControlError):
        decoder.next_message()


@given(st.binary(max_size=200))
def test_random_bytes_never_raise_anything_but_control_errors(octets: bytes) -> None:
    decoder = Decoder(max_bytes=100)
    decoder.feed(octets)
    try:
        while decoder.next_message() is not None:
            pass
    except ControlError:
        pass


@given(
    st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3), st.lists, max_leaves=8)
)
def test_random_values_in_the_fields_of_a_known_message(value: object) -> None:
    for name, kind in MESSAGES.items():
        decoder = Decoder()
        decoder.feed(framed(msgpack.packb([name, {field.name: value for field in fields(kind)}])))
        try:
            message = decoder.next_message()
        except ControlError:
            continue
        assert type(message) is kind


def test_a_message_above_the_bound_is_refused_before_it_is_read() -> None:
    decoder = Decoder(max_bytes=10)
    decoder.feed((11).to_bytes(4, "big"))
    with pytest.raises(ControlError, match="11 bytes"):
        decoder.next_message()


def test_a_message_that_nobody_would_accept_is_not_sent() -> None:
    with pytest.raises(ControlError, match="above"):
        encode(FailedToBoot("x" * MAX_MESSAGE_BYTES))


def test_every_field_has_a_type_that_the_codec_checks() -> None:
    checked = {
        int,
        float,
        bool,
        str,
        object,
        int | None,
        dict[str, object],
        dict[str, list[str]],
        tuple[int, ...],
        tuple[tuple[int, str], ...],
        tuple[tuple[int, str, str], ...],
    }
    for kind in MESSAGES.values():
        assert set(get_type_hints(kind).values()) <= checked
