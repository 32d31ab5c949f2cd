"""Heads that go on."""

from __future__ import annotations

import pytest
from hypothesis import given

from lbproc.core.http.forwarding import Forwarding
from lbproc.core.http.head import RequestHead, parse_request_head, parse_response_head
from lbproc.core.http.rejected import Rejected
from lbproc.core.http.render import (
    render_certificate,
    render_forwarding,
    render_interim,
    render_origin,
    render_request_start,
    render_response,
)
from lbproc.core.http.strict import HeadLimits
from lbproc.core.tls.certificate import ClientCertificate
from tests.core.http.messages import BROWSER_REQUEST, LIMITS, SERVER_RESPONSE, heads, parse, parse_answer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROXY = Forwarding("2.2.2.2", "10.0.0.1", "http", "id-1", TRACE)


def lines_of(rendered: bytes) -> list[bytes]:
    assert rendered.endswith(b"\r\n\r\n")
    lines = rendered[:-4].split(b"\r\n")
    assert all(lines)
    return lines


def forwarded_lines(head: RequestHead, default_host: bytes = b"") -> list[bytes]:
    """What goes on of an untrusted peer's request."""
    return lines_of(render_request_start(head, trusted=False, default_host=default_host) + b"\r\n")


def forwarded_by(proxy: Forwarding, head: RequestHead) -> list[bytes]:
    """What goes on of a trusted proxy's request."""
    return lines_of(render_request_start(head, trusted=True) + render_forwarding(head, proxy))


VIA = b"Via: 1.1 lbproc"


def test_a_browsers_request_goes_on_without_hop_by_hop_fields() -> None:
    lines = forwarded_lines(parse_request_head(BROWSER_REQUEST, LIMITS))
    assert lines == [
        b"GET /assets/app.js?v=12 HTTP/1.1",
        b"Host: www.example.com",
        b'sec-ch-ua: "Chromium";v="124"',
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
        b"Accept: */*",
        b"Accept-Encoding: gzip, deflate, br",
        b"Cookie: session=0123; _ga=GA1.2.3.4",
        VIA,
    ]


def test_hop_by_hop_fields_and_those_that_connection_names_end_here() -> None:
    head = parse(
        b"Connection: close, X-Own", b"X-Own: 1", b"Keep-Alive: 5", b"Proxy-Connection: x", b"TE: trailers",
        b"Proxy-Authorization: x", b"HTTP2-Settings: x", b"Upgrade: h2c", b"Proxy: http://x", b"Trailer: X",
        b"X-A: 1",
    )  # fmt: skip
    assert forwarded_lines(head) == [b"GET / HTTP/1.1", b"Host: a", b"Trailer: X", b"X-A: 1", VIA]


@pytest.mark.parametrize(
    ("sent", "forwarded"),
    [
        ([b"Content-Length: 007"], [b"Content-Length: 7"]),
        ([b"Content-Length: 0"], [b"Content-Length: 0"]),
        ([b"transfer-encoding: Chunked"], [b"Transfer-Encoding: chunked"]),
        ([b"Content-Length: 7", b"expect: 100-Continue"], [b"Content-Length: 7", b"Expect: 100-continue"]),
        ([b"Expect: 100-continue"], []),
        ([b"Connection: upgrade", b"upgrade: websocket"], [b"Connection: upgrade", b"Upgrade: websocket"]),
    ],
)
def test_framing_expectation_and_upgrade_are_written_anew(sent: list[bytes], forwarded: list[bytes]) -> None:
    assert forwarded_lines(parse(*sent)) == [b"GET / HTTP/1.1", b"Host: a", *forwarded, VIA]


def test_what_an_untrusted_peer_forwards_is_discarded() -> None:
    head = parse(
        b"X-Forwarded-For: 9.9.9.9", b"x-forwarded-proto: https", b"X-Forwarded-Host: evil",
        b"X-Forwarded-User: root", b"Forwarded: for=9.9.9.9", b"X-Real-IP: 9.9.9.9", b"X-Request-Id: x",
        b"traceparent: x", b"tracestate: a=b",
    )  # fmt: skip
    assert forwarded_lines(head) == [b"GET / HTTP/1.1", b"Host: a", VIA]


