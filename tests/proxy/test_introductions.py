"""Who asks, as the backend is told: the two writers of forwarding headers against each other."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproc.core.http.head import parse_request_head
from lbproc.core.http.headers import is_forwarding_name
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.strict import HeadLimits
from lbproc.proxy.caller import Caller
from lbproc.proxy.plan import Plan
from lbproc.proxy.record import Record
from tests.core.http.messages import heads, request
from tests.proxy.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

PEERS = st.sampled_from(["10.0.0.1", "fd00::1", ""])
SAID = [
    b"X-Forwarded-For: 9.9.9.9", b"x-forwarded-for: 10.0.0.9", b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil", b"X-Forwarded-Port: 1", b"Forwarded: for=9.9.9.9", b"X-Real-IP: 9.9.9.9",
    b"X-Request-Id: mine", b"tracestate: a=b",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
]  # fmt: skip


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A worker with a listener that trusts the peers here, and one that trusts nobody."""
    listeners = {
        "trusting": {
            "bind": "127.0.0.1:8080",
            "pool": "web",
            "trusted_proxies": ["10.0.0.0/8", "fd00::/8", "127.0.0.1"],
        },
        "wary": {"bind": "127.0.0.1:8081", "pool": "web"},
    }
    pools = {"web": {"backends": ["127.0.0.1:9001"]}}
    rig = Rig(tmp_path_factory.mktemp("introductions"), {"listeners": listeners, "pools": pools})
    yield rig
    rig.access_log.close()
    rig.context.log.close()
    rig.table.close()


def introduced(rig: Rig, listener_name: str, peer_ip: str, raw: bytes) -> tuple[bytes, Record]:
    """The head that a backend gets, and the record that the ids went into."""
    listener = rig.http(listener_name)
    caller = Caller(peer_ip, listener)
    record = Record(rig.context, caller)
    plan = Plan(
        parse_request_head(raw, HeadLimits()),
        len(raw),
        listener.directions,
        trusted=listener_name == "trusting",
    )
    introduction = caller.introduce(plan, record, Random(1))
    return caller.start_for(plan, b"10.0.0.9:80") + introduction, record


@given(heads(), PEERS)
def test_a_trusted_proxy_that_says_nothing_is_introduced_like_anybody(
    rig: Rig, raw: bytes, peer_ip: str
) -> None:
    try:
        head = parse_request_head(raw, HeadLimits())
    except Rejected:
        return
    if any(is_forwarding_name(name) for name, _, _ in head.headers):
        return
    trusted, its_record = introduced(rig, "trusting", peer_ip, raw)
    untrusted, record = introduced(rig, "wary", peer_ip, raw)
    assert trusted == untrusted
    assert (its_record.request_id, its_record.client_ip) == (record.request_id, record.client_ip)


@given(st.lists(st.sampled_from(SAID)), PEERS)
def test_nothing_that_an_untrusted_peer_says_reaches_the_backend_or_the_record(
    rig: Rig, said: list[bytes], peer_ip: str
) -> None:
    told, record = introduced(rig, "wary", peer_ip, request(*said, b"X-A: 1"))
    silent, its_record = introduced(rig, "wary", peer_ip, request(b"X-A: 1"))
    assert told == silent
    assert (record.request_id, record.client_ip) == (its_record.request_id, its_record.client_ip)
