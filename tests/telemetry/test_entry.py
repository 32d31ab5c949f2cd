from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.telemetry.entry import (
    render_asked,
    render_backend,
    render_caller,
    render_entry,
    render_plain_entry,
    render_routed,
)

KEYS = [
    "time",
    "client_ip",
    "listener",
    "route",
    "pool",
    "backend",
    "method",
    "host",
    "target",
    "version",
    "status",
    "cause",
    "bytes_in",
    "bytes_out",
    "queue_ms",
    "connect_ms",
    "first_byte_ms",
    "total_ms",
    "retries",
    "request_id",
    "tls",
]
ORDINARY: dict[str, Any] = {
    "time": "2026-07-01T12:00:00.125Z",
    "client_ip": "192.0.2.7",
    "listener": "web",
    "route": "api",
    "pool": "web",
    "backend": "127.0.0.1:9001",
    "method": b"GET",
    "host": b"example.com",
    "target": b"/a?b=c",
    "version": "1.1",
    "status": 200,
    "cause": None,
    "bytes_in": 120,
    "bytes_out": 4000,
    "queue_ms": None,
    "connect_ms": 0.25,
    "first_byte_ms": 1.5,
    "total_ms": 2.0006,
    "retries": 0,
    "request_id": "0123",
    "tls": None,
}


def render(**changes: Any) -> bytes:
    members = ORDINARY | changes

    def take(*names: str) -> list[Any]:
        return [members.pop(name) for name in names]

    return render_entry(
        caller=render_caller(*take("client_ip", "listener")),
        routed=render_routed(*take("route", "pool")),
        backend=render_backend(*take("backend")),
        asked=render_asked(*take("method", "host", "target", "version")),
        **members,
    )


@pytest.mark.parametrize("target", [b"/", b"/" + b"a" * 5000])
def test_a_plain_line_is_the_same_as_any_other(target: bytes) -> None:
    plain = {"connect_ms": None, "target": target}
    parts: dict[str, Any] = {
        "caller": render_caller(ORDINARY["client_ip"], ORDINARY["listener"]),
        "routed": render_routed(ORDINARY["route"], ORDINARY["pool"]),
        "backend": render_backend(ORDINARY["backend"]),
        "asked": render_asked(ORDINARY["method"], ORDINARY["host"], target, ORDINARY["version"]),
    }
    names = ("time", "status", "bytes_in", "bytes_out", "first_byte_ms", "total_ms", "request_id")
    values = {name: ORDINARY[name] for name in names}
    assert render_plain_entry(**parts, **values) == render(**plain)


def entry(**changes: Any) -> dict[str, Any]:
    line = render(**changes)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert len(line) < 4096
    members: dict[str, Any] = json.loads(line)
    return members


def test_a_line_has_the_keys_in_their_order_and_the_values() -> None:
    members = entry()
    assert list(members) == KEYS
    expected = ORDINARY | {"method": "GET", "host": "example.com", "target": "/a?b=c", "total_ms": 2.001}
    assert members == expected


def test_what_is_not_known_is_null() -> None:
    unknown = dict.fromkeys([key for key in KEYS if key not in {"time", "status", "total_ms"}])
    members = entry(**(unknown | {"bytes_in": 0, "bytes_out": 0, "retries": 0}))
    assert [key for key, value in members.items() if value is None] == [
        key for key in KEYS if key not in {"time", "status", "total_ms", "bytes_in", "bytes_out", "retries"}
    ]


def test_hostile_bytes_become_escapes() -> None:
    members = entry(target=b'/"\\\n\r\x00\x1b[31m\x7f\xff', method=b'","status":500,"x":"')
    assert members["target"] == '/"\\\n\r\x00\x1b[31m\x7f\xff'
    assert members["method"] == '","status":500,"x":"'
    assert members["status"] == 200


def test_a_long_target_is_cut_and_the_line_says_so() -> None:
    members = entry(target=b"/" + b"x" * 30_000)
    assert list(members) == [*KEYS, "truncated"]
    assert members["truncated"] is True
    assert len(members["target"]) > 3000
    assert {key: members[key] for key in KEYS if key != "target"} == {
        key: value for key, value in entry().items() if key != "target"
    }


def test_a_line_that_just_fits_is_left_alone() -> None:
    room = 4095 - len(render(target=b""))
    assert "truncated" not in entry(target=b"x" * room)
    assert entry(target=b"x" * (room + 1))["truncated"] is True


def test_other_long_texts_are_cut_too() -> None:
    members = entry(host=b"h" * 30_000, request_id="i" * 9000, target=b"/short")
    assert members["host"] == "h" * 510
    assert members["request_id"] == "i" * 254
    assert members["target"] == "/short"


@pytest.mark.parametrize("octet", [b"\x00", b'"', b"\xff"])
def test_a_cut_never_falls_into_an_escape(octet: bytes) -> None:
    assert set(entry(target=octet * 5000, host=octet * 5000)["target"]) == {octet.decode("latin-1")}


octets = st.one_of(
    st.none(), st.binary(max_size=200), st.binary(min_size=1, max_size=8).map(lambda b: b * 1500)
)
texts = st.one_of(st.none(), st.text(max_size=50), st.text(min_size=1, max_size=4).map(lambda t: t * 2000))


@given(octets, octets, octets, st.tuples(*[texts] * 7))
def test_whatever_the_values_the_line_is_short_json(
    method: bytes | None, host: bytes | None, target: bytes | None, names: tuple[str | None, ...]
) -> None:
    keys = ["client_ip", "listener", "route", "pool", "backend", "cause", "request_id"]
    given_names = dict(zip(keys, names, strict=True))
    members = entry(method=method, host=host, target=target, **given_names)
    assert list(members)[:21] == KEYS
    if "truncated" not in members:
        assert {key: members[key] for key in keys} == given_names
        assert members["target"] == (None if target is None else target.decode("latin-1"))


def test_what_was_relayed_has_no_status() -> None:
    assert entry(status=None)["status"] is None
