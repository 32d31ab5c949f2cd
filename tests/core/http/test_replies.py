"""The proxy's own answers."""

from __future__ import annotations

import json

import h11
import pytest

from lbproc.core.http.rejected import bad_request
from lbproc.core.http.replies import Reply, prefers_json, redirect_to_https, render_reply

REFUSED = Reply(502, "connection_refused", "the backend refused the connection")


def test_a_reply_in_full() -> None:
    rendered = render_reply(REFUSED, accept=b"*/*", close=True, head_only=False, request_id="id-1")
    assert rendered == (
        b"HTTP/1.1 502 Bad Gateway\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 69\r\n"
        b"Cache-Control: no-store\r\n"
        b'Proxy-Status: lbproc; error=connection_refused; details="the backend refused the connection"\r\n'
        b"X-Request-Id: id-1\r\n"
        b"Connection: close\r\n"
        b"\r\n"
        b"502 Bad Gateway: the backend refused the connection\n"
        b"request id: id-1\n"
    )


def test_json_for_clients_that_prefer_it() -> None:
    reply = Reply(503, "connection_limit_reached", "every backend is at its limit", retry_after=1)
    rendered = render_reply(reply, accept=b"application/json", close=False, head_only=False, request_id="")
    head, _, body = rendered.partition(b"\r\n\r\n")
    assert json.loads(body) == {
        "error": {
            "status": 503,
            "cause": "connection_limit_reached",
            "detail": "every backend is at its limit",
            "request_id": "",
        }
    }
    assert b"\r\nRetry-After: 1" in head
    assert b"X-Request-Id" not in head
    assert b"Connection" not in head


def test_head_gets_the_length_without_the_body() -> None:
    whole = render_reply(REFUSED, accept=b"", close=False, head_only=False, request_id="")
    assert (
        render_reply(REFUSED, accept=b"", close=False, head_only=True, request_id="")
        == (whole[: whole.index(b"\r\n\r\n") + 4])
    )


@pytest.mark.parametrize(
    "status", [400, 404, 408, 413, 414, 417, 421, 429, 431, 499, 501, 502, 503, 504, 505, 598]
)
def test_every_status_is_valid_http_for_h11(status: int) -> None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(
        render_reply(Reply(status, "x", "y"), accept=b"", close=False, head_only=False, request_id="z")
    )
    response, data, end = connection.next_event(), connection.next_event(), connection.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == status
    assert isinstance(data, h11.Data)
    assert isinstance(end, h11.EndOfMessage)


def test_details_are_a_string_of_structured_fields() -> None:
    rendered = render_reply(
        Reply(400, "x", 'a "b" \\ \u00e9\n'), accept=b"", close=False, head_only=True, request_id=""
    )
    assert b'details="a \\"b\\" \\\\ ??"\r\n' in rendered


def test_a_rejection_becomes_a_reply() -> None:
    assert Reply.from_rejected(bad_request("x")) == Reply(400, "http_request_error", "x", None)


@pytest.mark.parametrize(
    ("accept", "json_wanted"),
    [
        (b"", False),
        (b"*/*", False),
        (b"application/json", True),
        (b"application/json, text/plain, */*", True),
        (b"application/vnd.api+json", True),
        (b"text/html, application/json", True),
        (b"text/html,application/json;q=0.9", False),
        (b"text/html;q=0.5 , Application/JSON; q=0.8", True),
        (b"application/json;q=0", False),
        (b"application/json; q=0.000", False),
        (b"application/json;q=x", True),
        (b"text/html,application/xhtml+xml,*/*;q=0.8", False),
        (b",;,", False),
        (b"\xff" * 5000, False),
    ],
)
def test_who_prefers_json(accept: bytes, json_wanted: bool) -> None:
    assert prefers_json(accept) is json_wanted


@pytest.mark.parametrize(
    ("hostname", "port", "target", "location"),
    [
        ("a.test", 443, b"/x?y", b"https://a.test/x?y"),
        ("a.test", 8443, b"/", b"https://a.test:8443/"),
        ("[::1]", 443, b"*", b"https://[::1]"),
    ],
)
def test_a_redirect_says_where_and_is_no_error(
    hostname: str, port: int, target: bytes, location: bytes
) -> None:
    rendered = render_reply(
        redirect_to_https(hostname, port, target),
        accept=b"application/json",
        close=False,
        head_only=False,
        request_id="",
    )
    assert rendered == (
        b"HTTP/1.1 308 Permanent Redirect\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 48\r\n"
        b"Cache-Control: no-store\r\n"
        b"Location: " + location + b"\r\n\r\n"
        b"308 Permanent Redirect: this is served by HTTPS\n"
    )
