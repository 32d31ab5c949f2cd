"""What the backend is told of the client: of a stranger's words nothing, of a trusted proxy's what is valid.

Each row of "Forwarding headers" in docs/http-behaviour.md has its cases here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.e2e.harness_client import RawClient
from tests.e2e.harness_dialogue import END, GET, OK, Manner, without_fresh_ids

if TYPE_CHECKING:
    from tests.e2e.harness_dialogue import Proxy

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
FOR = b"X-Forwarded-For: "


@dataclass(frozen=True)
class Told:
    """What a peer says, and what the backend hears of it.

    Args:
        name: says what it is about.
        says: field lines of the client.
        hears: lines that the backend gets, among others.
        hears_not: what stands nowhere in what it gets, in small letters.
        listener: "web" trusts nobody, "trusting" 127.0.0.0/8 and 10.0.0.0/8.
        version: that the client speaks.
    """

    name: str
    says: bytes
    hears: tuple[bytes, ...]
    hears_not: tuple[bytes, ...] = ()
    listener: str = "web"
    version: bytes = b"1.1"


def trusted(name: str, says: bytes, *hears: bytes, without: tuple[bytes, ...] = ()) -> Told:
    return Told(name, says, hears, without, listener="trusting")


STRANGERS = [
    Told(
        "nothing said",
        b"",
        (
            FOR + b"127.0.0.1",
            b"X-Forwarded-Host: a",
            b"X-Forwarded-Proto: http",
            b"X-Request-Id: *",
            b"traceparent: *",
            b"Via: 1.1 lbproc",
        ),
        (b"forwarded:", b"x-real-ip", b"tracestate"),
    ),
    Told("X-Forwarded-For", FOR + b"9.9.9.9", (FOR + b"127.0.0.1",), (b"9.9.9.9",)),
    Told(
        "X-Forwarded-For twice",
        FOR + b"9.9.9.9\r\nx-forwarded-for: 8.8.8.8",
        (FOR + b"127.0.0.1",),
        (b"9.9.9.9", b"8.8.8.8"),
    ),
    Told("X-Forwarded-Proto", b"X-Forwarded-Proto: https", (b"X-Forwarded-Proto: http",), (b"https",)),
    Told("X-Forwarded-Host", b"X-Forwarded-Host: evil", (b"X-Forwarded-Host: a",), (b"evil",)),
    Told("X-Forwarded-Port", b"X-Forwarded-Port: 443", (), (b"x-forwarded-port",)),
    Told("X-Forwarded-Prefix", b"X-Forwarded-Prefix: /evil", (), (b"x-forwarded-prefix",)),
    Told("X-Forwarded-Anything", b"X-FORWARDED-Tls-Client-Cert: evil", (), (b"evil",)),
    Told("Forwarded", b"Forwarded: for=9.9.9.9;proto=https", (), (b"\nforwarded:",)),
    Told("X-Real-IP", b"X-Real-IP: 9.9.9.9", (), (b"x-real-ip",)),
    Told("X-Request-Id", b"X-Request-Id: evil", (b"X-Request-Id: *",), (b"evil",)),
    Told("traceparent", b"traceparent: " + TRACE, (b"traceparent: *",), (TRACE,)),
    Told(
        "tracestate",
        b"traceparent: " + TRACE + b"\r\ntracestate: a=b",
        (b"traceparent: *",),
        (b"tracestate",),
    ),
    Told("Via", b"Via: 1.0 one, 1.1 two", (b"Via: 1.0 one, 1.1 two", b"Via: 1.1 lbproc")),
    Told("HTTP/1.0", b"", (b"Via: 1.0 lbproc",), version=b"1.0"),
    Told(
        "names with underscores",
        b"X_Forwarded_For: 9.9.9.9\r\nX_REAL_IP: 9.9.9.9",
        (FOR + b"127.0.0.1",),
        (b"9.9.9.9",),
    ),
]

TRUSTED = [
    trusted("nothing said", b"", FOR + b"127.0.0.1", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a"),
    trusted("X-Forwarded-For", FOR + b"9.9.9.9", FOR + b"9.9.9.9, 127.0.0.1"),
    trusted(
        "X-Forwarded-For of several",
        FOR + b"evil, 9.9.9.9 ,10.0.0.1",
        FOR + b"evil, 9.9.9.9 ,10.0.0.1, 127.0.0.1",
    ),
    trusted(
        "X-Forwarded-For twice",
        FOR + b"9.9.9.9\r\n" + FOR + b"10.0.0.1",
        FOR + b"9.9.9.9, 10.0.0.1, 127.0.0.1",
    ),
    trusted("empty X-Forwarded-For", b"X-Forwarded-For:", FOR + b"127.0.0.1"),
    trusted("X-Forwarded-Proto", b"X-Forwarded-Proto: https", b"X-Forwarded-Proto: https"),
    trusted("X-Forwarded-Proto in capitals", b"X-Forwarded-Proto: WSS", b"X-Forwarded-Proto: wss"),
    trusted(
        "X-Forwarded-Proto that is none",
        b"X-Forwarded-Proto: gopher",
        b"X-Forwarded-Proto: http",
        without=(b"gopher",),
    ),
    trusted(
        "X-Forwarded-Proto twice",
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Proto: https",
        b"X-Forwarded-Proto: http",
    ),
    trusted("X-Forwarded-Host", b"X-Forwarded-Host: public.example", b"X-Forwarded-Host: public.example"),
    trusted("X-Forwarded-Host twice", b"X-Forwarded-Host: b\r\nX-Forwarded-Host: c", b"X-Forwarded-Host: a"),
    trusted("X-Forwarded-Port", b"X-Forwarded-Port: 443", b"X-Forwarded-Port: 443"),
    trusted("Forwarded", b"Forwarded: for=9.9.9.9", b"Forwarded: for=9.9.9.9"),
    trusted("X-Real-IP", b"X-Real-IP: 9.9.9.9", b"X-Real-IP: 9.9.9.9"),
    trusted("X-Request-Id", b"X-Request-Id: a-B_1.~+/=:@", b"X-Request-Id: a-B_1.~+/=:@"),
    trusted("X-Request-Id of 128 bytes", b"X-Request-Id: " + b"x" * 128, b"X-Request-Id: " + b"x" * 128),
    trusted("X-Request-Id of 129 bytes", b"X-Request-Id: " + b"x" * 129, b"X-Request-Id: *"),
    trusted("X-Request-Id with a space", b"X-Request-Id: a b", b"X-Request-Id: *"),
    trusted("X-Request-Id with a quotation mark", b'X-Request-Id: a"', b"X-Request-Id: *"),
    trusted("X-Request-Id twice", b"X-Request-Id: a\r\nX-Request-Id: b", b"X-Request-Id: *"),
    trusted("traceparent", b"traceparent: " + TRACE, b"traceparent: " + TRACE),
    trusted(
        "tracestate",
        b"traceparent: " + TRACE + b"\r\ntracestate: a=b",
        b"traceparent: " + TRACE,
        b"tracestate: a=b",
    ),
    trusted("tracestate alone", b"tracestate: a=b", b"traceparent: *", without=(b"tracestate",)),
    trusted(
        "traceparent in capitals",
        b"traceparent: " + TRACE.upper() + b"\r\ntracestate: a=b",
        b"traceparent: *",
        without=(b"tracestate",),
    ),
    trusted(
        "traceparent of zeros", b"traceparent: 00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b"traceparent: *"
    ),
    trusted("traceparent of version ff", b"traceparent: ff" + TRACE[2:], b"traceparent: *"),
    trusted("traceparent twice", b"traceparent: " + TRACE + b"\r\ntraceparent: " + TRACE, b"traceparent: *"),
    trusted("names with underscores", b"X_Forwarded_For: 9.9.9.9", FOR + b"127.0.0.1", without=(b"9.9.9.9",)),
]


@pytest.mark.parametrize(
    "manner", [Manner.AT_ONCE, Manner.BYTE_BY_BYTE], ids=lambda manner: manner.name.lower()
)
@pytest.mark.parametrize("case", [*STRANGERS, *TRUSTED], ids=lambda case: f"{case.listener}, {case.name}")
def test_backend_hears_of_the_client_what_can_be_believed(proxy: Proxy, case: Told, manner: Manner) -> None:
    backend = None
    for _ in range(3):
        client = proxy.client(case.listener)
        said = case.says + END if case.says else b""
        client.send(b"GET / HTTP/" + case.version + b"\r\nHost: a\r\n" + said + END, manner)
        backend = backend or proxy.backend()
        arrived = backend.read_head()
        lines = without_fresh_ids(arrived).split(END)
        for line in case.hears:
            assert lines.count(line) == 1, arrived
            name = line.partition(b":")[0].lower()
            if name != b"via":
                assert [other for other in lines if other.lower().startswith(name + b":")] == [line]
        for octets in case.hears_not:
            assert octets not in arrived.lower()
        backend.send(OK)
        assert client.read_exactly(12) == b"HTTP/1.1 200"
        client.close()


@pytest.mark.parametrize(
    ("forwarded_for", "client_ip"),
    [
        (b"9.9.9.9", "9.9.9.9"),
        (b"8.8.8.8, 9.9.9.9, 10.0.0.1", "9.9.9.9"),
        (b"9.9.9.9:1234", "9.9.9.9"),
        (b"[2001:db8::1]:1234", "2001:db8::1"),
        (b"2001:DB8::1", "2001:db8::1"),
        (b"::ffff:9.9.9.9", "9.9.9.9"),
        (b"9.9.9.9, unknown", "127.0.0.1"),
        (b"9.9.9.9, unknown, 10.0.0.1", "127.0.0.1"),
        (b"10.0.0.1, 10.0.0.2", "127.0.0.1"),
        (b"", "127.0.0.1"),
    ],
    ids=lambda value: value.decode() or "empty" if isinstance(value, bytes) else value,
)
def test_client_is_the_rightmost_address_that_is_no_trusted_proxy(
    proxy: Proxy, forwarded_for: bytes, client_ip: str
) -> None:
    assert client_in_log(proxy, "trusting", forwarded_for) == client_ip


def test_client_behind_a_stranger_is_the_stranger(proxy: Proxy) -> None:
    assert client_in_log(proxy, "web", b"9.9.9.9") == "127.0.0.1"


def test_peer_on_a_unix_socket_counts_as_loopback_and_has_no_address_to_add(proxy: Proxy) -> None:
    for said, told in ((b"", b""), (FOR + b"9.9.9.9\r\n", FOR + b"9.9.9.9\r\n")):
        with RawClient(proxy.unix_address) as client:
            client.send(GET + b"A: b\r\n" + said + END)
            backend = proxy.backend()
            arrived = backend.read_head()
            assert told in arrived
            assert (FOR in arrived) == bool(told)
            backend.send(OK)
            assert client.read_response().body == b"ok"
        backend.close()


def client_in_log(proxy: Proxy, listener: str, forwarded_for: bytes) -> str:
    target = f"/{listener}/{forwarded_for.hex()}"
    client = proxy.client(listener)
    client.send(
        b"GET %b HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: %b\r\n\r\n" % (target.encode(), forwarded_for)
    )
    backend = proxy.backend()
    backend.read_head()
    backend.send(OK)
    assert client.read_exactly(len(OK)) == OK
    return str(proxy.logged(target)["client_ip"])
