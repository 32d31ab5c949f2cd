"""The one exception of the HTTP core."""

from __future__ import annotations

from lbproc.core.http.rejected import Rejected, bad_request, bad_response


def test_carries_status_cause_and_words() -> None:
    rejected = Rejected(414, "http_request_error", "too long")
    assert (rejected.status, rejected.cause, rejected.detail) == (414, "http_request_error", "too long")
    assert str(rejected) == "414 http_request_error: too long"


def test_a_bad_request_is_the_clients_and_a_bad_response_the_backends() -> None:
    assert (bad_request("x").status, bad_request("x").cause) == (400, "http_request_error")
    assert (bad_response("x").status, bad_response("x").cause) == (502, "http_protocol_error")
