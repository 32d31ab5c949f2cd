"""Lines in the combined format: readable by every analyser, whatever a client sends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.telemetry.combined import (
    COMBINED_NOT_UNDERSTOOD,
    render_combined_asked,
    render_combined_caller,
    render_combined_entry,
)

TIME = "2026-07-01T12:30:00.125Z"
# As log analysers read it: quoted texts that hold no quote.
LINE = re.compile(
    rb"(\S+) - - \[(\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "
    rb'"([^"]*)" (\d{3}) (\d+) "([^"]*)" "([^"]*)"\n'
)


def line(
    target: bytes = b"/v1?a=b",
    *,
    client: str | None = "192.0.2.7",
    referers: tuple[bytes, ...] = (b"https://example.com/",),
    agents: tuple[bytes, ...] = (b"curl/8.5",),
) -> bytes:
    return render_combined_entry(
        time=TIME,
        caller=render_combined_caller(client),
        asked=render_combined_asked(b"GET", target, "1.1", referers, agents),
        status=200,
        bytes_out=5120,
    )


def test_a_line_is_that_of_other_web_servers() -> None:
    assert line() == (
        b'192.0.2.7 - - [01/Jul/2026:12:30:00 +0000] "GET /v1?a=b HTTP/1.1" 200 5120 '
        b'"https://example.com/" "curl/8.5"\n'
    )


def test_what_is_not_known_is_a_hyphen() -> None:
    assert line(client=None, referers=(), agents=(b"",)) == (
        b'- - - [01/Jul/2026:12:30:00 +0000] "GET /v1?a=b HTTP/1.1" 200 5120 "-" "-"\n'
    )
    assert (
        render_combined_entry(
            time=TIME,
            caller=render_combined_caller("::1"),
            asked=COMBINED_NOT_UNDERSTOOD,
            status=400,
            bytes_out=0,
        )
        == b'::1 - - [01/Jul/2026:12:30:00 +0000] "-" 400 0 "-" "-"\n'
    )


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b'a"b', rb"a\x22b"),
        (b"a\\b", rb"a\x5Cb"),
        (b"\x00\x1f\x7f\xff", rb"\x00\x1F\x7F\xFF"),
        (b"a\tb", rb"a\x09b"),
        ("é".encode(), rb"\xC3\xA9"),
        (b" !#[]~", b" !#[]~"),
    ],
)
def test_hostile_bytes_are_escaped_as_nginx_escapes_them(octets: bytes, text: bytes) -> None:
    assert line(agents=(octets,)).endswith(b'"' + text + b'"\n')


def test_of_several_equal_fields_the_first_counts() -> None:
    assert line(agents=(b"one", b"two")).endswith(b'"one"\n')


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_has_its_name(month: int) -> None:
    text = render_combined_entry(
        time=f"2026-{month:02d}-28T23:59:60.999Z",
        caller="c",
        asked=COMBINED_NOT_UNDERSTOOD,
        status=200,
        bytes_out=1,
    )
    name = "JanFebMarAprMayJunJulAugSepOctNovDec"[3 * month - 3 : 3 * month]
    assert f"[28/{name}/2026:23:59:60 +0000]".encode() in text


@given(
    target=st.binary(max_size=6000),
    referers=st.lists(st.binary(max_size=6000), max_size=2),
    agents=st.lists(st.binary(max_size=6000), max_size=2),
)
def test_whatever_a_client_sends_is_one_line_of_seven_fields(
    target: bytes, referers: list[bytes], agents: list[bytes]
) -> None:
    text = line(target, referers=tuple(referers), agents=tuple(agents))
    assert len(text) < 4096
    assert text.isascii()
    found = LINE.fullmatch(text)
    assert found is not None
    for field in (found[3], found[6], found[7]):
        assert all(32 <= octet < 127 for octet in field)
        assert re.fullmatch(rb"(?:[^\\]|\\x[0-9A-F]{2})*", field), "no half of an escape"


def test_a_long_line_keeps_the_beginnings_of_its_texts() -> None:
    text = line(b"/" + b"\xff" * 5000, referers=(b"r" * 3000,), agents=(b"a" * 3000,))
    found = LINE.fullmatch(text)
    assert found is not None
    assert 4090 < len(text) < 4096
    assert found[3].startswith(b"GET /\\xFF")
    assert found[6] == b"r" * 700
    assert found[7] == b"a" * 700


def test_what_was_relayed_has_neither_a_request_nor_a_status() -> None:
    caller = render_combined_caller("192.0.2.7")
    assert (
        render_combined_entry(
            time=TIME, caller=caller, asked=COMBINED_NOT_UNDERSTOOD, status=None, bytes_out=7
        )
        == b'192.0.2.7 - - [01/Jul/2026:12:30:00 +0000] "-" - 7 "-" "-"\n'
    )
