"""Agreement with h11."""

from __future__ import annotations

import pytest

from lbproc.core.http.meaning import confirm_request, confirm_response
from tests.core.http.messages import refused, request, response


def test_agrees_on_heads_that_are_read_alike() -> None:
    raw = request(b"Transfer-Encoding: CHUNKED")
    confirm_request(raw, b"GET", b"/", b"1", [(b"Host", b"a"), (b"Transfer-Encoding", b"CHUNKED")])
    confirm_response(response(b"X: a"), 200, b"1", [(b"X", b"a")])


@pytest.mark.parametrize("status", [100, 101, 103, 200, 404])
def test_agrees_on_interim_and_final_responses(status: int) -> None:
    confirm_response(response(b"X: a", line=b"HTTP/1.1 %d x" % status), status, b"1", [(b"X", b"a")])


@pytest.mark.parametrize(
    ("method", "target", "minor", "fields"),
    [
        (b"PUT", b"/", b"1", [(b"Host", b"a")]),
        (b"GET", b"/x", b"1", [(b"Host", b"a")]),
        (b"GET", b"/", b"0", [(b"Host", b"a")]),
        (b"GET", b"/", b"1", []),
        (b"GET", b"/", b"1", [(b"host", b"a")]),
    ],
)
def test_any_difference_in_a_request_is_refused(
    method: bytes, target: bytes, minor: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    with refused(400, "two ways"):
        confirm_request(request(), method, target, minor, fields)


@pytest.mark.parametrize(
    ("status", "minor", "fields"),
    [(201, b"1", [(b"X", b"a")]), (200, b"0", [(b"X", b"a")]), (200, b"1", [(b"X", b"b")])],
)
def test_any_difference_in_a_response_is_refused(
    status: int, minor: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    with refused(502, "two ways"):
        confirm_response(response(b"X: a"), status, minor, fields)


def test_a_head_that_h11_refuses_or_finds_unfinished_is_refused() -> None:
    with refused(400, "not valid"):
        confirm_request(request(b"Host: b"), b"GET", b"/", b"1", [])
    with refused(400, "two ways"):
        confirm_request(b"GET / HTTP/1.1\r\n", b"GET", b"/", b"1", [])
    with refused(502, "not valid"):
        confirm_response(response(b"Content-Length: x"), 200, b"1", [])
    with refused(502, "two ways"):
        confirm_response(b"HTTP/1.1 200 OK\r\n", 200, b"1", [])
