"""What becomes of one exchange when something ends or fails: retried, answered, cut, or left.

Theory of operation
-------------------
An exchange is one request and its response, over one client connection and one backend connection::

    request   AWAITING ──head sent──▶ SENDING ──body sent──▶ SENT
    response  AWAITING ──head sent to the client──▶ BEGUN ──end of body──▶ DONE

The shell moves bytes and reports what happened; this module says what follows. It knows two rules that no
shell may break. Once a byte of the final response has gone to the client, nothing but the rest of that
response may follow, so a failure cuts the connection and truncation stays visible (RFC 9112 section 8). And a
request is sent a second time only if the first can have had no effect: nothing was sent at all, or the method
is idempotent, nothing of its body was used up, and the connection was an idle one whose end crossed the
request (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1).

What a pool allows beyond that, and within which budget, is ``core.retry``'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lbproc.core.http.replies import Reply

IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
"""Methods that may be sent again when the first attempt's fate is unknown (RFC 9110 section 9.2.2)."""


class Fault(Enum):
    """What went wrong, from the side it came from.

    The value is (status, RFC 9209 error type, words for people).
    """

    CONNECT_REFUSED = (502, "connection_refused", "the backend refused the connection")
    CONNECT_TIMEOUT = (504, "connection_timeout", "the backend did not accept the connection in time")
    CONNECT_UNREACHABLE = (502, "destination_ip_unroutable", "the backend cannot be reached")
    CONNECT_FAILED = (502, "destination_unavailable", "the connection to the backend failed")
    TLS_TIMEOUT = (504, "connection_timeout", "the TLS handshake with the backend was not over in time")
    TLS_ENDED = (502, "connection_terminated", "the backend closed the connection during the TLS handshake")
    TLS_PROTOCOL = (502, "tls_protocol_error", "there is no TLS connection to the backend")
    TLS_CERTIFICATE = (502, "tls_certificate_error", "the certificate of the backend is not right")
    TLS_ALERT = (502, "tls_alert_received", "the backend refused the TLS connection")
    BACKEND_LOST = (502, "connection_terminated", "the backend closed the connection before it answered")
    BACKEND_DOWN = (502, "destination_unavailable", "the backend was taken out of use before it answered")
    BACKEND_STALLED = (504, "connection_write_timeout", "the backend stopped reading the request")
    RESPONSE_TIMEOUT = (504, "http_response_timeout", "the backend did not answer in time")
    RESPONSE_MALFORMED = (502, "http_protocol_error", "the backend's answer is not valid HTTP")
    RESPONSE_INCOMPLETE = (502, "http_response_incomplete", "the backend's answer broke off")
    RESPONSE_STALLED = (504, "connection_read_timeout", "the backend's answer stopped coming")
    REQUEST_MALFORMED = (400, "http_request_error", "the request body is not valid HTTP")
    REQUEST_TOO_LARGE = (413, "http_request_error", "the request body is larger than this server takes")
    REQUEST_TIMEOUT = (408, "http_request_error", "the request did not arrive in time")
    OUT_OF_SOCKETS = (503, "proxy_internal_error", "this server can open no more connections")
    OUT_OF_PLACES = (503, "proxy_internal_error", "this server has as many requests under way as it can")
    NO_BACKEND = (503, "destination_unavailable", "no backend is available")
    ALL_FULL = (503, "connection_limit_reached", "every backend is at its limit")
    MISDIRECTED = (421, "http_request_error", "this connection is for other hosts")
    NO_ROUTE = (404, "destination_not_found", "no route matches the request")
    CLIENT_GONE = (499, "", "the client left before the response was complete")
    CLIENT_STALLED = (499, "", "the client stopped reading the response")

    @property
    def status(self) -> int:
        """The status that is answered, or only logged when it is 499."""
        return self.value[0]

    @property
    def cause(self) -> str:
        """The RFC 9209 error type, and the ``cause`` of the access log."""
        return self.value[1] or self.name.lower()

    def reply(self, detail: str = "") -> Reply:
        """The answer to the client. Overload tells it when to come back (RFC 9110 section 10.2.3).

        Args:
            detail: what is known beyond that.
        """
        status, cause, words = self.value
        if detail:
            words = f"{words}: {detail}"
        return Reply(status, cause, words, retry_after=1 if status == 503 else None)


