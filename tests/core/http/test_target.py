"""Targets and authorities."""

from __future__ import annotations

import pytest

from lbproc.core.http.target import hostname_of, read_target
from tests.core.http.messages import refused


@pytest.mark.parametrize(
    ("method", "target", "read"),
    [
        (b"GET", b"/", (b"/", b"/", b"", None)),
        (b"GET", b"/a?b?c", (b"/a?b?c", b"/a", b"b?c", None)),
        (b"GET", b"//x/../%2f", (b"//x/../%2f", b"//x/../%2f", b"", None)),
        (b"OPTIONS", b"*", (b"*", b"*", b"", None)),
        (b"GET", b"http://a.b:8080/c?d", (b"/c?d", b"/c", b"d", b"a.b:8080")),
        (b"GET", b"HTTP://a", (b"/", b"/", b"", b"a")),
        (b"GET", b"http://a?b/c", (b"/?b/c", b"/", b"b/c", b"a")),
        (b"OPTIONS", b"http://a", (b"*", b"*", b"", b"a")),
        (b"OPTIONS", b"http://a/", (b"/", b"/", b"", b"a")),
    ],
)
def test_every_form_becomes_origin_form(
    method: bytes, target: bytes, read: tuple[bytes, bytes, bytes, bytes | None]
) -> None:
    assert read_target(method, target) == read


@pytest.mark.parametrize(
    "target",
    [
        b"*",
        b"a",
        b"?a",
        b"a.b:80",
        b"https://a/",
        b"ftp://a/",
        b"http:/a",
        b"http://",
        b"http:///x",
        b"http://u@a/",
    ],
)
def test_other_forms_are_refused(target: bytes) -> None:
    with refused(400):
        read_target(b"GET", target)


@pytest.mark.parametrize(
    ("authority", "hostname"),
    [
        (b"a", "a"),
        (b"WWW.Example.COM", "www.example.com"),
        (b"example.com.", "example.com"),
        (b"example.com.:80", "example.com"),
        (b"my_app-1.local:8080", "my_app-1.local"),
        (b"a:", "a"),
        (b"a:65535", "a"),
        (b"127.0.0.1:1", "127.0.0.1"),
        (b"[::1]", "[::1]"),
        (b"[2001:DB8::0:1]:443", "[2001:db8::1]"),
    ],
)
def test_the_host_of_an_authority(authority: bytes, hostname: str) -> None:
    assert hostname_of(authority) == hostname


@pytest.mark.parametrize(
    "authority",
    [
        b"", b":80", b"a/b@c", b"a@b", b"a b", b"a,b", b"a%2fb", b"a\xff", b"a:b", b"a:65536", b"a:123456",
        b"a:1:2", b".", b".a", b"a..b", b"a..", b"[::1", b"[]", b"[1:2]", b"[fe80::1%25eth0]", b"[v1.a]",
        b"::1", b"a?b", b"a\\b", b"a" * 300,
    ],
)  # fmt: skip
def test_what_hops_could_read_differently_is_no_host(authority: bytes) -> None:
    with refused(400, "Host"):
        hostname_of(authority)
