"""What requests are hashed by."""

from __future__ import annotations

import pytest

from lbproc.core.hash_key import NO_FACTS, ConnectionFacts, compile_hash_key
from tests.core.http.messages import parse

HEAD = parse(
    b"X-User: alice",
    b"x-user: bob",
    b"Cookie: a=1; sid=xyz ; b=2",
    b"Cookie: other=3; sid=second",
    line=b"GET /p/q?x=1&id=%20z&id=2&empty= HTTP/1.1",
)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("client_ip", b"1.2.3.4"),
        ("path", b"/p/q"),
        ("header:X-User", b"alice"),
        ("header:Absent", b""),
        ("cookie:sid", b"xyz"),
        ("cookie:other", b"3"),
        ("cookie:id", b""),
        ("cookie:SID", b""),
        ("query:id", b"%20z"),
        ("query:x", b"1"),
        ("query:empty", b""),
        ("query:d", b""),
        ("tls_session_id", b""),
    ],
)
def test_takes_the_key_from_the_request(spec: str, key: bytes) -> None:
    assert compile_hash_key(spec)(HEAD, "1.2.3.4") == key


def test_a_name_is_not_a_pattern() -> None:
    assert compile_hash_key("cookie:s.d")(HEAD, "") == b""
    assert compile_hash_key("query:.*")(HEAD, "") == b""


def test_without_cookies_there_is_no_cookie_key() -> None:
    assert compile_hash_key("cookie:sid")(parse(), "") == b""


@pytest.mark.parametrize(
    "spec",
    ["", "ip", "client_ip:", "client_ip:x", "path:", "header", "header:", "cookie:", "query:", "tls:x"],
)
def test_anything_else_is_an_error(spec: str) -> None:
    with pytest.raises(ValueError, match="a hash key is"):
        compile_hash_key(spec)


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("client_ip", b"1.2.3.4"),
        ("sni", b"db.example.com"),
        ("tls_session_id", b"\1\2"),
        ("path", b""),
        ("header:X-User", b""),
        ("cookie:sid", b""),
        ("query:id", b""),
    ],
)
def test_takes_the_key_from_a_connection_that_is_relayed(spec: str, key: bytes) -> None:
    assert compile_hash_key(spec)(ConnectionFacts(b"db.example.com", b"\1\2"), "1.2.3.4") == key
    assert compile_hash_key(spec)(NO_FACTS, "") == b""


def test_a_request_has_the_server_name_that_it_is_for() -> None:
    head = parse(line=b"GET / HTTP/1.1", host=b"Host: Db.Example.com:443\r\n")
    assert compile_hash_key("sni")(head, "1.2.3.4") == b"db.example.com"
