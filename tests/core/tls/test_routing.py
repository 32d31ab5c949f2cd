"""Which route a connection takes by its ClientHello."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.tls.routing import HelloRouter


@dataclass(frozen=True)
class Conditions:
    sni: tuple[str, ...] = ()
    alpn: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    match: Conditions


def router(*routes: Conditions) -> HelloRouter:
    return HelloRouter([Route(conditions) for conditions in routes])


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("db.example.com", "db.example.com", True),
        ("DB.example.com.", "db.example.com", True),
        ("db.example.com", "a.db.example.com", False),
        ("*.example.com", "db.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "badexample.com", False),
        ("db.example.com", None, False),
        ("*.example.com", None, False),
    ],
)
def test_names(pattern: str, name: str | None, *, matches: bool) -> None:
    assert (router(Conditions(sni=(pattern,))).find(name, ()) == 0) is matches


def test_one_of_the_protocols_is_enough() -> None:
    by_protocol = router(Conditions(alpn=("h2", "postgresql")))
    assert by_protocol.find("a", (b"http/1.1", b"h2")) == 0
    assert by_protocol.find(None, (b"postgresql",)) == 0
    assert by_protocol.find("a", (b"http/1.1",)) is None
    assert by_protocol.find("a", ()) is None


def test_all_conditions_must_hold_and_the_first_route_wins() -> None:
    found = router(Conditions(("a.example",), ("h2",)), Conditions(("*.example",)), Conditions()).find
    assert found("a.example", (b"h2",)) == 0
    assert found("a.example", (b"http/1.1",)) == 1
    assert found("b.example", (b"h2",)) == 1
    assert found("example", (b"h2",)) == 2
    assert found(None, ()) == 2


def test_no_route_matches_nothing_and_a_route_without_conditions_everything() -> None:
    assert router().find("a", ()) is None
    assert router(Conditions()).find(None, ()) == 0


NAMES = st.sampled_from(["a.example", "b.example", "c.b.example", "example", "other"])
PATTERNS = st.sampled_from(["a.example", "*.example", "*.b.example", "example", "other"])
PROTOCOLS = st.sampled_from(["h2", "http/1.1", "x"])
CONDITIONS = st.builds(
    Conditions,
    st.lists(PATTERNS, max_size=2).map(tuple),
    st.lists(PROTOCOLS, max_size=2).map(tuple),
)


@given(st.lists(CONDITIONS, max_size=5), st.none() | NAMES, st.lists(PROTOCOLS, max_size=2))
def test_it_is_as_if_the_routes_were_tried_one_by_one(
    conditions: list[Conditions], name: str | None, offered: list[str]
) -> None:
    def holds(one: Conditions) -> bool:
        named = not one.sni or any(
            name is not None and (name == pattern or (pattern[0] == "*" and name.endswith(pattern[1:])))
            for pattern in one.sni
        )
        return named and (not one.alpn or bool(set(one.alpn) & set(offered)))

    expected = next((place for place, one in enumerate(conditions) if holds(one)), None)
    assert router(*conditions).find(name, [text.encode() for text in offered]) == expected
