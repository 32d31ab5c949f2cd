"""The decisions about one exchange, exhaustively."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from lbproc.core.http.exchange import (
    CONNECT_FAULTS,
    Fault,
    Progress,
    Verdict,
    is_backend_fault,
    keeps_backend,
    keeps_client,
)

FLAGS = (
    "idempotent",
    "connection_reused",
    "request_sent",
    "body_consumed",
    "backend_answered",
    "untouched",
    "response_begun",
)
ALL_PROGRESS = [
    Progress(**dict(zip(FLAGS, values, strict=True))) for values in product((False, True), repeat=len(FLAGS))
]


@pytest.mark.parametrize("fault", list(Fault))
def test_nothing_follows_a_response_that_has_begun(fault: Fault) -> None:
    for progress in ALL_PROGRESS:
        verdict = progress.judge(fault)
        if progress.response_begun:
            assert verdict is Verdict.CUT
        else:
            assert verdict is not Verdict.CUT


@pytest.mark.parametrize("fault", list(Fault))
def test_a_request_is_sent_twice_only_if_the_first_can_have_had_no_effect(fault: Fault) -> None:
    for progress in ALL_PROGRESS:
        verdict = progress.judge(fault)
        if verdict is Verdict.RETRY:
            assert progress.idempotent or progress.untouched
            assert progress.connection_reused
            assert not progress.body_consumed
            assert not progress.backend_answered
        if verdict is Verdict.REDISPATCH:
            assert fault in CONNECT_FAULTS or (progress.untouched and not progress.body_consumed)


def test_a_connection_that_breaks_before_anything_was_sent_is_like_one_that_failed() -> None:
    post = Progress(idempotent=False, untouched=True)
    assert post.judge(Fault.BACKEND_LOST) is Verdict.REDISPATCH
    assert post.judge(Fault.BACKEND_DOWN) is Verdict.REDISPATCH
    assert post.judge(Fault.RESPONSE_TIMEOUT) is Verdict.REPLY
    assert replace(post, connection_reused=True).judge(Fault.BACKEND_LOST) is Verdict.RETRY
    assert replace(post, untouched=False).judge(Fault.BACKEND_DOWN) is Verdict.REPLY


def test_a_request_that_is_rewound_has_everything_before_it() -> None:
    progress = Progress(
        idempotent=True, body_consumed=True, backend_answered=True, untouched=True, hinted=True
    )
    progress.rewind()
    assert progress == Progress(idempotent=True, hinted=True)


def test_stale_connection_is_retried_and_each_reason_against_it_counts() -> None:
    stale = Progress(idempotent=True, connection_reused=True)
    assert stale.judge(Fault.BACKEND_LOST) is Verdict.RETRY
    for change in (
        {"idempotent": False},
        {"connection_reused": False},
        {"body_consumed": True},
        {"backend_answered": True},
    ):
        assert replace(stale, **change).judge(Fault.BACKEND_LOST) is Verdict.REPLY
    assert stale.judge(Fault.RESPONSE_TIMEOUT) is Verdict.REPLY


@pytest.mark.parametrize(
    ("fault", "status", "cause"),
    [
        (Fault.TLS_CERTIFICATE, 502, "tls_certificate_error"),
        (Fault.TLS_ALERT, 502, "tls_alert_received"),
        (Fault.TLS_PROTOCOL, 502, "tls_protocol_error"),
        (Fault.TLS_ENDED, 502, "connection_terminated"),
        (Fault.TLS_TIMEOUT, 504, "connection_timeout"),
    ],
)
def test_a_handshake_that_fails_is_a_connect_that_fails(fault: Fault, status: int, cause: str) -> None:
    assert Progress(idempotent=False, body_consumed=True).judge(fault) is Verdict.REDISPATCH
    assert is_backend_fault(fault)
    reply = fault.reply("certificate has expired")
    assert (reply.status, reply.cause) == (status, cause)
    assert reply.detail.endswith(": certificate has expired")


@pytest.mark.parametrize("fault", list(Fault))
def test_every_fault_has_a_status_a_cause_and_words(fault: Fault) -> None:
    reply = fault.reply()
    assert 400 <= fault.status <= 599
    assert fault.cause
    assert reply.detail
    assert (reply.retry_after is not None) == (fault.status == 503)


def test_clients_are_not_blamed_on_backends() -> None:
    assert not is_backend_fault(Fault.CLIENT_GONE)
    assert not is_backend_fault(Fault.REQUEST_MALFORMED)
    assert not is_backend_fault(Fault.ALL_FULL)
    assert not is_backend_fault(Fault.BACKEND_DOWN)  # it was lbproc that ended it
    assert is_backend_fault(Fault.CONNECT_REFUSED)
    assert is_backend_fault(Fault.RESPONSE_INCOMPLETE)


def test_client_connection_is_kept_only_if_nothing_speaks_against_it() -> None:
    for wants, sent, delimited, draining in product((False, True), repeat=4):
        kept = keeps_client(client_wants=wants, request_sent=sent, delimited=delimited, draining=draining)
        assert kept == (wants and sent and delimited and not draining)


def test_backend_connection_is_kept_only_if_nothing_speaks_against_it() -> None:
    for wants, sent, delimited, excess in product((False, True), repeat=4):
        kept = keeps_backend(backend_wants=wants, request_sent=sent, delimited=delimited, excess=excess)
        assert kept == (wants and sent and delimited and not excess)
