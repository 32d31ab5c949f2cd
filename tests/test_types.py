from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.types import Address, TcpAddress, UnixAddress, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", TcpAddress("127.0.0.1", 80)),
        ("[::1]:8080", TcpAddress("::1", 8080)),
        ("app-1.internal:65535", TcpAddress("app-1.internal", 65535)),
        ("0.0.0.0:0", TcpAddress("0.0.0.0", 0)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
    ],
)
def test_an_address_is_read_and_written_the_same(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("", "host:port"),
        ("127.0.0.1", "host:port"),
        ("127.0.0.1:", "host:port"),
        ("127.0.0.1:http", "host:port"),
        ("127.0.0.1:65536", "0 to 65535"),
        ("127.0.0.1:000080", "0 to 65535"),
        ("127.0.0.1:٨٠", "host:port"),
        ("::1:80", "in brackets"),
        ("[::1", "in brackets"),
        ("[1.2.3.4]:80", "not an IPv6 address"),
        (":80", "a name of letters"),
        ("a b:80", "a name of letters"),
        ("a" * 254 + ":80", "a name of letters"),
        ("unix:", "a path of 1 to 107 bytes"),
        ("unix:/a\0b", "a path of 1 to 107 bytes"),
        ("unix:/" + "ä" * 60, "a path of 1 to 107 bytes"),
    ],
)
def test_what_is_no_address_is_told_what_would_be_one(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy.replace("[", r"\[")):
        parse_address(text)


@settings(deadline=None)
@given(st.text(max_size=120))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        address = parse_address(text)
    except ValueError:
        return
    assert parse_address(str(address)) == address
