from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproc.config.model import MatchConfig
from lbproc.config.shadow import MOST_COMPARED, covers, shadowed

HOSTS = ["a.com", "*.a.com", "b.a.com", "*.b.a.com"]
PATHS = ["/", "/v1", "/v1/", "/v1/x", "/v10"]
METHODS = ["GET", "POST"]


def made(**conditions: Any) -> MatchConfig:
    return MatchConfig.model_validate(conditions)


def matches(match: MatchConfig, host: str, path: str, method: str) -> bool:
    """What a route means, said once more in the plainest way."""
    return (
        (not match.host or any(host == h or (h[0] == "*" and host.endswith(h[1:])) for h in match.host))
        and (not match.path or path in match.path)
        and (
            not match.path_prefix
            or any(path == p or path.startswith(p.rstrip("/") + "/") for p in match.path_prefix)
        )
        and (not match.method or method in match.method)
    )


def some(values: list[str]) -> st.SearchStrategy[list[str] | None]:
    return st.none() | st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


MATCHES = st.builds(
    lambda **conditions: made(**{key: value for key, value in conditions.items() if value}),
    host=some(HOSTS),
    path=some(PATHS),
    path_prefix=some(PATHS),
    method=some(METHODS),
)
REQUESTS = list(
    product(
        ["a.com", "x.a.com", "b.a.com", "x.b.a.com", "c.com"],
        ["/", "/v1", "/v1/", "/v1/x", "/v10", "/v1/x/y", "/w"],
        [*METHODS, "PUT"],
    )
)


@settings(deadline=None, max_examples=200)
@given(MATCHES, MATCHES)
def test_a_route_that_covers_another_takes_all_its_requests(wide: MatchConfig, narrow: MatchConfig) -> None:
    if covers(wide, narrow):
        assert all(matches(wide, *request) for request in REQUESTS if matches(narrow, *request))


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({}, {}),
        ({}, {"host": "a.com", "path": "/x", "method": "GET"}),
        ({"host": "a.com"}, {"host": "A.com", "method": "GET"}),
        ({"host": "*.a.com"}, {"host": ["b.a.com", "*.b.a.com", "*.a.com"]}),
        ({"path_prefix": "/v1"}, {"path_prefix": ["/v1/x", "/v1/"]}),
        ({"path_prefix": "/"}, {"path": "/v1"}),
        ({"path": ["/a", "/b"]}, {"path": "/a", "path_prefix": "/"}),
        ({"method": ["GET", "POST"]}, {"method": "POST"}),
        ({"sni": "*.a.com"}, {"sni": "x.y.a.com", "alpn": "h2"}),
        ({"alpn": ["h2", "http/1.1"]}, {"alpn": "h2"}),
    ],
)
def test_a_route_covers_what_is_narrower(wide: dict[str, Any], narrow: dict[str, Any]) -> None:
    assert covers(made(**wide), made(**narrow))


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ({"host": "a.com"}, {}),
        ({"host": "*.a.com"}, {"host": "a.com"}),
        ({"host": "*.b.a.com"}, {"host": "*.a.com"}),
        ({"host": "a.com"}, {"host": ["a.com", "b.com"]}),
        ({"path_prefix": "/v1"}, {"path_prefix": "/v10"}),
        ({"path_prefix": "/v1"}, {"path_prefix": "/"}),
        ({"path_prefix": "/v1"}, {}),
        ({"path": "/v1"}, {"path_prefix": "/v1"}),
        ({"method": "GET"}, {"method": ["GET", "POST"]}),
        ({"method": "GET"}, {}),
        ({"sni": "a.com"}, {"alpn": "h2"}),
        ({"sni": "a.com"}, {"host": "a.com"}),
        ({"alpn": "h2"}, {"sni": "a.com"}),
    ],
)
def test_a_route_does_not_cover_what_is_wider_or_else(wide: dict[str, Any], narrow: dict[str, Any]) -> None:
    assert not covers(made(**wide), made(**narrow))


def test_each_shadowed_route_is_paired_with_the_first_that_takes_its_requests() -> None:
    web, all_of_it = made(host="a.com"), made()
    assert shadowed([web, all_of_it, None, made(path="/"), web]) == [(3, 1), (4, 0)]


def test_only_so_many_routes_are_compared() -> None:
    assert len(shadowed([made()] * (MOST_COMPARED + 10))) == MOST_COMPARED - 1