CONNECT_FAULTS = frozenset(
    {
        Fault.CONNECT_REFUSED,
        Fault.CONNECT_TIMEOUT,
        Fault.CONNECT_UNREACHABLE,
        Fault.CONNECT_FAILED,
        Fault.TLS_TIMEOUT,
        Fault.TLS_ENDED,
        Fault.TLS_PROTOCOL,
        Fault.TLS_CERTIFICATE,
        Fault.TLS_ALERT,
    }
)
"""There is no connection, so nothing was sent."""

_UNSENT_FAULTS = frozenset({Fault.BACKEND_LOST, Fault.BACKEND_DOWN})
"""What may end a connection that stands before anything was sent."""

_CLIENT_FAULTS = frozenset({Fault.CLIENT_GONE, Fault.CLIENT_STALLED})
_BACKEND_FAULTS = CONNECT_FAULTS | {
    Fault.BACKEND_LOST,
    Fault.BACKEND_STALLED,
    Fault.RESPONSE_TIMEOUT,
    Fault.RESPONSE_MALFORMED,
    Fault.RESPONSE_INCOMPLETE,
    Fault.RESPONSE_STALLED,
}


class Verdict(Enum):
    """What the shell does about a fault."""

    REDISPATCH = auto()
    """Nothing was sent: pick another backend."""
    RETRY = auto()
    """The idle connection was stale: send the request again on a fresh one to the same backend."""
    REPLY = auto()
    """Answer the client with the fault's reply."""
    CUT = auto()
    """The response has begun: reset the client connection, so that truncation shows."""
    LEAVE = auto()
    """The client is gone and has received nothing: there is nobody to answer."""


@dataclass(slots=True)
class Progress:
    """How far one exchange has come, as far as decisions depend on it.

    The shell sets the fields as things happen.
    """

    idempotent: bool
    """The method may be sent twice."""
    connection_reused: bool = False
    """The backend connection had served an exchange before."""
    request_sent: bool = False
    """The head, and all of the body, have been handed to the kernel."""
    body_consumed: bool = False
    """Bytes of the request body left the client's buffer and cannot be sent again."""
    backend_answered: bool = False
    """At least one byte came from the backend."""
    untouched: bool = False
    """The last attempt failed before a byte of the request was handed to the kernel."""
    hinted: bool = False
    """An interim response other than a 100 has gone to the client."""
    response_begun: bool = False
    """At least one byte of the final response may have gone to the client."""

    def judge(self, fault: Fault) -> Verdict:
        """Says what follows from a fault."""
        if self.response_begun:
            return Verdict.CUT
        if fault in _CLIENT_FAULTS:
            return Verdict.LEAVE
        if fault in CONNECT_FAULTS:
            return Verdict.REDISPATCH
        if fault is Fault.BACKEND_LOST and self._may_send_again():
            return Verdict.RETRY
        if self.untouched and not self.body_consumed and fault in _UNSENT_FAULTS:
            return Verdict.REDISPATCH
        return Verdict.REPLY

    def rewind(self) -> None:
        """The request is sent from its beginning once more; ``request_sent`` is reset when that begins."""
        self.body_consumed = self.backend_answered = self.untouched = False

    def _may_send_again(self) -> bool:
        return (
            self.connection_reused
            and (self.idempotent or self.untouched)
            and not self.body_consumed
            and not self.backend_answered
        )


def is_backend_fault(fault: Fault) -> bool:
    """Whether the backend is to blame, and its failure counter grows."""
    return fault in _BACKEND_FAULTS


def keeps_client(*, client_wants: bool, request_sent: bool, delimited: bool, draining: bool) -> bool:
    """Whether the client connection serves another request after this response.

    Decided when the response head is rendered, because it is announced there.

    Args:
        client_wants: the request allows it (RFC 9112 section 9.3).
        request_sent: the request body was read to its end; else what follows it cannot be told from it.
        delimited: the response shows its own end, by length or chunks.
        draining: this worker is to finish.
    """
    return client_wants and request_sent and delimited and not draining


def keeps_backend(*, backend_wants: bool, request_sent: bool, delimited: bool, excess: bool) -> bool:
    """Whether the backend connection may serve another exchange.

    Bytes after the end of a response belong to nobody: such a connection is closed, so that they never reach
    another client (response splitting).
    """
    return backend_wants and request_sent and delimited and not excess