def test_what_a_trusted_peer_forwards_goes_on() -> None:
    head = parse(
        b"X-Forwarded-For: 9.9.9.9", b"X-Forwarded-For: 2.2.2.2", b"X-Forwarded-Proto: HTTPS",
        b"X-Forwarded-Host: www", b"X-Forwarded-Port: 443", b"Forwarded: for=2.2.2.2", b"Via: 1.1 edge",
        b"X-Request-Id: id-1", b"traceparent: " + TRACE.encode(), b"tracestate: a=b",
    )  # fmt: skip
    assert forwarded_by(PROXY, head) == [
        b"GET / HTTP/1.1",
        b"Host: a",
        b"X-Forwarded-Port: 443",
        b"Forwarded: for=2.2.2.2",
        b"Via: 1.1 edge",
        b"tracestate: a=b",
        b"Via: 1.1 lbproc",
        b"X-Forwarded-For: 9.9.9.9, 2.2.2.2, 10.0.0.1",
        b"X-Forwarded-Host: www",
        b"X-Forwarded-Proto: https",
        b"X-Request-Id: id-1",
        b"traceparent: " + TRACE.encode(),
    ]


def test_odd_words_of_a_trusted_peer_are_replaced() -> None:
    head = parse(b"X-Forwarded-Proto: gopher", b"X-Forwarded-Host:", b"tracestate: a=b")
    lines = forwarded_by(PROXY, head)
    assert lines[2:6] == [
        VIA,
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Forwarded-Host: a",
        b"X-Forwarded-Proto: http",
    ]


def test_a_trusted_proxy_on_a_unix_socket_has_no_address_to_add() -> None:
    local = Forwarding("", "", "http", "id-1", TRACE)
    assert not [line for line in forwarded_by(local, parse()) if line.startswith(b"X-Forwarded-For")]
    local = Forwarding("2.2.2.2", "", "http", "id-1", TRACE)
    assert b"X-Forwarded-For: 2.2.2.2" in forwarded_by(local, parse(b"X-Forwarded-For: 2.2.2.2"))


def test_an_http10_request_becomes_http11_with_a_host() -> None:
    head = parse(line=b"GET /x HTTP/1.0", host=b"")
    assert forwarded_lines(head) == [b"GET /x HTTP/1.1", b"Host: ", b"Via: 1.0 lbproc"]
    assert forwarded_lines(head, b"10.0.0.9:80")[1] == b"Host: 10.0.0.9:80"
    assert not [line for line in forwarded_by(PROXY, head) if line.startswith(b"X-Forwarded-Host")]


def test_what_a_request_was_addressed_to_is_said_if_it_is_known() -> None:
    assert render_origin(parse(), "https") == (
        b"X-Forwarded-Host: a\r\nX-Forwarded-Proto: https\r\nX-Request-Id: "
    )
    addressed_to_nobody = parse(line=b"GET /x HTTP/1.0", host=b"")
    assert render_origin(addressed_to_nobody, "http") == b"X-Forwarded-Proto: http\r\nX-Request-Id: "


def rendered(
    *sent: bytes,
    line: bytes = b"HTTP/1.1 200 OK",
    method: bytes = b"GET",
    http10_client: bool = False,
    close: bool = False,
    body_dechunked: bool = False,
) -> list[bytes]:
    head = parse_answer(*sent, line=line, method=method)
    return lines_of(
        render_response(head, http10_client=http10_client, close=close, body_dechunked=body_dechunked)
    )


def test_a_servers_response_goes_on_without_hop_by_hop_fields() -> None:
    head = parse_response_head(SERVER_RESPONSE, b"GET")
    assert lines_of(render_response(head, http10_client=False, close=False, body_dechunked=False)) == [
        b"HTTP/1.1 200 OK",
        b"Server: nginx",
        b"Content-Type: text/html",
        b'ETag: "6592-264"',
        b"Content-Length: 612",
    ]
    assert rendered(
        b"Connection: close, X-Own", b"X-Own: 1", b"Keep-Alive: 5", b"Upgrade: h2", b"Proxy-Authenticate: x",
        b"Transfer-Encoding: chunked", b"Set-Cookie: a", b"Set-Cookie: b", line=b"HTTP/1.1 200",
    ) == [b"HTTP/1.1 200 ", b"Set-Cookie: a", b"Set-Cookie: b", b"Transfer-Encoding: chunked"]  # fmt: skip


def test_the_client_learns_whether_the_connection_stays() -> None:
    one = b"Content-Length: 1"
    assert rendered(one)[1:] == [one]
    assert rendered(one, close=True)[1:] == [one, b"Connection: close"]
    assert rendered(one, http10_client=True)[1:] == [one, b"Connection: keep-alive"]
    assert rendered(one, http10_client=True, close=True)[1:] == [one, b"Connection: close"]
    assert rendered()[1:] == [b"Connection: close"]  # ends by closing


