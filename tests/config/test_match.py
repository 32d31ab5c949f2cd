# ruff: noqa: E501  messages stand here word for word, one on a line
from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from lbproc.config import match
from tests.config.refusal import accepted, refusal

HOST: TypeAdapter[Any] = TypeAdapter(match.HostPattern)
PATH: TypeAdapter[Any] = TypeAdapter(match.PathCondition)
METHOD: TypeAdapter[Any] = TypeAdapter(match.Method)
SNI: TypeAdapter[Any] = TypeAdapter(match.ServerName)
ALPN: TypeAdapter[Any] = TypeAdapter(match.Alpn)


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (HOST, "api.Example.com", "api.example.com"),
        (HOST, "*.example.com", "*.example.com"),
        (HOST, "10.0.0.1", "10.0.0.1"),
        (HOST, "[::1]", "[::1]"),
        (HOST, "a_b", "a_b"),
        (PATH, "/", "/"),
        (PATH, "/v1/a-b_c.d~e!$&'()*+,;=:@%20", "/v1/a-b_c.d~e!$&'()*+,;=:@%20"),
        (METHOD, "GET", "GET"),
        (METHOD, "M-SEARCH", "M-SEARCH"),
        (SNI, "*.Db.example.com", "*.db.example.com"),
        (ALPN, "http/1.1", "http/1.1"),
    ],
)
def test_a_right_condition_is_taken(kind: TypeAdapter[Any], value: object, result: object) -> None:
    assert accepted(kind, value) == result


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (HOST, 1, 'is an integer, not a host; write a host such as "api.example.com" or "*.example.com"'),
        (HOST, "", '"" is not a host; write one such as "api.example.com" or "*.example.com"'),
        (HOST, "a" * 64, f'"{"a" * 60}..." is not a host; write one such as "api.example.com" or "*.example.com"'),
        (HOST, "*", '"*" is not a host; a star stands only in front, for all names below; write one such as "api.example.com" or "*.example.com"'),
        (HOST, "a.*.com", '"a.*.com" is not a host; a star stands only in front, for all names below; write one such as "api.example.com" or "*.example.com"'),
        (HOST, "a.com:80", '"a.com:80" has a port; hosts match on any port; write "a.com"'),
        (HOST, "a b:80", '"a b:80" is not a host; write one such as "api.example.com" or "*.example.com"'),
        (HOST, "https://a.com", '"https://a.com" is not a host; leave out scheme and path, such as "api.example.com" or "*.example.com"'),
        (HOST, "a.com/x", '"a.com/x" is not a host; leave out scheme and path, such as "api.example.com" or "*.example.com"'),
        (HOST, "[::1]:80", '"[::1]:80" is not a host; write an IPv6 address in brackets without a port, "[::1]"'),
        (HOST, "[::1", '"[::1" is not a host; write an IPv6 address in brackets without a port, "[::1]"'),
        (HOST, "[fe80::1%x]", '"[fe80::1%x]" is not a host; write an IPv6 address in brackets without a port, "[::1]"'),
        (PATH, 1, 'is an integer, not a path; write a path such as "/v1"'),
        (PATH, "v1", '"v1" does not begin with a slash; write a path such as "/v1"'),
        (PATH, "", '"" does not begin with a slash; write a path such as "/"'),
        (PATH, "ä", '"ä" does not begin with a slash; write a path such as "/v1"'),
        (PATH, "/a?b", '"/a?b" holds more than a path; leave out what follows it: "/a"'),
        (PATH, "/a#b", '"/a#b" holds more than a path; leave out what follows it: "/a"'),
        (PATH, "/ä", '"/ä" holds characters that no request path has; percent-encode them as a browser does, and write %20 for a space'),
        (PATH, "/a b", '"/a b" holds characters that no request path has; percent-encode them as a browser does, and write %20 for a space'),
        (SNI, "10.0.0.1", '"10.0.0.1" is an address, and clients name none in a handshake; write a name such as "db.example.com", or leave it to the pool of the listener'),
        (SNI, "[::1]", '"[::1]" is an address, and clients name none in a handshake; write a name such as "db.example.com", or leave it to the pool of the listener'),
        (ALPN, 1, 'is an integer, not the name of a protocol; write the name of a protocol such as "h2"'),
        (ALPN, "", '"" is not the name of a protocol; write one such as "h2", "http/1.1" or "postgresql"'),
        (METHOD, 1, 'is an integer, not a method; write a method such as "GET"'),
        (METHOD, "get", '"get" matches no request; methods are in upper case; write "GET"'),
        (METHOD, "A B", '"A B" is not a method; write one such as "GET"'),
        (METHOD, "", '"" is not a method; write one such as "GET"'),
        (METHOD, "CONNECT", '"CONNECT" is never routed: lbproc answers it with 501; write another method such as "GET"'),
    ],
)  # fmt: skip
def test_a_wrong_condition_is_told_what_would_be_right(
    kind: TypeAdapter[Any], value: object, message: str
) -> None:
    assert refusal(kind, value) == message
