"""Which route a request takes."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.routing import Router


@dataclass(frozen=True)
class Conditions:
    host: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    path_prefix: tuple[str, ...] = ()
    method: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    match: Conditions = field(default_factory=Conditions)


def taken(
    hostname: str = "a", path: bytes = b"/", method: bytes = b"GET", **conditions: tuple[str, ...]
) -> bool:
    return Router([Route(Conditions(**conditions))]).find(hostname, path, method) == 0


def test_no_route_matches_nothing_and_a_route_without_conditions_everything() -> None:
    assert Router([]).find("a", b"/", b"GET") is None
    assert taken()
    assert taken(hostname="", path=b"*", method=b"OPTIONS")


@pytest.mark.parametrize(
    ("pattern", "hostname", "matches"),
    [
        ("example.com", "example.com", True),
        ("Example.COM.", "example.com", True),
        ("example.com", "www.example.com", False),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("[::1]", "[::1]", True),
        ("example.com", "", False),
    ],
)
def test_hosts(pattern: str, hostname: str, matches: bool) -> None:
    assert taken(hostname=hostname, host=(pattern,)) is matches


@pytest.mark.parametrize(
    ("prefix", "path", "matches"),
    [
        ("/v1", b"/v1", True),
        ("/v1", b"/v1/", True),
        ("/v1", b"/v1/x", True),
        ("/v1", b"/v10", False),
        ("/v1", b"/v", False),
        ("/v1/", b"/v1/", True),
        ("/v1/", b"/v1/x", True),
        ("/v1/", b"/v1", False),
        ("/", b"/", True),
        ("/", b"/x", True),
    ],
)
def test_prefixes_are_whole_segments(prefix: str, path: bytes, matches: bool) -> None:
    assert taken(path=path, path_prefix=(prefix,)) is matches


def test_paths_are_whole_and_methods_exact() -> None:
    router = Router([Route(Conditions(path=("/a", "/b"), method=("GET", "HEAD")))])
    assert router.find("h", b"/b", b"HEAD") == 0
    assert router.find("h", b"/b/", b"HEAD") is None
    assert router.find("h", b"/b", b"head") is None


def test_a_path_or_a_prefix_is_enough_but_host_and_method_must_hold_too() -> None:
    router = Router([Route(Conditions(host=("h",), path=("/a",), path_prefix=("/b",), method=("GET",)))])
    assert router.find("h", b"/a", b"GET") == 0
    assert router.find("h", b"/b/c", b"GET") == 0
    assert router.find("h", b"/a/c", b"GET") is None
    assert router.find("i", b"/a", b"GET") is None
    assert router.find("h", b"/a", b"PUT") is None


def test_the_first_that_matches_wins_whether_its_host_is_named_or_not() -> None:
    router = Router(
        [
            Route(Conditions(path=("/first",))),
            Route(Conditions(host=("a.example.com",), path_prefix=("/x",))),
            Route(Conditions(host=("*.example.com",))),
            Route(Conditions(host=("a.example.com", "b.org"))),
            Route(),
        ]
    )
    assert router.find("a.example.com", b"/first", b"GET") == 0
    assert router.find("a.example.com", b"/x/y", b"GET") == 1
    assert router.find("a.example.com", b"/y", b"GET") == 2
    assert router.find("c.example.com", b"/x/y", b"GET") == 2
    assert router.find("b.org", b"/y", b"GET") == 3
    assert router.find("c.org", b"/y", b"GET") == 4


_HOSTS = st.sampled_from(["a.b", "b", "c.a.b"])
_CONDITIONS = st.builds(
    Conditions,
    host=st.lists(st.sampled_from(["a.b", "b", "*.b", "*.a.b"]), max_size=2).map(tuple),
    path=st.lists(st.sampled_from(["/x", "/x/y"]), max_size=1).map(tuple),
    path_prefix=st.lists(st.sampled_from(["/", "/x"]), max_size=1).map(tuple),
    method=st.lists(st.sampled_from(["GET", "PUT"]), max_size=1).map(tuple),
)


@pytest.mark.slow
@given(
    st.lists(_CONDITIONS, max_size=5),
    _HOSTS,
    st.sampled_from([b"/", b"/x", b"/x/y", b"/xx"]),
    st.sampled_from([b"GET", b"PUT"]),
)
def test_finds_what_trying_one_by_one_finds(
    conditions: list[Conditions], hostname: str, path: bytes, method: bytes
) -> None:
    routes = [Route(each) for each in conditions]
    one_by_one = [at for at, route in enumerate(routes) if Router([route]).find(hostname, path, method) == 0]
    assert Router(routes).find(hostname, path, method) == (one_by_one[0] if one_by_one else None)