def test_a_dechunked_body_ends_by_closing() -> None:
    lines = rendered(b"Transfer-Encoding: chunked", b"Trailer: X", http10_client=True, body_dechunked=True)
    assert lines[1:] == [b"Connection: close"]


def test_without_a_body_the_length_stays_where_it_means_something() -> None:
    five = b"Content-Length: 5"
    assert rendered(five, method=b"HEAD")[1:] == [five]
    assert rendered(five, line=b"HTTP/1.1 304 Not Modified")[1:] == [five]
    assert rendered(five, line=b"HTTP/1.1 204 No Content")[1:] == []
    assert rendered(b"Transfer-Encoding: chunked", method=b"HEAD")[1:] == []


def test_switching_protocols_and_upgrade_required() -> None:
    sent = (b"Connection: upgrade", b"Upgrade: websocket", b"X-A: 1")
    assert rendered(*sent, line=b"HTTP/1.1 101 Switching Protocols", close=True) == [
        b"HTTP/1.1 101 Switching Protocols",
        b"X-A: 1",
        b"Connection: upgrade",
        b"Upgrade: websocket",
    ]
    required = (b"Connection: upgrade", b"Upgrade: x/1", b"Content-Length: 0")
    line = b"HTTP/1.1 426 Upgrade Required"
    assert rendered(*required, line=line)[2:] == [b"Connection: upgrade", b"Upgrade: x/1"]
    assert rendered(*required, line=line, close=True)[2:] == [b"Connection: close, upgrade", b"Upgrade: x/1"]


def test_an_interim_response_has_neither_framing_nor_connection() -> None:
    head = parse_answer(
        b"Link: </a>", b"Content-Length: 5", b"Connection: X-B", b"X-B: 1", line=b"HTTP/1.1 103 Early Hints"
    )
    assert lines_of(render_interim(head)) == [b"HTTP/1.1 103 Early Hints", b"Link: </a>"]


@given(heads())
def test_every_accepted_request_reads_the_same_after_rendering(raw: bytes) -> None:
    try:
        head = parse_request_head(raw, HeadLimits(underscore="forward"))
    except Rejected:
        return
    sent = render_request_start(head, trusted=False, default_host=b"default") + b"\r\n"
    again = parse_request_head(sent, HeadLimits(underscore="forward"))
    assert (again.method, again.target, again.path, again.query) == (
        head.method,
        head.target,
        head.path,
        head.query,
    )
    assert (again.framing, again.host) == (head.framing, head.host or b"default")
    assert (again.upgrade, again.expects_continue) == (head.upgrade, head.expects_continue)
    assert again.keep_alive


@given(heads(of_responses=True))
def test_every_accepted_response_reads_the_same_after_rendering(raw: bytes) -> None:
    try:
        head = parse_response_head(raw, b"GET")
    except Rejected:
        return
    if head.status < 200 and head.status != 101:
        again = parse_response_head(render_interim(head), b"GET")
    else:
        again = parse_response_head(
            render_response(head, http10_client=False, close=False, body_dechunked=False), b"GET"
        )
    assert (again.status, again.reason, again.framing) == (head.status, head.reason, head.framing)
    assert again.upgrade == head.upgrade


def test_what_a_client_has_shown_is_told() -> None:
    assert render_certificate(ClientCertificate("CN=a", "DNS:a, DNS:b", "00ff", "a")) == (
        b"X-Client-Cert-Subject: CN=a\r\nX-Client-Cert-San: DNS:a, DNS:b\r\n"
        b"X-Client-Cert-Fingerprint: 00ff\r\n"
    )
    assert b"San" not in render_certificate(ClientCertificate("CN=a", "", "00ff", "a"))


@pytest.mark.parametrize("trusted", [False, True])
def test_nobodys_word_on_certificates_goes_on(trusted: bool) -> None:
    head = parse(
        b"X-Client-Cert-Subject: CN=root", b"x-client-cert-SAN: x", b"X-CLIENT-CERT-FINGERPRINT: x",
        b"X-Client-Cert-Other: kept",
    )  # fmt: skip
    lines = lines_of(render_request_start(head, trusted=trusted) + b"\r\n")
    assert lines == [b"GET / HTTP/1.1", b"Host: a", b"X-Client-Cert-Other: kept", VIA]
