"""Finding what belongs to a host."""

from __future__ import annotations

import pytest

from lbproc.core.tls.hosts import HostTable

HOSTS = (
    ("Example.com", "exact"),
    ("www.example.com.", "www"),
    ("*.example.com", "wild"),
    ("*.b.example.com", "deep"),
    ("www.example.com", "second"),
)


@pytest.mark.parametrize(
    ("name", "one_label", "any_depth"),
    [
        ("example.com", "exact", "exact"),
        ("www.example.com", "www", "www"),
        ("x.example.com", "wild", "wild"),
        ("b.example.com", "wild", "wild"),
        ("x.y.example.com", None, "wild"),
        ("x.b.example.com", "deep", "deep"),
        ("x.y.b.example.com", None, "deep"),
        ("com", None, None),
        ("badexample.com", None, None),
        ("other.org", None, None),
        (None, None, None),
    ],
)
def test_the_nearest_name_wins(name: str | None, one_label: str | None, any_depth: str | None) -> None:
    assert HostTable(HOSTS).find(name) == one_label
    assert HostTable(HOSTS, any_depth=True).find(name) == any_depth
    assert HostTable(HOSTS, "default").choose(name) == (one_label or "default")


def test_without_a_default_others_have_nothing() -> None:
    assert HostTable([("a", 1)]).choose("b") is None
    assert HostTable([("a", 1)]).choose("a") == 1
    assert HostTable([("a", 1)]).default is None


def test_of_two_tables_the_closer_name_counts() -> None:
    deep = HostTable([("*.example.com", 1), ("www.example.com", 1), ("*.b.example.com", 1)], any_depth=True)
    hosts = HostTable([("*.example.com", 2), ("x.b.example.com", 2), ("*.c.example.com", 2)])
    closer = {
        "www.example.com": (True, False),
        "y.example.com": (False, False),
        "x.b.example.com": (False, True),
        "y.b.example.com": (True, False),
        "y.c.example.com": (False, True),
        "a.b.c.example.com": (True, False),
        "other.org": (False, False),
    }
    assert {name: (deep.is_closer(name, hosts), hosts.is_closer(name, deep)) for name in closer} == closer
    assert not deep.is_closer(None, hosts)


def test_a_table_tells_what_it_has() -> None:
    assert HostTable([("a", 1), ("b", 2), ("a", 3)]).values() == [1, 2]
    assert not HostTable[int]([], 1)
    assert HostTable([("a", 1)])
