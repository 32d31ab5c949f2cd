"""Who a request comes from."""

from __future__ import annotations

from ipaddress import ip_network
from random import Random

import pytest

from lbproc.core.http.forwarding import Networks, client_ip, identify_client, is_trusted, keeps_trace
from tests.core.http.messages import parse

TRUSTED: Networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("127.0.0.0/8"))
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("fd00::1", True),
        ("fe80::1", False),
        ("::ffff:10.1.2.3", True),
        ("::ffff:11.1.2.3", False),
        ("", True),  # a Unix socket counts as loopback
    ],
)
def test_trust_is_by_network(address: str, trusted: bool) -> None:
    assert is_trusted(address, TRUSTED) is trusted
    assert not is_trusted(address, ())


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"3.3.3.3, 2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"3.3.3.3", b"2.2.2.2,10.0.0.2 ,\t10.0.0.3"], "2.2.2.2"),
        ("10.0.0.1", [b"10.0.0.9, 10.0.0.8"], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.2, unknown, 10.0.0.8"], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.2, "], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.2:8080"], "2.2.2.2"),
        ("10.0.0.1", [b"[2001:DB8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", [b"[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", [b"::ffff:2.2.2.2"], "2.2.2.2"),
        ("10.0.0.1", [b"fe80::1%eth0"], "10.0.0.1"),
        ("10.0.0.1", [b"2.2.2.02"], "10.0.0.1"),
        ("10.0.0.1", [b"1" * 10_000], "10.0.0.1"),
        ("10.0.0.1", [b"\xff"], "10.0.0.1"),
        ("", [b"2.2.2.2"], "2.2.2.2"),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_proxy(
    peer: str, forwarded_for: list[bytes], client: str
) -> None:
    assert client_ip(peer, forwarded_for, TRUSTED) == client


def test_an_untrusted_peer_is_not_to_be_asked() -> None:
    head = parse(b"X-Forwarded-For: 2.2.2.2", b"X-Request-Id: mine", b"traceparent: " + TRACE)
    for networks in ((), TRUSTED):
        with pytest.raises(AssertionError):
            identify_client(head, "1.1.1.1", networks, Random(1))


def test_ids_of_a_trusted_peer_go_on() -> None:
    head = parse(b"X-Forwarded-For: 2.2.2.2", b"X-Request-Id: mine-1", b"traceparent: " + TRACE)
    forwarded = identify_client(head, "10.0.0.1", TRUSTED, Random(1), "https")
    assert (forwarded.client_ip, forwarded.peer_ip, forwarded.scheme) == ("2.2.2.2", "10.0.0.1", "https")
    assert (forwarded.request_id, forwarded.traceparent.encode()) == ("mine-1", TRACE)


@pytest.mark.parametrize("lines", [[], [b"X-Request-Id: a b"], [b"X-Request-Id: a", b"X-Request-Id: b"]])
def test_ids_that_are_missing_or_odd_are_made_anew(lines: list[bytes]) -> None:
    head = parse(*lines, b"traceparent: 00-0-0-0")
    random = Random(1)
    first = identify_client(head, "10.0.0.1", TRUSTED, random)
    second = identify_client(head, "10.0.0.1", TRUSTED, random)
    assert len(first.request_id) == 32
    assert first.request_id != second.request_id
    assert keeps_trace([first.traceparent.encode()])
    assert first.traceparent != second.traceparent


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([TRACE], True),
        ([], False),
        ([TRACE, TRACE], False),
        ([TRACE.upper()], False),
        ([b"ff" + TRACE[2:]], False),
        ([b"00-" + b"0" * 32 + TRACE[35:]], False),
        ([TRACE[:36] + b"0" * 16 + b"-01"], False),
        ([TRACE + b"-x"], False),
    ],
)
def test_only_a_valid_trace_goes_on(values: list[bytes], kept: bool) -> None:
    assert keeps_trace(values) is kept
